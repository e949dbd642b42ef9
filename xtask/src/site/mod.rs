//! `cargo xtask demo --site`: Thiao is put beside a cluster that is there already, and taken away again.
//!
//! What an administrator types is what README.md and docs/operations.md say; a test compares them.

mod cluster;
mod days;
mod machine;
mod snapshot;

use crate::install::is_root;
use crate::steps;
use anyhow::{Context, Result, bail};
use cluster::{Ended, Job, USER, ids};
use machine::{Machine, Root, must};
use snapshot::Snapshot;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// README, step 1, without Rust: Thiao is built outside.
const PACKAGES: &str = "apt-get install --no-install-recommends slurmctld slurm-client munge qemu-system-x86 qemu-utils \
                        mmdebstrap iproute2 nftables xz-utils zstd build-essential curl";
/// README, step 2, as another user's build.
const INSTALL: &str = "target/debug/xtask install --built";
/// README, step 3: settings, hooks, and lines for slurm.conf.
const SETUP: &str = "thiao setup --qemu --nodes 'vm[000-003]' --memory-mb 512";
/// README, step 4; the rest of the list is the site's own.
const IMAGE: &str = "thiao image build debian --packages python3,";
/// What its programs for MPI need.
const FOR_MPI: &str = "openmpi-bin,libpmix-dev";
/// README, step 5: the line for slurm.conf.
const INCLUDE: &str = "Include thiao.conf";
/// README, step 6: what starts it all.
const START: [&str; 2] = ["systemctl enable --now thiaod", "systemctl restart slurmctld"];

/// docs/operations.md, "Taking Thiao away": before its lines are taken out of slurm.conf.
const LEAVE: [&str; 2] = [
    "scontrol update NodeName='vm[000-003]' State=DRAIN Reason=leaving",
    "thiao suspend 'vm[000-003]'",
];
/// The same, after that.
const REMOVE: [&str; 4] = [
    "systemctl restart slurmctld",
    "systemctl disable --now thiaod",
    "thiao setup --undo",
    "ip link delete thiao0",
];
/// The last of it.
const REMOVE_FOLDERS: &str = "rm -r /etc/thiao /var/lib/thiao /var/cache/thiao";

/// A nodeset with an image of the site's own, beside what setup wrote; guests are emulated here and boot slowly.
const BROUGHT: &str = "
[[nodeset]]
name = \"own\"
mode = \"job\"
nodes = \"own[0-1]\"
cpus = 1
memory_mb = 512
partition = \"own\"
image = \"/srv/images/cloud.qcow2\"

[timing]
boot_timeout = 300
";

/// How long a job may take, its VM included.
const JOB: Duration = Duration::from_secs(400);

/// What came out so far.
struct Story {
    begun: Instant,
    failed: Vec<String>,
}

