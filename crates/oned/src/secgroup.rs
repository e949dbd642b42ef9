//! Security groups. Read of OpenNebula 7.4.0: `src/secgroup`, `src/rm/api/SecurityGroupAPI.cc`,
//! `DispatchManager::attach_sg` and `detach_sg`, `LifeCycleManager::trigger_updatesg`. What a host is told stands in
//! its VM's template; real machines are kept to it by `wall`.

use crate::front_end::FrontEnd;
use crate::lifecycle::{Lcm, State};
use crate::refusal::{Code, Refusal};
use crate::rights::Object;
use crate::template::{parse, update};
use crate::user::User;
use crate::vm::Vm;
use crate::xml;
use std::collections::BTreeSet;
use thiao_opennebula::syntax::{Template, Value};

/// Regular groups start from here.
const FIRST: u32 = 100;

/// What each network has, as oned makes it: everything passes.
const DEFAULT: &str =
    "RULE=[RULE_TYPE=\"OUTBOUND\",PROTOCOL=\"ALL\"]\nRULE=[RULE_TYPE=\"INBOUND\",PROTOCOL=\"ALL\"]";

/// A security group as oned keeps it.
#[derive(Debug, Clone)]
pub struct SecGroup {
    pub id: u32,
    uid: u32,
    gid: u32,
    owner: (String, String),
    name: String,
    body: Template,
    public: bool,
    /// VMs that still have the rules of before: nobody could tell their hosts.
    error: BTreeSet<u32>,
}

impl SecGroup {
    /// Those of a fresh installation.
    pub fn first() -> Vec<Self> {
        vec![Self {
            id: 0,
            uid: 0,
            gid: 0,
            owner: ("oneadmin".to_owned(), "oneadmin".to_owned()),
            name: "default".to_owned(),
            body: parse(DEFAULT).unwrap_or_default(),
            public: true,
            error: BTreeSet::new(),
        }]
    }

    fn object(&self) -> Object {
        Object {
            kind: "SECGROUP",
            id: Some(self.id),
            uid: self.uid,
            gid: self.gid,
            public: self.public,
        }
    }

    fn rules(&self) -> impl Iterator<Item = (String, Value)> {
        self.body.vectors("RULE").map(|rule| {
            let mut rule = rule.to_vec();
            rule.push(("SECURITY_GROUP_ID".to_owned(), self.id.to_string()));
            rule.push(("SECURITY_GROUP_NAME".to_owned(), self.name.clone()));
            ("SECURITY_GROUP_RULE".to_owned(), Value::Vector(rule))
        })
    }
}

/// The ids in a list like `0,105`.
pub fn numbers(list: &str) -> BTreeSet<u32> {
    list.split(',')
        .filter_map(|word| word.trim().parse().ok())
        .collect()
}

/// The groups of all cards of a VM.
fn groups_of(vm: &Vm) -> BTreeSet<u32> {
    let cards = vm.template.vectors("NIC").flatten();
    let lists = cards.filter(|(key, _)| key == "SECURITY_GROUPS");
    lists.flat_map(|(_, list)| numbers(list)).collect()
}

fn refused(text: impl AsRef<str>) -> Refusal {
    Refusal::plain(Code::Action, text.as_ref())
}

/// As `SecurityGroup::is_valid` has it, as far as we write such.
fn check_rules(body: &Template) -> Result<(), String> {
    for rule in body.vectors("RULE") {
        let get = |name: &str| {
            let found = rule.iter().find(|(key, _)| key == name);
            found.map(|(_, text)| text.as_str()).unwrap_or_default()
        };
        let (protocol, direction) = (get("PROTOCOL"), get("RULE_TYPE"));
        if !["TCP", "UDP", "ICMP", "ICMPV6", "IPSEC", "ALL"].contains(&protocol.to_ascii_uppercase().as_str())
        {
            return Err(
                "Wrong PROTOCOL in rule. Valid options: TCP, UDP, ICMP, ICMPV6, IPSEC, ALL.".to_owned(),
            );
        }
        if !get("RANGE").is_empty() && !["TCP", "UDP"].contains(&protocol) {
            return Err("RANGE is supported only for TCP and UDP protocols.".to_owned());
        }
        if !["INBOUND", "OUTBOUND"].contains(&direction.to_ascii_uppercase().as_str()) {
            return Err("Wrong RULE_TYPE in rule. Valid options: INBOUND, OUTBOUND.".to_owned());
        }
        if !get("IP").is_empty() {
            if get("SIZE").parse::<u32>().is_err() {
                return Err("Wrong or empty SIZE.".to_owned());
            }
            if get("IP").parse::<std::net::IpAddr>().is_err() {
                return Err("Wrong format for IP value.".to_owned());
            }
        }
    }
    Ok(())
}

