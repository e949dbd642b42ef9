//! What the prologs of jobs hear: whether their jobs may start.
//!
//! Slurm runs PrologSlurmctld when it has given a job its nodes, up to a second before
//! ResumeProgram, and starts the job when that ends and all nodes are up.

use crate::event::{Event, Kind};
use crate::ids::{JobId, NodeName, Time};
use crate::orders::Order;
use crate::view::{JobState, SlurmJob, SlurmNode, SlurmView};
use crate::world::{Desired, World};
use std::collections::BTreeMap;

/// What a prolog hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrologAnswer {
    /// All of its job's nodes are up and its own: the job starts.
    Start,
    /// The job must not start there; why.
    Never(String),
    /// There is nothing to wait for any more; why.
    Over(String),
}

/// What becomes of what earlier jobs left in a VM where everybody may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// It goes before the next job starts there.
    Remove,
    /// It stays: it may be of a job that is not over.
    Keep,
}

impl SlurmView {
    /// What is to become of what earlier jobs left on a node of this job, which is about to start. Steps come and go;
    /// what is a job's goes with the job.
    #[must_use]
    pub fn leftovers(&self, job: &SlurmJob, node: &NodeName) -> Leftovers {
        let is_there =
            |other: &&SlurmJob| other.id != job.id && !other.is_over() && other.nodes.contains(node);
        // One that runs already is asked about again: what is there may be its own.
        let starts = job.state == JobState::Configuring;
        match starts && !self.jobs.values().any(|other| is_there(&other)) {
            true => Leftovers::Remove,
            false => Leftovers::Keep,
        }
    }
}

impl World {
    /// Wants the VMs of jobs whose prologs wait (each since then), by the last observation of Slurm. Their
    /// slurmds wait until Slurm asks itself, by ResumeProgram's order or in an observation. The nodes are
    /// Slurm's word, not the asker's.
    pub fn order_for_prologs(&mut self, waiting: &[(JobId, Time)]) -> Vec<Event> {
        let Some(slurm) = &self.slurm else {
            return Vec::new();
        };
        let mut asked: BTreeMap<NodeName, (Vec<JobId>, bool)> = BTreeMap::new();
        for (id, since) in waiting {
            let job = slurm
                .jobs
                .get(id)
                .filter(|job| *since < self.slurm_began && job.state == JobState::Configuring);
            for node in job.iter().flat_map(|job| &job.nodes) {
                let Some(seen) = slurm.nodes.get(node) else {
                    continue;
                };
                let off = seen.flags.powered_down || seen.flags.powering_up;
                let free = self.records.get(node).is_some_and(|record| {
                    let wanted = matches!(record.desired, Desired::Early { .. } | Desired::Up { .. });
                    record.vm.is_none() && record.down.is_none() && !wanted
                });
                if off && free {
                    // Whether Slurm has asked for it itself.
                    let asked = asked.entry(node.clone()).or_default();
                    asked.1 = seen.flags.powering_up;
                    asked.0.push(*id);
                }
            }
        }
        let told = asked.into_iter().map(|(node, (jobs, asked))| {
            let text = match asked {
                true => format!("given to job {}, whose prolog waits, and asked for", jobs[0]),
                false => format!(
                    "given to job {}, whose prolog waits: Slurm's order follows",
                    jobs[0]
                ),
            };
            match asked {
                true => {
                    let jobs = [(node.clone(), jobs)].into();
                    drop(self.order(&node, &Order::Up { force: false, jobs }, self.now));
                }
                false => self.order_early(&node, jobs),
            }
            Event::node(&node, Kind::PrologAsked, text)
        });
        told.collect()
    }

    /// Whether the prolog of `id`, which waits since then, can end; none while it must wait.
    #[must_use]
    pub fn prolog(&self, id: JobId, since: Time) -> Option<PrologAnswer> {
        let verdict = self.verdict(self.slurm.as_ref()?, id)?;
        // What an older observation does not show may be newer than that.
        (verdict == PrologAnswer::Start || since < self.slurm_began).then_some(verdict)
    }

