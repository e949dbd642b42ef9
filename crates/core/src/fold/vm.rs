//! Folds what the provider shows of a VM into its record.

use crate::event::{Event, Kind};
use crate::ids::{HostName, Millis, NodeName, Time};
use crate::view::{VmState, VmView};
use crate::vm::{Aside, Life, Odd, Registration, VmRecord};
use std::borrow::Cow;

impl VmRecord {
    pub(super) fn seen(&mut self, node: &NodeName, seen: &VmView, now: Time, events: &mut Vec<Event>) {
        // One that was lost and is shown alive is found again, or waits for that.
        if !(self.is_lost() && seen.state.may_run()) {
            self.missing_since = None;
        }
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
        let news = self.kept_still(&life, &seen.state);
        events.extend(news.map(|(kind, text)| Event::vm(node, self.generation, kind, text)));
        let starts = self.life.is_before_start() && matches!(life, Life::Booting | Life::Running);
        let moved = self.life.is_moving() && !life.is_moving() && !life.is_past();
        let left = self.life.leaves().cloned();
        self.enter(life, now);
        let beside = self.beside(seen);
        let news = self.news(&beside);
        events.extend(news.map(|(kind, text)| Event::vm(node, self.generation, kind, text)));
        self.aside = beside;
        let left = self.seen_on(seen).or(left);
        events.extend(starts.then(|| self.started(node)));
        if seen.state == VmState::Ready && self.life.is_there() {
            self.guest_ready(node, now, events);
        }
        events.extend(self.arrived(node, moved, left));
    }

    /// What is to be told when it runs.
    pub(super) fn started(&self, node: &NodeName) -> Event {
        let host = self.host.as_ref().map_or("a host", HostName::as_str);
        Event::vm(
            node,
            self.generation,
            Kind::VmStarted,
            format!("started on {host}"),
        )
    }

    /// What a listing says of it beside its life, which is as that listing shows it.
    fn beside(&self, seen: &VmView) -> Aside {
        if !self.life.is_there() {
            return self.aside.clone();
        }
        let odd = match &seen.state {
            // One that was let go just now may still be shown as it was before.
            VmState::Held => self.aside.takes.is_some().then_some(Odd::Held),
            VmState::Stopping => Some(Odd::Ending),
            VmState::Unknown(what) => Some(Odd::Unclear(what.clone())),
            VmState::Pending
            | VmState::Booting
            | VmState::Ready
            | VmState::Paused(_)
            | VmState::Saving
            | VmState::Saved
            | VmState::Restoring
            | VmState::Moving
            | VmState::Dead(_) => None,
        };
        // One that is put away takes nothing meanwhile.
        let takes = Some((seen.memory_mb, seen.cpu_percent)).filter(|takes| *takes != (0, 0));
        Aside {
            odd,
            takes: takes.or(self.aside.takes),
            unmade: None,
        }
    }

    /// What is to be told of that, if it is new.
    fn news(&self, beside: &Aside) -> Option<(Kind, String)> {
        if beside.odd != self.aside.odd {
            let kind = match &beside.odd {
                Some(Odd::Held) => Kind::VmHeld,
                Some(Odd::Ending) => Kind::VmEnding,
                Some(Odd::Unclear(_)) => Kind::VmUnclear,
                None if self.life.is_kept_still() => return None,
                None => Kind::VmResumed,
            };
            return Some((kind, beside.odd.as_ref().map_or("goes on", Odd::text).to_owned()));
        }
        let (before, (mb, cpu)) = (self.aside.takes?, beside.takes?);
        let text = || {
            format!(
                "was resized by somebody: it takes {mb} MiB and {cpu} % of a core of its host now. Slurm goes by what \
                 the node had, until its next VM"
            )
        };
        (before != (mb, cpu)).then(|| (Kind::VmResized, text()))
    }

