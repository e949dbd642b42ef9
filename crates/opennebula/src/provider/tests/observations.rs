use super::*;
use crate::state::LcmState;

const RUNNING: VmState = VmState::Active(LcmState::Running);

fn tags(node: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("THIAO_CLUSTER", "prod"),
        ("THIAO_NODE", node),
        ("THIAO_GENERATION", "1"),
    ]
}

#[test]
fn only_vms_of_this_cluster_are_shown() {
    let fake = Arc::new(Fake::default());
    fake.put(1, vm(RUNNING, &tags("fg0")));
    fake.put(2, vm(RUNNING, &[]));
    fake.put(
        3,
        vm(
            RUNNING,
            &[
                ("THIAO_CLUSTER", "test"),
                ("THIAO_NODE", "fg0"),
                ("THIAO_GENERATION", "1"),
            ],
        ),
    );
    fake.put(
        4,
        vm(RUNNING, &[("THIAO_CLUSTER", "prod"), ("THIAO_NODE", "fg0")]),
    );
    let view = whole(&provider(&fake));
    assert_eq!(view.vms.len(), 1);
    assert_eq!(
        (view.vms[0].id.clone(), view.vms[0].tag.clone()),
        (id(1), Some(tag(0)))
    );
}

#[test]
fn an_observation_is_two_calls_when_nothing_is_new() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.put(1, vm(VmState::Active(LcmState::Boot), &tags("fg0")));
    fake.put(2, vm(RUNNING, &[]));
    provider.observe().unwrap();
    assert_eq!(fake.calls(), ["vms", "hosts", "vms_of 1,2"]);
    provider.observe().unwrap();
    assert_eq!(fake.calls(), ["vms", "hosts"]);
    // One that runs is asked until it says READY.
    fake.set(1, RUNNING);
    assert_eq!(seen(&provider), [("1".to_owned(), Seen::Booting)]);
    assert_eq!(fake.calls(), ["vms", "hosts", "vms_of 1"]);
    fake.inside()
        .vms
        .get_mut(&1)
        .unwrap()
        .tags
        .insert("READY".to_owned(), "yes".to_owned());
    assert_eq!(seen(&provider), [("1".to_owned(), Seen::Ready)]);
    fake.calls();
    assert_eq!(seen(&provider), [("1".to_owned(), Seen::Ready)]);
    assert_eq!(fake.calls(), ["vms", "hosts"]);
}

#[test]
fn a_vm_that_a_person_ended_is_dead_until_that_is_taken_note_of() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.put(1, vm(RUNNING, &tags("fg0")));
    provider.observe().unwrap();
    fake.set(1, VmState::Done);
    let dead = [("1".to_owned(), Seen::Dead("terminated in OpenNebula".to_owned()))];
    assert_eq!(seen(&provider), dead);
    fake.calls();
    assert_eq!(seen(&provider), dead);
    assert_eq!(fake.calls(), ["vms", "hosts"]);
    assert_eq!(
        provider.destroy(&tag(0), Some(&id(1)), true).unwrap(),
        Ended::Gone
    );
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert_eq!(seen(&provider), []);
}

#[test]
fn a_vm_that_is_shown_no_more_is_absent_not_dead() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.put(1, vm(RUNNING, &tags("fg0")));
    provider.observe().unwrap();
    fake.inside().hidden.push(1);
    assert_eq!(seen(&provider), []);
    fake.inside().hidden.clear();
    assert_eq!(seen(&provider).len(), 1);
}

#[test]
fn a_vm_made_while_the_listing_was_under_way_is_shown() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    provider.create(&tag(0), &host(), &spec(), false).unwrap();
    // The listing does not have it yet.
    fake.fault("vms", Fault::Refuse(Class::Network, "down"));
    assert!(provider.observe().is_err());
    assert_eq!(seen(&provider), [("0".to_owned(), Seen::Pending)]);
}

#[test]
fn an_observation_is_whole_or_an_error() {
    for call in ["vms", "hosts", "vms_of"] {
        let fake = Arc::new(Fake::default());
        let provider = provider(&fake);
        fake.put(1, vm(RUNNING, &tags("fg0")));
        fake.fault(call, Fault::LoseAnswer);
        assert_eq!(provider.observe().unwrap_err().class, Class::Network, "{call}");
        assert_eq!(seen(&provider).len(), 1, "{call}");
    }
}

#[test]
fn tags_that_a_person_takes_off_are_remembered() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.put(1, vm(RUNNING, &tags("fg0")));
    provider.observe().unwrap();
    fake.inside().vms.get_mut(&1).unwrap().tags.clear();
    assert_eq!(seen(&provider).len(), 1);
}

#[test]
fn a_failed_vm_is_dead_with_opennebulas_words() {
    let fake = Arc::new(Fake::default());
    fake.put(1, vm(VmState::Active(LcmState::BootFailure), &tags("fg0")));
    fake.inside().vms.get_mut(&1).unwrap().error = Some("no KVM".to_owned());
    let dead = Seen::Dead("failed in OpenNebula (BOOT_FAILURE): no KVM".to_owned());
    assert_eq!(seen(&provider(&fake)), [("1".to_owned(), dead)]);
}
