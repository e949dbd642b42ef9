//! Answers people's questions from the world as it is now.

mod by_hand;
mod job_mode;

use crate::api::{ApiError, Query};
use crate::owner::Owner;
use crate::provider::Provider;
use std::collections::{BTreeMap, HashMap};
use thiao_api::types::{
    Event, Everybody, Explanation, Host, Job, JobArray, Node, PlanLine, PlanView, Status, Vm,
};
use thiao_api::words;
use thiao_core::hostlist;
use thiao_core::ids::{HostName, JobId, Millis, NodeName, Time, VmId};
use thiao_core::lint::lint;
use thiao_core::note::Subject;
use thiao_core::orders::Order;
use thiao_core::view::{BaseState, JobState, SlurmNode, SlurmView, VmState, VmView};
use thiao_core::world::{NodeRecord, Phase, Wish};

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
        self.store
            .events(limit, after, subjects)
            .map_err(|error| ApiError::Internal(error.to_string()))
    }

    fn status(&self) -> Status {
        let mut nodes_by_state: BTreeMap<words::NodeState, usize> = BTreeMap::new();
        for record in self.configured().map(|(_, record)| record) {
            *nodes_by_state.entry(node_state(record)).or_default() += 1;
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
                    state: node_state(record),
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
                state: vm_state(&vm.phase),
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
                    cpu_percent_used: on().map(|vm| vm.cpu_percent).sum(),
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

    fn explain(&self, name: &str) -> Result<Explanation, ApiError> {
        if let Ok(id) = name.parse::<u32>() {
            return self.explain_job(JobId(id));
        }
        if let Some(record) = self.record_of_task(name) {
            return self.explain_job(record);
        }
        let (node_name, generation) = match name.rsplit_once('.') {
            Some((node, generation)) if !self.rounds.world().records.contains_key(name) => {
                (node, generation.parse::<u64>().ok())
            }
            Some(_) | None => (name, None),
        };
        let Some((node, record)) = self.rounds.world().records.get_key_value(node_name) else {
            return Err(ApiError::NotFound(format!(
                "{name} is no node, VM or job known here; `thiao nodes`, `thiao vms` and `thiao jobs` list them"
            )));
        };
        let Some(generation) = generation else {
            let subjects = [format!("node {node}"), format!("vm {node}.*")];
            return Ok(Explanation {
                subject: format!("node {node}"),
                now: self.node_lines(node, record),
                story: self.events(STORY, None, &subjects)?,
                uid: None,
            });
        };
        let subject = format!("vm {node}.{generation}");
        let story = self.events(STORY, None, std::slice::from_ref(&subject))?;
        let backing = record.vm.as_ref().filter(|vm| vm.generation.0 == generation);
        if story.is_empty() && backing.is_none() {
            return Err(ApiError::NotFound(format!(
                "no VM {node}.{generation} is known; {node} has had {}",
                record.generation
            )));
        }
        let mut now = vec![match backing {
            Some(vm) => format!("it backs node {node} and is {}", vm.phase.word()),
            None => "it is gone".to_owned(),
        }];
        if let Some(id) = backing.and_then(|vm| vm.id.as_ref()) {
            for (at, what) in self.provider.timeline(id) {
                let after = backing.map_or(Time(at), |vm| vm.asked);
                now.push(format!(
                    "{what}, {} after it was asked for",
                    Time(at).since(after)
                ));
            }
        }
        Ok(Explanation {
            subject,
            now,
            story,
            uid: None,
        })
    }

    fn node_lines(&self, node: &NodeName, record: &NodeRecord) -> Vec<String> {
        let mut lines = vec![match record.wish {
            Wish::Unasked => "nobody has asked for it yet".to_owned(),
            Wish::Early { since } => format!(
                "a job has had it for {}, and Slurm asks for it next",
                self.rounds.world().now.since(since)
            ),
            Wish::Up { since } => format!("asked to be up for {}", self.rounds.world().now.since(since)),
            Wish::Down { since } => format!("asked to be down for {}", self.rounds.world().now.since(since)),
        }];
        if let Some(vm) = &record.vm {
            let on = vm
                .host
                .as_ref()
                .map(|host| format!(" on host {host}"))
                .unwrap_or_default();
            lines.push(format!(
                "VM {node}.{}{on} is {} for {}",
                vm.generation,
                vm.phase.word(),
                self.rounds.world().now.since(vm.since)
            ));
        }
        lines.push(in_slurm(self.rounds.world().slurm.as_ref(), node));
        if let Some(why) = self.rounds.world().faults.get(node) {
            lines.push(format!("no VM can be made for it: {why}"));
        }
        if record.trouble.failures > 0 {
            lines.push(format!(
                "it failed {} times in a row, last: {}",
                record.trouble.failures, record.trouble.last
            ));
        }
        let subject = Subject::Node(node.clone());
        let plan = self.rounds.plan(self.readiness.why_not());
        for step in plan.steps.iter().filter(|step| step.action.node() == Some(node)) {
            lines.push(format!("next: {} ({})", step.action, step.why));
        }
        lines.extend(
            plan.held
                .iter()
                .filter(|held| held.subject == subject || held.subject == Subject::Provider)
                .map(|held| held.why.clone()),
        );
        if self.rounds.world().busy.contains(node) {
            lines.push("an action on it is under way".to_owned());
        }
        lines
    }

    fn explain_job(&self, id: JobId) -> Result<Explanation, ApiError> {
        let job = self
            .rounds
            .world()
            .slurm
            .as_ref()
            .and_then(|slurm| slurm.jobs.get(&id));
        let mut subjects = vec![format!("job {id}")];
        let mut now = Vec::new();
        match job {
            Some(job) => {
                let reason = Some(&job.reason).filter(|reason| !reason.waits.is_empty());
                let reason = reason
                    .map(|reason| format!(", because of {reason}"))
                    .unwrap_or_default();
                now.push(format!("Slurm has it {}{reason}", job_state(&job.state)));
                now.extend(self.job_waits.get(&id).cloned());
                if let Some(why) = self.readiness.why_not() {
                    now.push(format!("no VM is made now: {why}"));
                }
                for node in &job.nodes {
                    subjects.extend([format!("node {node}"), format!("vm {node}.*")]);
                    if let Some(record) = self.rounds.world().records.get(node) {
                        now.push(format!("{node}: {}", self.node_lines(node, record).join("; ")));
                    }
                }
            }
            None => now.push("Slurm does not show it: it is over or never was".to_owned()),
        }
        let since = job.and_then(|job| job.submit).unwrap_or_default();
        let mut story = self.events(STORY, None, &subjects)?;
        story.retain(|event| event.at >= since.0);
        if job.is_none() && story.is_empty() {
            return Err(ApiError::NotFound(format!("no job {id} is known here")));
        }
        let uid = job
            .map(|job| job.uid)
            .or_else(|| story.iter().find_map(|event| event.uid));
        Ok(Explanation {
            subject: format!("job {id}"),
            now,
            story,
            uid: Some(uid.unwrap_or(0)),
        })
    }
}

/// What Slurm shows of a node, for people.
fn in_slurm(slurm: Option<&SlurmView>, node: &NodeName) -> String {
    let Some(slurm) = slurm else {
        return "Slurm could not be read".to_owned();
    };
    let Some(seen) = slurm.nodes.get(node) else {
        return match slurm.gone.contains(node) {
            true => "Slurm does not know it: is it in slurm.conf?".to_owned(),
            false => "the last look at Slurm does not show it: nothing of it is ended".to_owned(),
        };
    };
    let reason = seen.reason.as_ref().map(|reason| format!(", reason: {reason}"));
    let partition = slurm
        .without_partition
        .contains(node)
        .then_some(", in no partition");
    format!(
        "Slurm has it {}{}{}",
        slurm_word(seen),
        partition.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

fn node_state(record: &NodeRecord) -> words::NodeState {
    match (&record.vm, record.wish) {
        (Some(vm), _) => match &vm.phase {
            Phase::Asked => words::NodeState::Asked,
            Phase::Booting => words::NodeState::Booting,
            Phase::Ready => words::NodeState::Ready,
            Phase::Up => words::NodeState::Up,
            Phase::Dead { .. } => words::NodeState::Failed,
            Phase::Destroying { .. } => words::NodeState::Stopping,
        },
        (None, _) if record.down.is_some() => words::NodeState::Failed,
        (None, Wish::Early { .. } | Wish::Up { .. }) => words::NodeState::Waiting,
        (None, Wish::Down { .. } | Wish::Unasked) => words::NodeState::Down,
    }
}

fn vm_state(phase: &Phase) -> words::VmState {
    match phase {
        Phase::Asked => words::VmState::Asked,
        Phase::Booting => words::VmState::Booting,
        Phase::Ready => words::VmState::Ready,
        Phase::Up => words::VmState::Up,
        Phase::Dead { .. } => words::VmState::Failed,
        Phase::Destroying { .. } => words::VmState::Stopping,
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
