//! What reaches the owner: observations, answers of calls, the provider's readiness.
//! Each is folded into the world; nothing is decided here.

use crate::api::{ApiError, Reply};
use crate::bus;
use crate::message::{Finished, Message};
use crate::newcomers::{Newcomer, Stop, Waiter};
use crate::owner::{Owner, Readiness};
use crate::provider::{Prepared, Provider};
use std::path::PathBuf;
use std::time::Duration;
use thiao_api::types::Observation;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{JobId, Millis, Time, VmTag};
use thiao_core::journal::LastWords;
use thiao_core::plan::{Action, JobVerb, VmVerb};
use thiao_core::prolog::PrologAnswer;
use thiao_core::view::{GateSeen, SlurmView};
use thiao_core::vm::{Cause, Registration};
use thiao_core::world::{Mode, World};

/// What somebody hears who has waited.
type Answer = (Reply<()>, Result<(), ApiError>);

impl<P: Provider> Owner<P> {
    pub(super) fn take(&mut self, message: Message) {
        self.rounds.wake(self.clock.now());
        match message {
            Message::Slurm(began, Ok(view)) => {
                self.recovered(Subject::Slurm, began);
                if matches!(view.gate, GateSeen::Open(_)) {
                    self.ensure_gate();
                }
                self.see_ends(&view);
                let mut answers = self.release_waiters(view, began);
                answers.extend(self.observed_slurm(began));
                self.reply(answers);
            }
            Message::Provider(began, Ok(view)) => {
                self.recovered(Subject::Provider, began);
                self.rounds.saw_provider(view, began);
                self.expect_registrations();
            }
            Message::News(news) => {
                self.rounds.saw_news(news);
                self.expect_registrations();
            }
            Message::Slurm(began, Err(error)) => {
                self.observation_failed(Subject::Slurm, error);
                let answers = self.observed_slurm(began);
                self.reply(answers);
            }
            Message::Provider(_, Err(error)) => self.observation_failed(Subject::Provider, error),
            Message::Finished(finished) => self.finished(finished),
            Message::JobsEnded(ends) => self.told_of_ends(ends),
            Message::LastWords(tag, cause, text) => self.keep_last_words(&tag, &cause, text),
            Message::SchedulingPass(pass) => {
                let ms = u64::try_from(pass.as_millis()).unwrap_or(u64::MAX);
                self.rounds.schedules_within(Millis(ms));
            }
            Message::Unheard(tag) => self.rounds.unheard(&tag),
            Message::Event(event) => self.record(event),
            Message::Progress(what) => {
                self.record(Event::new(Subject::Provider, Kind::Preparing, what.clone()));
                self.readiness = Readiness::Preparing(what);
            }
            Message::Prepared(Ok(prepared)) => self.prepared(prepared),
            Message::Prepared(Err(error)) => {
                let text = format!(
                    "cannot make VMs: {error}; tried again in {}",
                    self.rounds.world().policy.breaker_pause
                );
                self.record(Event::new(Subject::Provider, Kind::NotPrepared, text.clone()));
                self.readiness = Readiness::Preparing(text);
                self.prepare_again_later();
            }
        }
        self.tell();
    }

    /// They tell why a VM ended that should not have, or never came up.
    fn keep_last_words(&mut self, tag: &VmTag, cause: &Cause, text: String) {
        let record = self.rounds.world().records.get(&tag.node);
        let vm = record.and_then(|record| record.vm.as_ref());
        let vm = vm.filter(|vm| vm.generation == tag.generation);
        let badly = match cause {
            Cause::BootTimeout | Cause::Dead { .. } => true,
            Cause::Ordered | Cause::Orphan => {
                vm.is_some_and(|vm| vm.registration != Registration::Registered)
            }
        };
        self.rounds.last_words(LastWords {
            node: tag.node.clone(),
            generation: tag.generation,
            badly,
            text,
        });
    }

