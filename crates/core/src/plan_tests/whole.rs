//! Jobs that have their nodes whole (`--exclusive`): their size is that of the whole slot.

use super::job_mode::{admitted, job_mode_world, waiting};
use super::*;
use crate::size::guess;
use proptest::prelude::*;

fn whole(id: u32, nodes: u32, memory_mb: u64) -> SlurmJob {
    let mut job = waiting(id, nodes, memory_mb, 10);
    job.request.whole_nodes = true;
    job
}

#[test]
fn a_job_with_whole_nodes_waits_for_the_whole_capacity() {
    // Hosts have 300 MiB each, slots 2 CPUs, and a VM needs 50 MiB more than its job.
    let mut w = job_mode_world();
    w.submit(whole(1, 3, 90));
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(1)[0].starts_with("waits for capacity for 3 x (2 CPUs, 180 MiB)"),
        "{:?}",
        w.held_of(1)
    );
    // Its CPUs alone would be on one host with another VM's.
    let mut w = job_mode_world();
    w.submit(whole(1, 2, 90));
    w.submit(waiting(2, 1, 90, 5));
    assert_eq!(admitted(&w.tick()), [1]);
}

proptest! {
    /// Whether memory was asked by CPU or by node: what Slurm gives is no more than what was guessed.
    #[test]
    fn what_is_given_is_never_more_than_what_was_guessed(cpus in 1u32..8, nodes in 1u32..4, memory in 1u64..400, by_cpu in any::<bool>()) {
        let w = job_mode_world();
        let partition = &w.job_partitions["jobs"];
        let most = partition.most;
        // More than a slot has is refused by Slurm when it is submitted.
        let each = cpus.min(most.cpus);
        let memory = if by_cpu { memory.min(most.memory_mb / u64::from(most.cpus)) } else { memory.min(most.memory_mb) };
        let mut job = whole(1, nodes, 0);
        job.request.cpus = each * nodes;
        job.request.memory_mb = u64::from(nodes) * memory * if by_cpu { u64::from(each) } else { 1 };
        let guessed = guess(&job, partition, nodes, None);
        prop_assert_eq!(guessed.count(), nodes);
        let guessed = *guessed.largest().unwrap();
        let given = memory * if by_cpu { u64::from(most.cpus) } else { 1 };
        prop_assert_eq!(guessed.cpus, most.cpus);
        prop_assert!((given..=most.memory_mb).contains(&guessed.memory_mb), "{guessed:?} for {given}");
        prop_assert!(!by_cpu || guessed.memory_mb == given);
    }
}
