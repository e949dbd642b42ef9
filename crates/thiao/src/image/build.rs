//! Makes an image: files by mmdebstrap, their digest, a disk of them, its name. Whatever ends it in
//! between, no image of the name is half there.

use super::{ALWAYS, KERNEL, group, read};
use anyhow::{Context as _, anyhow, bail};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use thiao_qemu::disk;
use thiao_qemu::image::built::{self, About, ImageName, ROOT_FILE, Recipe};
use thiao_qemu::image::work::{Work, as_root};

/// The files' time in the archive, for tools that would take their own: the same for every image.
const EPOCH: &str = "1700000000";

/// What the system is not to have of the machine that made it: mmdebstrap copies the first two, packages draw
/// or write others. An empty `resolv.conf` asks nobody; a VM's agent writes its own. A new file takes the place of
/// what may be a link.
const NOTHING_OF_THIS_MACHINE: &str = "cd \"$1\" \
    && rm -f etc/resolv.conf etc/hostname etc/munge/munge.key etc/ssh/ssh_host_*_key* \
    etc/nvme/hostid etc/nvme/hostnqn var/lib/dbus/machine-id \
    var/lib/systemd/random-seed var/lib/systemd/credential.secret \
    && : > etc/resolv.conf \
    && if [ -e etc/mailname ]; then rm etc/mailname && echo localhost > etc/mailname; fi";

/// Gives munge's user a number that no user of a cluster has (Debian Policy, 9.2.2, reserves it): who had the one
/// that Debian gave it would read the cluster's key.
const MUNGE: &str = "chroot \"$1\" sh -c 'groupmod -g 65533 munge && usermod -u 65533 munge \
    && chown -R munge:munge /etc/munge /var/lib/munge /var/log/munge'";

/// What is done to the system once its packages are there: nothing starts before its VM is told who it is.
/// A hook is a shell command to mmdebstrap, with the system's folder as its first word.
const HOOKS: [&str; 4] = [
    NOTHING_OF_THIS_MACHINE,
    MUNGE,
    "chroot \"$1\" systemctl disable munge.service slurmd.service",
    "rm -f \"$1\"/boot/initrd.img-* \"$1\"/initrd.img \"$1\"/initrd.img.old",
];

/// What the system calls a disk, or a user's part of it, that is full.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Who hears of a build's steps, and what interrupts it.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    pub say: &'a dyn Fn(&str),
    /// The signal that came, if any.
    pub interrupted: &'a dyn Fn() -> Option<i32>,
}

impl Listener<'_> {
    /// Before each step: whether there is to be one.
    fn go_on(&self) -> anyhow::Result<()> {
        match (self.interrupted)() {
            None => Ok(()),
            Some(_) => bail!("interrupted"),
        }
    }
}

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
/// When a program or package is missing, something cannot be written, or it is interrupted; then all is as it was.
pub fn build(
    cache: &Path,
    name: &ImageName,
    recipe: &Recipe,
    listener: Listener<'_>,
) -> anyhow::Result<Built> {
    check(recipe)?;
    let before = About::read(cache, name).unwrap_or_default();
    let work = Work::begin(cache, name)?;
    let made = make(&work, recipe, listener);
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
            about.place(cache, name, work.folder())?;
            Ok(Built {
                about,
                unchanged: false,
            })
        }
    });
    drop(work);
    built::prune(cache);
    made.map_err(|error| explained(error, cache))
}

/// Says what to do about a disk that is full.
fn explained(error: anyhow::Error, cache: &Path) -> anyhow::Error {
    let text = format!("{error:#}");
    match FULL.iter().any(|words| text.contains(words)) {
        false => error,
        true => error.context(format!(
            "there is not enough space to make the image, and nothing of it was kept: while it is made it takes \
             a few GiB in {}, and a third of that in {}; free some, or name other folders with --cache-dir and in \
             TMPDIR",
            cache.display(),
            std::env::temp_dir().display()
        )),
    }
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

fn make(work: &Work, recipe: &Recipe, listener: Listener<'_>) -> anyhow::Result<About> {
    let folder = work.folder();
    let archive = folder.join("root.tar");
    let made = bootstrap(&archive, &work.temporary()?, recipe, listener);
    work.end_temporary();
    made?;
    listener.go_on()?;
    let digest = digest(&archive)?;
    let packages = read::packages(&member(&archive, "./var/lib/dpkg/status")?);
    let accounts = built::accounts(&member(&archive, "./etc/passwd")?);
    let slurm_version = packages
        .get("slurmd")
        .map(|version| read::upstream(version).to_owned())
        .ok_or_else(|| anyhow!("there is no slurmd in the system that mmdebstrap made"))?;
    let kernel_release = kernel(&packages)?;
    listener.go_on()?;
    (listener.say)("making a disk of it");
    let disk = folder.join(ROOT_FILE);
    make_disk(&archive, &folder.join("root"), &disk, recipe.free_mb, listener)?;
    take_kernel(&archive, folder, listener)?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    let disk_sum = built::sum(&disk)?;
    let kernel_sum = Some(built::sum_beside(folder)?);
    listener.go_on()?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot let others read {}", folder.display()))?;
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
        accounts,
        made: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
    })
}

