//! What a run looked like, for pictures of it.

use crate::engine::{Outcome, Watch};
use crate::workload::Workload;
use std::collections::HashMap;
use thiao_share::{Change, JobId, Ms, Standing, State};

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Ms,
    /// The first moment after it.
    pub to: Ms,
}

impl Window {
    /// So many milliseconds in which most work came.
    #[must_use]
    pub fn busiest(workload: &Workload, long: Ms) -> Self {
        let mut work: HashMap<u64, u128> = HashMap::new();
        for job in &workload.jobs {
            let needs = u128::from(job.run) * u128::from(job.tasks) * u128::from(job.cpu);
            *work.entry(job.submit * 1000 / long.max(1)).or_default() += needs;
        }
        // Of equals the first.
        let at = work
            .into_iter()
            .max_by_key(|(at, work)| (*work, std::cmp::Reverse(*at)));
        let from = at.map_or(0, |(at, _)| at * long);
        Self {
            from,
            to: from + long,
        }
    }

    fn meets(self, from: Ms, to: Ms) -> bool {
        from < self.to && to > self.from && from < to
    }
}

/// Some tasks of a job on a host, for a while in which nothing about them changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its index in the workload.
    pub job: u32,
    /// On which host; with a pool, always 0.
    pub host: u32,
    /// How many of its tasks.
    pub tasks: u32,
    /// The CPU of each; 0: paused in place.
    pub alloc: u32,
    pub from: Ms,
    pub to: Ms,
}

/// What was seen of a run.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// How long a bin of `used` is.
    pub bin: Ms,
    /// The share of all CPU that jobs had, by bin, from the beginning of time.
    pub used: Vec<f64>,
    /// Who was where, within the window, by host and time.
    pub segments: Vec<Segment>,
}

/// Sees a run, and keeps what pictures need of it.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    bin: Ms,
    /// In CPU times milliseconds.
    used: Vec<f64>,
    since: Ms,
    given: u64,
    capacity: u64,
    /// By job, what it has had since when.
    open: HashMap<u32, Vec<Segment>>,
    closed: Vec<Segment>,
}

/// So many bins are kept at most: with more, two become one.
const BINS: usize = 4096;
/// How long a bin is at first.
const BIN: Ms = 1000;

impl Recorder {
    /// For a run of this workload, of which the window is looked at closely.
    #[must_use]
    pub fn new(workload: &Workload, window: Window) -> Self {
        Self {
            window,
            bin: BIN,
            used: Vec::new(),
            since: 0,
            given: 0,
            capacity: u64::from(workload.host.cpu) * u64::from(workload.hosts),
            open: HashMap::new(),
            closed: Vec::new(),
        }
    }

    /// Until `now` jobs had what they were given.
    fn pass(&mut self, now: Ms) {
        while self.since < now {
            let at = (self.since / self.bin) as usize;
            let until = now.min((at as u64 + 1) * self.bin);
            if at >= BINS {
                self.used.resize(BINS, 0.0);
                self.used = self.used.chunks(2).map(|two| two.iter().sum()).collect();
                self.bin *= 2;
                continue;
            }
            if self.used.len() <= at {
                self.used.resize(at + 1, 0.0);
            }
            self.used[at] += (until - self.since) as f64 * self.given as f64;
            self.since = until;
        }
    }

    fn close(&mut self, segments: Vec<Segment>, now: Ms) {
        for mut segment in segments {
            segment.to = now;
            if self.window.meets(segment.from, segment.to) {
                self.closed.push(segment);
            }
        }
    }

    /// All that was seen.
    #[must_use]
    pub fn done(mut self, outcome: &Outcome) -> Recording {
        // Ends are no decisions: whatever a job had last, it had until then.
        for (job, segments) in std::mem::take(&mut self.open) {
            self.close(segments, outcome.jobs[job as usize].end);
        }
        let mut segments = self.closed;
        segments.sort_unstable_by_key(|segment| (segment.host, segment.from, segment.job));
        let all = (self.bin * self.capacity.max(1)) as f64;
        Recording {
            bin: self.bin,
            used: self.used.into_iter().map(|used| used / all).collect(),
            segments,
        }
    }
}

