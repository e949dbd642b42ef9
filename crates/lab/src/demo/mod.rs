//! `thiao lab demo`: real Slurm jobs get real VMs, run in them, give them
//! back; shown as it happens, checked at the end, nothing left behind.

mod checks;
mod follow;
mod job_mode;
pub(super) mod jobs;
mod leftovers;
mod people;
mod plain;
mod show;
pub(super) mod track;

use crate::enter::Running;
use crate::layout::Layout;
use crate::up::{self, Up};
use crate::{plan, signals};
use anyhow::{Context, Result};
use clap::Args;
use follow::Early;
use show::Show;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiao_cli::say;
use track::Story;

/// How the demo is run.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    #[command(flatten)]
    lab: plan::Options,
    /// Show job mode: jobs of several users, each in VMs of its own, as big as it asks
    #[arg(long)]
    job_mode: bool,
    /// Show what a person at OpenNebula's console does to VMs under running jobs, and what becomes of these
    #[arg(long, conflicts_with = "job_mode")]
    people: bool,
    /// Keep the lab afterwards, for playing
    #[arg(long)]
    keep: bool,
    /// Write the phases' times there, as JSON
    #[arg(long, value_name = "FILE", hide = true)]
    figures: Option<PathBuf>,
}

/// Seconds that a VM may take to register when there are no warm templates.
const OPENNEBULA_BOOT_S: u32 = 120;
/// Runs the demo; success only if all came out right.
///
/// # Errors
/// When it could not be run to its end. Nothing is left then, too.
pub fn run(options: &DemoOptions) -> Result<ExitCode> {
    signals::watch();
    if options.job_mode {
        job_mode::possible(&options.lab)?;
    } else if options.people {
        people::possible(&options.lab)?;
    } else {
        plain::possible(&options.lab)?;
    }
    // Not in TMPDIR: the path must be short enough for Unix sockets below it.
    let dir = tempfile::Builder::new()
        .prefix("thiao-demo-")
        .tempdir_in("/tmp")
        .context("no folder for the demo in /tmp")?
        .keep();
    let layout = Layout::new(Some(&dir))?;
    let mut show = Show::new();
    let outcome = in_lab(&layout, options, &mut show);
    show.lift();
    let (fine, kept) = match outcome {
        Ok((fine, kept)) => (Ok(fine), kept),
        Err(early) => (Err(early), false),
    };
    if kept {
        say!(
            "The lab stays: `thiao lab shell --dir {0}`, `thiao lab down --purge --dir {0}`",
            dir.display()
        );
        return Ok(if matches!(fine, Ok(true)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    crate::layout::remove(&dir)?;
    let left = leftovers::find(&dir, &layout.cluster(), plan::BRIDGE);
    let clean = left.iter().all(|check| check.wrong.is_none());
    match fine {
        Err(Early::Interrupted(code)) => {
            say!("interrupted: the lab is gone");
            if !clean {
                show.checks(&left);
            }
            Ok(ExitCode::from(code))
        }
        Err(Early::Failed(error)) => {
            if !clean {
                show.checks(&left);
            }
            Err(error)
        }
        Ok(fine) => {
            let all = show.checks(&left) && fine;
            say!(
                "{}",
                if all {
                    "All came out right."
                } else {
                    "Not all came out right."
                }
            );
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// The demo between the lab's start and its end; whether all was right, and whether the lab stays.
fn in_lab(layout: &Layout, options: &DemoOptions, show: &mut Show) -> Result<(bool, bool), Early> {
    let mut wanted = options.lab.clone();
    // Long enough for Slurm to use a VM again at once, short enough to watch it go.
    wanted.idle.get_or_insert(5);
    if wanted.opennebula {
        // Every VM boots, all at once.
        wanted.boot_timeout = wanted.boot_timeout.max(OPENNEBULA_BOOT_S);
    }
    if options.job_mode {
        job_mode::prepare(&mut wanted);
    }
    let job_nodes = wanted.job_nodes > 0;
    let up = up::up(layout.clone(), wanted, !options.keep, &mut |text| show.say(text))?;
    let lab = Running::find(layout.clone())?;
    for user in &lab.plan.submitters {
        jobs::place_scripts(&lab, user)?;
    }
    let (mut stories, mut fine) = (Vec::new(), true);
    if options.job_mode {
        fine &= job_mode::whole(&lab, show, &mut stories)?;
    } else if options.people {
        fine &= people::run(&lab, show, &mut stories)?;
    } else {
        fine &= plain::run(&lab, show, &mut stories)?;
        if job_nodes {
            fine &= job_mode::short(&lab, show, &mut stories)?;
        }
    }
    if let Some(path) = &options.figures {
        write_figures(path, &stories)?;
    }
    Ok((fine, end(up, options.keep, show)?))
}

fn end(up: Up, keep: bool, show: &mut Show) -> Result<bool> {
    if keep {
        up.leave()?;
    } else {
        up.end()?;
        show.say("the lab is gone");
    }
    Ok(keep)
}

fn write_figures(path: &Path, stories: &[Story]) -> Result<()> {
    let figures: Vec<_> = stories
        .iter()
        .flat_map(|story| story.tracks.iter().map(|track| show::figures(track, story)))
        .collect();
    let text = serde_json::to_string_pretty(&figures).context("the figures cannot be encoded")?;
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