impl Story {
    fn say(&self, what: impl Display) {
        println!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Notes what came of something.
    fn check(&mut self, what: &str, came: Result<impl Display>) {
        match came {
            Ok(how) => self.say(format_args!("ok    {what}: {how}")),
            Err(error) => {
                self.say(format_args!("FAIL  {what}: {error:#}"));
                self.failed.push(what.to_owned());
            }
        }
    }

    /// Types a line in the machine as root, shown first.
    fn types(&self, machine: &Machine, seconds: u32, line: &str) -> Result<String> {
        self.say(format_args!("# {line}"));
        machine.run(
            seconds,
            &words(line).iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }
}

/// A line's words; quotes keep what is between them.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| word.replace('\'', ""))
        .collect()
}

/// Builds all that is needed, unless it is `built`, and tells the story.
///
/// # Errors
/// When the machine cannot be made, or a step of the way fails.
pub fn demo(built: bool) -> Result<ExitCode> {
    if !is_root() {
        bail!("a machine of its own is booted as root (systemd-nspawn)");
    }
    if !built {
        steps::dist()?;
    }
    let image = cloud_image()?;
    let mut story = Story {
        begun: Instant::now(),
        failed: Vec::new(),
    };
    tell(&mut story, image)?;
    if story.failed.is_empty() {
        story.say("all came out right");
    } else {
        story.say(format_args!("not right: {}", story.failed.join(", ")));
    }
    story.say("not part of this: small guests, which have no control groups and do not go together with this cluster");
    Ok(steps::code(story.failed.is_empty()))
}

/// The image with cloud-init that the tests have, too.
fn cloud_image() -> Result<PathBuf> {
    // Where they keep it.
    let kept = steps::target().join("tmp/cloud.qcow2");
    if kept.exists() {
        return Ok(kept);
    }
    let mut command = steps::cargo();
    command.args([
        "run",
        "--quiet",
        "--package=thiao-testkit",
        "--example=cloud_image",
    ]);
    let said = must(&mut command, 1800).context("an image with cloud-init cannot be made")?;
    Ok(said.trim().into())
}

fn tell(story: &mut Story, image: PathBuf) -> Result<()> {
    story.say("a machine with systemd, a cluster of one physical node, and people in an LDAP directory");
    let root = Root::new()?;
    cluster::furnish(&root)?;
    machine::reach(&root)?;
    let (sources, built) = (steps::root(), steps::target());
    let mut machine = Machine::boot(
        root,
        vec![
            (sources.clone(), sources),
            (built.clone(), built),
            (image, "/srv/images/cloud.qcow2".into()),
        ],
    )?;
    story.say("it has booted");
    cluster::wait_idle(&machine)?;
    machine.run_as(USER, 60, &["mpicc", "-o", "ring", "ring.c"])?;
    on_the_physical_node(story, &machine, "before")?;

    story.types(&machine, 300, "apt-get update -q")?;
    story.types(&machine, 900, &PACKAGES.replacen("install", "install -y", 1))?;
    // What docs/operations.md takes to save the database.
    story.types(
        &machine,
        300,
        "apt-get install -y --no-install-recommends sqlite3",
    )?;
    let outside = [steps::root(), steps::target()].map(|folder| folder.display().to_string());
    let before = Snapshot::take(&machine, &outside)?;
    add(story, &machine)?;
    in_vms(story, &machine)?;
    days::pass(story, &mut machine)?;
    cold(story, &machine)?;
    on_the_physical_node(story, &machine, "beside")?;
    take_away(story, &machine)?;
    let same = Snapshot::take(&machine, &outside)?.as_before(&before);
    story.check("the cluster is as before", same);
    on_the_physical_node(story, &machine, "after")
}

/// Jobs under the physical node's control groups.
fn on_the_physical_node(story: &mut Story, machine: &Machine, when: &str) -> Result<()> {
    let greedy = Job::submit(machine, &["-p", "metal"], "greedy.sh")?;
    let limited = Job::submit(machine, &["-p", "metal"], "limited.sh")?;
    let ended = greedy
        .wait(machine, JOB)
        .and_then(|job| job.must_be("OUT_OF_MEMORY", &[]));
    story.check(
        &format!("physical node, {when}: who takes too much memory is ended"),
        ended,
    );
    let bytes = (200_u64 << 20).to_string();
    let ended = limited
        .wait(machine, JOB)
        .and_then(|job| job.must_be("COMPLETED", &[&ids(), &bytes]));
    story.check(
        &format!("physical node, {when}: the job's limit is its control group's"),
        ended,
    );
    Ok(())
}

/// README, step 2: the programs.
fn install(story: &Story, machine: &Machine) -> Result<()> {
    let install = words(INSTALL);
    let sources = steps::root().display().to_string();
    let program = steps::target().join("debug/xtask").display().to_string();
    story.say(format_args!("# {INSTALL}"));
    machine
        .run(
            60,
            &[
                &["env", "-C", &sources, &program],
                install[1..]
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
            ]
            .concat(),
        )
        .map(drop)
}

/// README, steps 2 to 6.
fn add(story: &mut Story, machine: &Machine) -> Result<()> {
    install(story, machine)?;
    story.types(machine, 60, SETUP)?;
    story.types(machine, 600, &format!("{IMAGE}{FOR_MPI}"))?;
    story.say("a second nodeset, with an image of the site's own, in job mode");
    let settings = machine.run(10, &["cat", "/etc/thiao/thiao.toml"])?;
    machine
        .root()
        .write("etc/thiao/thiao.toml", &(settings + BROUGHT))?;
    story.types(machine, 60, "thiao setup")?;
    story.say(format_args!(
        "# {INCLUDE}, at the end of slurm.conf; ReturnToService, which setup named, out of it"
    ));
    let conf = machine.run(10, &["cat", "/etc/slurm/slurm.conf"])?;
    let conf = conf.replace("ReturnToService=1\n", "");
    machine
        .root()
        .write("etc/slurm/slurm.conf", &format!("{conf}{INCLUDE}\n"))?;
    for line in START {
        story.types(machine, 120, line)?;
    }
    wait_prepared(story, machine)
}

/// Waits until thiaod has booted the guests that others start from.
fn wait_prepared(story: &Story, machine: &Machine) -> Result<()> {
    let begun = Instant::now();
    while machine.run(30, &["thiao", "status"])?.contains("preparing ") {
        if begun.elapsed() > JOB {
            bail!("thiaod still prepares guests after {} s", JOB.as_secs());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    story.say("thiaod is ready to make VMs");
    Ok(())
}

/// Jobs in VMs of both images.
fn in_vms(story: &mut Story, machine: &Machine) -> Result<()> {
    let python = Job::submit(machine, &["-p", "vm"], "python.sh")?.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["host vm00", &ids(), "0::/system.slice/", "Debian"]);
    story.check("Python in a VM of a built image, warm", python.and_then(has));
    let mpi = Job::submit(machine, &["-p", "vm", "-N2"], "mpi.sh")?.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["rank 0 of 2", "rank 1 of 2", "sum 3"]);
    story.check("MPI on two nodes, each a VM", mpi.and_then(has));
    let greedy = Job::submit(machine, &["-p", "vm"], "greedy.sh")?.wait(machine, JOB);
    let ended = greedy.and_then(|job| job.must_be("OUT_OF_MEMORY", &[]));
    story.check("in a VM, who takes too much memory is ended", ended);
    let own = Job::submit(machine, &["-p", "own"], "shell.sh")?.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["host own0", &ids()]);
    story.check("a job in a VM of a brought image, in job mode", own.and_then(has));
    Ok(())
}

