//! The columns of the DFRS papers' simulator, counted from what the engine tells.

use crate::engine::{Outcome, Watch};
use crate::workload::Workload;
use thiao_share::{Change, JobId, Ms, Slot, State, Verb};

/// Counts what is decided as that simulator does.
///
/// Every allocation counts that was changed in place or size. A job that goes on after it was saved is *restored*, whatever
/// the host; one that changes hosts in a moment is *transferred*, as many of its tasks as leave a host.
#[derive(Debug, Default)]
pub struct Counts {
    slots: Vec<Vec<Slot>>,
    allocs: u64,
    /// Jobs, tasks, and the memory of these.
    restored: [u64; 3],
    transferred: [u64; 3],
}

impl Watch for Counts {
    fn decided(&mut self, _: Ms, state: &State, changes: &[Change], index_of: &dyn Fn(JobId) -> usize) {
        for change in changes {
            let (entry, index) = (state.job(change.job), index_of(change.job));
            if self.slots.len() <= index {
                self.slots.resize(index + 1, Vec::new());
            }
            let memory = u64::from(entry.job.memory);
            match change.verb {
                Verb::Save | Verb::Pause => continue,
                Verb::Start | Verb::Share | Verb::Resume => {}
                Verb::Restore => {
                    let tasks = u64::from(entry.job.tasks);
                    add(&mut self.restored, [1, tasks, memory * tasks]);
                }
                Verb::Move => {
                    let there = |slot: &Slot| {
                        entry
                            .slots
                            .iter()
                            .find(|new| new.host == slot.host)
                            .map_or(0, |new| new.tasks)
                    };
                    let left = |slot: &Slot| u64::from(slot.tasks.saturating_sub(there(slot)));
                    let tasks = self.slots[index].iter().map(left).sum();
                    add(&mut self.transferred, [1, tasks, memory * tasks]);
                }
            }
            self.allocs += 1;
            self.slots[index].clone_from(&entry.slots);
        }
    }
}

fn add(sums: &mut [u64; 3], more: [u64; 3]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// What the columns are called.
pub const NAMES: [&str; 14] = [
    "jobs",
    "allocs",
    "minstretch",
    "avgstretch",
    "maxstretch",
    "makespan",
    "jrest",
    "trest",
    "mrest",
    "jtrans",
    "ttrans",
    "mtrans",
    "util_integral",
    "demand_integral",
];

/// The columns' values as they are printed.
pub type Columns = [String; 14];

/// Least, mean and greatest bounded stretch; jobs below 10 s count as such of 10 s.
pub fn stretches(workload: &Workload, outcome: &Outcome) -> (f64, f64, f64) {
    let (mut least, mut sum, mut greatest) = (f64::INFINITY, 0.0, 0.0_f64);
    for (job, ended) in workload.jobs.iter().zip(&outcome.jobs) {
        let stretch = ((ended.end / 1000 - job.submit) as f64 / job.run.max(10) as f64).max(1.0);
        (least, sum, greatest) = (least.min(stretch), sum + stretch, greatest.max(stretch));
    }
    (least, sum / workload.jobs.len() as f64, greatest)
}

/// The columns of a run in which jobs share.
pub fn shared(workload: &Workload, outcome: &Outcome, counts: &Counts) -> Columns {
    columns(
        workload,
        outcome,
        counts,
        outcome.given / 1000,
        outcome.wanted / 1000,
    )
}

/// The columns of a queue. Hosts were counted there; CPU is counted here, as `workload` has it.
///
/// `without_first`: who has a reservation does not count as one who wants CPU.
pub fn queued(workload: &Workload, outcome: &Outcome, without_first: bool) -> Columns {
    let demand = |index: usize| u64::from(workload.jobs[index].cpu) * u64::from(workload.jobs[index].tasks);
    let given = (0..workload.jobs.len())
        .map(|job| u128::from(demand(job)) * u128::from(workload.jobs[job].run))
        .sum();
    // What there is of events, by time: 0 a job ends, 1 it starts, 2 it comes.
    let mut events: Vec<(u64, u8, usize)> = Vec::new();
    for (index, (job, ended)) in workload.jobs.iter().zip(&outcome.jobs).enumerate() {
        events.extend([
            (job.submit, 2, index),
            (ended.start / 1000, 1, index),
            (ended.end / 1000, 0, index),
        ]);
    }
    events.sort_unstable();
    let capacity = u64::from(workload.host.cpu) * u64::from(workload.hosts);
    let (mut wanted, mut integral, mut since) = (0, 0, 0);
    let mut waiting = std::collections::BTreeSet::new();
    for (when, what, index) in events {
        let first = if without_first {
            waiting.first().map_or(0, |first| demand(*first))
        } else {
            0
        };
        integral += u128::from(capacity.min(wanted - first)) * u128::from(when - since);
        since = when;
        let starts = outcome.jobs[index].start / 1000;
        match what {
            0 => wanted -= demand(index),
            1 => {
                waiting.remove(&index);
            }
            _ => {
                wanted += demand(index);
                if starts > when {
                    waiting.insert(index);
                }
            }
        }
    }
    let counts = Counts {
        allocs: workload.jobs.len() as u64,
        ..Counts::default()
    };
    columns(workload, outcome, &counts, given, integral)
}

fn columns(workload: &Workload, outcome: &Outcome, counts: &Counts, given: u128, wanted: u128) -> Columns {
    let (least, mean, greatest) = stretches(workload, outcome);
    let begin = workload.jobs.iter().map(|job| job.submit).min().unwrap_or(0);
    let end = outcome
        .jobs
        .iter()
        .map(|ended| ended.end / 1000)
        .max()
        .unwrap_or(0);
    let ([jrest, trest, mrest], [jtrans, ttrans, mtrans]) = (counts.restored, counts.transferred);
    [
        workload.jobs.len().to_string(),
        counts.allocs.to_string(),
        format!("{least:.2}"),
        format!("{mean:.2}"),
        format!("{greatest:.2}"),
        (end - begin).to_string(),
        jrest.to_string(),
        trest.to_string(),
        mrest.to_string(),
        jtrans.to_string(),
        ttrans.to_string(),
        mtrans.to_string(),
        given.to_string(),
        wanted.to_string(),
    ]
}
