//! Jobs that ask for a range of nodes, and those whose nodes get unlike parts of them.

use super::job_mode::{job_mode_world, waiting};
use super::*;
use crate::size::{guess, node_counts};
use crate::view::{GpusBy, MemoryBy};
use proptest::prelude::*;

/// A job of `nodes` to `most` nodes with `cpus` CPUs in all, and so much memory on each.
fn range(id: u32, (nodes, most): (u32, u32), cpus: u32, memory_mb: u64) -> SlurmJob {
    let mut job = waiting(id, nodes, memory_mb, 10);
    job.request.cpus = cpus;
    job.request.most_nodes = most;
    job.request.node_cpus = 1;
    job.request.memory_by = MemoryBy::Node;
    job
}

fn part(id: u32, leader: u32, counts: (u32, u32)) -> SlurmJob {
    SlurmJob {
        het: Some(JobId(leader)),
        ..range(id, counts, counts.0, 50)
    }
}

/// Which are admitted, of an array how many tasks, and the count of nodes that is fixed.
fn admitted(actions: &[Action]) -> Vec<(u32, usize, Option<u32>)> {
    let of = |action: &Action| match action {
        Action::Job(job, JobVerb::Admit { array, nodes, .. }) => Some((
            job.0,
            array.as_ref().map_or(0, |array| array.tasks.len()),
            nodes.map(|nodes| nodes.get()),
        )),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn a_range_gets_the_most_nodes_that_have_capacity() {
    // The hosts have 2 cores and 300 MiB each, a VM needs 50 MiB more than its job.
    for (counts, cpus, memory_mb, fixed) in [
        ((1, 3), 1, 50, Some(3)),
        ((1, 9), 1, 50, Some(4)),
        ((1, 4), 1, 200, Some(2)),
        ((2, 4), 2, 120, Some(2)),
        // No host has 4 cores, and no slot.
        ((1, 3), 4, 50, Some(3)),
        ((1, 2), 4, 50, None),
        ((3, 3), 3, 50, None),
    ] {
        let mut w = job_mode_world();
        w.submit(range(1, counts, cpus, memory_mb));
        assert_eq!(
            admitted(&w.tick()),
            [(1, 0, fixed)],
            "{counts:?} {cpus} {memory_mb}"
        );
    }
    // What others have is not given away once more.
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        priority: 20,
        ..range(1, (1, 3), 1, 50)
    });
    w.submit(range(2, (1, 3), 1, 50));
    assert_eq!(admitted(&w.tick()), [(1, 0, Some(3)), (2, 0, Some(1))]);
    w.submit(SlurmJob {
        priority: 30,
        ..waiting(3, 3, 50, 30)
    });
    assert_eq!(admitted(&w.tick()), []);
}

#[test]
fn a_range_without_capacity_waits_and_its_reason_is_told() {
    let mut w = job_mode_world();
    w.submit(range(1, (3, 4), 3, 200));
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(1)[0].starts_with(
            "waits for capacity for 3 x (1 CPUs, 200 MiB), or for up to 4 VMs: its VMs do not all"
        ),
        "{:?}",
        w.held_of(1)
    );
    w.observe(|view| drop(view.nodes.remove(&node("n0"))));
    w.observe(|view| drop(view.nodes.remove(&node("n1"))));
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(1)[0].ends_with("fewer than 3 nodes of its partition are free"),
        "{:?}",
        w.held_of(1)
    );
}

#[test]
fn tasks_of_one_observation_get_the_same_count() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        array: Some(ArrayTasks {
            job: JobId(1),
            tasks: (0..9).collect(),
        }),
        ..range(1, (1, 2), 1, 50)
    });
    let actions = w.tick();
    assert_eq!(admitted(&actions), [(1, 2, Some(2))]);
    assert_eq!(actions[0].to_string(), "admit 2 tasks of job 1, with 2 nodes");
}

#[test]
fn parts_of_a_heterogeneous_job_have_no_choice() {
    let mut w = job_mode_world();
    w.submit(part(1, 1, (1, 1)));
    w.submit(part(2, 1, (1, 2)));
    assert_eq!(w.tick(), []);
    let why = w.held_of(2);
    assert!(
        why[0].contains("asks for 1 to 2 nodes") && why[0].contains("-N1"),
        "{why:?}"
    );
    w.observe(|view| view.jobs.get_mut(&JobId(2)).unwrap().request.most_nodes = 1);
    assert_eq!(admitted(&w.tick()), [(1, 0, None), (2, 0, None)]);
}

#[test]
fn the_linter_refuses_fewer_nodes_than_a_job_asks_for() {
    let mut w = job_mode_world();
    w.submit(range(1, (2, 3), 2, 50));
    let mut plan = plan(&w);
    let Action::Job(_, JobVerb::Admit { nodes, .. }) = &mut plan.steps[0].action else {
        panic!("{plan:?}")
    };
    *nodes = std::num::NonZeroU32::new(1);
    let refused = crate::lint::lint(&w, &plan).1;
    assert!(
        format!("{refused:?}").contains("2 nodes at the least"),
        "{refused:?}"
    );
}

