//! What a controller costs at 10,000 nodes and 5,000 VMs, and at as many as a zone of OpenNebula has at
//! most (`-- zone zone-still`, which take minutes): CPU per round of observations, and
//! memory; by itself, and with the OpenNebula provider. The whole controller runs: its own
//! parsing of Slurm's and oned's listings, folds, plan, linter and store. Stand-ins are
//! Slurm's programs (this program under their names) and the VMs: a provider that costs
//! nothing, or an oned in a process of its own, whose CPU is not counted.
//!
//! `cargo xtask bench tick`

mod still;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use still::{Counted, Still};
use thiao_config::{Config, ProviderSettings};
use thiao_controller::provider::Provider;
use thiao_controller::serve_with;
use thiao_opennebula::OpenNebula;
use thiao_testkit::big::front::{self, Front};
use thiao_testkit::big::site::{self, Size};
use thiao_testkit::big::slurm;

/// Guests that have not said that they are ready, where OneGate tells.
const WAITING: usize = 200;
const ROUNDS: u64 = 20;

/// The word that makes this program the process of one case.
const ONE: &str = "one";

/// Who shows the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Still,
    OpenNebula,
    /// With OneGate, while some VMs boot.
    Booting,
    /// As big as may be, without and with OpenNebula.
    ZoneStill,
    Zone,
}

impl Case {
    /// Each with its word on this program's command line.
    const ALL: [(&str, Self); 5] = [
        ("still", Self::Still),
        ("opennebula", Self::OpenNebula),
        ("booting", Self::Booting),
        ("zone-still", Self::ZoneStill),
        ("zone", Self::Zone),
    ];

    fn size(self) -> Size {
        match self {
            Self::Still | Self::OpenNebula => Size::BIG,
            Self::Booting => Size {
                waiting: WAITING,
                ..Size::BIG
            },
            Self::ZoneStill | Self::Zone => Size::ZONE,
        }
    }
}

fn main() -> anyhow::Result<()> {
    // What cargo adds is no word of ours.
    let args: Vec<String> = std::env::args().filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(called) = args.first()
        && slurm::play(Path::new(called))?
    {
        return Ok(());
    }
    let known = |word: &str| Case::ALL.iter().find(|(its, _)| *its == word);
    match args.get(1..).unwrap_or_default() {
        [front::WORD, dir] => front::be(Path::new(dir)),
        [ONE, word, dir] if let Some((_, case)) = known(word) => run(*case, Path::new(dir)),
        words => {
            // What takes minutes is named by whoever wants it.
            let usual = Case::ALL
                .iter()
                .filter(|(_, case)| case.size().nodes == Size::BIG.nodes);
            let named = Case::ALL.iter().filter(|(word, _)| words.contains(word));
            let cases: Vec<_> = if words.is_empty() {
                usual.collect()
            } else {
                named.collect()
            };
            anyhow::ensure!(!cases.is_empty(), "{words:?} names no case of this bench");
            for (word, _) in cases {
                // A process each, for its peak of memory.
                let dir = tempfile::tempdir()?;
                let ended = Command::new(std::env::current_exe()?)
                    .args([ONE, word])
                    .arg(dir.path())
                    .status()?;
                anyhow::ensure!(ended.success(), "{word}: {ended}");
            }
            Ok(())
        }
    }
}

fn run(case: Case, dir: &Path) -> anyhow::Result<()> {
    thiao_controller::memory::few_arenas();
    let size = case.size();
    site::stand_in_for_slurm(dir, size)?;
    match case {
        Case::Still | Case::ZoneStill => {
            let config = site::configure(dir, "", "", "")?;
            measure("no provider's work", size, config, Still::new(size)?, None)
        }
        Case::OpenNebula | Case::Booting | Case::Zone => {
            let mut front = Front::start(dir)?;
            let config = Config::load(Some(&site::file(dir)))?;
            let ProviderSettings::OpenNebula(settings) = config.provider.clone() else {
                anyhow::bail!("the settings are of another provider");
            };
            let what = match size.waiting {
                0 => "OpenNebula".to_owned(),
                some => format!("OpenNebula, {some} VMs not ready yet by OneGate"),
            };
            let provider = OpenNebula::open(settings.clone())?;
            measure(&what, size, config, provider, Some(&mut front))?;
            observe_alone(&OpenNebula::open(settings)?)
        }
    }?;
    // The controller still runs: it has no end of its own.
    std::process::exit(0);
}

