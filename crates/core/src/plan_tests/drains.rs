//! Drains that Slurm itself began for what went wrong in a node's VM die with that VM; all others stay.

use super::*;
use crate::plan::{Plan, Step};

const FULL: &str = "SlurmdSpoolDir is full";

fn drained(reason: NodeReason, set: impl FnOnce(&mut NodeFlags)) -> SlurmNode {
    let mut flags = NodeFlags {
        drain: true,
        powered_down: true,
        ..NodeFlags::default()
    };
    set(&mut flags);
    slurm_node(BaseState::Idle, flags, Some(reason))
}

fn by_slurmd() -> NodeReason {
    by(FULL, Whose::ItsVm)
}

impl World {
    /// n0 was up, was drained by its slurmd, and its VM is gone.
    fn outlives_its_vm() -> World {
        let mut w = world();
        w.up("n0");
        w.see_node("n0", drained(by_slurmd(), |f| f.powered_down = false));
        w.order(&node("n0"), &Order::Down, w.now);
        assert_eq!(kinds(&w.tick()), ["destroy"]);
        w.busy.clear();
        w.gone("n0");
        w.pass(Millis(1));
        w
    }

    fn refuses_to_undrain(&self) -> bool {
        let step = Step {
            action: Action::Node(node("n0"), NodeVerb::Undrain { was: String::new() }),
            why: String::new(),
        };
        let plan = Plan {
            steps: vec![step],
            held: Vec::new(),
        };
        lint(self, &plan).1.len() == 1
    }
}

#[test]
fn what_slurm_drained_for_its_vm_is_undrained_when_that_is_gone() {
    let mut w = World::outlives_its_vm();
    w.see_node("n0", drained(by_slurmd(), |f| f.powering_down = true));
    assert_eq!(w.tick(), [], "Slurm still powers it down");
    w.see_node("n0", drained(by_slurmd(), |_| ()));
    assert_eq!(w.tick(), [], "the listing shows the VM yet");
    w.see(vec![]);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["undrain"]);
    assert_eq!(actions[0].to_string(), format!("undrain node n0: {FULL}"));
    let (told, _) = w.ended(&actions[0], &crate::fold::Outcome::Done);
    assert_eq!(told[0].kind.word(), "node-undrained");
    assert!(told[0].text.contains(FULL), "{}", told[0].text);
    assert_eq!(w.tick(), [], "an observation must show first what came of it");
    w.pass(Millis(1));
    w.see_node("n0", powered_down());
    assert_eq!(w.tick(), []);
}

#[test]
fn a_drain_stays_while_its_vm_or_a_job_may_be_there() {
    let mut up = world();
    up.up("n0");
    up.see_node("n0", drained(by_slurmd(), |f| f.powered_down = false));
    assert!(up.tick().is_empty() && up.refuses_to_undrain());
    let gone = || {
        let mut w = World::outlives_its_vm();
        w.see(vec![]);
        w
    };
    for (what, seen) in [
        ("powers up", drained(by_slurmd(), |f| f.powering_up = true)),
        ("powers down", drained(by_slurmd(), |f| f.power_down = true)),
        ("completes", drained(by_slurmd(), |f| f.completing = true)),
        ("unknown", drained(by_slurmd(), |f| f.unknown = true)),
        ("is up", drained(by_slurmd(), |f| f.powered_down = false)),
    ] {
        let mut w = gone();
        w.see_node("n0", seen);
        assert!(w.tick().is_empty() && w.refuses_to_undrain(), "{what}");
    }
    // A copy of its VM.
    let mut w = gone();
    w.see_node("n0", drained(by_slurmd(), |_| ()));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert!(w.tick().is_empty() && w.refuses_to_undrain());
}

#[test]
fn what_others_drained_is_left_alone_whatever_slurmd_says_later() {
    let gone = || {
        let mut w = World::outlives_its_vm();
        w.see(vec![]);
        w
    };
    for reason in [
        by("a look at it", Whose::Others),
        by("thiao: it was idle", Whose::Ours),
    ] {
        let mut w = gone();
        w.see_node("n0", drained(reason.clone(), |_| ()));
        assert!(w.tick().is_empty() && w.refuses_to_undrain(), "{reason}");
        // slurmd writes over what a person wrote.
        w.see_node("n0", drained(by_slurmd(), |_| ()));
        assert!(w.tick().is_empty() && w.refuses_to_undrain(), "{reason}");
        // They have lifted it since, and slurmd has begun one of its own.
        w.see_node("n0", powered_down());
        w.see_node("n0", drained(by_slurmd(), |_| ()));
        assert_eq!(kinds(&w.tick()), ["undrain"]);
    }
}
