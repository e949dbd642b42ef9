//! The planner behind [`crate::plan::plan`]: what each node, stray and requeued job gets.

use crate::fold::REASON_PREFIX;
use crate::ids::{Generation, JobId, NodeName, Time, VmId};
use crate::note::Subject;
use crate::orders::{Newer, newer_than_order, newer_use};
use crate::place::Ledger;
use crate::plan::{Action, Held, Plan, Step, is_left_behind, may_have_registered, surely_unused};
use crate::view::{JobsOn, ProviderView, SlurmNode, VmSpec, VmState, VmView};
use crate::world::{Cause, Mode, NodeRecord, Phase, VmRecord, Wish, World};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};

pub(crate) mod admit;
mod comes_up;
mod others;
mod own;

use comes_up::FOR_WHOM;

pub(crate) struct Planner<'a> {
    world: &'a World,
    provider: &'a ProviderView,
    /// What room the hosts have left, once somebody asks.
    ledger: Option<Ledger>,
    /// Creations that the caps still allow.
    starts_left: usize,
    total_left: usize,
    /// Which of a node's VMs the provider shows alive, once somebody asks.
    live: OnceCell<HashMap<&'a NodeName, Vec<Generation>>>,
    /// What the provider shows alive, once somebody asks.
    shown: OnceCell<HashSet<&'a VmId>>,
    /// Slurm's jobs by node, once somebody asks.
    jobs: OnceCell<JobsOn<'a>>,
    /// Jobs of job mode whose nodes were decided about, and those whose VMs have got room.
    served: BTreeSet<JobId>,
    placed: BTreeSet<JobId>,
    pub plan: Plan,
}

