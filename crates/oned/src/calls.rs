//! Which call does what; below it the calls that are not about VMs.

mod groups;
mod hosts;
mod images;
mod networks;
mod quotas;
mod templates;
mod users;

use crate::front_end::FrontEnd;
use crate::pool::Listing;
use crate::recorded;
use crate::refusal::{Code, Refusal};
use crate::user::User;
use crate::xmlrpc::{Fault, Value, fault_value};

/// The parameters of a call; what is missing at the end has a default.
struct Args<'a>(&'a [Value]);

impl Args<'_> {
    fn wrong(kind: &str) -> Fault {
        Fault::new(-501, format!("Parameter that is supposed to be {kind} is not"))
    }

    fn get(&self, at: usize) -> Result<&Value, Fault> {
        self.0
            .get(at)
            .ok_or_else(|| Fault::new(-501, "Not enough parameters"))
    }

    fn int(&self, at: usize) -> Result<i32, Fault> {
        match self.get(at)? {
            Value::Int(number) => Ok(*number),
            _ => Err(Self::wrong("integer")),
        }
    }

    fn text(&self, at: usize) -> Result<&str, Fault> {
        match self.get(at)? {
            Value::Text(text) => Ok(text),
            _ => Err(Self::wrong("string")),
        }
    }

    fn flag(&self, at: usize) -> Result<bool, Fault> {
        match self.get(at)? {
            Value::Bool(yes) => Ok(*yes),
            _ => Err(Self::wrong("boolean")),
        }
    }

    fn int_or(&self, at: usize, default: i32) -> Result<i32, Fault> {
        if self.0.len() > at {
            self.int(at)
        } else {
            Ok(default)
        }
    }

    /// An array of ids, none without one.
    fn ints_or_none(&self, at: usize) -> Result<Vec<u32>, Fault> {
        let Some(Value::Array(values)) = self.0.get(at) else {
            return Ok(Vec::new());
        };
        let number = |value: &Value| match value {
            Value::Int(number) => u32::try_from(*number).map_err(|_| Self::wrong("integer")),
            _ => Err(Self::wrong("integer")),
        };
        values.iter().map(number).collect()
    }

    fn text_or(&self, at: usize) -> Result<&str, Fault> {
        if self.0.len() > at { self.text(at) } else { Ok("") }
    }

    fn flag_or(&self, at: usize) -> Result<bool, Fault> {
        if self.0.len() > at {
            self.flag(at)
        } else {
            Ok(false)
        }
    }
}

/// What a method that was executed gives.
type Outcome = Result<Value, Refusal>;

fn id(result: Result<u32, Refusal>) -> Outcome {
    result.map(|id| Value::Int(i32::try_from(id).unwrap_or(i32::MAX)))
}

/// Executes a call: the answer as it stands on the wire, or a fault.
pub fn execute(front_end: &mut FrontEnd, method: &str, params: &[Value]) -> Result<Value, Fault> {
    *front_end.counters.entry(method.to_owned()).or_default() += 1;
    if method == "system.multicall" {
        return multicall(front_end, params);
    }
    if !METHODS.contains(&method) {
        return Err(no_method(method));
    }
    let args = Args(params);
    let session = args.text(0)?;
    let outcome = match front_end.authenticate(session) {
        Ok(user) => dispatch(front_end, &user, method, &args)?,
        Err(refusal) => Err(refusal),
    };
    let answer = match outcome {
        Ok(value) => vec![Value::Bool(true), value, Value::Int(0)],
        Err(refusal) => refused(method, &refusal),
    };
    front_end.tell_call(method, params, &answer);
    Ok(Value::Array(answer))
}

/// A refusal as it stands on the wire.
pub fn refused(method: &str, refusal: &Refusal) -> Vec<Value> {
    vec![
        Value::Bool(false),
        Value::Text(format!("[{method}] {}", refusal.text)),
        Value::Int(refusal.code),
        Value::Int(refusal.id),
        Value::Long(-1),
    ]
}

