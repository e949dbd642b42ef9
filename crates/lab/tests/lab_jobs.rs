//! The main job, whole: real Slurm, real VMs, a person's commands.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not take a test's helpers for tests"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use thiao_testkit::lab::{
    Lab, demo_comes_out_right, fresh_dir, nothing_left, processes_of, text, thiao, wait,
};

/// A parallel job and three single ones at once: the demo's own checks are the test's.
#[test]
fn lab_demo_comes_out_right() {
    demo_comes_out_right(&[]);
}

/// Ctrl-C while VMs boot: exit code 130, and nothing is left.
#[test]
fn lab_demo_interrupted_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    let mut demo = Command::new(thiao())
        .args(["lab", "demo", "--cold"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let booting = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("VM started"));
    // Of the keeper that is this demo's: others may run beside it.
    let keeper = Command::new("ps")
        .args(["-o", "args=", "--ppid", &demo.id().to_string()])
        .output()
        .unwrap();
    let keeper = String::from_utf8(keeper.stdout).unwrap();
    let dirs: Vec<_> = keeper
        .split_whitespace()
        .map(Path::new)
        .filter(|path| path.starts_with("/tmp") && !processes_of(path).is_empty())
        .collect();
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = demo.wait().unwrap();
    assert!(booting, "it ended before a VM was started: {rest:?}");
    assert_eq!(status.code(), Some(130), "{rest:?}");
    assert!(!dirs.is_empty());
    dirs.iter().for_each(|dir| nothing_left(dir));
}

/// What is not possible is refused before anything is made.
#[test]
fn a_lab_that_is_not_possible_leaves_nothing() {
    let dir = fresh_dir();
    for size in ["0x0", "99x1"] {
        let output = Command::new(thiao())
            .args(["lab", "up", "--warm", size, "--dir"])
            .arg(&dir)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("such a lab is not possible"),
            "{}",
            text(&output)
        );
        assert!(!dir.exists(), "{size}");
    }
}

/// The first process of a lab is killed without a chance to tidy up: the kernel ends all others.
#[test]
fn lab_killed_keeper_takes_everything_along() {
    let lab = Lab::up(&["--cold", "--nodes", "2"]);
    lab.submit(&["--wrap", "sleep 100"]);
    lab.wait_event("vm vm1", "vm-started", 1, 30);
    let dir = lab.dir.clone();
    let before = processes_of(&dir);
    assert!(
        before.contains("qemu-system") && before.contains("slurmctld"),
        "{before}"
    );
    let keeper = rustix::process::Pid::from_raw(lab.keeper_pid().cast_signed()).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    wait("all processes end", 10, || {
        processes_of(&dir)
            .lines()
            .all(|line| line.contains("lab up"))
            .then_some(())
    });
    drop(lab);
    nothing_left(&dir);
}

/// An ordinary user's lab, in a user namespace: no root anywhere, and jobs run in VMs as himself.
#[test]
fn lab_without_root_runs_a_job() {
    if !rustix::process::geteuid().is_root() {
        let dir = fresh_dir();
        let mut command = Command::new(thiao());
        command
            .args(["lab", "up", "--foreground", "--nodes", "2", "--dir"])
            .arg(&dir);
        return job_as_self(Lab::start(command, dir));
    }
    // Somewhere that the ordinary user may read and write, whatever this repository's own folders allow.
    let place = tempfile::Builder::new()
        .prefix("thiao-u")
        .tempdir_in("/tmp")
        .unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bin = place.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["thiao", "thiaod", "thiao-lab", "thiao-hook", "thiao-guest"] {
        std::fs::copy(thiao().with_file_name(name), bin.join(name)).unwrap();
    }
    let (uid, gid) = ordinary_user();
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(uid), Some(gid)).unwrap();

    let dir = home.join("lab");
    let mut command = Command::new("unshare");
    // Some machines keep /dev/net/tun to root: Debian's udev does not. Mended in a mount namespace of the test.
    let script = "set -e
        if [ \"$(stat -c %a /dev/net/tun)\" != 666 ]; then
            mknod -m 666 \"$1/tun\" c 10 200; chmod 666 \"$1/tun\"; mount --bind \"$1/tun\" /dev/net/tun
        fi
        cd /; export HOME=\"$1/home\"; unset XDG_STATE_HOME XDG_CACHE_HOME SUDO_UID
        exec setpriv --reuid \"$2\" --regid \"$3\" --clear-groups \"$1/bin/thiao\" lab up --foreground --nodes 2 --dir \"$1/home/lab\"";
    command
        .args(["--mount", "bash", "-c", script, "bash"])
        .arg(place.path())
        .args([uid.to_string(), gid.to_string()]);
    let lab = Lab::start(command, dir);
    job_as_user(lab, uid, gid, place.path());
}

/// Says who and where it is, and what of the guest's own it can open: nothing, but all is there.
const PRIVATE_IN_GUESTS: &str = r#"id -u; hostname
for file in /etc/munge/munge.key /dev/vport* /proc/1/environ /proc/1/mem; do
    [ -e "$file" ] || echo "there is no $file"
    (exec 3< "$file") 2> /dev/null && echo "$file can be read"
    (exec 3>> "$file") 2> /dev/null && echo "$file can be written"
done
true"#;

/// The rest of the test above when it runs as root: every further command must be the user's, too.
fn job_as_user(lab: Lab, uid: u32, gid: u32, place: &Path) {
    let thiao = place.join("bin/thiao");
    let run = |args: &[&str]| {
        let mut command = Command::new(&thiao);
        command
            .arg("lab")
            .arg(args[0])
            .arg("--dir")
            .arg(&lab.dir)
            .args(&args[1..]);
        let output = command
            .uid(uid)
            .gid(gid)
            .env("HOME", place.join("home"))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}\n{}",
            text(&output),
            lab.story()
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let job = run(&["submit", "--parsable", "-o", "out", "--wrap", PRIVATE_IN_GUESTS]);
    wait("the job completes", 120, || {
        (run(&["exec", "--", "squeue", "-h", "-t", "all", "-o", "%T", "-j", &job]) == "COMPLETED")
            .then_some(())
    });
    let (text, owner) = lab.output("out");
    assert_eq!((text.as_str(), owner), (format!("{uid}\nvm1\n").as_str(), uid));
    lab.down();
}

/// And when the tests themselves run as an ordinary user.
fn job_as_self(lab: Lab) {
    let job = lab.submit(&["-o", "out", "--wrap", "id -u; hostname"]);
    lab.wait_job(job, "COMPLETED", 120);
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(lab.output("out"), (format!("{uid}\nvm1\n"), uid));
    lab.down();
}

fn ordinary_user() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((
            fields.get(2)?.parse::<u32>().ok()?,
            fields.get(3)?.parse::<u32>().ok()?,
        ))
    });
    ids.filter(|(uid, _)| *uid >= 1000)
        .min()
        .expect("an ordinary user in /etc/passwd")
}
