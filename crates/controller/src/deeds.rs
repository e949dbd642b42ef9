//! What jobs of job mode need beside actions: their gate, to be seen, to be told.

use crate::message::Message;
use crate::owner::Owner;
use crate::provider::{Provider, chain};
use crate::snapshot::Wait;
use crate::submitted;
use std::sync::atomic::Ordering;
use thiao_api::types::start_line;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::options::{VmOptions, comment_beside};
use thiao_core::plan::{Action, JobVerb, Plan};
use thiao_core::view::JobState;

impl<P: Provider> Owner<P> {
    /// Sees to it that Slurm has the gate at which jobs wait for capacity: without it jobs
    /// would pass, and find no capacity. To be called whenever it is not there, whoever took it away.
    pub(super) fn ensure_gate(&self) {
        // One at a time: it may take long, and each observation calls for it.
        if self.rounds.world().job_partitions.is_empty() || self.makes_gate.swap(true, Ordering::AcqRel) {
            return;
        }
        let (slurm, messages) = (self.slurm.clone(), self.messages.0.clone());
        let (makes_gate, changed) = (self.makes_gate.clone(), self.slurm_changed.clone());
        tokio::task::spawn_blocking(move || {
            let made = slurm.ensure_gate();
            makes_gate.store(false, Ordering::Release);
            match made {
                Ok(()) => changed.notify_one(),
                Err(error) => drop(messages.blocking_send(Message::Event(Event::new(
                    Subject::Slurm,
                    Kind::NoGate,
                    format!(
                        "jobs of job mode cannot be made to wait for capacity: {}",
                        chain(&error)
                    ),
                )))),
            }
        });
    }

    /// Asks how often Slurm's scheduler looks at jobs: capacity is held for them as long.
    pub(super) fn ask_of_scheduler(&self) {
        if self.rounds.world().job_partitions.is_empty() {
            return;
        }
        let (slurm, messages) = (self.slurm.clone(), self.messages.0.clone());
        tokio::task::spawn_blocking(move || match slurm.config() {
            Ok(config) => {
                let pass = config.scheduling_pass();
                drop(messages.blocking_send(Message::SchedulingPass(pass)));
            }
            // An observation that fails as well says why.
            Err(error) => tracing::debug!(%error, "how often Slurm's scheduler looks at jobs is not known"),
        });
    }

    /// Lets jobs of job mode be seen as soon as they are submitted.
    pub(super) fn hear_of_jobs(&self) {
        if self.rounds.world().job_partitions.is_empty() {
            return;
        }
        let file = self.config.submitted_file();
        if let Err(error) = submitted::watch(&file, self.slurm_changed.clone()) {
            tracing::warn!(file = %file.display(), %error, "new jobs are found by observing Slurm only");
        }
    }

    /// Not every round looks into jobs that wait; people ask at any time.
    pub(super) fn remember_waits(&mut self, plan: &Plan) {
        let Some(slurm) = &self.rounds.world().slurm else {
            return;
        };
        // One that is let in now waits no more, whatever else Slurm has it wait for.
        for step in &plan.steps {
            if let Action::Job(job, JobVerb::Admit { .. }) = &step.action {
                self.job_waits.remove(job);
            }
        }
        self.job_waits
            .retain(|job, wait| slurm.jobs.get(job).is_some_and(|seen| wait.holds(seen)));
        for held in &plan.held {
            if let Subject::Job(job) = held.subject
                && let Some(seen) = slurm.jobs.get(&job)
                && matches!(seen.state, JobState::Pending | JobState::Configuring)
            {
                let wait = Wait {
                    at_gate: seen.state == JobState::Pending,
                    why: held.why.as_str().into(),
                };
                self.job_waits.insert(job, wait);
            }
        }
    }

    /// Where the site wants it, tells in the `AdminComment` of jobs that start which VMs they have.
    /// To be called after a round is stored: the store knows them.
    pub(super) fn tell_of_started_jobs(&mut self) {
        let jobs = std::mem::take(&mut self.started_jobs);
        if !self.config.job.admin_comment {
            return;
        }
        for job in jobs {
            let vms = self
                .store
                .past()
                .vms_of_job(job, self.rounds.world().now)
                .unwrap_or_default();
            if vms.is_empty() {
                continue; // its nodes are of the other mode
            }
            let seen = self
                .rounds
                .world()
                .slurm
                .as_ref()
                .and_then(|slurm| slurm.jobs.get(&job));
            let options = seen.and_then(|job| VmOptions::from_comment(job.admin_comment.as_deref()?).ok());
            let text = comment_beside(&options.unwrap_or_default(), &start_line(&vms));
            let slurm = self.slurm.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = slurm.comment(job, &text) {
                    tracing::debug!(%job, %error, "the job cannot be told which VMs it has");
                }
            });
        }
    }
}
