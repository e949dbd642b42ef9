//! What a provider has: hosts, and VMs.

use crate::ids::{ClusterName, Generation, HostName, NodeName, NodesetName, VmId, VmTag};
use crate::table::Groups;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything that the provider has, in one observation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderView {
    pub hosts: Vec<HostView>,
    /// All VMs that the provider showed us; those with another tag or none are not ours.
    pub vms: Vec<VmView>,
}

/// The VMs of one cluster on each of its nodes.
pub type VmsOf<'a> = Groups<&'a NodeName, &'a VmView>;

impl ProviderView {
    /// The VMs with this cluster's tag, by their nodes.
    #[must_use]
    pub fn vms_of(&self, cluster: &ClusterName) -> VmsOf<'_> {
        let tagged = self.vms.iter().filter_map(|vm| Some((vm.tag.as_ref()?, vm)));
        let ours = tagged.filter(|(tag, _)| tag.cluster == *cluster);
        ours.map(|(tag, vm)| (&tag.node, vm)).collect()
    }

    /// All VMs by the provider's id.
    #[must_use]
    pub fn by_id(&self) -> HashMap<&VmId, &VmView> {
        self.vms.iter().map(|vm| (&vm.id, vm)).collect()
    }
}

/// A host as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    pub name: HostName,
    /// Cores that may be promised, in percent of a core (400 = 4 cores).
    pub cpu_percent: u32,
    /// Memory that VMs may use in all, in MiB.
    pub memory_mb: u64,
    /// GPUs, if the provider knows of them; else VMs with GPUs go wherever the rest fits.
    pub gpus: Option<u32>,
    /// Whether new VMs may be placed there now.
    pub usable: bool,
    /// Why it takes no new VMs, whoever places them; for people.
    pub closed: Option<String>,
    /// Nodesets whose VMs cannot run there, and why: it lacks what they need. Hosts that are alike share it.
    pub not_for: Arc<BTreeMap<NodesetName, String>>,
    /// What is there of everybody, where others use it too and the provider knows.
    pub load: Option<Load>,
}

/// What of a host is taken beside our VMs, and what of it is really used: people read it, nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Cores really used, in percent of a core, if that is measured.
    pub cpu_percent: Option<u32>,
    /// Memory really used, in MiB, if that is measured.
    pub memory_mb: Option<u64>,
    /// How many VMs of others are there.
    pub others: usize,
    /// Core shares promised to those, in percent of a core.
    pub others_cpu_percent: u32,
    /// Memory promised to those, in MiB.
    pub others_memory_mb: u64,
}

/// A VM as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmView {
    pub id: VmId,
    /// Our tag, if it carries one that we can read.
    pub tag: Option<VmTag>,
    /// Where it is, if placed.
    pub host: Option<HostName>,
    /// Memory that it takes from its host, in MiB, overhead included.
    pub memory_mb: u64,
    /// The core share that it takes from its host, in percent of a core.
    pub cpu_percent: u32,
    /// What it is doing.
    pub state: VmState,
}

impl VmView {
    /// Whether its tag has this number.
    #[must_use]
    pub fn is(&self, generation: Generation) -> bool {
        self.tag.as_ref().is_some_and(|tag| tag.generation == generation)
    }
}

/// What a VM is doing, in the words that all providers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmState {
    /// Made and held back: it has never run, and does not start until its creation is asked for again.
    Held,
    /// Known to the provider, not started yet.
    Pending,
    /// Started; its slurmd is not yet said to run.
    Booting,
    /// Its guest says that slurmd runs.
    Ready,
    /// Held still, its memory where it was. The text says why, as far as is known.
    Paused(String),
    /// Its memory is being written to a disk.
    Saving,
    /// Its memory is on a disk: a job in it could go on.
    Saved,
    /// Its memory is being read back.
    Restoring,
    /// On its way to another host.
    Moving,
    /// On its way out.
    Stopping,
    /// Ended or failed, surely: it runs no job. The text says why.
    Dead(String),
    /// A state that we do not know. Harms nothing, is left alone.
    Unknown(String),
}

impl VmState {
    /// Whether a job may be in it, as far as this says.
    #[must_use]
    pub fn may_run(&self) -> bool {
        match self {
            Self::Pending
            | Self::Booting
            | Self::Ready
            | Self::Paused(_)
            | Self::Saving
            | Self::Saved
            | Self::Restoring
            | Self::Moving
            | Self::Unknown(_) => true,
            Self::Held | Self::Stopping | Self::Dead(_) => false,
        }
    }

    /// Whether somebody keeps it from going on, so that it cannot answer.
    #[must_use]
    pub fn is_kept_still(&self) -> bool {
        match self {
            Self::Paused(_) | Self::Saving | Self::Saved | Self::Restoring | Self::Moving => true,
            Self::Held
            | Self::Pending
            | Self::Booting
            | Self::Ready
            | Self::Stopping
            | Self::Dead(_)
            | Self::Unknown(_) => false,
        }
    }
}
