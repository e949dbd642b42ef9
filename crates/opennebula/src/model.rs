//! What oned says of VMs, hosts, templates, networks and users: the parts that we use.

use crate::pci::PciDevice;
use crate::size::Beyond;
use crate::state::{HostState, VmState};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A VM as the short pool listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRow {
    /// OpenNebula's id; never used again.
    pub id: u32,
    /// Its name; not unique.
    pub name: String,
    pub state: VmState,
    /// The host of its newest history record, if it has one: name and id.
    pub host: Option<(String, u32)>,
    /// `CPU` in percent of a core.
    pub cpu_percent: u32,
    pub memory_mb: u64,
    /// What of these is beyond every machine; it is 0 here then.
    pub beyond: Option<Beyond>,
    /// Addresses of its network cards.
    pub addresses: Vec<IpAddr>,
    /// USER_TEMPLATE/ERROR, OpenNebula's own text of the last failure.
    pub error: Option<String>,
    /// USER_TEMPLATE/SCHED_MESSAGE, why the scheduler has not placed it.
    pub sched_message: Option<String>,
}

/// A VM with its user template, as the extended listings show it; also VMs that are DONE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmDetails {
    /// What the short listing has.
    pub row: VmRow,
    /// The plain attributes of USER_TEMPLATE: tags, READY.
    pub user_template: BTreeMap<String, String>,
    /// The attributes of TEMPLATE/CONTEXT.
    pub context: BTreeMap<String, String>,
    /// Whose it is: the user's id and name (UID, UNAME).
    pub owner: (u32, String),
}

/// Whether a listing of hosts is to be read with their devices. They can be hundreds on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// All of them are read.
    Read,
    /// They are passed by: nobody asks for them.
    Left,
}

/// A host as the host pool shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: u32,
    pub name: String,
    /// What it is doing.
    pub state: HostState,
    /// The name of its OpenNebula cluster.
    pub cluster: String,
    /// The id of its OpenNebula cluster.
    pub cluster_id: i64,
    /// What runs VMs there: `kvm`, `lxc`, `dummy`.
    pub hypervisor: String,
    /// Capacity that VMs may be promised (MAX_CPU), in percent of a core.
    pub max_cpu_percent: u32,
    /// Of that promised (CPU_USAGE).
    pub promised_cpu_percent: u32,
    /// Memory that VMs may have (MAX_MEM), MiB.
    pub max_memory_mb: u64,
    /// Of that promised (MEM_USAGE), MiB.
    pub promised_memory_mb: u64,
    /// VMs on it, of everybody.
    pub vms: u32,
    /// What of these is beyond every machine; it is 0 here then.
    pub beyond: Option<Beyond>,
    /// Its devices that VMs can have whole; none: it does not say, or they were passed by.
    pub pci: Option<Vec<PciDevice>>,
    /// What is really used, as monitored: percent of a core, and MiB.
    pub load: Option<(u32, u64)>,
}

impl Host {
    /// Whether VMs may be placed there: OpenNebula lets them, and what it says of the host can be.
    #[must_use]
    pub fn takes_vms(&self) -> bool {
        self.state.takes_vms() && self.beyond.is_none()
    }
}

/// A registered VM template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub id: u32,
    pub name: String,
    pub owner: String,
    pub body: crate::syntax::Template,
}

/// A virtual network as the network pool shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: u32,
    pub name: String,
    /// Addresses in all its ranges.
    pub addresses: u64,
    /// Of these in use.
    pub used: u64,
    /// The ids of the OpenNebula clusters that have it.
    pub clusters: Vec<u32>,
}

/// The user that the credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: u32,
    pub name: String,
    /// Ids of all groups; 0 is oneadmin's.
    pub groups: Vec<u32>,
    /// The user's own template: VM_MANAGE_OPERATIONS and such.
    pub template: BTreeMap<String, String>,
    /// The user's VM quotas, defaults included; no entry where there is no limit.
    pub quotas: Vec<Quota>,
}

impl User {
    /// Whether it is oneadmin, or of that group.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.id == 0 || self.groups.contains(&0)
    }
}

/// Any user, as an administrator sees him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: u32,
    pub name: String,
    /// Ids of all groups; 0 is oneadmin's.
    pub groups: Vec<u32>,
    /// The plain attributes of the user's own template.
    pub template: BTreeMap<String, String>,
}

/// Any group, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    pub id: u32,
    pub name: String,
    /// Ids of its users.
    pub users: Vec<u32>,
    /// The plain attributes of the group's own template.
    pub template: BTreeMap<String, String>,
}

/// A template, image, network or datastore: what these have in common, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub id: u32,
    pub name: String,
    /// UNAME: the name of who owns it.
    pub owner: String,
    /// Whether every user may use it (PERMISSIONS/OTHER_U).
    pub for_all: bool,
    /// TYPE as a number, of images (3 KERNEL, 4 RAMDISK) and datastores (0 images, 1 system, 2 files).
    pub kind: Option<i32>,
    /// STATE as a number, of images (1 READY, 2 USED, 4 LOCKED, 5 ERROR) and datastores (0 READY, 1 DISABLED).
    pub state: Option<i32>,
    /// VMs that use it, of images (RUNNING_VMS).
    pub vms: u32,
    /// The id of the datastore that it is in, of images.
    pub datastore: Option<u32>,
    /// The ids of the OpenNebula clusters that have it, of networks and datastores.
    pub clusters: Vec<u32>,
    /// What is free there (FREE_MB), of datastores.
    pub free_mb: u64,
    pub body: crate::syntax::Template,
}

/// A group of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: u32,
    pub name: String,
    /// The VM quotas of all its users together.
    pub quotas: Vec<Quota>,
}

/// One VM quota of a user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// `VMS`, `CPU` or `MEMORY`, or one of these after `RUNNING_`.
    pub what: &'static str,
    /// The limit: VMs, percent of a core, or MiB.
    pub limit: u64,
    /// What is used of it.
    pub used: u64,
}
