//! What an observation of a real slurmctld costs with 10,000 nodes and 5,000 jobs: time, the CPU of Slurm's
//! programs and our own, and slurmctld's. Half of the jobs have two nodes each, which power up and never
//! come; the others wait. Which Slurm it is, `PATH` says.

#![allow(clippy::unwrap_used, reason = "a bench that can't go on should fail")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiao_slurm::conf::{NodeLine, Timeouts};
use thiao_testkit::slurmctld::{self, Ctld};

const NODES: usize = 10_000;
const JOBS: usize = 5_000;
/// Tasks of each array: a task that has nodes is a job of its own.
const TASKS: usize = 500;
const OBSERVATIONS: u32 = 20;

fn main() {
    match slurmctld::dir() {
        Some(dir) => measure(dir),
        None if slurmctld::is_wanted() => {
            slurmctld::run_inside("observe", &[]).unwrap_or_else(|why| panic!("{why}"))
        }
        None => {}
    }
}

fn measure(dir: PathBuf) {
    let times = Timeouts {
        resume_s: 3600,
        suspend_s: 3600,
        idle_s: 3600,
    };
    let hooks = dir.join("none");
    std::fs::create_dir(&hooks).unwrap();
    for (_, name) in thiao_slurm::names::HOOKS {
        symlink("/bin/true", hooks.join(name)).unwrap();
    }
    let ctld = Ctld::start(dir, times, |lab| {
        lab.hooks = Some(hooks);
        let line = lab.nodes.pop().unwrap();
        lab.nodes.push(NodeLine {
            nodes: format!("n[1-{NODES}]"),
            ..line
        });
    });
    let version = ctld.slurm.version().unwrap();
    for _ in 0..JOBS / 2 / TASKS {
        ctld.sbatch(&[&format!("--array=1-{TASKS}"), "-N2", "--wrap", "sleep 9"]);
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..JOBS / 2 / 4 {
                    ctld.sbatch(&["-H", "-N2", "--wrap", "sleep 9"]);
                }
            });
        }
    });
    let end = Instant::now() + Duration::from_secs(300);
    let counted = || {
        let view = ctld.slurm.observe().unwrap();
        let given = view.jobs.values().filter(|job| !job.nodes.is_empty()).count();
        (view.nodes.len(), view.jobs.len(), given)
    };
    while counted() != (NODES, JOBS, JOBS / 2) {
        assert!(
            Instant::now() < end,
            "nodes, jobs, jobs with nodes: {:?}",
            counted()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    let idle = Spent::of(&ctld);
    std::thread::sleep(Duration::from_secs(10));
    let idle = Spent::of(&ctld).since(&idle);

    let began = (Instant::now(), Spent::of(&ctld));
    for _ in 0..OBSERVATIONS {
        ctld.slurm.observe().unwrap();
    }
    let took = began.0.elapsed() / OBSERVATIONS;
    let spent = Spent::of(&ctld).since(&began.1);
    let each = |millis: u64| millis / u64::from(OBSERVATIONS);
    println!(
        "Slurm {version}, {NODES} nodes, {JOBS} jobs, each of {OBSERVATIONS} observations: {} ms; CPU: Slurm's programs {} ms, \
         ours {} ms, slurmctld {} ms (idle it takes {} ms a second)",
        took.as_millis(),
        each(spent.programs),
        each(spent.ours),
        each(spent.slurmctld),
        idle.slurmctld / 10,
    );
}

/// CPU that was spent so far, in milliseconds.
struct Spent {
    ours: u64,
    programs: u64,
    slurmctld: u64,
}

impl Spent {
    fn of(ctld: &Ctld) -> Self {
        let (ours, programs) = cpu_ms("self");
        let pid = std::fs::read_to_string(ctld.dir.join("slurmctld.pid")).unwrap();
        Self {
            ours,
            programs,
            slurmctld: cpu_ms(pid.trim()).0,
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            ours: self.ours - earlier.ours,
            programs: self.programs - earlier.programs,
            slurmctld: self.slurmctld - earlier.slurmctld,
        }
    }
}

/// CPU of a process and of its children that ended.
fn cpu_ms(process: &str) -> (u64, u64) {
    // Of a clock of 100 Hz, as on every Linux of these machines.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which may have blanks; utime is the 14th field of all.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse().unwrap())
        .collect();
    ((ticks[0] + ticks[1]) * TICK_MS, (ticks[2] + ticks[3]) * TICK_MS)
}
