//! Lists of licences, and the gate among them.

use crate::info::Config;
use crate::names::GATE;
use thiao_core::view::Gate;

/// Whether a list of licences has the gate, and the others of it.
pub(crate) fn split(licenses: &str) -> (Gate, String) {
    if !licenses.contains(GATE) {
        return (Gate::Open, licenses.to_owned());
    }
    let ours = |item: &&str| item.split([':', '=', '*', '@']).next() == Some(GATE);
    let (gate, others): (Vec<&str>, Vec<&str>) = licenses
        .split([',', ';'])
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .partition(ours);
    match gate.is_empty() {
        true => (Gate::Open, licenses.to_owned()),
        false => (Gate::Waits, others.join(",")),
    }
}

/// A list of licences with the gate.
pub(crate) fn with_gate(licenses: &str) -> String {
    match licenses {
        "" => format!("{GATE}:1"),
        some => format!("{some},{GATE}:1"),
    }
}

/// How many of the gate's licence `slurm.conf` has.
pub(crate) fn gate_count(config: &Config) -> Option<u32> {
    config.get("Licenses")?.split(',').find_map(|item| {
        let (name, count) = item.split_once([':', '*', '=']).unwrap_or((item, "1"));
        (name.trim() == GATE).then(|| count.trim().parse().unwrap_or(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_told_from_other_licences() {
        for (text, gate, others) in [
            ("", Gate::Open, ""),
            ("a:2", Gate::Open, "a:2"),
            ("a:2,vm_room:1", Gate::Waits, "a:2"),
            ("vm_room", Gate::Waits, ""),
            ("vm_room:2,b", Gate::Waits, "b"),
            ("vm_roomy:1,a", Gate::Open, "vm_roomy:1,a"),
        ] {
            assert_eq!(split(text), (gate, others.to_owned()), "{text}");
        }
        assert_eq!(split(&with_gate("a:2")).1, "a:2");
        assert_eq!(split(&with_gate("")), (Gate::Waits, String::new()));
    }

    #[test]
    fn the_licence_is_found_in_the_configuration() {
        let count = |text: &str| gate_count(&Config::parse(&format!("Licenses = {text}\n")));
        assert_eq!(count("a:2,vm_room:1"), Some(1));
        assert_eq!(count("vm_room"), Some(1));
        assert_eq!(count("vm_rooms:2"), None);
        assert_eq!(count("(null)"), None);
    }
}
