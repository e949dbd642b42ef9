//! What runs the VMs of a stand-in oned: nothing at all, or real machines.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Everything that a hypervisor's driver is told of a VM.
#[derive(Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// OpenNebula's id; never used again.
    pub id: u32,
    /// The VM's name; not unique.
    pub name: String,
    /// The host that it was deployed to.
    pub host: String,
    /// Virtual processors (VCPU, or 1).
    pub vcpu: u32,
    /// The share of the host's processors that it is promised, in percent of a core.
    pub cpu_percent: u32,
    pub memory_mb: u64,
    /// Its network cards, in order.
    pub nics: Vec<Nic>,
    /// The variables of its CONTEXT as they would stand in `context.sh`. A variable that a
    /// shell could not take as a name is not among them.
    pub context: BTreeMap<String, String>,
    /// The plain attributes of USER_TEMPLATE: tags.
    pub user_template: BTreeMap<String, String>,
    /// The secret for OneGate, `token.txt` on the context disc, if CONTEXT has TOKEN=YES.
    pub onegate_token: Option<String>,
}

/// A network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The virtual network's name.
    pub network: String,
    /// The address that it leases.
    pub ip: Ipv4Addr,
    /// The leased MAC, `02:00:...`.
    pub mac: String,
    /// The network's mask, if it has one.
    pub mask: Option<Ipv4Addr>,
    /// The network's gateway, if it has one.
    pub gateway: Option<Ipv4Addr>,
    /// What its security groups let pass; none: its network's driver does not go by them.
    pub passes: Option<Vec<Pass>>,
}

/// A rule of a security group: it opens, and closes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Whether the VM begins it.
    pub outbound: bool,
    /// `tcp`, `udp`, `icmp`; none: everything.
    pub protocol: Option<String>,
    /// The first and the last address of those at the other end; none: whoever it is.
    pub peers: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The ports that it goes to; none: any.
    pub ports: Vec<(u16, u16)>,
}

impl std::fmt::Debug for VmSpec {
    /// Contexts hold keys and tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmSpec")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// What an observation of a machine shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Running,
    /// It was started and has ended: by itself, or because it was stopped.
    Ended,
}

/// Runs VMs. All calls come from the driver's own thread, one after the other, and may take
/// their time; oned keeps answering meanwhile.
pub trait Machines: Send + Sync {
    /// Starts a machine. Ok: it runs, or will within moments. Err: nothing runs, and the VM
    /// becomes BOOT_FAILURE with this text. Starting one that runs already is no error; one that has
    /// ended is started anew.
    fn start(&self, spec: &VmSpec) -> Result<(), String>;

    /// Asks the guest to shut down, or ends the machine at once with `hard`. Does not wait:
    /// [`Machines::poll`] shows when it has ended. Ok for one that does not run.
    fn stop(&self, id: u32, hard: bool) -> Result<(), String>;

    /// Has a machine stand still with its memory, as one that is saved to a disk. [`Machines::poll`] shows it as
    /// before.
    fn save(&self, id: u32) -> Result<(), String>;

    /// Has a machine that was saved go on, wherever its VM is now. Err: it stays saved.
    fn restore(&self, spec: &VmSpec) -> Result<(), String>;

    /// Forgets a machine and removes all that it left. Called after it was seen ended, or
    /// when its VM was deleted; ends it if it still runs.
    fn remove(&self, id: u32) -> Result<(), String>;

    /// Takes note that other rules of security groups hold for a machine that runs.
    fn rules(&self, _: &VmSpec) -> Result<(), String> {
        Ok(())
    }

    /// Every machine that was started and not removed. One that is missing counts as ended.
    fn poll(&self) -> Vec<(u32, Seen)>;
}
