//! The drivers' side: VMs go from phase to phase; machines are started, ended, looked at.

use crate::lifecycle::{Lcm, Phase, State};
use crate::machines::{Machines, Nic, Seen, VmSpec};
use crate::vm::Vm;
use crate::world::World;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiao_opennebula::syntax::Value;

/// The world and what wakes the driver.
pub struct Shared {
    world: Mutex<World>,
    wake: Condvar,
}

impl Shared {
    /// A world of its own.
    pub fn new(world: World) -> Self {
        Shared {
            world: Mutex::new(world),
            wake: Condvar::new(),
        }
    }

    /// The world. A thread that panicked has changed nothing half: all changes are plain fields.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Wakes the driver: something is due, or it shall end.
    pub fn notify(&self) {
        self.wake.notify_all();
    }
}

/// The longest sleep: how late the driver notices its end at worst.
const NAP: Duration = Duration::from_millis(200);

/// Runs until `stop` says so.
pub fn run(shared: &Shared, machines: Option<&Arc<dyn Machines>>, stop: &dyn Fn() -> bool) {
    let mut next_poll = Instant::now();
    let mut next_plan = Instant::now();
    let mut world = shared.lock();
    while !stop() {
        let now = Instant::now();
        if let Some(every) = world.settings.scheduler
            && now >= next_plan
        {
            crate::scheduler::round(&mut world);
            next_plan = now + every;
        }
        let work = due(&mut world, now);
        let poll = machines.is_some() && now >= next_poll;
        if work.is_empty() && !poll {
            let until = world.due.peek().map(|Reverse((at, ..))| *at);
            let plan = world.settings.scheduler.map(|_| next_plan);
            let look = machines.map(|_| next_poll);
            let until = [until, plan, look].into_iter().flatten().min();
            let nap = until.map_or(NAP, |at| at.saturating_duration_since(now)).min(NAP);
            world = match shared.wake.wait_timeout(world, nap) {
                Ok((world, _)) => world,
                Err(poisoned) => poisoned.into_inner().0,
            };
            continue;
        }
        let Some(machines) = machines else {
            for (id, ..) in work {
                play(&mut world, id);
            }
            continue;
        };
        // Machines take their time: oned keeps answering meanwhile.
        let orders: Vec<(u32, u64, Order)> = work
            .iter()
            .filter_map(|(id, epoch)| Some((*id, *epoch, order(&world, *id)?)))
            .collect();
        drop(world);
        let results: Vec<(u32, u64, Order, Result<(), String>)> = orders
            .into_iter()
            .map(|(id, epoch, order)| {
                let result = order.execute(machines.as_ref(), id);
                (id, epoch, order, result)
            })
            .collect();
        let seen: Option<BTreeMap<u32, Seen>> = poll.then(|| machines.poll().into_iter().collect());
        world = shared.lock();
        for (id, epoch, order, result) in results {
            if world.vms.get(&id).is_some_and(|vm| vm.epoch == epoch) {
                finish(&mut world, id, &order, result);
            } else if matches!(order, Order::Start(_)) && result.is_ok() {
                // It was deleted or moved on while its machine started: what is there now is
                // ended by the state that it is in.
                if let Some(vm) = world.vm_mut(id) {
                    vm.started = true;
                }
            }
        }
        if let Some(seen) = seen {
            look(&mut world, &seen);
            next_poll = Instant::now() + world.settings.poll;
        }
    }
}

/// What is due now, without what is out of date; VMs in held phases are parked.
fn due(world: &mut World, now: Instant) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    while world.due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
        let Some(Reverse((_, id, epoch))) = world.due.pop() else {
            break;
        };
        let Some(vm) = world.vms.get(&id).filter(|vm| vm.epoch == epoch) else {
            continue;
        };
        let State::Active(lcm) = vm.state else { continue };
        let Some((phase, ..)) = lcm.work() else { continue };
        if world.held.contains(&phase) {
            world.parked.push((id, epoch));
        } else {
            found.push((id, epoch));
        }
    }
    found
}

/// Without machines: the phase is over.
fn play(world: &mut World, id: u32) {
    let Some(vm) = world.vms.get(&id) else { return };
    let State::Active(lcm) = vm.state else { return };
    let Some((phase, success, failure)) = lcm.work() else {
        return;
    };
    if let Some(text) = world.fails.remove(&(id, phase)) {
        world.set(id, failure);
        world.note_error(id, &text);
    } else if phase == Phase::Shutdown && !vm.hard && world.deaf.contains(&id) {
        ignored(world, id, failure);
    } else {
        world.set(id, success);
    }
}

/// The guest did not shut down: the VM runs on, silently, as if nobody had asked.
fn ignored(world: &mut World, id: u32, back: State) {
    world.set(id, back);
    if let Some(stay) = world.vm_mut(id).and_then(|vm| vm.history.last_mut()) {
        stay.action = None;
    }
}

