//! `thiao sim` as people and scripts meet it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::process::{Command, Stdio};
use thiao_testkit::process::run;

/// Runs it: exit code, standard output, standard error.
fn sim(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thiao-sim"));
    run(command.args(args).stdin(Stdio::null()))
}

#[test]
fn a_world_is_run_and_told_of() {
    let (code, out, err) = sim(&["run", "--seed", "4", "--faults", "light"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for text in [
        "1 world: no invariant was broken",
        "h per second",
        "made",
        "of invariants",
        "injected",
    ] {
        assert!(out.contains(text), "{text} not in\n{out}");
    }
}

#[test]
fn the_same_seed_is_the_same_world_for_programs_too() {
    let run = || {
        let (code, out, _) = sim(&[
            "run",
            "--seeds",
            "3",
            "--nodes",
            "3",
            "--faults",
            "controller",
            "--json",
        ]);
        assert_eq!(code, 0, "{out}");
        let mut value: Value = serde_json::from_str(&out).unwrap();
        let told = value.as_object_mut().unwrap();
        // What depends on this machine.
        assert!(told.remove("wall_ms").is_some() && told.remove("simulated_hours_per_second").is_some());
        value
    };
    let first = run();
    assert_eq!(first, run());
    assert_eq!(
        (&first["worlds"], &first["broken"]),
        (&3.into(), &Value::Array(Vec::new()))
    );
    assert!(first["kills"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(first["kills"], first["faults"]["killed"]["hits"], "{first}");
    // Ten kinds of questions, asked after every step; a step without a controller is no round.
    assert!(
        first["checks"].as_u64().unwrap() > 9 * first["rounds"].as_u64().unwrap(),
        "{first}"
    );
    let (_, other, _) = sim(&[
        "run",
        "--seed",
        "9",
        "--seeds",
        "3",
        "--nodes",
        "3",
        "--faults",
        "controller",
        "--json",
    ]);
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_ne!(first["rounds"], other["rounds"]);
}

#[test]
fn what_breaks_is_shrunk_and_can_be_seen_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.world");
    let path = file.to_str().unwrap();
    // The third job never has enough nodes.
    std::fs::write(
        &file,
        "seed = 3\nfault.killed = 30\ncalm = 60s\njob = at 1s, 1 nodes, 5s\njob = at 5s, 1 nodes, 5s\n\
         job = at 9s, 9 nodes, 5s\n",
    )
    .unwrap();
    let (code, out, _) = sim(&["run", "--world", path]);
    assert_eq!(code, 1, "{out}");
    // A job that is too wide for its cluster, however small both are.
    let small = out.split("thiao sim run --world FILE\n").nth(1).unwrap();
    let jobs = small.lines().filter(|line| line.contains("job = "));
    assert!(
        small.lines().any(|line| line == "  nodes = 0") && !small.contains("fault"),
        "{out}"
    );
    assert_eq!(jobs.collect::<Vec<_>>(), ["  job = at 1s, 1 nodes, 1s"], "{out}");
    assert!(out.contains("BROKEN: 6-all-ends-well"), "{out}");
    // What was printed is a world that breaks the same.
    std::fs::write(&file, small).unwrap();
    let (code, out, _) = sim(&["run", "--world", path, "--json", "--no-shrink"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, value["broken"][0]["invariant"].as_str()),
        (1, Some("6-all-ends-well"))
    );
    let first = value["broken"][0]["story"][0].as_str().unwrap();
    assert!(first.ends_with("job 1 submitted"), "{value}");
    assert!(value["checks"].as_u64().unwrap() > 1000, "{value}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.world");
    std::fs::write(&file, "nodes = many\n").unwrap();
    let path = file.to_str().unwrap();
    for (args, code, why) in [
        (&["run", "--hours", "0"][..], 2, "0 is not in 1..="),
        (&["run", "--faults", "heavier"], 2, "possible values: none, light"),
        (&["run", "--seeds", "0"], 2, "0 is not in 1.."),
        (&["run", "--world", path, "--seed", "1"], 2, "cannot be used with"),
        (&["run", "--world", path], 2, "line 1: 'many'"),
        (
            &["run", "--world", "/nowhere/at/all"],
            1,
            "/nowhere/at/all cannot be read",
        ),
    ] {
        let (is, _, err) = sim(args);
        assert_eq!(is, code, "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
    let (code, out, _) = sim(&["profiles"]);
    assert_eq!(code, 0);
    assert!(out.lines().any(|line| line.starts_with("heavy ")), "{out}");
}
