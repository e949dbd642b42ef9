//! What may keep slurmctld from answering.

use crate::QUICK;
use std::time::{Duration, Instant};
use thiao_core::ids::JobId;
use thiao_core::view::{JobEnd, JobState, Whose};
use thiao_testkit::ids::node;
use thiao_testkit::slurmctld::{Ctld, inside};

/// Nothing resolves the names of the nodes here.
#[test]
fn slurmctld_answers_while_a_job_whose_nodes_boot_is_cancelled() {
    let Some(dir) = inside("answers::slurmctld_answers_while_a_job_whose_nodes_boot_is_cancelled") else {
        return;
    };
    let ctld = Ctld::start_with(dir, QUICK, |_| {}, "");
    ctld.hold(true);
    let job = ctld.sbatch(&["-N2", "-w", "n[1-2]", "--wrap", "sleep 60"]);
    ctld.until("its nodes power up", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Configuring) && c.node("n2").flags.powering_up
    });
    ctld.slurm.no_address_yet(&[node("n1"), node("n2")]).unwrap();
    ctld.run(false, &["scancel", &job.to_string()]).unwrap();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        assert!(ctld.slurm.ping().unwrap().is_up());
        ctld.slurm.observe().unwrap();
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("the slowest answer took {slowest:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");

    // A node's slurmd brings its address all the same. (The two may not be off before ResumeTimeout.)
    let job = ctld.sbatch(&["-w", "n3", "--wrap", "sleep 60"]);
    ctld.until("n3 powers up", |c| c.node("n3").flags.powering_up);
    ctld.slurm.no_address_yet(&[node("n3")]).unwrap();
    ctld.hook("Start", "n3");
    ctld.until("the job runs", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
    assert_eq!(ctld.slurm.details().unwrap()[&node("n3")].address, "10.9.0.13");
}

/// What slurmd itself drains its node for is told from what people do, and only that is lifted.
#[test]
fn of_drains_only_slurms_own_are_lifted() {
    let Some(dir) = inside("answers::of_drains_only_slurms_own_are_lifted") else {
        return;
    };
    let ctld = Ctld::start_with(dir, QUICK, |_| {}, "");
    let drain = |name: &str, reason: &str| {
        let words = [
            "scontrol",
            "update",
            &format!("NodeName={name}"),
            "State=drain",
            &format!("Reason={reason}"),
        ];
        ctld.run(false, &words).unwrap();
    };
    drain("n1", "SlurmdSpoolDir is full");
    drain("n2", "a look at it");
    drain("n3", "SlurmdSpoolDir is full, have a look");
    let view = ctld.slurm.observe().unwrap();
    let whose = |name: &str| view.nodes[&node(name)].reason.as_ref().map(|reason| reason.whose);
    assert_eq!(whose("n1"), Some(Whose::ItsVm));
    assert_eq!(whose("n2"), Some(Whose::Others));
    assert_eq!(whose("n3"), Some(Whose::Others));
    assert!(view.nodes[&node("n1")].drain_of_its_vm().is_some());
    let all = ["n1", "n2", "n3"].map(node);
    ctld.slurm.undrain(&all).unwrap();
    let drained = all.map(|name| ctld.node(name.as_str()).flags.drain);
    assert_eq!(drained, [false, true, true]);
    // Who set it, scontrol says.
    let text = ctld
        .run(false, &["scontrol", "-a", "-o", "show", "node", "n2"])
        .unwrap();
    let setters = thiao_slurm::details::parse_setters(&text).unwrap();
    assert_eq!(setters[&node("n2")], "root");
}

/// How jobs ended is told as long as slurmctld knows it; of those that go on, and of those that it does not know,
/// nothing.
#[test]
fn slurmctld_tells_how_jobs_ended() {
    let Some(dir) = inside("answers::slurmctld_tells_how_jobs_ended") else {
        return;
    };
    let ctld = Ctld::start(dir, QUICK, |_| {});
    let scripts = ["exit 7", "kill -9 $$", "true", "sleep 60"];
    let jobs = scripts.map(|script| ctld.sbatch(&["-w", "n1", "--wrap", script]));
    let [.., goes_on] = jobs;
    ctld.until("the last one runs", |c| {
        c.job(goes_on).is_some_and(|job| job.state == JobState::Running)
    });
    let mut asked = jobs.to_vec();
    asked.push(JobId(4711));
    let ends = ctld.slurm.ends(&asked).unwrap();
    let ends: Vec<(JobId, JobEnd)> = ends.into_iter().map(|ended| (ended.job, ended.end)).collect();
    let [first, second, third, _] = jobs;
    for wanted in [
        (first, JobEnd::Failed(7)),
        (second, JobEnd::Killed(9)),
        (third, JobEnd::Completed),
    ] {
        assert!(ends.contains(&wanted), "{wanted:?}: {ends:?}");
    }
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(ctld.slurm.ends(&[JobId(4711)]).unwrap(), []);
}
