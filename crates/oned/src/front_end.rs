//! Everything that oned knows, and how a VM goes from state to state.

use crate::bus::Publisher;
use crate::faults::Faults;
use crate::group::Group;
use crate::host::Host;
use crate::image::Image;
use crate::lifecycle::{Lcm, Phase, State};
use crate::network::Network;
use crate::refusal::Refusal;
use crate::secgroup::SecGroup;
use crate::settings::Settings;
use crate::settings::UserSetup;
use crate::template::Registered;
use crate::user::User;
use crate::vm::Vm;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiao_opennebula::acl::Rule;
use thiao_opennebula::syntax::Template;

/// Everything that this oned knows.
pub struct FrontEnd {
    /// As it was started.
    pub settings: Settings,
    /// Users, ordered by their ids.
    pub users: Vec<User>,
    /// Groups, ordered by their ids.
    pub groups: Vec<Group>,
    /// The next group's id.
    pub next_group: u32,
    /// ACL rules with their ids, in the order in which they were made.
    pub rules: Vec<(u32, Rule)>,
    /// The next rule's id.
    pub next_rule: u32,
    /// Images, by their ids.
    pub images: BTreeMap<u32, Image>,
    /// The next image's id.
    pub next_image: u32,
    /// The next user's id: none is given twice.
    pub next_user: u32,
    /// Quotas of groups, by the group's id.
    pub group_quotas: BTreeMap<u32, crate::quota::Quota>,
    /// Hosts, ordered by their ids.
    pub hosts: Vec<Host>,
    /// Networks, ordered by their ids.
    pub networks: Vec<Network>,
    /// Security groups, ordered by their ids.
    pub secgroups: Vec<SecGroup>,
    /// The next group's id at least: none is given twice.
    pub next_secgroup: u32,
    /// VMs for which other rules hold now.
    pub rewired: BTreeSet<u32>,
    pub templates: BTreeMap<u32, Registered>,
    /// The next template's id.
    pub next_template: u32,
    /// VMs, DONE ones too.
    pub vms: BTreeMap<u32, Vm>,
    /// Those that are not DONE.
    pub live: BTreeSet<u32>,
    /// The next VM's id.
    pub next_vm: u32,
    /// What goes wrong on demand.
    pub faults: Faults,
    /// Calls seen, by method.
    pub counters: BTreeMap<String, u64>,
    /// When a driver is ready with a VM: time, VM, the VM's epoch.
    pub due: BinaryHeap<Reverse<(Instant, u32, u64)>>,
    /// Phases that no VM leaves.
    pub held: BTreeSet<Phase>,
    /// VMs that wait in a held phase, with their epochs.
    pub parked: Vec<(u32, u64)>,
    /// VMs whose machine was asked to end, and until when it may.
    pub ending: BTreeMap<u32, Instant>,
    /// VMs whose next work of this phase fails with these words.
    pub fails: BTreeMap<(u32, Phase), String>,
    /// VMs whose guests overhear a soft shutdown.
    pub deaf: BTreeSet<u32>,
    /// What publishes what happens.
    pub bus: Publisher,
    /// What guests are told of OneGate's address.
    pub onegate_endpoint: Option<String>,
    /// The number of the last request that a history record names.
    pub request: u32,
}

