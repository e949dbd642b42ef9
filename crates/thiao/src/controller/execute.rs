//! Executes what was decided. No choices here: each step becomes one call, and
//! its answer becomes a message to the owner.

use super::owner::Message;
use super::provider::{Ended, Provider, ProviderError};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiao_core::ids::{JobId, NodeName, VmId, VmTag};
use thiao_core::options::{VmOptions, comment_beside};
use thiao_core::plan::{Action, Step};
use thiao_slurm::{Admission, Slurm, SlurmError};
use tokio::sync::{Semaphore, mpsc};

/// How a call ended.
#[derive(Debug)]
pub struct Finished {
    /// Keys of the actions in the store.
    pub ids: Vec<i64>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome {
    /// Of a creation.
    Created(VmTag, Result<VmId, ProviderError>),
    /// Of an end.
    Destroyed(VmTag, Option<VmId>, Result<Ended, ProviderError>),
    /// Of setting nodes DOWN, and telling their jobs.
    Down {
        /// With the jobs that each node's DOWN concerns.
        nodes: Vec<(NodeName, Vec<JobId>)>,
        /// Slurm's Reason.
        reason: String,
        /// Slurm's answer.
        result: Result<(), String>,
    },
    /// Of giving nodes back.
    Returned(Vec<NodeName>, Result<(), String>),
    /// Of letting jobs start.
    Started(Vec<JobId>, Result<(), String>),
    /// Of something done to jobs of job mode, each with Slurm's answer.
    Jobs(JobDeed, Vec<(JobId, Result<(), String>)>),
    /// Of something done to nodes of job mode.
    Nodes(NodeDeed, Vec<NodeName>, Result<(), String>),
}

/// What is done to a job of job mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobDeed {
    /// It is let go.
    Admit,
    /// It waits for room again.
    CloseGate,
    /// It goes back into the queue, for this reason.
    PutBack(String),
    /// What that began is finished.
    FinishPutBack,
}

/// What is done to a node of job mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeDeed {
    /// Slurm ends it with its job.
    EndWithJob,
    /// Slurm powers it down now.
    PowerDown,
}

/// What one call to Slurm is about, with the keys of its actions.
type Batch<T> = (Vec<i64>, Vec<T>);

/// Slurm's `Reason` of a node that ends with its job.
const OWN_REASON: &str = "thiao: its VM is for one job and ends with it";

/// Calls at once, each on a thread of its own. Looks need threads of the same
/// pool, so that a thousand creations must not take them all.
const CALLS_AT_ONCE: usize = 64;

/// What keeps calls from being too many at once.
pub fn slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CALLS_AT_ONCE))
}

