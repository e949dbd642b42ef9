//! What of a VM people change: its size, its cards, its owner. Read from 7.4's sources
//! (`DispatchManagerActions.cc`, `VirtualMachineAPI.cc`, `SharedAPI.cc`), and compared with a oned 7.4.0.

use crate::actions::refused;
use crate::front_end::FrontEnd;
use crate::lifecycle::{Lcm, State};
use crate::refusal::{Code, Refusal};
use crate::template::parse;
use crate::user::User;
use crate::vm::replace;
use thiao_opennebula::syntax::Value;

impl FrontEnd {
    /// `one.vm.resize`: of a VM that is off or waits, or of one that runs where the driver can
    /// (`DispatchManager::resize`). On its host it must fit if `enforce`; who is no oneadmin always enforces it.
    pub fn resize(&mut self, user: &User, vm: i32, text: &str, enforce: bool) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "resize")?;
        let template = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        let Some(found) = self.vms.get(&id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        let (state, before) = (found.state, found.clone());
        let runs = state == State::Active(Lcm::Running);
        match state {
            State::Active(_) if runs && !self.settings.live_resize => {
                return Err(refused("Hotplug resize not supported by driver dummy".into()));
            }
            State::Active(_) if !runs => return Err(cannot_resize(state)),
            State::Stopped | State::Done | State::Suspended => return Err(cannot_resize(state)),
            State::Active(_) | State::Pending | State::Hold | State::Undeployed | State::Poweroff => {}
        }
        let on = found.host().filter(|_| state.on_host());
        if let Some(host) = on {
            self.vacate(id, host);
        }
        self.set_size(id, &template.0);
        if let Some(host) = on {
            if (enforce || !user.is_admin())
                && let Some(why) = self.lacks(id, host)
            {
                self.vms.insert(id, before);
                self.occupy(id, host);
                return Err(refused(why));
            }
            self.occupy(id, host);
        }
        if runs {
            self.set_by_call(id, State::Active(Lcm::HotplugResize));
        }
        Ok(id)
    }

    /// What a host lacks for a VM, in oned's words.
    fn lacks(&self, vm: u32, host: u32) -> Option<String> {
        let (vm, host) = (self.vms.get(&vm)?, self.hosts.get(host as usize)?);
        host.lacks(vm.cpu_percent, vm.memory_mb)
    }

    /// Takes what is given of CPU, MEMORY and VCPU.
    fn set_size(&mut self, id: u32, template: &[(String, Value)]) {
        let Some(found) = self.vm_mut(id) else { return };
        for (key, value) in template {
            let Value::Single(text) = value else { continue };
            match (key.as_str(), text.parse::<f64>()) {
                ("CPU", Ok(cpu)) => {
                    found.cpu_percent = (cpu * 100.0) as u32;
                    found.cpu = text.clone();
                }
                ("MEMORY", Ok(memory)) => found.memory_mb = memory as u64,
                ("VCPU", Ok(count)) => found.vcpu = Some(count as u32),
                _ => continue,
            }
            replace(&mut found.template, key, text);
        }
    }

    /// `one.vm.detachnic` of a VM that runs (`DispatchManager::detach_nic`).
    pub fn detach_nic(&mut self, user: &User, vm: i32, nic: i32) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "nic-detach")?;
        let Some(found) = self.vm_mut(id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        if found.state != State::Active(Lcm::Running) {
            let text = format!(
                "Could not detach NIC from VM {id}, wrong state {}.",
                found.state.name()
            );
            return Err(refused(text));
        }
        let nic = nic.to_string();
        let is_this = |value: &Value| match value {
            Value::Vector(pairs) => pairs.iter().any(|(key, value)| key == "NIC_ID" && *value == nic),
            Value::Single(_) => false,
        };
        let before = found.template.0.len();
        found
            .template
            .0
            .retain(|(key, value)| key != "NIC" || !is_this(value));
        if found.template.0.len() == before {
            let text = format!("Could not detach NIC with NIC_ID {nic}, it does not exist.");
            return Err(refused(text));
        }
        self.set_by_call(id, State::Active(Lcm::HotplugNic));
        Ok(id)
    }

    /// `one.vm.detach` of a VM that runs: a disc of its template, by its place there (`VirtualMachineAPI::disk_detach`;
    /// words, order and HOTPLUG seen on 7.4.0). The context's disc is none.
    pub fn detach_disk(&mut self, user: &User, vm: i32, disk: i32) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "disk-detach")?;
        let Some(found) = self.vm_mut(id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        let places = found.template.0.iter().enumerate();
        let mut discs = places.filter(|(_, (key, _))| key == "DISK").map(|(at, _)| at);
        let disc = usize::try_from(disk).ok().and_then(|disk| discs.nth(disk));
        let at = disc.ok_or_else(|| refused("VM disk does not exist".into()))?;
        if found.state != State::Active(Lcm::Running) {
            let text = format!(
                "Could not detach disk from VM {id}, wrong state {}.",
                found.state.name()
            );
            return Err(refused(text));
        }
        found.template.0.remove(at);
        self.set_by_call(id, State::Active(Lcm::Hotplug));
        Ok(id)
    }

    /// `one.vm.chown`; -1 leaves owner or group as they are. Giving things away needs MANAGE of the new
    /// owner too, which oneadmin alone has (`SharedAPI::chown`).
    pub fn chown(&mut self, user: &User, vm: i32, owner: i32, group: i32) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "chown")?;
        let to = match owner {
            -1 => None,
            owner => {
                let found = self
                    .users
                    .iter()
                    .find(|other| i64::from(other.id) == i64::from(owner));
                let found = found.ok_or_else(|| Refusal::no_such_signed("user", owner))?;
                Some((found.id, found.setup.name.clone()))
            }
        };
        let group = match group {
            -1 => None,
            0 => Some((0, "oneadmin")),
            1 => Some((1, "users")),
            other => return Err(Refusal::no_such_signed("group", other)),
        };
        if !user.is_admin() && to.is_some() {
            let text = format!("Not authorized to perform MANAGE USER [{owner}]");
            return Err(Refusal::unauthorized(user.id, &text));
        }
        let Some(found) = self.vm_mut(id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        if let Some(to) = to {
            (found.uid, found.uname) = to;
        }
        if let Some((gid, name)) = group {
            (found.gid, found.gname) = (gid, name.to_owned());
        }
        Ok(id)
    }
}

fn cannot_resize(state: State) -> Refusal {
    refused(format!("Cannot resize a VM in state {}", state.name()))
}
