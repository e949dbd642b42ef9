//! Placement: which host carries the next VM.
//!
//! A host never carries more memory than it has, nor more core shares than the
//! policy's overcommit allows. Among the hosts with room the one left with the
//! most free memory, relatively, is taken: boots spread and no host fills first.

use crate::ids::HostName;
use crate::policy::Policy;
use crate::view::{ProviderView, Shape};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// What each host has left, while a plan is being made.
#[derive(Debug, Clone)]
pub struct Ledger {
    hosts: BTreeMap<HostName, Room>,
    overhead_mb: u64,
}

#[derive(Debug, Clone, Default)]
struct Room {
    usable: bool,
    memory_mb: u64,
    memory_used: u64,
    cpu_limit: u64,
    cpu_used: u64,
    vms: usize,
    vms_limit: usize,
}

/// Why no host can carry a VM now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    /// Memory needed, overhead included, MiB.
    pub need_mb: u64,
    /// Core share needed, percent of a core.
    pub need_cpu_percent: u64,
    /// Hosts that may take VMs at all.
    pub usable_hosts: usize,
    /// The most memory that one of them has free, MiB.
    pub most_free_mb: u64,
    /// Whether some usable host is big enough when empty.
    pub fits_empty: bool,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.usable_hosts == 0 {
            return f.write_str("no host takes VMs now");
        }
        let Self {
            need_mb,
            need_cpu_percent,
            usable_hosts,
            most_free_mb,
            fits_empty,
        } = self;
        write!(
            f,
            "none of {usable_hosts} hosts has room for {need_mb} MiB and {need_cpu_percent} % of a core (most free memory: {most_free_mb} MiB)"
        )?;
        if !fits_empty {
            f.write_str("; it would not fit on an empty host either")?;
        }
        Ok(())
    }
}

impl Shape {
    /// Core share that a VM of this shape takes, in percent of a core.
    #[must_use]
    pub fn cpu_percent(&self) -> u32 {
        self.cpus.saturating_mul(self.share_percent)
    }
}

impl Ledger {
    /// What the hosts of `view` have left beside the VMs that it shows on them,
    /// and those of `world` that it does not show, or not yet on a host: until
    /// a VM is surely gone, it has its room.
    #[must_use]
    pub fn new(world: &World, view: &ProviderView) -> Self {
        let mut ledger = Self::empty_hosts(&world.policy, view);
        let mut counted = HashSet::with_capacity(view.vms.len());
        for vm in &view.vms {
            if let Some(room) = vm.host.as_ref().and_then(|host| ledger.hosts.get_mut(host)) {
                room.memory_used += vm.memory_mb;
                room.cpu_used += u64::from(vm.cpu_percent);
                room.vms += 1;
                let ours = vm.tag.as_ref().filter(|tag| tag.cluster == world.cluster);
                counted.extend(ours.map(|tag| (&tag.node, tag.generation)));
            }
        }
        for (node, record) in &world.records {
            let Some(vm) = &record.vm else { continue };
            let seen = counted.contains(&(node, vm.generation));
            let own = vm.spec.as_ref().map(|spec| &spec.shape);
            let shape = own.or_else(|| world.specs.get(node).map(|spec| &spec.shape));
            if let (false, Some(host), Some(shape)) = (seen, &vm.host, shape) {
                ledger.take(host, shape);
            }
        }
        ledger
    }

    fn empty_hosts(policy: &Policy, view: &ProviderView) -> Self {
        let hosts = view
            .hosts
            .iter()
            .map(|host| {
                let room = Room {
                    usable: host.usable,
                    memory_mb: host.memory_mb,
                    cpu_limit: u64::from(host.cpu_percent) * u64::from(policy.cpu_overcommit_percent) / 100,
                    vms_limit: policy.max_vms_per_host,
                    ..Room::default()
                };
                (host.name.clone(), room)
            })
            .collect();
        Self {
            hosts,
            overhead_mb: policy.overhead_mb,
        }
    }

    /// The host for a VM of `shape`, none of `avoid`.
    pub fn choose(&self, shape: &Shape, avoid: &BTreeSet<HostName>) -> Result<HostName, NoRoom> {
        let need = shape.total_mb(self.overhead_mb);
        let cpu = u64::from(shape.cpu_percent());
        self.hosts
            .iter()
            .filter(|(name, room)| !avoid.contains(*name) && room.fits(need, cpu))
            .max_by(|(an, a), (bn, b)| {
                // Free fractions compared crosswise: no floats, no rounding. The first name wins a tie.
                let left = u128::from(a.memory_mb - a.memory_used - need) * u128::from(b.memory_mb.max(1));
                let right = u128::from(b.memory_mb - b.memory_used - need) * u128::from(a.memory_mb.max(1));
                left.cmp(&right)
                    .then_with(|| b.vms.cmp(&a.vms))
                    .then_with(|| bn.cmp(an))
            })
            .map(|(name, _)| name.clone())
            .ok_or_else(|| self.no_room(need, cpu, avoid))
    }

    fn no_room(&self, need_mb: u64, need_cpu_percent: u64, avoid: &BTreeSet<HostName>) -> NoRoom {
        let usable: Vec<&Room> = self
            .hosts
            .iter()
            .filter(|(name, room)| room.usable && !avoid.contains(*name))
            .map(|(_, r)| r)
            .collect();
        NoRoom {
            need_mb,
            need_cpu_percent,
            usable_hosts: usable.len(),
            most_free_mb: usable
                .iter()
                .map(|r| r.memory_mb.saturating_sub(r.memory_used))
                .max()
                .unwrap_or(0),
            fits_empty: usable
                .iter()
                .any(|r| r.memory_mb >= need_mb && r.cpu_limit >= need_cpu_percent),
        }
    }

    /// Whether `host` has room for `shape` now.
    #[must_use]
    pub fn fits(&self, host: &HostName, shape: &Shape) -> bool {
        self.hosts
            .get(host)
            .is_some_and(|room| room.fits(shape.total_mb(self.overhead_mb), u64::from(shape.cpu_percent())))
    }

    /// Notes that `host` carries a VM of `shape` more.
    pub fn take(&mut self, host: &HostName, shape: &Shape) {
        if let Some(room) = self.hosts.get_mut(host) {
            room.memory_used += shape.total_mb(self.overhead_mb);
            room.cpu_used += u64::from(shape.cpu_percent());
            room.vms += 1;
        }
    }
}

impl Room {
    fn fits(&self, need_mb: u64, cpu_percent: u64) -> bool {
        self.usable
            && self.memory_used + need_mb <= self.memory_mb
            && self.cpu_used + cpu_percent <= self.cpu_limit
            && self.vms < self.vms_limit
    }
}
