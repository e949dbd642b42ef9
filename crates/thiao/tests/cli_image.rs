//! `thiao image build` with a stand-in for mmdebstrap: whatever ends it, nothing is left, and it says why.

#![allow(clippy::unwrap_used, reason = "it is a test")]

mod stand_ins;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A place with a cache, a folder for temporary files, and a program `mmdebstrap` with this script.
fn place(script: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["bin", "tmp", "cache"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    stand_ins::write(&dir.path().join("bin/mmdebstrap"), script, 0o755);
    dir
}

fn start(place: &Path, words: &[&str]) -> Child {
    let path = std::env::var("PATH").unwrap();
    Command::new(env!("CARGO_BIN_EXE_thiao"))
        .args(["image", "--cache-dir"])
        .arg(place.join("cache"))
        .args(words)
        .env("PATH", format!("{}:{path}", place.join("bin").display()))
        .env("TMPDIR", place.join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

const BUILD: [&str; 4] = ["build", "site", "--suite", "bookworm"];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn left(place: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["cache/roots", "cache/built", "tmp"] {
        for entry in fs::read_dir(place.join(folder)).into_iter().flatten() {
            names.push(format!("{folder}/{}", entry.unwrap().file_name().display()));
        }
    }
    names
}

fn wait_for(file: &Path) {
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// It makes a folder of its own, as mmdebstrap does, and is at it until it is ended, or told to end.
const SLOW: &str = "#!/bin/sh\n\
    mkdir \"$TMPDIR/mmdebstrap.x\" && touch \"$TMPDIR/../../here\"\n\
    while [ -d \"$TMPDIR/..\" ] && [ ! -e \"$TMPDIR/../../end\" ]; do sleep 0.1; done\n";

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let place = place(
        "#!/bin/sh\n\
         mkdir \"$TMPDIR/mmdebstrap.x\"\n\
         echo 'W: creating tarball failed: E: cannot copy to x: No space left on device' >&2\n\
         kill -HUP 0\n\
         exit 1\n",
    );
    let output = start(place.path(), &BUILD).wait_with_output().unwrap();
    let words = said(&output);
    assert_eq!(
        (output.status.signal(), output.status.code()),
        (None, Some(1)),
        "{words}"
    );
    assert!(
        words.contains("not enough space") && words.contains("--cache-dir"),
        "{words}"
    );
    assert!(words.contains("cannot copy to x"), "{words}");
    assert_eq!(left(place.path()), Vec::<String>::new());
}

#[test]
fn whatever_interrupts_it_leaves_nothing() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let place = place(SLOW);
        let child = start(place.path(), &BUILD);
        wait_for(&place.path().join("here"));
        assert!(!left(place.path()).is_empty());
        // SAFETY: a plain system call on a child that was not waited for.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
        let output = child.wait_with_output().unwrap();
        let words = said(&output);
        assert_eq!(output.status.code(), Some(code), "{words}");
        assert!(words.contains("interrupted: nothing of it was kept"), "{words}");
        assert_eq!(left(place.path()), Vec::<String>::new());
    }
}

/// A disk that begins nothing is asked until somebody has enough of it.
#[test]
fn a_check_that_is_ended_removes_its_disk() {
    let place = place("#!/bin/sh\n");
    let disk = place.path().join("disk");
    let mut bytes = vec![0; 1 << 20];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&disk, bytes).unwrap();
    let child = start(place.path(), &["check", disk.to_str().unwrap()]);
    let begun = Instant::now();
    let is_up = || {
        let mut folders = place.path().join("tmp").read_dir().unwrap().flatten();
        folders.any(|folder| folder.path().join("console.log").exists())
    };
    while !is_up() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: a plain system call on a child that was not waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert_eq!(left(place.path()), Vec::<String>::new());
}

#[test]
fn one_build_of_a_name_runs_and_a_list_removes_what_a_killed_one_left() {
    let place = place(SLOW);
    let mut first = start(place.path(), &BUILD);
    wait_for(&place.path().join("here"));
    let second = start(place.path(), &BUILD).wait_with_output().unwrap();
    assert!(
        said(&second).contains("being made by another"),
        "{}",
        said(&second)
    );
    let list = || start(place.path(), &["list"]).wait_with_output().unwrap();
    assert!(list().status.success());
    assert!(
        place.path().join("tmp").read_dir().unwrap().next().is_some(),
        "it is still used"
    );
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(list().status.success());
    let still = place.path().join("tmp").read_dir().unwrap().next();
    assert!(still.is_some(), "what it started goes on");
    fs::write(place.path().join("end"), "").unwrap();
    let begun = Instant::now();
    while !left(place.path()).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{:?}",
            left(place.path())
        );
        assert!(list().status.success());
    }
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let place = place("#!/bin/sh\ntouch \"$TMPDIR/../called\"\n");
    for (words, why) in [
        (&["build", "small"][..], "another name"),
        (
            &["build", "x", "--suite", "bookworm", "--packages", "gcc-"],
            "gcc-",
        ),
        (&["check", "/dev/null"], "no disk with a system"),
    ] {
        let output = start(place.path(), words).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(said(&output).contains(why), "{}", said(&output));
    }
    assert!(!place.path().join("called").exists());
    assert_eq!(left(place.path()), [""; 0]);
}
