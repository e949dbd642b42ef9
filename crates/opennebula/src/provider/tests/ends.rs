use super::*;
use crate::state::LcmState;

fn at(state: VmState) -> (Arc<Fake>, Inner<Arc<Fake>>) {
    let fake = Arc::new(Fake::default());
    let tags = [
        ("THIAO_CLUSTER", "prod"),
        ("THIAO_NODE", "fg0"),
        ("THIAO_GENERATION", "1"),
    ];
    fake.put(1, vm(state, &tags));
    let provider = provider(&fake);
    provider.observe().unwrap();
    fake.calls();
    (fake, provider)
}

fn active(lcm: LcmState) -> VmState {
    VmState::Active(lcm)
}

#[track_caller]
fn underway(ended: Result<Ended, Error>, words: &str) {
    match ended.expect("no error") {
        Ended::Underway(what) => assert!(what.contains(words), "{what}"),
        Ended::Gone => panic!("gone"),
    }
}

#[test]
fn a_running_vm_is_asked_and_then_made_to_end() {
    let (fake, provider) = at(active(LcmState::Running));
    let end = |hard| provider.destroy(&tag(0), Some(&id(1)), hard);
    underway(end(false), "asked to terminate it");
    provider.observe().unwrap();
    fake.calls();
    underway(end(false), "asked to terminate it");
    assert_eq!(fake.calls(), Vec::<String>::new());
    underway(end(true), "at once");
    assert_eq!(fake.calls(), ["action TerminateHard 1"]);
    provider.observe().unwrap();
    underway(end(true), "at once");
    fake.pass();
    provider.observe().unwrap();
    assert_eq!(end(true).unwrap(), Ended::Gone);
}

#[test]
fn in_boot_only_a_hard_end_works_and_it_needs_a_right() {
    let (fake, provider) = at(active(LcmState::Boot));
    let end = |hard| provider.destroy(&tag(0), Some(&id(1)), hard);
    underway(end(false), "in BOOT, where OpenNebula refuses terminate");
    assert_eq!(fake.calls(), Vec::<String>::new());
    fake.fault(
        "recover",
        Fault::Refuse(Class::Authorization, "ADMIN VM is missing"),
    );
    let error = end(true).unwrap_err();
    assert_eq!(error.class, Class::Authorization);
    assert!(error.text.contains("ADMIN VM"), "{}", error.text);
    underway(end(true), "asked to delete it");
    assert_eq!(fake.alive(), Vec::<u32>::new());
}

#[test]
fn a_state_that_changed_since_the_observation_is_met_by_what_it_takes() {
    let (fake, provider) = at(active(LcmState::Running));
    fake.set(1, active(LcmState::Boot));
    underway(
        provider.destroy(&tag(0), Some(&id(1)), false),
        "not available for state BOOT",
    );
    underway(
        provider.destroy(&tag(0), Some(&id(1)), true),
        "asked to delete it",
    );
}

#[test]
fn a_lost_answer_is_asked_again() {
    let (fake, provider) = at(active(LcmState::Running));
    fake.fault("action", Fault::LoseAnswer);
    let end = |hard| provider.destroy(&tag(0), Some(&id(1)), hard);
    assert_eq!(end(false).unwrap_err().class, Class::Network);
    underway(end(false), "not available for state SHUTDOWN");
    fake.pass();
    fake.pass();
    provider.observe().unwrap();
    assert_eq!(end(false).unwrap(), Ended::Gone);
}

#[test]
fn a_vm_of_another_tag_is_not_touched() {
    let (fake, provider) = at(active(LcmState::Running));
    fake.put(2, vm(active(LcmState::Running), &[]));
    fake.put(3, vm(active(LcmState::Running), &[("THIAO_CLUSTER", "test")]));
    let refused = |tag: &VmTag, vm: u32| {
        for hard in [false, true] {
            let error = provider.destroy(tag, Some(&id(vm)), hard).unwrap_err();
            assert!(error.text.contains("not touched"), "{}", error.text);
        }
    };
    // Before they were ever seen, and after.
    for _ in 0..2 {
        refused(&tag(1), 1);
        refused(&tag(0), 2);
        refused(&tag(0), 3);
        provider.observe().unwrap();
    }
    let next = VmTag {
        generation: Generation(2),
        ..tag(0)
    };
    refused(&next, 1);
    let name = VmId::new("prod-fg0-1").unwrap();
    assert!(provider.destroy(&tag(0), Some(&name), true).is_err());
    assert!(
        fake.calls()
            .iter()
            .all(|call| !call.starts_with("action") && !call.starts_with("recover"))
    );
}

