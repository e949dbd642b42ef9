//! What is told to people: each act, refusal and observed change, with its cause.

use crate::ids::{Generation, HostName, JobId, NodeName};
use std::fmt;

/// Something that happened, to be kept as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    pub kind: Kind,
    /// A sentence for people.
    pub text: String,
}

impl Event {
    /// An event about `subject`.
    pub fn new(subject: Subject, kind: Kind, text: impl Into<String>) -> Self {
        Self {
            subject,
            kind,
            text: text.into(),
        }
    }

    /// An event about a node.
    pub fn node(node: &NodeName, kind: Kind, text: impl Into<String>) -> Self {
        Self::new(Subject::Node(node.clone()), kind, text)
    }

    /// An event about a node's VM.
    pub fn vm(node: &NodeName, generation: Generation, kind: Kind, text: impl Into<String>) -> Self {
        Self::new(Subject::Vm(node.clone(), generation), kind, text)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// What kinds of events there are. The store and the API have the words, which stay as they are.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// A stable word for programs, e.g. `vm-ready`.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// Somebody has set the machine's clock.
    ClockSet = "clock-set",
    /// A VM could not be ended, which is tried again.
    DestroyFailed = "destroy-failed",
    /// A controller that was started has made its first plan from whole views.
    FirstPlan = "first-plan",
    /// A file in the spool is no order, and was put aside.
    IntentRefused = "intent-refused",
    /// A file in the spool cannot be read now.
    IntentWaits = "intent-waits",
    /// The last controller ended during an action.
    Interrupted = "interrupted",
    /// Slurm or a person has said that a job is over.
    JobEnded = "job-ended",
    /// A job on our nodes did not end well.
    JobFailed = "job-failed",
    /// A job was moved where it gets VMs of its own, as its user asked.
    JobGiven = "job-given",
    /// There is capacity for a job's VMs, and Slurm may start it.
    JobAdmitted = "job-admitted",
    /// A person has said that a job is over, and it is not.
    JobNotEnded = "job-not-ended",
    /// A job was told that its VM does not see the folder where it runs.
    JobFolderUnshared = "job-folder-unshared",
    /// A job is held, or ended, that could not run in any VM.
    JobRefused = "job-refused",
    /// Slurm refused to put a job back into the queue.
    JobNotPutBack = "job-not-put-back",
    /// A job is back in the queue, since its VMs cannot be had now.
    JobPutBack = "job-put-back",
    /// A job's prolog has ended: its nodes are up.
    JobReleased = "job-released",
    /// Slurm was asked to start a requeued job at once.
    JobStartNow = "job-start-now",
    /// A job was told that its node has lost its VM.
    JobTold = "job-told",
    /// What tells the provider of its VMs is heard.
    BusHeard = "bus-heard",
    /// It is not, or not relied on: the provider is asked instead.
    BusNotHeard = "bus-not-heard",
    /// A job of another partition is kept from nodes of job mode.
    JobTurnedAway = "job-turned-away",
    /// A prolog waits for a job that Slurm does not show.
    JobUnknown = "job-unknown",
    /// A job waits at the gate again.
    JobWaits = "job-waits",
    /// The linter refused a step of a plan: a bug of ours.
    LintRefused = "lint-refused",
    /// Slurm or the provider cannot be read.
    ObservationFailed = "observation-failed",
    /// It can be read again.
    ObservationOk = "observation-ok",
    /// Slurm has no licence at which jobs could wait for capacity.
    NoGate = "no-gate",
    /// Jobs of job mode wait for capacity again.
    GateShut = "gate-shut",
    /// Slurm was told that a node is DOWN, and why.
    NodeDown = "node-down",
    /// Slurm is asked to power an idle node down, whose place somebody waits for.
    NodeGivesWay = "node-gives-way",
    /// Slurm was asked to power a node down anew that it would give to no job.
    NodeForgotten = "node-forgotten",
    /// A node is in no partition any more, and is powered down after its job.
    NodeLeft = "node-left",
    /// A node that we had set DOWN is back in service.
    NodeReturned = "node-returned",
    /// A node is undrained that Slurm had drained for what went wrong in a VM that is gone.
    NodeUndrained = "node-undrained",
    /// A node's slurmd has registered.
    NodeUp = "node-up",
    /// A VM is there that nobody has asked for.
    NotAsked = "not-asked",
    /// The provider cannot make VMs.
    NotPrepared = "not-prepared",
    /// It cannot make those of some nodes.
    NotPreparedFor = "not-prepared-for",
    /// An order came that something newer in Slurm outdates.
    OrderSuperseded = "order-superseded",
    /// Slurm was asked to power a node of job mode down after its job.
    NodeEndsWithJob = "node-ends-with-job",
    /// The provider can make VMs.
    Prepared = "prepared",
    /// What the provider does until it can.
    Preparing = "preparing",
    /// A job's prolog wants its nodes before Slurm has asked for them.
    PrologAsked = "prolog-asked",
    /// The provider will not make a VM until a person changes something.
    Refused = "refused",
    /// Slurm or a person wants a node up.
    ResumeAsked = "resume-asked",
    /// Slurm has given a node up that did not register.
    ResumeFailed = "resume-failed",
    /// What Slurm says beside its order cannot be read.
    ResumeFile = "resume-file",
    /// Slurm shows that it wants a node up, and no order said so.
    ResumeSeen = "resume-seen",
    /// Slurm did not do what it was asked.
    SlurmRefused = "slurm-refused",
    /// A guest was told once more to start slurmd.
    SlurmdAgain = "slurmd-again",
    /// A guest was told to start slurmd.
    SlurmdAsked = "slurmd-asked",
    /// A guest could not be told to start slurmd.
    SlurmdNotAsked = "slurmd-not-asked",
    /// The folder of the orders cannot be read.
    SpoolFailed = "spool-failed",
    /// The controller was started.
    Started = "started",
    /// Slurm's state of a node was taken for an order.
    StateOrdered = "state-ordered",
    /// Rounds are stored again.
    StoreOk = "store-ok",
    /// Slurm or a person wants a node down.
    SuspendAsked = "suspend-asked",
    /// A VM was found that no record had, and backs its node now.
    VmAdopted = "vm-adopted",
    /// A host takes no new VMs, or is shown no more.
    HostClosed = "host-closed",
    /// A host takes new VMs again, or is new.
    HostOpen = "host-open",
    /// A VM's creation begins.
    VmAsked = "vm-asked",
    /// A VM's end begins.
    VmDestroyAsked = "vm-destroy-asked",
    /// A VM has ended by itself.
    VmDied = "vm-died",
    /// A VM takes its time to end, or somebody else ends it.
    VmEnding = "vm-ending",
    /// A VM could not be made.
    VmFailed = "vm-failed",
    /// A VM that no observation had shown for long is there.
    VmFound = "vm-found",
    /// Nothing of a VM is left.
    VmGone = "vm-gone",
    /// Somebody holds a VM back before it is started.
    VmHeld = "vm-held",
    /// No observation has shown a VM for so long that it counts as dead.
    VmLost = "vm-lost",
    /// The provider has taken the order for a VM.
    VmMade = "vm-made",
    /// A VM is on another host than before.
    VmMoved = "vm-moved",
    /// A VM is on its way to another host.
    VmMoves = "vm-moves",
    /// A VM is held still, or on its way to or from a disk: its job stands still.
    VmPaused = "vm-paused",
    /// A VM's guest says that its slurmd runs.
    VmReady = "vm-ready",
    /// A VM has become larger or smaller than it was.
    VmResized = "vm-resized",
    /// A VM that was held still or moved, or of which nobody knew whether it runs, goes on.
    VmResumed = "vm-resumed",
    /// The provider says that a VM was started.
    VmStarted = "vm-started",
    /// The provider does not say whether a VM runs, or that it is another user's.
    VmUnclear = "vm-unclear",
    /// Nobody knows whether a VM was made: it is asked for again.
    VmUnsure = "vm-unsure",
}

impl Kind {
    /// What an event of this kind is about: what is told of one thing ends what was told of it before, and is new
    /// again when it comes back. Of most kinds that is the kind itself.
    #[must_use]
    pub fn matter(self) -> Self {
        let how_it_is = [
            Self::VmEnding,
            Self::VmHeld,
            Self::VmMoved,
            Self::VmMoves,
            Self::VmPaused,
            Self::VmResumed,
            Self::VmUnclear,
        ];
        if how_it_is.contains(&self) {
            Self::VmPaused
        } else if self == Self::HostOpen {
            Self::HostClosed
        } else {
            self
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What an event or a line of a plan is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Node(NodeName),
    Vm(NodeName, Generation),
    Job(JobId),
    Host(HostName),
    /// Slurm as a whole.
    Slurm,
    /// The provider as a whole.
    Provider,
    Controller,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => write!(f, "node {node}"),
            Subject::Vm(node, generation) => write!(f, "vm {node}.{generation}"),
            Subject::Job(job) => write!(f, "job {job}"),
            Subject::Host(host) => write!(f, "host {host}"),
            Subject::Slurm => f.write_str("slurm"),
            Subject::Provider => f.write_str("provider"),
            Subject::Controller => f.write_str("controller"),
        }
    }
}
