//! The context disk of an OpenNebula VM: a CD or a virtio disk with the label CONTEXT.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use thiao_guest::context_disk::{
    CONTEXT_FILE, ContextDisk, DESCRIPTOR_AT, DESCRIPTOR_LEN, TOKEN_FILE, is_context_disk,
};

/// Where it is mounted while it is read.
const PLACE: &str = "/run/context";

/// What the disks' names begin with: virtio's, CDs, SCSI's and SATA's, old IDE's.
const KINDS: [&str; 4] = ["vd", "sr", "sd", "hd"];

/// The most that a file of it may hold, in bytes; OpenNebula's own limit of a
/// VM's description is smaller.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads the context disk; `None` while there is none.
pub fn find() -> Result<Option<ContextDisk>, String> {
    let Some(disk) = disks().into_iter().find(|disk| is_labelled(disk)) else {
        return Ok(None);
    };
    fs::create_dir_all(PLACE).map_err(|e| format!("cannot make {PLACE}: {e}"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(&disk, PLACE, "iso9660", flags, None)
        .map_err(|e| format!("cannot mount the context disk {}: {e}", disk.display()))?;
    let told = read(Path::new(PLACE));
    // The secrets on it are not for jobs: they must not find it mounted.
    unmount(PLACE, UnmountFlags::DETACH).map_err(|e| format!("cannot unmount {PLACE}: {e}"))?;
    let told = told.map_err(|e| format!("the context disk {}: {e}", disk.display()))?;
    Ok(Some(told))
}

fn disks() -> Vec<PathBuf> {
    let mut disks: Vec<PathBuf> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            KINDS
                .iter()
                .any(|kind| name.as_encoded_bytes().starts_with(kind.as_bytes()))
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    disks.sort();
    disks
}

fn is_labelled(disk: &Path) -> bool {
    let mut descriptor = [0; DESCRIPTOR_LEN];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut descriptor, DESCRIPTOR_AT))
        .is_ok_and(|()| is_context_disk(&descriptor))
}

fn read(folder: &Path) -> Result<ContextDisk, String> {
    let context = text(&folder.join(CONTEXT_FILE))?.ok_or_else(|| format!("it has no {CONTEXT_FILE}"))?;
    let token = text(&folder.join(TOKEN_FILE))?;
    ContextDisk::read(&context, token.as_deref())
}

/// A file's text; `None` when it is not there.
fn text(path: &Path) -> Result<Option<String>, String> {
    let fail = |e: io::Error| format!("cannot read {}: {e}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    let mut text = String::new();
    file.take(FILE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(format!("{} has more than {FILE_LIMIT} bytes", path.display()));
    }
    Ok(Some(text))
}