impl FrontEnd {
    /// A front-end as the settings say.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let mut front_end = FrontEnd {
            users: Vec::new(),
            groups: Group::first(),
            next_group: 100,
            rules: Vec::new(),
            next_rule: 0,
            images: Image::first(),
            next_image: 1,
            next_user: 0,
            group_quotas: BTreeMap::new(),
            hosts: Vec::new(),
            networks: Vec::new(),
            secgroups: SecGroup::first(),
            next_secgroup: 0,
            rewired: BTreeSet::new(),
            templates: BTreeMap::new(),
            next_template: 0,
            vms: BTreeMap::new(),
            live: BTreeSet::new(),
            next_vm: 0,
            faults: Faults::default(),
            counters: BTreeMap::new(),
            due: BinaryHeap::new(),
            held: BTreeSet::new(),
            parked: Vec::new(),
            ending: BTreeMap::new(),
            fails: BTreeMap::new(),
            deaf: BTreeSet::new(),
            bus: Publisher::default(),
            onegate_endpoint: settings.onegate_endpoint.clone(),
            request: 0,
            settings,
        };
        front_end.first_rules();
        for setup in front_end.settings.users.clone() {
            front_end.add_user(setup);
        }
        for (id, setup) in (0..).zip(front_end.settings.hosts.clone()) {
            front_end.hosts.push(Host::new(id, setup));
        }
        for (id, setup) in (0..).zip(front_end.settings.networks.clone()) {
            front_end.networks.push(Network::new(id, setup));
        }
        for setup in front_end.settings.templates.clone() {
            let body = crate::template::parse(&setup.body)
                .map_err(|error| format!("template {}: {error}", setup.name))?;
            front_end.add_template(
                0,
                0,
                ("oneadmin".into(), "oneadmin".into()),
                setup.name,
                body,
                setup.public,
            );
        }
        Ok(front_end)
    }

    /// Makes a user. The first is oneadmin; OpenNebula's own `serveradmin` comes with him.
    pub fn add_user(&mut self, setup: UserSetup) -> u32 {
        let gid = u32::from(self.next_user > 1);
        self.add_user_to(setup, gid)
    }

    /// Makes a user of a group, which is there.
    pub fn add_user_to(&mut self, setup: UserSetup, gid: u32) -> u32 {
        let id = self.next_user;
        self.next_user += 1;
        let driver = if id == 1 { "server_cipher" } else { "core" };
        for right in &setup.rights.clone() {
            self.add_text_rule(&format!("#{id} {right}"));
        }
        let gname = self.groups.iter().find(|group| group.id == gid);
        let gname = gname.map(|group| group.name.clone()).unwrap_or_default();
        self.users.push(User {
            id,
            gid,
            gname,
            setup,
            driver,
            tokens: Vec::new(),
            quota: None,
        });
        if id == 0 {
            self.add_user(UserSetup::new("serveradmin", &secret()));
        }
        id
    }

    /// Registers a template, and gives its id.
    pub fn add_template(
        &mut self,
        uid: u32,
        gid: u32,
        owner: (String, String),
        name: String,
        body: Template,
        public: bool,
    ) -> u32 {
        let id = self.next_template;
        self.next_template += 1;
        let time = self.now();
        self.templates.insert(
            id,
            Registered {
                id,
                uid,
                gid,
                owner,
                name,
                body,
                public,
                time,
            },
        );
        id
    }

    /// The time, in Unix seconds.
    pub fn now(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    }

    /// The VM, to change it.
    pub fn vm_mut(&mut self, id: u32) -> Option<&mut Vm> {
        let vm = self.vms.get_mut(&id)?;
        vm.cache = None;
        Some(vm)
    }

    fn takes(&self, phase: Phase) -> Duration {
        self.settings
            .phases
            .get(&phase)
            .copied()
            .unwrap_or(self.settings.phase)
    }

    /// Brings a VM into a state by a call: listings show the old one for a while.
    pub fn set_by_call(&mut self, id: u32, state: State) {
        let lag = self.settings.lag;
        let old = self.vms.get(&id).map(|vm| vm.state);
        self.set(id, state);
        if let (Some(old), false) = (old, lag.is_zero())
            && let Some(vm) = self.vm_mut(id)
        {
            vm.shown = Some((old, Instant::now() + lag));
        }
    }

    /// Brings a VM into a state, with all that goes with it.
    pub fn set(&mut self, id: u32, state: State) {
        let now = self.now();
        let Some(vm) = self.vm_mut(id) else { return };
        // Counted on both hosts as long as it was in MIGRATE or SAVE_MIGRATE (`LifeCycleActions.cc` of 7.4:
        // `trigger_migrate`; `LifeCycleStates.cc`: `start_prolog_migrate`).
        let left = match vm.state {
            State::Active(Lcm::Migrate | Lcm::SaveMigrate) => vm.host_before(),
            _ => None,
        };
        let before = match (vm.state, state) {
            // Told when it was placed (`place`).
            (
                State::Pending | State::Hold | State::Stopped | State::Undeployed,
                State::Active(Lcm::Prolog | Lcm::PrologResume | Lcm::PrologUndeploy),
            ) => (3, 0),
            (before, _) => before.numbers(),
        };
        vm.state = state;
        vm.epoch += 1;
        let epoch = vm.epoch;
        let moves = matches!(state, State::Active(Lcm::Migrate | Lcm::SaveMigrate));
        let is_moved = matches!(
            state,
            State::Active(Lcm::PrologMigratePoweroff | Lcm::PrologMigrateSuspend)
        );
        if (moves || is_moved)
            && let (Some(to), Some(from)) = (vm.target.take(), vm.host())
        {
            if !moves {
                self.vacate(id, from);
            }
            self.stay(id, to, false);
        }
        if let Some(left) = left {
            self.vacate(id, left);
        }
        let Some(vm) = self.vm_mut(id) else { return };
        stamp(&mut vm.history, state, now);
        if state == State::Active(Lcm::Running) {
            vm.deploy_id = match vm.history.last() {
                Some(stay) => format!("{}:{}:dummy", stay.hostname, vm.name),
                None => String::new(),
            };
            vm.hard = false;
        } else if state == State::Done {
            vm.etime = now;
        }
        if let Some(host) = vm.host() {
            if state.on_host() {
                self.occupy(id, host)
            } else {
                self.vacate(id, host)
            }
        }
        if state == State::Done {
            self.live.remove(&id);
            self.release_leases(id);
            self.deaf.remove(&id);
        }
        self.ending.remove(&id);
        if before != state.numbers() {
            self.tell_vm(id, before);
        }
        if let State::Active(lcm) = state
            && let Some((phase, ..)) = lcm.work()
        {
            self.due
                .push(Reverse((Instant::now() + self.takes(phase), id, epoch)));
        }
    }

    /// Opens a stay on a host, and counts the VM there.
    pub fn stay(&mut self, id: u32, host: u32, by_scheduler: bool) {
        let now = self.now();
        let store = self.system_store(host, -1).unwrap_or_default();
        let named = |host: &mut Host| (host.setup.name.clone(), host.setup.cluster.id);
        let Some((hostname, cluster)) = self.host_mut(host).map(named) else {
            return;
        };
        let Some(vm) = self.vm_mut(id) else { return };
        // A machine that moves is on its old host until it is saved, or on the new one.
        if !matches!(vm.state, State::Active(Lcm::Migrate | Lcm::SaveMigrate))
            && let Some(last) = vm.history.last_mut()
        {
            close(last, now);
        }
        vm.history.push(crate::vm::History {
            host,
            hostname,
            cluster,
            store,
            by_scheduler,
            stime: now,
            etime: 0,
            prolog: (0, 0),
            running: (0, 0),
            epilog: (0, 0),
            action: None,
        });
        crate::vm::replace(&mut vm.template, "TM_MAD_SYSTEM", "dummy");
        self.occupy(id, host);
    }

    /// Notes who asked for what in the VM's present stay.
    pub fn note_action(&mut self, id: u32, action: u32, user: &User) {
        self.request = (self.request + 1) % 10_000;
        let request = self.request;
        if let Some(stay) = self.vm_mut(id).and_then(|vm| vm.history.last_mut()) {
            stay.action = Some((action, user.id, user.gid, request));
        }
    }

    /// The host of that id.
    pub fn host(&self, id: i32) -> Result<&Host, Refusal> {
        usize::try_from(id)
            .ok()
            .and_then(|at| self.hosts.get(at))
            .filter(|host| !host.deleted)
            .ok_or_else(|| Refusal::no_such_signed("host", id))
    }

    /// The host of that id.
    pub fn host_mut(&mut self, id: u32) -> Option<&mut Host> {
        self.hosts.get_mut(id as usize)
    }

    /// Counts a VM on a host.
    pub fn occupy(&mut self, vm: u32, host: u32) {
        let Some((cpu, memory)) = self.vms.get(&vm).map(|vm| (vm.cpu_percent, vm.memory_mb)) else {
            return;
        };
        if let Some(host) = self.host_mut(host)
            && host.vms.insert(vm)
        {
            host.cpu_percent += u64::from(cpu);
            host.memory_mb += memory;
        }
    }

    /// Counts a VM no longer on a host.
    pub fn vacate(&mut self, vm: u32, host: u32) {
        let Some((cpu, memory)) = self.vms.get(&vm).map(|vm| (vm.cpu_percent, vm.memory_mb)) else {
            return;
        };
        if let Some(host) = self.host_mut(host)
            && host.vms.remove(&vm)
        {
            host.cpu_percent = host.cpu_percent.saturating_sub(u64::from(cpu));
            host.memory_mb = host.memory_mb.saturating_sub(memory);
        }
    }

    fn release_leases(&mut self, id: u32) {
        let leases = self.vms.get(&id).map(|vm| vm.leases.clone()).unwrap_or_default();
        for (network, ip) in leases {
            if let Some(network) = self.networks.get_mut(network as usize) {
                network.leases.remove(&ip);
            }
        }
    }

    /// Writes oned's own note of a failure into the VM.
    pub fn note_error(&mut self, id: u32, text: &str) {
        if let Some(vm) = self.vm_mut(id) {
            crate::vm::replace(&mut vm.user_template, "ERROR", text);
        }
    }
}

