//! Real control groups, where this process may make them; elsewhere it is only checked that this is said.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;
use thiao_core::ids::{ClusterName, VmId};
use thiao_qemu::cgroup::Cgroups;

/// A cluster that no other test has.
fn cluster(test: &str) -> ClusterName {
    ClusterName::new(&format!("{test}-{}", std::process::id())).unwrap()
}

/// None, and a word about it, where no groups can be made.
fn detect(cluster: &ClusterName) -> Option<Cgroups> {
    let cgroups = Cgroups::detect(cluster);
    let enforced = cgroups.describe().starts_with("CPU shares are enforced");
    if !enforced {
        eprintln!("not tested here: {}", cgroups.describe());
        assert!(cgroups.place(&VmId::new("vm").unwrap(), 1, 100).is_ok());
    }
    enforced.then_some(cgroups)
}

/// Ends with the test, also a failed one.
struct Process(Child);

impl Process {
    fn start(program: &str, arguments: &[&str]) -> Self {
        Self(Command::new(program).args(arguments).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// The group that the kernel says it is in, for the CPU controller.
    fn group(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap();
        let cpu = |l: &&str| {
            l.starts_with("0::")
                || l.split(':')
                    .nth(1)
                    .is_some_and(|c| c.split(',').any(|c| c == "cpu"))
        };
        text.lines()
            .filter(cpu)
            .max_by_key(|l| l.len())
            .unwrap()
            .to_owned()
    }

    /// Processor time so far, in clock ticks: fields 14 and 15 of proc_pid_stat(5).
    fn ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = text.rsplit_once(')').unwrap().1;
        after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|t| t.parse::<u64>().unwrap())
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_gets_its_group_and_share_and_leaves_nothing() {
    let cluster = cluster("place");
    let Some(cgroups) = detect(&cluster) else { return };
    let (first, second) = (VmId::new("fg0.1").unwrap(), VmId::new("fg1.1").unwrap());
    let process = Process::start("sleep", &["600"]);
    let before = process.group();
    cgroups.place(&first, process.pid(), 250).unwrap();
    let group = process.group();
    assert_ne!(before, group);
    assert!(group.ends_with(&format!("/thiao-{cluster}@fg0.1")), "{group}");
    let told = cgroups.describe();
    let folder = format!("{}/thiao-{cluster}@fg0.1", told.split(" under ").nth(1).unwrap());
    let weight = fs::read_to_string(format!("{folder}/cpu.shares"))
        .or_else(|_| fs::read_to_string(format!("{folder}/cpu.weight")))
        .unwrap();
    assert!(["2560", "250"].contains(&weight.trim()), "{weight}");

    // A share can change; a group in use is never taken away.
    cgroups.place(&first, process.pid(), 100).unwrap();
    cgroups.remove(&first);
    assert_eq!(process.group(), group);
    assert!(
        cgroups.place(&second, i32::MAX, 100).is_err(),
        "there is no such process"
    );

    // A controller that died leaves groups behind: the next one removes what is empty.
    drop(process);
    let _ = Cgroups::detect(&cluster);
    let parent = std::path::Path::new(&folder).parent().unwrap();
    let left: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok())
        .filter(|n| n.contains(cluster.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[ignore = "measures: needs a core for some seconds"]
fn shares_hold_under_contention() {
    let cluster = cluster("ratio");
    let Some(cgroups) = detect(&cluster) else { return };
    // One core for both, and each as hungry as can be.
    let busy = || Process::start("taskset", &["-c", "0", "sh", "-c", "while :; do :; done"]);
    let (small, large) = (busy(), busy());
    cgroups
        .place(&VmId::new("small").unwrap(), small.pid(), 100)
        .unwrap();
    cgroups
        .place(&VmId::new("large").unwrap(), large.pid(), 300)
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = (small.ticks(), large.ticks());
    std::thread::sleep(Duration::from_secs(6));
    let spent = (
        (small.ticks() - before.0) as f64,
        (large.ticks() - before.1) as f64,
    );
    let ratio = spent.1 / spent.0;
    eprintln!(
        "shares 300:100 gave {ratio:.2}:1 ({} and {} ticks)",
        spent.1, spent.0
    );
    drop((small, large));
    cgroups.remove(&VmId::new("small").unwrap());
    cgroups.remove(&VmId::new("large").unwrap());
    assert!((2.0..4.5).contains(&ratio), "{ratio}");
}
