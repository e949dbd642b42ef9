//! This machine, where it carries the VMs itself.

use super::Unseen;
use rustix::process::Pid;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use thiao_core::finding::Finding;
use thiao_qemu::{AccelChoice, Credentials, Settings};

/// What is there.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether /dev/kvm can be opened for writing; else why not.
    pub kvm: Result<(), Unseen>,
    /// The same of /dev/net/tun.
    pub tun: Result<(), Unseen>,
    /// Whether the bridge exists where the controller's network is.
    pub bridge: bool,
    /// Where `qemu-system-x86_64` is.
    pub qemu: Option<PathBuf>,
    /// Whether the guests' program can be read.
    pub agent: Result<(), Unseen>,
    /// Whether the cluster's secret can be read.
    pub key: Result<(), Unseen>,
}

/// Where the VMs' own program is looked for after PATH.
const USUAL_DIRS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// Looks at this machine. A controller that runs may have a network of its own, as in a lab.
#[must_use]
pub fn look(settings: &Settings, controller: Option<Pid>) -> Facts {
    let opened = |path: &str| {
        let open = OpenOptions::new().read(true).write(true).open(path);
        open.map(drop).map_err(Unseen::from)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    Facts {
        kvm: opened("/dev/kvm"),
        tun: opened("/dev/net/tun"),
        bridge: has_device(controller, &settings.network.bridge),
        qemu: std::env::split_paths(&path)
            .chain(USUAL_DIRS.iter().map(PathBuf::from))
            .map(|dir| dir.join("qemu-system-x86_64"))
            .find(|program| program.is_file()),
        agent: readable(&settings.agent),
        key: readable(settings.guest.credentials.file()),
    }
}

/// Whether a network device is there for this process, or for `other`.
fn has_device(other: Option<Pid>, name: &str) -> bool {
    let listed = |of: &str| {
        let list = std::fs::read_to_string(format!("/proc/{of}/net/dev")).unwrap_or_default();
        list.lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(device, _)| device.trim() == name)
    };
    let other = other.map(|pid| pid.as_raw_nonzero().to_string());
    listed("self") || other.is_some_and(|other| listed(&other))
}

/// What is wrong with it.
#[must_use]
pub fn judge(facts: &Facts, settings: &Settings) -> Vec<Finding> {
    let kvm = match (&facts.kvm, settings.accel) {
        (Ok(()), AccelChoice::Auto | AccelChoice::Kvm) => Finding::ok(
            "/dev/kvm",
            "opens: VMs run at full speed if a guest boots with it, which thiaod tries (`thiao status` says)",
        ),
        (_, AccelChoice::Tcg) => Finding::ok("/dev/kvm", "is not used: qemu.accel is tcg"),
        (Err(why), AccelChoice::Kvm) => Finding::bad(
            "/dev/kvm",
            format!("qemu.accel is kvm, and it cannot be opened: {why}"),
        )
        .run("usermod -aG kvm slurm && systemctl restart thiaod")
        .unless_denied(why.denied),
        (Err(why), AccelChoice::Auto) => Finding::warn(
            "/dev/kvm",
            format!("cannot be opened ({why}): without it VMs are emulated, several times slower"),
        )
        .run("usermod -aG kvm slurm && systemctl restart thiaod")
        .unless_denied(why.denied),
    };
    let tun = match &facts.tun {
        Ok(()) => Finding::ok("/dev/net/tun", "VMs can have network cards"),
        Err(why) => Finding::bad("/dev/net/tun", format!("cannot be opened: {why}"))
            .run("modprobe tun")
            .unless_denied(why.denied),
    };
    let bridge = &settings.network.bridge;
    let bridge = if facts.bridge {
        Finding::ok("bridge", format!("{bridge} is there"))
    } else {
        Finding::warn(
            "bridge",
            format!("{bridge} is not there; the controller makes it when it starts"),
        )
        .run("systemctl start thiaod")
    };
    let qemu = match &facts.qemu {
        Some(program) => Finding::ok("QEMU", program.display().to_string()),
        None => {
            Finding::bad("QEMU", "qemu-system-x86_64 is not installed").run("apt install qemu-system-x86")
        }
    };
    let agent = match &facts.agent {
        Ok(()) => Finding::ok("guests' program", settings.agent.display().to_string()),
        Err(why) => Finding::bad("guests' program", format!("{}: {why}", settings.agent.display()))
            .advice("install thiao-guest there, or name it with qemu.agent")
            .unless_denied(why.denied),
    };
    let key = key(&settings.guest.credentials, &facts.key);
    vec![kvm, tun, bridge, qemu, agent, slurm(settings), key]
}

/// Whether there is a Slurm for the guests.
fn slurm(settings: &Settings) -> Finding {
    match &settings.slurm {
        Ok(files) => Finding::ok("guests' Slurm", files.sbin.join("slurmd").display().to_string()),
        Err(why) => Finding::bad("guests' Slurm", why.clone())
            .advice("install Slurm's slurmd on this machine, or set slurm.bin_dir to where its clients are"),
    }
}

/// Whether the controller can give guests the cluster's secret.
#[must_use]
pub fn key(credentials: &Credentials, read: &Result<(), Unseen>) -> Finding {
    let (what, file) = (credentials.name(), credentials.file());
    match read {
        Ok(()) => Finding::ok(what, format!("{} can be read", file.display())),
        // systemd puts it there for the service alone, while it runs.
        Err(why) if file.starts_with("/run/credentials") => Finding::warn(
            what,
            format!(
                "{}: {why}: systemd puts it there while the controller runs",
                file.display()
            ),
        )
        .run("systemctl start thiaod")
        .unless_denied(why.denied),
        Err(why) => Finding::bad(
            what,
            format!("{}: {why}: guests could not join the cluster", file.display()),
        )
        .advice(match credentials {
            Credentials::Munge { .. } => {
                "set munge_key = \"/run/credentials/thiaod.service/munge.key\", which systemd hands to thiaod"
            }
            Credentials::Slurm { .. } => {
                "let the controller's user read it: it is SlurmUser's, and the controller should be SlurmUser"
            }
        })
        .unless_denied(why.denied),
    }
}

/// Whether it can be read by who asks; else why not.
///
/// # Errors
/// What the system says.
pub fn readable(path: &Path) -> Result<(), Unseen> {
    Ok(File::open(path).map(drop)?)
}
