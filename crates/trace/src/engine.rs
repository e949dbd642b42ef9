//! A workload under a policy: from event to event, so that an hour in which nothing happens costs nothing.

use crate::what_if::WhatIf;
use crate::workload::Workload;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thiao_share::{Change, Event, Host, Job, JobId, Ms, Overheads, Planner, Policy, State};

/// How the world is, beside the workload.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The policy that decides.
    pub policy: Policy,
    /// What its decisions cost.
    pub overheads: Overheads,
    /// The planner is told the run time in place of the time limit.
    pub exact: bool,
    /// All hosts are one, with memory for everybody: how schedulers that know neither are simulated.
    pub pool: bool,
    /// Which moments there are.
    pub clock: Clock,
    /// What happens at one moment.
    pub order: Order,
    /// What is other than in the log.
    pub what_if: WhatIf,
}

/// Which moments there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Whole milliseconds, as the planner reckons.
    Millis,
    /// Whole seconds, with the rounding of the DFRS papers' simulator.
    Seconds,
}

/// In which order things of one moment are told, and how often the planner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Jobs end, then jobs come; then the planner is asked once.
    Together,
    /// Jobs come, then jobs end; the planner is asked after each.
    OneByOne,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// When it was first placed.
    pub start: Ms,
    /// When it had attained its run time.
    pub end: Ms,
    /// How often it was paused in place.
    pub pauses: u32,
    /// How often it was written away.
    pub saves: u32,
    /// How often it went to other hosts.
    pub moves: u32,
}

/// What came of a workload.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Of each job, in the workload's order.
    pub jobs: Vec<Ended>,
    /// CPU given, in the host's unit times milliseconds.
    pub given: u128,
    /// CPU that jobs could have used, at most what there is, likewise.
    pub wanted: u128,
    /// How often the planner was asked.
    pub decisions: u64,
}

/// Sees what is decided.
pub trait Watch {
    /// The planner was asked at `now`; these are its changes, and the state after them.
    fn decided(&mut self, now: Ms, state: &State, changes: &[Change], index_of: &dyn Fn(JobId) -> usize);
}

/// Nobody watches: the outcome is all that is wanted.
impl Watch for () {
    fn decided(&mut self, _: Ms, _: &State, _: &[Change], _: &dyn Fn(JobId) -> usize) {}
}

/// A job's end as it was reckoned: of the workload's job, by its index; of no use once that has another job, or the job's
/// version is another. Of ends at one moment that comes first which was reckoned first.
type End = Reverse<(Ms, u64, u32, JobId, u32)>;

struct Engine<'a> {
    workload: &'a Workload,
    setup: &'a Setup,
    planner: Planner,
    /// Which job of the workload has an index, and which are free.
    of: Vec<u32>,
    free: Vec<JobId>,
    arrived: usize,
    ends: BinaryHeap<End>,
    reckoned: u64,
    outcome: Outcome,
    started: Vec<bool>,
    now: Ms,
    capacity: u64,
    given: u64,
    wanted: u64,
}

/// Runs the workload to its end.
///
/// # Errors
/// If some job can never run, or the policy leaves jobs waiting for ever.
pub fn run(workload: &Workload, setup: &Setup, watch: &mut dyn Watch) -> anyhow::Result<Outcome> {
    let hosts = if setup.pool {
        vec![Host {
            cpu: workload.host.cpu * workload.hosts,
            memory: u32::MAX,
        }]
    } else {
        vec![workload.host; workload.hosts as usize]
    };
    let mut engine = Engine {
        workload,
        setup,
        planner: Planner::new(&setup.policy, hosts, setup.overheads),
        of: Vec::new(),
        free: Vec::new(),
        arrived: 0,
        ends: BinaryHeap::new(),
        reckoned: 0,
        outcome: Outcome {
            jobs: vec![Ended::default(); workload.jobs.len()],
            ..Outcome::default()
        },
        started: vec![false; workload.jobs.len()],
        now: 0,
        capacity: u64::from(workload.host.cpu) * u64::from(workload.hosts),
        given: 0,
        wanted: 0,
    };
    let mut left = workload.jobs.len();
    while left > 0 {
        let Some(now) = engine.next() else {
            anyhow::bail!("{left} jobs of {} wait for ever under this policy", workload.name)
        };
        engine.pass(now);
        left -= match setup.order {
            Order::Together => engine.together(watch),
            Order::OneByOne => engine.one(watch),
        };
    }
    Ok(engine.outcome)
}

