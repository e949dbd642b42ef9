//! What our own VMs have already of what there is.

use super::needs::{Needs, NodesetNeeds};
use super::seen::Seen;
use crate::model::VmDetails;
use crate::template::{TAG_CLUSTER, TAG_NODE};
use std::collections::BTreeSet;
use thiao_core::ids::NodeName;

/// Our VMs that exist: they have their share of leases, quotas and hosts already.
pub(super) struct Held<'a> {
    pub vms: Vec<&'a VmDetails>,
    pub nodes: BTreeSet<&'a str>,
}

/// Those of this cluster.
pub(super) fn held<'a>(seen: &'a Seen, wanted: &Needs) -> Held<'a> {
    let vms: Vec<&VmDetails> = seen
        .vms
        .iter()
        .flatten()
        .filter(|vm| vm.user_template.get(TAG_CLUSTER).map(String::as_str) == Some(wanted.cluster.as_str()))
        .collect();
    let nodes = vms
        .iter()
        .filter_map(|vm| vm.user_template.get(TAG_NODE).map(String::as_str))
        .collect();
    Held { vms, nodes }
}

impl Held<'_> {
    /// How many of the nodes have no VM now.
    pub fn missing(&self, set: &NodesetNeeds) -> usize {
        let without = |node: &&NodeName| !self.nodes.contains(node.as_str());
        set.nodes.iter().filter(without).count()
    }
}
