//! The shortest bad story: less and less happens in a world, as long as the same
//! invariant still breaks.
//!
//! What is tried is tried in a fixed order and costs a bounded amount of simulated
//! time, so that the same failure is always shrunk to the same story.

use crate::faults::{Fault, Hit, Rates};
use crate::outcome::{Invariant, Violation};
use crate::setup::{JobModePlan, JobPlan, Setup};
use crate::text;
use crate::trial::trial;
use std::collections::BTreeSet;
use thiao_core::ids::Millis;

/// What shrinking may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How many runs at most.
    pub tries: u32,
    /// What they simulate, in all.
    pub simulated: Millis,
}

impl Default for Budget {
    /// Some seconds for a small world.
    fn default() -> Self {
        Self {
            tries: 4000,
            simulated: Millis::secs(400 * 3600),
        }
    }
}

/// With how many other seeds a smaller world is tried, if its own breaks nothing.
const OTHER_SEEDS: u64 = 3;

/// The smallest world found, and how it breaks.
#[derive(Debug, Clone)]
pub struct Shrunk {
    pub setup: Setup,
    /// What it breaks, with the whole story.
    pub violation: Violation,
    /// Runs that it took.
    pub tries: u32,
}

/// Shrinks `setup`, which breaks `violation`'s invariant.
#[must_use]
pub fn shrink(setup: Setup, violation: Violation, budget: Budget) -> Shrunk {
    let mut search = Search {
        livable: setup.is_livable(),
        best: Shrunk {
            setup,
            violation,
            tries: 0,
        },
        budget,
    };
    search.cut();
    search.until_settled();
    // Now that little happens, single faults can be told apart.
    search.hits();
    search.until_settled();
    search.hits();
    search.best
}

struct Search {
    best: Shrunk,
    budget: Budget,
    /// Whether all could end well in the world that it began with.
    livable: bool,
}

impl Search {
    /// Tries a smaller world; whether it is the best now.
    fn try_one(&mut self, setup: &Setup) -> bool {
        if self.best.tries >= self.budget.tries || self.budget.simulated == Millis(0) {
            return false;
        }
        if self.livable && !setup.is_livable() {
            return false;
        }
        self.best.tries += 1;
        let result = trial(setup);
        let took = match &result {
            Ok(run) => run.took,
            Err(violation) => violation.run.took,
        };
        self.budget.simulated = Millis(self.budget.simulated.0.saturating_sub(took.0));
        match result {
            Err(violation) if violation.broken.invariant == self.best.violation.broken.invariant => {
                self.best.setup = setup.clone();
                self.best.violation = violation;
                true
            }
            Err(_) | Ok(_) => false,
        }
    }

    /// The same, with a few other seeds as well: what else happens in a smaller world is
    /// a matter of chance.
    fn try_out(&mut self, change: impl FnOnce(&mut Setup)) -> bool {
        let mut setup = self.best.setup.clone();
        change(&mut setup);
        let seed = setup.seed;
        (0..=OTHER_SEEDS).any(|other| {
            setup.seed = seed.wrapping_add(other);
            self.try_one(&setup)
        })
    }

    /// What comes after the end is no part of the story.
    fn cut(&mut self) {
        let at = self.best.violation.run.took;
        self.try_out(|setup| {
            setup.jobs.retain(|job| job.submit <= at);
            setup.lulls.retain(|(from, _)| *from <= at);
            setup.calm = setup.calm.min(Millis(at.0 + 1));
        });
    }

    fn until_settled(&mut self) {
        loop {
            let before = text::write(&self.best.setup);
            self.jobs();
            self.lulls();
            self.kinds();
            self.places();
            self.sizes();
            self.calm();
            self.usual();
            self.cut();
            if text::write(&self.best.setup) == before {
                return;
            }
        }
    }

    fn jobs(&mut self) {
        let jobs = self.best.setup.jobs.clone();
        least(jobs, |some: &[JobPlan]| {
            self.try_out(|setup| setup.jobs = some.to_vec())
        });
    }

    fn lulls(&mut self) {
        let lulls = self.best.setup.lulls.clone();
        least(lulls, |some: &[(Millis, Millis)]| {
            self.try_out(|setup| setup.lulls = some.to_vec())
        });
    }

