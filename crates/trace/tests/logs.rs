//! The logs in `tests/data`, read and made workloads.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use thiao_trace::read::{
    self, Format, Log, MemoryOf, Names, Need, Odd, Oddity, Options, Processors, Shape, Tasks, Unit,
};
use thiao_trace::workload::{TraceJob, Workload};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn options() -> Options {
    // Central Europe, by its rule, so that no time zone database is needed.
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    Options {
        names: Names::Kept,
        zone: Some(zone),
    }
}

fn log(name: &str) -> Log {
    read::any(&data(name), &options()).expect("a log")
}

fn text(text: &str) -> Log {
    read::stream("log", text.as_bytes(), &options()).expect("a log")
}

fn workload(log: &Log, shape: &Shape) -> Workload {
    shape.workloads(log).expect("a workload").0.remove(0)
}

fn processors(job: &read::Record) -> Processors {
    match job.need {
        Need::Processors(need) => need,
        Need::Fractions { .. } => panic!("no processors"),
    }
}

#[test]
fn weeks_of_hpc2n_hold_the_jobs_and_the_work_of_the_golden_runs() {
    let log = log("HPC2N-2002-weeks.swf.gz");
    assert_eq!(
        (log.name.as_str(), log.format, log.jobs()),
        ("HPC2N-2002-weeks", Format::Swf, 10_638)
    );
    assert_eq!((log.odd.malformed, log.odd.left_out()), (0, 0));
    assert_eq!(log.header.acknowledge.as_deref(), Some("Ake Sandgren"));
    let whole = workload(&log, &Shape::default());
    assert_eq!((whole.hosts, whole.host.cpu, whole.host.memory), (120, 100, 100));
    let work = |job: &TraceJob| u64::from(job.tasks) * u64::from(job.cpu) * job.run;
    let ours: BTreeMap<_, _> = whole
        .weeks()
        .into_iter()
        .map(|week| (week.name.clone(), week))
        .collect();
    let golden = std::fs::read_to_string(data("dfrs-golden.csv")).expect("golden runs");
    let mut weeks = 0;
    for row in golden
        .lines()
        .filter(|row| row.starts_with("hpc2n,") && row.contains(",fcfs,fcfs,"))
    {
        let row: Vec<&str> = row.split(',').collect();
        let week = &ours[row[2]];
        assert_eq!(week.jobs.len().to_string(), row[6], "{}", row[2]);
        assert_eq!(
            week.jobs.iter().map(work).sum::<u64>().to_string(),
            row[18],
            "{}",
            row[2]
        );
        assert!(
            week.jobs
                .iter()
                .all(|job| job.submit < 604_800 && (10..=100).contains(&job.memory))
        );
        weeks += 1;
    }
    assert_eq!((weeks, ours.len()), (8, 8));
}

#[test]
fn hpc2n_has_a_rule_of_its_own() {
    let head = "; Installation: HPC2N - x\n";
    let job = |asked: i32, got: i32, used: i32, wanted: i32| {
        let log = text(&format!(
            "{head}1 0 0 10 {got} 1 {used} {asked} 20 {wanted} 1 1 1 1 1 1 -1 -1\n"
        ));
        let job = workload(&log, &Shape::default()).jobs[0];
        (job.tasks, job.cpu, job.memory)
    };
    // Of 2 GiB: 400 MiB are 20 %, nothing or less than 10 % is 10 %.
    assert_eq!(job(4, 4, 409_600, -1), (2, 100, 39));
    assert_eq!(job(4, 4, -1, -1), (2, 100, 20));
    assert_eq!(job(3, 3, 1024, 409_600), (3, 50, 20));
    assert_eq!(job(4, 4, 1_048_576, -1), (4, 50, 50));
    // What it asked for counts, in processors; the memory is each processor's.
    assert_eq!(job(4, 8, 409_600, -1), (2, 100, 39));
    assert_eq!(job(-1, 8, 409_600, -1), (4, 100, 39));
}

#[test]
fn published_schedules_are_of_the_same_jobs_as_the_job_set() {
    let waits = ["requested", "exact", "sjbf-exact"].map(|kind| {
        let log = log(&format!("KTH-SP2.easy-{kind}.swf.gz"));
        assert_eq!(
            (log.format, log.jobs(), log.odd.left_out()),
            (Format::Published, 5578, 0)
        );
        let published = workload(&log, &Shape::default());
        assert_eq!(published.hosts, 100);
        let set = self::log("kth-m.txt.gz");
        assert_eq!((set.format, &set.odd), (Format::JobSet, &Odd::default()));
        let set = workload(
            &set,
            &Shape {
                hosts: Some(100),
                ..Shape::default()
            },
        );
        for (job, drawn) in published.jobs.iter().zip(&set.jobs) {
            assert_eq!(
                *job,
                TraceJob {
                    wait: job.wait,
                    memory: job.memory,
                    ..*drawn
                }
            );
        }
        published.jobs.iter().filter_map(|job| job.wait).sum::<u64>()
    });
    // Who knows more lets people wait for less.
    assert!(waits[0] > waits[1] && waits[1] > waits[2], "{waits:?}");
}

