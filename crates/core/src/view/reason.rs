//! Why Slurm has a job or a node as it has it, as far as something is decided by it.
//!
//! The words themselves are Slurm's, and people's: `crates/slurm` reads them, and nothing here
//! looks at a text that it kept for people.

use std::fmt;

/// What begins every reason that we set in Slurm.
pub const REASON_PREFIX: &str = "thiao:";

/// Why a job is in its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobReason {
    /// In Slurm's words, for people.
    pub text: String,
    /// What a pending job waits for: of an array's record each of its tasks for something else.
    /// Nothing when Slurm does not say, as before a scheduler has looked at it.
    pub waits: Vec<WaitsFor>,
}

/// What a pending job waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitsFor {
    /// Licences: of job mode all wait for the gate's.
    Licenses,
    /// Its turn, behind jobs of a higher priority.
    Turn,
    /// Nodes that are free. So it is also told when many of its partition are away, whatever
    /// else keeps it: of nodes in job mode most are, at times.
    Nodes,
    /// Nodes that it named itself, which are down or reserved.
    NamedNodes,
    /// What is left of its last run: a prolog or an epilog that has not ended.
    Cleaning,
    /// A time: one that its user chose, or Slurm's pause after its node failed.
    BeginTime,
    /// Its release, after a hold that was an administrator's or came with a requeue, as ours does.
    Release,
    /// Something of Slurm's that is nothing to us: a limit, a dependency, its user's hold.
    Other,
    /// A word of Slurm's that we do not know.
    Unknown(String),
}

impl JobReason {
    /// A job that waits for this one thing.
    #[must_use]
    pub fn new(text: impl Into<String>, waits: WaitsFor) -> Self {
        Self {
            text: text.into(),
            waits: vec![waits],
        }
    }

    /// Whether it waits for this, among others perhaps.
    #[must_use]
    pub fn has(&self, what: &WaitsFor) -> bool {
        self.waits.contains(what)
    }
}

impl fmt::Display for JobReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a node is in its state. Slurm keeps the reason of a state that is over, and puts its own
/// behind it (23.02 and later): the last says why the node is as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReason {
    /// In the words of those who gave it, for people.
    pub text: String,
    /// Who spoke last: that is what counts.
    pub whose: Whose,
}

/// Whose word a node's reason is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Ours: it begins with `thiao:`.
    Ours,
    /// Slurm's: the node was not up within ResumeTimeout. Nobody's verdict on a machine: it is
    /// about the VM that we were asked for.
    ResumeTimeout,
    /// Slurm's: its slurmd does not answer.
    Silence,
    /// Slurm's, of what went wrong in the VM that the node had, such as a disk that is full: the next one is clean.
    ItsVm,
    /// Other people's, or another of Slurm's.
    Others,
}

impl NodeReason {
    /// A reason as we gave it.
    #[must_use]
    pub fn ours(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            whose: Whose::Ours,
        }
    }
}

impl fmt::Display for NodeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