    /// Slurm is observed at once where a guest has just become ready.
    fn expect_registrations(&self) {
        let ready = |event: &Event| event.kind == Kind::VmReady;
        if self.rounds.events().iter().any(ready) {
            self.slurm_changed.notify_one();
        }
    }

    /// Tells people when that which tells the provider is heard, and when not any more.
    pub(super) fn tell_of_bus(&mut self) {
        let listening = self.provider.listening();
        let Some((told, event)) = listening.and_then(|it| bus::news(&it, self.bus_told)) else {
            return;
        };
        self.bus_told = Some(told);
        self.record(event);
    }

    /// The provider makes VMs, if not for all nodes: those that it makes none for are told why.
    fn prepared(&mut self, prepared: Prepared) {
        let Prepared {
            notes,
            emulated,
            faults,
        } = prepared;
        self.record(Event::new(Subject::Provider, Kind::Prepared, notes.join("; ")));
        self.provider_notes = notes;
        self.emulated = emulated;
        let again = self.rounds.world().policy.breaker_pause;
        for fault in World::faults_told(&faults) {
            let text = format!("{fault}; tried again every {again}");
            self.record(Event::new(Subject::Provider, Kind::NotPreparedFor, text));
        }
        if !faults.is_empty() {
            self.prepare_again_later();
        }
        self.rounds.has_faults(faults);
        self.start.ready();
        self.readiness = Readiness::Ready;
    }

