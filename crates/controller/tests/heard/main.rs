//! Nodes that are ready at once or soon, the whole controller and a real slurmctld: each slurmd must
//! be heard. Needs the Debian packages that the failure names; `THIAO_SKIP_SLURM=1` skips.
//!
//!     THIAO_HEARD_BOOTS=500 cargo test -p thiao-controller --test heard -- --nocapture
//!
//! boots more nodes than an ordinary run does. `THIAO_HEARD_WAY=early` has slurmds start when their VMs
//! are made, as a guest would that is not told: it must fail. `late` does without the early start, for
//! comparison; `THIAO_HEARD_BOOT_MS=2000` has each boot take that long.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod nodes;

use nodes::{Nodes, Way};
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use thiao_config::Config;
use thiao_controller::serve_with;
use thiao_core::ids::{JobId, Millis, NodeName};
use thiao_core::world::Mode;
use thiao_slurm::conf::{JobLine, NodeLine, Timeouts};
use thiao_testkit::slurmctld::{Ctld, inside};
use tokio::sync::Notify;

/// Boots in an ordinary run.
const BOOTS: usize = 20;

/// All nodes, and how many come up at a time at most.
const NODES: usize = 60;
const AT_ONCE: usize = 12;

/// The longest pause between two jobs, in milliseconds: they meet slurmctld's rhythm anywhere.
const GAP_MS: u64 = 300;

/// The ordinary wait for a job that is not lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// Longer than any job should wait.
const LONG: Duration = Duration::from_secs(8);

const TIMES: Timeouts = Timeouts {
    resume_s: 30,
    suspend_s: 1,
    idle_s: 1,
};

const HOOKS: [&str; 5] = [
    "Resume",
    "Suspend",
    "ResumeFail",
    "PrologSlurmctld",
    "EpilogSlurmctld",
];

#[test]
fn every_node_that_is_ready_at_once_is_heard() {
    let Some(dir) = inside("every_node_that_is_ready_at_once_is_heard") else {
        return;
    };
    boot(dir, Mode::PowerSaving);
}

#[test]
fn every_node_of_job_mode_that_is_ready_at_once_is_heard() {
    let Some(dir) = inside("every_node_of_job_mode_that_is_ready_at_once_is_heard") else {
        return;
    };
    boot(dir, Mode::Job);
}

fn boot(dir: PathBuf, mode: Mode) {
    let number = std::env::var("THIAO_HEARD_BOOTS").map(|text| text.parse().unwrap());
    let boots = number.unwrap_or(BOOTS);
    let way = std::env::var("THIAO_HEARD_WAY").unwrap_or_else(|_| "told".into());
    let way = Way::ALL.into_iter().find(|(word, _)| *word == way).unwrap().1;

    thiao_testkit::slurmctld::name_nodes(&dir, NODES);
    let slow = slow_nodes(&dir);
    let ctld = Ctld::start_with(dir, TIMES, |lab| lab.nodes = vec![line(mode)], &slow);
    if mode == Mode::Job {
        ctld.slurm.ensure_gate().unwrap();
    }
    hooks(&ctld.dir);
    let changed = Arc::new(Notify::new());
    let boot = std::env::var("THIAO_HEARD_BOOT_MS").map_or(0, |text| text.parse().unwrap());
    let nodes = Nodes::new(&ctld.dir, way, Duration::from_millis(boot), changed.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(serve_with(
        config(&ctld, mode, way),
        nodes.clone(),
        changed.clone(),
    ));
    ctld.until("the controller answers", |c| {
        c.dir.join("thiao/api.sock").exists()
    });

    let began = Instant::now();
    let mut jobs = Jobs::new(&ctld, mode, changed);
    jobs.run(boots);
    jobs.tell(way, began.elapsed());
    let log = std::fs::read_to_string(ctld.dir.join("slurmctld.log")).unwrap();
    let timeouts = log.matches("not resumed by ResumeTimeout").count();
    let (made, again) = (
        nodes.made.load(Ordering::Relaxed),
        nodes.again.load(Ordering::Relaxed),
    );
    println!(
        "{} lost, {made} VMs made, {timeouts} ResumeTimeouts, slurmd started again {again} times",
        jobs.lost
    );
    runtime.shutdown_background();
    assert_eq!((jobs.lost, timeouts, made), (0, 0, boots));
    if way != Way::Mended {
        assert_eq!(again, 0, "slurmds that were not heard at once");
    }
}

/// Has three slurmds of ten take a moment between their birth and their first word, as in a guest: one
/// that is born before Slurm asks and speaks after it is not heard. Returns lines of slurm.conf.
fn slow_nodes(dir: &Path) -> String {
    let program = dir.join("slow");
    std::fs::write(
        &program,
        "#!/bin/sh\ncase $(hostname) in *[369]) sleep 0.6 ;; esac\n",
    )
    .unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    format!(
        "HealthCheckProgram={}\nHealthCheckInterval=3600\n",
        program.display()
    )
}

fn line(mode: Mode) -> NodeLine {
    let job = JobLine {
        memory_per_cpu_mb: 100,
        gpus: 0,
    };
    NodeLine {
        nodes: format!("n[1-{NODES}]"),
        cpus: 1,
        memory_mb: 100,
        features: Vec::new(),
        partition: "vm".into(),
        job: (mode == Mode::Job).then_some(job),
    }
}

/// Ours in place of the lab's.
fn hooks(dir: &Path) {
    let program = thiao_testkit::program("thiao-hook");
    for name in HOOKS {
        let link = dir.join("hooks").join(name);
        std::fs::remove_file(&link).unwrap();
        symlink(&program, link).unwrap();
    }
    symlink(dir.join("thiao"), dir.join("hooks/state")).unwrap();
}

fn config(ctld: &Ctld, mode: Mode, way: Way) -> Config {
    let word = match mode {
        Mode::PowerSaving => "power-saving",
        Mode::Job => "job",
    };
    let text = format!(
        "cluster = \"lab\"\nstate_dir = {:?}\n[slurm]\nconf = {:?}\n\
         [[nodeset]]\nname = \"n\"\nnodes = \"n[1-{NODES}]\"\nmode = {word:?}\ncpus = 1\nmemory_mb = 100\n\
         [timing]\nboot_timeout = 25\n",
        ctld.dir.join("thiao"),
        ctld.conf,
    );
    let path = ctld.dir.join("thiao.toml");
    std::fs::write(&path, text).unwrap();
    let mut config = Config::load(Some(&path)).unwrap();
    config.policy.guests_wait = way != Way::Late;
    if way == Way::Early {
        config.policy.slurmd_starts = 1;
    }
    config.policy.unheard_grace = Millis::secs(5);
    config
}

/// One job after another, each on a node that is powered down.
struct Jobs<'a> {
    ctld: &'a Ctld,
    mode: Mode,
    /// Those under way, with their nodes and when each was submitted.
    waiting: BTreeMap<JobId, (NodeName, SystemTime)>,
    /// From sbatch to running.
    took: Vec<Duration>,
    lost: usize,
    chance: u64,
    /// Told of each job, as setup's job_submit.lua does.
    changed: Arc<Notify>,
}

