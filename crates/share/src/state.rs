//! What is decided about each job, and what each host has left of it.

use crate::change::{Change, Verb, Why};
use crate::job::{Host, Job, JobId, Ms, Slot};
use crate::overheads::{Overheads, time};
use crate::progress::Progress;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has never been on a host.
    Waiting,
    /// It holds memory of its hosts; with an allocation of 0 it is paused.
    Resident,
    /// It is written away.
    Saved,
}

/// All about one job.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What Slurm knows of it.
    pub job: Job,
    /// Its place in the order of submission: the lower, the earlier.
    pub seq: u64,
    /// How far it is.
    pub progress: Progress,
    /// Whether it waits, has a place or is written away.
    pub standing: Standing,
    /// Where its tasks are, by host; empty unless it is resident.
    pub slots: Vec<Slot>,
    /// When its memory is all written, if it is saved.
    written: Ms,
    /// Pauses in place so far.
    pub pauses: u32,
    /// How often it was written away so far.
    pub saves: u32,
    /// How often it went to other hosts so far.
    pub moves: u32,
    /// Grows with each change of its allocation or place.
    pub version: u32,
}

impl Entry {
    /// Whether it makes progress, or will once a stall is over.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.progress.alloc() > 0
    }
}

/// What a host has promised.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// CPU that its residents have, paused ones none.
    pub cpu: u32,
    /// Memory that its residents hold, paused ones theirs, too.
    pub memory: u32,
    /// Until when its storage is busy, and until when it writes what is in the way of others.
    storage: Ms,
    freeing: Ms,
    /// Who is there, with how many tasks, in no order.
    pub residents: Vec<(JobId, u32)>,
}

/// Jobs and hosts, and the changes of the decision that is being made.
#[derive(Debug, Clone)]
pub struct State {
    hosts: Vec<Host>,
    loads: Vec<Load>,
    jobs: Vec<Option<Box<Entry>>>,
    next_seq: u64,
    overheads: Overheads,
    pub(crate) changes: Vec<Change>,
}

impl State {
    /// Of hosts without jobs.
    #[must_use]
    pub fn new(hosts: Vec<Host>, overheads: Overheads) -> Self {
        let loads = vec![Load::default(); hosts.len()];
        Self {
            hosts,
            loads,
            jobs: Vec::new(),
            next_seq: 0,
            overheads,
            changes: Vec::new(),
        }
    }

    /// What the hosts have.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What they have promised, in the same order.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The memory of a host that nobody holds.
    #[must_use]
    pub fn free_memory(&self, h: usize) -> u32 {
        self.hosts[h].memory - self.loads[h].memory
    }

