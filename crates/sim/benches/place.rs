//! How well and how quickly the VMs of a zone of OpenNebula's size are placed: 1,250 hosts of three kinds,
//! beside the best that there can be. Run by `cargo bench -p thiao-sim --bench place`; a plain program.
//!
//! The bound is one host as big as all: no way of placing does better. *Best fit* is the way that fills one host
//! after the other; Thiao's is to leave the most free, relatively, so that boots spread.

#![allow(
    clippy::unwrap_used,
    reason = "the worlds are made here, of names known to be good"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use thiao_core::ids::{ClusterName, HostName, Time};
use thiao_core::place::Ledger;
use thiao_core::policy::Policy;
use thiao_core::resources::Resources;
use thiao_core::table::Table;
use thiao_core::view::{HostView, ProviderView, Shape};
use thiao_core::world::World;
use thiao_sim::rng::Rng;

const HOSTS: usize = 1_250;
/// VMs that wait: more than there is capacity for.
const VMS: usize = 40_000;
/// Cores, and MiB, of the kinds of hosts.
const KINDS: [(u32, u64); 3] = [(32, 128_000), (48, 192_000), (64, 512_000)];
/// Most kinds of jobs: cores, and MiB for each of them.
const CORES: [u32; 6] = [1, 1, 2, 4, 8, 16];
const MB_PER_CORE: [u64; 4] = [1_000, 2_000, 4_000, 12_000];
const SEEDS: u64 = 5;

/// One way to choose a host.
#[derive(Debug, Clone, Copy)]
enum Way {
    Thiao,
    BestFit,
}

/// What came of placing VMs in order.
#[derive(Debug, Default)]
struct Placed {
    /// What the VMs have that got a place, and how many hosts carry any.
    used: Resources,
    hosts: usize,
    /// Of the memory that is left, what is on hosts without a free core.
    stranded_mb: u64,
    ms: f64,
}

fn main() {
    println!("{HOSTS} hosts of {} kinds; medians of {SEEDS} seeds", KINDS.len());
    for (what, share) in [("half full", 50), ("until none fits", 1_000)] {
        for way in [Way::Thiao, Way::BestFit] {
            let mut all: Vec<(f64, f64, usize, usize, f64, f64)> =
                (1..=SEEDS).map(|seed| figures(way, seed, share)).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (cores, memory, hosts, fewest, stranded, us) = all[all.len() / 2];
            println!(
                "{what}, {way:?}: {cores:.1} % of cores, {memory:.1} % of memory; {hosts} hosts, bound {fewest}; \
                 {stranded:.1} % of memory stranded; {us:.1} µs a VM"
            );
        }
    }
}

/// Cores and memory placed, in percent of the bound's; hosts used, and the fewest that could do; memory stranded
/// in percent of all; CPU for each VM.
fn figures(way: Way, seed: u64, share: u64) -> (f64, f64, usize, usize, f64, f64) {
    let mut rng = Rng::new(seed);
    let hosts: Vec<HostView> = (0..HOSTS).map(|i| host(i, &mut rng)).collect();
    let policy = Policy::default();
    let most: Vec<Resources> = hosts
        .iter()
        .map(|host| Resources::of_host(host, &policy))
        .collect();
    let all = most.iter().copied().fold(Resources::default(), Resources::and);
    let vms: Vec<Resources> = (0..VMS).map(|_| vm(&mut rng, &policy)).collect();
    // As many as the share says of what one host as big as all would carry.
    let most_cores = all.cpu_percent * share / 100;
    let wanted: Vec<Resources> = vms
        .iter()
        .scan(0, |cores, vm| {
            *cores += vm.cpu_percent;
            (*cores <= most_cores).then_some(*vm)
        })
        .collect();
    let bound = one_big_host(&wanted, all);
    let placed = match way {
        Way::Thiao => by_thiao(&hosts, &most, &wanted, policy),
        Way::BestFit => by_best_fit(&most, &wanted),
    };
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole as f64;
    (
        percent(placed.used.cpu_percent, bound.cpu_percent),
        percent(placed.used.memory_mb, bound.memory_mb),
        placed.hosts,
        fewest(&most, &placed.used),
        percent(placed.stranded_mb, all.memory_mb),
        placed.ms * 1_000.0 / wanted.len() as f64,
    )
}

