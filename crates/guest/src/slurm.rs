//! munged and slurmd: how they are started, and when they are up.

use crate::context::{MUNGE_KEY, SLURM_KEY};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::OneContext;

/// Where munge's library looks when nothing names another socket: slurmd's
/// fetch of its configuration does.
const MUNGE_SOCKET: &str = "/run/munge/munge.socket.2";

/// How long munged may take to answer.
const MUNGE_LIMIT: Duration = Duration::from_secs(30);

/// Starts munged and returns when it takes connections.
pub fn munge(socket: &Path, origin: Ipv4Addr) -> Result<(), String> {
    // munged checks these modes and refuses others.
    for (folder, mode) in [
        ("/etc/munge", 0o700),
        ("/run/munge", 0o755),
        ("/var/lib/munge", 0o700),
        ("/var/log/munge", 0o700),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)
            .map_err(|e| format!("cannot make {folder}: {e}"))?;
    }
    let mut command = daemon("/usr/sbin/munged");
    command
        .arg("--foreground")
        .arg("--key-file")
        .arg(MUNGE_KEY)
        .arg("--socket")
        .arg(MUNGE_SOCKET);
    // Two threads serve one slurmd and its steps.
    command.arg("--num-threads").arg("2");
    // Slurm does not restrict credentials to groups: no map of them is needed.
    command.arg("--group-update-time=-1");
    command.arg(format!("--origin={origin}"));
    spared(start(command)?);
    munge_answers(socket)
}

/// Returns when munged takes connections, at its usual place and at this one.
pub fn munge_answers(socket: &Path) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(MUNGE_SOCKET) {
            Ok(_) => break,
            Err(e) if started.elapsed() > MUNGE_LIMIT => return Err(format!("munged does not answer: {e}")),
            Err(_) => std::thread::sleep(Duration::from_millis(4)),
        }
    }
    link(socket).map_err(|e| format!("cannot link {} to munged's socket: {e}", socket.display()))
}

/// Lets the path in slurm.conf's `AuthInfo` lead to munged, too.
fn link(socket: &Path) -> io::Result<()> {
    if socket == Path::new(MUNGE_SOCKET) {
        return Ok(());
    }
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    match symlink(MUNGE_SOCKET, socket) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What slurmd will find of processors and memory.
pub fn seen() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let mib = |name: &str| kib(name).unwrap_or(0) / 1024;
    let (total, free) = (mib("MemTotal:"), mib("MemAvailable:"));
    format!("{cpus} CPUs, {total} MiB of memory, {free} MiB of it free")
}

/// Starts slurmd; returns its process id. `-b` says that the node has just
/// booted, which a guest restored from a template has not: without it slurmctld
/// waits for a boot time later than its resume request.
pub fn slurmd(context: &OneContext) -> Result<u32, String> {
    for folder in [
        "/var/spool/slurmd",
        "/var/log/slurm",
        "/run/slurm",
        "/var/lib/slurm",
    ] {
        fs::create_dir_all(folder).map_err(|e| format!("cannot make {folder}: {e}"))?;
    }
    let mut command = daemon("/usr/sbin/slurmd");
    command.args(["-D", "-b", "--conf-server"]).arg(context.servers());
    if let Auth::Slurm { slurm_key } = &context.auth {
        // It needs the key before it has a slurm.conf beside which to look for it.
        command.env(key_variable(slurm_key), SLURM_KEY);
    }
    start(command).inspect(|slurmd| spared(*slurmd))
}

/// When memory is full, jobs have to give way, not this. slurmstepd gives their processes the ordinary place (22.05).
fn spared(daemon: u32) {
    // It costs nothing unless memory becomes full.
    let _ = fs::write(format!("/proc/{daemon}/oom_score_adj"), "-1000");
}

/// Ends slurmd at once; whether it will be gone.
pub fn end(slurmd: u32) -> bool {
    let pid = i32::try_from(slurmd)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
}

fn daemon(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// Starts a child that the reaper will collect: its handle is dropped on purpose.
fn start(mut command: Command) -> Result<u32, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .spawn()
        .map(|child| child.id())
        .map_err(|e| format!("cannot start {name}: {e}"))
}

/// Whether a process of a job is there: slurmstepd outlives slurmd. One that is there for ever only keeps
/// slurmd's control group (`slurmstepd infinity` in Slurm's cgroup/v2 plugin).
pub fn job_processes_left() -> bool {
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        name.trim_end() == "slurmstepd" && {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) != Some(b"infinity")
        }
    })
}
