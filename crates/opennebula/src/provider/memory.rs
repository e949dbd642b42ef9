//! What is remembered between calls. Pure: time comes in, nothing is asked here.

use super::fold::{Given, Ours};
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
    /// VMs that were ours and that we may not see, and when oned said so.
    pub unseen: BTreeMap<u32, Instant>,
    /// VMs that were ours, and of which nobody knows yet whether they are gone.
    pub unasked: BTreeSet<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Our VMs as last seen, those that ended since and were not asked after too.
    pub ours: BTreeMap<u32, Ours>,
    /// VMs that were ours and that nothing shows, as they were seen last, until oned has said what became of them.
    pub missing: BTreeMap<u32, Ours>,
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
    /// Somebody has given it away.
    Given(Given),
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
            unseen,
            unasked,
        } = seen;
        let mut shown: BTreeMap<u32, VmRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        let unlisted =
            |vm: &&VmDetails| !shown.contains_key(&vm.row.id) && me.is_some_and(|me| me != vm.owner.0);
        let others = details.iter().filter(unlisted);
        let to = |vm: &VmDetails| (vm.row.id, Given::To(vm.owner.1.clone()));
        let mut given: BTreeMap<u32, Given> = others.map(to).collect();
        let ready = self.add(cluster, details, &mut shown);
        self.with_newer(&mut shown, began, now.instant);
        let listed: BTreeSet<u32> = shown.keys().copied().collect();
        let mut before = std::mem::take(&mut self.missing);
        before.append(&mut self.ours);
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
        for (id, vm) in before.into_iter().filter(|(id, _)| !listed.contains(id)) {
            let recent = |at: &Instant| now.instant.duration_since(*at) < SHOW_ENDED;
            if self.ended.get(&id).is_some_and(recent) {
                self.ours.insert(id, vm);
            } else if let Some(at) = unseen.get(&id) {
                self.keep_unseen(id, vm, *at, now);
            } else if unasked.contains(&id) {
                self.missing.insert(id, vm);
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
        (ready, given): (bool, Option<Given>),
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
            ours,
            missing,
            acted,
            made,
            ..
        } = self;
        // What was made after the listing began may be missing from it rightly.
        made.retain(|_, id| ours.contains_key(id) || acted.get(id).is_some_and(|at| *at >= began));
        let kept = ours.keys().chain(missing.keys()).chain(made.values());
        let kept: BTreeSet<u32> = kept.copied().collect();
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
        if let Some(given) = self.ours.get(&id).and_then(|vm| vm.given.clone()) {
            return Known::Given(given);
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
        self.missing.remove(&id);
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
    if let (Some(given), None) = (&is.given, was.and_then(|was| was.given.as_ref())) {
        news.push(format!("given to {given}"));
    }
    if is.ready && !was.is_some_and(|was| was.ready) {
        news.push("its guest says READY".to_owned());
    }
    news
}

#[cfg(test)]
mod tests;
