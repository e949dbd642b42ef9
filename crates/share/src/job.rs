//! Jobs and hosts, as the planner sees them: numbers alone.

/// Milliseconds: a moment since some beginning, or a span.
pub type Ms = u64;

/// A job's index. Whoever folds events chooses it; it may be used again once the job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

impl JobId {
    /// As an index of a table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host's index in the list that the planner was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

impl HostId {
    /// As an index of a table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a host has. The unit of CPU and that of memory are the caller's choice, the same for all hosts and jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// CPU: at any time its jobs have no more of it than this.
    pub cpu: u32,
    /// Memory: never promised twice.
    pub memory: u32,
}

/// What Slurm knows of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// When it was submitted.
    pub submit: Ms,
    /// How many tasks it has: at least 1.
    pub tasks: u32,
    /// The CPU that each task can use: at least 1.
    pub cpu: u32,
    /// The memory that each task holds.
    pub memory: u32,
    /// Its time limit, or what else is believed of its run time.
    pub limit: Ms,
    /// Slurm's priority; the higher, the earlier within a level.
    pub priority: u32,
    /// Whether it may be paused and saved.
    pub pausable: bool,
    /// Whether it may be moved while it runs. A job that was saved is restored wherever there is room.
    pub movable: bool,
}

impl Job {
    /// The CPU that all its tasks can use.
    #[must_use]
    pub fn demand(&self) -> u64 {
        u64::from(self.tasks) * u64::from(self.cpu)
    }
}

/// Some of a job's tasks on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The host that they are on.
    pub host: HostId,
    /// How many of the tasks.
    pub tasks: u32,
}
