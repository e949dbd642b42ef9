//! What deciding costs a controller of 10,000 nodes and 5,000 VMs, and one as big as a zone of
//! OpenNebula may be: CPU per tick
//! (fold an observation of the provider, fold an observation of Slurm, plan, lint) and peak
//! memory. Run by `cargo bench -p thiao-sim`; a plain program, no framework.

#![allow(
    clippy::unwrap_used,
    reason = "the worlds are made here, of names known to be good"
)]

use std::sync::Arc;
use thiao_core::ids::*;
use thiao_core::lint::lint;
use thiao_core::planner::plan;
use thiao_core::policy::Policy;
use thiao_core::table::Table;
use thiao_core::view::*;
use thiao_core::vm::*;
use thiao_core::world::*;

/// How many there are of each.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    /// VMs that are up, each with a job.
    vms: usize,
    /// Nodes that are asked for beside them, all at once.
    asked: usize,
    hosts: usize,
}

const SIZES: [Size; 2] = [
    Size {
        nodes: 10_000,
        vms: 5_000,
        asked: 5_000,
        hosts: 100,
    },
    // OpenNebula's documented most for a zone.
    Size {
        nodes: 50_000,
        vms: 20_000,
        asked: 5_000,
        hosts: 1_250,
    },
];

const ROUNDS: usize = 15;
/// A prime that divides no number of VMs.
const STRIDE: usize = 7_919;
const OVERHEAD_MB: u64 = 140;
const MEMORY_MB: u64 = 2_000;

/// What the goal in the design gives a whole tick, of which this is a part.
const GOAL_MS: f64 = 50.0;

fn main() {
    SIZES.iter().for_each(days);
}

fn days(size: &Size) {
    let Size {
        nodes,
        vms,
        asked,
        hosts,
    } = size;
    println!("{nodes} nodes, {vms} VMs on {hosts} hosts; CPU ms per tick, median (worst) of {ROUNDS}");
    println!(
        "{:<44} {:>14} {:>14} {:>14} {:>14} {:>14}  steps",
        "day", "see provider", "see Slurm", "plan", "lint", "all"
    );
    let quiet = Day::quiet(*size);
    measure("quiet: all VMs up, each with a job", &quiet);
    measure(
        &format!("storm: {asked} more nodes asked for at once"),
        &quiet.storm(),
    );
    measure("disaster: all VMs dead under their jobs", &quiet.disaster());
    measure(&format!("crowd: {vms} strays"), &quiet.strays());
    measure(&format!("full: {asked} nodes wait for capacity"), &quiet.full());
    println!("peak memory until here: {} MiB", peak_mb());
}

/// A world before a tick, and the observations that the tick takes.
#[derive(Clone)]
struct Day {
    size: Size,
    world: World,
    provider: ProviderView,
    slurm: SlurmView,
}

impl Day {
    fn quiet(size: Size) -> Self {
        let now = Time(1_000_000_000);
        let cluster = ClusterName::new("big").unwrap();
        let shape = Shape {
            cpus: 2,
            memory_mb: MEMORY_MB,
            share_percent: 100,
        };
        let spec = NodeSpec {
            nodeset: NodesetName::new("n").unwrap(),
            shape,
            mode: Mode::PowerSaving,
        };
        let names: Vec<NodeName> = (0..size.nodes).map(node).collect();
        let hosts: Vec<HostView> = (0..size.hosts)
            .map(|i| HostView {
                name: host(i),
                cpu_percent: 40_000,
                memory_mb: 110 * (MEMORY_MB + OVERHEAD_MB),
                gpus: None,
                usable: true,
                closed: None,
                not_for: Default::default(),
                load: None,
            })
            .collect();
        let vms: Vec<VmView> = (0..size.vms)
            .map(|i| VmView {
                id: vm_id(i),
                tag: Some(VmTag {
                    cluster: cluster.clone(),
                    node: node(i),
                    generation: Generation(3),
                }),
                host: Some(host(i % size.hosts)),
                memory_mb: MEMORY_MB + OVERHEAD_MB,
                cpu_percent: 200,
                state: VmState::Ready,
            })
            .collect();
        let records: Table<NodeName, NodeRecord> = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                (
                    name.clone(),
                    if i < size.vms {
                        up(i, i % size.hosts, now)
                    } else {
                        idle(now)
                    },
                )
            })
            .collect();
        // As OpenNebula lists them: by their age, in whatever order their nodes came up.
        let vms = (0..size.vms)
            .map(|i| vms[i * STRIDE % size.vms].clone())
            .collect();
        let provider = ProviderView { hosts, vms };
        let slurm = SlurmView {
            nodes: names
                .iter()
                .enumerate()
                .map(|(i, name)| (name.clone(), slurm_node(i < size.vms, false)))
                .collect(),
            jobs: (0..size.vms).map(|i| (job_id(i), job(i))).collect(),
            ..SlurmView::default()
        };
        let policy = Policy {
            max_starting: size.asked,
            max_vms: size.nodes,
            overhead_mb: OVERHEAD_MB,
            ..Policy::default()
        };
        let specs = names.into_iter().map(|name| (name, spec.clone())).collect();
        let world = World {
            records,
            slurm: Some(Arc::new(slurm.clone())),
            provider: Some(Arc::new(provider.clone())),
            ..World::new(now, cluster, policy, specs)
        };
        Self {
            size,
            world,
            provider,
            slurm,
        }
    }

    fn storm(&self) -> Self {
        let mut day = self.clone();
        let Size { vms, asked, .. } = day.size;
        for i in vms..vms + asked {
            let since = day.world.now;
            day.world.records.get_mut(&node(i)).unwrap().desired = Desired::Up { since };
            day.slurm.nodes.insert(node(i), slurm_node(true, true));
        }
        day
    }

    fn disaster(&self) -> Self {
        let mut day = self.clone();
        for vm in &mut day.provider.vms {
            vm.state = VmState::Dead("power failure".into());
        }
        day
    }

    fn strays(&self) -> Self {
        let mut day = self.clone();
        for record in day.world.records.values_mut() {
            record.vm = None;
            record.desired = Desired::Unasked;
            record.generation = Generation(9);
        }
        for (i, seen) in day.slurm.nodes.values_mut().enumerate() {
            *seen = slurm_node(i >= self.size.nodes, false);
        }
        let first = Time(day.world.now.0 - 1_000_000);
        day.world.strays = (0..self.size.vms).map(|i| (vm_id(i), first)).collect();
        day
    }

    fn full(&self) -> Self {
        let mut day = self.storm();
        let each = day.size.vms.div_ceil(day.size.hosts) as u64;
        for host in &mut day.provider.hosts {
            host.memory_mb = each * (MEMORY_MB + OVERHEAD_MB);
        }
        day
    }
}

