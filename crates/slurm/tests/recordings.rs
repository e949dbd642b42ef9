//! The parsers on what Slurm 22.05.8 really printed (`tests/data`), and on what it never should.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::view::{
    Alloc, ArrayTasks, BaseState, Gate, GpusBy, JobState, MemoryBy, NodeFlags, NodeReason, Request, SlurmJob,
    SlurmNode, WaitsFor,
};
use thiao_slurm::{Config, Ping, SlurmError, Version, details, jobs, nodes, resume_file, words};

/// The mark that the recordings were made with; real ones are random.
const MARK: &str = "@0123456789abcdef";

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn node(nodes: &BTreeMap<NodeName, SlurmNode>, text: &str) -> SlurmNode {
    nodes[&name(text)].clone()
}

fn flags(set: impl FnOnce(&mut NodeFlags)) -> NodeFlags {
    let mut flags = NodeFlags {
        cloud: true,
        ..NodeFlags::default()
    };
    set(&mut flags);
    flags
}

fn read_nodes(text: &str) -> BTreeMap<NodeName, SlurmNode> {
    let nodes = nodes::parse(text, MARK).unwrap();
    assert_eq!(nodes.len(), 8);
    assert!(nodes.values().all(|n| !n.flags.unknown), "{nodes:?}");
    nodes
}

#[test]
fn a_nodes_life_is_read() {
    let up = read_nodes(include_str!("data/nodes-powering-up.txt"));
    for n in ["v1", "v2", "v3"] {
        assert_eq!(node(&up, n).base, BaseState::Allocated);
        assert_eq!(
            node(&up, n).flags,
            flags(|f| {
                f.powering_up = true;
                f.not_responding = true;
            })
        );
        assert!(!node(&up, n).is_up());
    }
    assert_eq!(
        node(&up, "v8"),
        SlurmNode {
            base: BaseState::Idle,
            flags: flags(|f| f.powered_down = true),
            reason: None,
            alloc: None
        }
    );

    let running = read_nodes(include_str!("data/nodes-running.txt"));
    assert!(node(&running, "v1").is_up());
    assert!(!node(&running, "v4").is_up());

    let down = read_nodes(include_str!("data/nodes-down.txt"));
    let v1 = node(&down, "v1");
    assert_eq!((v1.base, v1.flags), (BaseState::Down, flags(|_| {})));
    assert_eq!(v1.reason, Some(NodeReason::ours("thiao: VM v1.3 died")));
    let v2 = node(&down, "v2");
    assert_eq!(
        (v2.base, v2.flags),
        (BaseState::Allocated, flags(|f| f.drain = true))
    );
    assert_eq!(
        v2.reason,
        words::node_reason("a|b\nc"),
        "a reason holds anything, newlines too"
    );
    assert_eq!(
        node(&down, "v4").reason,
        words::node_reason("maintenance by [ops@site]")
    );

    let asked = read_nodes(include_str!("data/nodes-power-down.txt"));
    assert_eq!(node(&asked, "v1").flags, flags(|f| f.power_down = true));
    let going = read_nodes(include_str!("data/nodes-powering-down.txt"));
    assert_eq!(node(&going, "v1").flags, flags(|f| f.powering_down = true));
    let back = read_nodes(include_str!("data/nodes-returned.txt"));
    assert_eq!(node(&back, "v1").base, BaseState::Idle);
    assert_eq!(node(&back, "v1").reason, None);
    assert!(!node(&back, "v1").may_run_job());
    read_nodes(include_str!("data/nodes-completing.txt"));
}

