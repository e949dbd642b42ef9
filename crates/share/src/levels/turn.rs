//! What each job gets, in order.

use super::Memo;
use super::cpu::Cpu;
use super::rank::Ranked;
use super::room::Bound;
use crate::change::Why;
use crate::job::{Ms, Slot};
use crate::policy::Levels;
use crate::state::{Standing, State};

/// Shares below this part of what a task can use are none.
const LEAST_SHARE: i64 = 100;

/// One decision while it is made.
pub(super) struct Turn<'a> {
    pub(super) how: &'a Levels,
    pub(super) memos: &'a [Memo],
    pub(super) state: &'a mut State,
    pub(super) cpu: &'a mut Cpu,
    pub(super) ranked: &'a mut Vec<Ranked>,
    pub(super) now: Ms,
    /// An overdue job found no place: what could not be taken away for it again does not start.
    pub(super) waits: bool,
    pub(super) bound: Bound,
    /// CPU and tasks for which too little was idle.
    pub(super) no_idle: Vec<(u32, u32)>,
    /// The hosts where anything was idle when the pass began.
    pub(super) idle: Vec<u32>,
}

impl Turn<'_> {
    /// The first pass: each takes what those before it leave.
    pub(super) fn in_order(&mut self) {
        self.find_idle();
        let mut level = None;
        let mut misfits = Misfits::default();
        // None of those who keep what they have gets more of what another of them has.
        for r in self.ranked.iter().take_while(|r| r.fixed) {
            self.cpu.take(&self.state.job(r.id).slots, r.had);
        }
        for at in 0..self.ranked.len() {
            let r = self.ranked[at];
            if level != Some(r.level) {
                level = Some(r.level);
                self.begin_level(at);
            }
            if r.standing == Standing::Resident {
                self.resident(at);
            } else if !self.bars(&r, false) && !misfits.cover(&r) && !self.newcomer(at) {
                self.waits |= r.overdue;
                misfits.add(&r);
            }
        }
    }

    /// What those of the level have now is not there for newcomers of the same level.
    fn begin_level(&mut self, at: usize) {
        self.cpu.begin_level();
        let level = self.ranked[at].level;
        for peer in self.ranked[at..].iter().take_while(|peer| peer.level == level) {
            if peer.had > 0 {
                self.cpu.add_peer(&self.state.job(peer.id).slots, peer.had);
            }
        }
    }

    /// How long a job has been without CPU.
    pub(super) fn stalled_for(&self, r: &Ranked) -> Ms {
        self.memos[r.id.index()]
            .stalled
            .map_or(0, |since| self.now - since)
    }

    /// What a resident gets where it is, or elsewhere.
    fn resident(&mut self, at: usize) {
        let r = self.ranked[at];
        let entry = self.state.job(r.id);
        self.cpu.see(&entry.slots, r.had, true);
        let can_use = i64::from(entry.job.cpu);
        let free = entry
            .slots
            .iter()
            .map(|slot| self.cpu.free(slot.host.index()) / i64::from(slot.tasks));
        let kept = if r.fixed { i64::from(r.had) } else { 0 };
        let mut gets = (kept + free.min().unwrap_or(0)).clamp(kept, can_use);
        if kept == 0 && gets * LEAST_SHARE < can_use {
            gets = 0;
        }
        let stalled = self.stalled_for(&r);
        if gets == 0 && stalled >= self.how.stall && self.moved(at, stalled) {
            return;
        }
        let gets = gets as u32;
        let entry = self.state.job(r.id);
        self.cpu.take(&entry.slots, gets - kept as u32);
        if gets < entry.job.cpu && (stalled < self.how.hold || r.overdue) {
            self.cpu.hold(&entry.slots, entry.job.cpu - gets);
        }
        self.ranked[at].gets = gets;
    }

    /// A job that stood still for long goes where nobody is in its way, if there is such a place.
    fn moved(&mut self, at: usize, for_: Ms) -> bool {
        let r = self.ranked[at];
        let entry = self.state.job(r.id);
        let cpu = entry.job.cpu;
        if !entry.job.movable || entry.moves + entry.saves >= self.how.moves {
            return false;
        }
        let Some(slots) = self.idle_slots(r.id) else {
            return false;
        };
        self.cpu.take(&slots, cpu);
        self.state
            .relocate(self.now, r.id, slots, cpu, Why::Stalled { for_ });
        self.ranked[at].gets = cpu;
        true
    }

    /// A job without a place looks for one, if need be at the cost of those with a worse claim.
    fn newcomer(&mut self, at: usize) -> bool {
        let r = self.ranked[at];
        if !self.has_cpu(&r) || !self.has_memory(&r) && !self.make_room(at, false) {
            return false;
        }
        let slots = self.best_slots(&r);
        self.placed(at, slots, Why::Turn { level: r.level })
    }

    /// A job has these slots at full speed, if there are any.
    fn placed(&mut self, at: usize, slots: Option<Vec<Slot>>, why: Why) -> bool {
        let (Some(slots), r) = (slots, &mut self.ranked[at]) else {
            return false;
        };
        self.cpu.take(&slots, r.cpu);
        (r.standing, r.gets) = (Standing::Resident, r.cpu);
        self.state.place(self.now, r.id, slots, r.cpu, why);
        true
    }

    /// Whether a job must not start, since an overdue one waits: it could not have its place back, or somebody would be
    /// paused or saved for it, and then keep what it has for a while.
    fn bars(&self, r: &Ranked, second: bool) -> bool {
        self.waits && !r.overdue && !(second && self.state.job(r.id).job.pausable)
    }

    /// The second pass: what nobody wants.
    pub(super) fn left_over(&mut self) {
        self.find_idle();
        let mut misfits = Misfits::default();
        for at in 0..self.ranked.len() {
            let r = self.ranked[at];
            if r.gets > 0 {
                continue;
            }
            if r.standing == Standing::Resident {
                let stalled = self.stalled_for(&r);
                if stalled >= self.how.stall {
                    self.moved(at, stalled);
                }
            } else if !self.bars(&r, true) && !misfits.cover(&r) && !self.takes_left_over(at) {
                misfits.add(&r);
            }
        }
    }

    /// A job without a place takes idle slots, if need be with the memory of those who stand still.
    fn takes_left_over(&mut self, at: usize) -> bool {
        let r = self.ranked[at];
        let mut slots = self.idle_slots(r.id);
        if slots.is_none() && !self.waits && self.make_room(at, true) {
            slots = self.idle_slots(r.id);
        }
        self.placed(at, slots, Why::LeftOver)
    }

    /// Residents have what was found for them.
    pub(super) fn share(&mut self) {
        for r in self.ranked.iter() {
            if r.standing == Standing::Resident && r.gets != self.state.job(r.id).progress.alloc() {
                let why = if r.gets == 0 {
                    Why::GivesWay { level: r.level }
                } else {
                    Why::Turn { level: r.level }
                };
                self.state.share(self.now, r.id, r.gets, why);
            }
        }
    }
}

