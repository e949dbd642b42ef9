//! Job mode's sizes: what is guessed of a job at the gate is what Slurm gives it.

use crate::job_mode::TIMES;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use thiao_core::ids::{JobId, NodesetName};
use thiao_core::size::{guess, node_counts};
use thiao_core::view::{Alloc, ArrayTasks, Gate, JobState, Shape, SlurmJob};
use thiao_core::world::JobPartition;
use thiao_slurm::gate::Admission;
use thiao_testkit::slurmctld::{Ctld, inside, job_nodes};

/// As many slots as names resolve.
const SLOTS: &str = "n[5-20]";

/// Slots with so many GPUs each.
fn start(dir: PathBuf, gpus: u32) -> Ctld {
    let ctld = Ctld::start(dir, TIMES, |lab| {
        let mut slots = job_nodes();
        slots.nodes = SLOTS.into();
        slots.job.as_mut().unwrap().gpus = gpus;
        lab.nodes.push(slots);
    });
    ctld.slurm.ensure_gate().unwrap();
    ctld.hold(true);
    ctld
}

fn partition(gpus: u32) -> JobPartition {
    let slots = job_nodes();
    JobPartition {
        nodesets: [NodesetName::new("jobs").unwrap()].into(),
        most: Shape {
            cpus: slots.cpus,
            memory_mb: slots.memory_mb,
            share_percent: 100,
        },
        gpus,
    }
}

fn admission(job: &SlurmJob, nodes: Option<u32>) -> Admission {
    Admission {
        job: job.id,
        array: job.array.clone(),
        nodes: nodes.map(|nodes| NonZeroU32::new(nodes).unwrap()),
        licenses: job.licenses.clone(),
    }
}

/// What Slurm gave a job, the largest first.
fn given(ctld: &Ctld, job: JobId) -> Vec<(u32, u64)> {
    let view = ctld.slurm.observe().unwrap();
    let allocs = view.jobs[&job].nodes.iter().map(|name| view.nodes[name].alloc);
    let mut sizes: Vec<(u32, u64)> = allocs
        .map(|alloc| {
            let Alloc { cpus, memory_mb, .. } = alloc.unwrap();
            (cpus, memory_mb)
        })
        .collect();
    sizes.sort_by(|one, other| other.cmp(one));
    sizes
}

fn let_go(ctld: &Ctld, admissions: &[Admission]) {
    for (job, told) in ctld.slurm.admit(admissions) {
        assert!(told.is_ok(), "{job}: {told:?}");
    }
}

