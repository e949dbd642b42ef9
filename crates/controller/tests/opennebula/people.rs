//! People who do things to VMs, theirs and ours.

use thiao_api::client::Client;
use thiao_oned::settings::Settings;
use thiao_oned::{Fault, Lcm, Phase, Rule, State};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

/// Waits until `thiao vms` shows the VM of the only node in this state, with this beside it.
#[track_caller]
fn until_shown(day: &Day, state: &str, beside: &str) {
    until(&format!("thiao vms shows {state} {beside}"), || {
        let vms = Client::new(&day.site.path("state")).vms().unwrap_or_default();
        vms.len() == 1
            && vms[0].state.word() == state
            && vms[0].note.as_deref().unwrap_or_default().contains(beside)
    });
}

/// The same, with nothing odd about it.
#[track_caller]
fn until_well(day: &Day) {
    until("thiao vms shows nothing odd", || {
        let vms = Client::new(&day.site.path("state")).vms().unwrap_or_default();
        vms.len() == 1 && vms[0].state.word() == "up" && vms[0].note.is_none()
    });
}

/// What `thiao explain n0` says.
fn explained(day: &Day) -> String {
    let all = Client::new(&day.site.path("state")).explain("n0").unwrap();
    let story = all.story.iter().map(|event| event.message.clone());
    all.now.into_iter().chain(story).collect::<Vec<_>>().join("\n")
}

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
    // A person who does it again at once is told of as the first time.
    let told = |words: &str| day.log().matches(words).count();
    by_console(&day, "suspend", vm);
    until("it is told again", || {
        told("is saved to a disk and does not run") == 2
    });
    by_console(&day, "resume", vm);
    until("that it goes on, too", || told("goes on") == 2);
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

/// Its memory is gone, and its files are away from the host: as a poweroff.
#[test]
fn a_vm_undeployed_by_hand_is_told_to_its_job_and_removed() {
    for action in ["undeploy", "undeploy-hard"] {
        let mut day = Day::new(1);
        day.up();
        let vm = day.vm();
        day.oned.hold_phase(Phase::Shutdown);
        by_console(&day, action, vm);
        day.until_logged("is being shut down, and Thiao did not ask for it");
        until_shown(&day, "up", "is being shut down, and Thiao did not ask for it");
        assert_eq!(day.site.told(), "", "its guest may still say no");
        day.oned.let_phase(Phase::Shutdown);
        day.until_told("state=DOWN");
        day.until_told("JobId=1 AdminComment=thiao:");
        until("it is removed", || day.oned.vm(vm).unwrap().state == State::Done);
        assert!(explained(&day).contains("UNDEPLOYED"), "{}", explained(&day));
        day.returns("n0");
    }
}

/// One who asks for an undeploy and is not heard by the guest: the job goes on.
#[test]
fn a_vm_whose_guest_overhears_an_undeploy_goes_on() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    day.oned.ignore_shutdown(vm);
    day.oned.hold_phase(Phase::Shutdown);
    by_console(&day, "undeploy", vm);
    day.until_logged("is being shut down, and Thiao did not ask for it");
    day.oned.let_phase(Phase::Shutdown);
    day.until_logged("goes on");
    until_well(&day);
    assert_eq!(day.site.told(), "");
}

/// Between its release to OpenNebula's scheduler and its start.
#[test]
fn a_pending_vm_held_by_hand_waits_and_starts_when_it_is_released() {
    let mut day = Day::new(1);
    day.placed_by_opennebula();
    day.resume("n0");
    day.start();
    until("it waits for a host", || {
        let vms = day.ours();
        !vms.is_empty() && vms[0].1.state == State::Pending
    });
    until_shown(&day, "pending", "");
    assert!(!day.log().contains("started on"), "{}", day.log());
    let vm = day.vm();
    by_console(&day, "hold", vm);
    day.until_logged("is held back by somebody");
    until_shown(&day, "pending", "held back");
    assert!(
        explained(&day).contains("it is held back by somebody"),
        "{}",
        explained(&day)
    );
    by_console(&day, "release", vm);
    day.until_logged("goes on");
    day.oned.schedule(vm, 1);
    day.until_logged("started on h1");
    assert_eq!(day.running(), 1);
}

