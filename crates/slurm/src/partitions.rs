//! Reads `scontrol show partition -o`: what Slurm knows of each partition.
//!
//! One line per partition, of `Key=value` words. What a line of `slurm.conf` does not say comes from
//! `PartitionName=DEFAULT`, which shows nowhere else.

use crate::conf::MemoryForms;
use crate::error::SlurmError;
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::hostlist;
use thiao_core::ids::NodeName;

const WHAT: &str = "scontrol's list of partitions";

/// A partition, as scontrol tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// The nodes that are in it.
    pub nodes: BTreeSet<NodeName>,
    values: BTreeMap<String, String>,
}

impl Partition {
    /// What it says of a key, in any case; nothing if it says nothing, or that there is none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(&key.to_ascii_lowercase())
            .map(String::as_str)
            .filter(|value| !matches!(*value, "" | "(null)" | "N/A"))
    }

    /// The whole seconds of a key; nothing if there is no number.
    #[must_use]
    pub fn seconds(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

/// Reads the whole listing.
///
/// # Errors
/// When a line names no partition, or no nodes that can be read.
pub fn parse(text: &str) -> Result<BTreeMap<String, Partition>, SlurmError> {
    let mut all = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // So it says when there is none.
        if line == "No partitions in the system" {
            continue;
        }
        let values: BTreeMap<String, String> = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let Some(name) = values.get("partitionname").cloned() else {
            return Err(SlurmError::unparsable(WHAT, line, "it names no partition"));
        };
        let mut partition = Partition {
            nodes: BTreeSet::new(),
            values,
        };
        if let Some(list) = partition.get("Nodes") {
            let nodes =
                hostlist::expand(list).map_err(|e| SlurmError::unparsable(WHAT, line, e.to_string()))?;
            partition.nodes = nodes.into_iter().collect();
        }
        all.insert(name, partition);
    }
    Ok(all)
}

/// How the partitions that are not `ours` say memory: what two of them have in common may come from
/// `PartitionName=DEFAULT`, and is ours then too.
#[must_use]
pub fn memory_forms(all: &BTreeMap<String, Partition>, ours: &BTreeSet<String>) -> MemoryForms {
    let says = |key: &str| {
        all.iter()
            .any(|(name, one)| !ours.contains(name) && one.get(key).is_some_and(|most| most != "UNLIMITED"))
    };
    MemoryForms {
        default_per_cpu: says("DefMemPerCPU"),
        most_per_node: says("MaxMemPerNode"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = "PartitionName=batch AllowGroups=ALL QoS=N/A MaxNodes=1 Nodes=cn[01-02] DefMemPerCPU=2000 \
                    MaxMemPerNode=UNLIMITED ResumeTimeout=GLOBAL\n\
                    PartitionName=vm Nodes=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=100 ResumeTimeout=300\n";
        let all = parse(text).unwrap();
        let batch = &all["batch"];
        assert_eq!(hostlist::fold(&batch.nodes), "cn[01-02]");
        assert_eq!(
            (
                batch.get("maxnodes"),
                batch.get("QOS"),
                batch.seconds("ResumeTimeout")
            ),
            (Some("1"), None, None)
        );
        assert!(all["vm"].nodes.is_empty());
        assert_eq!(all["vm"].seconds("ResumeTimeout"), Some(300));
        let forms = |ours: &[&str]| memory_forms(&all, &ours.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(
            forms(&["vm"]),
            MemoryForms {
                default_per_cpu: true,
                most_per_node: false
            }
        );
        assert_eq!(
            forms(&["batch"]),
            MemoryForms {
                default_per_cpu: false,
                most_per_node: true
            }
        );
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(parse("Nodes=a\n").is_err());
        assert!(parse("PartitionName=a Nodes=n[1-\n").is_err());
        assert!(parse("No partitions in the system\n\n").unwrap().is_empty());
    }
}
