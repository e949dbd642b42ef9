//! Nodes that are not as they should be: every state of the troubleshooting page of 2011, and some more.
//!
//! A node's state is read from Slurm; what Thiao's controller knows of it tells why it is so. Nodes in the
//! same trouble are one finding.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use thiao_api::types::Node;
use thiao_api::words::{Desired, NodeState};
use thiao_core::finding::{Finding, Verdict};
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::view::{BaseState, JobState, SlurmJob, SlurmNode, SlurmView, WaitsFor, Whose};
use thiao_slurm::details::NodeDetails;

/// How long a job may wait for nodes that are free before that is odd, in milliseconds: Slurm's scheduler
/// goes through its whole queue once a minute, and a node that was just powered down waits for SuspendTimeout.
const PATIENCE: u64 = 150_000;

/// What is known of the nodes.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The configured nodes and the partition of each.
    pub nodes: &'a BTreeMap<NodeName, String>,
    pub slurm: &'a SlurmView,
    /// What the controller says, by name; none when it does not answer.
    pub ours: Option<&'a BTreeMap<String, Node>>,
    /// How long a VM may take until its node is up, in milliseconds.
    pub boot_timeout: u64,
    /// For partitions whose ResumeTimeout is too short: it, and what is needed, in seconds.
    pub impatient: &'a BTreeMap<String, (u64, u64)>,
    /// Milliseconds since the epoch.
    pub now: u64,
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// slurmctld does not know it.
    NotInSlurm,
    /// `down`, set by Thiao: it could not be backed.
    GivenUp(String),
    /// `down~`: Slurm gave up at ResumeTimeout; that, and what is needed, in seconds, if it is too short.
    TimedOut(Option<(u64, u64)>),
    /// `down*`: Slurm lost it; whether it has a VM, if that is known.
    Lost(Option<bool>),
    /// `down`, set by somebody else.
    SetDown(String),
    /// Drained, by somebody else or by Thiao.
    Drained(String),
    /// A state that we do not know.
    Odd(String),
    /// `idle*`, `alloc*`: Slurm counts on it, and it does not answer; whether it has a VM.
    Silent(Option<bool>),
    /// `idle#`, `alloc#`, and Thiao was not asked for it.
    NotAsked,
    /// `idle#`, `alloc#`, and it cannot be told for how long.
    Starting,
    /// `idle#`, `alloc#`: Thiao waits before it tries again.
    Waiting,
    /// `idle#`, `alloc#` for longer than a VM may take, its VM being in this phase.
    Stuck(Phase),
    /// `alloc~`: a job has it, and nobody asked Thiao for it.
    AllocatedOff,
    /// It is up, and Thiao knows no VM behind it.
    Unbacked,
}

/// How far a VM is, in Thiao's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The provider was asked, and does not show it running.
    Asked,
    /// It runs; its guest has not said that slurmd runs.
    Booting,
    /// Its guest says that slurmd runs.
    Ready,
    /// What no node that powers up should be for long.
    Other(NodeState),
}

/// The nodes that are in trouble, those in the same together.
#[must_use]
pub fn troubles(facts: Facts<'_>) -> BTreeMap<Trouble, Vec<NodeName>> {
    let mut all: BTreeMap<Trouble, Vec<NodeName>> = BTreeMap::new();
    for (node, partition) in facts.nodes {
        let ours = facts.ours.and_then(|ours| ours.get(node.as_str()));
        let trouble = match facts.slurm.nodes.get(node) {
            None => Some(Trouble::NotInSlurm),
            Some(seen) => match trouble(seen, ours, facts) {
                Some(Trouble::TimedOut(_)) => {
                    Some(Trouble::TimedOut(facts.impatient.get(partition).copied()))
                }
                other => other,
            },
        };
        if let Some(trouble) = trouble {
            all.entry(trouble).or_default().push(node.clone());
        }
    }
    all
}