/// Whether oned cannot give a VM other rules in that state.
fn is_in_between(state: State) -> bool {
    matches!(
        state,
        State::Active(
            Lcm::Boot
                | Lcm::BootPoweroff
                | Lcm::BootSuspended
                | Lcm::BootStopped
                | Lcm::BootUndeploy
                | Lcm::BootMigrate
                | Lcm::BootFailure
                | Lcm::Migrate
                | Lcm::HotplugNic
                | Lcm::Unknown
        )
    )
}

impl FrontEnd {
    /// The VMs with a card in that group.
    fn vms_in(&self, group: u32) -> Vec<u32> {
        let live = self.live.iter().filter_map(|id| self.vms.get(id));
        live.filter(|vm| groups_of(vm).contains(&group))
            .map(|vm| vm.id)
            .collect()
    }

    fn group_with(&self, user: &User, id: i32, right: &str) -> Result<&SecGroup, Refusal> {
        let found = self
            .secgroups
            .iter()
            .find(|group| i64::from(group.id) == i64::from(id));
        let found = found.ok_or_else(|| Refusal::no_such_signed("security group", id))?;
        self.demand(user, &found.object(), right)?;
        Ok(found)
    }

    fn secgroup_xml(&self, out: &mut String, group: &SecGroup) {
        let all = self.vms_in(group.id);
        out.push_str("<SECURITY_GROUP>");
        group
            .object()
            .xml(out, (&group.owner.0, &group.owner.1), &group.name);
        xml::ids(
            out,
            "UPDATED_VMS",
            all.iter().filter(|id| !group.error.contains(id)),
        );
        out.push_str("<OUTDATED_VMS></OUTDATED_VMS><UPDATING_VMS></UPDATING_VMS>");
        xml::ids(out, "ERROR_VMS", all.iter().filter(|id| group.error.contains(id)));
        xml::template(out, "TEMPLATE", &group.body);
        out.push_str("</SECURITY_GROUP>");
    }

    /// What `one.secgrouppool.info` answers, in XML; -3: the caller's own.
    pub fn secgrouppool_info(&self, user: &User, filter: i32) -> String {
        let shown = |group: &&SecGroup| match filter {
            -3 => group.uid == user.id,
            _ => self.allowed(user, &group.object(), "USE"),
        };
        let mut out = String::from("<SECURITY_GROUP_POOL>");
        for group in self.secgroups.iter().rev().filter(shown) {
            self.secgroup_xml(&mut out, group);
        }
        out.push_str("</SECURITY_GROUP_POOL>");
        out
    }

