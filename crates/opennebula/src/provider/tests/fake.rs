//! An oned in memory that can be told to have bad days.

use crate::client::{Recovery, VmAction};
use crate::error::{Class, Error};
use crate::model::{Host, Network, Template, User, VmDetails, VmRow};
use crate::secgroup::ranges::Range;
use crate::secgroup::{Card, SecGroup, Wired, Wires};
use crate::state::{HostState, LcmState, VmState};
use crate::syntax;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};

/// The id of our user.
pub const ME: u32 = 2;

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The work is done, the answer is lost.
    LoseAnswer,
    /// Nothing is done, and this is the answer.
    Refuse(Class, &'static str),
}

#[derive(Debug, Clone)]
pub struct Vm {
    pub state: VmState,
    pub host: Option<u32>,
    pub tags: BTreeMap<String, String>,
    /// Extra, or whole template, as it was sent.
    pub sent: String,
    pub error: Option<String>,
    /// The security groups of its card.
    pub groups: BTreeSet<u32>,
}

/// A VM with these tags, in this state.
pub fn vm(state: VmState, tags: &[(&str, &str)]) -> Vm {
    Vm {
        state,
        host: None,
        tags: tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        sent: String::new(),
        error: None,
        groups: BTreeSet::from([0]),
    }
}

/// The address of a VM's only card.
pub fn address(vm: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0A02_0000 + vm)
}

#[derive(Debug, Default)]
pub struct Inside {
    pub vms: BTreeMap<u32, Vm>,
    /// Not shown to this user.
    pub hidden: Vec<u32>,
    /// Another user's now, whom this user may see.
    pub given: Vec<u32>,
    /// Another user's now, whom this user may not see.
    pub unseen: Vec<u32>,
    /// There, and in no listing.
    pub left_out: Vec<u32>,
    pub next: u32,
    pub calls: Vec<String>,
    pub faults: BTreeMap<&'static str, VecDeque<Fault>>,
    pub templates: Vec<(u32, &'static str, &'static str)>,
    pub version: &'static str,
    pub no_hosts: bool,
    /// Security groups: whose, and what is in them.
    pub groups: BTreeMap<u32, (u32, syntax::Template)>,
    /// VMs with old rules of a group.
    pub untold: BTreeSet<u32>,
    /// Whether the scheduler still has to choose cards' networks.
    pub unchosen: bool,
}

impl Inside {
    fn lists(&self, id: u32) -> bool {
        !self.unseen.contains(&id) && !self.left_out.contains(&id)
    }

    fn details(&self, id: u32, vm: &Vm) -> VmDetails {
        VmDetails {
            row: row(id, vm),
            user_template: vm.tags.clone(),
            context: BTreeMap::new(),
            owner: match self.given.contains(&id) {
                true => (9, "bob".to_owned()),
                false => (ME, "slurm".to_owned()),
            },
        }
    }
}

#[derive(Debug)]
pub struct Fake(Mutex<Inside>);

impl Default for Fake {
    fn default() -> Self {
        Self(Mutex::new(Inside {
            version: "7.4.1",
            templates: vec![(5, "worker", "slurm")],
            ..Inside::default()
        }))
    }
}

fn no_vm(vm: u32) -> Error {
    Error::new(
        Class::NoSuchObject,
        format!("Error getting virtual machine [{vm}]"),
    )
}

fn wrong(what: &str, state: VmState) -> Error {
    Error::new(
        Class::WrongState,
        format!("{what} is not available for state {state}"),
    )
}

impl Fake {
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// The next call of that name goes wrong.
    pub fn fault(&self, call: &'static str, fault: Fault) {
        self.inside().faults.entry(call).or_default().push_back(fault);
    }

