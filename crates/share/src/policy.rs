//! The policies, as values.

use crate::job::Ms;

/// How it is decided who runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Jobs have their CPU for themselves, in the order in which they came.
    Queue(Queue),
    /// Who has attained little goes first, what is left over is shared.
    Levels(Levels),
}

/// Jobs in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Who may pass the first in the queue.
    pub backfill: Backfill,
}

/// Who may pass the first in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// Nobody.
    Never,
    /// Who does not delay it, in the order of the queue (EASY).
    InOrder,
    /// Who does not delay it, the shortest first (EASY-SJBF).
    ShortestFirst,
}

/// The constants of sharing by levels of attained service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Where one level ends and the next begins, in attained service.
    pub bounds: Vec<Ms>,
    /// For so long after it began to stall, what a job lacks is held against new placements.
    pub hold: Ms,
    /// After so long without any CPU a job may go elsewhere, or be saved for others' sake.
    pub stall: Ms,
    /// Who was submitted so long ago is ordered as if it ran.
    pub old: Ms,
}
