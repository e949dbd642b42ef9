//! The provider: makes VMs, watches them, ends them, and takes up again those
//! that run already. What it knows is in the VMs' folders and in QEMU's locks;
//! the table in memory only saves reading them again.
//!
//! Here are the table and the look at it; `make`, `hear` and `end` hold what
//! happens to one VM.

mod end;
mod hear;
mod make;

pub(crate) use end::KILL_LIMIT;
pub(crate) use make::Wanted;

use crate::accel::Verdict;
use crate::cgroup::Cgroups;
use crate::channel::Channels;
use crate::error::Error;
use crate::image::Image;
use crate::machine;
use crate::settings::{Settings, Share};
use crate::vmdir::{self, Facts, Life, Moment, Record, SlurmdStart, Told};
use crate::warm::{Ready, Warmth};
use hear::{CONTEXT_SENT, heard};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use thiao_core::ids::{Time, VmId};
use thiao_core::view::{HostView, ProviderView, Shape, VmView};
use thiao_guest::protocol::Phase;
use thiao_nfs::{Exports, Folder};

/// How often the exports are looked after.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// The provider. Clones share everything.
#[derive(Clone)]
pub struct Qemu {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub settings: Settings,
    pub vms_dir: PathBuf,
    pub cgroups: Cgroups,
    wake: Arc<dyn Fn() + Send + Sync>,
    table: Mutex<BTreeMap<VmId, Vm>>,
    /// The address that was given away last.
    last_address: Mutex<Option<Ipv4Addr>>,
    channels: OnceLock<Channels>,
    exports: Mutex<Tended>,
    ready: RwLock<Option<Arc<Ready>>>,
}

/// The exports, and when they were last looked after.
struct Tended {
    exports: Exports,
    looked: Instant,
}

/// A VM as this process knows it.
#[derive(Debug, Default)]
struct Vm {
    /// None when the folder holds no whole record: a crash between the two.
    record: Option<Record>,
    starting: bool,
    stopping: bool,
    context_sent: bool,
    /// The start of slurmd that its guest knows of, or is to be told.
    start: Option<SlurmdStart>,
    reports: Vec<(Phase, Option<String>)>,
    story: Vec<Moment>,
}

/// What [`Qemu::prepare`] found, for people.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The guest image.
    pub image: Image,
    /// What runs the guests, and why.
    pub verdict: Verdict,
    /// Whether and how CPU shares are enforced.
    pub cpu_shares: String,
    /// Shapes that start from a template; those that boot each time say why.
    pub warm: Warmth,
}

impl Qemu {
    /// Takes up the VMs that run already. `wake` is called whenever something
    /// happened that [`Qemu::look`] would show, from another thread.
    pub fn open(settings: Settings, wake: Arc<dyn Fn() + Send + Sync>) -> Result<Self, Error> {
        vmdir::keep_private(&settings.state_dir.join("vms"))?;
        let vms_dir = settings.state_dir.join("vms");
        // QEMU is started inside the VMs' folders: what it is told must not be relative to ours.
        let vms_dir = vms_dir
            .canonicalize()
            .map_err(|e| Error::io("find", &vms_dir, e))?;
        let cgroups = Cgroups::detect(&settings.cluster);
        let Settings {
            guest,
            network,
            program,
            state_dir,
            ..
        } = &settings;
        let folder = |share: &Share| Folder {
            path: share.source.clone(),
            uid: share.uid,
            gid: share.gid,
        };
        let folders: Vec<Folder> = guest.shares.iter().map(folder).collect();
        let exports = Exports::start(&folders, network.address, program, state_dir)?;
        let inner = Arc::new(Inner {
            settings,
            vms_dir,
            cgroups,
            wake,
            table: Mutex::default(),
            last_address: Mutex::default(),
            channels: OnceLock::new(),
            exports: Mutex::new(Tended {
                exports,
                looked: Instant::now(),
            }),
            ready: RwLock::default(),
        });
        let weak = Arc::downgrade(&inner);
        let channels = Channels::open(Arc::new(move |id: &VmId, news| heard(&weak, id, news)))
            .map_err(|e| Error::io("attend the channels in", &inner.vms_dir, e))?;
        // Nobody else has seen this cell yet.
        let _ = inner.channels.set(channels);
        let qemu = Self { inner };
        qemu.adopt()?;
        Ok(qemu)
    }

