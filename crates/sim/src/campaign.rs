//! Many worlds, one after another on each core, and what came of them in all.

use crate::draw::Scale;
use crate::faults::{Fault, Tally};
use crate::outcome::Summary;
use crate::outcome::Violation;
use crate::profile::Profile;
use crate::setup::Setup;
use crate::trial::trial;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use thiao_core::ids::Millis;

/// Which worlds a campaign runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// A world of each.
    pub seeds: RangeInclusive<u64>,
    /// How large each is.
    pub scale: Scale,
    /// What goes wrong in them; none: all profiles in turn, by the seed.
    pub profile: Option<Profile>,
}

/// What came of runs, all together; of those that broke something, until then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    pub runs: u64,
    /// How much time was simulated.
    pub simulated: Millis,
    /// Jobs that ended; of an array each task.
    pub jobs: usize,
    /// VMs that were made.
    pub vms: usize,
    /// Kills of the controller.
    pub kills: usize,
    /// How often a node was set DOWN by the controller.
    pub downs: usize,
    /// How often Slurm's ResumeTimeout ended a resume.
    pub resume_timeouts: u64,
    /// Rounds of the controller.
    pub rounds: u64,
    /// How often an invariant was asked for.
    pub checks: u64,
    /// What could go wrong and did, by kind.
    pub faults: BTreeMap<Fault, Tally>,
}

impl Totals {
    /// Adds what came of a run.
    pub fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.simulated = Millis(self.simulated.0 + run.took.0);
        self.jobs += run.jobs;
        self.vms += run.created;
        self.kills += run.kills;
        self.downs += run.downs;
        self.resume_timeouts += u64::from(run.resume_timeouts);
        self.rounds += run.rounds;
        self.checks += run.checks;
        for (fault, tally) in &run.faults {
            let sum = self.faults.entry(*fault).or_default();
            sum.occasions += tally.occasions;
            sum.hits += tally.hits;
        }
    }

    /// Faults that struck, of all kinds.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.faults.values().map(|tally| tally.hits).sum()
    }

    /// What was simulated, in hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        Duration::from_millis(self.simulated.0).as_secs_f64() / 3600.0
    }
}

/// What came of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub totals: Totals,
    /// What broke, by seed.
    pub broken: BTreeMap<u64, Violation>,
    /// How long it took, on the clock on the wall.
    pub wall: Duration,
}

impl Campaign {
    /// The world of a seed.
    #[must_use]
    pub fn world(&self, seed: u64) -> Setup {
        Setup::drawn(seed, self.scale, self.profile_of(seed))
    }

    /// What goes wrong in the world of a seed.
    #[must_use]
    pub fn profile_of(&self, seed: u64) -> Profile {
        let turn = usize::try_from(seed % Profile::ALL.len() as u64).unwrap_or(0);
        self.profile.unwrap_or(Profile::ALL[turn])
    }

    /// Runs all of it on so many threads, each run on one; `told` hears how far it is
    /// after each: runs that are over, and those that broke something.
    pub fn run(&self, threads: NonZeroUsize, told: impl Fn(u64, usize) + Sync) -> Outcome {
        let began = Instant::now();
        let seeds = Mutex::new(self.seeds.clone());
        let outcome = Mutex::new(Outcome {
            totals: Totals::default(),
            broken: BTreeMap::new(),
            wall: Duration::ZERO,
        });
        let next = || lock(&seeds).next();
        let work = || {
            while let Some(seed) = next() {
                let result = trial(&self.world(seed));
                let mut outcome = lock(&outcome);
                match result {
                    Ok(run) => outcome.totals.add(&run),
                    Err(violation) => {
                        outcome.totals.add(&violation.run);
                        outcome.broken.insert(seed, violation);
                    }
                }
                told(outcome.totals.runs, outcome.broken.len());
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.get() {
                scope.spawn(work);
            }
        });
        let mut outcome = outcome
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        outcome.wall = began.elapsed();
        outcome
    }
}

/// A panic of another thread breaks nothing here: every change under the lock is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
