//! What people see of their jobs' own VMs, and what they ask for: a real API
//! server on a real socket, with answers made up here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod served;

use served::Served;
use thiao_api::types::{Accepted, Event, Explanation, JobStay, JobVm, JobVms, Observation, Status};
use thiao_controller::api::{ApiError, Demand, Query, Read};
use tokio::sync::mpsc;

/// Job 17's: one that was up, one that never was.
fn vms() -> Vec<JobVm> {
    let first = JobVm {
        id: 1,
        job: 17,
        task: None,
        uid: Some(1001),
        node: "s0".into(),
        vm: "s0.3".into(),
        host: Some("host1".into()),
        cpus: 2,
        memory_mb: 500,
        share_percent: 50,
        gpus: 1,
        asked: 1_700_000_000_000,
        started: Some(1_700_000_000_900),
        ready: Some(1_700_000_002_200),
        up: Some(1_700_000_003_100),
        ended: Some(1_700_000_090_900),
        core_hours: 0.025,
    };
    let second = JobVm {
        id: 2,
        uid: None,
        node: "s1".into(),
        vm: "s1.1".into(),
        host: None,
        cpus: 1,
        gpus: 0,
        started: None,
        ready: None,
        up: None,
        ended: None,
        core_hours: 0.0,
        ..first.clone()
    };
    vec![first, second]
}

/// Of a controller that cannot read Slurm, if there is an error.
fn status(error: Option<&str>) -> Status {
    Status {
        version: "1".into(),
        cluster: "c".into(),
        provider: "qemu".into(),
        provider_notes: vec![],
        emulated: None,
        preparing: None,
        faults: vec![],
        unstored: None,
        started: 0,
        now: 0,
        slurm: Observation {
            last_ok: Some(0),
            error: error.map(str::to_owned),
        },
        vms: Observation {
            last_ok: Some(0),
            error: None,
        },
        bus: None,
        ungated: None,
        breaker: None,
        nodes_by_state: Default::default(),
        vm_count: 0,
        pending_intents: 0,
    }
}

async fn controller(asked: mpsc::Receiver<Query>) {
    answering(asked, None).await;
}

/// Answers until nobody asks any more; Slurm cannot be read because of `error`.
async fn answering(mut asked: mpsc::Receiver<Query>, error: Option<&str>) {
    while let Some(query) = asked.recv().await {
        match query {
            Query::Demand(Demand::JobSeen { reply, .. }) => drop(reply.send(Ok(()))),
            Query::Read(Read::JobVms { job, reply }) => {
                // 3_8 was job 17; array 4 is that and another.
                let had = match (job.id, job.task) {
                    (17, None) | (3, Some(8)) | (4, None) => vms(),
                    _ => vec![],
                };
                let id = if job.task.is_some() { 17 } else { job.id };
                drop(reply.send(Ok(JobVms::of(id, had))));
            }
            Query::Read(Read::Jobs(reply)) => drop(reply.send(Ok(vec![]))),
            Query::Read(Read::Status(reply)) => drop(reply.send(Ok(status(error)))),
            Query::Read(Read::Explain { name, reply }) => drop(reply.send(match name.as_str() {
                "3_8" => Ok(Explanation {
                    subject: "job 17".into(),
                    now: vec![],
                    story: vec![],
                    uid: None,
                    last_words: vec![],
                }),
                _ => Err(ApiError::NotFound(format!("no job {name} is known here"))),
            })),
            Query::Read(Read::Events { subject, reply, .. }) => drop(reply.send(Ok(vec![Event {
                id: 1,
                at: 1_700_000_000_000,
                subject: subject.unwrap_or_default(),
                kind: "job-released".into(),
                message: "its nodes are up".into(),
                uid: None,
            }]))),
            Query::Read(Read::JobsNodes { which, reply }) => {
                let stay = |id: i64, ended| JobStay {
                    id,
                    job: 17,
                    task: Some("3_8".into()),
                    uid: 1001,
                    node: "s0".into(),
                    vm: "s0.3".into(),
                    host: Some("host1".into()),
                    began: 1_700_000_000_000,
                    ended,
                };
                let stays = [stay(1, Some(1_700_000_090_000)), stay(2, None)];
                let after = stays.into_iter().filter(|stay| stay.id > which.after);
                let since = after.filter(|stay| stay.ended.is_none_or(|at| at >= which.since.0));
                drop(reply.send(Ok(since.collect())));
            }
            Query::Read(Read::JobsVms { which, reply }) => {
                // Three pages: two are full.
                let many = (which.after + 1..=20_001).take(which.limit);
                let found = many.map(|id| JobVm {
                    id,
                    job: u32::try_from(id).unwrap(),
                    ..vms()[0].clone()
                });
                let since = which.since.0;
                drop(reply.send(Ok(match since {
                    0 => found.collect(),
                    _ => vms().into_iter().filter(|vm| vm.asked > since).collect(),
                })));
            }
            Query::Demand(Demand::Give { job, options, reply }) => drop(reply.send(Ok(Accepted {
                nodes: String::new(),
                message: format!("job {job} gets its VMs [{options}]"),
            }))),
            Query::Demand(Demand::Clean { job, reply }) => drop(reply.send(match job.id {
                17 => Err(ApiError::Conflict(
                    "job 17 is still running: scancel it first".into(),
                )),
                _ => Ok(Accepted {
                    nodes: "s0".into(),
                    message: format!("the VMs of job {job} are ended now"),
                }),
            })),
            other => drop(other),
        }
    }
}

