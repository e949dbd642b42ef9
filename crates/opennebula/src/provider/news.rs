//! What is new of VMs since the last whole observation: what the bus told, and what was asked because of it. Pure.
//!
//! A message is taken at its word only where it says that a VM of ours goes on on its way up: PROLOG, BOOT, RUNNING,
//! after what was known and on a host that fits. For everything else that it says of our VMs oned is asked: one call
//! for all of which something came within a moment. Others' VMs cost nothing.

use super::fold::Ours;
use super::memory::{Memory, Now};
use crate::model::{VmDetails, VmRow};
use crate::state::{Kind, LcmState, VmState};
use crate::template::read_tag;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use thiao_core::ids::{ClusterName, VmTag};

/// How long after a first message others are waited for, before oned is asked for all of them.
const MOMENT: Duration = Duration::from_millis(30);

/// The least pause between two times that oned is asked for VMs of which nothing hurries: those that were to end.
const LEISURE: Duration = Duration::from_secs(1);

/// The least pause between two whole observations that messages call for.
pub(super) const WHOLE_APART: Duration = Duration::from_secs(1);

/// The least pause between two times that oned is asked for single VMs.
pub(super) const ASKS_APART: Duration = Duration::from_millis(50);

/// So far asking may run ahead of its share of the calls: changes do not come evenly, and none shall wait for its turn
/// as long as there are few.
const AHEAD: Duration = Duration::from_secs(1);

/// VMs that are asked for in one call.
const MOST_AT_ONCE: usize = 1000;

/// VMs that may wait for being asked for: beyond that all are, by a whole observation. Made-up messages may name any.
const MOST_WAITING: usize = 10_000;

/// How long after a state an earlier one on the same way up may still be told: oned 7.4 publishes what it does at the
/// same time in any order (recorded: PROLOG, BOOT, LCM_INIT; and DONE before CLEANUP_DELETE).
const DISORDER: Duration = Duration::from_secs(1);

/// oned publishes a state before it stores it, and reads show what is stored (7.4: one of 320 read at once showed the
/// state before). So what shows no change though one was told is asked for once more, and a whole observation that
/// began so soon after a message may not have it.
const STORED: Duration = Duration::from_millis(200);

/// How long after a whole observation a message may still come about what it showed.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// What messages told and oned answered, until a whole observation has it.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Our VMs of which something newer is known than the last whole observation.
    changed: BTreeMap<u32, Said>,
    /// VMs that oned is to be asked for.
    asks: BTreeMap<u32, Ask>,
    /// VMs that are asked for once more, since the first answer showed nothing new.
    doubted: BTreeSet<u32>,
    /// What the bus told of our VMs last, and when.
    told: BTreeMap<u32, (VmState, Instant)>,
    /// VMs whose new state a whole observation showed, and no message has told so far; since when.
    untold: BTreeMap<u32, Instant>,
    /// When oned was asked for single VMs last.
    asked: Option<Instant>,
    /// Until when the share of calls is used that is for asking.
    used: Option<Instant>,
    /// From when on a whole observation is called for.
    whole: Option<Instant>,
    /// Since when something is known that nobody has fetched.
    fresh: Option<Instant>,
    /// When the last whole observation began that the controller was given.
    pub given: Option<Instant>,
    /// States of our VMs that were told, and that nobody has counted yet.
    pub heard: u32,
    /// States that should have been told and were not, and that nobody has counted yet.
    pub missed: u32,
}

/// Who said what is newer than the last whole observation, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// A message said so.
    Told(Instant),
    /// oned, when it was asked.
    Asked(Instant),
}

impl Said {
    fn at(self) -> Instant {
        match self {
            Said::Told(at) | Said::Asked(at) => at,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    since: Instant,
    hurry: bool,
}

/// What is to be made of what a message says of a VM of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It says nothing new.
    Known,
    /// It may be taken at its word.
    Believed,
    /// oned is to be asked, at once or not.
    Ask { hurry: bool },
}

impl News {
    /// oned is to be asked for this VM.
    pub fn ask(&mut self, id: u32, hurry: bool, now: Instant) {
        if self.asks.len() >= MOST_WAITING && !self.asks.contains_key(&id) {
            self.call_for_whole(now, now);
            return;
        }
        let ask = self.asks.entry(id).or_insert(Ask { since: now, hurry });
        ask.hurry |= hurry;
    }

