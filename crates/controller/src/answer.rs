//! Answers people's questions from the world as it is now.

mod by_hand;
mod explain;
mod job_mode;

use crate::api::{ApiError, Query};
use crate::owner::Owner;
use crate::provider::Provider;
use crate::store::StoreError;
use std::collections::{BTreeMap, HashMap};
use thiao_api::types::{Event, Everybody, Host, Job, JobArray, Node, PlanLine, PlanView, Status, Vm};
use thiao_api::words;
use thiao_core::hostlist;
use thiao_core::ids::{HostName, Millis, NodeName, Time, VmId};
use thiao_core::lint::lint;
use thiao_core::note::Subject;
use thiao_core::orders::Order;
use thiao_core::view::{BaseState, JobState, SlurmNode, VmState, VmView};
use thiao_core::world::{NodeRecord, Wish, World};

/// Most events in a story.
const STORY: usize = 200;

impl<P: Provider> Owner<P> {
    /// Answers one question. An asker that has left is no error.
    pub(super) fn answer(&mut self, query: Query) {
        match query {
            Query::Status(reply) => drop(reply.send(Ok(self.status()))),
            Query::Nodes(reply) => drop(reply.send(Ok(self.nodes()))),
            Query::Vms(reply) => drop(reply.send(Ok(self.vms()))),
            Query::Hosts(reply) => drop(reply.send(Ok(self.hosts()))),
            Query::Jobs(reply) => drop(reply.send(Ok(self.jobs()))),
            Query::Events {
                limit,
                after,
                subject,
                reply,
            } => {
                let subjects: Vec<String> = subject.into_iter().collect();
                drop(reply.send(self.events(limit, after, &subjects)));
            }
            Query::Plan(reply) => drop(reply.send(Ok(self.plan_view()))),
            Query::Explain { name, reply } => drop(reply.send(self.explain(&name))),
            Query::Resume { nodes, force, reply } => {
                let order = Order::Up {
                    force,
                    jobs: BTreeMap::new(),
                };
                let message = "their VMs are made now; follow with `thiao nodes --watch`";
                drop(reply.send(self.accept(&nodes, &order, message)));
            }
            Query::Suspend { nodes, force, reply } => {
                let free = match force {
                    true => self.without_new_jobs(&nodes),
                    false => self.without_jobs(&nodes),
                };
                let accepted =
                    free.and_then(|()| self.accept(&nodes, &Order::Down, "their VMs are ended now"));
                drop(reply.send(accepted));
            }
            Query::JobReady { job, reply } => self.wait_for_job(job, reply),
            Query::JobSeen { job, reply } => self.see_job(job, reply),
            Query::Give { job, options, reply } => self.give(job, options, reply),
            Query::Clean { job, reply } => drop(reply.send(self.clean(job))),
            Query::JobVms { job, reply } => drop(reply.send(self.job_vms(job))),
            Query::JobsVms { which, reply } => drop(reply.send(self.jobs_vms(which))),
        }
    }

    fn events(&self, limit: usize, after: Option<i64>, subjects: &[String]) -> Result<Vec<Event>, ApiError> {
        self.store.events(limit, after, subjects).map_err(internal)
    }