#[test]
fn the_vms_of_a_job_are_shown() {
    let served = Served::new(controller);
    let shown = served.good(&["jobs", "17"]);
    let words: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        words,
        [
            "job 17: 2 VMs on host1; up after 3.1 s; 0.03 core-hours",
            "NODE VM HOST SIZE SHARE ASKED STARTED READY UP ENDED CORE-HOURS",
            "s0 s0.3 host1 2 CPUs, 500 MiB, 1 GPU 50 % 2023-11-14 22:13:20.000 +0.9 s +2.2 s +3.1 s +1 min 0.03",
            "s1 s1.1 - 1 CPU, 500 MiB 50 % 2023-11-14 22:13:20.000 - - - - 0.00",
        ]
        .map(|line| line.split_whitespace().collect::<Vec<_>>()),
        "{shown}"
    );
    let json: JobVms = serde_json::from_str(&served.good(&["jobs", "17", "--json"])).unwrap();
    assert_eq!((json.job, json.uid, json.up_after), (17, Some(1001), Some(3_100)));
    assert_eq!(json.vms, vms());
    assert_eq!(
        served.good(&["jobs", "18"]),
        "no VMs were made for job 18 alone: `thiao explain 18` tells which it was on\n"
    );
    // A task of an array by the name that people have of it.
    assert_eq!(
        served.good(&["jobs", "3_8"]),
        shown.replace("job 17:", "job 3_8:")
    );
    assert_eq!(
        served.good(&["jobs", "3_9"]),
        "no VMs were made for job 3_9 alone: `thiao explain 3_9` tells which it was on\n"
    );
    // Several as squeue lists them.
    let several = served.good(&["jobs", "3_[8-9%1]"]);
    assert!(
        several.starts_with("job 3_[8-9]: 2 VMs on host1; up after"),
        "{several}"
    );
    assert_eq!(several.lines().count(), 4, "{several}");
    // Of a whole array each VM's job is told.
    let array = served.good(&["jobs", "4"]);
    let firsts = array.lines().map(|line| line.split_whitespace().next().unwrap());
    assert_eq!(firsts.collect::<Vec<_>>(), ["job", "JOB", "17", "17"], "{array}");
}

#[test]
fn no_jobs_are_not_the_same_as_jobs_that_are_not_known() {
    let served = Served::new(controller);
    assert_eq!(served.good(&["jobs"]), "there are no jobs, or none of yours\n");
    let served = Served::new(|asked| answering(asked, Some("slurmctld does not answer")));
    assert_eq!(
        served.good(&["jobs"]),
        "Slurm cannot be read now, so its jobs are not known: slurmctld does not answer\n"
    );
    assert_eq!(served.good(&["jobs", "--json"]), "[]\n");
}

