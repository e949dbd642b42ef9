//! A small scheduler: first host that fits, SCHED_REQUIREMENTS of ids and names; a network for each card
//! that waits for one.

use crate::front_end::FrontEnd;
use crate::host::{Host, HostState};
use crate::lifecycle::{Lcm, State};
use crate::vm::replace;

/// Places every waiting VM that fits somewhere; writes SCHED_MESSAGE into the others.
pub fn round(front_end: &mut FrontEnd) {
    reschedule(front_end);
    let waiting: Vec<u32> = front_end
        .live
        .iter()
        .copied()
        .filter(|id| front_end.vms.get(id).is_some_and(|vm| vm.state == State::Pending))
        .collect();
    for id in waiting {
        let Some(vm) = front_end.vms.get(&id) else {
            continue;
        };
        let wanted = vm
            .user_template
            .get("SCHED_REQUIREMENTS")
            .unwrap_or_default()
            .to_owned();
        let networks = front_end.choose_networks(id);
        let leased: Vec<u32> = vm.leases.iter().map(|(network, _)| *network).collect();
        let clusters = front_end.common_clusters(&leased).unwrap_or_default();
        let mut met = false;
        let mut chosen = None;
        for host in &front_end.hosts {
            if host.deleted
                || host.state != HostState::Monitored
                || !requirements(&wanted, host.id, &host.setup.name)
                || !(leased.is_empty() || clusters.contains(&host.setup.cluster.id))
            {
                continue;
            }
            met = true;
            if host.lacks(vm.cpu_percent, vm.memory_mb).is_none() {
                chosen = Some(host.id);
                break;
            }
        }
        let placed = match (chosen, networks) {
            (Some(host), Ok(networks)) => front_end.attach_networks(id, &networks).map(|()| host),
            (Some(_), Err(text)) => Err(text),
            (None, _) if met => Err("No host with enough capacity to deploy the VM".to_owned()),
            (None, _) => Err(format!("No hosts meet the requirements: {wanted}")),
        };
        match placed {
            Ok(host) => {
                if let Some(vm) = front_end.vm_mut(id) {
                    vm.user_template.0.retain(|(key, _)| key != "SCHED_MESSAGE");
                }
                front_end.place(id, host, true);
            }
            Err(text) => {
                if let Some(vm) = front_end.vm_mut(id)
                    && vm.user_template.get("SCHED_MESSAGE") != Some(text.as_str())
                {
                    replace(&mut vm.user_template, "SCHED_MESSAGE", text);
                }
            }
        }
    }
}

/// Moves those that are to be rescheduled to another host, saved with their memory: oned.conf's LIVE_RESCHEDS and
/// COLD_MIGRATE_MODE are 0 as it comes (7.4; `PlanManager.cc`).
fn reschedule(front_end: &mut FrontEnd) {
    let live = front_end.live.iter().filter_map(|id| front_end.vms.get(id));
    let marked: Vec<(u32, State, Option<u32>)> = live
        .filter(|vm| vm.resched)
        .map(|vm| (vm.id, vm.state, vm.host()))
        .collect();
    for (id, state, here) in marked {
        if !matches!(
            state,
            State::Poweroff | State::Active(Lcm::Running | Lcm::Unknown)
        ) {
            continue;
        }
        let fits = |host: &&Host| {
            let open = !host.deleted && host.state == HostState::Monitored;
            open && Some(host.id) != here && front_end.fits(id, host.id).is_ok()
        };
        if let Some(host) = front_end.hosts.iter().find(fits).map(|host| host.id) {
            front_end.moved(id, state, host, false);
        }
    }
}

/// Whether a host or network meets them: `ID=2`, `NAME="h1"`, joined by `|` and `&`; other words are
/// taken as met.
pub fn requirements(text: &str, id: u32, name: &str) -> bool {
    text.split('|').any(|either| {
        either.split('&').all(|part| {
            let part = part.trim().trim_matches(['(', ')']);
            match part.split_once('=') {
                Some((key, value)) => {
                    let value = value.trim().trim_matches('"');
                    match key.trim() {
                        "ID" => value == id.to_string(),
                        "NAME" => value == name,
                        _ => true,
                    }
                }
                None => true,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_of_ids_and_names_are_met_or_not() {
        assert!(requirements("", 1, "h1"));
        assert!(requirements("ID=2 | ID = \"1\"", 1, "h1"));
        assert!(requirements("NAME=\"h1\" & ID=1", 1, "h1"));
        assert!(!requirements("NAME=\"h2\"", 1, "h1"));
        assert!(!requirements("NAME=\"h1\" & ID=2", 1, "h1"));
    }
}