    /// A whole observation is called for: not before `at`, nor soon after the last, which began at `last`.
    pub fn call_for_whole(&mut self, at: Instant, last: Instant) {
        let at = at.max(last + WHOLE_APART);
        self.whole = Some(self.whole.map_or(at, |before| before.min(at)));
    }

    /// A whole observation is called for at once.
    pub fn call_for_whole_now(&mut self, now: Instant) {
        self.whole = Some(now);
    }

    /// Whether a whole observation is called for.
    pub fn is_whole_due(&self, now: Instant) -> bool {
        self.whole.is_some_and(|at| at <= now)
    }

    /// oned answered that a VM is as it was before, or not. It is asked once more where a message says otherwise.
    fn answered(&mut self, id: u32, was: Option<VmState>, is: VmState, now: Instant) {
        let told = self.told.get(&id).is_some_and(|(told, _)| *told != is);
        if told && was == Some(is) && self.doubted.insert(id) {
            let since = now + STORED;
            self.asks.entry(id).or_insert(Ask { since, hurry: true });
        } else {
            self.doubted.remove(&id);
        }
    }

    /// When oned is to be asked for single VMs.
    fn asks_due(&self) -> Option<Instant> {
        let first = self.asks.values().map(|ask| ask.since).min()? + MOMENT;
        let hurry = self.asks.values().any(|ask| ask.hurry);
        let pause = if hurry { ASKS_APART } else { LEISURE };
        let share = self.used.and_then(|used| used.checked_sub(AHEAD));
        let waits = [self.asked.map(|asked| asked + pause), share];
        Some(waits.into_iter().flatten().fold(first, Instant::max))
    }

    /// When there is something to fetch.
    pub fn due(&self) -> Option<Instant> {
        let dues = [self.fresh, self.asks_due(), self.whole];
        dues.into_iter().flatten().min()
    }

    /// The VMs that oned is to be asked for now; they are asked for by this. Its share of the calls allows one such
    /// call in `apart`.
    pub fn take_asks(&mut self, apart: Duration, now: Instant) -> Vec<u32> {
        if self.asks_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let ids: Vec<u32> = self.asks.keys().copied().take(MOST_AT_ONCE).collect();
        for id in &ids {
            self.asks.remove(id);
        }
        self.asked = Some(now);
        self.used = Some(self.used.map_or(now, |used| used.max(now)) + apart);
        ids
    }

    /// The VMs of which something is new, and who said so; nobody need be woken for them any more.
    pub fn fetch(&mut self) -> impl Iterator<Item = (u32, Said)> + '_ {
        self.fresh = None;
        self.changed.iter().map(|(id, said)| (*id, *said))
    }

    /// Who said what is newer of a VM than the last whole observation.
    pub fn said(&self, id: u32) -> Option<Said> {
        self.changed.get(&id).copied()
    }

    /// What should have been told and was not by now is counted.
    pub fn count_missed(&mut self, now: Instant) {
        let before = self.untold.len();
        self.untold
            .retain(|_, since| now.duration_since(*since) < ON_ITS_WAY);
        let missed = u32::try_from(before - self.untold.len()).unwrap_or(u32::MAX);
        self.missed = self.missed.saturating_add(missed);
    }

    /// Whatever is told now is told by another connection than before: what was not told is no fault of it.
    pub fn connected(&mut self) {
        self.untold.clear();
        (self.heard, self.missed) = (0, 0);
    }

    /// Everything that waits to be asked for is due, as time would have it.
    #[cfg(test)]
    pub fn hasten(&mut self, now: Instant) {
        (self.asked, self.used) = (None, None);
        for ask in self.asks.values_mut() {
            ask.since = now.checked_sub(MOMENT).unwrap_or(now);
        }
    }

    /// A VM's end was taken note of.
    pub fn forget(&mut self, id: u32) {
        self.changed.remove(&id);
        self.asks.remove(&id);
        self.doubted.remove(&id);
        self.untold.remove(&id);
    }

