//! `thiao jobs`: the queue, the VMs that a job had, and what all of them cost.

use super::args::{ExportAs, Jobs, Show};
use super::watch;
use thiao_api::JobNames;
use thiao_api::client::{Client, ClientError};
use thiao_api::types::{Job, JobStay, JobVm, JobVms, summary_line};
use thiao_api::words::JobState;
use thiao_cli::output::{Cell, Printer, Tone, clean, clock, json, line, memory, now, span, when};
use thiao_slurm::words;

/// VMs in one answer of the controller's.
const PAGE: usize = 10_000;

pub(super) fn run(client: &Client, printer: Printer, which: &Jobs) -> anyhow::Result<()> {
    match (&which.job, which.export, which.since) {
        (Some(names), ..) => watch::show(
            printer,
            which.how,
            || vms_of(client, names),
            |had| draw_vms(printer, names, had),
        ),
        (None, Some(form), since) => export(client, printer, form, since.unwrap_or_default()),
        (None, None, Some(since)) => watch::show(
            printer,
            which.how,
            || stays(client, since),
            |stays| draw_stays(printer, stays),
        ),
        (None, None, None) => queue(client, printer, which.how),
    }
}

/// The VMs of a job, or of several tasks of an array together. What no task had is no error as long as one had some.
fn vms_of(client: &Client, names: &JobNames) -> Result<JobVms, ClientError> {
    let [first, rest @ ..] = names.each() else {
        return Ok(JobVms::of(0, Vec::new()));
    };
    let mut all = client.job_vms(*first);
    for name in rest {
        all = match (all, client.job_vms(*name)) {
            (Ok(mut all), Ok(more)) => {
                all.vms.extend(more.vms);
                Ok(all)
            }
            (Ok(had), Err(ClientError::Refused { code: 404, .. }))
            | (Err(ClientError::Refused { code: 404, .. }), Ok(had)) => Ok(had),
            (all, Err(ClientError::Refused { code: 404, .. })) => all,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
    }
    let all = all?;
    let job = if rest.is_empty() { all.job } else { first.id };
    Ok(JobVms::of(job, all.vms))
}

/// Which VMs jobs were on since then.
fn stays(client: &Client, since: u64) -> Result<Vec<JobStay>, ClientError> {
    let mut all: Vec<JobStay> = Vec::new();
    loop {
        let last = all.last().map_or(0, |stay| stay.id);
        let page = client.jobs_nodes(since, last, PAGE)?;
        let full = page.len() >= PAGE;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}

fn draw_stays(printer: Printer, stays: &[JobStay]) -> String {
    if stays.is_empty() {
        return "no jobs were on VMs since then, or none of yours\n".to_owned();
    }
    let row = |stay: &JobStay| {
        let ran = stay.ended.map(|at| span(at.saturating_sub(stay.began)));
        vec![
            Cell::from(stay.slurm_name()),
            Cell::from(stay.uid.to_string()),
            Cell::from(&stay.vm),
            Cell::maybe(stay.host.as_ref()),
            Cell::from(clock(stay.began)),
            ran.map_or_else(|| Cell::toned("still there", Tone::Good), Cell::from),
        ]
    };
    let head = ["JOB", "UID", "VM", "HOST", "FROM", "FOR"];
    printer.table(&head, stays.iter().map(row).collect())
}

fn queue(client: &Client, printer: Printer, how: Show) -> anyhow::Result<()> {
    // One who has just submitted a job looks for it; one who watches sees it when the controller does.
    let first = std::cell::Cell::new(true);
    watch::show_observed(
        client,
        printer,
        how,
        || client.jobs(first.replace(false)),
        |jobs| match jobs.as_slice() {
            [] => no_jobs(client),
            some => draw_queue(printer, some),
        },
    )
}

/// What an empty list means.
fn no_jobs(client: &Client) -> String {
    match client.status().map(|status| status.slurm.error) {
        Ok(Some(error)) => format!(
            "Slurm cannot be read now, so its jobs are not known: {}\n",
            clean(&error)
        ),
        Ok(None) | Err(_) => "there are no jobs, or none of yours\n".to_owned(),
    }
}

fn draw_queue(printer: Printer, jobs: &[Job]) -> String {
    let now = now();
    let row = |job: &Job| {
        vec![
            Cell::from(short(&job.slurm_name())),
            Cell::from(&job.name),
            Cell::from(&job.user),
            Cell::toned(job.state.word(), tone(&job.state)),
            Cell::from(format!("{}/{}", job.nodes_up, job.node_count)),
            Cell::maybe(Some(&job.nodes).filter(|nodes| !nodes.is_empty())),
            Cell::maybe(job.submit.map(|at| when(at, now))),
            Cell::maybe(job.start.map(|at| when(at, now))),
            Cell::from(
                Some(job.reason.as_str())
                    .filter(|reason| words::is_reason(reason))
                    .unwrap_or_default(),
            ),
        ]
    };
    let head = [
        "JOB",
        "NAME",
        "USER",
        "STATE",
        "UP",
        "NODES",
        "SUBMITTED",
        "START",
        "REASON",
    ];
    printer.table(&head, jobs.iter().map(row).collect())
}

/// The most of a job's name in a table: an array's may list a thousand tasks.
const NAME: usize = 24;

fn short(name: &str) -> String {
    match name.get(..NAME) {
        Some(begin) if name.len() > NAME => format!("{begin}..."),
        Some(_) | None => name.to_owned(),
    }
}

fn tone(state: &JobState) -> Tone {
    match state {
        JobState::Running => Tone::Good,
        JobState::Configuring | JobState::Completing => Tone::Busy,
        JobState::Pending | JobState::Suspended | JobState::Unknown(_) => Tone::Plain,
    }
}

fn draw_vms(printer: Printer, job: &JobNames, had: &JobVms) -> String {
    if had.vms.is_empty() {
        return format!(
            "no VMs were made for job {job} alone: `thiao explain {job}` tells which it was on\n"
        );
    }
    let sum = summary_line(&had.vms);
    let sum = sum.strip_prefix("thiao: ").unwrap_or(&sum);
    // Tasks of an array are jobs of their own.
    let several = had.vms.iter().any(|vm| vm.job != had.job);
    let row = |vm: &JobVm| {
        let since = |at: Option<u64>| Cell::maybe(at.map(|at| after(at.saturating_sub(vm.asked))));
        let mut cells = match several {
            true => vec![Cell::from(vm.task.clone().unwrap_or_else(|| vm.job.to_string()))],
            false => Vec::new(),
        };
        cells.extend([
            Cell::from(&vm.node),
            Cell::from(&vm.vm),
            Cell::maybe(vm.host.as_ref()),
            Cell::from(size(vm)),
            Cell::from(format!("{} %", vm.share_percent)),
            Cell::from(clock(vm.asked)),
            since(vm.started),
            since(vm.ready),
            since(vm.up),
            since(vm.ended),
            Cell::from(format!("{:.2}", vm.core_hours)),
        ]);
        cells
    };
    let head = [
        "JOB",
        "NODE",
        "VM",
        "HOST",
        "SIZE",
        "SHARE",
        "ASKED",
        "STARTED",
        "READY",
        "UP",
        "ENDED",
        "CORE-HOURS",
    ];
    let head = if several { &head[..] } else { &head[1..] };
    let table = printer.table(head, had.vms.iter().map(row).collect());
    format!("job {job}: {}\n{table}", clean(sum))
}

fn size(vm: &JobVm) -> String {
    let cpus = if vm.cpus == 1 { "CPU" } else { "CPUs" };
    let gpus = match vm.gpus {
        0 => String::new(),
        1 => ", 1 GPU".to_owned(),
        many => format!(", {many} GPUs"),
    };
    format!("{} {cpus}, {}{gpus}", vm.cpus, memory(vm.memory_mb))
}

/// A time after the VM was asked for.
fn after(millis: u64) -> String {
    if millis < 60_000 {
        format!("+{:.1} s", millis as f64 / 1000.0)
    } else {
        format!("+{}", span(millis))
    }
}

/// Writes all VMs that jobs had since then.
fn export(client: &Client, printer: Printer, form: ExportAs, since: u64) -> anyhow::Result<()> {
    let mut vms: Vec<JobVm> = Vec::new();
    loop {
        let last = vms.last().map_or(0, |vm| vm.id);
        let page = client.jobs_vms(since, last, PAGE)?;
        let full = page.len() >= PAGE;
        vms.extend(page);
        if !full {
            break;
        }
    }
    let text = match form {
        ExportAs::Json => json(&vms, true)?,
        ExportAs::Csv => csv(&vms),
    };
    Ok(printer.print(&text)?)
}

const COLUMNS: &str =
    "job,uid,node,vm,host,cpus,memory_mb,share_percent,gpus,asked,started,ready,up,ended,core_hours\n";

/// No field needs quotes: they are numbers and names.
fn csv(vms: &[JobVm]) -> String {
    let mut text = COLUMNS.to_owned();
    for vm in vms {
        let time = |at: Option<u64>| at.map(|at| at.to_string()).unwrap_or_default();
        let fields = [
            vm.job.to_string(),
            vm.uid.map(|uid| uid.to_string()).unwrap_or_default(),
            line(&vm.node),
            line(&vm.vm),
            line(vm.host.as_deref().unwrap_or_default()),
            vm.cpus.to_string(),
            vm.memory_mb.to_string(),
            vm.share_percent.to_string(),
            vm.gpus.to_string(),
            vm.asked.to_string(),
            time(vm.started),
            time(vm.ready),
            time(vm.up),
            time(vm.ended),
            format!("{:.4}", vm.core_hours),
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}
