//! What states are called, and what is left out when two worlds are compared.
//!
//! An observation now and then sees each state that lasts. Left out is what may be missed, or
//! what no decision hangs on:
//!
//! | left out | why |
//! |---|---|
//! | `CLOUD` | every node has it |
//! | `NOT_RESPONDING` | when slurmctld notices a silence depends on its pings |
//! | `COMPLETING`, of nodes and jobs | may last some milliseconds, or seconds |
//! | `ALLOCATED+POWERED_DOWN` | ends in the next pass of slurmctld's power saving: 6 ms to 1 s |
//! | `POWER_DOWN` of a node without a job, but for one that powers up | the same |
//! | the reasons of jobs | `None` until a scheduler looked, which may be never |
//! | reasons of nodes that are not DOWN | our own texts of power-downs |
//! | `EpilogSlurmctld` in power-saving mode | it is for job mode alone |
//! | `EpilogSlurmctld` of a job cancelled while it configures | slurmctld kills its scripts, and may kill this one, too |
//!
//! What lies between two states for certain, and may last no longer than from one observation to
//! the next, is filled in: a job's `PENDING` before `CONFIGURING`, and that before
//! `RUNNING`; a node's `IDLE+POWERED_DOWN` between `POWERING_DOWN` and `POWERING_UP`.

use std::fmt;
use std::str::FromStr;
use thiao_core::view::{BaseState, Gate, JobState, SlurmJob, SlurmNode};

/// A node's state in Slurm's words: the base state, then flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWord(String);

/// The flags that are told, in their order.
const FLAGS: [&str; 5] = [
    "DRAIN",
    "POWERED_DOWN",
    "POWERING_UP",
    "POWERING_DOWN",
    "POWER_DOWN",
];

impl NodeWord {
    /// What a node was between `before` and now, for however short a time.
    pub(super) fn between(&self, before: &str) -> Option<Self> {
        let off = before.contains("+POWERING_DOWN") && self.0.contains("+POWERING_UP");
        off.then(|| Self("IDLE+POWERED_DOWN".into()))
    }

    /// The word for what an observation shows; none if it is left out.
    #[must_use]
    pub fn of(node: &SlurmNode) -> Option<Self> {
        let flags = &node.flags;
        let base = match &node.base {
            BaseState::Idle => "IDLE",
            BaseState::Allocated => "ALLOCATED",
            BaseState::Mixed => "MIXED",
            BaseState::Down => "DOWN",
            BaseState::Error => "ERROR",
            BaseState::Future => "FUTURE",
            BaseState::Unknown(word) => word,
        };
        let has_job = matches!(node.base, BaseState::Allocated | BaseState::Mixed);
        let short = if has_job {
            flags.powered_down
        } else {
            flags.power_down && !flags.powering_up
        };
        if short || flags.completing {
            return None;
        }
        let mut text = base.to_owned();
        let set = [
            flags.drain,
            flags.powered_down,
            flags.powering_up,
            flags.powering_down,
            flags.power_down,
        ];
        for (flag, _) in FLAGS.iter().zip(set).filter(|(_, set)| *set) {
            text.push('+');
            text.push_str(flag);
        }
        if flags.unknown {
            text.push_str("+?");
        }
        Some(Self(text))
    }
}

impl FromStr for NodeWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split('+');
        let base = words.next().unwrap_or_default();
        let mut flags = FLAGS.iter();
        // Each behind the one before: so there is one way to write a state.
        let known = words.all(|word| flags.any(|flag| *flag == word));
        if known && matches!(base, "IDLE" | "ALLOCATED" | "MIXED" | "DOWN") {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("\"{text}\" is no state of a node"))
        }
    }
}

impl fmt::Display for NodeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job's state in Slurm's words, and whether a pending one waits at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobWord {
    Pending,
    /// `PENDING+GATE`: it waits to be admitted.
    Waits,
    Configuring,
    Running,
    /// `over`: Slurm does not list it any more.
    Over,
    /// Any other state that we know; in no scenario.
    Other,
}

impl JobWord {
    const ALL: [(Self, &str); 6] = [
        (Self::Pending, "PENDING"),
        (Self::Waits, "PENDING+GATE"),
        (Self::Configuring, "CONFIGURING"),
        (Self::Running, "RUNNING"),
        (Self::Over, "over"),
        (Self::Other, "?"),
    ];

    /// What each job is before, for however short a time.
    pub(super) fn before(self) -> Option<Self> {
        match self {
            Self::Configuring => Some(Self::Pending),
            Self::Running => Some(Self::Configuring),
            Self::Pending | Self::Waits | Self::Over | Self::Other => None,
        }
    }

    /// The word for what an observation shows; none if it is left out.
    #[must_use]
    pub fn of(job: &SlurmJob) -> Option<Self> {
        match (&job.state, job.gate) {
            (JobState::Pending, Gate::Open) => Some(Self::Pending),
            (JobState::Pending, Gate::Waits) => Some(Self::Waits),
            (JobState::Configuring, _) => Some(Self::Configuring),
            (JobState::Running, _) => Some(Self::Running),
            (JobState::Completing, _) => None,
            (JobState::Over(_), _) => Some(Self::Over),
            (JobState::Suspended | JobState::Unknown(_), _) => Some(Self::Other),
        }
    }
}

impl FromStr for JobWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|(_, word)| *word == text && *word != "?");
        known
            .map(|(word, _)| word)
            .ok_or_else(|| format!("\"{text}\" is no state of a job"))
    }
}

impl fmt::Display for JobWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.into_iter().find(|(word, _)| word == self);
        f.write_str(word.map_or("?", |(_, text)| text))
    }
}
