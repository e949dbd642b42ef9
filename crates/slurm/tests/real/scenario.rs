//! Scenarios of `crates/sim/scenarios`, replayed on the real slurmctld: the simulated one must go through
//! the same states.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use thiao_core::hostlist;
use thiao_core::ids::{JobId, Millis, NodeName};
use thiao_core::view::SlurmView;
use thiao_sim::scenario::replay::{Cluster, Target, replay};
use thiao_sim::scenario::{JobAct, NodeAct, Scenario, Simulated, Submission, recordings};
use thiao_sim::slurm::{Call, Hook, Release};
use thiao_slurm::conf::{NodeLine, Timeouts};
use thiao_slurm::gate::Admission;
use thiao_testkit::slurmctld::{self, Ctld, job_nodes};

const TEST: &str = "scenario::the_real_slurmctld_goes_the_way_of_the_simulated_one";
/// The scenario that is replayed inside the namespaces.
const ONE: &str = "THIAO_TEST_SCENARIO";
/// With `THIAO_RECORD=1` what the real slurmctld does is written down as what is expected.
const RECORD: &str = "THIAO_RECORD";
/// Scenarios that are replayed at the same time: they wait for most of their time. With 14 at once a
/// slurmctld of 24.11 or later was late for the waits in some (2 cores).
const AT_ONCE: usize = 7;
/// From a call of ResumeProgram to the start of a slurmd. slurmctld (22.05.8: `waiting_for_node_boot`) takes
/// one that says it booted before that call for the boot before, and asks it never again: and times are whole
/// seconds, of which `slurmd -b` may count one too many.
const BOOT: Duration = Duration::from_millis(1100);
/// What the simulated slurmctld leaves to chance: the real one goes one of its ways.
const SEEDS: u64 = 10;
/// The time between two observations.
const MOMENT: Duration = Duration::from_millis(150);

