//! The command line as people and scripts meet it: the built program, its
//! texts and its exit codes, without a controller.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use thiao_testkit::process::{self, said};

fn thiao(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thiao"));
    command
        .args(args)
        .env_remove("THIAO_CONFIG")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs it: exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    process::run(&mut thiao(args))
}

fn config(dir: &Path, text: &str) -> String {
    let file = dir.join("thiao.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    file.to_str().unwrap().to_owned()
}

const GOOD: &str = "cluster = \"lab\"\n[[nodeset]]\nname = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\n\
                    [[qemu.host]]\nname = \"h\"\nmemory_mb = 4000\n";

#[test]
fn help_tells_the_exit_codes() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for text in [
        "Exit codes:",
        "3  no controller answers",
        "THIAO_CONFIG",
        "hostlist",
        "explain",
    ] {
        assert!(out.contains(text), "{text} not in\n{out}");
    }
    for hidden in ["generate", "nfs-export"] {
        assert!(!out.contains(hidden), "{hidden} in\n{out}");
    }
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out), (0, format!("thiao {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_makes_no_sense_is_code_2() {
    for args in [
        &[] as &[&str],
        &["nonsense"],
        &["nodes", "--nonsense"],
        &["hostlist", "expand"],
        &["hostlist", "expand", "a[1-2]b"],
        &["events", "-n", "0"],
        &["resume", "fg[0-"],
        &["nodes", "fg[3-1]"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty(), "{args:?}");
    }
}

#[test]
fn hostlists_are_expanded_folded_and_counted() {
    for (args, expected) in [
        (&["expand", "fg0,fg[3-5]"] as &[&str], "fg0\nfg3\nfg4\nfg5\n"),
        (&["expand", "vm[009-010]", "x"], "vm009\nvm010\nx\n"),
        (&["expand", "a[1-2]b[3-4]"], "a1b3\na1b4\na2b3\na2b4\n"),
        (&["fold", "fg5", "fg[0-3]", "fg4", "fg0"], "fg[0-5]\n"),
        (&["count", "fg[0-3,7]", "x"], "6\n"),
        (&["count", "x[0-999999999]"], "1000000000\n"),
    ] {
        let (code, out, err) = run(&[&["hostlist"], args].concat());
        assert_eq!((code, out.as_str()), (0, expected), "{args:?}: {err}");
    }
}

#[test]
fn a_malformed_hostlist_is_marked() {
    let (code, out, err) = run(&["hostlist", "expand", "fg[0-3],vm[7-"]);
    assert_eq!((code, out.as_str()), (2, ""));
    let lines: Vec<&str> = err.lines().collect();
    assert!(
        lines[0].starts_with("thiao: malformed hostlist at byte "),
        "{err}"
    );
    let at: usize = lines[0]
        .split(' ')
        .nth(5)
        .unwrap()
        .trim_end_matches(':')
        .parse()
        .unwrap();
    assert_eq!(lines[1], "fg[0-3],vm[7-");
    assert_eq!(lines[2], format!("{}^", " ".repeat(at)));
    let (code, _, err) = run(&["hostlist", "expand", "a[0-99999999]"]);
    assert!(code == 2 && err.contains("more than 65536 names"), "{err}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = thiao(&["hostlist", "expand", "averylongnodename[0-65000]"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 20];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    assert_eq!(&first, b"averylongnodename0\na");
    let (code, _, err) = said(child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (code, _, err) = said(
        thiao(&["hostlist", "expand", "a1"])
            .stdout(full)
            .output()
            .unwrap(),
    );
    assert!(code == 1 && err.contains("No space left"), "{code} {err}");
}

#[test]
fn settings_are_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), GOOD);
    let (code, out, err) = run(&["config", "check", "--config", &file]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        format!("{file} is right: cluster lab, 8 nodes in 1 nodesets\n")
    );

    // What this machine does not have is not promised to VMs.
    let big = config(dir.path(), &GOOD.replace("4000", "67000000"));
    let (code, _, err) = run(&["config", "check", "--config", &big]);
    assert!(
        code == 1 && err.contains("qemu.host h promises 67000000 MiB to VMs, and this machine has"),
        "{err}"
    );
    let file = config(dir.path(), GOOD);

    // The environment names the file too; the option wins.
    let (code, shown, _) = said(
        thiao(&["config", "show"])
            .env("THIAO_CONFIG", &file)
            .output()
            .unwrap(),
    );
    assert_eq!(code, 0);
    for line in [
        "cluster = \"lab\"",
        "nodes = \"fg[0-7]\"",
        "max_vms = 10000",
        "# default",
        "# line 1",
        "[[qemu.host]]",
    ] {
        assert!(shown.contains(line), "{line} not in\n{shown}");
    }
    let other = dir.path().join("none");
    let (code, _, err) = said(
        thiao(&["config", "show", "--config", other.to_str().unwrap()])
            .env("THIAO_CONFIG", &file)
            .output()
            .unwrap(),
    );
    assert!(code == 1 && err.contains("/none: No such file"), "{err}");

    // What is shown is a file again, which means the same.
    let again = config(dir.path(), &shown);
    let (code, shown_again, err) = run(&["config", "show", "--config", &again]);
    assert_eq!(code, 0, "{err}");
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|l| l.split('#').next())
            .map(|l| l.trim().to_owned())
            .filter(|l| !l.is_empty())
            .collect()
    };
    assert_eq!(values(&shown), values(&shown_again));
}

