//! A plan: what to do now, as a value. Each action and each refusal says why.

use crate::event::Subject;
use crate::ids::{HostName, JobId, NodeName, Time, VmId, VmTag};
use crate::view::{ArrayTasks, VmSpec};
use crate::vm::Cause;
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
    pub action: Action,
    pub why: String,
}

/// Something that is not done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub subject: Subject,
    pub why: String,
}

/// All that can be done, by what it is done to: each family has an executor of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The provider does something to the VM that carries this tag, or will.
    Vm(VmTag, VmVerb),
    /// Slurm does something to a node.
    Node(NodeName, NodeVerb),
    /// Slurm does something to a job; of an array to its record.
    Job(JobId, JobVerb),
}

/// What can be done to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmVerb {
    /// Make it on this host; idempotent by the tag.
    Create {
        host: HostName,
        spec: VmSpec,
        /// Whether it was asked for before, and may be there or on its way.
        again: bool,
    },
    /// Have its guest start slurmd; idempotent by the number.
    StartSlurmd {
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Which start it is, from 1 on; after the first one, slurmd is ended before.
        number: u32,
        /// When Slurm had asked for the node at the latest: slurmd starts after that second.
        asked: Time,
    },
    /// End it and remove what is left of it; idempotent.
    Destroy {
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Why; nothing else may destroy.
        cause: Cause,
        /// Whether to leave its guest no time.
        hard: bool,
    },
}

/// What Slurm can do to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeVerb {
    /// Take it for DOWN, after its jobs were told why.
    SetDown {
        /// For Slurm's `Reason`; begins with `thiao:`.
        reason: String,
        /// The jobs that are told why.
        jobs: Vec<JobId>,
    },
    /// Take it back, which we set DOWN.
    Return,
    /// Undrain it, which Slurm itself has drained for what went wrong in a VM that is gone.
    Undrain {
        /// What Slurm had said of it.
        was: String,
    },
    /// Give it to no other job, and power it down when its job is over, if it has one.
    EndWithJob(EndWhy),
    /// Power it down, which still comes up for a job that is over.
    PowerDown,
}

/// Why a node gets no further job before it was powered down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndWhy {
    /// Its VM is made for one job.
    OneJob,
    /// It is in no partition any more: Slurm powers no such node down by itself.
    NoPartition,
    /// It has VMs beside the one that was found to back it, which only its being idle can tell apart.
    Strays,
    /// The guest of its VM does not answer any more: users of further jobs cannot be handed to it.
    Unheard,
    /// A restarted slurmctld has forgotten that it is powered down, and gives it to no job.
    Forgotten,
    /// It is idle, and somebody waits for what its VM takes.
    GivesWay,
}

impl EndWhy {
    /// What is written into Slurm's `Reason`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            EndWhy::OneJob => "thiao: its VM is for one job and ends with it",
            EndWhy::NoPartition => "thiao: it is in no partition any more",
            EndWhy::Strays => "thiao: it has more than one VM",
            EndWhy::Unheard => "thiao: its VM's guest does not answer",
            EndWhy::Forgotten => "thiao: powered down anew, as slurmctld had forgotten that it is",
            EndWhy::GivesWay => "thiao: it was idle, and gives way to a job that waits for its place",
        }
    }
}

/// What Slurm can do to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobVerb {
    /// Let it start without Slurm's pause, which Slurm requeued because of us.
    StartNow,
    /// Admit it, which waited for capacity: all its VMs have some.
    Admit {
        /// The tasks of the array that are admitted; none: the whole job.
        array: Option<ArrayTasks>,
        /// So many nodes it gets, each task of an array, of the range that it asked for; none: it has no choice.
        nodes: Option<NonZeroU32>,
        /// The licences that it keeps.
        licenses: String,
    },
    /// Let it wait for capacity again that was admitted and was not started.
    CloseGate {
        /// The tasks of the array that it is about; none: the whole job.
        array: Option<ArrayTasks>,
        /// The licences that it has beside the gate's.
        licenses: String,
    },
    /// Put it back into the queue, whose VMs cannot be had after all.
    PutBack {
        /// The licences that it has beside the gate's.
        licenses: String,
        /// What is written into its `AdminComment`.
        comment: String,
    },
    /// Finish what putting it back began: it is held still.
    FinishPutBack {
        /// The licences that it has beside the gate's.
        licenses: String,
    },
    /// Put it back into the queue, which is of another partition and was given nodes of job mode, and
    /// keep it from them; or finish that.
    TurnAway {
        /// The nodes that it is kept from, as a hostlist.
        from: String,
        /// What is written into its `AdminComment`.
        why: String,
    },
    /// Hold it, which cannot run in any VM; end it, if it cannot go back into the queue.
    Refuse {
        /// What is written into its `AdminComment`.
        why: String,
    },
}

