//! `plan`: what to do now, as a value, from what is known; pure and synchronous.
//!
//! Every node is decided on its own, then the caps and the hosts' room are
//! shared out, oldest wish first. Each action and each refusal says why.

use crate::ids::{HostName, JobId, NodeName, Time, VmId, VmTag};
use crate::note::Subject;
use crate::planner::Planner;
use crate::view::{ArrayTasks, BaseState, JobsOn, ProviderView, SlurmView, VmSpec, VmState, VmView};
use crate::world::{Cause, NodeRecord, Phase, Wish, World};
use std::fmt;
use std::num::NonZeroU32;

/// What to do, with causes, and what is not done, with reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order of execution; at most one per node.
    pub steps: Vec<Step>,
    /// Why other things are not done now.
    pub held: Vec<Held>,
}

/// An action and its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub why: String,
}

/// Something that is not done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// About what.
    pub subject: Subject,
    /// Why.
    pub why: String,
}

/// All that the executor can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the VM with this tag on this host; idempotent by the tag.
    CreateVm {
        /// Written into the VM.
        tag: VmTag,
        /// Where.
        host: HostName,
        /// What.
        spec: VmSpec,
        /// Whether it was asked for before, and may be there or on its way.
        again: bool,
    },
    /// Have the guest of a VM start slurmd; idempotent by the number.
    StartSlurmd {
        /// Its tag.
        tag: VmTag,
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Which start it is, from 1 on; after the first one, slurmd is ended before.
        number: u32,
        /// When Slurm had asked for the node at the latest: slurmd starts after that second.
        asked: Time,
    },
    /// End a VM and remove what is left of it; idempotent.
    DestroyVm {
        /// Its tag.
        tag: VmTag,
        /// The provider's id, if known.
        id: Option<VmId>,
        /// Why; nothing else may destroy.
        cause: Cause,
        /// Whether to leave its guest no time.
        hard: bool,
    },
    /// Tell Slurm that a node is DOWN, and its jobs why.
    SetDown {
        /// The node.
        node: NodeName,
        /// For Slurm's `Reason`; begins with `thiao:`.
        reason: String,
        /// Jobs to tell.
        jobs: Vec<JobId>,
    },
    /// Give a node that we set DOWN back to Slurm.
    ReturnNode {
        /// The node.
        node: NodeName,
    },
    /// Let a job that Slurm requeued because of us start without Slurm's pause.
    StartNow {
        /// The job.
        job: JobId,
    },
    /// Let a job go that waited for room: all its VMs have some.
    Admit {
        /// The job; of an array its record.
        job: JobId,
        /// The tasks of the array that are let go; none: the whole job.
        array: Option<ArrayTasks>,
        /// So many nodes it gets, each task of an array, of the range that it asked for; none: it has no choice.
        nodes: Option<NonZeroU32>,
        /// The licences that it keeps.
        licenses: String,
    },
    /// Let a job wait for room again that was let go and was not started.
    CloseGate {
        /// The job; of an array its record.
        job: JobId,
        /// The tasks of the array that it is about; none: the whole job.
        array: Option<ArrayTasks>,
        /// Its other licences.
        licenses: String,
    },
    /// Put a job back into the queue whose VMs cannot be had after all.
    PutBack {
        /// The job.
        job: JobId,
        /// Its other licences.
        licenses: String,
        /// For its `AdminComment`.
        comment: String,
    },
    /// Finish what putting it back began: it is held still.
    FinishPutBack {
        /// The job.
        job: JobId,
        /// Its other licences.
        licenses: String,
    },
    /// Put a job of another partition back into the queue that was given nodes of job mode, and
    /// keep it from them; or finish that.
    TurnAway {
        /// The job.
        job: JobId,
        /// The nodes that it is kept from, as a hostlist.
        from: String,
        /// For its `AdminComment`.
        why: String,
    },
    /// Have Slurm give a node to no other job, and power it down when its job is over.
    EndWithJob {
        /// The node.
        node: NodeName,
    },
    /// Have Slurm power a node down that still comes up for a job that is over.
    PowerDown {
        /// The node.
        node: NodeName,
    },
}

