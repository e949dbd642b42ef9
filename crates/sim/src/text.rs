//! A world as a few lines of text, to be kept and given again: what differs from
//! [`Setup::default`], a line each. `#` begins a comment.
//!
//! ```text
//! seed = 7
//! hosts = 1
//! policy.max_starting = 2
//! fault.killed = 20
//! job = at 1s, 2 nodes, 20s
//! job = at 3.5s, 1 nodes, 5s, cpus 1, memory 40, priority 1, tasks 0, requeue, cancel 2s
//! ```

use crate::controller::{Crash, Moment};
use crate::draw::{MOST_HOURS, MOST_NODES};
use crate::faults::{Fault, Hit};
use crate::setup::{JobModePlan, JobPlan, Setup};
use crate::slurm::{Release, Rules};
use std::fmt::Write as _;
use thiao_core::ids::Millis;
use thiao_core::policy::Policy;

/// The most jobs of a world, and tasks of an array.
const MOST_JOBS: usize = 1_000_000;

/// A value that has a short text.
pub(crate) trait Value {
    fn write(&self) -> String;
    fn read(&mut self, text: &str) -> Result<(), String>;
}

macro_rules! plain {
    ($($kind:ty)*) => { $(impl Value for $kind {
        fn write(&self) -> String {
            self.to_string()
        }

        fn read(&mut self, text: &str) -> Result<(), String> {
            *self = text.parse().map_err(|why| format!("'{text}': {why}"))?;
            Ok(())
        }
    })* };
}

plain!(bool u16 u32 u64 usize Release);

impl Value for Millis {
    fn write(&self) -> String {
        match self.0 % 1000 {
            0 => format!("{}s", self.0 / 1000),
            part => format!("{}.{part:03}s", self.0 / 1000),
        }
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("'{text}' is no time: seconds, as 20s or 1.500s");
        let number = text.strip_suffix('s').ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "000"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if part.len() != 3 || !digits(part) || !digits(whole) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = part.parse().map_err(|_| wrong())?;
        let all = whole.checked_mul(1000).and_then(|ms| ms.checked_add(part));
        *self = Millis(all.filter(|ms| *ms < 1 << 40).ok_or_else(wrong)?);
        Ok(())
    }
}

/// Values by name, to read and to set.
type Fields<'a> = Vec<(&'static str, &'a mut dyn Value)>;

/// All values of a world that are one value each.
pub(crate) fn fields(setup: &mut Setup) -> Fields<'_> {
    let Setup {
        seed,
        nodes,
        job_mode_nodes,
        hosts,
        host_capacity,
        jobs: _,
        rules,
        policy,
        faults: _,
        only: _,
        lulls: _,
        calm,
        crash: _,
        flaw: _,
    } = setup;
    let mut all: Fields<'_> = vec![
        ("seed", seed),
        ("nodes", nodes),
        ("job_mode_nodes", job_mode_nodes),
        ("hosts", hosts),
        ("host_capacity", host_capacity),
        ("calm", calm),
    ];
    all.extend(rules_fields(rules));
    all.extend(policy_fields(policy));
    all
}

fn rules_fields(rules: &mut Rules) -> Fields<'_> {
    let Rules {
        release,
        resume_timeout,
        suspend_time,
        suspend_timeout,
        requeue_pause,
        sweep,
        asks_after,
        takes_unasked,
        idle_on_suspend,
        suspends_returned,
    } = rules;
    vec![
        ("slurm.release", release),
        ("slurm.resume_timeout", resume_timeout),
        ("slurm.suspend_time", suspend_time),
        ("slurm.suspend_timeout", suspend_timeout),
        ("slurm.requeue_pause", requeue_pause),
        ("slurm.sweep", sweep),
        ("slurm.asks_after", asks_after),
        ("slurm.takes_unasked", takes_unasked),
        ("slurm.idle_on_suspend", idle_on_suspend),
        ("slurm.suspends_returned", suspends_returned),
    ]
}

fn policy_fields(policy: &mut Policy) -> Fields<'_> {
    let Policy {
        max_vms,
        max_vms_per_host,
        max_starting,
        cpu_overcommit_percent,
        overhead_mb,
        boot_timeout,
        capacity_patience,
        orphan_grace,
        missing_grace,
        missing_observations,
        silence_grace,
        terminate_grace,
        retry_first,
        retry_max,
        tries_before_down,
        breaker_failures,
        breaker_pause,
        admit_patience,
        overtake_limit,
        guests_wait,
        unheard_grace,
        slurmd_starts,
        keep_failed,
        observation_max_age,
        mark_patience,
    } = policy;
    vec![
        ("policy.max_vms", max_vms),
        ("policy.max_vms_per_host", max_vms_per_host),
        ("policy.max_starting", max_starting),
        ("policy.cpu_overcommit_percent", cpu_overcommit_percent),
        ("policy.overhead_mb", overhead_mb),
        ("policy.boot_timeout", boot_timeout),
        ("policy.capacity_patience", capacity_patience),
        ("policy.orphan_grace", orphan_grace),
        ("policy.missing_grace", missing_grace),
        ("policy.missing_observations", missing_observations),
        ("policy.silence_grace", silence_grace),
        ("policy.terminate_grace", terminate_grace),
        ("policy.retry_first", retry_first),
        ("policy.retry_max", retry_max),
        ("policy.tries_before_down", tries_before_down),
        ("policy.breaker_failures", breaker_failures),
        ("policy.breaker_pause", breaker_pause),
        ("policy.admit_patience", admit_patience),
        ("policy.overtake_limit", overtake_limit),
        ("policy.guests_wait", guests_wait),
        ("policy.unheard_grace", unheard_grace),
        ("policy.slurmd_starts", slurmd_starts),
        ("policy.keep_failed", keep_failed),
        ("policy.observation_max_age", observation_max_age),
        ("policy.mark_patience", mark_patience),
    ]
}

