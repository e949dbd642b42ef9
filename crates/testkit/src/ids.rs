//! Nodes and VMs by their names.

use thiao_core::ids::{ClusterName, Generation, NodeName, VmTag};

/// The node of this name.
#[track_caller]
pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// That VM of a node's.
#[track_caller]
pub fn tag(cluster: &str, name: &str, generation: u64) -> VmTag {
    VmTag {
        cluster: ClusterName::new(cluster).unwrap(),
        node: node(name),
        generation: Generation(generation),
    }
}
