//! The drivers' side: VMs go from phase to phase; machines are started, ended, observed.

use crate::front_end::FrontEnd;
use crate::lifecycle::{Lcm, Phase, State};
use crate::machines::{Machines, Nic, Pass, Seen, VmSpec};
use crate::secgroup::numbers;
use crate::vm::Vm;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiao_opennebula::secgroup::applied_by;
use thiao_opennebula::syntax::Value;

/// The front-end and what wakes the driver.
pub struct Shared {
    front_end: Mutex<FrontEnd>,
    wake: Condvar,
}

impl Shared {
    /// A front-end of its own.
    pub fn new(front_end: FrontEnd) -> Self {
        Shared {
            front_end: Mutex::new(front_end),
            wake: Condvar::new(),
        }
    }

    /// The front-end. A thread that panicked has changed nothing half: all changes are plain fields.
    pub fn lock(&self) -> MutexGuard<'_, FrontEnd> {
        self.front_end
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
    let mut front_end = shared.lock();
    while !stop() {
        let now = Instant::now();
        if let Some(every) = front_end.settings.scheduler
            && now >= next_plan
        {
            crate::scheduler::round(&mut front_end);
            next_plan = now + every;
        }
        let work = due(&mut front_end, now);
        let poll = machines.is_some() && now >= next_poll;
        let rewired = std::mem::take(&mut front_end.rewired);
        if work.is_empty() && !poll && (rewired.is_empty() || machines.is_none()) {
            let until = front_end.due.peek().map(|Reverse((at, ..))| *at);
            let plan = front_end.settings.scheduler.map(|_| next_plan);
            let poll = machines.map(|_| next_poll);
            let until = [until, plan, poll].into_iter().flatten().min();
            let nap = until.map_or(NAP, |at| at.saturating_duration_since(now)).min(NAP);
            front_end = match shared.wake.wait_timeout(front_end, nap) {
                Ok((front_end, _)) => front_end,
                Err(poisoned) => poisoned.into_inner().0,
            };
            continue;
        }
        let Some(machines) = machines else {
            for (id, ..) in work {
                play(&mut front_end, id);
            }
            continue;
        };
        // Machines take their time: oned keeps answering meanwhile.
        let orders: Vec<(u32, u64, Order)> = work
            .iter()
            .filter_map(|(id, epoch)| Some((*id, *epoch, order(&front_end, *id)?)))
            .collect();
        let rewired: Vec<VmSpec> = rewired
            .iter()
            .filter_map(|id| front_end.vms.get(id).filter(|vm| vm.started))
            .map(|vm| spec(&front_end, vm))
            .collect();
        drop(front_end);
        for spec in &rewired {
            if let Err(error) = machines.rules(spec) {
                tracing::error!(
                    vm = spec.id,
                    error,
                    "the rules of its security groups do not hold"
                );
            }
        }
        let results: Vec<(u32, u64, Order, Result<(), String>)> = orders
            .into_iter()
            .map(|(id, epoch, order)| {
                let result = order.execute(machines.as_ref(), id);
                (id, epoch, order, result)
            })
            .collect();
        let seen: Option<BTreeMap<u32, Seen>> = poll.then(|| machines.poll().into_iter().collect());
        front_end = shared.lock();
        for (id, epoch, order, result) in results {
            if front_end.vms.get(&id).is_some_and(|vm| vm.epoch == epoch) {
                finish(&mut front_end, id, &order, result);
            } else if matches!(order, Order::Start(_)) && result.is_ok() {
                // It was deleted or moved on while its machine started: what is there now is
                // ended by the state that it is in.
                if let Some(vm) = front_end.vm_mut(id) {
                    vm.started = true;
                }
            }
        }
        if let Some(seen) = seen {
            observe(&mut front_end, &seen);
            next_poll = Instant::now() + front_end.settings.poll;
        }
    }
}

