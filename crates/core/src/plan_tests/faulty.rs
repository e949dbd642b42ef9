//! Nodes for which the provider can make no VM: a fault of theirs, and not of the others.

use super::job_mode::{admitted, job_mode_world, waiting};
use super::*;

const WHY: &str = "nodeset n: the template gone was not found";

#[test]
fn a_nodesets_fault_costs_its_nodes_alone_and_is_told() {
    let mut w = world();
    w.faults.insert(node("n0"), WHY.into());
    w.ask_up("n0");
    w.ask_up("n1");
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["down", "create"]);
    let Action::Node(_, NodeVerb::SetDown { reason, .. }) = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!(*reason, format!("thiao: {WHY}"));
    w.busy.clear();
    w.told_down(&node("n0"), reason, &[]);
    let down = slurm_node(
        BaseState::Down,
        NodeFlags::default(),
        Some(NodeReason::ours(reason)),
    );
    w.see_node("n0", down.clone());
    w.pass(Millis(2 * w.policy.retry_max.0));
    let vms = [w.shown("n1", 1, VmState::Ready)];
    w.see(vms.to_vec());
    w.observe(|slurm| drop(slurm.nodes.insert(node("n1"), running())));
    assert_eq!(w.tick(), [], "it stays DOWN until that is mended");
    assert!(!w.breaker.pauses(w.now, &w.policy));
    w.faults.clear();
    assert_eq!(kinds(&w.tick()), ["return"]);
}

#[test]
fn the_linter_lets_no_vm_be_made_that_cannot_be() {
    use crate::planner::plan;
    let mut w = world();
    w.ask_up("n0");
    let plan = plan(&w);
    assert_eq!(lint(&w, &plan).0.len(), 1);
    w.faults.insert(node("n0"), WHY.into());
    assert_eq!(lint(&w, &plan).0.len(), 0);
}

#[test]
fn jobs_wait_at_the_gate_while_no_vm_can_be_made_for_their_partition() {
    let mut w = job_mode_world();
    for i in 0..3 {
        w.faults.insert(node(&format!("n{i}")), WHY.into());
    }
    w.submit(waiting(1, 1, 100, 10));
    w.submit(waiting(2, 2, 100, 5));
    let actions = w.tick();
    assert_eq!(admitted(&actions), [1], "one node is left");
    w.done(&actions);
    w.allocate(1, &["n0"], 100);
    let actions = w.tick();
    let Some(Action::Job(_, JobVerb::PutBack { comment, .. })) =
        actions.iter().find(|action| action.job() == Some(JobId(1)))
    else {
        panic!("{actions:?}")
    };
    assert!(comment.contains(WHY), "{comment}");
    let mut w = job_mode_world();
    w.faults = w
        .specs
        .keys()
        .map(|node| (node.clone(), WHY.to_owned()))
        .collect();
    w.submit(waiting(1, 1, 100, 10));
    assert_eq!(w.tick(), []);
    assert!(w.held_of(1)[0].contains(WHY), "{:?}", w.held_of(1));
}