/// Ends a VM's stay on a host at `now`.
fn close(stay: &mut crate::vm::History, now: u64) {
    if stay.running.0 != 0 && stay.running.1 == 0 {
        stay.running.1 = now;
    }
    if stay.epilog.0 != 0 && stay.epilog.1 == 0 {
        stay.epilog.1 = now;
    }
    if stay.etime == 0 {
        stay.etime = now;
    }
}

/// Writes the times of a state into the stays.
fn stamp(history: &mut [crate::vm::History], state: State, now: u64) {
    let Some((stay, before)) = history.split_last_mut() else {
        return;
    };
    match state {
        State::Active(lcm) => match lcm.work().map(|(phase, ..)| phase) {
            Some(Phase::Prolog) => stay.prolog.0 = now,
            Some(Phase::Boot) => {
                if stay.prolog.0 != 0 {
                    stay.prolog.1 = now;
                }
                stay.running.0 = now;
            }
            Some(Phase::Epilog) => {
                stay.running.1 = now;
                stay.epilog.0 = now;
            }
            Some(Phase::Migrate | Phase::Save | Phase::Shutdown | Phase::Cleanup | Phase::Hotplug) => {}
            None if lcm == Lcm::Running => {
                if stay.running.0 == 0 {
                    stay.running.0 = now;
                }
                if let Some(left) = before.last_mut() {
                    close(left, now);
                }
            }
            None if lcm == Lcm::BootFailure => stay.running.1 = now,
            None => {}
        },
        State::Suspended | State::Poweroff => stay.running.1 = now,
        State::Stopped | State::Undeployed | State::Pending | State::Done => close(stay, now),
        State::Hold => {}
    }
}

/// 64 hexadecimal digits that nobody can guess.
pub fn secret() -> String {
    use std::io::Read;
    let mut bytes = [0u8; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        // No source of randomness: the hasher's keys are random too.
        use std::hash::{BuildHasher, Hasher};
        for chunk in bytes.chunks_mut(8) {
            let word = std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish();
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
