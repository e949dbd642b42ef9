//! Folds what is known of nodes before Slurm asks for them: a job's prolog says up to a second
//! earlier that the job has them.

use crate::event::{Event, Kind};
use crate::ids::{JobId, NodeName, Time};
use crate::view::SlurmNode;
use crate::world::{Desired, NodeRecord, World};

impl World {
    /// `jobs` have `node`, and Slurm has not asked for it yet.
    pub(crate) fn order_early(&mut self, node: &NodeName, jobs: Vec<JobId>) {
        let job_mode = self.is_job_mode(node);
        let record = self.records.or_default(node);
        record.is_for(jobs, job_mode);
        record.desired = Desired::Early { since: self.now };
    }
}

impl NodeRecord {
    /// Notes for which jobs it is.
    pub(super) fn is_for(&mut self, jobs: Vec<JobId>, job_mode: bool) {
        if job_mode && jobs != self.jobs {
            // Another job's VM failed there, not this one's.
            self.trouble = Default::default();
        }
        self.jobs = jobs;
    }

    /// Slurm had asked for it at `at`: its slurmd may start, and the time for that runs from now on.
    pub(super) fn asked_by_slurm(&mut self, at: Time) {
        let early = matches!(self.desired, Desired::Early { .. });
        self.desired = Desired::Up { since: at };
        if let Some(vm) = self.vm.as_mut().filter(|vm| early && vm.is_starting()) {
            vm.asked = vm.asked.max(at);
        }
    }

    /// Takes what an observation that began at `began` says of a node that Slurm was about to ask for.
    pub(super) fn see_early(
        &mut self,
        node: &NodeName,
        seen: &SlurmNode,
        began: Time,
        now: Time,
    ) -> Option<Event> {
        let Desired::Early { since } = self.desired else {
            return None;
        };
        if seen.flags.powered_down || seen.flags.powering_down || seen.flags.unknown {
            let left = seen.flags.powered_down && !seen.may_run_job() && since < began;
            return left.then(|| {
                self.desired = Desired::Down { since: began };
                let text = "its job has left it before Slurm asked for it";
                Event::node(node, Kind::NotAsked, text)
            });
        }
        // The observation is no older than its answer.
        self.asked_by_slurm(now);
        let text = "Slurm has asked for it, as an observation shows";
        Some(Event::node(node, Kind::ResumeSeen, text))
    }
}
