//! TOPOLOGY: whether a virtual processor's shape fits the VM's size.
//!
//! Read from oned's source (7.4, `VirtualMachine::parse_topology`): it is looked at before anything is
//! made. That the text about VCPU comes was seen on a real oned 7.4.0.

use thiao_opennebula::syntax::{Template, Value};

/// Completes a TOPOLOGY, or refuses it in oned's words.
pub fn check(template: &mut Template) -> Result<(), String> {
    let number = |template: &Template, name: &str| {
        template
            .get(name)
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    let Some(topology) = template.vectors("TOPOLOGY").next().map(<[_]>::to_vec) else {
        return Ok(());
    };
    let get = |name: &str| {
        let found = topology.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.trim())
    };
    let vcpu = number(template, "VCPU").unwrap_or(1);
    let pinned = get("PIN_POLICY").is_some_and(|policy| {
        ["CORE", "THREAD", "SHARED"]
            .iter()
            .any(|word| policy.eq_ignore_ascii_case(word))
    });
    if pinned {
        // A pinned VM has its processors for itself.
        template.set("CPU", vcpu.to_string());
    }
    if number(template, "VCPU_MAX").is_some_and(|most| most > 0) {
        return Err("VM with TOPOLOGY does not support CPU hotplug (VCPU_MAX)".to_owned());
    }
    let part = |name: &str| get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (sockets, cores, threads) = (part("SOCKETS"), part("CORES"), part("THREADS"));
    let product = sockets
        .max(u64::from(pinned))
        .saturating_mul(cores)
        .saturating_mul(threads);
    let (all, none) = (product != 0, sockets + cores + threads == 0);
    if all && product != vcpu {
        return Err("Total threads per core and socket needs to match VCPU".to_owned());
    }
    if !all && !none && !pinned {
        return Err(
            "Non-pinned VMs with a virtual topology needs to set  SOCKETS, CORES and THREADS numbers."
                .to_owned(),
        );
    }
    if none && !pinned {
        let mut full = topology.clone();
        full.retain(|(key, _)| !["SOCKETS", "CORES", "THREADS", "PIN_POLICY"].contains(&key.as_str()));
        let ours = [("SOCKETS", 1), ("CORES", vcpu), ("THREADS", 1)];
        full.extend(ours.map(|(key, value)| (key.to_owned(), value.to_string())));
        full.push(("PIN_POLICY".to_owned(), "NONE".to_owned()));
        template.0.retain(|(key, _)| key != "TOPOLOGY");
        template.0.push(("TOPOLOGY".to_owned(), Value::Vector(full)));
    }
    Ok(())
}
