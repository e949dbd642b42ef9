//! `thiao lab bench`: how long a job waits for its VM, against the raw way in
//! the same run. Ours: `sbatch` to RUNNING, every job on a node that was down.
//! Raw: the same guest started by hand, without hooks and controller, until
//! slurmctld shows its node up; beside it the time that Slurm itself takes from
//! `sbatch` to ResumeProgram. Ours and raw take turns, so that noise hits both.

mod ask;
mod job_mode;

use crate::demo::jobs::now;
use crate::enter::{As, Running};
use crate::layout::Layout;
use crate::plan::RAW_NODE;
use crate::{api, plan, signals, up};
use anyhow::{Context, Result, bail};
use ask::{ask, median, wait_for_templates, wait_until};
use clap::Args;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiao_cli::output::Printer;
use thiao_cli::say;
use thiao_core::ids::{ClusterName, Generation, NodeName, VmTag};

/// How it is measured.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    #[command(flatten)]
    lab: plan::Options,
    /// How many jobs to run, and as many VMs by hand
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=8))]
    runs: u32,
    /// Measure job mode instead, against a bare job and power-saving mode, and draining a queue
    #[arg(long)]
    job_mode: bool,
    /// Jobs in that queue
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    jobs: u32,
}

/// One job of ours, in milliseconds from `sbatch`.
struct Ours {
    resume_asked: u64,
    running: u64,
}

