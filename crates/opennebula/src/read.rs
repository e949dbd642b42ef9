//! Out of oned's XML, the parts that we use. A listing is whole or an error; a size that no machine has is an
//! error of the one VM or host of which it is said.

mod admin;
mod hook;
mod quota;
mod secgroup;

use crate::model::{Devices, Group, Host, Network, Template, User, VmDetails, VmRow};
use crate::pci::{PciDevice, hex};
use crate::size::Sizes;
use crate::state::{HostState, VmState};
use crate::syntax::{Template as Body, Value};
use crate::wire::Malformed;
use crate::wire::xml::Doc;
pub use admin::{accounts, acls, circles, datastores, images, networks_whole, one_image, templates_whole};
pub use hook::{hook_parameter, hook_vm};
use quota::{Limits, default_limits, limits, quotas};
pub use secgroup::{one_secgroup, secgroups, wired, wires};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What was read, or why it cannot be.
pub type Read<T> = Result<T, Malformed>;

/// `VM_POOL`, short or extended: only what the short one has.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn vms(xml: &str) -> Read<Vec<VmRow>> {
    all(xml, "VM_POOL", "VM", |doc| Ok(vm(doc, false)?.row))
}

/// `VM_POOL`, extended.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn vm_details(xml: &str) -> Read<Vec<VmDetails>> {
    all(xml, "VM_POOL", "VM", |doc| vm(doc, true))
}

/// `VM`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn one_vm(xml: &str) -> Read<VmDetails> {
    alone(xml, "VM", "no VM", |doc| vm(doc, true))
}

/// `HOST_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn hosts(xml: &str, devices: Devices) -> Read<Vec<Host>> {
    all(xml, "HOST_POOL", "HOST", |doc| host(doc, devices))
}

/// `MONITORING_DATA` of hosts: what is used of each, in percent of a core and MiB, where that can be.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn loads(xml: &str) -> Read<BTreeMap<u32, (u32, u64)>> {
    let mut loads = BTreeMap::new();
    pool(xml, "MONITORING_DATA", "MONITORING", |doc| {
        let (mut id, mut cpu, mut memory) = (None, None, None);
        doc.children(|doc, name| {
            match name {
                "ID" => id = doc.number("id")?,
                "CAPACITY" => capacity(doc, &mut cpu, &mut memory)?,
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        if let (Some(id), Some(load)) = (id, used(cpu, memory)) {
            loads.insert(id, load);
        }
        Ok(())
    })?;
    Ok(loads)
}

/// What of a host is used, as monitored.
fn capacity(doc: &mut Doc<'_>, cpu: &mut Option<f64>, memory: &mut Option<f64>) -> Read<()> {
    doc.children(|doc, name| {
        match name {
            "USED_CPU" => *cpu = doc.number("USED_CPU")?,
            "USED_MEMORY" => *memory = doc.number("USED_MEMORY")?,
            _ => doc.skip()?,
        }
        Ok(())
    })
}

/// People look at it: of what cannot be nothing is shown.
fn used(cpu: Option<f64>, memory: Option<f64>) -> Option<(u32, u64)> {
    if let (None, None) = (cpu, memory) {
        return None;
    }
    let mut sizes = Sizes::default();
    let used = (sizes.cpu_percent(cpu), sizes.memory_kb(memory));
    sizes.beyond.is_none().then_some(used)
}

/// `VMTEMPLATE_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn templates(xml: &str) -> Read<Vec<Template>> {
    all(xml, "VMTEMPLATE_POOL", "VMTEMPLATE", template)
}

/// `VMTEMPLATE`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn one_template(xml: &str) -> Read<Template> {
    alone(xml, "VMTEMPLATE", "no template", template)
}

/// `VNET_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn networks(xml: &str) -> Read<Vec<Network>> {
    all(xml, "VNET_POOL", "VNET", network)
}

