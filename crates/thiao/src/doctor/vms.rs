//! OpenNebula's VMs of this cluster against Slurm's nodes: names and addresses that were mixed up, VMs that
//! back nothing, VMs that cannot go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use thiao_core::finding::Finding;
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, NodeName, VmTag};
use thiao_core::view::SlurmView;
use thiao_opennebula::model::VmDetails;
use thiao_opennebula::state::Kind;
use thiao_opennebula::template::{TAG_CLUSTER, read_tag};
use thiao_slurm::details::NodeDetails;

/// What is known of the VMs.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The cluster whose VMs count.
    pub cluster: &'a ClusterName,
    /// All nodes that are configured.
    pub nodes: &'a BTreeSet<NodeName>,
    /// The user's own VMs that are not DONE.
    pub vms: &'a [VmDetails],
    /// What Slurm shows, and knows of nodes; none when it does not answer.
    pub slurm: Option<(&'a SlurmView, &'a BTreeMap<NodeName, NodeDetails>)>,
    /// VM ids that the controller calls stray; none when it does not answer.
    pub strays: Option<&'a BTreeSet<String>>,
}

/// A VM of ours that may run.
struct Ours<'a> {
    vm: &'a VmDetails,
    tag: VmTag,
}

/// Everything that is wrong with the VMs; one good finding when nothing is.
#[must_use]
pub fn judge(facts: Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut alive: Vec<Ours<'_>> = Vec::new();
    for vm in facts.vms {
        if vm.user_template.get(TAG_CLUSTER).map(String::as_str) != Some(facts.cluster.as_str()) {
            continue;
        }
        let Some(tag) = read_tag(|key| vm.user_template.get(key).cloned()) else {
            found.push(
                Finding::warn(
                    format!("VM {}", vm.row.id),
                    format!(
                        "{} names this cluster in its tags, but they are not complete: it is left alone",
                        vm.row.name
                    ),
                )
                .run(format!("onevm show {}", vm.row.id)),
            );
            continue;
        };
        found.extend(state(vm, &tag));
        found.extend(size(vm, &tag));
        match vm.row.state.kind() {
            Kind::Ending | Kind::Done | Kind::Off | Kind::Failed => {}
            Kind::Held
            | Kind::Pending
            | Kind::Starting
            | Kind::Running
            | Kind::Moving
            | Kind::Restoring
            | Kind::Saving
            | Kind::Saved
            | Kind::FailedUnsure
            | Kind::Lost
            | Kind::Unknown(_) => alive.push(Ours { vm, tag }),
        }
    }
    names(&alive, &mut found);
    twins(&alive, &mut found);
    addresses(&alive, &mut found);
    if let Some((slurm, details)) = facts.slurm {
        crossed(&alive, slurm, details, &mut found);
    }
    orphans(&alive, facts, &mut found);
    if found.is_empty() {
        found.push(Finding::ok(
            "VMs",
            format!(
                "{} of this cluster, each with a node and an address of its own",
                alive.len()
            ),
        ));
    }
    found
}

/// What a VM cannot get out of by itself.
fn state(vm: &VmDetails, tag: &VmTag) -> Option<Finding> {
    let (id, row) = (vm.row.id, &vm.row);
    let what = format!("VM {id}");
    let said = |text: &Option<String>| text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    match row.state.kind() {
        Kind::Failed | Kind::FailedUnsure => Some(
            Finding::bad(
                what,
                format!(
                    "{}.{} is in {}{}",
                    tag.node,
                    tag.generation,
                    row.state,
                    said(&row.error)
                ),
            )
            .run(format!("onevm recover --delete {id}")),
        ),
        Kind::Lost => Some(
            Finding::warn(
                what,
                format!(
                    "{}.{}: its host does not say how it is (UNKNOWN); it may run",
                    tag.node, tag.generation
                ),
            )
            .run("onehost list"),
        ),
        Kind::Pending => row.sched_message.as_ref().map(|why| {
            Finding::warn(
                what,
                format!("{}.{} waits for a host: {why}", tag.node, tag.generation),
            )
            .run(format!("onevm show {id}"))
        }),
        Kind::Off => Some(
            Finding::warn(
                what,
                format!(
                    "{}.{} is in {}: it was shut down behind Slurm's back",
                    tag.node, tag.generation, row.state
                ),
            )
            .run(format!("onevm terminate --hard {id}")),
        ),
        Kind::Unknown(_) => Some(
            Finding::warn(
                what,
                format!(
                    "{}.{} is in {}, which we do not know",
                    tag.node, tag.generation, row.state
                ),
            )
            .run(format!("onevm show {id}")),
        ),
        Kind::Held
        | Kind::Starting
        | Kind::Running
        | Kind::Moving
        | Kind::Restoring
        | Kind::Saving
        | Kind::Saved
        | Kind::Ending
        | Kind::Done => None,
    }
}

/// A size that no machine has.
fn size(vm: &VmDetails, tag: &VmTag) -> Option<Finding> {
    let (id, beyond) = (vm.row.id, vm.row.beyond?);
    Some(
        Finding::warn(
            format!("VM {id}"),
            format!(
                "{}.{}: OpenNebula reports {beyond}, which no machine has: Thiao does not believe what it says of this VM",
                tag.node, tag.generation
            ),
        )
        .run(format!("onevm show {id}")),
    )
}

