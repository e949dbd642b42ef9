//! `thiao sim trace`: a log of jobs under several policies, and what people would have got.

mod columns;
mod compared;
mod costs;
mod input;
mod pictures;
mod table;
mod told;

use crate::progress::Progress;
use anyhow::bail;
use clap::Args;
use compared::Compared;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use thiao_cli::exit;
use thiao_cli::output::{Printer, json};
use thiao_share::Ms;
use thiao_trace::policies::{self, Asked, EXACT};
use thiao_trace::read::sacct::COMMAND;
use thiao_trace::record::Window;
use thiao_trace::runs::Runs;
use thiao_trace::weeks::Which;
use thiao_trace::workload::{TraceJob, Workload};

/// Headings of the help.
const RUNS: &str = "What is run";
const TOLD: &str = "What is told";

/// What is to be run, and what is to come of it.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct Trace {
    #[command(flatten)]
    source: input::Source,
    /// A policy to run; several times for several [default: easy-exact, easy, shared]
    #[arg(help_heading = RUNS, long = "policy", value_name = "P", value_parser = policies::parse)]
    policies: Vec<Asked>,
    /// Run each week by itself: `all`, the first N, or FIRST-LAST, with /STEP for every so many
    #[arg(help_heading = RUNS, long, value_name = "WEEKS")]
    weeks: Option<Which>,
    #[command(flatten)]
    costs: costs::Costs,
    /// Print JSON, times in seconds
    #[arg(help_heading = TOLD, long)]
    json: bool,
    /// Write a line for each job under each policy to this file
    #[arg(help_heading = TOLD, long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw plots into this folder (SVG): stretch, CPU in use, and who was on which hosts
    #[arg(help_heading = TOLD, long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Of what time hosts are drawn, in hours since the log begins [default: the day in which most work came]
    #[arg(help_heading = TOLD, long, value_name = "FROM-TO", requires = "plot", value_parser = window)]
    window: Option<Window>,
    /// How many runs at once [default: as many as there are cores]
    #[arg(help_heading = RUNS, long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// A command in lines of its own making, so that a help text that is wrapped is no other command: a shell takes a
/// backslash at an end, and what begins the next line, for nothing.
fn in_lines(command: &str) -> String {
    let mut lines = vec![String::new()];
    for part in command.split_inclusive([' ', ',']) {
        match lines.last_mut() {
            Some(line) if line.len() + part.len() < LINE => line.push_str(part),
            _ => lines.push(part.to_owned()),
        }
    }
    lines.join("\\\n")
}

/// Shorter than what helps are wrapped at.
const LINE: usize = 74;

/// How a site gets its log, and which policies there are.
fn after_help() -> String {
    let command = in_lines(COMMAND);
    let mut text = format!(
        "A log of your own cluster, from the day on that you name:\n  {command} > LOG\n\nPolicies:\n"
    );
    let width = policies::all().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, about) in policies::all() {
        text += &format!("  {name:width$}  {about}\n");
    }
    text +=
        "\nRatios are against easy-exact, which is run in any case. What the columns mean: docs/sharing.md.";
    text
}

/// No log is longer than a century.
const MOST_HOURS: f64 = 876_000.0;

fn window(text: &str) -> Result<Window, String> {
    let hours = |text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|hours| (0.0..=MOST_HOURS).contains(hours))
    };
    let ends = text
        .split_once('-')
        .and_then(|(from, to)| Some((hours(from)?, hours(to)?)));
    let ms = |hours: f64| (hours * 3_600_000.0).round() as Ms;
    match ends.map(|(from, to)| Window {
        from: ms(from),
        to: ms(to),
    }) {
        Some(window) if window.from < window.to => Ok(window),
        _ => Err("a window is FROM-TO in hours, as 24-48".to_owned()),
    }
}

/// So long is drawn, if nobody says: a day.
const DAY: Ms = 86_400_000;