impl Action {
    /// The node that it is about, if one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Action::CreateVm { tag, .. }
            | Action::StartSlurmd { tag, .. }
            | Action::DestroyVm { tag, .. } => Some(&tag.node),
            Action::SetDown { node, .. }
            | Action::ReturnNode { node }
            | Action::EndWithJob { node }
            | Action::PowerDown { node } => Some(node),
            Action::StartNow { .. }
            | Action::Admit { .. }
            | Action::CloseGate { .. }
            | Action::PutBack { .. }
            | Action::FinishPutBack { .. }
            | Action::TurnAway { .. } => None,
        }
    }

    /// The job that it is about, if one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Action::StartNow { job }
            | Action::Admit { job, .. }
            | Action::CloseGate { job, .. }
            | Action::PutBack { job, .. }
            | Action::FinishPutBack { job, .. }
            | Action::TurnAway { job, .. } => Some(*job),
            Action::CreateVm { .. }
            | Action::StartSlurmd { .. }
            | Action::DestroyVm { .. }
            | Action::SetDown { .. }
            | Action::ReturnNode { .. }
            | Action::EndWithJob { .. }
            | Action::PowerDown { .. } => None,
        }
    }

    /// What a line about it is headed with.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Action::CreateVm { tag, .. }
            | Action::StartSlurmd { tag, .. }
            | Action::DestroyVm { tag, .. } => Subject::Vm(tag.node.clone(), tag.generation),
            Action::SetDown { node, .. }
            | Action::ReturnNode { node }
            | Action::EndWithJob { node }
            | Action::PowerDown { node } => Subject::Node(node.clone()),
            Action::StartNow { job }
            | Action::Admit { job, .. }
            | Action::CloseGate { job, .. }
            | Action::PutBack { job, .. }
            | Action::FinishPutBack { job, .. }
            | Action::TurnAway { job, .. } => Subject::Job(*job),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateVm { tag, host, spec, .. } => {
                write!(
                    f,
                    "create VM {}.{} on host {host} ({} CPUs, {} MiB",
                    tag.node, tag.generation, spec.shape.cpus, spec.shape.memory_mb
                )?;
                if let Some(job) = spec.job {
                    write!(f, ", for job {job} alone")?;
                }
                f.write_str(")")
            }
            Action::StartSlurmd { tag, number: 1, .. } => {
                write!(f, "start slurmd in VM {}.{}", tag.node, tag.generation)
            }
            Action::StartSlurmd { tag, number, .. } => {
                write!(
                    f,
                    "start slurmd in VM {}.{} again (start {number})",
                    tag.node, tag.generation
                )
            }
            Action::DestroyVm { tag, .. } => write!(f, "destroy VM {}.{}", tag.node, tag.generation),
            Action::SetDown { node, reason, .. } => write!(f, "set node {node} DOWN: {reason}"),
            Action::ReturnNode { node } => write!(f, "return node {node} to service"),
            Action::StartNow { job } => write!(f, "let requeued job {job} start now"),
            Action::Admit {
                job, array, nodes, ..
            } => {
                match array {
                    None => write!(f, "let job {job} go")?,
                    Some(some) => write!(f, "let {} tasks of job {job} go", some.tasks.len())?,
                }
                nodes.map_or(Ok(()), |nodes| write!(f, ", with {nodes} nodes"))
            }
            Action::CloseGate { job, array: None, .. } => write!(f, "let job {job} wait for room again"),
            Action::CloseGate {
                job,
                array: Some(some),
                ..
            } => write!(
                f,
                "let {} tasks of job {job} wait for room again",
                some.tasks.len()
            ),
            Action::PutBack { job, comment, .. } => write!(f, "put job {job} back: {comment}"),
            Action::FinishPutBack { job, .. } => write!(f, "finish putting job {job} back"),
            Action::TurnAway { job, why, .. } => write!(f, "turn job {job} away: {why}"),
            Action::EndWithJob { node } => write!(f, "have Slurm power node {node} down with its job"),
            Action::PowerDown { node } => write!(f, "have Slurm power node {node} down now"),
        }
    }
}