    fn prepare_again_later(&self) {
        let shapes = self.config.shapes();
        let (provider, messages) = (self.provider.clone(), self.messages.0.clone());
        let pause = duration(self.rounds.world().policy.breaker_pause);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let prepared = tokio::task::spawn_blocking(move || provider.prepare(&shapes, &|_| {})).await;
            if let Ok(result) = prepared {
                let _ = messages.send(Message::Prepared(result)).await;
            }
        });
    }

    fn observation_of(&mut self, side: &Subject) -> &mut Observation {
        if *side == Subject::Slurm {
            &mut self.slurm_observation
        } else {
            &mut self.provider_observation
        }
    }

    fn recovered(&mut self, side: Subject, began: Time) {
        self.start.read(&side);
        let observation = self.observation_of(&side);
        observation.last_ok = Some(began.0);
        if observation.error.take().is_some() {
            if side == Subject::Slurm {
                self.ask_of_scheduler();
            }
            self.record(Event::new(side, Kind::ObservationOk, "can be read again"));
        }
    }

    fn observation_failed(&mut self, side: Subject, error: String) {
        self.observation_of(&side).error = Some(error.clone());
        if side == Subject::Slurm {
            self.rounds.slurm_unread();
        } else {
            self.rounds.provider_unread();
        }
        self.record(Event::new(
            side,
            Kind::ObservationFailed,
            format!("cannot be read: {error}; nothing is destroyed meanwhile"),
        ));
    }

    /// Folds what came of actions into the records.
    fn finished(&mut self, finished: Finished) {
        for (id, action, outcome) in &finished {
            self.rounds.ended(*id, action, outcome);
        }
        let (vms, nodes_or_jobs): (Vec<_>, Vec<_>) = finished
            .iter()
            .map(|(_, action, _)| action)
            // What a guest was told shows nowhere before it reports.
            .filter(|action| !matches!(action, Action::Vm(_, VmVerb::StartSlurmd { .. })))
            .partition(|action| {
                matches!(
                    action,
                    Action::Vm(_, VmVerb::Create { .. } | VmVerb::Destroy { .. })
                )
            });
        let waits_again = |action: &&Action| matches!(action, Action::Job(_, JobVerb::CloseGate { .. }));
        if nodes_or_jobs.iter().any(waits_again) {
            // Its settings may have changed since they were read.
            self.ask_of_scheduler();
        }
        if !vms.is_empty() {
            self.vms_changed.notify_one();
        }
        if !nodes_or_jobs.is_empty() {
            self.slurm_changed.notify_one();
        }
    }

    /// Takes an observation of Slurm: the answers of the prologs that can end by it.
    fn release_waiters(&mut self, view: SlurmView, began: Time) -> Vec<Answer> {
        // Who asked may have left: the job was cancelled, or its prolog asks anew.
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        let asked: Vec<_> = self
            .waiters
            .iter()
            .map(|waiter| (waiter.job, waiter.since))
            .collect();
        let mut answers = Vec::new();
        for (job, since, verdict) in self.rounds.saw_slurm(view, began, &asked) {
            let answer = match verdict {
                PrologAnswer::Start => {
                    self.started_jobs.push(job);
                    match self.newcomer(job) {
                        Some(mut newcomer) => {
                            let told = self.waiters.extract_if(.., |waiter| waiter.is(job, since));
                            let mut waiters = Vec::new();
                            for waiter in told {
                                newcomer.work_dir = newcomer.work_dir.or(waiter.work_dir);
                                waiters.push(waiter.reply);
                            }
                            // Whoever is answered sees what holds now.
                            self.publish();
                            let means = (self.provider.clone(), self.slurm.clone(), self.messages.0.clone());
                            newcomer.welcome(means, waiters);
                            continue;
                        }
                        None => Ok(()),
                    }
                }
                PrologAnswer::Never(why) => Err(ApiError::Conflict(why)),
                PrologAnswer::Over(why) => Err(ApiError::NotFound(why)),
            };
            let told = self.waiters.extract_if(.., |waiter| waiter.is(job, since));
            answers.extend(told.map(|waiter| (waiter.reply, answer.clone())));
        }
        answers
    }

    /// Whose job it is that starts, where VMs of power-saving mode may not know him yet, and what he sees there is
    /// known.
    fn newcomer(&self, job: JobId) -> Option<Newcomer> {
        if !self.provider.welcomes() {
            return None;
        }
        let world = self.rounds.world();
        let slurm = world.slurm.as_ref()?;
        let job = slurm.jobs.get(&job)?;
        let vms = job.nodes.iter().filter_map(|node| {
            let vm = world.records.get(node)?.vm.as_ref()?;
            let mode = world.specs.get(node)?.mode;
            Some(Stop {
                tag: world.tag(node, vm.generation),
                id: vm.id.clone(),
                shared: (mode == Mode::PowerSaving).then(|| slurm.leftovers(job, node)),
            })
        });
        let vms: Vec<_> = vms.collect();
        (!vms.is_empty()).then(|| Newcomer {
            job: job.id,
            uid: job.uid,
            vms,
            work_dir: None,
            comment: job.admin_comment.clone(),
        })
    }

    /// Has an asker wait for an observation of Slurm, which would show a job that may be new.
    pub(super) fn see_jobs(&mut self, reply: Reply<()>) {
        self.unseen.push((self.clock.now(), reply));
        self.slurm_changed.notify_one();
    }

    /// Slurm was observed from `began` on, well or not: who waited for that goes on.
    fn observed_slurm(&mut self, began: Time) -> Vec<Answer> {
        let later = self.unseen.extract_if(.., |(since, _)| *since <= began);
        later.map(|(_, reply)| (reply, Ok(()))).collect()
    }

    /// Answers those who have waited. They may look at once for what they waited for.
    fn reply(&self, answers: Vec<Answer>) {
        if answers.is_empty() {
            return;
        }
        self.publish();
        for (reply, answer) in answers {
            // An asker that has left is no error.
            drop(reply.send(answer));
        }
    }

    /// Takes a prolog's wait; answered at once if the last observation suffices.
    pub(super) fn wait_for_job(&mut self, job: JobId, work_dir: Option<PathBuf>, reply: Reply<()>) {
        self.waiters.push(Waiter {
            job,
            since: self.clock.now(),
            work_dir,
            reply,
        });
        self.slurm_changed.notify_one();
        self.set_pace();
    }
}

fn duration(span: Millis) -> Duration {
    Duration::from_millis(span.0)
}