impl Engine<'_> {
    fn arrival(&self) -> Option<Ms> {
        self.workload.jobs.get(self.arrived).map(|job| job.submit * 1000)
    }

    /// The next end that is still true.
    fn ending(&mut self) -> Option<(Ms, JobId)> {
        while let Some(Reverse((when, _, index, id, version))) = self.ends.peek().copied() {
            let known = self
                .planner
                .state()
                .get(id)
                .is_some_and(|entry| entry.version == version);
            if known && self.of[id.index()] == index {
                return Some((when, id));
            }
            self.ends.pop();
        }
        None
    }

    fn next(&mut self) -> Option<Ms> {
        let ending = self.ending().map(|(when, _)| when);
        let asked = self.planner.next().map(|when| when.max(self.now));
        [self.arrival(), ending, asked].into_iter().flatten().min()
    }

    /// Time passes until `now`, and what was given meanwhile is summed up.
    fn pass(&mut self, now: Ms) {
        let span = u128::from(now - self.now);
        self.outcome.given += span * u128::from(self.given);
        self.outcome.wanted += span * u128::from(self.wanted.min(self.capacity));
        self.now = now;
    }

    fn come(&mut self) {
        let index = self.arrived;
        let job = &self.workload.jobs[index];
        self.arrived += 1;
        let id = self.free.pop().unwrap_or_else(|| {
            self.of.push(0);
            JobId(self.of.len() as u32 - 1)
        });
        self.of[id.index()] = index as u32;
        let limit = if self.setup.exact { job.run } else { job.limit };
        let told = Job {
            submit: job.submit * 1000,
            tasks: job.tasks,
            cpu: self.setup.what_if.cpu_of(job),
            memory: if self.setup.pool { 0 } else { job.memory },
            limit: limit * 1000,
            priority: 0,
            pausable: !self.setup.what_if.is_fixed(job),
            movable: !self.setup.what_if.is_fixed(job),
        };
        self.wanted += told.demand();
        self.planner.fold(self.now, Event::Submitted(id, told));
    }

    fn end(&mut self, id: JobId) {
        let entry = self.planner.state().job(id);
        let ended = &mut self.outcome.jobs[self.of[id.index()] as usize];
        ended.end = self.now;
        (ended.pauses, ended.saves, ended.moves) = (entry.pauses, entry.saves, entry.moves);
        self.wanted -= entry.job.demand();
        self.planner.fold(self.now, Event::Ended(id));
        self.free.push(id);
    }

    /// All of this moment, then the planner once; says how many jobs ended.
    fn together(&mut self, watch: &mut dyn Watch) -> usize {
        let mut ended = 0;
        while let Some((when, id)) = self.ending()
            && when <= self.now
        {
            self.end(id);
            ended += 1;
        }
        while self.arrival().is_some_and(|when| when <= self.now) {
            self.come();
        }
        self.decide(watch);
        ended
    }

    /// One thing of this moment, then the planner.
    fn one(&mut self, watch: &mut dyn Watch) -> usize {
        let mut ended = 0;
        if self.arrival().is_some_and(|when| when <= self.now) {
            self.come();
        } else if let Some((when, id)) = self.ending()
            && when <= self.now
        {
            self.end(id);
            ended = 1;
        }
        self.decide(watch);
        ended
    }

    fn decide(&mut self, watch: &mut dyn Watch) {
        self.outcome.decisions += 1;
        let changes = self.planner.decide(self.now).to_vec();
        let state = self.planner.state();
        for change in &changes {
            let entry = state.job(change.job);
            let index = self.of[change.job.index()];
            if !self.started[index as usize] {
                self.started[index as usize] = true;
                self.outcome.jobs[index as usize].start = self.now;
            }
            let goal = self.workload.jobs[index as usize].run * 1000;
            let end = match self.setup.clock {
                Clock::Millis => entry.progress.reaches(goal),
                Clock::Seconds => entry.progress.reaches_by_seconds(goal),
            };
            if let Some(end) = end {
                self.reckoned += 1;
                self.ends
                    .push(Reverse((end, self.reckoned, index, change.job, entry.version)));
            }
        }
        self.given = state.loads().iter().map(|load| u64::from(load.cpu)).sum();
        watch.decided(self.now, state, &changes, &|id| self.of[id.index()] as usize);
    }
}
