//! What admins do to nodes with `scontrol update`.

use super::Slurm;
use super::state::{Node, Power};
use thiao_core::ids::{NodeName, Time};
use thiao_core::view::{NodeReason, Whose};

/// An admin's reasons, for DOWN and for a drain.
pub const BROKEN: &str = "disk broken";
pub const DRAINED: &str = "a look at it";

/// What slurmd says when it has no place for a job's files.
pub const SPOOL_FULL: &str = "SlurmdSpoolDir is full";

pub(super) fn admins(text: &str) -> NodeReason {
    NodeReason {
        text: text.into(),
        whose: Whose::Others,
    }
}

impl Slurm {
    /// An admin's `state=drain`, whose reason takes the place of any other: a job that
    /// waits for the node has to wait for others.
    pub fn admin_drain(&mut self, name: &NodeName, now: Time) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.drain = true;
        node.admin_drained = now;
        node.reason = Some(admins(DRAINED));
        if matches!(node.power, Power::Rising(_)) {
            self.requeue_on(name, now);
        }
    }

    /// slurmd drains its node, as when its spool is full. One that is drained already is left to who did that.
    pub fn slurmd_drains(&mut self, name: &NodeName) -> bool {
        let node = self.nodes.get_mut(name).filter(|node| !node.drain && !node.down);
        let Some(node) = node else { return false };
        node.drain = true;
        node.reason = Some(NodeReason {
            text: SPOOL_FULL.into(),
            whose: Whose::ItsVm,
        });
        true
    }

    /// `state=undrain`, as our Slurm crate does it: not where somebody else has drained it since.
    pub fn undrain(&mut self, name: &NodeName) {
        let whose = |node: &Node| node.reason.as_ref().map(|reason| reason.whose);
        if self.nodes.get(name).and_then(whose) == Some(Whose::ItsVm) {
            self.admin_undrain(name);
        }
    }

    /// What an admin's `state=undrain` does.
    pub fn admin_undrain(&mut self, name: &NodeName) {
        let ways = self.ways();
        if let Some(node) = self.nodes.get_mut(name) {
            node.drain = false;
            if !node.down {
                node.lift(ways);
            }
        }
    }

    /// An admin's `state=resume` of a node that is drained, or DOWN for that admin's reason.
    pub fn admin_resume(&mut self, name: &NodeName, now: Time) {
        self.admin_undrain(name);
        let others = |node: &Node| {
            node.reason
                .as_ref()
                .is_some_and(|reason| reason.whose == Whose::Others)
        };
        if self.nodes.get(name).is_some_and(|node| node.down && others(node)) {
            self.return_to_service(name, now);
        }
    }
}
