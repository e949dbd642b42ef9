//! EASY as the DFRS papers compare with it, host by host: to reproduce their figures.
//!
//! It differs from EASY in that a task takes a whole host, and that hosts are set aside by name when a job is first found
//! not to fit: those that are free last among those that are free in time. Jobs that end in time may use them meanwhile,
//! unless it is the program as it was released, which forgets that. Which of the free hosts a job gets decides how many are
//! left beside those set aside, so the figures hang on the order in which a set of the program's language gives them.

mod python;

use crate::change::Why;
use crate::job::{HostId, Job, JobId, Ms, Slot};
use crate::policy::PapersEasy;
use crate::state::{Entry, State};
use python::Table;
use std::collections::BTreeMap;

/// Hosts that were set aside.
#[derive(Debug, Clone)]
struct Reserved {
    for_: u64,
    when: Ms,
    hosts: Table,
}

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    how: PapersEasy,
    /// Who waits, by the order in which they came.
    waiting: BTreeMap<u64, JobId>,
    free: Table,
    /// When each host's last job ends, or ended.
    ends: Vec<Ms>,
    reserved: Option<Reserved>,
    /// Who has which hosts, by its place in the order.
    has: BTreeMap<u64, Table>,
    /// Who ended since the last decision.
    ended: Vec<u64>,
}

impl Deciding {
    /// Of hosts on which nobody is.
    pub fn new(how: PapersEasy, state: &State) -> Self {
        let hosts = state.hosts().len();
        Self {
            how,
            waiting: BTreeMap::new(),
            free: Table::of(0..hosts as u32),
            ends: vec![0; hosts],
            reserved: None,
            has: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    /// A job has come; it waits.
    pub fn submitted(&mut self, state: &State, id: JobId) {
        self.waiting.insert(state.job(id).seq, id);
    }

    /// A job is over, wherever it was.
    pub fn ended(&mut self, _id: JobId, entry: &Entry) {
        self.waiting.remove(&entry.seq);
        self.ended.push(entry.seq);
    }

    /// Gives places to whoever is to have one now.
    pub fn decide(&mut self, state: &mut State, now: Ms) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.sort_unstable();
        for seq in ended {
            if let Some(hosts) = self.has.remove(&seq) {
                self.free.unite(&Table::of(hosts.keys()));
            }
        }
        if let Some(due) = self.reserved.take_if(|reserved| reserved.when <= now) {
            self.free.subtract(&Table::of(due.hosts.keys()));
            self.start(state, now, due.for_, due.hosts, Why::Fits);
        }
        let mut beside = self
            .reserved
            .as_ref()
            .map(|reserved| self.free.without(&reserved.hosts));
        let waiting: Vec<(u64, JobId)> = self.waiting.iter().map(|(seq, id)| (*seq, *id)).collect();
        for (seq, id) in waiting {
            let job = state.job(id).job;
            let any = match &self.reserved {
                None => true,
                Some(reserved) if reserved.for_ == seq => continue,
                Some(reserved) => self.how == PapersEasy::Corrected && now + job.limit <= reserved.when,
            };
            let from = beside.as_ref().filter(|_| !any).unwrap_or(&self.free);
            if job.tasks as usize <= from.len() {
                let why = if self.reserved.is_some() {
                    Why::Backfilled
                } else {
                    Why::Fits
                };
                let taken = self.take(job.tasks, any, &mut beside);
                self.start(state, now, seq, Table::keys_of(&taken), why);
            } else if self.reserved.is_none() {
                self.reserve(seq, &job);
                beside = self
                    .reserved
                    .as_ref()
                    .map(|reserved| self.free.without(&reserved.hosts));
            }
        }
    }

    /// Takes hosts one by one: of all that are free, or of those beside the ones that were set aside.
    fn take(&mut self, tasks: u32, any: bool, beside: &mut Option<Table>) -> Table {
        let mut taken = Table::new();
        for _ in 0..tasks {
            let host = match beside.as_mut().filter(|_| !any) {
                Some(beside) => beside.pop(),
                None => self.free.pop(),
            };
            let Some(host) = host else { break };
            self.free.discard(host);
            if let Some(beside) = beside {
                beside.discard(host);
            }
            taken.add(host);
        }
        taken
    }

    fn start(&mut self, state: &mut State, now: Ms, seq: u64, hosts: Table, why: Why) {
        let Some(id) = self.waiting.remove(&seq) else {
            return;
        };
        let job = state.job(id).job;
        let mut slots = Vec::new();
        for host in hosts.keys() {
            self.ends[host as usize] = now.saturating_add(job.limit);
            slots.push(Slot {
                host: HostId(host),
                tasks: 1,
            });
        }
        self.has.insert(seq, hosts);
        state.place(now, id, slots, job.cpu, why);
    }

    /// Sets hosts aside for a job.
    fn reserve(&mut self, seq: u64, job: &Job) {
        let tasks = job.tasks as usize;
        let mut hosts: Vec<u32> = (0..self.ends.len() as u32).collect();
        hosts.sort_by_key(|host| (self.ends[*host as usize], *host));
        let Some(last) = hosts.get(tasks - 1) else { return };
        let when = self.ends[*last as usize];
        hosts.reverse();
        let in_time = hosts
            .into_iter()
            .skip_while(|host| self.ends[*host as usize] > when);
        let hosts = Table::of(in_time.take(tasks));
        self.reserved = Some(Reserved {
            for_: seq,
            when,
            hosts,
        });
    }
}
