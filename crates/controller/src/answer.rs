//! Answers people's questions from a snapshot of the world and from the store.

mod explain;

use crate::api::{ApiError, Read, Reply};
use crate::bus;
use crate::clock::Clock;
use crate::demand::{NOT_READ, record_of};
use crate::intake;
use crate::provider::Provider;
use crate::snapshot::Snapshot;
use crate::store::{Past, StoreError, Which};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use thiao_api::JobName;
use thiao_api::types::{
    Event, Everybody, Host, Job, JobArray, JobVm, JobVms, Node, PlanLine, PlanView, Status, Vm,
};
use thiao_api::words;
use thiao_core::event::Subject;
use thiao_core::hostlist;
use thiao_core::ids::{HostName, JobId, Millis, NodeName, Time, VmId};
use thiao_core::lint::lint;
use thiao_core::resources::Resources;
use thiao_core::view::{BaseState, GateSeen, JobState, SlurmNode, VmState, VmView};
use thiao_core::world::{Desired, NodeRecord, World};
use tokio::sync::watch;

/// Most events in a story.
const STORY: usize = 200;

/// Of a VM that the last whole observation did not show.
const UNSHOWN: &str = "the provider does not show it now";

/// What answers need. A thread has one.
pub struct Reader<P> {
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) past: Past,
    pub(super) provider: Arc<P>,
    pub(super) clock: Arc<Clock>,
    pub(super) state_dir: PathBuf,
}

impl<P: Provider> Reader<P> {
    /// Answers one question from the newest snapshot.
    pub(super) fn answer(&self, read: Read) {
        let seen = self.snapshots.borrow().clone();
        let reading = Reading {
            seen: &seen,
            now: self.clock.now(),
            of: self,
        };
        match read {
            Read::Status(reply) => tell(reply, || Ok(reading.status())),
            Read::Nodes(reply) => tell(reply, || Ok(reading.nodes())),
            Read::Vms(reply) => tell(reply, || Ok(reading.vms())),
            Read::Hosts(reply) => tell(reply, || Ok(reading.hosts())),
            Read::Jobs(reply) => tell(reply, || Ok(reading.jobs())),
            Read::Events {
                limit,
                after,
                subject,
                reply,
            } => tell(reply, || reading.events(limit, after, subject.as_slice())),
            Read::Plan(reply) => tell(reply, || Ok(reading.plan_view())),
            Read::Explain { name, reply } => tell(reply, || reading.explain(&name)),
            Read::JobVms { job, reply } => tell(reply, || reading.job_vms(job)),
            Read::JobsVms { which, reply } => tell(reply, || reading.jobs_vms(which)),
            Read::JobsNodes { which, reply } => {
                tell(reply, || self.past.stays_of_jobs(which).map_err(internal));
            }
        }
    }
}

/// Nothing is worked out for one who has left.
fn tell<T>(reply: Reply<T>, answer: impl FnOnce() -> Result<T, ApiError>) {
    if !reply.is_closed() {
        drop(reply.send(answer()));
    }
}

/// A snapshot, and when it is read.
struct Reading<'a, P> {
    seen: &'a Snapshot,
    now: Time,
    of: &'a Reader<P>,
}