impl Action {
    /// The node that it is about, if one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Action::Vm(tag, _) => Some(&tag.node),
            Action::Node(node, _) => Some(node),
            Action::Job(..) => None,
        }
    }

    /// The job that it is about, if one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Action::Job(job, _) => Some(*job),
            Action::Vm(..) | Action::Node(..) => None,
        }
    }

    /// What a line about it is headed with.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Action::Vm(tag, _) => Subject::Vm(tag.node.clone(), tag.generation),
            Action::Node(node, _) => Subject::Node(node.clone()),
            Action::Job(job, _) => Subject::Job(*job),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Vm(tag, verb) => to_vm(f, tag, verb),
            Action::Node(node, verb) => to_node(f, node, verb),
            Action::Job(job, verb) => to_job(f, *job, verb),
        }
    }
}

fn to_vm(f: &mut fmt::Formatter<'_>, tag: &VmTag, verb: &VmVerb) -> fmt::Result {
    let vm = format_args!("VM {}.{}", tag.node, tag.generation);
    match verb {
        VmVerb::Create { host, spec, .. } => {
            let (cpus, memory) = (spec.shape.cpus, spec.shape.memory_mb);
            write!(f, "create {vm} on host {host} ({cpus} CPUs, {memory} MiB")?;
            if let Some(job) = spec.job {
                write!(f, ", for job {job} alone")?;
            }
            f.write_str(")")
        }
        VmVerb::StartSlurmd { number: 1, .. } => write!(f, "start slurmd in {vm}"),
        VmVerb::StartSlurmd { number, .. } => write!(f, "start slurmd in {vm} again (start {number})"),
        VmVerb::Destroy { .. } => write!(f, "destroy {vm}"),
    }
}

fn to_node(f: &mut fmt::Formatter<'_>, node: &NodeName, verb: &NodeVerb) -> fmt::Result {
    match verb {
        NodeVerb::SetDown { reason, .. } => write!(f, "set node {node} DOWN: {reason}"),
        NodeVerb::Return => write!(f, "return node {node} to service"),
        NodeVerb::Undrain { was } => write!(f, "undrain node {node}: {was}"),
        NodeVerb::EndWithJob(EndWhy::Forgotten) => write!(f, "have Slurm power node {node} down anew"),
        NodeVerb::EndWithJob(EndWhy::GivesWay) => write!(f, "have Slurm power idle node {node} down"),
        NodeVerb::EndWithJob(EndWhy::OneJob | EndWhy::NoPartition | EndWhy::Strays | EndWhy::Unheard) => {
            write!(f, "have Slurm power node {node} down with its job")
        }
        NodeVerb::PowerDown => write!(f, "have Slurm power node {node} down now"),
    }
}

fn to_job(f: &mut fmt::Formatter<'_>, job: JobId, verb: &JobVerb) -> fmt::Result {
    let whom = |array: &Option<ArrayTasks>| match array {
        None => format!("job {job}"),
        Some(some) => format!("{} tasks of job {job}", some.tasks.len()),
    };
    match verb {
        JobVerb::StartNow => write!(f, "let requeued job {job} start now"),
        JobVerb::Admit { array, nodes, .. } => {
            write!(f, "admit {}", whom(array))?;
            nodes.map_or(Ok(()), |nodes| write!(f, ", with {nodes} nodes"))
        }
        JobVerb::CloseGate { array, .. } => write!(f, "let {} wait for capacity again", whom(array)),
        JobVerb::PutBack { comment, .. } => write!(f, "put job {job} back: {comment}"),
        JobVerb::FinishPutBack { .. } => write!(f, "finish putting job {job} back"),
        JobVerb::TurnAway { why, .. } => write!(f, "turn job {job} away: {why}"),
        JobVerb::Refuse { why } => write!(f, "refuse job {job}: {why}"),
    }
}
