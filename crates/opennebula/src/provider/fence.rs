//! Whom VMs reach, by security groups: a VM that is made is held until it has the group of its job.
//!
//! oned gives each card the groups of its network, beside those that it names: in a network as oned makes it that is
//! the default group, by which everything passes. So a held VM's cards are put into our group, and taken out of that
//! one, before the VM is released. The addresses of a job's VMs are in its group's rules: a VM that is made later
//! changes them for those before it. An address that is another job's by now harms nobody: that job's VMs
//! do not have it in their rules, and what passes has to be in both.

use super::Inner;
use super::calls::Calls;
use crate::error::{Class, Error};
use crate::secgroup::ranges::{Range, merged};
use crate::secgroup::rules::{Facts, Protocol, Rule, Service, rules};
use crate::secgroup::{Card, DEFAULT, SecGroup, Whose, Wired, Wires, template};
use crate::settings::Fence;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiao_guest::protocol::NFS_PORT;

/// How long what networks say is believed.
const NETWORKS: Duration = Duration::from_secs(60);

/// How often all groups are looked at while there are any: for those that no VM has any more.
const LOOK: Duration = Duration::from_secs(30);

/// How soon, when a host may still be without new rules: oned tells none of a VM that is in BOOT.
const LOOK_SOON: Duration = Duration::from_secs(2);

/// Most VMs that are asked for their cards in one call.
const AT_ONCE: usize = 1_000;

/// Most groups that are removed in a row: others wait meanwhile.
const REMOVED_AT_ONCE: usize = 16;

const DNS: u16 = 53;

/// What is known of our groups.
#[derive(Debug)]
pub(super) struct Groups {
    by: BTreeMap<Whose, Group>,
    /// How many VMs are being made for whom: their groups stay.
    busy: BTreeMap<Whose, usize>,
    networks: Option<(Instant, Arc<Vec<Wires>>)>,
    /// When all groups are looked at; none: there is none.
    look: Option<Instant>,
}

impl Groups {
    /// Nothing is known: there may be groups.
    pub fn new() -> Self {
        Self {
            by: BTreeMap::new(),
            busy: BTreeMap::new(),
            networks: None,
            look: Some(Instant::now()),
        }
    }

    fn look_within(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.look = Some(self.look.map_or(at, |before| before.min(at)));
    }
}

/// A group of ours.
#[derive(Debug, Clone)]
struct Group {
    id: u32,
    /// Its VMs, and the addresses of each.
    members: BTreeMap<u32, Vec<Ipv4Addr>>,
    /// Networks that its VMs are in.
    networks: BTreeSet<u32>,
    /// What its VMs were told of name servers and OneGate.
    told: BTreeSet<Service>,
    /// What was written last, and for whom; none: nothing by this process.
    written: Option<(Vec<Rule>, BTreeSet<u32>)>,
    /// The group as it was found.
    there: Option<Arc<SecGroup>>,
}

impl Group {
    fn made(id: u32, rules: Vec<Rule>) -> Self {
        Self {
            written: Some((rules, BTreeSet::new())),
            ..Self::of(id)
        }
    }

    fn of(id: u32) -> Self {
        Self {
            id,
            members: BTreeMap::new(),
            networks: BTreeSet::new(),
            told: BTreeSet::new(),
            written: None,
            there: None,
        }
    }

    /// `told`: what its guest is told of name servers and OneGate.
    fn add(&mut self, vm: &Wired, told: &[Service]) {
        let addresses = vm.cards.iter().filter_map(|card| card.address).collect();
        self.members.insert(vm.id, addresses);
        self.networks
            .extend(vm.cards.iter().filter_map(|card| card.network));
        self.told.extend(told);
    }

    fn has_written(&self, vm: u32) -> bool {
        self.written.as_ref().is_some_and(|(_, vms)| vms.contains(&vm))
    }
}

/// A VM that is being made for somebody, whose group stays until this is dropped.
pub(super) struct Fencing<'a, C: Calls> {
    inner: &'a Inner<C>,
    whose: Whose,
}

impl<C: Calls> Drop for Fencing<'_, C> {
    fn drop(&mut self) {
        let mut groups = self.inner.groups();
        if let Some(count) = groups.busy.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                groups.busy.remove(&self.whose);
            }
        }
    }
}

