use crate::read::{self, Log, Names, Need, Oddity, Options, Processors, Record, Shape};
use jiff::tz::TimeZone;

const HEAD: &str = "JobIDRaw|User|Partition|Submit|Eligible|Start|ElapsedRaw|TimelimitRaw|NNodes|NCPUS|ReqMem|AllocTRES|State";

fn options() -> Options {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    Options {
        names: Names::HashedWith([1; 32]),
        zone: Some(zone),
    }
}

fn read(text: &str) -> Log {
    read::stream("site", text.as_bytes(), &options()).expect("a log")
}

/// The one job of a log with this line.
fn one(line: &str) -> Record {
    let log = read(&format!("{HEAD}\n{line}\n"));
    assert_eq!((log.jobs(), log.odd.malformed), (1, 0), "{}", log.odd);
    log.traces[0].jobs[0]
}

fn need(line: &str) -> Processors {
    match one(line).need {
        Need::Processors(need) => need,
        Need::Fractions { .. } => panic!("processors"),
    }
}

#[test]
fn a_job_is_what_its_columns_say() {
    let log = read(&format!(
        "{HEAD}\n\
         101|anna|short|1770000000|1770000000|1770000060|600|60|2|16|64G|billing=16,cpu=16,mem=64G,node=2|COMPLETED\n\
         102|bob|long|1770000100|1770000100|1770000160|7200|UNLIMITED|1|4|8000M|cpu=4,mem=8000M,node=1|TIMEOUT\n\
         103|anna|short|1770000100|1770000130|1770000160|30|Partition_Limit|1|4|8000M||CANCELLED by 1000\n"
    ));
    assert_eq!(log.header.begins, Some(1_770_000_000));
    let [first, second, third] = log.traces[0].jobs[..] else {
        panic!("three jobs")
    };
    assert_eq!(
        (first.id, first.submit, first.wait, first.run, first.limit),
        (101, 0, Some(60), 600, 3600)
    );
    let memory = 64 * 1024 * 1024;
    let need = Processors {
        asked: 0,
        got: 16,
        nodes: 2,
        memory_asked: memory,
        memory_got: memory,
    };
    assert_eq!(first.need, Need::Processors(need));
    assert_eq!(
        (second.submit, second.limit, log.odd.of(Oddity::NoLimit)),
        (100, 7200, 2)
    );
    // It was held for half a minute, and waited for another half.
    assert_eq!(
        (third.submit, third.wait, log.odd.of(Oddity::Held)),
        (130, Some(30), 1)
    );
    assert_eq!((first.user, first.partition), (third.user, third.partition));
    assert_ne!((first.user, first.partition), (second.user, second.partition));

    let shape = Shape {
        hosts: Some(4),
        cores: Some(16),
        memory: Some(131_072),
        ..Shape::default()
    };
    let (workloads, _) = shape.workloads(&log).expect("a workload");
    let host = workloads[0].host;
    let first = workloads[0].jobs[0];
    // Two nodes, half of a host's CPU and a quarter of its memory each.
    assert_eq!(
        (first.tasks, first.cpu, first.memory),
        (2, host.cpu / 2, host.memory / 4)
    );
}

#[test]
fn names_cannot_be_read_back() {
    let text =
        format!("{HEAD}\n1|mallory|secretlab|1|1|2|3|4|1|1|1G||COMPLETED\nmallory|x\n|mallory||||||||||x|\n");
    let log = read(&text);
    assert!(log.user(0).starts_with("user-") && log.partition(0).starts_with("partition-"));
    let told = format!("{log:?}{}", log.odd);
    assert!(!told.contains("mallory") && !told.contains("secretlab"), "{told}");
    assert_eq!(log.odd.malformed, 2);
    let kept = Options {
        names: Names::Kept,
        ..options()
    };
    let log = read::stream("site", text.as_bytes(), &kept).expect("a log");
    assert_eq!(
        (log.user(0).as_str(), log.partition(0).as_str()),
        ("mallory", "secretlab")
    );
}

#[test]
fn memory_has_old_and_new_forms() {
    let gib = 1024 * 1024;
    for (asked, all) in [
        ("4Gn", 8 * gib),
        ("4Gc", 24 * gib),
        ("4G", 4 * gib),
        ("0n", 0),
        ("", 0),
        ("512M", gib / 2),
        ("0", 0),
    ] {
        let need = need(&format!("1|anna|p|1|1|2|3|4|2|6|{asked}|cpu=6,node=2|COMPLETED"));
        assert_eq!((need.memory_asked, need.memory_got), (all, 0), "{asked}");
    }
    assert_eq!(
        need("1|anna|p|1|1|2|3|4|2|6||cpu=6,mem=3G,node=2|COMPLETED").memory_got,
        3 * gib
    );
}

