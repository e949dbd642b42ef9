//! `status`, `vms`, `hosts`, `events`, `explain`, `plan`.

use super::args::{Events, Show};
use super::watch::{self, show, show_observed};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use thiao_api::client::{Client, ClientError};
use thiao_api::types::{
    Event, Explanation, Host, LastWords, Observation as Seen, PlanLine, PlanView, Status, Vm,
};
use thiao_api::words::{NodeState, VmState};
use thiao_api::{JobName, JobNames};
use thiao_cli::output::{Cell, Printer, Tone, clean, clock, json, line as one_line, memory, now, when};

/// The tone of a node's state.
pub(super) fn node_tone(state: &NodeState) -> Tone {
    match state {
        NodeState::Up | NodeState::Ready => Tone::Good,
        NodeState::Asked
        | NodeState::Held
        | NodeState::Pending
        | NodeState::Booting
        | NodeState::Stopping
        | NodeState::Waiting
        | NodeState::Paused
        | NodeState::Saving
        | NodeState::Saved
        | NodeState::Restoring
        | NodeState::Moving => Tone::Busy,
        NodeState::Failed | NodeState::Silent => Tone::Bad,
        NodeState::Down => Tone::Faint,
        NodeState::Unknown(_) => Tone::Plain,
    }
}

fn vm_tone(state: &VmState) -> Tone {
    match state {
        VmState::Up | VmState::Ready => Tone::Good,
        VmState::Asked
        | VmState::Held
        | VmState::Pending
        | VmState::Booting
        | VmState::Stopping
        | VmState::Paused
        | VmState::Saving
        | VmState::Saved
        | VmState::Restoring
        | VmState::Moving => Tone::Busy,
        VmState::Failed | VmState::Silent => Tone::Bad,
        VmState::Stray | VmState::Unknown(_) => Tone::Plain,
    }
}

pub(super) fn status(client: &Client, printer: Printer, how: Show) -> anyhow::Result<()> {
    show(
        printer,
        how,
        || client.status(),
        |status| draw_status(printer, status),
    )
}

fn draw_status(printer: Printer, s: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line(
        "controller",
        format!("thiao {}, started {}", clean(&s.version), when(s.started, s.now)),
    );
    line("cluster", clean(&s.cluster));
    for (n, note) in s.provider_notes.iter().enumerate() {
        line(if n == 0 { s.provider.as_str() } else { "" }, clean(note));
    }
    for fault in &s.faults {
        line("", printer.toned(&clean(fault), Tone::Bad));
    }
    if let Some(what) = &s.preparing {
        line("preparing", clean(what));
    }
    line("slurm", seen(printer, &s.slurm, s.now));
    line("provider", seen(printer, &s.vms, s.now));
    if let Some(bus) = &s.bus {
        let tone = match bus.configured && !bus.relied_on && !bus.silent {
            true => Tone::Bad,
            false => Tone::Plain,
        };
        line("events", printer.toned(&clean(&bus.text), tone));
    }
    let nodes: Vec<String> = s
        .nodes_by_state
        .iter()
        .map(|(state, n)| format!("{n} {}", printer.toned(in_words(state), node_tone(state))))
        .collect();
    line(
        "nodes",
        if nodes.is_empty() {
            "none".to_owned()
        } else {
            nodes.join(", ")
        },
    );
    line("VMs", s.vm_count.to_string());
    if s.pending_intents > 0 {
        line("intents", format!("{} wait", s.pending_intents));
    }
    if let Some(why) = &s.unstored {
        let text = format!("nothing is done until it can be stored, and {why}");
        line("stopped", printer.toned(&text, Tone::Bad));
    }
    if let Some(why) = &s.ungated {
        let text = format!("jobs of job mode do not wait for capacity: {why}");
        line("gate", printer.toned(&text, Tone::Bad));
    }
    if let Some(breaker) = &s.breaker {
        line("paused", printer.toned(breaker, Tone::Bad));
    }
    text
}

/// A node's state among those of many: Slurm's "down" is another thing.
pub(super) fn in_words(state: &NodeState) -> &str {
    match state {
        NodeState::Down => "powered down",
        other => other.word(),
    }
}