#[test]
fn jobs_are_read_whatever_their_names() {
    let jobs = jobs::parse(include_str!("data/jobs-powering-up.txt"), MARK).unwrap();
    assert_eq!(
        jobs.keys().map(|id| id.0).collect::<Vec<_>>(),
        (1..=16).collect::<Vec<_>>()
    );
    let two = &jobs[&JobId(2)];
    assert_eq!(two.state, JobState::Configuring);
    assert_eq!(two.nodes, [name("n2"), name("n3")]);
    assert_eq!(two.submit, Some(Time(1_795_568_581_000)));
    assert_eq!(two.start, Some(Time(1_795_568_582_000)));
    assert!(
        two.name.starts_with("evil\n@"),
        "no record is forged by a name: {:?}",
        two.name
    );
    assert_eq!(jobs[&JobId(1)].name, "plain");
    assert_eq!(jobs[&JobId(3)].name, "two\nlines|and bars");
    assert_eq!(jobs[&JobId(9)].name, "Ünï cödé");
    assert_eq!(
        (jobs[&JobId(9)].user.as_str(), jobs[&JobId(9)].uid),
        ("alice", 1001)
    );
    assert_eq!(jobs[&JobId(7)].node_count, 1024);
    assert_eq!(jobs[&JobId(6)].node_count, 2, "the least of 2 to 8");
    let four = &jobs[&JobId(4)];
    assert_eq!((&four.state, four.start), (&JobState::Pending, None));
    assert_eq!((four.reason.text.as_str(), four.priority), ("JobHeldUser", 0));
    assert!(four.nodes.is_empty() && four.requeue && four.admin_comment.is_none());
    let five = &jobs[&JobId(5)];
    assert_eq!(five.admin_comment.as_deref(), Some("by an admin: a|b\nc"));
    assert!(!five.requeue && !five.has_options);

    let jobs = jobs::parse(include_str!("data/jobs-running.txt"), MARK).unwrap();
    assert_eq!(jobs[&JobId(1)].state, JobState::Running);
    let jobs = jobs::parse(include_str!("data/jobs-down.txt"), MARK).unwrap();
    assert_eq!(jobs[&JobId(1)].state, JobState::Pending);
    assert_eq!(
        jobs[&JobId(1)].start,
        Some(Time(1_795_568_705_000)),
        "120 s after the node's failure"
    );
}

#[test]
fn jobs_of_job_mode_are_read() {
    let jobs = jobs::parse(include_str!("data/jobs-running.txt"), MARK).unwrap();
    let asks = |job: u32| {
        let Request {
            cpus,
            memory_mb,
            nodes,
            gpus,
            ..
        } = jobs[&JobId(job)].request;
        (cpus, memory_mb, nodes, gpus)
    };
    let eight = &jobs[&JobId(8)];
    assert_eq!((eight.gate, eight.licenses.as_str()), (Gate::Waits, "a:2"));
    assert_eq!((eight.priority, asks(8)), (4_294_901_757, (6, 600, 2, 2)));
    assert!(eight.has_options && eight.admin_comment.as_deref() == Some("vm: share=50"));

    let tasks = |job: u32| {
        let job = &jobs[&JobId(job)];
        let ArrayTasks { job: array, tasks } = job.array.clone().unwrap();
        (array.0, tasks, job.gate)
    };
    assert_eq!(tasks(10), (10, (0..500).collect(), Gate::Waits));
    assert_eq!(tasks(11), (11, vec![1, 7, 9, 10, 11, 12], Gate::Waits));
    assert_eq!(tasks(12), (12, vec![0, 5, 10, 15, 20], Gate::Waits));
    assert_eq!(tasks(16), (11, vec![8], Gate::Open), "let go");
    assert_eq!((asks(10), asks(12)), ((1, 100, 1, 2), (2, 200, 1, 2)));
    assert_eq!(
        (asks(13), jobs[&JobId(14)].het),
        ((2, 2048, 1, 0), Some(JobId(13)))
    );

    let back = &jobs[&JobId(15)];
    assert_eq!((&back.state, back.gate), (&JobState::Pending, Gate::Open));
    assert_eq!(back.reason.waits, [WaitsFor::Release]);
    assert_eq!(
        back.admin_comment.as_deref(),
        Some("vm: ; put back: host h1 died")
    );
    assert!(!back.has_options);

    let allocs = details::parse_allocs(include_str!("data/nodes-alloc.txt")).unwrap();
    assert_eq!(allocs[&name("n5")], None, "it has no job any more");
    let wanted = Alloc {
        cpus: 1,
        memory_mb: 100,
        gpus: 0,
    };
    assert_eq!(allocs[&name("n6")], Some(wanted));
}

/// Three with `--exclusive`, one of them an array; plain, `--exclusive=user` and `-s`.
#[test]
fn jobs_that_have_their_nodes_whole_are_told() {
    for text in [
        include_str!("data/whole-22.05.txt"),
        include_str!("data/whole-26.05.txt"),
    ] {
        let jobs = jobs::parse(text, MARK).unwrap();
        let whole: Vec<u32> = jobs
            .values()
            .filter(|job| job.request.whole_nodes)
            .map(|job| job.id.0)
            .collect();
        assert_eq!((jobs.len(), whole), (6, vec![2, 3, 6]), "{text}");
        // From squeue of an unknown release nothing is guessed.
        let unknown = text
            .replace("=oversubscribe", "=unknown")
            .replace("=exclusive", "=unknown");
        assert!(
            jobs::parse(&unknown, MARK)
                .unwrap()
                .values()
                .all(|job| !job.request.whole_nodes)
        );
    }
}

