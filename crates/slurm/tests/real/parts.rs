//! Heterogeneous jobs in job mode, through their whole life: all parts go the same way.

use std::time::Duration;
use thiao_core::ids::JobId;
use thiao_core::view::{Gate, JobState, SlurmJob, WaitsFor};
use thiao_slurm::gate::Admission;
use thiao_testkit::slurmctld::{Ctld, inside};

/// What is asked of a job's parts.
trait Parts {
    /// A job's parts, by their ids; none when it is over.
    fn parts(&self, leader: JobId) -> Vec<SlurmJob>;

    /// Lets all parts go, as the planner does.
    fn admit_parts(&self, leader: JobId);

    fn until_parts(&self, what: &str, leader: JobId, state: &JobState);

    fn until_parts_wait(&self, what: &str, leader: JobId);
}

impl Parts for Ctld {
    fn parts(&self, leader: JobId) -> Vec<SlurmJob> {
        let jobs = self.slurm.observe().unwrap().jobs;
        jobs.into_values().filter(|job| job.het == Some(leader)).collect()
    }

    fn admit_parts(&self, leader: JobId) {
        let whole = |job: SlurmJob| Admission {
            job: job.id,
            array: None,
            nodes: None,
            licenses: job.licenses,
        };
        let all: Vec<Admission> = self.parts(leader).into_iter().map(whole).collect();
        for (job, result) in self.slurm.admit(&all) {
            assert!(result.is_ok(), "{job}: {result:?}");
        }
    }

    fn until_parts(&self, what: &str, leader: JobId, state: &JobState) {
        self.until(what, |c| {
            let parts = c.parts(leader);
            parts.len() == 2 && parts.iter().all(|part| part.state == *state)
        });
    }

    fn until_parts_wait(&self, what: &str, leader: JobId) {
        self.until_parts(what, leader, &JobState::Pending);
        self.until(what, |c| {
            let parts = c.parts(leader);
            let held = |part: &SlurmJob| {
                part.reason.has(&WaitsFor::Release) || part.reason.has(&WaitsFor::BeginTime)
            };
            parts.iter().all(|part| part.gate == Gate::Waits && !held(part))
        });
        let licenses: Vec<String> = self.parts(leader).into_iter().map(|part| part.licenses).collect();
        assert_eq!(licenses, ["a:1", ""], "{what}: each part has its own");
    }
}

/// The nodes end with it.
fn cancelled_while_its_nodes_power_up(ctld: &Ctld, job: JobId) {
    ctld.admit_parts(job);
    ctld.until_parts("both parts have nodes again", job, &JobState::Configuring);
    let nodes: Vec<_> = ctld.parts(job).into_iter().flat_map(|part| part.nodes).collect();
    ctld.slurm
        .end_with_job(&nodes, "thiao: ends with its job")
        .unwrap();
    ctld.run(false, &["scancel", &job.to_string()]).unwrap();
    ctld.until("both parts are over", |c| c.parts(job).is_empty());
    ctld.slurm
        .power_down_now(&nodes, "thiao: its job is over")
        .unwrap();
    ctld.until("their nodes are free", |c| {
        nodes.iter().all(|name| {
            let node = c.node(name.as_str());
            node.flags.powered_down && !node.may_run_job()
        })
    });
}

#[test]
fn a_heterogeneous_job_goes_through_its_life_as_one() {
    let Some(dir) = inside("parts::a_heterogeneous_job_goes_through_its_life_as_one") else {
        return;
    };
    let ctld = crate::job_mode::start(dir);
    let submit = |run: &str| {
        let first = ["-p", "jobs", "-c2", "-L", "a:1", "--wrap", run];
        let second = [":", "-p", "jobs", "-c1", "--mem=300"];
        ctld.sbatch(&[&first[..], &second[..]].concat())
    };
    // No part waits for VMs when the first does not.
    let refused = ctld.submit(None, &["-p", "vm", "--wrap", "true", ":", "-p", "jobs"]);
    let why = refused.unwrap_err();
    assert!(why.contains("the first part of a heterogeneous job"), "{why}");
    let job = submit("sleep 60");
    ctld.until_parts_wait("both parts wait at the gate", job);

    // Put back while they wait for their nodes: once by the leader, once by the other part.
    ctld.hold(true);
    for by in 0..2 {
        ctld.admit_parts(job);
        assert!(ctld.parts(job).iter().all(|part| part.gate == Gate::Open));
        ctld.until_parts("both parts have nodes", job, &JobState::Configuring);
        let part = ctld.parts(job).swap_remove(by);
        let comment = "vm: ; put back: no capacity";
        ctld.slurm.put_back(part.id, &part.licenses, comment).unwrap();
        ctld.until_parts_wait("both parts wait once more", job);
        let part = ctld.parts(job).swap_remove(by);
        assert_eq!(part.admin_comment.as_deref(), Some(comment));
        // Again is harmless.
        ctld.slurm.reopen(part.id, &part.licenses).unwrap();
        ctld.until_parts_wait("both parts still wait", job);
    }

    // Admitted, and not started by Slurm: by either part.
    ctld.run(false, &["scontrol", "hold", &job.to_string()]).unwrap();
    for by in 0..2 {
        ctld.admit_parts(job);
        let part = ctld.parts(job).swap_remove(by);
        assert_eq!(part.gate, Gate::Open);
        let admission = Admission {
            job: part.id,
            array: None,
            nodes: None,
            licenses: part.licenses,
        };
        ctld.slurm.close_gate(&admission).unwrap();
        assert!(ctld.parts(job).iter().all(|part| part.gate == Gate::Waits));
    }
    ctld.run(false, &["scontrol", "release", &job.to_string()])
        .unwrap();
    ctld.until_parts_wait("both parts wait, released", job);

    cancelled_while_its_nodes_power_up(&ctld, job);

    // One that runs, put back from there, and runs to its end.
    ctld.hold(false);
    let job = submit("sleep 8");
    ctld.admit_parts(job);
    ctld.until_parts("both parts run", job, &JobState::Running);
    ctld.slurm
        .put_back(job, "a:1", "vm: ; put back: its host died")
        .unwrap();
    ctld.until_parts_wait("both parts wait after they ran", job);
    // A live slurmd takes no credential of the second in which it revoked the job's: "Job credential revoked", and
    // the job is over (24.11.5). In job mode each run has another VM.
    std::thread::sleep(Duration::from_secs(2));
    ctld.admit_parts(job);
    ctld.until_parts("both parts run once more", job, &JobState::Running);
    ctld.until("both parts are done", |c| c.parts(job).is_empty());
}
