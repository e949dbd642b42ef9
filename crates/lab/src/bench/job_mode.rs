//! What job mode costs: jobs that each get a VM of their own, beside bare ones
//! on a node that is always up and ones on a node of power-saving mode that is
//! down; all of one size, in turns, by phase. Then a queue of small jobs, drained.

use super::ask::{LIMIT, PAUSE, ask, median, wait_for_templates, wait_until};
use crate::demo::jobs::{self, Job, now};
use crate::demo::track::{Step, Story};
use crate::enter::{As, Running};
use crate::files::JOB_PARTITION;
use crate::plan::{JobSize, Options};
use crate::slurm_log::{self, Moment, Said};
use crate::wire::Reply;
use crate::{api, signals};
use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use thiao_cli::say;

/// The node that is kept up, and the one that is down before each job.
const UP: &str = "vm1";
const DOWN: &str = "vm2";

/// Nodes stay up until they are ordered down.
const NEVER_S: u32 = 86_400;

/// What a queued job may take on the slowest machine.
const PER_JOB: Duration = Duration::from_secs(10);

/// A job whose first act is to tell the time. Bash knows it to the microsecond.
const SCRIPT: &str = "exec bash -c 'echo begin=$EPOCHREALTIME'";

/// How a job gets its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Bare,
    PowerSaving,
    JobMode,
}

impl Way {
    const ALL: [Self; 3] = [Self::Bare, Self::PowerSaving, Self::JobMode];

    fn words(self) -> &'static str {
        match self {
            Self::Bare => "node always up",
            Self::PowerSaving => "power-saving mode",
            Self::JobMode => "job mode",
        }
    }
}

/// The phases in their order, milliseconds from `sbatch`; of the last one, from the job's end.
const PHASES: [&str; 10] = [
    "admitted",
    "allocated",
    "resume asked",
    "VM started",
    "slurmd up",
    "registered",
    "prolog ended",
    "running",
    "registered to prolog ended",
    "end to VM gone",
];
const RUNNING: usize = 7;

type Phases = [Option<i64>; PHASES.len()];

/// The lab for it: one size, readied, and nodes that go down only when told.
pub fn prepare(options: &mut Options) {
    options.nodes = options.nodes.max(2);
    options.job_nodes = options.job_nodes.max(1);
    options.idle = Some(NEVER_S);
    options.warm = vec![format!("{}x{}", options.cpus, options.memory_mb)];
}

/// Measures `runs` jobs each way and a queue of `jobs` jobs, and prints what they took.
pub fn measure(lab: &Running, runs: u32, jobs: u32) -> Result<()> {
    wait_for_templates(lab)?;
    one(lab, Way::Bare).context("the node that should stay up does not come up")?;
    let mut all: BTreeMap<Way, Vec<Phases>> = BTreeMap::new();
    for run in 1..=runs {
        for way in Way::ALL {
            let phases = one(lab, way).with_context(|| format!("run {run}, {}", way.words()))?;
            let running = phases[RUNNING].map_or("-".to_owned(), |ms| ms.to_string());
            say!("run {run}  {:<18} running after {running:>6} ms", way.words());
            all.entry(way).or_default().push(phases);
        }
    }
    say!(
        "\nmedian milliseconds from sbatch, of {runs} runs:\n{}",
        table(&all)
    );
    let running = |way| median_of(&all, way, RUNNING);
    if let (Some(bare), Some(saving), Some(job_mode)) = (
        running(Way::Bare),
        running(Way::PowerSaving),
        running(Way::JobMode),
    ) {
        let ratio = |a: i64, b: i64| a as f64 / b.max(1) as f64;
        say!(
            "ratios of sbatch to running: job mode to power-saving mode {:.2}, to a node always up {:.2}",
            ratio(job_mode, saving),
            ratio(job_mode, bare)
        );
    }
    if jobs > 0 {
        drain(lab, jobs)?;
    }
    Ok(())
}

fn median_of(all: &BTreeMap<Way, Vec<Phases>>, way: Way, phase: usize) -> Option<i64> {
    let values: Vec<u64> = all
        .get(&way)?
        .iter()
        .filter_map(|phases| u64::try_from(phases[phase]?.max(0)).ok())
        .collect();
    (!values.is_empty()).then(|| median(values).cast_signed())
}