#[test]
fn the_lines_of_an_arrays_tasks_are_one_record() {
    for text in [
        include_str!("data/tasks-22.05.txt"),
        include_str!("data/tasks-26.05.txt"),
    ] {
        let jobs = jobs::parse(text, MARK).unwrap();
        assert_eq!(jobs.len(), 5);
        let tasks = |job: u32| jobs[&JobId(job)].array.clone().unwrap().tasks;
        let irregular = vec![
            1, 3, 4, 7, 8, 12, 14, 17, 18, 21, 22, 24, 27, 28, 31, 32, 34, 37, 38, 41, 42,
        ];
        assert_eq!(tasks(1), irregular, "more than squeue lists in 64 characters");
        let (of_array, apart) = (&jobs[&JobId(1)], &jobs[&JobId(4)]);
        assert_eq!(
            (of_array.gate, &of_array.state),
            (Gate::Waits, &JobState::Pending)
        );
        assert_eq!((apart.gate, apart.licenses.as_str()), (Gate::Open, "a:1"));
        assert_eq!((tasks(4), tasks(5)), (vec![11], vec![44]));
        // squeue leaves the last one out.
        assert_eq!(tasks(2), (0..40).step_by(2).collect::<Vec<u32>>());
    }
}

#[test]
fn nothing_listed_is_an_empty_view() {
    assert!(nodes::parse("", MARK).unwrap().is_empty());
    assert!(nodes::parse("\n", MARK).unwrap().is_empty());
    assert!(jobs::parse("", MARK).unwrap().is_empty());
}

#[test]
fn what_is_cut_off_is_refused() {
    let text = include_str!("data/nodes-down.txt").trim_end();
    assert!(nodes::parse(&text[..text.len() - 1], MARK).is_err());
    let text = include_str!("data/jobs-running.txt");
    let cut = text.trim_end();
    let error = jobs::parse(&cut[..cut.len() - 1], MARK).unwrap_err();
    assert!(matches!(error, SlurmError::Unparsable { .. }), "{error}");
    let job = SlurmJob::new(JobId(1));
    let bad = job_line(&job).replacen('1', "x", 1);
    let error = jobs::parse(&bad, MARK).unwrap_err().to_string();
    assert!(error.contains("job id") && error.contains("x|1|N/A"), "{error}");
}

#[test]
fn words_of_later_versions_harm_nothing() {
    let (base, flags) = nodes::parse_state("IDLE+CLOUD+SPARKLING");
    assert_eq!((base, flags.cloud, flags.unknown), (BaseState::Idle, true, true));
    let (base, flags) = nodes::parse_state("quantum+cloud");
    assert_eq!(
        (base, flags.unknown),
        (BaseState::Unknown("quantum".into()), false)
    );
    assert!(nodes::parse_state("DOWN*+CLOUD").1.not_responding);
    assert_eq!(
        jobs::parse_state("DREAMING"),
        JobState::Unknown("DREAMING".into())
    );
}

#[test]
fn failures_are_told_apart() {
    for line in include_str!("data/errors.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let (class, text) = line.split_once('\t').unwrap();
        let error = SlurmError::from_message("scontrol x", "exit status: 1", text);
        assert!(format!("{error:?}").starts_with(class), "{class}: {error:?}");
    }
}

#[test]
fn the_configuration_is_read() {
    let config = Config::parse(include_str!("data/config.txt"));
    assert_eq!(config.get("clustername"), Some("lab"));
    assert_eq!(config.get("SLURM_VERSION"), Some("22.05.8"));
    assert!(config.has("SlurmctldParameters", "enable_configless"));
    assert_eq!(
        config.option("SlurmctldParameters", "power_save_interval"),
        Some("1")
    );
    assert!(!config.has("SlurmctldParameters", "idle_on_node_suspend"));
    assert_eq!(config.number("ResumeTimeout"), Some(60));
    assert_eq!(config.get("Epilog"), None);
    assert_eq!(config.get("ResumeProgram"), Some("/srv/lab/Resume"));
}