    /// A job, unless it has ended.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<&Entry> {
        self.jobs.get(id.index())?.as_deref()
    }

    /// A job that is known not to have ended.
    ///
    /// # Panics
    /// If it has.
    #[must_use]
    pub fn job(&self, id: JobId) -> &Entry {
        self.jobs[id.index()].as_deref().expect("the job is known")
    }

    /// All jobs that have not ended, by their index.
    pub fn all(&self) -> impl Iterator<Item = (JobId, &Entry)> {
        let jobs = self.jobs.iter().enumerate();
        jobs.filter_map(|(index, entry)| Some((JobId(u32::try_from(index).ok()?), entry.as_deref()?)))
    }

    fn entry(&mut self, id: JobId) -> &mut Entry {
        self.jobs[id.index()].as_deref_mut().expect("the job is known")
    }

    pub(crate) fn submitted(&mut self, id: JobId, job: Job) {
        if self.jobs.len() <= id.index() {
            self.jobs.resize_with(id.index() + 1, || None);
        }
        let (progress, seq) = (Progress::new(job.cpu), self.next_seq);
        self.next_seq += 1;
        self.jobs[id.index()] = Some(Box::new(Entry {
            job,
            seq,
            progress,
            standing: Standing::Waiting,
            slots: Vec::new(),
            written: 0,
            pauses: 0,
            saves: 0,
            moves: 0,
            version: 0,
        }));
    }

    pub(crate) fn ended(&mut self, now: Ms, id: JobId) -> Option<Entry> {
        self.get(id)?;
        self.leave(now, id);
        self.jobs[id.index()].take().map(|entry| *entry)
    }

    pub(crate) fn started(&mut self, now: Ms, id: JobId) {
        if self.get(id).is_some_and(Entry::runs) {
            let entry = self.entry(id);
            entry.progress.set_stall(now, 0);
            entry.version += 1;
        }
    }

    pub(crate) fn measured(&mut self, now: Ms, id: JobId, attained: Ms) {
        if self.get(id).is_some() {
            let entry = self.entry(id);
            entry.progress.set_attained(now, attained);
            entry.version += 1;
        }
    }

    /// It is nowhere any more, and has nothing.
    fn leave(&mut self, now: Ms, id: JobId) {
        let entry = self.jobs[id.index()].as_deref_mut().expect("the job is known");
        let (alloc, memory) = (entry.progress.alloc(), entry.job.memory);
        entry.progress.set_alloc(now, 0);
        entry.version += 1;
        for slot in std::mem::take(&mut entry.slots) {
            let load = &mut self.loads[slot.host.index()];
            load.cpu -= alloc * slot.tasks;
            load.memory -= memory * slot.tasks;
            load.residents.retain(|(resident, _)| *resident != id);
        }
    }

    /// It is on these hosts, with an allocation.
    fn enter(&mut self, now: Ms, id: JobId, slots: Vec<Slot>, alloc: u32) {
        let entry = self.jobs[id.index()].as_deref_mut().expect("the job is known");
        debug_assert_eq!(slots.iter().map(|slot| slot.tasks).sum::<u32>(), entry.job.tasks);
        entry.progress.set_alloc(now, alloc);
        entry.version += 1;
        entry.standing = Standing::Resident;
        for slot in &slots {
            let load = &mut self.loads[slot.host.index()];
            load.cpu += alloc * slot.tasks;
            load.memory += entry.job.memory * slot.tasks;
            load.residents.push((id, slot.tasks));
        }
        entry.slots = slots;
    }

    fn note(&mut self, job: JobId, verb: Verb, why: Why) {
        self.changes.push(Change { job, verb, why });
    }

    /// A job that waits or is saved gets a place.
    pub(crate) fn place(&mut self, now: Ms, id: JobId, slots: Vec<Slot>, alloc: u32, why: Why) {
        let (verb, stall) = match self.job(id).standing {
            Standing::Waiting => (Verb::Start, self.freed(now, &slots) - now + self.overheads.boot),
            Standing::Saved | Standing::Resident => (Verb::Restore, self.read_back(now, id, &slots) - now),
        };
        self.enter(now, id, slots, alloc);
        self.entry(id).progress.set_stall(now, stall);
        self.note(id, verb, why);
    }

    /// When all memory is written that has to leave these hosts.
    fn freed(&self, now: Ms, slots: &[Slot]) -> Ms {
        slots
            .iter()
            .map(|slot| self.loads[slot.host.index()].freeing)
            .fold(now, Ms::max)
    }

    /// When a saved job's memory is read on all these hosts.
    fn read_back(&mut self, now: Ms, id: JobId, slots: &[Slot]) -> Ms {
        let entry = self.job(id);
        let (begin, memory) = (
            entry.written.max(self.freed(now, slots)),
            u64::from(entry.job.memory),
        );
        let mut end = begin;
        for slot in slots {
            let load = &mut self.loads[slot.host.index()];
            let takes = time(memory * u64::from(slot.tasks), self.overheads.storage);
            if takes > 0 {
                load.storage = load.storage.max(begin) + takes;
                end = end.max(load.storage);
            }
        }
        end + self.overheads.restore
    }

    /// Its hosts' storage writes a job's memory.
    fn write(&mut self, now: Ms, id: JobId) -> Ms {
        let entry = self.jobs[id.index()].as_deref().expect("the job is known");
        let mut end = now;
        for slot in &entry.slots {
            let load = &mut self.loads[slot.host.index()];
            let takes = time(
                u64::from(entry.job.memory) * u64::from(slot.tasks),
                self.overheads.storage,
            );
            load.storage = load.storage.max(now) + takes;
            load.freeing = load.freeing.max(load.storage);
            end = end.max(load.storage);
        }
        end
    }

    /// A resident job's allocation changes where it stands.
    pub(crate) fn share(&mut self, now: Ms, id: JobId, alloc: u32, why: Why) {
        let resume = self.overheads.resume;
        let entry = self.jobs[id.index()].as_deref_mut().expect("the job is known");
        let before = entry.progress.alloc();
        if before == alloc {
            return;
        }
        entry.progress.set_alloc(now, alloc);
        entry.version += 1;
        for slot in &entry.slots {
            let load = &mut self.loads[slot.host.index()];
            load.cpu = load.cpu - before * slot.tasks + alloc * slot.tasks;
        }
        let verb = match (before, alloc) {
            (_, 0) => {
                entry.pauses += 1;
                Verb::Pause
            }
            (0, _) => {
                let stall = entry.progress.stall(now) + resume;
                entry.progress.set_stall(now, stall);
                Verb::Resume
            }
            _ => Verb::Share,
        };
        self.note(id, verb, why);
    }

    /// A resident job is written away.
    pub(crate) fn save(&mut self, now: Ms, id: JobId, why: Why) {
        let written = self.write(now, id);
        self.leave(now, id);
        let entry = self.entry(id);
        entry.standing = Standing::Saved;
        entry.written = written;
        entry.saves += 1;
        self.note(id, Verb::Save, why);
    }

    /// A resident job goes to other hosts.
    pub(crate) fn relocate(&mut self, now: Ms, id: JobId, slots: Vec<Slot>, alloc: u32, why: Why) {
        let memory = u64::from(self.job(id).job.memory);
        let widest = self
            .job(id)
            .slots
            .iter()
            .map(|slot| slot.tasks)
            .max()
            .unwrap_or(0);
        let sent = time(memory * u64::from(widest), self.overheads.network) + self.overheads.moves;
        let stall = self.freed(now, &slots) - now + sent;
        self.leave(now, id);
        self.enter(now, id, slots, alloc);
        let entry = self.entry(id);
        entry.progress.set_stall(now, stall);
        entry.moves += 1;
        self.note(id, Verb::Move, why);
    }
}