fn table(all: &BTreeMap<Way, Vec<Phases>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["PHASE"].into_iter().chain(Way::ALL.map(Way::words)));
    for (number, phase) in PHASES.iter().enumerate() {
        let cells = Way::ALL.map(|way| {
            median_of(all, way, number).map_or_else(|| "-".to_owned(), |millis| millis.to_string())
        });
        table.add_row([(*phase).to_owned()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// One job, from sbatch to the end of all that was made for it.
fn one(lab: &Running, way: Way) -> Result<Phases> {
    if signals::interrupted().is_some() {
        bail!("interrupted");
    }
    let mut story = Story {
        last_event: last_event(lab)?,
        ..Story::default()
    };
    story.submitted(submit(lab, way)?, "sbatch");
    until(lab, &mut story, "the job is over", Story::over)?;
    match way {
        Way::Bare => {}
        Way::PowerSaving => {
            power_down(lab, DOWN)?;
            until(lab, &mut story, "the node is down", |story| {
                gone(story) && state_of(lab, DOWN).is_ok_and(|state| state == "idle~")
            })?;
        }
        Way::JobMode => until(lab, &mut story, "its VM is gone", gone)?,
    }
    let log = std::fs::read(lab.layout.log("slurmctld")).unwrap_or_default();
    story.slurm_log(&String::from_utf8_lossy(&log));
    let Some(track) = story.tracks.first_mut() else {
        bail!("the job was lost")
    };
    if track.state != "COMPLETED" {
        bail!("the job is {}", track.state);
    }
    track.output = jobs::read(&track.job)?;
    Ok(phases(&story))
}

fn phases(story: &Story) -> Phases {
    let Some(track) = story.tracks.first() else {
        return Phases::default();
    };
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.cast_signed() - from?.cast_signed());
    let since = |at| between(Some(track.job.submitted), at);
    let moment = |moment| track.moments.get(&moment).copied();
    let step = |step| story.last(track, step);
    [
        since(moment(Moment::Admitted)),
        since(moment(Moment::Allocated)),
        since(step(Step::ResumeAsked)),
        since(step(Step::VmStarted)),
        since(step(Step::VmReady)),
        since(step(Step::Registered)),
        since(moment(Moment::Launched)),
        since(track.output.begin),
        between(step(Step::Registered), moment(Moment::Launched)),
        between(moment(Moment::Ended), step(Step::VmGone)),
    ]
}

fn gone(story: &Story) -> bool {
    let track = story.tracks.first();
    track.is_some_and(|track| story.last(track, Step::VmGone).is_some())
}

fn until(lab: &Running, story: &mut Story, what: &str, done: impl Fn(&Story) -> bool) -> Result<()> {
    let expand = |list: &str| {
        thiao_core::hostlist::expand(list)
            .map(|nodes| nodes.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    };
    wait_until(what, || {
        if let Some(events) = api::events(&lab.layout.api(), story.last_event) {
            story.events(&events);
        }
        if !story.over() {
            story.seen(&jobs::observe(lab)?, now(), expand);
        }
        Ok(done(story))
    })
}

fn submit(lab: &Running, way: Way) -> Result<Job> {
    let user = lab.plan.submitter();
    let home = lab.home(user);
    let size = JobSize {
        cpus: lab.plan.options.cpus,
        memory_mb: lab.plan.options.memory_mb,
    };
    let submitted = now();
    let mut command = lab.command("sbatch", As::User(user), &home)?;
    command.args(["--parsable", "-o", "%j.out"]);
    match way {
        Way::Bare => command.args(["-w", UP]),
        Way::PowerSaving => command.args(["-w", DOWN]),
        Way::JobMode => command.args(job_mode(size)),
    };
    let output = command
        .args(["--wrap", SCRIPT])
        .output()
        .context("sbatch cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Ok(id) = text.trim().parse::<u32>() else {
        bail!("sbatch: {}", String::from_utf8_lossy(&output.stderr).trim())
    };
    Ok(Job {
        id,
        task: None,
        name: way.words().to_owned(),
        user: user.clone(),
        nodes: 1,
        size: (way == Way::JobMode).then_some(size),
        submitted,
        output: home.join(format!("{id}.out")),
    })
}

fn job_mode(size: JobSize) -> [String; 3] {
    [
        format!("--partition={JOB_PARTITION}"),
        format!("--cpus-per-task={}", size.cpus),
        format!("--mem={}", size.memory_mb),
    ]
}

fn power_down(lab: &Running, node: &str) -> Result<()> {
    let node = format!("NodeName={node}");
    ask(
        lab,
        "scontrol",
        &["update", &node, "State=POWER_DOWN", "Reason=bench"],
    )
    .map(drop)
}

fn state_of(lab: &Running, node: &str) -> Result<String> {
    ask(lab, "sinfo", &["-h", "-N", "-n", node, "-o", "%t"])
}

fn last_event(lab: &Running) -> Result<i64> {
    let mut last = 0;
    loop {
        let events = api::events(&lab.layout.api(), last).context("the controller does not answer")?;
        match events.last() {
            Some(event) => last = event.id,
            None => return Ok(last),
        }
    }
}

/// Small jobs, all in the queue at once: how fast they are done, and whether each had its VM.
fn drain(lab: &Running, count: u32) -> Result<()> {
    let user = lab.plan.submitter();
    let size = JobSize {
        cpus: lab.plan.options.cpus,
        memory_mb: lab.plan.options.memory_mb,
    };
    // The hosts are for these jobs alone.
    power_down(lab, UP)?;
    wait_until("the node that was kept up is down", || Ok(vms(lab)? == 0))?;
    let mut cursor = last_event(lab)?;
    let (begun, started) = (now(), Instant::now());
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let output = lab
            .command("sbatch", As::User(user), &lab.home(user))?
            .args(["--parsable", "-o", "/dev/null"])
            .args(job_mode(size))
            .args(["--wrap", "true"])
            .output()
            .context("sbatch cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Ok(id) = text.trim().parse::<u32>() else {
            bail!("sbatch: {}", String::from_utf8_lossy(&output.stderr).trim())
        };
        ids.insert(id);
    }
    say!(
        "\n{count} jobs of {} CPU and {} MiB are in the queue after {:.1} s",
        size.cpus,
        size.memory_mb,
        started.elapsed().as_secs_f64()
    );
    let deadline = Instant::now() + LIMIT + PER_JOB * count;
    let (mut made, mut gone, mut told) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        for event in api::events(&lab.layout.api(), cursor).unwrap_or_default() {
            cursor = cursor.max(event.id);
            match event.kind.as_str() {
                "vm-started" => drop(made.insert(event.subject)),
                "vm-gone" => drop(gone.insert(event.subject)),
                _ => {}
            }
        }
        let ends = ends(lab, &ids);
        if ends.len() / 50 > told / 50 {
            say!("{:6.1} s  {} done", started.elapsed().as_secs_f64(), ends.len());
        }
        told = ends.len();
        let over = ends.len() == ids.len() && made.is_subset(&gone);
        if over || Instant::now() > deadline || signals::interrupted().is_some() {
            // A VM counts as gone a moment before its process is reaped.
            let left = wait_until("no VM is left", || Ok(vms(lab)? == 0));
            let last = ends.values().max().copied().unwrap_or(begun);
            let minutes = last.saturating_sub(begun).max(1) as f64 / 60_000.0;
            say!(
                "{} jobs done in {:.1} s: {:.1} jobs per minute; {} VMs made, {} left",
                ends.len(),
                minutes * 60.0,
                ends.len() as f64 / minutes,
                made.len(),
                vms(lab)?
            );
            if !over {
                bail!("not all jobs were done and all VMs gone");
            }
            if made.len() != ids.len() {
                bail!("each job should have had one VM");
            }
            return left;
        }
        std::thread::sleep(PAUSE * 10);
    }
}

/// When those jobs were over that are.
fn ends(lab: &Running, ids: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
    let log = std::fs::read(lab.layout.log("slurmctld")).unwrap_or_default();
    slurm_log::read(&String::from_utf8_lossy(&log))
        .filter_map(|(at, said)| match said {
            Said::Job(which, Moment::Ended) if ids.contains(&which.id) => Some((which.id, at)),
            Said::Job(_, _) | Said::Registered(_) => None,
        })
        .collect()
}

fn vms(lab: &Running) -> Result<usize> {
    match lab.ask("status")? {
        Reply::Status(status) => Ok(status.vms),
        Reply::Done | Reply::Refused(_) => bail!("the keeper's answer is not a status"),
    }
}
