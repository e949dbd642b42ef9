//! Makes an image: files by mmdebstrap, their digest, a disk of them, its name. Whatever ends it in
//! between, no image of the name is half there.

use super::{ALWAYS, KERNEL, read};
use anyhow::{Context as _, anyhow, bail};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use thiao_qemu::disk;
use thiao_qemu::image::built::{self, About, ImageName, ROOT_FILE, Recipe};

/// The files' time in the archive, for tools that would take their own: the same for every image.
const EPOCH: &str = "1700000000";

/// What the system is not to have of the machine that made it, nor start before its VM is told who it is.
/// A hook is a shell command to mmdebstrap, with the system's folder as its first word.
const HOOKS: [&str; 3] = [
    "rm -f \"$1\"/etc/munge/munge.key \"$1\"/etc/ssh/ssh_host_*_key*",
    "chroot \"$1\" systemctl disable munge.service slurmd.service",
    "rm -f \"$1\"/boot/initrd.img-* \"$1\"/initrd.img \"$1\"/initrd.img.old",
];

/// An image that was made.
#[derive(Debug)]
pub struct Built {
    pub about: About,
    /// Whether its content is what it was before.
    pub unchanged: bool,
}

/// Makes an image of this recipe and gives it this name, whatever had it.
///
/// # Errors
/// When a program or package is missing, or something cannot be written; then all is as it was.
pub fn build(cache: &Path, name: &ImageName, recipe: &Recipe, say: &dyn Fn(&str)) -> anyhow::Result<Built> {
    check(recipe)?;
    let before = About::read(cache, name).unwrap_or_default();
    let work = built::work_folder(cache, name)?;
    let made = make(&work, recipe, say);
    let same = |about: &About| {
        let before =
            before.filter(|before| before.digest == about.digest && before.recipe == about.recipe)?;
        before.is_sound(cache).then_some(before)
    };
    let made = made.and_then(|about| match same(&about) {
        Some(about) => Ok(Built {
            about,
            unchanged: true,
        }),
        None => {
            about.place(cache, name, &work)?;
            Ok(Built {
                about,
                unchanged: false,
            })
        }
    });
    let _ = fs::remove_dir_all(&work);
    built::prune(cache);
    made
}

fn check(recipe: &Recipe) -> anyhow::Result<()> {
    if !read::is_suite(&recipe.suite) {
        bail!(
            "{:?} is no release of Debian: write its name, e.g. bookworm",
            recipe.suite
        );
    }
    match recipe.packages.iter().find(|name| !read::is_package(name)) {
        Some(name) => bail!("{name:?} is no package's name: write it as `apt-cache search` does, e.g. gcc"),
        None => Ok(()),
    }
}

fn make(work: &Path, recipe: &Recipe, say: &dyn Fn(&str)) -> anyhow::Result<About> {
    let archive = work.join("root.tar");
    bootstrap(&archive, recipe, say)?;
    let digest = digest(&archive)?;
    let packages = read::packages(&member(&archive, "./var/lib/dpkg/status")?);
    let slurm_version = packages
        .get("slurmd")
        .map(|version| read::upstream(version).to_owned())
        .ok_or_else(|| anyhow!("there is no slurmd in the system that mmdebstrap made"))?;
    let kernel_release = kernel(&packages)?;
    say("making a disk of it");
    let content = work.join("root");
    make_disk(&archive, &content, &work.join(ROOT_FILE), recipe.free_mb)?;
    take_kernel(&archive, work)?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    let disk_sum = built::sum(&work.join(ROOT_FILE))?;
    let kernel_sum = Some(built::sum_beside(work)?);
    fs::set_permissions(work, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot let others read {}", work.display()))?;
    Ok(About {
        recipe: recipe.clone(),
        digest,
        disk_sum,
        kernel_sum,
        packages: packages
            .into_iter()
            .map(|(name, version)| format!("{name}={version}"))
            .collect(),
        kernel_release,
        slurm_version,
        made: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
    })
}

/// Has mmdebstrap make the system's files, as an archive; says what it does.
fn bootstrap(archive: &Path, recipe: &Recipe, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let packages: Vec<&str> = ALWAYS
        .into_iter()
        .chain(recipe.packages.iter().map(String::as_str))
        .collect();
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", packages.join(",")))
        .args(HOOKS.iter().map(|hook| format!("--customize-hook={hook}")))
        .arg(&recipe.suite)
        .arg(archive)
        .env("SOURCE_DATE_EPOCH", EPOCH)
        // The kernel's package asks for a first file system otherwise; VMs have one of Thiao's.
        .env("INITRD", "No")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|e| missing("mmdebstrap", "mmdebstrap", e))?;
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            match line.strip_prefix("I: ") {
                Some(step) => say(step),
                None => words.push(line),
            }
        }
    }
    let status = child.wait().context("mmdebstrap was lost sight of")?;
    if status.success() {
        return Ok(());
    }
    let last = words.len().saturating_sub(8);
    bail!(
        "mmdebstrap failed ({status}); its last words:\n  {}",
        words[last..].join("\n  ")
    )
}

