//! Providers that make VMs in two steps and end them in their own time.

use super::job_mode::waiting;
use super::*;

fn vm_id(text: &str) -> VmId {
    VmId::new(text).unwrap()
}

fn destroys(actions: &[Action]) -> Vec<(Option<&str>, bool)> {
    actions
        .iter()
        .map(|action| match action {
            Action::Vm(_, VmVerb::Destroy { id, hard, .. }) => (id.as_ref().map(VmId::as_str), *hard),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn a_vm_that_is_held_back_is_asked_for_again_until_it_is_released() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear(); // the answer was lost
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Held)]);
    let id = |w: &World| w.records[&node("n0")].vm.as_ref().unwrap().id.clone();
    assert_eq!(id(&w), None, "the provider may let another one of this tag go");
    assert_eq!(kinds(&w.tick()), ["create"]);
    w.busy.clear();
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    assert_eq!(id(&w), Some(vm_id("n0.1")));
    assert_eq!(w.tick(), []);
}

#[test]
fn the_second_of_two_with_one_tag_that_never_ran_is_ended_and_the_other_kept() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    let first = w.shown("n0", 1, VmState::Ready);
    let second = VmView {
        id: vm_id("late"),
        host: None,
        state: VmState::Held,
        ..first.clone()
    };
    w.see(vec![second, first.clone()]);
    assert_eq!(destroys(&w.tick()), [(Some("late"), false)]);
    w.busy.clear();
    w.destroyed(&first.tag.clone().unwrap(), Some(&vm_id("late")));
    w.pass(Millis(1));
    w.see(vec![first]);
    assert_eq!(w.tick(), []);
    assert_eq!(w.records[&node("n0")].vm.as_ref().unwrap().word(), "up");
}

#[test]
fn a_running_copy_with_our_tag_is_left_alone_while_its_node_is_in_use() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    let first = w.shown("n0", 1, VmState::Ready);
    let copy = VmView {
        id: vm_id("copy"),
        ..first.clone()
    };
    w.see(vec![copy, first]);
    w.pass(w.policy.orphan_grace);
    assert_eq!(kinds(&w.tick()), ["end-with-job"], "one day it is not in use");
    assert_eq!(
        w.records[&node("n0")].vm.as_ref().unwrap().id,
        Some(vm_id("n0.1"))
    );
}

#[test]
fn an_end_that_takes_time_is_awaited_and_then_asked_hard() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    let actions = w.tick();
    assert_eq!(destroys(&actions), [(Some("n0.1"), false)]);
    let tag = w.tag(&node("n0"), Generation(1));
    let underway = |w: &mut World| {
        w.busy.clear();
        w.ending(&tag);
    };
    underway(&mut w);
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Stopping)]);
    assert_eq!(w.tick(), [], "it was asked a moment ago");
    w.pass(w.policy.retry_first);
    assert_eq!(destroys(&w.tick()), [(Some("n0.1"), false)], "asked again");
    underway(&mut w);
    w.pass(w.policy.terminate_grace);
    assert_eq!(destroys(&w.tick()), [(Some("n0.1"), true)], "long enough");
}

#[test]
fn an_end_is_confirmed_at_once_when_a_later_observation_no_longer_shows_it() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    w.tick();
    w.busy.clear();
    let tag = w.tag(&node("n0"), Generation(1));
    w.ending(&tag);
    let old = w.now;
    w.pass(Millis(1));
    let hosts = w.provider.as_deref().cloned().unwrap().hosts;
    w.see_provider(ProviderView { hosts, vms: vec![] }, old);
    assert_eq!(w.tick(), [], "that observation may have begun before");
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

/// Saved while the job's other nodes came up, or while nobody used it.
#[test]
fn a_job_does_not_start_in_a_vm_that_somebody_keeps_still() {
    let mut w = world();
    w.up("n0");
    w.up("n1");
    w.submit(waiting(1, 2, 100, 9));
    w.allocate(1, &["n0", "n1"], 100);
    let other = w.shown("n1", 1, VmState::Ready);
    for state in [
        VmState::Ready,
        VmState::Paused(String::new()),
        VmState::Saving,
        VmState::Saved,
        VmState::Restoring,
        VmState::Moving,
        VmState::Ready,
    ] {
        w.pass(Millis::secs(1));
        let vm = w.shown("n0", 1, state.clone());
        w.see(vec![vm, other.clone()]);
        w.observe(|slurm| {
            for name in ["n0", "n1"] {
                slurm.nodes.insert(node(name), running());
            }
            slurm.jobs.get_mut(&JobId(1)).unwrap().state = JobState::Configuring;
        });
        let starts = (state == VmState::Ready).then_some(crate::prolog::PrologAnswer::Start);
        assert_eq!(w.prolog(JobId(1), Time(5)), starts, "{state:?}");
    }
}
