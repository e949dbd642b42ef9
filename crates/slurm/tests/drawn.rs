//! The parsers on listings that are drawn at random: they read what was written, and nothing makes them panic.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

mod lines;

use lines::{MARK, job_line};
use proptest::prelude::*;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::table::Table;
use thiao_core::view::{
    ArrayTasks, BaseState, Gate, GpusBy, JobState, MemoryBy, NodeFlags, Request, SlurmJob, SlurmNode,
};
use thiao_slurm::{Config, Ping, Version, jobs, nodes, resume_file, words};
use thiao_testkit::ids::node;

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
        .prop_map(|set| set.iter().map(|text| node(text)).collect())
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

#[test]
fn a_job_that_asks_for_more_than_there_can_be_is_not_understood() {
    let asks = |memory: &str, nodes: u32, most_nodes: u32| {
        let mut job = SlurmJob::new(JobId(7));
        job.node_count = nodes;
        (job.request.nodes, job.request.most_nodes) = (nodes, most_nodes);
        let line = job_line(&job).replace("mem=0M", &format!("mem={memory}"));
        jobs::parse(&line, MARK).unwrap().into_values().next().unwrap()
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
        let mut expected = Table::new();
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
        let expected: Table<JobId, SlurmJob> = list.into_iter().map(|mut job| {
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
        let jobs: Table<JobId, SlurmJob> = list.into_iter().map(|job| (job.id, job)).collect();
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
        let jobs: Table<JobId, SlurmJob> = list.into_iter().map(|job| (job.id, job)).collect();
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