    /// Whole kinds of faults. What never struck is not missed.
    fn kinds(&mut self) {
        let struck =
            |fault: &Fault, search: &Self| search.best.violation.hits.iter().any(|(kind, _)| kind == fault);
        let about = |setup: &Setup| {
            Fault::ALL
                .into_iter()
                .filter(|fault| setup.faults.of(*fault) > 0)
                .collect()
        };
        let kinds: Vec<Fault> = about(&self.best.setup);
        let missed: Vec<Fault> = kinds.into_iter().filter(|fault| struck(fault, self)).collect();
        let rates = self.best.setup.faults.clone();
        let keep = |some: &[Fault]| {
            let mut kept = Rates::none();
            some.iter().for_each(|fault| kept.set(*fault, rates.of(*fault)));
            kept
        };
        self.try_out(|setup| setup.faults = keep(&missed));
        let kinds: Vec<Fault> = about(&self.best.setup);
        least(kinds, |some: &[Fault]| {
            self.try_out(|setup| {
                setup.faults = keep(some);
                if let Some(only) = &mut setup.only {
                    only.retain(|(fault, _)| some.contains(fault));
                }
            })
        });
    }

    /// Fewer nodes, hosts, and capacity.
    fn places(&mut self) {
        while self.best.setup.nodes > 0 && self.try_out(|setup| setup.nodes -= 1) {}
        while self.best.setup.job_mode_nodes > 0 && self.try_out(|setup| setup.job_mode_nodes -= 1) {}
        while self.best.setup.hosts > 1 && self.try_out(|setup| setup.hosts -= 1) {}
        while self.best.setup.host_capacity > 1 && self.try_out(|setup| setup.host_capacity -= 1) {}
    }

    /// Makes each job as small and short as it can be.
    fn sizes(&mut self) {
        for i in 0..self.best.setup.jobs.len() {
            let mut simpler = |change: fn(&mut JobPlan)| {
                let mut job = self.best.setup.jobs[i].clone();
                change(&mut job);
                job != self.best.setup.jobs[i] && self.try_out(|setup| setup.jobs[i] = job)
            };
            while simpler(|job| job.size = job.size.saturating_sub(1).max(1)) {}
            while simpler(|job| job.length = Millis::secs(job.length.0 / 2000).max(Millis::secs(1))) {}
            simpler(|job| job_mode(job, |job_mode| job_mode.tasks = 0));
            simpler(|job| job_mode(job, |job_mode| job_mode.most = 0));
            simpler(|job| job_mode(job, |job_mode| job_mode.cancel = None));
            simpler(|job| job_mode(job, |job_mode| job_mode.requeue = true));
            simpler(|job| {
                job_mode(job, |job_mode| {
                    (job_mode.cpus, job_mode.memory_mb, job_mode.priority) = (1, 10, 0)
                })
            });
        }
    }

    /// All of it sooner.
    fn calm(&mut self) {
        while self.best.setup.calm > Millis::secs(10)
            && self.try_out(|setup| setup.calm = Millis(setup.calm.0 / 2))
        {}
        let begin = self.best.setup.jobs.first().map_or(Millis(0), |job| job.submit);
        if begin > Millis::secs(1) {
            let earlier = |at: Millis| Millis(at.0.saturating_sub(begin.0 - 1000));
            self.try_out(|setup| {
                setup
                    .jobs
                    .iter_mut()
                    .for_each(|job| job.submit = earlier(job.submit));
                setup.calm = earlier(setup.calm);
                setup.lulls.clear();
            });
        }
    }

    /// Each limit and time as it usually is.
    fn usual(&mut self) {
        let mut usual = Setup::default();
        let usual: Vec<(&str, String)> = text::fields(&mut usual)
            .into_iter()
            .map(|(name, value)| (name, value.write()))
            .collect();
        for (i, (name, value)) in usual.iter().enumerate() {
            let special = text::fields(&mut self.best.setup)[i].1.write() != *value;
            if special && (name.starts_with("policy.") || name.starts_with("slurm.")) {
                self.try_out(|setup| {
                    // It is what was written for a value of this kind.
                    let _ = text::fields(setup)[i].1.read(value);
                });
            }
        }
    }

