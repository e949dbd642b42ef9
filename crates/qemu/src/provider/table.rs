//! The VMs as this process knows them, and what all that happens to one works with.

use crate::cgroup::Cgroups;
use crate::channel::Channels;
use crate::error::Error;
use crate::settings::Settings;
use crate::vmdir::{self, ContextBy, Moment, Record, SlurmdStart};
use crate::warm::Ready;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use thiao_core::ids::{Time, VmId};
use thiao_core::view::HostView;
use thiao_guest::protocol::Phase;
use thiao_nfs::Exports;

/// How often the exports are looked after.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// The story's words for a guest that was given its identity.
pub(super) const CONTEXT_SENT: &str = "context sent";

/// The story's words for a guest that was brought back from a template.
pub(crate) const RESTORED: &str = "guest restored";

/// The provider. Clones share everything.
#[derive(Clone)]
pub struct Qemu {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub settings: Settings,
    pub vms_dir: PathBuf,
    pub cgroups: Cgroups,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    pub(super) table: Mutex<BTreeMap<VmId, Vm>>,
    /// The address that was given away last.
    pub(super) last_address: Mutex<Option<Ipv4Addr>>,
    pub(super) channels: OnceLock<Channels>,
    pub(super) exports: Mutex<Tended>,
    pub(super) ready: RwLock<Option<Arc<Ready>>>,
}

/// The exports, and when they were last looked after.
pub(super) struct Tended {
    pub(super) exports: Exports,
    pub(super) looked: Instant,
}

/// A VM as this process knows it.
#[derive(Debug, Default)]
pub(super) struct Vm {
    /// None when the folder holds no whole record: a crash between the two.
    pub(super) record: Option<Record>,
    pub(super) starting: bool,
    pub(super) stopping: bool,
    pub(super) context_sent: bool,
    /// The start of slurmd that its guest knows of, or is to be told.
    pub(super) start: Option<SlurmdStart>,
    pub(super) reports: Vec<(Phase, Option<String>)>,
    pub(super) story: Vec<Moment>,
}

impl Inner {
    /// The folder of a VM, which may not be there.
    pub fn folder(&self, id: &VmId) -> PathBuf {
        self.vms_dir.join(id.as_str())
    }

    /// Adds a moment to a VM's story.
    pub fn tell(&self, id: &VmId, what: &str) {
        let moment = (now(), what.to_owned());
        vmdir::tell(&self.folder(id), &moment);
        if let Some(vm) = self.table().get_mut(id) {
            vm.story.push(moment);
        }
    }

    pub(super) fn ready(&self) -> Option<Arc<Ready>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ports of the shares' servers, in the settings' order.
    pub fn export_ports(&self) -> Vec<u16> {
        let tended = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.settings.guest.shares.len())
            .map(|index| tended.exports.port(index))
            .collect()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, BTreeMap<VmId, Vm>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hosts(&self) -> Vec<HostView> {
        let view = |host: &crate::Host| HostView {
            name: host.name.clone(),
            cpu_percent: host.cpus * 100,
            memory_mb: host.memory_mb,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        };
        self.settings.hosts.iter().map(view).collect()
    }

    /// The ids of all VMs that have a folder.
    pub(super) fn folders(&self) -> Result<Vec<VmId>, Error> {
        let fail = |e: io::Error| Error::io("read", &self.vms_dir, e);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.vms_dir).map_err(fail)? {
            // Names that no id has are not ours: hidden ones, a person's notes.
            ids.extend(VmId::new(&entry.map_err(fail)?.file_name().to_string_lossy()).ok());
        }
        ids.sort();
        Ok(ids)
    }

    /// Starts ended exports again, now and then. VMs live on without one, so its failure fails nothing else.
    pub(super) fn tend_exports(&self) {
        let mut tended = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        if tended.looked.elapsed() >= TEND_EVERY {
            tended.looked = Instant::now();
            if let Err(error) = tended.exports.tend() {
                tracing::error!(%error, "a share is not served");
            }
        }
    }
}

impl Vm {
    /// Whether its guest has a channel.
    pub(super) fn speaks(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|record| record.told == ContextBy::Channel)
    }

    pub(super) fn read(folder: &Path) -> Self {
        let story = vmdir::story(folder);
        Self {
            record: Record::read(folder),
            // What was written to QEMU's socket reaches the guest even if we were ended since.
            context_sent: story.iter().any(|(_, what)| what == CONTEXT_SENT),
            start: SlurmdStart::read(folder),
            story,
            ..Self::default()
        }
    }
}

pub(super) fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