fn ids<'a>(vms: impl IntoIterator<Item = &'a Ours<'a>>) -> String {
    let ids: Vec<String> = vms.into_iter().map(|ours| ours.vm.row.id.to_string()).collect();
    ids.join(" and ")
}

/// VMs that were told another name than their node's.
fn names(alive: &[Ours<'_>], found: &mut Vec<Finding>) {
    for Ours { vm, tag } in alive {
        let told = vm
            .context
            .get("SET_HOSTNAME")
            .filter(|name| *name != tag.node.as_str());
        if let Some(told) = told {
            found.push(
                Finding::bad(
                    format!("node {}", tag.node),
                    format!(
                        "its VM {} was told to call itself {told} (SET_HOSTNAME in its CONTEXT)",
                        vm.row.id
                    ),
                )
                // Thiao told it right; its next VM is told right again.
                .run(format!("scontrol update NodeName={} State=POWER_DOWN", tag.node)),
            );
        }
    }
}

/// Two VMs that back one node.
fn twins(alive: &[Ours<'_>], found: &mut Vec<Finding>) {
    let mut by_node: BTreeMap<&NodeName, Vec<&Ours<'_>>> = BTreeMap::new();
    for ours in alive {
        by_node.entry(&ours.tag.node).or_default().push(ours);
    }
    for (node, mut twins) in by_node {
        if twins.len() < 2 {
            continue;
        }
        // The controller counts generations up: the newest is the one that it wants.
        twins.sort_by_key(|ours| (ours.tag.generation, ours.vm.row.id));
        let older: Vec<String> = twins
            .iter()
            .rev()
            .skip(1)
            .map(|ours| ours.vm.row.id.to_string())
            .collect();
        found.push(
            Finding::bad(
                format!("node {node}"),
                format!(
                    "VMs {} have its tag: two slurmds would fight for its name",
                    ids(twins.iter().copied())
                ),
            )
            .run(format!(
                "thiao explain {node} && onevm terminate --hard {}",
                older.join(",")
            )),
        );
    }
}

/// Two VMs with one address.
fn addresses(alive: &[Ours<'_>], found: &mut Vec<Finding>) {
    let mut by_address: BTreeMap<IpAddr, Vec<&Ours<'_>>> = BTreeMap::new();
    for ours in alive {
        for address in &ours.vm.row.addresses {
            by_address.entry(*address).or_default().push(ours);
        }
    }
    for (address, vms) in by_address {
        if vms.len() > 1 {
            let nodes = hostlist::fold(vms.iter().map(|ours| &ours.tag.node));
            found.push(
                Finding::bad(
                    format!("node {nodes}"),
                    format!(
                        "VMs {} have one address, {address}: a fixed IP in the template?",
                        ids(vms.iter().copied())
                    ),
                )
                .advice("let OpenNebula lease addresses: take IP out of the template's NIC"),
            );
        }
    }
}

/// Nodes that slurmctld reaches at another node's VM.
fn crossed(
    alive: &[Ours<'_>],
    slurm: &SlurmView,
    details: &BTreeMap<NodeName, NodeDetails>,
    found: &mut Vec<Finding>,
) {
    for ours in alive {
        let node = &ours.tag.node;
        let up = slurm.nodes.get(node).is_some_and(|seen| seen.is_counted_on());
        let address = details
            .get(node)
            .and_then(|known| known.address.parse::<IpAddr>().ok());
        let (true, Some(address)) = (up, address) else {
            continue;
        };
        if ours.vm.row.addresses.is_empty() || ours.vm.row.addresses.contains(&address) {
            continue;
        }
        let other = alive
            .iter()
            .find(|other| other.tag.node != *node && other.vm.row.addresses.contains(&address));
        let what = format!("node {node}");
        let has: Vec<String> = ours.vm.row.addresses.iter().map(IpAddr::to_string).collect();
        let has = has.join(", ");
        found.push(match other {
            Some(other) => Finding::bad(
                what,
                format!(
                    "Slurm reaches it at {address}, which is the VM of {} (VM {}); its own VM {} has {has}: they have \
                     each other's name or address",
                    other.tag.node, other.vm.row.id, ours.vm.row.id
                ),
            )
            .run(format!(
                "scontrol update NodeName={node},{} State=POWER_DOWN",
                other.tag.node
            )),
            None => Finding::warn(
                what,
                format!("Slurm reaches it at {address}; its VM {} has {has} in OpenNebula", ours.vm.row.id),
            )
            .run(format!("onevm show {}", ours.vm.row.id)),
        });
    }
}

/// VMs that back no node.
fn orphans(alive: &[Ours<'_>], facts: Facts<'_>, found: &mut Vec<Finding>) {
    for Ours { vm, tag } in alive {
        let id = vm.row.id;
        let what = format!("VM {id}");
        if !facts.nodes.contains(&tag.node) {
            found.push(
                Finding::warn(
                    what,
                    format!("backs {}, which is not a node in the settings", tag.node),
                )
                .run(format!("onevm terminate {id}")),
            );
        } else if facts
            .strays
            .is_some_and(|strays| strays.contains(&id.to_string()))
        {
            found.push(
                Finding::warn(
                    what,
                    format!(
                        "{}.{} backs no node: the controller ends it after timing.orphan_grace",
                        tag.node, tag.generation
                    ),
                )
                .run(format!("thiao explain {}.{}", tag.node, tag.generation)),
            );
        }
    }
}