impl<P: Provider> Reading<'_, P> {
    fn world(&self) -> &World {
        &self.seen.world
    }

    fn events(&self, limit: usize, after: Option<i64>, subjects: &[String]) -> Result<Vec<Event>, ApiError> {
        self.of.past.events(limit, after, subjects).map_err(internal)
    }

    fn status(&self) -> Status {
        let mut nodes_by_state: BTreeMap<words::NodeState, usize> = BTreeMap::new();
        for (node, record) in self.configured() {
            *nodes_by_state
                .entry(node_state(self.world(), node, record))
                .or_default() += 1;
        }
        let breaker = &self.world().breaker;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.world().cluster.to_string(),
            provider: self.of.provider.name().to_owned(),
            provider_notes: self.seen.provider_notes.clone(),
            emulated: self.seen.emulated.clone(),
            preparing: self.seen.preparing.clone(),
            faults: World::faults_told(&self.world().faults),
            unstored: self.seen.unstored.clone(),
            started: self.seen.started.0,
            now: self.now.0,
            slurm: self.seen.slurm_observation.clone(),
            vms: self.seen.provider_observation.clone(),
            bus: self.of.provider.listening().as_ref().map(bus::shown),
            ungated: self.world().slurm.as_ref().and_then(|slurm| match &slurm.gate {
                GateSeen::Open(why) => Some(why.clone()),
                GateSeen::Shut | GateSeen::Unasked => None,
            }),
            breaker: breaker.opened.map(|_| {
                format!(
                    "open after {} failures in a row, last: {}",
                    breaker.failures, breaker.last
                )
            }),
            nodes_by_state,
            vm_count: self
                .world()
                .records
                .values()
                .filter(|record| record.vm.is_some())
                .count()
                + self.world().strays.len(),
            pending_intents: intake::pending(&self.of.state_dir),
        }
    }

    fn configured(&self) -> impl Iterator<Item = (&NodeName, &NodeRecord)> {
        self.world()
            .records
            .iter()
            .filter(|(node, _)| self.world().specs.contains_key(*node))
    }

    fn nodes(&self) -> Vec<Node> {
        let mut jobs_on: HashMap<&NodeName, Vec<u32>> = HashMap::new();
        for job in self.world().slurm.iter().flat_map(|slurm| slurm.jobs.values()) {
            for node in &job.nodes {
                jobs_on.entry(node).or_default().push(job.id.0);
            }
        }
        self.configured()
            .filter_map(|(name, record)| {
                let spec = self.world().specs.get(name)?;
                let seen = self
                    .world()
                    .slurm
                    .as_ref()
                    .and_then(|slurm| slurm.nodes.get(name));
                Some(Node {
                    name: name.to_string(),
                    nodeset: spec.nodeset.to_string(),
                    cpus: spec.shape.cpus,
                    memory_mb: spec.shape.memory_mb,
                    state: node_state(self.world(), name, record),
                    slurm: seen.map(slurm_word),
                    reason: seen.and_then(|seen| Some(seen.reason.as_ref()?.text.clone())),
                    desired: desired(record.desired),
                    vm: record.vm.as_ref().map(|vm| format!("{name}.{}", vm.generation)),
                    host: record
                        .vm
                        .as_ref()
                        .and_then(|vm| vm.host.as_ref())
                        .map(HostName::to_string),
                    jobs: jobs_on.remove(name).unwrap_or_default(),
                    failures: record.trouble.failures,
                    retry_at: record.trouble.retry_at.map(|at| at.0),
                    // Of a node that was never asked for no more is known than this controller's life.
                    since: Some(since(record))
                        .filter(|at| *at > Time(0))
                        .unwrap_or(self.seen.started)
                        .0,
                })
            })
            .collect()
    }

    fn vms(&self) -> Vec<Vm> {
        let shown: HashMap<&VmId, &VmView> = self
            .world()
            .provider
            .iter()
            .flat_map(|view| &view.vms)
            .map(|vm| (&vm.id, vm))
            .collect();
        let mut vms: Vec<Vm> = Vec::new();
        for (node, record) in &self.world().records {
            let Some(vm) = &record.vm else { continue };
            let seen = vm.id.as_ref().and_then(|id| shown.get(id));
            let of_node = self.world().specs.get(node).map(|spec| &spec.shape);
            // Not shown yet, it has what it was asked for with.
            let takes = match seen {
                Some(seen) => Some(Resources::of_shown(seen)),
                None => Resources::of_record(vm, of_node, &self.world().policy),
            };
            let takes = takes.unwrap_or_default();
            vms.push(Vm {
                id: vm
                    .id
                    .as_ref()
                    .map_or_else(|| format!("{node}.{}", vm.generation), VmId::to_string),
                node: node.to_string(),
                generation: vm.generation.0,
                host: vm.host.as_ref().map(HostName::to_string),
                state: self.world().word_of(node, vm).into(),
                memory_mb: takes.memory_mb,
                cpu_percent: u32::try_from(takes.cpu_percent).unwrap_or(u32::MAX),
                mode: self.mode(node),
                job: vm.spec.as_ref().and_then(|spec| spec.job).map(|job| job.0),
                asked: Some(vm.asked.0),
                note: match (vm.missing_since, vm.odd(), vm.kept) {
                    (Some(_), ..) => Some(UNSHOWN.to_owned()),
                    (None, Some(odd), _) => Some(odd.text().to_owned()),
                    (None, None, Some(until)) => Some(format!(
                        "its job has failed, and it is kept for {} more",
                        Millis::secs(until.since(self.now).0 / 1000)
                    )),
                    (None, None, None) => None,
                },
            });
        }
        for (id, first) in &self.world().strays {
            let Some((seen, tag)) = shown.get(id).and_then(|seen| Some((seen, seen.tag.as_ref()?))) else {
                continue;
            };
            vms.push(Vm {
                id: id.to_string(),
                node: tag.node.to_string(),
                generation: tag.generation.0,
                host: seen.host.as_ref().map(HostName::to_string),
                state: words::VmState::Stray,
                memory_mb: seen.memory_mb,
                cpu_percent: seen.cpu_percent,
                mode: self.mode(&tag.node),
                job: None,
                asked: None,
                note: Some(format!("backs no node, seen so for {}", self.now.since(*first))),
            });
        }
        vms
    }

    /// For whom VMs of this node are made.
    fn mode(&self, node: &NodeName) -> words::Mode {
        match self.world().is_job_mode(node) {
            true => words::Mode::Job,
            false => words::Mode::PowerSaving,
        }
    }

    fn hosts(&self) -> Vec<Host> {
        let Some(view) = &self.world().provider else {
            return Vec::new();
        };
        let mut hosts: Vec<Host> = view
            .hosts
            .iter()
            .map(|host| {
                let on = || view.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.name));
                let vms = on().filter(|vm| !matches!(vm.state, VmState::Dead(_))).count();
                let cpu_percent_used = on().map(|vm| vm.cpu_percent).fold(0, u32::saturating_add);
                let memory_mb_used = on().map(|vm| vm.memory_mb).fold(0, u64::saturating_add);
                Host {
                    name: host.name.to_string(),
                    cpu_percent: host.cpu_percent,
                    cpu_percent_used,
                    memory_mb: host.memory_mb,
                    memory_mb_used,
                    vms,
                    usable: host.usable,
                    closed: host.closed.clone(),
                    not_for: host
                        .not_for
                        .iter()
                        .map(|(nodeset, why)| (nodeset.to_string(), why.clone()))
                        .collect(),
                    // Ours may be newer than what the hosts were asked for.
                    everybody: host.load.map(|load| Everybody {
                        vms: vms.saturating_add(load.others),
                        cpu_percent: cpu_percent_used.saturating_add(load.others_cpu_percent),
                        memory_mb: memory_mb_used.saturating_add(load.others_memory_mb),
                        cpu_percent_load: load.cpu_percent,
                        memory_mb_load: load.memory_mb,
                    }),
                }
            })
            .collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    fn jobs(&self) -> Vec<Job> {
        let Some(slurm) = &self.world().slurm else {
            return Vec::new();
        };
        let up = |node: &&NodeName| slurm.nodes.get(*node).is_some_and(SlurmNode::is_up);
        slurm
            .jobs
            .values()
            .map(|job| Job {
                id: job.id.0,
                name: job.name.clone(),
                user: job.user.clone(),
                uid: job.uid,
                state: job_state(&job.state),
                reason: job.reason.text.clone(),
                nodes: hostlist::fold(&job.nodes),
                nodes_up: job.nodes.iter().filter(up).count(),
                node_count: job.node_count,
                submit: job.submit.map(|at| at.0),
                start: job.start.map(|at| at.0),
                het: job.het.map(|leader| leader.0),
                array: job.array.as_ref().map(|array| JobArray {
                    job: array.job.0,
                    tasks: array.tasks.clone(),
                }),
            })
            .collect()
    }

    /// The VMs of a job, of an array those of all its tasks.
    fn job_vms(&self, name: JobName) -> Result<JobVms, ApiError> {
        let (job, vms) = match (name.task, self.record_of(name)?) {
            (Some(_), Some(record)) => (record, self.of.past.vms_of_job(record, self.now)),
            (Some(_), None) => return Err(self.no_job(name)),
            (None, _) => (
                JobId(name.id),
                self.of.past.vms_of_array(JobId(name.id), self.now),
            ),
        };
        Ok(JobVms::of(job.0, vms.map_err(internal)?))
    }

    fn jobs_vms(&self, which: Which) -> Result<Vec<JobVm>, ApiError> {
        self.of.past.vms_of_jobs(which, self.now).map_err(internal)
    }

    /// The record of a job, or that a task of an array is in or was in; none if no such task is known.
    fn record_of(&self, name: JobName) -> Result<Option<JobId>, ApiError> {
        record_of(self.world().slurm.as_deref(), &self.of.past, name)
    }

    fn no_job(&self, job: JobName) -> ApiError {
        no_job(self.world(), job)
    }

    fn plan_view(&self) -> PlanView {
        let plan = self.seen.plan();
        let (good, refused) = lint(self.world(), plan);
        let line = |subject: &Subject, what: String, why: &str| PlanLine {
            subject: subject.to_string(),
            what,
            why: why.to_owned(),
        };
        PlanView {
            actions: good
                .iter()
                .map(|s| line(&s.action.subject(), s.action.to_string(), &s.why))
                .collect(),
            held: plan
                .held
                .iter()
                .map(|held| line(&held.subject, "nothing".to_owned(), &held.why))
                .collect(),
            refused: refused
                .iter()
                .map(|r| line(&r.step.action.subject(), r.step.action.to_string(), &r.why))
                .collect(),
        }
    }
}

