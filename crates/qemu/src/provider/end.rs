//! Ending a VM: QEMU first, then all traces of it.

use super::table::{Inner, Qemu, Vm};
use crate::error::Error;
use crate::launch;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;
use thiao_core::ids::VmId;

/// How long QEMU may take to end when it is asked to.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

/// How long it may take once it is killed.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How a folder begins whose VM is gone and whose removal is under way.
const REMOVED: &str = ".removed-";

impl Qemu {
    /// Ends a VM and removes its folder. One that is gone already is fine.
    pub fn destroy(&self, id: &VmId) -> Result<(), Error> {
        let inner = &self.inner;
        let folder = inner.folder(id);
        {
            let mut table = inner.table();
            match table.get_mut(id) {
                Some(vm) if vm.starting => {
                    return Err(Error::Qemu(format!(
                        "VM {id} is being started; end it when that is through"
                    )));
                }
                Some(vm) => vm.stopping = true,
                None if !folder.exists() => return Ok(()),
                None => {
                    table.insert(
                        id.clone(),
                        Vm {
                            stopping: true,
                            ..inner.read(&folder)
                        },
                    );
                }
            }
        }
        let ended = inner.end(id, &folder);
        let mut table = inner.table();
        match &ended {
            Ok(()) => drop(table.remove(id)),
            Err(_) => {
                if let Some(vm) = table.get_mut(id) {
                    vm.stopping = false;
                }
            }
        }
        ended
    }
}

impl Inner {
    /// Ends QEMU if it lives, and removes all traces of the VM.
    pub(super) fn end(&self, id: &VmId, folder: &Path) -> Result<(), Error> {
        if let Some(channels) = self.channels.get() {
            channels.forget(id);
        }
        launch::stop(folder, QUIT_LIMIT, KILL_LIMIT)?;
        self.cgroups.remove(id);
        // Its card went with it.
        if let Some(Err(error)) = self.fence.as_ref().map(|fence| fence.forget(id)) {
            tracing::error!(vm = %id, %error, "the fence still knows a VM that is gone");
        }
        self.arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        // Renamed first: an observation never sees half a folder.
        let removed = self.vms_dir.join(format!("{REMOVED}{id}"));
        let _ = fs::remove_dir_all(&removed);
        match fs::rename(folder, &removed) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("remove", folder, e)),
        }
        fs::remove_dir_all(&removed).map_err(|e| Error::io("remove", &removed, e))
    }

    /// Removes what a crash left of a removal.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.vms_dir)
            .map_err(|e| Error::io("read", &self.vms_dir, e))?
            .flatten()
        {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(REMOVED.as_bytes())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}
