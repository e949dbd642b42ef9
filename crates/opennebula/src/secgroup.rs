//! Security groups: OpenNebula's way to say whom a VM reaches.
//!
//! In job mode the VMs of one job have a group of their own, which lets them reach each other; those of
//! power-saving mode share one. Which group is ours its tags say, and its owner; never its name alone.

pub mod ranges;
pub mod rules;

use crate::syntax::{Template, Value};
use crate::template::{JOB, TAG_CLUSTER};
use ranges::Range;
use rules::Rule;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use thiao_core::ids::{ClusterName, JobId};
use thiao_core::view::VmSpec;

/// The group that oned gives each network when it is made. Unless somebody changed it, it lets everything pass.
pub const DEFAULT: u32 = 0;

/// The drivers of networks that go by security groups: those of 7.4.0 that call `VNMDriver.filter_driver`. `bridge`
/// does not: `fw` is the same with groups.
const APPLIES: [&str; 5] = ["fw", "802.1Q", "vxlan", "elastic", "nodeport"];

/// Whether hosts keep VMs of such a network to their groups, by its `VN_MAD`.
#[must_use]
pub fn applied_by(driver: &str) -> bool {
    APPLIES.contains(&driver)
}

/// Whose VMs a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// Those of power-saving mode, all together.
    Everybody,
    /// Those of a job, or of a heterogeneous job by its leader.
    Job(JobId),
}

impl Whose {
    /// By what the VM is for.
    #[must_use]
    pub fn of(spec: &VmSpec) -> Self {
        let leader = spec.owner.map(|owner| owner.leader);
        leader.or(spec.job).map_or(Self::Everybody, Self::Job)
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("the VMs of power-saving mode"),
            Self::Job(job) => write!(f, "job {job}"),
        }
    }
}

/// What a group is called. One user has no two of a name.
#[must_use]
pub fn name(cluster: &ClusterName, whose: Whose) -> String {
    match whose {
        Whose::Everybody => format!("thiao-{cluster}"),
        Whose::Job(job) => format!("thiao-{cluster}-job-{job}"),
    }
}

/// All of a group, as oned takes it. `named`: also how it is called, for a new one.
#[must_use]
pub fn template(cluster: &ClusterName, whose: Whose, rules: &[Rule], named: bool) -> Template {
    let mut template = Template::default();
    if named {
        template.set("NAME", name(cluster, whose));
    }
    template.set(
        "DESCRIPTION",
        format!("Whom {whose} of Slurm's cluster {cluster} may reach. Thiao writes it"),
    );
    template.set(TAG_CLUSTER, cluster.as_str());
    if let Whose::Job(job) = whose {
        template.set(JOB, job.to_string());
    }
    template.0.extend(rules.iter().map(Rule::to_attribute));
    template
}

/// A group as the pool shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecGroup {
    pub id: u32,
    pub name: String,
    /// The id of who owns it.
    pub owner: u32,
    /// Ids of the VMs that have it.
    pub vms: BTreeSet<u32>,
    /// VMs to which hosts are still to tell new rules, or are being told.
    pub waiting: BTreeSet<u32>,
    /// VMs that have old rules, as those do that were in BOOT.
    pub failed: BTreeSet<u32>,
    pub body: Template,
}

impl SecGroup {
    /// Whose it is, if it is a group of this cluster's.
    #[must_use]
    pub fn whose(&self, cluster: &ClusterName) -> Option<Whose> {
        if self.body.get(TAG_CLUSTER)? != cluster.as_str() {
            return None;
        }
        let whose = match self.body.get(JOB) {
            None => Whose::Everybody,
            Some(job) => Whose::Job(JobId(job.parse().ok()?)),
        };
        Some(whose)
    }

