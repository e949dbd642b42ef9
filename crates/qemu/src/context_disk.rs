//! VMs as OpenNebula makes them: address and card are given, the guest is told
//! by a context disk and has no channel. They boot each time.

use crate::error::Error;
use crate::launch;
use crate::provider::{KILL_LIMIT, NewVm, People, Qemu};
use crate::qmp::Qmp;
use crate::vmdir::{self, CONTEXT_DISK, ContextBy, Life, QMP_SOCKET};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use thiao_core::ids::{HostName, VmId, VmTag};

/// How long QEMU may take for a word: to pass the press of a power button on, to stop a guest's clock.
const PRESS_LIMIT: Duration = Duration::from_secs(2);

/// A VM that is told by a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskVm<'a> {
    pub cpus: u32,
    /// All memory that the guest gets, in MiB.
    pub memory_mb: u64,
    /// Per vCPU, in percent of a core.
    pub share_percent: u32,
    /// Its address, which the disk says too.
    pub address: Ipv4Addr,
    /// Its card's hardware address.
    pub mac: [u8; 6],
    /// The disk: an ISO 9660 file system with the label CONTEXT.
    pub iso: &'a [u8],
}

impl Qemu {
    /// Starts a VM that is told by a disk. The same tag again gives the same id
    /// and starts nothing. [`Qemu::observe`] shows it as booting as long as it
    /// runs: it reports nothing to this machine.
    pub fn create_told(&self, tag: &VmTag, host: &HostName, vm: &DiskVm<'_>) -> Result<VmId, Error> {
        let wanted = NewVm {
            cpus: vm.cpus,
            memory_mb: vm.memory_mb,
            total_mb: vm.memory_mb,
            share_percent: vm.share_percent,
            address: Some(vm.address),
            told: ContextBy::Disk { mac: vm.mac },
            job: None,
            leader: None,
            people: People::default(),
        };
        self.make(tag, host, wanted, &|id, _, _| {
            write_disk(&self.inner.folder(id), vm.iso)
        })
    }

    /// The ports of the shares' servers, in the settings' order: who tells
    /// guests by a disk must write them on it.
    #[must_use]
    pub fn export_ports(&self) -> Vec<u16> {
        self.inner.export_ports()
    }

    /// Presses a VM's power button, and does not wait: a guest that knows the
    /// button ends by itself. One that is gone already is fine.
    pub fn shut_down(&self, id: &VmId) -> Result<(), Error> {
        let folder = self.inner.folder(id);
        if !folder.exists() || vmdir::life(&folder)? != Life::Alive {
            return Ok(());
        }
        Self::word(&folder, "system_powerdown")
    }

    /// Has a VM stand still, with its memory where it is: as one that was saved. It stays alive for
    /// [`Qemu::observe`].
    pub fn stand_still(&self, id: &VmId) -> Result<(), Error> {
        Self::word(&self.inner.folder(id), "stop")
    }

    /// Has one that stands still go on.
    pub fn go_on(&self, id: &VmId) -> Result<(), Error> {
        Self::word(&self.inner.folder(id), "cont")
    }

    fn word(folder: &Path, word: &str) -> Result<(), Error> {
        Qmp::connect(folder, QMP_SOCKET, PRESS_LIMIT)?
            .ask(word, json!({}), PRESS_LIMIT)
            .map(drop)
    }

    /// Ends a VM's QEMU at once; its folder stays for [`Qemu::destroy`].
    pub fn kill(&self, id: &VmId) -> Result<(), Error> {
        let folder = self.inner.folder(id);
        match folder.exists() {
            true => launch::stop(&folder, Duration::ZERO, KILL_LIMIT),
            false => Ok(()),
        }
    }
}

/// The disk holds secrets: nobody else reads it.
pub fn write_disk(folder: &Path, iso: &[u8]) -> Result<(), Error> {
    let path = folder.join(CONTEXT_DISK);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(iso))
        .map_err(|e| Error::io("write", &path, e))
}