#[test]
fn keys_that_are_printed_as_lists_are_read() {
    let config = Config::parse(
        "EpilogSlurmctld[0]      = /srv/Epilog\nEpilogSlurmctld[1]      = /site/more\n\
         PrologSlurmctld[0]      = /srv/Prolog\nSLURM_VERSION           = 24.11.5\nodd[x]=1\n",
    );
    assert_eq!(config.get("EpilogSlurmctld"), Some("/srv/Epilog,/site/more"));
    assert_eq!(config.get("PrologSlurmctld"), Some("/srv/Prolog"));
    assert_eq!(config.version(), Some(Version::new(24, 11, 5)));
    assert_eq!(config.get("odd[x]"), Some("1"));
}

#[test]
fn parts_of_a_heterogeneous_job_wait_with_their_leader() {
    // From 23.02 on the others come without the licence (seen on 24.11.5 and 26.05.5).
    let job = |id: u32, het: u32, gate, state| SlurmJob {
        gate,
        state,
        het: Some(JobId(het)),
        ..SlurmJob::new(JobId(id))
    };
    let listed = [
        job(4, 3, Gate::Open, JobState::Pending),
        job(3, 3, Gate::Waits, JobState::Pending),
        job(5, 3, Gate::Open, JobState::Running),
        job(6, 6, Gate::Open, JobState::Pending),
        job(7, 6, Gate::Open, JobState::Pending),
    ];
    let line =
        |job: &SlurmJob| job_line(job).replacen("|N/A|N/A|", &format!("|N/A|{}|", job.het.unwrap()), 1);
    let text: String = listed.iter().map(line).collect();
    let gates: Vec<Gate> = jobs::parse(&text, MARK)
        .unwrap()
        .values()
        .map(|job| job.gate)
        .collect();
    assert_eq!(
        gates,
        [Gate::Waits, Gate::Waits, Gate::Open, Gate::Open, Gate::Open]
    );
}

#[test]
fn versions_and_pings_are_read() {
    assert_eq!(
        Version::parse("slurm-wlm 22.05.8\n"),
        Some(Version::new(22, 5, 8))
    );
    assert_eq!(
        Version::parse("slurm 24.11.0-0rc1"),
        Some(Version::new(24, 11, 0))
    );
    assert_eq!(Version::parse("slurm 25.05"), Some(Version::new(25, 5, 0)));
    assert_eq!(Version::parse("slurm"), None);
    assert_eq!(Version::new(23, 2, 1).to_string(), "23.02.1");
    assert!(Version::new(22, 5, 11) < Version::new(23, 2, 0));
    assert!(Ping::parse("Slurmctld(primary) at head is UP\n").is_up());
    let ping = Ping::parse("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP\n");
    assert_eq!(
        ping.controllers,
        [("a".to_owned(), false), ("b".to_owned(), true)]
    );
    assert!(
        !Ping::parse("Slurmctld(primary) at vm is DOWN\n*** RESTORE SLURMCTLD DAEMON TO SERVICE **\n")
            .is_up()
    );
}

#[test]
fn resume_files_of_all_versions_are_read() {
    let old = resume_file::parse(r#"{"jobs":[{"job_id":1,"nodes":"v1"}],"all_nodes":"v1"}"#).unwrap();
    assert_eq!(old.jobs[0].id, JobId(1));
    assert_eq!(old.jobs[0].resume, [name("v1")]);
    assert_eq!(old.jobs[0].alloc, [name("v1")]);
    assert_eq!(old.all_nodes, [name("v1")]);
    let new = resume_file::parse(
        r#"{"all_nodes_resume":"c[1-2,4]","jobs":[{"job_id":140,"extra":"x","features":null,"partition":"p",
        "nodes_alloc":"c[1-4]","nodes_resume":"c[1-2]","oversubscribe":"OK","reservation":null},
        {"job_id":141,"nodes_alloc":"c4","nodes_resume":"c4"}],"later":{"key":[1]}}"#,
    )
    .unwrap();
    assert_eq!(new.jobs[0].resume, [name("c1"), name("c2")]);
    assert_eq!(new.jobs[0].alloc.len(), 4);
    assert_eq!(new.all_nodes.len(), 3);
    assert!(
        resume_file::parse(r#"{"jobs":[],"all_nodes":""}"#)
            .unwrap()
            .all_nodes
            .is_empty()
    );
    for bad in [
        "",
        "{",
        "[]",
        r#"{"jobs":[{"nodes":"v1"}]}"#,
        r#"{"jobs":[],"all_nodes":"v[1"}"#,
    ] {
        let error = resume_file::parse(bad).unwrap_err().to_string();
        assert!(error.contains("SLURM_RESUME_FILE"), "{error}");
    }
}

