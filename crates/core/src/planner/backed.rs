//! Nodes that have a VM.

use super::comes_up::FOR_WHOM;
use super::{Planner, reason};
use crate::evidence::{is_in_doubt, is_left_behind, is_shown_again};
use crate::ids::{NodeName, Time};
use crate::orders::{Newer, newer_than_order, newer_use};
use crate::plan::{Action, EndWhy, NodeVerb, VmVerb};
use crate::view::{VmSpec, VmState, VmView};
use crate::vm::{Cause, Part, VmRecord};
use crate::world::{Desired, NodeRecord};

impl Planner<'_> {
    pub(super) fn with_vm(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, desired: Desired) {
        if desired == Desired::Unasked && self.is_orphan(node, vm) {
            return self.destroy(node, vm, Cause::Orphan);
        }
        match vm.life.part() {
            Part::Ending(cause) => self.ends(node, record, vm, cause),
            Part::Dead(why) => self.is_dead(node, record, vm, why),
            Part::Unconfirmed | Part::There => {
                self.is_wanted_or_not(node, record, vm);
                if desired == Desired::Unasked {
                    self.unasked(node, vm);
                }
            }
        }
    }

    /// One that is neither dead nor being ended.
    fn is_wanted_or_not(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord) {
        if let Desired::Down { since } = record.desired {
            return self.ordered_down(node, record, vm, since);
        }
        match vm.is_up() {
            true if self.world.is_unbacked(node) => self.give_up_for_now(
                node,
                &format!(
                    "VM {node}.{} is silent: its slurmd does not answer Slurm",
                    vm.generation
                ),
                "Slurm considers the node up, and a job there would hang",
            ),
            true => self.left_behind(node, vm, record.desired),
            false if matches!(record.desired, Desired::Up { .. }) && self.is_late(vm) => self.late(node, vm),
            false if is_left_behind(self.world, node) => self.ends_before_the_next(node, vm),
            false if vm.life.is_unconfirmed() => self.finish_creation(node, vm),
            false => self.comes_up(node, vm),
        }
    }

    /// One whose end was asked for.
    fn ends(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, cause: &Cause) {
        let ours = vm.life.was_ended_by_us() || is_shown_again(vm, |id| self.shown(id));
        if ours && self.may_have_registered(node) {
            self.hold(node, "its VM was being ended, but Slurm may be using it by now");
        } else if self.is_ending(record, vm) {
            self.hold(node, format!("its VM {node}.{} is being ended", vm.generation));
        } else if *cause == Cause::Ordered {
            let since = match record.desired {
                Desired::Down { since } => since.max(vm.since),
                // Begun by an order that another one followed.
                Desired::Early { .. } | Desired::Up { .. } | Desired::Unasked => vm.since,
            };
            let newer = newer_use(self.world, self.jobs_on_nodes(), node, since);
            self.end_as_ordered(node, record, vm, newer, "was being ended");
        } else {
            self.destroy(node, vm, cause.clone());
        }
    }

    /// One that is dead: whoever may have lost a job hears of it before it is cleaned up.
    fn is_dead(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, why: &str) {
        let seen = self.slurm_node(node);
        let lost_job = seen.is_some_and(|seen| vm.registration.is_done() || seen.is_counted_on());
        if lost_job && record.down.is_none() && !matches!(record.desired, Desired::Down { .. }) {
            self.set_down(node, vm, why);
        } else if self
            .world
            .slurm
            .as_ref()
            .is_some_and(|slurm| is_in_doubt(slurm, node, vm))
        {
            let text = format!(
                "VM {node}.{} is taken for lost, and Slurm's last observation lacks {node}: it is told when it shows it",
                vm.generation
            );
            self.hold(node, text);
        } else {
            self.destroy(node, vm, Cause::Dead { why: why.to_owned() });
        }
    }

    /// A VM that was ordered away at `since`.
    fn ordered_down(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, since: Time) {
        if let Some(until) = vm.kept.filter(|until| *until > self.world.now) {
            return self.keep(node, record, vm, until);
        }
        let newer = newer_than_order(self.world, self.jobs_on_nodes(), node, since);
        self.end_as_ordered(node, record, vm, newer, "was ordered away");
    }

    /// An order counts only while Slurm shows nothing newer. `how` says what has become of it so far.
    fn end_as_ordered(
        &mut self,
        node: &NodeName,
        record: &NodeRecord,
        vm: &VmRecord,
        newer: Option<Newer>,
        how: &str,
    ) {
        match newer {
            Some(_) if self.world.is_unbacked(node) && record.down.is_none() => self.give_up_for_now(
                node,
                &format!("VM {node}.{} {how} and is silent", vm.generation),
                "Slurm has given the node to a job since, which would hang there",
            ),
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
                &format!("VM {node}.{}: {}", vm.generation, vm.late()),
                "Slurm considers the node up, and a job there would hang",
            );
        } else if self.may_have_registered(node) {
            self.hold(node, "its boot timeout has passed, but Slurm may be using it");
        } else {
            self.destroy(node, vm, Cause::BootTimeout);
        }
    }

    /// A VM that was up, was asked for again, and that Slurm has powered down since:
    /// Slurm would not take its slurmd for a resumed node's.
    fn left_behind(&mut self, node: &NodeName, vm: &VmRecord, desired: Desired) {
        let Desired::Up { since } = desired else { return };
        if is_left_behind(self.world, node) {
            return self.ends_before_the_next(node, vm);
        }
        if self.world.is_unheard(node) && self.may_end_with_its_job(node) {
            return self.step(
                Action::Node(node.clone(), NodeVerb::EndWithJob(EndWhy::Unheard)),
                "its guest did not answer when it was told whose job comes: it gets no other job",
            );
        }
        if self.left_its_partition(node) {
            return self.step(
                Action::Node(node.clone(), NodeVerb::EndWithJob(EndWhy::NoPartition)),
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
        let slurm = self.world.slurm.as_ref();
        slurm.is_some_and(|slurm| slurm.without_partition.contains(node)) && self.may_end_with_its_job(node)
    }

    /// Whether Slurm gives `node` to jobs, and was not asked to end that since it was observed.
    fn may_end_with_its_job(&self, node: &NodeName) -> bool {
        let world = self.world;
        let fresh = world
            .records
            .get(node)
            .is_some_and(|record| record.acted < world.slurm_began);
        let slurm = world.slurm.as_ref().filter(|_| fresh);
        slurm.is_some_and(|slurm| {
            let seen = slurm.nodes.get(node);
            seen.is_some_and(|seen| seen.is_counted_on() && !seen.flags.power_down)
        })
    }

    /// Whether a VM that was found without an order has been of no use for long.
    fn is_orphan(&self, node: &NodeName, vm: &VmRecord) -> bool {
        let idle_long = self.world.now.since(vm.since) >= self.world.policy.orphan_grace;
        !vm.life.is_past() && idle_long && self.surely_unused(node)
    }

    /// A VM found without an order: kept while it may run a job.
    fn unasked(&mut self, node: &NodeName, vm: &VmRecord) {
        let last = self.plan.steps.last();
        if last.is_some_and(|step| step.action.node() == Some(node)) {
            return;
        }
        self.hold(
            node,
            format!(
                "VM {node}.{} was not asked for as far as we know: kept while Slurm may use it",
                vm.generation
            ),
        );
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
        if self.over_cap {
            let most = self.world.policy.max_vms;
            let text = format!("its VM's creation waits: there are more than {most} VMs (limits.max_vms)");
            return self.hold(node, text);
        }
        // Its own capacity is taken already.
        if self.ledger().is_overfull(&host) {
            let text = format!("its VM's creation waits: host {host} carries more than it has");
            return self.hold(node, text);
        }
        let tag = self.world.tag(node, vm.generation);
        self.step(
            Action::Vm(
                tag,
                VmVerb::Create {
                    host,
                    spec: vm.spec.clone().unwrap_or_else(|| VmSpec::of_node(spec.shape)),
                    again: true,
                },
            ),
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
            Action::Node(
                node.clone(),
                NodeVerb::SetDown {
                    reason,
                    jobs: self.jobs_of(node),
                },
            ),
            "its VM is dead: Slurm and the job are told at once",
        );
    }

    /// Whether a VM's end was asked for and is awaited: until an observation that began later
    /// shows that it ended, or it is time to ask again.
    fn is_ending(&mut self, record: &NodeRecord, vm: &VmRecord) -> bool {
        let world = self.world;
        let asked = record.acted >= vm.since;
        let lately = world.now.since(record.acted) < world.policy.retry_first;
        let alone = vm.id.as_ref().and_then(|id| world.asked_later.get(id));
        let seen = alone.map_or(world.provider_began, |at| world.provider_began.max(*at));
        asked && lately && (seen <= record.acted || self.is_shown_alive(vm))
    }

    fn is_shown_alive(&mut self, vm: &VmRecord) -> bool {
        let alive = |seen: &&VmView| !matches!(seen.state, VmState::Dead(_));
        let shown = |id| self.shown(id).as_ref().is_some_and(alive);
        vm.id.as_ref().is_none_or(shown)
    }
}
