//! The built program, called as slurmctld calls it: through links named
//! `Resume` and so on, with almost no environment.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use thiao_core::spool::{IntentFile, IntentKind};

/// A folder with the links and, behind the link `state`, a state folder.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for name in [
            "Resume",
            "Suspend",
            "ResumeFail",
            "PrologSlurmctld",
            "EpilogSlurmctld",
            "tclean",
        ] {
            symlink(env!("CARGO_BIN_EXE_thiao-hook"), dir.path().join(name)).unwrap();
        }
        let state = dir.path().join("elsewhere");
        fs::create_dir_all(state.join("spool/tmp")).unwrap();
        fs::create_dir_all(state.join("spool/new")).unwrap();
        symlink("elsewhere", dir.path().join("state")).unwrap();
        Self { dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.path(program));
        // Slurm gives the base name alone as argv[0], and closed descriptors.
        command
            .arg0(program)
            .args(args)
            .env_clear()
            .env("SLURM_CONF", "/etc/slurm/slurm.conf");
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// The orders in `new`, by name. Nothing may be left in `tmp`.
    fn orders(&self) -> Vec<IntentFile> {
        assert_eq!(
            fs::read_dir(self.path("state/spool/tmp")).unwrap().count(),
            0,
            "left in tmp"
        );
        self.new_files()
            .iter()
            .map(|path| IntentFile::decode(&fs::read(path).unwrap()).unwrap())
            .collect()
    }

    fn new_files(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.path("state/spool/new"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty());
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[track_caller]
fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    let (got, text) = told(output);
    assert_eq!(got, Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[track_caller]
fn assert_silent(output: &Output) {
    assert_eq!(told(output), (Some(0), String::new()));
}

#[test]
fn an_order_is_kept_whole_and_the_controller_woken() {
    let place = Place::new();
    let poked = UnixDatagram::bind(place.path("state/poke.sock")).unwrap();
    poked.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let json = b"{\"jobs\":[{\"job_id\":5,\"nodes\":\"fg[0-3]\"}],\"all_nodes\":\"fg[0-3]\"}";
    fs::write(place.path("resume-file"), json).unwrap();

    let mut resume = place.command("Resume", &["fg[0-3]"]);
    assert_silent(
        &resume
            .env("SLURM_RESUME_FILE", place.path("resume-file"))
            .output()
            .unwrap(),
    );
    assert!(poked.recv(&mut [0; 8]).unwrap() > 0);
    assert_silent(&place.run("Resume", &["-f", "fg7,fg7"]));
    assert_silent(&place.run("Suspend", &["fg[0-3]"]));
    assert_silent(
        &place
            .command("ResumeFail", &["--", "fg1"])
            .env("SLURM_CLUSTER_NAME", "lab")
            .output()
            .unwrap(),
    );

    let orders = place.orders();
    let kept: Vec<_> = orders
        .iter()
        .map(|order| (order.kind, order.nodes.as_str()))
        .collect();
    assert_eq!(
        kept,
        [
            (IntentKind::Resume { force: false }, "fg[0-3]"),
            (IntentKind::Resume { force: true }, "fg7,fg7"),
            (IntentKind::Suspend, "fg[0-3]"),
            (IntentKind::ResumeFail, "fg1"),
        ]
    );
    assert_eq!(orders[0].resume_file, json);
    assert!(orders.is_sorted_by_key(|order| order.at));
    assert_eq!(orders[3].cluster.as_ref().unwrap().as_str(), "lab");
    let file = fs::metadata(&place.new_files()[0]).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(orders[0].uid, std::os::unix::fs::MetadataExt::uid(&file));
}

#[test]
fn slurms_closed_descriptors_do_not_matter() {
    let place = Place::new();
    let script = r#"exec "$0" fg1 <&- >&- 2>&-"#;
    let shell = Command::new("/bin/sh")
        .env_remove("THIAO_STATE_DIR")
        .args(["-c", script])
        .arg(place.path("Resume"))
        .status()
        .unwrap();
    assert!(shell.success());
    assert_eq!(place.orders().len(), 1);
}

#[test]
fn the_state_folder_is_found() {
    let place = Place::new();
    let other = Place::new();
    let mut resume = place.command("Resume", &["a"]);
    assert_silent(
        &resume
            .env("THIAO_STATE_DIR", other.path("elsewhere"))
            .output()
            .unwrap(),
    );
    assert_eq!((place.orders().len(), other.orders().len()), (0, 1));

    // Found by PATH, and from the folder itself.
    let path = |command: &mut Command| {
        command
            .env("PATH", place.dir.path())
            .current_dir("/")
            .output()
            .unwrap()
    };
    assert_silent(&path(
        Command::new("/usr/bin/env")
            .args(["Resume", "b"])
            .env_remove("THIAO_STATE_DIR"),
    ));
    assert_silent(
        &Command::new("./Resume")
            .env_remove("THIAO_STATE_DIR")
            .arg("c")
            .current_dir(place.dir.path())
            .output()
            .unwrap(),
    );
    assert_eq!(place.orders().len(), 2);
}

#[test]
fn called_by_its_own_name_it_takes_the_programs_name() {
    let place = Place::new();
    let hook = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thiao-hook"));
        command
            .args(args)
            .env_clear()
            .env("THIAO_STATE_DIR", place.path("state"))
            .output()
            .unwrap()
    };
    assert_silent(&hook(&["Resume", "--force", "a1"]));
    assert_eq!(place.orders()[0].kind, IntentKind::Resume { force: true });
    assert_says(
        &hook(&["Rezume", "a1"]),
        2,
        &["Resume|Suspend|ResumeFail|PrologSlurmctld|EpilogSlurmctld|tclean"],
    );
    assert_says(&hook(&[]), 2, &["Usage"]);
}

#[test]
fn wrong_arguments_are_refused() {
    let place = Place::new();
    assert_says(
        &place.run("Resume", &[]),
        2,
        &["expected one HOSTLIST, got 0", "Usage: Resume"],
    );
    assert_says(&place.run("Resume", &["a", "b"]), 2, &["got 2"]);
    assert_says(
        &place.run("Resume", &["--frce", "a"]),
        2,
        &["unknown option --frce"],
    );
    assert_says(
        &place.run("Suspend", &["-f", "a"]),
        2,
        &["unknown option -f", "Usage: Suspend"],
    );
    assert_says(&place.run("EpilogSlurmctld", &["a"]), 2, &["takes no arguments"]);
    for program in [
        "Resume",
        "Suspend",
        "ResumeFail",
        "PrologSlurmctld",
        "EpilogSlurmctld",
        "tclean",
    ] {
        let help = place.run(program, &["--help"]);
        assert!(help.status.success() && help.stdout.starts_with(format!("Usage: {program}").as_bytes()));
        let version = place.run(program, &["-V"]);
        let expected = format!("{program} (thiao) {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
    }
    assert!(place.orders().is_empty());
}

#[test]
fn a_malformed_hostlist_is_refused_with_the_place() {
    let place = Place::new();
    let expected = "Resume: malformed hostlist at byte 13: the range goes backwards; expected the smaller number \
                    first\nfg[0-3],vm[5-1]\n             ^\n";
    let output = place.run("Resume", &["fg[0-3],vm[5-1]"]);
    assert_eq!(told(&output), (Some(2), expected.to_owned()));
    assert_says(&place.run("Suspend", &["a b"]), 2, &["expected a comma", "\n ^"]);
    assert_says(
        &place.run("Suspend", &["a[0-999999999]"]),
        2,
        &["more than 65536 names"],
    );
    assert!(place.orders().is_empty());
}

#[test]
fn unknown_nodes_do_not_take_the_known_ones_along() {
    let place = Place::new();
    fs::write(place.path("state/spool/nodes"), "fg[0-9],vm[001-100]\n").unwrap();
    assert_silent(&place.run("Resume", &["fg[0-3],vm001"]));
    let output = place.run("Resume", &["fg[8-11],vm1"]);
    let parts = [
        "unknown nodes: fg[10-11],vm1.",
        "The order for fg[8-9] is kept.",
        "thiao.toml",
        "spool/nodes",
    ];
    assert_says(&output, 2, &parts);
    assert_says(
        &place.run("Resume", &["xx"]),
        2,
        &["unknown nodes: xx. Nothing was kept."],
    );
    // Named twice it is no more than one unknown node.
    assert_says(
        &place.run("Resume", &["xx,xx"]),
        2,
        &["unknown nodes: xx. Nothing was kept."],
    );
    let orders = place.orders();
    assert_eq!(
        orders
            .iter()
            .map(|order| order.nodes.as_str())
            .collect::<Vec<_>>(),
        ["fg[0-3],vm001", "fg[8-9]"]
    );

    fs::write(place.path("state/spool/nodes"), "fg[0-\n").unwrap();
    assert_says(
        &place.run("Resume", &["xx"]),
        0,
        &["The nodes are not checked", "malformed hostlist"],
    );
    fs::write(place.path("state/spool/nodes"), "\n").unwrap();
    assert_says(&place.run("Resume", &["xx"]), 2, &["unknown nodes: xx"]);
}

#[test]
fn another_clusters_nodes_are_refused() {
    let place = Place::new();
    fs::write(place.path("state/spool/cluster"), "lab\n").unwrap();
    let from = |cluster: &str| {
        place
            .command("Suspend", &["fg1"])
            .env("SLURM_CLUSTER_NAME", cluster)
            .output()
            .unwrap()
    };
    assert_says(
        &from("prod"),
        2,
        &[
            "node of another cluster",
            "\"prod\"",
            "\"lab\"",
            "Nothing was kept",
        ],
    );
    assert!(place.orders().is_empty());
    assert_silent(&from("lab"));
    assert_silent(&from(""));
    assert_eq!(place.orders().len(), 2);
}

#[test]
fn an_order_that_cannot_be_kept_is_said_to_be_lost() {
    let place = Place::new();
    fs::remove_dir(place.path("state/spool/tmp")).unwrap();
    let parts = [
        "the order for fg[0-3] is LOST",
        "No such file",
        "They get no VMs",
        "thiao serve",
        "THIAO_STATE_DIR",
    ];
    assert_says(&place.run("Resume", &["fg[0-3]"]), 1, &parts);
    fs::create_dir(place.path("state/spool/tmp")).unwrap();
    fs::remove_dir(place.path("state/spool/new")).unwrap();
    assert_says(
        &place.run("Suspend", &["fg1"]),
        1,
        &["LOST", "spool/new", "keep running"],
    );
    fs::create_dir(place.path("state/spool/new")).unwrap();
    assert!(place.orders().is_empty());

    fs::remove_file(place.path("state")).unwrap();
    symlink("nowhere", place.path("state")).unwrap();
    assert_says(
        &place.run("ResumeFail", &["fg1"]),
        1,
        &["LOST", "state/spool/tmp"],
    );
}

#[test]
fn a_resume_file_that_cannot_be_read_does_not_cost_the_order() {
    let place = Place::new();
    let mut resume = place.command("Resume", &["fg1"]);
    let output = resume.env("SLURM_RESUME_FILE", "/proc/0/fd/9").output().unwrap();
    assert_says(
        &output,
        0,
        &["going on without SLURM_RESUME_FILE=/proc/0/fd/9: No such file"],
    );
    assert!(place.orders()[0].resume_file.is_empty());
}

#[test]
fn a_message_that_nobody_takes_does_not_cost_the_order() {
    let place = Place::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut resume = place.command("Resume", &["fg1"]);
    let status = resume
        .env("SLURM_RESUME_FILE", "/proc/0/fd/9")
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!((status.code(), place.orders().len()), (Some(0), 1));
}

/// Runs a script in a mount namespace of its own, root or not. `$0` is the folder of the place.
fn in_own_mounts(place: &Place, script: &str) -> Output {
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let unshare = Command::new("unshare")
        .env_remove("THIAO_STATE_DIR")
        .arg(if root { "-m" } else { "-Urm" })
        .args(["/bin/sh", "-ec", script])
        .arg(place.dir.path())
        .output();
    unshare.expect("`unshare` of the package util-linux")
}

#[test]
fn a_full_disk_leaves_nothing_and_is_told() {
    let place = Place::new();
    fs::write(place.path("resume-file"), vec![b'x'; 1 << 20]).unwrap();
    let script = r#"
        mount -t tmpfs -o size=128k none "$0/state/spool"
        mkdir "$0/state/spool/tmp" "$0/state/spool/new"
        code=0
        SLURM_RESUME_FILE="$0/resume-file" "$0/Resume" 'fg[0-3]' || code=$?
        [ -z "$(find "$0/state/spool/" -type f)" ] || exit 9
        "$0/Resume" fg5
        ls "$0/state/spool/new" | grep -q resume || exit 8
        exit $code"#;
    let parts = [
        "the order for fg[0-3] is LOST",
        "No space left",
        "DOWN after ResumeTimeout",
        "Free space",
    ];
    assert_says(&in_own_mounts(&place, script), 1, &parts);
}

#[test]
fn a_read_only_disk_is_told() {
    let place = Place::new();
    let script = r#"
        mount -t tmpfs none "$0/state/spool"
        mkdir "$0/state/spool/tmp" "$0/state/spool/new"
        mount -o remount,bind,ro "$0/state/spool"
        exec "$0/Resume" 'fg[0-3]'"#;
    assert_says(
        &in_own_mounts(&place, script),
        1,
        &["LOST", "Read-only", "writable again"],
    );
}

#[test]
fn killed_at_any_moment_it_leaves_all_or_nothing() {
    let place = Place::new();
    fs::write(place.path("resume-file"), vec![b'x'; 4 << 20]).unwrap();
    let (mut done, mut killed) = (0, 0);
    let mut delay = Duration::ZERO;
    while delay < Duration::from_millis(40) {
        let mut resume = place.command("Resume", &["fg[0-3]"]);
        let mut child = resume
            .env("SLURM_RESUME_FILE", place.path("resume-file"))
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        let success = child.wait().unwrap().success();
        let orders = whole_orders(&place);
        assert!(orders == 1 || !success, "exit 0 without an order");
        if success {
            done += 1
        } else {
            killed += 1
        }
        for path in place.new_files() {
            fs::remove_file(path).unwrap();
        }
        delay = delay.mul_f64(1.1) + Duration::from_micros(100);
    }
    assert!(killed > 5, "{killed} killed, {done} done");
    assert!(
        place.command("Resume", &["fg1"]).status().unwrap().success(),
        "what the killed left does no harm"
    );
}

/// How many orders are in `new`; all must be whole.
fn whole_orders(place: &Place) -> usize {
    let files = place.new_files();
    for path in &files {
        let order = IntentFile::decode(&fs::read(path).unwrap()).unwrap();
        assert_eq!(order.resume_file.len(), 4 << 20);
    }
    files.len()
}

#[test]
fn many_at_once_do_not_meet() {
    let place = Place::new();
    let spawn = |index: u32| {
        place
            .command("Suspend", &[&format!("fg{index}")])
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..60).map(spawn).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut nodes: Vec<_> = place.orders().into_iter().map(|order| order.nodes).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 60);
}

#[test]
fn the_epilog_wakes_the_controller() {
    let place = Place::new();
    assert_silent(&place.run("EpilogSlurmctld", &[]));
    let poked = UnixDatagram::bind(place.path("state/poke.sock")).unwrap();
    poked.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_silent(&place.run("EpilogSlurmctld", &[]));
    assert!(poked.recv(&mut [0; 8]).unwrap() > 0);
}

#[test]
fn a_controller_that_does_not_listen_blocks_no_hook() {
    let place = Place::new();
    let _deaf = UnixDatagram::bind(place.path("state/poke.sock")).unwrap();
    // More than a datagram socket queues.
    for index in 0..40 {
        let mut child = place
            .command("Suspend", &[&format!("fg{index}")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(
            wait_within(&mut child, Duration::from_secs(10)),
            "hook {index} hangs"
        );
    }
    assert_eq!(place.orders().len(), 40);
}

/// Whether it ends with success in that time; killed else.
fn wait_within(child: &mut std::process::Child, limit: Duration) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    _ = child.wait();
    false
}

#[test]
fn nothing_of_the_spool_is_open_to_others() {
    let place = Place::new();
    let script = r#"umask 0; exec "$0" fg1"#;
    assert!(
        Command::new("/bin/sh")
            .env_remove("THIAO_STATE_DIR")
            .args(["-c", script])
            .arg(place.path("Resume"))
            .status()
            .unwrap()
            .success()
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.new_files()[0]), 0o600);
}