    fn verdict(&self, slurm: &SlurmView, id: JobId) -> Option<PrologAnswer> {
        let Some(job) = slurm.jobs.get(&id) else {
            return Some(PrologAnswer::Over(format!("Slurm shows no job {id}")));
        };
        if let Some((node, other)) = self.others_vm(job) {
            let text = format!("the VM of {node} was made for job {other}: job {id} cannot start there");
            return Some(PrologAnswer::Never(text));
        }
        if let Some(node) = self.was_found_before(job) {
            let text =
                format!("the VM of {node} is another job's: it was there before job {id} got the node");
            return Some(PrologAnswer::Never(text));
        }
        match &job.state {
            JobState::Over(word) => Some(PrologAnswer::Over(format!("job {id} is over: {word}"))),
            // As long as its prolog runs, a requeued job can't start again ("Cleaning").
            JobState::Pending | JobState::Completing => {
                Some(PrologAnswer::Over(format!("job {id} has lost its nodes")))
            }
            JobState::Configuring | JobState::Running | JobState::Suspended | JobState::Unknown(_) => {
                let its_own = |node| {
                    let up = slurm.nodes.get(node).filter(|seen| seen.is_up());
                    up.is_some_and(|seen| self.ends_with_its_job(node, seen)) && !self.is_kept_still(node)
                };
                (!job.nodes.is_empty() && job.nodes.iter().all(its_own)).then_some(PrologAnswer::Start)
            }
        }
    }

    /// Whether somebody keeps the node's VM from going on. Slurm, which has not heard yet that it is silent, would
    /// start the job there: a step that cannot be launched on one of its nodes fails, and so does the job.
    fn is_kept_still(&self, node: &NodeName) -> bool {
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        vm.is_some_and(|vm| vm.life.is_kept_still())
    }

    /// Whether Slurm gives a node of job mode to nobody else from now on. That was asked
    /// while its VM came up; a refusal must not hold its job up for long.
    fn ends_with_its_job(&self, node: &NodeName, seen: &SlurmNode) -> bool {
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        // Not what the last controller saw: it may not have come to that.
        let since_power = self.powers.get(node).map_or(self.now, |(_, since)| *since);
        let tried = |vm: &crate::vm::VmRecord| {
            let since = vm.since.max(since_power);
            vm.is_up() && self.now.since(since) > self.policy.mark_patience
        };
        !self.is_job_mode(node) || seen.flags.power_down || vm.is_some_and(tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jobs_left_goes_when_a_job_starts_alone_and_not_before() {
        let fg = |number: u32| NodeName::new(&format!("fg{number}")).unwrap();
        let job = |id, state, nodes: &[u32]| SlurmJob {
            state,
            nodes: nodes.iter().copied().map(fg).collect(),
            ..SlurmJob::new(JobId(id))
        };
        let starts = job(7, JobState::Configuring, &[1, 2]);
        let others = [
            (job(8, JobState::Running, &[1]), Leftovers::Keep),
            (job(8, JobState::Suspended, &[1]), Leftovers::Keep),
            (job(8, JobState::Configuring, &[1]), Leftovers::Keep),
            (job(8, JobState::Completing, &[1]), Leftovers::Keep),
            (job(8, JobState::Unknown("NEW".into()), &[1]), Leftovers::Keep),
            (
                job(8, JobState::Over("COMPLETED".into()), &[1]),
                Leftovers::Remove,
            ),
            (job(8, JobState::Pending, &[]), Leftovers::Remove),
            (job(8, JobState::Running, &[3]), Leftovers::Remove),
        ];
        for (other, wanted) in others {
            let state = other.state.clone();
            let slurm = SlurmView {
                jobs: [starts.clone(), other]
                    .into_iter()
                    .map(|job| (job.id, job))
                    .collect(),
                ..SlurmView::default()
            };
            assert_eq!(slurm.leftovers(&starts, &fg(1)), wanted, "{state:?}");
            assert_eq!(slurm.leftovers(&starts, &fg(2)), Leftovers::Remove);
            let runs = job(7, JobState::Running, &[1, 2]);
            assert_eq!(
                slurm.leftovers(&runs, &fg(2)),
                Leftovers::Keep,
                "its own may be there"
            );
        }
    }
}
