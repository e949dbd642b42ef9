//! Jobs in VMs of their own: each as big as its job asked, made for it, gone
//! after it; and what happens to a job for which there is no capacity, and to one
//! that is taken back while its VM boots.

use super::checks::{Check, Expected, check, of_any_jobs, proofs};
use super::follow::{Early, JOBS_LIMIT, begin, expected, follow, submit, until_back, until_over};
use super::jobs::{self, NewJob, Runs};
use super::show::Show;
use super::track::{Step, Story, Track, is_over};
use crate::enter::{As, Running};
use crate::plan::{JobSize, OVERHEAD_MB, Options};
use anyhow::{Context, Result, bail};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Instant;
use thiao_core::view::WaitsFor;
use thiao_slurm::words;

/// How many users the demo has where there can be several.
const USERS: u32 = 3;

/// Each of the two hosts: not enough for all jobs at once.
const HOST_CPUS: u32 = 6;
const HOST_MEMORY_MB: u64 = 1500;

/// Sizes that come often have a guest readied.
const WARM: [&str; 3] = ["1x150", "2x250", "3x400"];

/// Nodes that the jobs want at once.
const NODES: u32 = 7;

/// Long enough for the jobs of all users to be there together, unless the machine is slow.
const STAY_S: u32 = 8;

const SMALL: JobSize = size(1, 150);
const MEDIUM: JobSize = size(2, 250);
const BIG: JobSize = size(3, 400);
/// Wants most of a host.
const WHOLE: JobSize = size(4, 800);

const WAITS: &str = "whole";
const TAKEN_BACK: &str = "cancelled";

const fn size(cpus: u32, memory_mb: u64) -> JobSize {
    JobSize { cpus, memory_mb }
}

/// Whether such a lab can show it.
pub fn possible(options: &Options) -> Result<()> {
    let largest = options.job_cpus.is_none_or(|cpus| cpus >= WHOLE.cpus)
        && options.job_memory_mb.is_none_or(|mb| mb >= WHOLE.memory_mb);
    if options.job_nodes < NODES || !largest {
        bail!(
            "the demo's jobs need {NODES} nodes at once, and up to {} CPUs and {} MiB on one: \
             --job-nodes {NODES} or more, and nothing smaller with --job-cpus and --job-memory-mb",
            WHOLE.cpus,
            WHOLE.memory_mb
        );
    }
    Ok(())
}

/// Two small hosts, several users.
pub fn prepare(options: &mut Options) {
    options.host_cpus.get_or_insert(HOST_CPUS);
    options.host_memory_mb.get_or_insert(HOST_MEMORY_MB);
    options.warm = WARM.map(str::to_owned).to_vec();
    if rustix::process::geteuid().is_root() && options.users == 1 {
        options.users = USERS;
    }
}

/// The jobs of all users at once, one that must wait, one that is taken back.
pub fn whole(lab: &Running, show: &mut Show, stories: &mut Vec<Story>) -> Result<bool, Early> {
    let users = &lab.plan.submitters;
    if users.len() == 1 {
        show.say("a lab without root has one uid: all jobs are of one user");
    }
    let user = |number: usize| &users[number % users.len()];
    let mut story = begin(lab);
    let job = |number, program, name, size| NewJob {
        user: user(number),
        program,
        name,
        nodes: 1,
        size: Some(size),
        array: 0,
        runs: Runs::Proof {
            stay: STAY_S,
            gathers: true,
        },
    };
    for wanted in [
        job(1, "sbatch", "big", BIG),
        NewJob {
            nodes: 2,
            ..job(0, "tsub", "pair", MEDIUM)
        },
        NewJob {
            array: 2,
            ..job(2, "sbatch", "array", SMALL)
        },
        job(0, "tsub", "small", SMALL),
        job(1, "sbatch", WAITS, WHOLE),
        job(2, "tsub", TAKEN_BACK, SMALL),
    ] {
        submit(lab, &mut story, show, &wanted)?;
    }

    let deadline = Instant::now() + JOBS_LIMIT;
    let late = || Instant::now() > deadline;
    // Slurm gives a reason when its scheduler has come to the job, which may be admitted soon after.
    let waited = Cell::new(false);
    let check = |story: &Story| {
        waited.set(
            waited.get()
                || waits(story)
                    .is_some_and(|track| words::job_reason(&track.reason).has(&WaitsFor::Licenses)),
        );
    };
    let may_take_back =
        |story: &Story| taken_back(story).is_none_or(|track| has_vm(story, track) || is_over(&track.state));
    let (mut together, mut taken) = (false, false);
    while !(together && taken) {
        follow(lab, &mut story, show, |story| {
            check(story);
            let next = (!together && are_together(story, users.len())) || (!taken && may_take_back(story));
            Ok(late() || next)
        })?;
        if !together && (late() || are_together(&story, users.len())) {
            jobs::gather(lab)?;
            together = true;
        }
        if !taken && (late() || may_take_back(&story)) {
            take_back(lab, &mut story, show)?;
            taken = true;
        }
    }
    follow(lab, &mut story, show, |story| {
        check(story);
        Ok(late() || waited.get() || waits(story).is_none())
    })?;
    let waited = waited.get();
    tell_why(lab, &story, show)?;
    until_over(lab, &mut story, show)?;
    let expected = expected(lab, show);
    show.say("all jobs are over, and their VMs with them");
    let back = until_back(lab, &mut story, show)?;
    show.end(&story);
    let mut checks = of_job_vms(&story, &expected);
    checks.push(at_once(&story, users.len()));
    checks.extend(of_waiting(&story, waited));
    checks.push(of_cancelled(&story));
    checks.extend(back);
    stories.push(story);
    Ok(show.checks(&checks))
}

