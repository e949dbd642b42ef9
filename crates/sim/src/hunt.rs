//! How soon planted faults are found: worlds of one seed after another, as every
//! campaign has them, until an invariant breaks.

use crate::campaign::Campaign;
use crate::draw::Scale;
use crate::flaw::Flaw;
use crate::outcome::Invariant;
use crate::setup::Setup;
use crate::trial::trial;
use std::fmt::Write as _;

/// A planted fault that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub flaw: Flaw,
    /// By the world of which seed, the first being 1.
    pub seed: u64,
    pub invariant: Invariant,
}

/// The world of a seed in which the controller has this flaw.
#[must_use]
pub fn world(flaw: Flaw, seed: u64) -> Setup {
    let campaign = Campaign {
        seeds: seed..=seed,
        scale: Scale::default(),
        profile: None,
    };
    Setup {
        flaw: Some(flaw),
        ..campaign.world(seed)
    }
}

/// Looks for `flaw` in the worlds of seeds 1 to `most`.
#[must_use]
pub fn hunt(flaw: Flaw, most: u64) -> Option<Found> {
    (1..=most).find_map(|seed| {
        let invariant = trial(&world(flaw, seed)).err()?.broken.invariant;
        Some(Found {
            flaw,
            seed,
            invariant,
        })
    })
}

/// A table of all planted faults for people, in Markdown.
#[must_use]
pub fn table(found: &[Found]) -> String {
    let mut text = String::from(
        "| planted fault | what is wrong | worlds until found | what breaks |\n|---|---|---|---|\n",
    );
    for Found {
        flaw,
        seed,
        invariant,
    } in found
    {
        // A String takes all.
        let _ = writeln!(
            text,
            "| `{}` | {} | {seed} | `{}` |",
            flaw.name(),
            flaw.what(),
            invariant.key()
        );
    }
    text
}