    /// A VM is forgotten that is not `kept`.
    pub fn forget_unlisted(&mut self, kept: impl Fn(&u32) -> bool) {
        self.told.retain(|id, _| kept(id));
        self.changed.retain(|id, _| kept(id));
        self.untold.retain(|id, _| kept(id));
        self.doubted.retain(|id| kept(id));
    }

    /// A whole observation that began at `began` was taken in: what was said before is in it.
    pub fn whole(&mut self, began: Instant) {
        self.changed.retain(|_, said| said.at() > began);
        self.asks.retain(|_, ask| ask.since + STORED > began);
        self.whole = self.whole.filter(|at| *at > began);
        self.fresh = self.fresh.filter(|at| *at > began);
    }

    /// A whole observation, which began at `began`, showed a new state of a VM.
    pub fn shown(&mut self, id: u32, state: VmState, began: Instant, now: Instant) {
        // One that came since may be about something newer than the listing.
        let told = self
            .told
            .get(&id)
            .is_some_and(|(told, at)| *told == state || *at >= began);
        if !told && !self.asks.contains_key(&id) {
            self.untold.entry(id).or_insert(now);
        }
    }
}

impl Memory {
    /// Takes a message about the state of this VM; none: it could not be read.
    pub fn hear(&mut self, cluster: &ClusterName, id: u32, vm: Option<VmDetails>, now: Now) {
        let known = self.tag_of(id).cloned();
        let known = match known {
            Some(None) => return,
            Some(Some(tag)) => Some(tag),
            None => None,
        };
        let Some(vm) = vm else {
            if known.is_some() {
                self.news.ask(id, true, now.instant);
            }
            return;
        };
        let said = read_tag(|name| vm.user_template.get(name).cloned()).filter(|tag| tag.cluster == *cluster);
        let Some(tag) = known.or(said.clone()) else {
            return;
        };
        self.news.heard = self.news.heard.saturating_add(1);
        self.news.untold.remove(&id);
        self.news.told.insert(id, (vm.row.state, now.instant));
        match self.judge(&tag, said.as_ref(), &vm, now.instant) {
            Verdict::Known => {}
            Verdict::Ask { hurry } => self.news.ask(id, hurry, now.instant),
            Verdict::Believed => {
                let ready = self.ours.get(&id).is_some_and(|vm| vm.ready);
                self.see(id, vm.row, ready, now);
                self.news.changed.insert(id, Said::Told(now.instant));
                self.news.fresh.get_or_insert(now.instant);
            }
        }
    }

    /// A message says that somebody changed something of this VM.
    pub fn hear_of_change(&mut self, id: u32, now: Instant) {
        if matches!(self.tag_of(id), Some(Some(_))) {
            self.news.ask(id, true, now);
        }
    }

    /// What to make of a message about a VM whose tag we know, or that `said` it has our cluster's.
    fn judge(&self, tag: &VmTag, said: Option<&VmTag>, vm: &VmDetails, now: Instant) -> Verdict {
        let (id, state) = (vm.row.id, vm.row.state);
        if self.tag_of(id).is_none() {
            // The answer of the call that makes it right now says more.
            let made_now = self.making.contains(tag) && matches!(state.kind(), Kind::Held | Kind::Pending);
            return if made_now {
                Verdict::Known
            } else {
                Verdict::Ask { hurry: true }
            };
        }
        if !self.has(tag, id) {
            // Its end was taken note of already.
            return Verdict::Known;
        }
        if self.has_ended(id) {
            return Verdict::Known;
        }
        let was = self.ours.get(&id);
        if said != Some(tag) {
            return Verdict::Ask { hurry: true };
        }
        if was.map_or(state == VmState::Hold, |was| {
            was.row.state == state && was.row.host == vm.row.host
        }) {
            return Verdict::Known;
        }
        let held = was.is_none_or(|was| was.row.state == VmState::Hold);
        match state.kind() {
            // Released to OpenNebula's scheduler.
            Kind::Pending if held => Verdict::Known,
            // Its end was asked for: nobody waits for each step of it.
            Kind::Ending if self.has_pushed(id) => Verdict::Known,
            Kind::Done if self.has_pushed(id) => Verdict::Ask { hurry: false },
            Kind::Starting | Kind::Running => self.judge_way_up(was, vm, now),
            Kind::Held
            | Kind::Pending
            | Kind::Moving
            | Kind::Saving
            | Kind::Saved
            | Kind::Restoring
            | Kind::Off
            | Kind::Ending
            | Kind::Failed
            | Kind::FailedUnsure
            | Kind::Lost
            | Kind::Done
            | Kind::Unknown(_) => Verdict::Ask { hurry: true },
        }
    }

