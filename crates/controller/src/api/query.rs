//! What the API asks the controller: one message per request, each with the
//! place where its answer goes.

use crate::store::Which;
use std::path::PathBuf;
use thiao_api::JobName;
use thiao_api::types::{
    Accepted, Event, Explanation, Host, Job, JobStay, JobVm, JobVms, Node, PlanView, Status, Vm,
};
use thiao_core::ids::{JobId, NodeName};
use thiao_core::options::VmOptions;
use tokio::sync::oneshot;

/// Where an answer goes. When the asker has left, [`oneshot::Sender::is_closed`] says so.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// Who asks, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    pub uid: u32,
    /// Whether it is root or the user whom the controller runs as: sees and may do all.
    pub trusted: bool,
}

impl Viewer {
    /// Whether something of this user may be shown; `None` is everybody's.
    #[must_use]
    pub fn may_see(self, owner: Option<u32>) -> bool {
        self.trusted || owner.is_none_or(|uid| uid == self.uid)
    }
}

/// A question to the controller. The server checks permissions and hides what
/// is not the viewer's: the controller answers all of it.
#[derive(Debug)]
pub enum Query {
    /// Answered from a snapshot and the store, beside the owner's work.
    Read(Read),
    /// Answered by the owner.
    Demand(Demand),
}

impl From<Read> for Query {
    fn from(read: Read) -> Self {
        Self::Read(read)
    }
}

impl From<Demand> for Query {
    fn from(demand: Demand) -> Self {
        Self::Demand(demand)
    }
}

/// What changes nothing and waits for nothing. Whoever asks sees the effects of all that was
/// answered before he asked.
#[derive(Debug)]
pub enum Read {
    /// How the controller is doing.
    Status(Reply<Status>),
    /// All configured nodes, by name.
    Nodes(Reply<Vec<Node>>),
    /// All VMs of this cluster.
    Vms(Reply<Vec<Vm>>),
    /// All hosts, and how full they are.
    Hosts(Reply<Vec<Host>>),
    /// All jobs that Slurm showed and that are not over.
    Jobs(Reply<Vec<Job>>),
    /// The newest `limit` events with an id above `after`, oldest first; with `after`
    /// given, the oldest `limit` of them, so that a follower misses none.
    Events {
        /// How many at most.
        limit: usize,
        /// Only events with a larger id.
        after: Option<i64>,
        /// Only those about this, e.g. `node fg0`, `vm fg0.3`, `job 17`.
        subject: Option<String>,
        reply: Reply<Vec<Event>>,
    },
    /// What would be done now, and why.
    Plan(Reply<PlanView>),
    /// The story of a node, VM or job (a number is a job); unknown names are [`ApiError::NotFound`].
    Explain {
        /// Its name as typed, already bounded in length.
        name: String,
        reply: Reply<Explanation>,
    },
    /// The VMs that were made for a job alone.
    JobVms {
        /// Which job or task, or all tasks of an array.
        job: JobName,
        reply: Reply<JobVms>,
    },
    /// The VMs that were made for jobs alone.
    JobsVms { which: Which, reply: Reply<Vec<JobVm>> },
    /// Which VMs jobs were on, whatever those were made for.
    JobsNodes {
        which: Which,
        reply: Reply<Vec<JobStay>>,
    },
}

/// What changes something, or waits for something to happen.
#[derive(Debug)]
pub enum Demand {
    /// A trusted person asks for these nodes, as Slurm's ResumeProgram would. Answered when the intent is durable.
    Resume {
        nodes: Vec<NodeName>,
        /// Try at once, whatever failed before.
        force: bool,
        /// Where the answer goes.
        reply: Reply<Accepted>,
    },
    /// A trusted person gives these nodes back, as Slurm's SuspendProgram would. Answered when the intent is durable.
    Suspend {
        nodes: Vec<NodeName>,
        /// Also nodes that jobs run on.
        force: bool,
        /// Where the answer goes.
        reply: Reply<Accepted>,
    },
    /// Somebody is about to ask about a job that may be new: answered at once if it is known,
    /// else when Slurm was observed, whether it is there or not.
    JobSeen {
        /// Which job, or array; none: any, so that Slurm is observed in any case.
        job: Option<JobId>,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Answered `Ok` as soon as all nodes of the job are up, [`ApiError::Conflict`]
    /// when that can never be. Kept until then; dropped when the asker has left.
    JobReady {
        job: JobId,
        /// Where it runs, if its prolog says that.
        work_dir: Option<PathBuf>,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// A queued job's user wants it to get VMs of its own.
    Give {
        /// Which job, or which task of an array.
        job: JobName,
        /// What it asks of its VMs.
        options: VmOptions,
        /// Where the answer goes.
        reply: Reply<Accepted>,
    },
    /// A job's user says that its VMs are not needed any more. Answered when the order is durable.
    Clean {
        /// Which job, or which task of an array.
        job: JobName,
        /// Where the answer goes.
        reply: Reply<Accepted>,
    },
}

impl Demand {
    /// Whether the owner has something to do once it has answered.
    #[must_use]
    pub fn orders(&self) -> bool {
        match self {
            Self::Resume { .. } | Self::Suspend { .. } | Self::Clean { .. } => true,
            // An observation of Slurm comes after these.
            Self::JobSeen { .. } | Self::JobReady { .. } | Self::Give { .. } => false,
        }
    }
}

/// Why a request got no answer, in a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 400: the request makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// 403: not for this user.
    #[error("{0}")]
    Forbidden(String),
    /// 404: no such thing.
    #[error("{0}")]
    NotFound(String),
    /// 409: can never be.
    #[error("{0}")]
    Conflict(String),
    /// 500: it is our fault.
    #[error("{0}")]
    Internal(String),
    /// 503: it cannot be answered now.
    #[error("{0}")]
    Unavailable(String),
}
