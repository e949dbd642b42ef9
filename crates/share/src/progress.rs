//! How far a job is: the time that it would have run at full speed.

use crate::job::Ms;

/// A job's attained service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Attained at `since`, in milliseconds at full speed.
    attained: Ms,
    /// When the allocation last changed.
    since: Ms,
    /// What each task can use; what it has.
    cpu: u32,
    alloc: u32,
    /// Of the time since `since` during which it has an allocation, this much passes without progress.
    stall: Ms,
}

impl Progress {
    /// Of a job whose tasks can use `cpu` each, and have nothing yet.
    #[must_use]
    pub const fn new(cpu: u32) -> Self {
        Self {
            attained: 0,
            since: 0,
            cpu,
            alloc: 0,
            stall: 0,
        }
    }

    /// What each task has.
    #[must_use]
    pub const fn alloc(&self) -> u32 {
        self.alloc
    }

    /// What is left at `now` of a stall.
    #[must_use]
    pub fn stall(&self, now: Ms) -> Ms {
        if self.alloc == 0 {
            self.stall
        } else {
            self.stall.saturating_sub(now.saturating_sub(self.since))
        }
    }

    /// Attained at `now`, rounded down to whole milliseconds.
    #[must_use]
    pub fn attained(&self, now: Ms) -> Ms {
        if self.alloc == 0 {
            return self.attained;
        }
        let ran = now.saturating_sub(self.since).saturating_sub(self.stall);
        if self.alloc == self.cpu {
            return self.attained + ran;
        }
        self.attained + ran * u64::from(self.alloc) / u64::from(self.cpu)
    }

    /// From `now` on each task has `alloc`.
    pub fn set_alloc(&mut self, now: Ms, alloc: u32) {
        (self.attained, self.stall) = (self.attained(now), self.stall(now));
        (self.since, self.alloc) = (now, alloc);
    }

    /// From `now` on nothing is attained for `stall` of the time with an allocation.
    pub fn set_stall(&mut self, now: Ms, stall: Ms) {
        self.set_alloc(now, self.alloc);
        self.stall = stall;
    }

    /// What was measured takes the place of what was reckoned.
    pub fn set_attained(&mut self, now: Ms, attained: Ms) {
        self.set_alloc(now, self.alloc);
        self.attained = attained;
    }

    /// When it will have attained `goal`; [`None`] while it has no allocation.
    #[must_use]
    pub fn reaches(&self, goal: Ms) -> Option<Ms> {
        let left = goal.saturating_sub(self.attained);
        match self.alloc {
            0 => None,
            alloc => Some(self.since + self.stall + (left * u64::from(self.cpu)).div_ceil(u64::from(alloc))),
        }
    }

    /// The same for a clock that knows whole seconds, as the simulator of the DFRS papers rounds: fractions of
    /// milliseconds are dropped, what is left is rounded up to seconds.
    #[must_use]
    pub fn reaches_by_seconds(&self, goal: Ms) -> Option<Ms> {
        let left = goal.saturating_sub(self.attained);
        match self.alloc {
            0 => None,
            alloc => {
                let needed = left * u64::from(self.cpu) / u64::from(alloc);
                Some(self.since + self.stall + needed.div_ceil(1000) * 1000)
            }
        }
    }
}
