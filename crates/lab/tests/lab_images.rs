//! VMs with a whole system: of an image that Thiao built, and of one as a distribution has it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not take a test's helpers for tests"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use thiao_testkit::images::{self, BUILT};
use thiao_testkit::lab::{Lab, text, thiao, wait};

/// How long a VM of a built image has to come up, with its job, in seconds.
const LIMIT: u64 = 150;

/// A job runs to its end; what it said.
fn said(lab: &Lab, file: &str, script: &str) -> String {
    let job = lab.submit(&["-o", file, "--wrap", script]);
    lab.wait_job(job, "COMPLETED", LIMIT);
    lab.output(file).0
}

/// What a user finds in a VM is what he finds on other nodes; what Slurm limits is limited.
#[test]
fn lab_built_image_is_a_machine_to_work_in() {
    let cache = images::cache();
    let cache = cache.to_str().unwrap();
    let lab = Lab::up(&[
        "--image",
        BUILT,
        "--cache-dir",
        cache,
        "--nodes",
        "2",
        "--memory-mb",
        "300",
    ]);
    the_system_is_whole(&lab);
    names_are_asked_of_nobody_out_of_reach(&lab);
    too_much_memory_is_told_as_that(&lab);
    a_full_tmp_costs_its_job_alone(&lab);
    a_killed_agent_goes_on(&lab);
    clones_differ(&lab);
    let job = lab.submit(&[
        "-p",
        "jobs",
        "-c1",
        "--mem=200",
        "-o",
        "own",
        "--wrap",
        "python3 -c 'print(6*7)'",
    ]);
    lab.wait_job(job, "COMPLETED", LIMIT);
    assert_eq!(lab.output("own").0, "42\n", "in job mode, too");
    another_key_is_told(&lab);
    lab.down();
}

fn the_system_is_whole(lab: &Lab) {
    let words = said(
        lab,
        "whole",
        "ps -o comm= -p 1; stat -fc %T /sys/fs/cgroup; cut -d/ -f3 /proc/self/cgroup; . /etc/os-release; echo $ID; \
         python3 -c 'print(6*7)'; stat -c %a /tmp; systemctl is-system-running",
    );
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(lines[..2], ["systemd", "cgroup2fs"], "{words}");
    assert!(lines[2].ends_with("slurmstepd.scope"), "{words}");
    assert_eq!(lines[3..], ["debian", "42", "1777", "running"], "{words}");
}

/// The image may have name servers of the machine that made it: each look-up would wait for them.
fn names_are_asked_of_nobody_out_of_reach(lab: &Lab) {
    let asks = "cat /etc/resolv.conf; for name in $(hostname) nowhere.example.org; do \
                getent hosts $name > /dev/null; echo $?; done";
    assert_eq!(said(lab, "names", asks), "0\n2\n");
}

fn too_much_memory_is_told_as_that(lab: &Lab) {
    let job = lab.submit(&["--mem=100", "--wrap", "python3 -c 'bytearray(250 << 20)'"]);
    lab.wait_job(job, "OUT_OF_MEMORY", LIMIT);
}

fn a_full_tmp_costs_its_job_alone(lab: &Lab) {
    let fills = "touch /dev/shm/x /var/tmp/x; dd if=/dev/zero of=/tmp/x bs=1M";
    let job = lab.submit(&["-w", "vm1", "-o", "full", "--wrap", fills]);
    lab.wait_job(job, "FAILED", LIMIT);
    let words = lab.output("full").0;
    assert!(words.contains("No space left on device"), "{words}");
    let drained = lab.admin(&["sinfo", "-h", "-t", "drain,drained,draining", "-o", "%N"]);
    assert_eq!(drained.trim(), "");
    // The next in the same VM finds nothing of it.
    let looks =
        "ls -d /tmp/x /var/tmp/x /dev/shm/x 2>/dev/null; df --output=target /tmp | tail -n 1; hostname";
    let job = lab.submit(&["-w", "vm1", "-o", "after", "--wrap", looks]);
    lab.wait_job(job, "COMPLETED", LIMIT);
    assert_eq!(lab.output("after").0, "/tmp\nvm1\n");
}

