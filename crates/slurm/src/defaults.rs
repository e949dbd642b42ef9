//! Keys of `NodeName=DEFAULT` that no line of ours can undo. They show nowhere but in `slurm.conf` itself.

use crate::conf_lines::{self, Line};
use std::collections::BTreeSet;
use std::path::Path;

/// Such keys, in small letters: how they are written, and what they do to our nodes (22.05.8).
const HARMFUL: &[(&str, &str, &str)] = &[(
    "socketsperboard",
    "SocketsPerBoard",
    "our nodes get other CPUs than their VMs have, and each of Slurm's programs complains",
)];

/// What of `slurm.conf` and the files that it includes harms, one sentence each, without a full stop.
#[must_use]
pub fn harmful(slurm_conf: &Path) -> Vec<String> {
    let keys = keys(&conf_lines::read(slurm_conf));
    HARMFUL
        .iter()
        .filter(|(key, _, _)| keys.contains(*key))
        .map(|(_, name, what)| {
            format!(
                "NodeName=DEFAULT of slurm.conf has {name}: {what}; write it on the lines of your own nodes"
            )
        })
        .collect()
}

/// The keys of all such lines, in small letters.
fn keys(lines: &[Line]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for line in lines {
        let mut words = line.text.split_whitespace();
        if words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("NodeName=DEFAULT"))
        {
            let key = |word: &str| Some(word.split_once('=')?.0.to_ascii_lowercase());
            keys.extend(words.filter_map(key));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_line_undoes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (conf, more) = (dir.path().join("slurm.conf"), dir.path().join("nodes.conf"));
        let told = |text: &str, included: &str| {
            std::fs::write(&conf, text).unwrap();
            std::fs::write(&more, included).unwrap();
            harmful(&conf)
        };
        assert!(
            told(
                "NodeName=DEFAULT Sockets=2 # SocketsPerBoard=2\nNodeName=a SocketsPerBoard=2\n",
                ""
            )
            .is_empty()
        );
        let all = told(
            "include nodes.conf\n",
            "nodename = default CPUs=8 \\\n  socketsperboard = 2\nInclude slurm.conf\n",
        );
        assert!(
            all.len() == 1 && all[0].contains("has SocketsPerBoard: "),
            "{all:?}"
        );
        assert!(harmful(Path::new("/nonexistent/slurm.conf")).is_empty());
    }
}
