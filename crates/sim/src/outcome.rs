//! How a run ended: well, or with what broke.

use crate::faults::{Fault, Hit, Tally};
use std::fmt;
use thiao_core::ids::Millis;

/// How a run ended, when it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// When all was done and quiet, since the start: what was simulated.
    pub took: Millis,
    /// Jobs that are over; of an array each task.
    pub jobs: usize,
    /// Rounds of the controller.
    pub rounds: u64,
    /// How often an invariant was asked for.
    pub checks: u64,
    /// What went wrong how often.
    pub faults: Vec<(Fault, Tally)>,
    /// VMs that were made.
    pub created: usize,
    /// Writes of its journal.
    pub writes: u64,
    /// Kills of the controller.
    pub kills: usize,
    /// How often Slurm's ResumeTimeout ended a resume.
    pub resume_timeouts: u32,
    /// How often each node was set DOWN by us, in all.
    pub downs: usize,
}

/// What must hold, after every step or in the end. The numbers are those of ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// 1: an order counts once.
    OrdersCountOnce,
    /// 1: what was kept is there after a restart.
    NothingKeptIsLost,
    /// 1 and 2: what is executed was kept before.
    KeptBeforeDone,
    /// 2: no node has two VMs.
    OneVmPerNode,
    /// 3: no running job loses its VM to us.
    NoJobLost,
    /// 3, in job mode: a VM runs the one job that it was made for, and has its size.
    OneJobPerVm,
    /// 4: what is not ours is left alone.
    OthersLeftAlone,
    /// 5: what could not be seen is no reason to act.
    NoActOnFailedObservation,
    /// 6: once nothing goes wrong any more, every job ends, and nothing is left over.
    AllEndsWell,
    /// 6: what cannot be backed is told before Slurm gives up on it by itself.
    ToldInTime,
    /// 6: a slurmd starts when slurmctld hears it.
    Heard,
    /// 6: no node fails for want of what idle VMs hold.
    GivesWay,
    /// 7: the caps on VMs hold.
    Bounded,
    /// 8: who gets no VM is told why.
    Explained,
    /// The linter lets all pass that the planner plans.
    PlansAreSound,
    /// Neither the controller nor the simulation itself panics.
    NoPanic,
}

impl Invariant {
    /// A stable word for people and programs, with its number.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Invariant::OrdersCountOnce => "1-orders-count-once",
            Invariant::NothingKeptIsLost => "1-nothing-kept-is-lost",
            Invariant::KeptBeforeDone => "1-kept-before-done",
            Invariant::OneVmPerNode => "2-one-vm-per-node",
            Invariant::NoJobLost => "3-no-job-lost",
            Invariant::OneJobPerVm => "3-one-job-per-vm",
            Invariant::OthersLeftAlone => "4-others-left-alone",
            Invariant::NoActOnFailedObservation => "5-no-act-on-a-failed-observation",
            Invariant::AllEndsWell => "6-all-ends-well",
            Invariant::ToldInTime => "6-told-in-time",
            Invariant::Heard => "6-heard",
            Invariant::GivesWay => "6-gives-way",
            Invariant::Bounded => "7-bounded",
            Invariant::Explained => "8-explained",
            Invariant::PlansAreSound => "plans-are-sound",
            Invariant::NoPanic => "no-panic",
        }
    }
}

/// A broken invariant, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub invariant: Invariant,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.key(), self.what)
    }
}

/// A broken invariant, and what led to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    pub broken: Broken,
    /// How the run went until then.
    pub run: Box<Summary>,
    /// What happened before, oldest first.
    pub story: Vec<String>,
    /// Faults that struck before, oldest first.
    pub hits: Vec<Hit>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        write!(f, "BROKEN: {}", self.broken)
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Violation {}
