//! The provider: makes VMs, watches them, ends them, and takes up again those
//! that run already. What it knows is in the VMs' folders and in QEMU's locks;
//! the table in memory only saves reading them again.
//!
//! Here is the observation of all of it; `make`, `hear` and `end` hold what happens to one VM,
//! `table` what all of these share.

mod end;
mod hear;
mod make;
mod people;
mod table;
mod tend;

pub(crate) use end::KILL_LIMIT;
pub(crate) use make::NewVm;
pub use people::Heard;
pub(crate) use people::People;
pub use table::Qemu;
pub(crate) use table::{Inner, RESTORED};

use crate::accel::Choice;
use crate::cgroup::Cgroups;
use crate::channel::Channels;
use crate::error::Error;
use crate::fence::{Fence, Rules, table_of};
use crate::people::Directory;
use crate::process;
use crate::settings::{FenceSettings, Settings};
use crate::shares::Shares;
use crate::vmdir::{self, Facts, Life, Moment, Record};
use crate::warm::{Ready, Warmth};
use hear::heard;
use people::exported;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;
use table::{Vm, now};
use thiao_core::ids::{NodeName, NodesetName, VmId};
use thiao_core::view::{ProviderView, Shape, VmView};

/// What [`Qemu::prepare`] found, for people.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Nodes whose guests have no image, and why.
    pub faults: BTreeMap<NodeName, String>,
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
        // Exports listen on its address.
        network.ensure_bridge()?;
        let shares = Shares::new(program.clone(), state_dir.clone(), network.address);
        for share in &guest.shares {
            shares.serve(&exported(share).folder)?;
        }
        let fence = settings
            .fence
            .as_ref()
            .map(|fence| Fence::new(fence_rules(&settings, fence)));
        let inner = Arc::new(Inner {
            settings,
            vms_dir,
            cgroups,
            wake,
            table: Mutex::default(),
            last_address: Mutex::default(),
            channels: OnceLock::new(),
            shares,
            directory: Directory::default(),
            fence,
            tending: Default::default(),
            looked: Mutex::new(Instant::now()),
            arrivals: Mutex::default(),
            arrival: Condvar::new(),
            last_arrival: Mutex::default(),
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

    /// Readies the images, the acceleration and the templates for these shapes of these nodesets.
    /// All of it is kept: the next time it takes a second or two.
    pub fn prepare(
        &self,
        shapes: &[(NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<Prepared, Error> {
        let inner = &self.inner;
        if let Some(fence) = &inner.fence {
            fence.tend()?;
        }
        let (ready, warm) = Ready::prepare(&inner.settings, shapes, progress)?;
        let ready = Arc::new(ready);
        *inner.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ready));
        Ok(Prepared {
            faults: ready.faults(),
            verdict: ready.verdict.clone(),
            cpu_shares: inner.cgroups.describe(),
            warm,
        })
    }

    /// Everything, in one observation: the folders, and per VM one question to the kernel.
    pub fn observe(&self) -> Result<ProviderView, Error> {
        let inner = &self.inner;
        inner.tend_beside();
        let on_disk = inner.folders()?;
        let mut table = inner.table();
        let now = now();
        let (mut vms, mut unreached, mut living) = (Vec::new(), Vec::new(), Vec::new());
        for id in on_disk {
            let folder = inner.folder(&id);
            let vm = table.entry(id.clone()).or_insert_with(|| inner.read(&folder));
            let life = vmdir::life(&folder)?;
            if life == Life::Alive {
                inner.doubt(&id, vm, now);
                living.push(folder.join(vmdir::CONSOLE_FILE));
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
                paused: vm.paused.as_deref(),
                reports: &vm.reports,
            };
            let state = facts.state(|| process::tail(&folder.join(vmdir::CONSOLE_FILE)));
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
        living.iter().for_each(|console| bound_console(console));
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
        process::end_of(&self.inner.folder(id).join(vmdir::CONSOLE_FILE))
    }

    /// Whether and how CPU shares are enforced, for people.
    #[must_use]
    pub fn cpu_shares(&self) -> String {
        self.inner.cgroups.describe()
    }

    /// Has the exports run that VMs use, and fences these VMs, before anything is said to their guests. An export that
    /// does not run is tried again; so is the fence, without which no VM is made.
    fn adopt_fence(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let mut fenced = Vec::new();
        for id in inner.folders()? {
            let folder = inner.folder(&id);
            if vmdir::life(&folder)? != Life::Alive {
                continue;
            }
            let Vm { record, people, .. } = inner.read(&folder);
            let Some(record) = record else { continue };
            if let Err(error) = inner.serve(&people.exports) {
                tracing::error!(vm = %id, %error, "a share is not served");
            }
            fenced.push(inner.fenced(&id, &record, &people));
        }
        if let Some(Err(error)) = inner.fence.as_ref().map(|fence| fence.adopt(fenced)) {
            tracing::error!(%error, "the fence around VMs");
        }
        Ok(())
    }

    /// Takes up the VMs whose folders are there: the living are asked how far they are.
    fn adopt(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.sweep()?;
        self.adopt_fence()?;
        for id in inner.folders()? {
            let folder = inner.folder(&id);
            let vm = inner.read(&folder);
            let speaks = vm.speaks();
            inner.table().insert(id.clone(), vm);
            if speaks && vmdir::life(&folder)? == Life::Alive {
                inner.reach(&id);
            }
        }
        Ok(())
    }
}

/// Keeps a guest from filling this machine's disk with words.
fn bound_console(console: &Path) {
    match process::bound(console) {
        Ok(_) => {}
        // It has said nothing yet, or its VM went this moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(console = %console.display(), %error, "a console's log cannot be cut"),
    }
}

/// What holds for all VMs alike.
fn fence_rules(settings: &Settings, fence: &FenceSettings) -> Rules {
    let guest = &settings.guest;
    let port = guest.slurmctld_port;
    let backups = guest.backups.iter().map(|backup| (backup.addr, port));
    // Where the kernel does not say, what it does of itself.
    let any_port = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut any_port = any_port.split_whitespace().filter_map(|port| port.parse().ok());
    Rules {
        table: table_of(&settings.cluster),
        host: settings.network.address,
        prefix_len: settings.network.prefix_len,
        slurmctlds: [(guest.slurmctld_addr, port)]
            .into_iter()
            .chain(backups)
            .collect(),
        any_port: any_port.next().zip(any_port.next()).unwrap_or((32_768, 60_999)),
        allow: fence.allow.clone(),
    }
}
