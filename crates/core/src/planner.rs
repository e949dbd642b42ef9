//! What to do now, as a value, from what is known; pure and synchronous.
//!
//! Every node is decided on its own, then the caps and the hosts' capacity are
//! shared out, the longest desired first. Each action and each refusal says why.

use crate::event::Subject;
use crate::evidence::{may_have_registered, surely_unused};
use crate::ids::{Generation, JobId, NodeName, NodesetName, Time, VmId};
use crate::place::Ledger;
use crate::plan::{Action, Held, JobVerb, Plan, Step, VmVerb};
use crate::resources::Resources;
use crate::view::{JobsOn, ProviderView, REASON_PREFIX, Shape, VmState, VmView, VmsOf};
use crate::vm::{Cause, Life, Registration, VmRecord};
use crate::world::{Desired, NodeRecord, World};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use way::{Unplaced, UnplacedJob};

pub(crate) mod admit;
mod backed;
mod comes_up;
mod down;
mod job_mode;
mod others;
mod strangers;
mod wanting;
mod way;

/// Why Slurm is told of a node that has no place.
pub const NO_HOST: &str = "for too long, no host has had capacity for it";

/// Decides what to do now.
///
/// Without a whole observation of the provider nothing is planned at all; without one
/// at Slurm only creations are: they harm nobody and jobs wait for them.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let Some(provider) = &world.provider else {
        return plan_without_provider(
            world,
            "the provider could not be read: nothing is done on a failed observation",
        );
    };
    let mut planner = Planner::new(world, provider);
    let mut wanting: Vec<(Time, &NodeName, &NodeRecord)> = Vec::new();
    for (node, record) in &world.records {
        if world.busy.contains(node) {
            continue;
        }
        match (&record.vm, record.desired) {
            (Some(vm), desired) => planner.with_vm(node, record, vm, desired),
            (None, Desired::Early { since } | Desired::Up { since }) => wanting.push((since, node, record)),
            (None, Desired::Down { .. } | Desired::Unasked) => planner.without_vm(node, record),
        }
    }
    // The nodes of a job together: half of two jobs' nodes serve neither.
    wanting.sort_by_key(|(since, node, record)| (*since, record.jobs.first(), *node));
    for (since, node, record) in &wanting {
        if record.down.is_none() && planner.is_for_strangers(node) {
            planner.hold(
                node,
                "its job's user is not known in the guests: no VM is made for it",
            );
        } else if world.is_job_mode(node) {
            planner.wants_for_job(node, record, &wanting);
        } else if planner.is_too_early(record) {
            planner.waits_for_slurm(node);
        } else {
            planner.wants_vm(node, record, *since);
        }
    }
    planner.unplaced_nodes();
    planner.strays();
    planner.jobs_out_of_place();
    planner.jobs_of_strangers();
    planner.job_mode_nodes();
    planner.requeued_jobs();
    planner.waiting_jobs();
    planner.unplaced_jobs();
    planner.plan
}

/// What is done while nothing is known of VMs, and why no more: jobs that can have none where they are need
/// not wait for the provider.
#[must_use]
pub fn plan_without_provider(world: &World, why: &str) -> Plan {
    let nothing = ProviderView::default();
    let mut planner = Planner::new(world, &nothing);
    planner.jobs_out_of_place();
    let mut plan = planner.plan;
    plan.steps
        .retain(|step| matches!(step.action, Action::Job(_, JobVerb::TurnAway { .. })));
    plan.held = vec![Held {
        subject: Subject::Provider,
        why: why.to_owned(),
    }];
    plan
}

pub(crate) struct Planner<'a> {
    world: &'a World,
    provider: &'a ProviderView,
    /// What capacity the hosts have left, once somebody asks.
    ledger: Option<Ledger>,
    /// Creations that the caps still allow.
    starts_left: usize,
    total_left: usize,
    /// Whether there are more VMs than may be: found ones, beside those that a restored journal thinks are on
    /// their way.
    over_cap: bool,
    /// Our VMs by node as the provider shows them, once somebody asks.
    vms: OnceCell<VmsOf<'a>>,
    /// All that it shows, once somebody asks.
    shown: OnceCell<HashMap<&'a VmId, &'a VmView>>,
    /// Slurm's jobs by node, once somebody asks.
    jobs: OnceCell<JobsOn<'a>>,
    /// Jobs of job mode whose nodes were decided about, and those whose VMs have got capacity.
    served: BTreeSet<JobId>,
    placed: BTreeSet<JobId>,
    /// Jobs that were admitted and for whose VMs capacity is held.
    awaited: Vec<JobId>,
    /// Who has no place, and waits for others to give way; and what was promised to nodes of these.
    unplaced: Vec<Unplaced<'a>>,
    unplaced_jobs: Vec<UnplacedJob<'a>>,
    promised: Vec<(Resources, Option<&'a NodesetName>)>,
    pub plan: Plan,
}