#[test]
fn a_job_set_may_hold_several_traces() {
    let log = log("lublin-typed.txt.gz");
    assert_eq!(
        (log.traces.len(), log.jobs(), log.traces[2].name.as_str()),
        (3, 3000, "s006")
    );
    let shape = Shape {
        hosts: Some(128),
        unit: Some(Unit::Percent),
        ..Shape::default()
    };
    let (workloads, _) = shape.workloads(&log).expect("workloads");
    let first = workloads[0].jobs[0];
    assert_eq!(
        (first.tasks, first.cpu, first.memory, first.limit),
        (8, 100, 20, 86)
    );
    assert!(
        workloads
            .iter()
            .flat_map(|workload| &workload.jobs)
            .all(|job| job.tasks > 1 || job.cpu == 25)
    );
    // The scaled set is the same one, scaled.
    let scaled = shape
        .workloads(&self::log("lublin-0.7.txt.gz"))
        .expect("workloads")
        .0;
    for (plain, scaled) in workloads.into_iter().zip(scaled) {
        assert_eq!(plain.scaled(0.7).jobs, scaled.jobs, "{}", scaled.name);
    }
    let error = Shape::default()
        .workloads(&log)
        .expect_err("nobody says how many nodes")
        .to_string();
    assert!(error.contains("--hosts"), "{error}");
}

#[test]
fn a_log_whose_head_tells_of_nodes_and_processors_needs_no_more() {
    let log = log("sdsc-blue.swf.gz");
    assert_eq!(
        (log.header.nodes, log.header.processors, log.header.begins),
        (Some(144), Some(1152), Some(956_700_003))
    );
    assert!(log.odd.of(Oddity::NoRun) > 0 && log.odd.of(Oddity::OverLimit) > 0);
    assert_eq!(log.jobs() as u64 + log.odd.left_out(), 2500);
    let blue = workload(&log, &Shape::default());
    assert_eq!((blue.hosts, blue.host.cpu), (144, 10_000));
    assert!(blue.jobs.iter().all(|job| job.cpu == 1250 && job.memory == 1250));
    // Or each processor is a node.
    let nodes = workload(
        &log,
        &Shape {
            tasks: Some(Tasks::Nodes),
            ..Shape::default()
        },
    );
    assert_eq!(nodes.hosts, 1152);
    assert!(
        nodes
            .jobs
            .iter()
            .all(|job| job.cpu == 10_000 && job.memory == 1000)
    );
}

#[test]
fn odd_jobs_are_counted_and_taken_by_the_rules() {
    let log = text(
        "; MaxNodes: 10 (of 20)\n; MaxProcs: 40\n\
         1 0 5 10 4 -1 100 8 5 -1 1 1 1 1 1 1 -1 -1\n\
         2 -1 5 10 4 -1 100 8 5 -1 1 1 1 1 1 1 -1 -1\n\
         3 1 5 0 4 -1 100 8 5 -1 1 1 1 1 1 1 -1 -1\n\
         4 1 5 -1 4 -1 100 8 5 -1 1 1 1 1 1 1 -1 -1\n\
         5 1 5 10 -1 -1 100 0 5 -1 1 1 1 1 1 1 -1 -1\n\
         6 1 5 10 4 -1 100 4 50 -1 3 1 1 1 1 1 -1 -1\n\
         7 9 -1 10.4 4 9.5 -1 4 -1 -1 1 -1 1 1 1 1 -1 -1\n\
         8 3 5 10 41 -1 100 41 50 -1 1 1 1 1 1 1 -1 -1\n\
         nonsense\n\
         9 3 5 10 4 x 100 4 50 -1 1 1 1 1 1 1 -1 -1\n\
         10 3 5 10 4\n\
         11 3 5 1e300 4\n\
         12 3 5 9e14 4\n\
         14 nan 5 10 4\n\
         15 3 inf 10 4\n\
         13 3 5 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n",
    );
    let shape = Shape {
        memory: Some(1),
        ..Shape::default()
    };
    let (workloads, odd) = shape.workloads(&log).expect("a workload");
    let count = |kind| odd.of(kind);
    use Oddity::*;
    assert_eq!(
        [NoSubmit, NoRun, NoProcessors, Part, Wider].map(count),
        [1, 2, 1, 1, 1]
    );
    assert_eq!(
        [ProcessorsDiffer, OverLimit, NoLimit, NoUser, Disordered, Short].map(count),
        [1, 1, 2, 2, 1, 1]
    );
    let malformed: Vec<u64> = odd.first.iter().map(|malformed| malformed.line).collect();
    assert_eq!((odd.malformed, malformed), (7, vec![11, 12, 14, 15, 16]));
    let jobs: Vec<_> = workloads[0]
        .jobs
        .iter()
        .map(|job| (job.id, job.tasks, job.limit, job.wait))
        .collect();
    assert_eq!(
        jobs,
        [(1, 8, 10, Some(5)), (10, 4, 10, Some(5)), (7, 4, 10, None)]
    );
    // 100 KiB of a host's MiB for each of what it got or asked for, of that the more.
    assert_eq!(workloads[0].jobs[0].memory, 976);
    let told = odd.to_string();
    assert!(
        told.contains("1  needs more than all hosts have: left out") && told.contains("line 11: "),
        "{told}"
    );
    assert_eq!(odd.left_out(), 13);
}