    /// What `one.secgroup.info` answers, in XML.
    pub fn secgroup_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::new();
        self.secgroup_xml(&mut out, self.group_with(user, id, "USE")?);
        Ok(out)
    }

    /// Answers `one.secgroup.allocate`, with the new group's id.
    pub fn secgroup_allocate(&mut self, user: &User, text: &str) -> Result<u32, Refusal> {
        let internal = |text: &str| Refusal::plain(Code::Internal, text);
        let mut body = parse(text).map_err(|text| internal(&text))?;
        self.demand_create(user, "SECGROUP")?;
        let name = body.get("NAME").map(str::to_owned);
        let name = name.ok_or_else(|| internal("No NAME in template for Security Group."))?;
        body.remove("NAME");
        let taken = self
            .secgroups
            .iter()
            .find(|other| other.name == name && other.uid == user.id);
        if let Some(other) = taken {
            return Err(internal(&format!(
                "NAME is already taken by SecurityGroup {}.",
                other.id
            )));
        }
        check_rules(&body).map_err(|text| internal(&text))?;
        let id = self
            .secgroups
            .last()
            .map_or(0, |last| last.id + 1)
            .max(self.next_secgroup)
            .max(FIRST);
        self.next_secgroup = id + 1;
        self.secgroups.push(SecGroup {
            id,
            uid: user.id,
            gid: user.gid,
            owner: (user.setup.name.clone(), user.gname.clone()),
            name,
            body,
            public: false,
            error: BTreeSet::new(),
        });
        Ok(id)
    }

    /// Answers `one.secgroup.update`, with the group's id: hosts are told at once.
    pub fn secgroup_update(&mut self, user: &User, id: i32, text: &str, how: i32) -> Result<u32, Refusal> {
        let group = self.group_with(user, id, "MANAGE")?;
        let id = group.id;
        let mut body = group.body.clone();
        update(&mut body, text, how)?;
        let wrong = |text: String| Refusal::plain(Code::Internal, &format!("Cannot update template. {text}"));
        check_rules(&body).map_err(wrong)?;
        let everybody = self.vms_in(id);
        if let Some(group) = self.secgroups.iter_mut().find(|group| group.id == id) {
            group.body = body;
        }
        self.tell_rules(id, everybody);
        Ok(id)
    }

    /// Answers `one.secgroup.commit`, with the group's id; `recover`: only those that have old rules are told.
    pub fn secgroup_commit(&mut self, user: &User, id: i32, recover: bool) -> Result<u32, Refusal> {
        let group = self.group_with(user, id, "MANAGE")?;
        let (id, failed) = (group.id, group.error.iter().copied().collect());
        let whom = if recover { failed } else { self.vms_in(id) };
        self.tell_rules(id, whom);
        Ok(id)
    }

    /// Answers `one.secgroup.delete`, with the group's id.
    pub fn secgroup_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let id = self.group_with(user, id, "MANAGE")?.id;
        let why = match id {
            0 => Some("The default security group (ID 0) cannot be deleted."),
            _ if !self.vms_in(id).is_empty() => Some("The security group has VMs using it"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(refused(format!("Cannot delete security group. {why}")));
        }
        self.secgroups.retain(|group| group.id != id);
        self.forget_rules("SECGROUP", id);
        Ok(id)
    }

    /// Gives these VMs the group's rules, but for those of which the state does not allow it.
    fn tell_rules(&mut self, group: u32, vms: Vec<u32>) {
        for id in vms {
            let state = self.vms.get(&id).map(|vm| vm.state);
            let told = state.is_some_and(|state| !is_in_between(state));
            if told {
                self.write_rules(id);
            }
            if let Some(group) = self.secgroups.iter_mut().find(|known| known.id == group) {
                match told || state.is_none() {
                    true => group.error.remove(&id),
                    false => group.error.insert(id),
                };
            }
        }
    }

    /// Writes into a VM what its cards' groups say now.
    pub fn write_rules(&mut self, id: u32) {
        let Some(vm) = self.vms.get(&id) else { return };
        let groups = groups_of(vm);
        let known = self.secgroups.iter().filter(|group| groups.contains(&group.id));
        let rules: Vec<(String, Value)> = known.flat_map(SecGroup::rules).collect();
        if let Some(vm) = self.vm_mut(id) {
            vm.template.remove("SECURITY_GROUP_RULE");
            vm.template.0.extend(rules);
            self.rewired.insert(id);
        }
    }

    /// Answers `one.vm.attachsg` (`to` is true) and `one.vm.detachsg`, with the VM's id.
    pub fn card_in_group(
        &mut self,
        user: &User,
        [vm, card, group]: [i32; 3],
        to: bool,
    ) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "sg-attach")?;
        if to
            && let Some(group) = self
                .secgroups
                .iter()
                .find(|known| i64::from(known.id) == i64::from(group))
        {
            self.demand(user, &group.object(), "USE")?;
        }
        let Some(found) = self.vm_mut(id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        if is_in_between(found.state) {
            return Err(refused(format!(
                "VM {id} is in wrong state {}",
                found.state.name()
            )));
        }
        let is_it = |pairs: &[(String, String)]| {
            pairs
                .iter()
                .any(|(key, text)| key == "NIC_ID" && *text == card.to_string())
        };
        let pairs = found.template.0.iter_mut().find_map(|(key, value)| match value {
            Value::Vector(pairs) if key == "NIC" && is_it(pairs) => Some(pairs),
            Value::Vector(_) | Value::Single(_) => None,
        });
        let Some(pairs) = pairs else {
            return Err(refused(format!("VM {id} doesn't have NIC id {card}")));
        };
        let before = pairs.iter().find(|(key, _)| key == "SECURITY_GROUPS");
        let mut groups = before.map(|(_, list)| numbers(list)).unwrap_or_default();
        let group = u32::try_from(group).unwrap_or(u32::MAX);
        if to && !groups.insert(group) {
            return Err(refused(format!("VM {id} SG {group} already in NIC {card}")));
        }
        if !to && !groups.remove(&group) {
            return Err(refused(format!("VM {id} NIC {card} doesn't contain SG {group}")));
        }
        pairs.retain(|(key, _)| key != "SECURITY_GROUPS");
        let list: Vec<String> = groups.iter().map(u32::to_string).collect();
        pairs.push(("SECURITY_GROUPS".to_owned(), list.join(",")));
        self.write_rules(id);
        Ok(id)
    }
}
