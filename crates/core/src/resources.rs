//! What a VM takes from its host, and what a host has: one vector, added and compared in one way.
//!
//! Sums saturate: what is more than can be counted is more than any host has, and fits nowhere.

use crate::policy::Policy;
use crate::view::{HostView, Shape, VmSpec, VmView};
use crate::vm::VmRecord;
use std::collections::BTreeSet;
use std::fmt;

/// An amount of everything that VMs share on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Core shares, in percent of a core.
    pub cpu_percent: u64,
    /// vCPUs, whatever share of a core each has.
    pub cpus: u64,
    /// Memory in MiB, what the guests themselves take included.
    pub memory_mb: u64,
    pub gpus: u64,
    pub vms: u64,
}

/// Of what there would be too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    Memory,
    /// Core shares: the cap is limits.cpu_overcommit_percent.
    Cpu,
    /// vCPUs, whatever share of a core each has.
    Cpus,
    Gpus,
    /// VMs: the cap is limits.max_vms_per_host.
    Vms,
}

impl Resources {
    /// No cap in any respect.
    pub const UNLIMITED: Self = Self {
        cpu_percent: u64::MAX,
        cpus: u64::MAX,
        memory_mb: u64::MAX,
        gpus: u64::MAX,
        vms: u64::MAX,
    };

    /// What a host may carry by these limits. Of GPUs what the provider knows; vCPUs are not capped: shares are.
    #[must_use]
    pub fn of_host(host: &HostView, policy: &Policy) -> Self {
        let overcommit = u64::from(policy.cpu_overcommit_percent);
        Self {
            cpu_percent: u64::from(host.cpu_percent).saturating_mul(overcommit) / 100,
            memory_mb: host.memory_mb,
            gpus: host.gpus.map_or(u64::MAX, u64::from),
            vms: u64::try_from(policy.max_vms_per_host).unwrap_or(u64::MAX),
            ..Self::UNLIMITED
        }
    }

    /// What a VM of this shape takes.
    #[must_use]
    pub fn of_shape(shape: &Shape, policy: &Policy) -> Self {
        Self {
            cpu_percent: u64::from(shape.cpu_percent()),
            cpus: shape.cpus.into(),
            memory_mb: shape.total_mb(policy.overhead_mb),
            gpus: 0,
            vms: 1,
        }
    }

    /// What such a VM takes.
    #[must_use]
    pub fn of_spec(spec: &VmSpec, policy: &Policy) -> Self {
        Self {
            gpus: spec.gpus.into(),
            ..Self::of_shape(&spec.shape, policy)
        }
    }

    /// What a VM takes as the provider shows it, which says nothing of vCPUs and GPUs.
    #[must_use]
    pub fn of_shown(vm: &VmView) -> Self {
        Self {
            cpu_percent: vm.cpu_percent.into(),
            cpus: 0,
            memory_mb: vm.memory_mb,
            gpus: 0,
            vms: 1,
        }
    }

    /// What the VM of a record takes, or one that was found on a node of this shape; none if neither is known.
    #[must_use]
    pub fn of_record(vm: &VmRecord, of_node: Option<&Shape>, policy: &Policy) -> Option<Self> {
        let spec = vm.spec.as_ref().map(|spec| Self::of_spec(spec, policy));
        spec.or_else(|| Some(Self::of_shape(of_node?, policy)))
    }

    /// Of what a VM takes the part that no listing shows, where one shows the VM.
    #[must_use]
    pub fn unlisted(self) -> Self {
        Self {
            gpus: self.gpus,
            ..Self::default()
        }
    }