/// What is due now, without what is out of date; VMs in held phases are parked.
fn due(front_end: &mut FrontEnd, now: Instant) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    while front_end.due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
        let Some(Reverse((_, id, epoch))) = front_end.due.pop() else {
            break;
        };
        let Some(vm) = front_end.vms.get(&id).filter(|vm| vm.epoch == epoch) else {
            continue;
        };
        let State::Active(lcm) = vm.state else { continue };
        let Some((phase, ..)) = lcm.work() else { continue };
        if front_end.held.contains(&phase) {
            front_end.parked.push((id, epoch));
        } else {
            found.push((id, epoch));
        }
    }
    found
}

/// Without machines: the phase is over.
fn play(front_end: &mut FrontEnd, id: u32) {
    let Some(vm) = front_end.vms.get(&id) else { return };
    let State::Active(lcm) = vm.state else { return };
    let Some((phase, success, failure)) = lcm.work() else {
        return;
    };
    if let Some(text) = front_end.fails.remove(&(id, phase)) {
        front_end.set(id, failure);
        front_end.note_error(id, &text);
    } else if phase == Phase::Shutdown && !vm.hard && front_end.deaf.contains(&id) {
        ignored(front_end, id, failure);
    } else {
        front_end.set(id, success);
    }
}

/// The guest did not shut down: the VM runs on, silently, as if nobody had asked.
fn ignored(front_end: &mut FrontEnd, id: u32, back: State) {
    front_end.set(id, back);
    if let Some(stay) = front_end.vm_mut(id).and_then(|vm| vm.history.last_mut()) {
        stay.action = None;
    }
}

/// What a machine is told.
enum Order {
    Start(Box<VmSpec>),
    Save,
    Restore(Box<VmSpec>),
    Stop { hard: bool },
    Remove,
    Nothing,
}

impl Order {
    fn execute(&self, machines: &dyn Machines, id: u32) -> Result<(), String> {
        match self {
            Order::Start(spec) => machines.start(spec),
            Order::Save => machines.save(id),
            Order::Restore(spec) => machines.restore(spec),
            Order::Stop { hard } => machines.stop(id, *hard),
            Order::Remove => machines.remove(id),
            Order::Nothing => Ok(()),
        }
    }
}

fn order(front_end: &FrontEnd, id: u32) -> Option<Order> {
    let vm = front_end.vms.get(&id)?;
    let State::Active(lcm) = vm.state else { return None };
    let (phase, ..) = lcm.work()?;
    Some(match phase {
        Phase::Prolog | Phase::Migrate | Phase::Hotplug => Order::Nothing,
        Phase::Boot if lcm.restores() => Order::Restore(Box::new(spec(front_end, vm))),
        Phase::Boot => Order::Start(Box::new(spec(front_end, vm))),
        Phase::Save => Order::Save,
        Phase::Shutdown if front_end.ending.contains_key(&id) => Order::Nothing,
        Phase::Shutdown => Order::Stop { hard: vm.hard },
        // What was saved is kept elsewhere.
        Phase::Epilog if lcm == Lcm::EpilogStop => Order::Nothing,
        Phase::Epilog | Phase::Cleanup => Order::Remove,
    })
}

fn finish(front_end: &mut FrontEnd, id: u32, order: &Order, result: Result<(), String>) {
    let Some(vm) = front_end.vms.get(&id) else { return };
    let State::Active(lcm) = vm.state else { return };
    let Some((phase, success, failure)) = lcm.work() else {
        return;
    };
    let result = match front_end.fails.remove(&(id, phase)) {
        Some(text) => Err(text),
        None => result,
    };
    if let Err(text) = result {
        front_end.set(id, failure);
        front_end.note_error(id, &format!("{phase:?}: {text}"));
        return;
    }
    match order {
        Order::Start(_) => {
            if let Some(vm) = front_end.vm_mut(id) {
                vm.started = true;
            }
            front_end.set(id, success);
        }
        Order::Remove => {
            if let Some(vm) = front_end.vm_mut(id) {
                vm.started = false;
            }
            front_end.set(id, success);
        }
        // An observation shows when it has ended.
        Order::Stop { .. } if phase == Phase::Shutdown => {
            let until = Instant::now() + front_end.settings.shutdown_timeout;
            front_end.ending.insert(id, until);
        }
        Order::Stop { .. } | Order::Save | Order::Restore(_) | Order::Nothing => {
            if phase != Phase::Shutdown {
                front_end.set(id, success);
            }
        }
    }
}