impl<'a> Planner<'a> {
    /// Nothing is planned yet, and what is left of the caps is counted.
    pub fn new(world: &'a World, provider: &'a ProviderView) -> Self {
        let vms = || world.records.values().filter_map(|record| record.vm.as_ref());
        let starting = vms().filter(|vm| vm.is_starting()).count();
        let all = vms().count() + world.strays.len();
        let mut starts_left = world.policy.max_starting.saturating_sub(starting);
        if let Some(opened) = world.breaker.opened {
            // Half open after the pause: one try, which closes it or opens it anew.
            let probing = starting > 0 || world.now.since(opened) < world.policy.breaker_pause;
            starts_left = if probing { 0 } else { starts_left.min(1) };
        }
        Self {
            world,
            provider,
            vms: OnceCell::new(),
            shown: OnceCell::new(),
            ledger: None,
            starts_left,
            total_left: world.policy.max_vms.saturating_sub(all),
            over_cap: all > world.policy.max_vms,
            jobs: OnceCell::new(),
            served: BTreeSet::new(),
            placed: BTreeSet::new(),
            awaited: Vec::new(),
            unplaced: Vec::new(),
            unplaced_jobs: Vec::new(),
            promised: Vec::new(),
            plan: Plan::default(),
        }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledger
            .get_or_insert_with(|| Ledger::new(self.world, self.provider))
    }

    /// What a VM of this shape takes from its host.
    fn takes(&self, shape: &Shape) -> Resources {
        Resources::of_shape(shape, &self.world.policy)
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
            return self.hold(node, format!("VM {node}.{} waits for its end ({why}): Slurm could not be read, and nothing is destroyed on a failed observation", vm.generation));
        }
        let tag = self.world.tag(node, vm.generation);
        let ending = matches!(vm.life, Life::Ending { .. });
        let grace = self.world.policy.terminate_grace;
        let hard = match cause {
            // Its guest has nothing to say any more.
            Cause::Dead { .. } | Cause::BootTimeout => true,
            // Its guest has nothing to say yet, and does not hear that it is to end: nothing ran in it.
            Cause::Ordered if self.boots(vm) => true,
            Cause::Ordered | Cause::Orphan => ending && self.world.now.since(vm.since) >= grace,
        };
        self.step(
            Action::Vm(
                tag,
                VmVerb::Destroy {
                    id: vm.id.clone(),
                    cause,
                    hard,
                },
            ),
            why,
        );
    }

    /// Whether the provider shows that this VM runs, and neither its guest nor Slurm has ever told of it.
    fn boots(&self, vm: &VmRecord) -> bool {
        let seen = vm.id.as_ref().and_then(|id| self.shown(id));
        vm.registration == Registration::NotYet && seen.is_some_and(|seen| seen.state == VmState::Booting)
    }

    /// Another live VM of `node` than the one of this generation, as far as the provider shows.
    fn twin(&self, node: &NodeName, generation: Generation) -> Option<Generation> {
        let vms = self.vms.get_or_init(|| self.provider.vms_of(&self.world.cluster));
        let alive = vms
            .get(node)
            .iter()
            .filter(|vm| !matches!(vm.state, VmState::Dead(_)));
        let mut generations = alive.filter_map(|vm| vm.tag.as_ref().map(|tag| tag.generation));
        generations.find(|other| *other != generation)
    }

    /// Whether the provider shows any VM of `node`, alive or not.
    fn has_some(&self, node: &NodeName) -> bool {
        let vms = self.vms.get_or_init(|| self.provider.vms_of(&self.world.cluster));
        !vms.get(node).is_empty()
    }

    /// What the provider shows by this id.
    fn shown(&self, id: &VmId) -> Option<&'a VmView> {
        self.shown.get_or_init(|| self.provider.by_id()).get(id).copied()
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

/// A reason for Slurm: ours, one line, of bounded length.
fn reason(text: &str) -> String {
    const LONGEST: usize = 250;
    let clean: String = text
        .chars()
        .map(|c| match c {
            '"' => '\'',
            c if c.is_control() => ' ',
            c => c,
        })
        .take(LONGEST)
        .collect();
    format!("{REASON_PREFIX} {clean}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_slurm_keeps_as_it_is() {
        assert_eq!(
            reason("no template named \"a b\".\nSee it"),
            format!("{REASON_PREFIX} no template named 'a b'. See it")
        );
    }
}