#[test]
fn what_is_no_job_that_ended_is_left_out_and_counted() {
    let log = read(&format!(
        "{HEAD}\n\
         1|anna|p|100|100|200|30|4|1|1|1G||COMPLETED\n\
         1.batch|anna|p|100|100|200|30|4|1|1|1G||COMPLETED\n\
         2.0|anna|p|100|100|200|30|4|1|1|1G||COMPLETED\n\
         3|anna|p|100|100|Unknown|0|4|1|0|1G||PENDING\n\
         4|anna|p|100|100|200|30|4|1|1|1G||RUNNING\n\
         5|anna|p|100|Unknown|None|0|4|1|0|1G||CANCELLED by 5\n\
         6|anna|p|100|100|200|0|4|1|0|1G||CANCELLED by 5\n\
         7|anna|p|100|100|200|0|4|1|1|1G||FAILED\n\
         8|anna|p|100|100|200|30|4|1|1|1G||NEWSTATE\n\
         9|anna|p|100|100|200|30|4|1|1|1G||REQUEUED\n\
         {HEAD}\n"
    ));
    let ids: Vec<u64> = log.traces[0].jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, [1, 8, 9]);
    let counts =
        [Oddity::Step, Oddity::Unfinished, Oddity::NeverRan, Oddity::NoRun].map(|kind| log.odd.of(kind));
    assert_eq!(
        (counts, log.odd.malformed, log.odd.left_out()),
        ([2, 2, 2, 1], 0, 7)
    );
}

#[test]
fn arrays_and_heterogeneous_jobs_are_read_by_either_number() {
    let log = read(
        "State|NCPUS|Elapsed|Start|Submit|JobID|JobName|Timelimit\n\
         COMPLETED|2|1-00:00:10|100|50|7_3|x|2-00:00:00\n\
         COMPLETED|2|00:10|100|50|8+1|x|UNLIMITED\n\
         PENDING|0|00:00:00|Unknown|50|9_[4-9]|x|01:00:00\n",
    );
    let jobs: Vec<_> = log.traces[0]
        .jobs
        .iter()
        .map(|job| (job.id, job.run, job.limit))
        .collect();
    assert_eq!(jobs, [(7, 86_410, 172_800), (8, 10, 10)]);
    assert_eq!(
        (log.odd.of(Oddity::Unfinished), log.odd.of(Oddity::NoUser)),
        (1, 2)
    );
    // The raw number counts, wherever it stands.
    for head in ["JobID|JobIDRaw", "JobIDRaw|JobID"] {
        let ids = if head.ends_with("Raw") { "7_3|12" } else { "12|7_3" };
        let log = read(&format!(
            "{head}|Submit|Start|ElapsedRaw|NCPUS|State\n{ids}|1|2|3|1|COMPLETED\n"
        ));
        assert_eq!(log.traces[0].jobs[0].id, 12);
    }
}

#[test]
fn local_times_survive_a_change_of_clocks() {
    let line = |submit: &str, start: &str| {
        one(&format!(
            "1|anna|p|{submit}|Unknown|{start}|60|4|1|1|1G||COMPLETED"
        ))
    };
    assert_eq!(
        line("2026-02-02T03:40:00", "2026-02-02T04:40:00").wait,
        Some(3600)
    );
    // 02:50, then 02:10 after the hour came a second time.
    assert_eq!(
        line("2026-10-25T02:50:00", "2026-10-25T02:10:00").wait,
        Some(20 * 60)
    );
    // From before the hour that was skipped to after it.
    assert_eq!(
        line("2026-03-29T01:50:00", "2026-03-29T03:10:00").wait,
        Some(20 * 60)
    );
    // In the hour that was skipped: whatever it is, it is no panic.
    line("2026-03-29T02:30:00", "2026-03-29T02:40:00");
}

#[test]
fn a_head_that_lacks_something_says_what_to_type() {
    for text in [
        "JobIDRaw|User|Submit\n1|anna|5\n",
        "1|anna|p|1|1|2|3|4|1|1|1G||COMPLETED\n",
    ] {
        let error = read::stream("site", text.as_bytes(), &options()).expect_err("no log");
        let error = format!("{error:#}");
        assert!(
            error.contains("sacct -a -X -D -P") && !error.contains("anna"),
            "{error}"
        );
    }
}
