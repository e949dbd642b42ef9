//! What a cluster's machine has that Thiao might have changed: taken before it came and after it left.

use super::machine::Machine;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// What is looked at, and the program that says it.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("Slurm's settings", &["scontrol", "show", "config"]),
    ("Slurm's partitions", &["scontrol", "-o", "show", "partition"]),
    (
        "files in /etc",
        &[
            "find",
            "/etc",
            "-xdev",
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "{}",
            "+",
        ],
    ),
    (
        "units",
        &["systemctl", "list-unit-files", "--no-legend", "--no-pager"],
    ),
    ("interfaces", &["ip", "-br", "link"]),
    ("packet filters", &["nft", "list", "ruleset"]),
];

/// Where files of ours could be left.
const PLACES: [&str; 7] = ["find", "/etc", "/usr", "/var", "/run", "/home", "/root"];

/// Lines that change by themselves: times, counts, and files that Debian's own programs renew.
const PASSING: [&str; 5] = [
    "Configuration data as of",
    "BOOT_TIME",
    "NEXT_JOB_ID",
    "Slurmctld(primary)",
    "thiao-demo",
];

/// What each program said, by what it is about.
pub struct Snapshot(BTreeMap<&'static str, BTreeSet<String>>);

impl Snapshot {
    /// Asks the machine; nothing of these folders, which are this machine's.
    ///
    /// # Errors
    /// When a program cannot say it.
    pub fn take(machine: &Machine, without: &[String]) -> Result<Self> {
        let mut all = BTreeMap::new();
        let mut names = PLACES.to_vec();
        for folder in without {
            names.extend(["-path", folder, "-prune", "-o"]);
        }
        names.extend(["-iname", "*thiao*", "-print"]);
        all.insert("names of ours", lasting(&machine.run(120, &names)?));
        for (what, words) in QUESTIONS {
            all.insert(what, lasting(&machine.run(120, words)?));
        }
        Ok(Self(all))
    }

    /// That nothing is different: how much was compared.
    ///
    /// # Errors
    /// When something is: the lines.
    pub fn as_before(&self, before: &Self) -> Result<String> {
        let mut different = Vec::new();
        for (what, now) in &self.0 {
            let Some(then) = before.0.get(what) else { continue };
            different.extend(then.difference(now).map(|line| format!("{what}: gone: {line}")));
            different.extend(now.difference(then).map(|line| format!("{what}: new: {line}")));
        }
        if !different.is_empty() {
            bail!("{}", different.join("; "));
        }
        let lines: usize = self.0.values().map(BTreeSet::len).sum();
        Ok(format!(
            "{lines} lines about {} are the same",
            self.0.keys().copied().collect::<Vec<_>>().join(", ")
        ))
    }
}

/// The lines that should stay.
fn lasting(said: &str) -> BTreeSet<String> {
    said.lines()
        .filter(|line| !PASSING.iter().any(|word| line.contains(word)))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_and_times_are_not() {
        let of = |text: &str| Snapshot(BTreeMap::from([("settings", lasting(text))]));
        let before = of("BOOT_TIME = 1\nA = 1\nB = 2\n");
        assert!(of("BOOT_TIME = 9\nA  =  1\nB = 2\n").as_before(&before).is_ok());
        let error = of("A = 3\nB = 2\n").as_before(&before).unwrap_err().to_string();
        assert_eq!(error, "settings: gone: A = 1; settings: new: A = 3");
    }
}
