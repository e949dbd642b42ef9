//! What oned showed, in the words that all providers share. Pure.

use crate::model::{Host, VmRow};
use crate::pci::PciDevice;
use crate::places::Reach;
use crate::settings::{Placement, ReadyBy, VmSource};
use crate::state::{HostState, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use thiao_core::ids::{HostName, NodesetName, VmId, VmTag};
use thiao_core::view::{HostView, Load, ProviderView, VmState, VmView};

/// The host that stands for OpenNebula's own scheduler.
pub const PSEUDO_HOST: &str = "opennebula";

/// What decides how oned's answers are to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub placement: Placement,
    pub ready: ReadyBy,
    /// The only hosts that count; empty: all.
    pub hosts: &'a [HostName],
    /// The only OpenNebula cluster whose hosts count.
    pub host_cluster: Option<&'a str>,
    /// What makes VMs, of which some say what a GPU is.
    pub sources: &'a BTreeMap<NodesetName, VmSource>,
    /// Which nodesets do not reach which clusters.
    pub reach: &'a Reach,
}

/// A VM of ours as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    pub row: VmRow,
    pub tag: VmTag,
    /// Its guest has said READY=YES.
    pub ready: bool,
    /// The host that it leaves and is counted on as well; none of one whose move began before it was seen.
    pub leaves: Option<u32>,
    /// Whom somebody has given it to (`onevm chown`): it is not ours as long as that holds.
    pub given: Option<Given>,
    /// oned's ERROR that was there while the VM was well: oned keeps it, and it is no cause of what came later.
    pub old_error: Option<String>,
}

/// Whose a VM of ours is that somebody gave away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// Of this user, whose VMs we may see.
    To(String),
    /// Of somebody whose VMs we may not see; when oned said so.
    Unseen(Instant),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(user) => write!(f, "OpenNebula's user {user}"),
            Self::Unseen(_) => f.write_str("another user of OpenNebula"),
        }
    }
}

impl Given {
    /// What is told of such a VM.
    pub fn told(&self) -> String {
        let whose = match self {
            Self::To(_) => format!("{self} now"),
            Self::Unseen(_) => format!("{self} now, whose VMs Thiao may not see"),
        };
        format!("belongs to {whose} (onevm chown): it is not Thiao's any more, and is left alone")
    }
}

impl Ours {
    /// What oned says of what is wrong with it now.
    pub fn error(&self) -> Option<&str> {
        let error = self.row.error.as_ref();
        error
            .filter(|_| self.row.error != self.old_error)
            .map(String::as_str)
    }
}

/// A VM's id in the words of all providers.
pub(super) fn vm_id(id: u32) -> Option<VmId> {
    VmId::new(&id.to_string()).ok()
}

/// Everything in one view. `ours` are the VMs with our cluster's tag.
pub(super) fn view(rules: Rules<'_>, ours: &BTreeMap<u32, Ours>, hosts: &[Host]) -> ProviderView {
    let vms = ours.values().filter_map(|vm| vm_view(rules.ready, vm));
    ProviderView {
        hosts: host_views(rules, ours, hosts),
        vms: vms.collect(),
    }
}

fn vm_view(by: ReadyBy, vm: &Ours) -> Option<VmView> {
    let host = vm.row.host.as_ref();
    // One that is over, or could be deployed anywhere, takes nothing from the host where it was.
    let waits = matches!(vm.row.state.kind(), Kind::Held | Kind::Pending);
    // One that waits and has a host has been there, and may be placed anew anywhere (STOPPED and resumed).
    let over = vm.row.state.has_left() || (waits && host.is_some());
    Some(VmView {
        id: vm_id(vm.row.id)?,
        tag: Some(vm.tag.clone()),
        host: host.and_then(|(name, _)| HostName::new(name).ok()),
        memory_mb: if over { 0 } else { vm.row.memory_mb },
        cpu_percent: if over { 0 } else { vm.row.cpu_percent },
        state: state(by, vm),
    })
}

