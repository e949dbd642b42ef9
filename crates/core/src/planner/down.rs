//! Nodes that are given up for a while, those without a VM, and how they return.

use super::{Planner, reason};
use crate::evidence::outlived_drain;
use crate::ids::NodeName;
use crate::plan::{Action, EndWhy, NodeVerb};
use crate::view::SlurmNode;
use crate::world::{Mode, NodeRecord};
use std::collections::BTreeSet;

impl Planner<'_> {
    /// Tells Slurm that a node cannot be backed now.
    pub(super) fn give_up_for_now(&mut self, node: &NodeName, text: &str, why: &str) {
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
            Action::Node(
                node.clone(),
                NodeVerb::SetDown {
                    reason: reason(text),
                    jobs,
                },
            ),
            why,
        );
    }

    /// A node that nobody wants a VM for, and that has none.
    pub(super) fn without_vm(&mut self, node: &NodeName, record: &NodeRecord) {
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        if self.world.is_unbacked(node) {
            return self.give_up_for_now(
                node,
                "it has no VM: it was ended by an order, or by somebody else",
                "Slurm considers it up, and a job there would hang",
            );
        }
        if let Some(reason) = outlived_drain(self.world, node, self.jobs_on_nodes()) {
            if self.has_some(node) {
                return self.hold(
                    node,
                    "its drain was about its VM, and a VM of it is still at the provider",
                );
            }
            let was = reason.text.clone();
            return self.step(
                Action::Node(node.clone(), NodeVerb::Undrain { was }),
                "Slurm drained it for what went wrong in its VM, and of that nothing is left",
            );
        }
        let lately = self.world.now.since(record.acted) < self.world.policy.orphan_grace;
        let forgotten = self.slurm_node(node).is_some_and(SlurmNode::is_forgotten);
        if forgotten && !lately && record.acted < self.world.slurm_began {
            self.step(
                Action::Node(node.clone(), NodeVerb::EndWithJob(EndWhy::Forgotten)),
                "it is powered down and marked as silent: a restarted slurmctld gives it to no job before it is \
                 powered down again",
            );
        }
    }

    /// Gives a node back that we set DOWN, once it can be backed again.
    pub(super) fn maybe_return(&mut self, node: &NodeName, record: &NodeRecord) {
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
                "was set DOWN, and Slurm does not show it so: left until an observation says what holds",
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
            // Whether a job has capacity is asked for each job, not for the nodes that it could get.
            return self.step(Action::Node(node.clone(), NodeVerb::Return), "its pause is over");
        }
        let need = self.takes(&spec.shape);
        match self.ledger().choose(&need, &[&spec.nodeset], &BTreeSet::new()) {
            Ok(host) => {
                self.ledger().take(&host, &need);
                self.total_left -= 1;
                self.step(
                    Action::Node(node.clone(), NodeVerb::Return),
                    format!("its pause is over and host {host} has capacity"),
                );
            }
            Err(no_capacity) => self.hold(node, format!("DOWN until there is capacity: {no_capacity}")),
        }
    }
}
