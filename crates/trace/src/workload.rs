//! Jobs of a log, made ready for the simulator, whatever they were read from.

use thiao_share::Host;

/// The seconds of a week: logs are cut into weeks.
pub const WEEK: u64 = 604_800;

/// A job as a log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceJob {
    /// Its number in the log.
    pub id: u64,
    /// When it was submitted, in seconds since the log begins.
    pub submit: u64,
    /// How long it ran, in seconds.
    pub run: u64,
    /// How many tasks it has.
    pub tasks: u32,
    /// The CPU of each, in the unit of [`Workload::host`].
    pub cpu: u32,
    /// The memory of each, in the unit of [`Workload::host`].
    pub memory: u32,
    /// What its user asked for, in seconds; never less than `run`.
    pub limit: u64,
    /// Whose it is: any number that is the same for the same user.
    pub user: u32,
    /// The partition or queue that it was in: any number that is the same for the same one.
    pub partition: u32,
    /// How long it really waited, in seconds, where the log says so.
    pub wait: Option<u64>,
    /// How much of its CPU it can use, in thousandths.
    pub efficiency: u16,
}

/// Jobs, and the cluster that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it is called in tables.
    pub name: String,
    /// How many hosts there are.
    pub hosts: u32,
    /// What each of them has: the unit of the jobs' needs.
    pub host: Host,
    /// The jobs, by submission, then by their number.
    pub jobs: Vec<TraceJob>,
}

impl Workload {
    /// Cut into weeks by submission. Each begins at 0 and is called by its number, as `w017`; those
    /// in which nobody submitted anything are not there.
    #[must_use]
    pub fn weeks(&self) -> Vec<Self> {
        let weeks = self.jobs.chunk_by(|a, b| a.submit / WEEK == b.submit / WEEK);
        weeks
            .map(|jobs| {
                let week = jobs[0].submit / WEEK;
                let begin = week * WEEK;
                let jobs = jobs
                    .iter()
                    .map(|job| TraceJob {
                        submit: job.submit - begin,
                        ..*job
                    })
                    .collect();
                Self {
                    name: format!("w{week:03}"),
                    jobs,
                    ..*self
                }
            })
            .collect()
    }

    /// The work of all jobs, as a part of what the hosts can do from the first submission to the last.
    #[must_use]
    pub fn load(&self) -> f64 {
        let (Some(first), Some(last)) = (self.jobs.first(), self.jobs.last()) else {
            return 0.;
        };
        let span = (last.submit - first.submit) as f64;
        let capacity = f64::from(self.host.cpu) * f64::from(self.hosts);
        let work = |job: &TraceJob| f64::from(job.tasks) * f64::from(job.cpu) * job.run as f64;
        let work: f64 = self.jobs.iter().map(work).sum();
        if span > 0. { work / capacity / span } else { 0. }
    }

    /// The same jobs, with times between them so much longer or shorter that the load is this. The first one
    /// comes when it did. A load that nothing can have changes nothing.
    #[must_use]
    pub fn scaled(mut self, load: f64) -> Self {
        let longer = self.load() / load;
        if !(longer.is_finite() && longer > 0.) {
            return self;
        }
        let first = self.jobs.first().map_or(0, |job| job.submit);
        for job in &mut self.jobs {
            job.submit = (first as f64 + (job.submit - first) as f64 * longer) as u64;
        }
        self
    }
}
