//! What VMs are told: actions, deploys, migrations, recoveries, changes of their templates.

use crate::cards::chosen_by_caller;
use crate::creation::check_name;
use crate::front_end::FrontEnd;
use crate::lifecycle::{Lcm, Phase, State};
use crate::refusal::{Code, Refusal};
use crate::template::parse;
use crate::user::User;
use crate::vm::merge;
use std::cmp::Reverse;
use std::time::Instant;
use thiao_opennebula::syntax::Value;

/// The numbers of actions in history records.
mod number {
    /// As history records have them in ACTION.
    pub const MIGRATE: u32 = 1;
    pub const LIVE_MIGRATE: u32 = 2;
    pub const UNDEPLOY: u32 = 5;
    pub const UNDEPLOY_HARD: u32 = 6;
    pub const STOP: u32 = 9;
    pub const SUSPEND: u32 = 10;
    pub const DELETE: u32 = 13;
    pub const DELETE_RECREATE: u32 = 14;
    pub const POWEROFF: u32 = 19;
    pub const POWEROFF_HARD: u32 = 20;
    pub const TERMINATE: u32 = 27;
    pub const TERMINATE_HARD: u32 = 28;
}

pub(crate) fn refused(text: String) -> Refusal {
    Refusal::plain(Code::Action, &text)
}

/// Where `resume` leads from a state, if it is allowed there.
fn resumed(state: State) -> Option<State> {
    match state {
        State::Suspended => Some(State::Active(Lcm::BootSuspended)),
        State::Poweroff => Some(State::Active(Lcm::BootPoweroff)),
        State::Active(Lcm::Unknown) => Some(State::Active(Lcm::Boot)),
        State::Stopped | State::Undeployed => Some(State::Pending),
        State::Pending | State::Hold | State::Done | State::Active(_) => None,
    }
}

impl FrontEnd {
    pub(crate) fn vm_id(&self, id: i32) -> Result<u32, Refusal> {
        u32::try_from(id).map_err(|_| Refusal::no_such_signed("virtual machine", id))
    }