/// Runs the policies, and tells of them.
pub fn run(printer: Printer, how: &Trace) -> anyhow::Result<ExitCode> {
    let asked = asked(&how.policies)?;
    pictures::folder_for(how.csv.as_deref())?;
    if how.csv.as_deref().is_some_and(|file| how.source.is(file)) {
        return Err(exit::Malformed("--csv names the log itself: name another file".to_owned()).into());
    }
    let (mut input, what_if) = (how.source.read()?, how.source.what_if());
    input.parts.iter_mut().for_each(|part| what_if.change(part));
    let parts = match how.weeks {
        None => std::mem::take(&mut input.parts),
        Some(which) => weeks(&input.parts, which),
    };
    if parts.iter().all(|part| part.jobs.is_empty()) {
        bail!("{} has no jobs in the weeks that --weeks names", input.name());
    }
    let busiest = |(_, part): &(usize, &Workload)| part.jobs.iter().map(work).sum::<u128>();
    let picture = how.plot.as_ref().and_then(|_| {
        let (at, part) = parts.iter().enumerate().max_by_key(busiest)?;
        Some((at, how.window.unwrap_or_else(|| Window::busiest(part, DAY))))
    });
    let costs = how.costs.exact();
    let overheads = costs.overheads(parts[0].host, input.host_mib)?;
    let runs = Runs {
        parts: &parts,
        asked: &asked,
        overheads,
        what_if,
        picture,
    };
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (progress, of) = (Progress::new(), runs.count() as u64);
    let ran = runs.run(how.threads.unwrap_or_else(cores), &|far| {
        progress.show(|| format!("{} % of {of} runs", far / 10 / of));
    });
    progress.clear();
    let ran = ran?;
    let compared = Compared::of(&parts, &asked, &ran);
    let user = |user: u32| input.user(user);
    if let Some(file) = &how.csv {
        told::csv(file, &parts, &asked, &ran, &user)?;
    }
    if let (Some(dir), Some((at, window))) = (&how.plot, picture) {
        pictures::draw(dir, input.name(), &parts, &asked, &ran, (at, window))?;
    }
    if how.json {
        let about = told::About {
            log: input.name(),
            odd: input.odd_json(),
            costs: costs.json(),
            what_if: what_if.words(),
            parts: &parts,
        };
        printer.print(&json(&told::json(&about, &compared, &user), true)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = heading(input.name(), &parts);
    text += &columns::wrapped(&format!("costs: {}", costs.words()));
    if !what_if.words().is_empty() {
        text += &columns::wrapped(&format!("if: {}", what_if.words()));
    }
    text += &input.odd();
    text += &format!("\n{}", table::side_by_side(&compared));
    text += &format!("\n{}", table::classes(&compared));
    if compared
        .policies
        .first()
        .is_some_and(|policy| policy.figures.users.len() > 1)
    {
        text += &format!("\nUsers with most CPU time\n{}", table::users(&compared, &user));
    }
    text += &format!("\n{}", table::summary(&compared));
    printer.print(&thiao_cli::output::clean(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// These weeks of each trace, each a run of its own.
fn weeks(parts: &[Workload], which: Which) -> Vec<Workload> {
    let weeks = parts.iter().flat_map(|part| part.weeks().into_iter().enumerate());
    weeks
        .filter(|(at, _)| which.has(at + 1))
        .map(|(_, week)| week)
        .collect()
}

/// The policies to run: what ratios are against comes first if it was not asked for.
fn asked(wanted: &[Asked]) -> anyhow::Result<Vec<Asked>> {
    let usual = policies::USUAL
        .map(policies::parse)
        .into_iter()
        .collect::<Result<Vec<_>, _>>();
    let mut all = match wanted {
        [] => usual.map_err(anyhow::Error::msg)?,
        wanted => wanted.to_vec(),
    };
    if !all.iter().any(|asked| asked.name == EXACT) {
        all.insert(0, policies::parse(EXACT).map_err(anyhow::Error::msg)?);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|asked| seen.insert(asked.name.clone()));
    Ok(all)
}

fn work(job: &TraceJob) -> u128 {
    u128::from(job.run) * u128::from(job.tasks) * u128::from(job.cpu)
}

/// What was run, in a line.
fn heading(name: &str, parts: &[Workload]) -> String {
    let jobs: usize = parts.iter().map(|part| part.jobs.len()).sum();
    let hosts = parts.first().map_or(0, |part| part.hosts);
    let runs = match parts.len() {
        1 => String::new(),
        runs => format!(", {runs} runs of their own"),
    };
    columns::wrapped(&format!("{name}: {jobs} jobs on {hosts} hosts{runs}"))
}
