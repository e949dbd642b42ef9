//! Checksums of what is kept: a file that has the right size and other bytes is found, and made anew.
//!
//! Only what is written of a file is read: a guest's memory is mostly holes. Blocks of zeros count as holes,
//! whatever the file system made of them.

use crate::error::Error;
use crate::image::{self, hex};
use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The file with the sums of the others in its folder.
const SUMS_FILE: &str = "sums";

/// What of a folder changes without harm: what was said while it was made.
const LEFT_OUT: [&str; 5] = [SUMS_FILE, "console.log", "qemu.log", "life", "pid"];

/// The ending of a file with the sum of another one.
const BESIDE: &str = "sum";

const BLOCK: usize = 4096;

/// Writes down the sums of all files in a folder.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::write(folder.join(SUMS_FILE), of_folder(folder)?)
}

/// Whether the files are those of which the sums were written down, byte by byte.
pub fn hold(folder: &Path) -> bool {
    let written = fs::read_to_string(folder.join(SUMS_FILE));
    written.is_ok_and(|written| of_folder(folder).is_ok_and(|now| now == written))
}

fn of_folder(folder: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !LEFT_OUT.contains(&name.as_str()) {
            lines.push(format!("{}  {name}\n", of_file(&entry.path())?));
        }
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

/// What the sum beside a file says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// It is as it was: of this sum.
    Holds(String),
    /// It is not, or cannot be read.
    Differs,
    /// Nobody has written one down.
    Unknown,
}

/// Writes down a file's sum beside it; the sum.
pub fn write_beside(path: &Path) -> Result<String, Error> {
    let sum = of_file(path).map_err(|e| Error::io("read", path, e))?;
    image::place(&path.with_extension(BESIDE), sum.as_bytes())?;
    Ok(sum)
}

/// Whether a file is that of which the sum was written down beside it.
pub fn beside(path: &Path) -> Beside {
    match fs::read_to_string(path.with_extension(BESIDE)) {
        Err(_) => Beside::Unknown,
        Ok(written) if of_file(path).is_ok_and(|now| now == written) => Beside::Holds(written),
        Ok(_) => Beside::Differs,
    }
}

/// The sum of all files below a folder with their places, and of where links lead; without the file of this name
/// in the folder itself.
pub fn of_tree(folder: &Path, without: &str) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let place = path
                .strip_prefix(folder)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() {
                lines.push(format!("{} <- {place}\n", fs::read_link(&path)?.display()));
            } else if place != without {
                lines.push(format!("{}  {place}\n", of_file(&path)?));
            }
        }
    }
    lines.sort_unstable();
    Ok(hex(&Sha256::digest(lines.concat())))
}

/// The sum of a file's length, and of each block that is not empty with its place.
pub fn of_file(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut sum = Sha256::new();
    sum.update(length.to_le_bytes());
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    while let Some((from, to)) = next_data(&file, at, length)? {
        // Whole blocks, wherever the file system has a piece begin.
        at = from - from % BLOCK as u64;
        while at < to {
            let wanted = usize::try_from(length - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            file.read_exact_at(&mut buffer[..wanted], at)?;
            for (n, block) in buffer[..wanted].chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    sum.update((at + (n * BLOCK) as u64).to_le_bytes());
                    sum.update(block);
                }
            }
            at += wanted as u64;
        }
    }
    Ok(hex(&sum.finalize()))
}

/// The next piece of a file that is written, from `at` on. Where the file system knows no holes, it is the rest.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(from) => from,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok(Some((at, length))),
        Err(error) => return Err(error.into()),
    };
    let to = rustix::fs::seek(file, SeekFrom::Hole(from))?;
    Ok(Some((from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn other_bytes_are_found_and_holes_are_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let [sparse, whole] = ["sparse", "whole"].map(|name| dir.path().join(name));
        let file = File::create(&sparse).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"here", 5_000_001).unwrap();
        file.write_all_at(b"and here", (64 << 20) - 8).unwrap();
        let mut bytes = vec![0; 64 << 20];
        bytes[5_000_001..5_000_005].copy_from_slice(b"here");
        bytes[(64 << 20) - 8..].copy_from_slice(b"and here");
        fs::write(&whole, &bytes).unwrap();
        if fs::metadata(&sparse).unwrap().blocks() >= fs::metadata(&whole).unwrap().blocks() {
            eprintln!("this file system makes no holes");
        }
        let sum = of_file(&sparse).unwrap();
        assert_eq!(of_file(&whole).unwrap(), sum);
        file.write_all_at(b"H", 5_000_001).unwrap();
        assert_ne!(of_file(&sparse).unwrap(), sum);
        // The same bytes elsewhere, and more of nothing.
        file.write_all_at(b"h", 5_000_001).unwrap();
        assert_eq!(of_file(&sparse).unwrap(), sum);
        file.set_len((64 << 20) + 1).unwrap();
        assert_ne!(of_file(&sparse).unwrap(), sum);
    }

    #[test]
    fn a_tree_is_its_files_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("usr/lib")).unwrap();
        fs::write(path("usr/lib/a"), "a").unwrap();
        fs::write(path("left"), "l").unwrap();
        std::os::unix::fs::symlink("lib/a", path("usr/a")).unwrap();
        let sum = || of_tree(dir.path(), "left").unwrap();
        let before = sum();
        fs::write(path("left"), "m").unwrap();
        assert_eq!(sum(), before);
        fs::write(path("usr/lib/a"), "b").unwrap();
        assert_ne!(sum(), before);
        fs::remove_file(path("usr/lib/a")).unwrap();
        fs::write(path("usr/lib/b"), "a").unwrap();
        assert_ne!(sum(), before);
        fs::rename(path("usr/lib/b"), path("usr/lib/a")).unwrap();
        assert_eq!(sum(), before);
        fs::write(path("usr/left"), "").unwrap();
        assert_ne!(sum(), before, "of this name, and elsewhere");
    }

    #[test]
    fn a_file_is_as_it_was_or_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.ext4");
        fs::write(&path, "a").unwrap();
        assert_eq!(beside(&path), Beside::Unknown);
        let sum = write_beside(&path).unwrap();
        assert_eq!(beside(&path), Beside::Holds(sum));
        fs::write(&path, "b").unwrap();
        assert_eq!(beside(&path), Beside::Differs);
    }

    #[test]
    fn a_folder_is_as_it_was_or_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("memory"), "m").unwrap();
        fs::write(path("state"), "s").unwrap();
        assert!(!hold(dir.path()), "nobody has written them down");
        write(dir.path()).unwrap();
        assert!(hold(dir.path()));
        fs::write(path("console.log"), "words").unwrap();
        assert!(hold(dir.path()));
        fs::write(path("state"), "t").unwrap();
        assert!(!hold(dir.path()));
        fs::write(path("state"), "s").unwrap();
        assert!(hold(dir.path()));
        fs::remove_file(path("memory")).unwrap();
        assert!(!hold(dir.path()));
    }
}
