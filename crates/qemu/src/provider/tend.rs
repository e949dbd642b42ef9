//! What is looked after while VMs run: the exports of folders, the bridge, the fence.

use super::people::exported;
use super::table::{Inner, Vm};
use crate::fence::Fence;
use crate::launch;
use crate::net::NetError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use thiao_core::ids::VmId;

/// How often bridge and fence are looked at.
const EVERY: Duration = Duration::from_secs(10);

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
