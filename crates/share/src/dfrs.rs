//! Sharing by yields, as the DFRS papers have it: for comparison.
//!
//! A job's yield is the part of its need that it gets. Jobs on a host share its CPU so that the least yield is as great as
//! can be. Who comes finds hosts greedily, pausing others if it must; every so often everybody is packed anew. A paused
//! job leaves its hosts, and goes on anywhere. Hosts are taken to be alike.

mod fill;
mod pack;
mod tally;

use crate::change::Why;
use crate::job::{JobId, Ms, Slot};
use crate::policy::{Arrival, Dfrs};
use crate::state::{Entry, Standing, State};
use fill::Placed;
use pack::{Item, Packing};
use std::collections::BTreeMap;
use tally::Tally;

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    how: Dfrs,
    /// All jobs, by the order in which they came.
    jobs: BTreeMap<u64, JobId>,
    /// Where each is to be, by [`JobId`].
    places: Vec<Option<Vec<Slot>>>,
    tally: Tally,
    /// Who came since the last decision.
    arrived: Vec<JobId>,
    /// Somebody ended since then.
    ended: bool,
    /// Who is to give way to whom: it still has a place, and is not in the tally.
    marked: BTreeMap<JobId, JobId>,
    /// Everybody was packed anew in this decision.
    packed: bool,
    next: Option<Ms>,
}

/// The lower, the earlier it goes: by attained service squared for the time since it came.
type Rank = (u128, u64);

fn rank(state: &State, now: Ms, id: JobId) -> Rank {
    let entry = state.job(id);
    let attained = u128::from(entry.progress.attained(now));
    let since = u128::from(now.saturating_sub(entry.job.submit));
    ((attained * attained).checked_div(since).unwrap_or(0), entry.seq)
}

/// Who goes first comes first.
fn by_rank(state: &State, now: Ms, mut ids: Vec<JobId>) -> Vec<JobId> {
    ids.sort_by_cached_key(|id| rank(state, now, *id));
    ids
}

impl Deciding {
    /// Of hosts on which nobody is.
    pub fn new(how: Dfrs, state: &State) -> Self {
        Self {
            how,
            jobs: BTreeMap::new(),
            places: Vec::new(),
            tally: Tally::new(state.hosts()),
            arrived: Vec::new(),
            ended: false,
            marked: BTreeMap::new(),
            packed: false,
            next: None,
        }
    }

    /// A job has come; it waits.
    pub fn submitted(&mut self, state: &State, id: JobId) {
        self.jobs.insert(state.job(id).seq, id);
        if self.places.len() <= id.index() {
            self.places.resize(id.index() + 1, None);
        }
        self.arrived.push(id);
    }

    /// A job is over, wherever it was.
    pub fn ended(&mut self, id: JobId, entry: &Entry) {
        self.jobs.remove(&entry.seq);
        self.arrived.retain(|arrived| *arrived != id);
        if let Some(slots) = self.places[id.index()].take() {
            self.tally.remove(&entry.job, &slots);
        }
        self.ended = true;
    }

    /// When everybody is to be packed anew.
    pub fn next(&self) -> Option<Ms> {
        self.next
    }

    /// Gives places to whoever is to have one now.
    pub fn decide(&mut self, state: &mut State, now: Ms) {
        let period = self.how.period.filter(|period| *period > 0);
        let due = period.is_some_and(|period| now.is_multiple_of(period));
        let (arrived, ended) = (std::mem::take(&mut self.arrived), std::mem::take(&mut self.ended));
        self.packed = match self.how.arrival {
            Arrival::Pack => due || !arrived.is_empty() || (ended && self.how.retry),
            Arrival::Wait | Arrival::Greedy | Arrival::Pause | Arrival::Move => due,
        };
        if self.packed {
            self.pack(state, now);
        } else {
            for id in arrived {
                self.arrive(state, now, id);
            }
        }
        if self.how.arrival != Arrival::Pack {
            self.second_chance(state, now);
        }
        self.apply(state, now);
        let period = period.filter(|_| !self.jobs.is_empty());
        self.next = period.map(|period| (now / period + 1) * period);
    }

    fn place(&mut self, state: &State, id: JobId) -> bool {
        let slots = self.tally.greedy(&state.job(id).job);
        let found = slots.is_some();
        if found {
            self.places[id.index()] = slots;
        }
        found
    }

    fn arrive(&mut self, state: &State, now: Ms, id: JobId) {
        match self.how.arrival {
            Arrival::Wait | Arrival::Pack => {}
            Arrival::Greedy => {
                self.place(state, id);
            }
            Arrival::Pause | Arrival::Move => self.make_room(state, now, id),
        }
    }

