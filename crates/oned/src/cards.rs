//! Network cards: leases, aliases, and cards whose network the scheduler chooses.
//!
//! Read from oned's source (7.4, `VirtualMachineNics::get_network_leases` and
//! `get_auto_network_leases`; `match_networks` of its scheduler), and seen on a real oned 7.4.0:
//! one whose NIC has `NETWORK_MODE = auto` is deployed by (vm, host) without a network.

use crate::cluster::joined;
use crate::creation::Failed;
use crate::front_end::FrontEnd;
use crate::network::mac;
use crate::refusal::{Code, Refusal};
use crate::scheduler::requirements;
use crate::secgroup::numbers;
use crate::user::User;
use std::net::Ipv4Addr;
use thiao_opennebula::syntax::{Template, Value};

type Pairs = Vec<(String, String)>;

/// Leases: network and address.
pub type Leases = Vec<(u32, Ipv4Addr)>;

/// The first value of that name.
pub fn get<'a>(card: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = card.iter().find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn put(card: &mut Pairs, name: &str, value: &str) {
    card.retain(|(key, _)| key != name);
    card.push((name.to_owned(), value.to_owned()));
}

/// Where a card's network comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// From the card itself, if it names one.
    Named,
    /// From the scheduler: NETWORK_MODE is `auto`.
    Auto,
    /// From nowhere: NETWORK_MODE is `dummy`.
    Dummy,
}

fn mode(card: &[(String, String)]) -> Mode {
    let word = get(card, "NETWORK_MODE").unwrap_or_default();
    match word {
        word if word.eq_ignore_ascii_case("AUTO") => Mode::Auto,
        word if word.eq_ignore_ascii_case("DUMMY") => Mode::Dummy,
        _ => Mode::Named,
    }
}

/// Whether the scheduler is to choose its network, and has not.
pub fn waits_for_network(card: &[(String, String)]) -> bool {
    mode(card) == Mode::Auto && get(card, "NETWORK_ID").is_none()
}

fn late(text: String) -> Failed {
    Failed(Refusal::plain(Code::Internal, &text), true)
}

/// The attributes that are cards, by their place: first cards, also those that are PCI devices, then aliases.
fn places(template: &Template) -> Vec<usize> {
    let of = |name: &str| -> Vec<usize> {
        let is_card = |pairs: &Pairs| name != "PCI" || get(pairs, "TYPE") == Some("NIC");
        let all = template.0.iter().enumerate();
        all.filter(|(_, (key, value))| key == name && matches!(value, Value::Vector(pairs) if is_card(pairs)))
            .map(|(at, _)| at)
            .collect()
    };
    [of("NIC"), of("PCI"), of("NIC_ALIAS")].concat()
}

impl FrontEnd {
    /// Whether the user may use the networks that the cards name.
    pub fn check_networks(&self, user: &User, template: &Template) -> Result<(), Failed> {
        for nic in template.vectors("NIC").filter(|nic| mode(nic) == Mode::Named) {
            let Some(network) = self.network_of(nic)? else {
                continue;
            };
            if let Some(network) = self.networks.get(network as usize) {
                self.demand(user, &network.object(), "USE")
                    .map_err(|refusal| Failed(refusal, false))?;
            }
        }
        Ok(())
    }

    /// The network that a card names; none: a card without one is taken as it is.
    fn network_of(&self, nic: &[(String, String)]) -> Result<Option<u32>, Failed> {
        let find = |is: &dyn Fn(&crate::network::Network) -> bool| {
            self.networks
                .iter()
                .find(|network| is(network))
                .map(|network| Some(network.id))
        };
        if let Some(id) = get(nic, "NETWORK_ID") {
            return find(&|network| network.id.to_string() == id)
                .ok_or_else(|| late(format!("Virtual network with ID: {id} does not exist")));
        }
        let Some(name) = get(nic, "NETWORK") else {
            return Ok(None);
        };
        find(&|network| network.setup.name == name).ok_or_else(|| {
            late(format!(
                "User 0 does not own a network with name: {name} . Set NETWORK_UNAME or NETWORK_UID of owner in NIC."
            ))
        })
    }

    /// Leases an address for every card that names a network, and writes the cards as oned keeps them.
    pub fn lease_all(&mut self, vm: u32, known: &mut Template) -> Result<Leases, Failed> {
        let mut leases = Leases::new();
        let done = self.lease_cards(vm, known, &mut leases);
        if done.is_err() {
            self.give_back(&leases);
        }
        done.map(|()| leases)
    }

