//! Makes a suite's root file system, from the mirror that this machine's apt has.

use super::Suite;
use crate::packages;
use crate::steps;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// What it was made of; written last.
const STAMP: &str = "etc/thiao-root";

/// After so long it is made anew: suites get newer versions.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where debootstrap has what it knows of each suite.
const SCRIPTS: &str = "/usr/share/debootstrap/scripts";

/// In there no package starts a service.
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// A mirror that stands still has lists that have expired. Their signatures still count.
const APT_SETTINGS: &str = "Acquire::Check-Valid-Until \"false\";\nAPT::Install-Recommends \"false\";\n";

/// Finds the root file system of a suite or makes it; the lock keeps others from making it anew.
///
/// # Errors
/// When it cannot be made: the reason in one line, and where the rest is.
pub fn root(suite: &Suite, fresh: bool) -> Result<(PathBuf, File)> {
    let folder = steps::cache()?.join("suites");
    fs::create_dir_all(&folder)
        // What apt was told to get at its mirror may be secret.
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    let name = suite.name;
    let root = folder.join(name);
    let lock = folder.join(format!("{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("{} cannot be made", lock.display()))?;
    lock.lock().context("the lock of a root file system")?;
    let mirror = mirror()?;
    let recipe = recipe(suite, &mirror);
    let stamp = root.join(STAMP);
    let made = fs::read_to_string(&stamp).ok().zip(age(&stamp));
    if let Some(why) = why_made(
        made.as_ref().map(|(text, age)| (text.as_str(), *age)),
        &recipe,
        fresh,
    ) {
        let log = folder.join(format!("{name}.log"));
        println!(
            "making a root file system of Debian's {name} ({why}); log: {}",
            log.display()
        );
        let began = Instant::now();
        make(suite, &mirror, &recipe, &root, &log)
            .with_context(|| format!("there is no root file system of Debian's {name}"))?;
        println!(
            "made the root file system of Debian's {name} in {} s",
            began.elapsed().as_secs()
        );
    }
    lock.unlock()
        .and_then(|()| lock.lock_shared())
        .context("the lock of a root file system")?;
    Ok((root, lock))
}

/// Everything that it is made of.
fn recipe(suite: &Suite, mirror: &str) -> String {
    format!("{} {mirror}\n{}\n", suite.name, packages::names().join("\n"))
}

/// Why it is made, if it is: `made` is the recipe of the one that is there, and its age.
fn why_made(made: Option<(&str, Duration)>, recipe: &str, fresh: bool) -> Option<&'static str> {
    match made {
        None => Some("there is none"),
        Some((text, _)) if text != recipe => Some("other packages, or from elsewhere"),
        Some((_, age)) if age > KEEP => Some("the one that is there is old"),
        Some(_) if fresh => Some("as asked for"),
        Some(_) => None,
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

/// The mirror that apt has Debian itself from.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)",
            "Created-By: Packages",
        ])
        .env("LC_ALL", "C")
        .output()
        .context("apt-get cannot be run: this needs Debian 12 or its like")?;
    debians(&String::from_utf8_lossy(&output.stdout))
        .context("apt has no mirror of Debian's: see /etc/apt/sources.list.d, and run `apt-get update`")
}

fn debians(targets: &str) -> Option<String> {
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian|Debian|main|"))
        .map(str::to_owned)
}

