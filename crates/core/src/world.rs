//! What is known at one instant: the configuration, our records, and the last
//! whole observations of Slurm and of the provider. `plan` reads it; `fold` updates it.

use crate::hostlist;
use crate::ids::{
    ClusterName, Generation, HostName, JobId, Millis, NodeName, NodesetName, Time, VmId, VmTag,
};
use crate::options::OptionRule;
use crate::policy::Policy;
use crate::table::Table;
use crate::view::{Power, ProviderView, Shape, SlurmView, VmView};
use crate::vm::VmRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that a decision may depend on.
#[derive(Debug, Clone)]
pub struct World {
    /// The instant of the decision.
    pub now: Time,
    /// Whose nodes these are.
    pub cluster: ClusterName,
    pub policy: Policy,
    /// The nodes that the configuration gives us.
    pub specs: Arc<Table<NodeName, NodeSpec>>,
    /// What we know of each of them; also of nodes that left the configuration with a VM.
    pub records: Table<NodeName, NodeRecord>,
    /// Nodes with an action under way: nothing else is decided for them.
    pub busy: BTreeSet<NodeName>,
    /// Requeued jobs that were let start since the last observation of Slurm.
    pub jobs_started: BTreeSet<JobId>,
    /// How long Slurm's scheduler takes at the most until it has looked at every pending job again, by
    /// slurmctld's own settings; zero while they are not known. Not in the store.
    pub scheduling_pass: Millis,
    /// The users whom the guests know, where that is known: others' jobs could not run there.
    pub guests_know: Option<Arc<BTreeSet<u32>>>,
    /// The partitions of job mode.
    pub job_partitions: BTreeMap<String, JobPartition>,
    /// Who may ask what of VMs.
    pub option_rules: Vec<OptionRule>,
    /// What is remembered of jobs in those partitions, by [`crate::view::SlurmJob::key`].
    pub jobs: BTreeMap<JobId, JobRecord>,
    /// Jobs with an action under way: nothing else is decided for them.
    pub busy_jobs: BTreeSet<JobId>,
    /// When the last action on a job ended: no job is admitted on an older observation.
    pub jobs_acted: Time,
    /// When the last whole observation of Slurm began.
    pub slurm_began: Time,
    /// VMs with our tag that back nothing, and when they were first seen so.
    pub strays: BTreeMap<VmId, Time>,
    /// Those of them that only listings know. Not in the store.
    pub unrecorded: BTreeMap<VmId, Unrecorded>,
    /// What Slurm shows of the power of each node, and since when it does, as far as we have
    /// observed it. Not in the store: after a start it is newer than all that was ordered before.
    pub powers: Table<NodeName, (Power, Time)>,
    /// Nodes that Slurm considers up though no VM backs them (there is none, or its
    /// slurmd is silent), and when they were first seen so.
    pub unbacked: BTreeMap<NodeName, Time>,
    /// Nodes that Slurm shows up and idle, and since when it does, as far as we have observed it. Not in the store.
    pub idle: BTreeMap<NodeName, Time>,
    /// Idle nodes that Slurm was asked to power down for others' sake, until an observation shows what came of it.
    /// Not in the store.
    pub give_way: BTreeSet<NodeName>,
    /// VMs whose guests did not answer when they were told whose job comes, by node. Not in the store: the next job
    /// finds it out anew.
    pub unheard: BTreeMap<NodeName, Generation>,
    /// Nodes that others than Slurm itself have drained, as long as they are: slurmd puts its own reason in the place of
    /// theirs. Not in the store.
    pub drained: BTreeSet<NodeName>,
    /// How many whole observations in a row did not show the VM of a node. Not in the store: a
    /// restart begins anew.
    pub absences: BTreeMap<NodeName, u32>,
    /// When the last whole observation of the provider was taken in.
    pub provider_seen: Time,
    /// When that observation began: what was done later it does not show.
    pub provider_began: Time,
    /// VMs that the provider was asked for alone since then, and when.
    pub asked_later: BTreeMap<VmId, Time>,
    /// The hosts that the last whole one showed, and why they take no new VMs; none before the first. Not in the store.
    pub hosts: Option<BTreeMap<HostName, Option<String>>>,
    /// The circuit breaker over all creations.
    pub breaker: Breaker,
    /// Nodes for which the provider can make no VM until a person changes something, and why: a
    /// fault of theirs (of their nodeset's template, say) that is not the others'.
    pub faults: BTreeMap<NodeName, String>,
    /// The last observation of Slurm; none if it failed or is too old to act on.
    pub slurm: Option<Arc<SlurmView>>,
    /// The last observation of the provider; none if it failed or is too old to act on.
    pub provider: Option<Arc<ProviderView>>,
}

/// A VM with our tag that no record holds, and that is later than all that was kept of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecorded {
    /// As a listing last showed it.
    pub seen: VmView,
    /// Since when whole observations do not show it, and how many in a row.
    pub missing: Option<(Time, u32)>,
}

/// What the configuration says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    pub nodeset: NodesetName,
    /// How big its VM is; in job mode the most that a job can have on it.
    pub shape: Shape,
    /// For whom its VMs are made.
    pub mode: Mode,
}

/// For whom a node's VMs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A VM backs its node while Slurm keeps that powered up, for job after job.
    #[default]
    PowerSaving,
    /// A VM is made for one job, as big as that asked, and is gone after it.
    Job,
}

/// A partition whose jobs get VMs of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPartition {
    pub nodesets: BTreeSet<NodesetName>,
    /// The largest VM that one of its nodes can be, with the share that holds where a
    /// job asks for none.
    pub most: Shape,
    /// The most GPUs of a job on one of its nodes.
    pub gpus: u32,
}

