//! A log as it was read, before anybody says for which hosts.

use super::odd::Odd;

/// No time in a log is longer than this, in seconds: 3,000 years. What is longer is malformed.
pub const LONGEST: u64 = 100_000_000_000;

/// What a log is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Standard Workload Format.
    Swf,
    /// The schedule of a simulator, in the Standard Workload Format.
    Published,
    /// Job sets of simulations: needs as parts of a node.
    JobSet,
    /// What `sacct --parsable2` says.
    Sacct,
}

impl Format {
    /// What people call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Swf => "Standard Workload Format",
            Self::Published => "published schedule",
            Self::JobSet => "job set",
            Self::Sacct => "sacct",
        }
    }
}

/// What is said at the head of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// What machine it was.
    pub computer: Option<String>,
    /// Where that machine stood.
    pub installation: Option<String>,
    /// Whom the archive thanks for it.
    pub acknowledge: Option<String>,
    /// How many nodes it has.
    pub nodes: Option<u32>,
    /// How many processors all of them have.
    pub processors: Option<u32>,
    /// When the log begins, in seconds since 1970.
    pub begins: Option<i64>,
}

/// What a job needs, in the words of its log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Need {
    /// Processors of some machine.
    Processors(Processors),
    /// Tasks, and the parts of a node that each needs.
    Fractions {
        /// How many tasks; at least 1.
        tasks: u32,
        /// The part of a node's CPU, over 0, at most 1.
        cpu: f64,
        /// The part of a node's memory, over 0, at most 1.
        memory: f64,
    },
}

/// Processors that a job had; 0 where something is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processors {
    /// How many it asked for.
    pub asked: u32,
    /// How many it got.
    pub got: u32,
    /// On how many nodes.
    pub nodes: u32,
    /// The memory that it asked for, in KiB, over all its processors.
    pub memory_asked: u64,
    /// The memory that it used, or was given, likewise.
    pub memory_got: u64,
}

impl Processors {
    /// How many count: the more of both, as published simulations have it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.asked.max(self.got)
    }
}

/// A job of a log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Its number in the log; some logs have one twice.
    pub id: u64,
    /// When it was submitted, in seconds since the log begins.
    pub submit: u64,
    /// How long it really waited, in seconds.
    pub wait: Option<u64>,
    /// How long it ran, in seconds; at least 1.
    pub run: u64,
    /// What its user asked for, in seconds; at least `run`.
    pub limit: u64,
    /// What it needs, in the log's own words.
    pub need: Need,
    /// Whose it is: see [`Log::user`].
    pub user: u32,
    /// The queue or partition that it was in: see [`Log::partition`].
    pub partition: u32,
    /// How much of its CPU it can use, in thousandths.
    pub efficiency: u16,
}

/// Jobs that belong together. A job set holds several of these, other logs one.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// The jobs, by submission, then by number.
    pub jobs: Vec<Record>,
}

/// A log as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// What the file is called, without what its name ends in.
    pub name: String,
    /// What it is written in.
    pub format: Format,
    /// What is said at its head.
    pub header: Header,
    /// The jobs; never none.
    pub traces: Vec<Trace>,
    /// What was odd about it, so far.
    pub odd: Odd,
    pub(super) users: Vec<String>,
    pub(super) partitions: Vec<String>,
}

impl Log {
    /// How many jobs were read.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.traces.iter().map(|trace| trace.jobs.len()).sum()
    }

    /// What a user is called: a digest, unless names were to be kept, or the number that the log has.
    #[must_use]
    pub fn user(&self, number: u32) -> String {
        name_in(&self.users, number)
    }

    /// What a partition or queue is called, likewise.
    #[must_use]
    pub fn partition(&self, number: u32) -> String {
        name_in(&self.partitions, number)
    }
}

fn name_in(names: &[String], number: u32) -> String {
    names
        .get(number as usize)
        .cloned()
        .unwrap_or_else(|| number.to_string())
}
