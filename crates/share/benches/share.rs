//! What a decision about sharing costs at the size of a big site: 1,250 hosts, 10,000 VMs that run, 50,000 that wait.
//! Run by `cargo bench -p thiao-share --bench share`; a plain program. CPU time of this process.

use rustix::time::{ClockId, clock_gettime};
use thiao_share::{Event, Host, Job, JobId, Levels, Overheads, Planner, Policy, Standing};

const HOSTS: u32 = 1_250;
/// Cores of a host, and its memory in GiB.
const HOST: Host = Host {
    cpu: 800,
    memory: 256,
};
const RUN: usize = 10_000;
const WAIT: usize = 50_000;
/// How many events of each kind are measured.
const EVENTS: usize = 1_000;

/// Numbers that look drawn, the same in each run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn job(draw: &mut Draw, now: u64) -> Job {
    let tasks = [1, 1, 1, 1, 2, 4, 8][draw.below(7) as usize];
    Job {
        submit: now,
        tasks,
        cpu: [100, 100, 200, 400, 800][draw.below(5) as usize],
        memory: [4, 8, 16, 64][draw.below(4) as usize],
        limit: [600_000, 3_600_000, 86_400_000, 172_800_000][draw.below(4) as usize],
        priority: draw.below(1000) as u32,
        pausable: draw.below(20) > 0,
        movable: draw.below(20) > 0,
    }
}

/// Who is on hosts, with how many VMs.
fn on_hosts(planner: &Planner) -> impl Iterator<Item = (JobId, u32)> {
    let all = planner.state().all();
    all.filter(|(_, entry)| entry.standing == Standing::Resident)
        .map(|(id, entry)| (id, entry.job.tasks))
}

/// The CPU time of this process, in milliseconds.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The most memory that this process ever had, in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1000
}

fn main() {
    let policy = Policy::Levels(Levels::default());
    let mut planner = Planner::new(&policy, vec![HOST; HOSTS as usize], Overheads::default());
    let mut draw = Draw(1);
    let (mut now, mut ids) = (0, 0..);
    let mut submit = |planner: &mut Planner, draw: &mut Draw, now: u64| {
        let id = JobId(ids.next().unwrap_or_default());
        planner.fold(now, Event::Submitted(id, job(draw, now)));
        id
    };
    // The cluster fills in the course of days; then all the others come.
    let mut all = Vec::new();
    let mut vms = 0;
    while vms < RUN {
        now += 20_000;
        all.push(submit(&mut planner, &mut draw, now));
        planner.decide(now);
        vms = on_hosts(&planner).map(|(_, tasks)| tasks as usize).sum();
    }
    let filled = all.len();
    while all.len() < filled + WAIT {
        now += 10;
        all.push(submit(&mut planner, &mut draw, now));
    }
    planner.decide(now);
    println!(
        "{HOSTS} hosts, {} VMs of {} jobs on them, {} jobs in all",
        on_hosts(&planner).map(|(_, tasks)| tasks).sum::<u32>(),
        on_hosts(&planner).count(),
        all.len()
    );
    for what in ["submitted", "ended", "a timer"] {
        let mut took: Vec<f64> = (0..EVENTS)
            .map(|_| measured(what, &mut planner, &mut draw, &mut now, &mut submit))
            .collect();
        took.sort_by(f64::total_cmp);
        println!(
            "{what}: median {:.2} ms, 99 of 100 within {:.2} ms, longest {:.2} ms of CPU",
            took[EVENTS / 2],
            took[EVENTS * 99 / 100],
            took[EVENTS - 1]
        );
    }
    println!("memory: {} MB at most", peak_mb());
}

/// One event, and the decision after it.
fn measured(
    what: &str,
    planner: &mut Planner,
    draw: &mut Draw,
    now: &mut u64,
    submit: &mut impl FnMut(&mut Planner, &mut Draw, u64) -> JobId,
) -> f64 {
    *now += 1_000;
    let before = match what {
        "submitted" => {
            let before = cpu_ms();
            submit(planner, draw, *now);
            before
        }
        "ended" => {
            let running: Vec<JobId> = on_hosts(planner).map(|(id, _)| id).collect();
            let running = running
                .get(draw.below(running.len().max(1) as u64) as usize)
                .copied();
            let before = cpu_ms();
            if let Some(id) = running {
                planner.fold(*now, Event::Ended(id));
            }
            before
        }
        _ => {
            *now = planner.next().unwrap_or(*now).max(*now);
            cpu_ms()
        }
    };
    planner.decide(*now);
    cpu_ms() - before
}
