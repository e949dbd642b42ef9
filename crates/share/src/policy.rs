//! The policies, as values.

use crate::job::Ms;

/// How it is decided who runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Jobs have their CPU for themselves, in the order in which they came.
    Queue(Queue),
    /// Who has attained little goes first, what is left over is shared.
    Levels(Levels),
    /// The EASY that the DFRS papers compare with, to reproduce their figures: nothing else should use it.
    PapersEasy(PapersEasy),
    /// All share by equal yields, as the DFRS papers have it.
    Dfrs(Dfrs),
}

/// Jobs in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Who may pass the first in the queue.
    pub backfill: Backfill,
    /// What a job counts as once its limit is over.
    pub overdue: Overdue,
}

impl Queue {
    /// As it can be done with real jobs: none is taken for gone before it is.
    #[must_use]
    pub const fn new(backfill: Backfill) -> Self {
        Self {
            backfill,
            overdue: Overdue::Stays,
        }
    }

    /// As the published schedules were simulated.
    #[must_use]
    pub const fn published(backfill: Backfill) -> Self {
        Self {
            backfill,
            overdue: Overdue::Gone,
        }
    }
}

/// What a job counts as once its limit is over and its end was not told yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// It is still there.
    Stays,
    /// It is gone: so it is in the simulations of the literature, where jobs come before others end in the same second.
    Gone,
}

/// Who may pass the first in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// Nobody: first come, first served.
    Never,
    /// Who does not delay it, in the order of the queue (EASY).
    InOrder,
    /// Who does not delay it, the shortest first (EASY-SJBF).
    ShortestFirst,
}

/// The EASY that the DFRS papers compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PapersEasy {
    /// As their program was released: nobody passes the first in the queue on hosts that were set aside for it, not even
    /// who would be gone in time. A comparison with nothing, which that language finds false, is the cause.
    Released,
    /// With that one comparison corrected.
    Corrected,
}

/// The constants of sharing by levels of attained service. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Where one level ends and the next begins, in attained service.
    pub bounds: Vec<Ms>,
    /// A job of which at most this many times a bound is left is not behind that bound any more.
    pub nearly: u32,
    /// Within a level a job is as late as this many times what is left of its limit after its submission.
    pub patience: u32,
    /// For so long after it began to stall, what a job lacks is held against new placements.
    pub hold: Ms,
    /// After so long without any CPU a job may go elsewhere, or be saved for others' sake.
    pub stall: Ms,
    /// Who was submitted so long ago goes before those of its level who run...
    pub old: Ms,
    /// ...if that is also this many times what it has attained.
    pub old_times: u32,
    /// So long after its deadline (its submission and [`Self::patience`] times its limit) a job goes before all others,
    /// as soon as all have ended that came before it and are as late.
    pub overdue: Ms,
    /// A job that was moved and saved so often is not moved any more, and saved only if nobody else can be.
    pub moves: u32,
    /// How often a job is paused.
    pub pauses: Pace,
    /// How often it is saved.
    pub saves: Pace,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            bounds: vec![240_000, 3_600_000, 21_600_000],
            nearly: 4,
            patience: 6,
            hold: 300_000,
            stall: 300_000,
            old: 86_400_000,
            old_times: 4,
            overdue: 30 * 86_400_000,
            moves: 18,
            pauses: Pace {
                every: 60_000,
                at_once: 10,
            },
            saves: Pace {
                every: 300_000,
                at_once: 4,
            },
        }
    }
}

/// How often something is done to a job: at any time `at_once` and one more for each `every` since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After so long it may be done once more.
    pub every: Ms,
    /// So often it may be done in a row, at least 1.
    pub at_once: u32,
}

/// What was used up of a [`Pace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// When all of it is given back.
    until: Ms,
}

impl Used {
    /// Whether it may not be done at `now`.
    #[must_use]
    pub fn up(&self, pace: Pace, now: Ms) -> bool {
        self.until > now + pace.every * Ms::from(pace.at_once.max(1) - 1)
    }

    /// From when on it may be done.
    #[must_use]
    pub fn free_from(&self, pace: Pace) -> Ms {
        self.until
            .saturating_sub(pace.every * Ms::from(pace.at_once.max(1) - 1))
    }

    /// It was done at `now`.
    pub fn once(&mut self, pace: Pace, now: Ms) {
        self.until = self.until.max(now) + pace.every;
    }
}

/// The algorithms of the papers on dynamic fractional resource scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dfrs {
    /// What is done when a job comes.
    pub arrival: Arrival,
    /// Jobs that wait are tried again after whatever happens: the papers' star.
    pub retry: bool,
    /// How often everybody is packed anew: at the multiples of this.
    pub period: Option<Ms>,
    /// Who has attained less than this stays on its hosts when all are packed anew, if it runs: the papers' VT.
    pub keep: Ms,
}

/// What is done when a job comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing: it waits until all are packed anew.
    Wait,
    /// It gets the hosts with the least need, if there is memory (Greedy).
    Greedy,
    /// Others are saved for it (GreedyP).
    Pause,
    /// Others go elsewhere, or are saved (GreedyPM).
    Move,
    /// Everybody is packed anew (MCB8); with [`Dfrs::retry`] after each end, too.
    Pack,
}
