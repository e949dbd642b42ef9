//! `thiao sim run` without the rest of Thiao, which is built in a minute where the
//! whole takes many: for `cargo xtask sim`.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use thiao_sim::campaign::Campaign;
use thiao_sim::draw::Scale;
use thiao_sim::flaw::Flaw;
use thiao_sim::hunt::{hunt, table};
use thiao_sim::report;

/// A planted fault is looked for in so many worlds at most.
const MOST_SEEDS: u64 = 3000;

const USAGE: &str = "\
Usage: thiao-sim --planted [NAME...]
       thiao-sim [--seed FIRST] [--seeds COUNT] [--hours H] [--nodes K] [--jobs PER_HOUR]
                 [--faults PROFILE] [--threads N]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--planted", names)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return planted(names);
    }
    let (campaign, threads) = match campaign(&args) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("thiao-sim: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = campaign.run(threads, |_, _| {});
    let mut text = report::summary(&outcome);
    let stories = report::stories(&campaign, &outcome);
    for (seed, violation) in &outcome.broken {
        text.push('\n');
        text += &report::failure(&campaign, *seed, violation, stories.get(seed));
    }
    // A reader that has left is none of our business.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!outcome.broken.is_empty()))
}

/// Looks for every planted fault, or for these, and prints the table.
fn planted(names: &[String]) -> ExitCode {
    let wanted = |flaw: &&Flaw| names.is_empty() || names.iter().any(|name| name == flaw.name());
    let all = Flaw::ALL.iter().filter(wanted);
    let found: Vec<_> = all.map(|flaw| (flaw, hunt(*flaw, MOST_SEEDS))).collect();
    let missed = found.iter().filter(|(_, found)| found.is_none());
    let missed: Vec<&str> = missed.map(|(flaw, _)| flaw.name()).collect();
    let found: Vec<_> = found.iter().filter_map(|(_, found)| *found).collect();
    let _ = std::io::stdout().write_all(table(&found).as_bytes());
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "thiao-sim: not found in {MOST_SEEDS} worlds: {}",
        missed.join(", ")
    );
    ExitCode::FAILURE
}

fn campaign(args: &[String]) -> Result<(Campaign, NonZeroUsize), String> {
    let (mut first, mut count) = (1_u64, 1_u64);
    let mut scale = Scale::default();
    let mut profile = None;
    let mut threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    for pair in args.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{} needs a value", pair.concat()));
        };
        let wrong = |why: &dyn std::fmt::Display| format!("{name} {value}: {why}");
        let number = || value.parse::<u64>().map_err(|why| wrong(&why));
        let size = || value.parse::<usize>().map_err(|why| wrong(&why));
        match name.as_str() {
            "--seed" => first = number()?,
            "--seeds" => count = number()?.max(1),
            "--hours" => scale.hours = number()?,
            "--nodes" => scale.nodes = Some(size()?),
            "--jobs" => scale.jobs_per_hour = Some(number()?),
            "--faults" => profile = Some(value.parse().map_err(|why| wrong(&why))?),
            "--threads" => threads = value.parse().map_err(|why| wrong(&why))?,
            _ => return Err(format!("{name} is not known")),
        }
    }
    let campaign = Campaign {
        seeds: first..=first.saturating_add(count - 1),
        scale,
        profile,
    };
    Ok((campaign, threads))
}
