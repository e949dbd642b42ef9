//! A nodeset does not reach every host: other networks, other datastores.

use super::*;
use crate::place::Ledger;
use crate::plan::{Plan, Step};
use crate::resources::Resources;
use crate::view::VmSpec;
use std::collections::BTreeSet;

const WHY: &str = "cluster west has none of its networks";

/// Has nodeset `n` not reach these hosts.
fn keep_from(w: &mut World, hosts: &[&str]) {
    let nodeset = NodesetName::new("n").unwrap();
    let why = Arc::new(BTreeMap::from([(nodeset, WHY.to_owned())]));
    for seen in &mut Arc::make_mut(w.provider.as_mut().unwrap()).hosts {
        if hosts.contains(&seen.name.as_str()) {
            seen.not_for = why.clone();
        }
    }
}

fn chosen(plan: &Plan) -> Vec<&str> {
    let host = |step: &Step| match &step.action {
        Action::Vm(_, VmVerb::Create { host, .. }) => Some(host.clone()),
        _ => None,
    };
    let hosts: Vec<HostName> = plan.steps.iter().filter_map(host).collect();
    ["a", "b"]
        .into_iter()
        .filter(|name| hosts.iter().any(|host| host.as_str() == *name))
        .collect()
}

#[test]
fn a_host_that_a_nodeset_does_not_reach_gets_none_of_its_vms() {
    let mut w = world();
    for name in ["n0", "n1"] {
        w.ask_up(name);
    }
    assert_eq!(chosen(&plan(&w)), ["a", "b"]);
    keep_from(&mut w, &["a"]);
    assert_eq!(chosen(&plan(&w)), ["b"]);
    // It has more than any other, and that is no reason.
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts[0].memory_mb = 10_000;
    assert_eq!(chosen(&plan(&w)), ["b"]);
}

#[test]
fn a_node_that_no_host_can_run_is_told_why() {
    let mut w = world();
    w.ask_up("n0");
    keep_from(&mut w, &["a", "b"]);
    let plan = plan(&w);
    assert!(chosen(&plan).is_empty());
    let told = format!("{:?} {:?}", plan.steps, plan.held);
    assert!(
        told.contains("none of the 2 hosts that take VMs can run it") && told.contains(WHY),
        "{told}"
    );
}

#[test]
fn the_linter_lets_no_vm_go_where_its_nodeset_does_not_reach() {
    let mut w = world();
    w.ask_up("n0");
    let create = |name: &str| Plan {
        steps: vec![Step {
            action: Action::Vm(
                w.tag(&node("n0"), Generation(1)),
                VmVerb::Create {
                    host: host(name),
                    spec: VmSpec::of_node(w.specs[&node("n0")].shape),
                    again: false,
                },
            ),
            why: String::new(),
        }],
        held: vec![],
    };
    let (to_a, to_b) = (create("a"), create("b"));
    keep_from(&mut w, &["a"]);
    let (_, refused) = lint(&w, &to_a);
    assert!(refused[0].why.contains("host a cannot run n0") && refused[0].why.contains(WHY));
    assert!(lint(&w, &to_b).1.is_empty());
}

#[test]
fn what_one_nodeset_cannot_have_is_not_refused_to_another() {
    let mut w = world();
    keep_from(&mut w, &["a", "b"]);
    let view = w.provider.clone().unwrap();
    let mut ledger = Ledger::new(&w, &view);
    let need = Resources::of_shape(&w.specs[&node("n0")].shape, &w.policy);
    let (n, other) = (NodesetName::new("n").unwrap(), NodesetName::new("m").unwrap());
    let none = ledger.choose(&need, &[&n], &BTreeSet::new()).unwrap_err();
    assert_eq!(
        (none.usable_hosts, none.out_of_reach.map(|beyond| beyond.hosts)),
        (0, Some(2))
    );
    assert!(ledger.choose(&need, &[&other], &BTreeSet::new()).is_ok());
    assert!(ledger.choose(&need, &[&n, &other], &BTreeSet::new()).is_ok());
    assert!(ledger.choose(&need, &[&n], &BTreeSet::new()).is_err());
}