impl Watch for Recorder {
    fn decided(&mut self, now: Ms, state: &State, changes: &[Change], index_of: &dyn Fn(JobId) -> usize) {
        self.pass(now);
        self.given = state.loads().iter().map(|load| u64::from(load.cpu)).sum();
        for change in changes {
            let job = index_of(change.job) as u32;
            if let Some(segments) = self.open.remove(&job) {
                self.close(segments, now);
            }
            let Some(entry) = state.get(change.job) else {
                continue;
            };
            if entry.standing != Standing::Resident || now >= self.window.to {
                continue;
            }
            let (alloc, to) = (entry.progress.alloc(), Ms::MAX);
            let slots = entry.slots.iter();
            let segments = slots.map(|slot| Segment {
                job,
                host: slot.host.0,
                tasks: slot.tasks,
                alloc,
                from: now,
                to,
            });
            self.open.insert(job, segments.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::what_if::WhatIf;
    use crate::workload::TraceJob;
    use crate::{engine, policies};
    use thiao_share::{Host, Overheads};

    fn workload() -> Workload {
        let job = |submit, run, tasks| TraceJob {
            id: submit,
            submit,
            run,
            tasks,
            cpu: 1,
            memory: 1,
            limit: run,
            user: 0,
            partition: 0,
            wait: None,
            efficiency: 1000,
        };
        Workload {
            name: "w".into(),
            hosts: 2,
            host: Host { cpu: 2, memory: 4 },
            jobs: vec![job(0, 100, 4), job(10, 50, 2), job(200, 10, 1)],
        }
    }

    #[test]
    fn what_was_given_is_seen_in_its_bins() {
        let workload = workload();
        let window = Window {
            from: 50_000,
            to: 120_000,
        };
        let mut recorder = Recorder::new(&workload, window);
        let setup = policies::parse("fcfs")
            .unwrap()
            .setup(Overheads::default(), WhatIf::default());
        let outcome = engine::run(&workload, &setup, &mut recorder).unwrap();
        let recording = recorder.done(&outcome);
        assert_eq!(recording.bin, 1000);
        let used = |from: usize, to: usize| recording.used[from..to].iter().sum::<f64>();
        assert_eq!((used(0, 100), used(100, 150), used(150, 200)), (100.0, 25.0, 0.0));
        let given = recording.used.iter().sum::<f64>() * 1000.0 * 4.0;
        assert_eq!(given, outcome.given as f64);
        // The third job is not within the window.
        let seen: Vec<_> = recording
            .segments
            .iter()
            .map(|s| (s.job, s.tasks, s.from, s.to))
            .collect();
        assert_eq!(seen, [(0, 4, 0, 100_000), (1, 2, 100_000, 150_000)]);
    }

    #[test]
    fn however_long_a_run_is_its_bins_are_few() {
        let mut workload = workload();
        workload.jobs[0].run = 100_000_000;
        let mut recorder = Recorder::new(&workload, Window { from: 0, to: 1000 });
        let setup = policies::parse("fcfs")
            .unwrap()
            .setup(Overheads::default(), WhatIf::default());
        let outcome = engine::run(&workload, &setup, &mut recorder).unwrap();
        let recording = recorder.done(&outcome);
        assert!(
            recording.used.len() <= BINS && recording.used.len() > BINS / 4,
            "{}",
            recording.used.len()
        );
        let given = recording.used.iter().sum::<f64>() * recording.bin as f64 * 4.0;
        assert!((given / outcome.given as f64 - 1.0).abs() < 1e-9, "{given}");
    }

    #[test]
    fn the_busiest_window_is_where_most_work_came() {
        let workload = workload();
        assert_eq!(Window::busiest(&workload, 5_000), Window { from: 0, to: 5_000 });
        let mut later = workload.clone();
        later.jobs[2].run = 4000;
        assert_eq!(
            Window::busiest(&later, 60_000),
            Window {
                from: 180_000,
                to: 240_000
            }
        );
    }
}
