//! The stand-in as tests and the lab hold it.

use crate::bus::{Bus, BusFaults};
use crate::calls;
use crate::driver::{self, Shared};
use crate::faults::{Fault, Rule, entity_bomb};
use crate::front_end::FrontEnd;
use crate::host::HostState;
use crate::http::{Reply, Request, Server};
use crate::lifecycle::{Lcm, Phase, State};
use crate::onegate;
use crate::quota::Quota;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::xmlrpc::{self, Value};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running stand-in. Dropping it ends it; machines of a real driver are left as they are.
pub struct Oned {
    shared: Arc<Shared>,
    address: SocketAddr,
    connections: usize,
    server: Option<Server>,
    onegate: Option<Server>,
    bus: Option<Bus>,
    bus_address: Option<SocketAddr>,
    stop: Arc<AtomicBool>,
    driver: Option<JoinHandle<()>>,
}

/// What tests want to know of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmView {
    pub id: u32,
    pub name: String,
    pub state: State,
    /// The host of its present or last stay.
    pub host: Option<u32>,
    /// The plain attributes of USER_TEMPLATE.
    pub tags: BTreeMap<String, String>,
    /// The variables of its CONTEXT.
    pub context: BTreeMap<String, String>,
    /// Its secret for OneGate.
    pub onegate_token: Option<String>,
}

