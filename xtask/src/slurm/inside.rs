//! Into another root file system: in mount and process namespaces of its own, which leave nothing
//! behind. `chroot` would not do: in it no test could make namespaces ("cannot change root
//! filesystem propagation").

use crate::steps;
use anyhow::{Context, Result, bail};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// `xtask ENTER ROOT COMMAND...` runs a command in ROOT: for cargo, which runs tests by it.
pub const ENTER: &str = "enter-root";

/// The same, in its namespaces already.
pub const ENTERED: &str = "entered-root";

/// Where programs are in there.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the old root is until it is let go.
const OLD: &str = ".old";

/// Takes up namespaces, and goes on in them.
///
/// # Errors
/// When `unshare` cannot be run.
pub fn enter(args: &[String]) -> Result<ExitCode> {
    let own = std::env::current_exe().context("this program does not find itself")?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(own)
        .arg(ENTERED)
        .args(args);
    Err(command.exec()).context("unshare (package util-linux) cannot be run")
}

/// Makes ROOT the root, and runs the command there, in the same folder as here.
///
/// # Errors
/// When something cannot be mounted, or the command cannot be run.
pub fn entered(args: &[String]) -> Result<ExitCode> {
    let [root, program, rest @ ..] = args else {
        bail!("{ENTER} takes a root and a command")
    };
    let here = std::env::current_dir().context("where are we?")?;
    let root = Path::new(root);
    furnish(root)?;
    let old = root.join(OLD);
    std::fs::create_dir_all(&old).with_context(|| format!("{} cannot be made", old.display()))?;
    call("pivot_root", &[root.as_ref(), old.as_ref()])?;
    std::env::set_current_dir("/").context("the new root cannot be entered")?;
    call("umount", &["--lazy".as_ref(), Path::new("/").join(OLD).as_ref()])?;
    let status = Command::new(program)
        .args(rest)
        .env("PATH", PATH)
        .current_dir(&here)
        .status()
        .with_context(|| format!("{program} cannot be run in {}", root.display()))?;
    Ok(code(status))
}

/// What a program ended with, as a shell has it.
#[must_use]
pub fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Mounts into the root what it needs of this machine.
fn furnish(root: &Path) -> Result<()> {
    let mount = |words: &[&str], on: &Path| -> Result<()> {
        let mut all: Vec<&std::ffi::OsStr> = words.iter().map(AsRef::as_ref).collect();
        all.push(on.as_ref());
        call("mount", &all)
    };
    // A root must be a mount.
    call("mount", &["--bind".as_ref(), root.as_ref(), root.as_ref()])?;
    mount(&["-t", "proc", "proc"], &root.join("proc"))?;
    for whole in ["sys", "dev"] {
        let from = Path::new("/").join(whole);
        call(
            "mount",
            &["--rbind".as_ref(), from.as_ref(), root.join(whole).as_ref()],
        )?;
    }
    for (folder, mode) in [("run", "mode=755"), ("tmp", "mode=1777")] {
        mount(&["-t", "tmpfs", "-o", mode, "tmpfs"], &root.join(folder))?;
    }
    for (folder, place) in ours(root)? {
        let inside = root.join(place.strip_prefix("/").unwrap_or(&place));
        for path in [&folder, &inside] {
            std::fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))?;
        }
        call("mount", &["--bind".as_ref(), folder.as_ref(), inside.as_ref()])?;
    }
    Ok(())
}

/// What of this machine is seen in there, and where: sources and what was built at their own places. In the
/// place of the cache is one of the root's own: what is known of one QEMU is not true of another.
fn ours(root: &Path) -> Result<[(PathBuf, PathBuf); 3]> {
    let [sources, built] = [steps::root(), steps::target()];
    Ok([
        (sources.clone(), sources),
        (built.clone(), built),
        (root.with_extension("cache"), steps::cache()?),
    ])
}

/// Runs a program that must succeed.
fn call(program: &str, args: &[&std::ffi::OsStr]) -> Result<()> {
    let status = Command::new(program)
        .args(args)
        .status()
        .with_context(|| format!("{program} cannot be run"))?;
    if !status.success() {
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        bail!("{program} {} failed ({status})", words.join(" "));
    }
    Ok(())
}
