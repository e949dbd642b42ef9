//! Scenarios in the simulated slurmctld, against what the real one was recorded to do:
//! `crates/slurm/tests/real/scenario.rs` replays and records them.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use std::fs;
use std::path::Path;
use thiao_sim::scenario::replay::{Sequences, replay};
use thiao_sim::scenario::{Scenario, Simulated, recordings};
use thiao_sim::slurm::Release;

/// What the simulated slurmctld leaves to chance: it must go all the ways that the real one was seen to go, and
/// no others.
const SEEDS: u64 = 10;

#[test]
fn the_simulated_slurmctld_goes_the_way_that_the_real_one_went() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"));
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "scenario"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    let mut wrong = String::new();
    for file in files {
        let name = file.display();
        let scenario: Scenario = fs::read_to_string(&file)
            .unwrap()
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let all = recordings::all(&file).unwrap();
        for release in Release::KNOWN {
            let recorded = recordings::of(&all, release);
            let mut missing: Vec<&Sequences> = recorded.iter().collect();
            assert!(!missing.is_empty(), "{name} was not recorded");
            let mut failed = (0..SEEDS).filter_map(|seed| {
                let seen = match replay(&scenario, &mut Simulated::new(&scenario, release, seed)) {
                    Ok(seen) => seen,
                    Err(why) => return Some(why),
                };
                missing.retain(|way| **way != seen);
                match recorded.contains(&seen) {
                    true => None,
                    false => recorded[0].difference("real", &seen, "simulated"),
                }
            });
            if let Some(why) = failed.next() {
                wrong += &format!("{name}, slurmctld {release}:\n{why}\n");
            } else if let Some(way) = missing.first() {
                wrong += &format!("{name}, slurmctld {release}, real, and never simulated:\n{way}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