/// The digest of all files: the archive has them sorted, and nothing else.
fn digest(archive: &Path) -> anyhow::Result<String> {
    let read = || -> io::Result<String> {
        let mut file = File::open(archive)?;
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk)? {
                0 => {
                    return Ok(digest
                        .finalize()
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect());
                }
                length => digest.update(&chunk[..length]),
            }
        }
    };
    read().with_context(|| format!("cannot read {}", archive.display()))
}

/// One file of the archive.
fn member(archive: &Path, path: &str) -> anyhow::Result<String> {
    let out = Command::new("tar")
        .arg("-xOf")
        .arg(archive)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing("tar", "tar", e))?;
    if !out.status.success() {
        bail!("{path} is not in the system that mmdebstrap made");
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The release of the kernel: the package that the general one leads to has it in its name.
fn kernel(packages: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut releases = packages
        .keys()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()));
    releases.next_back().map(str::to_owned).ok_or_else(|| {
        anyhow!("there is no kernel in the system that mmdebstrap made, though it has {KERNEL}")
    })
}

/// Unpacks the archive, with the owners that its files have, and makes a disk of it with space to write.
fn make_disk(archive: &Path, content: &Path, disk: &Path, free_mb: u64) -> anyhow::Result<()> {
    fs::create_dir(content).with_context(|| format!("cannot make {}", content.display()))?;
    let mut unpack = as_root("tar");
    unpack
        .arg("-xpf")
        .arg(archive)
        .arg("-C")
        .arg(content)
        // The kernel fills /dev; who is root only of a namespace can make no device.
        .args(["--numeric-owner", "--exclude=./dev/*"]);
    let size_mb = size_mb(archive)? * 5 / 4 + free_mb;
    let made = run(&mut unpack, "tar").and_then(|()| {
        run(
            as_root("mkfs.ext4").args(disk::arguments(disk, size_mb, Some(content))),
            "e2fsprogs",
        )
    });
    // Its files are others' than this user's: nobody else can remove them.
    let removed = run(as_root("rm").arg("-rf").arg(content), "coreutils");
    made.and(removed)
}

fn size_mb(archive: &Path) -> anyhow::Result<u64> {
    let meta = fs::metadata(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    Ok(meta.len() >> 20)
}

/// The kernel and its modules, beside the disk: QEMU starts the one, the first file system has some of the others.
fn take_kernel(archive: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(archive).arg("-C").arg(folder).args([
        "--no-same-owner",
        "--wildcards",
        "./boot/vmlinuz-*",
        "./usr/lib/modules",
    ]);
    run(&mut unpack, "tar")
}

/// A command that may give files to anybody: as root, or in a user namespace with the ids that
/// `/etc/subuid` gives this user.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-auto", "--map-root-user", "--", program]);
    command
}

fn run(command: &mut Command, package: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| missing(&name, package, e))?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    bail!("{name} failed ({}; package {package}): {words}", out.status)
}

fn missing(program: &str, package: &str, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("{program} is not installed: install the Debian package {package}")
        }
        _ => anyhow!("cannot run {program}: {error}"),
    }
}

/// Where an image's disk is.
#[must_use]
pub fn disk_of(cache: &Path, about: &About) -> PathBuf {
    built::root_folder(cache, &about.disk_sum).join(ROOT_FILE)
}
