//! What a stand-in oned is made of.

use crate::lifecycle::Phase;
use crate::machines::Machines;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Everything that an [`crate::Oned`] needs.
#[derive(Clone)]
pub struct Settings {
    /// Where XML-RPC is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where OneGate is served, if at all.
    pub onegate: Option<SocketAddr>,
    /// What guests are told of OneGate's address (ONEGATE_ENDPOINT in oned.conf). None: where
    /// it listens. Without both, `TOKEN="YES"` is refused, as by the real oned.
    pub onegate_endpoint: Option<String>,
    /// Where events are published, if at all.
    pub bus: Option<SocketAddr>,
    /// Connections served at once; more wait (MAX_CONN in oned.conf).
    pub connections: usize,
    /// The version that it claims to be.
    pub version: String,
    /// Users; the first is oneadmin, with id 0.
    pub users: Vec<UserSetup>,
    /// Hosts; their ids count from 0.
    pub hosts: Vec<HostSetup>,
    /// System datastores beside that of a fresh installation.
    pub stores: Vec<StoreSetup>,
    /// Virtual networks; their ids count from 0.
    pub networks: Vec<NetworkSetup>,
    /// Registered VM templates; their ids count from 0.
    pub templates: Vec<TemplateSetup>,
    /// What runs the VMs; none: nothing, they are played.
    pub machines: Option<Arc<dyn Machines>>,
    /// How long a driver is busy with one phase.
    pub phase: Duration,
    /// Phases that take another time.
    pub phases: BTreeMap<Phase, Duration>,
    /// How long a guest has for a soft shutdown before the VM goes back to RUNNING.
    pub shutdown_timeout: Duration,
    /// How often machines are observed.
    pub poll: Duration,
    /// How long listings show the old state after a change by a call. The real one does so
    /// too, for an unknown while: answers are asynchronous.
    pub lag: Duration,
    /// Whether the driver can resize VMs that run (LIVE_RESIZE of VM_MAD; kvm's can).
    pub live_resize: bool,
    /// How often the scheduler places PENDING VMs; none: never.
    pub scheduler: Option<Duration>,
}

impl Default for Settings {
    /// A small site: user oneadmin with password `opennebula`, no hosts, quick drivers.
    fn default() -> Self {
        Settings {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            onegate: None,
            onegate_endpoint: None,
            bus: None,
            connections: 15,
            version: "7.4.1".into(),
            users: vec![UserSetup::new("oneadmin", "opennebula")],
            hosts: Vec::new(),
            stores: Vec::new(),
            networks: Vec::new(),
            templates: Vec::new(),
            machines: None,
            phase: Duration::from_millis(3),
            phases: BTreeMap::new(),
            shutdown_timeout: Duration::from_secs(60),
            poll: Duration::from_millis(20),
            lag: Duration::ZERO,
            live_resize: false,
            scheduler: None,
        }
    }
}

/// A user of the group `users`, and what he may do beside what that group may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSetup {
    pub name: String,
    pub password: String,
    /// The user's own template: `VM_MANAGE_OPERATIONS` and such.
    pub template: BTreeMap<String, String>,
    /// ACL rules for him alone, as `oneacl` takes them behind the user: `HOST/* USE+MANAGE`.
    pub rights: Vec<String>,
}

impl UserSetup {
    /// A plain user as the default rules make him: may create VMs and templates, use all networks, and
    /// deploy to hosts that he cannot see.
    pub fn new(name: &str, password: &str) -> Self {
        UserSetup {
            name: name.into(),
            password: password.into(),
            template: BTreeMap::new(),
            rights: Vec::new(),
        }
    }

    /// One who may see hosts, and deploy and remove VMs of his group.
    pub fn of_cluster(name: &str, password: &str) -> Self {
        UserSetup {
            rights: vec!["HOST/* USE".into(), "VM/@1 USE+MANAGE+ADMIN".into()],
            ..Self::new(name, password)
        }
    }
}

/// A host that oned starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSetup {
    pub name: String,
    /// Its processors, in percent of a core.
    pub cpu_percent: u32,
    /// Its memory, in MiB.
    pub memory_mb: u64,
    /// The cluster that it is in.
    pub cluster: Cluster,
}

/// The cluster that a host is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// 0 is that of a fresh installation; others count from 100.
    pub id: u32,
    pub name: String,
}

impl Default for Cluster {
    /// That of a fresh installation.
    fn default() -> Self {
        Cluster {
            id: 0,
            name: "default".into(),
        }
    }
}

/// A system datastore beside that of a fresh installation, which is in cluster 0. All of a cluster's hosts share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSetup {
    /// Its id, 100 or more.
    pub id: u32,
    pub name: String,
    /// The ids of the clusters that have it.
    pub clusters: Vec<u32>,
    /// What is free there, in MiB.
    pub free_mb: u64,
}

/// A virtual network with one address range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSetup {
    pub name: String,
    /// The first address of its range.
    pub first: Ipv4Addr,
    /// How many addresses the range has.
    pub size: u32,
    /// NETWORK_ADDRESS, NETWORK_MASK, GATEWAY, DNS and other attributes.
    pub template: BTreeMap<String, String>,
    /// Whether all users may use it.
    pub public: bool,
    /// The ids of the clusters that have it.
    pub clusters: Vec<u32>,
}

/// A registered VM template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSetup {
    pub name: String,
    /// What it says, as text or XML.
    pub body: String,
    /// Whether all users may use it.
    pub public: bool,
}
