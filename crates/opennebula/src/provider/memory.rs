//! What is remembered between calls. Pure: time comes in, nothing is asked here.

use super::fold::Ours;
use super::news::{News, Said};
use super::push::{Asked, Push};
use crate::model::{Host, VmDetails, VmRow};
use crate::settings::ReadyBy;
use crate::state::{Kind, VmState};
use crate::template::read_tag;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use thiao_core::ids::{ClusterName, Time, VmTag};

/// How long an observation's states may be acted on.
const FRESH: Duration = Duration::from_secs(10);

/// How long a VM that ended is shown as dead, unless its end is taken note of before.
const SHOW_ENDED: Duration = Duration::from_secs(900);

/// How long a running VM is asked for READY at each observation: one that has not said so by then never will.
const AWAIT_READY: Duration = Duration::from_secs(3600);

/// VMs whose story is kept.
const STORIES: usize = 20_000;

/// Moments kept of each.
const MOMENTS: usize = 64;

/// An instant by both clocks: one for spans, one for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub instant: Instant,
    pub time: Time,
}

/// What one observation showed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The listing, which has our user's VMs alone.
    pub rows: Vec<VmRow>,
    /// What was asked for after it.
    pub details: Vec<VmDetails>,
    pub hosts: Vec<Host>,
    /// The id of our user, if details are of VMs that the listing lacks.
    pub me: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Our VMs as last seen, those that ended since and were not asked after too.
    pub ours: BTreeMap<u32, Ours>,
    /// Hosts as last seen.
    pub hosts: Vec<Host>,
    /// Tags by id, for ever: OpenNebula uses no id again. None: no tag of ours.
    tags: BTreeMap<u32, Option<VmTag>>,
    /// VMs that we made or took up, and that may not have been listed yet.
    made: BTreeMap<VmTag, u32>,
    /// When we last did something to a VM: what was seen before does not hold.
    acted: BTreeMap<u32, Instant>,
    /// The hardest push that a VM's end was asked for with, how often, and when last.
    pushed: BTreeMap<u32, (Push, u32, Instant)>,
    /// When a VM was first seen to have ended.
    ended: BTreeMap<u32, Instant>,
    /// When a VM was first seen running.
    running: BTreeMap<u32, Instant>,
    /// When the last whole observation began.
    observed: Option<Instant>,
    stories: BTreeMap<u32, Vec<(Time, String)>>,
    /// VMs being made by a call right now.
    pub making: BTreeSet<VmTag>,
    /// What is newer than the last whole observation.
    pub news: News,
}

/// What is known of a VM that shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It ended, or OpenNebula shows it no more.
    Gone,
    /// Somebody has given it to this user.
    Given(String),
    /// It is this VM; its state, if that is still true.
    Tagged(Option<VmTag>, Option<VmState>),
    /// Nothing is known of it.
    Nothing,
}

impl Memory {
    /// The ids whose details an observation must read beside the listing `rows`: new ones,
    /// those that may have become ready, those that the listing lacks.
    pub fn to_ask(&self, rows: &[VmRow], by: ReadyBy, now: Instant) -> Vec<u32> {
        let listed: BTreeSet<u32> = rows.iter().map(|row| row.id).collect();
        let awaited = |row: &&VmRow| match self.tags.get(&row.id) {
            None => true,
            Some(None) => false,
            Some(Some(_)) => {
                let since = self.running.get(&row.id);
                by == ReadyBy::OneGate
                    && row.state.kind() == Kind::Running
                    && !self.ours.get(&row.id).is_some_and(|vm| vm.ready)
                    && since.is_none_or(|since| now.duration_since(*since) < AWAIT_READY)
            }
        };
        let mut ids: BTreeSet<u32> = rows.iter().filter(awaited).map(|row| row.id).collect();
        let known = self.ours.keys().chain(self.made.values());
        ids.extend(known.filter(|id| !listed.contains(id) && !self.ended.contains_key(id)));
        ids.into_iter().collect()
    }