/// Needs that were not met: what needs as much or more need not be tried. In the order of a pass what may be claimed
/// only becomes less; what a save or a move frees beside what it was for is found by the second pass, or the next decision.
#[derive(Default)]
struct Misfits {
    needs: Vec<Need>,
}

/// What a job needs.
#[derive(Clone, Copy)]
struct Need {
    cpu: u32,
    memory: u32,
    tasks: u32,
    /// It takes from its peers, too.
    strict: bool,
}

/// So many are remembered; any more would cost more than they save.
const MOST_MISFITS: usize = 32;

impl Need {
    fn of(r: &Ranked) -> Self {
        Self {
            cpu: r.cpu,
            memory: r.memory,
            tasks: r.tasks,
            strict: r.strict,
        }
    }

    /// Whether who needs this needs at least what the other needs.
    fn covers(&self, other: &Self) -> bool {
        self.cpu >= other.cpu
            && self.memory >= other.memory
            && self.tasks >= other.tasks
            && (other.strict || !self.strict)
    }
}

impl Misfits {
    fn cover(&self, r: &Ranked) -> bool {
        let need = Need::of(r);
        self.needs.iter().any(|misfit| need.covers(misfit))
    }

    fn add(&mut self, r: &Ranked) {
        let need = Need::of(r);
        self.needs.retain(|misfit| !misfit.covers(&need));
        if self.needs.len() < MOST_MISFITS {
            self.needs.push(need);
        }
    }
}
