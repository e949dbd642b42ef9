//! Jobs of job mode that do not start: cancelled, not started by Slurm, or put back into the queue.

use super::job_mode::{admitted, job_mode_world, waiting};
use super::*;
use crate::options::VmOptions;

#[test]
fn a_job_that_is_cancelled_while_its_node_comes_up_leaves_nothing() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 100, 10));
    w.allocate(1, &["n0"], 100);
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    let gone = |power_down: bool| {
        move |view: &mut SlurmView| {
            view.jobs.clear();
            let seen = view.nodes.get_mut(&node("n0")).unwrap();
            seen.base = BaseState::Idle;
            seen.flags.power_down = power_down;
        }
    };
    // First no other job can be given it, and then it is powered down.
    w.observe(gone(false));
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
    w.busy.clear();
    w.observe(gone(true));
    assert_eq!(kinds(&w.tick()), ["power-down"]);
    // Slurm's order ends the VM.
    w.busy.clear();
    w.order(&node("n0"), &Order::Down, w.now);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_job_that_slurm_does_not_start_gives_its_capacity_to_others() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        gate: Gate::Open,
        reason: JobReason::new("Reservation", WaitsFor::Other),
        ..waiting(1, 2, 200, 10)
    });
    w.submit(waiting(2, 2, 200, 5));
    assert_eq!(w.tick(), [], "the capacity is the first one's");
    w.pass(w.policy.admit_patience);
    w.observe(|_| {});
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["close-gate", "admit"]);
    assert_eq!(admitted(&actions), [2]);
    // It is not admitted at once again, to hold the capacity of others once more.
    w.gate_closed(JobId(1));
    w.done(&actions);
    w.observe(|view| {
        view.jobs.remove(&JobId(2));
        let job = view.jobs.get_mut(&JobId(1)).unwrap();
        job.gate = Gate::Waits;
        job.reason = JobReason::new("Licenses", WaitsFor::Licenses);
    });
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(1)[0].starts_with("tried again in"),
        "{:?}",
        w.held_of(1)
    );
    w.pass(w.policy.retry_first);
    w.observe(|_| {});
    assert_eq!(admitted(&w.tick()), [1]);
}

/// A heterogeneous job is started by the backfill pass alone, which may come seldom.
#[test]
fn capacity_is_held_until_slurms_scheduler_has_looked_at_every_job() {
    let mut w = job_mode_world();
    w.scheduling_pass = Millis::secs(240);
    w.submit(SlurmJob {
        gate: Gate::Open,
        reason: JobReason::new("None", WaitsFor::Other),
        ..waiting(1, 2, 200, 10)
    });
    assert_eq!(w.tick(), []);
    w.pass(w.policy.admit_patience);
    w.observe(|_| {});
    assert_eq!(w.tick(), [], "its pass may be yet to come");
    w.pass(Millis(240_000 - w.policy.admit_patience.0));
    w.observe(|_| {});
    assert_eq!(kinds(&w.tick()), ["close-gate"]);
}

#[test]
fn putting_back_that_was_cut_short_is_finished() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        gate: Gate::Open,
        reason: JobReason::new("job requeued in held state", WaitsFor::Release),
        admin_comment: Some(crate::options::put_back_comment(
            &VmOptions::default(),
            "no capacity",
        )),
        ..waiting(1, 1, 100, 0)
    });
    assert_eq!(kinds(&w.tick()), ["finish-put-back"]);
    // A job that an administrator holds is his.
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        gate: Gate::Open,
        reason: JobReason::new("JobHeldAdmin", WaitsFor::Release),
        ..waiting(1, 1, 100, 0)
    });
    assert_eq!(w.tick(), []);
}
