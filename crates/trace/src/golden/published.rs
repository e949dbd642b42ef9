//! Schedules that others published: the wait of each job, and the mean bounded slowdown that they report.

use super::columns::stretches;
use super::line::Line;
use crate::engine::{Clock, Order, Outcome, Setup, run};
use crate::read::{self, Options, Shape};
use crate::what_if::WhatIf;
use crate::workload::Workload;
use anyhow::Context as _;
use std::path::Path;
use std::time::Instant;
use thiao_share::{Backfill, Overheads, Policy, Queue};

/// A published schedule of a log.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// What the log is called.
    pub log: &'static str,
    /// What the file is called beside the log.
    pub kind: &'static str,
    /// Who may pass the first in the queue.
    pub backfill: Backfill,
    /// Run times were known.
    pub exact: bool,
    /// The mean bounded slowdown (10 s) of the whole, to its digits.
    pub mean: &'static str,
}

impl Published {
    /// All that there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let logs = [
            ("KTH-SP2", ["92.5765397336", "71.7223851124", "49.8477189313"]),
            ("CTC-SP2", ["49.5712902190", "37.1654014852", "17.5716874376"]),
            ("SDSC-SP2", ["87.8703241922", "70.4779419668", "56.8362212695"]),
        ];
        let kinds = [
            ("easy-requested", Backfill::InOrder, false),
            ("easy-exact", Backfill::InOrder, true),
            ("easy-sjbf-exact", Backfill::ShortestFirst, true),
        ];
        let one = |(log, means): (&'static str, [&'static str; 3])| {
            let all = kinds.into_iter().zip(means);
            all.map(move |((kind, backfill, exact), mean)| Self {
                log,
                kind,
                backfill,
                exact,
                mean,
            })
        };
        logs.into_iter().flat_map(one).collect()
    }

    /// Reads it from the folder with the golden runs.
    ///
    /// # Errors
    /// If there is no such file, or it is no log.
    pub fn read(&self, folder: &Path) -> anyhow::Result<Workload> {
        let path = folder.join(format!("published/{}.{}.swf.gz", self.log, self.kind));
        self.read_file(&path)
    }

    /// Reads it, or a part of it, from a file.
    ///
    /// # Errors
    /// If there is no such file, or it is no log.
    pub fn read_file(&self, path: &Path) -> anyhow::Result<Workload> {
        let (mut workloads, _) = Shape::default().workloads(&read::any(path, &Options::default())?)?;
        workloads
            .pop()
            .with_context(|| format!("there is no job in {}", path.display()))
    }

    /// Runs the algorithm.
    ///
    /// # Errors
    /// If the run comes to no end.
    pub fn run(&self, workload: &Workload) -> anyhow::Result<Outcome> {
        let setup = Setup {
            policy: Policy::Queue(Queue::published(self.backfill)),
            overheads: Overheads::default(),
            exact: self.exact,
            pool: true,
            clock: Clock::Millis,
            order: Order::OneByOne,
            what_if: WhatIf::default(),
        };
        run(workload, &setup, &mut ())
    }
}

/// Compares the wait of each job, and the mean, which counts as one more.
///
/// # Errors
/// If the run comes to no end.
pub fn compare(published: &Published, workload: &Workload) -> anyhow::Result<Line> {
    let begin = Instant::now();
    let outcome = published.run(workload)?;
    let mut line = waits(published, workload, &outcome);
    let mean = format!("{:.10}", stretches(workload, &outcome).1);
    line.count((mean != published.mean).then(|| format!("the mean of {} is {mean}", published.mean)));
    line.took = begin.elapsed();
    Ok(line)
}

/// Compares the wait of each job.
#[must_use]
pub fn waits(published: &Published, workload: &Workload, outcome: &Outcome) -> Line {
    let mut line = Line::new(published.log, published.kind, "waits");
    for (job, ended) in workload.jobs.iter().zip(&outcome.jobs) {
        let wait = ended.start / 1000 - job.submit;
        line.count((job.wait != Some(wait)).then(|| format!("job {}: {:?} is {wait}", job.id, job.wait)));
    }
    line
}
