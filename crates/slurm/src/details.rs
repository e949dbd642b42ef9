//! Reads `scontrol show node -o`: what Slurm knows of each node beside its state.
//!
//! One line per node, of `Key=value` words. People's own words (`Reason`, comments) come behind what is
//! read here, so the first word of a key counts; there may be lines of them (26.05.5). 22.05.8: 10,000 nodes are 5 MB; `sinfo -N` takes 4.7 s of
//! CPU for them.

use crate::error::SlurmError;
use crate::names::GPU;
use crate::{jobs, nodes, words};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::ids::NodeName;
use thiao_core::table::Table;
use thiao_core::view::{Alloc, BaseState, SlurmNode};

const WHAT: &str = "scontrol's list of nodes";

/// Slurm counts a node's CPUs with 16 bits (22.05 to 26.05).
const MOST_CPUS: u32 = 65_535;
/// More GPUs than a node of slurm.conf's may have.
const MOST_GPUS: u32 = 1_024;

/// What Slurm knows of a node beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeDetails {
    /// `NodeAddr`: where slurmctld sends its messages; the node's name until it registers.
    pub address: String,
    /// `NodeHostName`: what its slurmd calls its host; the node's name until it registers.
    pub host_name: String,
    /// `CPUTot`: how many CPUs it has.
    pub cpus: Option<u32>,
    /// `RealMemory`, in MiB: what it promises to jobs.
    pub memory_mb: Option<u64>,
    /// `Partitions`: those it is in.
    pub partitions: Vec<String>,
    /// Whether it comes and goes: `State=CLOUD` of `slurm.conf`.
    pub is_cloud: bool,
}

/// Reads the whole listing.
///
/// # Errors
/// When it is no listing: it does not begin with a node.
pub fn parse(text: &str) -> Result<BTreeMap<NodeName, NodeDetails>, SlurmError> {
    let mut all = BTreeMap::new();
    // So it says when there is none.
    if text.trim() == "No nodes in the system" {
        return Ok(all);
    }
    for line in lines(text) {
        let Some((node, name)) = node_name(line, all.is_empty())? else {
            continue;
        };
        let details = NodeDetails {
            address: value(line, "NodeAddr").unwrap_or(name).to_owned(),
            host_name: value(line, "NodeHostName").unwrap_or(name).to_owned(),
            cpus: value(line, "CPUTot").and_then(|text| text.parse().ok()),
            memory_mb: value(line, "RealMemory").and_then(|text| text.parse().ok()),
            partitions: value(line, "Partitions")
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            is_cloud: nodes::parse_state(value(line, "State").unwrap_or_default())
                .1
                .cloud,
        };
        all.insert(node, details);
    }
    Ok(all)
}

/// What is allocated of each node (`-d`): nothing of one that has no job any more, for then the words may be
/// those of a job that was not there when the observation began.
///
/// # Errors
/// When it is no listing: it does not begin with a node.
pub fn parse_allocs(text: &str) -> Result<BTreeMap<NodeName, Option<Alloc>>, SlurmError> {
    let mut allocs = BTreeMap::new();
    for line in lines(text) {
        let Some((node, _)) = node_name(line, allocs.is_empty())? else {
            continue;
        };
        let (base, _) = nodes::parse_state(value(line, "State").unwrap_or_default());
        let has_job = matches!(base, BaseState::Allocated | BaseState::Mixed);
        let alloc = has_job.then(|| alloc(line)).flatten();
        allocs.insert(node, alloc);
    }
    Ok(allocs)
}

/// What is allocated of a node that has a job; nothing is known of what no node has.
fn alloc(line: &str) -> Option<Alloc> {
    let alloc = Alloc {
        cpus: value(line, "CPUAlloc")?.parse().ok()?,
        memory_mb: value(line, "AllocMem")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        gpus: value(line, "GresUsed").map_or(0, |used| jobs::gres_count(used, GPU)),
    };
    let believable = (1..=MOST_CPUS).contains(&alloc.cpus)
        && alloc.memory_mb <= jobs::MOST_MEMORY_MB
        && alloc.gpus <= MOST_GPUS;
    believable.then_some(alloc)
}