/// One that stays held is replaced as one that does not come up.
#[test]
fn a_pending_vm_that_stays_held_costs_its_node_no_more_than_its_boot_timeout() {
    let mut day = Day::with(1, |_| (), "boot_timeout = 2");
    day.placed_by_opennebula();
    day.resume("n0");
    day.start();
    until("it waits for a host", || {
        let vms = day.ours();
        !vms.is_empty() && vms[0].1.state == State::Pending
    });
    let vm = day.vm();
    by_console(&day, "hold", vm);
    until("it is given up", || day.oned.vm(vm).unwrap().state == State::Done);
    day.until_told("state=DOWN");
    // Slurm gets the node back, and its next VM starts.
    day.is_given_back("n0");
    day.resume("n0");
    until("another waits for a host", || {
        let vms = day.ours();
        !vms.is_empty() && vms[0].1.state == State::Pending
    });
    assert_ne!(day.vm(), vm);
    day.oned.schedule(day.vm(), 1);
    day.until_running(1);
    day.node_up("n0");
}

/// As one whose answer was lost: it is held, and the controller asks whether it is there.
#[test]
fn a_held_vm_that_somebody_else_releases_is_taken_as_it_is() {
    let mut day = Day::new(1);
    // The first try makes it, and nobody hears of that nor of the deploy.
    day.oned
        .fault(Rule::once("one.template.instantiate", Fault::LoseAnswer));
    day.oned.fault(Rule::always("one.vm.deploy", Fault::Drop));
    day.resume("n0");
    day.start();
    until("it is held", || {
        let vms = day.ours();
        !vms.is_empty() && vms[0].1.state == State::Hold
    });
    let vm = day.vm();
    by_console(&day, "release", vm);
    day.oned.schedule(vm, 1);
    day.oned.clear_faults();
    day.until_running(1);
    day.until_logged("started on h1");
    assert_eq!(day.vm(), vm, "no second one was made");
    day.nodes_up();
    day.wakes_again("n0");
}

/// Where the driver can, as KVM's: Slurm does not hear of it, and what oned counts holds.
#[test]
fn a_vm_resized_by_hand_is_told_and_counted_as_oned_says() {
    let live = |settings: &mut Settings| {
        settings.live_resize = true;
        settings.hosts.truncate(1);
        settings.hosts[0].cpu_percent = 300;
    };
    let mut day = Day::with(2, live, "");
    day.resume("n0");
    day.start();
    day.until_running(1);
    let vm = day.vm();
    until_shown(&day, "booting", "");
    let larger = "<string>CPU=\"2\"\nVCPU=\"2\"\nMEMORY=\"300\"\n</string>";
    day.by_hand(
        "one.vm.resize",
        &[&format!("<int>{vm}</int>"), larger, "<boolean>1</boolean>"],
    );
    day.until_logged("was resized by somebody: it takes 300 MiB and 200 % of a core");
    until("thiao vms shows it", || {
        let vms = Client::new(&day.site.path("state")).vms().unwrap_or_default();
        vms.iter().any(|vm| (vm.memory_mb, vm.cpu_percent) == (300, 200))
    });
    assert_eq!(day.site.told(), "");
    // One core is left, and no more.
    day.resume("n1");
    until("the last core is used", || day.oned.promised(0).0 == 2);
    assert_eq!(day.oned.promised(0).1, 300);
    assert_eq!(day.log().matches("was resized").count(), 1, "once is enough");
    day.wakes_again("n0");
}

#[test]
fn a_vm_that_runs_is_not_resized_where_the_driver_cannot() {
    let mut day = Day::new(1);
    day.up();
    let vm = format!("<int>{}</int>", day.vm());
    let said = day.refused(
        "one.vm.resize",
        &[&vm, "<string>CPU=\"2\"</string>", "<boolean>1</boolean>"],
    );
    assert!(said.contains("Hotplug resize not supported"), "{said}");
    rounds();
    assert!(!day.log().contains("resized"), "{}", day.log());
}

/// What a guest without its card does is Slurm's to see; the VM goes on.
#[test]
fn a_vm_whose_card_is_taken_by_hand_goes_on() {
    let mut day = Day::with(1, |_| (), "silence_grace = 1");
    day.up();
    let vm = day.vm();
    day.by_hand("one.vm.detachnic", &[&format!("<int>{vm}</int>"), "<int>0</int>"]);
    for _ in 0..4 {
        rounds();
    }
    assert_eq!((day.running(), day.site.told()), (1, String::new()));
    // Its slurmd is silent: the node is given up, and comes back with a VM that has one.
    day.site.slurm_says(&["n0|allocated*+cloud|none"]);
    day.until_told("state=DOWN");
    day.suspend("n0");
    day.until_none();
    day.returns("n0");
}

/// `onevm chown ID USER`, as oneadmin; with its group, if that is given.
fn given_to(day: &Day, vm: u32, user: i32, group: i32) {
    let [vm, user, group] = [i64::from(vm), user.into(), group.into()].map(|id| format!("<int>{id}</int>"));
    day.by_hand("one.vm.chown", &[&vm, &user, &group]);
}

