//! What a controller costs at 10,000 nodes and 5,000 VMs: CPU per round of
//! looks, and memory. The whole controller runs: its own parsing of Slurm's
//! listings, folds, plan, linter and store; only Slurm's programs (this program
//! under their names) and the provider are stand-ins.
//!
//! `cargo bench -p thiao --bench tick`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thiao::config::Config;
use thiao::controller::provider::{Ended, Provider, ProviderError};
use thiao::controller::serve_with;
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, VmId, VmTag};
use thiao_core::view::{HostView, ProviderView, Shape, VmState, VmView};

const NODES: usize = 10_000;
const VMS: usize = 5_000;
const HOSTS: usize = 500;
const ROUNDS: u64 = 20;

fn main() -> anyhow::Result<()> {
    let name = std::env::args().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("sinfo") => list(
            |mark, line| {
                // NodeList:|,StateComplete:|,Reason:|MARK
                let state = if line < VMS {
                    "allocated+cloud"
                } else {
                    "idle+cloud+powered_down"
                };
                format!("n{line}|{state}|none|{mark}\n")
            },
            NODES,
        ),
        Some("squeue") => list(
            |mark, line| {
                format!(
                    "{mark}|{}|1000|user|vm|RUNNING|1|1790000000|1790000001|n{line}|None|job\n",
                    line + 1
                )
            },
            VMS,
        ),
        _ => bench(),
    }
}

/// Prints what Slurm would: the mark is what begins or ends the asked-for format.
fn list(line: impl Fn(&str, usize) -> String, lines: usize) -> anyhow::Result<()> {
    let format = std::env::args().next_back().unwrap_or_default();
    let mark = match format.split_once("Reason:|") {
        Some((_, mark)) => mark,
        None => format.split('|').next().unwrap_or_default(),
    };
    let text: String = (0..lines).map(|i| line(mark, i)).collect();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

struct Still {
    view: ProviderView,
    looks: AtomicU64,
}

impl Provider for Still {
    fn name(&self) -> &'static str {
        "still"
    }
    fn prepare(&self, _: &[Shape], _: &dyn Fn(&str)) -> Result<Vec<String>, ProviderError> {
        Ok(Vec::new())
    }
    fn look(&self) -> Result<ProviderView, ProviderError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(self.view.clone())
    }
    fn create(&self, tag: &VmTag, _: &HostName, _: Shape, _: bool) -> Result<VmId, ProviderError> {
        panic!("nothing should be made in this bench: {tag}")
    }
    fn destroy(&self, tag: &VmTag, _: Option<&VmId>, _: bool) -> Result<Ended, ProviderError> {
        panic!("nothing should be destroyed in this bench: {tag}")
    }
    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        Vec::new()
    }
}

fn view() -> anyhow::Result<ProviderView> {
    let cluster = ClusterName::new("bench")?;
    let host = |i: usize| HostName::new(&format!("h{}", i % HOSTS));
    let mut view = ProviderView::default();
    for i in 0..HOSTS {
        view.hosts.push(HostView {
            name: host(i)?,
            cpu_percent: 6400,
            memory_mb: 256_000,
            usable: true,
            load: None,
        });
    }
    for i in 0..VMS {
        view.vms.push(VmView {
            id: VmId::new(&format!("n{i}.1"))?,
            tag: Some(VmTag {
                cluster: cluster.clone(),
                node: NodeName::new(&format!("n{i}"))?,
                generation: Generation(1),
            }),
            host: Some(host(i)?),
            memory_mb: 1140,
            cpu_percent: 100,
            state: VmState::Ready,
        });
    }
    Ok(view)
}

fn bench() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin)?;
    for program in ["sinfo", "squeue", "scontrol"] {
        std::os::unix::fs::symlink(std::env::current_exe()?, bin.join(program))?;
    }
    let file = dir.path().join("thiao.toml");
    let slurm_conf = dir.path().join("slurm.conf");
    std::fs::write(&slurm_conf, "")?;
    std::fs::write(
        &file,
        format!(
            "cluster = \"bench\"\nstate_dir = {:?}\n[slurm]\nbin_dir = {bin:?}\nconf = {slurm_conf:?}\n\
             [[nodeset]]\nname = \"n\"\nnodes = \"n[0-{}]\"\nmemory_mb = 1000\n\
             [timing]\ntick = 60\nslurm_poll = 0.5\nslurm_poll_busy = 0.5\nslurm_poll_urgent = 0.5\n\
             vm_poll = 0.5\nvm_poll_busy = 0.5\n",
            dir.path().join("state"),
            NODES - 1
        ),
    )?;
    let config = Config::load(Some(&file))?;
    let provider = Arc::new(Still {
        view: view()?,
        looks: AtomicU64::new(0),
    });
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
    // The first rounds adopt all VMs and store the records.
    let deadline = Instant::now() + Duration::from_secs(120);
    while provider.looks.load(Ordering::Relaxed) < 8 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (first, cpu) = (provider.looks.load(Ordering::Relaxed), cpu_time());
    while provider.looks.load(Ordering::Relaxed) < first + ROUNDS && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let rounds = provider.looks.load(Ordering::Relaxed) - first;
    let per_round = (cpu_time() - cpu).as_secs_f64() * 1000.0 / rounds as f64;
    println!(
        "{NODES} nodes, {VMS} VMs, {VMS} jobs: {per_round:.1} ms of CPU per round of both looks ({rounds} rounds)"
    );
    println!("peak memory of the controller: {} MB", peak_memory_mb());
    std::process::exit(0);
}

fn usage() -> libc::rusage {
    // SAFETY: `getrusage` fills the struct that it is given; all zeros is a valid one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    }
}

fn cpu_time() -> Duration {
    let usage = usage();
    let span = |t: libc::timeval| Duration::from_micros((t.tv_sec * 1_000_000 + t.tv_usec) as u64);
    span(usage.ru_utime) + span(usage.ru_stime)
}

fn peak_memory_mb() -> i64 {
    usage().ru_maxrss / 1024
}