    /// Takes in a whole observation that began at `began`.
    pub fn take(&mut self, cluster: &ClusterName, seen: Shown, began: Instant, now: Now) {
        let Shown {
            rows,
            details,
            hosts,
            me,
        } = seen;
        let mut shown: BTreeMap<u32, VmRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        let unlisted =
            |vm: &&VmDetails| !shown.contains_key(&vm.row.id) && me.is_some_and(|me| me != vm.owner.0);
        let others = details.iter().filter(unlisted);
        let mut given: BTreeMap<u32, String> = others.map(|vm| (vm.row.id, vm.owner.1.clone())).collect();
        let ready = self.add(cluster, details, &mut shown);
        self.with_newer(&mut shown, began, now.instant);
        let listed: BTreeSet<u32> = shown.keys().copied().collect();
        let before = std::mem::take(&mut self.ours);
        for (id, row) in shown {
            let was = before.get(&id);
            // One that was left to its new owner while this observation was under way.
            if was.is_none() && given.contains_key(&id) {
                continue;
            }
            if was.is_some_and(|was| was.row.state != row.state) {
                self.news.shown(id, row.state, began, now.instant);
            }
            let ready = ready.contains(&id) || was.is_some_and(|was| was.ready);
            self.see_after(was, id, row, (ready, given.remove(&id)), now);
        }
        // Those that ended are in no listing: they stay until that was taken note of.
        for (id, vm) in before {
            let recent = |at: &Instant| now.instant.duration_since(*at) < SHOW_ENDED;
            if !listed.contains(&id) && self.ended.get(&id).is_some_and(recent) {
                self.ours.insert(id, vm);
            }
        }
        self.hosts = hosts;
        self.observed = Some(began);
        self.news.whole(began);
        self.forget_unlisted(&listed, began);
    }

    /// Takes in how a VM is shown that is ours, if its tag says so.
    pub fn see(&mut self, id: u32, row: VmRow, ready: bool, now: Now) {
        let was = self.ours.remove(&id);
        // Whose it is, a listing of our user's VMs says.
        let given = was.as_ref().and_then(|was| was.given.clone());
        self.see_after(was.as_ref(), id, row, (ready, given), now);
    }

    /// The same, after it `was` seen so; with whether its guest is ready, and whom it was given to.
    fn see_after(
        &mut self,
        was: Option<&Ours>,
        id: u32,
        row: VmRow,
        (ready, given): (bool, Option<String>),
        now: Now,
    ) {
        let Some(Some(tag)) = self.tags.get(&id) else {
            return;
        };
        let vm = Ours {
            leaves: leaves(was, &row),
            given,
            old_error: old_error(was, &row),
            ready,
            tag: tag.clone(),
            row,
        };
        match vm.row.state.kind() {
            Kind::Done => drop(self.ended.entry(id).or_insert(now.instant)),
            Kind::Running => drop(self.running.entry(id).or_insert(now.instant)),
            Kind::Held
            | Kind::Pending
            | Kind::Starting
            | Kind::Moving
            | Kind::Restoring
            | Kind::Saving
            | Kind::Saved
            | Kind::Off
            | Kind::Ending
            | Kind::Failed
            | Kind::FailedUnsure
            | Kind::Lost
            | Kind::Unknown(_) => {}
        }
        for what in changes(was, &vm) {
            self.tell(id, now.time, &what);
        }
        self.ours.insert(id, vm);
    }

    /// Whose VM this is, as far as we know: none, if not at all; or surely none of ours.
    pub fn tag_of(&self, id: u32) -> Option<&Option<VmTag>> {
        self.tags.get(&id)
    }

    /// Whether OpenNebula took an order of ours for this VM's end.
    pub fn has_pushed(&self, id: u32) -> bool {
        self.pushed.contains_key(&id)
    }

    /// Whether this VM was seen to have ended: it never comes back.
    pub fn has_ended(&self, id: u32) -> bool {
        self.ended.contains_key(&id)
    }

    /// When the last whole observation began.
    pub fn observed(&self) -> Option<Instant> {
        self.observed
    }

    /// Adds details to what a listing showed; gives those whose guests say READY.
    pub fn add(
        &mut self,
        cluster: &ClusterName,
        details: Vec<VmDetails>,
        shown: &mut BTreeMap<u32, VmRow>,
    ) -> BTreeSet<u32> {
        let mut ready = BTreeSet::new();
        for vm in details {
            let id = vm.row.id;
            let tag = read_tag(|name| vm.user_template.get(name).cloned());
            let tag = tag.filter(|tag| tag.cluster == *cluster);
            // Tags do not change: one that a person takes off is still known here.
            let known = self.tags.entry(id).or_insert(tag);
            let word = vm.user_template.get("READY");
            if known.is_some() && word.is_some_and(|word| word.eq_ignore_ascii_case("YES")) {
                ready.insert(id);
            }
            // Read after the listing: it is the newer word.
            shown.insert(id, vm.row);
        }
        ready
    }

