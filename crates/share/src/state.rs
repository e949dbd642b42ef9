//! What is decided about each job, and what each host has left of it.

use crate::change::{Change, Verb, Why};
use crate::job::{Host, Job, JobId, Ms, Slot};
use crate::progress::Progress;

/// How long what is decided takes: the job makes no progress meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overheads {
    /// Until a new VM runs.
    pub boot: Ms,
    /// To go on after a pause in place.
    pub resume: Ms,
    /// To go on after a save, on whatever host.
    pub restore: Ms,
    /// To go on on another host.
    pub moves: Ms,
}

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
    /// What Slurm knows.
    pub job: Job,
    /// Its place in the order of submission: the lower, the earlier.
    pub seq: u64,
    /// How far it is.
    pub progress: Progress,
    /// How it stands.
    pub standing: Standing,
    /// Where its tasks are, by host; empty unless it is resident.
    pub slots: Vec<Slot>,
    /// Pauses in place so far.
    pub pauses: u32,
    /// Saves so far.
    pub saves: u32,
    /// Moves so far.
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
    /// CPU.
    pub cpu: u32,
    /// Memory.
    pub memory: u32,
    /// Who is there, with how many tasks, in no order.
    pub residents: Vec<(JobId, u32)>,
}

/// Jobs and hosts.
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
            Standing::Waiting => (Verb::Start, self.overheads.boot),
            Standing::Saved | Standing::Resident => (Verb::Restore, self.overheads.restore),
        };
        self.enter(now, id, slots, alloc);
        self.entry(id).progress.set_stall(now, stall);
        self.note(id, verb, why);
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
        self.leave(now, id);
        let entry = self.entry(id);
        entry.standing = Standing::Saved;
        entry.saves += 1;
        self.note(id, Verb::Save, why);
    }

    /// A resident job goes to other hosts.
    pub(crate) fn relocate(&mut self, now: Ms, id: JobId, slots: Vec<Slot>, alloc: u32, why: Why) {
        self.leave(now, id);
        self.enter(now, id, slots, alloc);
        let stall = self.overheads.moves;
        let entry = self.entry(id);
        entry.progress.set_stall(now, stall);
        entry.moves += 1;
        self.note(id, Verb::Move, why);
    }
}