/// What of a VM's size is beyond every machine, where that matters: not of one that is over or failed.
fn odd_size(vm: &Ours) -> Option<VmState> {
    let beyond = vm.row.beyond?;
    match vm.row.state.kind() {
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
        | Kind::Unknown(_) => Some(VmState::Unknown(format!(
            "cannot be: OpenNebula reports {beyond}"
        ))),
        Kind::Off | Kind::Ending | Kind::Failed | Kind::Done => None,
    }
}

/// What a VM's state means to the controller.
fn state(by: ReadyBy, vm: &Ours) -> VmState {
    if let Some(odd) = odd_size(vm) {
        return odd;
    }
    let state = vm.row.state;
    if let (Some(given), false) = (&vm.given, state.kind() == Kind::Done) {
        return VmState::Unknown(given.told());
    }
    let with_error = |what: String| match vm.error() {
        Some(error) => format!("{what}: {error}"),
        None => what,
    };
    match state.kind() {
        Kind::Held => VmState::Held,
        Kind::Pending => VmState::Pending,
        // Its images are being copied, or its driver starts it.
        Kind::Starting => VmState::Pending,
        Kind::Running => match by {
            ReadyBy::OneGate if vm.ready => VmState::Ready,
            // Without OneGate it is Slurm that sees its slurmd.
            ReadyBy::OneGate | ReadyBy::Slurm => VmState::Booting,
        },
        Kind::Moving => VmState::Moving,
        Kind::Saving => VmState::Saving,
        Kind::Saved => VmState::Saved,
        Kind::Restoring => VmState::Restoring,
        Kind::Off => VmState::Dead(with_error(format!("powered off in OpenNebula ({state})"))),
        Kind::Ending => VmState::Stopping,
        Kind::Failed => VmState::Dead(with_error(format!("failed in OpenNebula ({state})"))),
        Kind::FailedUnsure => VmState::Unknown(with_error(format!("is in {state}, and may still run"))),
        Kind::Lost => VmState::Unknown(with_error(format!(
            "is {state} in OpenNebula: its host does not say whether it runs"
        ))),
        Kind::Done => VmState::Dead("terminated in OpenNebula".to_owned()),
        Kind::Unknown(_) => VmState::Unknown(format!("is in {state}, which Thiao does not know")),
    }
}

/// The hosts, with what is left beside the VMs that are not in our view.
///
/// The VMs must have been listed before the hosts: one of ours that is placed between
/// the two is then counted twice for a moment. The other way round it would not be
/// counted at all, and its place be given away again.
fn host_views(rules: Rules<'_>, ours: &BTreeMap<u32, Ours>, hosts: &[Host]) -> Vec<HostView> {
    let mut promised: BTreeMap<u32, (usize, u64, u64)> = BTreeMap::new();
    for vm in ours.values().filter(|vm| vm.row.state.holds_capacity()) {
        let host = vm.row.host.as_ref().map(|(_, host)| *host);
        for host in host.into_iter().chain(vm.leaves) {
            let (vms, cpu, memory) = promised.entry(host).or_default();
            *vms += 1;
            *cpu += u64::from(vm.row.cpu_percent);
            *memory += vm.row.memory_mb;
        }
    }
    let by_us = rules.placement == Placement::Thiao;
    let named: BTreeSet<&str> = rules.hosts.iter().map(HostName::as_str).collect();
    let wanted = |host: &&Host| {
        (named.is_empty() || named.contains(host.name.as_str()))
            && rules.host_cluster.is_none_or(|cluster| cluster == host.cluster)
    };
    let left = |host: &Host| {
        let name = HostName::new(&host.name).ok()?;
        let (vms, cpu, memory) = promised.get(&host.id).copied().unwrap_or_default();
        let others_cpu = u64::from(host.promised_cpu_percent).saturating_sub(cpu);
        let others_memory = host.promised_memory_mb.saturating_sub(memory);
        let cpu_left = u64::from(host.max_cpu_percent).saturating_sub(others_cpu);
        Some(HostView {
            name,
            cpu_percent: u32::try_from(cpu_left).unwrap_or(u32::MAX),
            memory_mb: host.max_memory_mb.saturating_sub(others_memory),
            gpus: gpus(rules.sources, ours, host),
            usable: by_us && host.takes_vms(),
            closed: closed(host),
            not_for: not_for(rules, host),
            load: Some(Load {
                cpu_percent: host.load.map(|(cpu, _)| cpu),
                memory_mb: host.load.map(|(_, memory)| memory),
                others: (host.vms as usize).saturating_sub(vms),
                others_cpu_percent: u32::try_from(others_cpu).unwrap_or(u32::MAX),
                others_memory_mb: others_memory,
            }),
        })
    };
    let mut views: Vec<HostView> = hosts.iter().filter(wanted).filter_map(left).collect();
    if !by_us && let Ok(name) = HostName::new(PSEUDO_HOST) {
        views.push(HostView {
            name,
            cpu_percent: u32::MAX,
            // More than there is, and far from where sums overflow.
            memory_mb: u64::from(u32::MAX) * 1024,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        });
    }
    views
}