    /// Forgets what no listing shows any more, of which `listed` is the last, and began at `began`.
    fn forget_unlisted(&mut self, listed: &BTreeSet<u32>, began: Instant) {
        let Self {
            ours, acted, made, ..
        } = self;
        // What was made after the listing began may be missing from it rightly.
        made.retain(|_, id| ours.contains_key(id) || acted.get(id).is_some_and(|at| *at >= began));
        let kept: BTreeSet<u32> = ours.keys().chain(made.values()).copied().collect();
        self.tags.retain(|id, _| listed.contains(id) || kept.contains(id));
        self.acted.retain(|id, _| kept.contains(id));
        self.pushed.retain(|id, _| kept.contains(id));
        self.ended.retain(|id, _| kept.contains(id));
        self.running.retain(|id, _| kept.contains(id));
        self.news.forget_unlisted(|id| kept.contains(id));
    }

    /// A VM that we made: its tag is known before any listing shows it.
    pub fn made(&mut self, tag: &VmTag, id: u32, now: Now) {
        self.made.insert(tag.clone(), id);
        self.tags.insert(id, Some(tag.clone()));
        self.did(id, now);
    }

    /// Something was done to a VM.
    pub fn did(&mut self, id: u32, now: Now) {
        self.acted.insert(id, now.instant);
    }

    /// OpenNebula took this for a VM's end.
    pub fn pushed(&mut self, id: u32, push: Push, now: Now) {
        let (hardest, times, last) = self.pushed.entry(id).or_insert((push, 0, now.instant));
        if push > *hardest {
            (*hardest, *times) = (push, 0);
        }
        (*times, *last) = (times.saturating_add(1), now.instant);
    }

    /// What OpenNebula took for a VM's end so far.
    pub fn asked(&self, id: u32, now: Instant) -> Option<Asked> {
        let (push, times, last) = *self.pushed.get(&id)?;
        let ago = now.duration_since(last);
        Some(Asked { push, times, ago })
    }

    /// OpenNebula's own words on a VM, as last seen.
    pub fn words(&self, id: u32) -> Option<&str> {
        let vm = self.ours.get(&id)?;
        vm.error().or(vm.row.sched_message.as_deref())
    }

    /// The VM that we know by this tag: one that was released before held ones, then the oldest.
    pub fn by_tag(&self, tag: &VmTag) -> Option<u32> {
        self.all_by_tag(tag).first().copied()
    }

    /// All VMs that we know by this tag and that did not end, the one that counts first.
    pub fn all_by_tag(&self, tag: &VmTag) -> Vec<u32> {
        let ours = |vm: &&Ours| vm.tag == *tag && vm.given.is_none();
        let alive = |vm: &&Ours| ours(vm) && vm.row.state.kind() != Kind::Done;
        let mut known: Vec<(bool, u32)> = self
            .ours
            .values()
            .filter(alive)
            .map(|vm| (vm.row.state.kind() == Kind::Held, vm.row.id))
            .collect();
        if let Some(id) = self.made.get(tag)
            && !self.ours.contains_key(id)
        {
            known.push((true, *id));
        }
        known.sort_unstable();
        known.into_iter().map(|(_, id)| id).collect()
    }

    /// What is known of this VM for its end.
    pub fn known(&self, id: u32, now: Instant) -> Known {
        let Some(tag) = self.tags.get(&id) else {
            return Known::Nothing;
        };
        if self.ended.contains_key(&id) {
            return Known::Gone;
        }
        if let Some(user) = self.ours.get(&id).and_then(|vm| vm.given.clone()) {
            return Known::Given(user);
        }
        Known::Tagged(tag.clone(), self.state(id, now))
    }

    /// A VM's state, if what was seen still holds.
    pub fn state(&self, id: u32, now: Instant) -> Option<VmState> {
        let observed = match self.news.said(id) {
            None => self.observed?,
            Some(Said::Asked(at)) => at,
            // Nobody vouches for it.
            Some(Said::Told(_)) => return None,
        };
        let untouched = self.acted.get(&id).is_none_or(|acted| *acted < observed);
        let fresh = now.duration_since(observed) < FRESH;
        let vm = self.ours.get(&id)?;
        (untouched && fresh).then_some(vm.row.state)
    }

