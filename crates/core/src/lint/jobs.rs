//! What may be done about jobs.

use super::{Checked, Linter, refuse_if};
use crate::evidence::stranger;
use crate::ids::JobId;
use crate::resources::Resources;
use crate::view::{ArrayTasks, Gate, HostView, JobState, SlurmJob};
use crate::vm::VmRecord;
use std::num::NonZeroU32;

impl<'a> Linter<'a> {
    pub(super) fn start_now(&self, job: JobId) -> Checked {
        let seen = self.job(job)?;
        refuse_if(matches!(seen.state, JobState::Unknown(_)), || {
            format!("job {job} is in a state that is not understood")
        })
    }

    pub(super) fn change_gate(&self, job: JobId) -> Checked {
        let seen = self.job_mode_job(job)?;
        refuse_if(
            seen.state != JobState::Pending || seen.gate == Gate::Waits,
            || format!("job {job} is not pending with an open gate"),
        )
    }

    fn job(&self, job: JobId) -> Result<&'a SlurmJob, String> {
        let slurm = self.world.slurm.as_ref();
        let seen = slurm.and_then(|slurm| slurm.jobs.get(&job));
        seen.ok_or_else(|| format!("job {job} is not in Slurm's last observation"))
    }

    /// Invariant 4: jobs outside of job mode are not ours to admit or to put back.
    pub(super) fn job_mode_job(&self, job: JobId) -> Result<&'a SlurmJob, String> {
        let seen = self.job(job)?;
        let job_mode = self.world.job_partitions.contains_key(&seen.partition);
        refuse_if(!job_mode, || {
            format!("job {job} is in {}, no partition of job mode", seen.partition)
        })?;
        refuse_if(self.world.busy_jobs.contains(&job), || {
            format!("an action on job {job} is under way")
        })?;
        Ok(seen)
    }

    /// Invariant 7: what is admitted has capacity, at least on all hosts together.
    pub(super) fn admit(
        &mut self,
        job: JobId,
        array: Option<&ArrayTasks>,
        nodes: Option<NonZeroU32>,
    ) -> Checked {
        self.provider()?;
        let seen = self.job_mode_job(job)?;
        refuse_if(
            seen.state != JobState::Pending || seen.gate != Gate::Waits,
            || format!("job {job} does not wait for capacity"),
        )?;
        let stranger = array.is_some_and(|some| {
            let all = seen.array.as_ref().map_or(&[][..], |all| &all.tasks);
            some.tasks.iter().any(|task| !all.contains(task))
        });
        refuse_if(stranger, || format!("job {job} has no such tasks"))?;
        let times = array.map_or(1, |some| some.tasks.len());
        let asked = seen.request.nodes.max(1);
        refuse_if(nodes.is_some_and(|nodes| nodes.get() < asked), || {
            format!("job {job} asks for {asked} nodes at the least")
        })?;
        let vms = u64::from(nodes.map_or(asked, NonZeroU32::get)).saturating_mul(times as u64);
        let policy = &self.world.policy;
        let memory_mb = seen.request.memory_mb.saturating_mul(times as u64);
        self.promised = self.promised.and(Resources {
            memory_mb: memory_mb.saturating_add(policy.overhead_mb.saturating_mul(vms)),
            vms,
            ..Resources::default()
        });
        let all = self.promised.vms.saturating_add(self.vms as u64);
        refuse_if(all > policy.max_vms as u64, || {
            format!("more than {} VMs (limits.max_vms)", policy.max_vms)
        })?;
        let usable = self.hosts.values().filter(|host| host.usable);
        // What is on hosts that take nothing now takes no capacity on the others.
        let load = |host: &HostView| self.load.get(&host.name).copied().unwrap_or_default();
        let left = usable.map(|host| Resources::of_host(host, policy).without(load(host)));
        let left = left.fold(Resources::default(), Resources::and);
        refuse_if(self.promised.memory_mb > left.memory_mb, || {
            format!(
                "the hosts have {} MiB left, and {} are promised to jobs that are admitted now",
                left.memory_mb, self.promised.memory_mb
            )
        })
    }

    /// Invariant 3: what goes back into the queue does not run.
    pub(super) fn put_back(&self, job: JobId) -> Checked {
        let seen = self.job_mode_job(job)?;
        refuse_if(seen.state != JobState::Configuring, || {
            format!("job {job} is not about to start: it may run")
        })?;
        let all_up = seen.nodes.iter().all(|node| {
            let vm = self.world.records.get(node).and_then(|record| record.vm.as_ref());
            vm.is_some_and(VmRecord::is_up)
        });
        refuse_if(all_up, || {
            format!("job {job} has all its VMs, and may start at any moment")
        })
    }

    /// Invariants 3 and 4: only what waits for our VMs is refused, and could not run in them.
    pub(super) fn refuse(&self, job: JobId) -> Checked {
        let seen = self.job(job)?;
        refuse_if(self.world.busy_jobs.contains(&job), || {
            format!("an action on job {job} is under way")
        })?;
        refuse_if(!stranger(self.world, seen), || {
            format!("job {job} may run, or its user is known")
        })
    }

    /// Invariants 3 and 4: of others' jobs only those that cannot run where they are.
    pub(super) fn turn_away(&self, job: JobId) -> Checked {
        let seen = self.job(job)?;
        refuse_if(self.world.busy_jobs.contains(&job), || {
            format!("an action on job {job} is under way")
        })?;
        if self.world.half_away(seen).is_some() {
            return Ok(());
        }
        refuse_if(self.world.out_of_place(seen).is_empty(), || {
            format!("job {job} has no node of job mode that is not its own")
        })?;
        refuse_if(seen.state != JobState::Configuring, || {
            format!("job {job} is not about to start: it may run")
        })
    }
}
