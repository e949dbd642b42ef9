//! Keys of `NodeName=DEFAULT` that no line of ours can undo. They show nowhere but in `slurm.conf` itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Such keys, in small letters: how they are written, and what they do to our nodes (22.05.8).
const HARMFUL: &[(&str, &str, &str)] = &[(
    "socketsperboard",
    "SocketsPerBoard",
    "our nodes get other CPUs than their VMs have, and each of Slurm's programs complains",
)];

/// What of `slurm.conf` and the files that it includes harms, one sentence each, without a full stop.
#[must_use]
pub fn harmful(slurm_conf: &Path) -> Vec<String> {
    let mut keys = BTreeSet::new();
    collect(slurm_conf, &mut Vec::new(), &mut keys);
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
fn collect(file: &Path, seen: &mut Vec<PathBuf>, keys: &mut BTreeSet<String>) {
    if seen.iter().any(|other| other == file) {
        return;
    }
    seen.push(file.to_owned());
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    for line in lines(&text) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(word) if word.eq_ignore_ascii_case("include") => {
                if let Some(name) = words.next() {
                    collect(&file.with_file_name("").join(name), seen, keys);
                }
            }
            Some(word) if word.eq_ignore_ascii_case("NodeName=DEFAULT") => {
                let key = |word: &str| Some(word.split_once('=')?.0.to_ascii_lowercase());
                keys.extend(words.filter_map(key));
            }
            Some(_) | None => {}
        }
    }
}

/// Lines without comments, those that end in a backslash with the next, and no space around `=`.
fn lines(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => all.push(line.to_owned()),
        }
        goes_on = more;
    }
    for line in &mut all {
        let words: Vec<&str> = line.trim().split('=').map(str::trim).collect();
        *line = words.join("=");
    }
    all
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
