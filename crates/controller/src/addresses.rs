//! Which nodes Slurm was told to have no address yet.
//!
//! A node whose VM is not made has its own name as address. slurmctld looks that up when a job leaves the
//! node, under its locks, and may answer nobody meanwhile ([`Slurm::no_address_yet`]). Nodes are told when
//! their VM is made, and those before that wait for one: for capacity, say.

use crate::provider::chain;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use thiao_core::evidence::may_have_registered;
use thiao_core::ids::NodeName;
use thiao_core::world::{Desired, World};
use thiao_slurm::Slurm;

/// Nodes that wait for their VMs; locked while Slurm is told, so that a VM is made only after it.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    nodes: BTreeSet<NodeName>,
    /// Those of them that Slurm was told of.
    told: BTreeSet<NodeName>,
}

impl Waiting {
    fn update(&mut self, nodes: BTreeSet<NodeName>) -> bool {
        self.told.retain(|node| nodes.contains(node));
        self.nodes = nodes;
        self.told.len() < self.nodes.len()
    }

    /// Those whose VMs are made now: their slurmds bring addresses, which nothing may replace.
    fn leave(&mut self, nodes: &[NodeName]) {
        for node in nodes {
            self.nodes.remove(node);
            self.told.remove(node);
        }
    }

    fn untold(&self) -> Vec<NodeName> {
        self.nodes.difference(&self.told).cloned().collect()
    }
}

impl Addresses {
    /// Sets which nodes wait; whether there are some that Slurm has to be told of. It does not wait for a call
    /// to Slurm: then the next round sets them.
    pub fn wait(&self, nodes: BTreeSet<NodeName>) -> bool {
        self.0.try_lock().is_ok_and(|mut waiting| waiting.update(nodes))
    }

    /// Tells Slurm of those that wait.
    pub fn tell_waiting(&self, slurm: &Slurm) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = waiting.untold();
        tell(slurm, &nodes);
        // Not again if that failed: it is a precaution.
        waiting.told.extend(nodes);
    }

    /// Tells Slurm of nodes whose VMs are made next.
    pub fn tell_made(&self, slurm: &Slurm, nodes: &[NodeName]) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.leave(nodes);
        tell(slurm, nodes);
    }
}

fn tell(slurm: &Slurm, nodes: &[NodeName]) {
    if nodes.is_empty() {
        return;
    }
    // Without it all goes well but for a pause of slurmctld, should a job leave these nodes soon.
    if let Err(error) = slurm.no_address_yet(nodes) {
        tracing::debug!(
            "Slurm was not told of nodes without an address: {}",
            chain(&error)
        );
    }
}

/// Nodes that are to have a VM, have none, and surely have not registered.
pub fn waiting(world: &World) -> BTreeSet<NodeName> {
    let Some(slurm) = &world.slurm else {
        return BTreeSet::new();
    };
    let strays = world.provider.iter().flat_map(|provider| &provider.vms);
    let strays: BTreeSet<&NodeName> = strays
        .filter(|vm| world.strays.contains_key(&vm.id))
        .filter_map(|vm| vm.tag.as_ref().map(|tag| &tag.node))
        .collect();
    let records = world.records.iter();
    // In every round, for every node: what most of them are not is asked first.
    let waiting = records.filter(|(node, record)| {
        matches!(record.desired, Desired::Early { .. } | Desired::Up { .. })
            && record.vm.is_none()
            && !world.busy.contains(*node)
            && !strays.contains(node)
            && slurm.nodes.contains_key(*node)
            && !may_have_registered(slurm, node)
    });
    waiting.map(|(node, _)| node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::new(name).unwrap()).collect()
    }

    #[test]
    fn each_node_that_waits_is_told_once_and_none_whose_vm_is_made() {
        let mut waiting = Waiting::default();
        assert!(waiting.update(set(&["a", "b"])));
        waiting.leave(&[NodeName::new("a").unwrap()]);
        assert_eq!(waiting.untold(), set(&["b"]).into_iter().collect::<Vec<_>>());
        waiting.told = set(&["b"]);
        assert!(!waiting.update(set(&["b"])));
        assert!(waiting.update(set(&["b", "c"])));
        assert!(!waiting.update(set(&[])));
        assert!(waiting.update(set(&["b"])), "it waits anew");
    }
}
