//! Jobs of users whom the guests do not know are held with the reason, and get no VM.

use super::job_mode::{job_mode_world, waiting};
use super::*;

const STRANGER: u32 = 4242;

fn known() -> Option<Arc<std::collections::BTreeSet<u32>>> {
    Some(Arc::new([0, 1000].into()))
}

impl World {
    fn given(&mut self, uid: u32, state: JobState) {
        let job = SlurmJob {
            uid,
            user: "eve".into(),
            nodes: vec![node("n0")],
            state,
            ..SlurmJob::new(JobId(5))
        };
        let mut view = self.slurm.as_deref().cloned().unwrap();
        view.jobs.insert(job.id, job);
        self.pass(Millis(1));
        let now = self.now;
        self.see_slurm(view, now);
    }
}

#[test]
fn a_job_of_a_stranger_is_held_before_a_vm_is_made() {
    let mut w = world();
    w.guests_know = known();
    w.ask_up("n0");
    w.given(STRANGER, JobState::Configuring);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["refuse"]);
    assert!(
        actions[0]
            .to_string()
            .contains("user eve (uid 4242) is not known in the VMs"),
        "{}",
        actions[0]
    );
    assert_eq!(w.tick(), [], "once");
    let (told, _) = w.ended(&actions[0], &crate::fold::Outcome::Done);
    assert_eq!(told[0].kind.word(), "job-refused");
    // It is no longer there: what its node was asked for is backed, as Slurm waits for it.
    w.pass(Millis(1));
    w.observe(|view| view.jobs.clear());
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn who_is_known_runs_and_where_nobody_knows_everybody_does() {
    for (known, uid) in [(known(), 1000), (None, STRANGER)] {
        let mut w = world();
        w.guests_know = known;
        w.ask_up("n0");
        w.given(uid, JobState::Configuring);
        assert_eq!(kinds(&w.tick()), ["create"]);
    }
}

#[test]
fn what_may_run_or_is_elsewhere_is_left_alone() {
    for state in [
        JobState::Running,
        JobState::Suspended,
        JobState::Completing,
        JobState::Unknown("ODD".into()),
    ] {
        let mut w = world();
        w.guests_know = known();
        w.given(STRANGER, state.clone());
        assert_eq!(w.tick(), [], "{state:?}");
        let step = crate::plan::Step {
            action: Action::Job(JobId(5), JobVerb::Refuse { why: String::new() }),
            why: String::new(),
        };
        let plan = crate::plan::Plan {
            steps: vec![step],
            held: Vec::new(),
        };
        assert_eq!(lint(&w, &plan).1.len(), 1, "{state:?}");
    }
    // A job that waits, of a partition that is not ours.
    let mut w = world();
    w.guests_know = known();
    w.observe(|view| {
        let job = SlurmJob {
            uid: STRANGER,
            ..SlurmJob::new(JobId(5))
        };
        view.jobs.insert(job.id, job);
    });
    assert_eq!(w.tick(), []);
}

#[test]
fn a_strangers_job_at_the_gate_is_held_and_not_again() {
    let mut w = job_mode_world();
    w.guests_know = known();
    let job = SlurmJob {
        uid: STRANGER,
        ..waiting(9, 1, 200, 5)
    };
    w.submit(job);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["refuse"]);
    w.done(&actions);
    w.observe(|view| {
        view.jobs.get_mut(&JobId(9)).unwrap().reason = JobReason::new("JobHeldAdmin", WaitsFor::Release);
    });
    assert_eq!(w.tick(), []);
}