/// Starts all steps; Slurm's are batched so that it gets few calls. `options`: those of jobs
/// that have some, which must stay in what they are told.
pub fn execute<P: Provider>(
    steps: Vec<(i64, Step)>,
    provider: &Arc<P>,
    slurm: &Arc<Slurm>,
    slots: &Arc<Semaphore>,
    messages: &mpsc::Sender<Message>,
    options: &Arc<BTreeMap<JobId, VmOptions>>,
) {
    let run = |ids: Vec<i64>, call: Box<dyn FnOnce() -> Outcome + Send>| {
        let (messages, slots) = (messages.clone(), slots.clone());
        tokio::spawn(async move {
            // Closed by nobody.
            let _slot = slots.acquire_owned().await;
            let ended = tokio::task::spawn_blocking(call).await;
            match ended {
                // The owner is gone only when the process ends.
                Ok(outcome) => drop(messages.send(Message::Finished(Finished { ids, outcome })).await),
                Err(error) => tracing::error!(%error, ?ids, "a call ended badly"),
            }
        });
    };
    let mut downs: BTreeMap<String, Batch<(NodeName, Vec<JobId>)>> = BTreeMap::new();
    let mut returns: Batch<NodeName> = Default::default();
    let mut starts: Batch<JobId> = Default::default();
    let mut admissions: Batch<Admission> = Default::default();
    let (mut ends, mut power_downs): (Batch<NodeName>, Batch<NodeName>) = Default::default();
    for (id, step) in steps {
        match step.action {
            Action::CreateVm {
                tag,
                host,
                spec,
                again,
            } => {
                let provider = provider.clone();
                run(
                    vec![id],
                    Box::new(move || {
                        let result = provider.create(&tag, &host, &spec, again);
                        Outcome::Created(tag, result)
                    }),
                );
            }
            Action::DestroyVm {
                tag,
                id: vm,
                hard,
                cause: _,
            } => {
                let provider = provider.clone();
                run(
                    vec![id],
                    Box::new(move || {
                        let result = provider.destroy(&tag, vm.as_ref(), hard);
                        Outcome::Destroyed(tag, vm, result)
                    }),
                );
            }
            Action::SetDown { node, reason, jobs } => {
                let entry = downs.entry(reason).or_default();
                entry.0.push(id);
                entry.1.push((node, jobs));
            }
            Action::ReturnNode { node } => {
                returns.0.push(id);
                returns.1.push(node);
            }
            Action::StartNow { job } => {
                starts.0.push(id);
                starts.1.push(job);
            }
            Action::Admit { job, array, licenses } => {
                admissions.0.push(id);
                admissions.1.push(Admission { job, array, licenses });
            }
            Action::CloseGate { job, array, licenses } => {
                let slurm = slurm.clone();
                let gate = Admission { job, array, licenses };
                run(
                    vec![id],
                    Box::new(move || one_job(JobDeed::CloseGate, job, slurm.close_gate(&gate))),
                );
            }
            Action::PutBack {
                job,
                licenses,
                comment,
            } => {
                let slurm = slurm.clone();
                run(
                    vec![id],
                    Box::new(move || {
                        let result = slurm.put_back(job, &licenses, &comment);
                        one_job(JobDeed::PutBack(comment), job, result)
                    }),
                );
            }
            Action::FinishPutBack { job, licenses } => {
                let slurm = slurm.clone();
                run(
                    vec![id],
                    Box::new(move || one_job(JobDeed::FinishPutBack, job, slurm.reopen(job, &licenses))),
                );
            }
            Action::EndWithJob { node } => {
                ends.0.push(id);
                ends.1.push(node);
            }
            Action::PowerDown { node } => {
                power_downs.0.push(id);
                power_downs.1.push(node);
            }
        }
    }
    if !admissions.1.is_empty() {
        let slurm = slurm.clone();
        run(
            admissions.0,
            Box::new(move || {
                let answers = slurm.admit(&admissions.1).into_iter();
                let told = answers.map(|(job, result)| (job, result.map_err(|e| super::provider::chain(&e))));
                Outcome::Jobs(JobDeed::Admit, told.collect())
            }),
        );
    }
    for (deed, (ids, nodes)) in [(NodeDeed::EndWithJob, ends), (NodeDeed::PowerDown, power_downs)] {
        if nodes.is_empty() {
            continue;
        }
        let slurm = slurm.clone();
        run(
            ids,
            Box::new(move || {
                let result = match deed {
                    NodeDeed::EndWithJob => slurm.end_with_job(&nodes, OWN_REASON),
                    NodeDeed::PowerDown => slurm.power_down_now(&nodes, OWN_REASON),
                };
                Outcome::Nodes(deed, nodes, result.map_err(|e| super::provider::chain(&e)))
            }),
        );
    }
    for (reason, (ids, nodes)) in downs {
        let (slurm, options) = (slurm.clone(), options.clone());
        run(ids, Box::new(move || set_down(&slurm, nodes, reason, &options)));
    }
    if !returns.1.is_empty() {
        let slurm = slurm.clone();
        run(
            returns.0,
            Box::new(move || {
                let result = slurm
                    .return_to_service(&returns.1)
                    .map_err(|e| super::provider::chain(&e));
                Outcome::Returned(returns.1, result)
            }),
        );
    }
    if !starts.1.is_empty() {
        let slurm = slurm.clone();
        run(
            starts.0,
            Box::new(move || {
                let result = slurm.start_now(&starts.1).map_err(|e| super::provider::chain(&e));
                Outcome::Started(starts.1, result)
            }),
        );
    }
}

fn one_job(deed: JobDeed, job: JobId, result: Result<(), SlurmError>) -> Outcome {
    Outcome::Jobs(deed, vec![(job, result.map_err(|e| super::provider::chain(&e)))])
}

/// Jobs are told first: once their node is DOWN, Slurm requeues them and their
/// output is closed. A job that can't be told keeps nothing from being done.
fn set_down(
    slurm: &Slurm,
    nodes: Vec<(NodeName, Vec<JobId>)>,
    reason: String,
    options: &BTreeMap<JobId, VmOptions>,
) -> Outcome {
    let mut told: BTreeMap<JobId, Vec<&NodeName>> = BTreeMap::new();
    for (node, jobs) in &nodes {
        for job in jobs {
            told.entry(*job).or_default().push(node);
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
    let names: Vec<NodeName> = nodes.iter().map(|(node, _)| node.clone()).collect();
    let result = slurm
        .set_down(&names, &reason)
        .map_err(|e| super::provider::chain(&e));
    Outcome::Down {
        nodes,
        reason,
        result,
    }
}
