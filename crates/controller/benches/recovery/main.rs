//! How long a controller that was killed takes to be of use again, with 5,000 VMs up: from
//! its start to the first plan that rests on whole views of Slurm and of OpenNebula, with
//! all VMs known, none made and none ended.
//!
//! The real program runs. Stand-ins are Slurm's programs (this program under their names)
//! and an oned in a process of its own, which answers by XML-RPC.
//!
//! `cargo xtask bench recovery`

use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use thiao_api::client::Client;
use thiao_api::words::{NodeState, VmState};
use thiao_testkit::big::front::{self, Front};
use thiao_testkit::big::site::{self, Size};
use thiao_testkit::big::slurm;

const SIZE: Size = Size::BIG;
const RUNS: usize = 5;

/// What it is to take at most.
const GOAL: Duration = Duration::from_secs(2);

/// How the names of calls end that change nothing.
const READING: [&str; 6] = [
    "info",
    "infoextended",
    "infoset",
    "monitoring",
    "version",
    "config",
];

fn main() -> anyhow::Result<()> {
    // What cargo adds is no word of ours.
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(called) = args.first()
        && slurm::play(Path::new(called))?
    {
        return Ok(());
    }
    match args.get(1..).unwrap_or_default() {
        [front::WORD, dir] => front::be(Path::new(dir)),
        _ => measure(tempfile::tempdir()?.path()),
    }
}

fn measure(dir: &Path) -> anyhow::Result<()> {
    site::stand_in_for_slurm(dir, SIZE)?;
    let mut front = Front::start(dir)?;
    let client = Client::new(&dir.join("state"));
    // The first one adopts all VMs, and lives until their nodes are up in its records.
    let mut first = Controller::start(dir)?;
    first.first_plan()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.status()?.nodes_by_state.get(&NodeState::Up) != Some(&SIZE.vms) {
        ensure!(Instant::now() < deadline, "the VMs were not all adopted");
        std::thread::sleep(Duration::from_millis(100));
    }
    first.kill()?;

    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let before = front.calls()?;
        let mut controller = Controller::start(dir)?;
        runs.push(controller.first_plan()?);
        judge(&client, &before, &front.calls()?)?;
        controller.kill()?;
    }
    println!(
        "kill -9, with {} nodes, {} VMs and jobs, OpenNebula: {RUNS} runs, median (least to most)",
        SIZE.nodes, SIZE.vms
    );
    let show = |what: &str, of: fn(&Run) -> Duration| {
        let mut spans: Vec<u128> = runs.iter().map(|run| of(run).as_millis()).collect();
        spans.sort_unstable();
        println!(
            "  {what}: {} ms ({} to {})",
            spans[RUNS / 2],
            spans[0],
            spans[RUNS - 1]
        );
    };
    show("until settings and store are read", |run| run.open);
    show("until Slurm is read", |run| run.slurm);
    show("until the VMs are read", |run| run.vms);
    show("until the provider is ready", |run| run.ready);
    show("until the first plan", |run| run.plan);
    show("from the start of the process to the first plan", |run| run.all);
    show("CPU that the controller took for that", |run| run.cpu);
    println!("  the goal for that: {} ms", GOAL.as_millis());
    Ok(())
}

/// The first plan is right: it has all VMs, wants nothing, and nothing was done before it.
fn judge(
    client: &Client,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> anyhow::Result<()> {
    let (plan, vms) = (client.plan()?, client.vms()?);
    ensure!(
        plan.actions.is_empty(),
        "it wants to act: {:?}",
        plan.actions.first()
    );
    let up = vms.iter().filter(|vm| vm.state == VmState::Up).count();
    ensure!(
        up == SIZE.vms && vms.len() == SIZE.vms,
        "{up} VMs of {} are up",
        vms.len()
    );
    let reads = |method: &str| {
        method
            .rsplit('.')
            .next()
            .is_some_and(|end| READING.contains(&end))
    };
    let acted = after
        .iter()
        .find(|(method, count)| before.get(*method) != Some(*count) && !reads(method));
    ensure!(acted.is_none(), "it acted: {acted:?}");
    Ok(())
}

/// How long one start took; all but `all` and `open` from the moment when the store is opened.
struct Run {
    open: Duration,
    slurm: Duration,
    vms: Duration,
    ready: Duration,
    plan: Duration,
    all: Duration,
    /// Of the controller's process alone.
    cpu: Duration,
}

/// A controller, and what it says, with the time when it came.
struct Controller {
    started: Instant,
    child: Child,
    said: mpsc::Receiver<(Instant, String)>,
}

impl Controller {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_thiaod"))
            .arg("--config")
            .arg(site::file(dir))
            .env_remove("THIAO_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let (say, said) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody may listen any more; the pipe must be read all the same.
                let _ = say.send((Instant::now(), line));
            }
        });
        Ok(Self { started, child, said })
    }

    /// Waits for the first plan.
    fn first_plan(&mut self) -> anyhow::Result<Run> {
        let mut open = None;
        loop {
            let Ok((at, line)) = self.said.recv_timeout(Duration::from_secs(60)) else {
                bail!("the controller made no plan within a minute");
            };
            if line.contains("thiaod is up") {
                open = Some(at - self.started);
            }
            if line.contains("first-plan") {
                let [plan, slurm, vms, ready] = spans(&line).with_context(|| line.clone())?;
                let open = open.context("it planned before it was up")?;
                let all = at - self.started;
                let cpu = self.cpu()?;
                return Ok(Run {
                    open,
                    slurm,
                    vms,
                    ready,
                    plan,
                    all,
                    cpu,
                });
            }
        }
    }

    /// CPU time that it has used.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // proc(5): the name is in brackets; utime and stime are fields 14 and 15, in 1/100 s.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(10 * ticks))
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Also after a failure none is left.
        let _ = self.kill();
    }
}

/// The spans in what the controller says of its first plan.
fn spans(line: &str) -> Option<[Duration; 4]> {
    let words: Vec<&str> = line.split([' ', ',', ')']).collect();
    let spans: Vec<Duration> = words
        .windows(2)
        .filter(|pair| pair[1] == "ms")
        .filter_map(|pair| pair[0].parse().ok().map(Duration::from_millis))
        .collect();
    spans.try_into().ok()
}