    /// The calls since this was last asked.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inside().calls)
    }

    pub fn put(&self, id: u32, vm: Vm) {
        let mut inside = self.inside();
        inside.next = inside.next.max(id + 1);
        inside.vms.insert(id, vm);
    }

    pub fn state(&self, id: u32) -> VmState {
        self.inside().vms[&id].state
    }

    pub fn set(&self, id: u32, state: VmState) {
        self.inside().vms.get_mut(&id).unwrap().state = state;
    }

    pub fn alive(&self) -> Vec<u32> {
        let inside = self.inside();
        let alive = inside.vms.iter().filter(|(_, vm)| vm.state != VmState::Done);
        alive.map(|(id, _)| *id).collect()
    }

    /// Every VM goes one step of its way.
    pub fn pass(&self) {
        for vm in self.inside().vms.values_mut() {
            vm.state = match vm.state {
                VmState::Active(LcmState::Prolog) => VmState::Active(LcmState::Boot),
                VmState::Active(LcmState::Boot) => VmState::Active(LcmState::Running),
                VmState::Active(LcmState::Shutdown) => VmState::Active(LcmState::Epilog),
                VmState::Active(LcmState::Epilog) => VmState::Done,
                state => state,
            };
        }
    }

    fn call<T>(
        &self,
        name: &'static str,
        what: String,
        work: impl FnOnce(&mut Inside) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut inside = self.inside();
        inside.calls.push(if what.is_empty() {
            name.to_owned()
        } else {
            format!("{name} {what}")
        });
        match inside.faults.get_mut(name).and_then(VecDeque::pop_front) {
            None => work(&mut inside),
            Some(Fault::Refuse(class, text)) => Err(Error::new(class, text)),
            Some(Fault::LoseAnswer) => {
                let _ = work(&mut inside);
                Err(Error::new(Class::Network, "the answer was lost"))
            }
        }
    }

    pub fn version(&self) -> Result<String, Error> {
        self.call("version", String::new(), |inside| Ok(inside.version.to_owned()))
    }

    pub fn user(&self) -> Result<User, Error> {
        self.call("user", String::new(), |_| {
            Ok(User {
                id: ME,
                name: "slurm".to_owned(),
                groups: vec![1],
                template: BTreeMap::new(),
                quotas: vec![],
            })
        })
    }

    pub fn hosts(&self) -> Result<Vec<Host>, Error> {
        self.call("hosts", String::new(), |inside| {
            let host = |id: u32| Host {
                id,
                name: format!("h{id}"),
                state: HostState::Monitored,
                cluster: "default".to_owned(),
                cluster_id: 0,
                hypervisor: "kvm".to_owned(),
                max_cpu_percent: 6400,
                promised_cpu_percent: 0,
                max_memory_mb: 1 << 20,
                promised_memory_mb: 0,
                vms: 0,
                beyond: None,
                pci: None,
                load: None,
            };
            Ok(if inside.no_hosts {
                vec![]
            } else {
                (1..3).map(host).collect()
            })
        })
    }

    pub fn vms(&self) -> Result<Vec<VmRow>, Error> {
        self.call("vms", String::new(), |inside| {
            let shown = inside
                .vms
                .iter()
                .filter(|(id, vm)| vm.state != VmState::Done && !inside.hidden.contains(id))
                .filter(|(id, _)| !inside.given.contains(id) && inside.lists(**id));
            Ok(shown.map(|(id, vm)| row(*id, vm)).collect())
        })
    }

    pub fn vms_of(&self, ids: &[u32]) -> Result<Vec<VmDetails>, Error> {
        let what = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        self.call("vms_of", what, |inside| {
            let shown = inside
                .vms
                .iter()
                .filter(|(id, _)| ids.contains(id) && !inside.hidden.contains(id))
                .filter(|(id, _)| inside.lists(**id));
            Ok(shown.map(|(id, vm)| inside.details(*id, vm)).collect())
        })
    }

    pub fn vm(&self, id: u32) -> Result<VmDetails, Error> {
        self.call("vm", id.to_string(), |inside| {
            if inside.unseen.contains(&id) {
                let text = format!("User [{ME}] : Not authorized to perform USE VM [{id}]");
                return Err(Error::new(Class::Authorization, text));
            }
            let found = inside.vms.get(&id).filter(|_| !inside.hidden.contains(&id));
            found.map(|vm| inside.details(id, vm)).ok_or_else(|| no_vm(id))
        })
    }

    pub fn templates(&self) -> Result<Vec<Template>, Error> {
        self.call("templates", String::new(), |inside| {
            Ok(inside.templates.iter().map(template).collect())
        })
    }

    pub fn template(&self, id: u32) -> Result<Template, Error> {
        self.call("template", id.to_string(), |inside| {
            let found = inside.templates.iter().find(|known| known.0 == id);
            found
                .map(template)
                .ok_or_else(|| Error::new(Class::NoSuchObject, "no such template"))
        })
    }

    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        self.call("networks", String::new(), |_| {
            Ok(vec![Network {
                id: 12,
                name: "net".to_owned(),
                addresses: 100,
                used: 0,
                clusters: vec![0],
            }])
        })
    }

    pub fn instantiate(&self, template: u32, name: &str, extra: &str) -> Result<u32, Error> {
        self.call("instantiate", format!("{template} {name}"), |inside| {
            if !inside.templates.iter().any(|known| known.0 == template) {
                return Err(Error::new(
                    Class::NoSuchObject,
                    "Error getting virtual machine template",
                ));
            }
            Ok(make(inside, extra))
        })
    }

    pub fn allocate(&self, template: &str) -> Result<u32, Error> {
        self.call("allocate", String::new(), |inside| Ok(make(inside, template)))
    }

    /// Without a call of its own: tests that count calls are not about it.
    pub fn places(&self) -> Result<crate::places::Places, Error> {
        Ok(crate::places::Places::default())
    }

    pub fn deploy(&self, vm: u32, host: u32, store: Option<u32>) -> Result<(), Error> {
        let store = store.map(|store| format!(" in {store}")).unwrap_or_default();
        self.call("deploy", format!("{vm} {host}{store}"), |inside| {
            let vm = inside.vms.get_mut(&vm).ok_or_else(|| no_vm(vm))?;
            if !matches!(vm.state, VmState::Hold | VmState::Pending) {
                return Err(wrong("Deploy action", vm.state));
            }
            vm.state = VmState::Active(LcmState::Prolog);
            vm.host = Some(host);
            Ok(())
        })
    }

    pub fn action(&self, vm: u32, action: VmAction) -> Result<(), Error> {
        self.call("action", format!("{action:?} {vm}"), |inside| {
            let vm = inside.vms.get_mut(&vm).ok_or_else(|| no_vm(vm))?;
            let hard = match action {
                VmAction::Release if vm.state == VmState::Hold => {
                    vm.state = VmState::Pending;
                    return Ok(());
                }
                VmAction::Release => return Err(wrong("release", vm.state)),
                VmAction::Terminate => false,
                VmAction::TerminateHard => true,
            };
            if !vm.state.takes_terminate(hard) {
                return Err(wrong("terminate", vm.state));
            }
            vm.state = match vm.state {
                VmState::Active(LcmState::Running) if !hard => VmState::Active(LcmState::Shutdown),
                VmState::Active(_) => VmState::Active(LcmState::Epilog),
                _ => VmState::Done,
            };
            Ok(())
        })
    }

    pub fn recover(&self, vm: u32, how: Recovery) -> Result<(), Error> {
        self.call("recover", format!("{how:?} {vm}"), |inside| {
            inside.vms.get_mut(&vm).ok_or_else(|| no_vm(vm))?.state = VmState::Done;
            Ok(())
        })
    }
}

