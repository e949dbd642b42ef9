//! What a run is made from.

use crate::controller::Crash;
use crate::faults::{Hit, Rates};
use crate::flaw::Flaw;
use crate::slurm::{JOB_MODE_PARTITION, JobMode, Rules};
use std::collections::BTreeSet;
use thiao_core::ids::{ClusterName, JobId, Millis, NodeName, NodesetName, Time};
use thiao_core::policy::Policy;
use thiao_core::view::{Alloc, ArrayTasks, Shape};
use thiao_core::world::{JobPartition, Mode, NodeSpec, World};

pub use crate::slurm::JOB_MODE_CPUS;

/// What each VM promises its node, in MiB; in job mode at most.
pub const VM_MEMORY_MB: u64 = 100;

/// A run, wholly: the same setup gives the same run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where all chance comes from.
    pub seed: u64,
    /// Nodes `n0`, `n1`, ...
    pub nodes: usize,
    /// Nodes of job mode `j0`, `j1`, ..., beside those.
    pub job_mode_nodes: usize,
    /// Hosts `h0`, `h1`, ...
    pub hosts: usize,
    /// How many VMs fit on a host.
    pub host_capacity: u64,
    pub jobs: Vec<JobPlan>,
    /// What `slurm.conf` says there.
    pub rules: Rules,
    /// Our limits and times.
    pub policy: Policy,
    /// What goes wrong before `calm`.
    pub faults: Rates,
    /// If given, these faults strike and no others, whatever the rates.
    pub only: Option<BTreeSet<Hit>>,
    /// Spans after the start in which nothing new goes wrong.
    pub lulls: Vec<(Millis, Millis)>,
    /// When faults stop, after the start.
    pub calm: Millis,
    /// A kill of the controller at one certain write of its journal.
    pub crash: Option<Crash>,
    /// What is wrong with the controller.
    pub flaw: Option<Flaw>,
}

/// A job to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    /// When, after the start.
    pub submit: Millis,
    /// How many nodes it wants.
    pub size: usize,
    /// How long it runs.
    pub length: Millis,
    /// What it is beside in job mode.
    pub job_mode: Option<JobModePlan>,
}

/// What a job to come is beside in job mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobModePlan {
    /// CPUs on each node, 1 to [`JOB_MODE_CPUS`].
    pub cpus: u32,
    /// Memory on each node, in MiB, at most [`VM_MEMORY_MB`].
    pub memory_mb: u64,
    /// The most nodes that it may get, of a range; what is not above its size is none.
    pub most: usize,
    /// The highest is served first.
    pub priority: u64,
    /// Tasks of an array; 0: none.
    pub tasks: u32,
    /// Whether it can go back into the queue.
    pub requeue: bool,
    /// Cancelled that long after it was submitted.
    pub cancel: Option<Millis>,
}

impl Default for Setup {
    /// Four nodes on two hosts, one job, no faults.
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 4,
            job_mode_nodes: 0,
            hosts: 2,
            host_capacity: 2,
            jobs: vec![JobPlan {
                submit: Millis::secs(1),
                size: 2,
                length: Millis::secs(20),
                job_mode: None,
            }],
            rules: Rules::default(),
            policy: Policy {
                max_vms: 64,
                max_starting: 8,
                overhead_mb: 40,
                boot_timeout: Millis::secs(30),
                capacity_patience: Millis::secs(15),
                orphan_grace: Millis::secs(20),
                missing_grace: Millis::secs(30),
                silence_grace: Millis::secs(60),
                retry_first: Millis::secs(3),
                retry_max: Millis::secs(60),
                breaker_failures: 6,
                breaker_pause: Millis::secs(20),
                observation_max_age: Millis::secs(20),
                mark_patience: Millis::secs(10),
                ..Policy::default()
            },
            faults: Rates::none(),
            only: None,
            lulls: Vec::new(),
            calm: Millis::secs(0),
            crash: None,
            flaw: None,
        }
    }
}