#[test]
fn the_events_of_a_task_are_those_of_its_job() {
    let served = Served::new(controller);
    let told = served.good(&["events", "3_8"]);
    assert!(
        told.contains(" job 17 ") && told.contains("its nodes are up"),
        "{told}"
    );
    let (code, _, err) = served.run(&["events", "3_9"]);
    assert_eq!((code, err.as_str()), (1, "thiao: no job 3_9 is known here\n"));
}

#[test]
fn what_vms_cost_can_be_taken_away() {
    let served = Served::new(controller);
    let csv = served.good(&["jobs", "--export", "csv", "--since", "2023-11-14"]);
    assert_eq!(
        csv,
        "job,uid,node,vm,host,cpus,memory_mb,share_percent,gpus,asked,started,ready,up,ended,core_hours\n\
         17,1001,s0,s0.3,host1,2,500,50,1,1700000000000,1700000000900,1700000002200,1700000003100,1700000090900,0.0250\n\
         17,,s1,s1.1,,1,500,50,0,1700000000000,,,,,0.0000\n"
    );
    assert_eq!(
        served
            .good(&["jobs", "--export", "csv", "--since", "2023-11-15"])
            .lines()
            .count(),
        1
    );
    let all: Vec<JobVm> = serde_json::from_str(&served.good(&["jobs", "--export", "json"])).unwrap();
    let jobs: Vec<u32> = all.iter().map(|vm| vm.job).collect();
    assert_eq!(jobs, (1..=20_001).collect::<Vec<u32>>(), "every page, once");
    for wrong in [
        &["jobs", "--export", "xml"][..],
        &["jobs", "17", "--since", "7d"],
        &["jobs", "--export", "csv", "--since", "soon"],
        &["jobs", "17", "--export", "csv"],
        &["jobs", "--export", "csv", "--watch"],
    ] {
        assert_eq!(served.run(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn which_vms_jobs_were_on_is_listed_since_a_time() {
    let served = Served::new(controller);
    let rows = |since: &str| -> Vec<Vec<String>> {
        let shown = served.good(&["jobs", "--since", since]);
        let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        shown.lines().map(line).collect()
    };
    let all = rows("2023-11-14");
    assert_eq!(all[0].join(" "), "JOB UID VM HOST FROM FOR");
    assert_eq!(
        all[1].join(" "),
        "3_8 1001 s0.3 host1 2023-11-14 22:13:20.000 1 min"
    );
    assert_eq!(
        all[2].join(" "),
        "3_8 1001 s0.3 host1 2023-11-14 22:13:20.000 still there"
    );
    assert_eq!(rows("2023-11-16").len(), 2);
    let json: Vec<JobStay> =
        serde_json::from_str(&served.good(&["jobs", "--since", "2023-11-14", "--json"])).unwrap();
    assert_eq!(json.len(), 2);
}

#[test]
fn vms_are_given_and_let_go() {
    let served = Served::new(controller);
    for (words, expected) in [
        (&["17"][..], "job 17 gets its VMs []\n"),
        (&["--vm-share=50", "17_3"], "job 17_3 gets its VMs [share=50]\n"),
        (
            &["--vm-share=50", "17_[3-4]"],
            "job 17_3 gets its VMs [share=50]\njob 17_4 gets its VMs [share=50]\n",
        ),
    ] {
        assert_eq!(served.good(&[&["submit"], words].concat()), expected);
    }
    assert_eq!(served.good(&["clean", "18"]), "the VMs of job 18 are ended now\n");
    let (code, _, err) = served.run(&["clean", "17"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "thiao: job 17 is still running: scancel it first\n")
    );
    assert_eq!(
        served.good(&["clean", "18_3"]),
        "the VMs of job 18_3 are ended now\n"
    );
    let (code, _, err) = served.run(&["clean", "18_x"]);
    assert!(
        code == 2 && err.contains("write one as 17, a task of an array as 17_3"),
        "{err}"
    );
}
