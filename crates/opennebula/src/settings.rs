//! What the provider must know before it starts: one plain value, resolved by
//! the caller, never read from the environment here.

use crate::inputs::Inputs;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use thiao_core::ids::{ClusterName, HostName, NodeName, NodesetName};
use thiao_core::options::VmOptions;
use thiao_guest::auth::Credentials;
use thiao_guest::protocol::{Backup, ShareMount, UserEntry};

/// Everything that [`crate::OpenNebula::open`] needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose VMs these are; written into every VM.
    pub cluster: ClusterName,
    /// How oned is reached.
    pub access: Access,
    pub placement: Placement,
    /// The only hosts that take our VMs; empty: all that the user may see.
    pub hosts: Vec<HostName>,
    /// The only OpenNebula cluster whose hosts take our VMs.
    pub host_cluster: Option<String>,
    /// What says that a guest is ready.
    pub ready: ReadyBy,
    /// Memory that a VM gets beside what Slurm promises its jobs, in MiB.
    pub overhead_mb: u64,
    /// How long an end may take before it is asked for once more.
    pub terminate_grace: Duration,
    /// What VMs of each nodeset are made from.
    pub nodesets: BTreeMap<NodesetName, VmSource>,
    /// The nodeset of every node.
    pub nodes: BTreeMap<NodeName, NodesetName>,
    /// What every guest is told.
    pub guest: Guest,
    /// What is heard without being asked for.
    pub events: Events,
    /// Whom VMs may reach; none: nobody keeps them from anything.
    pub fence: Option<Fence>,
}

/// What of the fence is the site's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// What VMs may reach beside slurmctld, their file servers and each other.
    pub allow: Vec<Allowed>,
    /// The ports at which a `srun` on slurmctld's machine waits for its steps.
    pub any_port: (u16, u16),
}

/// Addresses and ports that all VMs may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allowed {
    pub address: Ipv4Addr,
    /// Length of the prefix that counts.
    pub prefix_len: u8,
    /// TCP and UDP; none: everything there is.
    pub ports: Option<(u16, u16)>,
}

/// How OpenNebula's event bus is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub bus: Bus,
    /// How often everything is asked for while the bus is heard.
    pub poll: Duration,
}

impl Default for Events {
    /// As if there were no bus.
    fn default() -> Self {
        Self {
            bus: Bus::Off,
            poll: Duration::from_secs(15),
        }
    }
}

/// Where OpenNebula's event bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// Nobody listens to it.
    Off,
    /// Where it usually is, `HOST:PORT`: at the front-end. It need not be there.
    Usual(String),
    /// Where somebody says that it is.
    At(String),
}

impl Bus {
    /// `HOST:PORT`, if anybody listens.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::Usual(address) | Self::At(address) => Some(address),
        }
    }
}

/// How oned is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where oned serves XML-RPC: `http://HOST:2633/RPC2`, or https.
    pub endpoint: String,
    /// The file with `user:password` or `user:token`; readable by nobody else.
    pub auth: PathBuf,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
    /// Calls per second, all together.
    pub requests_per_second: u32,
    /// Calls at once: oned serves 15, of everybody.
    pub connections: usize,
}

/// Who chooses the hosts of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// We: VMs are made held and deployed to the host that our plan chose.
    #[default]
    Thiao,
    /// OpenNebula's scheduler: VMs are made held and released.
    OpenNebula,
}

/// What says that a guest is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadyBy {
    /// Only Slurm: the node registers.
    #[default]
    Slurm,
    /// The guest says READY=YES through OneGate, and then Slurm.
    OneGate,
}

/// What a nodeset's VMs are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSource {
    /// Where the template is.
    pub template: TemplateSource,
    /// The networks of which a VM gets a card in one when its template has none, by name or id; and of which one is
    /// that of a card whose network the scheduler would choose, where it is not asked. The first is preferred.
    pub networks: Vec<String>,
    /// What one GPU is in a `PCI` attribute, e.g. VENDOR, DEVICE, CLASS.
    pub gpu_pci: Option<Vec<(String, String)>>,
    /// Folders, people and InfiniBand for its guests.
    pub inputs: Inputs,
    /// More CONTEXT attributes for its VMs, over those of every guest.
    pub context: Vec<(String, String)>,
}

impl VmSource {
    /// What a function of an InfiniBand card is in a `PCI` attribute, if each of its VMs gets one.
    #[must_use]
    pub fn function(&self) -> Option<&[(String, String)]> {
        self.inputs.infiniband.as_ref()?.pci.as_deref()
    }

    /// What a VM with these options is made from.
    #[must_use]
    pub fn with(&self, options: &VmOptions) -> Cow<'_, Self> {
        match &options.template {
            None => Cow::Borrowed(self),
            Some(name) => Cow::Owned(Self {
                template: TemplateSource::Registered(name.clone()),
                ..self.clone()
            }),
        }
    }
}

/// Where a template is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplateSource {
    /// Registered in OpenNebula, by name or id.
    Registered(String),
    /// A file with variables, for all nodes of the nodeset.
    File(PathBuf),
    /// A folder with `<node>.one` for each node, as in 2011.
    PerNode(PathBuf),
}

/// What every guest is told, in its CONTEXT.
#[derive(Debug, Clone)]
pub struct Guest {
    /// slurmctld's host name, as `SlurmctldHost` names it.
    pub slurmctld_host: String,
    /// Where guests reach it.
    pub slurmctld_addr: Ipv4Addr,
    /// Its port; the first, if there are several.
    pub slurmctld_port: u16,
    /// Those that stand in for it.
    pub backups: Vec<Backup>,
    /// Slurm's user, as `SlurmUser` names it.
    pub slurm_user: String,
    /// The cluster's secret on this machine; none when the guests' image has it.
    pub credentials: Option<Credentials>,
    /// Users that Thiao's own guests know beside root, slurm and munge.
    pub users: Vec<UserEntry>,
    /// NFS exports that Thiao's own guests mount.
    pub shares: Vec<ShareMount>,
    /// Whether the guests are OpenNebula's SlurmWorker appliance, whose slurmd must be
    /// told to start as a node that slurm.conf has.
    pub slurm_worker: bool,
    /// More CONTEXT attributes of the site.
    pub context: BTreeMap<String, String>,
}
