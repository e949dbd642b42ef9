//! Chaos: thiaod, slurmctld, slurmds and VMs are killed at random moments under a stream of
//! jobs. When that stops, every job completes, and nothing is left over.
//!
//! `THIAO_CHAOS_SECONDS` and `THIAO_CHAOS_SEED` say how long and which; `cargo xtask chaos`
//! sets them. The same seed draws the same jobs and victims, but what a kill meets depends on
//! how fast the machine is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dice;
mod machine;
mod storm;
mod stream;

use dice::Dice;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storm::{Kills, Victim};
use stream::{Draft, Outcome, Submitted, Watch, judge};
use thiao_testkit::lab::{Lab, fresh_dir, thiao};

/// How long things are killed where nobody says.
const SHORT: u64 = 30;

/// How long all may take to come to rest: the machine may be busy, and a job that slurmctld put
/// back into its queue waits for two minutes.
const REST_LIMIT: u64 = 600;

/// Nodes of both modes, and hosts that many jobs share.
const OPTIONS: [&str; 10] = [
    "--users=3",
    "--nodes=3",
    "--cpus=2",
    "--job-nodes=4",
    "--hosts=2",
    "--host-cpus=6",
    "--host-memory-mb=1500",
    "--job-cpus=2",
    "--job-memory-mb=400",
    "--idle=5",
];

/// Lets root's jobs see the home of the user for whom they write their marks.
fn with_shared_home(dir: &Path) -> tempfile::NamedTempFile {
    let (user, uid) = (stream::USERS[0], 61_001);
    let home = dir.join("home").join(user);
    let home = home.display();
    let mut file = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    write!(
        file,
        "\n[[qemu.user]]\nname = \"{user}\"\nuid = {uid}\ngid = {uid}\nhome = \"{home}\"\n\
         [[qemu.share]]\nsource = \"{home}\"\nuser = \"{user}\"\n"
    )
    .unwrap();
    file
}

/// Jobs that are under way at once, at most: what is submitted faster only waits.
const UNDER_WAY: usize = 10;

#[test]
#[ignore = "minutes: cargo xtask chaos"]
fn lab_chaos_ends_in_peace() {
    let seconds = number("THIAO_CHAOS_SECONDS").unwrap_or(SHORT);
    let seed = seed();
    println!("chaos: {seconds} s, seed {seed}");
    let mut options = OPTIONS.to_vec();
    // Templates take longer to make than they save in a minute.
    if seconds <= SHORT {
        options.push("--cold");
    }
    let dir = fresh_dir();
    let shared = with_shared_home(&dir);
    let mut command = Command::new(thiao());
    command
        .args(["lab", "up", "--foreground", "--dir"])
        .arg(&dir)
        .arg("--extra-config")
        .arg(shared.path())
        .args(options);
    let lab = Lab::start(command, dir);
    let began = Instant::now();
    let (mut kills, mut helped) = (Kills::default(), Helped::default());
    let (submitted, watch) = under_jobs(&lab, seed, || {
        let mut dice = Dice::new(!seed);
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(dice.between(2_000, 14_000)));
            kills.strike(&mut dice, &lab);
            helped.help(&lab);
        }
    });
    assert!(submitted.len() > kills.of.len(), "hardly any job was taken");
    println!("--- chaos of {seconds} s, seed {seed}");
    comes_to_rest(&lab, &submitted, watch, &kills, helped);
    lab.down();
}

#[test]
fn lab_machine_fails_and_all_ends_in_peace() {
    machine::fails();
}

/// The same wherever none is named, so that an ordinary run tries what it tried before.
fn seed() -> u64 {
    number("THIAO_CHAOS_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Lets something go wrong under a stream of jobs, which ends with it.
fn under_jobs(lab: &Lab, seed: u64, trouble: impl FnOnce()) -> (Vec<Submitted>, Watch) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| pour(lab, Dice::new(seed), &stop));
        // Also when the trouble is a panic.
        let end = Defer(|| stop.store(true, Ordering::Relaxed));
        trouble();
        drop(end);
        stream.join().unwrap()
    })
}

/// When nothing goes wrong any more: all jobs complete, and nothing is left.
fn comes_to_rest(
    lab: &Lab,
    submitted: &[Submitted],
    mut watch: Watch,
    kills: &Kills,
    mut helped: Helped,
) -> Outcome {
    let calm = Instant::now();
    until_all_are_over(lab, &mut watch, &mut helped);
    let over = calm.elapsed();
    let verdict = judge(lab, submitted, &watch, kills.of(Victim::Slurmctld));
    lab.wait_all_back(REST_LIMIT);
    let quiet = calm.elapsed();
    report(submitted, &watch, kills, &verdict);
    println!("done by hand: {helped:?}");
    println!("until all jobs were over: {:.0} s", over.as_secs_f64());
    println!("until nothing was left:   {:.0} s", quiet.as_secs_f64());
    assert!(
        verdict.wrong.is_empty(),
        "{}\n{}",
        verdict.wrong.join("\n"),
        lab.story()
    );
    nothing_is_left_in(lab);
    verdict
}