/// What is asked for; the fewest and the most nodes; how many it is admitted with.
type Case = (&'static str, (u32, u32), u32);

/// Admits jobs with what is guessed of them, and has Slurm give them that; then all nodes are free again.
fn all_get_what_is_guessed(ctld: &Ctld, partition: &JobPartition, cases: &[Case]) {
    let jobs: Vec<_> = cases
        .iter()
        .map(|(asked, counts, nodes)| {
            let words: Vec<&str> = ["-p", "jobs"].into_iter().chain(asked.split(' ')).collect();
            let job = ctld.sbatch(&[&words[..], &["--wrap", "sleep 60"]].concat());
            (job, *asked, *counts, *nodes)
        })
        .collect();
    let seen = ctld.slurm.observe().unwrap().jobs;
    let mut wanted = BTreeMap::new();
    let mut admissions = Vec::new();
    for (job, asked, (fewest, most), nodes) in &jobs {
        let seen = &seen[job];
        assert_eq!(
            node_counts(seen, partition),
            (*fewest, *most),
            "{asked}: {seen:?}"
        );
        let vms = guess(seen, partition, *nodes, None);
        let sizes = vms
            .sizes()
            .iter()
            .flat_map(|(shape, count)| std::iter::repeat_n((shape.cpus, shape.memory_mb), *count as usize));
        wanted.insert(*job, sizes.collect::<Vec<_>>());
        admissions.push(admission(seen, (fewest < most).then_some(*nodes)));
    }
    let_go(ctld, &admissions);
    ctld.until("all have nodes", |c| {
        let all = c.slurm.observe().unwrap().jobs;
        jobs.iter().all(|(job, ..)| !all[job].nodes.is_empty())
    });
    for (job, asked, ..) in &jobs {
        assert_eq!(given(ctld, *job), wanted[job], "{asked}");
        ctld.run(false, &["scancel", &job.to_string()]).unwrap();
    }
    ctld.until("no job is left", |c| c.slurm.observe().unwrap().jobs.is_empty());
    let nodes = ctld.slurm.observe().unwrap().nodes;
    let used: Vec<_> = nodes
        .into_iter()
        .filter(|(_, node)| node.flags.powering_up)
        .map(|(name, _)| name)
        .collect();
    ctld.slurm
        .power_down_now(&used, "thiao: its job is over")
        .unwrap();
    ctld.until("the nodes are free", |c| {
        let mut nodes = c.slurm.observe().unwrap().nodes.into_values();
        nodes.all(|node| node.flags.powered_down && !node.may_run_job())
    });
}

#[test]
fn a_size_that_is_guessed_is_the_one_that_slurm_gives() {
    let Some(dir) = inside("ranges::a_size_that_is_guessed_is_the_one_that_slurm_gives") else {
        return;
    };
    let ctld = start(dir, 0);
    let cases: [Case; 18] = [
        ("-n5", (1, 1), 1),
        ("-n100", (2, 2), 2),
        ("-n3 -c40", (3, 3), 3),
        ("-n5 --mem-per-cpu=1T", (2, 2), 2),
        ("-N1 --mincpus=4", (1, 1), 1),
        ("-n4 --ntasks-per-node=2", (2, 2), 2),
        ("-n4 --ntasks-per-node=2 --mem=300", (2, 2), 2),
        ("-N2 -n8 --ntasks-per-node=7", (2, 2), 2),
        ("-N3 -n100", (3, 3), 3),
        ("-N2 -n5 -c2", (2, 2), 2),
        ("-N2 -n6 --mem=300", (2, 2), 2),
        ("-N2 -n3 --exclusive --mem=300", (2, 2), 2),
        ("-N1-4", (1, 4), 3),
        ("-N2-3 -n8", (2, 3), 3),
        ("-N1-4 -n8 --mem=300", (1, 4), 2),
        ("-N1-3 -c2 --mem=500", (1, 3), 3),
        ("-N2-3 --ntasks-per-node=2 --mem-per-cpu=30", (2, 3), 3),
        ("-N1-3 --exclusive", (1, 3), 2),
    ];
    let partition = partition(0);
    // As many at once as there are nodes.
    for some in cases.chunks(6) {
        all_get_what_is_guessed(&ctld, &partition, some);
    }
}

#[test]
fn gpus_change_what_is_guessed() {
    let Some(dir) = inside("ranges::gpus_change_what_is_guessed") else {
        return;
    };
    let ctld = start(dir, 4);
    let partition = partition(4);
    let cases: [Case; 11] = [
        ("--gpus=2", (1, 1), 1),
        ("--gpus=6", (2, 2), 2),
        ("-N2 --gpus=6", (2, 2), 2),
        ("-N2 --gpus-per-node=2", (2, 2), 2),
        ("-n3 --gpus-per-task=2", (2, 2), 2),
        ("-n8 --gpus-per-task=1", (2, 2), 2),
        ("--gpus=2 -n6", (1, 1), 1),
        ("--gres=gpu:1 -n6 -N2", (2, 2), 2),
        ("-N1-4 --gpus-per-node=1", (1, 4), 3),
        // Not one more than have GPUs.
        ("-N1-4 --gpus=6", (2, 4), 2),
        ("-N1-3 --gpus=3", (1, 3), 1),
    ];
    for some in cases.chunks(6) {
        all_get_what_is_guessed(&ctld, &partition, some);
    }
    for by_gpu in ["--cpus-per-gpu=3", "--mem-per-gpu=500"] {
        let said = ctld
            .submit(None, &["-p", "jobs", "--gpus=2", by_gpu, "--wrap", "true"])
            .unwrap_err();
        let (option, _) = by_gpu.split_once('=').unwrap();
        assert!(said.contains(option), "{said}");
        // Elsewhere that is Slurm's own business.
        if let Err(said) = ctld.submit(None, &["-p", "vm", "--gpus=2", by_gpu, "--wrap", "true"]) {
            assert!(!said.contains("cannot be known"), "{said}");
        }
    }
}

/// Some tasks of an array, and others with another count; the rest keeps its range.
fn tasks_of_an_array_have_counts_of_their_own(ctld: &Ctld, partition: &JobPartition) {
    let array = ctld.sbatch(&["-p", "jobs", "-N1-3", "--array=0-5", "--wrap", "sleep 60"]);
    let tasks = |tasks: &[u32], nodes: u32| Admission {
        job: array,
        array: Some(ArrayTasks {
            job: array,
            tasks: tasks.to_vec(),
        }),
        nodes: NonZeroU32::new(nodes),
        licenses: String::new(),
    };
    let_go(ctld, &[tasks(&[0, 1], 2)]);
    let_go(ctld, &[tasks(&[2], 3)]);
    ctld.until("three tasks have nodes", |c| {
        let jobs = c.slurm.observe().unwrap().jobs;
        jobs.values()
            .filter(|job| job.state == JobState::Configuring)
            .count()
            == 3
    });
    let mut seen: Vec<_> = ctld
        .slurm
        .observe()
        .unwrap()
        .jobs
        .into_values()
        .filter_map(|job| {
            Some((
                job.array.clone()?.tasks,
                job.nodes.len(),
                node_counts(&job, partition).1,
            ))
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            (vec![0], 2, 2),
            (vec![1], 2, 2),
            (vec![2], 3, 3),
            (vec![3, 4, 5], 0, 3)
        ]
    );
}

#[test]
fn a_range_is_fixed_as_its_job_is_let_go() {
    let Some(dir) = inside("ranges::a_range_is_fixed_as_its_job_is_let_go") else {
        return;
    };
    let ctld = start(dir, 0);
    let partition = partition(0);
    let counts = |job: JobId| {
        let seen = ctld.job(job).unwrap();
        (node_counts(&seen, &partition), seen.gate)
    };
    let job = ctld.sbatch(&[
        "-p",
        "jobs",
        "-N1-4",
        "-c2",
        "-L",
        "a:1",
        "--mem=300",
        "--wrap",
        "sleep 60",
    ]);
    assert_eq!(counts(job), ((1, 4), Gate::Waits));
    let seen = ctld.job(job).unwrap();
    let_go(&ctld, &[admission(&seen, Some(2))]);
    assert_eq!(counts(job), ((2, 2), Gate::Open));
    ctld.until("it has its nodes", |c| !c.job(job).unwrap().nodes.is_empty());
    assert_eq!(given(&ctld, job), [(2, 300), (2, 300)]);
    // Put back, it keeps the count.
    let comment = "vm: ; put back: no capacity";
    ctld.slurm.put_back(job, "a:1", comment).unwrap();
    ctld.until("it waits again", |c| c.job(job).unwrap().gate == Gate::Waits);
    assert_eq!(counts(job), ((2, 2), Gate::Waits));
    let back = ctld.job(job).unwrap();
    let size = |job: &SlurmJob| guess(job, &partition, 2, None).to_string();
    assert_eq!(size(&back), "2 x (2 CPUs, 300 MiB)", "{back:?}");
    // Its user may open it again.
    let id = format!("JobId={job}");
    ctld.run(false, &["scontrol", "update", &id, "NumNodes=1-3"])
        .unwrap();
    // 22.05 shows the most of a requeued job only once it was looked at.
    assert_eq!(counts(job).0.0, 1);
    ctld.run(false, &["scancel", &job.to_string()]).unwrap();

    tasks_of_an_array_have_counts_of_their_own(&ctld, &partition);
}

/// Which VMs a job of several partitions gets could not be known at the gate.
#[test]
fn nobody_moves_a_job_into_a_list_of_partitions() {
    let Some(dir) = inside("ranges::nobody_moves_a_job_into_a_list_of_partitions") else {
        return;
    };
    let ctld = start(dir, 0);
    let update = |job: JobId, change: &str| {
        let id = format!("JobId={job}");
        ctld.run(false, &["scontrol", "update", &id, change])
    };
    let at = |job: JobId| {
        let job = ctld.job(job).unwrap();
        (job.partition, job.gate, job.licenses)
    };
    let waits = |partition: &str| (partition.to_owned(), Gate::Waits, "a:1".to_owned());
    // By root, for whom the gate may be opened and closed.
    let job = ctld.sbatch(&["-H", "-p", "jobs", "-L", "a:1", "--wrap", "true"]);
    let other = ctld.sbatch(&["-H", "-p", "vm", "-L", "a:1", "--wrap", "true"]);
    for list in ["jobs,vm", "vm,jobs"] {
        for job in [job, other] {
            let said = update(job, &format!("Partition={list}")).unwrap_err();
            assert!(said.contains("Invalid partition"), "{said}");
        }
    }
    assert_eq!(at(job), waits("jobs"));
    // To one of them it comes by the gate.
    update(other, "Partition=jobs").unwrap();
    assert_eq!(at(other), waits("jobs"));
    let said = update(other, "Partition=vm").unwrap_err();
    assert!(said.contains("Invalid generic resource"), "{said}");

    // One that has such a list already, as of a time before the gate.
    let file = ctld.dir.join(thiao_slurm::lua::FILE);
    let script = std::fs::read_to_string(&file).unwrap();
    let write = |text: &str| {
        // slurmctld looks at the file's time, in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        std::fs::write(&file, text).unwrap();
    };
    write(
        "function slurm_job_submit() return slurm.SUCCESS end\n\
         function slurm_job_modify() return slurm.SUCCESS end\nreturn slurm.SUCCESS\n",
    );
    let old = ctld.sbatch(&["-H", "-p", "vm,jobs", "-L", "a:1", "--wrap", "true"]);
    update(job, "Partition=jobs,vm").unwrap();
    write(&script);
    assert_eq!(at(job).0, "jobs,vm");
    // What else of it is changed is, and one of the two may be named.
    for job in [job, old] {
        update(job, "Comment=x").unwrap();
        update(job, "Partition=jobs").unwrap();
        assert_eq!(at(job), waits("jobs"));
    }
}
