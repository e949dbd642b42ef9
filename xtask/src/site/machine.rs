//! A machine of its own to install on: Debian with systemd, booted in systemd-nspawn with a network of its own.
//!
//! It ends when the process ends that started it, whatever ends that.

use crate::slurm;
use crate::steps;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Its host name, and the cluster's `SlurmctldHost`.
pub const NAME: &str = "head";

/// What is on it before anybody thinks of Thiao: Slurm, its users' directory, and what they build programs with.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,ca-certificates,passwd,login,adduser,procps,iproute2,nftables,\
                        slurmctld,slurmd,slurm-client,munge,openmpi-bin,libopenmpi-dev,libpmix-dev,gcc,libc6-dev,\
                        python3,slapd,ldap-utils,libnss-ldapd,nslcd";

/// Where control groups of version 1 are, and those that slurmd uses.
const GROUPS: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 8] = [
    "cpuset", "freezer", "devices", "cpuacct", "cpu", "memory", "pids", "blkio",
];

/// How long it may take to boot, and to power off.
const BOOT: Duration = Duration::from_secs(90);
const POWER_OFF: Duration = Duration::from_secs(120);

/// Where programs are in there.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Moves this process into groups, and becomes the program: `sh` for want of a program that does it.
const INTO_GROUPS: &str = "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit; shift; done; \
                           shift; exec \"$@\"";

/// Where machines and what they are made of are: in the cache.
pub fn folder() -> Result<PathBuf> {
    let folder = steps::cache()?.join("site");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// A machine's root file system, as it is before its first boot.
pub struct Root {
    /// The run's folder, which is removed with it.
    run: PathBuf,
}

impl Root {
    /// Unpacks a new one; what it is made of is kept in the cache for a week.
    ///
    /// # Errors
    /// When Debian's packages cannot be had.
    pub fn new() -> Result<Self> {
        let folder = folder()?;
        remove_remains(&folder);
        let archive = archive(&folder)?;
        let run = folder.join(format!("run-{}", std::process::id()));
        let root = Self { run };
        fs::create_dir_all(root.path()).with_context(|| format!("{} cannot be made", root.run.display()))?;
        let mut tar = Command::new("tar");
        tar.arg("-xpf")
            .arg(archive)
            .args(["--numeric-owner", "-C"])
            .arg(root.path());
        must(&mut tar, 300)?;
        Ok(root)
    }

    /// Where its `/` is on this machine.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.run.join("root")
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path().join(file.trim_start_matches('/'));
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Runs a program in it before it boots.
    ///
    /// # Errors
    /// When the program fails.
    pub fn call(&self, words: &[&str]) -> Result<()> {
        must(Command::new("chroot").arg(self.path()).args(words), 60).map(drop)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.run) {
            eprintln!(
                "xtask: {} is left ({error}); the next run removes it",
                self.run.display()
            );
        }
    }
}

