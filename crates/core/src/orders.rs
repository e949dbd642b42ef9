//! Orders, and what one to take a node's VM away is worth: something only while Slurm's state agrees.
//!
//! An order is remembered; what Slurm shows is now. A journal may be older than the world (a
//! database restored from a backup), a hook may come late, and Slurm may have given the node to a
//! job since. So the newer of the two holds, and in doubt the VM stays: what is lost is time.

use crate::evidence::may_have_registered;
use crate::ids::{JobId, Millis, NodeName, Time};
use crate::view::{BaseState, JobState, JobsOn, Power, SlurmJob, SlurmView};
use crate::world::World;
use std::collections::BTreeMap;

/// An order about nodes, already taken from its durable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Back these nodes with VMs.
    Up {
        /// Also when the node waits after failures: its back-off and the breaker are cleared.
        force: bool,
        /// The jobs for which each was asked.
        jobs: BTreeMap<NodeName, Vec<JobId>>,
    },
    /// Take their VMs away.
    Down,
    /// Slurm gave up on resuming them: the same as `Down`, told otherwise.
    ResumeFailed,
    /// A job that was on them is over.
    JobEnded { job: JobId, failed: bool },
}

/// Slurm tells when a job started in whole seconds: it may have been as much later.
const TOLD_IN: Millis = Millis::secs(1);

/// What Slurm shows that is newer than an order, or cannot be told from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newer {
    /// Slurm has powered the node up since.
    PoweredUp,
    /// A job that started since is there.
    Job(JobId),
    /// The node is given to a job that the observation does not show.
    InUse,
}

impl Newer {
    /// A sentence for people.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Newer::PoweredUp => "Slurm has powered the node up since".into(),
            Newer::Job(job) => format!("job {job} is there and is newer than that"),
            Newer::InUse => "Slurm shows the node in use, but not by which job".into(),
        }
    }
}

/// What Slurm shows that speaks against ending `node`'s VM by an order that was given at `since`.
#[must_use]
pub fn newer_than_order(world: &World, jobs: &JobsOn<'_>, node: &NodeName, since: Time) -> Option<Newer> {
    let up_since = world.powers.get(node).filter(|(power, _)| *power == Power::Up);
    match up_since {
        Some((_, at)) if *at > since => Some(Newer::PoweredUp),
        Some(_) | None => newer_use(world, jobs, node, since),
    }
}

/// The same of a VM whose end has begun at `since`: that is not stopped for a node that only
/// comes up again.
#[must_use]
pub fn newer_use(world: &World, jobs: &JobsOn<'_>, node: &NodeName, since: Time) -> Option<Newer> {
    let slurm = world.slurm.as_ref()?;
    let on = jobs.get(node);
    let started_before = |job: &SlurmJob| job.start.is_some_and(|start| start + TOLD_IN <= since);
    let newer = on
        .iter()
        .find(|job| uses(slurm, job, node) && !started_before(job));
    match newer {
        Some(job) => Some(Newer::Job(job.id)),
        None => {
            let later = world.slurm_began > since;
            (later && on.is_empty() && is_taken(slurm, node)).then_some(Newer::InUse)
        }
    }
}

/// Whether a job may have processes on `node`.
fn uses(slurm: &SlurmView, job: &SlurmJob, node: &NodeName) -> bool {
    match job.state {
        JobState::Running | JobState::Suspended | JobState::Completing | JobState::Unknown(_) => true,
        // It starts when the node has registered.
        JobState::Configuring => may_have_registered(slurm, node),
        JobState::Pending | JobState::Over(_) => false,
    }
}

/// Whether Slurm shows `node` up and given to a job: listed a moment apart, that may be missing.
fn is_taken(slurm: &SlurmView, node: &NodeName) -> bool {
    slurm.nodes.get(node).is_some_and(|seen| match seen.base {
        BaseState::Allocated | BaseState::Mixed | BaseState::Unknown(_) => {
            let f = &seen.flags;
            !(f.powered_down || f.powering_up || f.powering_down)
        }
        BaseState::Idle | BaseState::Down | BaseState::Error | BaseState::Future => false,
    })
}