#[test]
fn a_short_resume_file_cannot_take_much_memory() {
    // 45 bytes for 65,536 names; 32 MiB of them would be some 48 thousand million.
    let job = r#"{"job_id":1,"nodes":"c[0-65535]"}"#;
    let file = |jobs: usize| format!(r#"{{"jobs":[{}]}}"#, vec![job; jobs].join(","));
    // Each job's nodes are there twice: to be resumed, and in all.
    assert_eq!(resume_file::parse(&file(8)).unwrap().jobs.len(), 8);
    let error = resume_file::parse(&file(9)).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 nodes"), "{error}");

    let few = r#"{"jobs":[{"job_id":1,"nodes":"c[1-2]"}],"all_nodes":"c[1-2]"}"#;
    assert!(resume_file::parse_within(few, 6).is_ok());
    for most in 0..6 {
        assert!(resume_file::parse_within(few, most).is_err(), "{most}");
    }
    let long = format!(r#"{{"all_nodes":"{}"}}"#, "[".repeat(5000));
    let error = resume_file::parse(&long).unwrap_err().to_string();
    assert!(error.len() < 400, "{error}");
}

fn any_flags() -> impl Strategy<Value = NodeFlags> {
    any::<[bool; 8]>().prop_map(|b| NodeFlags {
        cloud: b[0],
        powered_down: b[1],
        powering_up: b[2],
        powering_down: b[3],
        power_down: b[4],
        drain: b[5],
        not_responding: b[6],
        completing: b[7],
        unknown: false,
    })
}

fn state_text(base: &BaseState, f: NodeFlags) -> String {
    let mut text = match base {
        BaseState::Idle => "idle",
        BaseState::Allocated => "allocated",
        BaseState::Mixed => "mixed",
        BaseState::Down => "down",
        BaseState::Error => "error",
        BaseState::Future => "future",
        BaseState::Unknown(word) => word,
    }
    .to_owned();
    let words = [
        (f.cloud, "+cloud"),
        (f.powered_down, "+powered_down"),
        (f.powering_up, "+powering_up"),
        (f.powering_down, "+powering_down"),
        (f.power_down, "+power_down"),
        (f.drain, "+drain"),
        (f.not_responding, "+not_responding"),
        (f.completing, "+completing"),
    ];
    text.extend(words.iter().filter(|(on, _)| *on).map(|(_, word)| *word));
    text
}

fn any_base() -> impl Strategy<Value = BaseState> {
    prop_oneof![
        Just(BaseState::Idle),
        Just(BaseState::Allocated),
        Just(BaseState::Mixed),
        Just(BaseState::Down),
        Just(BaseState::Error),
        Just(BaseState::Future),
        "[a-z]{3,9}x".prop_map(BaseState::Unknown),
    ]
}

fn any_names() -> impl Strategy<Value = Vec<NodeName>> {
    proptest::collection::btree_set("[a-c]{1,2}[0-9]{1,3}", 1..20)
        .prop_map(|set| set.iter().map(|text| name(text)).collect())
}

/// Free text as a hostile user would choose it: bars, newlines, marks that are not ours.
fn free_text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,20}",
        "[a-z|\n@0-9]{0,30}",
        Just("\n@00000000deadbeef|1|0|root|vm|RUNNING".to_owned())
    ]
}

fn any_job() -> impl Strategy<Value = SlurmJob> {
    let state = prop_oneof![
        Just(JobState::Pending),
        Just(JobState::Configuring),
        Just(JobState::Running),
        Just(JobState::Suspended),
        Just(JobState::Completing),
    ];
    let nodes = prop_oneof![Just(Vec::new()), any_names()];
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        1u32..5000,
        proptest::option::of(1u64..2_000_000_000),
        any::<u64>(),
    );
    let array = proptest::option::of((any::<u32>(), proptest::collection::btree_set(0u32..9999, 1..30)));
    let mode = (
        array,
        any::<[bool; 4]>(),
        any::<[u16; 3]>(),
        proptest::option::of(free_text()),
    );
    (numbers, state, nodes, free_text(), mode).prop_map(
        |((id, uid, node_count, submit, priority), state, nodes, name, (array, flags, sizes, comment))| {
            SlurmJob {
                name,
                uid,
                user: "alice".into(),
                partition: "vm,other".into(),
                state,
                reason: words::job_reason("Resources"),
                nodes,
                node_count,
                submit: submit.map(|s| Time(s * 1000)),
                priority,
                // Free text where there is no accounting.
                account: if flags[0] {
                    "x|vm|RUNNING|1|n[1-4]".into()
                } else {
                    String::new()
                },
                request: Request {
                    cpus: sizes[0].into(),
                    memory_mb: sizes[1].into(),
                    nodes: node_count,
                    most_nodes: node_count + u32::from(sizes[2] % 5),
                    node_cpus: u32::from(sizes[2] % 7),
                    task_cpus: sizes[0].into(),
                    memory_by: MemoryBy::Unknown,
                    gpus_by: GpusBy::Node,
                    gpus: u32::from(sizes[2]) * node_count,
                    whole_nodes: flags[1] != flags[3],
                },
                array: array.map(|(job, tasks)| ArrayTasks {
                    job: JobId(job),
                    tasks: tasks.into_iter().collect(),
                }),
                gate: if flags[1] { Gate::Waits } else { Gate::Open },
                licenses: if flags[2] { "a:2|b:1".into() } else { String::new() },
                requeue: flags[3],
                admin_comment: comment
                    .map(|text| format!("x{}", text.trim()))
                    .filter(|text| text == text.trim()),
                ..SlurmJob::new(JobId(id))
            }
        },
    )
}

