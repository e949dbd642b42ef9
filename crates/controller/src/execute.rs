//! Executes what was decided. No choices here: each step becomes one call, and
//! its answer becomes a message to the owner.

use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::owner::Message;
use crate::provider::{Ended, Provider, ProviderError, chain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use thiao_core::fold::Outcome;
use thiao_core::ids::{JobId, NodeName, VmId};
use thiao_core::options::{VmOptions, comment_beside};
use thiao_core::plan::{Action, Step};
use thiao_core::view::ErrorClass;
use thiao_slurm::{Admission, Slurm, SlurmError};
use tokio::sync::{Semaphore, mpsc};

/// Actions that ended, with their keys and what came of each.
pub type Finished = Vec<(i64, Action, Outcome)>;

/// One call to the provider or to Slurm; gives what came of each action, in the same order.
type Call = Box<dyn FnOnce(&Batch) -> Vec<Outcome> + Send>;

/// Actions that one call carries out, with their keys.
type Batch = Vec<(i64, Action)>;

/// Slurm's `Reason` of a node that ends with its job.
const OWN_REASON: &str = "thiao: its VM is for one job and ends with it";

/// Calls at once, each on a thread of its own. Looks need threads of the same
/// pool, so that a thousand creations must not take them all.
const CALLS_AT_ONCE: usize = 64;

/// Whom steps are told to, and who hears what came of them.
pub struct Executor<P> {
    provider: Arc<P>,
    slurm: Arc<Slurm>,
    messages: mpsc::Sender<Message>,
    clock: Arc<Clock>,
    addresses: Arc<Addresses>,
    /// Keeps calls from being too many at once.
    slots: Arc<Semaphore>,
}

impl<P: Provider> Executor<P> {
    /// One that has done nothing yet.
    pub fn new(
        provider: Arc<P>,
        slurm: Arc<Slurm>,
        messages: mpsc::Sender<Message>,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            provider,
            slurm,
            messages,
            clock,
            addresses: Arc::default(),
            slots: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
        }
    }

    /// Tells Slurm of nodes that wait for their VMs.
    pub fn wait(&self, nodes: BTreeSet<NodeName>) {
        if self.addresses.wait(nodes) {
            let (addresses, slurm) = (self.addresses.clone(), self.slurm.clone());
            tokio::task::spawn_blocking(move || addresses.tell_waiting(&slurm));
        }
    }

    /// Starts all steps; Slurm's are batched so that it gets few calls. `options`: those of jobs
    /// that have some, which must stay in what they are told.
    pub fn execute(&self, steps: Vec<(i64, Step)>, options: &Arc<BTreeMap<JobId, VmOptions>>) {
        let run = |batch: Batch, call: Call| {
            let (messages, slots) = (self.messages.clone(), self.slots.clone());
            tokio::spawn(async move {
                // Closed by nobody.
                let _slot = slots.acquire_owned().await;
                let actions = batch.clone();
                let ended = tokio::task::spawn_blocking(move || call(&batch)).await;
                let outcomes = ended.unwrap_or_else(|error| {
                    let failed = Outcome::Failed(format!("the call ended badly: {error}"));
                    vec![failed; actions.len()]
                });
                let finished = actions.into_iter().zip(outcomes);
                let finished = finished
                    .map(|((id, action), outcome)| (id, action, outcome))
                    .collect();
                // The owner is gone only when the process ends.
                drop(messages.send(Message::Finished(finished)).await);
            });
        };
        let unmade = Arc::new(Unmade::of(&steps));
        // Slurm's are batched so that it gets few calls: by what is done, a DOWN by its reason.
        let mut batches: BTreeMap<(Kind, String), Batch> = BTreeMap::new();
        for (id, step) in steps {
            let (provider, slurm, clock) = (self.provider.clone(), self.slurm.clone(), self.clock.clone());
            let action = step.action;
            let key = match &action {
                Action::CreateVm { .. } => {
                    let (unmade, addresses) = (unmade.clone(), self.addresses.clone());
                    run(
                        vec![(id, action)],
                        Box::new(move |batch| {
                            unmade.tell(&addresses, &slurm);
                            each(batch, |action| at_provider(&*provider, &clock, action))
                        }),
                    );
                    continue;
                }
                Action::StartSlurmd { .. } | Action::DestroyVm { .. } => {
                    run(
                        vec![(id, action)],
                        Box::new(move |batch| each(batch, |action| at_provider(&*provider, &clock, action))),
                    );
                    continue;
                }
                Action::CloseGate { .. }
                | Action::PutBack { .. }
                | Action::FinishPutBack { .. }
                | Action::TurnAway { .. } => {
                    run(
                        vec![(id, action)],
                        Box::new(move |batch| each(batch, |action| on_job(&slurm, action))),
                    );
                    continue;
                }
                Action::SetDown { reason, .. } => (Kind::SetDown, reason.clone()),
                Action::ReturnNode { .. } => (Kind::Return, String::new()),
                Action::StartNow { .. } => (Kind::StartNow, String::new()),
                Action::Admit { .. } => (Kind::Admit, String::new()),
                Action::EndWithJob { .. } => (Kind::EndWithJob, String::new()),
                Action::PowerDown { .. } => (Kind::PowerDown, String::new()),
            };
            batches.entry(key).or_default().push((id, action));
        }
        for ((kind, reason), batch) in batches {
            let (slurm, options) = (self.slurm.clone(), options.clone());
            run(
                batch,
                Box::new(move |batch| match kind {
                    Kind::SetDown => set_down(&slurm, batch, &reason, &options),
                    Kind::Return => all(batch, slurm.return_to_service(&nodes_of(batch))),
                    Kind::StartNow => all(batch, slurm.start_now(&jobs_of(batch))),
                    Kind::Admit => admit(&slurm, batch),
                    Kind::EndWithJob => all(batch, slurm.end_with_job(&nodes_of(batch), OWN_REASON)),
                    Kind::PowerDown => all(batch, slurm.power_down_now(&nodes_of(batch), OWN_REASON)),
                }),
            );
        }
    }
}