    /// A VM's end was taken note of: it is shown no more.
    pub fn forget(&mut self, id: u32) {
        self.ours.remove(&id);
        self.ended.remove(&id);
        self.made.retain(|_, made| *made != id);
        self.news.forget(id);
    }

    /// Whether a VM is shown, or was made and may be.
    pub fn has(&self, tag: &VmTag, id: u32) -> bool {
        self.ours.contains_key(&id) || self.made.get(tag) == Some(&id)
    }

    /// The end of all VMs of this tag was taken note of.
    pub fn forget_tag(&mut self, tag: &VmTag) {
        let theirs = |vm: &&Ours| vm.tag == *tag;
        let ids: Vec<u32> = self.ours.values().filter(theirs).map(|vm| vm.row.id).collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    /// Adds a moment to a VM's story.
    pub fn tell(&mut self, id: u32, time: Time, what: &str) {
        let story = self.stories.entry(id).or_default();
        if story.len() < MOMENTS {
            story.push((time, what.to_owned()));
        }
        while self.stories.len() > STORIES {
            self.stories.pop_first();
        }
    }

    /// A VM's moments, oldest first; none if nothing was told of it.
    pub fn story(&self, id: u32) -> Vec<(Time, String)> {
        self.stories.get(&id).cloned().unwrap_or_default()
    }
}

/// The error that a VM has while it is well, or had when it last was. In between oned writes what failed before it
/// changes the state.
fn old_error(was: Option<&Ours>, row: &VmRow) -> Option<String> {
    match row.state.kind() {
        Kind::Held | Kind::Pending | Kind::Running | Kind::Saved => row.error.clone(),
        Kind::Starting
        | Kind::Moving
        | Kind::Saving
        | Kind::Restoring
        | Kind::Off
        | Kind::Ending
        | Kind::Failed
        | Kind::FailedUnsure
        | Kind::Lost
        | Kind::Done
        | Kind::Unknown(_) => was?.old_error.clone(),
    }
}

/// The host that a VM leaves: where it was before it was seen on its way.
fn leaves(was: Option<&Ours>, row: &VmRow) -> Option<u32> {
    if !row.state.is_on_two_hosts() {
        return None;
    }
    let was = was?;
    let before = was.row.host.as_ref().map(|(_, host)| *host);
    let now = row.host.as_ref().map(|(_, host)| *host);
    was.leaves.or(before).filter(|host| Some(*host) != now)
}

/// What an observation shows that the one before did not, for a VM's story.
fn changes(was: Option<&Ours>, is: &Ours) -> Vec<String> {
    let mut news = Vec::new();
    let state = |vm: &Ours| vm.row.state;
    if was.map(state) != Some(state(is)) {
        news.push(match &is.row.host {
            Some((host, _)) => format!("seen {} on {host}", is.row.state),
            None => format!("seen {}", is.row.state),
        });
    }
    let told = |get: fn(&VmRow) -> Option<&String>| {
        get(&is.row).filter(|text| was.and_then(|was| get(&was.row)) != Some(*text))
    };
    if let Some(text) = told(|row| row.sched_message.as_ref()) {
        news.push(format!("OpenNebula's scheduler: {text}"));
    }
    if let Some(text) = told(|row| row.error.as_ref()) {
        news.push(format!("OpenNebula: {text}"));
    }
    if let (Some(user), None) = (&is.given, was.and_then(|was| was.given.as_ref())) {
        news.push(format!("given to user {user}"));
    }
    if is.ready && !was.is_some_and(|was| was.ready) {
        news.push("its guest says READY".to_owned());
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::LcmState;
    use crate::template::{TAG_CLUSTER, TAG_GENERATION, TAG_NODE};

    const RUNNING: VmState = VmState::Active(LcmState::Running);

    fn cluster() -> ClusterName {
        ClusterName::new("prod").unwrap()
    }

    fn details(id: u32, state: VmState) -> VmDetails {
        let tags = [(TAG_CLUSTER, "prod"), (TAG_NODE, "n1"), (TAG_GENERATION, "1")];
        VmDetails {
            row: VmRow {
                id,
                name: String::new(),
                state,
                host: None,
                cpu_percent: 100,
                memory_mb: 64,
                beyond: None,
                addresses: vec![],
                error: None,
                sched_message: None,
            },
            user_template: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            context: BTreeMap::new(),
            owner: (5, "slurm".to_owned()),
        }
    }

    /// An observation at that moment which shows these.
    fn observe(memory: &mut Memory, at: Instant, vms: Vec<VmDetails>) {
        let listed = vms.iter().filter(|vm| vm.row.state != VmState::Done);
        let rows = listed.map(|vm| vm.row.clone()).collect();
        let now = Now {
            instant: at,
            time: Time(0),
        };
        let seen = Shown {
            rows,
            details: vms,
            ..Shown::default()
        };
        memory.take(&cluster(), seen, at, now);
    }

    #[test]
    fn an_error_of_better_days_is_known_as_such() {
        let mut memory = Memory::default();
        let at = Instant::now();
        let mut see = |state, error: &str| {
            let mut vm = details(1, state);
            vm.row.error = Some(error.to_owned());
            let now = Now {
                instant: at,
                time: Time(0),
            };
            let seen = Shown {
                rows: vec![vm.row.clone()],
                details: vec![vm],
                ..Shown::default()
            };
            memory.take(&cluster(), seen, at, now);
            memory.ours[&1].error().map(str::to_owned)
        };
        assert_eq!(see(RUNNING, "a resize was refused"), None);
        assert_eq!(see(VmState::Poweroff, "a resize was refused"), None);
        let newer = see(VmState::Poweroff, "the driver failed");
        assert_eq!(newer.as_deref(), Some("the driver failed"));
    }

    #[test]
    fn a_state_holds_for_a_while_and_until_something_is_done() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert_eq!(memory.known(1, start), Known::Nothing);
        observe(&mut memory, start, vec![details(1, RUNNING)]);
        assert_eq!(memory.state(1, start + FRESH / 2), Some(RUNNING));
        assert_eq!(memory.state(1, start + FRESH), None);
        let at = start + FRESH / 4;
        let now = Now {
            instant: at,
            time: Time(0),
        };
        memory.did(1, now);
        assert_eq!(memory.state(1, start + FRESH / 2), None);
        observe(&mut memory, start + FRESH / 2, vec![details(1, RUNNING)]);
        assert_eq!(memory.state(1, start + FRESH / 2), Some(RUNNING));
    }

    #[test]
    fn an_end_is_shown_for_a_while_and_never_asked_for_again() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        observe(&mut memory, start, vec![details(1, RUNNING)]);
        assert_eq!(memory.to_ask(&[], ReadyBy::Slurm, start), [1]);
        observe(&mut memory, start, vec![details(1, VmState::Done)]);
        assert!(memory.to_ask(&[], ReadyBy::Slurm, start).is_empty());
        assert_eq!(memory.known(1, start), Known::Gone);
        observe(&mut memory, start + SHOW_ENDED / 2, vec![]);
        assert_eq!(memory.ours.len(), 1);
        observe(&mut memory, start + SHOW_ENDED, vec![]);
        assert_eq!((memory.ours.len(), memory.tags.len()), (0, 0));
    }

