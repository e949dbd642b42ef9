//! Many runs at once: each policy on each part of a log, on all cores, with the same results however many there are.

use crate::engine::{self, Outcome, Watch};
use crate::figures::{Figures, Part};
use crate::policies::Asked;
use crate::record::{Recorder, Recording, Window};
use crate::what_if::WhatIf;
use crate::workload::Workload;
use anyhow::Context as _;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use thiao_share::{Change, JobId, Ms, Overheads, State};

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    /// What became of the jobs.
    pub outcome: Outcome,
    /// How long it took, in seconds of a clock on the wall.
    pub seconds: f64,
    /// What was seen of it, if that was asked for.
    pub recording: Option<Recording>,
}

/// The figures of one policy's runs of these parts, beside those of the reference.
#[must_use]
pub fn figures(parts: &[Workload], ran: &[Ran], reference: &[Ran]) -> Figures {
    let both = ran.iter().zip(reference);
    let parts = parts.iter().zip(both).map(|(workload, (ran, reference))| Part {
        workload,
        outcome: &ran.outcome,
        reference: &reference.outcome,
    });
    Figures::of(&parts.collect::<Vec<_>>())
}

/// Sees a run for its recorder, if it has one, and for those who wait for it.
struct Seen<'a> {
    recorder: Option<&'a mut Recorder>,
    /// When the last job comes.
    last: Ms,
    decisions: u64,
    progress: &'a dyn Fn(u64),
}

/// After so many decisions it is told how far a run is.
const TOLD_EVERY: u64 = 4096;

impl Watch for Seen<'_> {
    fn decided(&mut self, now: Ms, state: &State, changes: &[Change], index_of: &dyn Fn(JobId) -> usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.decided(now, state, changes, index_of);
        }
        self.decisions += 1;
        if self.decisions.is_multiple_of(TOLD_EVERY) {
            (self.progress)(1000 * now.min(self.last) / self.last.max(1));
        }
    }
}

/// What is to be run.
#[derive(Debug)]
pub struct Runs<'a> {
    /// Each is a run of its own.
    pub parts: &'a [Workload],
    pub asked: &'a [Asked],
    /// What their decisions cost.
    pub overheads: Overheads,
    /// What is other than in the log.
    pub what_if: WhatIf,
    /// The part, and the time in it, of which pictures are made.
    pub picture: Option<(usize, Window)>,
}

