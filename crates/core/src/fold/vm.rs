//! Folds what the provider shows of a VM into its record.

use crate::event::{Event, Kind};
use crate::ids::{Millis, NodeName, Time};
use crate::view::{VmState, VmView};
use crate::vm::{Life, Registration, VmRecord};

impl VmRecord {
    pub(super) fn seen(&mut self, node: &NodeName, seen: &VmView, now: Time, events: &mut Vec<Event>) {
        self.missing_since = None;
        // Of several that are held, the provider chooses the one that it releases.
        if seen.state != VmState::Held {
            self.id = Some(seen.id.clone());
        }
        let life = self.shown(&seen.state);
        if let (Life::Dead { why }, false) = (&life, self.life.is_past()) {
            let when = match self.registration.is_done() {
                true => "while its node was up",
                false => "while booting",
            };
            let text = format!("died {when}: {why}");
            events.push(Event::vm(node, self.generation, Kind::VmDied, text));
        }
        self.enter(life, now);
        if seen.state == VmState::Ready && self.life.is_there() {
            self.guest_ready(node, now, events);
        }
        self.seen_on(seen);
    }

    fn guest_ready(&mut self, node: &NodeName, now: Time, events: &mut Vec<Event>) {
        let next = self.registration.guest_ready();
        if next != self.registration {
            let took = now.since(self.asked);
            let text = format!("its guest runs slurmd, {took} after it was asked for");
            events.push(Event::vm(node, self.generation, Kind::VmReady, text));
        }
        self.register(next, now);
    }

    /// Takes the host from a listing; of one that moves both are known.
    fn seen_on(&mut self, seen: &VmView) {
        if seen.host.is_none() || seen.host == self.host {
            return;
        }
        let before = std::mem::replace(&mut self.host, seen.host.clone());
        if let Life::Moving { from: from @ None } = &mut self.life {
            *from = before;
        }
    }

    pub(super) fn not_seen(
        &mut self,
        node: &NodeName,
        now: Time,
        grace: Millis,
        observed_enough: bool,
        events: &mut Vec<Event>,
    ) {
        // Else nobody says that it is there, or that it is still there.
        if !self.life.is_there() {
            return;
        }
        let since = *self.missing_since.get_or_insert(now);
        if observed_enough && now.since(since) >= grace {
            let why = format!("the provider has not shown it for {grace}");
            events.push(Event::vm(node, self.generation, Kind::VmLost, why.clone()));
            self.enter(Life::Dead { why }, now);
        }
    }

    /// A later VM of the same node that is alive, if this one, which no listing shows, is past:
    /// the journal is older than the world.
    pub(super) fn outlived_by<'a>(&self, newest: &'a VmView) -> Option<&'a VmView> {
        let later = newest
            .tag
            .as_ref()
            .is_some_and(|tag| tag.generation > self.generation);
        (self.life.is_past() && later && newest.state.may_run()).then_some(newest)
    }

    /// One that was taken for lost is shown again, and alive: it was there all along.
    pub(super) fn found_again(&mut self, node: &NodeName, now: Time, events: &mut Vec<Event>) {
        let text = "the provider shows it again: it was not lost";
        events.push(Event::vm(node, self.generation, Kind::VmFound, text));
        self.missing_since = None;
        self.enter(Life::Running, now);
        self.register(Registration::Registered, now);
    }
}