impl<'a> Jobs<'a> {
    fn new(ctld: &'a Ctld, mode: Mode, changed: Arc<Notify>) -> Self {
        std::fs::create_dir(ctld.dir.join("out")).unwrap();
        Self {
            ctld,
            mode,
            waiting: BTreeMap::new(),
            took: Vec::new(),
            lost: 0,
            chance: 1,
            changed,
        }
    }

    fn run(&mut self, boots: usize) {
        let (mut submitted, mut next) = (0, Instant::now());
        let mut last = None;
        while submitted < boots || !self.waiting.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
            self.collect();
            if submitted == boots || self.waiting.len() >= AT_ONCE || Instant::now() < next {
                continue;
            }
            let Some(node) = self.free(last.as_ref()) else {
                std::thread::sleep(Duration::from_millis(200));
                continue;
            };
            self.submit(&node);
            last = Some(node);
            submitted += 1;
            next = Instant::now() + Duration::from_millis(self.draw(GAP_MS));
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // Knuth's generator: the same gaps in each run.
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.chance >> 33) % below
    }

    /// A node that is powered down and nobody's, in turn.
    fn free(&self, last: Option<&NodeName>) -> Option<NodeName> {
        let view = self.ctld.slurm.observe().ok()?;
        let off = view.nodes.iter().filter(|(name, seen)| {
            let off = seen.flags.powered_down && !seen.may_run_job() && !seen.flags.power_down;
            off && !self.waiting.values().any(|(node, _)| node == *name)
        });
        let off: Vec<&NodeName> = off.map(|(name, _)| name).collect();
        let after = off.iter().find(|name| last.is_none_or(|last| **name > last));
        after.or(off.first()).map(|name| (*name).clone())
    }

    fn submit(&mut self, node: &NodeName) {
        let out = self.ctld.dir.join("out");
        let script = format!("date +%s%3N > {}/$SLURM_JOB_ID", out.display());
        let at = SystemTime::now();
        let mut args = vec!["--wrap", &script];
        if self.mode == Mode::PowerSaving {
            args.extend(["-w", node.as_str()]);
        }
        let job = self.ctld.sbatch(&args);
        self.changed.notify_one();
        self.waiting.insert(job, (node.clone(), at));
    }

    fn collect(&mut self) {
        let out = self.ctld.dir.join("out");
        let (took, lost) = (&mut self.took, &mut self.lost);
        self.waiting.retain(|job, (node, at)| {
            let text = std::fs::read_to_string(out.join(job.to_string())).unwrap_or_default();
            if let Ok(ran) = text.trim().parse() {
                let ran = SystemTime::UNIX_EPOCH + Duration::from_millis(ran);
                let after = ran.duration_since(*at).unwrap_or_default();
                if after > LONG {
                    println!("job {job} for {node} ran after {after:.2?}");
                }
                took.push(after);
                return false;
            }
            let is_lost = at.elapsed().unwrap_or_default() > PATIENCE;
            if is_lost {
                println!("job {job} for {node} is lost");
                *lost += 1;
            }
            !is_lost
        });
    }

    fn tell(&mut self, way: Way, all: Duration) {
        self.took.sort();
        let at = |part: usize| {
            self.took
                .get((self.took.len() * part / 100).min(self.took.len() - 1))
        };
        println!(
            "{:?} {way:?}: {} boots in {all:.0?}; from sbatch to running: median {:.2?}, 90 % within {:.2?}, longest {:.2?}",
            self.mode,
            self.took.len(),
            at(50).unwrap(),
            at(90).unwrap(),
            self.took.last().unwrap(),
        );
    }
}
