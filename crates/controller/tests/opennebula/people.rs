//! People who do things to VMs, theirs and ours.

use thiao_oned::settings::Settings;
use thiao_oned::{Lcm, State};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

/// What `onevm ACTION ID` does.
fn by_console(day: &Day, action: &str, vm: u32) {
    let params = [format!("<string>{action}</string>"), format!("<int>{vm}</int>")];
    day.by_hand("one.vm.action", &[&params[0], &params[1]]);
}

#[test]
fn a_vm_terminated_by_hand_is_told_to_its_job_and_replaced_when_asked() {
    let mut day = Day::new(2);
    day.up();
    let (node, victim) = day.ours().remove(0);
    by_console(&day, "terminate-hard", victim.id);
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
    by_console(&day, "suspend", vm);
    until("it sleeps", || day.oned.vm(vm).unwrap().state == State::Suspended);
    day.until_logged("is saved to a disk and does not run");
    for _ in 0..4 {
        rounds();
    }
    assert_eq!(day.site.told(), "");
    by_console(&day, "resume", vm);
    until("it runs", || {
        day.oned.vm(vm).unwrap().state == State::Active(Lcm::Running)
    });
    day.until_logged("goes on");
    assert_eq!(day.running(), 1);
}

/// oned counts a suspended VM on its host, and so did we, beside that: a free core was refused.
#[test]
fn beside_a_vm_put_to_sleep_its_host_takes_what_it_has() {
    let two_cores = |settings: &mut Settings| {
        settings.hosts.truncate(1);
        settings.hosts[0].cpu_percent = 200;
    };
    let mut day = Day::with(2, two_cores, "");
    day.resume("n0");
    day.start();
    day.until_running(1);
    let vm = day.vm();
    by_console(&day, "suspend", vm);
    day.until_logged("is saved to a disk and does not run");
    day.resume("n1");
    until("the other core is used", || day.oned.promised(0).0 == 2);
    assert_eq!(day.site.told(), "");
}

/// Two hosts; the VM goes to the other one under its job.
#[test]
fn a_vm_migrated_by_hand_is_told_where_it_went() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    let from = day.oned.vm(vm).unwrap().host.unwrap();
    let to = u32::from(from == 0);
    day.by_hand(
        "one.vm.migrate",
        &[
            &format!("<int>{vm}</int>"),
            &format!("<int>{to}</int>"),
            "<boolean>1</boolean>",
            "<boolean>0</boolean>",
            "<int>-1</int>",
            "<int>0</int>",
        ],
    );
    day.until_logged(&format!("moved from host h{from} to host h{to}"));
    assert_eq!((day.oned.promised(from).0, day.oned.promised(to).0), (0, 1));
    assert_eq!(day.site.told(), "", "its node and its job stay as they are");
    day.suspend("n0");
    day.until_none();
}

#[test]
fn a_locked_vm_is_ended_when_it_is_unlocked() {
    let mut day = Day::new(1);
    day.up();
    let vm = format!("<int>{}</int>", day.vm());
    day.by_hand("one.vm.lock", &[&vm, "<int>4</int>", "<boolean>0</boolean>"]);
    day.suspend("n0");
    day.until_logged("unlock it (onevm unlock ID)");
    assert_eq!(day.running(), 1);
    day.by_hand("one.vm.unlock", &[&vm]);
    day.until_none();
}

/// Nothing of it is Thiao's business: the tag stays, and the node.
#[test]
fn a_vm_that_is_renamed_or_rebooted_goes_on() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    day.by_hand(
        "one.vm.rename",
        &[&format!("<int>{vm}</int>"), "<string>mine now</string>"],
    );
    by_console(&day, "reboot", vm);
    for _ in 0..4 {
        rounds();
    }
    assert_eq!((day.running(), day.site.told()), (1, String::new()));
    day.suspend("n0");
    day.until_none();
}

/// It has ended as far as its job can tell: its memory is gone.
#[test]
fn a_vm_powered_off_by_hand_is_told_to_its_job_and_removed() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    by_console(&day, "poweroff-hard", vm);
    day.until_told("state=DOWN");
    until("it is removed", || day.oned.vm(vm).unwrap().state == State::Done);
}

/// Its memory is on a disk: the job goes on where it was.
#[test]
fn a_vm_stopped_by_hand_is_waited_for_and_goes_on() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    let id = format!("<int>{vm}</int>");
    by_console(&day, "stop", vm);
    day.until_logged("is saved to a disk and does not run");
    for _ in 0..4 {
        rounds();
    }
    assert_eq!(day.site.told(), "");
    assert_eq!(day.oned.vm(vm).unwrap().state, State::Stopped);
    // As people do it, by `onevm resume`; then the scheduler, or they, deploy it.
    by_console(&day, "resume", vm);
    let host = day.oned.vm(vm).unwrap().host.unwrap();
    day.by_hand(
        "one.vm.deploy",
        &[
            &id,
            &format!("<int>{host}</int>"),
            "<boolean>0</boolean>",
            "<int>-1</int>",
            "<string></string>",
        ],
    );
    day.until_logged("goes on");
    assert_eq!(day.running(), 1);
}