/// How the last observation of a side went.
fn seen(printer: Printer, observation: &Seen, now: u64) -> String {
    let Some(error) = &observation.error else {
        return match observation.last_ok {
            Some(at) => format!("read {}", when(at, now)),
            None => "not read yet".to_owned(),
        };
    };
    let last = match observation.last_ok {
        Some(at) => format!("last read {}", when(at, now)),
        None => "not read since the controller started".to_owned(),
    };
    format!(
        "{} ({last}; nothing is destroyed on a failed observation)",
        printer.toned(error, Tone::Bad)
    )
}

pub(super) fn vms(client: &Client, printer: Printer, how: Show) -> anyhow::Result<()> {
    show_observed(
        client,
        printer,
        how,
        || client.vms(),
        |vms| {
            if vms.is_empty() {
                return "there are no VMs\n".to_owned();
            }
            let now = now();
            let row = |vm: &Vm| {
                vec![
                    Cell::from(&vm.id),
                    Cell::from(&vm.node),
                    Cell::toned(vm.state.word(), vm_tone(&vm.state)),
                    Cell::maybe(vm.host.as_ref()),
                    Cell::from(memory(vm.memory_mb)),
                    Cell::from(format!("{} %", vm.cpu_percent)),
                    Cell::from(match vm.job {
                        Some(job) => format!("job {job}"),
                        None => vm.mode.to_string(),
                    }),
                    Cell::maybe(vm.asked.map(|at| when(at, now))),
                    Cell::from(vm.note.as_deref().unwrap_or_default()),
                ]
            };
            printer.table(
                &[
                    "VM", "NODE", "STATE", "HOST", "MEMORY", "CPU", "FOR", "ASKED", "NOTE",
                ],
                vms.iter().map(row).collect(),
            )
        },
    )
}

pub(super) fn hosts(client: &Client, printer: Printer, how: Show) -> anyhow::Result<()> {
    show_observed(
        client,
        printer,
        how,
        || client.hosts(),
        |hosts| draw_hosts(printer, hosts),
    )
}

fn draw_hosts(printer: Printer, hosts: &[Host]) -> String {
    if hosts.is_empty() {
        return "the provider shows no hosts, or has not been read yet\n".to_owned();
    }
    // Who else uses the hosts is a question only where they are shared.
    let shared = hosts.iter().any(|host| host.everybody.is_some());
    let row = |host: &Host| {
        let usable = if host.usable {
            Cell::toned("yes", Tone::Good)
        } else {
            Cell::toned("no", Tone::Bad)
        };
        let mut cells = vec![Cell::from(&host.name), usable, Cell::from(host.vms.to_string())];
        cells.extend(promised(host).map(Cell::from));
        if shared {
            cells.push(Cell::maybe(others(host).as_ref()));
            cells.push(Cell::maybe(load(host).as_ref()));
        }
        cells
    };
    let mut head = vec!["HOST", "USABLE", "VMS", "CPU", "MEMORY"];
    if shared {
        head.extend(["OTHERS' VMS", "LOAD"]);
    }
    let closed = hosts
        .iter()
        .filter_map(|host| Some(format!("{}: {}\n", host.name, clean(host.closed.as_deref()?))));
    let table = printer.table(&head, hosts.iter().map(row).collect());
    std::iter::once(table)
        .chain(closed)
        .chain(out_of_reach(hosts))
        .collect()
}

/// A line for each nodeset and each reason why it is not on some hosts.
fn out_of_reach(hosts: &[Host]) -> Vec<String> {
    let mut alike: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for host in hosts {
        for (nodeset, why) in &host.not_for {
            alike.entry((nodeset, why)).or_default().push(&host.name);
        }
    }
    let line = |((nodeset, why), hosts): ((&str, &str), Vec<&str>)| {
        let named = hosts.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = match hosts.len() {
            ..=3 => String::new(),
            count => format!(" and {} more", count - 3),
        };
        format!("nodeset {nodeset} cannot be on {named}{more}: {}\n", clean(why))
    };
    alike.into_iter().map(line).collect()
}

/// Cores and memory that our VMs take there, of what is there for us.
fn promised(host: &Host) -> [String; 2] {
    let (cpu, mb) = (host.cpu_percent_used, memory(host.memory_mb_used));
    // Stands for a scheduler of the provider's own, which knows what it has.
    if host.cpu_percent == u32::MAX {
        return [format!("{cpu} %"), mb];
    }
    [
        format!("{cpu} of {} %", host.cpu_percent),
        format!("{mb} of {}", memory(host.memory_mb)),
    ]
}

