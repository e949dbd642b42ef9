//! What the owner's task lets others see of its state: a copy, which is never changed.
//!
//! At 10,000 nodes a copy takes milliseconds. So it is not made after each round but once for all
//! who read until the next one: whoever comes first calls for it. While the owner is busy and makes none, the
//! last one must do; one a second is made in any case, so that it is not old.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiao_api::types::Observation;
use thiao_config::Config;
use thiao_core::ids::{JobId, Time};
use thiao_core::plan::Plan;
use thiao_core::rounds;
use thiao_core::view::{Gate, JobState, SlurmJob};
use thiao_core::world::World;
use tokio::sync::{Notify, watch};

/// The owner's state at one instant, as far as people may ask for it.
#[derive(Debug)]
pub struct Snapshot {
    /// What is known. A copy of it shares the observations and the configuration's nodes with the owner's.
    pub world: World,
    /// When this controller began.
    pub started: Time,
    /// Why the provider makes no VMs yet.
    pub preparing: Option<String>,
    /// What the provider says of itself.
    pub provider_notes: Vec<String>,
    /// Why VMs are emulated, if they are.
    pub emulated: Option<String>,
    /// Why rounds cannot be stored.
    pub unstored: Option<String>,
    /// How the observations of Slurm go.
    pub slurm_observation: Observation,
    /// How those at the provider go.
    pub provider_observation: Observation,
    /// Why jobs wait for us, as the last round that looked into it said.
    pub job_waits: BTreeMap<JobId, Wait>,
    /// What [`Snapshot::plan`] made, once somebody asked for it.
    pub plan: OnceLock<Plan>,
}

/// Why a job waits for us.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Whether that was said of it at the gate; else of its nodes.
    pub at_gate: bool,
    pub why: Arc<str>,
}

impl Wait {
    /// Whether it may still be so of a job that is seen like this: nothing is said at the gate of one that has passed
    /// it, nor of nodes that it does not have any more.
    pub fn holds(&self, job: &SlurmJob) -> bool {
        match (&job.state, job.gate) {
            (JobState::Pending, Gate::Waits) => self.at_gate,
            (JobState::Configuring, _) => !self.at_gate,
            _ => false,
        }
    }
}

/// So long an owner that is busy is waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why no VM is made before the provider has said anything.
pub const STARTING: &str = "starting";

impl Snapshot {
    /// Of a controller that began at `started` and has heard of nothing yet.
    pub fn new(world: World, started: Time) -> Self {
        Self {
            world,
            started,
            preparing: Some(STARTING.to_owned()),
            provider_notes: Vec::new(),
            emulated: None,
            unstored: None,
            slurm_observation: Observation::default(),
            provider_observation: Observation::default(),
            job_waits: BTreeMap::new(),
            plan: OnceLock::new(),
        }
    }

    /// What would be done in this world. Who asks first makes it: that takes its time.
    pub fn plan(&self) -> &Plan {
        self.plan
            .get_or_init(|| rounds::plan_for(&self.world, self.preparing.as_deref()))
    }

    /// Whether the last observation of Slurm shows this job, or an array of that number.
    pub fn shows(&self, job: JobId) -> bool {
        let jobs = self.world.slurm.iter().flat_map(|slurm| slurm.jobs.values());
        jobs.into_iter().any(|seen| job == seen.id || job == seen.key())
    }
}

/// The newest snapshot, for the owner and all readers.
pub struct Shown {
    newest: watch::Sender<Arc<Snapshot>>,
    /// Whether there was a round since.
    outdated: AtomicBool,
    /// Whether somebody reads it and finds that it is.
    wanted: AtomicBool,
    call: Notify,
}

impl Shown {
    /// Begins with this one.
    pub fn new(first: Snapshot) -> Self {
        Self {
            newest: watch::Sender::new(Arc::new(first)),
            outdated: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            call: Notify::new(),
        }
    }

    /// For one who reads the newest again and again.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.newest.subscribe()
    }

    /// Returns when the newest is of after the last round, or the owner is too busy to make it.
    pub async fn renewed(&self) {
        let mut snapshots = self.newest.subscribe();
        if self.outdated.load(Ordering::SeqCst) {
            self.wanted.store(true, Ordering::SeqCst);
            self.call.notify_one();
            // In vain: an older one has to do.
            let _ = tokio::time::timeout(PATIENCE, snapshots.changed()).await;
        }
    }

    /// Returns when somebody wants a newer one.
    pub async fn called(&self) {
        self.call.notified().await;
    }

    /// Whether somebody waits for a newer one.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Says that there was a round since the newest.
    pub fn outdate(&self) {
        self.outdated.store(true, Ordering::SeqCst);
    }

    /// When the newest was made.
    pub fn taken(&self) -> Time {
        self.newest.borrow().world.now
    }

    /// Makes this one the newest.
    pub fn replace(&self, snapshot: Snapshot) {
        // In this order: whoever comes in between calls once more, and misses none.
        self.wanted.store(false, Ordering::SeqCst);
        self.newest.send_replace(Arc::new(snapshot));
        self.outdated.store(false, Ordering::SeqCst);
    }
}

/// Where the store is.
pub fn database(config: &Config) -> PathBuf {
    config.state_dir.join("thiao.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_to_wait_is_told_no_longer_than_it_holds() {
        let wait = |at_gate| Wait {
            at_gate,
            why: "no capacity".into(),
        };
        let job = |state, gate| SlurmJob {
            state,
            gate,
            ..SlurmJob::new(JobId(1))
        };
        assert!(wait(true).holds(&job(JobState::Pending, Gate::Waits)));
        // It was admitted and Slurm has it wait for something else, or it has its nodes.
        assert!(!wait(true).holds(&job(JobState::Pending, Gate::Open)));
        assert!(!wait(true).holds(&job(JobState::Configuring, Gate::Open)));
        assert!(wait(false).holds(&job(JobState::Configuring, Gate::Open)));
        // It is back in the queue.
        assert!(!wait(false).holds(&job(JobState::Pending, Gate::Waits)));
        assert!(!wait(false).holds(&job(JobState::Running, Gate::Open)));
    }
}