#[test]
fn a_typo_is_named_with_file_line_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(
        dir.path(),
        &format!("{GOOD}[limits]\nmax_vm = 7\nmax_starting = 0\n"),
    );
    let (code, out, err) = run(&["config", "check", "--config", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains(&format!(
            "{file}:10: limits.max_vm: there is no such key; did you mean max_vms?"
        )),
        "{err}"
    );
    assert!(
        err.contains(&format!(
            "{file}:11: limits.max_starting: 0 is not a whole number from 1 to 65536"
        )),
        "{err}"
    );
    // The controller does not start on it either.
    let (code, _, err) = run(&["serve", "--config", &file]);
    assert!(code == 1 && err.contains("did you mean max_vms?"), "{err}");
    // Those who only read do not care; a bad state_dir they name.
    let (code, _, err) = run(&["status", "--config", &file]);
    assert!(
        code == 3 && err.contains("no controller answers at /var/lib/thiao/api.sock"),
        "{err}"
    );
    let file = config(dir.path(), &format!("state_dir = 7\n{GOOD}"));
    let (code, _, err) = run(&["status", "--config", &file]);
    assert!(
        code == 1 && err.contains(":1: state_dir: 7 is not an absolute path"),
        "{err}"
    );
}

#[test]
fn a_file_that_all_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), GOOD);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
    for command in [&["config", "check"] as &[&str], &["serve"], &["status"]] {
        let (code, _, err) = run(&[command, &["--config", &file]].concat());
        assert!(
            code == 1 && err.contains("everybody may write to it: chmod o-w"),
            "{command:?} {err}"
        );
    }
}

#[test]
fn serve_is_thiaod() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.toml");
    let thiaod = thiao_testkit::program("thiaod");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_thiao"));
    serve.arg("serve");
    for command in [&mut Command::new(&thiaod), &mut serve] {
        let (code, _, err) = said(command.env("THIAO_CONFIG", &none).output().unwrap());
        assert!(
            code == 1 && err.contains("none.toml: No such file"),
            "{code} {err}"
        );
    }
    let (code, out, _) = said(Command::new(&thiaod).arg("--help").output().unwrap());
    assert!(code == 0 && out.contains("Run the controller"), "{out}");
}

#[test]
fn commands_that_are_programs_of_their_own_are_found_beside_it() {
    for (command, program) in [("lab", "thiao-lab"), ("sim", "thiao-sim")] {
        let _ = thiao_testkit::program(program);
        let (code, out, err) = run(&[command, "--help"]);
        assert!(code == 0, "{err}");
        assert!(
            out.contains(&format!("Usage: thiao {command} <COMMAND>")),
            "{out}"
        );
        assert_eq!(run(&[command, "no-such"]).0, 2);
    }
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("thiao");
    std::fs::copy(env!("CARGO_BIN_EXE_thiao"), &alone).unwrap();
    if !Path::new("/usr/lib/thiao/thiao-lab").exists() {
        let (code, out, err) = said(Command::new(&alone).args(["lab", "up"]).output().unwrap());
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(
            err.contains("thiao-lab is neither beside") && err.contains("xtask install"),
            "{err}"
        );
    }
}

#[test]
fn without_a_controller_every_showing_command_is_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(
        dir.path(),
        &format!("state_dir = \"{}\"\n{GOOD}", dir.path().display()),
    );
    for args in [
        &["status"] as &[&str],
        &["nodes", "fg0"],
        &["vms", "--json"],
        &["hosts", "--watch"],
        &["jobs"],
        &["events", "--follow"],
        &["explain", "fg0"],
        &["plan"],
        &["resume", "fg0"],
        &["suspend", "fg0"],
    ] {
        let (code, out, err) = run(&[args, &["--config", &file]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
        assert!(
            err.contains("is thiaod running? Start it with `systemctl start thiaod` or `thiao serve`"),
            "{err}"
        );
    }
}

#[test]
fn a_person_without_rights_to_the_folder_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let file = config(
        dir.path(),
        &format!("state_dir = \"{}\"\n{GOOD}", state.display()),
    );
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o000)).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    // That user must reach the program: a copy.
    let program = dir.path().join("thiao");
    std::fs::copy(env!("CARGO_BIN_EXE_thiao"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["status", "--config", &file]);
    // Root may open everything, and becomes somebody else.
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let (code, _, err) = said(command.output().unwrap());
    assert!(code == 3 && err.contains("you may not open"), "{code} {err}");
}