    /// Whether its rules are these.
    #[must_use]
    pub fn has(&self, rules: &[Rule]) -> bool {
        let wanted: BTreeSet<_> = rules.iter().map(|rule| sorted(&rule.to_attribute().1)).collect();
        let there: BTreeSet<_> = self
            .body
            .0
            .iter()
            .filter(|(name, _)| name == "RULE")
            .map(|(_, value)| sorted(value))
            .collect();
        wanted == there
    }
}

/// The attributes of a rule in an order that is always the same.
fn sorted(value: &Value) -> BTreeSet<(String, String)> {
    match value {
        Value::Vector(pairs) => pairs.iter().cloned().collect(),
        Value::Single(_) => BTreeSet::new(),
    }
}

/// A network as far as security groups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wires {
    pub id: u32,
    pub name: String,
    /// `VN_MAD`: what makes it on the hosts.
    pub driver: String,
    /// The groups that each card in it gets, beside its own.
    pub groups: BTreeSet<u32>,
    /// Whether hosts drop what a VM says under another's address: IP, hardware.
    pub filters: (bool, bool),
    /// The IPv4 addresses that it gives to VMs.
    pub ranges: Vec<Range>,
}

/// A VM as far as security groups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    pub id: u32,
    /// Whether it is DONE: nothing of it is to be changed.
    pub over: bool,
    pub cards: Vec<Card>,
    /// The name servers that its guest is told (`ETHn_DNS`).
    pub name_servers: BTreeSet<Ipv4Addr>,
    /// Where its guest finds OneGate, if it is told: an URL.
    pub onegate: Option<String>,
}

/// A network card of a VM's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Card {
    /// `NIC_ID`: which of the VM's it is.
    pub id: u32,
    /// The id of its network, if it is in one.
    pub network: Option<u32>,
    pub address: Option<Ipv4Addr>,
    /// Whether OpenNebula's scheduler is still to choose its network.
    pub unchosen: bool,
    /// The groups that it has.
    pub groups: BTreeSet<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::{Direction, Protocol};

    fn cluster() -> ClusterName {
        ClusterName::new("prod").unwrap()
    }

    fn group(body: Template) -> SecGroup {
        SecGroup {
            id: 105,
            name: "thiao-prod-job-42".to_owned(),
            owner: 5,
            vms: BTreeSet::new(),
            waiting: BTreeSet::new(),
            failed: BTreeSet::new(),
            body,
        }
    }

    fn rule(last: u8) -> Rule {
        Rule {
            direction: Direction::Inbound,
            protocol: Protocol::All,
            peers: Range::one([10, 0, 0, last].into()),
            ports: None,
        }
    }

    #[test]
    fn a_group_is_ours_by_its_tags() {
        let job = Whose::Job(JobId(42));
        assert_eq!(name(&cluster(), job), "thiao-prod-job-42");
        for whose in [job, Whose::Everybody] {
            let made = group(template(&cluster(), whose, &[rule(1)], false));
            assert_eq!(made.whose(&cluster()), Some(whose));
            assert_eq!(made.whose(&ClusterName::new("test").unwrap()), None);
        }
        // Not by its name.
        assert_eq!(group(Template::default()).whose(&cluster()), None);
        let mut odd = template(&cluster(), job, &[], false);
        odd.set(JOB, "none");
        assert_eq!(group(odd).whose(&cluster()), None);
    }

    #[test]
    fn the_same_rules_are_known_in_any_order() {
        let job = Whose::Job(JobId(42));
        let there = group(template(&cluster(), job, &[rule(2), rule(1)], false));
        assert!(there.has(&[rule(1), rule(2)]));
        assert!(!there.has(&[rule(1)]));
        assert!(!there.has(&[rule(1), rule(2), rule(3)]));
    }

    #[test]
    fn only_some_drivers_go_by_groups() {
        for driver in ["fw", "802.1Q", "vxlan"] {
            assert!(applied_by(driver));
        }
        for driver in ["dummy", "bridge", "ovswitch", "ovswitch_vxlan", "", "ebtables"] {
            assert!(!applied_by(driver), "{driver}");
        }
    }
}
