//! Whether networks have addresses for the nodes, and which clusters' hosts a nodeset reaches.

use super::cards;
use super::held::Held;
use super::needs::{Needs, NodesetNeeds};
use super::seen::{Seen, body_of};
use crate::model::{Host, Network};
use crate::places::{Needed, find};
use crate::settings::Placement;
use std::collections::BTreeMap;
use thiao_core::finding::{Finding, Verdict};

/// Whether each card of a VM finds an address: in its network, or in one of several.
pub(super) fn judge(
    all: &[Network],
    (seen, wanted): (&Seen, &Needs),
    held: &Held<'_>,
    found: &mut Vec<Finding>,
) {
    // A name and an id may mean the same network.
    let mut leases: BTreeMap<Vec<u32>, (Vec<&Network>, usize)> = BTreeMap::new();
    for set in &wanted.nodesets {
        for names in cards::networks(set, wanted, seen) {
            let mut of = Vec::with_capacity(names.len());
            for name in names {
                match find(all, &name) {
                    Some(network) => of.push(network),
                    None => {
                        let finding = Finding::bad(
                            format!("network {name}"),
                            "there is none, or the user may not use it".to_owned(),
                        )
                        .run("onevnet list");
                        if !found.contains(&finding) {
                            found.push(finding);
                        }
                    }
                }
            }
            let ids = of.iter().map(|network| network.id).collect();
            leases.entry(ids).or_insert((of, 0)).1 += held.missing(set);
        }
    }
    found.extend(
        leases
            .into_values()
            .filter_map(|(networks, count)| addresses(&networks, count as u64)),
    );
}

/// What is to be said of networks of which `needed` addresses are to come.
fn addresses(networks: &[&Network], needed: u64) -> Option<Finding> {
    let last = networks.last()?;
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    let what = match names.as_slice() {
        [one] => format!("network {one}"),
        several => format!("networks {}", several.join(", ")),
    };
    let sum = |of: fn(&Network) -> u64| {
        networks
            .iter()
            .map(|network| of(network))
            .fold(0, u64::saturating_add)
    };
    let free = sum(|network| network.addresses.saturating_sub(network.used));
    let all = sum(|network| network.addresses);
    Some(if free >= needed {
        Finding::ok(
            what,
            format!("{free} addresses are free, {needed} nodes have none yet"),
        )
    } else {
        let verdict = if all == 0 { Verdict::Bad } else { Verdict::Warn };
        Finding::new(
            what,
            verdict,
            format!(
                "{free} of {all} addresses are free, {needed} nodes have none yet: not all can be up at once"
            ),
        )
        .run(format!(
            "onevnet addar {} --ip FIRST_ADDRESS --size {}",
            last.id,
            needed - free
        ))
    })
}

/// Hosts that take VMs and cannot run those of a nodeset: their OpenNebula cluster lacks what these need.
pub(super) fn reach(usable: &[&Host], seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    // With OpenNebula's placement its scheduler knows.
    let (Placement::Thiao, Ok(places)) = (wanted.placement, &seen.places) else {
        return;
    };
    let mut clusters: BTreeMap<i64, (&str, usize)> = BTreeMap::new();
    for host in usable {
        clusters.entry(host.cluster_id).or_insert((&host.cluster, 0)).1 += 1;
    }
    for set in &wanted.nodesets {
        found.extend(of_nodeset(set, &clusters, |id, name| {
            let needed = Needed {
                networks: &set.source.networks,
                body: body_of(set, seen),
                user: seen.user.as_ref().map_or("", |user| user.name.as_str()),
            };
            places.why_not(id, name, &needed)
        }));
    }
}

fn of_nodeset(
    set: &NodesetNeeds,
    clusters: &BTreeMap<i64, (&str, usize)>,
    why_not: impl Fn(i64, &str) -> Option<String>,
) -> Option<Finding> {
    let beyond: Vec<(usize, String)> = clusters
        .iter()
        .filter_map(|(id, (name, count))| Some((*count, why_not(*id, name)?)))
        .collect();
    let why = &beyond.first()?.1;
    let count: usize = beyond.iter().map(|(count, _)| count).sum();
    let all: usize = clusters.values().map(|(_, count)| count).sum();
    let what = format!("nodeset {}", set.name);
    let finding = if count == all {
        Finding::bad(
            what,
            format!("none of the {all} hosts that take VMs can run its VMs: {why}"),
        )
    } else {
        Finding::warn(
            what,
            format!("{count} of {all} hosts that take VMs cannot run its VMs: {why}"),
        )
    };
    Some(finding.advice(
        "add the datastore or network to that cluster (onecluster adddatastore, addvnet), name another in the nodeset's \
         networks, or leave these hosts out by opennebula.hosts or host_cluster",
    ))
}
