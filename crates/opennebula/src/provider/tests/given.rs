//! VMs that somebody gave away, and those that are really gone.

use super::*;
use crate::error::Class;
use crate::state::LcmState;

const RUNNING: VmState = VmState::Active(LcmState::Running);

/// Some VMs of ours that run, as an observation has shown them.
fn observed(count: u32) -> (Arc<Fake>, Inner<Arc<Fake>>) {
    let fake = Arc::new(Fake::default());
    for n in 1..=count {
        let node = format!("fg{n}");
        let tags = [
            ("THIAO_CLUSTER", "prod"),
            ("THIAO_NODE", node.as_str()),
            ("THIAO_GENERATION", "1"),
        ];
        fake.put(n, vm(RUNNING, &tags));
    }
    let provider = provider(&fake);
    whole(&provider);
    fake.calls();
    (fake, provider)
}

/// How many single VMs were asked for since this was last asked.
fn single(fake: &Fake) -> usize {
    fake.calls().iter().filter(|call| call.starts_with("vm ")).count()
}

fn is_left_alone(provider: &Inner<Arc<Fake>>) -> bool {
    let seen = seen(provider);
    let [(_, Seen::Unknown(what))] = &seen[..] else {
        return false;
    };
    assert!(
        what.contains("whose VMs Thiao may not see (onevm chown)"),
        "{what}"
    );
    true
}

#[test]
fn one_given_to_somebody_whose_vms_may_not_be_seen_is_told_from_one_that_is_gone() {
    let (fake, provider) = observed(1);
    fake.inside().unseen.push(1);
    assert!(is_left_alone(&provider));
    assert_eq!(single(&fake), 1);
    // That is asked for once.
    assert!(is_left_alone(&provider));
    assert_eq!(single(&fake), 0);
    // It is nobody's business of ours to end it, and nothing is left of it here.
    assert_eq!(provider.destroy(&tag(1), Some(&id(1)), true), Ok(Ended::Gone));
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert_eq!((seen(&provider), fake.state(1)), (vec![], RUNNING));
    assert_eq!(single(&fake), 0);

    let (fake, provider) = observed(1);
    fake.inside().hidden.push(1);
    assert_eq!(seen(&provider), vec![]);
    assert_eq!(single(&fake), 1);
}

#[test]
fn one_given_back_is_ours_again() {
    let (fake, provider) = observed(1);
    fake.inside().unseen.push(1);
    assert!(is_left_alone(&provider));
    fake.inside().unseen.clear();
    assert_eq!(seen(&provider), [("1".to_owned(), Seen::Booting)]);
    assert!(matches!(
        provider.destroy(&tag(1), Some(&id(1)), true),
        Ok(Ended::Underway(_))
    ));
}

#[test]
fn an_answer_that_is_no_refusal_says_nothing() {
    for class in [Class::Network, Class::Busy, Class::Authentication, Class::Unknown] {
        let (fake, provider) = observed(1);
        fake.inside().unseen.push(1);
        fake.fault("vm", fake::Fault::Refuse(class, "not now"));
        assert_eq!(seen(&provider), vec![], "{class:?}: missing, as before");
        assert!(is_left_alone(&provider), "and asked for again");
    }
}

/// What one call leaves out, another may show.
#[test]
fn one_that_is_shown_when_it_is_asked_for_is_there() {
    let (fake, provider) = observed(1);
    fake.inside().left_out.push(1);
    assert_eq!(seen(&provider), [("1".to_owned(), Seen::Booting)]);
}

#[test]
fn few_are_asked_for_at_once() {
    let (fake, provider) = observed(25);
    fake.inside().unseen.extend(1..=25);
    let mut shown = Vec::new();
    for _ in 0..4 {
        shown.push((seen(&provider).len(), single(&fake)));
    }
    // Those that were not asked for yet are missing until they are.
    assert_eq!(shown, [(10, 10), (20, 10), (25, 5), (25, 0)]);
    let (fake, provider) = observed(25);
    fake.inside().hidden.extend(1..=25);
    let asked: Vec<usize> = (0..4).map(|_| (seen(&provider).len(), single(&fake)).1).collect();
    assert_eq!(asked, [10, 10, 5, 0]);
}