/// The stand-in's second user: serveradmin is 1.
const OURS: i32 = 2;

#[test]
fn a_vm_given_away_by_hand_keeps_its_job_and_is_left_to_its_new_owner() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    given_to(&day, vm, 0, -1);
    day.until_logged("belongs to OpenNebula's user oneadmin now");
    until_shown(&day, "up", "left alone");
    assert!(
        explained(&day).contains("it belongs to OpenNebula's user oneadmin"),
        "{}",
        explained(&day)
    );
    for _ in 0..15 {
        rounds();
    }
    assert_eq!(
        (day.running(), day.site.told()),
        (1, String::new()),
        "its job goes on"
    );
    // Its job is over: the VM is not ours to end, and the node is free for another.
    day.suspend("n0");
    until("it is given up", || {
        day.log().contains("gone: the node was ordered down")
    });
    assert_eq!(day.oned.vm(vm).unwrap().state, State::Active(Lcm::Running));
    day.site.slurm_says(&["n0|idle+cloud+powered_down|none"]);
    day.resume("n0");
    until("another runs", || day.running() == 2);
    assert_eq!(
        day.log().matches("belongs to OpenNebula's user").count(),
        1,
        "{}",
        day.log()
    );
}

#[test]
fn a_vm_given_away_and_back_is_ours_again() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    given_to(&day, vm, 0, -1);
    day.until_logged("belongs to OpenNebula's user oneadmin now");
    given_to(&day, vm, OURS, -1);
    day.until_logged("goes on");
    until_well(&day);
    day.wakes_again("n0");
    assert_eq!(day.oned.vm(vm).unwrap().state, State::Done);
}

/// Then no listing shows it to us, and oned says that we may not see it: it is as one that we may see.
#[test]
fn a_vm_given_away_with_its_group_keeps_its_job_and_is_left_to_its_new_owner() {
    let mut day = Day::new(1);
    day.up();
    let vm = day.vm();
    given_to(&day, vm, 0, 0);
    day.until_logged("belongs to another user of OpenNebula now, whose VMs Thiao may not see");
    until_shown(&day, "up", "left alone");
    assert!(
        explained(&day).contains("it belongs to another user"),
        "{}",
        explained(&day)
    );
    // Longer than `missing_grace`.
    for _ in 0..20 {
        rounds();
    }
    assert_eq!(
        (day.running(), day.site.told()),
        (1, String::new()),
        "its job goes on"
    );
    assert_eq!(day.oned.calls("one.vm.info"), 1, "that is asked for once");
    given_to(&day, vm, OURS, 1);
    day.until_logged("goes on");
    until_well(&day);
    given_to(&day, vm, 0, 0);
    until_shown(&day, "up", "left alone");
    day.suspend("n0");
    until("it is given up", || {
        day.log().contains("gone: the node was ordered down")
    });
    assert_eq!(
        day.oned.vm(vm).unwrap().state,
        State::Active(Lcm::Running),
        "it is not touched"
    );
    day.nodes_are("n0", "idle+cloud+powered_down");
    day.resume("n0");
    until("another runs", || day.running() == 2);
    // Back again it backs nothing, and is ended as such.
    given_to(&day, vm, OURS, 1);
    until("it is ended", || day.oned.vm(vm).unwrap().state == State::Done);
    assert_eq!(day.running(), 1);
}

/// What its new owner does to it nobody tells us: that its slurmd is silent, Slurm sees.
#[test]
fn a_vm_given_away_unseen_and_ended_costs_its_node_no_more_than_its_silence() {
    let mut day = Day::with(1, |_| (), "silence_grace = 1");
    day.up();
    let vm = day.vm();
    given_to(&day, vm, 0, 0);
    day.until_logged("whose VMs Thiao may not see");
    by_console(&day, "terminate-hard", vm);
    rounds();
    assert_eq!(day.site.told(), "");
    day.site.slurm_says(&["n0|allocated*+cloud|none"]);
    day.until_told("state=DOWN");
    day.suspend("n0");
    until("it is given up", || day.log().contains("vm-gone"));
    day.returns("n0");
}

/// One that was removed from OpenNebula's database is gone, whatever else.
#[test]
fn a_vm_that_is_really_gone_is_told_as_lost_and_its_node_comes_back() {
    let mut day = Day::new(1);
    day.up();
    day.oned.vanish(day.vm());
    until("thiao explain says it as thiao vms does", || {
        explained(&day).contains("the provider does not show it now")
    });
    day.until_told("state=DOWN");
    day.until_told("has not shown it");
    day.returns("n0");
}
