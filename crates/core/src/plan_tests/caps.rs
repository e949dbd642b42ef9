//! Every cap on a host holds, whoever decided: the planner keeps to it, and the linter counts anew.

use super::*;
use crate::plan::{Plan, Step};
use crate::view::VmSpec;

/// What the linter says of creations on host a, one after the other.
fn linted(w: &World, specs: &[VmSpec]) -> Vec<Option<String>> {
    let nodes = w.specs.keys();
    let step = |(node, spec): (&NodeName, &VmSpec)| Step {
        action: Action::Vm(
            w.tag(node, Generation(1)),
            VmVerb::Create {
                host: host("a"),
                spec: spec.clone(),
                again: false,
            },
        ),
        why: String::new(),
    };
    let one = |step: &Step, refused: &[crate::lint::Refusal]| {
        let of = refused.iter().find(|refusal| refusal.step == *step);
        of.map(|refusal| refusal.why.clone())
    };
    let steps: Vec<Step> = nodes.zip(specs).map(step).collect();
    let plan = Plan {
        steps: steps.clone(),
        held: vec![],
    };
    let (_, refused) = lint(w, &plan);
    steps.iter().map(|step| one(step, &refused)).collect()
}

#[test]
fn the_linter_knows_every_cap_of_a_host() {
    let mut w = world();
    for name in ["n0", "n1", "n2"] {
        w.ask_up(name);
    }
    let spec = VmSpec::of_node(w.specs[&node("n0")].shape);
    let three = [spec.clone(), spec.clone(), spec];
    let third = |w: &World| linted(w, &three)[2].clone().unwrap_or_default();
    assert_eq!(linted(&w, &three[..2]), [None, None]);
    assert_eq!(third(&w), "host a would carry 450 of 300 MiB");
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts[0].memory_mb = 10_000;
    assert_eq!(
        third(&w),
        "host a would carry 300 of 200 % of a core (limits.cpu_overcommit_percent)"
    );
    w.policy.cpu_overcommit_percent = 150;
    assert_eq!(linted(&w, &three), [None, None, None]);
    w.policy.max_vms_per_host = 2;
    assert_eq!(
        third(&w),
        "host a would carry more than 2 VMs (limits.max_vms_per_host)"
    );
}

/// One that was made and that no listing shows yet has its capacity: for the linter, too.
#[test]
fn the_linter_counts_what_no_listing_shows() {
    let mut w = world();
    w.ask_up("n0");
    let spec = VmSpec::of_node(w.specs[&node("n0")].shape);
    let first = w.tick();
    assert_eq!(kinds(&first), ["create"]);
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    for name in ["n1", "n2"] {
        w.ask_up(name);
    }
    let mut rest = w.clone();
    Arc::make_mut(&mut rest.specs).remove(&node("n0"));
    assert_eq!(
        linted(&rest, &[spec.clone(), spec]),
        [None, Some("host a would carry 450 of 300 MiB".into())]
    );
}

#[test]
fn gpus_of_a_host_are_counted_where_the_provider_knows_of_them() {
    let policy = world().policy;
    let with = |gpus| VmSpec {
        gpus,
        ..VmSpec::of_node(world().specs[&node("n0")].shape)
    };
    let mut w = world();
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts[0].gpus = Some(2);
    let view = w.provider.as_deref().cloned().unwrap();
    let need = |gpus| crate::resources::Resources::of_spec(&with(gpus), &policy);
    let mut ledger = crate::place::Ledger::new(&w, &view);
    assert!(ledger.fits(&host("a"), &need(2)) && !ledger.fits(&host("a"), &need(3)));
    assert!(ledger.fits(&host("b"), &need(3)), "nothing is known there");
    ledger.take(&host("a"), &need(2));
    assert!(!ledger.fits(&host("a"), &need(1)));
    // One that is shown has its GPUs, which no listing tells.
    w.ask_up("n0");
    w.tick();
    let record = w.records.get_mut(&node("n0")).unwrap();
    record.vm.as_mut().unwrap().spec = Some(with(2));
    let shown = w.shown("n0", 1, VmState::Booting);
    Arc::make_mut(w.provider.as_mut().unwrap()).vms.push(shown);
    let view = w.provider.as_deref().cloned().unwrap();
    let ledger = crate::place::Ledger::new(&w, &view);
    assert!(!ledger.fits(&host("a"), &need(1)) && ledger.fits(&host("a"), &need(0)));
}
