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

/// What a disk with a system has at least, in bytes.
const SMALLEST: u64 = 1 << 20;

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
    /// Whose content shows through where the disk has none of its own.
    #[serde(rename = "backing-filename")]
    backing: Option<String>,
    #[serde(rename = "format-specific")]
    specific: Option<Specific>,
}

/// What it says that only this format has.
#[derive(Deserialize)]
struct Specific {
    #[serde(default)]
    data: Qcow2,
}

/// What only a disk of the format qcow2 has.
#[derive(Deserialize, Default)]
struct Qcow2 {
    /// Where the content is, if not in the disk's own file.
    #[serde(rename = "data-file")]
    elsewhere: Option<String>,
}

/// A disk of the site's own, as its file is. One that cannot start a machine, or of which a part is in another file,
/// is refused: a guest would read whatever file of this machine its maker has named.
pub fn brought(file: &Path) -> Result<Brought, Error> {
    let path = file
        .canonicalize()
        .map_err(|e| Error::io("find the image", file, e))?;
    let refused = |why: String| Err(Error::Refused(format!("the image {} {why}", path.display())));
    // Others may use it at the same time.
    let mut command = Command::new("qemu-img");
    command
        .args(["info", "--force-share", "--output=json"])
        .arg(&path);
    let text = run(&mut command, "qemu-utils")?;
    let info: Info = match serde_json::from_str(&text) {
        Ok(info) => info,
        Err(e) => {
            return refused(format!(
                "is nothing of which qemu-img says what is understood: {e}"
            ));
        }
    };
    let convert = || format!("`qemu-img convert -O qcow2 {} NEW.qcow2`", path.display());
    let format = match info.format.as_str() {
        "raw" => Format::Raw,
        "qcow2" => Format::Qcow2,
        other => return refused(format!("is of the format {other}: convert it, {}", convert())),
    };
    if let Some(other) = info.backing.or(info.specific.and_then(|of| of.data.elsewhere)) {
        return refused(format!(
            "is not whole: it goes on in {other}. VMs get no other file than the image's: if that one is to be in it, \
             make one file of both, {}",
            convert()
        ));
    }
    if info.size < SMALLEST {
        return refused(format!("has {} bytes, which is no disk with a system", info.size));
    }
    if format == Format::Qcow2 {
        let mut check = Command::new("qemu-img");
        check
            .args(["check", "-q", "--force-share", "-f", "qcow2"])
            .arg(&path);
        match check.stdin(Stdio::null()).output().map(|out| out.status.code()) {
            // 3: some of it is used by nothing, which harms nobody.
            Ok(Some(0 | 3)) => {}
            _ => {
                return refused(format!(
                    "is damaged or cut short, says `qemu-img check {}`: fetch or make it anew",
                    path.display()
                ));
            }
        }
    }
    if let Err(why) = starts(&head(&path, format)?, info.size) {
        return refused(why);
    }
    Ok(Brought {
        base: Base { path, format },
        size: info.size,
    })
}

/// What a disk begins with, whatever its format: two sectors, as `qemu-io` shows them.
fn head(path: &Path, format: Format) -> Result<Vec<u8>, Error> {
    let mut command = Command::new("qemu-io");
    command
        .args([
            "--read-only",
            "--force-share",
            "-f",
            format.as_str(),
            "-c",
            "read -v 0 1024",
        ])
        .arg(path);
    Ok(dumped(&run(&mut command, "qemu-utils")?))
}

/// The bytes of lines as `00000010:  eb 63 90 ...  .c.`, sixteen in each.
fn dumped(text: &str) -> Vec<u8> {
    let of_line = |line: &str| {
        let (at, rest) = line.split_once(": ")?;
        u32::from_str_radix(at, 16).ok()?;
        let bytes = rest.split_whitespace().take(16);
        bytes
            .map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect::<Option<Vec<u8>>>()
    };
    text.lines().filter_map(of_line).flatten().collect()
}

