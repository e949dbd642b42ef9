//! What the planner decides, and why.

use crate::job::{JobId, Ms};

/// What becomes of a job. Where and how much, the [`crate::State`] says once it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Its VMs are made.
    Start,
    /// It gets another share of its hosts.
    Share,
    /// It stands still in memory.
    Pause,
    /// It goes on where it stands.
    Resume,
    /// Its memory is written away, its hosts have nothing of it left.
    Save,
    /// It is read back, anywhere.
    Restore,
    /// Some of its tasks go to other hosts.
    Move,
}

/// Why something is decided, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is CPU and memory for it.
    Fits,
    /// Its turn came in the order of its level.
    Turn {
        /// The level that it was on, from 0.
        level: u8,
    },
    /// What others leave is its.
    LeftOver,
    /// Jobs that have attained less need its hosts' CPU.
    GivesWay {
        /// To one of this level, or better.
        level: u8,
    },
    /// A job needs the memory.
    MemoryFor(JobId),
    /// It stood still for so long, and there is room elsewhere.
    Stalled {
        /// How long it had no CPU.
        for_: Ms,
    },
    /// It was shorter than what was left until the first in the queue can start.
    Backfilled,
    /// All jobs are packed anew.
    Repacked,
}

/// One decision about one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The job that it is about.
    pub job: JobId,
    /// What becomes of it.
    pub verb: Verb,
    /// Why, for people to be told.
    pub why: Why,
}
