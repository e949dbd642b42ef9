//! Logs of clusters, in all their formats.

use crate::input::says_something;
use thiao_trace::read::{self, Log, Names, Oddity, Options, Shape, Tasks, Unit};

/// What is read makes workloads of possible jobs only; a line is a job, left out, or malformed.
pub fn check(input: &[u8]) {
    // The zone's rule is Central Europe's, so that no time zone database is needed.
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    let options = Options {
        names: Names::HashedWith([0; 32]),
        zone: Some(zone),
    };
    match read::stream("log", input, &options) {
        Ok(log) => holds(&log),
        // What is packed may say much in few bytes.
        Err(error) if input.starts_with(&[0x1f, 0x8b]) => assert!(!error.to_string().is_empty()),
        Err(error) => says_something(&error, input),
    }
}

fn holds(log: &Log) {
    assert!(log.jobs() > 0);
    assert!(log.odd.first.len() as u64 <= log.odd.malformed);
    for job in log.traces.iter().flat_map(|trace| &trace.jobs) {
        assert!(
            job.run >= 1 && job.limit >= job.run && (1..=1000).contains(&job.efficiency),
            "{job:?}"
        );
    }
    for tasks in [Tasks::Processors, Tasks::Nodes, Tasks::Allocated, Tasks::Hpc2n] {
        for unit in [Unit::Percent, Unit::Fine] {
            let (hosts, cores, memory) = (Some(120), Some(12), Some(4096));
            let (tasks, unit) = (Some(tasks), Some(unit));
            let shape = Shape {
                hosts,
                cores,
                memory,
                tasks,
                unit,
                ..Shape::default()
            };
            let Ok((workloads, odd)) = shape.workloads(log) else {
                continue;
            };
            let jobs: usize = workloads.iter().map(|workload| workload.jobs.len()).sum();
            assert_eq!(jobs as u64, log.jobs() as u64 - odd.of(Oddity::Wider));
            for workload in &workloads {
                assert!(workload.jobs.is_sorted_by_key(|job| job.submit));
                for job in &workload.jobs {
                    assert!(
                        job.tasks >= 1 && (1..=workload.host.cpu).contains(&job.cpu),
                        "{job:?}"
                    );
                    assert!(job.memory <= workload.host.memory, "{job:?}");
                }
            }
        }
    }
}
