//! Whether hosts have what a nodeset's InfiniBand asks for.

use super::needs::{Needs, NodesetNeeds};
use crate::model::{Devices, Host};
use thiao_core::finding::Finding;

/// Hosts that take VMs and have no such function of a card, be it free or not. Where nobody can tell what a host has, it
/// is passed by.
pub(super) fn functions(usable: &[&Host], wanted: &Needs, found: &mut Vec<Finding>) {
    for set in &wanted.nodesets {
        let Some(asked) = set.source.function() else {
            continue;
        };
        let lacking = usable.iter().filter(|host| has_none(host, asked)).count();
        let what = format!("nodeset {}", set.name);
        let why = "they have no function of a card as its infiniband asks for";
        let all = usable.len();
        let finding = match lacking {
            0 => continue,
            count if count == all => Finding::bad(
                what,
                format!("none of the {all} hosts that take VMs can run its VMs: {why}"),
            ),
            count => Finding::warn(
                what,
                format!("{count} of {all} hosts that take VMs cannot run its VMs: {why}"),
            ),
        };
        found.push(finding.advice(
            "compare vendor, device and class with what `onehost show HOST` lists as PCI DEVICES; a card's virtual \
             functions are made on the host, and OpenNebula lists what the filter in its pci.conf lets through",
        ));
    }
}

fn has_none(host: &Host, asked: &[(String, String)]) -> bool {
    let devices = host.pci.as_ref();
    devices.is_some_and(|devices| {
        devices
            .iter()
            .all(|device| device.is_one_of(asked) == Some(false))
    })
}

/// Whether hosts' devices have to be read for that.
pub(super) fn devices(wanted: &Needs) -> Devices {
    let asks = |set: &NodesetNeeds| set.source.function().is_some();
    match wanted.nodesets.iter().any(asks) {
        true => Devices::Read,
        false => Devices::Left,
    }
}
