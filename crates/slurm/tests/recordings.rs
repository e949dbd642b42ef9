//! The parsers on what Slurm 22.05.8 really printed (`tests/data`), and on what it never should.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

mod lines;

use lines::{MARK, job_line};
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::table::Table;
use thiao_core::view::{
    Alloc, ArrayTasks, BaseState, Gate, JobState, NodeFlags, NodeReason, Request, SlurmJob, SlurmNode,
    WaitsFor,
};
use thiao_slurm::{Config, Ping, SlurmError, Version, details, jobs, nodes, resume_file, words};
use thiao_testkit::ids::node as name;

fn node(nodes: &Table<NodeName, SlurmNode>, text: &str) -> SlurmNode {
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

fn read_nodes(text: &str) -> Table<NodeName, SlurmNode> {
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
    assert_eq!(tasks(16), (11, vec![8], Gate::Open), "admitted");
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
