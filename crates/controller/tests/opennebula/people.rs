//! People who do things to VMs, theirs and ours.

use thiao_oned::{Lcm, State};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

#[test]
fn a_vm_terminated_by_hand_is_told_to_its_job_and_replaced_when_asked() {
    let mut day = Day::new(2);
    day.up();
    let (node, victim) = day.ours().remove(0);
    day.by_hand(
        "one.vm.action",
        &[
            "<string>terminate-hard</string>",
            &format!("<int>{}</int>", victim.id),
        ],
    );
    day.until_told("state=DOWN");
    day.until_told("terminated");
    let told = day.site.told();
    assert!(
        told.contains(&format!("nodename={node} ")) || told.to_lowercase().contains(&node),
        "{told}"
    );
    assert_eq!(day.running(), 1, "the other one is left alone");
}

#[test]
fn vms_of_others_are_never_touched_whatever_their_names_and_tags() {
    let mut day = Day::new(1);
    let name = "<string>NAME=\"c-n0-1\"\nCPU=\"1\"\nMEMORY=\"64\"\n</string>";
    day.by_hand("one.vm.allocate", &[name, "<boolean>0</boolean>"]);
    let tagged = "<string>NAME=\"x\"\nCPU=\"1\"\nMEMORY=\"64\"\nTHIAO_CLUSTER=\"c\"\nTHIAO_NODE=\"n0\"\nTHIAO_GENERATION=\"1\"\n</string>";
    day.by_hand("one.vm.allocate", &[tagged, "<boolean>1</boolean>"]);
    day.up_beside_others();
    let mine = |day: &Day| {
        day.oned
            .vms()
            .into_iter()
            .filter(|vm| vm.id > 1)
            .collect::<Vec<_>>()
    };
    assert_eq!(mine(&day).len(), 1);
    day.suspend("n0");
    until("ours is gone", || mine(&day).is_empty());
    rounds();
    rounds();
    let states: Vec<State> = day.oned.vms().iter().map(|vm| vm.state).collect();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(
        states.contains(&State::Hold) && states.contains(&State::Pending),
        "{states:?}"
    );
}

#[test]
fn a_vm_of_another_cluster_of_the_same_user_is_left_alone() {
    let mut day = Day::new(1);
    let other = "<string>NAME=\"o\"\nCPU=\"1\"\nMEMORY=\"64\"\nTHIAO_CLUSTER=\"other\"\nTHIAO_NODE=\"n0\"\nTHIAO_GENERATION=\"7\"\n</string>";
    day.by_service_user("one.vm.allocate", &[other, "<boolean>0</boolean>"]);
    day.up_beside_others();
    day.suspend("n0");
    until("only the other cluster's is left", || day.oned.vms().len() == 1);
    rounds();
    assert_eq!(day.oned.vms()[0].state, State::Pending);
}

#[test]
fn a_vm_put_to_sleep_by_hand_is_waited_for() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    day.by_hand(
        "one.vm.action",
        &["<string>suspend</string>", &format!("<int>{vm}</int>")],
    );
    until("it sleeps", || day.oned.vm(vm).unwrap().state == State::Suspended);
    for _ in 0..4 {
        rounds();
    }
    assert_eq!(day.site.told(), "");
    day.by_hand(
        "one.vm.action",
        &["<string>resume</string>", &format!("<int>{vm}</int>")],
    );
    until("it runs", || {
        day.oned.vm(vm).unwrap().state == State::Active(Lcm::Running)
    });
    assert_eq!(day.running(), 1);
}
