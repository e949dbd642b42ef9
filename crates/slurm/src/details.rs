//! Reads `scontrol show node -o`: what Slurm knows of each node beside its state.
//!
//! One line per node, of `Key=value` words. People's own words (`Reason`, comments) come behind what is
//! read here, so the first word of a key counts. 22.05.8: 10,000 nodes are 5 MB; `sinfo -N` takes 4.7 s of
//! CPU for them.

use crate::error::SlurmError;
use crate::gate::GPU;
use crate::{jobs, nodes, words};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::ids::NodeName;
use thiao_core::view::{Alloc, BaseState, SlurmNode};

const WHAT: &str = "scontrol's list of nodes";

/// What Slurm knows of a node beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeDetails {
    /// `NodeAddr`: where slurmctld sends its messages; the node's name until it registers.
    pub address: String,
    /// `NodeHostName`: what its slurmd calls its host; the node's name until it registers.
    pub host_name: String,
    /// `CPUTot`.
    pub cpus: Option<u32>,
    /// `RealMemory`, in MiB.
    pub memory_mb: Option<u64>,
    /// `Partitions`: those it is in.
    pub partitions: Vec<String>,
}

/// Reads the whole listing.
///
/// # Errors
/// When a line that is not empty names no node.
pub fn parse(text: &str) -> Result<BTreeMap<NodeName, NodeDetails>, SlurmError> {
    let mut nodes = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // So it says when there is none.
        if line == "No nodes in the system" {
            continue;
        }
        let (node, name) = node_name(line)?;
        let details = NodeDetails {
            address: value(line, "NodeAddr").unwrap_or(name).to_owned(),
            host_name: value(line, "NodeHostName").unwrap_or(name).to_owned(),
            cpus: value(line, "CPUTot").and_then(|text| text.parse().ok()),
            memory_mb: value(line, "RealMemory").and_then(|text| text.parse().ok()),
            partitions: value(line, "Partitions")
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        };
        nodes.insert(node, details);
    }
    Ok(nodes)
}

/// What is allocated of each node (`-d`): nothing of one that has no job any more, for then the words may be
/// those of a job that was not there when the look began.
///
/// # Errors
/// When a line that is not empty names no node.
pub fn parse_allocs(text: &str) -> Result<BTreeMap<NodeName, Option<Alloc>>, SlurmError> {
    let mut allocs = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (node, _) = node_name(line)?;
        let (base, _) = nodes::parse_state(value(line, "State").unwrap_or_default());
        let has_job = matches!(base, BaseState::Allocated | BaseState::Mixed);
        let cpus = value(line, "CPUAlloc")
            .and_then(|text| text.parse().ok())
            .filter(|cpus| *cpus > 0 && has_job);
        let alloc = cpus.map(|cpus| Alloc {
            cpus,
            memory_mb: value(line, "AllocMem")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            gpus: value(line, "GresUsed").map_or(0, |used| jobs::gres_count(used, GPU)),
        });
        allocs.insert(node, alloc);
    }
    Ok(allocs)
}

/// What slurmctld says of nodes that it was asked for by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Those that it has.
    pub found: BTreeMap<NodeName, SlurmNode>,
    /// Those that it says it does not have.
    pub gone: BTreeSet<NodeName>,
}

/// Reads what `scontrol -a -o show node LIST` says: a line for each node that slurmctld has, in a partition
/// or not, and for each other one `Node NAME not found`, with exit code 1 (22.05.8, 24.11.5 and 26.05.5).
///
/// # Errors
/// When a line is neither: then nothing is known of any of them.
pub fn parse_named(text: &str) -> Result<Named, SlurmError> {
    let mut named = Named::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let gone = line
            .strip_prefix("Node ")
            .and_then(|rest| rest.strip_suffix(" not found"));
        if let Some(name) = gone {
            let name = NodeName::new(name);
            named
                .gone
                .insert(name.map_err(|e| SlurmError::unparsable(WHAT, line, e.to_string()))?);
            continue;
        }
        let (name, _) = node_name(line)?;
        let (base, flags) = nodes::parse_state(value(line, "State").unwrap_or_default());
        let node = SlurmNode {
            base,
            flags,
            reason: line
                .split_once(" Reason=")
                .and_then(|(_, text)| words::node_reason(without_setter(text))),
            alloc: None,
        };
        named.found.insert(name, node);
    }
    Ok(named)
}

/// A reason without who set it and when, which scontrol appends: `disk broken [root@1764399460]`.
fn without_setter(text: &str) -> &str {
    text.rsplit_once(" [").map_or(text, |(reason, _)| reason)
}

fn node_name(line: &str) -> Result<(NodeName, &str), SlurmError> {
    let name =
        value(line, "NodeName").ok_or_else(|| SlurmError::unparsable(WHAT, line, "it names no node"))?;
    let node = NodeName::new(name).map_err(|e| SlurmError::unparsable(WHAT, line, e.to_string()))?;
    Ok((node, name))
}

/// The first word `key=...` of a line.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .filter(|text| !text.is_empty() && *text != "(null)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_listing_is_read() {
        let nodes = parse(include_str!("../tests/data/nodes-details.txt")).unwrap();
        let of = |name: &str| nodes[&NodeName::new(name).unwrap()].clone();
        let up = of("n3");
        assert_eq!((up.address.as_str(), up.host_name.as_str()), ("10.9.0.13", "n3"));
        assert_eq!((up.cpus, up.memory_mb), (Some(1), Some(100)));
        assert_eq!(up.partitions, ["vm"]);
        let down = of("n2");
        assert_eq!((down.address.as_str(), down.host_name.as_str()), ("n2", "n2"));
    }

    #[test]
    fn nodes_asked_for_by_name_are_there_or_gone() {
        let text = "NodeName=n3 CPUTot=1 State=ALLOCATED+CLOUD LastBusyTime=1 Reason=thiao: a [b] [root@17] \n\
                    Node zz9 not found\n\
                    NodeName=n4 State=IDLE+CLOUD+POWERED_DOWN CPUTot=1\n";
        let named = parse_named(text).unwrap();
        let name = |name| NodeName::new(name).unwrap();
        assert_eq!(named.gone, BTreeSet::from([name("zz9")]));
        let n3 = &named.found[&name("n3")];
        assert_eq!(
            (&n3.base, n3.reason.as_ref().map(|reason| reason.text.as_str())),
            (&BaseState::Allocated, Some("thiao: a [b]"))
        );
        let n4 = &named.found[&name("n4")];
        assert!(n4.flags.powered_down && n4.reason.is_none(), "{n4:?}");
        assert!(parse_named("scontrol says something else\n").is_err());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        assert!(parse("Arch=x86_64 CPUTot=1\n").is_err());
        assert_eq!(parse("\nNo nodes in the system\n").unwrap().len(), 0);
        let odd = parse("NodeName=a CPUTot=x NodeAddr= Reason=NodeAddr=b\n").unwrap();
        let (_, a) = odd.first_key_value().unwrap();
        assert_eq!((a.address.as_str(), a.cpus), ("a", None));
    }
}
