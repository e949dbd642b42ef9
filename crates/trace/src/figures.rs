//! What people ask of a run: how long jobs waited, what it cost them, and whom.
//!
//! All of it is reckoned from the workload and what became of each job; beside each run stands the *reference*, the
//! same workload under the policy that ratios are against.

mod class;
mod group;
mod job;
#[cfg(test)]
mod tests;

pub use class::{Class, LONG, Length, SHORT, WIDE, Width};
pub use group::Group;
pub use job::{OneJob, SHORTEST};

use crate::engine::Outcome;
use crate::workload::{TraceJob, WEEK, Workload};
use group::Tally;
use job::by;
use std::collections::BTreeMap;

/// A workload that was run, or a week of one.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub workload: &'a Workload,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// What becomes of it under the policy that ratios are against.
    pub reference: &'a Outcome,
}

/// What came of all parts together, by job: each counts the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    pub all: Group,
    /// By length and width, as [`Class::ALL`] has them.
    pub classes: Vec<Group>,
    /// By length, as [`Length::ALL`] has them.
    pub lengths: Vec<Group>,
    /// By user, the one with most CPU time first.
    pub users: Vec<(u32, Group)>,
    /// How many weeks had jobs.
    pub weeks: usize,
    /// The mean of the weeks' greatest stretches.
    pub mean_weekly_max_stretch: f64,
    /// The greatest of the weeks' mean turnarounds by that of the reference.
    pub worst_week_ratio: f64,
    pub pauses_per_job: f64,
    /// How often a job was written away.
    pub saves_per_job: f64,
    /// How often a job went to other hosts.
    pub moves_per_job: f64,
    /// Moves and saves of the one job that had most.
    pub most_moves: u32,
    /// CPU time that jobs needed by what the hosts had, from the first submission to the last end.
    pub utilisation: f64,
    /// CPU time that jobs could have used and did not get, or got and lost to overheads, by what they needed.
    pub underutilisation: f64,
}

#[derive(Debug, Default)]
struct Week {
    turnaround: f64,
    reference: f64,
    max_stretch: f64,
}

/// CPU time of a job at full speed, in the hosts' unit times seconds.
fn work(job: &TraceJob) -> f64 {
    job.run as f64 * f64::from(job.tasks) * f64::from(job.cpu)
}

/// How long the hosts were there for it, in seconds.
fn span(workload: &Workload, outcome: &Outcome) -> f64 {
    let first = workload.jobs.first().map_or(0, |job| job.submit * 1000);
    let last = outcome.jobs.iter().map(|ended| ended.end).max().unwrap_or(first);
    last.saturating_sub(first) as f64 / 1000.0
}

impl Figures {
    /// Of all these parts, in whatever order.
    #[must_use]
    pub fn of(parts: &[Part<'_>]) -> Self {
        let mut all = Tally::default();
        let mut classes: Vec<Tally> = Class::ALL.iter().map(|_| Tally::default()).collect();
        let mut lengths: Vec<Tally> = Length::ALL.iter().map(|_| Tally::default()).collect();
        let mut users: BTreeMap<u32, Tally> = BTreeMap::new();
        let mut weeks: BTreeMap<(usize, u64), Week> = BTreeMap::new();
        let (mut pauses, mut saves, mut moves, mut most_moves) = (0_u64, 0_u64, 0_u64, 0);
        let (mut useful, mut had, mut wanted) = (0.0, 0.0, 0.0);
        for (at, part) in parts.iter().enumerate() {
            let Part {
                workload,
                outcome,
                reference,
            } = *part;
            let capacity = f64::from(workload.host.cpu) * f64::from(workload.hosts);
            had += capacity * span(workload, outcome);
            wanted += outcome.wanted as f64 / 1000.0;
            for ((job, ended), other) in workload.jobs.iter().zip(&outcome.jobs).zip(&reference.jobs) {
                let (got, than, cpu) = (OneJob::of(job, ended), OneJob::of(job, other), work(job));
                let class = Class::of(job, capacity);
                all.add(got, than, cpu);
                classes[class.index()].add(got, than, cpu);
                lengths[class.length as usize].add(got, than, cpu);
                users.entry(job.user).or_default().add(got, than, cpu);
                let week = weeks.entry((at, job.submit / WEEK)).or_default();
                week.turnaround += got.turnaround;
                week.reference += than.turnaround;
                week.max_stretch = week.max_stretch.max(got.stretch);
                pauses += u64::from(ended.pauses);
                saves += u64::from(ended.saves);
                moves += u64::from(ended.moves);
                most_moves = most_moves.max(ended.moves.saturating_add(ended.saves));
                useful += cpu;
            }
        }
        let jobs = all.jobs() as f64;
        let count = weeks.len();
        let greatest: f64 = weeks.values().map(|week| week.max_stretch).sum();
        let ratios = weeks
            .values()
            .map(|week| by(week.turnaround, week.reference, 1.0));
        let mut users: Vec<_> = users
            .into_iter()
            .map(|(user, tally)| (user, tally.done(useful)))
            .collect();
        users.sort_by(|(one, a), (other, b)| b.cpu_share.total_cmp(&a.cpu_share).then(one.cmp(other)));
        Self {
            all: all.done(useful),
            classes: classes.into_iter().map(|tally| tally.done(useful)).collect(),
            lengths: lengths.into_iter().map(|tally| tally.done(useful)).collect(),
            users,
            weeks: count,
            mean_weekly_max_stretch: by(greatest, count as f64, 1.0),
            worst_week_ratio: ratios.reduce(f64::max).unwrap_or(1.0),
            pauses_per_job: by(pauses as f64, jobs, 0.0),
            saves_per_job: by(saves as f64, jobs, 0.0),
            moves_per_job: by(moves as f64, jobs, 0.0),
            most_moves,
            utilisation: by(useful, had, 0.0),
            underutilisation: by(wanted - useful, useful, 0.0),
        }
    }
}