    /// What to make of a VM that a message shows on its way up, or at its end. It `was` seen so before.
    fn judge_way_up(&self, was: Option<&Ours>, vm: &VmDetails, now: Instant) -> Verdict {
        // One that was made, and that nothing has shown yet, is held.
        let before = was.map_or(Some(0), |was| how_far(was.row.state));
        let (Some(before), Some(here), Some((name, host))) = (before, how_far(vm.row.state), &vm.row.host)
        else {
            return Verdict::Ask { hurry: true };
        };
        let is_host = self
            .hosts
            .iter()
            .any(|known| known.id == *host && known.name == *name);
        let size = |row: &VmRow| (row.cpu_percent, row.memory_mb, row.beyond);
        let same = was.is_none_or(|was| {
            size(&was.row) == size(&vm.row) && (was.row.host.is_none() || was.row.host == vm.row.host)
        });
        let lately = |said: Said| now.duration_since(said.at()) < DISORDER;
        if !is_host || !same || vm.row.beyond.is_some() {
            Verdict::Ask { hurry: true }
        } else if here > before {
            Verdict::Believed
        } else if self.news.said(vm.row.id).is_some_and(lately) {
            Verdict::Known
        } else {
            Verdict::Ask { hurry: true }
        }
    }

    /// Takes what oned said when it was asked for these VMs, from `began` on.
    pub fn answered(
        &mut self,
        cluster: &ClusterName,
        ids: &[u32],
        details: Vec<VmDetails>,
        began: Instant,
        now: Now,
    ) {
        let mut shown = BTreeMap::new();
        let ready = self.add(cluster, details, &mut shown);
        for id in ids {
            match (shown.remove(id), self.tag_of(*id)) {
                (Some(row), Some(Some(tag))) => {
                    // Its end may have been taken note of meanwhile.
                    if row.state == VmState::Done && !self.has(tag, *id) {
                        continue;
                    }
                    let was = self.ours.get(id);
                    let was_ready = was.is_some_and(|vm| vm.ready);
                    self.news
                        .answered(*id, was.map(|vm| vm.row.state), row.state, now.instant);
                    self.see(*id, row, was_ready || ready.contains(id), now);
                    self.news.changed.insert(*id, Said::Asked(began));
                    self.news.fresh.get_or_insert(now.instant);
                }
                (Some(_), Some(None) | None) => {}
                // Purged, or somebody else's now: that only a whole observation says.
                (None, _) => self.news.call_for_whole(now.instant, began),
            }
        }
    }

    /// The rows of a listing that began at `began`, where nothing newer is known. Where a message came since that
    /// says otherwise, oned is asked.
    pub fn with_newer(&mut self, shown: &mut BTreeMap<u32, VmRow>, began: Instant, now: Instant) {
        let newer: Vec<(u32, Said)> = self.news.changed.iter().map(|(id, said)| (*id, *said)).collect();
        for (id, said) in newer.into_iter().filter(|(_, said)| said.at() > began) {
            let (Some(row), Some(ours)) = (shown.get_mut(&id), self.ours.get(&id)) else {
                continue;
            };
            if matches!(said, Said::Told(_)) && row.state != ours.row.state {
                self.news.ask(id, true, now);
            }
            *row = ours.row.clone();
        }
    }
}

/// How far a VM in this state is on its way up; none: it is on another way.
fn how_far(state: VmState) -> Option<u8> {
    match state {
        VmState::Init | VmState::Cloning | VmState::Hold | VmState::Pending => Some(0),
        VmState::Active(LcmState::Init) => Some(1),
        VmState::Active(LcmState::Prolog) => Some(2),
        VmState::Active(LcmState::Boot) => Some(3),
        VmState::Active(LcmState::Running) => Some(4),
        VmState::Active(_)
        | VmState::Stopped
        | VmState::Suspended
        | VmState::Done
        | VmState::Poweroff
        | VmState::Undeployed
        | VmState::CloningFailure
        | VmState::Unknown(_) => None,
    }
}
