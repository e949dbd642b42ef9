//! A controller that knows a little: jobs 1 and 3 are of user 1001, job 2 of user
//! 1002, and over are 9 of the first and 8 of the second. What is 1002's alone
//! holds [`SECRET`].

use thiao_api::types::{
    Accepted, Event, Explanation, Host, Job, JobArray, JobStay, JobVm, JobVms, LastWords, Node, Observation,
    PlanLine, PlanView, Status, Vm,
};
use thiao_api::words::{Desired, JobState, Mode, NodeState, VmState};
use thiao_controller::api::{ApiError, Demand, Query, Read, Viewer};
use thiao_core::hostlist;
use tokio::sync::mpsc;

/// Nobody says it by chance.
pub const SECRET: &str = "zq7-Kd93-mXw0-of-1002-pV4t";

/// The jobs that user 1001 may do something to.
const OWN: [u32; 3] = [1, 3, 9];

/// Where the questions come.
pub struct Stub {
    pub asked: mpsc::Receiver<Query>,
}

impl Stub {
    /// Answers what was asked; whether there was anything.
    pub fn answer(&mut self, viewer: Viewer) -> bool {
        let mut any = false;
        while let Ok(query) = self.asked.try_recv() {
            reply(query, viewer);
            any = true;
        }
        any
    }
}

fn may(viewer: Viewer, job: u32) {
    assert!(
        viewer.trusted || OWN.contains(&job),
        "an order about another user's job {job}"
    );
}

fn reply(query: Query, viewer: Viewer) {
    match query {
        Query::Read(Read::Status(reply)) => drop(reply.send(Ok(status()))),
        Query::Read(Read::Nodes(reply)) => drop(reply.send(Ok(vec![node()]))),
        Query::Read(Read::Vms(reply)) => drop(reply.send(Ok(vec![vm(1), vm(2)]))),
        Query::Read(Read::Hosts(reply)) => drop(reply.send(Ok(vec![host()]))),
        Query::Read(Read::Jobs(reply)) => {
            drop(reply.send(Ok(vec![job(1, 1001), job(2, 1002), job(3, 1001)])))
        }
        Query::Read(Read::Events {
            limit,
            after,
            subject,
            reply,
        }) => drop(reply.send(Ok(events(limit, after, subject.as_deref())))),
        Query::Read(Read::Plan(reply)) => drop(reply.send(Ok(plan()))),
        Query::Read(Read::Explain { name, reply }) => drop(reply.send(explain(&name))),
        Query::Demand(Demand::Resume { nodes, reply, .. } | Demand::Suspend { nodes, reply, .. }) => {
            assert!(viewer.trusted, "an order about nodes");
            drop(reply.send(accepted(hostlist::fold(&nodes))));
        }
        Query::Demand(Demand::JobSeen { reply, .. }) => drop(reply.send(Ok(()))),
        Query::Demand(Demand::JobReady { job, reply, .. }) => {
            may(viewer, job.0);
            drop(reply.send(match job.0 {
                1 => Ok(()),
                _ => Err(ApiError::Conflict("it can never start".to_owned())),
            }));
        }
        Query::Demand(Demand::Give { job, options, reply }) => {
            may(viewer, job.id);
            drop(reply.send(accepted(options.to_string())));
        }
        Query::Demand(Demand::Clean { job, reply }) => {
            may(viewer, job.id);
            drop(reply.send(accepted(String::new())));
        }
        Query::Read(Read::JobVms { job, reply }) => {
            let vms = vms_of_jobs().into_iter().filter(|vm| vm.job == job.id);
            drop(reply.send(Ok(JobVms::of(job.id, vms.collect()))));
        }
        Query::Read(Read::JobsNodes { which, reply }) => {
            let stays = vms_of_jobs().into_iter().map(|vm| JobStay {
                id: vm.id,
                job: vm.job,
                task: None,
                uid: vm.uid.unwrap_or(0),
                node: vm.node,
                vm: vm.vm,
                host: vm.host,
                began: vm.asked,
                ended: vm.ended,
            });
            let stays =
                stays.filter(|stay| which.of.is_none_or(|uid| stay.uid == uid) && stay.id > which.after);
            drop(reply.send(Ok(stays.take(which.limit).collect())));
        }
        Query::Read(Read::JobsVms { which, reply }) => {
            let vms = vms_of_jobs().into_iter();
            let vms = vms.filter(|vm| which.of.is_none_or(|uid| vm.uid == Some(uid)) && vm.id > which.after);
            drop(reply.send(Ok(vms.take(which.limit).collect())));
        }
    }
}

/// Of a VM on which these users' jobs were; only one whose alone it was may read them.
fn words(users: &[u32]) -> LastWords {
    LastWords {
        vm: "s0.1".to_owned(),
        at: 3,
        text: match users {
            [uid] => of(*uid),
            _ => SECRET.to_owned(),
        },
        users: users.to_vec(),
    }
}

fn accepted(nodes: String) -> Result<Accepted, ApiError> {
    Ok(Accepted {
        nodes,
        message: "so be it".to_owned(),
    })
}

/// What only this user may read.
fn of(uid: u32) -> String {
    match uid {
        1002 => SECRET.to_owned(),
        uid => format!("of {uid}"),
    }
}