    /// Single faults: from now on they are named one by one.
    fn hits(&mut self) {
        let hits = self.best.violation.hits.clone();
        let few = hits.len() <= 20;
        // Of those that were named, many may never have struck.
        let struck: BTreeSet<Hit> = hits.iter().copied().collect();
        if self.best.setup.only.as_ref() != Some(&struck) {
            self.try_out(|setup| setup.only = Some(struck));
        }
        least(hits, |some: &[Hit]| {
            let only = Some(some.iter().copied().collect());
            if few {
                return self.try_out(|setup| setup.only = only);
            }
            let mut setup = self.best.setup.clone();
            setup.only = only;
            self.try_one(&setup)
        });
    }
}

fn job_mode(job: &mut JobPlan, change: impl FnOnce(&mut JobModePlan)) {
    if let Some(job_mode) = &mut job.job_mode {
        change(job_mode);
    }
}

/// The least of `items` that still `works`: larger parts are left out first, then
/// smaller ones, down to single items (after Zeller's ddmin).
fn least<T: Clone>(mut items: Vec<T>, mut works: impl FnMut(&[T]) -> bool) {
    if !items.is_empty() && works(&[]) {
        return;
    }
    let mut size = items.len().div_ceil(2);
    while size > 0 && !items.is_empty() {
        let mut at = 0;
        while at < items.len() {
            let mut fewer = items.clone();
            fewer.drain(at..(at + size).min(items.len()));
            if works(&fewer) {
                items = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}

impl Shrunk {
    /// Whether it is about what is left in the end, and not about something that was done.
    #[must_use]
    pub fn is_about_the_end(&self) -> bool {
        self.violation.broken.invariant == Invariant::AllEndsWell
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]
mod tests {
    use super::*;
    use crate::draw::Scale;
    use crate::flaw::Flaw;
    use crate::profile::Profile;

    #[test]
    fn the_least_that_works_is_found() {
        let mut best = Vec::new();
        least((0..100).collect(), |some: &[i32]| {
            let works = [3, 40, 41].iter().all(|need| some.contains(need));
            if works {
                best = some.to_vec();
            }
            works
        });
        assert_eq!(best, [3, 40, 41]);
    }

    #[test]
    fn a_job_that_can_never_run_is_all_that_is_left_of_a_bad_day() {
        let mut setup = Setup::drawn(3, Scale::default(), Profile::Heavy);
        let middle = setup.jobs.len() / 2;
        let mut wide = setup.jobs[middle].clone();
        (wide.size, wide.job_mode) = (setup.nodes + 2, None);
        setup.jobs.insert(middle, wide);
        let violation = trial(&setup).unwrap_err();
        let small = shrink(setup.clone(), violation.clone(), Budget::default());
        assert!(small.is_about_the_end());
        assert_eq!(small.setup.jobs.len(), 1, "{}", text::write(&small.setup));
        assert_eq!(small.setup.faults, Rates::none());
        assert!(small.violation.story.len() < 5, "{}", small.violation);
        // The same again, and from its text.
        let again = shrink(setup, violation, Budget::default());
        assert_eq!(text::write(&small.setup), text::write(&again.setup));
        let read = text::read(&text::write(&small.setup)).unwrap();
        assert_eq!(trial(&read), Err(small.violation));
    }

    /// A listing leaves a VM out, and the controller takes that for its death.
    #[test]
    fn the_one_fault_that_mattered_is_found_among_many() {
        let mut setup = Setup {
            faults: Rates {
                ends_slowly: 300,
                list_omits: 300,
                observation_slow: 300,
                killed: 10,
                ..Rates::none()
            },
            flaw: Some(Flaw::AbsenceIsDeath),
            ..Setup::drawn(7, Scale::default(), Profile::None)
        };
        let hits = [Fault::EndsSlowly, Fault::ObservationSlow, Fault::HookLate];
        let mut only: Vec<Hit> = hits
            .iter()
            .flat_map(|fault| (0..30).map(|i| (*fault, 7 * i)))
            .collect();
        only.extend((5..700).step_by(7).map(|number| (Fault::ListOmits, number)));
        setup.only = Some(only.into_iter().collect());
        let violation = trial(&setup).unwrap_err();
        assert_eq!(violation.broken.invariant, Invariant::NoJobLost);
        let small = shrink(setup, violation, Budget::default());
        let only: Vec<Fault> = small
            .setup
            .only
            .iter()
            .flatten()
            .map(|(fault, _)| *fault)
            .collect();
        assert_eq!(only, [Fault::ListOmits], "{}", text::write(&small.setup));
        assert_eq!(small.setup.jobs.len(), 1);
        assert!(small.violation.story.len() < 40, "{}", small.violation);
    }
}
