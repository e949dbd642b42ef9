//! Every target over its seeds, and over some changes of them: that the targets
//! hold, not that they find much. For that there is `cargo xtask fuzz`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::path::Path;
use thiao_fuzz::{TARGETS, Target};

/// Changed inputs for each target: some seconds in all, without optimisation.
const CHANGED: u32 = 3_000;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// The bytes of all seeds of a target.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for folder in target.seeds {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        files.extend(
            std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().path()),
        );
    }
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// What becomes of a seed, one after another; places are in thousandths of the whole.
#[derive(Debug, Clone)]
enum Change {
    Put(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    /// A part of another seed.
    Take(usize, prop::sample::Index, usize, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (at, length) = (0..1000_usize, 1..40_usize);
    let change = prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Change::Remove(at, length)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Change::Repeat(at, length)),
        (at.clone(), any::<prop::sample::Index>(), at, length)
            .prop_map(|(at, seed, from, length)| Change::Take(at, seed, from, length)),
    ];
    prop::collection::vec(change, 1..6)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change], seeds: &[Vec<u8>]) -> Vec<u8> {
    let place = |bytes: &[u8], at: usize| bytes.len() * at / 1000;
    let part = |bytes: &Vec<u8>, at: usize, length: usize| {
        let at = place(bytes, at);
        bytes[at..bytes.len().min(at + length)].to_vec()
    };
    for change in changes {
        let (at, new) = match change {
            Change::Put(at, byte) => {
                let at = place(&bytes, *at);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
                continue;
            }
            Change::Remove(at, length) => {
                let at = place(&bytes, *at);
                bytes.drain(at..bytes.len().min(at + length));
                continue;
            }
            Change::Insert(at, new) => (*at, new.clone()),
            Change::Repeat(at, length) => (*at, part(&bytes, *at, *length)),
            Change::Take(at, seed, from, length) => (*at, part(seed.get(seeds), *from, *length)),
        };
        let at = place(&bytes, at);
        bytes.splice(at..at, new);
    }
    bytes
}

/// Printed so that it can be read, and written to a file by `printf`.
struct Input(Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The test of one target.
fn holds(name: &str) {
    let target = target(name);
    let seeds = seeds(target);
    for seed in &seeds {
        (target.check)(seed);
    }
    let short: Vec<Vec<u8>> = seeds
        .into_iter()
        .filter(|seed| seed.len() <= target.longest)
        .collect();
    assert!(!short.is_empty(), "{name} has no seeds");
    let config = Config {
        cases: CHANGED,
        // What is found becomes a seed.
        failure_persistence: None,
        ..Config::default()
    };
    let inputs = (any::<prop::sample::Index>(), changes())
        .prop_map(|(seed, changes)| Input(changed(seed.get(&short).clone(), &changes, &short)));
    TestRunner::new(config)
        .run(&inputs, |Input(bytes)| {
            (target.check)(&bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        #[test]
        fn each_target_has_its_test_and_its_seeds() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), tested);
            for target in TARGETS {
                let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
                assert!(own.is_dir(), "{}", own.display());
            }
        }
    };
}

tests!(hostlist intent resume_file xmlrpc bus config api template slurm guest trace);