#[test]
fn all_vms_of_a_tag_are_ended_when_none_is_named() {
    let (fake, provider) = at(VmState::Hold);
    let twin = fake.inside().vms[&1].clone();
    fake.put(2, twin);
    // Nothing is known of the second one until an observation.
    provider.observe().unwrap();
    underway(provider.destroy(&tag(0), None, false), "asked to terminate");
    assert_eq!(fake.alive(), Vec::<u32>::new());
    provider.observe().unwrap();
    assert_eq!(provider.destroy(&tag(0), None, false).unwrap(), Ended::Gone);
    assert_eq!(seen(&provider), []);
}

#[test]
fn a_vm_that_was_never_made_is_gone_only_after_a_whole_listing() {
    let (fake, provider) = at(VmState::Hold);
    fake.fault("vms", Fault::Refuse(Class::Network, "down"));
    assert_eq!(
        provider.destroy(&tag(5), None, false).unwrap_err().class,
        Class::Network
    );
    assert_eq!(provider.destroy(&tag(5), None, false).unwrap(), Ended::Gone);
}

#[test]
fn a_vm_purged_from_the_database_is_gone() {
    let (fake, provider) = at(active(LcmState::Running));
    fake.inside().vms.clear();
    assert_eq!(
        provider.destroy(&tag(0), Some(&id(1)), false).unwrap(),
        Ended::Gone
    );
    assert_eq!(
        provider.destroy(&tag(0), Some(&id(77)), false).unwrap(),
        Ended::Gone
    );
}

#[test]
fn many_ends_cost_a_call_each() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    for n in 0..64 {
        provider.create(&tag(n), &host(), &spec(), false).unwrap();
        fake.set(n, active(LcmState::Running));
    }
    provider.observe().unwrap();
    fake.calls();
    for n in 0..64 {
        underway(provider.destroy(&tag(n), Some(&id(n)), false), "asked");
    }
    assert_eq!(fake.calls().len(), 64);
    fake.pass();
    fake.pass();
    provider.observe().unwrap();
    assert_eq!(fake.calls().len(), 3);
    for n in 0..64 {
        assert_eq!(
            provider.destroy(&tag(n), Some(&id(n)), false).unwrap(),
            Ended::Gone
        );
    }
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// Each push cancels what OpenNebula's driver is doing for the VM.
#[test]
fn a_vm_on_its_way_out_is_not_pushed_again_and_again() {
    let (fake, provider) = at(active(LcmState::Running));
    let end = |hard| provider.destroy(&tag(0), Some(&id(1)), hard);
    for hard in [[false; 12], [true; 12]].concat() {
        underway(end(hard), "");
        // Its driver takes its time.
        fake.set(1, active(LcmState::Shutdown));
        provider.observe().unwrap();
    }
    let acted: Vec<String> = fake
        .calls()
        .into_iter()
        .filter(|call| call.starts_with("action"))
        .collect();
    assert_eq!(acted, ["action Terminate 1", "action TerminateHard 1"]);
}

#[test]
fn a_vm_that_does_not_end_is_left_to_a_person() {
    let fake = Arc::new(Fake::default());
    let tags = [
        ("THIAO_CLUSTER", "prod"),
        ("THIAO_NODE", "fg0"),
        ("THIAO_GENERATION", "1"),
    ];
    let stubborn = fake::Vm {
        error: Some("the driver is lost".to_owned()),
        ..vm(active(LcmState::Running), &tags)
    };
    fake.put(1, stubborn);
    let mut provider = provider(&fake);
    provider.settings.terminate_grace = Duration::ZERO;
    let end = || {
        fake.set(1, active(LcmState::Shutdown));
        provider.observe().unwrap();
        provider.destroy(&tag(0), Some(&id(1)), true)
    };
    for _ in 0..3 {
        underway(end(), "at once");
    }
    fake.calls();
    for _ in 0..3 {
        underway(
            end(),
            "asked 3 times to end it, and it is still in SHUTDOWN (OpenNebula's last word on it: the driver is lost)",
        );
    }
    assert!(fake.calls().iter().all(|call| !call.starts_with("action")));
    fake.set(1, VmState::Done);
    provider.observe().unwrap();
    assert_eq!(
        provider.destroy(&tag(0), Some(&id(1)), true).unwrap(),
        Ended::Gone
    );
}
