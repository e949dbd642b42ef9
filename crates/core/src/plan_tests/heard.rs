//! When slurmds start, so that Slurm hears them.

use super::*;
use crate::fold::Outcome;

/// A world whose guests wait for the word, in which job 7 has n0 and waits in its prolog.
fn given() -> World {
    let mut w = world();
    w.policy.guests_wait = true;
    w.pass(Millis(1));
    see_job(&mut w, Some(given_and_off()));
    assert_eq!(w.records[&node("n0")].desired, Desired::Early { since: w.now });
    w
}

/// Allocated, and not asked for yet.
fn given_and_off() -> SlurmNode {
    let flags = NodeFlags {
        powered_down: true,
        ..NodeFlags::default()
    };
    slurm_node(BaseState::Allocated, flags, None)
}

/// An observation of Slurm and of the prologs: job 7 has n0, which is so; or there is no job any more.
fn see_job(w: &mut World, n0: Option<SlurmNode>) {
    let mut view = w.slurm.as_deref().cloned().unwrap();
    view.jobs.clear();
    if n0.is_some() {
        let job = SlurmJob {
            state: JobState::Configuring,
            nodes: vec![node("n0")],
            ..SlurmJob::new(JobId(7))
        };
        view.jobs.insert(JobId(7), job);
    }
    view.nodes.insert(node("n0"), n0.unwrap_or_else(powered_down));
    let (now, asked) = (w.now, Time(w.now.0 - 1));
    w.see_slurm(view, now);
    w.order_for_prologs(&[(JobId(7), asked)]);
}

/// The VM is made, and its guest is in that state.
fn made(w: &mut World, state: VmState) {
    assert_eq!(kinds(&w.tick()), ["create"]);
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, state)]);
}

/// What is told to the guest: the number of the start, and when Slurm had asked.
fn told(w: &mut World) -> Option<(u32, Time)> {
    match &w.tick()[..] {
        [] => None,
        [action @ Action::Vm(_, VmVerb::StartSlurmd { number, asked, .. })] => {
            let told = (*number, *asked);
            w.ended(action, &Outcome::Done);
            Some(told)
        }
        other => panic!("{other:?}"),
    }
}

fn resume(w: &mut World) {
    let jobs = [(node("n0"), vec![JobId(7)])].into();
    w.order(&node("n0"), &Order::Up { force: false, jobs }, w.now);
}

#[test]
fn a_vm_is_made_early_and_its_slurmd_starts_by_slurms_order() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    assert_eq!(told(&mut w), None, "Slurm has not asked");
    w.pass(Millis(400));
    see_job(&mut w, Some(given_and_off()));
    assert_eq!(told(&mut w), None);
    let asked = w.now;
    resume(&mut w);
    w.pass(Millis(20));
    assert_eq!(told(&mut w), Some((1, asked)));
    assert_eq!(told(&mut w), None, "once");
    assert_eq!(w.records[&node("n0")].vm.as_ref().unwrap().asked, asked);
}

#[test]
fn an_observation_that_shows_it_powering_up_is_slurms_word_too() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    w.pass(Millis(400));
    see_job(&mut w, Some(powering_up()));
    // When in that observation it was asked, nobody knows: not after now.
    let seen = w.now;
    assert_eq!(told(&mut w), Some((1, seen)));
}

#[test]
fn an_order_that_was_given_before_the_prologs_word_was_heard_counts() {
    let mut w = given();
    w.now = Time(w.now.0 - 1);
    resume(&mut w);
    w.pass(Millis(1));
    made(&mut w, VmState::Booting);
    assert!(told(&mut w).is_some());
}

#[test]
fn what_was_told_is_told_again_if_the_answer_was_lost() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    resume(&mut w);
    assert_eq!(kinds(&w.tick()), ["start-slurmd"]);
    // The controller dies, and the next one knows what was kept.
    w.busy.clear();
    w.slurm = None;
    assert!(
        told(&mut w).is_some(),
        "an order is Slurm's word, whatever can be read"
    );
}

#[test]
fn a_vm_whose_job_left_before_slurm_asked_is_ended_at_once() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    w.pass(Millis(300));
    see_job(&mut w, None);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    assert_eq!(
        w.records[&node("n0")].trouble,
        Trouble::default(),
        "nobody failed"
    );
}

#[test]
fn a_vm_that_waits_for_slurm_is_not_late() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    // As with a ResumeRate.
    w.pass(Millis(w.policy.boot_timeout.0 + 60_000));
    see_job(&mut w, Some(given_and_off()));
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    assert_eq!(told(&mut w), None);
    resume(&mut w);
    assert!(told(&mut w).is_some(), "its time begins now");
    w.pass(w.policy.boot_timeout);
    see_job(&mut w, Some(powering_up()));
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_node_that_a_person_resumes_waits_for_nobody() {
    let mut w = world();
    w.policy.guests_wait = true;
    resume(&mut w);
    made(&mut w, VmState::Booting);
    assert!(told(&mut w).is_some());
}

#[test]
fn a_vm_that_was_found_waits_if_slurm_is_about_to_ask() {
    let mut w = world();
    w.policy.guests_wait = true;
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    w.see_node("n0", given_and_off());
    assert_eq!(told(&mut w), None);
    w.pass(Millis(1));
    w.see_node("n0", powering_up());
    assert!(told(&mut w).is_some());
}

#[test]
fn a_slurmd_that_slurm_does_not_hear_is_started_again_and_not_for_ever() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    resume(&mut w);
    assert!(told(&mut w).is_some());
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    for number in 2..=w.policy.slurmd_starts {
        w.pass(Millis(w.policy.unheard_grace.0 - 1));
        see_job(&mut w, Some(powering_up()));
        assert_eq!(told(&mut w), None, "it may just be slow");
        w.pass(Millis(1));
        see_job(&mut w, Some(powering_up()));
        assert_eq!(told(&mut w), Some((number, w.now)));
    }
    w.pass(Millis(w.policy.unheard_grace.0 + 1));
    see_job(&mut w, Some(powering_up()));
    assert_eq!(told(&mut w), None, "that did not help");
}

#[test]
fn a_slurmd_that_slurm_may_have_heard_is_left_alone() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    resume(&mut w);
    assert!(told(&mut w).is_some());
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.pass(Millis(w.policy.unheard_grace.0 + 1));
    for seen in [running(), given_and_off(), powered_down()] {
        see_job(&mut w, Some(seen));
        assert!(!kinds(&w.tick()).contains(&"start-slurmd"));
        w.busy.clear();
    }
}

#[test]
fn where_guests_do_not_wait_vms_are_made_when_slurm_asks() {
    let mut w = given();
    w.policy.guests_wait = false;
    assert_eq!(w.tick(), []);
    resume(&mut w);
    made(&mut w, VmState::Booting);
    assert_eq!(w.tick(), []);
}

#[test]
fn the_linter_starts_no_slurmd_before_slurm_asks() {
    let mut w = given();
    made(&mut w, VmState::Booting);
    let action = Action::Vm(
        w.tag(&node("n0"), Generation(1)),
        VmVerb::StartSlurmd {
            id: None,
            number: 1,
            asked: w.now,
        },
    );
    let step = crate::plan::Step {
        action,
        why: "a bug".into(),
    };
    let plan = crate::plan::Plan {
        steps: vec![step],
        held: vec![],
    };
    assert_eq!(lint(&w, &plan).1[0].why, "Slurm has not asked for n0");
    resume(&mut w);
    assert_eq!(lint(&w, &plan).1, []);
}
