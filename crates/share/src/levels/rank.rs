//! The order in which jobs have their turn.

use super::{Deciding, Memo};
use crate::job::{JobId, Ms};
use crate::policy::Levels;
use crate::state::{Entry, Standing, State};

/// A job in the order of one decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    key: u128,
    pub(super) id: JobId,
    pub(super) level: u8,
    /// What it has stays its own: it is before everybody who could take it.
    pub(super) fixed: bool,
    /// It has waited for so long that nothing new may come in its way.
    pub(super) overdue: bool,
    /// It has waited for so long that it takes from those behind it in its level, too.
    pub(super) strict: bool,
    /// What each of its tasks has, and is to have.
    pub(super) had: u32,
    pub(super) gets: u32,
    pub(super) standing: Standing,
    /// It was saved for somebody.
    pub(super) saved: bool,
    /// What each of its tasks needs, and how many there are.
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) tasks: u32,
    /// When it is overdue.
    pub(super) overdue_at: Ms,
    /// While it waits, its place among those that wait is the same until then.
    until: Ms,
}

impl Ranked {
    /// Whether its turn comes before the other's.
    pub(super) fn before(&self, other: &Self) -> bool {
        self.key < other.key
    }

    /// For orders among equals: the later its turn, the smaller.
    pub(super) fn backwards(&self) -> u128 {
        u128::MAX - self.key
    }
}

impl Levels {
    /// How many bounds were reached.
    fn level_of(&self, service: Ms) -> usize {
        self.bounds.iter().take_while(|bound| service >= **bound).count()
    }

    /// The level of a job that has attained so much, and has so much left at most: by what it has attained, but one
    /// better if little can be left. Never the first level, which those have for themselves that are new.
    fn level(&self, attained: Ms, left: Ms) -> u8 {
        let level = self.level_of(attained);
        let by_left = self.level_of(left / Ms::from(self.nearly).max(1)).max(1);
        level.min(by_left.max(level.saturating_sub(1))) as u8
    }

    /// When a running job comes to another level.
    pub(super) fn next_level(&self, entry: &Entry, now: Ms) -> Option<Ms> {
        let attained = entry.progress.attained(now);
        let bound = self.bounds.iter().find(|bound| attained < **bound)?;
        entry.progress.reaches(*bound)
    }

    /// Until when a job should have ended: the sooner, the earlier its turn in its level.
    fn deadline(&self, entry: &Entry, left: Ms) -> Ms {
        entry
            .job
            .submit
            .saturating_add(left.saturating_mul(Ms::from(self.patience)))
    }

    /// When a job comes before all others, but for those who came before it and are late, too.
    pub(super) fn overdue(&self, entry: &Entry) -> Ms {
        self.deadline(entry, entry.job.limit).saturating_add(self.overdue)
    }
}

impl Deciding {
    /// All jobs in their order.
    pub(super) fn rank(&mut self, state: &State, now: Ms, ranked: &mut Vec<Ranked>) {
        let how = &self.how;
        let anew =
            |id: JobId, overdue: bool| rank(how, state.job(id), &self.memos[id.index()], id, now, overdue);
        ranked.extend(self.fresh.drain(..).map(|id| anew(id, false)));
        // One at a time, lest a cluster that has too much to do comes to serve nobody but those who are late.
        let overdue = ranked.iter().filter(|r| now > r.overdue_at);
        let first = overdue.min_by_key(|r| state.job(r.id).seq).map(|r| r.id);
        for r in ranked.iter_mut() {
            let overdue = first == Some(r.id);
            if r.standing != Standing::Waiting || now > r.until || overdue || r.overdue {
                *r = anew(r.id, overdue);
            }
        }
        // Nearly sorted already, which this sort makes use of.
        ranked.sort_by_key(|r| r.key);
    }
}

/// A job's place in the order: those that keep what they have, who is overdue, then by level; in a level those that run
/// or are old before those that wait, then by Slurm's priority, then by deadline, then as they came.
fn rank(how: &Levels, entry: &Entry, memo: &Memo, id: JobId, now: Ms, overdue: bool) -> Ranked {
    let attained = entry.progress.attained(now);
    let left = entry.job.limit.saturating_sub(attained);
    let tired = entry.moves + entry.saves >= how.moves;
    let level = how.level(attained, left).min(if tired { 1 } else { u8::MAX });
    let flow = now.saturating_sub(entry.job.submit);
    let had = entry.progress.alloc();
    let old = tired || flow > how.old && flow > attained.saturating_mul(Ms::from(how.old_times));
    let fixed = had > 0 && (!entry.job.pausable || memo.paused.up(how.pauses, now));
    let class = match (overdue, fixed) {
        (_, true) => 0,
        (true, false) => 1,
        (false, false) => 2,
    };
    let order = if overdue {
        entry.job.submit
    } else {
        how.deadline(entry, left)
    };
    // Who keeps what it has, and who is overdue, are ordered as they came alone.
    let (in_level, priority) = if class == 2 {
        (u128::from(level), u128::from(u32::MAX - entry.job.priority))
    } else {
        (0, 0)
    };
    let key = (class << 122)
        | (in_level << 114)
        | (u128::from(had == 0 && !old) << 113)
        | (priority << 80)
        | (u128::from(order.min((1 << 48) - 1)) << 32)
        | u128::from(entry.seq as u32);
    let strict = old || overdue;
    let level = if class == 2 { level } else { 0 };
    Ranked {
        key,
        id,
        level,
        fixed,
        overdue,
        strict,
        had,
        gets: 0,
        standing: entry.standing,
        saved: false,
        cpu: entry.job.cpu,
        memory: entry.job.memory,
        tasks: entry.job.tasks,
        overdue_at: how.overdue(entry),
        until: if old {
            Ms::MAX
        } else {
            entry.job.submit.saturating_add(how.old)
        },
    }
}