/// Debian's packages as an archive.
fn archive(folder: &Path) -> Result<PathBuf> {
    let archive = folder.join("debian.tar");
    let recipe = folder.join("debian.packages");
    let is_new = fs::metadata(&archive)
        .and_then(|meta| meta.modified())
        .is_ok_and(|made| {
            made.elapsed()
                .is_ok_and(|age| age < Duration::from_secs(7 * 24 * 3600))
        });
    if is_new && fs::read_to_string(&recipe).is_ok_and(|made_of| made_of == PACKAGES) {
        return Ok(archive);
    }
    println!("         making a Debian with Slurm and a directory of users (kept for a week)");
    let fresh = folder.join("debian.new.tar");
    let mut make = Command::new("mmdebstrap");
    make.args(["--variant=minbase", "--format=tar", "--quiet"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(format!("--include={PACKAGES}"))
        .arg("bookworm")
        .arg(&fresh)
        .env("DEBIAN_FRONTEND", "noninteractive");
    must(&mut make, 900)?;
    fs::rename(&fresh, &archive)
        .and_then(|()| fs::write(&recipe, PACKAGES))
        .with_context(|| format!("{} cannot be written", archive.display()))?;
    Ok(archive)
}

/// Removes what earlier runs left that were killed.
fn remove_remains(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("run-")
            && !Path::new("/proc").join(pid).exists()
        {
            remove_groups(pid);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn groups(pid: &str) -> Vec<PathBuf> {
    CONTROLLERS
        .map(|controller| {
            Path::new(GROUPS)
                .join(controller)
                .join(format!("thiao-site-{pid}"))
        })
        .into()
}

fn remove_groups(pid: &str) {
    for group in groups(pid).iter().filter(|group| group.exists()) {
        let _ = Command::new("find")
            .arg(group)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }
}

/// A machine that runs.
pub struct Machine {
    nspawn: Child,
    /// Its first process, as this machine sees it.
    leader: String,
    network: Child,
    root: Root,
    /// What of this machine is seen in it, and where.
    shown: Vec<(PathBuf, PathBuf)>,
}

impl Machine {
    /// Boots it, and waits until it is up. `shown` are folders and files of this machine that are seen in it.
    ///
    /// # Errors
    /// When it is not up in time.
    pub fn boot(root: Root, shown: Vec<(PathBuf, PathBuf)>) -> Result<Self> {
        let begun = Instant::now();
        let (nspawn, leader) = start(&root, &shown)?;
        let network = way_out(&leader)?;
        let machine = Self {
            nspawn,
            leader,
            network,
            root,
            shown,
        };
        machine.wait_up(begun)?;
        Ok(machine)
    }

    /// Restarts it, and waits until it is up again.
    ///
    /// # Errors
    /// When it is not up in time.
    pub fn reboot(&mut self) -> Result<()> {
        // It ends while this runs in it.
        self.try_run(30, &["systemctl", "reboot"])?;
        // As the unit of a machine, systemd-nspawn has others start it again.
        let begun = Instant::now();
        while matches!(self.nspawn.try_wait(), Ok(None)) {
            if begun.elapsed() > POWER_OFF {
                bail!("the machine is not down after {} s", POWER_OFF.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.network.kill();
        let _ = self.network.wait();
        let begun = Instant::now();
        (self.nspawn, self.leader) = start(&self.root, &self.shown)?;
        self.network = way_out(&self.leader)?;
        self.wait_up(begun)
    }

    fn wait_up(&self, begun: Instant) -> Result<()> {
        loop {
            let output = self.try_run(10, &["systemctl", "is-system-running"])?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            match state.as_str() {
                "running" | "degraded" => return Ok(()),
                _ if begun.elapsed() > BOOT => {
                    bail!("the machine is not up after {} s: {state}", BOOT.as_secs())
                }
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Runs a program in it as root; whatever comes of that.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn try_run(&self, seconds: u32, words: &[&str]) -> Result<Output> {
        Command::new("timeout")
            .args([
                "--kill-after=5",
                &seconds.to_string(),
                "nsenter",
                "--all",
                "--target",
            ])
            .arg(&self.leader)
            .args(["env", "-i", PATH, "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("timeout or nsenter cannot be run")
    }

    /// Runs a program in it as root that must succeed; what it says.
    ///
    /// # Errors
    /// When it fails, or takes longer than that.
    pub fn run(&self, seconds: u32, words: &[&str]) -> Result<String> {
        said(words, self.try_run(seconds, words)?)
    }

    /// The same as a user, in his home.
    ///
    /// # Errors
    /// When it fails, or takes longer than that.
    pub fn run_as(&self, user: &str, seconds: u32, words: &[&str]) -> Result<String> {
        let home = format!("/home/{user}");
        let to_home = format!("HOME={home}");
        let all = [
            &["runuser", "-u", user, "--", "env", "-C", &home, &to_home],
            words,
        ]
        .concat();
        self.run(seconds, &all)
    }

    /// Its root file system as this machine sees it.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SIGRTMIN+4 has systemd power off.
        let _ = Command::new("kill")
            .args(["-s", "RTMIN+4", &self.leader])
            .stderr(Stdio::null())
            .status();
        let begun = Instant::now();
        while matches!(self.nspawn.try_wait(), Ok(None)) && begun.elapsed() < POWER_OFF {
            std::thread::sleep(Duration::from_millis(200));
        }
        if matches!(self.nspawn.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-s", "KILL", &self.leader]).status();
        }
        for child in [&mut self.network, &mut self.nspawn] {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_groups(&std::process::id().to_string());
    }
}

/// Starts systemd-nspawn; its process, and the machine's first one.
fn start(root: &Root, shown: &[(PathBuf, PathBuf)]) -> Result<(Child, String)> {
    let pid = std::process::id().to_string();
    let has_v1 = Path::new(GROUPS).join("memory").is_dir();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig=TERM", "sh", "-c", INTO_GROUPS, "sh"]);
    if has_v1 {
        command
            .args(make_groups(&pid)?)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "0");
    }
    command
        .args(["--", "systemd-nspawn", "--quiet", "--boot", "--machine", NAME])
        .arg("--directory")
        .arg(root.path())
        .args([
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--resolv-conf=off",
        ])
        .args(["--timezone=off", "--console=pipe", "--capability=CAP_NET_ADMIN"]);
    for device in ["/dev/kvm", "/dev/net/tun"]
        .iter()
        .filter(|path| Path::new(path).exists())
    {
        command.arg(format!("--bind={device}"));
    }
    for (from, to) in shown {
        command.arg(format!("--bind-ro={}:{}", from.display(), to.display()));
    }
    let log = File::create(root.run.join("console.log")).context("the console's log cannot be written")?;
    let errors = log.try_clone().context("the console's log cannot be written")?;
    let mut nspawn = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("setpriv (package util-linux) cannot be run")?;
    let begun = Instant::now();
    let leader = loop {
        if let Some(leader) = first_child(nspawn.id()) {
            break leader;
        }
        if let Some(status) = nspawn.try_wait()? {
            let said = fs::read_to_string(root.run.join("console.log")).unwrap_or_default();
            bail!(
                "systemd-nspawn ended ({status}): {}",
                said.lines().last().unwrap_or("nothing was said")
            );
        }
        if begun.elapsed() > BOOT {
            let _ = nspawn.kill();
            bail!("systemd-nspawn starts nothing");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    Ok((nspawn, leader))
}

/// Gives the machine whose first process this is a way out.
fn way_out(leader: &str) -> Result<Child> {
    Command::new("setpriv")
        .args([
            "--pdeathsig=TERM",
            "slirp4netns",
            "--configure",
            "--mtu=1500",
            // The same after a restart.
            "--macaddress=02:74:68:69:61:6f",
            leader,
            "tap0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("setpriv (package util-linux) cannot be run")
}

/// Makes a group in each hierarchy, below which the machine has its own.
fn make_groups(pid: &str) -> Result<Vec<PathBuf>> {
    let groups = groups(pid);
    for group in &groups {
        let make = || {
            fs::create_dir_all(group)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (own, parent) = (group.join(file), group.with_file_name(file));
                if own.exists() {
                    fs::write(own, fs::read(parent)?)?;
                }
            }
            Ok::<_, std::io::Error>(())
        };
        make().with_context(|| format!("{} cannot be made", group.display()))?;
    }
    Ok(groups)
}

fn first_child(pid: u32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// Runs a program of this machine's that must succeed; what it says.
///
/// # Errors
/// When it fails, or takes longer than that.
pub fn must(command: &mut Command, seconds: u32) -> Result<String> {
    let mut timed = Command::new("timeout");
    timed
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            timed.env(name, value);
        }
    }
    let output = timed
        .stdin(Stdio::null())
        .output()
        .context("timeout cannot be run")?;
    let program = command.get_program().to_string_lossy().into_owned();
    said(&[&program], output)
}

fn said(words: &[&str], output: Output) -> Result<String> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(out);
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = out
        .lines()
        .chain(errors.lines())
        .filter(|line| !line.trim().is_empty())
        .collect();
    bail!(
        "{} failed ({}): {}",
        words.join(" "),
        output.status,
        lines[lines.len().saturating_sub(3)..].join("; ")
    )
}

/// What apt needs in there to reach its servers as this machine does.
///
/// # Errors
/// When this machine's settings cannot be read or written there.
pub fn reach(root: &Root) -> Result<()> {
    root.write("etc/apt/apt.conf.d/90thiao-demo", &slurm::reach()?)?;
    let names = fs::read_to_string("/etc/resolv.conf").context("/etc/resolv.conf cannot be read")?;
    root.write("etc/resolv.conf", &names)
}