fn trouble(seen: &SlurmNode, ours: Option<&Node>, facts: Facts<'_>) -> Option<Trouble> {
    let whose = seen.reason.as_ref().map(|reason| reason.whose);
    let reason = seen
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| reason.text.clone());
    let flags = &seen.flags;
    let has_vm = ours.map(|node| node.vm.is_some());
    match &seen.base {
        BaseState::Down => {
            return Some(match whose {
                Some(Whose::Ours) => Trouble::GivenUp(reason),
                Some(Whose::ResumeTimeout) => Trouble::TimedOut(None),
                Some(Whose::Silence) => Trouble::Lost(has_vm),
                Some(Whose::ItsVm | Whose::Others) | None if flags.not_responding => Trouble::Lost(has_vm),
                Some(Whose::ItsVm | Whose::Others) | None => Trouble::SetDown(reason),
            });
        }
        BaseState::Error => return Some(Trouble::Odd("ERROR".to_owned())),
        BaseState::Future => return Some(Trouble::Odd("FUTURE".to_owned())),
        BaseState::Unknown(word) => return Some(Trouble::Odd(word.clone())),
        BaseState::Idle | BaseState::Allocated | BaseState::Mixed => {}
    }
    if flags.drain {
        let reason = match whose {
            Some(Whose::ItsVm) => format!("{reason}; Thiao undrains it when its VM is gone"),
            _ => reason,
        };
        return Some(Trouble::Drained(reason));
    }
    if flags.powering_up {
        return starting(ours, facts);
    }
    // On its way down, or off: not answering is what it should do.
    if flags.powering_down || flags.power_down {
        return None;
    }
    if flags.powered_down {
        let taken = seen.base != BaseState::Idle;
        let unasked = ours.is_some_and(|node| node.desired != Desired::Up && node.vm.is_none());
        return (taken && unasked).then_some(Trouble::AllocatedOff);
    }
    if flags.not_responding {
        return Some(Trouble::Silent(has_vm));
    }
    (has_vm == Some(false)).then_some(Trouble::Unbacked)
}

/// A node that powers up.
fn starting(ours: Option<&Node>, facts: Facts<'_>) -> Option<Trouble> {
    let Some(node) = ours else {
        return Some(Trouble::Starting);
    };
    let phase = match &node.state {
        NodeState::Waiting | NodeState::Failed => return Some(Trouble::Waiting),
        NodeState::Down => return Some(Trouble::NotAsked),
        NodeState::Asked | NodeState::Held | NodeState::Pending => Phase::Asked,
        NodeState::Booting => Phase::Booting,
        NodeState::Ready => Phase::Ready,
        NodeState::Up
        | NodeState::Silent
        | NodeState::Paused
        | NodeState::Saving
        | NodeState::Saved
        | NodeState::Restoring
        | NodeState::Moving
        | NodeState::Stopping
        | NodeState::Unknown(_) => Phase::Other(node.state.clone()),
    };
    (facts.now.saturating_sub(node.since) > facts.boot_timeout).then_some(Trouble::Stuck(phase))
}

/// What is told of nodes in that trouble. `why` is what the controller says of one of them.
#[must_use]
pub fn finding(trouble: &Trouble, nodes: &[NodeName], why: Option<&str>) -> Finding {
    let list = hostlist::fold(nodes);
    let first = nodes.first().map(NodeName::as_str).unwrap_or_default();
    let text = trouble.text();
    let text = match why.filter(|_| trouble.is_explained()) {
        Some(why) => format!("{text} ({why})"),
        None => text.into_owned(),
    };
    Finding::new(format!("node {list}"), trouble.verdict(), text).run(trouble.cure(&list, first))
}

