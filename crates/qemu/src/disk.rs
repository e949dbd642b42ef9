//! Disks of guests whose system is on one: what all of an image share is only read, and each VM writes
//! to files of its own that vanish with its folder.

use crate::beside::{self, beside};
use crate::error::Error;
use crate::image::Brought;
use crate::sums::{self, Beside};
use crate::vmdir::{ROOT_DISK, SCRATCH_DISK};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What of a disk's file is not its content: qcow2's tables take a part in about 4,000, and this at least.
const TABLES: u64 = 64 << 20;

/// A label, and no more, of file systems made here.
const LABEL: &str = "thiao";

/// What the disks of a guest begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disks {
    /// The disk with the system.
    pub root: Base,
    /// The disk for `/tmp`, empty.
    pub scratch: Base,
}

/// A disk that is only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub path: PathBuf,
    /// How its file is made.
    pub format: Format,
}

/// How a disk's file is made, by QEMU's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Every byte where it is on the disk.
    Raw,
    /// With what is not there in another file.
    Qcow2,
}

impl Format {
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl Disks {
    /// The disks that a VM or template in `folder` has made of these.
    pub fn in_folder(folder: &Path) -> Self {
        let made = |name| Base {
            path: folder.join(name),
            format: Format::Qcow2,
        };
        Self {
            root: made(ROOT_DISK),
            scratch: made(SCRATCH_DISK),
        }
    }

    /// Gives a VM's folder disks that begin as these.
    pub fn lay_over(&self, folder: &Path) -> Result<(), Error> {
        self.root.lay_over(&folder.join(ROOT_DISK))?;
        self.scratch.lay_over(&folder.join(SCRATCH_DISK))
    }

    /// How long a file of these disks may become, in bytes.
    pub fn limit(&self) -> Result<u64, Error> {
        let length = |base: &Base| {
            fs::metadata(&base.path)
                .map(|meta| meta.len())
                .map_err(|e| Error::io("read", &base.path, e))
        };
        Ok(limit(length(&self.root)?.max(length(&self.scratch)?)))
    }
}

/// How long the file of a disk of this size may become, in bytes.
#[must_use]
pub fn limit(size: u64) -> u64 {
    size.saturating_add(size / 1024).saturating_add(TABLES)
}

impl Base {
    /// Makes a disk that begins as this one.
    pub fn lay_over(&self, file: &Path) -> Result<(), Error> {
        let mut command = Command::new("qemu-img");
        command
            .args(["create", "-q", "-f", "qcow2", "-F", self.format.as_str(), "-b"])
            .arg(&self.path)
            .arg(file);
        run(&mut command, "qemu-utils").map(drop)
    }
}

/// What `qemu-img info` says of a disk.
#[derive(Deserialize)]
struct Info {
    format: String,
    #[serde(rename = "virtual-size")]
    size: u64,
}

/// A disk of the site's own, as its file is.
pub fn brought(file: &Path) -> Result<Brought, Error> {
    let path = file
        .canonicalize()
        .map_err(|e| Error::io("find the image", file, e))?;
    let mut command = Command::new("qemu-img");
    // Others may use it at the same time.
    command
        .args(["info", "--force-share", "--output=json"])
        .arg(&path);
    let text = run(&mut command, "qemu-utils")?;
    let info: Info = serde_json::from_str(&text).map_err(|e| {
        Error::Image(format!(
            "qemu-img says nothing of {} that is understood: {e}",
            path.display()
        ))
    })?;
    let format = match info.format.as_str() {
        "raw" => Format::Raw,
        "qcow2" => Format::Qcow2,
        other => {
            return Err(Error::Image(format!(
                "{} is of the format {other}: convert it, `qemu-img convert -O qcow2 {} NEW.qcow2`",
                path.display(),
                path.display()
            )));
        }
    };
    Ok(Brought {
        base: Base { path, format },
        size: info.size,
    })
}

/// An empty disk of this size in GiB with a file system, made once in `cache`; and its sum.
pub fn scratch(cache: &Path, size_gb: u64) -> Result<(Base, String), Error> {
    let folder = cache.join("disks");
    fs::create_dir_all(&folder).map_err(|e| Error::io("make", &folder, e))?;
    let path = folder.join(format!("scratch-{size_gb}G.ext4"));
    let sum = match sums::beside(&path) {
        Beside::Holds(sum) => sum,
        // One without a sum is of before there were sums.
        Beside::Unknown if path.exists() => sums::write_beside(&path)?,
        Beside::Unknown | Beside::Differs => {
            make_scratch(&path, size_gb)?;
            sums::write_beside(&path)?
        }
    };
    // An overlay names it, from another folder.
    let path = path.canonicalize().map_err(|e| Error::io("find", &path, e))?;
    let format = Format::Raw;
    Ok((Base { path, format }, sum))
}

fn make_scratch(path: &Path, size_gb: u64) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        beside::remove_left(folder);
    }
    let fresh = beside(path, "new");
    let made = run(
        Command::new("mkfs.ext4").args(arguments(&fresh, size_gb << 10, None)),
        "e2fsprogs",
    )
    .and_then(|_| fs::rename(&fresh, path).map_err(|e| Error::io("make", path, e)));
    if made.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    made
}

/// What `mkfs.ext4` is told to make a file system in a file, of this size in MiB, with what is in `content`.
/// Without a journal: no VM's disk is used again after its machine fell over.
#[must_use]
pub fn arguments(file: &Path, size_mb: u64, content: Option<&Path>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-L", LABEL]
        .map(OsString::from)
        .to_vec();
    if let Some(content) = content {
        arguments.extend(["-d".into(), content.into()]);
    }
    arguments.extend([file.into(), format!("{size_mb}M").into()]);
    arguments
}

/// Runs a program to its end; what it printed. Its own words are the error's.
fn run(command: &mut Command, package: &str) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(|e| {
        Error::Refused(format!(
            "cannot run {name}: {e}; install the Debian package {package}"
        ))
    })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(Error::Qemu(format!(
        "{name} failed ({}): {}",
        out.status,
        words.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_damaged_empty_disk_is_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let (disk, sum) = scratch(cache.path(), 1).unwrap();
        assert_eq!(scratch(cache.path(), 1).unwrap(), (disk.clone(), sum.clone()));
        let file = fs::File::options().write(true).open(&disk.path).unwrap();
        // Its superblock; the size stays.
        file.write_all_at(&[0; 1024], 1024).unwrap();
        let (again, new_sum) = scratch(cache.path(), 1).unwrap();
        assert_eq!(again, disk);
        assert_ne!(
            new_sum, sum,
            "whoever was saved with the other one is not started with this"
        );
        let mut magic = [0; 2];
        fs::File::open(&disk.path)
            .unwrap()
            .read_exact_at(&mut magic, 1024 + 0x38)
            .unwrap();
        assert_eq!(magic, [0x53, 0xef], "it is an ext4");
    }
}