impl std::fmt::Debug for Oned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oned")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Oned {
    /// Starts one where the settings say.
    pub fn start(settings: Settings) -> io::Result<Oned> {
        let listener = TcpListener::bind(settings.listen)?;
        let onegate = settings.onegate.map(TcpListener::bind).transpose()?;
        Self::serve(settings, listener, onegate)
    }

    /// Starts one on listeners that are there already.
    pub fn serve(
        settings: Settings,
        listener: TcpListener,
        onegate: Option<TcpListener>,
    ) -> io::Result<Oned> {
        let machines = settings.machines.clone();
        let bus = settings.bus;
        let connections = settings.connections;
        let mut front_end =
            FrontEnd::new(settings).map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        if let (None, Some(listener)) = (&front_end.onegate_endpoint, &onegate) {
            front_end.onegate_endpoint = Some(format!("http://{}", listener.local_addr()?));
        }
        let bus = bus.map(|listen| Bus::start(&front_end.bus, listen)).transpose()?;
        let shared = Arc::new(Shared::new(front_end));
        let address = listener.local_addr()?;
        let server = xmlrpc_server(&shared, listener, connections)?;
        let onegate = match onegate {
            Some(listener) => {
                let shared = shared.clone();
                Some(Server::start(listener, 4, move |request| {
                    onegate::serve(&shared, request)
                })?)
            }
            None => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let driver = {
            let (shared, stop) = (shared.clone(), stop.clone());
            std::thread::Builder::new()
                .name("oned-driver".into())
                .spawn(move || driver::run(&shared, machines.as_ref(), &|| stop.load(Ordering::SeqCst)))?
        };
        Ok(Oned {
            shared,
            address,
            connections,
            server: Some(server),
            onegate,
            bus_address: bus.as_ref().map(Bus::address),
            bus,
            stop,
            driver: Some(driver),
        })
    }

    /// Where it is reached: `http://127.0.0.1:PORT/RPC2`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/RPC2", self.address)
    }

    /// Where OneGate is reached.
    #[must_use]
    pub fn onegate_endpoint(&self) -> Option<String> {
        self.onegate
            .as_ref()
            .map(|server| format!("http://{}", server.address()))
    }

    /// Where its event bus is, as `HOST:PORT`.
    #[must_use]
    pub fn bus_address(&self) -> Option<String> {
        self.bus_address.map(|address| address.to_string())
    }

    /// What goes wrong with what is published.
    pub fn bus_faults(&self, faults: BusFaults) {
        self.shared.lock().bus.set_faults(faults);
    }

    /// Whether anybody hears the bus.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.shared.lock().bus.is_heard()
    }

    /// The hook manager is down: its connections close, and none are taken.
    pub fn close_bus(&mut self) {
        self.bus = None;
    }

    /// It is back, where it was.
    pub fn open_bus(&mut self) -> io::Result<()> {
        if let (None, Some(address)) = (&self.bus, self.bus_address) {
            self.bus = Some(Bus::start(&self.shared.lock().bus, address)?);
        }
        Ok(())
    }

    /// Somebody publishes that a VM is in this state, which need not be so.
    pub fn lie(&self, vm: u32, state: State) {
        let front_end = self.shared.lock();
        front_end.tell_vm_as(vm, state.numbers(), (3, 3));
    }

    /// Ends it at once, as dropping it does.
    pub fn stop(self) {}

    /// oned is down: connections are refused; VMs go on.
    pub fn pause(&mut self) {
        self.server = None;
    }

    /// oned is back on the same port, with all that it knew. The port is taken in the calling
    /// thread's network namespace.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.server.is_none() {
            let listener = TcpListener::bind(self.address)?;
            self.server = Some(xmlrpc_server(&self.shared, listener, self.connections)?);
        }
        Ok(())
    }

    /// Makes calls go wrong.
    pub fn fault(&self, rule: Rule) {
        self.shared.lock().faults.0.push(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.0.clear();
    }

    /// How many calls of the method were seen.
    #[must_use]
    pub fn calls(&self, method: &str) -> u64 {
        self.shared.lock().counters.get(method).copied().unwrap_or(0)
    }

    /// How many calls were seen, by method.
    #[must_use]
    pub fn all_calls(&self) -> BTreeMap<String, u64> {
        self.shared.lock().counters.clone()
    }

    /// No VM leaves this phase until the phase is let.
    pub fn hold_phase(&self, phase: Phase) {
        self.shared.lock().held.insert(phase);
    }

    /// VMs leave the phase again.
    pub fn let_phase(&self, phase: Phase) {
        self.shared.lock().unpark(phase);
        self.shared.notify();
    }

    /// The VM's next work of this phase fails with these words.
    pub fn fail_phase(&self, vm: u32, phase: Phase, text: &str) {
        self.shared.lock().fails.insert((vm, phase), text.to_owned());
    }

    /// The VM's guest overhears soft shutdowns from now on.
    pub fn ignore_shutdown(&self, vm: u32) {
        self.shared.lock().deaf.insert(vm);
    }

    /// The VM's guest ended by itself: it becomes POWEROFF.
    pub fn die(&self, vm: u32) {
        self.force(vm, State::Poweroff);
    }

    /// oned lost sight of the VM: it becomes UNKNOWN.
    pub fn lose(&self, vm: u32) {
        self.force(vm, State::Active(Lcm::Unknown));
    }

    /// Brings a VM into any state, as if a driver had said so.
    pub fn force(&self, vm: u32, state: State) {
        self.shared.lock().set(vm, state);
        self.shared.notify();
    }

    /// Removes a VM without a trace, as if somebody had cleaned the database.
    pub fn vanish(&self, vm: u32) {
        let mut front_end = self.shared.lock();
        front_end.set(vm, State::Done);
        front_end.vms.remove(&vm);
    }

    /// Changes USER_TEMPLATE: a tag, READY, SCHED_MESSAGE. None takes the attribute away.
    pub fn set_tag(&self, vm: u32, key: &str, value: Option<&str>) {
        let mut front_end = self.shared.lock();
        let Some(vm) = front_end.vm_mut(vm) else { return };
        match value {
            Some(text) => crate::vm::replace(&mut vm.user_template, key, text),
            None => vm.user_template.0.retain(|(name, _)| name != key),
        }
    }

    /// Puts a waiting VM on a host, as the scheduler does.
    pub fn schedule(&self, vm: u32, host: u32) {
        self.shared.lock().place(vm, host, true);
        self.shared.notify();
    }

    /// Changes a host's state.
    pub fn set_host(&self, host: u32, state: HostState) {
        if let Some(host) = self.shared.lock().host_mut(host) {
            host.state = state;
        }
        self.shared.lock().tell_host(host);
    }

    /// Sets a user's VM quotas: VMs, percent of a core, MiB; -1 for none. They do not bind oneadmin.
    pub fn set_quota(&self, user: &str, vms: i64, cpu_percent: i64, memory_mb: i64) {
        let mut front_end = self.shared.lock();
        if let Some(user) = front_end.users.iter_mut().find(|other| other.setup.name == user) {
            user.quota = Some(Quota {
                vms,
                cpu_percent,
                memory_mb,
            });
        }
    }

    /// Sets the VM quotas of a group: 1 is `users`, that all but oneadmin are in.
    pub fn set_group_quota(&self, group: u32, vms: i64, cpu_percent: i64, memory_mb: i64) {
        self.shared.lock().group_quotas.insert(
            group,
            Quota {
                vms,
                cpu_percent,
                memory_mb,
            },
        );
    }

    /// What is known of a VM, DONE or not.
    #[must_use]
    pub fn vm(&self, id: u32) -> Option<VmView> {
        self.shared.lock().vms.get(&id).map(view)
    }

    /// All VMs that are not DONE.
    #[must_use]
    pub fn vms(&self) -> Vec<VmView> {
        let front_end = self.shared.lock();
        front_end
            .live
            .iter()
            .filter_map(|id| front_end.vms.get(id))
            .map(view)
            .collect()
    }

    /// What a host has promised: VMs, percent of a core, MiB.
    #[must_use]
    pub fn promised(&self, host: u32) -> (usize, u64, u64) {
        let front_end = self.shared.lock();
        front_end.hosts.get(host as usize).map_or((0, 0, 0), |host| {
            (host.vms.len(), host.cpu_percent, host.memory_mb)
        })
    }
}

