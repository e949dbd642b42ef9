//! Properties of placement: no host is ever filled beyond its limits, capacity that
//! is there is found, and refusals say the truth.

use crate::ids::{ClusterName, HostName, NodeName, NodesetName, Time, VmId};
use crate::place::Ledger;
use crate::policy::Policy;
use crate::resources::Resources;
use crate::view::{HostView, ProviderView, Shape, VmState, VmView};
use crate::vm::{Life, Registration, VmRecord};
use crate::world::{Mode, NodeRecord, NodeSpec, World};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is where, counted the plain way.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    memory_mb: u64,
    cpu_percent: u64,
    vms: usize,
}

/// VMs that the provider shows on a host or nowhere, of us or others, and VMs that it does not show.
#[derive(Debug, Clone)]
struct Case {
    policy: Policy,
    hosts: Vec<HostView>,
    shown: Vec<VmView>,
    /// Our VMs: on which host, how big, and how the provider shows them.
    ours: Vec<(usize, Shape, Shown)>,
    wanted: Vec<(Shape, BTreeSet<HostName>)>,
}

#[derive(Debug, Clone, Copy)]
enum Shown {
    Nowhere,
    Unplaced,
    Placed,
}

fn host(i: usize) -> HostName {
    HostName::new(&format!("h{i}")).unwrap()
}