fn multicall(front_end: &mut FrontEnd, params: &[Value]) -> Result<Value, Fault> {
    let Some(Value::Array(calls)) = params.first() else {
        return Err(Args::wrong("array"));
    };
    let mut results = Vec::new();
    for call in calls {
        let Value::Struct(members) = call else {
            return Err(Args::wrong("struct"));
        };
        let get = |name: &str| {
            members
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let result = match (get("methodName"), get("params")) {
            (Some(Value::Text(method)), Some(Value::Array(params))) if method != "system.multicall" => {
                execute(front_end, method, params)
            }
            _ => Err(Fault::new(-501, "Not enough parameters")),
        };
        results.push(match result {
            Ok(value) => Value::Array(vec![value]),
            Err(fault) => fault_value(&fault),
        });
    }
    Ok(Value::Array(results))
}

/// All that is answered; anything else is a fault.
pub const METHODS: [&str; 71] = [
    "one.system.version",
    "one.system.config",
    "one.user.info",
    "one.user.allocate",
    "one.user.update",
    "one.user.passwd",
    "one.user.delete",
    "one.user.quota",
    "one.user.login",
    "one.userpool.info",
    "one.grouppool.info",
    "one.group.info",
    "one.group.allocate",
    "one.group.update",
    "one.group.delete",
    "one.acl.info",
    "one.acl.addrule",
    "one.acl.delrule",
    "one.templatepool.info",
    "one.template.info",
    "one.template.allocate",
    "one.template.update",
    "one.template.delete",
    "one.template.chmod",
    "one.template.instantiate",
    "one.vm.allocate",
    "one.vm.info",
    "one.vm.action",
    "one.vm.deploy",
    "one.vm.migrate",
    "one.vm.recover",
    "one.vm.update",
    "one.vm.updateconf",
    "one.vm.rename",
    "one.vm.resize",
    "one.vm.detach",
    "one.vm.detachnic",
    "one.vm.attachsg",
    "one.vm.detachsg",
    "one.vm.chown",
    "one.vm.lock",
    "one.vm.unlock",
    "one.vm.monitoring",
    "one.vmpool.info",
    "one.vmpool.infoextended",
    "one.vmpool.infoset",
    "one.vmpool.monitoring",
    "one.vmpool.accounting",
    "one.hostpool.info",
    "one.hostpool.monitoring",
    "one.host.info",
    "one.host.monitoring",
    "one.host.status",
    "one.host.delete",
    "one.vnpool.info",
    "one.vn.info",
    "one.secgrouppool.info",
    "one.secgroup.info",
    "one.secgroup.allocate",
    "one.secgroup.update",
    "one.secgroup.commit",
    "one.secgroup.delete",
    "one.imagepool.info",
    "one.image.info",
    "one.image.allocate",
    "one.image.delete",
    "one.image.chmod",
    "one.datastorepool.info",
    "one.clusterpool.info",
    "one.zonepool.info",
    "one.hookpool.info",
];

/// Refuses what only oneadmin may.
fn admin_only(user: &User, what: &str) -> Result<(), Refusal> {
    if user.is_admin() {
        return Ok(());
    }
    Err(Refusal::unauthorized(
        user.id,
        &format!("Not authorized to perform {what}"),
    ))
}

fn dispatch(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    let family = method.rsplit_once('.').map_or(method, |(family, _)| family);
    let answer = match family {
        "one.vm" => of_vm,
        "one.vmpool" => of_vmpool,
        "one.template" | "one.templatepool" => of_templates,
        "one.user" | "one.userpool" => of_users,
        "one.group" | "one.grouppool" | "one.acl" => of_groups,
        "one.host" | "one.hostpool" => of_hosts,
        "one.image" | "one.imagepool" => of_images,
        "one.secgroup" | "one.secgrouppool" => of_secgroups,
        _ => of_others,
    };
    answer(front_end, user, method, args)
}

fn no_method(method: &str) -> Fault {
    Fault::new(-506, format!("Method '{method}' not defined"))
}

/// Users and their groups.
fn of_users(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.user.info" => front_end.user_info(user, args.int_or(1, -1)?).map(Value::Text),
        "one.user.allocate" => {
            let groups = args.ints_or_none(4)?;
            id(front_end.user_allocate(user, args.text(1)?, args.text(2)?, &groups))
        }
        "one.user.update" => id(front_end.user_update(user, args.int(1)?, args.text(2)?, args.int_or(3, 0)?)),
        "one.user.passwd" => id(front_end.user_passwd(user, args.int(1)?, args.text(2)?)),
        "one.user.delete" => id(front_end.user_delete(user, args.int(1)?)),
        "one.user.quota" => id(front_end.user_quota(user, args.int(1)?, args.text(2)?)),
        "one.user.login" => front_end
            .user_login(user, args.text(1)?, args.text_or(2)?, args.int_or(3, -1)?)
            .map(Value::Text),
        "one.userpool.info" => Ok(Value::Text(front_end.userpool_info(user))),
        other => return Err(no_method(other)),
    })
}