    /// Marks whose turn is last until a job fits; who still fits where it is goes unmarked again.
    fn make_room(&mut self, state: &State, now: Ms, id: JobId) {
        let mut victims = None;
        while !self.place(state, id) {
            let victims = victims.get_or_insert_with(|| {
                let placed = |id: &JobId| self.places[id.index()].is_some() && !self.marked.contains_key(id);
                by_rank(state, now, self.jobs.values().copied().filter(placed).collect())
            });
            let Some(victim) = victims.pop() else { break };
            if let Some(slots) = &self.places[victim.index()] {
                self.tally.remove(&state.job(victim).job, slots);
            }
            self.marked.insert(victim, id);
        }
        for marked in by_rank(state, now, self.marked.keys().copied().collect()) {
            let (job, Some(slots)) = (&state.job(marked).job, &self.places[marked.index()]) else {
                continue;
            };
            if self.tally.holds(job, slots) {
                self.tally.add(job, slots);
                self.marked.remove(&marked);
            }
        }
    }

    /// After all that happened: who is marked may go elsewhere, who waits is tried again; then who is marked leaves.
    fn second_chance(&mut self, state: &State, now: Ms) {
        if self.how.arrival == Arrival::Move {
            for id in by_rank(state, now, self.marked.keys().copied().collect()) {
                if self.place(state, id) {
                    self.marked.remove(&id);
                }
            }
        }
        if self.how.retry {
            // Places only become fewer here: who does not fit at first never will.
            let fits = |id: &JobId| self.places[id.index()].is_none() && self.tally.fits(&state.job(*id).job);
            for id in by_rank(state, now, self.jobs.values().copied().filter(fits).collect()) {
                self.place(state, id);
            }
        }
        for id in self.marked.keys() {
            self.places[id.index()] = None;
        }
    }

    /// Packs everybody anew, or as many as can be.
    fn pack(&mut self, state: &State, now: Ms) {
        let mut ranked = by_rank(state, now, self.jobs.values().copied().collect());
        let memory = |id: &JobId| u64::from(state.job(*id).job.tasks) * u64::from(state.job(*id).job.memory);
        let mut total: u64 = ranked.iter().map(memory).sum();
        let capacity = state.hosts().iter().map(|host| u64::from(host.memory)).sum();
        while total > capacity
            && let Some(last) = ranked.pop()
        {
            total -= memory(&last);
        }
        let item = |id: &JobId| {
            let (entry, place) = (state.job(*id), &self.places[id.index()]);
            let kept = place
                .as_deref()
                .filter(|_| entry.progress.attained(now) < self.how.keep);
            let job = &entry.job;
            Item {
                seq: entry.seq,
                tasks: job.tasks,
                cpu: job.cpu,
                memory: job.memory,
                kept,
            }
        };
        let mut packing = Packing::new(state.hosts(), ranked.iter().map(item).collect());
        let mut found = None;
        while packing.len() > 0 && found.is_none() {
            found = packing.search();
            packing.pop();
        }
        self.places.fill(None);
        self.tally.clear();
        for (id, slots) in ranked.iter().zip(found.unwrap_or_default()) {
            self.tally.add(&state.job(*id).job, &slots);
            self.places[id.index()] = Some(slots);
        }
    }

    /// Gives everybody who has a place its CPU, and says what changed.
    fn apply(&mut self, state: &mut State, now: Ms) {
        let marked = std::mem::take(&mut self.marked);
        let why = |id: &JobId| match marked.get(id) {
            Some(for_) => Why::MemoryFor(*for_),
            None if self.packed => Why::Repacked,
            None => Why::Fits,
        };
        let (mut ids, mut placed) = (Vec::new(), Vec::new());
        for id in self.jobs.values() {
            match &self.places[id.index()] {
                Some(slots) => {
                    ids.push(*id);
                    placed.push(Placed {
                        cpu: state.job(*id).job.cpu,
                        slots,
                    });
                }
                None if state.job(*id).standing == Standing::Resident => state.save(now, *id, why(id)),
                None => {}
            }
        }
        let allocs = fill::fill(state.hosts(), self.tally.need(), &placed);
        for ((id, alloc), Placed { slots, .. }) in ids.iter().zip(allocs).zip(&placed) {
            let entry = state.job(*id);
            match entry.standing {
                Standing::Resident if entry.slots == *slots => state.share(now, *id, alloc, Why::LeftOver),
                Standing::Resident => state.relocate(now, *id, slots.to_vec(), alloc, why(id)),
                Standing::Waiting | Standing::Saved => state.place(now, *id, slots.to_vec(), alloc, why(id)),
            }
        }
    }
}
