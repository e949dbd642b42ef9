//! The rules of a security group: a pure function of who is to reach whom.
//!
//! Read of OpenNebula 7.4.0, `src/vnm_mad/remotes/lib/security_groups_iptables.rb`: what no rule opens is dropped,
//! in both directions, and answers pass (conntrack). A rule that names addresses *and* ports fills a set of the
//! kernel's with each network times each port, of which it holds 65,536 (`ipset_maxelem`): one that holds more
//! keeps a VM from starting, so what would not fit is opened at all ports.

use super::ranges::{Range, merged, without};
use crate::settings::Allowed;
use crate::syntax::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What the kernel's set of networks and ports may take, with something to spare.
const SET: u64 = 60_000;

/// What a rule lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Whatever is spoken over IP.
    All,
    Tcp,
    Udp,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Self::All => "ALL",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Seen from the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// One rule: it opens, and closes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub direction: Direction,
    pub protocol: Protocol,
    /// Who is at the other end.
    pub peers: Range,
    /// Where what passes goes to; none: to any port.
    pub ports: Option<(u16, u16)>,
}

impl Rule {
    /// As an attribute of the group.
    #[must_use]
    pub fn to_attribute(&self) -> (String, Value) {
        let direction = match self.direction {
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
        };
        let mut pairs = vec![
            ("PROTOCOL", self.protocol.word().to_owned()),
            ("RULE_TYPE", direction.to_owned()),
            ("IP", self.peers.first().to_string()),
            ("SIZE", self.peers.size().to_string()),
        ];
        if let Some((first, last)) = self.ports {
            let range = match first == last {
                true => first.to_string(),
                false => format!("{first}:{last}"),
            };
            pairs.push(("RANGE", range));
        }
        let pairs = pairs.into_iter().map(|(name, text)| (name.to_owned(), text));
        ("RULE".to_owned(), Value::Vector(pairs.collect()))
    }
}

/// Something at an address that VMs talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    pub protocol: Protocol,
    pub address: Ipv4Addr,
    /// Where it listens; none: at whatever port.
    pub ports: Option<(u16, u16)>,
}

/// Who is to reach whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Machines that reach the VMs at every port: those of slurmctlds, where `srun` is called, too.
    pub heads: BTreeSet<Ipv4Addr>,
    /// What VMs reach: slurmctlds, file servers, directories, name servers. The first ones are the most important.
    pub services: Vec<Service>,
    /// What an administrator opens. Single addresses reach the VMs, too; of a network the same holds, but
    /// for what is in `virtual_networks`.
    pub allow: Vec<Allowed>,
    /// All addresses that OpenNebula gives to VMs, whoever's.
    pub virtual_networks: Vec<Range>,
    /// The VMs that reach each other.
    pub members: Vec<Range>,
}

/// The rules by which it is so: sorted, none twice.
#[must_use]
pub fn rules(facts: &Facts) -> Vec<Rule> {
    let mut rules = Rules::default();
    for members in merged(facts.members.iter().copied()) {
        rules.both(members);
    }
    for head in &facts.heads {
        rules.open(Direction::Inbound, Protocol::All, Range::one(*head), None);
    }
    for service in &facts.services {
        let peers = Range::one(service.address);
        rules.open(Direction::Outbound, service.protocol, peers, service.ports);
    }
    for allow in &facts.allow {
        let network = Range::of_network(allow.address, allow.prefix_len);
        // Who opens a network means what is there beside VMs.
        let peers = match allow.prefix_len {
            32.. => vec![network],
            _ => without(network, &facts.virtual_networks),
        };
        for peers in peers.into_iter().flat_map(Range::sayable) {
            rules.open(Direction::Inbound, Protocol::All, peers, None);
            match allow.ports {
                None => rules.open(Direction::Outbound, Protocol::All, peers, None),
                Some(ports) => {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        rules.open(Direction::Outbound, protocol, peers, Some(ports));
                    }
                }
            }
        }
    }
    rules.all.into_iter().collect()
}

/// Rules as they come together.
#[derive(Default)]
struct Rules {
    all: BTreeSet<Rule>,
    /// How much of the kernel's set they take.
    taken: u64,
}

