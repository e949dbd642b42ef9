//! Whatever bytes a log has: no panic, and what is read holds what its types promise.

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write as _;
use thiao_trace::read::{self, Log, MemoryOf, Names, Options, Shape, Tasks, Unit};

const SWF: &str = "; MaxNodes: 10\n; MaxProcs: 40\n1 0 5 10 4 -1 100 8 50 -1 1 1 1 1 1 1 -1 -1\n2 7 5 10 4\n";
const SET: &str = "light 1 0 56 1.0000 0.1000 97225 210000 1 1.000\nm 2 5 4 0.25 1 7 9 2 0.5\n";
const SACCT: &str = "JobIDRaw|User|Partition|Submit|Eligible|Start|ElapsedRaw|TimelimitRaw|NNodes|NCPUS|ReqMem|AllocTRES|State\n\
    101|anna|short|1770000000|1770000000|1770000060|600|60|2|16|4Gn|cpu=16,mem=64G,node=2|COMPLETED\n\
    102|bob|long|2026-10-25T02:10:00|Unknown|2026-10-25T02:30:00|7200|UNLIMITED|1|4|8000Mc||CANCELLED by 7\n";

fn shapes() -> impl Strategy<Value = Shape> {
    let tasks = [Tasks::Processors, Tasks::Nodes, Tasks::Allocated, Tasks::Hpc2n];
    let memory_of = [MemoryOf::Larger, MemoryOf::Asked, MemoryOf::Got];
    (
        prop::option::of(any::<u32>()),
        prop::option::of(prop_oneof![0..200_u32, any::<u32>()]),
        prop::option::of(any::<u64>()),
        prop::option::of(prop::sample::select(tasks.to_vec())),
        prop::sample::select(memory_of.to_vec()),
        prop::option::of(any::<f64>()),
        prop::option::of(prop_oneof![Just(Unit::Percent), Just(Unit::Fine)]),
    )
        .prop_map(|(hosts, cores, memory, tasks, memory_of, share, unit)| Shape {
            hosts,
            cores,
            memory,
            tasks,
            memory_of,
            share,
            unit,
        })
}

/// A log with some of its bytes changed, most often to what numbers and columns are made of.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(&b"0123456789.-e|\n ;:+GMTKnc"[..])
    ];
    let change = (any::<prop::sample::Index>(), byte, 0..3_u8);
    (
        prop::sample::select(&[SWF, SET, SACCT][..]),
        prop::collection::vec(change, 0..12),
    )
        .prop_map(|(log, changes)| {
            let mut bytes = log.repeat(2).into_bytes();
            for (at, byte, kind) in changes {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => _ = bytes.remove(at),
                }
            }
            bytes
        })
}

fn options() -> Options {
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    Options {
        names: Names::HashedWith([0; 32]),
        zone: Some(zone),
    }
}

fn holds(log: &Log, shape: &Shape) {
    assert!(log.jobs() > 0);
    assert!(log.odd.first.len() as u64 <= log.odd.malformed);
    for job in log.traces.iter().flat_map(|trace| &trace.jobs) {
        assert!(
            job.run >= 1 && job.limit >= job.run && job.efficiency <= 1000,
            "{job:?}"
        );
        let _ = (log.user(job.user), log.partition(job.partition));
    }
    let Ok((workloads, odd)) = shape.workloads(log) else {
        return;
    };
    let jobs: usize = workloads.iter().map(|workload| workload.jobs.len()).sum();
    assert_eq!(jobs as u64, log.jobs() as u64 - odd.of(read::Oddity::Wider));
    for workload in &workloads {
        assert!(workload.jobs.is_sorted_by_key(|job| job.submit));
        for job in &workload.jobs {
            assert!(
                job.tasks >= 1 && (1..=workload.host.cpu).contains(&job.cpu),
                "{job:?}"
            );
            assert!(job.memory <= workload.host.memory, "{job:?}");
            // The simulator counts in milliseconds.
            assert!(job.submit.checked_mul(1000).is_some() && job.limit.checked_mul(1000).is_some());
        }
        let weeks = workload.weeks();
        assert_eq!(
            weeks.iter().map(|week| week.jobs.len()).sum::<usize>(),
            workload.jobs.len()
        );
        assert!(
            weeks
                .iter()
                .flat_map(|week| &week.jobs)
                .all(|job| job.submit < 604_800)
        );
        assert!(
            workload
                .clone()
                .scaled(0.7)
                .jobs
                .is_sorted_by_key(|job| job.submit)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_logs_are_read_or_refused(bytes in changed(), shape in shapes()) {
        if let Ok(log) = read::stream("log", &bytes[..], &options()) {
            holds(&log, &shape);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), shape in shapes()) {
        for begin in [&b""[..], &[0x1f, 0x8b], &[0x1f, 0x8b, 8, 0], b"1 2 3 4 5\n", SACCT.as_bytes()] {
            if let Ok(log) = read::stream("log", &[begin, &bytes].concat()[..], &options()) {
                holds(&log, &shape);
            }
        }
    }

    #[test]
    fn gzip_changes_nothing(bytes in changed()) {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&bytes).expect("packed");
        let packed = packed.finish().expect("packed");
        let plain = read::stream("log", &bytes[..], &options()).map_err(|error| format!("{error:#}"));
        let packed = read::stream("log", &packed[..], &options()).map_err(|error| format!("{error:#}"));
        assert_eq!(plain, packed);
    }
}
