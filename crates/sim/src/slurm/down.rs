//! What makes nodes DOWN in the simulated slurmctld, and what makes them whole again.

use super::Slurm;
use super::admin::{BROKEN, admins};
use super::release::Ways;
use super::state::{Hook, Node, Power};
use std::collections::BTreeMap;
use thiao_core::ids::{Millis, NodeName, Time, VmId};
use thiao_core::view::{NodeReason, Whose};

/// How long the answer to a launch takes at most.
const EARLY: Millis = Millis(1000);

impl Slurm {
    /// `scontrol update nodename=.. state=down reason=..`, then `state=power_down` if it is not
    /// powered down or about to be.
    pub fn set_down(&mut self, name: &NodeName, reason: &str, works: impl Fn(&VmId) -> bool, now: Time) {
        let (ways, early) = (self.ways(), self.was_just_launched(name, now));
        self.order_down(name, NodeReason::ours(reason), now);
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let lives = node.backed.as_ref().is_some_and(works);
        let answers = match ways.answers_race {
            true => (lives || early) && self.rng.coin(),
            false => lives,
        };
        if answers {
            node.lift(ways);
        }
        if matches!(node.power, Power::Rising(_) | Power::On) {
            node.power = Power::Falling(now);
            node.drain = false; // whoever asks for a power-down is taken for who drained it
            self.call(Hook::Suspend, vec![name.clone()], BTreeMap::new());
        }
    }

    /// Somebody's `state=down`, whose reason takes the place of any other.
    fn order_down(&mut self, name: &NodeName, reason: NodeReason, now: Time) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.reason = Some(reason);
            node.undone = None;
        }
        self.take_down(name, now);
    }

    /// An admin's `state=down`, without more.
    pub fn admin_down(&mut self, name: &NodeName, now: Time) {
        let early = self.ways().answers_race && self.was_just_launched(name, now);
        let undone = (early && self.rng.coin()).then(|| now + Millis(self.rng.below(EARLY.0)));
        self.order_down(name, admins(BROKEN), now);
        if let Some(node) = self.nodes.get_mut(name) {
            node.admin_down = now;
            node.undone = undone;
        }
    }

    fn was_just_launched(&self, name: &NodeName, now: Time) -> bool {
        let launched = self.running_on(name);
        launched.is_some_and(|(_, since)| now.since(since) < EARLY)
    }

    /// A node that was not up in time.
    pub(super) fn give_up(&mut self, name: &NodeName, now: Time) {
        let ways = self.ways();
        if let Some(node) = self.nodes.get_mut(name) {
            let last = "ResumeTimeout reached";
            let behind = format!(" : {last}");
            let text = match node.reason.take().filter(|_| ways.reasons_add_up) {
                None => last.to_owned(),
                Some(before) if before.text.contains(&behind) => before.text,
                Some(before) => before.text + &behind,
            };
            node.reason = Some(NodeReason {
                text,
                whose: Whose::ResumeTimeout,
            });
            node.power = Power::Off; // SuspendProgram is not called, and nothing waited for
            node.drain = false;
            node.ends = false;
        }
        self.take_down(name, now);
        self.resume_timeouts += 1;
    }

    fn take_down(&mut self, name: &NodeName, now: Time) {
        if let Some(node) = self.nodes.get_mut(name) {
            if !node.down {
                node.idle_since = now;
            }
            node.down = true;
        }
        self.requeue_on(name, now);
    }

    /// Gives a DOWN node back, as our Slurm crate does it: it ends powered down and usable.
    pub fn return_to_service(&mut self, name: &NodeName, now: Time) {
        let ways = self.ways();
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        // One that is powered down, or about to be, is so at once.
        let up = matches!(node.power, Power::Rising(_) | Power::On);
        let falls = up || self.rules.suspends_returned;
        if !node.down {
            return; // "Invalid node state specified"
        }
        node.lift(ways);
        node.backed = None;
        node.ends = false;
        node.drain = false;
        node.power = if falls { Power::Falling(now) } else { Power::Off };
        node.silent_until = Time(u64::MAX); // idle~ and NOT_RESPONDING, which keeps no job away
        if falls {
            self.call(Hook::Suspend, vec![name.clone()], BTreeMap::new());
        }
    }

    /// DOWNs that an answer undoes.
    pub(super) fn undo_downs(&mut self, now: Time) {
        let ways = self.ways();
        for node in self.nodes.values_mut() {
            if node.down && node.undone.is_some_and(|at| at <= now) {
                node.lift(ways);
                node.idle_since = now;
            }
        }
    }
}

impl Node {
    /// Not DOWN any more.
    pub(super) fn lift(&mut self, ways: Ways) {
        self.down = false;
        self.undone = None;
        if !ways.reasons_stay {
            self.reason = None;
        }
    }
}
