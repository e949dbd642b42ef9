//! `thiao sim`, the program `thiao-sim`: the controller's decisions in simulated worlds, where things go wrong, and
//! those of sharing on logs of jobs.

use crate::campaign::{Campaign, Outcome, Totals};
use crate::draw::{MOST_HOURS, MOST_NODES, Scale};
use crate::flaw::Flaw;
use crate::hunt::{hunt, table};
use crate::outcome::Violation;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::shrink::{Budget, Shrunk, shrink};
use crate::{report, text, trace, trial::trial};
use anyhow::{Context as _, bail};
use clap::{
    Args, CommandFactory as _, Parser, Subcommand, builder::PossibleValuesParser,
    builder::TypedValueParser as _,
};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use thiao_cli::exit::{self, FAILED, Malformed};
use thiao_cli::output::{Cell, Printer};
use thiao_core::ids::Millis;

/// Try the controller's decisions: in a simulated world where things go wrong, or on a log of jobs
#[derive(Debug, Parser)]
#[command(
    name = "thiao-sim",
    bin_name = "thiao sim",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Sim,
}

/// Runs the command line, the program's name first.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    match exit::parse(args) {
        Ok(Cli { command }) => exit::ended(run(Printer::stdout(), &command), |_| None),
        Err(code) => code,
    }
}

/// All that can be typed, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// A planted fault is looked for in so many worlds at most.
const MOST_SEEDS: u64 = 5000;

#[derive(Debug, Subcommand)]
enum Sim {
    /// Run worlds drawn from seeds, and check the invariants after every step
    #[command(after_help = "\
Exit code 1: an invariant was broken. The command then shows what broke, with its seed,
and the shortest story that it could be shrunk to.")]
    Run(Box<Run>),
    /// Run a log of jobs under the policies of sharing, and compare what people would get
    Trace(Box<trace::Trace>),
    /// Show the profiles of faults
    Profiles,
    /// Plant faults in the controller, and say how soon each is found
    Planted {
        /// Which ones [default: all]
        #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(Flaw::ALL.iter().map(|flaw| flaw.name())))]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The world's seed; the same seed is the same world
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many worlds to run: this seed and those after it
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Simulated hours during which jobs come and things go wrong
    #[arg(long, value_name = "H", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MOST_HOURS))]
    hours: u64,
    /// Nodes of each world [default: 2 to 8, by the seed]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=MOST_NODES as u64))]
    nodes: Option<u64>,
    /// Jobs per hour [default: enough to keep some of the nodes busy]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    jobs: Option<u64>,
    /// What goes wrong [default: all profiles in turn, by the seed]
    #[arg(long, value_name = "PROFILE", value_parser = profiles())]
    faults: Option<Profile>,
    /// Run the world in this file, as a failure prints it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "hours", "nodes", "jobs", "faults"])]
    world: Option<PathBuf>,
    /// Show what broke as it is, without looking for a shorter story
    #[arg(long)]
    no_shrink: bool,
    /// How many worlds to run at once [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Print JSON, with times in milliseconds
    #[arg(long)]
    json: bool,
}

fn profiles() -> impl clap::builder::TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(Profile::ALL.map(Profile::name)).try_map(|name| name.parse::<Profile>())
}

