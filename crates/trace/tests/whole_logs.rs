//! Whole logs, as they are in the archive: far too much for the repository. They are in the folder that
//! `THIAO_TRACES` names; by default `../shared/traces`, beside the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiao_trace::lublin::{self, Model};
use thiao_trace::read::{self, Format, Log, Need, Oddity, Options, Shape, Unit};
use thiao_trace::workload::Workload;

fn folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    std::env::var_os("THIAO_TRACES").map_or(beside, PathBuf::from)
}

fn log(name: &str) -> Log {
    let log = read::any(&folder().join(name), &Options::default());
    log.expect("the folder with the logs, which THIAO_TRACES names")
}

fn workload(log: &Log, shape: &Shape) -> Workload {
    shape.workloads(log).expect("a workload").0.remove(0)
}

/// Of each week of the golden runs of HPC2N: jobs, and the useful work where nothing was paused.
fn golden_weeks() -> BTreeMap<String, (usize, u64)> {
    let golden = std::fs::read_to_string(folder().join("dfrs-golden.csv")).expect("dfrs-golden.csv");
    let mut weeks = BTreeMap::new();
    for row in golden.lines().filter(|row| row.starts_with("hpc2n,")) {
        // What the algorithm was told may have commas in it.
        let head: Vec<&str> = row.split(',').collect();
        let tail: Vec<&str> = row.rsplit(',').collect();
        if head[3] == "fcfs" {
            let (jobs, work) = (head[6].parse().expect("jobs"), tail[1].parse().expect("work"));
            weeks.insert(head[2].to_owned(), (jobs, work));
        }
    }
    weeks
}

#[test]
#[ignore = "whole logs: cargo xtask golden"]
fn hpc2n_is_what_the_golden_runs_had() {
    let log = log("HPC2N-2002-2.1-cln.swf.gz");
    assert_eq!(
        (log.format, log.jobs(), log.odd.malformed),
        (Format::Swf, 202_876, 0)
    );
    assert_eq!(log.odd.of(Oddity::NoMemory), 2142);
    assert_eq!(log.odd.of(Oddity::OverLimit), 14_817);
    assert_eq!(log.odd.of(Oddity::ProcessorsDiffer), 729);
    assert_eq!(log.odd.left_out(), 0);
    let whole = workload(&log, &Shape::default());
    assert_eq!((whole.hosts, whole.jobs.len()), (120, 202_876));
    let work = |week: &Workload| -> u64 {
        week.jobs
            .iter()
            .map(|job| u64::from(job.tasks) * u64::from(job.cpu) * job.run)
            .sum()
    };
    let weeks: BTreeMap<_, _> = whole
        .weeks()
        .iter()
        .map(|week| (week.name.clone(), (week.jobs.len(), work(week))))
        .collect();
    assert_eq!(weeks.len(), 182);
    assert_eq!(weeks, golden_weeks());
    // The later version lacks five jobs of the first week.
    let later = self::log("HPC2N-2002-2.2-cln.swf.gz");
    assert_eq!((later.jobs(), later.odd.of(Oddity::NoMemory)), (202_871, 2137));
}

#[test]
#[ignore = "whole logs: cargo xtask golden"]
fn published_schedules_hold_the_same_jobs_as_the_job_sets() {
    for (name, set, nodes, jobs) in [("KTH-SP2", "kth", 100, 28_481), ("SDSC-SP2", "sdsc", 128, 54_006)] {
        let of = |kind: &str| {
            let log = log(&format!("published/{name}.{kind}.swf.gz"));
            assert_eq!(
                (log.format, log.jobs(), log.odd.malformed),
                (Format::Published, jobs, 0)
            );
            assert_eq!(log.odd.left_out(), 0);
            workload(&log, &Shape::default())
        };
        let published = of("easy-requested");
        assert_eq!(published.hosts, nodes);
        for kind in ["easy-exact", "easy-sjbf-exact"] {
            let mut other = of(kind);
            for (job, other) in published.jobs.iter().zip(&mut other.jobs) {
                assert!(job.wait.is_some() && other.wait.is_some());
                other.wait = job.wait;
            }
            assert!(other.jobs == published.jobs, "{name}.{kind}");
        }
        for rule in ["light", "m"] {
            let log = log(&format!("jobs/{set}-{rule}.txt.gz"));
            assert_eq!(
                (log.format, log.jobs(), log.odd.clone()),
                (Format::JobSet, jobs, read::Odd::default())
            );
            let mut drawn = workload(
                &log,
                &Shape {
                    hosts: Some(nodes),
                    ..Shape::default()
                },
            );
            for (job, drawn) in published.jobs.iter().zip(&mut drawn.jobs) {
                drawn.wait = job.wait;
                if rule == "m" {
                    drawn.memory = job.memory;
                }
            }
            assert!(drawn.jobs == published.jobs, "{set}-{rule}");
        }
    }
    let log = log("published/CTC-SP2.easy-exact.swf.gz");
    assert_eq!((log.jobs(), log.header.processors), (77_199, Some(338)));
}