impl<'a> Planner<'a> {
    pub fn new(world: &'a World, provider: &'a ProviderView) -> Self {
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
            live: OnceCell::new(),
            shown: OnceCell::new(),
            ledger: None,
            starts_left,
            total_left: world
                .policy
                .max_vms
                .saturating_sub(vms().count() + world.strays.len()),
            jobs: OnceCell::new(),
            served: BTreeSet::new(),
            placed: BTreeSet::new(),
            plan: Plan::default(),
        }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledger
            .get_or_insert_with(|| Ledger::new(self.world, self.provider))
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
        let ending = matches!(vm.phase, Phase::Destroying { .. });
        let grace = self.world.policy.terminate_grace;
        let hard = match cause {
            // Its guest has nothing to say any more.
            Cause::Dead { .. } | Cause::BootTimeout => true,
            Cause::Ordered | Cause::Orphan => ending && self.world.now.since(vm.since) >= grace,
        };
        self.step(
            Action::DestroyVm {
                tag,
                id: vm.id.clone(),
                cause,
                hard,
            },
            why,
        );
    }

    /// Whether a VM's end was asked for and is awaited: until a look that began later
    /// shows that it ended, or it is time to ask again.
    fn is_ending(&mut self, record: &NodeRecord, vm: &VmRecord) -> bool {
        let world = self.world;
        let asked = record.acted >= vm.since;
        let lately = world.now.since(record.acted) < world.policy.retry_first;
        asked && lately && (world.provider_began <= record.acted || self.is_shown_alive(vm))
    }

    fn is_shown_alive(&mut self, vm: &VmRecord) -> bool {
        let shown = self.shown.get_or_init(|| {
            let alive = |vm: &&VmView| !matches!(vm.state, VmState::Dead(_));
            self.provider.vms.iter().filter(alive).map(|vm| &vm.id).collect()
        });
        vm.id.as_ref().is_none_or(|id| shown.contains(id))
    }

    pub fn with_vm(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, wish: Wish) {
        match &vm.phase {
            Phase::Destroying { .. } if vm.phase.was_ended_by_us() && self.may_have_registered(node) => {
                self.hold(node, "its VM was being ended, but Slurm may be using it by now");
            }
            Phase::Destroying { .. } if self.is_ending(record, vm) => {
                self.hold(node, format!("its VM {node}.{} is being ended", vm.generation));
            }
            Phase::Destroying {
                cause: Cause::Ordered,
            } => match newer_use(self.world, self.jobs_on_nodes(), node, ordered_at(wish, vm)) {
                Some(_) if self.world.is_unbacked(node) && record.down.is_none() => self.give_up_for_now(
                    node,
                    &format!("VM {node}.{} was being ended and is silent", vm.generation),
                    "Slurm has given the node to a job since, which would hang there",
                ),
                Some(newer) => self.not_ended(node, vm, newer),
                None => self.destroy(node, vm, Cause::Ordered),
            },
            Phase::Destroying { cause } => self.destroy(node, vm, cause.clone()),
            Phase::Dead { why, was_up } => {
                let seen = self.slurm_node(node);
                let lost_job = seen.is_some_and(|seen| *was_up || seen.is_counted_on());
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
                self.ordered_down(node, record, vm);
            }
            Phase::Asked | Phase::Booting | Phase::Ready
                if matches!(wish, Wish::Up { .. }) && self.is_late(vm) =>
            {
                self.late(node, vm);
            }
            Phase::Asked | Phase::Booting | Phase::Ready if is_left_behind(self.world, node) => {
                self.ends_before_the_next(node, vm);
            }
            Phase::Asked => self.finish_creation(node, vm),
            Phase::Booting | Phase::Ready => self.comes_up(node, vm),
            Phase::Up if self.world.is_unbacked(node) => self.give_up_for_now(
                node,
                &format!(
                    "VM {node}.{} is silent: its slurmd does not answer Slurm",
                    vm.generation
                ),
                "Slurm takes the node for up, and a job there would hang",
            ),
            Phase::Up => self.left_behind(node, vm, wish),
        }
        if wish == Wish::Unasked && !matches!(vm.phase, Phase::Dead { .. } | Phase::Destroying { .. }) {
            self.unasked(node, vm);
        }
    }

    /// A VM that was ordered away: an order counts only while Slurm shows nothing newer.
    fn ordered_down(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord) {
        if let Some(until) = vm.kept.filter(|until| *until > self.world.now) {
            return self.keep(node, record, vm, until);
        }
        let since = ordered_at(record.wish, vm);
        match newer_than_order(self.world, self.jobs_on_nodes(), node, since) {
            Some(newer) => self.not_ended(node, vm, newer),
            None => self.destroy(node, vm, Cause::Ordered),
        }
    }

    fn not_ended(&mut self, node: &NodeName, vm: &VmRecord, newer: Newer) {
        self.hold(
            node,
            format!(
                "VM {node}.{} is not ended as was ordered: {}",
                vm.generation,
                newer.text()
            ),
        );
    }

    fn is_late(&self, vm: &VmRecord) -> bool {
        self.world.now.since(vm.asked) >= self.world.policy.boot_timeout
    }

    /// A VM that should have registered by now.
    fn late(&mut self, node: &NodeName, vm: &VmRecord) {
        if self.world.is_unbacked(node) {
            self.give_up_for_now(
                node,
                &format!("VM {node}.{}: {}", vm.generation, Cause::BootTimeout.text()),
                "Slurm takes the node for up, and a job there would hang",
            );
        } else if self.may_have_registered(node) {
            self.hold(node, "its boot timeout has passed, but Slurm may be using it");
        } else {
            self.destroy(node, vm, Cause::BootTimeout);
        }
    }

    /// A VM that was up, was asked for again, and that Slurm has powered down since:
    /// Slurm would not take its slurmd for a resumed node's.
    fn left_behind(&mut self, node: &NodeName, vm: &VmRecord, wish: Wish) {
        let Wish::Up { since } = wish else { return };
        if is_left_behind(self.world, node) {
            return self.ends_before_the_next(node, vm);
        }
        if self.left_its_partition(node) {
            return self.step(
                Action::EndWithJob { node: node.clone() },
                "it is in no partition any more: it gets no other job, and Slurm powers no such node down by itself",
            );
        }
        let long = self.world.now.since(since.max(vm.since)) >= self.world.policy.orphan_grace;
        if long && self.surely_unused(node) {
            self.destroy(node, vm, Cause::Orphan);
        }
    }

    /// A VM that is left from before Slurm's request for its node makes way for the next one.
    fn ends_before_the_next(&mut self, node: &NodeName, vm: &VmRecord) {
        match newer_use(self.world, self.jobs_on_nodes(), node, vm.since) {
            Some(newer) => self.not_ended(node, vm, newer),
            None => self.destroy(node, vm, Cause::Ordered),
        }
    }

    /// Whether `node` is up in no partition, and nothing was done about that yet.
    fn left_its_partition(&self, node: &NodeName) -> bool {
        let world = self.world;
        let fresh = world
            .records
            .get(node)
            .is_some_and(|record| record.acted < world.slurm_began);
        let slurm = world.slurm.as_ref().filter(|_| fresh);
        slurm.is_some_and(|slurm| {
            let seen = slurm
                .nodes
                .get(node)
                .filter(|_| slurm.without_partition.contains(node));
            seen.is_some_and(|seen| seen.is_counted_on() && !seen.flags.power_down)
        })
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
        if self.world.is_of_unknown_job(node) {
            return self.hold(
                node,
                format!("VM {node}.{} was found, held: {FOR_WHOM}", vm.generation),
            );
        }
        if let Some(twin) = self.twin(node, vm.generation) {
            return self.hold(
                node,
                format!("VM {node}.{} waits until VM {node}.{twin} is gone", vm.generation),
            );
        }
        let tag = self.world.tag(node, vm.generation);
        self.step(
            Action::CreateVm {
                tag,
                host,
                spec: vm.spec.clone().unwrap_or_else(|| VmSpec::of_node(spec.shape)),
                again: true,
            },
            "its creation was decided earlier and not confirmed; asking again makes no second VM",
        );
    }

    fn set_down(&mut self, node: &NodeName, vm: &VmRecord, why: &str) {
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
                jobs: self.jobs_of(node),
            },
            "its VM is dead: Slurm and the job are told at once",
        );
    }

    pub fn wants_vm(&mut self, node: &NodeName, record: &NodeRecord, since: Time) {
        let Some(spec) = self.world.specs.get(node) else {
            return self.hold(node, "it is no longer in the configuration: no VM is made for it");
        };
        let trouble = &record.trouble;
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        if let Some(why) = self.world.faults.get(node) {
            return self.give_up_for_now(node, why, "no VM can be made for it until that is mended");
        }
        let policy = &self.world.policy;
        let elsewhere = self.ledger().choose(&spec.shape, &trouble.avoid);
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
        if let Some(twin) = self.twin(node, record.generation.next()) {
            // Just ended, as the next look will say, or a stray that is ended as such.
            let text = format!("its VM {node}.{twin} is still at the provider");
            if patient {
                return self.hold(node, text);
            }
            return self.give_up_for_now(node, &text, "another VM of it has been there for too long");
        }
        if self.starts_left == 0 || self.total_left == 0 {
            return self.held_by_caps(node, patient);
        }
        let choice = match elsewhere {
            Err(_) if !trouble.avoid.is_empty() => self.ledger().choose(&spec.shape, &BTreeSet::new()),
            choice => choice,
        };
        match choice {
            Ok(host) => {
                self.ledger().take(&host, &spec.shape);
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
                        spec: VmSpec::of_node(spec.shape),
                        again: false,
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
        let jobs = self.jobs_of(node);
        self.step(
            Action::SetDown {
                node: node.clone(),
                reason: reason(text),
                jobs,
            },
            why,
        );
    }

    /// A node that nobody wants a VM for, and that has none.
    pub fn without_vm(&mut self, node: &NodeName, record: &NodeRecord) {
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        if self.world.is_unbacked(node) {
            return self.give_up_for_now(
                node,
                "it has no VM: it was ended by an order, or by somebody else",
                "Slurm takes it for up, and a job there would hang",
            );
        }
        let lately = self.world.now.since(record.acted) < self.world.policy.orphan_grace;
        let forgotten = self.slurm_node(node).is_some_and(SlurmNode::is_forgotten);
        if forgotten && !lately && record.acted < self.world.slurm_began {
            self.step(
                Action::EndWithJob { node: node.clone() },
                "it is powered down and marked as silent: a restarted slurmctld gives it to no job before it is \
                 powered down again",
            );
        }
    }

    fn maybe_return(&mut self, node: &NodeName, record: &NodeRecord) {
        if record.down.is_none() {
            return;
        }
        let Some(spec) = self.world.specs.get(node) else {
            return self.hold(
                node,
                "DOWN, and no longer in the configuration: it is not given back",
            );
        };
        let seen = self.slurm_node(node);
        if seen.and_then(SlurmNode::down_of_ours).is_none() {
            return self.hold(
                node,
                "was set DOWN, and Slurm does not show it so: left until a look says what holds",
            );
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
        if let Some(why) = self.world.faults.get(node) {
            return self.hold(node, format!("DOWN until this is mended: {why}"));
        }
        if self.world.breaker.pauses(self.world.now, &self.world.policy) {
            return self.hold(node, "DOWN, returns when the circuit breaker closes");
        }
        if self.total_left == 0 {
            let cap = self.world.policy.max_vms;
            return self.hold(
                node,
                format!("DOWN until fewer than {cap} VMs are there (limits.max_vms)"),
            );
        }
        if spec.mode == Mode::Job {
            // Whether a job has room is asked for each job, not for the nodes that it could get.
            return self.step(Action::ReturnNode { node: node.clone() }, "its pause is over");
        }
        match self.ledger().choose(&spec.shape, &BTreeSet::new()) {
            Ok(host) => {
                self.ledger().take(&host, &spec.shape);
                self.total_left -= 1;
                self.step(
                    Action::ReturnNode { node: node.clone() },
                    format!("its pause is over and host {host} has room"),
                );
            }
            Err(no_room) => self.hold(node, format!("DOWN until there is room: {no_room}")),
        }
    }

    /// Another live VM of `node` than the one of this generation, as far as the provider shows.
    fn twin(&self, node: &NodeName, generation: Generation) -> Option<Generation> {
        let live = self.live.get_or_init(|| {
            let mut live: HashMap<&NodeName, Vec<Generation>> = HashMap::new();
            for vm in &self.provider.vms {
                let tag = vm.tag.as_ref().filter(|tag| tag.cluster == self.world.cluster);
                if let (Some(tag), false) = (tag, matches!(vm.state, VmState::Dead(_))) {
                    live.entry(&tag.node).or_default().push(tag.generation);
                }
            }
            live
        });
        let live = live.get(node)?;
        live.iter().find(|other| **other != generation).copied()
    }

    fn slurm_node(&self, node: &NodeName) -> Option<&'a crate::view::SlurmNode> {
        self.world.slurm.as_ref()?.nodes.get(node)
    }

    fn may_have_registered(&self, node: &NodeName) -> bool {
        let slurm = self.world.slurm.as_ref();
        slurm.is_some_and(|slurm| may_have_registered(slurm, node))
    }

    fn surely_unused(&self, node: &NodeName) -> bool {
        let slurm = self.world.slurm.as_ref();
        slurm.is_some_and(|slurm| surely_unused(slurm, node, self.jobs_on_nodes()))
    }
}

/// When the end of a VM was ordered, or was begun by an order that another one followed.
fn ordered_at(wish: Wish, vm: &VmRecord) -> Time {
    match (wish, &vm.phase) {
        (Wish::Down { since }, Phase::Destroying { .. }) => since.max(vm.since),
        (Wish::Down { since }, _) => since,
        (Wish::Early { .. } | Wish::Up { .. } | Wish::Unasked, _) => vm.since,
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