fn run(printer: Printer, command: &Sim) -> anyhow::Result<ExitCode> {
    match command {
        Sim::Run(how) => match &how.world {
            Some(file) => world(printer, how, file),
            None => worlds(printer, how),
        },
        Sim::Trace(how) => trace::run(printer, how),
        Sim::Planted { names } => planted(printer, names),
        Sim::Profiles => {
            let row = |profile: Profile| vec![Cell::from(profile.name()), Cell::from(profile.about())];
            let rows = Profile::ALL.map(row).into();
            printer.print(&printer.table(&["PROFILE", "WHAT GOES WRONG"], rows))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Worlds drawn from seeds.
fn worlds(printer: Printer, how: &Run) -> anyhow::Result<ExitCode> {
    let campaign = Campaign {
        seeds: how.seed..=how.seed.saturating_add(how.seeds - 1),
        scale: Scale {
            hours: how.hours,
            nodes: how.nodes.map(usize::try_from).transpose()?,
            jobs_per_hour: how.jobs,
        },
        profile: how.faults,
    };
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = how.threads.unwrap_or_else(cores);
    let (progress, of) = (Progress::new(), how.seeds);
    let outcome = campaign.run(threads, |done, broken| {
        progress.show(|| format!("{done} of {of} worlds, {broken} broken"));
    });
    progress.clear();
    let stories = match how.no_shrink {
        true => Default::default(),
        false => report::stories(&campaign, &outcome),
    };
    if how.json {
        let broken: Vec<Value> = outcome
            .broken
            .iter()
            .map(|(seed, violation)| {
                let mut value = failure(violation, stories.get(seed));
                value["seed"] = json!(seed);
                value["profile"] = json!(campaign.profile_of(*seed).name());
                value["command"] = json!(format!("thiao {}", report::command(&campaign, *seed)));
                value
            })
            .collect();
        printer.print(&format!("{:#}\n", outcome_json(&outcome, broken)))?;
    } else {
        let mut text = report::summary(&outcome);
        for (seed, violation) in &outcome.broken {
            text.push('\n');
            text += &report::failure(&campaign, *seed, violation, stories.get(seed));
            if how.no_shrink {
                text += &format!("{violation}\n");
            }
        }
        printer.print(&text)?;
    }
    Ok(ended(outcome.broken.is_empty()))
}

/// The world of a file.
fn world(printer: Printer, how: &Run, file: &Path) -> anyhow::Result<ExitCode> {
    let lines =
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let wrong = |why| Malformed(format!("{}: {why}", file.display()));
    let setup = text::read(&lines).map_err(wrong)?;
    let began = Instant::now();
    let result = trial(&setup);
    let mut outcome = Outcome {
        totals: Totals::default(),
        broken: Default::default(),
        wall: began.elapsed(),
    };
    let violation = result.as_ref().err().cloned();
    outcome.totals.add(match &result {
        Ok(run) => run,
        Err(violation) => &violation.run,
    });
    let small = violation
        .clone()
        .filter(|_| !how.no_shrink)
        .map(|violation| shrink(setup, violation, Budget::default()));
    if how.json {
        let broken = violation
            .iter()
            .map(|violation| failure(violation, small.as_ref()));
        let broken = broken.collect();
        printer.print(&format!("{:#}\n", outcome_json(&outcome, broken)))?;
    } else {
        printer.print(&match (&violation, &small) {
            (None, _) => report::summary(&outcome),
            (Some(violation), None) => format!("{violation}\n"),
            (Some(violation), Some(small)) => {
                format!("BROKEN: {}\n{}", violation.broken, report::shrunk(small))
            }
        })?;
    }
    Ok(ended(violation.is_none()))
}

/// Looks for every planted fault, or for these, and prints the table.
fn planted(printer: Printer, names: &[String]) -> anyhow::Result<ExitCode> {
    let wanted = |flaw: &&Flaw| names.is_empty() || names.iter().any(|name| name == flaw.name());
    let all = Flaw::ALL.iter().filter(wanted);
    let found: Vec<_> = all.map(|flaw| (flaw, hunt(*flaw, MOST_SEEDS))).collect();
    let missed = found.iter().filter(|(_, found)| found.is_none());
    let missed: Vec<&str> = missed.map(|(flaw, _)| flaw.name()).collect();
    let found: Vec<_> = found.iter().filter_map(|(_, found)| *found).collect();
    printer.print(&table(&found))?;
    if !missed.is_empty() {
        bail!("not found in {MOST_SEEDS} worlds: {}", missed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn ended(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    }
}

fn failure(violation: &Violation, small: Option<&Shrunk>) -> Value {
    let told = small.map_or(violation, |small| &small.violation);
    json!({
        "invariant": violation.broken.invariant.key(),
        "what": violation.broken.what,
        "at_ms": violation.run.took.0,
        "shrunk": small.is_some(),
        "shrunk_what": small.map(|small| &small.violation.broken.what),
        "story": told.story,
        "world": small.map(|small| text::write(&small.setup)),
    })
}

fn outcome_json(outcome: &Outcome, broken: Vec<Value>) -> Value {
    let totals = &outcome.totals;
    let Millis(simulated_ms) = totals.simulated;
    let faults = totals.faults.iter().map(|(fault, tally)| {
        let tally = json!({ "occasions": tally.occasions, "hits": tally.hits });
        (fault.name().to_owned(), tally)
    });
    json!({
        "worlds": totals.runs,
        "simulated_ms": simulated_ms,
        "wall_ms": u64::try_from(outcome.wall.as_millis()).unwrap_or(u64::MAX),
        "simulated_hours_per_second": report::speed(totals.hours(), outcome.wall),
        "jobs": totals.jobs,
        "vms": totals.vms,
        "nodes_set_down": totals.downs,
        "resume_timeouts": totals.resume_timeouts,
        "rounds": totals.rounds,
        "kills": totals.kills,
        "checks": totals.checks,
        "faults_injected": totals.hits(),
        "faults": faults.collect::<serde_json::Map<_, _>>(),
        "broken": broken,
    })
}
