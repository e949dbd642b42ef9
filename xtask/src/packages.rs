//! The Debian packages that labs and tests need: found missing, installed as
//! root, else named with the command that installs them.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// What is needed, and for what.
const NEEDED: [(&str, &str); 16] = [
    ("slurmctld", "Slurm's controller, which a lab runs"),
    ("slurmd", "goes into the guest image"),
    ("slurm-client", "sbatch, squeue, sinfo, scontrol"),
    ("munge", "how Slurm's programs know each other"),
    ("qemu-system-x86", "the virtual machines"),
    ("busybox-static", "goes into the guest image"),
    ("procps", "goes into the guest image: ps, free, uptime"),
    ("iproute2", "the lab's bridge"),
    ("nftables", "keeps VMs from each other"),
    ("xz-utils", "unpacks the guests' kernel"),
    ("zstd", "unpacks the guests' kernel where it is packed so"),
    ("mmdebstrap", "makes images of a whole Debian"),
    ("qemu-utils", "the disks of VMs with a whole system"),
    ("grub-pc-bin", "the boot loader of an image, in tests"),
    ("fdisk", "the partition of an image, in tests"),
    ("libfaketime", "sets the clock under a controller, in tests"),
];

/// The guests' kernel is fetched, not installed; apt must know of it.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What a root file system of another Debian is made with.
const FOR_ROOTS: [(&str, &str); 1] = [("debootstrap", "makes a root file system with another Slurm")];

/// A machine with systemd of its own.
const FOR_SITE: [(&str, &str); 2] = [
    ("systemd-container", "boots a machine with systemd"),
    ("slirp4netns", "that machine's way to Debian's packages"),
];

/// The packages that labs and tests need, on each Debian from 12 on.
pub fn names() -> [&'static str; NEEDED.len()] {
    NEEDED.map(|(package, _)| package)
}

/// What is to be done on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Labs and tests with its own Slurm.
    Own,
    /// These, and root file systems with others.
    Roots,
    /// A machine with systemd, on which Thiao is installed.
    Site,
}

/// Sees to it that all packages are there; asks before it installs, unless `yes`.
///
/// # Errors
/// When packages are missing and may not or cannot be installed.
pub fn ensure(yes: bool, purpose: For) -> Result<()> {
    let missing = missing(purpose)?;
    let lists = knows_kernel()?;
    if missing.is_empty() && lists {
        return Ok(());
    }
    for (package, why) in &missing {
        println!("missing: {package} ({why})");
    }
    if !lists {
        println!("missing: apt's package lists, to fetch {KERNEL} for the guests");
    }
    let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    if std::fs::metadata("/proc/self")
        .context("/proc is not there")?
        .uid()
        != 0
    {
        let install = if names.is_empty() {
            String::new()
        } else {
            format!(" && {}", install_command(&names))
        };
        bail!(
            "run this as root, then try again:\n\n    apt-get update{install}\n\nOnly this needs root: the lab itself does not."
        );
    }
    if !yes && !agreed(&names)? {
        bail!("nothing was installed");
    }
    if !lists || !can_install(&names)? {
        apt(&["update", "-q"])?;
    }
    if names.is_empty() {
        return Ok(());
    }
    let removed = would_remove(&names)?;
    if !removed.is_empty() {
        println!(
            "apt removes, because they do not go together: {}",
            removed.join(", ")
        );
        if !yes && !agreed(&names)? {
            bail!("nothing was installed");
        }
    }
    let _guard = QuietServices::new()?;
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(&names);
    apt(&args)
}

fn install_command(names: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", names.join(" "))
}

fn missing(purpose: For) -> Result<Vec<(&'static str, &'static str)>> {
    let more: &[_] = match purpose {
        For::Own => &[],
        For::Roots => &FOR_ROOTS,
        For::Site => &FOR_SITE,
    };
    let needed = [&NEEDED, more].concat();
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${Status}\\n"])
        .args(needed.iter().map(|(package, _)| package))
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .context("dpkg-query cannot be run: this needs Debian 12 or its like")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(needed
        .into_iter()
        .filter(|(package, _)| !is_installed(&text, package))
        .collect())
}

fn is_installed(status: &str, package: &str) -> bool {
    status.lines().any(|line| {
        line == format!("{package} install ok installed") || line == format!("{package} hold ok installed")
    })
}

fn knows_kernel() -> Result<bool> {
    let output = Command::new("apt-cache")
        .args(["show", KERNEL])
        .stderr(Stdio::null())
        .output()
        .context("apt-cache cannot be run: this needs Debian 12 or its like")?;
    Ok(!output.stdout.is_empty())
}

/// What apt would do, without doing it; none when it cannot.
fn simulate(names: &[&str]) -> Result<Option<String>> {
    let output = Command::new("apt-get")
        .args(["-s", "install", "--no-install-recommends"])
        .args(names)
        .env("LC_ALL", "C")
        .output()
        .context("apt-get cannot be run")?;
    Ok(output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn can_install(names: &[&str]) -> Result<bool> {
    Ok(names.is_empty() || simulate(names)?.is_some())
}

fn would_remove(names: &[&str]) -> Result<Vec<String>> {
    let plan = simulate(names)?.with_context(|| {
        format!(
            "apt cannot install {}: see `{}`",
            names.join(" "),
            install_command(names)
        )
    })?;
    Ok(removals(&plan))
}

fn removals(plan: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn agreed(names: &[&str]) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is here to ask: use --yes");
    }
    let what = if names.is_empty() {
        "Fetch the package lists".to_owned()
    } else {
        format!("Install {}", names.join(" "))
    };
    print!("{what}? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn apt(args: &[&str]) -> Result<()> {
    println!("+ apt-get {}", args.join(" "));
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("apt-get cannot be run")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", args.join(" "));
    }
    Ok(())
}

/// Keeps the packages' own slurmctld, slurmd and munged from being started as services of the
/// machine: labs start their own. Debian's `invoke-rc.d` asks this program; the answer is "no"
/// for these three, and only as long as this process lives, should the file be left behind.
struct QuietServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl QuietServices {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let text = format!(
            "#!/bin/sh\n# Written by `cargo xtask`; may be removed.\n\
             case \"$1\" in slurm*|munge*) kill -0 {} 2>/dev/null && exit 101 ;; esac\nexit 0\n",
            std::process::id()
        );
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{POLICY} cannot be written"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("xtask: {POLICY} cannot be removed ({error}): remove it yourself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_installations_count() {
        let status = "munge install ok installed\nslurmd deinstall ok config-files\nzstd hold ok installed\n";
        assert!(is_installed(status, "munge") && is_installed(status, "zstd"));
        assert!(!is_installed(status, "slurmd") && !is_installed(status, "slurmctld"));
    }

    #[test]
    fn removals_are_seen() {
        let plan = "Inst munge (1 Debian)\nRemv mawk [1.3]\nConf munge (1 Debian)\n";
        assert_eq!(removals(plan), ["mawk"]);
    }
}