/// As squeue prints it, hostile devices included.
fn job_line(job: &SlurmJob) -> String {
    let state = match &job.state {
        JobState::Pending => "PENDING",
        JobState::Configuring => "CONFIGURING",
        JobState::Running => "RUNNING",
        JobState::Suspended => "SUSPENDED",
        JobState::Completing => "COMPLETING",
        JobState::Over(word) | JobState::Unknown(word) => word,
    };
    let SlurmJob {
        id,
        uid,
        user,
        partition,
        reason,
        priority,
        name,
        ..
    } = job;
    let or = |text: &str, none: &str| {
        if text.is_empty() {
            none.to_owned()
        } else {
            text.to_owned()
        }
    };
    let (array, tasks) = match &job.array {
        Some(ArrayTasks { job, tasks }) => {
            let tasks: Vec<String> = tasks.iter().map(u32::to_string).collect();
            (*job, tasks.join(","))
        }
        None => (*id, "N/A".to_owned()),
    };
    let account = or(&job.account, "(null)");
    let count = match job.node_count {
        n if n % 1024 == 0 => format!("{}K", n / 1024),
        n => n.to_string(),
    };
    let submit = job.submit.map_or("N/A".to_owned(), |t| (t.0 / 1000).to_string());
    let list = if job.nodes.is_empty() {
        String::new()
    } else {
        hostlist::fold(&job.nodes)
    };
    let licenses = match (job.gate, job.licenses.as_str()) {
        (Gate::Open, others) => or(others, "(null)"),
        (Gate::Waits, "") => "vm_room:1".to_owned(),
        (Gate::Waits, others) => format!("{others},vm_room:1"),
    };
    let Request {
        cpus,
        memory_mb,
        nodes,
        most_nodes,
        node_cpus,
        task_cpus: _,
        memory_by: _,
        gpus_by: _,
        gpus,
        whole_nodes,
    } = job.request;
    let sharing = match (whole_nodes, job.requeue) {
        (true, true) => "NO=oversubscribe",
        (true, false) => "NODE=exclusive",
        (false, true) => "OK=oversubscribe",
        (false, false) => "NO=exclusive",
    };
    let requeue = u8::from(job.requeue);
    let devices = format!("gres:gpu:{},gres:x:|y", gpus / nodes.max(1));
    let comment = job.admin_comment.as_deref().unwrap_or("(null)");
    format!(
        "{id}|{array}|{tasks}|N/A|{uid}|{partition}|{state}|{count}|1|{submit}|N/A|{list}|{priority}|\
         cpu={cpus},mem={memory_mb}M,node={nodes},billing=1|{requeue}|1|{most_nodes}|0|{node_cpus}|N/A|{sharing}\
         {MARK}{user}{MARK}{account}{MARK}{licenses}{MARK}{reason}{MARK}{devices}|N/A|N/A|N/A\
         {MARK}{comment}{MARK}{name}{MARK}\n"
    )
}

