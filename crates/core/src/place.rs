//! Placement: which host carries the next VM.
//!
//! A host never carries more memory than it has, nor more core shares than the
//! policy's overcommit allows, nor a VM whose nodeset does not reach it. Among the hosts with capacity the
//! one left with the most free memory, relatively, is taken: boots spread and no host fills first.

use crate::ids::{HostName, NodesetName};
use crate::resources::{Over, Resources};
use crate::view::{HostView, ProviderView, VmView};
use crate::world::World;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// What each host has left, while a plan is being made.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// In the order of their names, which ends ties.
    capacity: Vec<Capacity>,
    places: HashMap<HostName, usize>,
    /// Usable hosts of equal memory, by this memory: the next VM of any size goes to the first of them that
    /// has capacity for it.
    turns: BTreeMap<u64, BTreeSet<Turn>>,
    /// What was used on which host before something more was taken or given back, in this order.
    taken: Vec<(usize, Resources)>,
    /// What no host has capacity for now, for whom, and why.
    refused: Option<(Resources, Vec<NodesetName>, NoCapacity)>,
}

/// A host's turn among those of equal memory: the most free memory first, then the fewest VMs, then its place.
type Turn = (Reverse<u64>, u64, usize);

/// How much had been taken at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

#[derive(Debug, Clone)]
struct Capacity {
    name: HostName,
    usable: bool,
    most: Resources,
    used: Resources,
    not_for: Arc<BTreeMap<NodesetName, String>>,
}

/// Why no host can carry a VM now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCapacity {
    /// What is needed, overhead included.
    pub need: Resources,
    /// Hosts that may take such VMs at all.
    pub usable_hosts: usize,
    /// Others that take VMs; none: there is no other.
    pub out_of_reach: Option<Box<OutOfReach>>,
    /// The most of each that one of them has free.
    pub most_free: Resources,
    /// What keeps them from carrying it, for people.
    pub lacks: Box<Lacks>,
    /// Whether some usable host is big enough when empty.
    pub fits_empty: bool,
}

/// What hosts lack for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacks {
    /// Of what there is too little on one of them or another.
    of: BTreeSet<Over>,
    /// Whether not each of them lacks the same.
    either: bool,
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<&str> = self.of.iter().map(|what| what.lacking()).collect();
        f.write_str(&what.join(if self.either { " or " } else { " and " }))
    }
}

/// Hosts that take VMs, and cannot run this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfReach {
    /// How many there are.
    pub hosts: usize,
    /// Why the first of them cannot.
    pub why: String,
}