impl Drop for Oned {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.shared.notify();
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

fn view(vm: &crate::vm::Vm) -> VmView {
    VmView {
        id: vm.id,
        name: vm.name.clone(),
        state: vm.state,
        host: vm.host(),
        tags: vm.tags(),
        context: vm
            .template
            .vectors("CONTEXT")
            .next()
            .unwrap_or_default()
            .iter()
            .cloned()
            .collect(),
        onegate_token: vm.token.clone(),
    }
}

fn xmlrpc_server(shared: &Arc<Shared>, listener: TcpListener, connections: usize) -> io::Result<Server> {
    let shared = shared.clone();
    Server::start(listener, connections, move |request| answer(&shared, request))
}

fn answer(shared: &Shared, request: &Request) -> Reply {
    if request.path != "/RPC2" {
        return Reply::status(404);
    }
    if request.method != "POST" {
        return Reply::status(405);
    }
    let xml = |text: String| Reply::Answer {
        status: 200,
        kind: "text/xml; charset=utf-8",
        body: text.into_bytes(),
    };
    let parsed = match std::str::from_utf8(&request.body) {
        Ok(text) => xmlrpc::parse_call(text),
        Err(_) => Err(xmlrpc::Fault::new(
            -503,
            "Call XML not a proper XML-RPC call. Not UTF-8",
        )),
    };
    let (method, params) = match parsed {
        Ok(call) => call,
        Err(fault) => return xml(xmlrpc::response(&Err(fault))),
    };
    let (delay, fault) = shared.lock().faults.take(&method);
    if !delay.is_zero() {
        std::thread::sleep(delay.min(Duration::from_secs(60)));
    }
    let counted = || {
        *shared.lock().counters.entry(method.clone()).or_default() += 1;
    };
    let execute = || {
        let result = calls::execute(&mut shared.lock(), &method, &params);
        shared.notify();
        xmlrpc::response(&result)
    };
    match fault {
        // Delays were served before.
        None | Some(Fault::Slow(_)) => xml(execute()),
        Some(Fault::LoseAnswer) => {
            execute();
            Reply::Nothing
        }
        Some(Fault::CutAnswer) => Reply::Half(execute().into_bytes()),
        Some(Fault::Refuse(code, text)) => {
            counted();
            let refusal = Refusal { code, text, id: -1 };
            xml(xmlrpc::response(&Ok(Value::Array(calls::refused(
                &method, &refusal,
            )))))
        }
        Some(Fault::Drop) => {
            counted();
            Reply::Nothing
        }
        Some(Fault::Page(status, kind, text)) => {
            counted();
            Reply::Answer {
                status,
                kind,
                body: text.into_bytes(),
            }
        }
        Some(Fault::Huge(bytes)) => {
            counted();
            let start = "<?xml version=\"1.0\"?><methodResponse><params><param><value><array><data><value><boolean>1</boolean></value><value><string>";
            let mut text = String::with_capacity(start.len() + bytes);
            text.push_str(start);
            text.extend(std::iter::repeat_n('x', bytes));
            xml(text)
        }
        Some(Fault::EntityBomb) => {
            counted();
            xml(entity_bomb())
        }
    }
}