fn node(i: usize) -> NodeName {
    NodeName::new(&format!("n{i}")).unwrap()
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..4_u32, 1..40_u64, prop_oneof![Just(100_u32), 1..200_u32]).prop_map(
        |(cpus, memory_mb, share_percent)| Shape {
            cpus,
            memory_mb,
            share_percent,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let hosts = prop::collection::vec((0..200_u64, 0..1200_u32, prop::bool::weighted(0.8)), 0..5);
    let policy = (0..10_u64, 50..300_u32, 0..6_usize);
    let shown_as = prop_oneof![Just(Shown::Nowhere), Just(Shown::Unplaced), Just(Shown::Placed)];
    let ours = prop::collection::vec((0..5_usize, shape(), shown_as), 0..5);
    let others = prop::collection::vec((prop::option::of(0..5_usize), 0..60_u64, 0..300_u32), 0..5);
    let avoid = prop::collection::btree_set((0..5_usize).prop_map(host), 0..3);
    let wanted = prop::collection::vec((shape(), avoid), 1..8);
    (hosts, policy, ours, others, wanted).prop_map(
        |(hosts, (overhead_mb, overcommit, per_host), ours, others, wanted)| {
            let hosts = hosts
                .into_iter()
                .enumerate()
                .map(|(i, (memory_mb, cpu_percent, usable))| HostView {
                    name: host(i),
                    cpu_percent,
                    memory_mb,
                    gpus: None,
                    usable,
                    closed: None,
                    not_for: Default::default(),
                    load: None,
                });
            let shown = others
                .into_iter()
                .enumerate()
                .map(|(i, (on, memory_mb, cpu_percent))| VmView {
                    id: VmId::new(&format!("other{i}")).unwrap(),
                    tag: None,
                    host: on.map(host),
                    memory_mb,
                    cpu_percent,
                    state: VmState::Ready,
                });
            Case {
                policy: Policy {
                    overhead_mb,
                    cpu_overcommit_percent: overcommit,
                    max_vms_per_host: per_host,
                    ..Policy::default()
                },
                hosts: hosts.collect(),
                shown: shown.collect(),
                ours,
                wanted,
            }
        },
    )
}

impl Case {
    fn world(&self) -> (World, ProviderView) {
        let cluster = ClusterName::new("c").unwrap();
        let mut world = World::new(Time(1), cluster, self.policy.clone(), Default::default());
        let mut view = ProviderView {
            hosts: self.hosts.clone(),
            vms: self.shown.clone(),
        };
        for (i, (on, shape, shown)) in self.ours.iter().enumerate() {
            let mut record = NodeRecord::default();
            record.generation = record.generation.next();
            let tag = world.tag(&node(i), record.generation);
            record.vm = Some(VmRecord {
                generation: record.generation,
                id: None,
                host: Some(host(*on)),
                spec: None,
                life: Life::Asked,
                registration: Registration::NotYet,
                asked: Time(1),
                since: Time(1),
                aside: Default::default(),
                missing_since: None,
                kept: None,
                starts: Default::default(),
            });
            world.records.insert(node(i), record);
            let nodeset = NodesetName::new("s").unwrap();
            Arc::make_mut(&mut world.specs).insert(
                node(i),
                NodeSpec {
                    nodeset,
                    shape: *shape,
                    mode: Mode::PowerSaving,
                },
            );
            let seen_on = match shown {
                Shown::Nowhere => continue,
                Shown::Unplaced => None,
                Shown::Placed => Some(host(*on)),
            };
            view.vms.push(VmView {
                id: VmId::new(&format!("ours{i}")).unwrap(),
                tag: Some(tag),
                host: seen_on,
                memory_mb: shape.total_mb(self.policy.overhead_mb),
                cpu_percent: shape.cpu_percent(),
                state: VmState::Booting,
            });
        }
        (world, view)
    }

    /// What each host carries: others' VMs where shown, ours where we put them.
    fn loads(&self) -> BTreeMap<HostName, Load> {
        let mut loads: BTreeMap<HostName, Load> = self
            .hosts
            .iter()
            .map(|host| (host.name.clone(), Load::default()))
            .collect();
        let mut add = |on: &HostName, memory_mb: u64, cpu_percent: u64| {
            if let Some(load) = loads.get_mut(on) {
                load.memory_mb += memory_mb;
                load.cpu_percent += cpu_percent;
                load.vms += 1;
            }
        };
        for vm in &self.shown {
            if let Some(on) = &vm.host {
                add(on, vm.memory_mb, u64::from(vm.cpu_percent));
            }
        }
        for (on, shape, _) in &self.ours {
            add(
                &host(*on),
                shape.memory_mb + self.policy.overhead_mb,
                u64::from(shape.cpu_percent()),
            );
        }
        loads
    }

    /// Whether `seen` with `load` can carry one VM of `shape` more, by the definition.
    fn has_capacity(&self, seen: &HostView, load: Load, shape: &Shape) -> bool {
        let cores = u64::from(seen.cpu_percent) * u64::from(self.policy.cpu_overcommit_percent) / 100;
        seen.usable
            && load.memory_mb + shape.memory_mb + self.policy.overhead_mb <= seen.memory_mb
            && load.cpu_percent + u64::from(shape.cpu_percent()) <= cores
            && load.vms < self.policy.max_vms_per_host
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One after the other, each VM goes where there is capacity, to the relatively
    /// emptiest such host, and nowhere exactly if no host has capacity.
    #[test]
    fn a_ledger_agrees_with_counting(case in case()) {
        let (world, view) = case.world();
        let mut ledger = Ledger::new(&world, &view);
        let mut loads = case.loads();
        for (shape, avoid) in &case.wanted {
            let need = shape.memory_mb + case.policy.overhead_mb;
            let takes = Resources::of_shape(shape, &case.policy);
            let fitting: Vec<&HostView> = case
                .hosts
                .iter()
                .filter(|seen| case.has_capacity(seen, loads[&seen.name], shape))
                .collect();
            for seen in &case.hosts {
                let fits = fitting.iter().any(|other| other.name == seen.name);
                prop_assert_eq!(ledger.fits(&seen.name, &takes), fits, "{}", seen.name);
            }
            let allowed: Vec<&&HostView> = fitting.iter().filter(|seen| !avoid.contains(&seen.name)).collect();
            match ledger.choose(&takes, &[], avoid) {
                Ok(chosen) => {
                    let free = |seen: &HostView| {
                        (seen.memory_mb - loads[&seen.name].memory_mb - need) as f64 / seen.memory_mb as f64
                    };
                    let best = allowed.iter().map(|seen| free(seen)).fold(0.0, f64::max);
                    let taken = allowed.iter().find(|seen| seen.name == chosen);
                    prop_assert!(taken.is_some(), "{} has no capacity or is to be avoided", chosen);
                    prop_assert!(taken.is_some_and(|seen| free(seen) >= best - 1e-9));
                    // What is given back leaves no trace.
                    let before = ledger.mark();
                    for _ in 0..2 {
                        ledger.take(&chosen, &takes);
                    }
                    let _ = ledger.choose(&takes, &[], avoid);
                    ledger.back_to(before);
                    ledger.take(&chosen, &takes);
                    let load = loads.get_mut(&chosen).unwrap();
                    load.memory_mb += need;
                    load.cpu_percent += u64::from(shape.cpu_percent());
                    load.vms += 1;
                }
                Err(no_capacity) => {
                    prop_assert!(allowed.is_empty(), "{} was not seen", allowed[0].name);
                    let usable: Vec<&HostView> = case
                        .hosts
                        .iter()
                        .filter(|seen| seen.usable && !avoid.contains(&seen.name))
                        .collect();
                    prop_assert_eq!(no_capacity.usable_hosts, usable.len());
                    let fits_empty = usable.iter().any(|seen| case.has_capacity(seen, Load::default(), shape));
                    // A cap of no VMs at all on a host is not about the host.
                    prop_assert!(no_capacity.fits_empty == fits_empty || case.policy.max_vms_per_host == 0);
                }
            }
        }
    }
}
