//! What OpenNebula's events save and bring: calls while nothing happens and for VMs that are made and ended, and how
//! long after a VM's change the round begins that knows of it; with the event bus and without.
//!
//! The real program runs, with its own pauses; stand-ins are Slurm's programs and an oned.
//!
//! `cargo xtask bench events`, or `cargo bench -p thiao-controller --bench events -- [--vms N] [--changes N] [--idle SECONDS]`

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiao_oned::{Phase, Settings, State};
use thiao_testkit::day::Day;

/// Within this time all changes happen, at moments that have nothing to do with any poll.
const CHANGES_IN: Duration = Duration::from_secs(40);

/// What the settings say where nobody turns them. The stand-ins for Slurm's programs are slower than these.
const PAUSES: [(&str, &str); 9] = [
    ("tick", "5"),
    ("slurm_poll", "10"),
    ("slurm_poll_busy", "2"),
    ("vm_poll", "10"),
    ("vm_poll_busy", "1"),
    ("retry_max", "300"),
    ("retry_first", "5"),
    ("terminate_grace", "60"),
    ("requests_per_second", "30"),
];

struct Wanted {
    vms: usize,
    changes: usize,
    idle: u64,
}

/// Calls: those that change something, those that ask for everything, those that ask for single VMs.
#[derive(Clone, Copy, Default)]
struct Calls {
    acts: u64,
    whole: u64,
    single: u64,
}

fn main() {
    let wanted = wanted();
    println!(
        "{:14} {:>16} {:>10} {:>34} {:>26}",
        "", "calls an hour", "", "calls for VMs made and ended", "a change is known after"
    );
    println!(
        "{:14} {:>16} {:>10} {:>10} {:>11} {:>11} {:>8} {:>8} {:>8}",
        "", "while idle", "VMs", "acting", "asking all", "asking some", "median", "99 %", "most"
    );
    for with in [false, true] {
        measure(&wanted, with);
    }
}

fn measure(wanted: &Wanted, with: bool) {
    let name = if with { "with events" } else { "without" };
    let bus = |settings: &mut Settings| {
        settings.bus = with.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        // Some seconds, as with real machines, and not all at once.
        settings.phases.insert(Phase::Boot, Duration::from_secs(2));
        settings.phases.insert(Phase::Shutdown, Duration::from_secs(2));
    };
    let nodes = wanted.vms.max(wanted.changes);
    let mut day = Day::with(
        nodes,
        bus,
        // Security groups have calls of their own, with events and without.
        "[limits]\nmax_vms_per_host = 10000\nmax_starting = 10000\n[network]\nfence = false",
    );
    for (key, value) in PAUSES {
        day.set(key, value);
    }
    day.start();
    day.until_logged("the first plan is made");
    // The bus is relied on when something came.
    let changes = wanted.changes;
    bring_up(&mut day, changes);
    std::thread::sleep(Duration::from_secs(3));
    let before = calls(&day);
    std::thread::sleep(Duration::from_secs(wanted.idle));
    let idle = since(calls(&day), before);
    let an_hour = (idle.whole + idle.single) * 3600 / wanted.idle;
    let mut delays = delays(&day, changes);
    delays.sort_unstable();
    let at = |part: usize| delays[(delays.len() * part / 100).min(delays.len() - 1)].as_secs_f64();
    let (median, late, most) = (at(50), at(99), at(100));
    take_down(&mut day, changes);
    let before = calls(&day);
    bring_up(&mut day, wanted.vms);
    take_down(&mut day, wanted.vms);
    let made = since(calls(&day), before);
    println!(
        "{name:14} {an_hour:>16} {:>10} {:>10} {:>11} {:>11} {median:>7.3}s {late:>7.3}s {most:>7.3}s",
        wanted.vms, made.acts, made.whole, made.single
    );
}

fn names(nodes: usize) -> String {
    format!("n[0-{}]", nodes - 1)
}

fn bring_up(day: &mut Day, nodes: usize) {
    day.resume(&names(nodes));
    wait("all run", || day.running() == nodes);
    day.nodes_are(&names(nodes), "allocated+cloud");
    // Their slurmds register: every pause of Slurm's observations is shorter.
    std::thread::sleep(Duration::from_secs(15));
}

fn take_down(day: &mut Day, nodes: usize) {
    let gone = |day: &Day| day.log().matches("kind=\"vm-gone\"").count();
    let before = gone(day);
    day.suspend(&names(nodes));
    wait("all are gone", || gone(day) >= before + nodes);
    day.nodes_are(&names(nodes), "idle+cloud+powered_down");
    std::thread::sleep(Duration::from_secs(3));
}

/// Suspends each VM at some moment; how long after each the controller's log tells of it.
fn delays(day: &Day, changes: usize) -> Vec<Duration> {
    let mut when = BTreeMap::new();
    for (at, (node, vm)) in day.ours().into_iter().enumerate() {
        std::thread::sleep(CHANGES_IN / u32::try_from(changes).unwrap_or(1));
        // Not in step with anything that is done each second.
        std::thread::sleep(Duration::from_millis((at as u64 * 37) % 53));
        when.insert(format!("subject=vm {node}.1 "), unix());
        day.oned.force(vm.id, State::Suspended);
    }
    let told = |log: &str| log.matches("is saved to a disk").count();
    wait("all are told", || told(&day.log()) >= when.len());
    let log = day.log();
    let lines = log.lines().filter(|line| line.contains("is saved to a disk"));
    lines
        .filter_map(|line| {
            let (_, changed) = when.iter().find(|(subject, _)| line.contains(*subject))?;
            Some(logged(line)?.saturating_sub(*changed))
        })
        .collect()
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When a line was logged: of its `2026-12-01T02:00:19.287912Z` the time of the day, on the day of now.
fn logged(line: &str) -> Option<Duration> {
    let time = line.split('T').nth(1)?.split('Z').next()?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let seconds = parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??;
    let day = Duration::from_secs(24 * 3600);
    let midnight = Duration::from_secs(unix().as_secs() / day.as_secs() * day.as_secs());
    let at = midnight + Duration::from_secs_f64(seconds);
    Some(if at > unix() { at.saturating_sub(day) } else { at })
}

fn calls(day: &Day) -> Calls {
    let mut calls = Calls::default();
    for (method, count) in day.oned.all_calls() {
        match method.as_str() {
            "one.vmpool.infoset" => calls.single += count,
            "one.vm.action" | "one.vm.deploy" | "one.vm.recover" | "one.template.instantiate" => {
                calls.acts += count
            }
            _ => calls.whole += count,
        }
    }
    calls
}

fn since(now: Calls, before: Calls) -> Calls {
    Calls {
        acts: now.acts - before.acts,
        whole: now.whole - before.whole,
        single: now.single - before.single,
    }
}

/// Waits for long: a thousand VMs take a minute and more.
fn wait(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(
            began.elapsed() < Duration::from_secs(600),
            "not within 600 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn wanted() -> Wanted {
    let mut wanted = Wanted {
        vms: 1000,
        changes: 100,
        idle: 60,
    };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let (Some(arg), Some(value)) = (args.next(), args.next()) {
        match (arg.as_str(), value.parse::<usize>()) {
            ("--vms", Ok(vms)) => wanted.vms = vms,
            ("--changes", Ok(changes)) => wanted.changes = changes,
            ("--idle", Ok(idle)) => wanted.idle = idle as u64,
            (other, _) => panic!("{other} is not known: --vms, --changes, --idle, each with a number"),
        }
    }
    wanted
}
