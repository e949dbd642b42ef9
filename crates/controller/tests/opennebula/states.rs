//! VMs that get stuck, fail, or are lost sight of.

use std::time::Duration;
use thiao_oned::settings::Settings;
use thiao_oned::{Lcm, Phase, State};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

/// A VM that hangs on its way up is ended, its node told, and tried again when it is given back.
fn stuck_in(phase: Phase) {
    let mut day = Day::with(1, |_| (), "boot_timeout = 1");
    day.oned.hold_phase(phase);
    day.resume("n0");
    day.start();
    until("the first one is given up", || {
        let first = day.oned.vm(0);
        first.is_some_and(|vm| vm.state == State::Done)
    });
    day.until_told("state=DOWN");
    day.until_told("did not register");
    day.oned.let_phase(phase);
    day.site
        .slurm_says(&["n0|down+cloud+powered_down|thiao: VM n0.2 did not register"]);
    until("the node is given back", || {
        day.site.told().to_lowercase().contains("state=resume")
    });
    day.until_none();
}

#[test]
fn a_vm_stuck_in_prolog_is_ended_and_told() {
    stuck_in(Phase::Prolog);
}

#[test]
fn a_vm_stuck_in_boot_is_ended_and_told() {
    stuck_in(Phase::Boot);
}

#[test]
fn a_vm_that_oned_lost_sight_of_keeps_its_job() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    day.oned.lose(vm);
    for _ in 0..4 {
        rounds();
    }
    assert_eq!(day.oned.vm(vm).unwrap().state, State::Active(Lcm::Unknown));
    assert_eq!(day.site.told(), "");
    day.oned.force(vm, State::Active(Lcm::Running));
    day.suspend("n0");
    day.until_none();
}

#[test]
fn a_vm_in_failure_is_told_with_opennebulas_own_words_and_removed() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    // As oned does it: first the words, while it still boots.
    day.oned.hold_phase(Phase::Boot);
    day.oned.force(vm, State::Active(Lcm::Boot));
    day.oned
        .set_tag(vm, "ERROR", Some("Error deploying virtual machine: no KVM"));
    day.oned.force(vm, State::Active(Lcm::BootFailure));
    day.until_told("state=DOWN");
    day.until_told("no KVM");
    until("it is removed", || day.oned.vm(vm).unwrap().state == State::Done);
}

#[test]
fn a_guest_that_shut_itself_down_is_told_at_once() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    day.oned.die(vm);
    day.until_told("state=DOWN");
    day.until_told("JobId=1 AdminComment=thiao:");
    until("it is removed", || day.oned.vm(vm).unwrap().state == State::Done);
}

#[test]
fn a_guest_that_ignores_its_shutdown_is_ended_hard() {
    let mut day = Day::new(1);
    day.up();
    day.oned.ignore_shutdown(day.vm());
    day.suspend("n0");
    day.until_none();
}

/// Each terminate-hard cancels what the driver is doing: asked every moment, an end that takes longer never comes.
#[test]
fn an_end_that_takes_long_is_left_to_the_driver() {
    let slow = |settings: &mut Settings| {
        settings
            .phases
            .insert(Phase::Shutdown, Duration::from_millis(2500));
    };
    let mut day = Day::with(1, slow, "");
    day.up();
    day.suspend("n0");
    day.until_none();
    // Soft, and hard after one grace (a second), two, and four.
    let asked = day.oned.calls("one.vm.action");
    assert!((2..=4).contains(&asked), "{asked} times");
}

#[test]
fn a_vm_ordered_down_while_it_boots_is_ended() {
    let mut day = Day::new(1);
    day.oned.hold_phase(Phase::Boot);
    day.resume("n0");
    day.start();
    until("it boots", || {
        day.ours()
            .iter()
            .any(|(_, vm)| vm.state == State::Active(Lcm::Boot))
    });
    day.all_nodes_are("idle+cloud+powering_down");
    day.suspend("n0");
    day.until_none();
}
