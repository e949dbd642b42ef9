//! Many nodes that want VMs at once.

use super::*;

/// As many as Slurm asks for in one go on a big site.
const NODES: usize = 5_000;
/// Nodes of each job.
const EACH: usize = 5;
/// VMs that may start at once.
const AT_ONCE: usize = 500;

/// A world with as many nodes, each asked for with its job, half of them a second after the others. The later a
/// node's name, the earlier its job.
fn asked() -> World {
    let mut w = world();
    let spec = w.specs[&node("n0")].clone();
    let names: Vec<NodeName> = (0..NODES).map(|i| node(&format!("m{i:04}"))).collect();
    let of_jobs = |i: usize| JobId(1 + ((NODES - 1 - i) / EACH) as u32);
    w.specs = Arc::new(names.iter().map(|name| (name.clone(), spec.clone())).collect());
    let view = Arc::make_mut(w.slurm.as_mut().unwrap());
    view.nodes = names.iter().map(|name| (name.clone(), powering_up())).collect();
    for host in &mut Arc::make_mut(w.provider.as_mut().unwrap()).hosts {
        (host.cpu_percent, host.memory_mb) = (1_000_000, 1_000_000);
    }
    w.policy.max_starting = AT_ONCE;
    w.policy.max_vms = NODES;
    w.policy.max_vms_per_host = NODES;
    let now = w.now;
    let record = |i: usize| NodeRecord {
        // Of two requests the second is for the jobs with the even numbers.
        desired: Desired::Up {
            since: if of_jobs(i).0 % 2 == 0 {
                now
            } else {
                Time(now.0 - 1_000)
            },
        },
        jobs: vec![of_jobs(i)],
        ..NodeRecord::default()
    };
    w.records = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.clone(), record(i)))
        .collect();
    w
}

/// The nodes for which VMs are made now.
fn made(w: &mut World) -> Vec<NodeName> {
    let created = |action: Action| match action {
        Action::Vm(tag, VmVerb::Create { .. }) => tag.node,
        other => panic!("{other}"),
    };
    w.tick().into_iter().map(created).collect()
}

#[test]
fn as_many_as_there_are_get_their_vms_in_the_order_of_their_jobs() {
    let mut w = asked();
    let mut order: Vec<NodeName> = Vec::new();
    let mut rounds = 0;
    while order.len() < NODES {
        let some = made(&mut w);
        assert_eq!(
            some.len(),
            AT_ONCE.min(NODES - order.len()),
            "as many as may start"
        );
        w.busy.clear();
        for name in &some {
            w.created(name, VmId::new(&format!("{name}.1")).unwrap());
        }
        w.pass(Millis(1));
        order.extend(some);
        w.see(
            order
                .iter()
                .map(|name| w.shown(name.as_str(), 1, VmState::Ready))
                .collect(),
        );
        let mut view = w.slurm.as_deref().cloned().unwrap();
        view.nodes
            .extend(order.iter().map(|name| (name.clone(), running())));
        let now = w.now;
        w.see_slurm(view, now);
        rounds += 1;
    }
    assert_eq!(rounds, NODES / AT_ONCE);
    assert_eq!(made(&mut w), [], "each got one");
    let asked_for = |name: &NodeName| match w.records[name].desired {
        Desired::Up { since } => since,
        other => panic!("{other:?}"),
    };
    let key = |name: &NodeName| (asked_for(name), w.records[name].jobs.clone(), name.clone());
    let mut sorted = order.clone();
    sorted.sort_by_key(key);
    assert_eq!(order, sorted, "by request, then job, then name");
    let job_of = |at: usize| w.records[&order[at]].jobs[0].0;
    assert_eq!((job_of(0), job_of(NODES - 1)), (1, (NODES / EACH) as u32));
}
