//! What the last observations say, and what not: what the planner and the linter both ask about a world.
//!
//! Here is only what counts as evidence. What to do by it the planner decides, and whether that may ever be done
//! the linter says; of each other's judgement they share nothing.

use crate::ids::{JobId, NodeName, Time, VmId};
use crate::options::put_back_reason;
use crate::view::{
    BaseState, JobState, JobsOn, NodeReason, SlurmJob, SlurmNode, SlurmView, VmState, VmView, WaitsFor,
};
use crate::vm::{Life, VmRecord};
use crate::world::{Desired, World};

/// Whether a VM that backs nothing can be nobody's: its node has had a later
/// VM, or was up with another one when this one was first seen, or it is the
/// second of two with one tag and has never run.
#[must_use]
pub fn is_superseded(world: &World, seen: &VmView) -> bool {
    let Some(tag) = &seen.tag else { return false };
    let Some(record) = world.records.get(&tag.node) else {
        return false;
    };
    let first_seen = world.strays.get(&seen.id);
    // That somebody's copy has a later number says nothing of a VM that no record has had.
    let has_had_later = record.generation > tag.generation && !world.unrecorded.contains_key(&seen.id);
    match &record.vm {
        Some(vm) if vm.generation == tag.generation => {
            seen.state == VmState::Held && !vm.life.is_unconfirmed() && !vm.is(tag.generation, Some(&seen.id))
        }
        // It was found, not made by us as far as is known: either may be the one that is used.
        Some(vm) if vm.spec.is_none() && seen.state.may_run() => false,
        Some(vm) if vm.is_up() && first_seen.is_some_and(|first| vm.since <= *first) => {
            // Else the record may be older than the world, and this VM the one that is used.
            vm.missing_since.is_none()
        }
        // A later number may only have been seen, by a controller that was ended since.
        Some(_) | None => {
            let slurm = world.slurm.as_ref();
            let unused = || slurm.is_some_and(|slurm| !may_have_registered(slurm, &tag.node));
            has_had_later && (!seen.state.may_run() || unused())
        }
    }
}

/// Whether Slurm may have considered `node` up since it was asked for: false only
/// if the observation surely says that it still waits for it, does not count on it, or does not have it.
#[must_use]
pub fn may_have_registered(slurm: &SlurmView, node: &NodeName) -> bool {
    let Some(seen) = slurm.nodes.get(node) else {
        return !slurm.gone.contains(node);
    };
    let f = &seen.flags;
    let waits = f.powering_up || f.powering_down || f.powered_down;
    !(waits || seen.base == BaseState::Down)
}

/// Whether `node`'s VM is left from before Slurm's request for it, by a whole observation that began after
/// that: it was up then and was powered down; or, in job mode, it was found, and may be an earlier
/// job's. Slurm waits for a slurmd that starts later than it asked (22.05.8), which that of the first
/// never does, and that of the second must not: its job would wait until ResumeTimeout, or run in
/// another's VM. It runs nothing there.
#[must_use]
pub fn is_left_behind(world: &World, node: &NodeName) -> bool {
    let record = world.records.get(node);
    let left = record.is_some_and(|record| match (&record.vm, record.desired) {
        (Some(vm), Desired::Up { since }) => {
            let found = world.is_of_unknown_job(node) && vm.is_starting();
            let before = vm.is_up() && vm.since < since;
            (found || before) && since < world.slurm_began
        }
        (_, Desired::Early { .. } | Desired::Up { .. } | Desired::Down { .. } | Desired::Unasked) => false,
    });
    left && world.slurm.as_ref().is_some_and(|slurm| {
        let seen = slurm.nodes.get(node);
        seen.is_some_and(|seen| seen.flags.powering_up) && !may_have_registered(slurm, node)
    })
}

/// When Slurm had asked for `node` at the latest, by its own word; none while it has not. slurmctld
/// (22.05 to 26.05: `waiting_for_node_boot`) does not hear a slurmd that seems to have started
/// before that, whole seconds, until ResumeTimeout. A node that Slurm neither waits for nor is
/// about to ask for has nothing to wait for.
#[must_use]
pub fn asked_by_slurm(world: &World, node: &NodeName) -> Option<Time> {
    match world.records.get(node)?.desired {
        Desired::Up { since } => Some(since),
        Desired::Early { .. } | Desired::Down { .. } => None,
        Desired::Unasked => {
            let seen = world.slurm.as_ref()?.nodes.get(node);
            seen.is_none_or(|seen| !seen.is_off()).then_some(world.now)
        }
    }
}

