//! Every planted fault is found, in the world that the documentation names.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use thiao_sim::flaw::Flaw;
use thiao_sim::hunt::{Found, table, world};
use thiao_sim::trial::trial;

#[test]
fn every_planted_fault_is_found_where_the_documentation_says() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulation.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let found: Vec<Found> = Flaw::ALL
        .iter()
        .map(|flaw| {
            let row = docs
                .lines()
                .find(|line| line.starts_with(&format!("| `{}` |", flaw.name())));
            let row = row.unwrap_or_else(|| panic!("{} is not in the table", flaw.name()));
            let seed = row.split('|').nth(3).unwrap().trim().parse().unwrap();
            let violation = trial(&world(*flaw, seed));
            let violation = violation.err().unwrap_or_else(|| {
                panic!(
                    "{} is not found in world {seed}: `cargo xtask sim --planted` prints the table anew",
                    flaw.name()
                )
            });
            Found {
                flaw: *flaw,
                seed,
                invariant: violation.broken.invariant,
            }
        })
        .collect();
    assert!(
        docs.contains(&table(&found)),
        "`cargo xtask sim --planted` prints the table anew:\n{}",
        table(&found)
    );
}