/// Two jobs, by both ways to submit them.
pub fn short(lab: &Running, show: &mut Show, stories: &mut Vec<Story>) -> Result<bool, Early> {
    show.say("now two jobs in VMs of their own, as big as they ask (all of it: --job-mode)");
    let mut story = begin(lab);
    for (program, name, size) in [("sbatch", "larger", MEDIUM), ("tsub", "small", SMALL)] {
        let wanted = NewJob {
            user: lab.plan.submitter(),
            program,
            name,
            nodes: 1,
            size: Some(size),
            array: 0,
            runs: Runs::Proof {
                stay: 1,
                gathers: false,
            },
        };
        submit(lab, &mut story, show, &wanted)?;
    }
    until_over(lab, &mut story, show)?;
    let expected = expected(lab, show);
    let back = until_back(lab, &mut story, show)?;
    show.end(&story);
    let mut checks = of_job_vms(&story, &expected);
    checks.extend(back);
    stories.push(story);
    Ok(show.checks(&checks))
}

fn named<'a>(story: &'a Story, name: &str) -> Option<&'a Track> {
    story.tracks.iter().find(|track| track.job.name == name)
}

/// The job for which there is no capacity, while it waits.
fn waits(story: &Story) -> Option<&Track> {
    named(story, WAITS).filter(|track| track.state == "PENDING")
}

/// Whether jobs of all users run, or none will any more. What Slurm calls running may take seconds to its first line.
fn are_together(story: &Story, users: usize) -> bool {
    let has_begun = |track: &&Track| jobs::read(&track.job).is_ok_and(|output| output.begin.is_some());
    let running = story.tracks.iter().filter(|track| track.state == "RUNNING");
    let running = running.filter(has_begun);
    let of: BTreeSet<&str> = running.map(|track| track.job.user.name.as_str()).collect();
    of.len() >= users || story.over()
}

fn taken_back(story: &Story) -> Option<&Track> {
    named(story, TAKEN_BACK)
}

fn has_vm(story: &Story, track: &Track) -> bool {
    story.last(track, Step::VmStarted).is_some()
}

