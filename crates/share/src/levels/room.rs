//! Memory for a job that has none: who is saved for it.

use super::rank::Ranked;
use super::turn::Turn;
use crate::change::Why;
use crate::job::Slot;
use crate::state::Standing;

/// Free memory and claimable slots of all hosts, for one job.
struct Room {
    slots: Vec<i64>,
    memory: Vec<i64>,
    per_task: i64,
    tasks: i64,
    /// How many tasks fit, and on how many hosts less than nothing is free.
    fit: i64,
    overdrawn: usize,
}

impl Room {
    fn new(slots: Vec<i64>, memory: Vec<i64>, r: &Ranked) -> Self {
        let (per_task, tasks) = (i64::from(r.memory).max(1), i64::from(r.tasks));
        let mut room = Self {
            slots,
            memory,
            per_task,
            tasks,
            fit: 0,
            overdrawn: 0,
        };
        room.fit = (0..room.slots.len()).map(|h| room.fit_on(h)).sum();
        room
    }

    fn fit_on(&self, h: usize) -> i64 {
        self.slots[h].min(self.memory[h].max(0) / self.per_task)
    }

    /// Whether the job fits, and nothing is promised twice.
    fn fits(&self) -> bool {
        self.fit >= self.tasks && self.overdrawn == 0
    }

    fn give(&mut self, slots: &[Slot], memory: i64) {
        for slot in slots {
            let h = slot.host.index();
            self.fit -= self.fit_on(h);
            self.overdrawn -= usize::from(self.memory[h] < 0);
            self.memory[h] += memory * i64::from(slot.tasks);
            self.overdrawn += usize::from(self.memory[h] < 0);
            self.fit += self.fit_on(h);
        }
    }
}

/// The memory of all who could be saved, by host: an upper bound that spares most searches.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// For a job of each level, or of the levels below none.
    in_turn: Vec<Vec<u32>>,
    left_over: Vec<u32>,
}

impl Turn<'_> {
    /// Whether a job could fit if all were saved who may be.
    fn could_fit(&mut self, r: &Ranked, second: bool, room: &Room) -> bool {
        if second && self.bound.left_over.is_empty() {
            self.bound.left_over = self.memory_of(|turn, v| turn.idles(v));
        }
        let level = usize::from(r.level) + usize::from(!r.strict);
        if !second {
            while self.bound.in_turn.len() <= level {
                let from = self.bound.in_turn.len();
                let memory = self.memory_of(|_, v| usize::from(v.level) >= from);
                self.bound.in_turn.push(memory);
            }
        }
        let more = if second {
            &self.bound.left_over
        } else {
            &self.bound.in_turn[level]
        };
        let hosts = room.slots.iter().zip(&room.memory).zip(more);
        let fits = hosts.map(|((slots, free), more)| (*slots).min((free + i64::from(*more)) / room.per_task));
        fits.sum::<i64>() >= room.tasks
    }

    /// What those residents hold, by host.
    fn memory_of(&self, which: impl Fn(&Self, &Ranked) -> bool) -> Vec<u32> {
        let mut memory = vec![0; self.state.hosts().len()];
        for v in self
            .ranked
            .iter()
            .filter(|v| v.standing == Standing::Resident && which(self, v))
        {
            let entry = self.state.job(v.id);
            for slot in &entry.slots {
                memory[slot.host.index()] += entry.job.memory * slot.tasks;
            }
        }
        memory
    }

    /// Whether a resident has stood still for long, and goes on doing so.
    fn idles(&self, v: &Ranked) -> bool {
        v.gets == 0 && self.stalled_for(v) >= self.how.stall
    }

    /// Saves residents until the job fits, and no more than that. In its turn it may have the memory of those with a
    /// worse claim; of what is left over (`second`), that of those who stood still for long.
    pub(super) fn make_room(&mut self, at: usize, second: bool) -> bool {
        let r = self.ranked[at];
        let hosts = 0..self.state.hosts().len();
        let (strict, cpu) = (second || r.strict, i64::from(r.cpu));
        let slots = |h: usize| (self.cpu.claimable(h, strict) / cpu).max(0);
        let free = |h: usize| i64::from(self.state.free_memory(h));
        let mut room = Room::new(hosts.clone().map(slots).collect(), hosts.map(free).collect(), &r);
        if room.slots.iter().sum::<i64>() < room.tasks || !self.could_fit(&r, second, &room) {
            return false;
        }
        let Some(taken) = self.taken(at, second, &mut room) else {
            return false;
        };
        for i in taken {
            let v = self.ranked[i];
            if !second {
                let peer = v.level == r.level;
                self.cpu.see(&self.state.job(v.id).slots, v.had, peer);
            }
            self.state.save(self.now, v.id, Why::MemoryFor(r.id));
            self.ranked[i].saved = true;
            (self.ranked[i].standing, self.ranked[i].had, self.ranked[i].gets) = (Standing::Saved, 0, 0);
        }
        // What those had who were saved is idle now.
        self.find_idle();
        true
    }

    /// Who is saved, if that is enough.
    fn taken(&self, at: usize, second: bool, room: &mut Room) -> Option<Vec<usize>> {
        let mut taken = Vec::new();
        for i in self.victims(at, second) {
            let v = self.state.job(self.ranked[i].id);
            room.give(&v.slots, i64::from(v.job.memory));
            taken.push(i);
            if room.fits() {
                break;
            }
        }
        if !room.fits() {
            return None;
        }
        // Some of the first are not needed any more: they stay where they are.
        taken.retain(|i| {
            let v = self.state.job(self.ranked[*i].id);
            let memory = i64::from(v.job.memory);
            room.give(&v.slots, -memory);
            let stays = room.fits();
            if !stays {
                room.give(&v.slots, memory);
            }
            !stays
        });
        Some(taken)
    }

    /// Who may be saved for the job: those first that were not often moved or saved, then of the worst level, then
    /// who stands still, then who is about as wide, then who is last in the order.
    fn victims(&self, at: usize, second: bool) -> Vec<usize> {
        let r = self.ranked[at];
        let mut victims: Vec<_> = (0..self.ranked.len())
            .filter(|i| *i != at && self.may_be_saved(&r, &self.ranked[*i], second))
            .map(|i| {
                let (v, entry) = (&self.ranked[i], self.state.job(self.ranked[i].id));
                let times = entry.moves + entry.saves;
                let often = if times >= self.how.moves { times } else { 0 };
                let width = v.tasks.abs_diff(r.tasks);
                ((often, u8::MAX - v.level, v.had > 0, width, v.backwards()), i)
            })
            .collect();
        victims.sort_unstable();
        victims.into_iter().map(|(_, i)| i).collect()
    }

    fn may_be_saved(&self, r: &Ranked, v: &Ranked, second: bool) -> bool {
        if v.standing != Standing::Resident || v.fixed {
            return false;
        }
        let (entry, memo) = (self.state.job(v.id), &self.memos[v.id.index()]);
        if !entry.job.pausable || memo.saved.up(self.how.saves, self.now) {
            return false;
        }
        if second {
            self.idles(v)
        } else {
            r.before(v) && (v.level > r.level || r.strict)
        }
    }
}
