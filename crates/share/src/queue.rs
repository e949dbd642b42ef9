//! Jobs in the order in which they came; some may pass the first.
//!
//! With one host this is EASY to the letter: the first in the queue has a reservation at the earliest moment at which it
//! fits by the others' limits; who ends by then, or fits beside it, may pass. With several hosts the reservation is of
//! room on some of them, and "beside it" is meant for each host.

mod waiting;

use crate::change::Why;
use crate::job::{HostId, Job, JobId, Ms, Slot};
use crate::policy::{Backfill, Overdue, Queue};
use crate::state::{Entry, State};
use std::collections::{BTreeMap, BTreeSet};
use waiting::{Key, Need, NoRoom, Waiting};

/// What a host has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    cpu: u64,
    memory: u64,
}

impl Room {
    /// How many of a job's tasks have room, at most all of them.
    fn tasks(self, job: &Job) -> u32 {
        let by_cpu = self.cpu / u64::from(job.cpu);
        let by_memory = if job.memory == 0 {
            u64::MAX
        } else {
            self.memory / u64::from(job.memory)
        };
        by_cpu.min(by_memory).min(u64::from(job.tasks)) as u32
    }

    fn take(&mut self, job: &Job, tasks: u32) {
        self.cpu -= u64::from(tasks) * u64::from(job.cpu);
        self.memory -= u64::from(tasks) * u64::from(job.memory);
    }

    fn give(&mut self, job: &Job, tasks: u32) {
        self.cpu += u64::from(tasks) * u64::from(job.cpu);
        self.memory += u64::from(tasks) * u64::from(job.memory);
    }

    /// As much as both rooms have.
    fn common(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
        }
    }
}

/// The first hosts that have room for all tasks, as full as they get.
fn first_fit(job: &Job, hosts: impl Iterator<Item = (usize, Room)>) -> Option<Vec<Slot>> {
    let (mut slots, mut left) = (Vec::new(), job.tasks);
    for (host, room) in hosts {
        let tasks = room.tasks(job).min(left);
        if tasks > 0 {
            slots.push(Slot {
                host: HostId(host as u32),
                tasks,
            });
            left -= tasks;
        }
        if left == 0 {
            return Some(slots);
        }
    }
    None
}

/// A running job: where, and until when as far as is known.
#[derive(Debug, Clone)]
struct Run {
    end: Ms,
    seq: u64,
    job: Job,
    slots: Vec<Slot>,
}

/// What the first in the queue can count on.
struct Reservation {
    /// The moment at which it fits.
    when: Ms,
    /// What is left of the hosts then, with it on them.
    beside: Vec<Room>,
    /// The CPU of all that.
    cpu: u64,
}

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    how: Queue,
    /// By their order, and as they are searched.
    order: BTreeMap<u64, JobId>,
    waiting: Waiting,
    /// By [`JobId`]; those whose end counts as come are in `runs` no more.
    runs: Vec<Option<Run>>,
    by_end: BTreeSet<(Ms, u64, JobId)>,
    rooms: Vec<Room>,
    /// CPU of all rooms.
    cpu: u64,
    /// Something happened by which somebody could start.
    ask: bool,
}

impl Deciding {
    /// Of hosts on which nobody is.
    pub fn new(how: Queue, state: &State) -> Self {
        let rooms: Vec<Room> = state
            .hosts()
            .iter()
            .map(|host| Room {
                cpu: u64::from(host.cpu),
                memory: u64::from(host.memory),
            })
            .collect();
        Self {
            how,
            order: BTreeMap::new(),
            waiting: Waiting::default(),
            runs: Vec::new(),
            by_end: BTreeSet::new(),
            cpu: rooms.iter().map(|room| room.cpu).sum(),
            rooms,
            ask: false,
        }
    }

    fn key(&self, job: &Job, seq: u64) -> Key {
        match self.how.backfill {
            Backfill::ShortestFirst => (job.limit, seq),
            Backfill::Never | Backfill::InOrder => (0, seq),
        }
    }

    /// A job has come; it waits.
    pub fn submitted(&mut self, state: &State, id: JobId) {
        let entry = state.job(id);
        let (job, seq) = (&entry.job, entry.seq);
        self.order.insert(seq, id);
        if self.how.backfill != Backfill::Never {
            self.waiting.insert(self.key(job, seq), id, Need::of(job));
        }
        self.release(job.submit);
        self.ask = self.ask || self.fit(job).is_some();
    }

    /// A job is over, wherever it was.
    pub fn ended(&mut self, id: JobId, entry: &Entry) {
        if self.order.remove(&entry.seq).is_some() {
            self.waiting.remove(self.key(&entry.job, entry.seq));
        }
        if let Some(run) = self.runs.get_mut(id.index()).and_then(Option::take) {
            self.by_end.remove(&(run.end, run.seq, id));
            self.give(&run);
        }
        self.ask = true;
    }

    fn give(&mut self, run: &Run) {
        for slot in &run.slots {
            self.rooms[slot.host.index()].give(&run.job, slot.tasks);
        }
        self.cpu += run.job.demand();
    }

    /// Whose end must have come by `now` counts as gone, if the policy says so.
    fn release(&mut self, now: Ms) {
        if self.how.overdue == Overdue::Stays {
            return;
        }
        while let Some(&(end, _, id)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            if let Some(run) = self.runs[id.index()].take() {
                self.give(&run);
            }
        }
    }