impl fmt::Display for NoCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            need,
            usable_hosts,
            out_of_reach,
            most_free,
            lacks,
            fits_empty,
        } = self;
        if *usable_hosts == 0 {
            return match out_of_reach.as_deref() {
                None => f.write_str("no host takes VMs now"),
                Some(OutOfReach { hosts: 1, why }) => {
                    write!(f, "the only host that takes VMs cannot run it: {why}")
                }
                Some(OutOfReach { hosts, why }) => {
                    write!(f, "none of the {hosts} hosts that take VMs can run it: {why}")
                }
            };
        }
        write!(
            f,
            "none of {usable_hosts} hosts has capacity for {need}: {lacks} (the most that is free: {most_free})"
        )?;
        if !fits_empty {
            f.write_str("; it would not fit on an empty host either")?;
        }
        if let Some(OutOfReach { hosts, why }) = out_of_reach.as_deref() {
            write!(f, "; {hosts} more cannot run it: {why}")?;
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
            name: host.name.clone(),
            usable: host.usable,
            most: Resources::of_host(host, policy),
            used: Resources::default(),
            not_for: host.not_for.clone(),
        };
        let hosts: BTreeMap<&HostName, &HostView> =
            view.hosts.iter().map(|host| (&host.name, host)).collect();
        let capacity: Vec<Capacity> = hosts.into_values().map(capacity).collect();
        let places = capacity.iter().enumerate();
        let mut ledger = Self {
            places: places.map(|(place, host)| (host.name.clone(), place)).collect(),
            capacity,
            turns: BTreeMap::new(),
            taken: Vec::new(),
            refused: None,
        };
        for vm in &view.vms {
            if let Some(place) = vm.host.as_ref().and_then(|host| ledger.places.get(host)) {
                ledger.capacity[*place].add(&Resources::of_shown(vm));
            }
        }
        let listed = view.vms_of(&world.cluster);
        for (node, record) in &world.records {
            let Some(vm) = &record.vm else { continue };
            let of_node = world.specs.get(node).map(|spec| &spec.shape);
            let Some(takes) = Resources::of_record(vm, of_node, policy) else {
                continue;
            };
            // Where it comes from it still is.
            if let Some(place) = vm.life.leaves().and_then(|host| ledger.places.get(host)) {
                ledger.capacity[*place].add(&takes);
            }
            let on_a_host = |seen: &&VmView| {
                seen.host
                    .as_ref()
                    .is_some_and(|host| ledger.places.contains_key(host))
            };
            let mut shown = listed.get(node).iter().filter(|seen| seen.is(vm.generation));
            let shown = shown.any(on_a_host);
            if let Some(place) = vm.host.as_ref().and_then(|host| ledger.places.get(host)) {
                ledger.capacity[*place].add(&if shown { takes.unlisted() } else { takes });
            }
        }
        for (place, host) in ledger.capacity.iter().enumerate().filter(|(_, host)| host.usable) {
            let equals = ledger.turns.entry(host.most.memory_mb).or_default();
            equals.insert(host.turn(place));
        }
        ledger
    }

    /// The host for a VM that needs as much, of one of the nodesets `of`; none of `avoid`.
    ///
    /// # Errors
    /// When no host has capacity for it.
    pub fn choose(
        &mut self,
        need: &Resources,
        of: &[&NodesetName],
        avoid: &BTreeSet<HostName>,
    ) -> Result<HostName, NoCapacity> {
        if let Some((_, _, why)) = self.refused.as_ref().filter(|(refused, whose, _)| {
            refused == need && whose.iter().eq(of.iter().copied()) && avoid.is_empty()
        }) {
            return Err(why.clone());
        }
        let fits = |host: &&Capacity| !avoid.contains(&host.name) && host.is_for(of) && host.fits(need);
        let firsts = self.turns.values().filter_map(|equals| {
            let mut hosts = equals.iter().map(|(_, _, place)| &self.capacity[*place]);
            hosts.find(fits)
        });
        let best = firsts.max_by(|a, b| {
            // Free fractions compared crosswise: no floats, no rounding. The first name wins a tie.
            let free = |host: &Capacity| u128::from(host.most.without(host.used.and(*need)).memory_mb);
            let size = |host: &Capacity| u128::from(host.most.memory_mb.max(1));
            (free(a) * size(b))
                .cmp(&(free(b) * size(a)))
                .then_with(|| b.used.vms.cmp(&a.used.vms))
                .then_with(|| b.name.cmp(&a.name))
        });
        if let Some(host) = best {
            return Ok(host.name.clone());
        }
        let why = self.no_capacity(need, of, avoid);
        if avoid.is_empty() {
            let whose = of.iter().map(|nodeset| (*nodeset).clone()).collect();
            self.refused = Some((*need, whose, why.clone()));
        }
        Err(why)
    }

    fn no_capacity(&self, need: &Resources, of: &[&NodesetName], avoid: &BTreeSet<HostName>) -> NoCapacity {
        let usable = |host: &&Capacity| host.usable && !avoid.contains(&host.name);
        let usable = self.capacity.iter().filter(usable);
        let (usable, beyond): (Vec<&Capacity>, Vec<&Capacity>) = usable.partition(|host| host.is_for(of));
        let why_not = |host: &&Capacity| of.iter().find_map(|nodeset| host.not_for.get(*nodeset)).cloned();
        let free = usable.iter().map(|capacity| capacity.most.without(capacity.used));
        let free = free.fold(Resources::default(), Resources::or);
        let short = |capacity: &&Capacity| capacity.used.and(*need).all_over(&capacity.most);
        let short: BTreeSet<BTreeSet<Over>> = usable.iter().map(short).collect();
        let unlimited = usable.iter().any(|capacity| capacity.most.gpus == u64::MAX);
        NoCapacity {
            need: *need,
            usable_hosts: usable.len(),
            out_of_reach: beyond.first().and_then(why_not).map(|why| {
                Box::new(OutOfReach {
                    hosts: beyond.len(),
                    why,
                })
            }),
            most_free: Resources {
                // Where the provider counts none, none are told.
                gpus: if unlimited { 0 } else { free.gpus },
                ..free
            },
            lacks: Box::new(Lacks {
                either: short.len() > 1,
                of: short.into_iter().flatten().collect(),
            }),
            fits_empty: usable.iter().any(|capacity| need.over(&capacity.most).is_none()),
        }
    }

    /// Whether `host` has capacity for a VM that needs as much.
    #[must_use]
    pub fn fits(&self, host: &HostName, need: &Resources) -> bool {
        self.of(host).is_some_and(|capacity| capacity.fits(need))
    }

    /// Whether `host` has capacity for a VM that needs as much, of one of the nodesets `of`.
    #[must_use]
    pub fn fits_of(&self, host: &HostName, need: &Resources, of: &[&NodesetName]) -> bool {
        self.of(host)
            .is_some_and(|capacity| capacity.is_for(of) && capacity.fits(need))
    }

    /// Whether `host` carries more than it has: VMs were found that nobody placed there.
    #[must_use]
    pub fn is_overfull(&self, host: &HostName) -> bool {
        let capacity = self.of(host);
        capacity.is_some_and(|capacity| capacity.used.over(&capacity.most).is_some())
    }

    /// Notes that `host` carries a VM more, which takes as much.
    pub fn take(&mut self, host: &HostName, takes: &Resources) {
        if let Some(place) = self.places.get(host).copied() {
            let used = self.capacity[place].used;
            self.taken.push((place, used));
            self.set_used(place, used.and(*takes));
        }
    }

    /// Notes that `host` carries a VM less, which took as much.
    pub fn give_back(&mut self, host: &HostName, took: &Resources) {
        if let Some(place) = self.places.get(host).copied() {
            let used = self.capacity[place].used;
            self.taken.push((place, used));
            self.set_used(place, used.without(*took));
        }
    }

    /// How much is taken now, for [`Ledger::back_to`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.taken.len())
    }

    /// Undoes what was taken and given back since then: it was not to be had whole.
    pub fn back_to(&mut self, mark: Mark) {
        while self.taken.len() > mark.0
            && let Some((place, used)) = self.taken.pop()
        {
            self.set_used(place, used);
        }
    }

    fn set_used(&mut self, place: usize, used: Resources) {
        self.refused = None;
        let host = &mut self.capacity[place];
        let before = host.turn(place);
        host.used = used;
        if let Some(equals) = self.turns.get_mut(&host.most.memory_mb).filter(|_| host.usable) {
            equals.remove(&before);
            equals.insert(host.turn(place));
        }
    }

    fn of(&self, host: &HostName) -> Option<&Capacity> {
        self.places.get(host).map(|place| &self.capacity[*place])
    }
}

impl Capacity {
    /// Whether VMs of one of these nodesets can run there.
    fn is_for(&self, of: &[&NodesetName]) -> bool {
        self.not_for.is_empty()
            || of.is_empty()
            || of.iter().any(|nodeset| !self.not_for.contains_key(*nodeset))
    }

    fn fits(&self, need: &Resources) -> bool {
        self.usable && self.used.and(*need).over(&self.most).is_none()
    }

    fn add(&mut self, takes: &Resources) {
        self.used = self.used.and(*takes);
    }

    fn turn(&self, place: usize) -> Turn {
        (
            Reverse(self.most.without(self.used).memory_mb),
            self.used.vms,
            place,
        )
    }
}
