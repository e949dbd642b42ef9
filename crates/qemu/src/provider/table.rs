//! The VMs as this process knows them, and what all that happens to one works with.

use super::people::{Arrivals, People, exported};
use crate::cgroup::Cgroups;
use crate::channel::Channels;
use crate::error::Error;
use crate::fence::Fence;
use crate::people::{Directory, Person};
use crate::settings::Settings;
use crate::shares::Shares;
use crate::vmdir::{self, ContextBy, Moment, Record, SlurmdStart};
use crate::warm::Ready;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime};
use thiao_core::ids::{Time, VmId};
use thiao_core::view::HostView;
use thiao_guest::protocol::Phase;

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
    pub(super) shares: Shares,
    pub(super) directory: Directory,
    pub(super) fence: Option<Fence>,
    /// Whether somebody looks after exports and fence just now.
    pub(super) tending: AtomicBool,
    pub(super) looked: Mutex<Instant>,
    pub(super) arrivals: Mutex<Arrivals>,
    pub(super) arrival: Condvar,
    pub(super) last_arrival: Mutex<u64>,
    pub(super) ready: RwLock<Option<Arc<Ready>>>,
}

/// A VM as this process knows it.
#[derive(Debug, Default)]
pub(super) struct Vm {
    /// None when the folder holds no whole record: a crash between the two.
    pub(super) record: Option<Record>,
    pub(super) starting: bool,
    pub(super) stopping: bool,
    pub(super) context_sent: bool,
    /// Why QEMU keeps it still, when it was looked at last.
    pub(super) paused: Option<String>,
    /// The start of slurmd that its guest knows of, or is to be told.
    pub(super) start: Option<SlurmdStart>,
    pub(super) reports: Vec<(Phase, Option<String>)>,
    pub(super) story: Vec<Moment>,
    /// Whom its guest knows, and what it sees.
    pub(super) people: People,
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
        let shares = self.settings.guest.shares.iter();
        let port = |share| self.shares.port(&exported(share).folder).unwrap_or_default();
        shares.map(port).collect()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, BTreeMap<VmId, Vm>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hosts(&self) -> Vec<HostView> {
        let closed = self.no_room();
        let view = |host: &crate::Host| HostView {
            name: host.name.clone(),
            cpu_percent: host.cpus * 100,
            memory_mb: host.memory_mb,
            gpus: None,
            usable: closed.is_none(),
            closed: closed.clone(),
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
}

impl Inner {
    /// A VM as its folder tells of it.
    pub(super) fn read(&self, folder: &Path) -> Vm {
        let guest = &self.settings.guest;
        let before = || {
            let users = guest.users.iter().map(|user| Person {
                user: user.clone(),
                groups: Vec::new(),
            });
            People::ahead(users, &guest.shares)
        };
        Vm {
            people: vmdir::read_people(folder).unwrap_or_else(before),
            ..Vm::read(folder)
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

    fn read(folder: &Path) -> Self {
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