    /// What is to be told of a VM that is not on its way, or not any more; `left` is the host where it was.
    fn arrived(&self, node: &NodeName, moved: bool, left: Option<HostName>) -> Option<Event> {
        let host = self.host.as_ref()?;
        let left = left.filter(|left| left != host);
        let (kind, text) = match left {
            Some(left) if self.registration.is_done() && !self.life.is_moving() && self.life.is_there() => {
                (Kind::VmMoved, format!("moved from host {left} to host {host}"))
            }
            None if moved => (Kind::VmResumed, format!("goes on, on host {host}")),
            Some(_) | None => return None,
        };
        Some(Event::vm(node, self.generation, kind, text))
    }

    /// What is to be told when a VM enters this part of its life, about who keeps it still.
    fn kept_still(&self, life: &Life, state: &VmState) -> Option<(Kind, Cow<'static, str>)> {
        if std::mem::discriminant(&self.life) == std::mem::discriminant(life) {
            return None;
        }
        if let (Life::Paused, VmState::Paused(why)) = (life, state)
            && !why.is_empty()
        {
            let text = format!("is paused, since {why}: its job stands still");
            return Some((Kind::VmPaused, text.into()));
        }
        let (kind, text) = match life {
            Life::Paused => Some((Kind::VmPaused, "is paused: its job stands still")),
            Life::Saving => Some((Kind::VmPaused, "is being saved to a disk: its job stands still")),
            Life::Saved => Some((
                Kind::VmPaused,
                "is saved to a disk and does not run: its job stands still",
            )),
            Life::Restoring => Some((Kind::VmPaused, "is being restored from a disk")),
            Life::Moving { .. } => Some((Kind::VmMoves, "is on its way to another host")),
            // Of one that has moved it is told where it is.
            Life::Booting | Life::Running if self.life.is_kept_still() && !self.life.is_moving() => {
                Some((Kind::VmResumed, "goes on"))
            }
            Life::Asked
            | Life::Held
            | Life::Pending
            | Life::Booting
            | Life::Running
            | Life::Ending { .. }
            | Life::Dead { .. } => None,
        }?;
        Some((kind, text.into()))
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

    /// Takes the host from a listing; of one that moves both are known. The host that it has left, if it has.
    fn seen_on(&mut self, seen: &VmView) -> Option<HostName> {
        if seen.host.is_none() || seen.host == self.host {
            return None;
        }
        let before = std::mem::replace(&mut self.host, seen.host.clone());
        let Life::Moving { from } = &mut self.life else {
            return before;
        };
        if from.is_none() {
            *from = before;
        }
        None
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

    /// Whether it was found, not made by us as far as is known, and has died: it says nothing of a node that has
    /// another VM.
    pub(super) fn was_found_and_died(&self) -> bool {
        self.spec.is_none() && matches!(self.life, Life::Dead { .. })
    }

    /// Nobody has looked for long: how long it was missing before says nothing, nor that it was taken for lost, unless
    /// Slurm was `told`.
    pub(super) fn not_watched(&mut self, told: bool, now: Time) {
        if !self.is_lost() {
            self.missing_since = None;
        } else if !told && self.registration.is_done() && matches!(self.life, Life::Dead { .. }) {
            self.missing_since = None;
            self.enter(Life::Running, now);
        }
    }

    /// A later VM of the same node that is alive, if this one is past and no listing shows it, or if it was never
    /// confirmed `in_time`: the journal is older than the world.
    pub(super) fn outlived_by<'a>(
        &self,
        newest: &'a VmView,
        is_shown: bool,
        in_time: bool,
    ) -> Option<&'a VmView> {
        let later = newest
            .tag
            .as_ref()
            .is_some_and(|tag| tag.generation > self.generation);
        let nothing = match self.life.is_unconfirmed() {
            true => !in_time,
            false => self.life.is_past() && !is_shown,
        };
        (nothing && later && newest.state.may_run()).then_some(newest)
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