    fn status(&self) -> Status {
        let mut nodes_by_state: BTreeMap<words::NodeState, usize> = BTreeMap::new();
        for (node, record) in self.configured() {
            *nodes_by_state
                .entry(node_state(self.rounds.world(), node, record))
                .or_default() += 1;
        }
        let breaker = &self.rounds.world().breaker;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.rounds.world().cluster.to_string(),
            provider: self.provider.name().to_owned(),
            provider_notes: self.provider_notes.clone(),
            preparing: self.readiness.why_not().map(str::to_owned),
            unstored: self.unstored.as_ref().map(|(why, _)| why.clone()),
            started: self.started.0,
            now: self.rounds.world().now.0,
            slurm: self.slurm_look.clone(),
            vms: self.provider_look.clone(),
            breaker: breaker.opened.map(|_| {
                format!(
                    "open after {} failures in a row, last: {}",
                    breaker.failures, breaker.last
                )
            }),
            nodes_by_state,
            vm_count: self
                .rounds
                .world()
                .records
                .values()
                .filter(|record| record.vm.is_some())
                .count()
                + self.rounds.world().strays.len(),
            pending_intents: self.spool.pending(),
        }
    }

    fn configured(&self) -> impl Iterator<Item = (&NodeName, &NodeRecord)> {
        self.rounds
            .world()
            .records
            .iter()
            .filter(|(node, _)| self.rounds.world().specs.contains_key(*node))
    }

    fn nodes(&self) -> Vec<Node> {
        let mut jobs_on: HashMap<&NodeName, Vec<u32>> = HashMap::new();
        for job in self
            .rounds
            .world()
            .slurm
            .iter()
            .flat_map(|slurm| slurm.jobs.values())
        {
            for node in &job.nodes {
                jobs_on.entry(node).or_default().push(job.id.0);
            }
        }
        self.configured()
            .filter_map(|(name, record)| {
                let spec = self.rounds.world().specs.get(name)?;
                let seen = self
                    .rounds
                    .world()
                    .slurm
                    .as_ref()
                    .and_then(|slurm| slurm.nodes.get(name));
                Some(Node {
                    name: name.to_string(),
                    nodeset: spec.nodeset.to_string(),
                    cpus: spec.shape.cpus,
                    memory_mb: spec.shape.memory_mb,
                    state: node_state(self.rounds.world(), name, record),
                    slurm: seen.map(slurm_word),
                    reason: seen.and_then(|seen| Some(seen.reason.as_ref()?.text.clone())),
                    wish: wish(record.wish),
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
                        .unwrap_or(self.started)
                        .0,
                })
            })
            .collect()
    }

    fn vms(&self) -> Vec<Vm> {
        let shown: HashMap<&VmId, &VmView> = self
            .rounds
            .world()
            .provider
            .iter()
            .flat_map(|view| &view.vms)
            .map(|vm| (&vm.id, vm))
            .collect();
        let mut vms: Vec<Vm> = Vec::new();
        for (node, record) in &self.rounds.world().records {
            let Some(vm) = &record.vm else { continue };
            let seen = vm.id.as_ref().and_then(|id| shown.get(id));
            vms.push(Vm {
                id: vm
                    .id
                    .as_ref()
                    .map_or_else(|| format!("{node}.{}", vm.generation), VmId::to_string),
                node: node.to_string(),
                generation: vm.generation.0,
                host: vm.host.as_ref().map(HostName::to_string),
                state: self.rounds.world().word_of(node, vm).into(),
                memory_mb: seen.map_or(0, |seen| seen.memory_mb),
                cpu_percent: seen.map_or(0, |seen| seen.cpu_percent),
                mode: self.mode(node),
                job: vm.spec.as_ref().and_then(|spec| spec.job).map(|job| job.0),
                asked: Some(vm.asked.0),
                note: match (vm.missing_since, vm.kept) {
                    (Some(_), _) => Some("the provider does not show it now".to_owned()),
                    (None, Some(until)) => Some(format!(
                        "its job has failed, and it is kept for {} more",
                        Millis::secs(until.since(self.rounds.world().now).0 / 1000)
                    )),
                    (None, None) => None,
                },
            });
        }
        for (id, first) in &self.rounds.world().strays {
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
                note: Some(format!(
                    "backs no node, seen so for {}",
                    self.rounds.world().now.since(*first)
                )),
            });
        }
        vms
    }

    /// For whom VMs of this node are made.
    fn mode(&self, node: &NodeName) -> words::Mode {
        match self.rounds.world().is_job_mode(node) {
            true => words::Mode::Job,
            false => words::Mode::PowerSaving,
        }
    }

    fn hosts(&self) -> Vec<Host> {
        let Some(view) = &self.rounds.world().provider else {
            return Vec::new();
        };
        let mut hosts: Vec<Host> = view
            .hosts
            .iter()
            .map(|host| {
                let on = || view.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.name));
                Host {
                    name: host.name.to_string(),
                    cpu_percent: host.cpu_percent,
                    cpu_percent_used: on().map(|vm| vm.cpu_percent).fold(0, u32::saturating_add),
                    memory_mb: host.memory_mb,
                    memory_mb_used: on().map(|vm| vm.memory_mb).sum(),
                    vms: on().filter(|vm| !matches!(vm.state, VmState::Dead(_))).count(),
                    usable: host.usable,
                    everybody: host.load.map(|load| Everybody {
                        vms: load.vms,
                        cpu_percent: load.promised_cpu_percent,
                        memory_mb: load.promised_memory_mb,
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
        let Some(slurm) = &self.rounds.world().slurm else {
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
                array: job.array.as_ref().map(|array| JobArray {
                    job: array.job.0,
                    tasks: array.tasks.clone(),
                }),
            })
            .collect()
    }

    fn plan_view(&self) -> PlanView {
        let plan = self.rounds.plan(self.readiness.why_not());
        let (good, refused) = lint(self.rounds.world(), &plan);
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
            notes: plan
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

fn internal(error: StoreError) -> ApiError {
    ApiError::Internal(error.to_string())
}

fn node_state(world: &World, node: &NodeName, record: &NodeRecord) -> words::NodeState {
    match (&record.vm, record.wish) {
        (Some(vm), _) => world.word_of(node, vm).into(),
        (None, _) if record.down.is_some() => words::NodeState::Failed,
        (None, Wish::Early { .. } | Wish::Up { .. }) => words::NodeState::Waiting,
        (None, Wish::Down { .. } | Wish::Unasked) => words::NodeState::Down,
    }
}

fn since(record: &NodeRecord) -> Time {
    match (&record.vm, record.wish) {
        (Some(vm), _) => vm.since,
        (None, Wish::Early { since } | Wish::Up { since } | Wish::Down { since }) => since.max(record.acted),
        (None, Wish::Unasked) => record.acted,
    }
}

fn wish(wish: Wish) -> words::Wish {
    match wish {
        Wish::Unasked => words::Wish::Unasked,
        Wish::Early { .. } | Wish::Up { .. } => words::Wish::Up,
        Wish::Down { .. } => words::Wish::Down,
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

fn job_state(state: &JobState) -> words::JobState {
    match state {
        JobState::Pending => words::JobState::Pending,
        JobState::Configuring => words::JobState::Configuring,
        JobState::Running => words::JobState::Running,
        JobState::Suspended => words::JobState::Suspended,
        JobState::Completing => words::JobState::Completing,
        JobState::Over(word) | JobState::Unknown(word) => words::JobState::Unknown(word.clone()),
    }
}
