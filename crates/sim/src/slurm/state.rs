//! What slurmctld keeps of nodes and jobs, and how it is set.

use super::release::Release;
use std::collections::BTreeMap;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId};
use thiao_core::view::{Alloc, ArrayTasks, Gate, NodeReason};
use thiao_core::world::Mode;

/// The partition of job mode.
pub const JOB_MODE_PARTITION: &str = "jobs";

/// CPUs of a node of job mode: the most that a VM can have.
pub const JOB_MODE_CPUS: u32 = 4;

/// The settings of `slurm.conf` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whose ways it goes.
    pub release: Release,
    /// How long a node may take from the resume until it registers.
    pub resume_timeout: Millis,
    /// How long a node is idle before it is powered down.
    pub suspend_time: Millis,
    /// How long powering down is given.
    pub suspend_timeout: Millis,
    /// The pause of a requeued job.
    pub requeue_pause: Millis,
    /// The longest wait between the last registration and the job's start.
    pub sweep: Millis,
    /// The longest time from when a job gets a node that is powered down until that is asked for
    /// (power saving looks once a second).
    pub asks_after: Millis,
    /// Whether a node that registers while powered down is taken as up (22.05 does).
    pub takes_unasked: bool,
    /// `idle_on_node_suspend`: a node that was powered down is not DOWN any more.
    pub idle_on_suspend: bool,
    /// Whether giving a node back calls SuspendProgram for it once more.
    pub suspends_returned: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            release: Release::OLDEST,
            resume_timeout: Millis::secs(60),
            suspend_time: Millis::secs(10),
            suspend_timeout: Millis::secs(5),
            requeue_pause: Millis::secs(120),
            sweep: Millis::secs(30),
            asks_after: Millis(0),
            takes_unasked: true,
            idle_on_suspend: false,
            suspends_returned: false,
        }
    }
}

/// A node's power, as power saving sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// `~`: it is off.
    Off,
    /// `#`: it comes up since then.
    Rising(Time),
    /// Its slurmd has registered.
    On,
    /// `%`: it goes down since then.
    Falling(Time),
}

/// A node as it truly is in slurmctld.
#[derive(Debug, Clone)]
pub struct Node {
    /// For whom its VMs are made.
    pub mode: Mode,
    /// `POWER_DOWN` was asked: powered down as soon as it has no job, and no other's meanwhile.
    pub ends: bool,
    /// Whether it is DOWN.
    pub down: bool,
    /// What was said of it last, of a DOWN or a drain.
    pub reason: Option<NodeReason>,
    /// When an admin last set it DOWN.
    pub admin_down: Time,
    pub power: Power,
    /// Whether it is drained.
    pub drain: bool,
    /// When an admin last drained it.
    pub admin_drained: Time,
    /// The job that has it.
    pub job: Option<JobId>,
    /// When it is asked for, which that job waits for.
    pub(super) asks_at: Option<Time>,
    /// The VM whose slurmd registered last.
    pub backed: Option<VmId>,
    /// Not in any observation before: somebody edits `slurm.conf`.
    pub unknown_until: Time,
    /// In no partition before.
    pub outside_until: Time,
    /// Shown as `COMPLETING` until then.
    pub(super) completing_until: Time,
    /// Shown as `NOT_RESPONDING` until then.
    pub(super) silent_until: Time,
    pub(super) idle_since: Time,
    /// When its DOWN is undone, if it is.
    pub(super) undone: Option<Time>,
}

/// A job as it truly is in slurmctld.
#[derive(Debug, Clone)]
pub struct Job {
    /// How many nodes it wants.
    pub size: usize,
    /// How long it runs.
    pub length: Millis,
    pub stage: Stage,
    /// What it has beside in job mode; none in power-saving mode.
    pub job_mode: Option<JobMode>,
    /// Where it may go in power-saving mode.
    pub site: Site,
    pub(super) submit: Time,
    /// When it got its nodes, or started on them.
    pub(super) start: Option<Time>,
}

/// Where a job in power-saving mode may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// To nodes of its own mode, or it is kept from the others.
    Apart,
    /// Its partition has the nodes of job mode, too, and nobody keeps it from them.
    Anywhere,
    /// The same, and it is held: turning it away was cut short. With the reason.
    Held(String),
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Waits; not before that time, if given (`BeginTime`).
    Pending(Option<Time>),
    /// Has nodes; starts at that time at the latest, once all are up.
    Configuring(Vec<NodeName>, Option<Time>),
    /// Runs on these since then.
    Running(Vec<NodeName>, Time),
    Done,
}

/// A call of one of our hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub hook: Hook,
    pub nodes: Vec<NodeName>,
    /// The jobs in `SLURM_RESUME_FILE`, by node.
    pub jobs: BTreeMap<NodeName, Vec<JobId>>,
}

/// The hooks that carry orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Resume,
    Suspend,
    ResumeFail,
    /// EpilogSlurmctld of a job of job mode.
    JobEnded {
        job: JobId,
        failed: bool,
    },
}

/// The prolog of a job that has its nodes.
#[derive(Debug, Clone, Copy)]
pub struct Prolog {
    /// When it began to ask.
    pub since: Time,
    pub(super) answer: Option<bool>,
}

impl Prolog {
    pub(super) fn new(since: Time) -> Self {
        Self { since, answer: None }
    }

    /// Whether it has heard its answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answer.is_some()
    }
}

/// What a job has beside in job mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMode {
    /// What it gets of each of its nodes.
    pub each: Alloc,
    /// The most nodes of the range that it asked for; what is not above its size is none.
    pub most: usize,
    /// The highest is served first.
    pub priority: u64,
    /// Whether it can go back into the queue.
    pub requeue: bool,
    /// The tasks that this record stands for, of an array.
    pub array: Option<ArrayTasks>,
    /// Whether it waits to be admitted.
    pub gate: Gate,
    /// Held by an admin.
    pub held: bool,
    /// What its `AdminComment` says.
    pub comment: Option<String>,
}

impl JobMode {
    /// A job of this size that was just submitted.
    #[must_use]
    pub fn new(each: Alloc, priority: u64) -> Self {
        Self {
            each,
            most: 0,
            priority,
            requeue: true,
            array: None,
            gate: Gate::Waits,
            held: false,
            comment: None,
        }
    }

    pub(super) fn may_start(&self) -> bool {
        self.gate == Gate::Open && !self.held
    }
}
