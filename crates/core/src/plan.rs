//! A plan: what to do now, as a value. Each action and each refusal says why.

use crate::ids::{HostName, JobId, NodeName, Time, VmId, VmTag};
use crate::note::Subject;
use crate::view::{ArrayTasks, VmSpec};
use crate::world::Cause;
use std::fmt;
use std::num::NonZeroU32;

/// What to do, with causes, and what is not done, with reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of execution; at most one per node.
    pub steps: Vec<Step>,
    /// Why other things are not done now.
    pub held: Vec<Held>,
}

/// An action and its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub why: String,
}

/// Something that is not done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// About what.
    pub subject: Subject,
    /// Why.
    pub why: String,
}

/// All that the executor can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the VM with this tag on this host; idempotent by the tag.
    CreateVm {
        /// Written into the VM.
        tag: VmTag,
        /// Where.
        host: HostName,
        /// What.
        spec: VmSpec,
        /// Whether it was asked for before, and may be there or on its way.
        again: bool,
    },
    /// Have the guest of a VM start slurmd; idempotent by the number.
    StartSlurmd {
        /// Its tag.
        tag: VmTag,
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Which start it is, from 1 on; after the first one, slurmd is ended before.
        number: u32,
        /// When Slurm had asked for the node at the latest: slurmd starts after that second.
        asked: Time,
    },
    /// End a VM and remove what is left of it; idempotent.
    DestroyVm {
        /// Its tag.
        tag: VmTag,
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Why; nothing else may destroy.
        cause: Cause,
        /// Whether to leave its guest no time.
        hard: bool,
    },
    /// Tell Slurm that a node is DOWN, and its jobs why.
    SetDown {
        /// The node.
        node: NodeName,
        /// For Slurm's `Reason`; begins with `thiao:`.
        reason: String,
        /// Jobs to tell.
        jobs: Vec<JobId>,
    },
    /// Give a node that we set DOWN back to Slurm.
    ReturnNode {
        /// The node.
        node: NodeName,
    },
    /// Let a job that Slurm requeued because of us start without Slurm's pause.
    StartNow {
        /// The job.
        job: JobId,
    },
    /// Let a job go that waited for room: all its VMs have some.
    Admit {
        /// The job; of an array its record.
        job: JobId,
        /// The tasks of the array that are let go; none: the whole job.
        array: Option<ArrayTasks>,
        /// So many nodes it gets, each task of an array, of the range that it asked for; none: it has no choice.
        nodes: Option<NonZeroU32>,
        /// The licences that it keeps.
        licenses: String,
    },
    /// Let a job wait for room again that was let go and was not started.
    CloseGate {
        /// The job; of an array its record.
        job: JobId,
        /// The tasks of the array that it is about; none: the whole job.
        array: Option<ArrayTasks>,
        /// Its other licences.
        licenses: String,
    },
    /// Put a job back into the queue whose VMs cannot be had after all.
    PutBack {
        /// The job.
        job: JobId,
        /// Its other licences.
        licenses: String,
        /// For its `AdminComment`.
        comment: String,
    },
    /// Finish what putting it back began: it is held still.
    FinishPutBack {
        /// The job.
        job: JobId,
        /// Its other licences.
        licenses: String,
    },
    /// Put a job of another partition back into the queue that was given nodes of job mode, and
    /// keep it from them; or finish that.
    TurnAway {
        /// The job.
        job: JobId,
        /// The nodes that it is kept from, as a hostlist.
        from: String,
        /// For its `AdminComment`.
        why: String,
    },
    /// Have Slurm give a node to no other job, and power it down when its job is over.
    EndWithJob {
        /// The node.
        node: NodeName,
    },
    /// Have Slurm power a node down that still comes up for a job that is over.
    PowerDown {
        /// The node.
        node: NodeName,
    },
}

