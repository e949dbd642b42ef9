//! `plan`: what to do now, as a value, from what is known; pure and synchronous.
//!
//! Every node is decided on its own, then the caps and the hosts' room are
//! shared out, oldest wish first. Each action and each refusal says why.

use crate::fold::REASON_PREFIX;
use crate::ids::{HostName, JobId, Millis, NodeName, Time, VmId, VmTag};
use crate::note::Subject;
use crate::place::Ledger;
use crate::view::{BaseState, JobState, ProviderView, Shape, SlurmView, VmState};
use crate::world::{Cause, NodeRecord, Phase, VmRecord, Wish, World};
use std::collections::BTreeSet;
use std::fmt;

/// What to do, with causes, and what is not done, with reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of execution; at most one per node.
    pub steps: Vec<Step>,
    /// Why other things are not done now.
    pub held: Vec<Held>,
}

/// An action and its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub why: String,
}

/// Something that is not done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// About what.
    pub subject: Subject,
    /// Why.
    pub why: String,
}

/// All that the executor can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the VM with this tag on this host; idempotent by the tag.
    CreateVm {
        /// Written into the VM.
        tag: VmTag,
        /// Where.
        host: HostName,
        /// How big.
        shape: Shape,
    },
    /// End a VM and remove what is left of it; idempotent.
    DestroyVm {
        /// Its tag.
        tag: VmTag,
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Why; nothing else may destroy.
        cause: Cause,
    },
    /// Tell Slurm that a node is DOWN, and its jobs why.
    SetDown {
        /// The node.
        node: NodeName,
        /// For Slurm's `Reason`; begins with `thiao:`.
        reason: String,
        /// Jobs to tell.
        jobs: Vec<JobId>,
    },
    /// Give a node that we set DOWN back to Slurm.
    ReturnNode {
        /// The node.
        node: NodeName,
    },
    /// Let a job that Slurm requeued because of us start without Slurm's pause.
    StartNow {
        /// The job.
        job: JobId,
    },
}

impl Action {
    /// The node that it is about, if one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Action::CreateVm { tag, .. } | Action::DestroyVm { tag, .. } => Some(&tag.node),
            Action::SetDown { node, .. } | Action::ReturnNode { node } => Some(node),
            Action::StartNow { .. } => None,
        }
    }

    /// What a line about it is headed with.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Action::CreateVm { tag, .. } | Action::DestroyVm { tag, .. } => {
                Subject::Vm(tag.node.clone(), tag.generation)
            }
            Action::SetDown { node, .. } | Action::ReturnNode { node } => Subject::Node(node.clone()),
            Action::StartNow { job } => Subject::Job(*job),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateVm { tag, host, shape } => write!(
                f,
                "create VM {}.{} on host {host} ({} CPUs, {} MiB)",
                tag.node, tag.generation, shape.cpus, shape.memory_mb
            ),
            Action::DestroyVm { tag, .. } => write!(f, "destroy VM {}.{}", tag.node, tag.generation),
            Action::SetDown { node, reason, .. } => write!(f, "set node {node} DOWN: {reason}"),
            Action::ReturnNode { node } => write!(f, "return node {node} to service"),
            Action::StartNow { job } => write!(f, "let requeued job {job} start now"),
        }
    }
}

/// Decides what to do now.
///
/// Without a whole look at the provider nothing is planned at all; without one
/// at Slurm only creations are: they harm nobody and jobs wait for them.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let Some(provider) = &world.provider else {
        return Plan::idle(
            Subject::Provider,
            "the provider could not be read: nothing is done on a failed look",
        );
    };
    let mut planner = Planner::new(world, provider);
    let mut wanting: Vec<(Time, &NodeName, &NodeRecord)> = Vec::new();
    for (node, record) in &world.records {
        if world.busy.contains(node) {
            continue;
        }
        match (&record.vm, record.wish) {
            (Some(vm), wish) => planner.with_vm(node, record, vm, wish),
            (None, Wish::Up { since }) => wanting.push((since, node, record)),
            (None, Wish::Down { .. } | Wish::Unasked) => planner.maybe_return(node, record),
        }
    }
    wanting.sort_by_key(|(since, node, _)| (*since, *node));
    for (since, node, record) in wanting {
        planner.wants_vm(node, record, since);
    }
    planner.strays();
    planner.requeued_jobs();
    planner.plan
}

impl Plan {
    fn idle(subject: Subject, why: &str) -> Self {
        Self {
            steps: Vec::new(),
            held: vec![Held {
                subject,
                why: why.to_owned(),
            }],
        }
    }
}

