//! Typed calls. Each takes its turn in the budget; creating and ending go before reading.

mod admin;
mod http;
mod secgroup;

use crate::auth::AuthFile;
use crate::budget::{Budget, Kind};
use crate::error::{Class, Error};
use crate::model::{Devices, Group, Host, Network, Template, User, VmDetails, VmRow};
use crate::read;
use crate::settings::Access;
use crate::wire::{self, Answer, Arg, Malformed, Value};
pub use admin::Element;
use http::{Failed, Http};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection to one oned. Clones share the budget.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    http: Http,
    auth: AuthFile,
    budget: Budget,
    timeout: Duration,
    /// Before the first repetition; three times as long before each further one.
    pause: Duration,
}

/// So many repetitions at most.
const REPETITIONS: u32 = 2;

/// What `one.vm.action` can be told, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmAction {
    /// Let a held VM be scheduled.
    Release,
    /// End it by the guest's own shutdown.
    Terminate,
    /// End it now: its guest gets no time.
    TerminateHard,
}

impl VmAction {
    /// OpenNebula's word for it in `one.vm.action`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            VmAction::Release => "release",
            VmAction::Terminate => "terminate",
            VmAction::TerminateHard => "terminate-hard",
        }
    }
}

/// What `one.vm.recover` can be told, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Remove the VM in whatever state (operation 3).
    Delete,
}

impl Recovery {
    fn number(self) -> i32 {
        match self {
            Recovery::Delete => 3,
        }
    }
}

/// When a call may be said again after it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It only reads: whenever the failure may pass.
    Reads,
    /// It may have been done: only what was surely not sent, or refused because oned was
    /// busy.
    Acts,
    /// Done twice it makes two VMs, and an error does not prove that none was made: only
    /// what was surely not sent, or refused before oned looked at it.
    Creates,
}

/// A call that is to be made.
struct Ask<'a> {
    method: &'static str,
    args: &'a [Arg<'a>],
    effect: Effect,
    /// For people: "cannot ...".
    doing: &'a str,
}

impl Client {
    /// Reads the credentials and, for https, the certificates; nothing is called yet.
    ///
    /// # Errors
    /// The credentials cannot be used (see [`crate::auth::Credentials::read`]), the
    /// endpoint is no http or https address, or there are no certificates to trust.
    pub fn new(access: &Access) -> Result<Self, Error> {
        Ok(Self(Arc::new(Shared {
            http: Http::new(access)?,
            auth: AuthFile::open(&access.auth)?,
            budget: Budget::new(access.requests_per_second, access.connections),
            timeout: access.timeout,
            pause: Duration::from_millis(100),
        })))
    }

