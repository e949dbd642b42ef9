//! Sharing by levels of attained service.
//!
//! Who has attained little goes first; so do long jobs of which not much can be left. Within a level who runs stays,
//! then who asks for little and waits for long comes first. In that order each job takes the CPU that it can use, and
//! takes nothing from those before it. A job that gets nothing is paused where it is. Memory is freed by saves only if
//! somebody with a better claim needs it, and a job is moved only after it stood still for long.
//!
//! The order is rank's, what is done in it stands in two passes: [`Turn::in_order`], then [`Turn::left_over`].

mod cpu;
mod place;
mod rank;
mod room;
#[cfg(test)]
mod tests;
mod turn;

use crate::job::{JobId, Ms};
use crate::policy::{Levels, Used};
use crate::state::{Entry, Standing, State};
use cpu::Cpu;
use rank::Ranked;
use turn::Turn;

/// What is remembered of a job between decisions.
#[derive(Debug, Clone, Copy, Default)]
struct Memo {
    /// Since when it has been without CPU, though it once had some.
    stalled: Option<Ms>,
    /// Pauses and saves that count still.
    paused: Used,
    saved: Used,
}

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    how: Levels,
    memos: Vec<Memo>,
    /// All jobs in the order of the last decision.
    ranked: Vec<Ranked>,
    /// Those that came since.
    fresh: Vec<JobId>,
    next: Option<Ms>,
    cpu: Cpu,
}

impl Deciding {
    /// Of hosts without jobs.
    pub fn new(how: Levels, state: &State) -> Self {
        let cpu = Cpu::new(state.hosts().len());
        Self {
            how,
            memos: Vec::new(),
            ranked: Vec::new(),
            fresh: Vec::new(),
            next: None,
            cpu,
        }
    }

    /// A job came, and waits for its first turn.
    pub fn submitted(&mut self, id: JobId) {
        if self.memos.len() <= id.index() {
            self.memos.resize(id.index() + 1, Memo::default());
        }
        self.memos[id.index()] = Memo::default();
        self.fresh.push(id);
    }

    /// A job is over; the others keep their order.
    pub fn ended(&mut self, id: JobId) {
        if let Some(at) = self.ranked.iter().position(|r| r.id == id) {
            self.ranked.remove(at);
        } else {
            self.fresh.retain(|other| *other != id);
        }
    }

    /// When a level, a stall or a pace is over, or somebody is overdue.
    pub fn next(&self) -> Option<Ms> {
        self.next
    }

    /// Ranks all jobs, gives each its turn, and remembers who was left without.
    pub fn decide(&mut self, state: &mut State, now: Ms) {
        let mut ranked = std::mem::take(&mut self.ranked);
        self.rank(state, now, &mut ranked);
        self.cpu.begin(state);
        let mut turn = Turn {
            how: &self.how,
            memos: &self.memos,
            state,
            cpu: &mut self.cpu,
            ranked: &mut ranked,
            now,
            waits: false,
            bound: room::Bound::default(),
            no_idle: Vec::new(),
            idle: Vec::new(),
        };
        turn.in_order();
        turn.left_over();
        turn.share();
        self.remember(state, now, &ranked);
        self.ranked = ranked;
    }

    /// Who stalls since when, and when something is due.
    fn remember(&mut self, state: &State, now: Ms, ranked: &[Ranked]) {
        let mut next = Ms::MAX;
        let mut due = |when: Ms| {
            if when > now {
                next = next.min(when);
            }
        };
        // Who is overdue takes what others keep for a while as soon as they do not.
        let lacks = |entry: &Entry| entry.progress.alloc() < entry.job.cpu;
        let late = ranked.iter().any(|r| r.overdue && lacks(state.job(r.id)));
        for r in ranked {
            if r.standing == Standing::Waiting {
                due(r.overdue_at.saturating_add(1));
                continue;
            }
            let entry = state.job(r.id);
            let memo = &mut self.memos[r.id.index()];
            if r.saved {
                memo.saved.once(self.how.saves, now);
            }
            if late {
                due(memo.paused.free_from(self.how.pauses));
                due(memo.saved.free_from(self.how.saves));
            }
            if lacks(entry) {
                due(r.overdue_at.saturating_add(1));
            }
            if entry.runs() {
                memo.stalled = None;
                if let Some(when) = self.how.next_level(entry, now) {
                    due(when);
                }
            } else {
                if r.had > 0 {
                    memo.paused.once(self.how.pauses, now);
                }
                let since = *memo.stalled.get_or_insert(now);
                due(since + self.how.hold);
                due(since + self.how.stall);
            }
        }
        self.next = (next < Ms::MAX).then_some(next);
    }
}