/// Nodes whose VMs are made now, and were not asked for before: Slurm hears by one call that they have no
/// address yet, before the first of the VMs is made.
struct Unmade {
    nodes: Vec<NodeName>,
    told: OnceLock<()>,
}

impl Unmade {
    fn of(steps: &[(i64, Step)]) -> Self {
        let new = steps.iter().filter_map(|(_, step)| match &step.action {
            Action::CreateVm {
                tag, again: false, ..
            } => Some(tag.node.clone()),
            _ => None,
        });
        Self {
            nodes: new.collect(),
            told: OnceLock::new(),
        }
    }

    fn tell(&self, addresses: &Addresses, slurm: &Slurm) {
        self.told.get_or_init(|| addresses.tell_made(slurm, &self.nodes));
    }
}

/// What Slurm does to several nodes or jobs by one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    SetDown,
    Return,
    StartNow,
    Admit,
    EndWithJob,
    PowerDown,
}

fn each(batch: &Batch, call: impl Fn(&Action) -> Outcome) -> Vec<Outcome> {
    batch.iter().map(|(_, action)| call(action)).collect()
}

/// One answer for all.
fn all(batch: &Batch, result: Result<(), SlurmError>) -> Vec<Outcome> {
    vec![done(result); batch.len()]
}

fn done(result: Result<(), SlurmError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(chain(&error)),
    }
}

fn nodes_of(batch: &Batch) -> Vec<NodeName> {
    batch
        .iter()
        .filter_map(|(_, action)| action.node().cloned())
        .collect()
}

fn jobs_of(batch: &Batch) -> Vec<JobId> {
    batch.iter().filter_map(|(_, action)| action.job()).collect()
}

