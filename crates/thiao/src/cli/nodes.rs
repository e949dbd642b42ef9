//! `thiao nodes`: thousands of nodes on a few lines, those alike together.

use super::args::Nodes;
use super::watch::show_observed;
use super::{hostlist, show};
use std::collections::{BTreeMap, BTreeSet};
use thiao_api::client::Client;
use thiao_api::types::Node;
use thiao_api::words::NodeState;
use thiao_cli::output::{Cell, Printer, Tone, memory, now, span, when};
use thiao_core::hostlist::fold;
use thiao_core::ids::NodeName;

pub(super) fn run(client: &Client, printer: Printer, which: &Nodes) -> anyhow::Result<()> {
    let wanted: Option<BTreeSet<NodeName>> = match &which.nodes {
        Some(list) => Some(hostlist::expand(list)?.into_iter().collect()),
        None => None,
    };
    if let Some(wanted) = &wanted {
        let nodes = client.nodes()?;
        let known: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let unknown: Vec<&NodeName> = wanted
            .iter()
            .filter(|name| !known.contains(name.as_str()))
            .collect();
        if !unknown.is_empty() {
            anyhow::bail!("no nodeset has {}: see `thiao config show`", fold(unknown));
        }
    }
    let ask = || {
        let mut nodes = client.nodes()?;
        nodes.retain(|node| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.contains(node.name.as_str()))
        });
        Ok(nodes)
    };
    show_observed(client, printer, which.how, ask, |nodes| {
        if nodes.is_empty() {
            "there are no nodes\n".to_owned()
        } else if which.long {
            draw_long(printer, nodes)
        } else {
            draw_folded(printer, nodes)
        }
    })
}

fn draw_long(printer: Printer, nodes: &[Node]) -> String {
    let now = now();
    let row = |node: &Node| {
        let jobs: Vec<String> = node.jobs.iter().map(u32::to_string).collect();
        let mut note = node.reason.clone().unwrap_or_default();
        if let Some(at) = node.retry_at {
            note = format!(
                "{note} (failure {}, tried again {})",
                node.failures,
                when(at, now)
            )
            .trim_start()
            .to_owned();
        }
        vec![
            Cell::from(&node.name),
            Cell::toned(show::in_words(&node.state), show::node_tone(&node.state)),
            // Without "ago": its nine columns are as wide as a terminal.
            Cell::from(span(now.saturating_sub(node.since))),
            slurm(node),
            Cell::from(node.desired.word()),
            Cell::maybe(node.vm.as_ref()),
            Cell::maybe(node.host.as_ref()),
            Cell::maybe(Some(jobs.join(",")).filter(|jobs| !jobs.is_empty())),
            Cell::from(note),
        ]
    };
    let head = [
        "NODE", "STATE", "SINCE", "SLURM", "DESIRED", "VM", "HOST", "JOBS", "NOTE",
    ];
    printer.table(&head, nodes.iter().map(row).collect())
}

fn slurm(node: &Node) -> Cell {
    Cell::maybe(node.slurm.as_ref())
}

/// What nodes on one line have in common, in the order of the columns.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'n> {
    nodeset: &'n str,
    state: &'n NodeState,
    slurm: Option<&'n str>,
    cpus: u32,
    memory_mb: u64,
    reason: Option<&'n str>,
}

fn draw_folded(printer: Printer, nodes: &[Node]) -> String {
    let mut kinds: BTreeMap<Kind<'_>, Vec<NodeName>> = BTreeMap::new();
    for node in nodes {
        let kind = Kind {
            nodeset: &node.nodeset,
            state: &node.state,
            slurm: node.slurm.as_deref(),
            cpus: node.cpus,
            memory_mb: node.memory_mb,
            reason: node.reason.as_deref().filter(|reason| !reason.is_empty()),
        };
        // The controller's names are names; one that is not is left out rather than shown wrong.
        if let Ok(name) = NodeName::new(&node.name) {
            kinds.entry(kind).or_default().push(name);
        }
    }
    let row = |(kind, names): (Kind<'_>, Vec<NodeName>)| {
        vec![
            Cell::from(kind.nodeset),
            Cell::toned(show::in_words(kind.state), show::node_tone(kind.state)),
            Cell::from(names.len().to_string()),
            Cell::maybe(kind.slurm),
            Cell::from(kind.cpus.to_string()),
            Cell::from(memory(kind.memory_mb)),
            Cell::from(fold(&names)),
            Cell::toned(kind.reason.unwrap_or_default(), Tone::Bad),
        ]
    };
    let head = [
        "NODESET", "STATE", "NODES", "SLURM", "CPUS", "MEMORY", "NODELIST", "REASON",
    ];
    printer.table(&head, kinds.into_iter().map(row).collect())
}