/// Whether a VM that is taken for lost, or ended as such, is shown alive after all. `shown` says what
/// the provider shows by an id.
#[must_use]
pub fn is_shown_again<'a>(vm: &VmRecord, shown: impl FnOnce(&VmId) -> Option<&'a VmView>) -> bool {
    let seen = vm.id.as_ref().filter(|_| vm.is_lost()).and_then(shown);
    seen.is_some_and(|seen| seen.state.may_run())
}

/// Whether a VM that is taken for lost is of a node that Slurm's observation does not show either: nothing is known.
#[must_use]
pub fn is_in_doubt(slurm: &SlurmView, node: &NodeName, vm: &VmRecord) -> bool {
    vm.is_lost() && !slurm.nodes.contains_key(node) && may_have_registered(slurm, node)
}

/// Whether Slurm's whole observation says that no job can be on `node`'s VM: no job names the node, and
/// Slurm surely does not have it, or has it powered down. That an observation does not show it says nothing.
#[must_use]
pub fn surely_unused(slurm: &SlurmView, node: &NodeName, jobs: &JobsOn<'_>) -> bool {
    let off = match slurm.nodes.get(node) {
        None => slurm.gone.contains(node),
        Some(seen) => {
            let off = seen.flags.powered_down || seen.base == BaseState::Down;
            off && !seen.flags.powering_up && !seen.may_run_job()
        }
    };
    off && jobs.get(node).is_empty()
}

/// Whether `node` is up in power-saving mode with a VM that surely has no job and that nobody has asked for since:
/// all that it waits for is Slurm's SuspendTime.
#[must_use]
pub fn is_spare(world: &World, node: &NodeName, jobs: &JobsOn<'_>) -> bool {
    let seen = world.slurm.as_ref().and_then(|slurm| slurm.nodes.get(node));
    let Some(record) = world.records.get(node) else {
        return false;
    };
    let asked_since = match record.desired {
        Desired::Unasked => false,
        Desired::Up { since } => since >= world.slurm_began,
        Desired::Early { .. } | Desired::Down { .. } => true,
    };
    let settled = record.acted < world.slurm_began && record.down.is_none() && !asked_since;
    let vm = record.vm.as_ref();
    let idle = vm.is_some_and(|vm| vm.life == Life::Running && vm.is_up() && vm.kept.is_none());
    let idle = idle && seen.is_some_and(SlurmNode::is_idle) && jobs.get(node).is_empty();
    idle && settled && !world.is_job_mode(node)
}

/// Why Slurm itself has drained `node`, if that was about the VM that it had, and that has surely ended.
#[must_use]
pub fn outlived_drain<'a>(world: &'a World, node: &NodeName, jobs: &JobsOn<'_>) -> Option<&'a NodeReason> {
    let record = world.records.get(node)?;
    let bare = record.vm.is_none() && record.down.is_none() && record.acted < world.slurm_began;
    let free = bare && jobs.get(node).is_empty() && !world.drained.contains(node);
    let seen = world.slurm.as_ref()?.nodes.get(node).filter(|_| free)?;
    seen.drain_of_its_vm()
}

/// Whether a job waits for our VMs, or has their nodes and has not started, and its user is none whom the guests
/// know. One that is held already is left to who may release it.
#[must_use]
pub fn stranger(world: &World, job: &SlurmJob) -> bool {
    let unknown = world
        .guests_know
        .as_ref()
        .is_some_and(|known| !known.contains(&job.uid));
    unknown
        && match &job.state {
            JobState::Pending => {
                world.job_partitions.contains_key(&job.partition) && !job.reason.has(&WaitsFor::Release)
            }
            JobState::Configuring => job.nodes.iter().any(|node| world.specs.contains_key(node)),
            JobState::Running
            | JobState::Suspended
            | JobState::Completing
            | JobState::Over(_)
            | JobState::Unknown(_) => false,
        }
}

