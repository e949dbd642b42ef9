//! What is left of a controller that is gone for good: VMs and exports outlive it.

use crate::Error;
use crate::fence::{self, FenceError};
use crate::vmdir::{Life, kill, life, wait_gone};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::ids::{ClusterName, VmId};
use thiao_core::spool;
use thiao_nfs::Exports;

/// How long a killed QEMU may take until the kernel has taken it down.
const PATIENCE: Duration = Duration::from_secs(10);

/// The VMs that run, by a state folder.
///
/// # Errors
/// When the folder cannot be read: then nothing is known of them.
pub fn vms(state_dir: &Path) -> Result<Vec<VmId>, Error> {
    Ok(alive(state_dir)?.into_iter().map(|(id, _)| id).collect())
}

/// Kills the VMs that run, ends the exports of users' folders, and takes the fence away.
///
/// # Errors
/// At the first that does not end.
pub fn end(state_dir: &Path) -> Result<(), Error> {
    let alive = alive(state_dir)?;
    for (_, folder) in &alive {
        kill(folder)?;
    }
    for (_, folder) in &alive {
        if !wait_gone(folder, PATIENCE)? {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Error::io("end the VM of", folder, late));
        }
    }
    Exports::stop_recorded(state_dir)?;
    let cluster = fs::read_to_string(state_dir.join("spool").join(spool::CLUSTER)).unwrap_or_default();
    match ClusterName::new(cluster.trim()).map(|cluster| fence::remove(&cluster)) {
        // Without its name there was none of ours, and without the program or the right none at all that we made.
        Err(_) | Ok(Ok(()) | Err(FenceError::NoProgram | FenceError::NotPermitted)) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// The running VMs, each with its folder.
fn alive(state_dir: &Path) -> Result<Vec<(VmId, PathBuf)>, Error> {
    let vms = state_dir.join("vms");
    let entries = match fs::read_dir(&vms) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", &vms, e)),
    };
    let mut alive = Vec::new();
    for entry in entries {
        let folder = entry.map_err(|e| Error::io("read", &vms, e))?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        // Other things than VMs are none of ours.
        let Ok(id) = VmId::new(&name) else { continue };
        if life(&folder)? == Life::Alive {
            alive.push((id, folder));
        }
    }
    alive.sort();
    Ok(alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmdir::begin_life;

    #[test]
    fn vms_that_run_are_found_by_their_locks() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(vms(state.path()).unwrap(), [], "a controller that never was");
        for id in ["fg0.1", "fg1.4"] {
            fs::create_dir_all(state.path().join("vms").join(id)).unwrap();
        }
        let running = begin_life(&state.path().join("vms/fg1.4")).unwrap();
        assert_eq!(vms(state.path()).unwrap(), [VmId::new("fg1.4").unwrap()]);
        drop(running);
        assert_eq!(vms(state.path()).unwrap(), []);
    }
}