impl Runs<'_> {
    /// How many runs these are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.parts.len() * self.asked.len()
    }

    /// A run; `progress` is told how far it is, in thousandths.
    fn one(&self, at: usize, progress: &dyn Fn(u64)) -> anyhow::Result<Ran> {
        let (asked, part) = (&self.asked[at / self.parts.len()], at % self.parts.len());
        let (workload, setup) = (&self.parts[part], asked.setup(self.overheads, self.what_if));
        let mut recorder = self
            .picture
            .filter(|(pictured, _)| *pictured == part)
            .map(|(_, window)| Recorder::new(workload, window));
        let began = Instant::now();
        let last = workload.jobs.last().map_or(0, |job| job.submit * 1000);
        let mut seen = Seen {
            recorder: recorder.as_mut(),
            last,
            decisions: 0,
            progress,
        };
        let outcome = engine::run(workload, &setup, &mut seen);
        let outcome = outcome.with_context(|| format!("{} under {}", workload.name, asked.name))?;
        let seconds = began.elapsed().as_secs_f64();
        let recording = recorder.map(|recorder| recorder.done(&outcome));
        Ok(Ran {
            outcome,
            seconds,
            recording,
        })
    }

    /// Runs all: by policy, then by part. `progress` is told how far all of them are, in thousandths of one.
    ///
    /// # Errors
    /// When a run comes to no end: the first of them by that order.
    pub fn run(
        &self,
        threads: NonZeroUsize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> anyhow::Result<Vec<Vec<Ran>>> {
        let count = self.count();
        let (next, far, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let results: Vec<Mutex<Option<anyhow::Result<Ran>>>> = (0..count).map(|_| Mutex::new(None)).collect();
        let work = || {
            // Runs are begun in their order: before the one that failed all others were, and come to their ends.
            while !failed.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(result) = results.get(at) else { break };
                let told = Cell::new(0);
                let tell = |part: u64| {
                    let more = part.saturating_sub(told.get());
                    told.set(told.get() + more);
                    progress(far.fetch_add(more, Ordering::Relaxed) + more);
                };
                let ran = self.one(at, &tell);
                tell(1000);
                failed.fetch_or(ran.is_err(), Ordering::Relaxed);
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(ran);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.get().min(count) {
                scope.spawn(work);
            }
            work();
        });
        let results = results
            .into_iter()
            .map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        // What was not begun comes after what failed.
        let mut all = results
            .map_while(|result| result)
            .collect::<anyhow::Result<Vec<Ran>>>()?
            .into_iter();
        Ok(self
            .asked
            .iter()
            .map(|_| all.by_ref().take(self.parts.len()).collect())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies;
    use crate::workload::TraceJob;
    use thiao_share::Host;

    fn part(jobs: u64, tasks: u32) -> Workload {
        let job = |id| TraceJob {
            id,
            submit: id * 3,
            run: 1 + id % 7,
            tasks,
            cpu: 1,
            memory: 0,
            limit: 9,
            user: 0,
            partition: 0,
            wait: None,
            efficiency: 1000,
        };
        Workload {
            name: format!("{jobs} jobs"),
            hosts: 4,
            host: Host { cpu: 1, memory: 1 },
            jobs: (0..jobs).map(job).collect(),
        }
    }

    fn asked() -> Vec<Asked> {
        ["fcfs", "easy-exact"]
            .map(|name| policies::parse(name).unwrap())
            .into()
    }

    /// Runs whose decisions cost nothing.
    fn free<'a>(parts: &'a [Workload], asked: &'a [Asked]) -> Runs<'a> {
        Runs {
            parts,
            asked,
            overheads: Overheads::default(),
            what_if: WhatIf::default(),
            picture: None,
        }
    }

    #[test]
    fn results_are_the_same_on_however_many_cores() {
        let parts: Vec<_> = (1..20).map(|jobs| part(jobs * 5, 1 + jobs as u32 % 4)).collect();
        let asked = asked();
        let runs = free(&parts, &asked);
        let of = |threads| {
            let told = AtomicU64::new(0);
            let told_of = |far| {
                told.fetch_max(far, Ordering::Relaxed);
            };
            let ran = runs.run(NonZeroUsize::new(threads).unwrap(), &told_of).unwrap();
            assert_eq!((told.into_inner(), ran.len()), (1000 * runs.count() as u64, 2));
            let ends = ran.iter().flatten().map(|ran| ran.outcome.jobs.clone());
            ends.collect::<Vec<_>>()
        };
        let one = of(1);
        assert_eq!(one[3].len(), parts[3].jobs.len());
        assert_eq!((one.clone(), one), (of(2), of(16)));
    }

    #[test]
    fn the_first_run_that_fails_is_the_one_that_is_named() {
        // A job that is wider than the cluster waits for ever.
        let parts = [part(5, 1), part(6, 5), part(7, 5)];
        let asked = asked();
        let runs = free(&parts, &asked);
        for threads in [1, 2, 8] {
            let said = runs
                .run(NonZeroUsize::new(threads).unwrap(), &|_| ())
                .unwrap_err();
            assert!(format!("{said:#}").contains("6 jobs under fcfs"), "{said:#}");
        }
    }

    #[test]
    fn a_picture_is_of_one_part() {
        let parts = [part(5, 1), part(6, 2)];
        let asked = asked();
        let window = Window { from: 0, to: 1000 };
        let picture = Some((1, window));
        let runs = Runs {
            parts: &parts,
            asked: &asked,
            overheads: Overheads::default(),
            what_if: WhatIf::default(),
            picture,
        };
        let ran = runs.run(NonZeroUsize::MIN, &|_| ()).unwrap();
        let seen: Vec<_> = ran.iter().flatten().map(|ran| ran.recording.is_some()).collect();
        assert_eq!(seen, [false, true, false, true]);
    }
}
