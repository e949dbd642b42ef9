//! Folds what was seen of jobs in job mode, and what was done to them.

use crate::event::{Event, Kind, Subject};
use crate::ids::{JobId, Millis, NodeName, Time};
use crate::view::{Gate, JobState, SlurmJob, SlurmView, WaitsFor};
use crate::world::{JobRecord, World};
use std::collections::BTreeSet;

impl World {
    /// Takes Slurm's jobs from a whole observation that began at `began`.
    pub(super) fn see_jobs(&mut self, view: &SlurmView, began: Time) {
        if self.job_partitions.is_empty() || self.jobs_acted > began {
            return;
        }
        let now = self.now;
        let mut there = BTreeSet::new();
        for job in view.jobs.values() {
            // One that cannot be read may lack its partition too.
            let unknown = matches!(job.state, JobState::Unknown(_));
            if !unknown && !self.job_partitions.contains_key(&job.partition) {
                // What was tried with it is remembered as long as it is there.
                there.extend((!self.out_of_place(job).is_empty()).then_some(job.key()));
                continue;
            }
            there.insert(job.id);
            there.insert(job.key());
            match (&job.state, job.gate) {
                (JobState::Pending, Gate::Waits) => {
                    let record = self.jobs.entry(job.key()).or_default();
                    record.waits.get_or_insert(now);
                }
                (JobState::Pending, Gate::Open) => {
                    let record = self.jobs.entry(job.id).or_default();
                    record.admitted.get_or_insert(now);
                }
                (JobState::Running | JobState::Suspended, _) => {
                    // Its VMs were had: what failed before counts no more.
                    self.jobs.remove(&job.id);
                }
                (
                    JobState::Configuring | JobState::Completing | JobState::Over(_) | JobState::Unknown(_),
                    _,
                ) => {}
            }
            if job.state != JobState::Pending
                && !unknown
                && let Some(record) = self.jobs.get_mut(&job.id)
            {
                record.admitted = None;
            }
        }
        self.jobs.retain(|id, _| there.contains(id));
    }

    /// What is told of jobs that an observation shows in a state that is not understood, once for each: those that
    /// have nodes of ours or may be of job mode.
    pub(super) fn newly_unknown(&self, view: &SlurmView) -> Vec<Event> {
        let before = |id: &JobId| Some(&self.slurm.as_ref()?.jobs.get(id)?.state);
        let ours = |job: &SlurmJob| {
            job.partition.is_empty()
                || self.job_partitions.contains_key(&job.partition)
                || job.nodes.iter().any(|node| self.specs.contains_key(node))
        };
        let mut events = Vec::new();
        for job in view.jobs.values() {
            if let JobState::Unknown(word) = &job.state
                && ours(job)
                && before(&job.id) != Some(&job.state)
            {
                let text = format!(
                    "Slurm shows it in a way that is not understood ({word}): nothing is done about it"
                );
                events.push(Event::new(Subject::Job(job.id), Kind::JobUnknown, text));
            }
        }
        events
    }

    /// An action on a job ended, however: observations that began before say nothing of it.
    pub fn job_action_ended(&mut self, job: JobId) {
        self.busy_jobs.remove(&job);
        self.jobs_acted = self.now;
    }

    /// A job waits for capacity again that was admitted and was not started.
    pub fn gate_closed(&mut self, job: JobId) -> Event {
        let seen = self.slurm.as_ref().and_then(|slurm| slurm.jobs.get(&job));
        let paused = seen.is_some_and(|job| job.reason.has(&WaitsFor::BeginTime));
        let text = if paused {
            let now = self.now;
            let record = self.job_record(job);
            (record.admitted, record.waits) = (None, Some(now));
            "waits for capacity again: Slurm does not let it start yet".to_owned()
        } else {
            let why = "Slurm did not start it though there was capacity";
            let pause = self.tried_in_vain(job, why);
            format!("waits for capacity again, for {pause} at least: {why}")
        };
        Event::new(Subject::Job(job), Kind::JobWaits, text)
    }

    /// A job was admitted for nothing: capacity is not held for it again before a pause is over,
    /// which is returned.
    fn tried_in_vain(&mut self, job: JobId, why: &str) -> Millis {
        let (now, policy) = (self.now, self.policy.clone());
        let record = self.job_record(job);
        record.failures = record.failures.saturating_add(1);
        let pause = policy.backoff(record.failures);
        record.retry_at = Some(now + pause);
        why.clone_into(&mut record.last);
        record.admitted = None;
        record.waits = Some(now);
        pause
    }

    /// A job was put back into the queue because of `why`. It is admitted again after a pause.
    pub fn put_back(&mut self, job: JobId, why: &str) -> Event {
        let pause = self.tried_in_vain(job, why);
        for record in self.records.values_mut() {
            if record.jobs == [job] && record.vm.is_none() {
                record.trouble = Default::default();
            }
        }
        Event::new(
            Subject::Job(job),
            Kind::JobPutBack,
            format!("put back into the queue, tried again in {pause} at the earliest: {why}"),
        )
    }

    /// Slurm refused to put a job back.
    pub fn not_put_back(&mut self, job: JobId, why: &str) -> Event {
        self.job_record(job).stuck = true;
        Event::new(
            Subject::Job(job),
            Kind::JobNotPutBack,
            format!("could not be put back into the queue: {why}"),
        )
    }

    /// A job that was on `node` is over.
    pub(super) fn job_ended(&mut self, node: &NodeName, job: JobId, failed: bool) -> Event {
        let (now, keep) = (self.now, self.policy.keep_failed);
        let vm = self.records.get_mut(node).and_then(|record| record.vm.as_mut());
        let own = vm.filter(|vm| vm.spec.as_ref().is_some_and(|spec| spec.job == Some(job)));
        let Some(vm) = own else {
            return Event::node(
                node,
                Kind::JobEnded,
                format!("job {job} is over; it has no VM here"),
            );
        };
        let wants = vm.spec.as_ref().is_some_and(|spec| spec.options.keep_on_failure);
        // Said again without a failure, by a person: that is enough of it.
        vm.kept = (failed && wants).then(|| vm.kept.unwrap_or(now + keep));
        let kept = match vm.kept {
            Some(_) => format!(" and has failed: its VM stays for {keep}, or until `thiao clean {job}`"),
            None => String::new(),
        };
        Event::vm(
            node,
            vm.generation,
            Kind::JobEnded,
            format!("job {job} is over{kept}"),
        )
    }

    /// Slurm was told something of `node`: observations that began before do not show what came of it.
    pub fn acted_on(&mut self, node: &NodeName) {
        if let Some(record) = self.records.get_mut(node) {
            record.acted = self.now;
        }
    }

    /// What is remembered of a job; of an array's task that of the array.
    fn job_record(&mut self, job: JobId) -> &mut JobRecord {
        let seen = self.slurm.as_ref().and_then(|slurm| slurm.jobs.get(&job));
        let key = seen.map_or(job, |job| job.key());
        self.jobs.entry(key).or_default()
    }
}
