//! How a job ended, as far as its user can do something about it.

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// It ended by itself, and nothing was wrong.
    Completed,
    /// By its user or an administrator.
    Cancelled,
    /// It used more memory than it asked for.
    OutOfMemory,
    /// Its time limit or deadline was over.
    TimeLimit,
    /// A node of it failed, or did not come up.
    NodeFailed,
    /// Slurm made place for a job of a higher priority.
    Preempted,
    /// slurmd could not start it on its node.
    NotLaunched,
    /// By itself, with this exit code.
    Failed(u32),
    /// A signal ended it.
    Killed(u32),
    /// In a word that we do not know.
    Unknown(String),
}

/// The signal that the kernel sends where memory lacks.
const SIGKILL: u32 = 9;

impl JobEnd {
    /// What ended it and what to do, for people; none where that needs no words.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        Some(match self {
            JobEnd::Completed | JobEnd::Cancelled => return None,
            JobEnd::OutOfMemory => {
                "it was ended because it used more memory than it had asked for (OUT_OF_MEMORY): submit it again with \
                 more, as by --mem"
                    .to_owned()
            }
            JobEnd::TimeLimit => "its time limit was over: submit it again with a longer one (--time)".to_owned(),
            JobEnd::NodeFailed => {
                "a node of it failed under it: what became of the node's VM, the events of that say".to_owned()
            }
            JobEnd::Preempted => "Slurm ended it to make place for a job of a higher priority".to_owned(),
            JobEnd::NotLaunched => {
                "slurmd could not start it in its VM (JobLaunchFailure): so it is when the guest does not know the \
                 job's user or cannot enter its working directory, or when its memory or its disk is full"
                    .to_owned()
            }
            JobEnd::Failed(code) => format!("it ended with exit code {code}: its output says more"),
            JobEnd::Killed(SIGKILL) => {
                "it was ended by signal 9: if nobody sent that, it may have used more memory than its VM has (--mem)"
                    .to_owned()
            }
            JobEnd::Killed(signal) => format!("it was ended by signal {signal}: its output says more"),
            JobEnd::Unknown(word) => format!("Slurm ended it ({word})"),
        })
    }
}