    fn unlocked(&self, user: &User, id: u32) -> Result<(), Refusal> {
        match self.vms.get(&id).and_then(|vm| vm.locked) {
            Some(_) if !user.is_admin() => {
                Err(Refusal::unauthorized(user.id, &format!("VM is locked. [{id}]")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Answers `one.vm.action`, with the VM's id.
    pub fn action(&mut self, user: &User, action: &str, id: i32) -> Result<u32, Refusal> {
        let vm = self.vm_id(id)?;
        let right = match action {
            "unresched" => "resched",
            "terminate-hard" => "terminate",
            other => other,
        };
        self.authorize(user, vm, right)?;
        self.unlocked(user, vm)?;
        let Some(state) = self.vms.get(&vm).map(|vm| vm.state) else {
            return Err(Refusal::no_such("virtual machine", vm));
        };
        let wrong = |text: String| refused(format!("Error performing action \"{action}\": {text}"));
        let unavailable = || wrong(format!("This action is not available for state {}", state.name()));
        let running = state == State::Active(Lcm::Running);
        let lost = state == State::Active(Lcm::Unknown);
        match action {
            "terminate" | "terminate-hard" => {
                self.terminate(user, vm, state, action == "terminate-hard")
                    .map_err(wrong)?;
            }
            "hold" if state == State::Pending => self.set_by_call(vm, State::Hold),
            "release" if state == State::Hold => self.set_by_call(vm, State::Pending),
            "resume" => {
                let to = resumed(state).ok_or_else(unavailable)?;
                if let (State::Active(_), Some(host)) = (to, self.vms.get(&vm).and_then(crate::vm::Vm::host))
                {
                    self.stay(vm, host, false);
                }
                self.set_by_call(vm, to);
            }
            "reboot" | "reboot-hard" if running => {}
            "resched" | "unresched" if running || lost || state == State::Poweroff => {
                if let Some(found) = self.vm_mut(vm) {
                    found.resched = action == "resched";
                }
            }
            "suspend" if running => self.leave(user, vm, Lcm::SaveSuspend, number::SUSPEND, false),
            "stop" if running || state == State::Suspended => {
                let to = if running { Lcm::SaveStop } else { Lcm::EpilogStop };
                self.leave(user, vm, to, number::STOP, false);
            }
            "poweroff" if running || lost => {
                self.leave(user, vm, Lcm::ShutdownPoweroff, number::POWEROFF, false)
            }
            "poweroff-hard" if running || lost || state == State::Active(Lcm::ShutdownPoweroff) => {
                self.leave(user, vm, Lcm::ShutdownPoweroff, number::POWEROFF_HARD, true);
            }
            "undeploy" | "undeploy-hard"
                if running
                    || lost
                    || state == State::Poweroff
                    || (action == "undeploy-hard" && state == State::Active(Lcm::ShutdownUndeploy)) =>
            {
                let hard = action == "undeploy-hard";
                let to = if state == State::Poweroff {
                    Lcm::EpilogUndeploy
                } else {
                    Lcm::ShutdownUndeploy
                };
                let number = if hard {
                    number::UNDEPLOY_HARD
                } else {
                    number::UNDEPLOY
                };
                self.leave(user, vm, to, number, hard);
            }
            "hold" | "release" | "reboot" | "reboot-hard" | "resched" | "unresched" | "suspend" | "stop"
            | "poweroff" | "poweroff-hard" | "undeploy" | "undeploy-hard" => return Err(unavailable()),
            other => return Err(refused(format!("Action \"{other}\" is not supported"))),
        }
        Ok(vm)
    }

    /// Notes the action and goes on to the state.
    fn leave(&mut self, user: &User, vm: u32, to: Lcm, action: u32, hard: bool) {
        self.note_action(vm, action, user);
        if let Some(found) = self.vm_mut(vm) {
            found.hard = hard;
        }
        self.set_by_call(vm, State::Active(to));
    }

    fn terminate(&mut self, user: &User, vm: u32, state: State, hard: bool) -> Result<(), String> {
        let action = if hard {
            number::TERMINATE_HARD
        } else {
            number::TERMINATE
        };
        match state {
            State::Done => Ok(()),
            State::Pending | State::Hold => {
                self.set_by_call(vm, State::Done);
                Ok(())
            }
            State::Suspended | State::Poweroff | State::Stopped | State::Undeployed => {
                self.leave(user, vm, Lcm::Epilog, action, true);
                Ok(())
            }
            State::Active(Lcm::Running | Lcm::Unknown) => {
                self.leave(user, vm, Lcm::Shutdown, action, hard);
                Ok(())
            }
            State::Active(Lcm::Shutdown) if hard => {
                self.leave(user, vm, Lcm::Shutdown, action, true);
                Ok(())
            }
            State::Active(Lcm::BootFailure | Lcm::PrologFailure | Lcm::EpilogFailure) => {
                self.leave(user, vm, Lcm::CleanupDelete, number::DELETE, true);
                Ok(())
            }
            State::Active(_) => Err(format!(
                "Could not terminate VM {vm}, wrong state {}.",
                state.name()
            )),
        }
    }

    /// `one.vm.deploy`. `store`: the system datastore, -1 for the cluster's first; `networks` names networks for cards that
    /// wait for one.
    pub fn deploy(
        &mut self,
        user: &User,
        (vm, host): (i32, i32),
        enforce: bool,
        store: i32,
        networks: &str,
    ) -> Result<u32, Refusal> {
        let networks = chosen_by_caller(networks).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        let host = self.usable_host(host)?;
        let id = self.vm_id(vm)?;
        let store = self.system_store(host, store)?;
        self.authorize_host(user, id, "deploy", host)?;
        let Some(state) = self.vms.get(&id).map(|vm| vm.state) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        match state {
            State::Pending | State::Hold | State::Stopped | State::Undeployed => {}
            State::Active(_) | State::Suspended | State::Done | State::Poweroff => {
                return Err(refused(format!(
                    "Deploy action is not available for state {}",
                    state.name()
                )));
            }
        }
        if enforce {
            self.fits(id, host)?;
        }
        self.attach_networks(id, &networks).map_err(refused)?;
        self.place(id, host, false);
        if let Some(stay) = self.vm_mut(id).and_then(|vm| vm.history.last_mut()) {
            stay.store = store;
        }
        Ok(id)
    }

    /// Puts a waiting VM on a host.
    pub fn place(&mut self, id: u32, host: u32, by_scheduler: bool) {
        let stopped = self
            .vms
            .get(&id)
            .and_then(|vm| vm.history.last()?.action.map(|(action, ..)| action));
        let to = match stopped {
            Some(number::STOP) => Lcm::PrologResume,
            Some(number::UNDEPLOY | number::UNDEPLOY_HARD) => Lcm::PrologUndeploy,
            Some(_) | None => Lcm::Prolog,
        };
        let before = self.vms.get(&id).map_or((2, 0), |vm| vm.state.numbers());
        self.stay(id, host, by_scheduler);
        // On a host, and nothing is done there yet.
        self.tell_vm_as(id, (3, 0), before);
        self.set_by_call(id, State::Active(to));
    }

    fn usable_host(&self, id: i32) -> Result<u32, Refusal> {
        let host = self.host(id)?;
        if host.state == crate::host::HostState::Offline {
            return Err(refused("Host is offline, cannot use it to deploy VM".into()));
        }
        Ok(host.id)
    }

    fn authorize_host(&self, user: &User, vm: u32, operation: &str, host: u32) -> Result<(), Refusal> {
        let mut missing = Vec::new();
        if let Err(refusal) = self.authorize(user, vm, operation) {
            if refusal.code != Code::Authorization.number() {
                return Err(refusal);
            }
            missing.push(format!("Not authorized to perform ADMIN VM [{vm}]"));
        }
        let found = self.hosts.get(host as usize);
        if found.is_some_and(|host| !self.allowed(user, &host.object(), "MANAGE")) {
            missing.push(format!("Not authorized to perform MANAGE HOST [{host}]"));
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Refusal::unauthorized(user.id, &missing.join("; ")))
        }
    }

    /// Whether the VM fits the host, in oned's words if not.
    pub fn fits(&self, vm: u32, host: u32) -> Result<(), Refusal> {
        let lacks = match (self.vms.get(&vm), self.hosts.get(host as usize)) {
            (Some(vm), Some(host)) => host.lacks(vm.cpu_percent, vm.memory_mb),
            (Some(_) | None, Some(_) | None) => return Err(refused("Host no longer exists".into())),
        };
        match lacks {
            Some(why) => Err(refused(format!(
                "virtual machine [{vm}] does not fit in host [{host}]. {why}"
            ))),
            None => Ok(()),
        }
    }

    /// Answers `one.vm.migrate`, with the VM's id.
    pub fn migrate(
        &mut self,
        user: &User,
        vm: i32,
        host: i32,
        live: bool,
        enforce: bool,
    ) -> Result<u32, Refusal> {
        let host = self.usable_host(host)?;
        let id = self.vm_id(vm)?;
        self.authorize_host(user, id, "migrate", host)?;
        let Some(found) = self.vms.get(&id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        let (state, here) = (found.state, found.host());
        if !matches!(
            state,
            State::Poweroff | State::Suspended | State::Active(Lcm::Running | Lcm::Unknown)
        ) {
            return Err(refused(format!(
                "Migrate action is not available for state {}",
                state.name()
            )));
        }
        if here == Some(host) {
            return Err(refused(format!(
                "VM is already running on host [{host}] and datastore [0]"
            )));
        }
        if enforce {
            self.fits(id, host)?;
        }
        self.note_action(
            id,
            if live {
                number::LIVE_MIGRATE
            } else {
                number::MIGRATE
            },
            user,
        );
        self.moved(id, state, host, live);
        Ok(id)
    }

    /// Has a VM in such a state moved to a host (`LifeCycleActions.cc` of 7.4: `trigger_migrate`).
    pub fn moved(&mut self, id: u32, state: State, host: u32, live: bool) {
        if let Some(found) = self.vm_mut(id) {
            (found.target, found.resched) = (Some(host), false);
        }
        let to = match state {
            State::Poweroff => Lcm::PrologMigratePoweroff,
            State::Suspended => Lcm::PrologMigrateSuspend,
            _ if live => Lcm::Migrate,
            _ => Lcm::SaveMigrate,
        };
        self.set_by_call(id, State::Active(to));
    }

    /// `one.vm.recover`: 0 failure, 1 success, 2 retry, 3 delete, 4 recreate, 5 delete in the
    /// database.
    pub fn recover(&mut self, user: &User, vm: i32, operation: i32) -> Result<u32, Refusal> {
        let right = match operation {
            0 | 1 => "recover",
            2 => "retry",
            3..=5 => "delete",
            _ => return Err(refused("Wrong recovery operation code".into())),
        };
        let id = self.vm_id(vm)?;
        self.authorize(user, id, right)?;
        let Some(state) = self.vms.get(&id).map(|vm| vm.state) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        match operation {
            0 | 1 => self.recover_as(id, state, operation == 1)?,
            2 => self.retry(id, state)?,
            3 | 5 => match state {
                State::Done => {}
                State::Pending | State::Hold => self.set_by_call(id, State::Done),
                State::Active(_)
                | State::Suspended
                | State::Poweroff
                | State::Stopped
                | State::Undeployed => self.leave(user, id, Lcm::CleanupDelete, number::DELETE, true),
            },
            _ => match state {
                State::Done => {
                    return Err(refused(
                        "Cannot delete-recreate a VM already in DONE state".into(),
                    ));
                }
                State::Pending => {}
                State::Hold | State::Stopped | State::Undeployed => self.set_by_call(id, State::Pending),
                State::Active(_) | State::Suspended | State::Poweroff => {
                    self.leave(user, id, Lcm::CleanupResubmit, number::DELETE_RECREATE, true);
                }
            },
        }
        Ok(id)
    }

    fn recover_as(&mut self, id: u32, state: State, success: bool) -> Result<(), Refusal> {
        let wrong = || {
            refused(format!(
                "Could not perform a recover operation on VM {id}, wrong state {}.",
                state.name()
            ))
        };
        let State::Active(lcm) = state else {
            return Err(wrong());
        };
        let to = match (lcm.work(), lcm) {
            (Some((_, on_success, on_failure)), _) => Some(if success { on_success } else { on_failure }),
            (None, Lcm::Unknown) => Some(State::Active(Lcm::Running)),
            (None, Lcm::BootFailure) if success => Some(State::Active(Lcm::Running)),
            (None, Lcm::PrologFailure) if success => Some(State::Active(Lcm::Boot)),
            (None, Lcm::EpilogFailure) if success => Some(State::Done),
            // Nothing to decide: accepted without effect.
            (None, _) => None,
        };
        if let Some(to) = to {
            self.set_by_call(id, to);
        }
        Ok(())
    }

    fn retry(&mut self, id: u32, state: State) -> Result<(), Refusal> {
        let wrong = || {
            refused(format!(
                "Could not perform a retry on VM {id}, wrong state {}.",
                state.name()
            ))
        };
        let State::Active(lcm) = state else {
            return Err(wrong());
        };
        match lcm {
            Lcm::BootFailure => self.set_by_call(id, State::Active(Lcm::Boot)),
            Lcm::PrologFailure => self.set_by_call(id, State::Active(Lcm::Prolog)),
            Lcm::EpilogFailure => self.set_by_call(id, State::Active(Lcm::Epilog)),
            busy if busy.work().is_some() => self.set_by_call(id, state),
            _ => {}
        }
        Ok(())
    }

    /// `one.vm.update`: 0 replaces USER_TEMPLATE, 1 merges into it.
    pub fn update(&mut self, user: &User, vm: i32, text: &str, how: i32) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "update")?;
        if !(0..=1).contains(&how) {
            return Err(Refusal::plain(Code::Api, "Wrong update type"));
        }
        let template = parse(text).map_err(refused)?;
        if let Some(found) = self.vm_mut(id) {
            if how == 0 {
                found.user_template = template;
            } else {
                merge(&mut found.user_template, template);
            }
        }
        Ok(id)
    }

    /// Answers `one.vm.rename`, with the VM's id.
    pub fn rename(&mut self, user: &User, vm: i32, name: &str) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "rename")?;
        check_name(name).map_err(refused)?;
        if let Some(found) = self.vm_mut(id) {
            found.name = name.to_owned();
        }
        Ok(id)
    }

    /// `one.vm.lock` with a level, `one.vm.unlock` without.
    pub fn lock(&mut self, user: &User, vm: i32, level: Option<i32>) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "lock")?;
        if let Some(found) = self.vm_mut(id) {
            found.locked = level;
        }
        Ok(id)
    }

    /// `one.vm.updateconf`: refused where there is no CONTEXT, else merged into it.
    pub fn updateconf(&mut self, user: &User, vm: i32, text: &str) -> Result<u32, Refusal> {
        let id = self.vm_id(vm)?;
        self.authorize(user, id, "updateconf")?;
        let template = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        let Some(found) = self.vm_mut(id) else {
            return Err(Refusal::no_such("virtual machine", id));
        };
        let Some(new) = template.vectors("CONTEXT").next() else {
            return Ok(id);
        };
        let context = found.template.0.iter_mut().find_map(|(key, value)| match value {
            Value::Vector(pairs) if key == "CONTEXT" => Some(pairs),
            Value::Vector(_) | Value::Single(_) => None,
        });
        let Some(context) = context else {
            let text = "Virtual machine does not have context, cannot add a new one.";
            return Err(Refusal::plain(Code::Internal, text));
        };
        for (key, value) in new {
            context.retain(|(name, _)| name != key);
            context.push((key.clone(), value.clone()));
        }
        Ok(id)
    }

    /// Lets VMs that were parked in a phase go on.
    pub fn unpark(&mut self, phase: Phase) {
        self.held.remove(&phase);
        for (id, epoch) in std::mem::take(&mut self.parked) {
            self.due.push(Reverse((Instant::now(), id, epoch)));
        }
    }
}