#[test]
fn memory_is_that_which_was_asked_for_or_used() {
    let log = text(
        "1 0 5 10 2 -1 1024 2 50 2048 1 1 1 1 1 1 -1 -1\n2 0 5 10 2 -1 -1 2 50 9999 1 1 1 1 1 1 -1 -1\n",
    );
    let memory = |memory_of| {
        let shape = Shape {
            hosts: Some(2),
            cores: Some(4),
            memory: Some(8),
            memory_of,
            share: Some(0.5),
            ..Shape::default()
        };
        let (workloads, odd) = shape.workloads(&log).expect("a workload");
        assert_eq!(odd.of(Oddity::MemoryCut), 1);
        (workloads[0].jobs[0].memory, workloads[0].jobs[1].memory)
    };
    assert_eq!(memory(MemoryOf::Larger), (2500, 10_000));
    assert_eq!(memory(MemoryOf::Asked), (2500, 10_000));
    assert_eq!(memory(MemoryOf::Got), (1250, 10_000));
    // If nobody says what a host has, what jobs had of it says nothing.
    let shape = Shape {
        hosts: Some(2),
        cores: Some(3),
        ..Shape::default()
    };
    let (workloads, odd) = shape.workloads(&log).expect("a workload");
    assert_eq!(odd.of(Oddity::MemoryIgnored), 2);
    let (host, job) = (workloads[0].host, workloads[0].jobs[0]);
    assert_eq!((host.cpu, job.cpu, job.memory), (10_002, 3334, 3333));
}

#[test]
fn what_sacct_really_said_is_read() {
    let log = log("sacct-22.05.txt");
    assert_eq!((log.format, log.odd.malformed), (Format::Sacct, 0));
    let ids: Vec<u64> = log.traces[0].jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 9, 13, 14, 15]);
    let kinds: Vec<_> = log.odd.kinds().filter(|(kind, _)| kind.left_out()).collect();
    // Two of no second; two parts of a job that was cancelled as it waited; one that runs.
    let expected = [(Oddity::NoRun, 2), (Oddity::NeverRan, 2), (Oddity::Unfinished, 1)];
    assert_eq!(kinds[..], expected[..], "{}", log.odd);
    let job = log.traces[0].jobs[2];
    assert_eq!((job.run, job.limit, job.wait), (3, 86_400, Some(6)));
    let memory = 600 * 1024;
    let need = Processors {
        asked: 0,
        got: 2,
        nodes: 1,
        memory_asked: memory,
        memory_got: memory,
    };
    assert_eq!(processors(&job), need);
    assert_eq!(
        (log.user(job.user), log.partition(job.partition)),
        ("root".into(), "open".into())
    );

    // With steps, and in local time, the same jobs ran.
    let plain = self::log("sacct-22.05-plain.txt");
    assert_eq!((plain.odd.malformed, plain.header.begins), (0, log.header.begins));
    assert!(plain.odd.of(Oddity::Step) > 10);
    let times = |log: &Log| -> Vec<_> {
        let mut times: Vec<_> = log.traces[0]
            .jobs
            .iter()
            .map(|job| (job.submit, job.wait, job.run, job.limit))
            .collect();
        times.sort_unstable();
        times
    };
    assert_eq!(times(&plain), times(&log));
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let error = |file: &tempfile::NamedTempFile| {
        format!("{:#}", read::any(file.path(), &options()).expect_err("no log"))
    };
    assert!(error(&file).contains("it is empty"), "{}", error(&file));
    file.write_all(b"; MaxProcs: 5\nDear diary\n\n").expect("written");
    assert!(
        error(&file).contains("line 2: no line of any log that is known"),
        "{}",
        error(&file)
    );
    let missing = read::any(Path::new("/nowhere/log.swf"), &options()).expect_err("no file");
    assert!(
        format!("{missing:#}").contains("cannot read the log /nowhere/log.swf"),
        "{missing:#}"
    );
    // A gzip file that was cut off is an error, and not a short log.
    let whole = std::fs::read(data("HPC2N-2002-weeks.swf.gz")).expect("a log");
    let error = read::stream("log", &whole[..whole.len() / 2], &options()).expect_err("cut off");
    assert!(
        format!("{error:#}").contains("cannot read on after line"),
        "{error:#}"
    );
}

#[test]
fn a_line_of_any_length_costs_no_memory_and_stops_nothing() {
    let job = "1 0 5 10 4 -1 100 8 5 -1 1 1 1 1 1 1 -1 -1\n";
    let log = text(&format!("{job}{}\n{job}", "9 ".repeat(100_000)));
    assert_eq!((log.jobs(), log.odd.malformed, log.odd.first[0].line), (2, 1, 2));
}