/// Whether a machine with a BIOS starts what a disk of this size begins with, and its partitions are all there; else
/// why not.
fn starts(head: &[u8], size: u64) -> Result<(), String> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(
            "has no boot sector: name the disk of a whole machine that starts with a BIOS, raw or qcow2"
                .to_owned(),
        );
    }
    let word = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(bytes.map_or(0, u32::from_le_bytes))
    };
    // A GUID partition table ends with a copy of itself; one of the older kind has four places for partitions.
    let end = match head.get(512..520) {
        Some(b"EFI PART") => (word(544) | word(548) << 32).saturating_add(1),
        _ => {
            let of = |at: usize| word(at + 8) + word(at + 12);
            [446, 462, 478, 494].map(of).into_iter().max().unwrap_or(0)
        }
    };
    // A boot sector without partitions has a program where they would be.
    let plain = [446, 462, 478, 494]
        .iter()
        .all(|at| matches!(head.get(*at), Some(0 | 0x80)));
    if plain && end.saturating_mul(512) > size {
        return Err(format!(
            "is cut short: its partitions end at {} bytes, and it has {size}; fetch or make it anew",
            end.saturating_mul(512)
        ));
    }
    Ok(())
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

    /// A folder with a raw disk of 2 MiB that has a boot sector and a partition to its end.
    fn folder_with_disk() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("whole.raw");
        fs::write(&raw, whole()).unwrap();
        (dir, raw)
    }

    fn whole() -> Vec<u8> {
        let mut bytes = vec![7; 2 << 20];
        bytes[..512].fill(0);
        bytes[454..458].copy_from_slice(&1_u32.to_le_bytes());
        bytes[458..462].copy_from_slice(&4095_u32.to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    fn qemu_img(arguments: &[&str]) {
        let mut command = Command::new("qemu-img");
        run(command.args(arguments), "qemu-utils").unwrap();
    }

    fn why(file: &Path) -> String {
        brought(file).unwrap_err().to_string()
    }

    #[test]
    fn a_disk_is_one_whole_file() {
        let (dir, raw) = folder_with_disk();
        assert_eq!(brought(&raw).unwrap().base.format, Format::Raw);
        let [plain, small, over, outside, cut] =
            ["plain", "small", "over", "outside", "cut"].map(|name| dir.path().join(format!("{name}.qcow2")));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        qemu_img(&["convert", "-O", "qcow2", &text(&raw), &text(&plain)]);
        qemu_img(&["convert", "-c", "-O", "qcow2", &text(&raw), &text(&small)]);
        for good in [&plain, &small] {
            let known = brought(good).unwrap();
            assert_eq!((known.base.format, known.size), (Format::Qcow2, 2 << 20));
        }
        let create = ["create", "-q", "-f", "qcow2"];
        qemu_img(&[&create[..], &["-F", "raw", "-b", &text(&raw), &text(&over)]].concat());
        let data = format!("data_file={}", text(&dir.path().join("data")));
        qemu_img(&[&create[..], &["-o", &data, &text(&outside), "2M"]].concat());
        for (file, other) in [(&over, "whole.raw"), (&outside, "data")] {
            let why = why(file);
            assert!(
                why.contains(other) && why.contains("qemu-img convert -O qcow2"),
                "{why}"
            );
        }
        let bytes = fs::read(&plain).unwrap();
        fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        assert!(why(&cut).contains("cut short"), "{}", why(&cut));
    }

    #[test]
    fn what_starts_no_machine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        assert_eq!(why(&path).matches("No such file").count(), 1, "{}", why(&path));
        for (content, expected) in [
            (Vec::new(), "no disk with a system"),
            (b"some words\n".to_vec(), "no disk with a system"),
            (b"some words\n".repeat(200_000), "no boot sector"),
            (whole()[..3 << 19].to_vec(), "cut short"),
        ] {
            fs::write(&path, content).unwrap();
            assert!(why(&path).contains(expected), "{}", why(&path));
        }
    }

    #[test]
    fn partitions_end_on_the_disk() {
        let mut head = whole()[..1024].to_vec();
        assert_eq!(starts(&head, 2 << 20), Ok(()));
        assert!(starts(&head, (2 << 20) - 512).is_err());
        head[512..520].copy_from_slice(b"EFI PART");
        head[544..552].copy_from_slice(&8191_u64.to_le_bytes());
        assert_eq!(starts(&head, 4 << 20), Ok(()));
        assert!(starts(&head, (4 << 20) - 512).is_err());
        head[544..552].fill(0xff);
        assert!(starts(&head, u64::MAX / 1024).is_err());
        assert!(starts(&[], 4 << 20).is_err());
    }
}