/// What the host has promised to VMs that are not ours.
fn others(host: &Host) -> Option<String> {
    let all = host.everybody.as_ref()?;
    Some(match all.vms.saturating_sub(host.vms) {
        0 => "none".to_owned(),
        vms => format!(
            "{vms} with {} %, {}",
            all.cpu_percent.saturating_sub(host.cpu_percent_used),
            memory(all.memory_mb.saturating_sub(host.memory_mb_used))
        ),
    })
}

/// What is really used of the host, by all.
fn load(host: &Host) -> Option<String> {
    let all = host.everybody.as_ref()?;
    let (cpu, mb) = (all.cpu_percent_load?, all.memory_mb_load?);
    Some(format!("{cpu} %, {}", memory(mb)))
}

pub(super) fn plan(client: &Client, printer: Printer, how: Show) -> anyhow::Result<()> {
    show_observed(
        client,
        printer,
        how,
        || client.plan(),
        |plan| draw_plan(printer, plan),
    )
}

fn draw_plan(printer: Printer, plan: &PlanView) -> String {
    let mut text = String::new();
    let parts = [
        ("To be done next", &plan.actions, Tone::Good),
        ("Held back", &plan.held, Tone::Busy),
        ("Refused by the linter", &plan.refused, Tone::Bad),
    ];
    for (title, lines, tone) in parts {
        if lines.is_empty() {
            continue;
        }
        let row = |line: &PlanLine| {
            vec![
                Cell::from(&line.subject),
                Cell::from(&line.what),
                Cell::from(&line.why),
            ]
        };
        text.push_str(&printer.toned(title, tone));
        text.push('\n');
        text.push_str(&printer.table(&["ABOUT", "WHAT", "WHY"], lines.iter().map(row).collect()));
    }
    if text.is_empty() {
        "there is nothing to do\n".to_owned()
    } else {
        text
    }
}

pub(super) fn explain(client: &Client, printer: Printer, name: &str, how: Show) -> anyhow::Result<()> {
    // Tasks of an array as squeue lists them; a node may be called as a job is.
    if let Ok(names) = name.parse::<JobNames>()
        && name.contains('[')
    {
        let draw = |told: &Vec<Explanation>| -> String {
            let stories: Vec<String> = told.iter().map(|told| draw_story(printer, told)).collect();
            stories.join("\n")
        };
        return show_observed(client, printer, how, || explain_each(client, &names), draw);
    }
    show_observed(
        client,
        printer,
        how,
        || client.explain(name),
        |told| draw_story(printer, told),
    )
}