#[test]
#[ignore = "whole logs: cargo xtask golden"]
fn job_sets_hold_a_hundred_traces() {
    for name in ["lublin-0.5", "lublin-0.7", "lublin-lubT"] {
        let log = log(&format!("jobs/{name}.txt.gz"));
        assert_eq!(
            (log.format, log.traces.len(), log.odd.clone()),
            (Format::JobSet, 100, read::Odd::default())
        );
        let shape = Shape {
            hosts: Some(128),
            unit: Some(Unit::Percent),
            ..Shape::default()
        };
        let (workloads, odd) = shape.workloads(&log).expect("workloads");
        assert_eq!(odd, read::Odd::default());
        assert!(workloads.iter().all(|workload| workload.jobs.len() == 1000));
        assert_eq!(
            (workloads[0].name.as_str(), workloads[99].name.as_str()),
            ("s001", "s100")
        );
        for (job, record) in workloads
            .iter()
            .zip(&log.traces)
            .flat_map(|(w, t)| w.jobs.iter().zip(&t.jobs))
        {
            let Need::Fractions { tasks, cpu, memory } = record.need else {
                panic!("no fractions")
            };
            assert_eq!(tasks, job.tasks);
            // They are whole percents.
            assert!((cpu * 100. - f64::from(job.cpu)).abs() < 1e-9);
            assert!((memory * 100. - f64::from(job.memory)).abs() < 1e-9);
        }
    }
}

#[test]
#[ignore = "whole logs: cargo xtask golden"]
fn other_logs_are_read_to_their_ends() {
    // Lines, those left out for want of a run time, nodes, processors. KTH's head speaks of 28,476 jobs.
    for (name, lines, no_run, nodes, processors) in [
        ("KTH-SP2-1996-2.1-cln.swf.gz", 27_992, 0, Some(100), Some(100)),
        ("CTC-SP2-1996-3.1-cln.swf.gz", 77_222, 17, Some(338), Some(338)),
        (
            "SDSC-BLUE-2000-4.2-cln.swf.gz",
            243_306,
            10_770,
            Some(144),
            Some(1152),
        ),
        ("lublin_256.swf", 10_000, 0, Some(256), None),
    ] {
        let log = log(name);
        println!("{name}: {} jobs\n{}", log.jobs(), log.odd);
        assert_eq!(log.format, Format::Swf);
        assert_eq!((log.header.nodes, log.header.processors), (nodes, processors));
        assert_eq!(log.odd.malformed, 0);
        assert_eq!(
            (log.jobs() as u64 + log.odd.left_out(), log.odd.of(Oddity::NoRun)),
            (lines, no_run),
            "{name}"
        );
    }
}

#[test]
#[ignore = "whole logs: cargo xtask golden"]
fn the_model_draws_the_jobs_of_the_reference_generator() {
    let sets = ["lublin-lubT", "lublin-0.5", "lublin-0.7"].map(|name| log(&format!("jobs/{name}.txt.gz")));
    for (set, load) in sets.iter().zip([None, Some(0.5), Some(0.7)]) {
        for (seed, trace) in (1..).zip(&set.traces) {
            let drawn = lublin::workload(&Model {
                seed,
                load,
                ..Model::default()
            });
            let ours = drawn
                .jobs
                .iter()
                .map(|job| (job.id, job.submit, job.run, job.tasks));
            let theirs = trace.jobs.iter().map(|job| match job.need {
                Need::Fractions { tasks, .. } => (job.id, job.submit, job.run, tasks),
                Need::Processors(_) => panic!("no fractions"),
            });
            let (ours, theirs): (Vec<_>, Vec<_>) = (ours.collect(), theirs.collect());
            let differ = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            assert!(
                differ.is_none() && ours.len() == theirs.len(),
                "{load:?} {}: {differ:?}",
                trace.name
            );
        }
    }
}
