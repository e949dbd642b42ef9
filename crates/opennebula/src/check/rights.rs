//! What the user may do, as far as that can be told without doing it.
//!
//! Measured on oned 7.4: deploying, migrating and recovering need ADMIN of the VM, which its owner lacks
//! (`recover` with "delete" is the operation `delete`, and not `recover`)
//! unless an ACL says so or `VM_MANAGE_OPERATIONS` in the user's template names the operation; deploying
//! needs MANAGE of the host too. A plain user sees an empty host pool, without an error. ACLs cannot be
//! read by plain users.

use super::needs::Needs;
use super::seen::{Seen, Tried, is_left};
use crate::error::Class;
use crate::model::User;
use crate::settings::Placement;
use thiao_core::finding::{Finding, Verdict};

const WHAT: &str = "rights";

/// Of what we do to VMs, that which their owner may not do by itself.
fn admin_operations(placement: Placement) -> &'static [&'static str] {
    match placement {
        Placement::Thiao => &["deploy", "delete"],
        // Its scheduler deploys.
        Placement::OpenNebula => &["delete"],
    }
}

pub(super) fn judge(user: &User, seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    if user.is_administrator() {
        found.push(Finding::ok(
            WHAT,
            format!("{} is in the group oneadmin and may do everything", user.name),
        ));
    } else {
        on_vms(user, seen, wanted, found);
    }
    for tried in &seen.tried {
        found.extend(of_try(user, tried, wanted));
    }
    for vm in seen.vms.iter().flatten().filter(|vm| is_left(vm, wanted)) {
        found.push(
            Finding::warn(
                "try",
                format!("VM {} is left from an earlier try; it never ran", vm.row.id),
            )
            .run("thiao doctor --try"),
        );
    }
}

/// What a try showed; first what is wrong.
fn of_try(user: &User, tried: &Tried, wanted: &Needs) -> Vec<Finding> {
    let cpus = match tried.shape.cpus {
        1 => "1 CPU".to_owned(),
        more => format!("{more} CPUs"),
    };
    let size = format!("{cpus}, {} MiB", tried.shape.memory_mb);
    let id = match &tried.made {
        Ok(id) => id,
        Err(error) => return vec![failed_try(user, &tried.source, &size, error)],
    };
    let mut found = Vec::new();
    if let Err(error) = &tried.removed {
        found.push(
            Finding::bad(
                "try",
                format!("VM {id} was made and could not be removed: {error}"),
            )
            .run(format!("onevm terminate --hard {id}")),
        );
    }
    let has = match &tried.addresses {
        Ok(addresses) if !addresses.is_empty() => {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            all.join(", ")
        }
        Ok(_) => match wanted.placement {
            Placement::OpenNebula => "no address until its scheduler chooses".to_owned(),
            Placement::Thiao => {
                found.push(no_address(
                    tried,
                    &size,
                    "OpenNebula gave it no address: nobody could reach it",
                ));
                "no address".to_owned()
            }
        },
        Err(error) => {
            found.push(no_address(
                tried,
                &size,
                &format!("its addresses cannot be read: {error}"),
            ));
            "no address known".to_owned()
        }
    };
    if found.is_empty() {
        found.push(Finding::ok(
            "try",
            format!(
                "a VM could be made from {} and removed (VM {id}, never started: {size}, {has})",
                tried.source
            ),
        ));
    }
    found
}

fn no_address(tried: &Tried, size: &str, why: &str) -> Finding {
    Finding::warn("try", format!("a VM from {} ({size}): {why}", tried.source))
        .advice("give its NIC a network with addresses, or make sure that its guest gets one from elsewhere")
}

fn failed_try(user: &User, source: &str, size: &str, error: &crate::error::Error) -> Finding {
    let finding = Finding::bad(
        "try",
        format!("no VM ({size}) can be made from {source}: {error}"),
    );
    match error.class {
        // Instantiating with more attributes asks for the right to create templates.
        Class::Authorization => finding.run(format!(
            "oneacl create '#{} TEMPLATE/* USE+CREATE' && oneacl create '#{0} VM/* CREATE'",
            user.id
        )),
        Class::Capacity => finding.advice("free some of the quota or network, or raise it"),
        Class::Authentication
        | Class::NoSuchObject
        | Class::BadTemplate
        | Class::WrongState
        | Class::Busy
        | Class::Network
        | Class::Unknown => finding.advice("mend what the message says, then run this again"),
    }
}

fn on_vms(user: &User, seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    let tried = seen
        .tried
        .iter()
        .find(|tried| tried.made.is_ok())
        .map(|tried| &tried.recovered);
    let operations = admin_operations(wanted.placement);
    let missing: Vec<&str> = operations
        .iter()
        .copied()
        .filter(|operation| !granted(user, operation))
        .collect();
    // With OpenNebula's scheduler only a VM that hangs while it starts needs more than its owner may.
    let (verdict, why) = match wanted.placement {
        Placement::Thiao => (
            Verdict::Bad,
            "deploying its VMs needs ADMIN of the VM and MANAGE of the host",
        ),
        Placement::OpenNebula => (
            Verdict::Warn,
            "removing a VM that hangs while it starts needs ADMIN of the VM",
        ),
    };
    // ACLs name resources by their group; there is no form for "what this user owns".
    let grant = format!(
        "oneacl create '#{user} VM/@{group} USE+MANAGE+ADMIN' && oneacl create '#{user} HOST/* USE+MANAGE'",
        user = user.id,
        group = user.groups.first().copied().unwrap_or(1)
    );
    found.push(match tried {
        Some(Ok(())) => Finding::ok(
            WHAT,
            format!("{} has ADMIN of its VMs, as a try showed", user.name),
        ),
        _ if missing.is_empty() => Finding::ok(
            WHAT,
            format!("VM_MANAGE_OPERATIONS of {} has {}", user.name, operations.join(" and ")),
        ),
        Some(Err(error)) if error.class == Class::Authorization => Finding::new(
            WHAT,
            verdict,
            format!("{} lacks ADMIN of its VMs: {why} ({error})", user.name),
        )
        .run(grant),
        Some(Err(_)) | None => Finding::warn(
            WHAT,
            format!(
                "{} is not in the group oneadmin, and its VM_MANAGE_OPERATIONS has no {}: {why}; whether an ACL \
                 gives that cannot be seen (`thiao doctor --try` finds out with a VM that never runs)",
                user.name,
                missing.join(" and no ")
            ),
        )
        .run(grant),
    });
}

/// Whether the user's own template moves the operation from ADMIN to what an owner has.
fn granted(user: &User, operation: &str) -> bool {
    ["VM_USE_OPERATIONS", "VM_MANAGE_OPERATIONS"].iter().any(|key| {
        user.template.get(*key).is_some_and(|list| {
            list.split(',')
                .map(str::trim)
                .any(|word| word.eq_ignore_ascii_case(operation))
        })
    })
}