impl Trouble {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NotInSlurm | Self::TimedOut(_) | Self::Lost(_) | Self::Silent(_) | Self::Stuck(_) => {
                Verdict::Bad
            }
            Self::GivenUp(_)
            | Self::SetDown(_)
            | Self::Drained(_)
            | Self::Odd(_)
            | Self::NotAsked
            | Self::Starting
            | Self::Waiting
            | Self::AllocatedOff
            | Self::Unbacked => Verdict::Warn,
        }
    }

    /// Whether the controller knows more of it than Slurm does.
    fn is_explained(&self) -> bool {
        match self {
            Self::NotInSlurm | Self::SetDown(_) | Self::Drained(_) | Self::Odd(_) | Self::Starting => false,
            Self::GivenUp(_)
            | Self::TimedOut(_)
            | Self::Lost(_)
            | Self::Silent(_)
            | Self::NotAsked
            | Self::Waiting
            | Self::Stuck(_)
            | Self::AllocatedOff
            | Self::Unbacked => true,
        }
    }

    /// How the node stands, and why.
    fn text(&self) -> Cow<'static, str> {
        match self {
            Self::NotInSlurm => {
                "slurmctld does not know it: the lines of `thiao setup` are not in its slurm.conf".into()
            }
            Self::GivenUp(reason) => format!(
                "down: Thiao could not give it a VM: {reason}; it returns by itself when one can be made"
            )
            .into(),
            Self::TimedOut(Some((has, needed))) => format!(
                "down~: Slurm waited for ResumeTimeout, {has} s, and gave up; a VM may take {needed} s with all its \
                 tries"
            )
            .into(),
            Self::TimedOut(None) => {
                "down~: Slurm waited for ResumeTimeout and gave up; Thiao's own limit should have come first".into()
            }
            Self::Lost(has_vm) => lost(*has_vm).into(),
            Self::SetDown(reason) => {
                format!("down: somebody set it DOWN{}; Thiao leaves it alone", because(reason)).into()
            }
            Self::Drained(reason) => format!("drained{}: it takes no new jobs", because(reason)).into(),
            Self::Odd(word) => format!("{word}: a state that Thiao does not know; it leaves the node alone").into(),
            Self::Silent(has_vm) => silent(*has_vm).into(),
            Self::NotAsked => "idle# or alloc#: Slurm is powering it up, but did not ask Thiao for it: \
                               ResumeProgram is not Thiao's, or could not leave its order (see the hooks \
                               above)"
                .into(),
            Self::Starting => "idle# or alloc#: it is powering up; only the controller could say for how \
                               long, and what it waits for"
                .into(),
            Self::Waiting => "idle# or alloc#: it waits for its VM, which could not be made yet".into(),
            Self::Stuck(phase) => stuck(phase).into(),
            Self::AllocatedOff => {
                "alloc~: a job has it, and neither ResumeProgram nor PrologSlurmctld asked Thiao for it".into()
            }
            Self::Unbacked => {
                "up, but Thiao knows no VM behind it: somebody started a slurmd of that name by hand".into()
            }
        }
    }

    /// The command that mends nodes, `list`, the first of which stands for all where one is enough.
    fn cure(&self, list: &str, first: &str) -> String {
        let update = |state: &str| format!("scontrol update NodeName={list} State={state}");
        match self {
            Self::NotInSlurm => "thiao setup && systemctl restart slurmctld".to_owned(),
            Self::GivenUp(_) => format!("thiao resume --force {list}"),
            Self::TimedOut(Some(_)) => format!(
                "thiao setup && systemctl restart slurmctld && {}",
                update("RESUME")
            ),
            Self::TimedOut(None) => format!("{} && thiao explain {first}", update("RESUME")),
            // A power-down and then back in service; RESUME alone would leave it powering up.
            Self::Lost(_) => format!("{} && {}", update("POWER_DOWN"), update("RESUME")),
            Self::SetDown(_) | Self::Drained(_) => update("RESUME"),
            Self::Odd(_) => format!("scontrol show node {first}"),
            Self::Silent(_) | Self::Unbacked => update("POWER_DOWN"),
            Self::NotAsked | Self::AllocatedOff => format!("thiao resume {list}"),
            Self::Starting => "systemctl start thiaod".to_owned(),
            Self::Waiting => format!("thiao explain {first}"),
            Self::Stuck(_) => format!("thiao explain {first} && thiao resume --force {list}"),
        }
    }
}

fn lost(has_vm: Option<bool>) -> &'static str {
    match has_vm {
        Some(true) => {
            "down*: it has a VM, but the slurmd in it does not answer: it ended, or slurmctld has the \
             wrong address for it"
        }
        Some(false) => {
            "down*: its slurmd does not answer, and there is no VM: somebody shut it down behind Slurm's \
             back, or it has never been up"
        }
        None => "down*: its slurmd does not answer",
    }
}