impl Setup {
    /// Whether all can end well in it: each job fits on the hosts and into the caps when
    /// nothing else is there, Slurm has the patience for the starts of all nodes, and no
    /// two jobs can keep each other waiting for ever.
    #[must_use]
    pub fn is_livable(&self) -> bool {
        let capacity = self.capacity();
        let fits = |job: &JobPlan| {
            let nodes = match job.job_mode {
                None => self.nodes,
                Some(_) => self.job_mode_nodes,
            };
            (1..=nodes.min(capacity)).contains(&job.size)
        };
        // In power-saving mode jobs that want more nodes than have capacity each hold a part.
        let wide = |job: &&JobPlan| job.job_mode.is_none() && job.size > 1;
        let scarce = self.nodes + self.job_mode_nodes > capacity;
        let crossed = scarce && self.jobs.iter().filter(wide).count() > 1;
        // A limit on starts is a queue.
        let turns = (self.nodes + self.job_mode_nodes).div_ceil(self.policy.max_starting.max(1));
        let patient = self.rules.resume_timeout >= Self::patience(turns);
        self.hosts > 0 && patient && !crossed && self.jobs.iter().all(fits)
    }

    /// How many VMs there can be at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let each = usize::try_from(self.host_capacity).unwrap_or(usize::MAX);
        each.saturating_mul(self.hosts).min(self.policy.max_vms)
    }

    /// Within what time after a resume Slurm is told, whatever the provider does: the tries
    /// with their pauses and the patience for capacity, which is what `thiao setup` takes
    /// into account; and the tries of other nodes that it may have to wait for, because few
    /// may start at once, or one only while the circuit breaker tries whether all is well.
    #[must_use]
    pub fn told_within(&self) -> Millis {
        let policy = &self.policy;
        let pauses = (1..policy.tries_before_down).map(|failures| policy.backoff(failures).0);
        let nodes = self.nodes + self.job_mode_nodes;
        let turns = 1 + nodes.div_ceil(policy.max_starting.max(1)) as u64;
        let tries = policy.boot_timeout.0 * (turns + u64::from(policy.tries_before_down));
        Millis(tries + pauses.sum::<u64>() + policy.capacity_patience.0 + policy.terminate_grace.0 + 30_000)
    }

    /// The least ResumeTimeout if VMs start in so many turns.
    #[must_use]
    pub fn patience(turns: usize) -> Millis {
        Millis::secs(5 + 13 * turns as u64)
    }
}

/// What the controller knows at the start.
pub(crate) fn first_world(setup: &Setup, names: &[NodeName], job_mode: &[NodeName], now: Time) -> World {
    let spec = |nodeset: &str, cpus, mode| NodeSpec {
        nodeset: NodesetName::new(nodeset).expect("a nodeset's name"),
        shape: Shape {
            cpus,
            memory_mb: VM_MEMORY_MB,
            share_percent: 100,
        },
        mode,
    };
    let (usual, largest) = (
        spec("n", 1, Mode::PowerSaving),
        spec("j", JOB_MODE_CPUS, Mode::Job),
    );
    let cluster = ClusterName::new("sim").expect("a cluster's name");
    let usual = names.iter().map(|name| (name.clone(), usual.clone()));
    let specs = usual.chain(job_mode.iter().map(|name| (name.clone(), largest.clone())));
    let mut world = World::new(
        now,
        cluster,
        Flaw::policy(setup.flaw, setup.policy.clone()),
        specs.collect(),
    );
    if !job_mode.is_empty() {
        let partition = JobPartition {
            nodesets: BTreeSet::from([largest.nodeset]),
            most: largest.shape,
            gpus: 0,
        };
        world.job_partitions.insert(JOB_MODE_PARTITION.into(), partition);
    }
    world
}

impl JobModePlan {
    pub(crate) fn submitted(&self, id: JobId) -> JobMode {
        let each = Alloc {
            cpus: self.cpus,
            memory_mb: self.memory_mb,
            gpus: 0,
        };
        let array = (self.tasks > 0).then(|| ArrayTasks {
            job: id,
            tasks: (0..self.tasks).collect(),
        });
        JobMode {
            most: self.most,
            requeue: self.requeue,
            array,
            ..JobMode::new(each, self.priority)
        }
    }
}

pub(crate) fn node_name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node's name")
}
