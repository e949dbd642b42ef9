//! Nodes that slurmctld lost its way with: it was killed, or the VM was, at a bad moment.

use super::found::seen_as;
use super::*;

#[test]
fn a_vm_that_was_up_before_a_power_down_and_up_again_is_replaced_at_once() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    w.pass(Millis::secs(1)); // the controller was away, or its provider was not ready
    w.ask_up("n0");
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.see_node("n0", running());
    assert_eq!(w.tick(), [], "not by an observation from before that");
    w.pass(Millis(1));
    w.see_node("n0", running());
    assert_eq!(w.tick(), [], "Slurm may be using it");
    w.see_node("n0", powering_up());
    assert_eq!(
        kinds(&w.tick()),
        ["destroy"],
        "Slurm waits for a slurmd that starts now"
    );
    w.busy.clear();
    w.gone("n0");
    w.pass(Millis(1));
    w.see(vec![]);
    let actions = w.tick();
    let [Action::Vm(tag, VmVerb::Create { .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(tag.generation, Generation(2));
}

#[test]
fn a_node_that_completes_without_a_vm_is_told_and_does_not_wait_for_ever() {
    let mut w = world();
    w.up("n0");
    // Its job is over, and its VM dies before its slurmd has said so; slurmctld is away meanwhile.
    let completing = || {
        seen_as(BaseState::Idle, |flags| {
            flags.completing = true;
            flags.power_down = true;
            flags.not_responding = true;
        })
    };
    w.pass(Millis(1));
    w.see_node("n0", completing());
    w.see(vec![w.shown("n0", 1, VmState::Dead("killed".into()))]);
    assert_eq!(kinds(&w.tick()), ["down"], "or Slurm waits for ever");

    // The same on a node whose VM is gone already, whatever was asked of it; of job mode, too.
    for mode in [Mode::PowerSaving, Mode::Job] {
        let mut w = world();
        Arc::make_mut(&mut w.specs).get_mut(&node("n0")).unwrap().mode = mode;
        match mode {
            Mode::PowerSaving => w.down("n0"),
            Mode::Job => w.ask_up("n0"),
        }
        w.see_node("n0", completing());
        w.see(vec![]);
        assert_eq!(w.tick(), [], "it may be about to be powered down");
        w.watch(w.policy.missing_grace, &[]);
        w.see_node("n0", completing());
        w.watch(w.policy.missing_grace, &[]);
        assert_eq!(kinds(&w.tick()), ["down"]);
    }
}

#[test]
fn a_node_that_is_powered_down_and_silent_is_powered_down_again_and_not_all_the_time() {
    let forgotten = || {
        seen_as(BaseState::Idle, |flags| {
            flags.powered_down = true;
            flags.not_responding = true;
        })
    };
    let mut w = world();
    w.pass(w.policy.orphan_grace);
    w.down("n0");
    w.see_node("n0", forgotten());
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
    w.busy.clear();
    w.acted_on(&node("n0"));
    w.pass(Millis::secs(10));
    w.see_node("n0", forgotten());
    assert_eq!(w.tick(), [], "it may take a while");
    w.pass(w.policy.orphan_grace);
    w.see_node("n0", forgotten());
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
    // It is for a job now.
    w.busy.clear();
    w.see_node("n0", powering_up());
    assert_eq!(w.tick(), []);
}

#[test]
fn a_job_that_runs_on_a_node_that_is_off_is_ended_and_one_that_comes_up_there_is_not() {
    for (state, told) in [(JobState::Running, &["down"][..]), (JobState::Configuring, &[])] {
        let mut w = world();
        w.down("n0");
        let mut view = w.slurm.as_deref().cloned().unwrap();
        let job = SlurmJob {
            state,
            nodes: vec![node("n0")],
            ..SlurmJob::new(JobId(6))
        };
        view.jobs.insert(job.id, job);
        let off = seen_as(BaseState::Allocated, |flags| {
            flags.powered_down = true;
            flags.not_responding = true;
        });
        view.nodes.insert(node("n0"), off);
        w.see_slurm(view, w.now);
        w.watch(w.policy.missing_grace, &[]);
        w.watch(Millis::secs(1), &[]);
        assert_eq!(kinds(&w.tick()), told);
    }
}