    /// The sum of both, in each respect.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        self.each(more, u64::saturating_add)
    }

    /// The larger of both, in each respect.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    /// What is left of it, if `less` is taken.
    #[must_use]
    pub fn without(self, less: Self) -> Self {
        self.each(less, u64::saturating_sub)
    }

    /// So many times as much.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        self.each(self, |amount, _| amount.saturating_mul(count))
    }

    /// The first of what there is more than `most` allows; none: it fits.
    #[must_use]
    pub fn over(&self, most: &Self) -> Option<Over> {
        self.each_over(most).next()
    }

    /// Of what there is more than `most` allows.
    #[must_use]
    pub fn all_over(&self, most: &Self) -> BTreeSet<Over> {
        self.each_over(most).collect()
    }

    fn each_over(&self, most: &Self) -> impl Iterator<Item = Over> {
        let Self {
            cpu_percent,
            cpus,
            memory_mb,
            gpus,
            vms,
        } = self;
        [
            (*memory_mb > most.memory_mb, Over::Memory),
            (*cpu_percent > most.cpu_percent, Over::Cpu),
            (*cpus > most.cpus, Over::Cpus),
            (*gpus > most.gpus, Over::Gpus),
            (*vms > most.vms, Over::Vms),
        ]
        .into_iter()
        .filter_map(|(is_over, what)| is_over.then_some(what))
    }

    fn each(self, other: Self, what: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_percent: what(self.cpu_percent, other.cpu_percent),
            cpus: what(self.cpus, other.cpus),
            memory_mb: what(self.memory_mb, other.memory_mb),
            gpus: what(self.gpus, other.gpus),
            vms: what(self.vms, other.vms),
        }
    }
}

impl Over {
    /// What there is too little of, or too much, for people.
    #[must_use]
    pub fn lacking(self) -> &'static str {
        match self {
            Over::Memory => "too little memory",
            Over::Cpu | Over::Cpus => "too little CPU",
            Over::Gpus => "too few GPUs",
            Over::Vms => "too many VMs (limits.max_vms_per_host)",
        }
    }

    /// How much there would be, of how much.
    #[must_use]
    pub fn text(self, load: &Resources, most: &Resources) -> String {
        match self {
            Over::Memory => format!("{} of {} MiB", load.memory_mb, most.memory_mb),
            Over::Cpu => format!(
                "{} of {} % of a core (limits.cpu_overcommit_percent)",
                load.cpu_percent, most.cpu_percent
            ),
            Over::Cpus => format!("{} of {} CPUs", load.cpus, most.cpus),
            Over::Gpus => format!("{} of {} GPUs", load.gpus, most.gpus),
            Over::Vms => format!("more than {} VMs (limits.max_vms_per_host)", most.vms),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB and {} % of a core", self.memory_mb, self.cpu_percent)?;
        match self.gpus {
            0 => Ok(()),
            gpus => write!(f, " and {gpus} GPUs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount() -> impl Strategy<Value = Resources> {
        let number = || prop_oneof![0..100_u64, any::<u64>()];
        (number(), number(), number(), number(), number()).prop_map(
            |(cpu_percent, cpus, memory_mb, gpus, vms)| Resources {
                cpu_percent,
                cpus,
                memory_mb,
                gpus,
                vms,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_added_never_makes_it_fit(one in amount(), more in amount(), most in amount()) {
            let both = one.and(more);
            prop_assert!(one.over(&most).is_none() || both.over(&most).is_some());
            prop_assert!(one.over(&both).is_none());
            prop_assert_eq!(both.over(&Resources::UNLIMITED), None);
        }

        #[test]
        fn what_is_left_is_what_still_fits(most in amount(), used in amount(), need in amount()) {
            let both = used.and(need);
            let left = used.over(&most).is_none() && need.over(&most.without(used)).is_none();
            // What cannot be counted fits only where nothing is capped.
            let sums = [both.cpu_percent, both.cpus, both.memory_mb, both.gpus, both.vms];
            prop_assume!(!sums.contains(&u64::MAX));
            prop_assert_eq!(both.over(&most).is_none(), left);
        }
    }

    #[test]
    fn so_many_are_as_much_as_one_after_the_other() {
        let one = Resources {
            cpu_percent: 150,
            cpus: 3,
            memory_mb: 700,
            gpus: 1,
            vms: 1,
        };
        assert_eq!(one.times(3), one.and(one).and(one));
        assert_eq!(one.times(0), Resources::default());
    }
}