/// Groups, and what they and users may do.
fn of_groups(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.grouppool.info" => Ok(Value::Text(front_end.grouppool_info(user))),
        "one.group.info" => front_end.group_info(user, args.int(1)?).map(Value::Text),
        "one.group.allocate" => id(front_end.group_allocate(user, args.text(1)?)),
        "one.group.update" => {
            id(front_end.group_update(user, args.int(1)?, args.text(2)?, args.int_or(3, 0)?))
        }
        "one.group.delete" => id(front_end.group_delete(user, args.int(1)?)),
        "one.acl.info" => front_end.acl_info(user).map(Value::Text),
        "one.acl.addrule" => {
            // The zone, the fourth, is this one.
            args.text_or(4)?;
            id(front_end.acl_add(user, [args.text(1)?, args.text(2)?, args.text(3)?]))
        }
        "one.acl.delrule" => id(front_end.acl_delete(user, args.int(1)?)),
        other => return Err(no_method(other)),
    })
}

fn of_images(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    front_end.images.retain(|_, image| !image.is_gone());
    Ok(match method {
        "one.imagepool.info" => {
            args.int(1)?;
            Ok(Value::Text(front_end.imagepool_info(user)))
        }
        "one.image.info" => front_end.image_info(user, args.int(1)?).map(Value::Text),
        "one.image.allocate" => id(front_end.image_allocate(user, args.text(1)?, args.int(2)?)),
        "one.image.delete" => id(front_end.image_delete(user, args.int(1)?)),
        "one.image.chmod" => id(front_end.image_chmod(user, args.int(1)?, args.int(8)?)),
        other => return Err(no_method(other)),
    })
}

fn of_templates(
    front_end: &mut FrontEnd,
    user: &User,
    method: &str,
    args: &Args<'_>,
) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.templatepool.info" => {
            args.int(1)?;
            Ok(Value::Text(front_end.templatepool_info(user)))
        }
        "one.template.info" => front_end.template_info(user, args.int(1)?).map(Value::Text),
        "one.template.allocate" => id(front_end.template_allocate(user, args.text(1)?)),
        "one.template.update" => {
            let (template, how) = (args.int(1)?, args.int_or(3, 0)?);
            id(front_end.template_update(user, template, args.text(2)?, how))
        }
        "one.template.delete" => id(front_end.template_delete(user, args.int(1)?)),
        "one.template.chmod" => id(front_end.template_chmod(user, args.int(1)?, args.int(8)?)),
        "one.template.instantiate" => {
            let (template, name, hold) = (args.int(1)?, args.text(2)?, args.flag_or(3)?);
            let (extra, persistent) = (args.text_or(4)?, args.flag_or(5)?);
            if persistent {
                Err(Refusal::plain(
                    Code::Internal,
                    "Persistent copies are not modelled by this stand-in",
                ))
            } else {
                id(front_end.instantiate(user, template, name, hold, extra))
            }
        }
        other => return Err(no_method(other)),
    })
}

fn of_vm(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.vm.allocate" => id(front_end.allocate(user, args.text(1)?, args.flag_or(2)?)),
        "one.vm.info" => front_end.vm_info(user, args.int(1)?).map(Value::Text),
        "one.vm.action" => id(front_end.action(user, args.text(1)?, args.int(2)?)),
        "one.vm.deploy" => {
            let (vm, host, enforce) = (args.int(1)?, args.int(2)?, args.flag_or(3)?);
            let (store, networks) = (args.int_or(4, -1)?, args.text_or(5)?);
            id(front_end.deploy(user, (vm, host), enforce, store, networks))
        }
        "one.vm.migrate" => {
            let (vm, host, live, enforce) = (args.int(1)?, args.int(2)?, args.flag(3)?, args.flag_or(4)?);
            args.int_or(5, -1)?;
            args.int_or(6, 0)?;
            id(front_end.migrate(user, vm, host, live, enforce))
        }
        "one.vm.recover" => id(front_end.recover(user, args.int(1)?, args.int(2)?)),
        "one.vm.update" => id(front_end.update(user, args.int(1)?, args.text(2)?, args.int_or(3, 0)?)),
        "one.vm.updateconf" => id(front_end.updateconf(user, args.int(1)?, args.text(2)?)),
        "one.vm.rename" => id(front_end.rename(user, args.int(1)?, args.text(2)?)),
        "one.vm.resize" => {
            let enforce = args.flag_or(3)?;
            id(front_end.resize(user, args.int(1)?, args.text(2)?, enforce))
        }
        "one.vm.detach" => id(front_end.detach_disk(user, args.int(1)?, args.int(2)?)),
        "one.vm.detachnic" => id(front_end.detach_nic(user, args.int(1)?, args.int(2)?)),
        "one.vm.attachsg" | "one.vm.detachsg" => {
            let which = [args.int(1)?, args.int(2)?, args.int(3)?];
            id(front_end.card_in_group(user, which, method == "one.vm.attachsg"))
        }
        "one.vm.chown" => id(front_end.chown(user, args.int(1)?, args.int(2)?, args.int(3)?)),
        "one.vm.lock" => id(front_end.lock(user, args.int(1)?, Some(args.int(2)?))),
        "one.vm.unlock" => id(front_end.lock(user, args.int(1)?, None)),
        "one.vm.monitoring" => front_end
            .vm_info(user, args.int(1)?)
            .map(|_| Value::Text("<MONITORING_DATA></MONITORING_DATA>".into())),
        other => return Err(no_method(other)),
    })
}