fn silent(has_vm: Option<bool>) -> &'static str {
    match has_vm {
        Some(true) => {
            "idle* or alloc*: Slurm considers it up, its VM exists, but the slurmd in it does not answer: \
             it ended, or slurmctld has the wrong address for it"
        }
        Some(false) => {
            "idle* or alloc*: Slurm considers it up, but there is no VM: RESUME on a node that is down starts none"
        }
        None => "idle* or alloc*: Slurm considers it up, but its slurmd does not answer",
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

fn stuck(phase: &Phase) -> String {
    let cause = match phase {
        Phase::Asked => "its VM was asked for, but does not run: the provider says why",
        Phase::Booting => {
            "its VM runs, but the guest has not started slurmd: see its console, and the CONTEXT of its template"
        }
        Phase::Ready => {
            "slurmd runs in its VM, but slurmctld does not see it: munge keys or clocks differ, \
             slurmctld_addr is not reachable from there, or two VMs have the same name or address (see \
             below)"
        }
        Phase::Other(state) => {
            return format!("idle# or alloc# for longer than boot_timeout; its VM is {state}");
        }
    };
    format!("idle# or alloc# for longer than boot_timeout: {cause}")
}

/// Jobs that wait though as many nodes as they ask for are `idle~`: Slurm does not wake them.
#[must_use]
pub fn not_waking(facts: Facts<'_>) -> Vec<Finding> {
    let mut free: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
    for (node, partition) in facts.nodes {
        let off =
            facts.slurm.nodes.get(node).is_some_and(|seen| {
                seen.base == BaseState::Idle && seen.flags.powered_down && !seen.flags.drain
            });
        if off {
            free.entry(partition).or_default().push(node);
        }
    }
    let stands = |job: &&SlurmJob| {
        // Priority, Dependency, limits and the like are other reasons to wait.
        let nodes = |what: &WaitsFor| matches!(what, WaitsFor::Nodes | WaitsFor::NamedNodes);
        let for_nodes = job.reason.waits.iter().all(nodes);
        let long = job
            .submit
            .is_some_and(|at| facts.now.saturating_sub(at.0) > PATIENCE);
        job.state == JobState::Pending && for_nodes && long
    };
    let finding = |job: &SlurmJob| {
        let free = free.get(job.partition.as_str())?;
        let count = usize::try_from(job.node_count).unwrap_or(usize::MAX).max(1);
        let woken = free.get(..count)?;
        Some(
            Finding::warn(
                format!("job {}", job.id),
                format!(
                    "waits ({}) though {} nodes of partition {} are idle~: Slurm does not wake them",
                    job.reason,
                    free.len(),
                    job.partition
                ),
            )
            .run(format!(
                "scontrol update NodeName={} State=POWER_UP",
                hostlist::fold(woken.iter().copied())
            )),
        )
    };
    facts
        .slurm
        .jobs
        .values()
        .filter(stands)
        .filter_map(finding)
        .collect()
}

/// Nodes that took each other's name or address, by what Slurm knows of them.
#[must_use]
pub fn mixed_up(facts: Facts<'_>, details: &BTreeMap<NodeName, NodeDetails>) -> Vec<Finding> {
    let mut found = Vec::new();
    let up = |node: &&NodeName| {
        facts
            .slurm
            .nodes
            .get(*node)
            .is_some_and(|seen| seen.is_counted_on())
    };
    let mut by_address: BTreeMap<&str, BTreeSet<&NodeName>> = BTreeMap::new();
    for node in facts.nodes.keys().filter(up) {
        let Some(known) = details.get(node) else { continue };
        by_address.entry(&known.address).or_default().insert(node);
        if known.host_name == node.as_str() {
            continue;
        }
        let other = facts.nodes.contains_key(known.host_name.as_str());
        let what = format!("node {node}");
        found.push(if other {
            Finding::bad(
                what,
                format!(
                    "the slurmd that registered as {node} runs on a VM that calls itself {}: two VMs were told \
                     each other's name",
                    known.host_name
                ),
            )
            .run(format!("thiao explain {node} && thiao explain {}", known.host_name))
        } else {
            Finding::warn(
                what,
                format!("its VM calls itself {}: job steps and MPI may look for {node}", known.host_name),
            )
            .advice("let the template's CONTEXT set the host name to the node's name (SET_HOSTNAME)")
        });
    }
    for (address, nodes) in by_address {
        if nodes.len() > 1 {
            let list = hostlist::fold(nodes.iter().copied());
            found.push(
                Finding::bad(
                    format!("node {list}"),
                    format!("Slurm has one address, {address}, for all of them: their VMs have the same one"),
                )
                .run(format!("scontrol update NodeName={list} State=POWER_DOWN")),
            );
        }
    }
    found
}