struct Planner<'a> {
    world: &'a World,
    provider: &'a ProviderView,
    ledger: Ledger,
    /// Creations that the caps still allow.
    starts_left: usize,
    total_left: usize,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World, provider: &'a ProviderView) -> Self {
        let vms = || world.records.values().filter_map(|record| record.vm.as_ref());
        let starting = vms().filter(|vm| vm.phase.is_starting()).count();
        let mut starts_left = world.policy.max_starting.saturating_sub(starting);
        if let Some(opened) = world.breaker.opened {
            // Half open after the pause: one try, which closes it or opens it anew.
            let probing = starting > 0 || world.now.since(opened) < world.policy.breaker_pause;
            starts_left = if probing { 0 } else { starts_left.min(1) };
        }
        Self {
            world,
            provider,
            ledger: Ledger::new(world, provider),
            starts_left,
            total_left: world
                .policy
                .max_vms
                .saturating_sub(vms().count() + world.strays.len()),
            plan: Plan::default(),
        }
    }

    fn step(&mut self, action: Action, why: impl Into<String>) {
        self.plan.steps.push(Step {
            action,
            why: why.into(),
        });
    }

    fn hold(&mut self, node: &NodeName, why: impl Into<String>) {
        self.plan.held.push(Held {
            subject: Subject::Node(node.clone()),
            why: why.into(),
        });
    }

    fn destroy(&mut self, node: &NodeName, vm: &VmRecord, cause: Cause) {
        let why = cause.text();
        if self.world.slurm.is_none() {
            return self.hold(node, format!("VM {node}.{} waits for its end ({why}): Slurm could not be read, and nothing is destroyed on a failed look", vm.generation));
        }
        let tag = self.world.tag(node, vm.generation);
        self.step(
            Action::DestroyVm {
                tag,
                id: vm.id.clone(),
                cause,
            },
            why,
        );
    }

    fn with_vm(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, wish: Wish) {
        let slurm_up = self.slurm_node(node).is_some_and(|n| n.is_up());
        match &vm.phase {
            Phase::Destroying { cause } => self.destroy(node, vm, cause.clone()),
            Phase::Dead { why, was_up } => {
                let lost_job = *was_up || slurm_up;
                if lost_job && record.down.is_none() && !matches!(wish, Wish::Down { .. }) {
                    self.set_down(node, vm, why);
                } else {
                    self.destroy(
                        node,
                        vm,
                        Cause::Dead {
                            why: why.clone(),
                            was_up: *was_up,
                        },
                    );
                }
            }
            Phase::Asked | Phase::Booting | Phase::Ready | Phase::Up if matches!(wish, Wish::Down { .. }) => {
                self.destroy(node, vm, Cause::Ordered);
            }
            Phase::Asked => self.finish_creation(node, vm),
            Phase::Booting | Phase::Ready => {
                if self.world.now.since(vm.asked) >= self.world.policy.boot_timeout && wish != Wish::Unasked {
                    if slurm_up {
                        self.hold(node, "its boot timeout has passed, but Slurm shows it up");
                    } else {
                        self.destroy(node, vm, Cause::BootTimeout);
                    }
                } else {
                    self.hold(
                        node,
                        format!("its VM {node}.{} is {}", vm.generation, vm.phase.word()),
                    );
                }
            }
            Phase::Up => {}
        }
        if wish == Wish::Unasked && !matches!(vm.phase, Phase::Dead { .. } | Phase::Destroying { .. }) {
            self.unasked(node, vm);
        }
    }

    /// A VM found without an order: kept while it may run a job.
    fn unasked(&mut self, node: &NodeName, vm: &VmRecord) {
        if self
            .plan
            .steps
            .last()
            .is_some_and(|step| step.action.node() == Some(node))
        {
            return;
        }
        let idle_long = self.world.now.since(vm.since) >= self.world.policy.orphan_grace;
        if self.surely_unused(node) && idle_long {
            self.destroy(node, vm, Cause::Orphan);
        } else {
            self.hold(
                node,
                format!(
                    "VM {node}.{} was not asked for as far as we know: kept while Slurm may use it",
                    vm.generation
                ),
            );
        }
    }

    /// "Asked" is recorded, but no answer came (we were killed, or the call was lost).
    fn finish_creation(&mut self, node: &NodeName, vm: &VmRecord) {
        let Some(spec) = self.world.specs.get(node) else {
            return;
        };
        let Some(host) = vm.host.clone() else { return };
        let tag = self.world.tag(node, vm.generation);
        self.step(
            Action::CreateVm {
                tag,
                host,
                shape: spec.shape,
            },
            "its creation was decided earlier and not confirmed; asking again makes no second VM",
        );
    }

    fn set_down(&mut self, node: &NodeName, vm: &VmRecord, why: &str) {
        if self.world.slurm.is_none() {
            return self.hold(node, "Slurm could not be read: it is told when it can");
        }
        let on = vm
            .host
            .as_ref()
            .map(|host| format!(" on host {host}"))
            .unwrap_or_default();
        let reason = reason(&format!("VM {node}.{}{on} died: {why}", vm.generation));
        self.step(
            Action::SetDown {
                node: node.clone(),
                reason,
                jobs: self.world.jobs_of(node),
            },
            "its VM is dead: Slurm and the job are told at once",
        );
    }

    fn wants_vm(&mut self, node: &NodeName, record: &NodeRecord, since: Time) {
        let Some(spec) = self.world.specs.get(node) else {
            return self.hold(node, "it is no longer in the configuration: no VM is made for it");
        };
        let trouble = &record.trouble;
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        let policy = &self.world.policy;
        let elsewhere = self.ledger.choose(&spec.shape, &trouble.avoid);
        if trouble.failures > 0
            && !trouble.told
            && (elsewhere.is_err() || trouble.failures >= policy.tries_before_down)
        {
            let text = match trouble.retry_at {
                Some(at) => format!(
                    "{} (failure {}); tried again in {}",
                    trouble.last,
                    trouble.failures,
                    at.since(self.world.now)
                ),
                None => trouble.last.clone(),
            };
            return self.give_up_for_now(
                node,
                &text,
                "it could not be backed, and no other host is left to try",
            );
        }
        if let Some(at) = trouble.retry_at.filter(|at| *at > self.world.now) {
            return self.hold(
                node,
                format!(
                    "pausing {} after failure {}: {}",
                    at.since(self.world.now),
                    trouble.failures,
                    trouble.last
                ),
            );
        }
        let waited = self
            .world
            .now
            .since(trouble.retry_at.map_or(since, |at| at.max(since)));
        let patient = waited < policy.capacity_patience;
        if self.starts_left == 0 || self.total_left == 0 {
            return self.held_by_caps(node, patient);
        }
        let choice = elsewhere.or_else(|_| self.ledger.choose(&spec.shape, &BTreeSet::new()));
        match choice {
            Ok(host) => {
                self.ledger.take(&host, &spec.shape);
                self.starts_left -= 1;
                self.total_left -= 1;
                let tag = self.world.tag(node, record.generation.next());
                let why = match record.jobs.as_slice() {
                    [] => "the node was asked to come up".to_owned(),
                    [job] => format!("the node was asked to come up for job {job}"),
                    [job, more @ ..] => format!(
                        "the node was asked to come up for job {job} and {} more",
                        more.len()
                    ),
                };
                self.step(
                    Action::CreateVm {
                        tag,
                        host,
                        shape: spec.shape,
                    },
                    why,
                );
            }
            Err(no_room) if patient && no_room.fits_empty => {
                self.hold(node, format!("waits for room: {no_room}"))
            }
            Err(no_room) => self.give_up_for_now(
                node,
                &no_room.to_string(),
                "no host has had room for it for too long",
            ),
        }
    }

    fn held_by_caps(&mut self, node: &NodeName, patient: bool) {
        let policy = &self.world.policy;
        if let Some(opened) = self.world.breaker.opened {
            let Self { world, .. } = *self;
            let text = format!(
                "{} creations failed in a row, last: {}; the next try is {} after the last failure",
                world.breaker.failures, world.breaker.last, policy.breaker_pause
            );
            let probing = world.now.since(opened) >= policy.breaker_pause;
            if patient || probing {
                return self.hold(node, text);
            }
            return self.give_up_for_now(node, &text, "the circuit breaker is open");
        }
        if self.total_left == 0 {
            let text = format!("the cap of {} VMs is reached (limits.max_vms)", policy.max_vms);
            if patient {
                return self.hold(node, text);
            }
            return self.give_up_for_now(node, &text, "the cap on VMs has been reached for too long");
        }
        self.hold(
            node,
            format!(
                "{} VMs are starting, which is the most at once (limits.max_starting)",
                policy.max_starting
            ),
        );
    }

    fn give_up_for_now(&mut self, node: &NodeName, text: &str, why: &str) {
        if self.world.slurm.is_none() {
            return self.hold(
                node,
                format!("{text}; Slurm could not be read: it is told when it can"),
            );
        }
        if self.slurm_node(node).is_none() {
            return self.hold(node, format!("{text}; Slurm does not know {node}"));
        }
        let jobs = self.world.jobs_of(node);
        self.step(
            Action::SetDown {
                node: node.clone(),
                reason: reason(text),
                jobs,
            },
            why,
        );
    }

    fn maybe_return(&mut self, node: &NodeName, record: &NodeRecord) {
        if record.down.is_none() {
            return;
        }
        let (Some(spec), Some(seen)) = (self.world.specs.get(node), self.slurm_node(node)) else {
            return;
        };
        let ours = seen
            .reason
            .as_deref()
            .is_some_and(|reason| reason.starts_with(REASON_PREFIX));
        if seen.base != BaseState::Down || !ours {
            return;
        }
        if let Some(at) = record.trouble.retry_at.filter(|at| *at > self.world.now) {
            return self.hold(
                node,
                format!(
                    "DOWN, returns in {}: {}",
                    at.since(self.world.now),
                    record.trouble.last
                ),
            );
        }
        if self
            .world
            .breaker
            .opened
            .is_some_and(|at| self.world.now.since(at) < self.world.policy.breaker_pause)
        {
            return self.hold(node, "DOWN, returns when the circuit breaker closes");
        }
        match self.ledger.choose(&spec.shape, &BTreeSet::new()) {
            Ok(host) => {
                self.ledger.take(&host, &spec.shape);
                self.step(
                    Action::ReturnNode { node: node.clone() },
                    format!("its pause is over and host {host} has room"),
                );
            }
            Err(no_room) => self.hold(node, format!("DOWN until there is room: {no_room}")),
        }
    }

    /// VMs with our tag that no record holds.
    fn strays(&mut self) {
        for vm in &self.provider.vms {
            let (Some(first), Some(tag)) = (self.world.strays.get(&vm.id), &vm.tag) else {
                continue;
            };
            if tag.cluster != self.world.cluster || self.world.busy.contains(&tag.node) {
                continue;
            }
            let subject = Subject::Vm(tag.node.clone(), tag.generation);
            let age = self.world.now.since(*first);
            let superseded = self
                .world
                .records
                .get(&tag.node)
                .and_then(|record| record.vm.as_ref())
                .is_some_and(|ours| ours.generation > tag.generation);
            let dead = matches!(vm.state, VmState::Dead(_));
            let planned = self
                .plan
                .steps
                .iter()
                .any(|step| step.action.node() == Some(&tag.node));
            let why = if age < self.world.policy.orphan_grace && !dead {
                format!(
                    "backs nothing; terminated in {} if that stays so",
                    Millis(self.world.policy.orphan_grace.0 - age.0)
                )
            } else if planned {
                "backs nothing; waits for the other action on its node".to_owned()
            } else if self.world.slurm.is_none() {
                "backs nothing; kept: Slurm could not be read".to_owned()
            } else if !(superseded || dead || self.surely_unused(&tag.node)) {
                "backs nothing that we know of; kept: Slurm may be using its node".to_owned()
            } else {
                self.step(
                    Action::DestroyVm {
                        tag: tag.clone(),
                        id: Some(vm.id.clone()),
                        cause: Cause::Orphan,
                    },
                    Cause::Orphan.text(),
                );
                continue;
            };
            self.plan.held.push(Held { subject, why });
        }
    }

    /// Slurm waits two minutes before it starts a job again whose node failed.
    fn requeued_jobs(&mut self) {
        let Some(slurm) = &self.world.slurm else { return };
        let mut told: BTreeSet<JobId> = BTreeSet::new();
        for record in self
            .world
            .records
            .values()
            .filter(|record| record.down.is_some() || record.trouble.told)
        {
            told.extend(&record.jobs);
        }
        for job in told {
            let waits = slurm
                .jobs
                .get(&job)
                .is_some_and(|j| j.state == JobState::Pending && j.reason == "BeginTime");
            if waits && !self.world.jobs_started.contains(&job) {
                self.step(
                    Action::StartNow { job },
                    "Slurm requeued it because its node was DOWN, and pauses it for two minutes",
                );
            }
        }
    }

    fn slurm_node(&self, node: &NodeName) -> Option<&'a crate::view::SlurmNode> {
        self.world.slurm.as_ref()?.nodes.get(node)
    }

    fn surely_unused(&self, node: &NodeName) -> bool {
        self.world
            .slurm
            .as_ref()
            .is_some_and(|slurm| surely_unused(slurm, node))
    }
}

/// Whether Slurm's whole look says that no job can be on `node`'s VM: Slurm does
/// not know the node, or has it powered down and on no job.
#[must_use]
pub fn surely_unused(slurm: &SlurmView, node: &NodeName) -> bool {
    match slurm.nodes.get(node) {
        None => true,
        Some(seen) => {
            let off = seen.flags.powered_down || seen.base == BaseState::Down;
            off && !seen.flags.powering_up && !seen.may_run_job()
        }
    }
}

/// A reason for Slurm: ours, one line, of bounded length.
fn reason(text: &str) -> String {
    const LONGEST: usize = 250;
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() || c == '"' { ' ' } else { c })
        .take(LONGEST)
        .collect();
    format!("{REASON_PREFIX} {clean}")
}