/// Runs the bench in a lab of its own.
pub fn run(options: &BenchOptions) -> Result<ExitCode> {
    signals::watch();
    let dir = tempfile::Builder::new()
        .prefix("thiao-bench-")
        .tempdir_in("/tmp")
        .context("no folder in /tmp")?;
    let layout = Layout::new(Some(dir.path()))?;
    let mut lab_options = options.lab.clone();
    if options.job_mode {
        job_mode::prepare(&mut lab_options);
    } else {
        lab_options.raw_nodes = options.runs;
    }
    let mut say = |text: &str| say!("  {text}");
    let up = match up::up(layout.clone(), lab_options, true, &mut say) {
        Ok(up) => up,
        Err(up::NotUp::Interrupted(code)) => return Ok(ExitCode::from(code)),
        Err(up::NotUp::Failed(error)) => return Err(error),
    };
    let outcome = Running::find(layout).and_then(|lab| {
        if options.job_mode {
            job_mode::measure(&lab, options.runs, options.jobs)
        } else {
            measure(&lab, options.runs)
        }
    });
    up.end()?;
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn measure(lab: &Running, runs: u32) -> Result<()> {
    let mut by_hand = ByHand::start(lab)?;
    wait_for_templates(lab)?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    say!(
        "{:>4}  {:>14}  {:>15}  {:>22}",
        "run",
        "resume asked",
        "running (ours)",
        "by hand: node up"
    );
    for run in 1..=runs {
        if signals::interrupted().is_some() {
            bail!("interrupted");
        }
        let job = one_job(lab, run)?;
        let vm = by_hand.one_vm(lab, run)?;
        say!(
            "{run:>4}  {:>12} ms  {:>12} ms  {vm:>19} ms",
            job.resume_asked,
            job.running
        );
        ours.push(job);
        raw.push(vm);
    }
    let total = median(ours.iter().map(|job| job.running));
    let slurm = median(ours.iter().map(|job| job.resume_asked));
    let hand = median(raw);
    say!(
        "median: sbatch to RUNNING {total} ms; by hand {hand} ms + Slurm's sbatch to ResumeProgram {slurm} ms"
    );
    say!(
        "ratio of ours to the raw way: {:.2}",
        total as f64 / (hand + slurm) as f64
    );
    Ok(())
}

/// A job on a node that is down, from sbatch to RUNNING.
fn one_job(lab: &Running, run: u32) -> Result<Ours> {
    let socket = lab.layout.api();
    let after = api::events(&socket, 0)
        .unwrap_or_default()
        .last()
        .map_or(0, |event| event.id);
    let node = format!("vm{run}");
    let submitted = now();
    let begun = Instant::now();
    let output = lab
        .command(
            "sbatch",
            As::User(lab.plan.submitter()),
            &lab.home(lab.plan.submitter()),
        )?
        .args(["--parsable", "-w", &node, "--wrap", "true"])
        .output()
        .context("sbatch cannot be run")?;
    if !output.status.success() {
        bail!("sbatch: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    wait_until("the job runs", || {
        let state = ask(lab, "squeue", &["-h", "-t", "all", "-j", &id, "-o", "%T"])?;
        Ok(!matches!(state.as_str(), "PENDING" | "CONFIGURING"))
    })?;
    let running = begun.elapsed().as_millis() as u64;
    let mut resume_asked = None;
    wait_until("the order of ResumeProgram was seen", || {
        let events = api::events(&socket, after).unwrap_or_default();
        let asked = events
            .iter()
            .find(|event| event.kind == "resume-asked" && event.subject == format!("node {node}"));
        resume_asked = asked.map(|event| event.at.saturating_sub(submitted));
        Ok(resume_asked.is_some())
    })?;
    Ok(Ours {
        resume_asked: resume_asked.unwrap_or_default(),
        running,
    })
}

/// The helper inside the lab that starts VMs by hand.
struct ByHand {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ByHand {
    fn start(lab: &Running) -> Result<Self> {
        let mut command = Command::new(&lab.plan.keeper);
        command
            .args(["exec", "--admin", "--dir"])
            .arg(lab.layout.dir())
            .arg("--");
        command
            .arg(&lab.plan.keeper)
            .args(["by-hand"])
            .arg(lab.layout.thiao_conf());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the helper in the lab cannot be started")?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the helper in the lab has no pipes")
        };
        let mut by_hand = Self {
            child,
            orders,
            answers: BufReader::new(answers),
        };
        by_hand.answer()?;
        Ok(by_hand)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self
            .answers
            .read_line(&mut line)
            .context("the helper in the lab does not answer")?
            == 0
        {
            bail!("the helper in the lab has ended");
        }
        Ok(line.trim().to_owned())
    }

    /// From the start of QEMU until slurmctld shows the node up.
    fn one_vm(&mut self, lab: &Running, run: u32) -> Result<u64> {
        let node = format!("{RAW_NODE}{run}");
        let begun = Instant::now();
        writeln!(self.orders, "start {node}").context("the helper in the lab is gone")?;
        self.answer()?;
        wait_until("the hand-started VM's node is up", || {
            let state = ask(lab, "sinfo", &["-h", "-N", "-n", &node, "-o", "%t"])?;
            Ok(matches!(state.as_str(), "idle" | "alloc" | "mix"))
        })?;
        let up = begun.elapsed().as_millis() as u64;
        writeln!(self.orders, "end {node}").context("the helper in the lab is gone")?;
        self.answer()?;
        Ok(up)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The helper's body: `start NODE` and `end NODE` on standard input, a line for each on standard output.
pub fn by_hand(config: &Path) -> Result<ExitCode> {
    let config = thiao_config::Config::load(Some(config))?;
    let mut settings = config
        .provider
        .qemu()
        .context("only with the QEMU provider")?
        .clone();
    settings.cluster = ClusterName::new("byhand")?;
    settings.state_dir = config.state_dir.join("h");
    // Of the kind that ours are measured on.
    let first = NodeName::new("vm1")?;
    let node = config.nodes.get(&first).context("the lab has no node vm1")?;
    let shape = node.shape;
    let host = settings
        .hosts
        .first()
        .context("the lab has no hosts")?
        .name
        .clone();
    let cluster = settings.cluster.clone();
    let qemu = thiao_qemu::Qemu::open(settings, Arc::new(|| {}))?;
    qemu.prepare(&[(node.nodeset.clone(), shape)], &|_| {})?;
    // Who orders reads the answers: without him there is nothing to do.
    let answer = Printer::stdout();
    answer.print("ready\n")?;
    for line in std::io::stdin().lines() {
        let line = line.context("no orders any more")?;
        let Some((order, node)) = line.split_once(' ') else {
            bail!("not an order: {line}")
        };
        let tag = VmTag {
            cluster: cluster.clone(),
            node: NodeName::new(node)?,
            generation: Generation(1),
        };
        let id = match order {
            "start" => {
                let id = qemu.create(&tag, &host, &thiao_core::view::VmSpec::of_node(shape))?;
                qemu.start_slurmd(&id, 1, Duration::ZERO)?;
                id
            }
            "end" => {
                let id = thiao_core::ids::VmId::new(&format!("{node}.1"))?;
                qemu.destroy(&id)?;
                id
            }
            _ => bail!("not an order: {line}"),
        };
        answer.print(&format!("{order} {id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