    /// Readies the image, the acceleration and the templates for these shapes.
    /// All of it is kept: the next time it takes a second or two.
    pub fn prepare(&self, shapes: &[Shape], progress: &dyn Fn(&str)) -> Result<Prepared, Error> {
        let inner = &self.inner;
        let (ready, warm) = Ready::prepare(&inner.settings, shapes, progress)?;
        let ready = Arc::new(ready);
        *inner.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ready));
        Ok(Prepared {
            image: ready.image.clone(),
            verdict: ready.verdict.clone(),
            cpu_shares: inner.cgroups.describe(),
            warm,
        })
    }

    /// Everything, in one look: the folders, and per VM one question to the kernel.
    pub fn look(&self) -> Result<ProviderView, Error> {
        let inner = &self.inner;
        inner.tend_exports();
        let on_disk = inner.folders()?;
        let mut table = inner.table();
        let now = now();
        let (mut vms, mut unreached) = (Vec::new(), Vec::new());
        for id in on_disk {
            let folder = inner.folder(&id);
            let vm = table.entry(id.clone()).or_insert_with(|| Vm::read(&folder));
            let life = vmdir::life(&folder)?;
            if life == Life::Alive {
                inner.doubt(vm, now);
                if vm.speaks()
                    && !vm.starting
                    && !vm.stopping
                    && inner.channels.get().is_some_and(|c| !c.knows(&id))
                {
                    unreached.push(id.clone());
                }
            }
            let facts = Facts {
                starting: vm.starting,
                stopping: vm.stopping,
                life,
                reports: &vm.reports,
            };
            let state = facts.state(|| machine::tail(&folder.join(machine::CONSOLE_FILE)));
            vms.push(VmView {
                tag: vmdir::tag_of(&inner.settings.cluster, &id),
                id,
                host: vm.record.as_ref().and_then(Record::host),
                memory_mb: vm.record.as_ref().map_or(0, |record| record.total_mb),
                cpu_percent: vm.record.as_ref().map_or(0, Record::cpu_percent),
                state,
            });
        }
        // Folders that are gone belong to nobody any more.
        table.retain(|id, vm| vm.starting || vms.binary_search_by(|view: &VmView| view.id.cmp(id)).is_ok());
        drop(table);
        unreached.iter().for_each(|id| inner.reach(id));
        Ok(ProviderView {
            hosts: inner.hosts(),
            vms,
        })
    }

    /// What a VM reached, and when, oldest first.
    #[must_use]
    pub fn timeline(&self, id: &VmId) -> Vec<Moment> {
        match self.inner.table().get(id) {
            Some(vm) => vm.story.clone(),
            None => vmdir::story(&self.inner.folder(id)),
        }
    }

    /// Whether and how CPU shares are enforced, for people.
    #[must_use]
    pub fn cpu_shares(&self) -> String {
        self.inner.cgroups.describe()
    }

    /// Takes up the VMs whose folders are there: the living are asked how far they are.
    fn adopt(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.sweep()?;
        for id in inner.folders()? {
            let folder = inner.folder(&id);
            let vm = Vm::read(&folder);
            let speaks = vm.speaks();
            inner.table().insert(id.clone(), vm);
            if speaks && vmdir::life(&folder)? == Life::Alive {
                inner.reach(&id);
            }
        }
        Ok(())
    }
}

impl Inner {
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

    fn ready(&self) -> Option<Arc<Ready>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ports of the shares' servers, in the settings' order.
    pub fn export_ports(&self) -> Vec<u16> {
        let tended = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.settings.guest.shares.len())
            .map(|index| tended.exports.port(index))
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<VmId, Vm>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts(&self) -> Vec<HostView> {
        let view = |host: &crate::Host| HostView {
            name: host.name.clone(),
            cpu_percent: host.cpus * 100,
            memory_mb: host.memory_mb,
            gpus: None,
            usable: true,
            load: None,
        };
        self.settings.hosts.iter().map(view).collect()
    }

    /// The ids of all VMs that have a folder.
    fn folders(&self) -> Result<Vec<VmId>, Error> {
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
    fn tend_exports(&self) {
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
    fn speaks(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|record| record.told == Told::Channel)
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

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