/// Has mmdebstrap make the system's files, as an archive; says what it does.
fn bootstrap(
    archive: &Path,
    temporary: &Path,
    recipe: &Recipe,
    listener: Listener<'_>,
) -> anyhow::Result<()> {
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
        .env("TMPDIR", temporary);
    group::with_own_mounts(&mut command);
    run(&mut command, "mmdebstrap", listener, &|line| {
        line.strip_prefix("I: ")
            .inspect(|step| (listener.say)(step))
            .is_some()
    })
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
fn make_disk(
    archive: &Path,
    content: &Path,
    disk: &Path,
    free_mb: u64,
    listener: Listener<'_>,
) -> anyhow::Result<()> {
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
    let made = run(&mut unpack, "tar", listener, &quiet).and_then(|()| {
        let mut make = as_root("mkfs.ext4");
        make.args(disk::arguments(disk, size_mb, Some(content)));
        run(&mut make, "e2fsprogs", listener, &quiet)
    });
    // Its files are others' than this user's: nobody else can remove them. Whatever interrupts it.
    let listener = Listener {
        interrupted: &|| None,
        ..listener
    };
    let removed = run(
        as_root("rm").arg("-rf").arg(content),
        "coreutils",
        listener,
        &quiet,
    );
    made.and(removed)
}

fn size_mb(archive: &Path) -> anyhow::Result<u64> {
    let meta = fs::metadata(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    Ok(meta.len() >> 20)
}

/// The kernel and its modules, beside the disk: QEMU starts the one, the first file system has some of the others.
fn take_kernel(archive: &Path, folder: &Path, listener: Listener<'_>) -> anyhow::Result<()> {
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(archive).arg("-C").arg(folder).args([
        "--no-same-owner",
        "--wildcards",
        "./boot/vmlinuz-*",
        "./usr/lib/modules",
    ]);
    run(&mut unpack, "tar", listener, &quiet)
}

/// Of a program that says nothing while all is well.
fn quiet(_line: &str) -> bool {
    false
}

/// Runs a program to its end; its own last words are the error's, without the lines that `heard` takes for itself.
fn run(
    command: &mut Command,
    package: &str,
    listener: Listener<'_>,
    heard: &dyn Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut words = Vec::new();
    let mut line = |line: String| {
        if !heard(&line) {
            words.push(line);
        }
    };
    // Their words are looked through.
    command.env("LC_ALL", "C.UTF-8").stdout(Stdio::null());
    let status =
        group::run(command, &mut line, listener.interrupted).map_err(|e| missing(&name, package, e))?;
    if status.success() {
        return Ok(());
    }
    listener.go_on()?;
    bail!(
        "{name} failed ({status}; package {package}); its last words:\n  {}",
        last(&words).join("\n  ")
    )
}

/// The last lines; or those that say that a disk is full, which is why all others were said.
fn last(words: &[String]) -> Vec<&str> {
    let words: Vec<&str> = words
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    let is_full = |line: &&str| FULL.iter().any(|words| line.contains(words));
    let full: Vec<&str> = words.iter().copied().filter(is_full).take(2).collect();
    match full.as_slice() {
        [] => words[words.len().saturating_sub(8)..].to_vec(),
        _ => full,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_of_the_machine_that_made_it_is_in_an_image() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        let at = |path: &str| root.path().join("new system").join(path);
        for folder in ["etc/ssh", "etc/munge", "var/lib/systemd"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let gone = [
            "etc/hostname",
            "etc/munge/munge.key",
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_rsa_key.pub",
            "var/lib/systemd/random-seed",
        ];
        for file in gone.into_iter().chain(["etc/mailname", "etc/ssh/ssh_config"]) {
            fs::write(at(file), "head.example.org\n").unwrap();
        }
        // As systemd-resolved's package has it.
        fs::write(&elsewhere, "nameserver 10.0.0.53\n").unwrap();
        symlink(&elsewhere, at("etc/resolv.conf")).unwrap();
        let hook = Command::new("sh")
            .args(["-c", NOTHING_OF_THIS_MACHINE, "sh"])
            .arg(at(""))
            .status();
        assert!(hook.unwrap().success());
        let left: Vec<&str> = gone.into_iter().filter(|file| at(file).exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(at("etc/resolv.conf")), "");
        assert_eq!(read(at("etc/mailname")), "localhost\n");
        assert_eq!(
            read(elsewhere),
            "nameserver 10.0.0.53\n",
            "nothing outside is written to"
        );
        assert!(at("etc/ssh/ssh_config").exists());
        assert!(HOOKS.contains(&NOTHING_OF_THIS_MACHINE));
    }

    #[test]
    fn a_full_disk_is_told_whatever_was_said_behind_it() {
        let mut words: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
        assert_eq!(last(&words).len(), 8);
        words[3] = "cannot copy: No space left on device".into();
        assert_eq!(last(&words), [words[3].as_str()]);
        let error = explained(anyhow!("tar: x: No space left on device"), Path::new("/c"));
        let text = format!("{error:#}");
        assert!(text.contains("free some") && text.contains("tar: x"), "{text}");
        assert_eq!(
            format!("{:#}", explained(anyhow!("other"), Path::new("/c"))),
            "other"
        );
    }
}
