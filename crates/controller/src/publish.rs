//! How the owner lets others see of its state: who reads gets a [snapshot](crate::snapshot), and the history from
//! the database.

use crate::answer::Reader;
use crate::owner::{Owner, millis};
use crate::provider::Provider;
use crate::snapshot::{Snapshot, database};
use crate::store::{Past, StoreError};

impl<P: Provider> Owner<P> {
    /// One that answers those who only read, with a connection of its own to the database.
    ///
    /// # Errors
    /// When the database cannot be opened once more.
    pub fn reader(&self) -> Result<Reader<P>, StoreError> {
        Ok(Reader {
            snapshots: self.shown.snapshots(),
            past: Past::open(&database(&self.config))?,
            provider: self.provider.clone(),
            clock: self.clock.clone(),
            state_dir: self.config.state_dir.clone(),
        })
    }

    /// Shows others what holds now. To be called before anybody is answered who may look for what it
    /// was about.
    pub(super) fn publish(&self) {
        self.shown.replace(self.snapshot());
    }

    /// The same, if somebody reads.
    pub(super) fn publish_if_wanted(&self) {
        if self.shown.is_wanted() {
            self.publish();
        }
    }

    /// What becomes of the last snapshot when there was a round.
    pub(super) fn publish_if_due(&self) {
        let age = self.rounds.world().now.since(self.shown.taken());
        if self.shown.is_wanted() || age >= millis(self.config.timing.shown_every) {
            self.publish();
        } else {
            self.shown.outdate();
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            preparing: self.readiness.why_not().map(str::to_owned),
            provider_notes: self.provider_notes.clone(),
            emulated: self.emulated.clone(),
            unstored: self.unstored.as_ref().map(|(why, _)| why.clone()),
            slurm_observation: self.slurm_observation.clone(),
            provider_observation: self.provider_observation.clone(),
            job_waits: self.job_waits.clone(),
            ..Snapshot::new(self.rounds.world().clone(), self.started)
        }
    }
}

#[cfg(test)]
mod tests;
