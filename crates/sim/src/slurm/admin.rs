//! What admins do to nodes with `scontrol update`.

use super::{Power, Slurm};
use thiao_core::ids::{NodeName, Time};
use thiao_core::view::{NodeReason, Whose};

/// An admin's reasons, for DOWN and for a drain.
pub const BROKEN: &str = "disk broken";
const DRAINED: &str = "a look at it";

fn admins(text: &str) -> NodeReason {
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
        if let Some(reason) = &mut node.down {
            *reason = admins(DRAINED);
        }
        if matches!(node.power, Power::Rising(_)) {
            self.requeue_on(name, now);
        }
    }

    /// An admin's `state=undrain`.
    pub fn admin_undrain(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.drain = false;
        }
    }

    /// An admin's `state=down`, without more.
    pub fn admin_down(&mut self, name: &NodeName, now: Time) {
        self.take_down(name, admins(BROKEN), now);
        if let Some(node) = self.nodes.get_mut(name) {
            node.admin_down = now;
        }
    }

    /// An admin's `state=resume` of a node that is drained, or DOWN for that admin's reason.
    pub fn admin_resume(&mut self, name: &NodeName, now: Time) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.drain = false;
        if node.down.as_ref().is_some_and(|down| down.whose == Whose::Others) {
            self.return_to_service(name, now);
        }
    }
}