/// What a user sees of the job that waits.
fn tell_why(lab: &Running, story: &Story, show: &mut Show) -> Result<()> {
    let Some(track) = waits(story) else {
        return Ok(());
    };
    let user = &track.job.user;
    let label = track.job.label();
    for (program, args) in [("squeue", vec![]), ("thiao", vec!["explain", &label])] {
        let output = lab
            .command(program, As::User(user), &lab.home(user))?
            .args(&args)
            .output()
            .with_context(|| format!("{program} cannot be run"))?;
        show.say(&format!("{} runs: {program} {}", user.name, args.join(" ")));
        show.text(&String::from_utf8_lossy(&output.stdout));
        show.text(&String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn take_back(lab: &Running, story: &mut Story, show: &mut Show) -> Result<()> {
    let of = |track: &&mut Track| track.job.name == TAKEN_BACK;
    let Some(track) = story.tracks.iter_mut().find(of) else {
        return Ok(());
    };
    let user = &track.job.user;
    let label = track.job.label();
    show.say(&format!("{} runs: scancel {label}", user.name));
    let output = lab
        .command("scancel", As::User(user), &lab.home(user))?
        .arg(&label)
        .output()
        .context("scancel cannot be run")?;
    if !output.status.success() {
        bail!("scancel: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    track.cancelled = true;
    Ok(())
}

/// All checks of the findings of jobs in VMs of their own.
fn of_job_vms(story: &Story, expected: &Expected<'_>) -> Vec<Check> {
    let asked = |track: &Track| track.job.size.unwrap_or(expected.plan.largest_job);
    let mut checks = of_any_jobs(story, expected);
    checks.extend([
        proofs(
            "each VM has the CPUs that its job asked for",
            story,
            |track, proof| proof.number("cpus") == Some(asked(track).cpus.into()),
            "cpus",
        ),
        proofs(
            &format!(
                "each VM has the memory that its job asked for, and less than {OVERHEAD_MB} MiB more for itself"
            ),
            story,
            |track, proof| {
                let asked = asked(track).memory_mb;
                proof
                    .number("memory_mb")
                    .is_some_and(|mb| (asked..asked + OVERHEAD_MB).contains(&mb))
            },
            "memory_mb",
        ),
        proofs(
            "what a job asked for was still free when it ran",
            story,
            |track, proof| {
                proof
                    .number("available_mb")
                    .is_some_and(|mb| mb >= asked(track).memory_mb)
            },
            "available_mb",
        ),
        proofs(
            "a task finds nothing that another job left",
            story,
            |_, proof| proof.text("left").is_empty(),
            "left",
        ),
        one_job_each(story),
    ]);
    checks
}

/// By what the VMs are called, and by what their kernels call themselves.
fn one_job_each(story: &Story) -> Check {
    let mut seen = BTreeSet::new();
    check(
        "no VM served two jobs: all generations and boot ids differ",
        story,
        |track| {
            let vms = story.lives(track).map(|(node, life)| {
                let vm = life.and_then(|life| life.vm.clone());
                vm.unwrap_or_else(|| format!("{node}: its VM is not known"))
            });
            let boots = track.output.proofs.values().map(|proof| proof.text("boot"));
            let all: Vec<String> = vms.chain(boots.map(str::to_owned)).collect();
            let twice: Vec<String> = all
                .into_iter()
                .filter(|id| id.is_empty() || id.contains(' ') || !seen.insert(id.clone()))
                .collect();
            (!twice.is_empty()).then(|| format!("not its own: {}", twice.join(", ")))
        },
    )
}

/// Whether at one time a job of each of so many users ran.
fn at_once(story: &Story, users: usize) -> Check {
    let spans: Vec<(u64, u64, &str)> = story
        .tracks
        .iter()
        .filter_map(|track| {
            Some((
                track.output.begin?,
                track.output.end?,
                track.job.user.name.as_str(),
            ))
        })
        .collect();
    let most = spans
        .iter()
        .map(|(at, _, _)| {
            let there = spans.iter().filter(|(begin, end, _)| begin <= at && at < end);
            there.map(|(_, _, user)| user).collect::<BTreeSet<_>>().len()
        })
        .max()
        .unwrap_or(0);
    Check {
        what: format!("jobs of {users} user(s) ran at once"),
        wrong: (most < users).then(|| format!("of {most} at most")),
    }
}

/// The job for which there was no capacity.
fn of_waiting(story: &Story, waited: bool) -> Vec<Check> {
    let begun = named(story, WAITS).and_then(|track| track.output.begin);
    let others = story.tracks.iter().filter(|track| track.job.name != WAITS);
    let first_end = others.filter_map(|track| track.output.end).min();
    let after = matches!((begun, first_end), (Some(begun), Some(end)) if begun > end);
    vec![
        Check {
            what: "the job without capacity waited, and squeue said why: (Licenses)".to_owned(),
            wrong: (!waited).then(|| "it did not".to_owned()),
        },
        Check {
            what: "it started when another job had ended".to_owned(),
            wrong: (!after).then(|| format!("it began at {begun:?}, the first other ended at {first_end:?}")),
        },
    ]
}

/// The job that was taken back while its VM booted.
fn of_cancelled(story: &Story) -> Check {
    let wrong = match taken_back(story) {
        None => Some("there was none".to_owned()),
        Some(track) if track.state != "CANCELLED" => Some(format!("it is {}", track.state)),
        Some(track) if track.job.output.exists() => Some("it ran".to_owned()),
        Some(track) if story.last(track, Step::VmGone).is_none() => Some("its VM is not gone".to_owned()),
        Some(_) => None,
    };
    Check {
        what: "the cancelled job never ran, and its VM is gone".to_owned(),
        wrong,
    }
}