fn node(i: usize) -> NodeName {
    NodeName::new(&format!("node{i:05}")).unwrap()
}

fn host(i: usize) -> HostName {
    HostName::new(&format!("host{i:03}")).unwrap()
}

fn vm_id(i: usize) -> VmId {
    VmId::new(&format!("node{i:05}.3")).unwrap()
}

fn job_id(i: usize) -> JobId {
    JobId(1 + u32::try_from(i).unwrap())
}

fn up(i: usize, on: usize, now: Time) -> NodeRecord {
    let since = Time(now.0 - 500_000);
    NodeRecord {
        desired: Desired::Up { since },
        generation: Generation(3),
        vm: Some(VmRecord {
            generation: Generation(3),
            id: Some(vm_id(i)),
            host: Some(host(on)),
            spec: None,
            life: Life::Running,
            registration: Registration::Registered,
            asked: since,
            since,
            aside: Default::default(),
            missing_since: None,
            kept: None,
            starts: Default::default(),
        }),
        jobs: vec![job_id(i)],
        acted: since,
        ..NodeRecord::default()
    }
}

fn idle(now: Time) -> NodeRecord {
    let since = Time(now.0 - 500_000);
    NodeRecord {
        desired: Desired::Down { since },
        ..NodeRecord::default()
    }
}

fn slurm_node(busy: bool, rising: bool) -> SlurmNode {
    SlurmNode {
        base: if busy {
            BaseState::Allocated
        } else {
            BaseState::Idle
        },
        flags: NodeFlags {
            cloud: true,
            powered_down: !busy,
            powering_up: rising,
            ..NodeFlags::default()
        },
        reason: None,
        alloc: None,
    }
}

fn job(i: usize) -> SlurmJob {
    SlurmJob {
        id: job_id(i),
        name: "simulate".into(),
        uid: 1000,
        user: "somebody".into(),
        partition: "vm".into(),
        state: JobState::Running,
        reason: JobReason::default(),
        nodes: vec![node(i)],
        node_count: 1,
        submit: Some(Time(1)),
        start: Some(Time(2)),
        ..SlurmJob::new(job_id(i))
    }
}

fn measure(name: &str, day: &Day) {
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut steps = 0;
    for _ in 0..ROUNDS {
        let Day {
            mut world,
            provider,
            slurm,
            size: _,
        } = day.clone();
        let began = world.now;
        world.now = world.now + Millis(100);
        let start = cpu_ms();
        world.see_provider(provider, began);
        let seen_provider = cpu_ms();
        world.see_slurm(slurm, began);
        let seen_slurm = cpu_ms();
        let plan = plan(&world);
        let planned = cpu_ms();
        let (good, refused) = lint(&world, &plan);
        let end = cpu_ms();
        assert!(refused.is_empty(), "{:?}", refused[0]);
        steps = good.len();
        let spans = [
            seen_provider - start,
            seen_slurm - seen_provider,
            planned - seen_slurm,
            end - planned,
            end - start,
        ];
        for (all, span) in times.iter_mut().zip(spans) {
            all.push(span);
        }
    }
    let mut line = format!("{name:<44}");
    for all in &mut times {
        all.sort_by(f64::total_cmp);
        line += &format!(" {:>6.2} ({:>5.1})", all[ROUNDS / 2], all[ROUNDS - 1]);
    }
    let met = if times[4][ROUNDS / 2] < GOAL_MS {
        ""
    } else {
        "  ABOVE THE GOAL"
    };
    println!("{line}  {steps}{met}");
}

/// CPU time of this thread so far, in ms.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The most memory that this process ever had, in MiB (`VmHWM`).
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}