/// What slurmctld says of nodes that it was asked for by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Those that it has.
    pub found: Table<NodeName, SlurmNode>,
    /// Those that it says it does not have.
    pub gone: BTreeSet<NodeName>,
}

/// Reads what `scontrol -a -o show node LIST` says: a line for each node that slurmctld has, in a partition
/// or not, and for each other one `Node NAME not found`, with exit code 1 (22.05.8, 24.11.5 and 26.05.5).
///
/// # Errors
/// When it begins with neither: then nothing is known of any of them.
pub fn parse_named(text: &str) -> Result<Named, SlurmError> {
    let mut named = Named::default();
    for line in lines(text) {
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
        let first = named.found.is_empty() && named.gone.is_empty();
        let Some((name, _)) = node_name(line, first)? else {
            continue;
        };
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
    // A line of somebody's comment may read like it.
    named.gone.retain(|name| !named.found.contains_key(name));
    Ok(named)
}

/// Who gave each node its reason, by name or number. Of one whose reason has lines nothing is said.
///
/// # Errors
/// When it is no listing: it does not begin with a node.
pub fn parse_setters(text: &str) -> Result<BTreeMap<NodeName, String>, SlurmError> {
    let mut setters = BTreeMap::new();
    let mut first = true;
    for line in lines(text) {
        let Some((node, _)) = node_name(line, std::mem::take(&mut first))? else {
            continue;
        };
        let reason = line.split_once(" Reason=").map(|(_, text)| text);
        // Behind it there may be more: what is asked about has no bracket of its own.
        let setter = reason.and_then(|text| Some(text.split_once(" [")?.1.split_once('@')?.0));
        setters.extend(setter.map(|setter| (node, setter.to_owned())));
    }
    Ok(setters)
}

/// A reason without who set it and when, which scontrol appends: `disk broken [root@1764399460]`.
fn without_setter(text: &str) -> &str {
    text.rsplit_once(" [").map_or(text, |(reason, _)| reason)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// The node that a line is about; none if it goes on with what a person wrote about the one before, as only the
/// first line cannot.
fn node_name(line: &str, first: bool) -> Result<Option<(NodeName, &str)>, SlurmError> {
    let words = line
        .starts_with("NodeName=")
        .then(|| value(line, "NodeName"))
        .flatten();
    let name = match words {
        Some(name) => name,
        None if first => return Err(SlurmError::unparsable(WHAT, line, "it names no node")),
        None => return Ok(None),
    };
    let node = NodeName::new(name).map_err(|e| SlurmError::unparsable(WHAT, line, e.to_string()))?;
    Ok(Some((node, name)))
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
    fn what_no_node_can_have_is_not_taken_as_allocated() {
        let alloc = |words: &str| {
            let line = format!("NodeName=a State=ALLOCATED+CLOUD {words}\n");
            parse_allocs(&line).unwrap().pop_first().unwrap().1
        };
        let whole = |cpus| {
            Some(Alloc {
                cpus,
                memory_mb: 5,
                gpus: 0,
            })
        };
        assert_eq!(alloc("CPUAlloc=65535 AllocMem=5"), whole(65_535));
        for odd in [
            "CPUAlloc=65536 AllocMem=5",
            "CPUAlloc=0 AllocMem=5",
            "CPUAlloc=4294967296 AllocMem=5",
            "CPUAlloc=1 AllocMem=18446744073709551615",
            "CPUAlloc=1 AllocMem=5 GresUsed=gpu:4294967295",
        ] {
            assert_eq!(alloc(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_comment_of_several_lines_hides_no_node() {
        let text = "NodeName=a State=ALLOCATED+CLOUD CPUAlloc=1 AllocMem=5 Comment=hello \n\nworld\nNode b not found\n\
                    NodeName=b State=IDLE+CLOUD CPUTot=2\n";
        let names = |all: Vec<&NodeName>| all.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(parse(text).unwrap().keys().collect()), ["a", "b"]);
        assert_eq!(names(parse_allocs(text).unwrap().keys().collect()), ["a", "b"]);
        let named = parse_named(text).unwrap();
        assert_eq!(names(named.found.keys().collect()), ["a", "b"]);
        assert!(named.gone.is_empty());
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