/// What a machine is told.
enum Order {
    Start(Box<VmSpec>),
    Stop { hard: bool },
    Remove,
    Nothing,
}

impl Order {
    fn execute(&self, machines: &dyn Machines, id: u32) -> Result<(), String> {
        match self {
            Order::Start(spec) => machines.start(spec),
            Order::Stop { hard } => machines.stop(id, *hard),
            Order::Remove => machines.remove(id),
            Order::Nothing => Ok(()),
        }
    }
}

fn order(world: &World, id: u32) -> Option<Order> {
    let vm = world.vms.get(&id)?;
    let State::Active(lcm) = vm.state else { return None };
    let (phase, ..) = lcm.work()?;
    Some(match phase {
        Phase::Prolog | Phase::Migrate => Order::Nothing,
        Phase::Boot => Order::Start(Box::new(spec(world, vm))),
        // Memory is not saved: the machine ends.
        Phase::Save => Order::Stop { hard: true },
        Phase::Shutdown if world.ending.contains_key(&id) => Order::Nothing,
        Phase::Shutdown => Order::Stop { hard: vm.hard },
        Phase::Epilog | Phase::Cleanup => Order::Remove,
    })
}

fn finish(world: &mut World, id: u32, order: &Order, result: Result<(), String>) {
    let Some(vm) = world.vms.get(&id) else { return };
    let State::Active(lcm) = vm.state else { return };
    let Some((phase, success, failure)) = lcm.work() else {
        return;
    };
    let result = match world.fails.remove(&(id, phase)) {
        Some(text) => Err(text),
        None => result,
    };
    if let Err(text) = result {
        world.set(id, failure);
        world.note_error(id, &format!("{phase:?}: {text}"));
        return;
    }
    match order {
        Order::Start(_) => {
            if let Some(vm) = world.vm_mut(id) {
                vm.started = true;
            }
            world.set(id, success);
        }
        Order::Remove => {
            if let Some(vm) = world.vm_mut(id) {
                vm.started = false;
            }
            world.set(id, success);
        }
        // A look shows when it has ended.
        Order::Stop { .. } if phase == Phase::Shutdown => {
            let until = Instant::now() + world.settings.shutdown_timeout;
            world.ending.insert(id, until);
        }
        Order::Stop { .. } | Order::Nothing => {
            if phase != Phase::Shutdown {
                world.set(id, success);
            }
        }
    }
}

/// Takes what a look showed.
fn look(world: &mut World, seen: &BTreeMap<u32, Seen>) {
    let now = Instant::now();
    let live: Vec<u32> = world.live.iter().copied().collect();
    for id in live {
        let Some(vm) = world.vms.get(&id).filter(|vm| vm.started) else {
            continue;
        };
        let ended = seen.get(&id) != Some(&Seen::Running);
        let State::Active(lcm) = vm.state else { continue };
        if lcm == Lcm::Running && ended {
            world.set(id, State::Poweroff);
        } else if let (Some((Phase::Shutdown, success, failure)), Some(until)) =
            (lcm.work(), world.ending.get(&id).copied())
        {
            if ended {
                world.set(id, success);
            } else if now >= until {
                ignored(world, id, failure);
            }
        }
    }
}

/// What the driver is told of a VM.
fn spec(world: &World, vm: &Vm) -> VmSpec {
    let pairs = vm.template.vectors("CONTEXT").next().unwrap_or_default();
    let usable = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let nics = vm
        .template
        .0
        .iter()
        .filter_map(|(key, value)| match value {
            Value::Vector(pairs) if key == "NIC" => nic(world, pairs),
            Value::Vector(_) | Value::Single(_) => None,
        })
        .collect();
    VmSpec {
        id: vm.id,
        name: vm.name.clone(),
        host: vm
            .history
            .last()
            .map(|stay| stay.hostname.clone())
            .unwrap_or_default(),
        vcpu: vm.vcpu.unwrap_or(1),
        cpu_percent: vm.cpu_percent,
        memory_mb: vm.memory_mb,
        nics,
        context: pairs.iter().filter(|(key, _)| usable(key)).cloned().collect(),
        user_template: vm.tags(),
        onegate_token: vm.token.clone(),
    }
}

fn nic(world: &World, pairs: &[(String, String)]) -> Option<Nic> {
    let get = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let network = world.networks.get(get("NETWORK_ID")?.parse::<usize>().ok()?)?;
    let attribute = |name: &str| get(name).or(network.setup.template.get(name).map(String::as_str));
    Some(Nic {
        network: network.setup.name.clone(),
        ip: get("IP")?.parse().ok()?,
        mac: get("MAC")?.to_owned(),
        mask: attribute("NETWORK_MASK").and_then(|text| text.parse().ok()),
        gateway: attribute("GATEWAY").and_then(|text| text.parse().ok()),
    })
}