/// Runs the controller and prints what it costs.
fn measure<P: Provider>(
    what: &str,
    size: Size,
    config: Config,
    provider: P,
    front: Option<&mut Front>,
) -> anyhow::Result<()> {
    let provider = Arc::new(Counted::new(provider));
    let running = provider.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()?;
    runtime.spawn(async move {
        if let Err(error) = serve_with(config, running, Arc::default()).await {
            eprintln!("the controller ended: {error:#}");
            std::process::exit(1);
        }
    });
    // It runs on when this returns: the process's end ends it.
    std::mem::forget(runtime);
    let deadline = Instant::now() + Duration::from_secs(120);
    let wait_for = |observations: u64| -> anyhow::Result<()> {
        while provider.observations() < observations {
            anyhow::ensure!(Instant::now() < deadline, "the controller observes too seldom");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    // The first rounds adopt all VMs and store the records.
    wait_for(8)?;
    let mut front = front;
    let mut calls = || front.as_mut().map(|front| front.calls()).transpose();
    let (first, cpu, calls_before) = (provider.observations(), cpu_time(), calls()?);
    wait_for(first + ROUNDS)?;
    let (rounds, calls_after) = (provider.observations() - first, calls()?);
    let per_round = (cpu_time() - cpu).as_secs_f64() * 1000.0 / rounds as f64;
    let Size {
        nodes, vms, hosts, ..
    } = size;
    println!("{what}: {nodes} nodes, {vms} VMs and jobs, {hosts} hosts, {rounds} rounds");
    println!("  {per_round:.1} ms of CPU per round of both observations");
    println!("  peak memory of the controller: {} MB", peak_memory_mb());
    if let (Some(before), Some(after)) = (calls_before, calls_after) {
        let made = after.iter().filter_map(|(method, count)| {
            let made = count - before.get(method).unwrap_or(&0);
            (made > 0).then(|| format!("{method} {made}"))
        });
        println!("  calls in these rounds: {}", made.collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

/// Prints what one observation of OpenNebula costs without what the controller makes of it.
fn observe_alone(provider: &OpenNebula) -> anyhow::Result<()> {
    let started = thread_cpu_time();
    provider.observe()?;
    let first = thread_cpu_time() - started;
    let mut observations = Vec::new();
    for _ in 0..ROUNDS {
        let started = thread_cpu_time();
        provider.observe()?;
        observations.push(thread_cpu_time() - started);
    }
    observations.sort_unstable();
    println!(
        "  one observation alone: {first:.0?} of CPU the first time, which reads all tags; then {:.0?}",
        observations
            .get(observations.len() / 2)
            .copied()
            .unwrap_or_default()
    );
    Ok(())
}

fn usage(who: libc::c_int) -> libc::rusage {
    // SAFETY: `getrusage` fills the struct that it is given; all zeros is a valid one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    }
}

fn spent(usage: &libc::rusage) -> Duration {
    let span = |t: libc::timeval| Duration::from_micros((t.tv_sec * 1_000_000 + t.tv_usec) as u64);
    span(usage.ru_utime) + span(usage.ru_stime)
}

fn cpu_time() -> Duration {
    spent(&usage(libc::RUSAGE_SELF))
}

fn thread_cpu_time() -> Duration {
    spent(&usage(libc::RUSAGE_THREAD))
}

fn peak_memory_mb() -> i64 {
    usage(libc::RUSAGE_SELF).ru_maxrss / 1024
}
