//! What is looked after while VMs run: the exports of folders, the bridge, the fence.

use super::people::exported;
use super::table::{Inner, Vm};
use crate::error::Error;
use crate::fence::Fence;
use crate::launch;
use crate::net::NetError;
use crate::qmp::Qmp;
use crate::settings::Guests;
use crate::vmdir::{self, QMP_SOCKET};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use thiao_core::ids::VmId;

/// How often bridge, disks and fence are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// What must be free where VMs' disks are before another VM is made, or one goes on that QEMU has paused for lack of it:
/// in bytes.
const ROOM: u64 = 256 << 20;

/// How long a QEMU may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Lets the next one look after all, also after a panic.
struct Tended<'a>(&'a AtomicBool);

impl Drop for Tended<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Inner {
    /// Looks after exports, bridge and fence, on a thread of its own: a user's folder may hang. What fails is told and
    /// tried again.
    pub(super) fn tend_beside(self: &Arc<Self>) {
        if self.tending.swap(true, Ordering::SeqCst) {
            return;
        }
        let inner = Arc::clone(self);
        std::thread::spawn(move || {
            let _end = Tended(&inner.tending);
            inner.tend();
        });
    }

    fn tend(&self) {
        self.tend_exports();
        if !self.is_time() {
            return;
        }
        if let Err(error) = self.tend_bridge() {
            tracing::error!(%error, "the VMs' network");
        }
        self.tend_disks();
        match self.fence.as_ref().map(Fence::tend) {
            Some(Ok(true)) => {
                tracing::warn!("the fence around VMs was gone from the kernel's tables, and is there again")
            }
            Some(Err(error)) => tracing::error!(%error, "the fence around VMs"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Whether bridge and fence are to be looked at once more.
    fn is_time(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= EVERY;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Mends the bridge, and puts VMs on it that are not there any more: whoever removed it cut them off.
    fn tend_bridge(&self) -> Result<(), NetError> {
        let taps: Vec<(VmId, String)> = {
            let table = self.table();
            let records = table
                .iter()
                .filter_map(|(id, vm)| Some((id, vm.record.as_ref()?)));
            records
                .map(|(id, record)| (id.clone(), launch::tap_name(record)))
                .collect()
        };
        let network = &self.settings.network;
        network.ensure_bridge()?;
        for (id, tap) in taps {
            if network.put_on_bridge(&tap)? {
                tracing::warn!(vm = %id, "was not on the VMs' bridge {}, and is again", network.bridge);
                self.tell(&id, "put on the VMs' bridge again, from which it was taken");
            }
        }
        Ok(())
    }

    /// Why no VM with disks can be made, nor go on: there is no room for what it writes. Nothing is said where all guests
    /// have memory alone.
    pub(super) fn no_room(&self) -> Option<String> {
        if self.settings.kinds().iter().all(|kind| **kind == Guests::Small) {
            return None;
        }
        let free = rustix::fs::statvfs(&self.vms_dir).ok()?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        (free < ROOM).then(|| {
            format!(
                "less than {} MiB are free on the disk of {}, where VMs' disks grow",
                ROOM >> 20,
                self.vms_dir.display(),
            )
        })
    }

    /// Finds the VMs that QEMU has paused because a disk of theirs could not grow, and has them go on where it can again.
    /// What they wrote is not lost: QEMU writes it then.
    fn tend_disks(&self) {
        let with_disks: Vec<VmId> = {
            let table = self.table();
            let runs = table.iter().filter(|(_, vm)| !vm.starting && !vm.stopping);
            runs.map(|(id, _)| id.clone())
                .filter(|id| self.folder(id).join(vmdir::ROOT_DISK).exists())
                .collect()
        };
        let no_room = self.no_room();
        let mut changed = false;
        for id in with_disks {
            // One that does not answer is left to others.
            let Ok(halted) = is_halted(&self.folder(&id), no_room.is_none()) else {
                continue;
            };
            let why = halted.then(|| {
                no_room
                    .clone()
                    .unwrap_or_else(|| "a disk of its cannot be written".to_owned())
            });
            let mut table = self.table();
            let Some(vm) = table.get_mut(&id) else { continue };
            if vm.paused.is_some() == why.is_some() {
                continue;
            }
            vm.paused.clone_from(&why);
            drop(table);
            changed = true;
            match why {
                Some(why) => {
                    tracing::error!(vm = %id, "paused by QEMU: {why}");
                    self.tell(&id, "paused: its disks cannot grow");
                }
                None => self.tell(&id, "goes on: its disks can grow again"),
            }
        }
        if changed {
            (self.wake)();
        }
    }

    /// Keeps the exports that are used, and opens the fence for those that moved.
    fn tend_exports(&self) {
        let used = || {
            let table = self.table();
            let of_vms = table.values().flat_map(|vm| &vm.people.exports);
            let exports = of_vms.map(|export| export.folder.clone());
            let always = self
                .settings
                .guest
                .shares
                .iter()
                .map(|share| exported(share).folder);
            exports.chain(always).collect()
        };
        let moved = self.shares.tend(used);
        let Some(fence) = &self.fence else { return };
        for (folder, port) in moved {
            let sees = |vm: &Vm| vm.people.exports.iter().any(|export| export.folder == folder);
            let vms: Vec<VmId> = {
                let table = self.table();
                table
                    .iter()
                    .filter(|(_, vm)| sees(vm))
                    .map(|(id, _)| id.clone())
                    .collect()
            };
            for vm in vms {
                if let Err(error) = fence.open(&vm, [port]) {
                    tracing::error!(%error, "an export that moved is not reached");
                }
            }
        }
    }
}

/// Whether QEMU keeps its guest halted for an error of a disk; if there is `room`, it is told to go on.
fn is_halted(folder: &Path, room: bool) -> Result<bool, Error> {
    let mut qmp = Qmp::connect(folder, QMP_SOCKET, ANSWER_LIMIT)?;
    let halted = qmp.ask("query-status", json!({}), ANSWER_LIMIT)?["status"] == "io-error";
    if halted && room {
        qmp.ask("cont", json!({}), ANSWER_LIMIT)?;
        return Ok(false);
    }
    Ok(halted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    /// What a QEMU is asked, one in this state.
    fn asked(status: &'static str, room: bool) -> (bool, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(QMP_SOCKET)).unwrap();
        let qemu = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            writeln!(&stream, "{}", json!({"QMP": {}})).unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let answered = lines.map_while(Result::ok).map(|line| {
                writeln!(&stream, "{}", json!({"return": {"status": status}})).unwrap();
                let order: serde_json::Value = serde_json::from_str(&line).unwrap();
                order["execute"].as_str().unwrap().to_owned()
            });
            answered.skip(1).collect()
        });
        let halted = is_halted(folder.path(), room).unwrap();
        (halted, qemu.join().unwrap())
    }

    #[test]
    fn a_vm_that_stands_still_for_lack_of_room_goes_on_when_there_is_some() {
        assert_eq!(asked("io-error", false), (true, vec!["query-status".to_owned()]));
        assert_eq!(
            asked("io-error", true),
            (false, vec!["query-status".to_owned(), "cont".to_owned()])
        );
        for other in ["running", "paused", "inmigrate"] {
            assert_eq!(
                asked(other, true),
                (false, vec!["query-status".to_owned()]),
                "{other}"
            );
        }
    }
}
