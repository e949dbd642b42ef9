//! What the owner and its helpers tell each other.

use crate::provider::{Prepared, ProviderError};
use std::time::Duration;
use thiao_core::event::Event;
use thiao_core::fold::Outcome;
use thiao_core::ids::{Time, VmTag};
use thiao_core::plan::Action;
use thiao_core::view::{ProviderView, SlurmView, VmNews};
use thiao_core::vm::Cause;
use thiao_slurm::ends::Ended;

/// Actions that ended, with their keys and what came of each.
pub type Finished = Vec<(i64, Action, Outcome)>;

/// What reaches the owner from its helpers.
#[derive(Debug)]
pub enum Message {
    /// An observation of Slurm that began then.
    Slurm(Time, Result<SlurmView, String>),
    /// An observation of the provider that began then.
    Provider(Time, Result<ProviderView, String>),
    /// What is new of single VMs; at least one.
    News(Vec<VmNews>),
    /// Calls that have ended, and how.
    Finished(Finished),
    /// How jobs ended that Slurm was asked about; none if it did not say.
    JobsEnded(Vec<Ended>),
    /// What a VM wrote on its console, which is ended now, and why it is.
    LastWords(VmTag, Cause, String),
    /// How long Slurm's scheduler takes to look at every job.
    SchedulingPass(Duration),
    /// The guest of this VM did not answer when it was told whose job comes.
    Unheard(VmTag),
    /// Something that people should know.
    Event(Event),
    /// The provider says what it prepares.
    Progress(String),
    /// The provider is ready to make VMs, or why not.
    Prepared(Result<Prepared, ProviderError>),
}

/// How often to observe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is under way.
    Calm,
    /// Nodes or VMs come up or go.
    Busy,
    /// A node registers with Slurm at any moment.
    Urgent,
}
