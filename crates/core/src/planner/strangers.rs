//! Jobs of users whom the guests do not know: nothing of them could run there, and nobody would be told why.

use super::Planner;
use crate::evidence::stranger;
use crate::ids::NodeName;
use crate::plan::{Action, JobVerb};
use std::collections::HashSet;

impl Planner<'_> {
    /// Has Slurm hold them, with the reason.
    pub fn jobs_of_strangers(&mut self) {
        let world = self.world;
        let fresh = world.slurm_began > world.jobs_acted;
        let Some(slurm) = world
            .slurm
            .as_ref()
            .filter(|_| fresh && world.guests_know.is_some())
        else {
            return;
        };
        let planned: HashSet<_> = self
            .plan
            .steps
            .iter()
            .filter_map(|step| step.action.job())
            .collect();
        let strangers = slurm.jobs.values().filter(|job| stranger(world, job));
        for job in strangers.filter(|job| !world.busy_jobs.contains(&job.id) && !planned.contains(&job.id)) {
            let why = format!(
                "user {} (uid {}) is not known in the VMs, and the job could not run there: an administrator adds the \
                 user (users in thiao.toml, then systemctl restart thiaod) and releases the job (scontrol release {})",
                job.user,
                job.uid,
                job.key()
            );
            self.step(
                Action::Job(job.id, JobVerb::Refuse { why }),
                "its user is not known in the guests",
            );
        }
    }

    /// Whether all jobs that Slurm has on `node` are of users whom the guests do not know.
    pub(super) fn is_for_strangers(&self, node: &NodeName) -> bool {
        let world = self.world;
        let knows = |uid: u32| {
            world
                .guests_know
                .as_ref()
                .is_none_or(|known| known.contains(&uid))
        };
        let jobs = self.shown_on(node);
        !jobs.is_empty() && jobs.iter().all(|job| !knows(job.uid))
    }
}
