//! The waiting PrologSlurmctld against a controller made of a socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn prolog(state: &Path, limit: u32, away: u32) -> Command {
    let program = state.join("PrologSlurmctld");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_thiao-hook"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("SLURM_JOB_ID", "17")
        .env("THIAO_STATE_DIR", state)
        .env("THIAO_PROLOG_LIMIT", limit.to_string())
        .env("THIAO_PROLOG_AWAY", away.to_string());
    command
}

fn timed(mut command: Command) -> (Output, Duration) {
    let start = Instant::now();
    (command.output().unwrap(), start.elapsed())
}

/// Takes one request; its first line.
fn request(listener: &UnixListener) -> (UnixStream, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map(Result::unwrap);
    let first = lines.next().unwrap();
    let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert_eq!(headers, ["Host: thiao", "Connection: close"]);
    (stream, first)
}

/// A controller that gives these answers, one per request; then it is gone.
fn controller(state: &Path, answers: &'static [&'static str]) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(state.join("api.sock")).unwrap();
    thread::spawn(move || {
        let answer = |answer: &&str| {
            let (mut stream, first) = request(&listener);
            stream.write_all(answer.as_bytes()).unwrap();
            first
        };
        answers.iter().map(answer).collect()
    })
}

#[track_caller]
fn assert_answer(answers: &'static [&'static str], code: i32, says: &str) {
    let state = TempDir::new().unwrap();
    let served = controller(state.path(), answers);
    let (output, _) = timed(prolog(state.path(), 20, 5));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(
        if says.is_empty() {
            text.is_empty()
        } else {
            text.contains(says)
        },
        "{text}"
    );
    for line in served.join().unwrap() {
        let timeout = line.strip_prefix("GET /v1/jobs/17/ready?timeout_ms=").unwrap();
        let timeout: u32 = timeout.strip_suffix(" HTTP/1.1").unwrap().parse().unwrap();
        assert!((15_000..=20_000).contains(&timeout));
    }
}

#[test]
fn it_ends_when_the_nodes_are_up() {
    assert_answer(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"], 0, "");
}

#[test]
fn it_does_not_wait_for_jobs_of_other_nodes() {
    let state = TempDir::new().unwrap();
    std::fs::create_dir(state.path().join("spool")).unwrap();
    std::fs::write(state.path().join("spool/nodes"), "vm[1-4]\n").unwrap();
    // Nobody is there to ask.
    let ends = |list: &str| {
        let mut command = prolog(state.path(), 20, 1);
        command.env("SLURM_JOB_NODELIST", list);
        let (output, _) = timed(command);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(ends("cn[01-02]"), "");
    for ours in ["cn01,vm3", "vm[1-4]", "?"] {
        assert!(ends(ours).contains("is away"), "{ours}");
    }
}

#[test]
fn it_requeues_on_the_controllers_word_alone() {
    assert_answer(
        &["HTTP/1.1 409 Conflict\r\n\r\nno host has 900 GB"],
        1,
        "requeued: no host has 900 GB",
    );
    assert_answer(&["HTTP/1.1 404 Not Found\r\n\r\n"], 0, "answers 404");
    assert_answer(&["HTTP/1.1 403 Forbidden\r\n\r\n"], 0, "Slurm's own sweep");
}

#[test]
fn it_asks_again_after_a_fault() {
    let answers = &[
        "HTTP/1.1 503 Unavailable\r\n\r\nstarting",
        "",
        "HTTP/1.1 200 OK\r\n\r\n",
    ];
    assert_answer(answers, 0, "");
}

#[test]
fn it_asks_on_when_the_controller_holds_no_request_so_long() {
    let state = TempDir::new().unwrap();
    let listener = UnixListener::bind(state.path().join("api.sock")).unwrap();
    let served = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = request(&listener);
            thread::sleep(Duration::from_millis(2300));
            stream
                .write_all(b"HTTP/1.1 503 Unavailable\r\n\r\nnot yet")
                .unwrap();
        }
        request(&listener)
            .0
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .unwrap();
    });
    let (output, _) = timed(prolog(state.path(), 60, 1));
    assert!(output.status.success() && output.stderr.is_empty());
    served.join().unwrap();
}

#[test]
fn it_waits_for_a_controller_that_restarts() {
    let state = TempDir::new().unwrap();
    let path = state.path().to_owned();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        controller(&path, &["HTTP/1.1 200 OK\r\n\r\n"]).join().unwrap()
    });
    let (output, took) = timed(prolog(state.path(), 20, 10));
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(took >= Duration::from_millis(700));
    assert_eq!(late.join().unwrap().len(), 1);
}

#[test]
fn it_does_not_wait_long_for_a_controller_that_is_away() {
    let state = TempDir::new().unwrap();
    let (output, took) = timed(prolog(state.path(), 60, 1));
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("away for more than 1 s") && text.contains("No such file"),
        "{text}"
    );
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(20)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn it_gives_up_on_a_controller_that_hangs() {
    let state = TempDir::new().unwrap();
    // Connects, but nobody answers.
    let _listener = UnixListener::bind(state.path().join("api.sock")).unwrap();
    let (output, took) = timed(prolog(state.path(), 1, 60));
    assert!(output.status.success());
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(20)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn silly_limits_do_no_harm() {
    let state = TempDir::new().unwrap();
    let served = controller(state.path(), &["HTTP/1.1 200 OK\r\n\r\n"]);
    let mut command = prolog(state.path(), 1, 1);
    command
        .env("THIAO_PROLOG_LIMIT", u64::MAX.to_string())
        .env("THIAO_PROLOG_AWAY", "-3");
    assert!(command.output().unwrap().status.success());
    assert!(served.join().unwrap()[0].contains("timeout_ms=86"));
}

#[test]
fn without_a_job_it_does_nothing() {
    let state = TempDir::new().unwrap();
    for id in ["", "x", "-1"] {
        let mut command = prolog(state.path(), 60, 60);
        let output = command.env("SLURM_JOB_ID", id).output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("SLURM_JOB_ID"));
    }
}