    /// Frees addresses, each given with the number of its network.
    pub fn give_back(&mut self, leases: &[(u32, Ipv4Addr)]) {
        for (network, ip) in leases {
            if let Some(network) = self.networks.get_mut(*network as usize) {
                network.leases.remove(ip);
            }
        }
    }

    fn lease_cards(&mut self, vm: u32, known: &mut Template, leases: &mut Leases) -> Result<(), Failed> {
        let default = known
            .vectors("NIC_DEFAULT")
            .next()
            .map(<[_]>::to_vec)
            .unwrap_or_default();
        // Cards that have an address, by name: an alias names one.
        let mut named: Vec<(String, u32, u32)> = Vec::new();
        for (index, at) in (0..).zip(places(known)) {
            let Some((key, Value::Vector(card))) = known.0.get_mut(at) else {
                continue;
            };
            let mut card = std::mem::take(card);
            put(&mut card, "NIC_ID", &index.to_string());
            let mut name = get(&card, "NAME").map_or_else(|| format!("NIC{index}"), str::to_owned);
            if key == "NIC_ALIAS" {
                name = alias(&mut card, index, &mut named)?;
            }
            put(&mut card, "NAME", &name);
            if mode(&card) == Mode::Named {
                if key != "NIC_ALIAS" {
                    merge_default(&mut card, &default);
                }
                if let Some(network) = self.network_of(&card)? {
                    leases.push((network, self.lease_one(vm, network, &mut card)?));
                }
                named.push((name, index, 0));
            }
            if let Some((_, value)) = known.0.get_mut(at) {
                *value = Value::Vector(card);
            }
        }
        Ok(())
    }

    /// Leases an address of that network for a card that has its NIC_ID.
    fn lease_one(&mut self, vm: u32, id: u32, card: &mut Pairs) -> Result<Ipv4Addr, Failed> {
        let refused = || late(format!("Cannot get IP/MAC lease from virtual network {id}."));
        let wanted = match get(card, "IP") {
            Some(text) => Some(text.parse().map_err(|_| refused())?),
            None => None,
        };
        let network = self.networks.get_mut(id as usize).ok_or_else(refused)?;
        let ip = network.lease(vm, wanted).ok_or_else(refused)?;
        let index = get(card, "NIC_ID").unwrap_or_default().to_owned();
        put(card, "AR_ID", "0");
        put(card, "BRIDGE", "br0");
        put(card, "BRIDGE_TYPE", "linux");
        put(card, "CLUSTER_ID", &joined(&network.setup.clusters, ","));
        put(card, "IP", &ip.to_string());
        put(card, "MAC", &mac(ip));
        put(card, "NETWORK", &network.setup.name);
        put(card, "NETWORK_ID", &id.to_string());
        let mut groups = numbers(get(card, "SECURITY_GROUPS").unwrap_or_default());
        groups.extend(numbers(network.attribute("SECURITY_GROUPS", "0")));
        let groups: Vec<u32> = groups.into_iter().collect();
        put(card, "SECURITY_GROUPS", &joined(&groups, ","));
        put(card, "TARGET", &format!("one-{vm}-{index}"));
        put(card, "VN_MAD", network.attribute("VN_MAD", "dummy"));
        for key in ["DNS", "FILTER_IP_SPOOFING", "FILTER_MAC_SPOOFING", "GATEWAY"] {
            if let Some(value) = network.setup.template.get(key) {
                put(card, key, value);
            }
        }
        Ok(ip)
    }

    /// The cards of a waiting VM that wait for a network, and the first network for each that its owner may
    /// use, that meets the card's requirements and has an address; or the scheduler's word.
    pub fn choose_networks(&self, vm: u32) -> Result<Vec<(u32, u32)>, String> {
        let Some(vm) = self.vms.get(&vm) else {
            return Ok(Vec::new());
        };
        let owner = self.users.iter().find(|user| user.id == vm.uid);
        let mut chosen: Vec<(u32, u32)> = Vec::new();
        for card in vm.template.vectors("NIC").filter(|card| waits_for_network(card)) {
            let index = get(card, "NIC_ID")
                .and_then(|id| id.parse().ok())
                .unwrap_or_default();
            let wanted = get(card, "SCHED_REQUIREMENTS").unwrap_or_default();
            let network = self.networks.iter().find(|network| {
                let taken = chosen.iter().filter(|(_, id)| *id == network.id).count();
                owner.is_some_and(|owner| self.allowed(owner, &network.object(), "USE"))
                    && requirements(wanted, network.id, &network.setup.name)
                    && network.leases.len() + taken < network.setup.size as usize
            });
            let network = network
                .ok_or_else(|| format!("No virtual network meets SCHED_NIC_REQUIREMENTS for NIC {index}"))?;
            chosen.push((index, network.id));
        }
        Ok(chosen)
    }