/// The lines of `setup`.
#[must_use]
pub fn write(setup: &Setup) -> String {
    let (mut this, mut usual) = (setup.clone(), Setup::default());
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} = {value}"); // a String takes all
    };
    for ((name, value), (_, usual)) in fields(&mut this).into_iter().zip(fields(&mut usual)) {
        let value = value.write();
        if name == "seed" || value != usual.write() {
            line(name, &value);
        }
    }
    for fault in Fault::ALL {
        let rate = setup.faults.of(fault);
        if rate > 0 {
            line(&format!("fault.{}", fault.name()), &rate.to_string());
        }
    }
    if let Some(only) = &setup.only {
        let hits = only
            .iter()
            .map(|(fault, number)| format!("{} {number}", fault.name()));
        line("only", &hits.collect::<Vec<_>>().join(", "));
    }
    for (from, until) in &setup.lulls {
        line("lull", &format!("{} {}", from.write(), until.write()));
    }
    if let Some(Crash { write, moment }) = setup.crash {
        line("crash", &format!("{write} {}", moment.name()));
    }
    if let Some(flaw) = setup.flaw {
        line("flaw", flaw.name());
    }
    for job in &setup.jobs {
        line("job", &write_job(job));
    }
    text
}

/// The world that `text` describes.
///
/// # Errors
/// Which line is wrong, and why.
pub fn read(text: &str) -> Result<Setup, String> {
    let mut setup = Setup {
        jobs: Vec::new(),
        ..Setup::default()
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            read_line(&mut setup, line).map_err(|why| format!("line {}: {why}", number + 1))?;
        }
    }
    bounded(&setup)?;
    Ok(setup)
}

/// Refuses what no machine could simulate.
fn bounded(setup: &Setup) -> Result<(), String> {
    if !setup.jobs.is_sorted_by_key(|job| job.submit) {
        return Err("the jobs are not in the order in which they come".into());
    }
    let tasks = |job: &JobPlan| job.job_mode.map_or(0, |job_mode| job_mode.tasks);
    let longest = Millis(MOST_HOURS * 3_600_000);
    for (name, value, most) in [
        ("nodes", setup.nodes, MOST_NODES),
        ("job_mode_nodes", setup.job_mode_nodes, MOST_NODES),
        ("hosts", setup.hosts, MOST_NODES),
        (
            "host_capacity",
            usize::try_from(setup.host_capacity).unwrap_or(usize::MAX),
            MOST_NODES,
        ),
        ("jobs", setup.jobs.len(), MOST_JOBS),
        (
            "tasks",
            setup.jobs.iter().map(tasks).max().unwrap_or(0) as usize,
            MOST_JOBS,
        ),
    ] {
        if value > most {
            return Err(format!("{value} {name} are more than {most}"));
        }
    }
    let times = setup.jobs.iter().flat_map(|job| [job.submit, job.length]);
    if times.chain([setup.calm]).any(|time| time > longest) {
        return Err(format!("nothing may take longer than {MOST_HOURS} hours"));
    }
    Ok(())
}

fn read_line(setup: &mut Setup, line: &str) -> Result<(), String> {
    let parts = line.split_once('=').ok_or("'NAME = VALUE' is expected")?;
    let (name, value) = (parts.0.trim(), parts.1.trim());
    if let Some(fault) = name.strip_prefix("fault.") {
        let mut rate = 0_u16;
        rate.read(value)?;
        if rate > 1000 {
            return Err(format!("{rate} per mille are more than all"));
        }
        setup.faults.set(fault_named(fault)?, rate);
        return Ok(());
    }
    match name {
        "job" => setup.jobs.push(read_job(value)?),
        "crash" => setup.crash = Some(read_crash(value)?),
        "flaw" => setup.flaw = Some(value.parse()?),
        "only" => {
            let hits = value.split(',').map(str::trim).filter(|hit| !hit.is_empty());
            setup.only = Some(hits.map(read_hit).collect::<Result<_, _>>()?);
        }
        "lull" => {
            let (from, until) = value.split_once(' ').ok_or("two times are expected")?;
            setup.lulls.push((time(from)?, time(until.trim())?));
        }
        _ => {
            let field = fields(setup).into_iter().find(|(known, _)| *known == name);
            let (_, field) = field.ok_or_else(|| format!("'{name}' is not known"))?;
            field.read(value)?;
        }
    }
    Ok(())
}