/// Does it when it goes out of scope.
struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Submits jobs until it is told to stop, and watches them. A job that Slurm did not take is tried again.
fn pour(lab: &Lab, mut dice: Dice, stop: &AtomicBool) -> (Vec<Submitted>, Watch) {
    let (mut submitted, mut watch) = (Vec::new(), Watch::default());
    while !stop.load(Ordering::Relaxed) {
        let draft = Draft::draw(lab, &mut dice, submitted.len());
        while !stop.load(Ordering::Relaxed) {
            if let Some(job) = draft.submit(lab) {
                submitted.push(job);
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        let pause = Instant::now() + Duration::from_millis(dice.between(200, 3_000));
        loop {
            let answered = watch.observe(lab);
            let full = watch.open().count() >= UNDER_WAY || !answered;
            if stop.load(Ordering::Relaxed) || !full && Instant::now() >= pause {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    (submitted, watch)
}

/// Slurm's reason for a node that it drained because it had forgotten which job it had started
/// there, and gave its number to another.
const FORGETFUL: &str = "Duplicate jobid";

/// How long a job may seem to run, several times its length. A slurmctld that was killed before it
/// wrote down a job's end takes it for running until the node registers again: not within five
/// minutes, as seen with 22.05. Then it puts the job back into its queue.
const RUNS_TOO_LONG: Duration = Duration::from_secs(60);

/// What an administrator has done for Slurm.
#[derive(Debug, Default)]
struct Helped {
    /// Times that the nodes were asked what they run ([`RUNS_TOO_LONG`]).
    asked: usize,
    /// Jobs released that Slurm held because their launch had failed under it.
    jobs: usize,
    /// Nodes given back that it had drained ([`FORGETFUL`]).
    nodes: usize,
}

/// Waits until Slurm has no job that is not over. Does what an administrator does, and lets jobs
/// go that Slurm put back into its queue for two minutes.
fn until_all_are_over(lab: &Lab, watch: &mut Watch, helped: &mut Helped) {
    let deadline = Instant::now() + Duration::from_secs(REST_LIMIT);
    let mut running: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let answered = watch.observe(lab);
        let open: Vec<_> = watch.open().collect();
        if answered && open.is_empty() {
            return;
        }
        for (id, job) in &open {
            if job.state == "PENDING" && job.reason == "BeginTime" {
                let job = format!("JobId={id}");
                let _ = lab.run_as_admin(&["scontrol", "update", &job, "StartTime=now"]);
            }
        }
        helped.help(lab);
        let now = Instant::now();
        let runs = open.iter().filter(|(_, job)| job.state == "RUNNING");
        running = runs
            .map(|(id, _)| ((*id).to_owned(), running.get(*id).copied().unwrap_or(now)))
            .collect();
        if running.values().any(|since| now - *since > RUNS_TOO_LONG) {
            let asked = lab.run_as_admin(&["scontrol", "reconfigure"]);
            helped.asked += usize::from(asked.status.success());
            running.clear();
        }
        assert!(
            Instant::now() < deadline,
            "jobs are not over after {REST_LIMIT} s: {open:?}\n{}\n{}",
            lab.admin(&["sinfo", "-N", "-o", "%N %T %E"]),
            lab.story()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl Helped {
    /// Releases jobs that are held and resumes nodes that were forgotten, and counts both.
    fn help(&mut self, lab: &Lab) {
        let lines = |command: &[&str]| {
            let output = lab.run_as_admin(command);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let done = |command: &[&str]| {
            let command = [&["scontrol"], command].concat();
            usize::from(lab.run_as_admin(&command).status.success())
        };
        for line in lines(&["squeue", "-h", "-t", "PD", "-o", "%A|%r"]).lines() {
            if let Some((job, "launch failed requeued held")) = line.split_once('|') {
                self.jobs += done(&["release", job]);
            }
        }
        for line in lines(&["sinfo", "-h", "-N", "-o", "%N|%T|%E"]).lines() {
            if let Some((node, state)) = line.split_once('|')
                && state.starts_with("drain")
                && state.ends_with(FORGETFUL)
            {
                self.nodes += done(&["update", &format!("NodeName={node}"), "State=RESUME"]);
            }
        }
    }
}

fn report(submitted: &[Submitted], watch: &Watch, kills: &Kills, verdict: &Outcome) {
    let tasks: u64 = submitted.iter().map(|job| job.tasks).sum();
    println!(
        "jobs: {} submitted, {tasks} with the tasks of arrays",
        submitted.len()
    );
    println!(
        "completed: {}, {} of them more than once; requeues: {}",
        verdict.completed,
        verdict.twice,
        watch.requeues()
    );
    println!(
        "forgotten by slurmctld, killed before it had written them down: {}",
        verdict.forgotten.len()
    );
    for (victim, times) in &kills.of {
        println!("kill -9 of {victim}: {}", times.len());
    }
    println!("kill -9 of slurmd: {}", verdict.slurmds);
}

/// After the last VM's end: no process, folder, order, interface or complaint.
fn nothing_is_left_in(lab: &Lab) {
    assert_eq!(storm::qemus(lab), [], "a VM runs");
    // From inside: a disk of the state folder's own is seen there alone.
    let names = |folder: &str| {
        let folder = lab.dir.join(folder);
        lab.admin(&["ls", "-A", folder.to_str().unwrap()])
    };
    // Not in the spool's `tmp`: who kills slurmctld or slurmd may kill a hook that writes. Such a
    // file has promised nothing, and the next controller to start removes it when it is old.
    for folder in ["s/vms", "s/spool/new", "s/spool/bad"] {
        assert_eq!(names(folder), "", "{folder}");
    }
    let links = lab.admin(&["ip", "-o", "link"]);
    let others: Vec<&str> = links
        .lines()
        .filter(|line| !line.contains(": lo:") && !line.contains(": thiao0:"))
        .collect();
    assert_eq!(others, [""; 0], "interfaces are left");
    let status: serde_json::Value = serde_json::from_str(&lab.admin(&["thiao", "status", "--json"])).unwrap();
    for path in ["/breaker", "/preparing", "/slurm/error", "/vms/error"] {
        let clean = status.pointer(path).is_none_or(serde_json::Value::is_null);
        assert!(clean, "{path}: {status}");
    }
    assert_eq!(status["vm_count"], 0, "{status}");
    assert_eq!(status["pending_intents"], 0, "{status}");
}