fn at_provider<P: Provider>(provider: &P, clock: &Clock, action: &Action) -> Outcome {
    match action {
        Action::CreateVm {
            tag,
            host,
            spec,
            again,
        } => created(provider.create(tag, host, spec, *again)),
        Action::StartSlurmd {
            tag,
            id,
            number,
            asked,
        } => match provider.start_slurmd(tag, id.as_ref(), *number, clock.left_of_second(*asked)) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error.text),
        },
        Action::DestroyVm { tag, id, hard, .. } => match provider.destroy(tag, id.as_ref(), *hard) {
            Ok(Ended::Gone) => Outcome::Done,
            Ok(Ended::Underway(what)) => Outcome::Ending(what),
            Err(error) => Outcome::Failed(error.text),
        },
        action => not_here(action),
    }
}

fn created(result: Result<VmId, ProviderError>) -> Outcome {
    match result {
        Ok(id) => Outcome::Created(id),
        Err(error) => match error.class {
            ErrorClass::Transient => Outcome::Failed(error.text),
            ErrorClass::Full | ErrorClass::Refused => Outcome::NotCreated(error.text),
        },
    }
}

fn on_job(slurm: &Slurm, action: &Action) -> Outcome {
    match action {
        Action::CloseGate { .. } => match admission(action) {
            Some(gate) => done(slurm.close_gate(&gate)),
            None => not_here(action),
        },
        Action::PutBack {
            job,
            licenses,
            comment,
        } => done(slurm.put_back(*job, licenses, comment)),
        Action::FinishPutBack { job, licenses } => done(slurm.reopen(*job, licenses)),
        Action::TurnAway { job, from, why } => done(slurm.turn_away(*job, from, why)),
        action => not_here(action),
    }
}

/// A mistake of ours.
fn not_here(action: &Action) -> Outcome {
    Outcome::Failed(format!("\"{action}\" was given to the wrong executor"))
}

fn admit(slurm: &Slurm, batch: &Batch) -> Vec<Outcome> {
    let admissions: Vec<Admission> = batch.iter().filter_map(|(_, action)| admission(action)).collect();
    let answers = slurm.admit(&admissions).into_iter();
    let mut told: BTreeMap<JobId, Outcome> = answers.map(|(job, result)| (job, done(result))).collect();
    let jobs = jobs_of(batch).into_iter();
    jobs.map(|job| told.remove(&job))
        .map(|answer| answer.unwrap_or_else(|| Outcome::Failed("nothing was said of it".into())))
        .collect()
}

/// What an action at the gate is about.
fn admission(action: &Action) -> Option<Admission> {
    let (job, array, nodes, licenses) = match action {
        Action::Admit {
            job,
            array,
            nodes,
            licenses,
        } => (job, array, *nodes, licenses),
        Action::CloseGate { job, array, licenses } => (job, array, None, licenses),
        _ => return None,
    };
    Some(Admission {
        job: *job,
        array: array.clone(),
        nodes,
        licenses: licenses.clone(),
    })
}

/// Jobs are told first: once their node is DOWN, Slurm requeues them and their
/// output is closed. A job that can't be told keeps nothing from being done.
fn set_down(
    slurm: &Slurm,
    batch: &Batch,
    reason: &str,
    options: &BTreeMap<JobId, VmOptions>,
) -> Vec<Outcome> {
    let mut told: BTreeMap<JobId, Vec<&NodeName>> = BTreeMap::new();
    for (_, action) in batch {
        if let Action::SetDown { node, jobs, .. } = action {
            jobs.iter()
                .for_each(|job| told.entry(*job).or_default().push(node));
        }
    }
    for (job, nodes) in told {
        let names = thiao_core::hostlist::fold(nodes);
        let own = options.get(&job).cloned().unwrap_or_default();
        let text = comment_beside(&own, &format!("{reason} [{names}]"));
        if let Err(error) = slurm.notify_job(job, &text) {
            tracing::warn!(%job, %error, "the job could not be told");
        }
    }
    all(batch, slurm.set_down(&nodes_of(batch), reason))
}