fn host(i: usize, rng: &mut Rng) -> HostView {
    let (cores, memory_mb) = *rng.pick(&KINDS).unwrap();
    HostView {
        name: HostName::new(&format!("h{i:04}")).unwrap(),
        cpu_percent: cores * 100,
        memory_mb,
        gpus: None,
        usable: true,
        closed: None,
        load: None,
        not_for: Arc::default(),
    }
}

fn vm(rng: &mut Rng, policy: &Policy) -> Resources {
    let cpus = *rng.pick(&CORES).unwrap();
    let shape = Shape {
        cpus,
        memory_mb: u64::from(cpus) * rng.pick(&MB_PER_CORE).unwrap(),
        share_percent: 100,
    };
    Resources::of_shape(&shape, policy)
}

/// What one host as big as all carries of them, in their order.
fn one_big_host(vms: &[Resources], most: Resources) -> Resources {
    vms.iter().fold(Resources::default(), |used, vm| {
        let more = used.and(*vm);
        let fits = more.cpu_percent <= most.cpu_percent && more.memory_mb <= most.memory_mb;
        if fits { more } else { used }
    })
}

/// The fewest hosts that have as much together, the largest first.
fn fewest(most: &[Resources], used: &Resources) -> usize {
    let count = |of: fn(&Resources) -> u64| {
        let mut sizes: Vec<u64> = most.iter().map(of).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let sums = sizes.iter().scan(0, |sum, size| {
            *sum += size;
            Some(*sum)
        });
        sums.take_while(|sum| *sum < of(used)).count() + 1
    };
    count(|r| r.cpu_percent).max(count(|r| r.memory_mb))
}

fn by_thiao(hosts: &[HostView], most: &[Resources], vms: &[Resources], policy: Policy) -> Placed {
    let cluster = ClusterName::new("zone").unwrap();
    let world = World::new(Time(1), cluster, policy, Table::new());
    let view = ProviderView {
        hosts: hosts.to_vec(),
        vms: Vec::new(),
    };
    let mut ledger = Ledger::new(&world, &view);
    let mut used = vec![Resources::default(); most.len()];
    let start = cpu_ms();
    for vm in vms {
        if let Ok(host) = ledger.choose(vm, &[], &BTreeSet::new()) {
            ledger.take(&host, vm);
            let at: usize = host.as_str()[1..].parse().unwrap();
            used[at] = used[at].and(*vm);
        }
    }
    summed(most, &used, cpu_ms() - start)
}

/// The host that has the least memory left of those that carry it.
fn by_best_fit(most: &[Resources], vms: &[Resources]) -> Placed {
    let mut used = vec![Resources::default(); most.len()];
    let start = cpu_ms();
    for vm in vms {
        let fits = |at: &usize| used[*at].and(*vm).over(&most[*at]).is_none();
        let left = |at: &usize| most[*at].without(used[*at]).memory_mb;
        if let Some(at) = (0..most.len()).filter(fits).min_by_key(left) {
            used[at] = used[at].and(*vm);
        }
    }
    summed(most, &used, cpu_ms() - start)
}

fn summed(most: &[Resources], used: &[Resources], ms: f64) -> Placed {
    let mut placed = Placed {
        ms,
        ..Placed::default()
    };
    for (most, used) in most.iter().zip(used) {
        let left = most.without(*used);
        placed.hosts += usize::from(used.vms > 0);
        placed.stranded_mb += if left.cpu_percent < 100 { left.memory_mb } else { 0 };
        placed.used = placed.used.and(*used);
    }
    placed
}

/// CPU time of this thread so far, in ms.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
