//! Our names of nodes and partitions, and whether the site has them already; and its partitions that would
//! have our nodes, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_slurm::conf::MemoryForms;
use thiao_slurm::details::NodeDetails;
use thiao_slurm::fragment::Fragment;
use thiao_slurm::partitions::{self, Partition};
use thiao_slurm::{Config, Slurm, Version, site_keys};

/// From here on a partition's listing says that it has all nodes, whichever come.
const SAYS_ALL: Version = Version::new(23, 11, 0);

/// What slurmctld has, and what is ours of it.
pub(super) struct Known {
    partitions: BTreeMap<String, Partition>,
    nodes: BTreeMap<NodeName, NodeDetails>,
    /// The settings' nodes, and those that earlier lines made.
    ours: BTreeSet<NodeName>,
    our_partitions: BTreeSet<String>,
    /// Whether lines of ours are in effect, perhaps older ones than those that were written last.
    in_effect: bool,
}

impl Known {
    /// Asks slurmctld, which has `present` and calls what is in `hooks`, or in no folder of ours. `earlier` are the lines of an earlier setup. What it does not say
    /// is told in sentences.
    pub(super) fn ask(
        slurm: &Slurm,
        present: &Config,
        hooks: &Path,
        fragment: &Fragment,
        earlier: Option<&str>,
    ) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        let partitions = slurm.partitions().unwrap_or_else(|error| {
            notes.push(format!(
                "slurmctld's partitions could not be read ({error}): ours may have the same names, or give \
                 memory in another form"
            ));
            BTreeMap::new()
        });
        let nodes = slurm.details().unwrap_or_else(|error| {
            notes.push(format!(
                "slurmctld's nodes could not be read ({error}): ours may have the same names"
            ));
            BTreeMap::new()
        });
        let mut known = Self::of(partitions, nodes, fragment, earlier);
        known.in_effect = site_keys::in_effect(present, hooks);
        (known, notes)
    }

    fn of(
        partitions: BTreeMap<String, Partition>,
        nodes: BTreeMap<NodeName, NodeDetails>,
        fragment: &Fragment,
        earlier: Option<&str>,
    ) -> Self {
        let before = earlier
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("NodeName=")?.split_whitespace().next());
        let now = fragment.nodes.iter().map(|line| line.nodes.as_str());
        Self {
            partitions,
            nodes,
            ours: now
                .chain(before)
                .filter_map(|list| hostlist::expand(list).ok())
                .flatten()
                .collect(),
            in_effect: false,
            our_partitions: fragment.nodes.iter().map(|line| line.partition.clone()).collect(),
        }
    }

    /// How the site's partitions say memory.
    pub(super) fn memory_forms(&self) -> MemoryForms {
        partitions::memory_forms(&self.partitions, &self.our_partitions)
    }

    /// What our lines would take from the site, for it has the same names.
    pub(super) fn taken(&self) -> Vec<String> {
        let mut found = Vec::new();
        let is_cloud = |node: &NodeName| self.nodes.get(node).is_some_and(|known| known.is_cloud);
        let was_ours = |node: &NodeName| self.in_effect && is_cloud(node);
        for name in &self.our_partitions {
            let theirs = self.partitions.get(name).map(|partition| &partition.nodes);
            let foreign: BTreeSet<&NodeName> = theirs
                .into_iter()
                .flatten()
                .filter(|node| !self.ours.contains(*node) && !was_ours(node))
                .collect();
            if !foreign.is_empty() {
                found.push(format!(
                    "partition {name} is there already with {}, which would no longer be in it",
                    hostlist::fold(foreign)
                ));
            }
        }
        let is_fixed = |node: &&NodeName| self.nodes.get(*node).is_some_and(|known| !known.is_cloud);
        let fixed: BTreeSet<&NodeName> = self.ours.iter().filter(is_fixed).collect();
        if !fixed.is_empty() {
            found.push(format!(
                "{} {} there already, and not State=CLOUD: Slurm would end and start {} as VMs",
                hostlist::fold(fixed.iter().copied()),
                if fixed.len() == 1 { "is" } else { "are" },
                if fixed.len() == 1 { "it" } else { "them" },
            ));
        }
        found
    }

    /// The site's partitions that have our nodes, or will have them, as far as this Slurm says it.
    pub(super) fn with_ours(&self, version: Version) -> Vec<String> {
        let rest: BTreeSet<&NodeName> = self
            .nodes
            .keys()
            .filter(|node| !self.ours.contains(*node))
            .collect();
        // Where it has ours already, a partition without them has not all.
        let has_no_ours = self.nodes.keys().all(|node| !self.ours.contains(node));
        let theirs = self
            .partitions
            .iter()
            .filter(|(name, _)| !self.our_partitions.contains(*name));
        theirs
            .filter_map(|(name, partition)| {
                let sets = partition.get("NodeSets");
                let has_rest = !rest.is_empty() && rest.iter().all(|node| partition.nodes.contains(*node));
                let has_ours = partition.nodes.iter().any(|node| self.ours.contains(node));
                if has_ours || sets.is_some_and(|sets| sets.eq_ignore_ascii_case("all")) {
                    Some(format!(
                        "partition {name} has Nodes=ALL, or names our nodes: name its own nodes there, or \
                         its jobs run on ours by its rules"
                    ))
                } else if has_rest && has_no_ours && (version < SAYS_ALL || sets.is_some()) {
                    Some(format!(
                        "partition {name} has all nodes of the cluster: if slurm.conf says Nodes=ALL for it (or for \
                         PartitionName=DEFAULT), it has our nodes from now on, too, and its jobs run on \
                         them by its rules: name its own nodes there"
                    ))
                } else {
                    None
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_slurm::conf::{NodeLine, Timeouts};
    use thiao_slurm::details;

    const OLD: Version = Version::new(22, 5, 8);

    fn known(partitions: &str, nodes: &str, earlier: Option<&str>) -> Known {
        let fragment = Fragment {
            version: OLD,
            hooks: "/h".into(),
            nodes: vec![NodeLine {
                nodes: "fg[0-3]".into(),
                cpus: 1,
                memory_mb: 100,
                features: Vec::new(),
                partition: "vm".into(),
                job: None,
            }],
            default_partition: None,
            timeouts: Timeouts::default(),
            tries_s: 60,
            joined: BTreeMap::new(),
            memory: MemoryForms::default(),
            cgroups: thiao_slurm::fragment::Cgroups::None,
        };
        let (partitions, nodes) = (
            partitions::parse(partitions).unwrap(),
            details::parse(nodes).unwrap(),
        );
        Known::of(partitions, nodes, &fragment, earlier)
    }

    #[test]
    fn names_that_the_site_has_are_told() {
        let taken = |partitions: &str, nodes: &str| {
            known(partitions, nodes, Some("NodeName=fg[0-4] CPUs=1\n")).taken()
        };
        assert!(taken("", "").is_empty());
        // Ours in effect, with a node that was taken out of the settings.
        let ours = "NodeName=fg0 State=IDLE+CLOUD+POWERED_DOWN\nNodeName=fg4 State=DOWN*+CLOUD\nNodeName=cn1 State=IDLE\n";
        assert!(
            taken(
                "PartitionName=vm Nodes=fg[0-4]\nPartitionName=b Nodes=cn1\n",
                ours
            )
            .is_empty()
        );
        let found = taken(
            "PartitionName=vm Nodes=cn[1-2],fg0\n",
            "NodeName=fg1 State=MIXED\n",
        );
        assert_eq!(found.len(), 2);
        assert!(
            found[0].starts_with("partition vm is there already with cn[1-2],"),
            "{found:?}"
        );
        assert!(found[1].starts_with("fg1 is there already"), "{found:?}");
    }

    #[test]
    fn partitions_with_all_nodes_are_told() {
        let told = |partitions: &str, version| {
            known(
                partitions,
                "NodeName=cn1 State=IDLE\nNodeName=cn2 State=IDLE\n",
                None,
            )
            .with_ours(version)
        };
        let new = Version::new(24, 11, 5);
        let all = "PartitionName=a Nodes=cn[1-2]\n";
        assert!(told(all, OLD)[0].contains("if slurm.conf says Nodes=ALL"));
        assert!(told(all, new).is_empty(), "it would say so");
        let with_ours = "NodeName=cn1 State=IDLE\nNodeName=cn2 State=IDLE\nNodeName=fg0 State=IDLE+CLOUD\n";
        for version in [OLD, new] {
            let known = known("PartitionName=a Nodes=cn[1-2] NodeSets=x\n", with_ours, None);
            assert!(known.with_ours(version).is_empty(), "it would have fg0");
        }
        assert!(told("PartitionName=a Nodes=cn[1-2] NodeSets=ALL\n", new)[0].contains("a has Nodes=ALL"));
        assert_eq!(told("PartitionName=a Nodes=cn[1-2] NodeSets=x\n", new).len(), 1);
        assert!(
            told(
                "PartitionName=a Nodes=cn1\nPartitionName=vm Nodes=fg0,cn[1-2]\n",
                OLD
            )
            .is_empty()
        );
        assert_eq!(told("PartitionName=a Nodes=cn1,fg0\n", new).len(), 1);
        assert!(
            known("PartitionName=a Nodes=(null)\n", "", None)
                .with_ours(OLD)
                .is_empty()
        );
    }
}
