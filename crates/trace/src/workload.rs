//! Jobs of a log, made ready for the simulator, whatever they were read from.

use thiao_share::Host;

/// A job as a log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceJob {
    /// Its number in the log.
    pub id: u64,
    /// When it was submitted, in seconds since the log begins.
    pub submit: u64,
    /// How long it ran, in seconds.
    pub run: u64,
    /// How many tasks it has.
    pub tasks: u32,
    /// The CPU of each, in the unit of [`Workload::host`].
    pub cpu: u32,
    /// The memory of each, in the unit of [`Workload::host`].
    pub memory: u32,
    /// What its user asked for, in seconds; never less than `run`.
    pub limit: u64,
    /// Whose it is: any number that is the same for the same user.
    pub user: u32,
}

/// Jobs, and the cluster that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it is called in tables.
    pub name: String,
    /// How many hosts there are.
    pub hosts: u32,
    /// What each of them has: the unit of the jobs' needs.
    pub host: Host,
    /// The jobs, by submission, then by their order in the log.
    pub jobs: Vec<TraceJob>,
}
