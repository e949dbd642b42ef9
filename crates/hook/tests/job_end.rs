//! `EpilogSlurmctld` and `tclean`, called as slurmctld and people call them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use thiao_core::ids::JobId;
use thiao_core::spool::{IntentFile, IntentKind};

/// A state folder whose controller has named its nodes of job mode, and the programs.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self::of_no_controller();
        fs::write(place.path("spool/job-nodes"), "s[0-9]\n").unwrap();
        place
    }

    fn of_no_controller() -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["EpilogSlurmctld", "tclean"] {
            symlink(env!("CARGO_BIN_EXE_thiao-hook"), dir.path().join(name)).unwrap();
        }
        for sub in ["tmp", "new"] {
            fs::create_dir_all(dir.path().join("spool").join(sub)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// As slurmctld calls it for job 17, which had these nodes.
    fn slurm(&self, program: &str, nodes: &str, exit: &str) -> Command {
        let mut command = Command::new(self.path(program));
        command
            .env_clear()
            .env("THIAO_STATE_DIR", self.dir.path())
            .env("SLURM_JOB_ID", "17")
            .env("SLURM_JOB_NODELIST", nodes)
            .env("SLURM_JOB_EXIT_CODE", exit)
            .env("SLURM_CLUSTER_NAME", "lab");
        command
    }

    fn hand(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("tclean"));
        command
            .args(args)
            .env_clear()
            .env("THIAO_STATE_DIR", self.dir.path());
        command
    }

    fn orders(&self) -> Vec<IntentFile> {
        assert_eq!(fs::read_dir(self.path("spool/tmp")).unwrap().count(), 0);
        let mut paths: Vec<_> = fs::read_dir(self.path("spool/new"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let read = |path| IntentFile::decode(&fs::read(path).unwrap()).unwrap();
        paths.into_iter().map(read).collect()
    }

    /// Their kinds and nodes.
    fn ends(&self) -> Vec<(IntentKind, String)> {
        let part = |order: IntentFile| (order.kind, order.nodes);
        self.orders().into_iter().map(part).collect()
    }
}

fn end(exit: Option<u32>) -> IntentKind {
    IntentKind::JobEnd { job: JobId(17), exit }
}

#[track_caller]
fn assert_says(mut command: Command, code: i32, parts: &[&str]) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    assert_eq!(status.code(), Some(code), "{text}");
    if parts.is_empty() {
        assert_eq!(text, "");
    }
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn the_end_of_a_job_of_job_mode_is_kept() {
    let place = Place::new();
    let poked = UnixDatagram::bind(place.path("poke.sock")).unwrap();
    poked.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_says(place.slurm("EpilogSlurmctld", "s[1-2]", "256"), 0, &[]);
    assert!(poked.recv(&mut [0; 8]).unwrap() > 0);
    // The same by the other name; what is not ours is left out.
    assert_says(place.slurm("tclean", "fg[0-1],s[9-10]", "0"), 0, &[]);
    assert_says(place.slurm("EpilogSlurmctld", "s3", "?"), 0, &[]);
    assert_eq!(
        place.ends(),
        [
            (end(Some(256)), "s[1-2]".to_owned()),
            (end(Some(0)), "s9".to_owned()),
            (end(None), "s3".to_owned()),
        ]
    );
    let order = &place.orders()[0];
    assert_eq!(order.cluster.as_ref().unwrap().as_str(), "lab");
    assert!(order.resume_file.is_empty());
}

#[test]
fn other_jobs_only_wake_the_controller() {
    for (place, nodes) in [
        (Place::of_no_controller(), "s1"),
        (Place::new(), "fg[0-1]"),
        (Place::new(), "(null)"),
        (Place::new(), ""),
    ] {
        let poked = UnixDatagram::bind(place.path("poke.sock")).unwrap();
        poked.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_says(place.slurm("EpilogSlurmctld", nodes, "0"), 0, &[]);
        assert!(poked.recv(&mut [0; 8]).unwrap() > 0, "{nodes}");
        assert!(place.orders().is_empty(), "{nodes}");
    }
    // No node is of job mode.
    let place = Place::new();
    fs::write(place.path("spool/job-nodes"), "\n").unwrap();
    assert_says(place.slurm("EpilogSlurmctld", "s1", "0"), 0, &[]);
    assert!(place.orders().is_empty());
}

#[test]
fn a_damaged_list_costs_no_order() {
    let place = Place::new();
    fs::write(place.path("spool/job-nodes"), "s[0-\n").unwrap();
    assert_says(
        place.slurm("EpilogSlurmctld", "s1,fg1", "0"),
        0,
        &["The nodes are not checked", "spool/job-nodes"],
    );
    assert_eq!(place.ends(), [(end(Some(0)), "fg1,s1".to_owned())]);
}

#[test]
fn an_end_that_cannot_be_kept_is_told_and_wakes_the_controller_all_the_same() {
    let place = Place::new();
    let poked = UnixDatagram::bind(place.path("poke.sock")).unwrap();
    poked.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    fs::remove_dir(place.path("spool/tmp")).unwrap();
    assert_says(
        place.slurm("EpilogSlurmctld", "s1", "0"),
        1,
        &["the end of job 17 is LOST", "No such file", "THIAO_STATE_DIR"],
    );
    assert!(poked.recv(&mut [0; 8]).unwrap() > 0);
    fs::create_dir(place.path("spool/tmp")).unwrap();
    let mut odd = place.slurm("EpilogSlurmctld", "s1", "0");
    odd.env("SLURM_JOB_ID", "17_3");
    assert_says(odd, 2, &["SLURM_JOB_ID=17_3 is not a job's number"]);
    assert_says(
        place.slurm("EpilogSlurmctld", "s[1-", "0"),
        2,
        &["SLURM_JOB_NODELIST"],
    );
    fs::write(place.path("spool/cluster"), "prod\n").unwrap();
    assert_says(
        place.slurm("EpilogSlurmctld", "s1", "0"),
        2,
        &["another cluster", "\"prod\""],
    );
    assert!(place.orders().is_empty());
}

#[test]
fn by_hand_a_number_is_enough() {
    let place = Place::of_no_controller();
    for _ in 0..2 {
        assert_says(place.hand(&["17"]), 0, &["job 17: its VMs are ended"]);
    }
    let given = (end(None), String::new());
    assert_eq!(place.ends(), [given.clone(), given]);
    for (args, parts) in [
        (&["17_3"][..], &["17_3 is not a job's number", "array"][..]),
        (&["+17"], &["not a job's number"]),
        (&["17", "18"], &["expected one JOBID, got 2"]),
        (&[], &["expected one JOBID, got 0", "Usage: tclean"]),
        (&["-x"], &["unknown option -x"]),
    ] {
        assert_says(place.hand(args), 2, parts);
    }
    assert_eq!(place.orders().len(), 2);
    // A full stdout is no reason to fail.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(place.hand(&["17"]).stdout(full).status().unwrap().success());
}

#[test]
fn who_may_not_write_is_told_what_to_do() {
    // Only root can become somebody else.
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let place = Place::new();
    let open = |path: &str, mode| fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode));
    open("", 0o755).unwrap();
    open("spool", 0o700).unwrap();
    let program = place.path("copy");
    fs::copy(env!("CARGO_BIN_EXE_thiao-hook"), &program).unwrap();
    let stranger = |command: &Command, args: &[&str]| {
        let mut strangers = Command::new(&program);
        strangers.arg("tclean").args(args).env_clear().uid(1001).gid(1001);
        for (name, value) in command.get_envs() {
            strangers.env(name, value.unwrap());
        }
        strangers
    };
    let told = ["Permission denied", "`thiao clean 17`"];
    assert_says(stranger(&place.hand(&[]), &["17"]), 1, &told);
    // In a job's own environment too.
    assert_says(stranger(&place.slurm("tclean", "s1", "0"), &[]), 1, &told);
    assert!(place.orders().is_empty());
}
