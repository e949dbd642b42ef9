//! What users want of their jobs' own VMs: to get them, and to let them go. The server
//! has asked whether they may.

use crate::answer::{internal, job_state, no_job};
use crate::api::{ApiError, Reply};
use crate::intake::Taken;
use crate::message::Message;
use crate::owner::Owner;
use crate::provider::{Provider, chain};
use crate::store::Past;
use std::collections::BTreeSet;
use thiao_api::JobName;
use thiao_api::types::Accepted;
use thiao_config::{Config, Mode};
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::options::{Asker, VmOptions, comment_of};
use thiao_core::orders::Order;
use thiao_core::view::{JobState, SlurmJob, SlurmView};

/// What is told while Slurm can't be read.
pub const NOT_READ: &str = "Slurm cannot be read now, so the job's state is not known: try again in a moment \
                        (`thiao status` says more)";

impl<P: Provider> Owner<P> {
    /// A queued job is to get VMs of its own.
    pub(super) fn give(&mut self, name: JobName, options: VmOptions, reply: Reply<Accepted>) {
        match giving(self.rounds.world().slurm.as_deref(), &self.config, name, &options) {
            Ok(giving) => self.move_job(giving, options, reply),
            // An asker that has left is no error.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// Slurm is asked beside the owner's work; the asker waits for its answer.
    fn move_job(&mut self, giving: Giving, options: VmOptions, reply: Reply<Accepted>) {
        let (slurm, messages) = (self.slurm.clone(), self.messages.0.clone());
        let changed = self.slurm_changed.clone();
        tokio::task::spawn_blocking(move || {
            let Giving {
                name,
                record,
                partition,
                licenses,
            } = giving;
            let comment = (!options.is_empty()).then(|| comment_of(&options));
            let moved = slurm.move_job(record, &partition, &licenses, comment.as_deref());
            changed.notify_one();
            let answer = match moved {
                Ok(()) => {
                    let text =
                        format!("its owner asked for VMs of its own: it is in partition {partition} now");
                    let event = Event::new(Subject::Job(record), Kind::JobGiven, text);
                    let _ = messages.blocking_send(Message::Event(event));
                    Ok(Accepted {
                        nodes: String::new(),
                        message: format!(
                            "it gets VMs of its own in partition {partition} as soon as there is capacity \
                             for all of them; `thiao explain {name}` says what it waits for"
                        ),
                    })
                }
                Err(error) => Err(ApiError::Conflict(chain(&error))),
            };
            // An asker that has left is no error.
            drop(reply.send(answer));
        });
    }

    /// A job's VMs are not needed any more.
    pub(super) fn clean(&mut self, name: JobName) -> Result<Accepted, ApiError> {
        let world = self.rounds.world();
        let Some(job) = record_of(world.slurm.as_deref(), self.store.past(), name)? else {
            return Err(no_job(world, name));
        };
        match may_be_there(self.rounds.world().slurm.as_deref(), job) {
            None => return Err(ApiError::Unavailable(NOT_READ.to_owned())),
            Some(true) => {
                return Err(ApiError::Conflict(format!(
                    "job {name} is still running: scancel it first"
                )));
            }
            Some(false) => {}
        }
        let nodes = self.nodes_with_vms_of(job);
        let message = if nodes.is_empty() {
            format!("job {name} has no VMs: there is nothing to clean up")
        } else {
            let order = Order::JobEnded { job, failed: false };
            self.order_now(&nodes, &order)?;
            format!("the VMs of job {name} are ended now")
        };
        Ok(Accepted {
            nodes: hostlist::fold(&nodes),
            message,
        })
    }

    /// The nodes that an order from the spool is about; none while that can't be known, so
    /// that it stays there. A person's word that a job is over holds only if it is.
    pub(crate) fn nodes_of(&mut self, taken: &Taken) -> Option<Vec<NodeName>> {
        let job = match &taken.order {
            Order::JobEnded { job, .. } if taken.nodes.is_empty() => *job,
            Order::JobEnded { .. } | Order::Up { .. } | Order::Down | Order::ResumeFailed => {
                return Some(taken.nodes.clone());
            }
        };
        if may_be_there(self.rounds.world().slurm.as_deref(), job)? {
            let text = "still runs, though tclean said that it is over: its VMs are kept; scancel it first";
            self.record(Event::new(Subject::Job(job), Kind::JobNotEnded, text));
            return Some(Vec::new());
        }
        Some(self.nodes_with_vms_of(job))
    }

    fn nodes_with_vms_of(&self, job: JobId) -> Vec<NodeName> {
        let of_job = |vm: &thiao_core::vm::VmRecord| vm.spec.as_ref().and_then(|spec| spec.job) == Some(job);
        self.rounds
            .world()
            .records
            .iter()
            .filter(|(_, record)| record.vm.as_ref().is_some_and(of_job))
            .map(|(node, _)| node.clone())
            .collect()
    }
}

/// The record of a job, or that a task of an array is in or was in; none if no such task is known.
pub fn record_of(slurm: Option<&SlurmView>, past: &Past, name: JobName) -> Result<Option<JobId>, ApiError> {
    let Some(task) = name.task else {
        return Ok(Some(JobId(name.id)));
    };
    match slurm.and_then(|slurm| find(slurm, name)) {
        Some(job) => Ok(Some(job.id)),
        None => past.job_of_task(JobId(name.id), task).map_err(internal),
    }
}

/// Whether a job may have processes on its nodes, or soon; none if Slurm was not read. One
/// that is ending may be cleaned up after: a person asks for that when it does not end.
fn may_be_there(slurm: Option<&SlurmView>, job: JobId) -> Option<bool> {
    let state = slurm?.jobs.get(&job).map(|job| &job.state);
    Some(match state {
        None | Some(JobState::Pending | JobState::Completing | JobState::Over(_)) => false,
        Some(JobState::Configuring | JobState::Running | JobState::Suspended | JobState::Unknown(_)) => true,
    })
}

/// What is given to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Giving {
    /// The job, as Slurm's commands take it.
    name: JobName,
    /// The record that it is in: an array's waiting tasks are one.
    record: JobId,
    /// The partition whose nodes it gets.
    partition: String,
    /// The licences that it keeps.
    licenses: String,
}

/// Whether a job can have VMs of its own, and where.
fn giving(
    slurm: Option<&SlurmView>,
    config: &Config,
    name: JobName,
    options: &VmOptions,
) -> Result<Giving, ApiError> {
    let slurm = slurm.ok_or_else(|| ApiError::Unavailable(NOT_READ.to_owned()))?;
    let job = find(slurm, name)
        .ok_or_else(|| ApiError::NotFound(format!("Slurm has no job {name} in its queue")))?;
    if job.state != JobState::Pending {
        return Err(ApiError::Conflict(format!(
            "job {name} is {}: only a pending job can still be given VMs of its own",
            job_state(&job.state)
        )));
    }
    let partition = partition(config, job)?;
    let asker = Asker {
        partition: &partition,
        account: &job.account,
        user: &job.user,
    };
    options
        .check(&config.job.options, asker)
        .map_err(ApiError::Forbidden)?;
    Ok(Giving {
        name,
        record: job.id,
        partition,
        licenses: job.licenses.clone(),
    })
}

/// The job, or the record that waits for the tasks of an array.
fn find(slurm: &SlurmView, name: JobName) -> Option<&SlurmJob> {
    let mut of_array = slurm.jobs.values().filter(|job| {
        let array = job.array.as_ref().filter(|array| array.job.0 == name.id);
        array.is_some_and(|array| name.task.is_none_or(|task| array.tasks.contains(&task)))
    });
    match name.task {
        Some(_) => of_array.next(),
        None => slurm
            .jobs
            .get(&JobId(name.id))
            .or_else(|| of_array.find(|job| job.state == JobState::Pending)),
    }
}

/// Where the job's VMs are made: its own partition if that is in job mode, else the only one that is.
fn partition(config: &Config, job: &SlurmJob) -> Result<String, ApiError> {
    let of_job_mode: BTreeSet<&str> = config
        .nodesets
        .values()
        .filter(|set| match set.mode() {
            Mode::Job => true,
            Mode::PowerSaving => false,
        })
        .map(|set| set.partition.as_str())
        .collect();
    if let Some(own) = of_job_mode.get(job.partition.as_str()) {
        return Ok((*own).to_owned());
    }
    match Vec::from_iter(of_job_mode).as_slice() {
        [] => Err(ApiError::Conflict(
            "there is no partition here whose jobs get VMs of their own (mode = \"job\" in thiao.toml)"
                .to_owned(),
        )),
        [only] => Ok((*only).to_owned()),
        several => Err(ApiError::Conflict(format!(
            "job {id} can get VMs in {}: choose with `scontrol update JobId={id} Partition={}`",
            several.join(", "),
            several[0],
            id = job.id,
        ))),
    }
}

#[cfg(test)]
mod tests;