/// Why a host takes no new VMs. Not in OpenNebula's own words on it: they have the time of each try.
fn closed(host: &Host) -> Option<String> {
    let (name, state) = (&host.name, host.state);
    Some(match state {
        HostState::Monitored => format!("OpenNebula reports {} there", host.beyond?),
        HostState::Init => "OpenNebula has not monitored it yet (INIT)".to_owned(),
        HostState::Error => {
            format!(
                "OpenNebula cannot monitor it (ERROR), and does not know what runs there: `onehost show {name}`"
            )
        }
        HostState::Disabled | HostState::Offline => {
            format!("somebody has set it {state} in OpenNebula, until `onehost enable {name}`")
        }
        HostState::Unknown(_) => format!("it is in {state}, which Thiao does not know"),
    })
}

/// Nodesets whose VMs cannot run there: for all hosts of its cluster, and for this one, which has no card left.
fn not_for(rules: Rules<'_>, host: &Host) -> Arc<BTreeMap<NodesetName, String>> {
    let mut not_for = rules.reach.get(&host.cluster_id).cloned().unwrap_or_default();
    for (nodeset, source) in rules.sources {
        let lacks = source.function().is_some_and(|function| lacks(host, function));
        if lacks && !not_for.contains_key(nodeset) {
            let why = "no function of an InfiniBand card is free there, as the nodeset's infiniband asks for"
                .to_owned();
            Arc::make_mut(&mut not_for).insert(nodeset.clone(), why);
        }
    }
    not_for
}

/// Whether a host surely has no such device left.
fn lacks(host: &Host, asked: &[(String, String)]) -> bool {
    let free = |device: &PciDevice| Some(device.is_one_of(asked)? && device.vm.is_none());
    let Some(devices) = &host.pci else { return false };
    let told: Option<Vec<bool>> = devices.iter().map(free).collect();
    told.is_some_and(|told| !told.contains(&true))
}

/// How many GPUs of a host our VMs may have: those that are free, and those that they have. None: no nodeset has
/// any, or what one is cannot be told from the listing.
fn gpus(sources: &BTreeMap<NodesetName, VmSource>, ours: &BTreeMap<u32, Ours>, host: &Host) -> Option<u32> {
    let mut kinds = sources
        .values()
        .filter_map(|source| source.gpu_pci.as_deref())
        .peekable();
    kinds.peek()?;
    let kinds: Vec<_> = kinds.collect();
    let mut count = 0;
    for device in host.pci.as_ref()? {
        let mut is_gpu = false;
        for kind in &kinds {
            is_gpu |= device.is_one_of(kind)?;
        }
        count += u32::from(is_gpu && device.vm.is_none_or(|vm| ours.contains_key(&vm)));
    }
    Some(count)
}

#[cfg(test)]
mod tests;
