//! Where a job can be.

use super::rank::Ranked;
use super::turn::Turn;
use crate::job::{HostId, JobId, Slot};

/// A pause of somebody who has attained this costs as much as he does; who has attained more can bear it better.
const USUAL: f64 = 3_600_000.0;

/// Slots of one host that a job could have.
struct Offer {
    /// Whether somebody is paused for them.
    disturbs: bool,
    /// What they cost: idle CPU that is broken into, or work that stops.
    cost: f64,
    host: u32,
    tasks: u32,
}

impl Offer {
    /// The less is idle there, the cheaper: large pieces are kept for those who need them.
    fn idle(h: usize, idle: i64, tasks: u32) -> Self {
        Self {
            disturbs: false,
            cost: idle as f64,
            host: h as u32,
            tasks,
        }
    }
}

impl Turn<'_> {
    /// How many tasks fit by CPU that may be claimed.
    pub(super) fn by_cpu(&self, r: &Ranked, h: usize) -> u32 {
        (self.cpu.claimable(h, r.strict) / i64::from(r.cpu)).max(0) as u32
    }

    /// How many tasks fit by memory that is free; a resident's own counts as free.
    fn by_memory(&self, id: JobId, h: usize) -> u32 {
        let entry = self.state.job(id);
        let at = entry.slots.binary_search_by_key(&h, |slot| slot.host.index());
        let own = at.map_or(0, |at| entry.slots[at].tasks);
        self.state
            .free_memory(h)
            .checked_div(entry.job.memory)
            .map_or(u32::MAX, |fit| fit + own)
    }

    /// Whether the claimable CPU is enough, whatever the memory.
    pub(super) fn has_cpu(&self, r: &Ranked) -> bool {
        let mut need = r.tasks;
        (0..self.state.hosts().len()).any(|h| {
            need = need.saturating_sub(self.by_cpu(r, h));
            need == 0
        })
    }

    /// Whether that CPU is where memory is free, too.
    pub(super) fn has_memory(&self, r: &Ranked) -> bool {
        let mut need = r.tasks;
        (0..self.state.hosts().len()).any(|h| {
            let by_cpu = self.by_cpu(r, h);
            need = need.saturating_sub(if by_cpu == 0 {
                0
            } else {
                by_cpu.min(self.by_memory(r.id, h))
            });
            need == 0
        })
    }

    /// A pass begins, or somebody was saved: only where something is idle now can anything be later.
    pub(super) fn find_idle(&mut self) {
        self.no_idle.clear();
        self.idle.clear();
        let hosts = 0..self.state.hosts().len();
        self.idle
            .extend(hosts.filter(|h| self.cpu.idle(*h) > 0).map(|h| h as u32));
    }

    /// Slots at full speed that nobody uses, the tightest first.
    pub(super) fn idle_slots(&mut self, id: JobId) -> Option<Vec<Slot>> {
        let job = self.state.job(id).job;
        // Until somebody is saved ever less is idle: what was too much once still is.
        if self
            .no_idle
            .iter()
            .any(|(cpu, tasks)| job.cpu >= *cpu && job.tasks >= *tasks)
        {
            return None;
        }
        let mut by_cpu = 0;
        let mut offers = Vec::new();
        for h in self.idle.iter().map(|h| *h as usize) {
            let idle = self.cpu.idle(h);
            if idle < i64::from(job.cpu) {
                continue;
            }
            let at_once = (idle / i64::from(job.cpu)) as u32;
            by_cpu += u64::from(at_once);
            let tasks = self.by_memory(id, h).min(at_once);
            if tasks > 0 {
                offers.push(Offer::idle(h, idle, tasks));
            }
        }
        if by_cpu < u64::from(job.tasks) {
            self.no_idle
                .retain(|(cpu, tasks)| *cpu < job.cpu || *tasks < job.tasks);
            self.no_idle.push((job.cpu, job.tasks));
        }
        chosen(offers, job.tasks)
    }

    /// Slots at full speed: idle ones first, then those whose users lose least.
    pub(super) fn best_slots(&self, r: &Ranked) -> Option<Vec<Slot>> {
        let mut offers = Vec::new();
        for h in 0..self.state.hosts().len() {
            let by_cpu = self.by_cpu(r, h);
            if by_cpu == 0 {
                continue;
            }
            let tasks = by_cpu.min(self.by_memory(r.id, h));
            let idle = self.cpu.idle(h);
            let at_once = ((idle / i64::from(r.cpu)).max(0) as u32).min(tasks);
            if at_once > 0 {
                offers.push(Offer::idle(h, idle, at_once));
            }
            if tasks > at_once {
                let cost = self.harm(h, r.tasks);
                offers.push(Offer {
                    disturbs: true,
                    cost,
                    host: h as u32,
                    tasks: tasks - at_once,
                });
            }
        }
        chosen(offers, r.tasks)
    }

    /// What stops if the host's CPU is taken: all tasks of those who run there, shared out among the tasks that take
    /// it, and the less the more they have attained.
    fn harm(&self, h: usize, tasks: u32) -> f64 {
        let running = self.state.loads()[h]
            .residents
            .iter()
            .map(|(id, _)| self.state.job(*id))
            .filter(|v| v.runs());
        running
            .map(|v| {
                let work = f64::from(v.job.tasks) * f64::from(v.progress.alloc());
                let share = f64::from(tasks.min(v.slots.len() as u32));
                let attained = v.progress.attained(self.now).max(10_000) as f64;
                work / share * (USUAL / attained).sqrt()
            })
            .sum()
    }
}

/// The cheapest offers that are enough.
fn chosen(mut offers: Vec<Offer>, tasks: u32) -> Option<Vec<Slot>> {
    if offers.iter().map(|offer| u64::from(offer.tasks)).sum::<u64>() < u64::from(tasks) {
        return None;
    }
    offers.sort_unstable_by(|a, b| {
        a.disturbs
            .cmp(&b.disturbs)
            .then(a.cost.total_cmp(&b.cost))
            .then(a.host.cmp(&b.host))
    });
    let mut need = tasks;
    let mut slots: Vec<Slot> = Vec::new();
    for offer in offers {
        let tasks = offer.tasks.min(need);
        let host = HostId(offer.host);
        slots.push(Slot { host, tasks });
        need -= tasks;
        if need == 0 {
            break;
        }
    }
    // Of one host some may be idle, and some in use.
    slots.sort_unstable_by_key(|slot| slot.host);
    slots.dedup_by(|next, slot| {
        let same = next.host == slot.host;
        slot.tasks += if same { next.tasks } else { 0 };
        same
    });
    Some(slots)
}
