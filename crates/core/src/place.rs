//! Placement: which host carries the next VM.
//!
//! A host never carries more memory than it has, nor more core shares than the
//! policy's overcommit allows. Among the hosts with capacity the one left with the
//! most free memory, relatively, is taken: boots spread and no host fills first.

use crate::ids::HostName;
use crate::resources::Resources;
use crate::view::{HostView, ProviderView};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// What each host has left, while a plan is being made.
#[derive(Debug, Clone)]
pub struct Ledger {
    hosts: BTreeMap<HostName, Capacity>,
}

#[derive(Debug, Clone, Default)]
struct Capacity {
    usable: bool,
    most: Resources,
    used: Resources,
}

/// Why no host can carry a VM now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCapacity {
    /// What is needed, overhead included.
    pub need: Resources,
    /// Hosts that may take VMs at all.
    pub usable_hosts: usize,
    /// The most of each that one of them has free.
    pub most_free: Resources,
    /// Whether some usable host is big enough when empty.
    pub fits_empty: bool,
}

impl fmt::Display for NoCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.usable_hosts == 0 {
            return f.write_str("no host takes VMs now");
        }
        let Self {
            need,
            usable_hosts,
            most_free,
            fits_empty,
        } = self;
        write!(
            f,
            "none of {usable_hosts} hosts has capacity for {need} (the most that is free: {most_free})"
        )?;
        if !fits_empty {
            f.write_str("; it would not fit on an empty host either")?;
        }
        Ok(())
    }
}

impl Ledger {
    /// What the hosts of `view` have left beside the VMs that it shows on them,
    /// and those of `world` that it does not show, or not yet on a host: until
    /// a VM is surely gone, it has its capacity.
    #[must_use]
    pub fn new(world: &World, view: &ProviderView) -> Self {
        let policy = &world.policy;
        let capacity = |host: &HostView| Capacity {
            usable: host.usable,
            most: Resources::of_host(host, policy),
            used: Resources::default(),
        };
        let hosts = view.hosts.iter().map(|host| (host.name.clone(), capacity(host)));
        let mut ledger = Self {
            hosts: hosts.collect(),
        };
        let mut counted = HashSet::with_capacity(view.vms.len());
        for vm in &view.vms {
            let Some(host) = vm.host.as_ref().filter(|host| ledger.hosts.contains_key(*host)) else {
                continue;
            };
            ledger.take(host, &Resources::of_shown(vm));
            let ours = vm.tag.as_ref().filter(|tag| tag.cluster == world.cluster);
            counted.extend(ours.map(|tag| (&tag.node, tag.generation)));
        }
        for (node, record) in &world.records {
            let Some(vm) = &record.vm else { continue };
            let of_node = world.specs.get(node).map(|spec| &spec.shape);
            let Some(takes) = Resources::of_record(vm, of_node, policy) else {
                continue;
            };
            // Where it comes from it still is.
            if let Some(host) = vm.life.leaves() {
                ledger.take(host, &takes);
            }
            let shown = counted.contains(&(node, vm.generation));
            if let Some(host) = &vm.host {
                ledger.take(host, &if shown { takes.unlisted() } else { takes });
            }
        }
        ledger
    }

    /// The host for a VM that needs as much, none of `avoid`.
    ///
    /// # Errors
    /// When no host has capacity for it.
    pub fn choose(&self, need: &Resources, avoid: &BTreeSet<HostName>) -> Result<HostName, NoCapacity> {
        self.hosts
            .iter()
            .filter(|(name, capacity)| !avoid.contains(*name) && capacity.fits(need))
            .max_by(|(an, a), (bn, b)| {
                // Free fractions compared crosswise: no floats, no rounding. The first name wins a tie.
                let free = |capacity: &Capacity| {
                    u128::from(capacity.most.without(capacity.used.and(*need)).memory_mb)
                };
                let size = |capacity: &Capacity| u128::from(capacity.most.memory_mb.max(1));
                (free(a) * size(b))
                    .cmp(&(free(b) * size(a)))
                    .then_with(|| b.used.vms.cmp(&a.used.vms))
                    .then_with(|| bn.cmp(an))
            })
            .map(|(name, _)| name.clone())
            .ok_or_else(|| self.no_capacity(need, avoid))
    }

    fn no_capacity(&self, need: &Resources, avoid: &BTreeSet<HostName>) -> NoCapacity {
        let usable: Vec<&Capacity> = self
            .hosts
            .iter()
            .filter(|(name, capacity)| capacity.usable && !avoid.contains(*name))
            .map(|(_, capacity)| capacity)
            .collect();
        let free = usable.iter().map(|capacity| capacity.most.without(capacity.used));
        let free = free.fold(Resources::default(), Resources::or);
        let unlimited = usable.iter().any(|capacity| capacity.most.gpus == u64::MAX);
        NoCapacity {
            need: *need,
            usable_hosts: usable.len(),
            most_free: Resources {
                // Where the provider counts none, none are told.
                gpus: if unlimited { 0 } else { free.gpus },
                ..free
            },
            fits_empty: usable.iter().any(|capacity| need.over(&capacity.most).is_none()),
        }
    }

    /// Whether `host` has capacity for a VM that needs as much.
    #[must_use]
    pub fn fits(&self, host: &HostName, need: &Resources) -> bool {
        self.hosts.get(host).is_some_and(|capacity| capacity.fits(need))
    }

    /// Whether `host` carries more than it has: VMs were found that nobody placed there.
    #[must_use]
    pub fn is_overfull(&self, host: &HostName) -> bool {
        let capacity = self.hosts.get(host);
        capacity.is_some_and(|capacity| capacity.used.over(&capacity.most).is_some())
    }

    /// Notes that `host` carries a VM more, which takes as much.
    pub fn take(&mut self, host: &HostName, takes: &Resources) {
        if let Some(capacity) = self.hosts.get_mut(host) {
            capacity.used = capacity.used.and(*takes);
        }
    }
}

impl Capacity {
    fn fits(&self, need: &Resources) -> bool {
        self.usable && self.used.and(*need).over(&self.most).is_none()
    }
}