impl<C: Calls> Inner<C> {
    /// Never held during a call.
    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is to change groups; held during calls.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a VM is made: sees to it that there is a group for it. None: VMs are kept from nothing.
    pub(super) fn fence_for(&self, whose: Whose) -> Result<Option<Fencing<'_, C>>, Error> {
        let Some(fence) = &self.settings.fence else {
            return Ok(None);
        };
        *self.groups().busy.entry(whose).or_default() += 1;
        let fencing = Fencing { inner: self, whose };
        let _turn = self.turn();
        self.group_of(fence, whose)?;
        Ok(Some(fencing))
    }

    /// Before a held VM is released: puts it into its group, and takes it out of the default one.
    pub(super) fn fence(&self, fencing: &Fencing<'_, C>, vm: u32) -> Result<(), Error> {
        let Some(fence) = &self.settings.fence else {
            return Ok(());
        };
        let whose = fencing.whose;
        let asked = self.calls.wired(&[vm])?;
        let wired = asked.into_iter().find(|wired| wired.id == vm).ok_or_else(|| {
            Error::new(
                Class::NoSuchObject,
                format!("OpenNebula shows no VM {vm}, which was made"),
            )
        })?;
        if wired.over {
            // Its release finds that out.
            return Ok(());
        }
        if wired.cards.iter().any(|card| card.unchosen) {
            return Err(Error::new(
                Class::BadTemplate,
                format!(
                    "a card of VM {vm} gets its network from OpenNebula's scheduler when the VM runs, so it cannot be kept \
                     to its security group: name the NETWORK in the template, or set fence = false in [network]"
                ),
            ));
        }
        let told = told_to(&wired);
        // Others that are made at the same time are in the rules that the first one of them writes.
        if let Some(group) = self.groups().by.get_mut(&whose) {
            group.add(&wired, &told);
        }
        let turn = self.turn();
        let id = self.group_of(fence, whose)?;
        let written = self
            .groups()
            .by
            .get(&whose)
            .is_some_and(|group| group.has_written(vm));
        if !written {
            self.write(fence, whose, (&wired, &told))?;
        }
        drop(turn);
        wired
            .cards
            .iter()
            .try_for_each(|card| self.put_into(vm, card, id))
    }

    fn put_into(&self, vm: u32, card: &Card, group: u32) -> Result<(), Error> {
        // First in, then out: a card without any group is kept from nothing.
        if !card.groups.contains(&group) {
            self.calls.attach_secgroup(vm, card.id, group).map_err(too_old)?;
        }
        if card.groups.contains(&DEFAULT) {
            self.calls
                .detach_secgroup(vm, card.id, DEFAULT)
                .map_err(too_old)?;
        }
        Ok(())
    }

    /// The group's id; it is made, or found, when it is not known. It is our turn.
    fn group_of(&self, fence: &Fence, whose: Whose) -> Result<u32, Error> {
        if let Some(group) = self.groups().by.get(&whose) {
            return Ok(group.id);
        }
        let rules = self.rules_of(fence, whose, None)?;
        let wanted = template(&self.settings.cluster, whose, &rules, true);
        wanted.check()?;
        let group = match self.calls.make_secgroup(&wanted) {
            Ok(id) => Group::made(id, rules),
            // It may be there: from another process, or by a call whose answer was lost.
            Err(refused) => self.found(whose, refused)?,
        };
        let id = group.id;
        let mut groups = self.groups();
        groups.by.insert(whose, group);
        groups.look_within(LOOK);
        Ok(id)
    }

    /// The group as it is there, with all its VMs.
    fn found(&self, whose: Whose, refused: Error) -> Result<Group, Error> {
        let all = self.calls.secgroups()?;
        let cluster = &self.settings.cluster;
        let found = all.into_iter().find(|group| group.whose(cluster) == Some(whose));
        let Some(there) = found else {
            let text = format!(
                "{}. Without a security group for {whose} no VM is made; fence = false in [network] is for machines \
                 where all users trust each other",
                refused.text
            );
            return Err(Error { text, ..refused });
        };
        let mut group = Group::of(there.id);
        let vms: Vec<u32> = there.vms.iter().copied().collect();
        for some in vms.chunks(AT_ONCE) {
            for vm in self.calls.wired(some)? {
                group.add(&vm, &told_to(&vm));
            }
        }
        group.there = Some(Arc::new(there));
        Ok(group)
    }

    /// Writes the group's rules if they are others than before. It is our turn.
    fn write(&self, fence: &Fence, whose: Whose, (vm, told): (&Wired, &[Service])) -> Result<(), Error> {
        let group = {
            let mut groups = self.groups();
            let Some(group) = groups.by.get_mut(&whose) else {
                return Ok(());
            };
            group.add(vm, told);
            group.clone()
        };
        let rules = self.rules_of(fence, whose, Some(&group))?;
        let same = match (&group.written, &group.there) {
            (Some((before, _)), _) => *before == rules,
            (None, Some(there)) => there.has(&rules),
            (None, None) => false,
        };
        if !same {
            let wanted = template(&self.settings.cluster, whose, &rules, false);
            wanted.check()?;
            let done = self.calls.update_secgroup(group.id, &wanted);
            let mut groups = self.groups();
            match done {
                Ok(()) => groups.look_within(LOOK_SOON),
                Err(error) => {
                    // Somebody may have removed it: the next try finds out.
                    groups.by.remove(&whose);
                    return Err(gone(error));
                }
            }
        }
        if let Some(known) = self.groups().by.get_mut(&whose) {
            known.written = Some((rules, group.members.keys().copied().collect()));
        }
        Ok(())
    }

    /// The rules for a group with these VMs.
    fn rules_of(&self, fence: &Fence, whose: Whose, group: Option<&Group>) -> Result<Vec<Rule>, Error> {
        let networks = self.networks_of_all()?;
        let members = match (whose, group) {
            (_, None) => Vec::new(),
            (Whose::Job(_), Some(group)) => {
                let addresses = group.members.values().flatten();
                addresses.map(|address| Range::one(*address)).collect()
            }
            // Who comes and goes there all the time is not told to all others each time.
            (Whose::Everybody, Some(group)) => {
                let theirs = networks
                    .iter()
                    .filter(|network| group.networks.contains(&network.id));
                theirs.flat_map(|network| network.ranges.clone()).collect()
            }
        };
        let guest = &self.settings.guest;
        let mut services: Vec<Service> = Vec::new();
        let heads: BTreeSet<Ipv4Addr> = std::iter::once(guest.slurmctld_addr)
            .chain(guest.backups.iter().map(|backup| backup.addr))
            .collect();
        let tcp = |address: Ipv4Addr, ports: Option<(u16, u16)>| Service {
            protocol: Protocol::Tcp,
            address,
            ports,
        };
        let slurmctld = (guest.slurmctld_port, guest.slurmctld_port);
        services.extend(heads.iter().map(|head| tcp(*head, Some(slurmctld))));
        for share in &guest.shares {
            // An ordinary server tells by its port mapper where the rest of it is.
            let ports = (share.port != NFS_PORT).then_some((share.port, share.port));
            services.push(tcp(share.server, ports));
        }
        for source in self.settings.nodesets.values() {
            services.extend(source.inputs.servers().map(|server| tcp(server, None)));
            if let Some(ldap) = &source.inputs.ldap {
                services.extend(at_url(&ldap.url.to_string(), ldap.url.usual_port()));
            }
        }
        services.extend(group.iter().flat_map(|group| group.told.iter().copied()));
        services.extend(heads.iter().map(|head| tcp(*head, Some(fence.any_port))));
        Ok(rules(&Facts {
            heads,
            services,
            allow: fence.allow.clone(),
            virtual_networks: merged(networks.iter().flat_map(|network| network.ranges.clone())),
            members,
        }))
    }

    fn networks_of_all(&self) -> Result<Arc<Vec<Wires>>, Error> {
        if let Some((since, known)) = &self.groups().networks
            && since.elapsed() < NETWORKS
        {
            return Ok(known.clone());
        }
        let networks = Arc::new(self.calls.wires()?);
        self.groups().networks = Some((Instant::now(), networks.clone()));
        Ok(networks)
    }

    /// Looks at all groups when it is time: removes those that no VM has, and has hosts told again what they could
    /// not be told. What fails is tried again later.
    pub(super) fn tend_groups(&self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.settings.fence.is_none() || !due(self.groups().look) {
            return;
        }
        let _turn = self.turn();
        let mut again = None;
        match self.calls.secgroups() {
            Ok(all) => {
                let mut removed = 0;
                // Somebody else may have removed one: it is made anew.
                let ids: BTreeSet<u32> = all.iter().map(|group| group.id).collect();
                self.groups().by.retain(|_, group| ids.contains(&group.id));
                for group in all {
                    let Some(whose) = group.whose(&self.settings.cluster) else {
                        continue;
                    };
                    let pause = self.tend(&group, whose, &mut removed);
                    again = again.into_iter().chain(pause).min();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "security groups are not looked after");
                again = Some(LOOK);
            }
        }
        self.groups().look = again.map(|pause| Instant::now() + pause);
    }

    /// Looks at one group; when it is worth while again, if it is still there.
    fn tend(&self, group: &SecGroup, whose: Whose, removed: &mut usize) -> Option<Duration> {
        let failed =
            |error: &Error| tracing::warn!(%error, group = group.id, "a security group is left as it is");
        if group.vms.is_empty() {
            if self.groups().busy.contains_key(&whose) || *removed >= REMOVED_AT_ONCE {
                return Some(LOOK_SOON);
            }
            *removed += 1;
            self.groups().by.remove(&whose);
            match self.calls.delete_secgroup(group.id) {
                Ok(()) => return None,
                Err(error) if error.class == Class::NoSuchObject => return None,
                Err(error) => failed(&error),
            }
            return Some(LOOK);
        }
        if !group.failed.is_empty()
            && let Err(error) = self.calls.commit_secgroup(group.id)
        {
            failed(&error);
            return Some(LOOK);
        }
        let settled = group.failed.is_empty() && group.waiting.is_empty();
        Some(if settled { LOOK } else { LOOK_SOON })
    }
}