/// What is told when nothing is known of a job.
pub(super) fn no_job(world: &World, job: JobName) -> ApiError {
    match world.slurm {
        Some(_) => ApiError::NotFound(format!("no job {job} is known here")),
        None => ApiError::Unavailable(NOT_READ.to_owned()),
    }
}

pub(super) fn internal(error: StoreError) -> ApiError {
    ApiError::Internal(error.to_string())
}

fn node_state(world: &World, node: &NodeName, record: &NodeRecord) -> words::NodeState {
    match (&record.vm, record.desired) {
        (Some(vm), _) => world.word_of(node, vm).into(),
        (None, _) if record.down.is_some() => words::NodeState::Failed,
        (None, Desired::Early { .. } | Desired::Up { .. }) => words::NodeState::Waiting,
        (None, Desired::Down { .. } | Desired::Unasked) => words::NodeState::Down,
    }
}

fn since(record: &NodeRecord) -> Time {
    match (&record.vm, record.desired) {
        (Some(vm), _) => vm.since,
        (None, Desired::Early { since } | Desired::Up { since } | Desired::Down { since }) => {
            since.max(record.acted)
        }
        (None, Desired::Unasked) => record.acted,
    }
}

fn desired(desired: Desired) -> words::Desired {
    match desired {
        Desired::Unasked => words::Desired::Unasked,
        Desired::Early { .. } | Desired::Up { .. } => words::Desired::Up,
        Desired::Down { .. } => words::Desired::Down,
    }
}

