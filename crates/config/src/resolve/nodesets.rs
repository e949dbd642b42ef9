//! `[[nodeset]]`: nodes of one shape, and what their VMs are made from.

use super::machine::{MAX_NODES, Maker, word};
use super::{guests, job, opennebula};
use crate::read::Section;
use crate::settings::{JobNodeset, Nodeset};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use thiao_core::hostlist;
use thiao_core::ids::{NodeName, NodesetName};
use thiao_core::view::Shape;
use thiao_core::world::{Mode, NodeSpec};
use thiao_opennebula::settings::VmSource;
use thiao_qemu::Guests;

/// All nodesets, and the nodes in them.
#[derive(Default)]
pub struct Nodesets {
    pub sets: BTreeMap<NodesetName, Nodeset>,
    /// The nodes of all.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// What OpenNebula makes their VMs from.
    pub sources: BTreeMap<NodesetName, VmSource>,
    /// What the embedded provider runs in their VMs, where they say it.
    pub guests: BTreeMap<NodesetName, Guests>,
}

/// What one table says. Without a name or nodes, which was told, it is no nodeset.
struct Table {
    name: Option<NodesetName>,
    nodes: Option<Vec<NodeName>>,
    shape: Shape,
    mode: Mode,
    partition: String,
    features: Vec<String>,
    job: Option<JobNodeset>,
    source: Option<VmSource>,
    guests: Option<Guests>,
}

/// Reads every `[[nodeset]]` of the file.
pub fn read(root: &Section<'_, '_>, maker: Maker) -> Nodesets {
    let mut all = Nodesets::default();
    // Those named twice too: a few bytes name thousands.
    let mut named = 0;
    let sections = root.tables("nodeset");
    if sections.is_empty() && !root.has("nodeset") {
        root.problem(
            "nodeset",
            "is missing: write at least one [[nodeset]] with name, nodes and memory_mb",
        );
    }
    for section in sections {
        let table = Table::read(&section, maker);
        named += table.nodes.as_ref().map_or(0, Vec::len);
        if named > MAX_NODES {
            section.problem("nodes", format!("more than {MAX_NODES} nodes in all"));
            break;
        }
        all.add(table, &section);
    }
    all
}

impl Table {
    fn read(section: &Section<'_, '_>, maker: Maker) -> Self {
        section.show_head();
        let name = section.required("name", "give the nodeset a name");
        let list = section.checked("nodes", None, list);
        if !section.has("nodes") {
            section.problem(
                "nodes",
                "is missing: name the nodes as in slurm.conf, e.g. \"fg[0-7]\"",
            );
        }
        let shape = Shape {
            cpus: section.number("cpus", 1, 1..=1024),
            memory_mb: section.required_number(
                "memory_mb",
                16..=1 << 24,
                "give the RealMemory of each node, in MiB",
            ),
            share_percent: section.number("share_percent", 100, 1..=100),
        };
        let partition = section.checked("partition", Some("vm".to_owned()), partition_name);
        let mode = section.choice("mode", Mode::PowerSaving, &job::MODES);
        let job = job::nodeset(section, mode, shape);
        let features = section.texts("features", |text| word(text).map(drop));
        let (source, guests) = match maker {
            Maker::OpenNebula => {
                section.refuse(
                    guests::IMAGE,
                    "is for provider \"qemu\": the template names its image",
                );
                let gpus = job.as_ref().map_or(0, |job| job.gpus);
                (opennebula::source(section, gpus), None)
            }
            Maker::Qemu => {
                opennebula::refuse_source(section);
                (None, guests::image(section, None))
            }
        };
        section.close();
        Self {
            name,
            nodes: list.map(|List(nodes)| nodes),
            shape,
            mode,
            partition: partition.unwrap_or_default(),
            features,
            job,
            source,
            guests,
        }
    }
}

impl Nodesets {
    /// Adds a nodeset; what others have already is a problem of its table's.
    fn add(&mut self, table: Table, section: &Section<'_, '_>) {
        let (Some(name), Some(nodes)) = (table.name, table.nodes) else {
            return;
        };
        self.sources
            .extend(table.source.map(|source| (name.clone(), source)));
        self.guests
            .extend(table.guests.map(|guests| (name.clone(), guests)));
        let set = Nodeset {
            nodes: hostlist::fold(&nodes),
            count: nodes.len(),
            shape: table.shape,
            partition: table.partition,
            features: table.features,
            job: table.job,
        };
        for node in nodes {
            match self.nodes.entry(node) {
                Entry::Vacant(place) => {
                    place.insert(NodeSpec {
                        nodeset: name.clone(),
                        shape: table.shape,
                        mode: table.mode,
                    });
                }
                Entry::Occupied(other) => {
                    section.problem(
                        "nodes",
                        format!("{} is already in nodeset {}", other.key(), other.get().nodeset),
                    );
                    break;
                }
            }
        }
        if self.sets.insert(name.clone(), set).is_some() {
            section.problem("name", format!("there are two nodesets named {name}"));
        }
    }
}

/// A hostlist that shows itself folded.
struct List(Vec<NodeName>);

impl std::fmt::Display for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hostlist::fold(&self.0))
    }
}

/// The nodes that a hostlist names.
fn list(text: &str) -> Result<List, String> {
    let nodes =
        hostlist::expand(text).map_err(|e| format!("{e}\n    {}", e.caret(text).replace('\n', "\n    ")))?;
    let own = |node: &&NodeName| is_own_word(node.as_str(), &["default", "all"]);
    match nodes.iter().find(own) {
        Some(node) => Err(format!("{node} is a word of Slurm's own, no name for a node")),
        None => Ok(List(nodes)),
    }
}

/// A partition's name: `PartitionName=DEFAULT` names none, it sets what the lines behind it have by default.
fn partition_name(text: &str) -> Result<String, String> {
    if is_own_word(text, &["default"]) {
        return Err("is a word of Slurm's own (PartitionName=DEFAULT), no name for a partition".to_owned());
    }
    word(text)
}

/// Whether Slurm takes this for one of its own words, in any case.
fn is_own_word(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}
