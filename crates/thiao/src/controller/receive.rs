//! What reaches the owner: looks, answers of calls, the provider's readiness.
//! Each is folded into the world; nothing is decided here.

use super::execute::{Finished, Outcome};
use super::intake::now;
use super::owner::{Message, Owner, Readiness};
use super::provider::{Ended, Provider, ProviderError};
use crate::api::types::Look;
use crate::api::{ApiError, Reply};
use std::collections::BTreeMap;
use std::time::Duration;
use thiao_core::fold::Order;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId, VmTag};
use thiao_core::note::{Note, Subject};
use thiao_core::view::{ErrorClass, JobState, SlurmView};
use thiao_core::world::{Phase, Wish};

/// Slurm takes a node for one job's alone within this time, or something is wrong.
const MARKED_WITHIN: Millis = Millis::secs(5);

impl<P: Provider> Owner<P> {
    pub(super) fn take(&mut self, message: Message) {
        self.world.now = now();
        match message {
            Message::Slurm(began, Ok(view)) => {
                self.recovered(Subject::Slurm, began);
                let notes = self.world.see_slurm(view, began);
                self.note_all(notes);
                self.order_for_waiters(began);
                self.release_waiters(began);
                self.looked_at_slurm(began);
            }
            Message::Provider(began, Ok(view)) => {
                self.recovered(Subject::Provider, began);
                let notes = self.world.see_provider(view, began);
                if notes.iter().any(|note| note.kind == "vm-ready") {
                    self.slurm_changed.notify_one();
                }
                self.note_all(notes);
            }
            Message::Slurm(began, Err(error)) => {
                self.look_failed(Subject::Slurm, error);
                self.looked_at_slurm(began);
            }
            Message::Provider(_, Err(error)) => self.look_failed(Subject::Provider, error),
            Message::Finished(finished) => self.finished(finished),
            Message::Note(note) => self.note(note),
            Message::Release(nodes) => {
                for node in nodes {
                    self.world.busy.remove(&node);
                }
            }
            Message::Progress(what) => {
                self.note(Note::new(Subject::Provider, "preparing", what.clone()));
                self.readiness = Readiness::Preparing(what);
            }
            Message::Prepared(Ok(notes)) => {
                self.note(Note::new(Subject::Provider, "prepared", notes.join("; ")));
                self.provider_notes = notes;
                self.readiness = Readiness::Ready;
            }
            Message::Prepared(Err(error)) => {
                let text = format!(
                    "cannot make VMs: {error}; tried again in {}",
                    self.world.policy.breaker_pause
                );
                self.note(Note::new(Subject::Provider, "not-prepared", text.clone()));
                self.readiness = Readiness::Preparing(text);
                self.prepare_again_later();
            }
        }
    }