impl Rules {
    fn both(&mut self, peers: Range) {
        for peers in peers.sayable() {
            self.open(Direction::Outbound, Protocol::All, peers, None);
            self.open(Direction::Inbound, Protocol::All, peers, None);
        }
    }

    fn open(&mut self, direction: Direction, protocol: Protocol, peers: Range, ports: Option<(u16, u16)>) {
        let needed = ports.map_or(0, |(first, last)| {
            peers.blocks() * (u64::from(last.saturating_sub(first)) + 1)
        });
        let fits = self.taken + needed <= SET;
        let rule = Rule {
            direction,
            protocol,
            peers,
            ports: ports.filter(|_| fits),
        };
        if self.all.insert(rule) && fits {
            self.taken += needed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const VM: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 5);
    const MATE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 6);
    const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 7);

    fn allow(address: [u8; 4], prefix_len: u8, ports: Option<(u16, u16)>) -> Allowed {
        Allowed {
            address: address.into(),
            prefix_len,
            ports,
        }
    }

    fn facts() -> Facts {
        Facts {
            heads: BTreeSet::from([HEAD]),
            services: vec![
                Service {
                    protocol: Protocol::Tcp,
                    address: HEAD,
                    ports: Some((6817, 6817)),
                },
                Service {
                    protocol: Protocol::Tcp,
                    address: HEAD,
                    ports: Some((32_768, 60_999)),
                },
            ],
            allow: Vec::new(),
            virtual_networks: vec![Range::of_network(VM, 24)],
            members: vec![Range::one(VM), Range::one(MATE)],
        }
    }

    /// Whether what begins in that direction passes, as a host judges it.
    fn passes(rules: &[Rule], direction: Direction, peer: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        rules.iter().any(|rule| {
            rule.direction == direction
                && (rule.protocol == Protocol::All || rule.protocol == protocol)
                && rule.peers.has(peer)
                && rule
                    .ports
                    .is_none_or(|(first, last)| (first..=last).contains(&port))
        })
    }

    /// Whether a VM with these rules reaches one with those.
    fn reach((from, its): (Ipv4Addr, &[Rule]), (to, those): (Ipv4Addr, &[Rule]), port: u16) -> bool {
        passes(its, Direction::Outbound, to, Protocol::Tcp, port)
            && passes(those, Direction::Inbound, from, Protocol::Tcp, port)
    }

    #[test]
    fn a_jobs_vms_reach_each_other_and_slurmctld() {
        let rules = rules(&facts());
        let out = |peer, port| passes(&rules, Direction::Outbound, peer, Protocol::Tcp, port);
        let in_ = |peer, port| passes(&rules, Direction::Inbound, peer, Protocol::Tcp, port);
        assert!(out(MATE, 22) && in_(MATE, 22));
        assert!(out(HEAD, 6817) && out(HEAD, 40_000) && in_(HEAD, 6818));
        // Nothing else of that machine's, and nobody else.
        assert!(!out(HEAD, 22) && !out(HEAD, 3306));
        assert!(!out(STRANGER, 22) && !in_(STRANGER, 22));
        assert!(!out([8, 8, 8, 8].into(), 53));
        // Two neighbours are one rule each way.
        assert_eq!(rules.len(), 5);
    }

    #[test]
    fn a_network_that_is_allowed_opens_no_vm() {
        let mut facts = facts();
        facts.allow = vec![
            allow([0, 0, 0, 0], 0, Some((443, 443))),
            allow([10, 0, 0, 0], 8, None),
        ];
        let rules = rules(&facts);
        let out = |peer, port| passes(&rules, Direction::Outbound, peer, Protocol::Tcp, port);
        assert!(out([8, 8, 8, 8].into(), 443) && !out([8, 8, 8, 8].into(), 80));
        assert!(out([10, 9, 0, 1].into(), 80));
        assert!(!out(STRANGER, 443) && !out(STRANGER, 80));
        assert!(!passes(&rules, Direction::Inbound, STRANGER, Protocol::Tcp, 22));
        // A machine that is named is meant, wherever it is: it may be a VM that serves files.
        facts.allow = vec![Allowed {
            address: STRANGER,
            prefix_len: 32,
            ports: Some((2049, 2049)),
        }];
        let rules = super::rules(&facts);
        assert!(passes(&rules, Direction::Outbound, STRANGER, Protocol::Tcp, 2049));
        assert!(passes(&rules, Direction::Outbound, STRANGER, Protocol::Udp, 2049));
        assert!(!passes(&rules, Direction::Outbound, STRANGER, Protocol::Tcp, 22));
    }

    #[test]
    fn ports_that_the_kernels_set_would_not_hold_are_opened_all() {
        let mut facts = facts();
        facts.allow = vec![
            allow([10, 1, 0, 10], 32, Some((1024, 65_535))),
            allow([10, 1, 0, 11], 32, Some((80, 80))),
        ];
        let rules = rules(&facts);
        let set: u64 = rules
            .iter()
            .filter_map(|rule| {
                let (first, last) = rule.ports?;
                Some(rule.peers.blocks() * (u64::from(last - first) + 1))
            })
            .sum();
        assert!(set <= 65_536, "{set}");
        let out = |peer: [u8; 4], port| passes(&rules, Direction::Outbound, peer.into(), Protocol::Tcp, port);
        assert!(out([10, 1, 0, 10], 22));
        assert!(out([10, 1, 0, 11], 80) && !out([10, 1, 0, 11], 22));
        assert!(!out(HEAD.octets(), 22));
    }

    #[test]
    fn rules_are_attributes_that_oned_takes() {
        let rule = Rule {
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            peers: Range::of_size(VM, 2).unwrap(),
            ports: Some((32_768, 60_999)),
        };
        let (name, value) = rule.to_attribute();
        assert_eq!(name, "RULE");
        let wanted = [
            ("PROTOCOL", "TCP"),
            ("RULE_TYPE", "OUTBOUND"),
            ("IP", "10.2.0.5"),
            ("SIZE", "2"),
            ("RANGE", "32768:60999"),
        ];
        let wanted = wanted.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(value, Value::Vector(wanted.to_vec()));
    }

    fn an_allowed() -> impl Strategy<Value = Allowed> {
        let ports = prop::option::of((1..u16::MAX, 0..2_000_u16));
        // Not a VM by its own address: that one would be meant.
        (any::<u32>(), 0..32_u8, ports).prop_map(|(address, prefix_len, ports)| Allowed {
            address: Ipv4Addr::from_bits(address),
            prefix_len,
            ports: ports.map(|(first, more)| (first, first.saturating_add(more))),
        })
    }

    proptest! {
        /// Whatever networks are open, and whatever rules are old: two jobs' VMs never reach each other.
        #[test]
        fn no_vm_reaches_another_jobs(
            allow in prop::collection::vec(an_allowed(), 0..6),
            ours in prop::collection::btree_set(0..8_u8, 1..5),
            port in any::<u16>(),
        ) {
            let address = |n: u8| Ipv4Addr::new(10, 2, 0, 16 + n);
            let of = |members: Vec<u8>| Facts {
                allow: allow.clone(),
                members: members.into_iter().map(|n| Range::one(address(n))).collect(),
                ..facts()
            };
            let theirs: Vec<u8> = (0..8).filter(|n| !ours.contains(n)).collect();
            let ours: Vec<u8> = ours.into_iter().collect();
            let (own, other) = (rules(&of(ours.clone())), rules(&of(theirs.clone())));
            // Half of it is enough: an address that was another job's a moment ago is in that job's rules still.
            for a in &ours {
                for b in &theirs {
                    prop_assert!(!reach((address(*a), &own), (address(*b), &other), port));
                    prop_assert!(!passes(&own, Direction::Outbound, address(*b), Protocol::Tcp, port));
                    prop_assert!(!passes(&own, Direction::Inbound, address(*b), Protocol::Tcp, port));
                }
                for b in &ours {
                    prop_assert!(reach((address(*a), &own), (address(*b), &own), port));
                }
            }
        }

        #[test]
        fn a_host_can_hold_what_is_asked_for(allow in prop::collection::vec(an_allowed(), 0..6)) {
            let rules = rules(&Facts { allow, ..facts() });
            let set: u64 = rules.iter().filter_map(|rule| {
                let (first, last) = rule.ports?;
                Some(rule.peers.blocks() * (u64::from(last - first) + 1))
            }).sum();
            prop_assert!(set <= 65_536, "{}", set);
            for rule in rules {
                prop_assert!(u32::try_from(rule.peers.size()).is_ok());
            }
        }
    }
}