impl World {
    /// A node of this job whose VM was made for another one: Slurm gave it on before it knew
    /// that the node ends with its job. This job must not start there.
    #[must_use]
    pub fn others_vm<'a>(&self, job: &'a SlurmJob) -> Option<(&'a NodeName, JobId)> {
        let made_for = |node| self.records.get(node)?.vm.as_ref()?.spec.as_ref()?.job;
        let mut with = job.nodes.iter().filter_map(|node| Some((node, made_for(node)?)));
        with.find(|(_, other)| *other != job.id)
    }

    /// A node of this job that it got after the node's VM was found, of which the job is not known: it is an
    /// earlier one's. Slurm tells a start in whole seconds, never too late.
    #[must_use]
    pub fn was_found_before<'a>(&self, job: &'a SlurmJob) -> Option<&'a NodeName> {
        let start = job.start?;
        let found = |node: &NodeName| self.records.get(node)?.vm.as_ref().map(|vm| vm.asked);
        let mut nodes = job.nodes.iter().filter(|node| self.is_of_unknown_job(node));
        nodes.find(|node| found(node).is_some_and(|found| found < start))
    }

    /// Whether this node's VM was found, in job mode: for which job it was made is not known.
    #[must_use]
    pub fn is_of_unknown_job(&self, node: &NodeName) -> bool {
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        self.is_job_mode(node) && vm.is_some_and(|vm| vm.spec.is_none())
    }

    /// The nodes of job mode that Slurm has given to a job that is in no partition of that mode:
    /// a site's own partition has them, too. No VM is made for it there.
    #[must_use]
    pub fn out_of_place<'a>(&self, job: &'a SlurmJob) -> Vec<&'a NodeName> {
        if self.job_partitions.contains_key(&job.partition) {
            return Vec::new();
        }
        job.nodes.iter().filter(|node| self.is_job_mode(node)).collect()
    }

    /// Why a job of another partition is held, if it was being turned away from nodes of job mode and that was
    /// cut short.
    #[must_use]
    pub fn half_away<'a>(&self, job: &'a SlurmJob) -> Option<&'a str> {
        let ours = self.job_partitions.contains_key(&job.partition);
        let held = job.state == JobState::Pending && job.reason.has(&WaitsFor::Release);
        let comment = job.admin_comment.as_deref().filter(|_| held && !ours)?;
        put_back_reason(comment)
    }

    /// Whether Slurm counts on `node`, which is up with a VM, and does not hear its slurmd.
    #[must_use]
    pub fn is_silent(&self, node: &NodeName) -> bool {
        let seen = self.slurm.as_ref().and_then(|slurm| slurm.nodes.get(node));
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        vm.is_some_and(VmRecord::is_up)
            && seen.is_some_and(|seen| seen.is_counted_on() && seen.flags.not_responding)
    }

    /// How `node`'s VM is, in one word, for people and programs.
    #[must_use]
    pub fn word_of(&self, node: &NodeName, vm: &VmRecord) -> &'static str {
        match vm.life == Life::Running && self.is_silent(node) {
            true => "silent",
            false => vm.word(),
        }
    }

    /// Whether the guest of the VM that backs `node` did not answer when it was told whose job comes.
    #[must_use]
    pub fn is_unheard(&self, node: &NodeName) -> bool {
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        vm.is_some_and(|vm| self.unheard.get(node) == Some(&vm.generation))
    }

    /// Whether Slurm has considered `node` up for long though no VM backs it: a job there hangs.
    #[must_use]
    pub fn is_unbacked(&self, node: &NodeName) -> bool {
        let Some(since) = self.unbacked.get(node) else {
            return false;
        };
        let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
        let grace = match vm.is_some_and(VmRecord::is_up) {
            true => self.policy.silence_grace,
            false => self.policy.missing_grace,
        };
        let seen = self.slurm.as_ref().and_then(|slurm| slurm.nodes.get(node));
        self.now.since(*since) >= grace && seen.is_some_and(|seen| seen.is_counted_on() || seen.is_off())
    }
}
