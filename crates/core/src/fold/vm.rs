//! Folds what the provider shows of a VM into its record.

use crate::ids::{NodeName, Time};
use crate::note::Note;
use crate::view::{VmState, VmView};
use crate::world::{Phase, VmRecord};

impl VmRecord {
    /// Enters a phase at `now`.
    pub fn enter(&mut self, phase: Phase, now: Time) {
        self.phase = phase;
        self.since = now;
    }

    pub(super) fn seen(&mut self, node: &NodeName, seen: &VmView, now: Time, notes: &mut Vec<Note>) {
        self.missing_since = None;
        // Of several that are held, the provider chooses the one that it lets go.
        if seen.state != VmState::Held {
            self.id = Some(seen.id.clone());
        }
        if seen.host.is_some() {
            self.host.clone_from(&seen.host);
        }
        match (&seen.state, &self.phase) {
            (VmState::Dead(why), Phase::Asked | Phase::Booting | Phase::Ready | Phase::Up) => {
                let was_up = self.phase == Phase::Up;
                notes.push(Note::vm(
                    node,
                    self.generation,
                    "vm-died",
                    format!(
                        "died {}: {why}",
                        if was_up {
                            "while its node was up"
                        } else {
                            "while booting"
                        }
                    ),
                ));
                self.enter(
                    Phase::Dead {
                        why: why.clone(),
                        was_up,
                    },
                    now,
                );
            }
            (VmState::Ready, Phase::Asked | Phase::Booting) => {
                notes.push(Note::vm(
                    node,
                    self.generation,
                    "vm-ready",
                    format!(
                        "its guest runs slurmd, {} after it was asked for",
                        now.since(self.asked)
                    ),
                ));
                self.enter(Phase::Ready, now);
            }
            (
                VmState::Pending
                | VmState::Booting
                | VmState::Paused
                | VmState::Stopping
                | VmState::Unknown(_),
                Phase::Asked,
            ) => {
                self.enter(Phase::Booting, now);
            }
            // Nothing new: known already, or no evidence about a phase that only we end.
            (VmState::Held, _) => {}
            (
                VmState::Pending
                | VmState::Booting
                | VmState::Paused
                | VmState::Stopping
                | VmState::Unknown(_)
                | VmState::Ready,
                Phase::Booting | Phase::Ready | Phase::Up | Phase::Dead { .. } | Phase::Destroying { .. },
            )
            | (VmState::Dead(_), Phase::Dead { .. } | Phase::Destroying { .. }) => {}
        }
    }

    pub(super) fn not_seen(
        &mut self,
        node: &NodeName,
        now: Time,
        grace: crate::ids::Millis,
        looked_enough: bool,
        notes: &mut Vec<Note>,
    ) {
        let was_up = match &self.phase {
            // Nobody says that it is there, or that it is still there.
            Phase::Asked | Phase::Dead { .. } | Phase::Destroying { .. } => return,
            Phase::Booting | Phase::Ready => false,
            Phase::Up => true,
        };
        let since = *self.missing_since.get_or_insert(now);
        if looked_enough && now.since(since) >= grace {
            let why = format!("the provider has not shown it for {grace}");
            notes.push(Note::vm(node, self.generation, "vm-lost", why.clone()));
            self.enter(Phase::Dead { why, was_up }, now);
        }
    }

    /// A later VM of the same node that is alive, if this one, which no listing shows, is past:
    /// the journal is older than the world.
    pub(super) fn outlived_by<'a>(&self, newest: &'a VmView) -> Option<&'a VmView> {
        let past = match self.phase {
            Phase::Dead { .. } | Phase::Destroying { .. } => true,
            Phase::Asked | Phase::Booting | Phase::Ready | Phase::Up => false,
        };
        let later = newest
            .tag
            .as_ref()
            .is_some_and(|tag| tag.generation > self.generation);
        (past && later && newest.state.may_run()).then_some(newest)
    }

    /// One that was taken for lost is shown again, and alive: it was there all along.
    pub(super) fn found_again(&mut self, node: &NodeName, now: Time, notes: &mut Vec<Note>) {
        let text = "the provider shows it again: it was not lost";
        notes.push(Note::vm(node, self.generation, "vm-found", text));
        self.missing_since = None;
        self.enter(Phase::Up, now);
    }
}
