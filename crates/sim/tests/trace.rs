//! `thiao sim trace` as people and scripts meet it: real runs of small logs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use thiao_testkit::process::run;

/// Runs it: exit code, standard output, standard error.
fn trace(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thiao-sim"));
    run(command.arg("trace").args(args).stdin(Stdio::null()))
}

/// A line of the Standard Workload Format: number, submission, run time, processors, limit, user.
fn line(job: [u32; 6]) -> String {
    let [id, submit, run, processors, limit, user] = job;
    format!("{id} {submit} -1 {run} {processors} -1 -1 {processors} {limit} -1 1 {user} 1 -1 1 -1 -1 -1\n")
}

/// On 4 processors: a long job, one that must wait for it, one that EASY backfills, and one of the next week.
fn small() -> String {
    let jobs = [
        [1, 0, 1000, 3, 1200, 7],
        [2, 10, 100, 4, 200, 8],
        [3, 20, 50, 1, 60, 7],
        [4, 700_000, 10, 1, 10, 8],
    ];
    format!("; MaxNodes: 4\n; MaxProcs: 4\n{}", jobs.map(line).concat())
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The JSON of a run that must go well.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let (code, out, err) = trace(args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn figures_are_those_that_people_reckon_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path(), "small.swf", &small());
    let value = json(&[&log, "--policy", "fcfs", "--policy", "exclusive", "--json"]);
    let of = |key: &str| value[key].clone();
    assert_eq!(
        (of("log"), of("jobs"), of("hosts")),
        ("small".into(), 4.into(), 4.into())
    );
    let policies: Vec<&str> = value["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["policy"].as_str().unwrap())
        .collect();
    // What ratios are against is there, asked for or not.
    assert_eq!(policies, ["easy-exact", "fcfs", "exclusive"]);
    let [easy, fcfs, exclusive] = [0, 1, 2].map(|at| &value["policies"][at]);
    // EASY: 2 waits 990 s, 3 runs at once. FCFS: 3 waits for 2, 1080 s.
    for (policy, turnarounds) in [
        (easy, [1000., 1090., 50., 10.]),
        (fcfs, [1000., 1090., 1130., 10.]),
    ] {
        let runs = [1000., 100., 50., 10.];
        let stretches: Vec<f64> = turnarounds.iter().zip(runs).map(|(t, r)| t / r).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / 4.0;
        assert_eq!(policy["mean_turnaround_s"], mean(&turnarounds));
        assert!((policy["mean_stretch"].as_f64().unwrap() - mean(&stretches)).abs() < 1e-9);
        let greatest = stretches.iter().copied().fold(1.0, f64::max);
        assert_eq!(
            (&policy["max_stretch"], &policy["p99_stretch"]),
            (&greatest.into(), &greatest.into())
        );
        // The second week has one job, which does not wait.
        assert_eq!(policy["mean_weekly_max_stretch"], f64::midpoint(greatest, 1.0));
    }
    assert_eq!(
        (&easy["turnaround_ratio"], &easy["worst_week_ratio"]),
        (&1.0.into(), &1.0.into())
    );
    let near =
        |value: &Value, than: f64| assert!((value.as_f64().unwrap() - than).abs() < 1e-9, "{value} {than}");
    near(
        &fcfs["turnaround_ratio"],
        (1000. + 1090. + 1130. + 10.) / (1000. + 1090. + 50. + 10.),
    );
    near(
        &fcfs["worst_week_ratio"],
        (1000. + 1090. + 1130.) / (1000. + 1090. + 50.),
    );
    // 3,460 processor seconds of 4 times 700,010.
    near(&exclusive["utilisation"], 3460.0 / 2_800_040.0);
    for policy in [easy, fcfs, exclusive] {
        for key in ["pauses_per_job", "saves_per_job", "moves_per_job", "most_moves"] {
            assert_eq!(policy[key].as_f64(), Some(0.0), "{key}");
        }
        assert!(policy["seconds"].as_f64().unwrap() >= 0.0);
    }
    let later: Vec<_> = exclusive["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["jobs"])
        .collect();
    assert_eq!(later, [&Value::from(2), &2.into()]);
}

#[test]
fn what_was_odd_is_told_and_weeks_are_runs_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}no job at all\n{}", small(), line([9, 700_005, 0, 1, 9, 8]));
    let log = written(dir.path(), "odd.swf", &text);
    let (code, out, err) = trace(&[&log, "--policy", "easy"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for words in [
        "odd: 4 jobs on 4 hosts",
        "line 7:",
        "1  malformed: left out",
        "or 0 s: left out",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    let value = json(&[&log, "--policy", "easy", "--json"]);
    assert_eq!(
        (
            &value["odd"]["malformed"],
            &value["odd"]["malformed_first"][0]["line"]
        ),
        (&1.into(), &7.into())
    );
    let weeks = |which: &str| {
        let value = json(&[&log, "--policy", "easy", "--json", "--weeks", which]);
        (value["runs"].as_u64().unwrap(), value["jobs"].as_u64().unwrap())
    };
    assert_eq!([weeks("all"), weeks("1"), weeks("2-2")], [(2, 4), (1, 3), (1, 1)]);
    let (code, _, err) = trace(&[&log, "--policy", "easy", "--weeks", "3-4"]);
    assert_eq!(code, 1);
    assert!(err.contains("no jobs in the weeks"), "{err}");
}

#[test]
fn results_are_the_same_however_many_run_at_once() {
    let of = |threads: &str| {
        let mut value = json(&[
            "lublin:5",
            "--jobs",
            "300",
            "--policy",
            "easy",
            "--policy",
            "greedypm*",
            "--json",
            "--threads",
            threads,
        ]);
        for policy in value["policies"].as_array_mut().unwrap() {
            // What depends on this machine.
            assert!(policy.as_object_mut().unwrap().remove("seconds").is_some());
        }
        value
    };
    let one = of("1");
    assert_eq!(one, of("7"));
    assert!(one["policies"][2]["saves_per_job"].is_number());
    let other = json(&["lublin:6", "--jobs", "300", "--policy", "easy", "--json"]);
    assert_ne!(
        one["policies"][1]["mean_stretch"],
        other["policies"][1]["mean_stretch"]
    );
    let seeded = json(&[
        "lublin", "--seed", "6", "--jobs", "300", "--policy", "easy", "--json",
    ]);
    assert_eq!(seeded["log"], other["log"]);
}

/// The table, but for how long it took. `THIAO_RECORD=1` writes what it is now.
#[test]
fn the_table_is_right_at_80_columns() {
    let (code, out, err) = trace(&[
        "lublin:1",
        "--policy",
        "easy",
        "--policy",
        "greedyp*",
        "--policy",
        "greedypm*/per/vt600",
    ]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.lines()
            .all(|line| line.chars().count() <= 80 && line.trim_end() == line),
        "{out}"
    );
    let out: String = out
        .lines()
        .filter(|line| !line.starts_with("simulated in"))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace.txt");
    if std::env::var_os("THIAO_RECORD").is_some() {
        fs::write(&file, &out).unwrap();
    }
    assert_eq!(out, fs::read_to_string(file).unwrap());
}

#[test]
fn each_job_has_a_line_under_each_policy() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path(), "small.swf", &small());
    let file = dir.path().join("jobs.csv");
    let (code, _, err) = trace(&[&log, "--policy", "fcfs", "--csv", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 4);
    let fields = lines[0].split(',').count();
    assert!(
        lines.iter().all(|line| line.split(',').count() == fields),
        "{text}"
    );
    assert!(
        lines.contains(&"fcfs,small,3,7,1,20,50,60,1100,1150,1130,1080,22.6,0,0,0"),
        "{text}"
    );
    let (code, _, err) = trace(&[&log, "--policy", "fcfs", "--csv", &log]);
    assert_eq!(code, 2);
    assert!(err.contains("names the log itself"), "{err}");
    assert_eq!(fs::read_to_string(&log).unwrap(), small(), "the log is as it was");
    let nowhere = dir.path().join("none/jobs.csv");
    let (code, _, err) = trace(&[&log, "--policy", "fcfs", "--csv", nowhere.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains("is no folder"), "{err}");
}

#[test]
fn plots_are_made_for_each_policy() {
    let dir = tempfile::tempdir().unwrap();
    let plots = dir.path().join("new/plots");
    let (code, _, err) = trace(&[
        "lublin:2",
        "--policy",
        "greedyp*",
        "--plot",
        plots.to_str().unwrap(),
        "--window",
        "0-24",
    ]);
    assert_eq!(code, 0, "{err}");
    for (name, words) in [
        ("stretch.svg", "bounded stretch"),
        ("usage.svg", "100 %<"),
        ("hosts-easy-exact.svg", "knows no hosts"),
        ("hosts-greedyp-star.svg", "Who ran where under greedyp*"),
    ] {
        let text = fs::read_to_string(plots.join(name)).unwrap();
        assert!(
            text.starts_with("<?xml") && text.trim_end().ends_with("</svg>") && text.contains(words),
            "{name}"
        );
        assert!(text.contains("lublin-2"), "{name}");
    }
    assert_eq!(fs::read_dir(&plots).unwrap().count(), 4);
}

#[test]
fn a_log_of_sacct_is_read_and_names_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let head = "JobIDRaw|User|Partition|Submit|Eligible|Start|ElapsedRaw|TimelimitRaw|NNodes|NCPUS|ReqMem|AllocTRES|State";
    let job = |id: u32, user: &str| {
        format!(
            "{id}|{user}|vm|1760000000|1760000000|1760000100|600|20|1|4|4000M|billing=4,cpu=4,mem=4000M,node=1|COMPLETED\n"
        )
    };
    let text = format!("{head}\n{}{}{}", job(1, "anna"), job(2, "anna"), job(3, "bert"));
    let log = written(dir.path(), "site.txt", &text);
    let args = [
        &log,
        "--policy",
        "exclusive",
        "--hosts",
        "1",
        "--cores",
        "8",
        "--memory",
        "8G",
    ];
    let (code, out, err) = trace(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("site: 3 jobs on 1 host"), "{out}");
    assert!(
        out.contains("Users with most CPU time") && !out.contains("anna") && !out.contains("bert"),
        "{out}"
    );
    let (_, out, _) = trace(&[&args[..], &["--keep-names"]].concat());
    assert!(out.contains("anna") && out.contains("bert"), "{out}");
    let long = text.replace("bert", &"x".repeat(300));
    written(dir.path(), "site.txt", &long);
    let (_, out, _) = trace(&[&args[..], &["--keep-names"]].concat());
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    // Two of them have the memory at once.
    let value = json(&[&args[..], &["--json"]].concat());
    assert_eq!(
        value["policies"][1]["mean_turnaround_s"],
        (600. + 600. + 1200.) / 3.
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path(), "small.swf", &small());
    let empty = written(dir.path(), "empty.swf", "; nothing\n");
    let bare = written(dir.path(), "bare.swf", &line([1, 0, 10, 1, 10, 1]));
    let huge = written(dir.path(), "huge.swf", &small().replace(": 4", ": 4000000"));
    for (args, code, why) in [
        (&["/nowhere/log"][..], 1, "/nowhere/log"),
        (&[&empty], 1, "empty.swf"),
        (&[&bare], 1, "say so with --hosts"),
        (
            &[&log, "--policy", "easier"],
            2,
            "there is no policy 'easier'; there are exclusive, ",
        ),
        (
            &[&log, "--hosts", "3"],
            2,
            "job 2 of small needs 4 hosts: give --hosts 4 or more",
        ),
        (&[&log, "--hosts", "0"], 2, "0 is not in 1.."),
        (&[&log, "--memory", "much"], 2, "write MiB, or as 64G"),
        (&[&log, "--weeks", "none"], 2, "weeks are 'all'"),
        (&[&log, "--boot=-1"], 2, "seconds are a number from 0"),
        (&[&log, "--move-cost", "NaN"], 2, "seconds are a number from 0"),
        (&[&log, "--window", "1-2"], 2, "--plot"),
        (
            &[&log, "--plot", "x", "--window", "2-1"],
            2,
            "a window is FROM-TO",
        ),
        (&[&log, "--costs", "live"], 2, "give the hosts' --memory, as 64G"),
        (&["lublin:x"], 2, "write lublin, lublin:SEED"),
        (&["lublin:1:0"], 2, "write lublin, lublin:SEED"),
        (
            &[&huge, "--policy", "easy"],
            2,
            "of 4000000 hosts, and 200000 is the most",
        ),
        (&["lublin", "--hosts", "4"], 2, "8 hosts or more"),
        (&[], 2, "<LOG>"),
    ] {
        let (is, out, err) = trace(args);
        assert_eq!((is, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(err.contains(why), "{args:?}: {err}");
    }
    let (code, out, err) = trace(&[&log, "--policy", "easy", "--hosts", "3", "--without-wider"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("3 jobs on 3 hosts") && out.contains("needs more than all hosts have"),
        "{out}"
    );
}

#[test]
fn what_to_type_for_a_log_is_told_in_lines_that_a_shell_takes() {
    let (code, out, _) = trace(&["--help"]);
    assert_eq!(code, 0);
    let told = out
        .split("that you name:\n")
        .nth(1)
        .unwrap()
        .split(" > LOG")
        .next()
        .unwrap();
    assert_eq!(told.trim().replace("\\\n", ""), thiao_trace::read::sacct::COMMAND);
    let docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sharing.md")).unwrap();
    let words: Vec<&str> = docs.split_whitespace().filter(|word| *word != "\\").collect();
    assert!(words.join(" ").contains(thiao_trace::read::sacct::COMMAND));
}

#[test]
fn what_is_usual_is_easy_twice_and_the_shared_policy() {
    let value = json(&["lublin:1:0.7", "--jobs", "500", "--json"]);
    let policies = value["policies"].as_array().unwrap();
    let names: Vec<&str> = policies
        .iter()
        .map(|policy| policy["policy"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["easy-exact", "easy", "shared"]);
    let stretch = |at: usize| policies[at]["mean_stretch"].as_f64().unwrap();
    assert!(stretch(2) < stretch(1), "{} {}", stretch(2), stretch(1));
    let (code, out, err) = trace(&["lublin:1:0.7", "--jobs", "500"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("with easy") && out.contains("Long jobs (1 h or more) end"),
        "{out}"
    );
}

#[test]
fn a_log_can_be_other_than_it_is() {
    let of = |more: &[&str]| {
        let args = [
            "lublin:1:0.7",
            "--jobs",
            "400",
            "--policy",
            "shared",
            "--policy",
            "easy",
            "--json",
        ];
        let value = json(&[&args[..], more].concat());
        let stretch = |at: usize| value["policies"][at]["mean_stretch"].as_f64().unwrap();
        (
            stretch(0),
            stretch(1),
            stretch(2),
            value["what_if"].as_str().unwrap().to_owned(),
        )
    };
    let (exact, shared, easy, words) = of(&[]);
    assert_eq!(words, "");
    let fixed = of(&["--fixed", "1"]);
    assert!(
        fixed.1 > shared && (fixed.0, fixed.2) == (exact, easy),
        "{fixed:?} {shared}"
    );
    let idle = of(&["--cpu-need", "0.25"]);
    assert!(
        idle.1 < shared && (idle.0, idle.2) == (exact, easy),
        "{idle:?} {shared}"
    );
    let wrong = of(&["--wrong-limits", "10"]);
    assert!(wrong.2 != easy && wrong.0 == exact, "{wrong:?} {easy}");
    assert_ne!(wrong.2, of(&["--wrong-limits", "10", "--seed", "2"]).2);
    let tight = of(&["--memory-times", "3"]);
    assert!(
        tight.1 > shared && tight.3.contains("3 times the memory"),
        "{tight:?} {shared}"
    );
    let (code, _, err) = trace(&["lublin", "--fixed", "2"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn what_decisions_cost_can_be_said() {
    let of = |more: &[&str]| {
        let args = ["lublin:1:0.7", "--jobs", "400", "--policy", "greedyp*", "--json"];
        let value = json(&[&args[..], more].concat());
        let ratio = value["policies"][1]["turnaround_ratio"].as_f64().unwrap();
        (value["costs"].clone(), ratio)
    };
    let (costs, usual) = of(&[]);
    assert_eq!(
        (&costs["restore_s"], &costs["move_s"], &costs["boot_s"]),
        (&300.0.into(), &300.0.into(), &0.0.into())
    );
    let (costs, dear) = of(&["--restore-cost", "3000.5"]);
    assert_eq!(costs["restore_s"], 3000.5);
    assert!(dear > usual, "{dear} {usual}");
    let (costs, _) = of(&["--costs", "live", "--memory", "64G", "--boot", "3"]);
    assert_eq!(
        (&costs["boot_s"], &costs["move_s"], &costs["storage_mb_per_s"]),
        (&3.0.into(), &2.0.into(), &500.into())
    );
    let (_, cheap) = of(&["--restore-cost", "0", "--move-cost", "0"]);
    assert!(cheap != usual, "{cheap} {usual}");
}