/// What a guest is told of name servers and OneGate, which it is to reach then.
fn told_to(vm: &Wired) -> Vec<Service> {
    let dns = |server: &Ipv4Addr| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| Service {
            protocol,
            address: *server,
            ports: Some((DNS, DNS)),
        })
    };
    let servers = vm.name_servers.iter().flat_map(dns);
    servers
        .chain(vm.onegate.iter().flat_map(|url| at_url(url, 80)))
        .collect()
}

/// Where something is that an URL names. What cannot be looked up here is left out: guests could not either.
fn at_url(url: &str, usual: u16) -> Vec<Service> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    let usual = if url.starts_with("https://") { 443 } else { usual };
    let found: Vec<SocketAddr> = match place
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse::<u16>()))
    {
        Some((host, Ok(port))) => (host, port).to_socket_addrs().map(Iterator::collect),
        Some((_, Err(_))) | None => (place, usual).to_socket_addrs().map(Iterator::collect),
    }
    .unwrap_or_default();
    let of = |at: SocketAddr| match at {
        SocketAddr::V4(at) => Some(Service {
            protocol: Protocol::Tcp,
            address: *at.ip(),
            ports: Some((at.port(), at.port())),
        }),
        SocketAddr::V6(_) => None,
    };
    found.into_iter().filter_map(of).collect()
}

/// What it means when a group is not there that was.
fn gone(error: Error) -> Error {
    match error.class {
        Class::NoSuchObject => Error {
            class: Class::Busy,
            text: format!("{}. Somebody removed it: it is made anew", error.text),
            ..error
        },
        Class::Authentication
        | Class::Authorization
        | Class::BadTemplate
        | Class::Capacity
        | Class::WrongState
        | Class::Busy
        | Class::Network
        | Class::Unknown => error,
    }
}

/// A oned that does not know the call.
fn too_old(error: Error) -> Error {
    match error.text.contains("not defined") {
        true => Error {
            class: Class::BadTemplate,
            text: "OpenNebula changes the security groups of a VM's card since 6.4 only: upgrade it, or set fence = false \
                   in [network]"
                .to_owned(),
            ..error
        },
        false => gone(error),
    }
}
