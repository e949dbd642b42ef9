//! What real slurmctlds were recorded to do, beside each scenario.
//!
//! `job_mode_drained.states` is of 22.05, the oldest; `job_mode_drained.24.11.states` of the first release that was
//! recorded to go another way. A recording belongs to its release and to all later ones until the next. Where
//! slurmctld goes one way or another by chance, the file has all that were seen.

use super::replay::Sequences;
use crate::slurm::Release;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;

const EXTENSION: &str = "states";

/// The ways that a slurmctld goes, in the order in which they were seen.
pub type Ways = Vec<Sequences>;

/// The recordings of the scenario in this file, by the releases from which on they hold.
///
/// # Errors
/// Which of them cannot be read, or is none.
pub fn all(scenario: &Path) -> Result<BTreeMap<Release, Ways>, String> {
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
        let ways = text.split("\n\n").map(Sequences::parse);
        found.insert(
            release,
            ways.collect::<Result<_, _>>().map_err(|why| told(&path, why))?,
        );
    }
    Ok(found)
}

/// What a slurmctld of this release does, by the newest recording that is not of a later one.
#[must_use]
pub fn of(all: &BTreeMap<Release, Ways>, release: Release) -> &[Sequences] {
    let newest = all.range(..=release).next_back();
    newest.map_or(&[], |(_, ways)| ways.as_slice())
}

/// Writes down what a slurmctld of this version did, if that was not seen of its release or, where that has no
/// recording, of those before.
///
/// # Errors
/// As [`all`], and what cannot be written.
pub fn record(scenario: &Path, version: &str, seen: &Sequences) -> Result<(), String> {
    let release: Release = version.parse()?;
    let all = all(scenario)?;
    if of(&all, release).contains(seen) {
        return Ok(());
    }
    let extension = match release == Release::OLDEST {
        true => EXTENSION.to_owned(),
        false => format!("{release}.{EXTENSION}"),
    };
    let file = scenario.with_extension(extension);
    let gap = if all.contains_key(&release) { "\n" } else { "" };
    let text = format!("{gap}# Recorded from slurmctld {version}.\n{seen}");
    let opened = fs::File::options().create(true).append(true).open(&file);
    let written = opened.and_then(|mut to| to.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", file.display()))
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
        for (version, seen) in [
            ("22.05.8", "PENDING"),
            ("23.11.11", "PENDING"),
            ("24.11.5", "RUNNING"),
            ("24.11.5", "PENDING"),
            ("25.11.7", "RUNNING"),
            ("26.05.5", "over"),
        ] {
            record(&file, version, &states(seen)).unwrap();
        }
        let found = all(&file);
        let files = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(files, 4);
        for (release, seen) in [
            ("22.05", &["PENDING"][..]),
            ("24.05", &["PENDING"]),
            ("24.11", &["RUNNING", "PENDING"]),
            ("25.11", &["RUNNING", "PENDING"]),
            ("27.05", &["over"]),
        ] {
            let of = of(found.as_ref().unwrap(), release.parse().unwrap());
            let seen: Vec<Sequences> = seen.iter().map(|seen| states(seen)).collect();
            assert_eq!(of, seen, "{release}");
        }
    }
}