/// The same built image, without a guest that has booted already.
fn cold(story: &mut Story, machine: &Machine) -> Result<()> {
    wait_no_jobs(machine)?;
    // By Slurm: a VM that thiaod alone is told to end leaves a node that Slurm gives to the next job at once.
    story.types(
        machine,
        60,
        "scontrol update NodeName='vm[000-003]' State=POWER_DOWN",
    )?;
    wait_powered_down(machine)?;
    wait_no_vms(machine)?;
    let settings = machine.run(10, &["cat", "/etc/thiao/thiao.toml"])?;
    machine.root().write(
        "etc/thiao/thiao.toml",
        &settings.replace("[qemu]\n", "[qemu]\nwarm = false\n"),
    )?;
    story.types(machine, 60, "systemctl restart thiaod")?;
    wait_prepared(story, machine)?;
    let python = Job::submit(machine, &["-p", "vm"], "python.sh")?.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["host vm00", &ids()]);
    story.check(
        "Python in a VM of a built image, cold (warm = false)",
        python.and_then(has),
    );
    Ok(())
}

/// Waits until Slurm lists no job any more, not even one that has ended and is cleaned up.
fn wait_no_jobs(machine: &Machine) -> Result<()> {
    let begun = Instant::now();
    while !machine.run(30, &["squeue", "-h"])?.trim().is_empty() {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("there are still jobs after two minutes");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn wait_powered_down(machine: &Machine) -> Result<()> {
    let begun = Instant::now();
    let is_down = |states: &str| states.lines().all(|state| state.trim() == "idle~");
    while !is_down(&machine.run(30, &["sinfo", "-h", "-N", "-p", "vm", "-o", "%t"])?) {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("the nodes are not powered down after two minutes");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Gives the nodes back. thiaod refuses it until it has seen itself that the last job is over.
fn suspend_all(story: &Story, machine: &Machine, line: &str) -> Result<()> {
    let begun = Instant::now();
    while let Err(error) = story.types(machine, 60, line) {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_secs(3));
    }
    wait_no_vms(machine)
}

fn wait_no_vms(machine: &Machine) -> Result<()> {
    let begun = Instant::now();
    while !machine.run(30, &["thiao", "vms"])?.contains("no VMs") {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("there are still VMs after two minutes");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// docs/operations.md, "Taking Thiao away".
fn take_away(story: &mut Story, machine: &Machine) -> Result<()> {
    let [drain, suspend] = LEAVE;
    story.types(machine, 60, drain)?;
    wait_no_jobs(machine)?;
    suspend_all(story, machine, suspend)?;
    // It removes nothing yet, and says so.
    let named = machine.try_run(30, &["thiao", "setup", "--undo"])?;
    let named = String::from_utf8_lossy(&named.stderr).into_owned();
    let says = named
        .contains("ReturnToService=1")
        .then_some("ReturnToService=1")
        .with_context(|| format!("it says: {named}"));
    story.check("thiao setup --undo names what to put back", says);
    story.say(format_args!(
        "# {INCLUDE} taken out of slurm.conf, ReturnToService put back"
    ));
    let conf = machine.run(10, &["cat", "/etc/slurm/slurm.conf"])?;
    let conf = conf.replace(&format!("{INCLUDE}\n"), "");
    let conf = conf.replace("NodeName=head ", "ReturnToService=1\nNodeName=head ");
    machine.root().write("etc/slurm/slurm.conf", &conf)?;
    let [restart, stop, undo, bridge] = REMOVE;
    for line in [restart, stop, undo] {
        story.types(machine, 120, line)?;
    }
    story.say("# cargo xtask install --remove");
    let program = steps::target().join("debug/xtask").display().to_string();
    let sources = steps::root().display().to_string();
    machine.run(60, &["env", "-C", &sources, &program, "install", "--remove"])?;
    story.types(machine, 30, bridge)?;
    story.types(machine, 120, REMOVE_FOLDERS)?;
    cluster::wait_idle(machine)
}

/// A file of the project, without line breaks and what joins lines.
#[cfg(test)]
fn flat(file: &str) -> String {
    let text = std::fs::read_to_string(steps::root().join(file)).unwrap();
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "\\").collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_the_docs_say() {
        let readme = flat("README.md");
        for line in [PACKAGES, INSTALL, SETUP, IMAGE, INCLUDE].iter().chain(&START) {
            assert!(readme.contains(line), "README.md does not say: {line}");
        }
        let operations = flat("docs/operations.md");
        for line in LEAVE.iter().chain(&REMOVE).chain(&[REMOVE_FOLDERS, INCLUDE]) {
            assert!(
                operations.contains(line),
                "docs/operations.md does not say: {line}"
            );
        }
    }
}
