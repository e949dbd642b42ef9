//! Quotas: an own limit, or the default for all users or groups.

use crate::model::Quota;
use crate::wire::Malformed;
use crate::wire::xml::Doc;
use std::collections::BTreeMap;

/// Attributes of `VM_QUOTA/VM`, as they are written.
pub(super) type Limits = BTreeMap<String, String>;

pub(super) fn limits(doc: &mut Doc<'_>) -> Result<Limits, Malformed> {
    let mut found = Limits::default();
    doc.children(|doc, name| {
        if name != "VM" {
            return doc.skip();
        }
        let limits = doc.singles()?;
        // 7.x may have further ones, each for some clusters' hosts only.
        if limits.get("CLUSTER_IDS").is_none_or(String::is_empty) {
            found = limits;
        }
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn default_limits(doc: &mut Doc<'_>) -> Result<Limits, Malformed> {
    let mut found = Limits::default();
    doc.children(|doc, name| {
        if name == "VM_QUOTA" {
            found = limits(doc)?;
            Ok(())
        } else {
            doc.skip()
        }
    })?;
    Ok(found)
}

/// The limits that there are: -1 stands for the default, -2 for none.
pub(super) fn quotas(own: &Limits, default: &Limits) -> Vec<Quota> {
    const KINDS: [(&str, &str); 6] = [
        ("VMS", "VMS_USED"),
        ("CPU", "CPU_USED"),
        ("MEMORY", "MEMORY_USED"),
        ("RUNNING_VMS", "RUNNING_VMS_USED"),
        ("RUNNING_CPU", "RUNNING_CPU_USED"),
        ("RUNNING_MEMORY", "RUNNING_MEMORY_USED"),
    ];
    let number =
        |limits: &Limits, name: &str| limits.get(name).and_then(|text| text.trim().parse::<f64>().ok());
    let mut quotas = Vec::new();
    for (what, used) in KINDS {
        let mut limit = number(own, what).unwrap_or(-1.0);
        if limit == -1.0 {
            limit = number(default, what).unwrap_or(-2.0);
        }
        if limit >= 0.0 {
            quotas.push(Quota {
                what,
                limit: amount(what, limit),
                used: amount(what, number(own, used).unwrap_or_default()),
            });
        }
    }
    quotas
}

/// What a quota of that name allows or has used up: of CPU in percent of a core. No sum is made of it.
fn amount(name: &str, amount: f64) -> u64 {
    let amount = match name.ends_with("CPU") {
        true => (amount * 100.0).round(),
        false => amount,
    };
    // A cast saturates.
    amount as u64
}