/// Decides what to do now.
///
/// Without a whole look at the provider nothing is planned at all; without one
/// at Slurm only creations are: they harm nobody and jobs wait for them.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let Some(provider) = &world.provider else {
        return plan_without_provider(
            world,
            "the provider could not be read: nothing is done on a failed look",
        );
    };
    let mut planner = Planner::new(world, provider);
    let mut wanting: Vec<(Time, &NodeName, &NodeRecord)> = Vec::new();
    for (node, record) in &world.records {
        if world.busy.contains(node) {
            continue;
        }
        match (&record.vm, record.wish) {
            (Some(vm), wish) => planner.with_vm(node, record, vm, wish),
            (None, Wish::Early { since } | Wish::Up { since }) => wanting.push((since, node, record)),
            (None, Wish::Down { .. } | Wish::Unasked) => planner.without_vm(node, record),
        }
    }
    // The nodes of a job together: half of two jobs' nodes serve neither.
    wanting.sort_by_key(|(since, node, record)| (*since, record.jobs.first(), *node));
    for (since, node, record) in &wanting {
        if world.is_job_mode(node) {
            planner.wants_own(node, record, &wanting);
        } else if planner.is_too_early(record) {
            planner.waits_for_slurm(node);
        } else {
            planner.wants_vm(node, record, *since);
        }
    }
    planner.strays();
    planner.jobs_out_of_place();
    planner.own_nodes();
    planner.requeued_jobs();
    planner.waiting_jobs();
    planner.plan
}

/// What is done while nothing is known of VMs, and why no more: jobs that can have none where they are need
/// not wait for the provider.
#[must_use]
pub fn plan_without_provider(world: &World, why: &str) -> Plan {
    let nothing = ProviderView::default();
    let mut planner = Planner::new(world, &nothing);
    planner.jobs_out_of_place();
    let mut plan = planner.plan;
    plan.steps
        .retain(|step| matches!(step.action, Action::TurnAway { .. }));
    plan.held = vec![Held {
        subject: Subject::Provider,
        why: why.to_owned(),
    }];
    plan
}

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
            seen.state == VmState::Held && vm.phase != Phase::Asked && !vm.is(tag.generation, Some(&seen.id))
        }
        // It was found, not made by us as far as is known: either may be the one that is used.
        Some(vm) if vm.spec.is_none() && seen.state.may_run() => false,
        Some(vm) if vm.phase == Phase::Up && first_seen.is_some_and(|first| vm.since <= *first) => {
            // Else the record may be older than the world, and this VM the one that is used.
            vm.missing_since.is_none() || has_had_later
        }
        Some(_) | None => has_had_later,
    }
}

/// Whether Slurm may have taken `node` for up since it was asked for: false only
/// if the look surely says that it still waits for it, does not count on it, or does not have it.
#[must_use]
pub fn may_have_registered(slurm: &SlurmView, node: &NodeName) -> bool {
    let Some(seen) = slurm.nodes.get(node) else {
        return !slurm.gone.contains(node);
    };
    let f = &seen.flags;
    let waits = f.powering_up || f.powering_down || f.powered_down;
    !(waits || seen.base == BaseState::Down)
}

/// Whether `node`'s VM is left from before Slurm's request for it, by a whole look that began after
/// that: it was up then and was powered down; or, in job mode, it was found, and may be an earlier
/// job's. Slurm waits for a slurmd that starts later than it asked (22.05.8), which that of the first
/// never does, and that of the second must not: its job would wait until ResumeTimeout, or run in
/// another's VM. It runs nothing there.
#[must_use]
pub fn is_left_behind(world: &World, node: &NodeName) -> bool {
    let record = world.records.get(node);
    let left = record.is_some_and(|record| match (&record.vm, record.wish) {
        (Some(vm), Wish::Up { since }) => {
            let found = world.is_of_unknown_job(node) && vm.phase.is_starting();
            let before = vm.phase == Phase::Up && vm.since < since;
            (found || before) && since < world.slurm_began
        }
        (_, Wish::Early { .. } | Wish::Up { .. } | Wish::Down { .. } | Wish::Unasked) => false,
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
    match world.records.get(node)?.wish {
        Wish::Up { since } => Some(since),
        Wish::Early { .. } | Wish::Down { .. } => None,
        Wish::Unasked => {
            let seen = world.slurm.as_ref()?.nodes.get(node);
            seen.is_none_or(|seen| !seen.is_off()).then_some(world.now)
        }
    }
}

/// Whether Slurm's whole look says that no job can be on `node`'s VM: no job names the node, and
/// Slurm surely does not have it, or has it powered down. That a look does not show it says nothing.
#[must_use]
pub fn surely_unused(slurm: &SlurmView, node: &NodeName, jobs: &JobsOn<'_>) -> bool {
    let off = match slurm.nodes.get(node) {
        None => slurm.gone.contains(node),
        Some(seen) => {
            let off = seen.flags.powered_down || seen.base == BaseState::Down;
            off && !seen.flags.powering_up && !seen.may_run_job()
        }
    };
    off && !jobs.contains_key(node)
}