    fn prepare_again_later(&self) {
        let shapes = self.config.shapes();
        let (provider, messages) = (self.provider.clone(), self.messages.0.clone());
        let pause = duration(self.world.policy.breaker_pause);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let prepared = tokio::task::spawn_blocking(move || provider.prepare(&shapes, &|_| {})).await;
            if let Ok(result) = prepared {
                let _ = messages.send(Message::Prepared(result)).await;
            }
        });
    }

    fn look_of(&mut self, side: &Subject) -> &mut Look {
        if *side == Subject::Slurm {
            &mut self.slurm_look
        } else {
            &mut self.provider_look
        }
    }

    fn recovered(&mut self, side: Subject, began: Time) {
        let look = self.look_of(&side);
        look.last_ok = Some(began.0);
        if look.error.take().is_some() {
            if side == Subject::Slurm {
                self.ensure_gate();
            }
            self.note(Note::new(side, "look-ok", "can be read again"));
        }
    }

    fn look_failed(&mut self, side: Subject, error: String) {
        self.look_of(&side).error = Some(error.clone());
        if side == Subject::Slurm {
            self.world.slurm = None
        } else {
            self.world.provider = None
        }
        self.note(Note::new(
            side,
            "look-failed",
            format!("cannot be read: {error}; nothing is destroyed meanwhile"),
        ));
    }

    /// Folds the answer of a call into the records.
    fn finished(&mut self, Finished { ids, outcome }: Finished) {
        let result = match outcome {
            Outcome::Created(tag, result) => self.creation_ended(tag.node, result),
            Outcome::Destroyed(tag, id, Ok(Ended::Gone)) => {
                let notes = self.world.destroyed(&tag, id.as_ref());
                self.world.busy.remove(&tag.node);
                self.note_all(notes);
                Ok(())
            }
            Outcome::Destroyed(tag, id, Ok(Ended::Underway(what))) => {
                self.ending(tag, id.as_ref(), &what);
                Ok(())
            }
            Outcome::Destroyed(tag, _, Err(error)) => {
                let text = format!("could not be destroyed: {error}; tried again");
                self.note(Note::vm(&tag.node, tag.generation, "destroy-failed", text));
                self.release_later(vec![tag.node]);
                Err(error.text)
            }
            Outcome::Down {
                nodes,
                reason,
                result,
            } => self.down_ended(nodes, &reason, result),
            Outcome::Returned(nodes, result) => self.return_ended(nodes, result),
            Outcome::Started(jobs, result) => {
                for job in jobs {
                    let text = match &result {
                        Ok(()) => "let start at once: Slurm requeued it because its node was DOWN".to_owned(),
                        Err(error) => format!("could not be let start at once: {error}"),
                    };
                    self.note(Note::new(Subject::Job(job), "job-start-now", text));
                }
                result
            }
            Outcome::Jobs(deed, answers) => self.jobs_ended(&deed, answers),
            Outcome::Nodes(deed, nodes, result) => self.nodes_ended(deed, nodes, result),
        };
        let word = match result {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        self.round
            .ended
            .extend(ids.into_iter().map(|id| (id, word.clone())));
        self.vms_changed.notify_one();
    }

    /// A VM that backs its node is waited for by the planner; a stray, which has no record, here.
    fn ending(&mut self, tag: VmTag, id: Option<&VmId>, what: &str) {
        self.note(Note::vm(
            &tag.node,
            tag.generation,
            "vm-ending",
            format!("is being ended: {what}"),
        ));
        self.world.ending(&tag);
        let record = self.world.records.get(&tag.node);
        let backs = record
            .and_then(|record| record.vm.as_ref())
            .is_some_and(|vm| vm.is(tag.generation, id));
        if backs {
            self.world.busy.remove(&tag.node);
        } else {
            self.release_later(vec![tag.node]);
        }
    }

    fn creation_ended(&mut self, node: NodeName, result: Result<VmId, ProviderError>) -> Result<(), String> {
        match result {
            Ok(id) => {
                let note = self.world.created(&node, id);
                self.world.busy.remove(&node);
                self.note_all(note);
                Ok(())
            }
            Err(ProviderError {
                class: ErrorClass::Transient,
                text,
            }) => {
                self.note(Note::node(
                    &node,
                    "vm-unsure",
                    format!("its VM's creation was not confirmed: {text}; asked again"),
                ));
                self.release_later(vec![node]);
                Err(text)
            }
            Err(ProviderError {
                class: ErrorClass::Full | ErrorClass::Refused,
                text,
            }) => {
                let note = self.world.create_failed(&node, &text);
                self.world.busy.remove(&node);
                self.note_all(note);
                Err(text)
            }
        }
    }

    fn down_ended(
        &mut self,
        nodes: Vec<(NodeName, Vec<JobId>)>,
        reason: &str,
        result: Result<(), String>,
    ) -> Result<(), String> {
        match &result {
            Ok(()) => {
                for (node, jobs) in nodes {
                    let notes = self.world.told_down(&node, reason, &jobs);
                    self.world.busy.remove(&node);
                    self.note_all(notes);
                }
                self.slurm_changed.notify_one();
            }
            Err(error) => self.refused(
                nodes.into_iter().map(|(node, _)| node).collect(),
                "set it DOWN",
                error,
            ),
        }
        result
    }

    fn return_ended(&mut self, nodes: Vec<NodeName>, result: Result<(), String>) -> Result<(), String> {
        match &result {
            Ok(()) => {
                for node in nodes {
                    let note = self.world.returned(&node);
                    self.world.busy.remove(&node);
                    self.note_all(note);
                }
                self.slurm_changed.notify_one();
            }
            Err(error) => self.refused(nodes, "take it back", error),
        }
        result
    }

    pub(super) fn refused(&mut self, nodes: Vec<NodeName>, what: &str, error: &str) {
        for node in &nodes {
            self.note(Note::node(
                node,
                "slurm-refused",
                format!("Slurm did not {what}: {error}; tried again"),
            ));
        }
        self.release_later(nodes);
    }

    /// Keeps nodes busy for the first back-off step, so that a refused call is not repeated at once.
    fn release_later(&self, nodes: Vec<NodeName>) {
        let (messages, pause) = (self.messages.0.clone(), duration(self.world.policy.retry_first));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = messages.send(Message::Release(nodes)).await;
        });
    }

    /// Answers prologs whose jobs' nodes are up in a look that began at `began`.
    fn release_waiters(&mut self, began: Time) {
        let Some(slurm) = &self.world.slurm else { return };
        let mut notes = Vec::new();
        let waiting = std::mem::take(&mut self.waiters);
        for (job, since, reply) in waiting {
            if reply.is_closed() {
                continue;
            }
            match self.readiness(slurm, job) {
                Some(answer) if answer.is_ok() || since < began => {
                    if answer.is_ok() {
                        let text = format!(
                            "all its nodes are up: its prolog ends after {}",
                            self.world.now.since(since)
                        );
                        notes.push(Note::new(Subject::Job(job), "job-released", text));
                        self.started_jobs.push(job);
                    }
                    let _ = reply.send(answer);
                }
                Some(_) | None => self.waiters.push((job, since, reply)),
            }
        }
        self.note_all(notes);
    }

    /// Orders the VMs of jobs whose prologs wait, by a look that began at `began`. Slurm runs
    /// the prolog when it has given the job its nodes, up to a second before ResumeProgram,
    /// whose order then changes nothing. The nodes are Slurm's word, not the asker's.
    fn order_for_waiters(&mut self, began: Time) {
        let Some(slurm) = &self.world.slurm else { return };
        let mut asked: BTreeMap<NodeName, Vec<JobId>> = BTreeMap::new();
        for (id, since, _) in &self.waiters {
            let job = slurm
                .jobs
                .get(id)
                .filter(|job| *since < began && job.state == JobState::Configuring);
            for node in job.iter().flat_map(|job| &job.nodes) {
                let off = slurm
                    .nodes
                    .get(node)
                    .is_some_and(|seen| seen.flags.powered_down || seen.flags.powering_up);
                let free = self.world.records.get(node).is_some_and(|record| {
                    record.vm.is_none() && record.down.is_none() && !matches!(record.wish, Wish::Up { .. })
                });
                if off && free {
                    asked.entry(node.clone()).or_default().push(*id);
                }
            }
        }
        let order = Order::Up {
            force: false,
            jobs: asked.clone(),
        };
        for (node, jobs) in asked {
            self.world.order(&node, &order, self.world.now);
            let text = format!(
                "given to job {}, whose prolog waits: Slurm's order follows",
                jobs[0]
            );
            self.note(Note::node(&node, "prolog-asked", text));
        }
    }

    /// Whether the job's prolog can end: none while it must wait.
    fn readiness(&self, slurm: &SlurmView, id: JobId) -> Option<Result<(), ApiError>> {
        let job = slurm.jobs.get(&id);
        if let Some((node, other)) = job.and_then(|job| self.world.others_vm(job)) {
            let text = format!("the VM of {node} was made for job {other}: job {id} cannot start there");
            return Some(Err(ApiError::Conflict(text)));
        }
        let answer = readiness(slurm, id)?;
        let Some(job) = slurm.jobs.get(&id).filter(|_| answer.is_ok()) else {
            return Some(answer);
        };
        job.nodes
            .iter()
            .all(|node| self.ends_with_its_job(slurm, node))
            .then_some(answer)
    }

    /// Whether Slurm gives a node of job mode to nobody else from now on. That was asked
    /// while its VM came up; a refusal must not hold its job up for long.
    fn ends_with_its_job(&self, slurm: &SlurmView, node: &NodeName) -> bool {
        if !self.world.is_job_mode(node) {
            return true;
        }
        let marked = slurm.nodes.get(node).is_some_and(|seen| seen.flags.power_down);
        let vm = self.world.records.get(node).and_then(|record| record.vm.as_ref());
        let tried =
            vm.is_some_and(|vm| self.world.now.since(vm.since) > MARKED_WITHIN && vm.phase == Phase::Up);
        marked || tried
    }

    /// Tells an asker when a job that may be new would have been seen.
    pub(super) fn see_job(&mut self, job: JobId, reply: Reply<()>) {
        let jobs = self.world.slurm.iter().flat_map(|slurm| slurm.jobs.values());
        if jobs.into_iter().any(|seen| seen.id == job || seen.key() == job) {
            return drop(reply.send(Ok(())));
        }
        self.unseen.push((now(), reply));
        self.slurm_changed.notify_one();
    }

    /// Slurm was looked at from `began` on, well or not: who waited for that goes on.
    fn looked_at_slurm(&mut self, began: Time) {
        let later: Vec<_> = self.unseen.extract_if(.., |(since, _)| *since <= began).collect();
        for (_, reply) in later {
            // An asker that has left is no error.
            drop(reply.send(Ok(())));
        }
    }

    /// Takes a prolog's wait; answered at once if the last look suffices.
    pub(super) fn wait_for_job(&mut self, job: JobId, reply: Reply<()>) {
        self.waiters.push((job, now(), reply));
        self.slurm_changed.notify_one();
        self.set_pace();
    }
}

/// Whether the job's prolog can end: none while it must wait.
fn readiness(slurm: &SlurmView, id: JobId) -> Option<Result<(), ApiError>> {
    let Some(job) = slurm.jobs.get(&id) else {
        return Some(Err(ApiError::NotFound(format!("Slurm shows no job {id}"))));
    };
    match &job.state {
        JobState::Over(word) => Some(Err(ApiError::NotFound(format!("job {id} is over: {word}")))),
        // As long as its prolog runs, a requeued job can't start again ("Cleaning").
        JobState::Pending | JobState::Completing => {
            Some(Err(ApiError::NotFound(format!("job {id} has lost its nodes"))))
        }
        JobState::Configuring | JobState::Running | JobState::Suspended | JobState::Unknown(_) => {
            let up = |node| {
                slurm
                    .nodes
                    .get(node)
                    .is_some_and(thiao_core::view::SlurmNode::is_up)
            };
            (!job.nodes.is_empty() && job.nodes.iter().all(up)).then_some(Ok(()))
        }
    }
}

fn duration(span: Millis) -> Duration {
    Duration::from_millis(span.0)
}