#[test]
fn the_first_node_gets_what_is_left_over() {
    let w = job_mode_world();
    let mut partition = w.job_partitions["jobs"].clone();
    (partition.most.cpus, partition.most.memory_mb) = (64, 4 << 20);
    let size = |nodes: u32, cpus: u32, node_cpus: u32, task_cpus: u32, by: MemoryBy, memory_mb: u64| {
        let mut job = range(1, (nodes, nodes), cpus, 0);
        (job.request.node_cpus, job.request.task_cpus) = (node_cpus, task_cpus);
        (job.request.memory_by, job.request.memory_mb) = (by, memory_mb);
        let (fewest, _) = node_counts(&job, &partition);
        guess(&job, &partition, fewest, None).to_string()
    };
    let (cpu, node) = (MemoryBy::Cpu, MemoryBy::Node);
    for (guessed, wanted) in [
        (
            size(3, 8, 1, 1, cpu, 800),
            "1 x (6 CPUs, 600 MiB) and 2 x (1 CPUs, 100 MiB)",
        ),
        (
            size(3, 100, 1, 1, cpu, 10_000),
            "1 x (64 CPUs, 6400 MiB) and 1 x (35 CPUs, 3500 MiB) and 1 x (1 CPUs, 100 MiB)",
        ),
        (
            size(2, 6, 1, 1, node, 600),
            "1 x (5 CPUs, 300 MiB) and 1 x (1 CPUs, 300 MiB)",
        ),
        (
            size(2, 10, 2, 2, cpu, 1000),
            "1 x (8 CPUs, 800 MiB) and 1 x (2 CPUs, 200 MiB)",
        ),
        (size(2, 8, 7, 1, cpu, 800), "2 x (7 CPUs, 700 MiB)"),
        (size(1, 1, 4, 1, cpu, 100), "1 x (4 CPUs, 400 MiB)"),
        (size(1, 120, 40, 40, cpu, 12_000), "3 x (40 CPUs, 4000 MiB)"),
        (
            size(1, 5, 1, 1, cpu, 5 << 20),
            "1 x (4 CPUs, 4194304 MiB) and 1 x (1 CPUs, 1048576 MiB)",
        ),
        (size(2, 128, 1, 1, node, 600), "2 x (64 CPUs, 300 MiB)"),
    ] {
        assert_eq!(guessed, wanted);
    }
}

proptest! {
    /// All of a job is shared out, to as many nodes as it gets, and no node gets more than it has.
    #[test]
    fn nothing_is_left_over(cpus in 0u32..300, nodes in 1u32..6, more in 0u32..5, node_cpus in 0u32..5, task_cpus in 0u32..5, by_cpu in any::<bool>(), memory in 0u64..400) {
        let w = job_mode_world();
        let mut partition = w.job_partitions["jobs"].clone();
        partition.most.cpus = 8;
        let mut job = range(1, (nodes, nodes + more), cpus, 0);
        (job.request.node_cpus, job.request.task_cpus) = (node_cpus, task_cpus);
        job.request.memory_by = if by_cpu { MemoryBy::Cpu } else { MemoryBy::Node };
        job.request.memory_mb = memory * u64::from(if by_cpu { cpus } else { nodes });
        let (fewest, most) = node_counts(&job, &partition);
        prop_assert!(nodes <= fewest && fewest <= most);
        for count in fewest..=most {
            let vms = guess(&job, &partition, count, None);
            prop_assert_eq!(vms.count(), count);
            let sizes = vms.sizes();
            let all: u32 = sizes.iter().map(|(shape, count)| shape.cpus * count).sum();
            prop_assert!(all >= cpus && all <= cpus.max(count * node_cpus.max(1)), "{vms}");
            prop_assert!(sizes.is_sorted_by(|a, b| a.0.cpus > b.0.cpus), "{vms}");
            prop_assert!(sizes[0].0.cpus <= 8, "{vms}");
        }
    }
}

#[test]
fn a_part_whose_leader_waits_for_no_vms_is_told_why_it_stays() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        partition: "vm".into(),
        het: Some(JobId(1)),
        ..SlurmJob::new(JobId(1))
    });
    w.submit(SlurmJob {
        het: Some(JobId(1)),
        ..waiting(2, 1, 100, 9)
    });
    assert_eq!(w.tick(), []);
    let why = w.held_of(2);
    assert!(why[0].contains("starts with job 1, in partition vm"), "{why:?}");
}

#[test]
fn a_job_with_gpus_in_all_gets_the_fewest_nodes_that_have_them() {
    let mut w = job_mode_world();
    w.job_partitions.get_mut("jobs").unwrap().gpus = 2;
    let mut job = range(1, (1, 4), 1, 50);
    (job.request.gpus, job.request.gpus_by) = (3, GpusBy::Job);
    w.submit(job);
    assert_eq!(admitted(&w.tick()), [(1, 0, Some(2))]);
    // Two tasks with one GPU each fit on a node.
    let mut job = range(2, (1, 1), 3, 50);
    job.request.task_cpus = 1;
    (job.request.gpus, job.request.gpus_by) = (3, GpusBy::Task(std::num::NonZeroU32::MIN));
    let partition = &w.job_partitions["jobs"];
    assert_eq!(node_counts(&job, partition), (2, 2));
    assert_eq!(
        guess(&job, partition, 2, None).to_string(),
        "1 x (2 CPUs, 50 MiB) and 1 x (1 CPUs, 50 MiB)"
    );
}