    /// Gives cards that wait for one a network: `NIC_ID` and network, as the last parameter of a deploy
    /// names them. Without it such a card stays without.
    pub fn attach_networks(&mut self, vm: u32, chosen: &[(u32, u32)]) -> Result<(), String> {
        let Some(mut template) = self.vms.get(&vm).map(|vm| vm.template.clone()) else {
            return Ok(());
        };
        let default = template
            .vectors("NIC_DEFAULT")
            .next()
            .map(<[_]>::to_vec)
            .unwrap_or_default();
        let mut leases = Leases::new();
        let mut told = Pairs::new();
        for (index, network) in chosen {
            let card = template.0.iter_mut().find_map(|(key, value)| match value {
                Value::Vector(card) if key == "NIC" && get(card, "NIC_ID") == Some(&index.to_string()) => {
                    Some(card)
                }
                Value::Vector(_) | Value::Single(_) => None,
            });
            let leased = match card {
                None => Err(format!("NIC_ID {index} not found")),
                Some(card) if !waits_for_network(card) => Err(format!("NIC_ID {index} not AUTO")),
                Some(card) => {
                    merge_default(card, &default);
                    let leased = self.lease_one(vm, *network, card);
                    told.extend(self.context_of_card(card));
                    leased.map_err(|Failed(refusal, _)| refusal.text)
                }
            };
            match leased {
                Ok(ip) => leases.push((*network, ip)),
                Err(text) => {
                    self.give_back(&leases);
                    return Err(text);
                }
            }
        }
        for (key, value) in &mut template.0 {
            if let (true, Value::Vector(context)) = (key == "CONTEXT", value)
                && get(context, "NETWORK").is_some_and(|word| word.eq_ignore_ascii_case("YES"))
            {
                for (name, value) in &told {
                    put(context, name, value);
                }
            }
        }
        if let Some(vm) = self.vm_mut(vm) {
            vm.template = template;
            vm.leases.extend(leases);
        }
        self.write_rules(vm);
        Ok(())
    }
}

/// What the default has and the card has not.
fn merge_default(card: &mut Pairs, default: &[(String, String)]) {
    for (key, value) in default {
        if get(card, key).is_none() {
            put(card, key, value);
        }
    }
}

/// Ties an alias to its card; its own name.
fn alias(card: &mut Pairs, index: u32, named: &mut [(String, u32, u32)]) -> Result<String, Failed> {
    match mode(card) {
        Mode::Named => {}
        Mode::Auto | Mode::Dummy => {
            let word = get(card, "NETWORK_MODE").unwrap_or_default().to_ascii_uppercase();
            return Err(late(format!("Alias is incompatible with mode {word}")));
        }
    }
    let parent = get(card, "PARENT").unwrap_or_default().to_owned();
    let Some((_, id, aliases)) = named.iter_mut().find(|(name, ..)| *name == parent) else {
        return Err(late(format!("NIC named {parent} not found for alias")));
    };
    put(card, "PARENT_ID", &id.to_string());
    put(card, "ALIAS_ID", &aliases.to_string());
    let own = get(card, "NAME").map_or_else(|| format!("NIC{id}_ALIAS{index}"), str::to_owned);
    *aliases += 1;
    Ok(own)
}

/// What the last parameter of a deploy says: `NIC = [ NIC_ID = "0", NETWORK_ID = "2" ]`.
pub fn chosen_by_caller(text: &str) -> Result<Vec<(u32, u32)>, String> {
    let template = crate::template::parse(text)?;
    let number = |card: &[(String, String)], name: &str| get(card, name)?.parse().ok();
    Ok(template
        .vectors("NIC")
        .filter_map(|card| Some((number(card, "NIC_ID")?, number(card, "NETWORK_ID")?)))
        .collect())
}
