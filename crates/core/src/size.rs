//! How big a job's VMs will be, before Slurm has given it nodes.
//!
//! All nodes of a partition are alike and each is one job's alone, so what Slurm gives is known (22.05.8,
//! 24.11.5, 26.05.5): every node the fewest CPUs that it may have, and what is left over to the first ones, as
//! much as they can have (`-N3 -n8`: 6, 1, 1). A job that has its nodes whole gets all their CPUs. Of memory it
//! gets what it asks by CPU or by node; where that cannot be told, the larger counts.

use crate::view::{GpusBy, MemoryBy, Request, Shape, SlurmJob};
use crate::world::JobPartition;
use std::fmt;

/// A job's VMs: sizes, and how many of each, the largest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vms(Vec<(Shape, u32)>);

impl Vms {
    /// So many of one size.
    #[must_use]
    pub fn alike(shape: Shape, count: u32) -> Self {
        Self(vec![(shape, count)])
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let counts = self.0.iter().map(|(_, count)| *count);
        counts.fold(0, u32::saturating_add)
    }

    /// The sizes, and how many of each.
    #[must_use]
    pub fn sizes(&self) -> &[(Shape, u32)] {
        &self.0
    }

    /// The size of the largest.
    #[must_use]
    pub fn largest(&self) -> Option<&Shape> {
        self.0.first().map(|(shape, _)| shape)
    }

    /// The VMs of so many such jobs.
    #[must_use]
    pub fn times(mut self, jobs: u32) -> Self {
        for (_, count) in &mut self.0 {
            *count = count.saturating_mul(jobs);
        }
        self
    }

    /// The largest ones, no more than so many.
    #[must_use]
    pub fn largest_of(mut self, mut wanted: u32) -> Self {
        for (_, count) in &mut self.0 {
            *count = (*count).min(wanted);
            wanted -= *count;
        }
        self
    }
}

impl fmt::Display for Vms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (shape, count)) in self.0.iter().enumerate() {
            let and = if n > 0 { " and " } else { "" };
            write!(f, "{and}{count} x ({} CPUs, {} MiB)", shape.cpus, shape.memory_mb)?;
        }
        Ok(())
    }
}

/// The fewest and the most nodes that Slurm may give a job.
#[must_use]
pub fn node_counts(job: &SlurmJob, partition: &JobPartition) -> (u32, u32) {
    let request = &job.request;
    let for_cpus = request.cpus.div_ceil(most_cpus(request, partition));
    let for_gpus = match request.gpus_by {
        GpusBy::Job if partition.gpus > 0 => request.gpus.div_ceil(partition.gpus),
        GpusBy::Job | GpusBy::Node | GpusBy::Task(_) => 0,
    };
    let fewest = for_cpus.max(for_gpus).max(request.nodes).max(1);
    (fewest, fewest.max(request.most_nodes))
}

/// How big the VMs of a job are if it gets so many nodes.
#[must_use]
pub fn guess(job: &SlurmJob, partition: &JobPartition, nodes: u32, share: Option<u32>) -> Vms {
    let (request, most) = (&job.request, &partition.most);
    let vms = shared_out(request, partition, nodes.max(1)).into_iter();
    let shape = |cpus| Shape {
        cpus,
        memory_mb: memory_mb(request, most, cpus),
        share_percent: share.unwrap_or(most.share_percent),
    };
    Vms(vms.map(|(cpus, count)| (shape(cpus), count)).collect())
}

/// The most CPUs that a job can have on one node: whole tasks, with GPUs for each, and memory for each CPU.
fn most_cpus(request: &Request, partition: &JobPartition) -> u32 {
    let most = &partition.most;
    let mut cpus = most.cpus;
    if let GpusBy::Task(gpus) = request.gpus_by {
        let tasks = partition.gpus / gpus;
        cpus = cpus.min(tasks.saturating_mul(request.task_cpus.max(1)));
    }
    if request.memory_by == MemoryBy::Cpu && request.memory_mb > 0 && !request.whole_nodes {
        let fitting = most.memory_mb.saturating_mul(request.cpus.into()) / request.memory_mb;
        cpus = cpus.min(u32::try_from(fitting).unwrap_or(u32::MAX));
    }
    if (2..=cpus).contains(&request.task_cpus) {
        cpus -= cpus % request.task_cpus;
    }
    cpus.max(request.node_cpus).max(1)
}

/// The CPUs of each node, and of how many nodes; the most first.
fn shared_out(request: &Request, partition: &JobPartition, nodes: u32) -> Vec<(u32, u32)> {
    let asked = request.cpus.div_ceil(nodes).max(1);
    if request.whole_nodes {
        return vec![(asked.max(partition.most.cpus), nodes)];
    }
    let least = request.node_cpus.max(1);
    let most = most_cpus(request, partition);
    let left = request.cpus.saturating_sub(least.saturating_mul(nodes));
    let capacity = most - least;
    let full = left.checked_div(capacity).unwrap_or(0);
    if full >= nodes {
        // Too much for so many, or just enough.
        return vec![(asked.max(least), nodes)];
    }
    let part = left - full * capacity;
    let one = u32::from(part > 0);
    let mut vms = vec![(most, full), (least + part, one), (least, nodes - full - one)];
    vms.retain(|(_, count)| *count > 0);
    vms
}

/// The memory of a VM with so many CPUs.
fn memory_mb(request: &Request, most: &Shape, cpus: u32) -> u64 {
    let all = request.memory_mb;
    let by_node = all.div_ceil(request.nodes.max(1).into());
    let by_cpu = all
        .saturating_mul(cpus.into())
        .div_ceil(request.cpus.max(1).into());
    match request.memory_by {
        _ if all == 0 => most.memory_mb,
        MemoryBy::Node => by_node,
        MemoryBy::Cpu if request.whole_nodes => by_cpu.min(most.memory_mb),
        MemoryBy::Cpu => by_cpu,
        MemoryBy::Unknown => by_node.max(by_cpu.min(most.memory_mb)),
    }
}
