//! Whether security groups will keep VMs to whom they may reach.

use super::cards;
use super::needs::Needs;
use super::seen::Seen;
use crate::error::Class;
use crate::secgroup::{DEFAULT, Wires, applied_by};
use crate::settings::Placement;
use crate::template::cards::is_auto;
use std::collections::BTreeMap;
use thiao_core::finding::Finding;

const WHAT: &str = "fence";

/// The first version that changes the groups of a VM's card.
const FIRST: (u32, u32) = (6, 4);

pub(super) fn judge(seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    if !wanted.fence {
        return;
    }
    let before = found.len();
    found.extend(version(seen));
    found.extend(right(seen));
    found.extend(unchosen(seen, wanted));
    match &seen.wires {
        Ok(all) => {
            let used = used(all, seen, wanted);
            found.extend(used.values().flat_map(|network| of_network(network)));
            if found.len() == before && !used.is_empty() {
                let names: Vec<&str> = used.values().map(|network| network.name.as_str()).collect();
                let text = format!(
                    "security groups keep VMs to whom they may reach in {}",
                    names.join(", ")
                );
                found.push(Finding::ok(WHAT, text));
            }
        }
        Err(error) => found.push(
            Finding::bad(WHAT, format!("networks cannot be read: {error}"))
                .run("onevnet list")
                .unless_denied(error.denied),
        ),
    }
}

/// The networks that our VMs are in.
fn used<'a>(all: &'a [Wires], seen: &Seen, wanted: &Needs) -> BTreeMap<u32, &'a Wires> {
    let sets = wanted.nodesets.iter();
    let names = sets.flat_map(|set| cards::networks(set, wanted, seen)).flatten();
    let find = |name: String| {
        let by_id = name.parse::<u32>().ok();
        let mut all = all.iter();
        all.find(|network| network.name == name || Some(network.id) == by_id)
    };
    names
        .filter_map(find)
        .map(|network| (network.id, network))
        .collect()
}

fn of_network(network: &Wires) -> Vec<Finding> {
    let what = format!("network {}", network.name);
    if !applied_by(&network.driver) {
        let text = format!(
            "its driver {:?} does not go by security groups: nothing there keeps VMs of different jobs and users from \
             each other",
            network.driver
        );
        return vec![Finding::warn(what, text).advice(
            "make it with the driver fw (a bridge with security groups), 802.1Q or vxlan; or set fence = false in \
             [network], where all users trust each other",
        )];
    }
    let mut found = Vec::new();
    let (by_ip, by_hardware) = network.filters;
    let missing: Vec<&str> = [
        (by_ip, "FILTER_IP_SPOOFING"),
        (by_hardware, "FILTER_MAC_SPOOFING"),
    ]
    .into_iter()
    .filter_map(|(there, name)| (!there).then_some(name))
    .collect();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(|name| format!("'{name}=\"YES\"'")).collect();
        found.push(
            Finding::warn(
                what.clone(),
                "hosts let its VMs speak under others' addresses, and rules go by addresses",
            )
            .run(format!(
                "printf '%s\\n' {} | onevnet update {} --append",
                lines.join(" "),
                network.id
            )),
        );
    }
    let others: Vec<String> = network
        .groups
        .iter()
        .filter(|id| **id != DEFAULT)
        .map(u32::to_string)
        .collect();
    if !others.is_empty() {
        let text = format!(
            "it gives our VMs security group {} too: what that lets pass they reach beside [network] allow",
            others.join(", ")
        );
        found.push(Finding::warn(what, text).run(format!("onesecgroup show {}", others.join(" "))));
    }
    found
}

fn version(seen: &Seen) -> Option<Finding> {
    let text = seen.version.as_ref().ok()?;
    let mut parts = text.trim().split('.').map(|part| part.parse::<u32>().ok());
    let version = (parts.next()??, parts.next()??);
    (version < FIRST).then(|| {
        let why = format!(
            "OpenNebula {text} does not change the security groups of a VM: no VM can be made; {}.{} does",
            FIRST.0, FIRST.1
        );
        Finding::bad(WHAT, why).advice("upgrade the front-end, or set fence = false in [network]")
    })
}

fn right(seen: &Seen) -> Option<Finding> {
    let user = seen.user.as_ref().ok()?;
    let error = seen.tried_group.as_ref()?.as_ref().err()?;
    let finding = Finding::bad(
        WHAT,
        format!("no security group can be made, and without one no VM is: {error}"),
    );
    Some(match error.class {
        Class::Authorization => finding.run(format!("oneacl create '#{} SECGROUP/* CREATE'", user.id)),
        Class::Authentication
        | Class::NoSuchObject
        | Class::BadTemplate
        | Class::Capacity
        | Class::WrongState
        | Class::Busy
        | Class::Network
        | Class::Unknown => finding.advice("mend what the message says, then run this again"),
    })
}

/// Nodesets with cards of which only OpenNebula's scheduler knows the network, when the VM runs.
fn unchosen(seen: &Seen, wanted: &Needs) -> Vec<Finding> {
    if wanted.placement == Placement::Thiao {
        return Vec::new();
    }
    let auto = wanted.nodesets.iter().filter(|set| {
        let body = super::seen::body_of(set, seen);
        body.is_some_and(|body| crate::template::cards::cards(body).any(is_auto))
    });
    auto.map(|set| {
        Finding::bad(
            format!("nodeset {}", set.name),
            "OpenNebula's scheduler chooses the network of its VMs' cards, and so no security group can be given \
             before they run: no VM is made",
        )
        .advice("name the NETWORK in the template, or set fence = false in [network]")
    })
    .collect()
}
