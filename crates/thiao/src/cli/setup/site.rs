//! What the site has of its own where ours is to be: it goes on, beside ours.

use super::pieces::{self, Piece, What};
use crate::config::{Config, DEFAULT_SLURM_CONF};
use crate::doctor;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use thiao_core::finding::Remedy;
use thiao_core::spool;
use thiao_slurm::conf::{HOOKS, MemoryForms};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::own::{Earlier, Own};
use thiao_slurm::{Slurm, Version, join, keys, lua, partitions};

/// What an earlier setup wrote there, if it did.
pub(super) fn earlier(lines: &Path) -> Option<Earlier> {
    let text = std::fs::read_to_string(lines).ok()?;
    let has_script = lines.with_file_name(lua::SITE).exists();
    pieces::is_ours(text.as_bytes()).then(|| Earlier::parse(&text).with_script(has_script))
}

/// What the site has of its own, by slurmctld if it answers, else by the earlier lines.
pub(super) fn own(
    present: Option<&thiao_slurm::Config>,
    hooks: &Path,
    version: Version,
    earlier: Option<&Earlier>,
) -> Own {
    let Some(present) = present else {
        return earlier.map(Own::recorded).unwrap_or_default();
    };
    let programs = join::of_site(present, hooks, version, |path| std::fs::read_to_string(path).ok());
    Own::of(present, hooks, version, &programs, earlier)
}

/// The site's programs that are called beside ours, by key, and what is to be said of them.
pub(super) fn programs(own: &Own) -> (BTreeMap<&'static str, String>, Vec<String>) {
    let (joined, odd): (BTreeMap<_, _>, BTreeMap<_, _>) = own
        .programs()
        .into_iter()
        .partition(|(_, site)| join::is_plain(site));
    let told = joined.iter().map(|(key, site)| {
        format!(
            "{key} is {site}: it is called beside ours, by a script in {}",
            join::FOLDER
        )
    });
    let odd = odd.iter().map(|(key, site)| {
        format!("{key} is {site}, which no script can name: give it a path of letters, digits and ._-+")
    });
    let notes = told.chain(odd).collect();
    (joined, notes)
}

/// The scripts that call the site's programs and ours.
pub(super) fn scripts(fragment: &Fragment, config: &Config) -> Vec<Piece> {
    let nodes = fragment.hooks.join("state/spool").join(spool::NODES);
    let scontrol = thiao_slurm::find("scontrol", config.slurm.bin_dir.as_deref())
        .unwrap_or_else(|_| PathBuf::from("/usr/bin/scontrol"));
    let script = |(key, name): &(&'static str, &'static str)| {
        let site = fragment.joined.get(key)?;
        Some(Piece {
            path: join::program(&fragment.hooks, name, true),
            what: What::Program(join::script(key, &fragment.hooks, name, site, &nodes, &scontrol)),
        })
    };
    HOOKS.iter().filter_map(script).collect()
}

/// How the site's partitions say memory.
///
/// # Errors
/// A sentence for people when they cannot be read.
pub(super) fn memory_forms(slurm: &Slurm, fragment: &Fragment) -> Result<MemoryForms, String> {
    let ours: BTreeSet<String> = fragment.nodes.iter().map(|line| line.partition.clone()).collect();
    slurm
        .partitions()
        .map(|all| partitions::memory_forms(&all, &ours))
        .map_err(|error| {
            format!("slurmctld's partitions could not be read ({error}): ours may say memory in another form than they")
        })
}

/// What of the site's settings harms, in sentences.
pub(super) fn harmful(
    slurm: &Slurm,
    present: &thiao_slurm::Config,
    config: &Config,
    fragment: &Fragment,
) -> Vec<String> {
    let nodes = doctor::slurm::nodes(config, slurm, present);
    let mut notes: Vec<String> = keys::harmful(present, nodes)
        .into_iter()
        .map(|finding| match finding.remedy {
            Some(Remedy::Run(cure) | Remedy::Advice(cure)) => format!("{}; {cure}", finding.text),
            None => finding.text,
        })
        .collect();
    let file = present.get("SLURM_CONF").unwrap_or(DEFAULT_SLURM_CONF);
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for name in with_all_nodes(&text) {
        if fragment.nodes.iter().all(|line| line.partition != name) {
            notes.push(format!(
                "partition {name} has Nodes=ALL, which are ours too from now on: name its own nodes there, or its \
                 jobs come to ours by its rules"
            ));
        }
    }
    notes
}

/// The partitions that have all nodes, whichever come.
fn with_all_nodes(slurm_conf: &str) -> Vec<&str> {
    let value = |line: &'_ str, key: &str| -> Option<(usize, usize)> {
        let mut from = 0;
        for word in line.split_whitespace() {
            let start = from + line[from..].find(word)?;
            from = start + word.len();
            if let Some((name, value)) = word.split_once('=')
                && name.eq_ignore_ascii_case(key)
            {
                return Some((from - value.len(), from));
            }
        }
        None
    };
    let mut found = Vec::new();
    for line in slurm_conf
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
    {
        let (Some(name), Some(nodes)) = (value(line, "PartitionName"), value(line, "Nodes")) else {
            continue;
        };
        if line[nodes.0..nodes.1].eq_ignore_ascii_case("all") {
            found.push(&line[name.0..name.1]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_with_all_nodes_are_found() {
        let text = "PartitionName=DEFAULT MaxTime=1\npartitionname=a State=UP nodes=all\n\
                    PartitionName=b Nodes=cn[1-2] # Nodes=ALL\n#PartitionName=c Nodes=ALL\nPartitionName=d Nodes=ALL Default=YES\n";
        assert_eq!(with_all_nodes(text), ["a", "d"]);
    }
}