    fn fit(&self, job: &Job) -> Option<Vec<Slot>> {
        if job.demand() > self.cpu {
            return None;
        }
        first_fit(job, self.rooms.iter().copied().enumerate())
    }

    fn start(&mut self, state: &mut State, now: Ms, id: JobId, slots: Vec<Slot>, why: Why) {
        let entry = state.job(id);
        let (job, seq) = (entry.job, entry.seq);
        self.order.remove(&seq);
        if self.how.backfill != Backfill::Never {
            self.waiting.remove(self.key(&job, seq));
        }
        for slot in &slots {
            self.rooms[slot.host.index()].take(&job, slot.tasks);
        }
        self.cpu -= job.demand();
        let end = now.saturating_add(job.limit);
        self.by_end.insert((end, seq, id));
        if self.runs.len() <= id.index() {
            self.runs.resize(id.index() + 1, None);
        }
        self.runs[id.index()] = Some(Run {
            end,
            seq,
            job,
            slots: slots.clone(),
        });
        state.place(now, id, slots, job.cpu, why);
    }

    /// Gives places to whoever is to have one now.
    pub fn decide(&mut self, state: &mut State, now: Ms) {
        if !std::mem::take(&mut self.ask) {
            return;
        }
        self.release(now);
        while let Some((_, &first)) = self.order.first_key_value() {
            let job = state.job(first).job;
            let Some(slots) = self.fit(&job) else {
                match self.how.backfill {
                    Backfill::Never => {}
                    Backfill::InOrder | Backfill::ShortestFirst => self.backfill(state, now, first, &job),
                }
                return;
            };
            self.start(state, now, first, slots, Why::Fits);
        }
    }

    /// When the first fits by the others' limits, and what is left beside it then.
    fn reserve(&self, now: Ms, job: &Job) -> Reservation {
        let mut beside = self.rooms.clone();
        let mut fitting: u64 = beside.iter().map(|room| u64::from(room.tasks(job))).sum();
        let mut when = None;
        for &(end, _, id) in &self.by_end {
            let end = end.max(now);
            if when.is_some_and(|when| when < end) {
                break;
            }
            let Some(run) = &self.runs[id.index()] else {
                continue;
            };
            for slot in &run.slots {
                let room = &mut beside[slot.host.index()];
                fitting -= u64::from(room.tasks(job));
                room.give(&run.job, slot.tasks);
                fitting += u64::from(room.tasks(job));
            }
            if fitting >= u64::from(job.tasks) {
                when = Some(end);
            }
        }
        let Some(when) = when else {
            // It is too big for the hosts: whoever passes takes nothing from it.
            return Reservation {
                when: Ms::MAX,
                cpu: self.cpu,
                beside,
            };
        };
        // Hosts that are of no use to it now come first, so that the others are left to those who fit now.
        let all = || beside.iter().copied().enumerate();
        let later = all().filter(|(host, room)| *room != self.rooms[*host]);
        let same = all().filter(|(host, room)| *room == self.rooms[*host]);
        let slots = first_fit(job, later.chain(same)).unwrap_or_default();
        for slot in slots {
            beside[slot.host.index()].take(job, slot.tasks);
        }
        Reservation {
            when,
            cpu: beside.iter().map(|room| room.cpu).sum(),
            beside,
        }
    }

    fn backfill(&mut self, state: &mut State, now: Ms, first: JobId, job: &Job) {
        let cpu = self.cpu;
        if self.waiting.next(None, &|need| need.total <= cpu).is_none() {
            return;
        }
        let mut reservation = self.reserve(now, job);
        // For whom there was no room, now or beside the first: there will be none for who needs more, since room only
        // becomes less here.
        let (mut none_now, mut none_beside) = (NoRoom::default(), NoRoom::default());
        let mut after = None;
        loop {
            let (cpu, beside, when) = (self.cpu, reservation.cpu, reservation.when);
            let in_time = |need: &Need| now.saturating_add(need.limit) <= when;
            let passes = |need: Need| {
                need.total <= cpu
                    && none_now.allows(&need)
                    && (in_time(&need) || need.total <= beside && none_beside.allows(&need))
            };
            let Some((key, id)) = self.waiting.next(after, &passes) else {
                return;
            };
            after = Some(key);
            if id == first {
                continue;
            }
            let job = state.job(id).job;
            let need = Need::of(&job);
            if in_time(&need) {
                match self.fit(&job) {
                    Some(slots) => self.start(state, now, id, slots, Why::Backfilled),
                    None => none_now.add(need),
                }
                continue;
            }
            match self.fit_beside(&job, &reservation.beside) {
                Some(slots) => {
                    for slot in &slots {
                        reservation.beside[slot.host.index()].take(&job, slot.tasks);
                    }
                    reservation.cpu -= job.demand();
                    self.start(state, now, id, slots, Why::Backfilled);
                }
                None => none_beside.add(need),
            }
        }
    }

    /// Room that is there now, and will not be needed by the first.
    fn fit_beside(&self, job: &Job, beside: &[Room]) -> Option<Vec<Slot>> {
        let rooms = self
            .rooms
            .iter()
            .zip(beside)
            .map(|(room, beside)| room.common(*beside));
        first_fit(job, rooms.enumerate())
    }
}
