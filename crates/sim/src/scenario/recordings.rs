//! What real slurmctlds were recorded to do, beside each scenario.
//!
//! `own_drained.states` is of 22.05, the oldest; `own_drained.24.11.states` of the first release that was
//! recorded to go another way. A recording belongs to its release and to all later ones until the next.

use super::replay::Sequences;
use crate::slurm::Release;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

const EXTENSION: &str = "states";

/// The recordings of the scenario in this file, by the releases from which on they hold.
///
/// # Errors
/// Which of them cannot be read, or is none.
pub fn all(scenario: &Path) -> Result<BTreeMap<Release, Sequences>, String> {
    let folder = scenario.parent().unwrap_or(Path::new("."));
    let name = scenario.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let told = |path: &Path, why: String| format!("{}: {why}", path.display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| told(folder, error.to_string()))? {
        let path = entry.map_err(|error| told(folder, error.to_string()))?.path();
        let file = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Some(rest) = file
            .strip_prefix(name)
            .and_then(|rest| rest.strip_suffix(EXTENSION))
        else {
            continue;
        };
        let release = match rest.trim_matches('.') {
            "" if rest == "." => Release::OLDEST,
            // Of another scenario, whose name begins like this.
            _ if !rest.starts_with('.') => continue,
            release => release.parse().map_err(|why| told(&path, why))?,
        };
        let text = fs::read_to_string(&path).map_err(|error| told(&path, error.to_string()))?;
        found.insert(release, Sequences::parse(&text).map_err(|why| told(&path, why))?);
    }
    Ok(found)
}

/// What a slurmctld of this release does, by the newest recording that is not of a later one.
#[must_use]
pub fn of(all: &BTreeMap<Release, Sequences>, release: Release) -> Option<&Sequences> {
    all.range(..=release).next_back().map(|(_, states)| states)
}

/// Writes down what a slurmctld of this version did, if it went another way than those of the releases before.
///
/// # Errors
/// As [`all`], and what cannot be written.
pub fn record(scenario: &Path, version: &str, seen: &Sequences) -> Result<(), String> {
    let release: Release = version.parse()?;
    let extension = match release == Release::OLDEST {
        true => EXTENSION.to_owned(),
        false => format!("{release}.{EXTENSION}"),
    };
    let file = scenario.with_extension(extension);
    let told = |error: io::Error| format!("{}: {error}", file.display());
    let mut before = all(scenario)?;
    let was_there = before.remove(&release).is_some();
    if of(&before, release) != Some(seen) {
        let text = format!("# Recorded from slurmctld {version}.\n{seen}");
        fs::write(&file, text).map_err(told)
    } else if was_there {
        fs::remove_file(&file).map_err(told)
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]
mod tests {
    use super::*;

    #[test]
    fn a_recording_holds_until_the_next() {
        let folder = std::env::temp_dir().join(format!("thiao-recordings-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("a.scenario");
        let states = |text: &str| Sequences::parse(&format!("job a: {text}\n")).unwrap();
        // Of another scenario, whose name begins like this one's.
        fs::write(folder.join("ab.states"), "job a: RUNNING\n").unwrap();
        let mut files = Vec::new();
        for (version, seen) in [
            ("22.05.8", "PENDING"),
            ("23.11.11", "PENDING"),
            ("24.11.5", "RUNNING"),
            ("25.11.7", "over"),
            ("25.11.8", "RUNNING"),
            ("26.05.5", "PENDING"),
        ] {
            record(&file, version, &states(seen)).unwrap();
            let entries = fs::read_dir(&folder).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|name| name.starts_with("a.")).collect();
            names.sort();
            files.push(names.join(" "));
        }
        let found = all(&file);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            files,
            [
                "a.states",
                "a.states",
                "a.24.11.states a.states",
                "a.24.11.states a.25.11.states a.states",
                "a.24.11.states a.states",
                "a.24.11.states a.26.05.states a.states",
            ]
        );
        for (release, seen) in [
            ("22.05", "PENDING"),
            ("24.05", "PENDING"),
            ("24.11", "RUNNING"),
            ("25.11", "RUNNING"),
            ("27.05", "PENDING"),
        ] {
            let of = of(found.as_ref().unwrap(), release.parse().unwrap());
            assert_eq!(of, Some(&states(seen)), "{release}");
        }
    }
}