/// Takes what an observation showed.
fn observe(front_end: &mut FrontEnd, seen: &BTreeMap<u32, Seen>) {
    let now = Instant::now();
    let live: Vec<u32> = front_end.live.iter().copied().collect();
    for id in live {
        let Some(vm) = front_end.vms.get(&id).filter(|vm| vm.started) else {
            continue;
        };
        let ended = seen.get(&id) != Some(&Seen::Running);
        let State::Active(lcm) = vm.state else { continue };
        if lcm == Lcm::Running && ended {
            front_end.set(id, State::Poweroff);
        } else if let (Some((Phase::Shutdown, success, failure)), Some(until)) =
            (lcm.work(), front_end.ending.get(&id).copied())
        {
            if ended {
                front_end.set(id, success);
            } else if now >= until {
                ignored(front_end, id, failure);
            }
        }
    }
}

/// What the driver is told of a VM.
fn spec(front_end: &FrontEnd, vm: &Vm) -> VmSpec {
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
            Value::Vector(pairs) if key == "NIC" => nic(front_end, vm, pairs),
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

fn nic(front_end: &FrontEnd, vm: &Vm, pairs: &[(String, String)]) -> Option<Nic> {
    let get = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let network = front_end
        .networks
        .get(get("NETWORK_ID")?.parse::<usize>().ok()?)?;
    let attribute = |name: &str| get(name).or(network.setup.template.get(name).map(String::as_str));
    Some(Nic {
        network: network.setup.name.clone(),
        ip: get("IP")?.parse().ok()?,
        mac: get("MAC")?.to_owned(),
        mask: attribute("NETWORK_MASK").and_then(|text| text.parse().ok()),
        gateway: attribute("GATEWAY").and_then(|text| text.parse().ok()),
        passes: applied_by(network.attribute("VN_MAD", "dummy")).then(|| {
            let groups = numbers(get("SECURITY_GROUPS").unwrap_or_default());
            let rules = vm.template.vectors("SECURITY_GROUP_RULE");
            rules.filter_map(|rule| pass(rule, &groups)).collect()
        }),
    })
}

/// What a rule of one of these groups opens (`VNMNetwork::Rule`).
fn pass(rule: &[(String, String)], groups: &BTreeSet<u32>) -> Option<Pass> {
    let get = |name: &str| {
        let found = rule.iter().find(|(key, _)| key == name);
        found
            .map(|(_, text)| text.as_str())
            .filter(|text| !text.is_empty())
    };
    if !groups.contains(&get("SECURITY_GROUP_ID")?.parse().ok()?) {
        return None;
    }
    let peers = match get("IP") {
        None => None,
        Some(first) => {
            let first: Ipv4Addr = first.parse().ok()?;
            let more = get("SIZE")?.parse::<u32>().ok()?.checked_sub(1)?;
            Some((first, Ipv4Addr::from_bits(first.to_bits().checked_add(more)?)))
        }
    };
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    Some(Pass {
        outbound: get("RULE_TYPE")?.eq_ignore_ascii_case("OUTBOUND"),
        protocol: Some(get("PROTOCOL")?.to_ascii_lowercase()).filter(|word| word != "all"),
        peers,
        ports: get("RANGE")
            .into_iter()
            .flat_map(|text| text.split(','))
            .filter_map(range)
            .collect(),
    })
}
