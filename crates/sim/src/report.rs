//! What came of a campaign, for people.

use crate::campaign::{Campaign, Outcome};
use crate::faults::{Fault, Tally};
use crate::outcome::{Invariant, Violation};
use crate::shrink::{Budget, Shrunk, shrink};
use crate::text;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Of how many kinds of failures the story is looked for.
const STORIES: usize = 3;

/// A number with its thousands apart: 1,234,567.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Simulated hours per second on the wall.
#[must_use]
pub fn speed(hours: f64, wall: Duration) -> f64 {
    hours / wall.as_secs_f64().max(1e-6)
}

/// The figures of a campaign.
#[must_use]
pub fn summary(outcome: &Outcome) -> String {
    let totals = &outcome.totals;
    let count = |number: usize| grouped(number as u64);
    let (hours, seconds) = (totals.hours(), outcome.wall.as_secs_f64());
    let worlds = match totals.runs {
        1 => "1 world".to_owned(),
        some => format!("{} worlds", grouped(some)),
    };
    let mut text = match outcome.broken.len() {
        0 => format!("{worlds}: no invariant was broken\n"),
        some => format!("{worlds}: BROKEN in {some}\n"),
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11} {value}"); // a String takes all
    };
    line(
        "simulated",
        format!(
            "{hours:.1} h in {seconds:.1} s: {:.1} h per second",
            speed(hours, outcome.wall)
        ),
    );
    line("jobs", format!("{} ended", count(totals.jobs)));
    line("VMs", format!("{} made", count(totals.vms)));
    line(
        "nodes",
        format!(
            "{} times set DOWN by the controller, {} times by Slurm's ResumeTimeout",
            count(totals.downs),
            grouped(totals.resume_timeouts)
        ),
    );
    line(
        "controller",
        format!(
            "{} rounds, killed {} times",
            grouped(totals.rounds),
            count(totals.kills)
        ),
    );
    line("checks", format!("{} of invariants", grouped(totals.checks)));
    line("faults", format!("{} injected", grouped(totals.hits())));
    text += &kinds(&totals.faults);
    text
}

/// The faults that struck, by kind.
fn kinds(faults: &BTreeMap<Fault, Tally>) -> String {
    let struck = faults.iter().filter(|(_, tally)| tally.hits > 0);
    let words: Vec<String> = struck
        .map(|(fault, tally)| format!("{} {}", fault.name(), grouped(tally.hits)))
        .collect();
    let mut text = String::new();
    for line in words.chunks(4) {
        let _ = writeln!(text, "              {}", line.join(", "));
    }
    text
}

/// The words after `thiao` that run the world of `seed` again.
#[must_use]
pub fn command(campaign: &Campaign, seed: u64) -> String {
    let scale = &campaign.scale;
    let mut text = format!("sim run --seed {seed} --hours {}", scale.hours);
    if let Some(nodes) = scale.nodes {
        let _ = write!(text, " --nodes {nodes}");
    }
    if let Some(jobs) = scale.jobs_per_hour {
        let _ = write!(text, " --jobs {jobs}");
    }
    let _ = write!(text, " --faults {}", campaign.profile_of(seed));
    text
}

/// The shortest stories of what broke: of one failure of each invariant, at most a few.
#[must_use]
pub fn stories(campaign: &Campaign, outcome: &Outcome) -> BTreeMap<u64, Shrunk> {
    let mut firsts: BTreeMap<Invariant, (u64, &Violation)> = BTreeMap::new();
    for (seed, violation) in &outcome.broken {
        firsts
            .entry(violation.broken.invariant)
            .or_insert((*seed, violation));
    }
    let firsts = firsts.into_values().take(STORIES);
    firsts
        .map(|(seed, violation)| {
            let small = shrink(campaign.world(seed), violation.clone(), Budget::default());
            (seed, small)
        })
        .collect()
}

/// What broke in the world of `seed`, how it came to that, and how to see it again.
#[must_use]
pub fn failure(campaign: &Campaign, seed: u64, violation: &Violation, small: Option<&Shrunk>) -> String {
    let mut text = format!(
        "seed {seed} ({}): BROKEN: {}\n  again: thiao {}\n",
        campaign.profile_of(seed),
        violation.broken,
        command(campaign, seed)
    );
    if let Some(small) = small {
        text += &shrunk(small);
    }
    text
}

/// A shrunk world and its story.
#[must_use]
pub fn shrunk(small: &Shrunk) -> String {
    let lines = |text: String| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    format!(
        "\n  The shortest story found, in {} tries (seconds, what happened):\n{}\n  \
         To see it again, save these lines to a file: thiao sim run --world FILE\n{}",
        small.tries,
        lines(small.violation.to_string()),
        lines(text::write(&small.setup))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
