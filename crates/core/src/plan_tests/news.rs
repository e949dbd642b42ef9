//! News of single VMs: what it is evidence of, and what it never is.

use super::*;
use crate::view::{VmNews, Word};
use crate::vm::Life;

impl World {
    /// News of a VM as it is `shown`.
    fn hear(&mut self, vm: VmView, word: Word) {
        self.see_news(vec![VmNews { vm, word }]);
    }

    fn life(&self, name: &str) -> Life {
        self.records[&node(name)].vm.as_ref().unwrap().life.clone()
    }
}

fn dead() -> VmState {
    VmState::Dead("terminated in OpenNebula".into())
}

#[test]
fn what_is_only_told_ends_nothing() {
    let states = [
        dead(),
        VmState::Stopping,
        VmState::Saved,
        VmState::Moving,
        VmState::Held,
        VmState::Unknown("?".into()),
        VmState::Ready,
    ];
    for state in states {
        let mut w = world();
        w.up("n0");
        let before = w.records.clone();
        let vm = w.shown("n0", 1, state.clone());
        w.hear(vm, Word::Told);
        assert_eq!(w.records, before, "{state:?}");
        assert_eq!(w.tick(), [], "{state:?}");
    }
}

#[test]
fn a_vm_that_comes_up_is_believed_to_go_on() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    let booting = w.shown("n0", 1, VmState::Booting);
    w.hear(booting.clone(), Word::Told);
    assert_eq!(w.life("n0"), Life::Asked, "its creation is under way");
    w.busy.clear();
    w.hear(booting, Word::Told);
    assert_eq!(w.life("n0"), Life::Booting);
    // Nobody says so of one that is held still: it might be an old message.
    w.up("n1");
    let saved = w.shown("n1", 1, VmState::Saved);
    w.hear(saved, Word::Asked(w.now));
    let booting = w.shown("n1", 1, VmState::Booting);
    w.hear(booting, Word::Told);
    assert_eq!(w.life("n1"), Life::Saved);
}

/// OpenNebula shows one as pending until it runs: from there on it is told that it does.
#[test]
fn a_vm_that_is_pending_is_believed_to_run_and_not_the_other_way() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    let [pending, booting] = [VmState::Pending, VmState::Booting].map(|state| w.shown("n0", 1, state));
    for (news, life) in [
        (&pending, Life::Pending),
        (&booting, Life::Booting),
        (&pending, Life::Booting),
    ] {
        w.hear(news.clone(), Word::Told);
        assert_eq!(w.life("n0"), life, "{:?}", news.state);
    }
}

#[test]
fn what_the_provider_says_when_asked_counts_at_once() {
    let mut w = world();
    w.up("n0");
    let vm = w.shown("n0", 1, dead());
    w.hear(vm, Word::Asked(w.now));
    assert!(matches!(w.life("n0"), Life::Dead { .. }));
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn the_end_of_an_ordered_vm_is_taken_note_of_without_a_whole_observation() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1000));
    w.order(&node("n0"), &Order::Down, w.now);
    w.see_node("n0", powered_down());
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.ending(&w.tag(&node("n0"), Generation(1)));
    assert_eq!(w.tick(), [], "it is being ended");
    w.pass(Millis(10));
    let vm = w.shown("n0", 1, dead());
    w.hear(vm.clone(), Word::Told);
    assert_eq!(w.tick(), [], "a message says nothing of an end");
    w.hear(vm, Word::Asked(w.now));
    assert_eq!(kinds(&w.tick()), ["destroy"], "asked whether it is gone");
}

/// The provider's side knows of an end before the news of it is taken: an order to end the VM, which is under way or
/// over by then, finds it gone.
#[test]
fn a_vm_whose_end_is_told_around_its_last_order_is_not_waited_for() {
    for order_is_over in [false, true] {
        let mut w = world();
        w.up("n0");
        w.pass(Millis(1000));
        w.order(&node("n0"), &Order::Down, w.now);
        w.see_node("n0", powered_down());
        assert_eq!(kinds(&w.tick()), ["destroy"]);
        let dead = w.shown("n0", 1, dead());
        let (tag, id) = (w.tag(&node("n0"), Generation(1)), dead.id.clone());
        let end = |w: &mut World| {
            w.busy.clear();
            w.destroyed(&tag, Some(&id));
        };
        if order_is_over {
            end(&mut w);
            w.hear(dead, Word::Asked(w.now));
        } else {
            w.hear(dead, Word::Asked(w.now));
            assert!(
                matches!(w.life("n0"), Life::Ending { .. }),
                "its order is under way"
            );
            end(&mut w);
        }
        w.pass(Millis(1000));
        w.ask_up("n0");
        assert_eq!(kinds(&w.tick()), ["create"], "{order_is_over}");
    }
}

#[test]
fn news_says_nothing_of_other_vms() {
    let mut w = world();
    w.up("n0");
    w.up("n1");
    let stranger = w.shown("n2", 7, VmState::Ready);
    let later = w.shown("n1", 2, dead());
    for _ in 0..10 {
        w.pass(w.policy.missing_grace);
        let vm = w.shown("n0", 1, VmState::Ready);
        for vm in [vm, stranger.clone(), later.clone()] {
            w.hear(vm, Word::Asked(w.now));
        }
    }
    assert_eq!(w.tick(), []);
    assert!(w.absences.is_empty(), "nothing is missing");
    assert!(w.records[&node("n2")].vm.is_none(), "nothing is adopted");
    assert!(w.strays.is_empty());
}

#[test]
fn without_a_whole_observation_there_is_no_news() {
    let mut w = world();
    w.up("n0");
    w.provider = None;
    let vm = w.shown("n0", 1, dead());
    w.hear(vm, Word::Asked(w.now));
    assert_eq!(w.life("n0"), Life::Running);
}