/// Whatever ends the agent of a VM, the next job there is looked after: it finds nothing of the one before.
fn a_killed_agent_goes_on(lab: &Lab) {
    let leaves = "touch /tmp/left; pgrep -x thiao-guest; cat /proc/$(pgrep -x thiao-guest)/oom_score_adj; \
                  cat /proc/$(pgrep -x slurmd)/oom_score_adj /proc/self/oom_score_adj; cat /run/thiao/agent/kept.json";
    let job = lab.submit(&["-w", "vm1", "-o", "leaves", "--wrap", leaves]);
    lab.wait_job(job, "FAILED", LIMIT);
    let words = lab.output("leaves").0;
    let lines: Vec<&str> = words.lines().collect();
    // Of a full memory, jobs die; and what the agent was told is not for them.
    assert_eq!(lines[1..4], ["-1000", "-1000", "0"], "{words}");
    assert!(lines[4].contains("Permission denied"), "{words}");
    as_root(lab, "vm1", "pkill -9 -x thiao-guest");
    let looks = "pgrep -x thiao-guest; ls /tmp/left";
    let job = lab.submit(&["-w", "vm1", "-o", "looks", "--wrap", looks]);
    lab.wait_job(job, "FAILED", LIMIT);
    let after = lab.output("looks").0;
    let agent = after.lines().next().unwrap();
    assert_ne!(agent, lines[0], "it is another process");
    assert!(agent.parse::<u32>().is_ok(), "{after}");
    assert!(after.contains("No such file"), "{after}");
    // It still attends to slurmd.
    as_root(lab, "vm1", "pkill -9 -x slurmd");
    let job = lab.submit(&["-w", "vm1", "--wrap", "hostname"]);
    lab.wait_job(job, "COMPLETED", LIMIT);
}

/// Runs a command on the console of a node's VM, and returns when that is done.
fn as_root(lab: &Lab, node: &str, command: &str) {
    let vms = std::fs::read_dir(lab.dir.join("s/vms")).unwrap();
    let of_node = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == node);
    let vm = vms.map(|entry| entry.unwrap().path()).find(of_node).unwrap();
    let mut console = UnixStream::connect(vm.join("console.sock")).unwrap();
    let limit = Duration::from_secs(LIMIT);
    console.set_read_timeout(Some(limit)).unwrap();
    // What is echoed is not what is waited for.
    write!(console, "\r{command}; echo done-$((6*7))\r").unwrap();
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&said).contains("done-42") {
        let length = console.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&chunk[..length]);
    }
}

/// A guest whose key is not slurmctld's does not register, and what tells why outlives it.
fn another_key_is_told(lab: &Lab) {
    std::fs::write(lab.dir.join("secret/munge.key"), [7; 128]).unwrap();
    let job = lab.submit(&["-p", "jobs", "-c1", "--mem=200", "--wrap", "hostname"]);
    let job = job.to_string();
    wait("nobody says why slurmd does not register", LIMIT, || {
        let node = lab.admin(&["squeue", "-h", "-j", &job, "-o", "%N"]);
        let node = Some(node.trim()).filter(|node| !node.is_empty())?;
        let story = lab.admin(&["thiao", "explain", node]);
        let told =
            |line: &str| line.contains("slurmd started again") && line.contains("Unauthorized credential");
        story.lines().any(told).then_some(())
    });
    lab.admin(&["scancel", &job]);
}

/// Two VMs of one template are two machines.
fn clones_differ(lab: &Lab) {
    let script = "srun sh -c 'cd /proc/sys/kernel/random; cat /etc/machine-id uuid boot_id; hostname'";
    let job = lab.submit(&["-N2", "-o", "two", "--wrap", script]);
    lab.wait_job(job, "COMPLETED", LIMIT);
    let words = lab.output("two").0;
    let lines: std::collections::BTreeSet<&str> = words.lines().collect();
    assert_eq!(lines.len(), 8, "{words}");
}

/// Any image with cloud-init, too; what it lacks is said before.
#[test]
fn lab_brought_image_runs_a_job() {
    let image = images::with_cloud_init();
    let image = image.to_str().unwrap();
    let output = Command::new(thiao())
        .args(["image", "check", image])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("0 bad, 0 to look at"), "{}", text(&output));
    let lab = Lab::up(&[
        "--image",
        image,
        "--nodes",
        "1",
        "--memory-mb",
        "400",
        "--boot-timeout",
        "240",
    ]);
    let job = lab.submit(&[
        "-o",
        "out",
        "--wrap",
        "hostname; systemctl is-active slurmd; cat /etc/resolv.conf",
    ]);
    lab.wait_job(job, "COMPLETED", 280);
    assert_eq!(lab.output("out").0, "vm1\nactive\n");
    lab.down();
}