fn status() -> Status {
    Status {
        version: "0".to_owned(),
        cluster: "lab".to_owned(),
        provider: "qemu".to_owned(),
        provider_notes: vec![],
        emulated: None,
        preparing: None,
        faults: vec![],
        unstored: None,
        started: 1,
        now: 2,
        slurm: Observation::default(),
        vms: Observation::default(),
        bus: None,
        ungated: None,
        breaker: None,
        nodes_by_state: [(NodeState::Up, 1)].into(),
        vm_count: 1,
        pending_intents: 0,
    }
}

fn node() -> Node {
    Node {
        name: "fg0".to_owned(),
        nodeset: "fg".to_owned(),
        cpus: 1,
        memory_mb: 200,
        state: NodeState::Up,
        slurm: None,
        reason: None,
        desired: Desired::Up,
        vm: None,
        host: None,
        jobs: vec![1, 2],
        failures: 0,
        retry_at: None,
        since: 0,
    }
}

fn vm(job: u32) -> Vm {
    Vm {
        id: format!("fg0.{job}"),
        node: "fg0".to_owned(),
        generation: u64::from(job),
        host: None,
        state: VmState::Up,
        memory_mb: 200,
        cpu_percent: 100,
        mode: Mode::Job,
        job: Some(job),
        asked: Some(1),
        note: None,
    }
}

fn host() -> Host {
    Host {
        name: "h".to_owned(),
        cpu_percent: 400,
        cpu_percent_used: 100,
        memory_mb: 4000,
        memory_mb_used: 200,
        vms: 1,
        usable: true,
        closed: None,
        not_for: [("ib".to_owned(), "no network".to_owned())].into(),
        everybody: None,
    }
}

fn job(id: u32, uid: u32) -> Job {
    Job {
        id,
        name: of(uid),
        user: format!("u{uid}"),
        uid,
        state: JobState::Running,
        reason: "None".to_owned(),
        nodes: "fg0".to_owned(),
        nodes_up: 1,
        node_count: 1,
        submit: None,
        start: None,
        array: (id == 3).then(|| JobArray {
            job: 3,
            tasks: vec![1, 2],
        }),
        het: None,
    }
}

fn event(id: i64, subject: &str, uid: Option<u32>) -> Event {
    let owner = match subject {
        "job 2" => 1002,
        _ => uid.unwrap_or(1001),
    };
    Event {
        id,
        at: 5,
        subject: subject.to_owned(),
        kind: "k".to_owned(),
        message: of(owner),
        uid,
    }
}

fn history() -> Vec<Event> {
    vec![
        event(1, "node fg0", None),
        event(2, "job 1", None),
        event(3, "job 2", None),
        event(4, "job 9", Some(1001)),
        event(5, "job 8", Some(1002)),
        event(6, "vm fg0.1", None),
    ]
}

fn events(limit: usize, after: Option<i64>, subject: Option<&str>) -> Vec<Event> {
    let mut all = history();
    all.retain(|event| subject.is_none_or(|subject| subject == event.subject));
    match after {
        Some(after) => all
            .into_iter()
            .filter(|event| event.id > after)
            .take(limit)
            .collect(),
        None => all.split_off(all.len().saturating_sub(limit)),
    }
}

fn plan() -> PlanView {
    let line = |subject: &str, uid| PlanLine {
        subject: subject.to_owned(),
        what: of(uid),
        why: "y".to_owned(),
    };
    PlanView {
        actions: vec![],
        held: vec![line("node fg0", 0), line("job 1", 1001), line("job 2", 1002)],
        refused: vec![],
    }
}

fn explain(name: &str) -> Result<Explanation, ApiError> {
    let told = |subject: &str, uid: Option<u32>, owner: u32| Explanation {
        subject: subject.to_owned(),
        now: vec![of(owner)],
        story: history(),
        uid,
        last_words: vec![words(&[1001]), words(&[1002]), words(&[1001, 1002]), words(&[])],
    };
    match name {
        "fg0" => Ok(told("node fg0", None, 0)),
        "1" => Ok(told("job 1", None, 1001)),
        "2" => Ok(told("job 2", None, 1002)),
        "8" => Ok(told("job 8", Some(1002), 1002)),
        "9" => Ok(told("job 9", Some(1001), 1001)),
        other => Err(ApiError::NotFound(format!("nothing is named {other}"))),
    }
}

fn vms_of_jobs() -> Vec<JobVm> {
    let vm = |id: i64, job: u32, uid: u32| JobVm {
        id,
        job,
        task: None,
        uid: Some(uid),
        node: "s0".to_owned(),
        vm: "s0.1".to_owned(),
        host: Some(of(uid)),
        cpus: 1,
        memory_mb: 200,
        share_percent: 100,
        gpus: 0,
        asked: 5,
        started: None,
        ready: None,
        up: None,
        ended: None,
        core_hours: 0.0,
    };
    // Job 2's number was 1001's once.
    vec![
        vm(1, 1, 1001),
        vm(2, 2, 1001),
        vm(3, 2, 1002),
        vm(4, 8, 1002),
        vm(5, 9, 1001),
    ]
}