impl Action {
    /// The node that it is about, if one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Action::CreateVm { tag, .. }
            | Action::StartSlurmd { tag, .. }
            | Action::DestroyVm { tag, .. } => Some(&tag.node),
            Action::SetDown { node, .. }
            | Action::ReturnNode { node }
            | Action::EndWithJob { node }
            | Action::PowerDown { node } => Some(node),
            Action::StartNow { .. }
            | Action::Admit { .. }
            | Action::CloseGate { .. }
            | Action::PutBack { .. }
            | Action::FinishPutBack { .. }
            | Action::TurnAway { .. } => None,
        }
    }

    /// The job that it is about, if one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Action::StartNow { job }
            | Action::Admit { job, .. }
            | Action::CloseGate { job, .. }
            | Action::PutBack { job, .. }
            | Action::FinishPutBack { job, .. }
            | Action::TurnAway { job, .. } => Some(*job),
            Action::CreateVm { .. }
            | Action::StartSlurmd { .. }
            | Action::DestroyVm { .. }
            | Action::SetDown { .. }
            | Action::ReturnNode { .. }
            | Action::EndWithJob { .. }
            | Action::PowerDown { .. } => None,
        }
    }

    /// What a line about it is headed with.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Action::CreateVm { tag, .. }
            | Action::StartSlurmd { tag, .. }
            | Action::DestroyVm { tag, .. } => Subject::Vm(tag.node.clone(), tag.generation),
            Action::SetDown { node, .. }
            | Action::ReturnNode { node }
            | Action::EndWithJob { node }
            | Action::PowerDown { node } => Subject::Node(node.clone()),
            Action::StartNow { job }
            | Action::Admit { job, .. }
            | Action::CloseGate { job, .. }
            | Action::PutBack { job, .. }
            | Action::FinishPutBack { job, .. }
            | Action::TurnAway { job, .. } => Subject::Job(*job),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateVm { tag, host, spec, .. } => {
                write!(
                    f,
                    "create VM {}.{} on host {host} ({} CPUs, {} MiB",
                    tag.node, tag.generation, spec.shape.cpus, spec.shape.memory_mb
                )?;
                if let Some(job) = spec.job {
                    write!(f, ", for job {job} alone")?;
                }
                f.write_str(")")
            }
            Action::StartSlurmd { tag, number: 1, .. } => {
                write!(f, "start slurmd in VM {}.{}", tag.node, tag.generation)
            }
            Action::StartSlurmd { tag, number, .. } => {
                write!(
                    f,
                    "start slurmd in VM {}.{} again (start {number})",
                    tag.node, tag.generation
                )
            }
            Action::DestroyVm { tag, .. } => write!(f, "destroy VM {}.{}", tag.node, tag.generation),
            Action::SetDown { node, reason, .. } => write!(f, "set node {node} DOWN: {reason}"),
            Action::ReturnNode { node } => write!(f, "return node {node} to service"),
            Action::StartNow { job } => write!(f, "let requeued job {job} start now"),
            Action::Admit {
                job, array, nodes, ..
            } => {
                match array {
                    None => write!(f, "let job {job} go")?,
                    Some(some) => write!(f, "let {} tasks of job {job} go", some.tasks.len())?,
                }
                nodes.map_or(Ok(()), |nodes| write!(f, ", with {nodes} nodes"))
            }
            Action::CloseGate { job, array: None, .. } => write!(f, "let job {job} wait for room again"),
            Action::CloseGate {
                job,
                array: Some(some),
                ..
            } => write!(
                f,
                "let {} tasks of job {job} wait for room again",
                some.tasks.len()
            ),
            Action::PutBack { job, comment, .. } => write!(f, "put job {job} back: {comment}"),
            Action::FinishPutBack { job, .. } => write!(f, "finish putting job {job} back"),
            Action::TurnAway { job, why, .. } => write!(f, "turn job {job} away: {why}"),
            Action::EndWithJob { node } => write!(f, "have Slurm power node {node} down with its job"),
            Action::PowerDown { node } => write!(f, "have Slurm power node {node} down now"),
        }
    }
}