impl Fake {
    /// A group of somebody's.
    pub fn put_group(&self, id: u32, owner: u32, body: syntax::Template) {
        self.inside().groups.insert(id, (owner, body));
    }

    /// The ids of all groups, and whose VMs' cards are in which.
    pub fn in_groups(&self) -> (Vec<u32>, BTreeMap<u32, Vec<u32>>) {
        let inside = self.inside();
        let of = |vm: &Vm| vm.groups.iter().copied().collect();
        let alive = inside.vms.iter().filter(|(_, vm)| vm.state != VmState::Done);
        (
            inside.groups.keys().copied().collect(),
            alive.map(|(id, vm)| (*id, of(vm))).collect(),
        )
    }

    /// The addresses that a group's rules name, inbound.
    pub fn let_in(&self, group: u32) -> Vec<String> {
        let inside = self.inside();
        let (_, body) = &inside.groups[&group];
        let get = |rule: &[(String, String)], name: &str| {
            let found = rule.iter().find(|(key, _)| key == name);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let rules = body
            .vectors("RULE")
            .filter(|rule| get(rule, "RULE_TYPE") == "INBOUND");
        rules
            .map(|rule| format!("{}+{}", get(rule, "IP"), get(rule, "SIZE")))
            .collect()
    }

    pub fn secgroups(&self) -> Result<Vec<SecGroup>, Error> {
        self.call("secgroups", String::new(), |inside| {
            let own = inside.groups.iter().filter(|(_, (owner, _))| *owner == ME);
            Ok(own
                .map(|(id, (owner, body))| {
                    let vms: BTreeSet<u32> = inside
                        .vms
                        .iter()
                        .filter(|(_, vm)| vm.state != VmState::Done && vm.groups.contains(id))
                        .map(|(id, _)| *id)
                        .collect();
                    SecGroup {
                        id: *id,
                        name: body.get("NAME").unwrap_or_default().to_owned(),
                        owner: *owner,
                        failed: vms.intersection(&inside.untold).copied().collect(),
                        waiting: BTreeSet::new(),
                        vms,
                        body: body.clone(),
                    }
                })
                .collect())
        })
    }

    pub fn make_secgroup(&self, template: &syntax::Template) -> Result<u32, Error> {
        let name = template.get("NAME").unwrap_or_default().to_owned();
        self.call("make_secgroup", name.clone(), |inside| {
            let mut all = inside.groups.iter();
            if let Some((id, _)) =
                all.find(|(_, (owner, body))| *owner == ME && body.get("NAME") == Some(&name))
            {
                return Err(Error::new(
                    Class::Unknown,
                    format!("NAME is already taken by SecurityGroup {id}"),
                ));
            }
            let id = inside.groups.keys().last().map_or(100, |last| last + 1);
            inside.groups.insert(id, (ME, template.clone()));
            Ok(id)
        })
    }

    pub fn update_secgroup(&self, id: u32, template: &syntax::Template) -> Result<(), Error> {
        self.call("update_secgroup", id.to_string(), |inside| {
            let Some((_, body)) = inside.groups.get_mut(&id) else {
                return Err(Error::new(Class::NoSuchObject, "no such security group"));
            };
            let name = body.get("NAME").unwrap_or_default().to_owned();
            *body = template.clone();
            body.set("NAME", name);
            let boots = |vm: &Vm| vm.state == VmState::Active(LcmState::Boot) && vm.groups.contains(&id);
            let untold: Vec<u32> = inside
                .vms
                .iter()
                .filter(|(_, vm)| boots(vm))
                .map(|(id, _)| *id)
                .collect();
            inside.untold.extend(untold);
            Ok(())
        })
    }

    pub fn commit_secgroup(&self, id: u32) -> Result<(), Error> {
        self.call("commit_secgroup", id.to_string(), |inside| {
            let vms = &inside.vms;
            inside
                .untold
                .retain(|vm| vms[vm].state == VmState::Active(LcmState::Boot));
            Ok(())
        })
    }

    pub fn delete_secgroup(&self, id: u32) -> Result<(), Error> {
        self.call("delete_secgroup", id.to_string(), |inside| {
            let used = |vm: &Vm| vm.state != VmState::Done && vm.groups.contains(&id);
            if inside.vms.values().any(used) {
                return Err(Error::new(
                    Class::WrongState,
                    "The security group has VMs using it",
                ));
            }
            inside.groups.remove(&id);
            Ok(())
        })
    }

    pub fn card(&self, call: &'static str, vm: u32, group: u32, to: bool) -> Result<(), Error> {
        self.call(call, format!("{vm} {group}"), |inside| {
            let vm = inside.vms.get_mut(&vm).ok_or_else(|| no_vm(vm))?;
            if vm.state == VmState::Active(LcmState::Boot) {
                return Err(wrong("attachsg", vm.state));
            }
            let done = if to {
                vm.groups.insert(group)
            } else {
                vm.groups.remove(&group)
            };
            assert!(done, "{call} of a card that is so already");
            Ok(())
        })
    }

    pub fn wired(&self, ids: &[u32]) -> Result<Vec<Wired>, Error> {
        let what = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        self.call("wired", what, |inside| {
            let unchosen = inside.unchosen;
            let found = inside.vms.iter().filter(|(id, _)| ids.contains(id));
            Ok(found
                .map(|(id, vm)| Wired {
                    id: *id,
                    over: vm.state == VmState::Done,
                    cards: vec![Card {
                        id: 0,
                        network: (!unchosen).then_some(12),
                        address: (!unchosen).then(|| address(*id)),
                        unchosen,
                        groups: vm.groups.clone(),
                    }],
                    name_servers: BTreeSet::from([Ipv4Addr::new(10, 0, 0, 53)]),
                    onegate: None,
                })
                .collect())
        })
    }

    pub fn wires(&self) -> Result<Vec<Wires>, Error> {
        self.call("wires", String::new(), |_| {
            Ok(vec![Wires {
                id: 12,
                name: "net".to_owned(),
                driver: "fw".to_owned(),
                groups: BTreeSet::from([0]),
                filters: (true, true),
                ranges: Range::of_size(address(0), 100).into_iter().collect(),
            }])
        })
    }
}

fn row(id: u32, vm: &Vm) -> VmRow {
    VmRow {
        id,
        name: "prod-fg0-1".to_owned(),
        state: vm.state,
        host: vm.host.map(|host| (format!("h{host}"), host)),
        cpu_percent: 100,
        memory_mb: 1088,
        beyond: None,
        addresses: vec![],
        error: vm.error.clone(),
        sched_message: None,
    }
}

fn template((id, name, owner): &(u32, &'static str, &'static str)) -> Template {
    Template {
        id: *id,
        name: (*name).to_owned(),
        owner: (*owner).to_owned(),
        body: syntax::Template::parse("CONTEXT = [ SSH_PUBLIC_KEY = \"$USER[SSH_PUBLIC_KEY]\" ]").unwrap(),
    }
}

/// Makes a VM; its tags are what stands between the XML's marks.
fn make(inside: &mut Inside, xml: &str) -> u32 {
    let tag = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some((name.to_owned(), value.to_owned()))
    };
    let id = inside.next;
    inside.next += 1;
    let tags = ["THIAO_CLUSTER", "THIAO_NODE", "THIAO_GENERATION"];
    inside.vms.insert(
        id,
        Vm {
            state: VmState::Hold,
            host: None,
            tags: tags.into_iter().filter_map(tag).collect(),
            sent: xml.to_owned(),
            error: None,
            groups: BTreeSet::from([0]),
        },
    );
    id
}
