//! What a VM does at the provider and what Slurm hears of it are two things.

use super::*;
use crate::event::Kind;
use crate::place::Ledger;
use crate::resources::Resources;

impl World {
    fn word(&self, name: &str) -> &'static str {
        let name = node(name);
        self.word_of(&name, self.records[&name].vm.as_ref().unwrap())
    }

    fn has_capacity(&self, name: &str) -> bool {
        let view = self.provider.clone().unwrap();
        let need = Resources::of_shape(&self.specs[&node("n0")].shape, &self.policy);
        Ledger::new(self, &view).fits(&host(name), &need)
    }
}

#[test]
fn a_vm_that_somebody_keeps_still_is_told_as_it_is_and_stays_its_nodes() {
    for (state, word) in [
        (VmState::Paused(String::new()), "paused"),
        (VmState::Saving, "saving"),
        (VmState::Saved, "saved"),
        (VmState::Restoring, "restoring"),
        (VmState::Moving, "moving"),
    ] {
        let mut w = world();
        w.up("n0");
        let silent = slurm_node(
            BaseState::Allocated,
            NodeFlags {
                not_responding: true,
                ..NodeFlags::default()
            },
            None,
        );
        for _ in 0..600 {
            w.pass(Millis(1_000));
            w.see_node("n0", silent.clone());
            w.see(vec![w.shown("n0", 1, state.clone())]);
            assert_eq!((w.word("n0"), w.tick()), (word, vec![]), "nobody ends it");
        }
        w.pass(Millis(1_000));
        w.see(vec![w.shown("n0", 1, VmState::Booting)]);
        assert_eq!(w.word("n0"), "silent");
        w.see_node("n0", running());
        assert_eq!((w.word("n0"), w.tick()), ("up", vec![]));
    }
}

/// Planner and linter count it for themselves.
#[test]
fn a_vm_that_moves_has_its_capacity_on_both_hosts_until_it_has_arrived() {
    let mut w = world();
    w.up("n0");
    w.up("n1");
    assert!(
        !w.has_capacity("a") || !w.has_capacity("b"),
        "one of two places is taken"
    );
    let on = |w: &World, name: &str, at: &str, state: VmState| VmView {
        host: Some(host(at)),
        ..w.shown(name, 1, state)
    };
    // Both are on a, which is full.
    w.pass(Millis(1));
    w.see(vec![
        on(&w, "n0", "a", VmState::Ready),
        on(&w, "n1", "a", VmState::Ready),
    ]);
    assert!(!w.has_capacity("a") && w.has_capacity("b"));
    // One is on its way to b: a is as full as it was.
    for _ in 0..2 {
        w.pass(Millis(1));
        w.see(vec![
            on(&w, "n0", "a", VmState::Ready),
            on(&w, "n1", "b", VmState::Moving),
        ]);
        assert_eq!(w.word("n1"), "moving");
        assert!(!w.has_capacity("a") && w.has_capacity("b"));
    }
    let spec = crate::view::VmSpec::of_node(w.specs[&node("n2")].shape);
    w.ask_up("n2");
    let refused = |w: &World, at: &str| {
        let plan = crate::plan::Plan {
            steps: vec![crate::plan::Step {
                action: Action::Vm(
                    w.tag(&node("n2"), Generation(1)),
                    VmVerb::Create {
                        host: host(at),
                        spec: spec.clone(),
                        again: false,
                    },
                ),
                why: String::new(),
            }],
            held: vec![],
        };
        lint(w, &plan).1.first().map(|refusal| refusal.why.clone())
    };
    let full = "host a would carry 450 of 300 MiB";
    assert_eq!(refused(&w, "a").as_deref(), Some(full));
    assert_eq!(refused(&w, "b"), None);
    // It has arrived.
    w.pass(Millis(1));
    w.see(vec![
        on(&w, "n0", "a", VmState::Ready),
        on(&w, "n1", "b", VmState::Ready),
    ]);
    assert!(w.has_capacity("a") && w.has_capacity("b"));
    assert_eq!(refused(&w, "a"), None);
}

/// Why a provider keeps a VM still is told with it.
#[test]
fn why_a_vm_is_paused_is_told() {
    let mut w = world();
    w.up("n0");
    let vm = w.shown("n0", 1, VmState::Paused("the disk is full".to_owned()));
    let mut view = w.provider.as_deref().cloned().unwrap();
    view.vms = vec![vm];
    let now = w.now;
    let told: Vec<String> = w
        .see_provider(view, now)
        .into_iter()
        .map(|event| event.text)
        .collect();
    assert_eq!(told, ["is paused, since the disk is full: its job stands still"]);
}

/// What a person does to a VM at the provider's console is told in words, once.
#[test]
fn what_others_do_to_a_vm_is_told() {
    let story = |steps: &[(VmState, &str)]| {
        let mut w = world();
        w.up("n0");
        let at = w.records[&node("n0")].vm.as_ref().unwrap().host.clone();
        let mut told = Vec::new();
        for (state, place) in steps {
            w.pass(Millis(1_000));
            let mut vm = w.shown("n0", 1, state.clone());
            vm.host = match *place {
                "" => at.clone(),
                other => Some(host(other)),
            };
            let view = ProviderView {
                vms: vec![vm],
                ..w.provider.as_deref().cloned().unwrap()
            };
            let now = w.now;
            told.extend(w.see_provider(view, now));
        }
        told.into_iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    let (paused, resumed) = (Kind::VmPaused, Kind::VmResumed);
    let still = [
        (VmState::Saving, ""),
        (VmState::Saving, ""),
        (VmState::Saved, ""),
        (VmState::Restoring, ""),
        (VmState::Ready, ""),
        (VmState::Ready, ""),
    ];
    assert_eq!(story(&still), [paused, paused, paused, resumed]);
    assert_eq!(
        story(&[(VmState::Paused(String::new()), ""), (VmState::Ready, "")]),
        [paused, resumed]
    );
    let by_listing = [
        (VmState::Moving, ""),
        (VmState::Moving, "c"),
        (VmState::Ready, "c"),
    ];
    assert_eq!(story(&by_listing), [Kind::VmMoves, Kind::VmMoved]);
    assert_eq!(
        story(&[(VmState::Ready, "c"), (VmState::Ready, "c")]),
        [Kind::VmMoved]
    );
    let in_vain = [(VmState::Moving, ""), (VmState::Ready, "")];
    assert_eq!(story(&in_vain), [Kind::VmMoves, resumed]);
}