    /// oned's version, e.g. `7.4.1` (`one.system.version`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn version(&self) -> Result<String, Error> {
        self.read(
            "one.system.version",
            &[],
            "ask OpenNebula for its version",
            |text| Ok(text.to_owned()),
        )
    }

    /// The user that the credentials belong to (`one.user.info`, -1).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn user(&self) -> Result<User, Error> {
        self.read(
            "one.user.info",
            &[Arg::Int(-1)],
            "read OpenNebula's user",
            read::user,
        )
    }

    /// A group that the user is in (`one.group.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn group(&self, id: u32) -> Result<Group, Error> {
        let doing = format!("read OpenNebula's group {id}");
        self.read("one.group.info", &[int(id, &doing)?], &doing, read::group)
    }

    /// All hosts that the user may see (`one.hostpool.info`). Plain users see none, and
    /// oned calls that no error.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn hosts(&self, devices: Devices) -> Result<Vec<Host>, Error> {
        let read = |xml: &str| read::hosts(xml, devices);
        self.read("one.hostpool.info", &[], "list OpenNebula's hosts", read)
    }

    /// What is really used of the hosts, by id: percent of a core and MiB
    /// (`one.hostpool.monitoring`, 0: the last record of each). Since 6.0 the list of
    /// hosts does not say it; measured on 7.4.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn loads(&self) -> Result<BTreeMap<u32, (u32, u64)>, Error> {
        let args = [Arg::Int(0)];
        self.read(
            "one.hostpool.monitoring",
            &args,
            "read what OpenNebula's hosts use",
            read::loads,
        )
    }

    /// The user's own VMs that are not DONE, in one call (`one.vmpool.info`, -3, state -1).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]. The list is whole or an error.
    pub fn vms(&self) -> Result<Vec<VmRow>, Error> {
        let args = [Arg::Int(-3), Arg::Int(-1), Arg::Int(-1), Arg::Int(-1)];
        self.read("one.vmpool.info", &args, "list OpenNebula's VMs", read::vms)
    }

    /// The user's own VMs that are not DONE, with their tags, in one call
    /// (`one.vmpool.infoextended`, -3, state -1). Three times the work of [`Self::vms`].
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]. The list is whole or an error.
    pub fn vms_extended(&self) -> Result<Vec<VmDetails>, Error> {
        let args = [Arg::Int(-3), Arg::Int(-1), Arg::Int(-1), Arg::Int(-1)];
        self.read(
            "one.vmpool.infoextended",
            &args,
            "list OpenNebula's VMs",
            read::vm_details,
        )
    }

    /// Those VMs with their tags, DONE ones too, in one call (`one.vmpool.infoset`, extended).
    /// Ids that do not exist, or that the user may not see, are missing in the answer.
    /// Without ids nothing is called.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn vms_of(&self, ids: &[u32]) -> Result<Vec<VmDetails>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let doing = format!("read {} of OpenNebula's VMs", ids.len());
        let args = [Arg::Text(&list), Arg::Bool(true)];
        self.read("one.vmpool.infoset", &args, &doing, read::vm_details)
    }

    /// One VM, also when it is DONE (`one.vm.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn vm(&self, id: u32) -> Result<VmDetails, Error> {
        let doing = format!("read VM {id}");
        self.read("one.vm.info", &[int(id, &doing)?], &doing, read::one_vm)
    }

    /// All templates that the user may see (`one.templatepool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn templates(&self) -> Result<Vec<Template>, Error> {
        let args = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1)];
        self.read(
            "one.templatepool.info",
            &args,
            "list OpenNebula's templates",
            read::templates,
        )
    }

    /// One template (`one.template.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn template(&self, id: u32) -> Result<Template, Error> {
        let doing = format!("read template {id}");
        let args = [int(id, &doing)?, Arg::Bool(false), Arg::Bool(false)];
        self.read("one.template.info", &args, &doing, read::one_template)
    }

    /// All networks that the user may see (`one.vnpool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        let args = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1)];
        self.read(
            "one.vnpool.info",
            &args,
            "list OpenNebula's networks",
            read::networks,
        )
    }

    /// Makes a VM of a registered template, with more attributes (`one.template.instantiate`).
    /// Its id is the answer; an error does not prove that none was made.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn instantiate(
        &self,
        template: &Template,
        name: &str,
        hold: bool,
        extra: &str,
    ) -> Result<u32, Error> {
        let Template { id, name: of, .. } = template;
        let doing = format!("make VM {name} of template {of} ({id})");
        let args = [
            int(*id, &doing)?,
            Arg::Text(name),
            Arg::Bool(hold),
            Arg::Text(extra),
            Arg::Bool(false),
        ];
        self.create("one.template.instantiate", &args, &doing)
    }

    /// Makes a VM of a whole template (`one.vm.allocate`). Its id is the answer; an error
    /// does not prove that none was made.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn allocate(&self, template: &str, hold: bool) -> Result<u32, Error> {
        let args = [Arg::Text(template), Arg::Bool(hold)];
        self.create("one.vm.allocate", &args, "make a VM")
    }

    /// Starts a held or pending VM on a host, in a system datastore of its cluster, else in the one that oned takes;
    /// capacity is enforced (`one.vm.deploy`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn deploy(&self, vm: u32, host: u32, store: Option<u32>) -> Result<(), Error> {
        let doing = format!("deploy VM {vm} on host {host}");
        let store = match store {
            Some(store) => int(store, &doing)?,
            None => Arg::Int(-1),
        };
        let args = [
            int(vm, &doing)?,
            int(host, &doing)?,
            Arg::Bool(true),
            store,
            Arg::Text(""),
        ];
        self.act("one.vm.deploy", &args, &doing)
    }

    /// Tells a VM to do something (`one.vm.action`). An answer says that oned has begun,
    /// not that it is done.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn action(&self, vm: u32, action: VmAction) -> Result<(), Error> {
        let doing = format!("{} VM {vm}", action.word());
        // The action comes first.
        let args = [Arg::Text(action.word()), int(vm, &doing)?];
        self.act("one.vm.action", &args, &doing)
    }

    /// Recovers a VM (`one.vm.recover`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn recover(&self, vm: u32, how: Recovery) -> Result<(), Error> {
        let doing = match how {
            Recovery::Delete => format!("recover VM {vm} by deleting it"),
        };
        let args = [int(vm, &doing)?, Arg::Int(how.number())];
        self.act("one.vm.recover", &args, &doing)
    }

    fn read<T>(
        &self,
        method: &'static str,
        args: &[Arg<'_>],
        doing: &str,
        read: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        let ask = Ask {
            method,
            args,
            effect: Effect::Reads,
            doing,
        };
        match self.call(&ask)? {
            Value::Text(text) => read(&text).map_err(|e| e.into_error(doing)),
            other => Err(senseless(&other, doing)),
        }
    }

    fn act(&self, method: &'static str, args: &[Arg<'_>], doing: &str) -> Result<(), Error> {
        let ask = Ask {
            method,
            args,
            effect: Effect::Acts,
            doing,
        };
        self.call(&ask).map(|_| ())
    }

    fn create(&self, method: &'static str, args: &[Arg<'_>], doing: &str) -> Result<u32, Error> {
        let ask = Ask {
            method,
            args,
            effect: Effect::Creates,
            doing,
        };
        let value = self.call(&ask)?;
        let id = match value {
            Value::Int(id) => u32::try_from(id).ok(),
            Value::Text(_) | Value::Bool(_) | Value::Array(_) | Value::Struct(_) => None,
        };
        id.ok_or_else(|| senseless(&value, doing))
    }

    /// Makes the call, and makes it again when that is harmless and may help. The time
    /// limit counts from the first turn.
    fn call(&self, ask: &Ask<'_>) -> Result<Value, Error> {
        let kind = match ask.effect {
            Effect::Reads => Kind::Reading,
            Effect::Acts | Effect::Creates => Kind::Acting,
        };
        let mut permit = self.0.budget.wait(kind);
        let started = Instant::now();
        let mut pause = self.0.pause;
        let mut refused_us = false;
        let mut tries = 0;
        loop {
            let left = self.0.timeout.saturating_sub(started.elapsed());
            let failed = match self.once(ask, left) {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            drop(permit);
            tries += 1;
            // Credentials are looked at before anything is done; and a busy oned says the
            // same of good ones (measured on 7.4 with SQLite), so twice before it counts.
            let again = if failed.error.class == Class::Authentication {
                self.0.auth.again()?;
                !std::mem::replace(&mut refused_us, true)
            } else {
                may_repeat(ask.effect, &failed)
            };
            if !again || tries > REPETITIONS || started.elapsed() + pause >= self.0.timeout {
                return Err(failed.error);
            }
            tracing::debug!(method = ask.method, error = %failed.error, "again");
            std::thread::sleep(pause);
            pause *= 3;
            permit = self.0.budget.wait(kind);
        }
    }

    /// Makes the call once.
    fn once(&self, ask: &Ask<'_>, timeout: Duration) -> Result<Value, Failed> {
        let credentials = self.0.auth.current();
        let mut args = Vec::with_capacity(ask.args.len() + 1);
        args.push(Arg::Text(credentials.session()));
        args.extend_from_slice(ask.args);
        let body = wire::call(ask.method, &args).map_err(|mut error| {
            error.text = format!("cannot {}: {}", ask.doing, error.text);
            Failed::final_one(error)
        })?;
        let started = Instant::now();
        let answer = self.0.http.post(&body, timeout, ask.doing)?;
        tracing::debug!(
            method = ask.method,
            bytes = answer.len(),
            ms = started.elapsed().as_millis(),
            "called"
        );
        let answer = http::expect_answer(&answer, ask.doing)?;
        match answer {
            Answer::Done(value) => Ok(value),
            Answer::Refused { code, message } => {
                Err(Failed::refused(Error::refused(ask.doing, code, &message)))
            }
            Answer::Fault { code, message } => {
                Err(Failed::final_one(Error::fault(ask.doing, code, &message)))
            }
        }
    }
}

/// Whether a call that failed so may be made again.
fn may_repeat(effect: Effect, failed: &Failed) -> bool {
    let passes = matches!(failed.error.class, Class::Busy | Class::Network);
    match effect {
        Effect::Reads => passes,
        Effect::Acts => !failed.sent || (failed.refused && failed.error.class == Class::Busy),
        Effect::Creates => !failed.sent,
    }
}

fn int(id: u32, doing: &str) -> Result<Arg<'static>, Error> {
    i32::try_from(id).map(Arg::Int).map_err(|_| {
        Error::new(
            Class::NoSuchObject,
            format!("cannot {doing}: OpenNebula has no id {id}"),
        )
    })
}

fn senseless(value: &Value, doing: &str) -> Error {
    Malformed::other(format!("{} that no oned gives", value.kind())).into_error(doing)
}

#[cfg(test)]
mod tests;
