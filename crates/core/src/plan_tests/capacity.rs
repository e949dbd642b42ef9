//! Capacity that is held for jobs of job mode that were admitted.

use super::job_mode::{admitted, job_mode_world, waiting};
use super::*;

/// A job of `nodes` nodes that was admitted and that Slurm has not started, because of this.
fn admitted_job(id: u32, nodes: u32, reason: JobReason) -> SlurmJob {
    SlurmJob {
        gate: Gate::Open,
        reason,
        ..waiting(id, nodes, 200, 10)
    }
}

#[test]
fn who_waits_is_told_for_whom_capacity_is_held() {
    let held = |jobs: &[SlurmJob]| {
        let mut w = job_mode_world();
        for job in jobs {
            w.submit(job.clone());
        }
        w.submit(waiting(9, 2, 200, 5));
        w.held_of(9)
    };
    let other = |id, nodes| admitted_job(id, nodes, JobReason::default());
    let why = held(&[other(1, 2)]);
    assert!(
        why[0].contains("none of 2 hosts has capacity for 250 MiB")
            && why[0].ends_with("; capacity is held for job 1, which was admitted"),
        "{why:?}"
    );
    let why = held(&[other(1, 1), other(2, 1)]);
    assert!(
        why[0].ends_with("; capacity is held for jobs 1, 2, which were admitted"),
        "{why:?}"
    );
    // One that is admitted in this very plan.
    let why = held(&[waiting(3, 1, 200, 10)]);
    assert!(
        why[0].ends_with("; capacity is held for job 3, which was admitted"),
        "{why:?}"
    );
    // Nobody: it is too big.
    let mut w = job_mode_world();
    w.submit(waiting(9, 3, 200, 5));
    let why = w.held_of(9);
    assert!(!why[0].contains("held"), "{why:?}");
}

#[test]
fn capacity_is_held_for_a_job_with_nodes_until_it_has_its_vms() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 2, 200, 10));
    w.allocate(1, &["n0", "n1"], 200);
    w.submit(waiting(2, 1, 200, 5));
    // Its VMs are made in this plan.
    let why = w.held_of(2);
    assert!(!why[0].contains("held"), "{why:?}");
    // Before that is possible.
    w.busy.extend([node("n0"), node("n1")]);
    let why = w.held_of(2);
    assert!(
        why[0].ends_with("; capacity is held for job 1, which was admitted"),
        "{why:?}"
    );
}

#[test]
fn a_requeued_job_that_slurm_pauses_gives_its_capacity_away_at_once() {
    let mut w = job_mode_world();
    w.submit(admitted_job(
        1,
        2,
        JobReason::new("BeginTime", WaitsFor::BeginTime),
    ));
    w.submit(waiting(2, 2, 200, 5));
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["close-gate", "admit"]);
    assert_eq!(admitted(&actions), [2]);
    let event = w.gate_closed(JobId(1));
    assert_eq!(
        event.text,
        "waits for capacity again: Slurm does not let it start yet"
    );
    w.done(&actions);
    let at_the_gate = |reason: JobReason| {
        move |view: &mut SlurmView| {
            view.jobs.remove(&JobId(2));
            let job = view.jobs.get_mut(&JobId(1)).unwrap();
            (job.gate, job.reason) = (Gate::Waits, reason);
        }
    };
    w.observe(at_the_gate(JobReason::new("BeginTime", WaitsFor::BeginTime)));
    assert_eq!(w.tick(), []);
    // Nothing was tried in vain: when its time has come it goes.
    w.observe(at_the_gate(JobReason::new("Licenses", WaitsFor::Licenses)));
    assert_eq!(admitted(&w.tick()), [1]);
}

#[test]
fn a_job_that_is_let_start_now_keeps_its_capacity() {
    let mut w = job_mode_world();
    let record = w.records.get_mut(&node("n0")).unwrap();
    record.jobs = vec![JobId(1)];
    record.trouble.told = true;
    w.submit(admitted_job(
        1,
        1,
        JobReason::new("BeginTime", WaitsFor::BeginTime),
    ));
    assert_eq!(kinds(&w.tick()), ["start"]);
}