#[test]
fn the_real_slurmctld_goes_the_way_of_the_simulated_one() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/scenarios"));
    if let Some(dir) = slurmctld::dir() {
        replay_one(dir, &folder.join(std::env::var(ONE).unwrap()));
        return;
    }
    if !slurmctld::is_wanted() {
        return;
    }
    let wanted = std::env::var(ONE).unwrap_or_default();
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    let files = files.map(|name| name.into_string().unwrap());
    let files = files.filter(|name| name.ends_with(".scenario") && name.contains(&wanted));
    let queue = Mutex::new(files.collect::<Vec<_>>());
    assert!(
        !queue.lock().unwrap().is_empty(),
        "no scenarios in {}",
        folder.display()
    );
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(name) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    if let Err(why) = slurmctld::run_inside(TEST, &[(ONE, &name)]) {
                        failed.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

fn replay_one(dir: PathBuf, file: &Path) {
    let scenario: Scenario = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let began = Instant::now();
    let mut real = Real::new(dir, &scenario);
    let seen = replay(&scenario, &mut real).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    eprintln!("{}: {:.1} s", file.display(), began.elapsed().as_secs_f64());
    let version = real.ctld.slurm.version().unwrap();
    let version = version.to_string();
    if std::env::var_os(RECORD).is_some_and(|value| value == "1") {
        return recordings::record(file, &version, &seen).unwrap();
    }
    let release: Release = version.parse().unwrap();
    let mut difference = None;
    for seed in 0..SEEDS {
        let simulated = replay(&scenario, &mut Simulated::new(&scenario, release, seed))
            .unwrap_or_else(|why| panic!("{}, simulated: {why}", file.display()));
        match seen.difference("real", &simulated, "simulated") {
            Some(other) => difference = Some(other),
            None => return,
        }
    }
    panic!("{}:\n{}", file.display(), difference.unwrap_or_default());
}

/// A real slurmctld, with slurmds in namespaces.
struct Real {
    ctld: Ctld,
    began: Instant,
    /// Hooks' calls that were told.
    told: usize,
    /// When ResumeProgram was seen to be called last.
    resumed: Instant,
}

impl Real {
    fn new(dir: PathBuf, scenario: &Scenario) -> Self {
        let secs = |millis: Millis| u32::try_from(millis.0 / 1000).unwrap();
        let times = Timeouts {
            resume_s: secs(scenario.times.resume_timeout),
            suspend_s: secs(scenario.times.suspend_timeout),
            idle_s: secs(scenario.times.suspend_time),
        };
        let ctld = Ctld::start(dir, times, |lab| {
            let usual = lab.nodes.pop().unwrap();
            let line = |nodes: &[NodeName], line: NodeLine| {
                let list = hostlist::fold(nodes);
                (!nodes.is_empty()).then_some(NodeLine { nodes: list, ..line })
            };
            lab.nodes.extend(line(&scenario.nodes, usual));
            lab.nodes.extend(line(&scenario.job_nodes, job_nodes()));
            lab.default_partition = Some(lab.nodes[0].partition.clone());
        });
        if !scenario.job_nodes.is_empty() {
            ctld.slurm.ensure_gate().unwrap();
        }
        // Nodes are booted by the scenario.
        ctld.hold(true);
        Self {
            ctld,
            began: Instant::now(),
            told: 0,
            resumed: Instant::now(),
        }
    }

    fn scontrol(&self, words: &[&str]) -> Result<(), String> {
        self.ctld.run(false, &[&["scontrol"], words].concat()).map(drop)
    }
}

impl Cluster for Real {
    fn submit(&mut self, job: &Submission) -> Result<JobId, String> {
        let mut words = vec![format!("-N{}-{}", job.size, job.most)];
        if job.job_mode {
            words.extend(["-p", "jobs"].map(str::to_owned));
        }
        if job.tasks > 0 {
            words.push(format!("--array=0-{}", job.tasks - 1));
        }
        if !job.requeue {
            words.push("--no-requeue".into());
        }
        words.push("--wrap".into());
        words.push(format!("sleep {}", job.length.0 / 1000));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ctld.submit(None, &words)
    }

    fn to_node(&mut self, act: &NodeAct, node: &NodeName) -> Result<(), String> {
        let slurm = &self.ctld.slurm;
        let nodes = std::slice::from_ref(node);
        let name = format!("NodeName={node}");
        let done = match act {
            NodeAct::Boot => {
                std::thread::sleep(BOOT.saturating_sub(self.resumed.elapsed()));
                self.ctld.hook("Start", node.as_str());
                Ok(())
            }
            NodeAct::Kill => {
                self.ctld.hook("Kill", node.as_str());
                Ok(())
            }
            NodeAct::SetDown(reason) => slurm.set_down(nodes, reason),
            NodeAct::Return => slurm.return_to_service(nodes),
            NodeAct::EndWithJob => slurm.end_with_job(nodes, "thiao: ends with its job"),
            NodeAct::PowerDownNow => slurm.power_down_now(nodes, "thiao: its job is over"),
            NodeAct::Drain => return self.scontrol(&["update", &name, "State=drain", "Reason=a look at it"]),
            NodeAct::Undrain => return self.scontrol(&["update", &name, "State=undrain"]),
            // As slurmd says it, and with its rights.
            NodeAct::SpoolFull => {
                return self.scontrol(&["update", &name, "State=drain", "Reason=SlurmdSpoolDir is full"]);
            }
            NodeAct::LiftDrain => slurm.undrain(nodes),
            NodeAct::AdminDown => {
                return self.scontrol(&["update", &name, "State=down", "Reason=disk broken"]);
            }
            NodeAct::AdminResume => return self.scontrol(&["update", &name, "State=resume"]),
        };
        done.map_err(|error| error.to_string())
    }

    fn to_job(&mut self, act: JobAct, job: &Target) -> Result<(), String> {
        let slurm = &self.ctld.slurm;
        let admission = Admission {
            job: job.id,
            array: job.array.clone(),
            nodes: match act {
                JobAct::Admit(nodes) => nodes,
                JobAct::CloseGate | JobAct::PutBack | JobAct::StartNow | JobAct::Cancel => None,
            },
            licenses: String::new(),
        };
        let done = match act {
            JobAct::Admit(_) => slurm
                .admit(&[admission])
                .into_iter()
                .try_for_each(|(_, told)| told),
            JobAct::CloseGate => slurm.close_gate(&admission),
            JobAct::PutBack => slurm.put_back(job.id, "", "vm: ; put back: no capacity"),
            JobAct::StartNow => slurm.start_now(&[job.id]),
            JobAct::Cancel => {
                let words = ["scancel", &job.id.to_string()];
                return self.ctld.run(false, &words).map(drop);
            }
        };
        done.map_err(|error| error.to_string())
    }

    fn restart(&mut self) -> Result<(), String> {
        self.ctld.stop();
        self.ctld.start_again();
        Ok(())
    }

    fn observe(&mut self) -> Result<Option<SlurmView>, String> {
        match self.ctld.slurm.observe() {
            Ok(view) => Ok(Some(view)),
            // Slow, on a busy machine.
            Err(error) if error.is_transient() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn calls(&mut self) -> Result<Vec<Call>, String> {
        let all = self.ctld.hooks();
        let new = all.get(self.told..).unwrap_or_default();
        let calls: Vec<Call> = new.iter().filter_map(|line| call(line)).collect();
        self.told = all.len();
        if calls.iter().any(|call| call.hook == Hook::Resume) {
            self.resumed = Instant::now();
        }
        Ok(calls)
    }

    fn pass(&mut self) {
        std::thread::sleep(MOMENT);
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap())
    }
}

/// A line of the hooks' log, if it is of a hook that carries orders.
fn call(line: &str) -> Option<Call> {
    let (hook, argument) = line.split_once(' ')?;
    let hook = match hook {
        "Resume" => Hook::Resume,
        "Suspend" => Hook::Suspend,
        "ResumeFail" => Hook::ResumeFail,
        "EpilogSlurmctld" => Hook::JobEnded {
            job: JobId(argument.parse().unwrap()),
            failed: false,
        },
        _ => return None,
    };
    let nodes = match hook {
        Hook::JobEnded { .. } => Vec::new(),
        Hook::Resume | Hook::Suspend | Hook::ResumeFail => hostlist::expand(argument).unwrap(),
    };
    Some(Call {
        hook,
        nodes,
        jobs: Default::default(),
    })
}