/// Makes it beside its place, which it gets when it is whole.
fn make(suite: &Suite, mirror: &str, recipe: &str, root: &Path, log: &Path) -> Result<()> {
    let work = root.with_file_name(format!(".{}.new", suite.name));
    let old = root.with_file_name(format!(".{}.old", suite.name));
    for remains in [&work, &old] {
        remove(remains)?;
    }
    let log = Log::new(log)?;
    let script = [suite.name, "sid"].map(|name| Path::new(SCRIPTS).join(name));
    let script = script
        .iter()
        .find(|path| path.exists())
        .with_context(|| format!("{SCRIPTS} has nothing: install the package debootstrap"))?;
    log.run(
        // Its mounts go with it, whatever ends it.
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "debootstrap"])
            .args(["--variant=minbase", "--include=ca-certificates", suite.name])
            .args([&work, Path::new(mirror), script]),
    )?;
    furnish(&work)?;
    let apt = |words: &[&str]| {
        log.run(
            Command::new("chroot")
                .arg(&work)
                .arg("apt-get")
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y"], packages::names().as_slice()].concat())?;
    apt(&["clean"])?;
    fs::write(work.join(STAMP), recipe).context("its stamp cannot be written")?;
    if root.exists() {
        fs::rename(root, &old).context("the one before cannot be put away")?;
    }
    fs::rename(&work, root).with_context(|| format!("{} cannot be made", root.display()))?;
    remove(&old)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives it what it needs to reach the mirror as this machine does.
fn furnish(root: &Path) -> Result<()> {
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, NO_SERVICES)
        .and_then(|()| fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("{} cannot be written", policy.display()))?;
    let mut settings = APT_SETTINGS.to_owned();
    settings += &reach()?;
    let file = root.join("etc/apt/apt.conf.d/90thiao");
    fs::write(&file, settings).with_context(|| format!("{} cannot be written", file.display()))?;
    let mut files = vec![PathBuf::from("/etc/resolv.conf"), "/etc/apt/auth.conf".into()];
    let entries = fs::read_dir("/etc/apt/auth.conf.d")
        .into_iter()
        .flatten()
        .flatten();
    files.extend(entries.map(|entry| entry.path()));
    for file in files.iter().filter(|file| file.is_file()) {
        let to = root.join(file.strip_prefix("/").unwrap_or(file));
        // It may be a link that leads nowhere in there.
        let _ = fs::remove_file(&to);
        fs::copy(file, &to).with_context(|| format!("{} cannot be copied", file.display()))?;
    }
    Ok(())
}

/// Those of apt's settings here that say how mirrors are reached.
///
/// # Errors
/// When apt does not tell them.
pub fn reach() -> Result<String> {
    Ok(reaching(&apt_config()?))
}

fn apt_config() -> Result<String> {
    let output = Command::new("apt-config")
        .arg("dump")
        .output()
        .context("apt-config cannot be run")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Those of apt's settings that say how mirrors are reached: proxies above all. A program that
/// finds the proxy is not in there.
fn reaching(dump: &str) -> String {
    dump.lines()
        .filter(|line| line.starts_with("Acquire::http") || line.starts_with("Acquire::Retries"))
        .filter(|line| !line.contains("Auto-Detect"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// What the programs say that make it.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        let out = || self.file.try_clone().context("the log cannot be written");
        let program = command.get_program().to_string_lossy().into_owned();
        let status = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(out()?)
            .stderr(out()?)
            .status()
            .with_context(|| format!("{program} cannot be run"))?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        bail!(
            "{} (more in {})",
            last.unwrap_or("nothing was said"),
            self.path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_when_missing_stale_or_asked_for() {
        let day = Duration::from_secs(24 * 3600);
        assert!(why_made(None, "a", false).is_some());
        assert!(why_made(Some(("a b", day)), "a", false).is_some());
        assert!(why_made(Some(("a", day * 8)), "a", false).is_some());
        assert!(why_made(Some(("a", day)), "a", true).is_some());
        assert_eq!(why_made(Some(("a", day)), "a", false), None);
    }

    #[test]
    fn the_mirror_is_that_of_debian_itself() {
        let targets = "Node Source|nodistro|main|https://n.example/\n\
                       Debian|Debian-Security|main|http://m.example/debian-security/\n\
                       Debian|Debian|contrib|http://c.example/debian/\n\
                       Debian|Debian|main|http://m.example/debian/\n";
        assert_eq!(debians(targets).as_deref(), Some("http://m.example/debian/"));
        assert_eq!(debians("\n"), None);
    }

    #[test]
    fn proxies_are_taken_over_and_programs_are_not() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http::Proxy \"http://p.example:3128\";\n\
                    Acquire::http::Proxy-Auto-Detect \"/usr/bin/x\";\nAcquire::https::Verify-Peer \"true\";\n\
                    DPkg::Post-Invoke:: \"rm\";\n";
        assert_eq!(
            reaching(dump),
            "Acquire::http::Proxy \"http://p.example:3128\";\nAcquire::https::Verify-Peer \"true\";\n"
        );
    }
}
