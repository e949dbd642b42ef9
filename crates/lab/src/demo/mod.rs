//! `thiao lab demo`: real Slurm jobs get real VMs, run in them, give them
//! back; shown as it happens, checked at the end, nothing left behind.

mod checks;
pub(super) mod jobs;
mod leftovers;
mod own;
mod plain;
mod show;
pub(super) mod track;

pub use jobs::now;

use crate::enter::Running;
use crate::layout::Layout;
use crate::up::{self, NotUp, Up};
use crate::{api, files, plan, signals};
use anyhow::{Context, Result};
use checks::{Check, Expected};
use clap::Args;
use show::Show;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
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
    /// Keep the lab afterwards, for playing
    #[arg(long)]
    keep: bool,
    /// Write the phases' times there, as JSON
    #[arg(long, value_name = "FILE", hide = true)]
    figures: Option<PathBuf>,
}

/// How long all jobs may take from submission to their end.
const JOBS_LIMIT: Duration = Duration::from_secs(300);
/// How long nodes may take to be given back after that.
const RETURN_LIMIT: Duration = Duration::from_secs(120);
/// Seconds that a VM may take to register when there are no warm templates.
const OPENNEBULA_BOOT_S: u32 = 120;
/// Pause between looks at the controller's events; squeue is asked at every third.
const LOOK: Duration = Duration::from_millis(100);

/// Why the demo ended early.
enum Early {
    Interrupted(u8),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Early {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<NotUp> for Early {
    fn from(not_up: NotUp) -> Self {
        match not_up {
            NotUp::Interrupted(code) => Self::Interrupted(code),
            NotUp::Failed(error) => Self::Failed(error),
        }
    }
}

/// Runs the demo; success only if all came out right.
///
/// # Errors
/// When it could not be run to its end. Nothing is left then, too.
pub fn run(options: &DemoOptions) -> Result<ExitCode> {
    signals::watch();
    if options.job_mode {
        own::possible(&options.lab)?;
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
    let left = leftovers::find(&dir, &layout.cluster(), files::BRIDGE);
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
        own::prepare(&mut wanted);
    }
    let job_nodes = wanted.job_nodes > 0;
    let up = up::up(layout.clone(), wanted, !options.keep, &mut |text| show.say(text))?;
    let lab = Running::find(layout.clone())?;
    for user in &lab.plan.submitters {
        jobs::place_script(&lab, user)?;
    }
    let (mut stories, mut fine) = (Vec::new(), true);
    if options.job_mode {
        fine &= own::whole(&lab, show, &mut stories)?;
    } else {
        fine &= plain::run(&lab, show, &mut stories)?;
        if job_nodes {
            fine &= own::short(&lab, show, &mut stories)?;
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

/// A story that begins now.
fn begin(lab: &Running) -> Story {
    let events = api::events(&lab.layout.api(), 0).unwrap_or_default();
    Story {
        last_event: events.iter().map(|event| event.id).max().unwrap_or(0),
        ..Story::default()
    }
}

fn submit(lab: &Running, story: &mut Story, show: &mut Show, wanted: &jobs::Wanted<'_>) -> Result<()> {
    let (jobs, command) = jobs::submit(lab, wanted)?;
    for job in jobs {
        let news = story.submitted(job, &command);
        show.news(&[news]);
    }
    Ok(())
}

/// Follows the jobs until they are over, and reads what they wrote.
fn until_over(lab: &Running, story: &mut Story, show: &mut Show) -> Result<(), Early> {
    let deadline = Instant::now() + JOBS_LIMIT;
    follow(lab, story, show, |story| {
        if Instant::now() > deadline {
            return Err(Early::Failed(anyhow::anyhow!(
                "the jobs are not over after {} s",
                JOBS_LIMIT.as_secs()
            )));
        }
        Ok(story.over())
    })
    .map_err(|early| explained(early, lab))?;
    for track in story.tracks.iter_mut().filter(|track| !track.cancelled) {
        // A job that left none fails the checks.
        match jobs::read(&track.job) {
            Ok(output) => track.output = output,
            Err(error) => show.say(&format!("{error:#}")),
        }
    }
    Ok(())
}

/// Follows until no VM is left and every node is powered down, at most for a while; the checks of that.
fn until_back(lab: &Running, story: &mut Story, show: &mut Show) -> Result<Vec<Check>, Early> {
    let deadline = Instant::now() + RETURN_LIMIT;
    let mut states = jobs::nodes(lab)?;
    let mut asked = Instant::now();
    follow(lab, story, show, |_| {
        if asked.elapsed() > Duration::from_secs(1) {
            asked = Instant::now();
            states = jobs::nodes(lab)?;
        }
        let back = states.values().all(|state| state == "idle~") && vms(lab) == 0;
        Ok(back || Instant::now() > deadline)
    })?;
    let log = std::fs::read(lab.layout.log("slurmctld")).unwrap_or_default();
    story.slurm_log(&String::from_utf8_lossy(&log));
    Ok(checks::of_return(story, &states, vms(lab)))
}

/// Follows events and job states, and shows them, until `done` says so.
fn follow(
    lab: &Running,
    story: &mut Story,
    show: &mut Show,
    mut done: impl FnMut(&Story) -> Result<bool, Early>,
) -> Result<(), Early> {
    let expand = |list: &str| {
        thiao_core::hostlist::expand(list)
            .map(|nodes| nodes.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    };
    for round in 0_u64.. {
        if let Some(code) = signals::interrupted() {
            return Err(Early::Interrupted(code));
        }
        if round.is_multiple_of(3) && !story.over() {
            let seen = jobs::look(lab)?;
            let news = story.seen(&seen, jobs::now(), expand);
            show.news(&news);
        }
        // Without an answer the controller is being started again: the events are there later.
        if let Some(events) = api::events(&lab.layout.api(), story.last_event) {
            let news = story.events(&events);
            show.news(&news);
        }
        show.table(story);
        if done(story)? {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What this run's checks are measured against.
fn expected<'a>(lab: &'a Running, show: &Show) -> Expected<'a> {
    Expected {
        plan: &lab.plan,
        host: own_name(),
        age_s: show.age_s(),
    }
}

/// VMs that are left, by the keeper's count of processes.
fn vms(lab: &Running) -> usize {
    match lab.ask("status") {
        Ok(crate::keeper::Reply::Status(status)) => status.vms,
        Ok(crate::keeper::Reply::Done | crate::keeper::Reply::Refused(_)) | Err(_) => usize::MAX,
    }
}

/// A failure with the ends of the logs that may tell why.
fn explained(early: Early, lab: &Running) -> Early {
    match early {
        Early::Interrupted(code) => Early::Interrupted(code),
        Early::Failed(error) => {
            let mut text = format!("{error:#}");
            for name in ["thiao", "slurmctld", "oned"] {
                let log = lab.layout.log(name);
                if !log.exists() {
                    continue;
                }
                text.push_str(&format!(
                    "\n--- the end of {}:\n{}",
                    log.display(),
                    crate::services::tail(&log, 15)
                ));
            }
            Early::Failed(anyhow::anyhow!(text))
        }
    }
}

/// This machine's host name, without the domain.
fn own_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}