/// `USER`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn user(xml: &str) -> Read<User> {
    let mut id = None;
    let mut user = User {
        id: 0,
        name: String::new(),
        groups: Vec::new(),
        template: BTreeMap::new(),
        quotas: Vec::new(),
    };
    let (mut own, mut default) = (Limits::default(), Limits::default());
    Doc::new(xml).root("USER", |doc, name| {
        match name {
            "ID" => id = doc.number("id")?,
            "NAME" => user.name = doc.text()?.into_owned(),
            "GID" => user.groups.extend(doc.number::<u32>("id")?),
            "GROUPS" => ids(doc, &mut user.groups)?,
            "TEMPLATE" => {
                user.template = doc.singles()?;
                // Salt and such: no secret, but nobody's business either.
                user.template.retain(|name, _| !name.contains("PASSWORD"));
            }
            "VM_QUOTA" => own = limits(doc)?,
            "DEFAULT_USER_QUOTAS" => default = default_limits(doc)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    user.id = required(id, "a user without id")?;
    user.groups.sort_unstable();
    user.groups.dedup();
    user.quotas = quotas(&own, &default);
    Ok(user)
}

/// `GROUP`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn group(xml: &str) -> Read<Group> {
    let mut id = None;
    let mut name = String::new();
    let (mut own, mut default) = (Limits::default(), Limits::default());
    Doc::new(xml).root("GROUP", |doc, element| {
        match element {
            "ID" => id = doc.number("id")?,
            "NAME" => name = doc.text()?.into_owned(),
            "VM_QUOTA" => own = limits(doc)?,
            "DEFAULT_GROUP_QUOTAS" => default = default_limits(doc)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    Ok(Group {
        id: required(id, "a group without id")?,
        name,
        quotas: quotas(&own, &default),
    })
}

/// All `item`s in the root element of that name.
fn pool(xml: &str, root: &str, item: &str, mut each: impl FnMut(&mut Doc<'_>) -> Read<()>) -> Read<()> {
    Doc::new(xml).root(
        root,
        |doc, name| {
            if name == item { each(doc) } else { doc.skip() }
        },
    )
}

/// All `item`s of a pool, in its order.
fn all<T>(xml: &str, root: &str, item: &str, mut one: impl FnMut(&mut Doc<'_>) -> Read<T>) -> Read<Vec<T>> {
    let mut found = Vec::new();
    pool(xml, root, item, |doc| {
        found.push(one(doc)?);
        Ok(())
    })?;
    Ok(found)
}

/// A root element, read by what reads it in a pool.
fn alone<T>(xml: &str, root: &str, without: &str, one: impl Fn(&mut Doc<'_>) -> Read<T>) -> Read<T> {
    let mut found = None;
    Doc::new(xml).whole(root, |doc| {
        found = Some(one(doc)?);
        Ok(())
    })?;
    required(found, without)
}

fn required<T>(value: Option<T>, without: &str) -> Read<T> {
    value.ok_or_else(|| Malformed::other(without))
}

/// What a VM is made of while it is read.
struct Vm {
    id: Option<u32>,
    state: Option<i32>,
    lcm_state: Option<i32>,
    owner: Option<u32>,
    details: VmDetails,
}

/// One VM; with `whole`, its user template and its context too.
fn vm(doc: &mut Doc<'_>, whole: bool) -> Read<VmDetails> {
    let mut vm = Vm {
        id: None,
        state: None,
        lcm_state: None,
        owner: None,
        details: VmDetails {
            row: VmRow {
                id: 0,
                name: String::new(),
                state: VmState::Unknown(-1),
                host: None,
                cpu_percent: 0,
                memory_mb: 0,
                beyond: None,
                addresses: Vec::new(),
                error: None,
                sched_message: None,
            },
            user_template: BTreeMap::new(),
            context: BTreeMap::new(),
            owner: (0, String::new()),
        },
    };
    doc.children(|doc, name| {
        match name {
            "ID" => vm.id = doc.number("id")?,
            "NAME" => vm.details.row.name = doc.text()?.into_owned(),
            "UID" if whole => vm.owner = doc.number("id")?,
            "UNAME" if whole => vm.details.owner.1 = doc.text()?.into_owned(),
            "STATE" => vm.state = doc.number("state")?,
            "LCM_STATE" => vm.lcm_state = doc.number("state")?,
            "TEMPLATE" => vm_template(doc, whole, &mut vm.details)?,
            "USER_TEMPLATE" => user_template(doc, whole, &mut vm.details)?,
            "HISTORY_RECORDS" => vm.details.row.host = newest_host(doc)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    vm.details.row.id = required(vm.id, "a VM without id")?;
    let state = required(vm.state, "a VM without STATE")?;
    let lcm_state = required(vm.lcm_state, "a VM without LCM_STATE")?;
    vm.details.row.state = VmState::new(state, lcm_state);
    if whole {
        vm.details.owner.0 = required(vm.owner, "a VM without UID")?;
    }
    Ok(vm.details)
}

fn vm_template(doc: &mut Doc<'_>, whole: bool, vm: &mut VmDetails) -> Read<()> {
    let mut sizes = Sizes::default();
    doc.children(|doc, name| {
        match name {
            "CPU" => vm.row.cpu_percent = sizes.cores(doc.number("CPU")?),
            "MEMORY" => vm.row.memory_mb = sizes.memory_mb(doc.number("MEMORY")?),
            "NIC" => addresses(doc, &mut vm.row.addresses)?,
            "CONTEXT" if whole => vm.context = doc.singles()?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    vm.row.beyond = sizes.beyond;
    Ok(())
}

fn addresses(doc: &mut Doc<'_>, addresses: &mut Vec<IpAddr>) -> Read<()> {
    doc.children(|doc, name| {
        match name {
            "IP" | "IP6" | "IP6_GLOBAL" | "IP6_ULA" => {
                // Before its lease a card has an empty one.
                addresses.extend(doc.text()?.trim().parse::<IpAddr>());
            }
            _ => doc.skip()?,
        }
        Ok(())
    })
}

fn user_template(doc: &mut Doc<'_>, whole: bool, vm: &mut VmDetails) -> Read<()> {
    if whole {
        vm.user_template = doc.singles()?;
        let text = |name: &str| {
            vm.user_template
                .get(name)
                .filter(|text| !text.is_empty())
                .cloned()
        };
        (vm.row.error, vm.row.sched_message) = (text("ERROR"), text("SCHED_MESSAGE"));
        return Ok(());
    }
    doc.children(|doc, name| {
        match name {
            "ERROR" => vm.row.error = Some(doc.text()?.into_owned()).filter(|text| !text.is_empty()),
            "SCHED_MESSAGE" => {
                vm.row.sched_message = Some(doc.text()?.into_owned()).filter(|text| !text.is_empty());
            }
            _ => doc.skip()?,
        }
        Ok(())
    })
}

/// The host of the record with the highest number.
fn newest_host(doc: &mut Doc<'_>) -> Read<Option<(String, u32)>> {
    let mut newest: Option<(i64, String, u32)> = None;
    doc.children(|doc, name| {
        if name != "HISTORY" {
            return doc.skip();
        }
        let (mut number, mut host, mut id) = (-1, String::new(), None);
        doc.children(|doc, name| {
            match name {
                "SEQ" => number = doc.number("number")?.unwrap_or(-1),
                "HOSTNAME" => host = doc.text()?.into_owned(),
                "HID" => id = doc.number("id")?,
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        if let Some(id) = id
            && newest.as_ref().is_none_or(|(before, _, _)| *before <= number)
        {
            newest = Some((number, host, id));
        }
        Ok(())
    })?;
    Ok(newest.map(|(_, host, id)| (host, id)))
}

fn host(doc: &mut Doc<'_>, devices: Devices) -> Read<Host> {
    let (mut id, mut state) = (None, None);
    let (mut cpu, mut memory) = (None, None);
    let mut host = Host {
        id: 0,
        name: String::new(),
        state: HostState::Unknown(-1),
        cluster: String::new(),
        cluster_id: -1,
        hypervisor: String::new(),
        max_cpu_percent: 0,
        promised_cpu_percent: 0,
        max_memory_mb: 0,
        promised_memory_mb: 0,
        vms: 0,
        beyond: None,
        pci: None,
        load: None,
    };
    doc.children(|doc, name| {
        match name {
            "ID" => id = doc.number("id")?,
            "NAME" => host.name = doc.text()?.into_owned(),
            "STATE" => state = doc.number("state")?,
            "CLUSTER" => host.cluster = doc.text()?.into_owned(),
            "CLUSTER_ID" => host.cluster_id = doc.number("CLUSTER_ID")?.unwrap_or(-1),
            "HOST_SHARE" => host_share(doc, devices, &mut host, &mut cpu, &mut memory)?,
            "MONITORING" => doc.children(|doc, name| {
                if name != "CAPACITY" {
                    return doc.skip();
                }
                capacity(doc, &mut cpu, &mut memory)
            })?,
            "TEMPLATE" => doc.children(|doc, name| {
                match name {
                    "HYPERVISOR" => host.hypervisor = doc.text()?.into_owned(),
                    _ => doc.skip()?,
                }
                Ok(())
            })?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    host.id = required(id, "a host without id")?;
    host.state = HostState::new(required(state, "a host without STATE")?);
    host.load = used(cpu, memory);
    Ok(host)
}

/// What a host has, and what of it is promised.
fn host_share(
    doc: &mut Doc<'_>,
    with: Devices,
    host: &mut Host,
    cpu: &mut Option<f64>,
    memory: &mut Option<f64>,
) -> Read<()> {
    let mut sizes = Sizes::default();
    doc.children(|doc, name| {
        match name {
            "MAX_CPU" => host.max_cpu_percent = sizes.cpu_percent(doc.number("MAX_CPU")?),
            "CPU_USAGE" => host.promised_cpu_percent = sizes.cpu_percent(doc.number("CPU_USAGE")?),
            "MAX_MEM" => host.max_memory_mb = sizes.memory_kb(doc.number("MAX_MEM")?),
            "MEM_USAGE" => host.promised_memory_mb = sizes.memory_kb(doc.number("MEM_USAGE")?),
            "PCI_DEVICES" if with == Devices::Read => host.pci = Some(devices(doc)?),
            "RUNNING_VMS" => host.vms = sizes.vms(doc.number("RUNNING_VMS")?),
            // 5.x has here what later ones have in MONITORING.
            "USED_CPU" => *cpu = doc.number("USED_CPU")?,
            "USED_MEM" => *memory = doc.number("USED_MEM")?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    host.beyond = sizes.beyond;
    Ok(())
}

fn devices(doc: &mut Doc<'_>) -> Read<Vec<PciDevice>> {
    let mut all = Vec::new();
    doc.children(|doc, name| {
        if name != "PCI" {
            return doc.skip();
        }
        let mut one = PciDevice::default();
        doc.children(|doc, name| {
            match name {
                "VENDOR" => one.vendor = hex(&doc.text()?),
                "DEVICE" => one.device = hex(&doc.text()?),
                "CLASS" => one.class = hex(&doc.text()?),
                "SHORT_ADDRESS" => one.short_address = doc.text()?.into_owned(),
                // -1: nobody has it.
                "VMID" => one.vm = doc.number::<i64>("VMID")?.and_then(|id| u32::try_from(id).ok()),
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        all.push(one);
        Ok(())
    })?;
    Ok(all)
}

fn template(doc: &mut Doc<'_>) -> Read<Template> {
    let mut id = None;
    let mut template = Template {
        id: 0,
        name: String::new(),
        owner: String::new(),
        body: Body::default(),
    };
    doc.children(|doc, name| {
        match name {
            "ID" => id = doc.number("id")?,
            "NAME" => template.name = doc.text()?.into_owned(),
            "UNAME" => template.owner = doc.text()?.into_owned(),
            "TEMPLATE" => template.body = body(doc)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    template.id = required(id, "a template without id")?;
    Ok(template)
}

/// An element with attributes of both kinds.
fn body(doc: &mut Doc<'_>) -> Read<Body> {
    let mut attributes = Vec::new();
    doc.children(|doc, name| {
        let name = name.to_owned();
        let (text, pairs) = doc.text_and_children()?;
        attributes.push(if pairs.is_empty() {
            (name, Value::Single(text))
        } else {
            (name, Value::Vector(pairs))
        });
        Ok(())
    })?;
    Ok(Body(attributes))
}

fn network(doc: &mut Doc<'_>) -> Read<Network> {
    let mut id = None;
    let mut network = Network {
        id: 0,
        name: String::new(),
        addresses: 0,
        used: 0,
        clusters: Vec::new(),
    };
    doc.children(|doc, name| {
        match name {
            "ID" => id = doc.number("id")?,
            "NAME" => network.name = doc.text()?.into_owned(),
            "CLUSTERS" => ids(doc, &mut network.clusters)?,
            "USED_LEASES" => network.used = doc.number("USED_LEASES")?.unwrap_or_default(),
            "AR_POOL" => doc.children(|doc, name| {
                if name != "AR" {
                    return doc.skip();
                }
                doc.children(|doc, name| {
                    if name != "SIZE" {
                        return doc.skip();
                    }
                    let size: u64 = doc.number("SIZE")?.unwrap_or_default();
                    network.addresses = network.addresses.saturating_add(size);
                    Ok(())
                })
            })?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    network.id = required(id, "a network without id")?;
    Ok(network)
}

fn ids(doc: &mut Doc<'_>, ids: &mut Vec<u32>) -> Read<()> {
    doc.children(|doc, name| {
        if name != "ID" {
            return doc.skip();
        }
        ids.extend(doc.number::<u32>("id")?);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
