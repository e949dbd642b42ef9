//! The provider: makes VMs, watches them, ends them, and takes up again those
//! that run already. What it knows is in the VMs' folders and in QEMU's locks;
//! the table in memory only saves reading them again.
//!
//! Here is the observation of all of it; `make`, `hear` and `end` hold what happens to one VM,
//! `table` what all of these share.

mod end;
mod hear;
mod make;
mod table;

pub(crate) use end::KILL_LIMIT;
pub(crate) use make::NewVm;
pub use table::Qemu;
pub(crate) use table::{Inner, RESTORED};

use crate::accel::Choice;
use crate::cgroup::Cgroups;
use crate::channel::Channels;
use crate::error::Error;
use crate::image::Image;
use crate::machine;
use crate::settings::{Settings, Share};
use crate::vmdir::{self, Facts, Life, Moment, Record};
use crate::warm::{Ready, Warmth};
use hear::heard;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;
use table::{Tended, Vm, now};
use thiao_core::ids::VmId;
use thiao_core::view::{ProviderView, Shape, VmView};
use thiao_nfs::{Exports, Folder};

/// What [`Qemu::prepare`] found, for people.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub image: Image,
    /// What runs the guests, and why.
    pub verdict: Choice,
    /// Whether and how CPU shares are enforced.
    pub cpu_shares: String,
    /// Shapes that start from a template; those that boot each time say why.
    pub warm: Warmth,
}

impl Qemu {
    /// Makes the bridge where it is missing, and takes up the VMs that run already. `wake` is called whenever something
    /// happened that [`Qemu::observe`] would show, from another thread.
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
        // Exports listen on its address.
        network.ensure_bridge()?;
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

    /// Everything, in one observation: the folders, and per VM one question to the kernel.
    pub fn observe(&self) -> Result<ProviderView, Error> {
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
                restarted: vm.record.as_ref().is_some_and(Record::is_of_an_earlier_boot),
                reports: &vm.reports,
            };
            let state = facts.state(|| machine::tail(&folder.join(vmdir::CONSOLE_FILE)));
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

    /// What a VM's guest wrote on its console last, if its folder is there.
    #[must_use]
    pub fn last_words(&self, id: &VmId) -> Option<String> {
        machine::end_of(&self.inner.folder(id).join(vmdir::CONSOLE_FILE))
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
