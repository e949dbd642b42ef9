//! Submits jobs and follows them to their end, and their VMs to theirs.

use super::checks::{self, Check, Expected};
use super::jobs;
use super::show::Show;
use super::track::Story;
use crate::enter::Running;
use crate::up::NotUp;
use crate::wire::Reply;
use crate::{api, signals};
use anyhow::Result;
use std::time::{Duration, Instant};

/// How long all jobs may take from submission to their end.
pub(super) const JOBS_LIMIT: Duration = Duration::from_secs(300);
/// How long nodes may take to be given back after that.
const RETURN_LIMIT: Duration = Duration::from_secs(120);
/// Pause between questions for the controller's events; squeue is asked at every third.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the demo ended early.
pub(super) enum Early {
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

/// A story that begins now.
pub(super) fn begin(lab: &Running) -> Story {
    let events = api::events(&lab.layout.api(), 0).unwrap_or_default();
    Story {
        last_event: events.iter().map(|event| event.id).max().unwrap_or(0),
        ..Story::default()
    }
}

pub(super) fn submit(
    lab: &Running,
    story: &mut Story,
    show: &mut Show,
    wanted: &jobs::NewJob<'_>,
) -> Result<()> {
    let (jobs, command) = jobs::submit(lab, wanted)?;
    for job in jobs {
        let news = story.submitted(job, &command);
        show.news(&[news]);
    }
    Ok(())
}

/// Follows the jobs until they are over, and reads what they wrote.
pub(super) fn until_over(lab: &Running, story: &mut Story, show: &mut Show) -> Result<(), Early> {
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
pub(super) fn until_back(lab: &Running, story: &mut Story, show: &mut Show) -> Result<Vec<Check>, Early> {
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
pub(super) fn follow(
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
            let seen = jobs::observe(lab)?;
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
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What this run's checks are measured against.
pub(super) fn expected<'a>(lab: &'a Running, show: &Show) -> Expected<'a> {
    Expected {
        plan: &lab.plan,
        host: own_name(),
        age_s: show.age_s(),
    }
}

/// VMs that are left, by the keeper's count of processes.
fn vms(lab: &Running) -> usize {
    match lab.ask("status") {
        Ok(Reply::Status(status)) => status.vms,
        Ok(Reply::Done | Reply::Refused(_)) | Err(_) => usize::MAX,
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
