//! Some jobs together: all, those of a class, those of a user.

use super::job::{OneJob, by};

/// What some jobs got, times in seconds. Of no jobs, a stretch and a ratio are 1, and times 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// How many jobs these are.
    pub jobs: usize,
    /// Their share of the CPU time of all jobs.
    pub cpu_share: f64,
    /// Bounded stretch: the mean.
    pub mean_stretch: f64,
    /// Half of the jobs have at most this.
    pub median_stretch: f64,
    /// 99 of 100 jobs have at most this.
    pub p99_stretch: f64,
    pub max_stretch: f64,
    /// Time from submission to end: the mean.
    pub mean_turnaround: f64,
    /// 99 of 100 jobs were back after this.
    pub p99_turnaround: f64,
    /// Mean turnaround by that of the reference.
    pub turnaround_ratio: f64,
    /// Time that jobs did not need and spent all the same: the mean.
    pub mean_wait: f64,
    /// Half of the jobs lost at most this.
    pub median_wait: f64,
    /// 9 of 10 jobs lost at most this.
    pub p90_wait: f64,
    /// 99 of 100 jobs lost at most this.
    pub p99_wait: f64,
    /// Time from submission to the first start: the mean.
    pub mean_start: f64,
    /// The share of the jobs that end later than with the reference, by more than a second.
    pub later: f64,
}

/// Jobs are added one by one.
#[derive(Debug, Default)]
pub(super) struct Tally {
    stretches: Vec<f64>,
    turnarounds: Vec<f64>,
    waits: Vec<f64>,
    starts: f64,
    reference: f64,
    later: usize,
    cpu: f64,
}

impl Tally {
    /// How many were added.
    pub fn jobs(&self) -> usize {
        self.stretches.len()
    }

    /// One more job: what it got, what it gets with the reference, and its CPU time.
    pub fn add(&mut self, got: OneJob, than: OneJob, cpu: f64) {
        self.stretches.push(got.stretch);
        self.turnarounds.push(got.turnaround);
        self.waits.push(got.wait);
        self.starts += got.start;
        self.reference += than.turnaround;
        self.later += usize::from(got.turnaround > than.turnaround + 1.0);
        self.cpu += cpu;
    }

    /// The figures; `cpu` is the CPU time of all jobs that there are.
    pub fn done(self, cpu: f64) -> Group {
        let jobs = self.jobs();
        let n = jobs as f64;
        let (stretches, turnarounds, waits) = (
            Sorted::of(self.stretches),
            Sorted::of(self.turnarounds),
            Sorted::of(self.waits),
        );
        Group {
            jobs,
            cpu_share: by(self.cpu, cpu, 0.0),
            mean_stretch: by(stretches.sum, n, 1.0),
            median_stretch: stretches.at(0.5).unwrap_or(1.0),
            p99_stretch: stretches.at(0.99).unwrap_or(1.0),
            max_stretch: stretches.at(1.0).unwrap_or(1.0),
            mean_turnaround: by(turnarounds.sum, n, 0.0),
            p99_turnaround: turnarounds.at(0.99).unwrap_or(0.0),
            turnaround_ratio: by(turnarounds.sum, self.reference, 1.0),
            mean_wait: by(waits.sum, n, 0.0),
            median_wait: waits.at(0.5).unwrap_or(0.0),
            p90_wait: waits.at(0.9).unwrap_or(0.0),
            p99_wait: waits.at(0.99).unwrap_or(0.0),
            mean_start: by(self.starts, n, 0.0),
            later: by(self.later as f64, n, 0.0),
        }
    }
}

struct Sorted {
    values: Vec<f64>,
    sum: f64,
}

impl Sorted {
    fn of(mut values: Vec<f64>) -> Self {
        let sum = values.iter().sum();
        values.sort_unstable_by(f64::total_cmp);
        Self { values, sum }
    }

    /// The least value that this share of the values does not exceed: always one that occurs.
    fn at(&self, share: f64) -> Option<f64> {
        let rank = (share * self.values.len() as f64).ceil() as usize;
        self.values.get(rank.max(1) - 1).copied()
    }
}