#[test]
fn a_job_that_asks_for_more_than_there_can_be_is_not_understood() {
    let asks = |memory: &str, nodes: u32, most_nodes: u32| {
        let mut job = SlurmJob::new(JobId(7));
        job.node_count = nodes;
        (job.request.nodes, job.request.most_nodes) = (nodes, most_nodes);
        let line = job_line(&job).replace("mem=0M", &format!("mem={memory}"));
        jobs::parse(&line, MARK).unwrap().pop_first().unwrap().1
    };
    let why = |job: SlurmJob| match job.state {
        JobState::Unknown(why) => why,
        state => panic!("{state:?}"),
    };
    assert!(why(asks("16777215P", 1, 1)).contains("more memory than all nodes can have"));
    assert!(why(asks("1P", 65_537, 1)).contains("more nodes than Slurm can have"));
    let most = asks("1024P", 65_536, u32::MAX);
    assert_eq!(
        (most.state, most.request.memory_mb, most.request.most_nodes),
        (JobState::Pending, 1 << 40, 65_536)
    );
}

proptest! {
    #[test]
    fn node_listings_round_trip(groups in proptest::collection::vec((any_names(), any_base(), any_flags(), free_text()), 0..6)) {
        let mut expected = BTreeMap::new();
        let mut text = String::new();
        for (names, base, flags, reason) in groups {
            let reason = Some(reason.trim().to_owned()).filter(|r| !r.is_empty());
            let shown = reason.as_deref().unwrap_or("none");
            text += &format!("{}|{}|{shown}|{MARK}\n", hostlist::fold(&names), state_text(&base, flags));
            for name in names {
                expected.insert(name, SlurmNode { base: base.clone(), flags, reason: words::node_reason(reason.as_deref().unwrap_or_default()), alloc: None });
            }
        }
        prop_assert_eq!(nodes::parse(&text, MARK).unwrap(), expected);
    }

    #[test]
    fn job_listings_round_trip(list in proptest::collection::vec(any_job(), 0..8)) {
        let text: String = list.iter().map(job_line).collect();
        let expected: BTreeMap<JobId, SlurmJob> = list.into_iter().map(|mut job| {
            let sorted: std::collections::BTreeSet<NodeName> = job.nodes.drain(..).collect();
            job.nodes = if sorted.is_empty() { Vec::new() } else { hostlist::expand(hostlist::fold(&sorted)).unwrap() };
            (job.id, job)
        }).collect();
        prop_assert_eq!(jobs::parse(&text, MARK).unwrap(), expected.clone());

        let each = |job: &SlurmJob| -> Vec<String> {
            let one = |array: JobId, task: u32| {
                let array = Some(ArrayTasks { job: array, tasks: vec![task] });
                job_line(&SlurmJob { array, ..job.clone() })
            };
            match &job.array {
                Some(array) => array.tasks.iter().map(|task| one(array.job, *task)).collect(),
                None => vec![job_line(job)],
            }
        };
        let mut lines: Vec<String> = expected.values().flat_map(each).collect();
        prop_assert_eq!(jobs::parse(&lines.concat(), MARK).unwrap(), expected.clone());
        lines.reverse();
        prop_assert_eq!(jobs::parse(&lines.concat(), MARK).unwrap(), expected);
    }

    /// What is promised to all tasks of an array together does not overflow; the rest is unchanged.
    #[test]
    fn sizes_that_no_cluster_has_cost_their_job_alone(
        list in proptest::collection::vec(any_job(), 1..4), memory_mb in 0..1_u64 << 54, bits in 0..54_u32, nodes in any::<u32>(), few in 0..32_u32, most in any::<u32>(),
    ) {
        let (memory_mb, nodes) = (memory_mb >> bits, nodes >> few);
        let jobs: BTreeMap<JobId, SlurmJob> = list.into_iter().map(|job| (job.id, job)).collect();
        let mut odd = jobs.values().next().unwrap().clone();
        (odd.request.memory_mb, odd.request.nodes, odd.request.most_nodes) = (memory_mb, nodes, most);
        let text: String = jobs.values().skip(1).map(job_line).chain([job_line(&odd)]).collect();
        let whole: String = jobs.values().map(job_line).collect();
        let (seen, expected) = (jobs::parse(&text, MARK).unwrap(), jobs::parse(&whole, MARK).unwrap());
        for (id, job) in expected.iter().filter(|(id, _)| **id != odd.id) {
            prop_assert_eq!(&seen[id], job);
        }
        let job = &seen[&odd.id];
        if matches!(job.state, JobState::Unknown(_)) {
            prop_assert!(memory_mb > 1 << 40 || nodes.max(odd.node_count) > 65_536, "{:?}", job);
            return Ok(());
        }
        let tasks = 4_000_001_u64;
        let memory = tasks.checked_mul(job.request.memory_mb);
        // The most overhead that thiao.toml takes, for each.
        let overhead = tasks.checked_mul(u64::from(job.request.most_nodes)).and_then(|vms| vms.checked_mul(1 << 20));
        prop_assert!(memory.zip(overhead).is_some_and(|(memory, overhead)| memory.checked_add(overhead).is_some()));
    }

    /// What cannot be read of one job or name costs that alone.
    #[test]
    fn an_odd_record_is_there_and_the_others_are_read(list in proptest::collection::vec(any_job(), 1..8), at in any::<proptest::sample::Index>(), field in 1usize..16, odd in "[a-z.!]{0,6}", keep in any::<bool>()) {
        let jobs: BTreeMap<JobId, SlurmJob> = list.into_iter().map(|job| (job.id, job)).collect();
        let hurt = *at.get(&jobs.keys().collect::<Vec<_>>());
        let line = |job: &SlurmJob| {
            let line = job_line(job);
            if job.id != *hurt {
                return line;
            }
            let mut fields: Vec<&str> = line.split('|').collect();
            match keep {
                true => fields[field] = &odd,
                // Or there is nothing behind it at all.
                false => fields.truncate(field),
            }
            let end = if keep { String::new() } else { MARK.repeat(8) + "\n" };
            fields.join("|") + &end
        };
        let text: String = jobs.values().map(line).collect();
        let whole: String = jobs.values().map(job_line).collect();
        let (seen, expected) = (jobs::parse(&text, MARK).unwrap(), jobs::parse(&whole, MARK).unwrap());
        prop_assert!(seen.keys().eq(expected.keys()));
        for (id, job) in &expected {
            prop_assert!(id == hurt || seen[id] == *job);
        }
        if !keep {
            prop_assert!(matches!(seen[hurt].state, JobState::Unknown(_)), "{:?}", seen[hurt]);
        }
    }

    #[test]
    fn odd_names_of_nodes_cost_no_other(names in any_names(), odd in "[?_!][a-z]{0,5}") {
        let list = hostlist::fold(&names);
        let expected: Vec<NodeName> = hostlist::expand(&list).unwrap();
        for list in [format!("{odd},{list}"), format!("{list},{odd}[0-3,7]"), format!("x[{odd}],{list}")] {
            let text = format!("{list}|idle+cloud|none|{MARK}\n");
            let nodes = nodes::parse(&text, MARK).unwrap();
            prop_assert!(nodes.keys().eq(expected.iter().collect::<std::collections::BTreeSet<_>>()));
            let job = job_line(&SlurmJob::new(JobId(7))).replace("N/A||", &format!("N/A|{list}|"));
            let job = &jobs::parse(&job, MARK).unwrap()[&JobId(7)];
            prop_assert_eq!(&job.nodes, &expected);
            prop_assert!(matches!(&job.state, JobState::Unknown(why) if why.contains("names")));
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "(.|\n){0,200}", bars in "[@|0-9a-z\n\\[\\],+-]{0,200}") {
        for text in [text.as_str(), bars.as_str(), &format!("{MARK}|{bars}"), &format!("{bars}|{MARK}\n")] {
            let _ = nodes::parse(text, MARK);
            let _ = jobs::parse(text, MARK);
            let _ = nodes::parse_state(text);
            let _ = resume_file::parse(text);
            let _ = Config::parse(text);
            let _ = Version::parse(text);
            let _ = Ping::parse(text);
        }
    }

    #[test]
    fn resume_files_round_trip(jobs in proptest::collection::vec((any::<u32>(), any_names()), 0..5)) {
        let all: std::collections::BTreeSet<&NodeName> = jobs.iter().flat_map(|(_, names)| names).collect();
        let all = if all.is_empty() { String::new() } else { hostlist::fold(all) };
        let list: Vec<String> = jobs.iter()
            .map(|(id, names)| format!(r#"{{"job_id":{id},"nodes_resume":"{}"}}"#, hostlist::fold(names))).collect();
        let text = format!(r#"{{"jobs":[{}],"all_nodes_resume":"{all}"}}"#, list.join(","));
        let file = resume_file::parse(&text).unwrap();
        prop_assert_eq!(file.jobs.len(), jobs.len());
        for (read, (id, names)) in file.jobs.iter().zip(&jobs) {
            prop_assert_eq!(read.id, JobId(*id));
            let (mut a, mut b) = (read.resume.clone(), names.clone());
            a.sort();
            b.sort();
            prop_assert_eq!(a, b);
        }
    }
}
