//! What the owner's task lets others see of its state: copied after each round, and never changed.

use crate::answer::Reader;
use crate::owner::Owner;
use crate::provider::Provider;
use crate::store::{Past, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use thiao_api::types::Look;
use thiao_config::Config;
use thiao_core::ids::{JobId, Time};
use thiao_core::plan::Plan;
use thiao_core::rounds;
use thiao_core::world::World;
use tokio::sync::watch;

/// The owner's state at one instant, as far as people may ask for it.
#[derive(Debug)]
pub struct Snapshot {
    /// What is known. A copy of it shares the looks and the configuration's nodes with the owner's.
    pub world: World,
    /// When this controller began.
    pub started: Time,
    /// Why the provider makes no VMs yet.
    pub preparing: Option<String>,
    /// What the provider says of itself.
    pub provider_notes: Vec<String>,
    /// Why rounds cannot be stored.
    pub unstored: Option<String>,
    /// How the looks at Slurm go.
    pub slurm_look: Look,
    /// How those at the provider go.
    pub provider_look: Look,
    /// Why jobs wait for us, as the last round that looked into it said.
    pub job_waits: BTreeMap<JobId, Arc<str>>,
    /// What [`Snapshot::plan`] made.
    pub plan: OnceLock<Plan>,
}

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
            unstored: None,
            slurm_look: Look::default(),
            provider_look: Look::default(),
            job_waits: BTreeMap::new(),
            plan: OnceLock::new(),
        }
    }

    /// What would be done in this world. Who asks first makes it: that takes its time.
    pub fn plan(&self) -> &Plan {
        self.plan
            .get_or_init(|| rounds::plan_for(&self.world, self.preparing.as_deref()))
    }

    /// Whether the last look at Slurm shows this job, or an array of that number.
    pub fn shows(&self, job: JobId) -> bool {
        let jobs = self.world.slurm.iter().flat_map(|slurm| slurm.jobs.values());
        jobs.into_iter().any(|seen| job == seen.id || job == seen.key())
    }
}

impl<P: Provider> Owner<P> {
    /// What shows others the state, as it is after each round.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    /// One that answers those who only look, with a connection of its own to the database.
    ///
    /// # Errors
    /// When the database cannot be opened once more.
    pub fn reader(&self) -> Result<Reader<P>, StoreError> {
        Ok(Reader {
            snapshots: self.snapshots(),
            past: Past::open(&database(&self.config))?,
            provider: self.provider.clone(),
            clock: self.clock.clone(),
            state_dir: self.config.state_dir.clone(),
        })
    }

    /// Shows others what holds now: after each round, and before anybody is answered who may look
    /// for what it was about.
    pub(super) fn publish(&self) {
        self.snapshots.send_replace(Arc::new(self.snapshot()));
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            preparing: self.readiness.why_not().map(str::to_owned),
            provider_notes: self.provider_notes.clone(),
            unstored: self.unstored.as_ref().map(|(why, _)| why.clone()),
            slurm_look: self.slurm_look.clone(),
            provider_look: self.provider_look.clone(),
            job_waits: self.job_waits.clone(),
            ..Snapshot::new(self.rounds.world().clone(), self.started)
        }
    }
}

/// Where the store is.
pub fn database(config: &Config) -> PathBuf {
    config.state_dir.join("thiao.db")
}

#[cfg(test)]
mod tests;