    #[test]
    fn what_was_made_after_a_listing_began_is_not_missing_from_it() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let tag = VmTag {
            cluster: cluster(),
            node: thiao_core::ids::NodeName::new("n1").unwrap(),
            generation: thiao_core::ids::Generation(1),
        };
        let later = start + Duration::from_secs(1);
        memory.made(
            &tag,
            1,
            Now {
                instant: later,
                time: Time(0),
            },
        );
        observe(&mut memory, start, vec![]);
        assert_eq!(memory.by_tag(&tag), Some(1));
        observe(&mut memory, later + Duration::from_secs(1), vec![]);
        assert_eq!(memory.by_tag(&tag), None);
    }

    #[test]
    fn a_guest_that_never_says_ready_is_not_asked_for_ever() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let rows = [details(1, RUNNING).row];
        observe(&mut memory, start, vec![details(1, RUNNING)]);
        assert_eq!(memory.to_ask(&rows, ReadyBy::OneGate, start), [1]);
        assert!(memory.to_ask(&rows, ReadyBy::Slurm, start).is_empty());
        assert!(
            memory
                .to_ask(&rows, ReadyBy::OneGate, start + AWAIT_READY)
                .is_empty()
        );
    }

    #[test]
    fn stories_are_bounded() {
        let mut memory = Memory::default();
        for id in 0..STORIES as u32 + 5 {
            memory.tell(id, Time(0), "made");
        }
        assert_eq!(memory.stories.len(), STORIES);
        assert!(memory.story(0).is_empty());
        for _ in 0..2 * MOMENTS {
            memory.tell(9, Time(0), "again");
        }
        assert_eq!(memory.story(9).len(), MOMENTS);
    }
}