fn of_vmpool(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.vmpool.info" | "one.vmpool.infoextended" => {
            let listing = Listing {
                filter: args.int(1)?,
                start: args.int(2)?,
                end: args.int(3)?,
                state: args.int(4)?,
            };
            if args.text_or(5)?.is_empty() {
                front_end.vmpool_info(user, listing, method == "one.vmpool.infoextended")
            } else {
                // What it says with SQLite below.
                Err(Refusal::plain(
                    Code::Internal,
                    "JSON query search is not supported by the SQL backend",
                ))
            }
        }
        "one.vmpool.infoset" => {
            let (ids, extended) = (args.text(1)?, args.flag_or(2)?);
            Ok(front_end.vmpool_infoset(user, ids, extended))
        }
        "one.vmpool.monitoring" => Ok(Value::Text("<MONITORING_DATA></MONITORING_DATA>".into())),
        "one.vmpool.accounting" => Ok(Value::Text("<HISTORY_RECORDS></HISTORY_RECORDS>".into())),
        other => return Err(no_method(other)),
    })
}

fn of_hosts(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.hostpool.info" => Ok(Value::Text(front_end.hostpool_info(user))),
        "one.hostpool.monitoring" => Ok(Value::Text(front_end.hostpool_monitoring(user))),
        "one.host.info" => front_end.host_info(user, args.int(1)?).map(Value::Text),
        "one.host.monitoring" => front_end.host_monitoring(user, args.int(1)?).map(Value::Text),
        "one.host.delete" => id(front_end.host_delete(user, args.int(1)?)),
        "one.host.status" => id(front_end.host_status(user, args.int(1)?, args.int(2)?)),
        other => return Err(no_method(other)),
    })
}

fn of_secgroups(
    front_end: &mut FrontEnd,
    user: &User,
    method: &str,
    args: &Args<'_>,
) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.secgrouppool.info" => Ok(Value::Text(front_end.secgrouppool_info(user, args.int(1)?))),
        "one.secgroup.info" => front_end.secgroup_info(user, args.int(1)?).map(Value::Text),
        "one.secgroup.allocate" => id(front_end.secgroup_allocate(user, args.text(1)?)),
        "one.secgroup.update" => {
            let (group, how) = (args.int(1)?, args.int_or(3, 0)?);
            id(front_end.secgroup_update(user, group, args.text(2)?, how))
        }
        "one.secgroup.commit" => id(front_end.secgroup_commit(user, args.int(1)?, args.flag_or(2)?)),
        "one.secgroup.delete" => id(front_end.secgroup_delete(user, args.int(1)?)),
        other => return Err(no_method(other)),
    })
}

/// What little there is of everything else.
fn of_others(front_end: &mut FrontEnd, user: &User, method: &str, args: &Args<'_>) -> Result<Outcome, Fault> {
    Ok(match method {
        "one.system.version" => Ok(Value::Text(front_end.settings.version.clone())),
        "one.system.config" => {
            admin_only(user, "ADMIN").map(|()| Value::Text(recorded::system_config().to_owned()))
        }
        "one.vnpool.info" => Ok(Value::Text(front_end.vnpool_info(user))),
        "one.vn.info" => front_end.vn_info(user, args.int(1)?).map(Value::Text),
        "one.clusterpool.info" => Ok(Value::Text(front_end.cluster_pool())),
        "one.datastorepool.info" => Ok(Value::Text(front_end.datastore_pool())),
        "one.zonepool.info" => Ok(Value::Text(recorded::ZONE_POOL.to_owned())),
        "one.hookpool.info" => Ok(Value::Text("<HOOK_POOL></HOOK_POOL>".into())),
        other => return Err(no_method(other)),
    })
}
