use super::*;
use std::path::Path;
use thiao_core::view::ArrayTasks;

/// Jobs' own VMs in these partitions; ada may share cores in the first.
fn config(partitions: &[&str]) -> Config {
    let mut text =
        "cluster = \"c\"\n[[nodeset]]\nname = \"fg\"\nnodes = \"fg[0-1]\"\nmemory_mb = 200\n".to_owned();
    for (n, partition) in partitions.iter().enumerate() {
        text.push_str(&format!(
            "[[nodeset]]\nname = \"s{n}\"\nnodes = \"s{n}x[0-1]\"\nmemory_mb = 200\nmode = \"job\"\npartition = \"{partition}\"\n"
        ));
    }
    text.push_str("[[vm_options]]\npartition = \"jobs\"\nuser = \"ada\"\nshare = \"25-100\"\n");
    thiao_config::from_text(Path::new("/thiao.toml"), &text).unwrap()
}

fn job(id: u32, state: JobState, array: Option<(u32, &[u32])>) -> SlurmJob {
    SlurmJob {
        user: "ada".into(),
        partition: "vm".into(),
        state,
        array: array.map(|(job, tasks)| ArrayTasks {
            job: JobId(job),
            tasks: tasks.to_vec(),
        }),
        ..SlurmJob::new(JobId(id))
    }
}

/// 17 waits; of array 20 tasks 0 and 2 wait, 1 runs as 21.
fn slurm() -> SlurmView {
    let jobs = [
        job(17, JobState::Pending, None),
        job(18, JobState::Running, None),
        job(20, JobState::Pending, Some((20, &[0, 2]))),
        job(21, JobState::Running, Some((20, &[1]))),
        SlurmJob {
            user: "bob".into(),
            partition: "jobs".into(),
            ..job(30, JobState::Pending, None)
        },
    ];
    SlurmView {
        jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
        ..SlurmView::default()
    }
}

fn give(name: &str, partitions: &[&str], options: &str) -> Result<Giving, ApiError> {
    let options = VmOptions::parse(options).unwrap();
    giving(
        Some(&slurm()),
        &config(partitions),
        name.parse().unwrap(),
        &options,
    )
}

#[track_caller]
fn given(name: &str, record: u32, partition: &str) {
    let giving = give(name, &["jobs"], "share=50").unwrap();
    let expected = Giving {
        name: name.parse().unwrap(),
        record: JobId(record),
        partition: partition.to_owned(),
        licenses: String::new(),
    };
    assert_eq!(giving, expected);
}

#[test]
fn a_waiting_job_can_be_given_vms() {
    given("17", 17, "jobs");
    given("20", 20, "jobs");
    given("20_2", 20, "jobs");
}

#[test]
fn what_cannot_be_given_is_refused_with_the_reason() {
    let refused = |name: &str, partitions: &[&str], options: &str| {
        give(name, partitions, options).map(drop).unwrap_err()
    };
    let conflict = |text: &str| ApiError::Conflict(text.to_owned());
    assert_eq!(
        refused("18", &["jobs"], ""),
        conflict("job 18 is RUNNING: only a pending job can still be given VMs of its own")
    );
    assert!(matches!(refused("20_1", &["jobs"], ""), ApiError::Conflict(_)));
    for unknown in ["19", "20_3", "17_0"] {
        assert_eq!(
            refused(unknown, &["jobs"], ""),
            ApiError::NotFound(format!("Slurm has no job {unknown} in its queue"))
        );
    }
    let ApiError::Conflict(none) = refused("17", &[], "") else {
        panic!()
    };
    assert!(none.contains("mode = \"job\""), "{none}");
    assert_eq!(
        refused("17", &["jobs", "big"], ""),
        conflict("job 17 can get VMs in big, jobs: choose with `scontrol update JobId=17 Partition=big`")
    );
    // In its own partition, by the rules for its own user.
    assert_eq!(give("30", &["jobs", "big"], "").unwrap().partition, "jobs");
    let ApiError::Forbidden(why) = refused("30", &["jobs"], "share=50") else {
        panic!()
    };
    assert!(why.contains("user bob in partition jobs"), "{why}");
    let ApiError::Forbidden(why) = refused("17", &["jobs"], "share=20") else {
        panic!()
    };
    assert!(why.contains("only 25 to 100"), "{why}");
}

#[test]
fn without_an_observation_of_slurm_nothing_is_given_or_taken() {
    let name = "17".parse().unwrap();
    let refused = giving(None, &config(&["jobs"]), name, &VmOptions::default());
    assert!(matches!(refused, Err(ApiError::Unavailable(_))), "{refused:?}");
    assert_eq!(may_be_there(None, JobId(17)), None);
}

#[test]
fn only_what_surely_runs_nowhere_is_cleaned_up() {
    let there = |id, state| {
        let mut slurm = slurm();
        slurm.jobs.insert(JobId(id), job(id, state, None));
        may_be_there(Some(&slurm), JobId(id)).unwrap()
    };
    for state in [
        JobState::Configuring,
        JobState::Running,
        JobState::Suspended,
        JobState::Unknown("NEW".into()),
    ] {
        assert!(there(40, state.clone()), "{state:?}");
    }
    for state in [
        JobState::Pending,
        JobState::Completing,
        JobState::Over("FAILED".into()),
    ] {
        assert!(!there(40, state.clone()), "{state:?}");
    }
    assert_eq!(may_be_there(Some(&slurm()), JobId(99)), Some(false));
}