/// The story of each record that these tasks are in: those that wait are one.
fn explain_each(client: &Client, names: &JobNames) -> Result<Vec<Explanation>, ClientError> {
    let queue = client.jobs(true)?;
    let mut told: Vec<Explanation> = Vec::new();
    let mut records = BTreeSet::new();
    for name in names.each() {
        let record = queue.iter().find(|job| job.is(*name)).map(|job| job.id);
        if record.is_some_and(|record| !records.insert(record)) {
            continue;
        }
        match client.explain(&name.to_string()) {
            Ok(story) => told.push(story),
            // Not all of them need have been seen.
            Err(ClientError::Refused { code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
        if told.len() >= MOST_STORIES {
            break;
        }
    }
    match (told.is_empty(), names.each()) {
        (true, [first, ..]) => client.explain(&first.to_string()).map(|story| vec![story]),
        _ => Ok(told),
    }
}

/// The most stories that one question brings.
const MOST_STORIES: usize = 50;

fn draw_story(printer: Printer, told: &Explanation) -> String {
    let mut text = format!("{}\n", clean(&told.subject));
    for sentence in &told.now {
        let _ = writeln!(text, "  {}", one_line(sentence));
    }
    // Of several that failed one after the other, the newest says it.
    if let Some(words) = told.last_words.last() {
        text.push_str(&draw_last_words(printer, words));
    }
    for (n, event) in told.story.iter().enumerate() {
        if n == 0 {
            text.push('\n');
        }
        text.push_str(&draw_event(printer, event));
    }
    text
}

/// The most lines of a console that are shown; `--json` has all that is kept.
const LAST_LINES: usize = 15;

/// The end of a VM's console. What it said again and again is shown once, where it said it last.
fn draw_last_words(printer: Printer, words: &LastWords) -> String {
    let head = format!(
        "Last on the console of VM {}, {}:",
        one_line(&words.vm),
        clock(words.at)
    );
    let mut said = BTreeSet::new();
    let lines = words.text.lines().rev().filter(|line| !line.trim().is_empty());
    let lines: Vec<&str> = lines.filter(|line| said.insert(*line)).take(LAST_LINES).collect();
    let mut text = format!("\n{}\n", printer.toned(&head, Tone::Faint));
    for line in lines.iter().rev() {
        let _ = writeln!(text, "  | {}", one_line(line));
    }
    text
}

fn draw_event(printer: Printer, event: &Event) -> String {
    format!(
        "{}  {:<12} {:<18} {}\n",
        printer.toned(&clock(event.at), Tone::Faint),
        one_line(&event.subject),
        one_line(&event.kind),
        one_line(&event.message)
    )
}

/// What events are called that are about this: a bare name is a node's, a VM's or a job's.
fn subject(about: &str) -> String {
    let is_job = !about.is_empty() && about.bytes().all(|b| b.is_ascii_digit());
    let vm_of = about.rsplit_once('.').filter(|(node, generation)| {
        !node.is_empty() && !generation.is_empty() && generation.bytes().all(|b| b.is_ascii_digit())
    });
    if about.contains(' ') || matches!(about, "slurm" | "provider" | "controller") {
        about.to_owned()
    } else if is_job {
        format!("job {about}")
    } else if vm_of.is_some() {
        format!("vm {about}")
    } else {
        format!("node {about}")
    }
}

pub(super) fn events(client: &Client, printer: Printer, which: &Events) -> anyhow::Result<()> {
    let subject = match which.about.as_deref() {
        None => None,
        // Events name a task by the job's number that it has.
        Some(about) if about.parse().is_ok_and(|job: JobName| job.task.is_some()) => {
            Some(client.explain(about)?.subject)
        }
        Some(about) => Some(subject(about)),
    };
    let ask = |limit: usize, after| client.events(limit, after, subject.as_deref());
    let mut events = ask(which.limit.into(), None)?;
    if which.json && !which.follow {
        return Ok(printer.print(&json(&events, true)?)?);
    }
    let mut last = events.last().map_or(0, |event| event.id);
    loop {
        let mut text = String::new();
        for event in &events {
            if which.json {
                text.push_str(&json(event, false)?);
            } else {
                text.push_str(&draw_event(printer, event));
            }
        }
        printer.print(&text)?;
        if !which.follow {
            return Ok(());
        }
        std::thread::sleep(watch::PAUSE / 4);
        events = match ask(1_000, Some(last)) {
            Ok(events) => events,
            // It restarts; the events go on where they were.
            Err(error) if error.unreachable() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        last = events.last().map_or(last, |event| event.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_find_their_events() {
        for (about, expected) in [
            ("17", "job 17"),
            ("fg0", "node fg0"),
            ("fg0.3", "vm fg0.3"),
            ("a.b", "node a.b"),
            ("slurm", "slurm"),
            ("host a", "host a"),
        ] {
            assert_eq!(subject(about), expected);
        }
    }

    #[test]
    fn hosts_that_a_nodeset_does_not_reach_are_told_together() {
        let host = |name: &str, why: &[(&str, &str)]| Host {
            name: name.to_owned(),
            cpu_percent: 400,
            cpu_percent_used: 0,
            memory_mb: 1000,
            memory_mb_used: 0,
            vms: 0,
            usable: true,
            closed: None,
            not_for: why
                .iter()
                .map(|(nodeset, why)| ((*nodeset).to_owned(), (*why).to_owned()))
                .collect(),
            everybody: None,
        };
        let west = [("ib", "no network")];
        let hosts = ["h1", "h2", "h3", "h4", "h5"].map(|name| host(name, &west));
        assert_eq!(
            out_of_reach(&hosts),
            ["nodeset ib cannot be on h1, h2, h3 and 2 more: no network\n"]
        );
        let hosts = [host("a", &west), host("b", &[]), host("c", &[("ib", "no image")])];
        assert_eq!(
            out_of_reach(&hosts),
            [
                "nodeset ib cannot be on c: no image\n",
                "nodeset ib cannot be on a: no network\n"
            ]
        );
    }
}