fn fault_named(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
    found.ok_or_else(|| format!("there is no fault '{name}'"))
}

fn read_crash(text: &str) -> Result<Crash, String> {
    let (number, moment) = text.split_once(' ').ok_or("a write and a moment are expected")?;
    let found = Moment::ALL
        .into_iter()
        .find(|known| known.name() == moment.trim());
    let moment = found.ok_or_else(|| format!("there is no moment '{moment}'"))?;
    let mut write = 0_u64;
    write.read(number)?;
    Ok(Crash { write, moment })
}

fn read_hit(text: &str) -> Result<Hit, String> {
    let (name, number) = text.split_once(' ').ok_or("a fault and a number are expected")?;
    let mut which = 0_u64;
    which.read(number.trim())?;
    Ok((fault_named(name)?, which))
}

fn time(text: &str) -> Result<Millis, String> {
    let mut time = Millis(0);
    time.read(text)?;
    Ok(time)
}

fn write_job(job: &JobPlan) -> String {
    let (at, length) = (job.submit.write(), job.length.write());
    let mut text = format!("at {at}, {} nodes, {length}", job.size);
    if let Some(job_mode) = &job.job_mode {
        let JobModePlan {
            cpus,
            memory_mb,
            most,
            priority,
            tasks,
            requeue,
            cancel,
        } = job_mode;
        let _ = write!(
            text,
            ", cpus {cpus}, memory {memory_mb}, priority {priority}, tasks {tasks}"
        );
        if *most > 0 {
            let _ = write!(text, ", most {most}");
        }
        text += if *requeue { ", requeue" } else { "" };
        if let Some(cancel) = cancel {
            let _ = write!(text, ", cancel {}", cancel.write());
        }
    }
    text
}

fn read_job(text: &str) -> Result<JobPlan, String> {
    let mut job = JobPlan {
        submit: Millis(0),
        size: 1,
        length: Millis(0),
        job_mode: None,
    };
    let fresh = JobModePlan {
        cpus: 1,
        memory_mb: 10,
        most: 0,
        priority: 0,
        tasks: 0,
        requeue: false,
        cancel: None,
    };
    for part in text.split(',').map(str::trim) {
        let (word, value) = part.split_once(' ').unwrap_or((part, ""));
        match (word, value) {
            ("at", at) => job.submit.read(at)?,
            ("requeue", "") => job.job_mode.get_or_insert(fresh).requeue = true,
            ("cpus", value) => job.job_mode.get_or_insert(fresh).cpus.read(value)?,
            ("memory", value) => job.job_mode.get_or_insert(fresh).memory_mb.read(value)?,
            ("most", value) => job.job_mode.get_or_insert(fresh).most.read(value)?,
            ("priority", value) => job.job_mode.get_or_insert(fresh).priority.read(value)?,
            ("tasks", value) => job.job_mode.get_or_insert(fresh).tasks.read(value)?,
            ("cancel", value) => job.job_mode.get_or_insert(fresh).cancel = Some(time(value)?),
            (size, "nodes") => job.size.read(size)?,
            (length, "") => job.length.read(length)?,
            _ => return Err(format!("'{part}' of a job is not known")),
        }
    }
    Ok(job)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]
mod tests {
    use super::*;
    use crate::draw::Scale;
    use crate::flaw::Flaw;
    use crate::profile::Profile;

    #[test]
    fn what_is_written_is_read_again() {
        for seed in 0..100 {
            let mut setup = Setup::drawn(seed, Scale::default(), Profile::Heavy);
            if seed % 2 == 0 {
                setup.only = Some([(Fault::Killed, 7), (Fault::ListFails, seed)].into());
                setup.flaw = Some(Flaw::NoFsync);
                let (write, moment) = (seed, Moment::AfterWrite);
                setup.crash = Some(Crash { write, moment });
            }
            let text = write(&setup);
            let again = read(&text).unwrap();
            assert_eq!(format!("{setup:?}"), format!("{again:?}"), "{text}");
        }
    }

    #[test]
    fn only_what_is_special_is_written() {
        assert_eq!(write(&Setup::default()), "seed = 1\njob = at 1s, 2 nodes, 20s\n");
        assert_eq!(read("\n# nothing\n").unwrap().jobs, []);
    }

    #[test]
    fn wrong_lines_are_told() {
        for (text, why) in [
            ("seed = 1\nnodes", "line 2: 'NAME = VALUE'"),
            ("nodse = 3", "line 1: 'nodse' is not known"),
            ("fault.bad = 3", "there is no fault 'bad'"),
            ("fault.killed = 3000", "more than all"),
            ("calm = 3", "'3' is no time"),
            ("calm = 1.5s", "is no time"),
            ("calm = 99999999999999999999s", "is no time"),
            ("job = at 1s, 2 knots, 3s", "'2 knots' of a job"),
            ("only = killed", "a number"),
            ("nodes = 99999", "more than 2000"),
            ("calm = 99999999s", "longer than"),
            ("job = at 2s, 1 nodes, 3s\njob = at 1s, 1 nodes, 3s", "order"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