/// What is remembered of a job that waits for its VMs or was given them. Not in the
/// store: what is lost with the controller is a pause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobRecord {
    /// Since when it waits for capacity.
    pub waits: Option<Time>,
    /// Since when it may start and has not.
    pub admitted: Option<Time>,
    /// How often in a row its VMs could not be had.
    pub failures: u32,
    /// Not admitted before that time; none: it may be at once.
    pub retry_at: Option<Time>,
    /// What failed last, for people.
    pub last: String,
    /// Whether Slurm has refused to put it back into the queue.
    pub stuck: bool,
}

/// What we know of a node; kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// What was last asked for.
    pub desired: Desired,
    /// The number of its newest VM; 0 before the first.
    pub generation: Generation,
    /// The VM that backs it.
    pub vm: Option<VmRecord>,
    /// Its failures since it was last up.
    pub trouble: Trouble,
    /// The reason with which we set it DOWN, while that holds.
    pub down: Option<String>,
    /// The jobs for which it was resumed.
    pub jobs: Vec<JobId>,
    /// When our last action on it ended: observations that began before say nothing of it.
    pub acted: Time,
}

impl NodeRecord {
    /// Takes what was written down as of later for as of `now`: the clock was set back while nobody
    /// was here to see it. A wait begins anew then, where it would not end before that time.
    pub fn not_after(&mut self, now: Time, policy: &Policy) {
        match &mut self.desired {
            Desired::Early { since } | Desired::Up { since } | Desired::Down { since } => {
                *since = now.min(*since)
            }
            Desired::Unasked => {}
        }
        if let Some(at) = &mut self.trouble.retry_at {
            *at = (now + policy.retry_max).min(*at);
        }
        if let Some(vm) = &mut self.vm {
            vm.not_after(now, policy);
        }
    }
}

/// What Slurm or a person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Desired {
    /// Nothing yet, as far as we know: a VM found is kept while it may run a job.
    #[default]
    Unasked,
    /// A job has the node, as the job's prolog says, and Slurm is about to ask for it: a VM is
    /// made, and its slurmd waits for Slurm's own word.
    Early { since: Time },
    /// Back the node with a VM.
    Up { since: Time },
    /// Take its VM away.
    Down { since: Time },
}

/// A node's failures since it was last up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// How many in a row.
    pub failures: u32,
    /// Not tried again before.
    pub retry_at: Option<Time>,
    /// Hosts on which it failed.
    pub avoid: BTreeSet<HostName>,
    /// What happened last, for people.
    pub last: String,
    /// Whether Slurm was told of the last one.
    pub told: bool,
}

/// Stops creations after many failures in a row, whichever the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Failures in a row.
    pub failures: u32,
    /// When it opened, if it is open.
    pub opened: Option<Time>,
    /// What failed last, for people.
    pub last: String,
}

impl Breaker {
    /// Counts a failure; opens at the policy's threshold.
    pub fn failed(&mut self, why: &str, now: Time, policy: &Policy) {
        self.failures = self.failures.saturating_add(1);
        why.clone_into(&mut self.last);
        if self.failures >= policy.breaker_failures {
            self.opened = Some(now);
        }
    }

    /// Whether it is open and its pause is not over: nothing is tried.
    #[must_use]
    pub fn pauses(&self, now: Time, policy: &Policy) -> bool {
        self.opened.is_some_and(|at| now.since(at) < policy.breaker_pause)
    }

    /// A VM came up: closes.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

impl World {
    /// The faults as sentences, nodes with the same one together.
    #[must_use]
    pub fn faults_told(faults: &BTreeMap<NodeName, String>) -> Vec<String> {
        let mut alike: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
        for (node, why) in faults {
            alike.entry(why).or_default().push(node);
        }
        let told = |(why, nodes)| format!("no VM can be made for {}: {why}", hostlist::fold(nodes));
        alike.into_iter().map(told).collect()
    }

    /// A world in which nothing was seen yet: every node of `specs` has an empty record.
    #[must_use]
    pub fn new(now: Time, cluster: ClusterName, policy: Policy, specs: Table<NodeName, NodeSpec>) -> Self {
        Self {
            now,
            cluster,
            policy,
            records: specs
                .keys()
                .map(|node| (node.clone(), NodeRecord::default()))
                .collect(),
            specs: Arc::new(specs),
            busy: BTreeSet::new(),
            jobs_started: BTreeSet::new(),
            scheduling_pass: Millis::default(),
            guests_know: None,
            job_partitions: BTreeMap::new(),
            option_rules: Vec::new(),
            jobs: BTreeMap::new(),
            busy_jobs: BTreeSet::new(),
            jobs_acted: Time::default(),
            slurm_began: Time::default(),
            strays: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            powers: Table::new(),
            unbacked: BTreeMap::new(),
            idle: BTreeMap::new(),
            give_way: BTreeSet::new(),
            unheard: BTreeMap::new(),
            drained: BTreeSet::new(),
            absences: BTreeMap::new(),
            provider_seen: Time::default(),
            provider_began: Time::default(),
            asked_later: BTreeMap::new(),
            hosts: None,
            breaker: Breaker::default(),
            faults: BTreeMap::new(),
            slurm: None,
            provider: None,
        }
    }

    /// Whether this node's VMs are made for one job each.
    #[must_use]
    pub fn is_job_mode(&self, node: &NodeName) -> bool {
        self.specs.get(node).is_some_and(|spec| spec.mode == Mode::Job)
    }

    /// The tag of a VM of this cluster.
    #[must_use]
    pub fn tag(&self, node: &NodeName, generation: Generation) -> VmTag {
        VmTag {
            cluster: self.cluster.clone(),
            node: node.clone(),
            generation,
        }
    }
}