/// A node's state as Slurm writes it.
fn slurm_word(node: &SlurmNode) -> String {
    let base = match &node.base {
        BaseState::Idle => "IDLE",
        BaseState::Allocated => "ALLOCATED",
        BaseState::Mixed => "MIXED",
        BaseState::Down => "DOWN",
        BaseState::Error => "ERROR",
        BaseState::Future => "FUTURE",
        BaseState::Unknown(word) => word,
    };
    let f = &node.flags;
    let flags = [
        (f.cloud, "CLOUD"),
        (f.drain, "DRAIN"),
        (f.completing, "COMPLETING"),
        (f.not_responding, "NOT_RESPONDING"),
        (f.power_down, "POWER_DOWN"),
        (f.powering_down, "POWERING_DOWN"),
        (f.powered_down, "POWERED_DOWN"),
        (f.powering_up, "POWERING_UP"),
        (f.unknown, "(unknown flag)"),
    ];
    let set = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, word)| format!("+{word}"));
    std::iter::once(base.to_owned()).chain(set).collect()
}

pub(super) fn job_state(state: &JobState) -> words::JobState {
    match state {
        JobState::Pending => words::JobState::Pending,
        JobState::Configuring => words::JobState::Configuring,
        JobState::Running => words::JobState::Running,
        JobState::Suspended => words::JobState::Suspended,
        JobState::Completing => words::JobState::Completing,
        JobState::Over(word) | JobState::Unknown(word) => words::JobState::Unknown(word.clone()),
    }
}
