//! The provider: makes VMs, watches them, ends them, and takes up again those
//! that run already. What it knows is in the VMs' folders and in QEMU's locks;
//! the table in memory only saves reading them again.

use crate::accel::Verdict;
use crate::address;
use crate::cgroup::Cgroups;
use crate::channel::{Channels, News};
use crate::error::Error;
use crate::export::Exports;
use crate::image::Image;
use crate::launch;
use crate::settings::Settings;
use crate::vmdir::{self, Facts, Life, Moment, Record, Told};
use crate::warm::{Ready, Warmth};
use crate::{guest, machine};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};
use thiao_core::ids::{HostName, Millis, Time, VmId, VmTag};
use thiao_core::view::{HostView, ProviderView, Shape, VmView};
use thiao_guest::protocol::{Phase, Report, Request};

/// How long QEMU may take to end when it is asked to.
const QUIT_LIMIT: Duration = Duration::from_millis(500);

/// How long it may take once it is killed.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long a QEMU whose channel closed may still hold its lock.
const CLOSING_LIMIT: Duration = Duration::from_millis(500);

/// How long a restored guest may take to take its context: a few hundred milliseconds are usual.
const SILENCE_LIMIT: Millis = Millis::secs(60);

/// How often the exports are looked after.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// What a guest's kernel keeps for itself, in MiB: measured 35 on guests of 256 to 440 MiB.
const KERNEL_MB: u64 = 36;

/// And one part in this many of all memory, for its tables of pages.
const PAGE_TABLE_PART: u64 = 64;

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
    reports: Vec<(Phase, Option<String>)>,
    story: Vec<Moment>,
}

/// A VM to be made.
pub(crate) struct Wanted {
    pub cpus: u32,
    /// What Slurm promises on it, in MiB.
    pub memory_mb: u64,
    /// What it takes from its host, in MiB.
    pub total_mb: u64,
    pub share_percent: u32,
    /// None: a free one of the network's.
    pub address: Option<Ipv4Addr>,
    pub told: Told,
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
            thiao,
            state_dir,
            ..
        } = &settings;
        let exports = Exports::start(&guest.shares, network.address, thiao, state_dir)?;
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
                cpu_percent: vm
                    .record
                    .as_ref()
                    .map_or(0, |record| record.cpus * record.share_percent),
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

    /// Starts a VM on a host. The same tag again gives the same id and starts nothing.
    pub fn create(&self, tag: &VmTag, host: &HostName, shape: Shape) -> Result<VmId, Error> {
        let wanted = Wanted {
            cpus: shape.cpus,
            memory_mb: shape.memory_mb,
            total_mb: self.inner.total_mb(shape),
            share_percent: shape.share_percent,
            address: None,
            told: Told::Channel,
        };
        self.inner.has_room_for_its_kernel(&wanted)?;
        self.make(tag, host, wanted, &|_| Ok(()))
    }

    /// Claims and starts a VM; `furnish` adds to its folder what QEMU needs there.
    pub(crate) fn make(
        &self,
        tag: &VmTag,
        host: &HostName,
        wanted: Wanted,
        furnish: &dyn Fn(&Path) -> Result<(), Error>,
    ) -> Result<VmId, Error> {
        let inner = &self.inner;
        if tag.cluster != inner.settings.cluster {
            return Err(Error::Refused(format!(
                "{tag} is of another cluster: this is {}",
                inner.settings.cluster
            )));
        }
        let id = vmdir::id_of(tag)?;
        let ready = inner
            .ready()
            .ok_or_else(|| Error::Refused("the provider was not prepared yet".to_owned()))?;
        let Some(record) = inner.claim(&id, host, wanted)? else {
            return Ok(id);
        };
        let folder = inner.folder(&id);
        let channels = inner.channels.get();
        let started = record
            .write(&folder)
            .and_then(|()| furnish(&folder))
            .and_then(|()| launch::launch(inner, &ready, channels, &id, &record));
        match started {
            Ok(()) => {
                if let Some(vm) = inner.table().get_mut(&id) {
                    vm.starting = false;
                }
                Ok(id)
            }
            Err(error) => {
                // A half-made VM is no VM: take all of it back, then say why.
                let cleared = inner.end(&id, &folder);
                inner.table().remove(&id);
                cleared.and(Err(error))
            }
        }
    }

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
                            ..Vm::read(&folder)
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
        for entry in fs::read_dir(&inner.vms_dir)
            .map_err(|e| Error::io("read", &inner.vms_dir, e))?
            .flatten()
        {
            // What a crash left of a removal.
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(REMOVED.as_bytes())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
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

/// How a folder begins whose VM is gone and whose removal is under way.
const REMOVED: &str = ".removed-";

/// The story's words for a guest that was given its identity.
const CONTEXT_SENT: &str = "context sent";

impl Inner {
    pub fn folder(&self, id: &VmId) -> PathBuf {
        self.vms_dir.join(id.as_str())
    }

    pub fn total_mb(&self, shape: Shape) -> u64 {
        shape.memory_mb + self.settings.overhead_mb
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

    /// A guest that was restored and stays silent has a broken template behind it.
    fn doubt(&self, vm: &Vm, now: Time) {
        let told = |words: &str| vm.story.iter().any(|(_, what)| what == words);
        if told(launch::RESTORED)
            && !told(Phase::Configured.as_str())
            && let (Some(record), Some(ready)) = (&vm.record, self.ready())
            && now.since(Time(record.created_ms)) > SILENCE_LIMIT
        {
            ready.distrust((record.cpus, record.total_mb));
        }
    }

    /// Connects to the guest of a running VM and asks how far it is. It may not
    /// be up enough yet: the next look tries again.
    fn reach(&self, id: &VmId) {
        let Some(channels) = self.channels.get() else {
            return;
        };
        let asked = channels
            .connect(id, &self.folder(id))
            .and_then(|()| channels.say(id, &Request::Status));
        if let Err(error) = asked {
            tracing::debug!(vm = %id, %error, "cannot reach the guest of a running VM yet");
        }
    }

    /// Notes that the context is being sent; false when it was before.
    pub fn first_context(&self, id: &VmId) -> bool {
        self.table()
            .get_mut(id)
            .is_some_and(|vm| !std::mem::replace(&mut vm.context_sent, true))
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

    /// Whether slurmd will see the memory that is promised.
    fn has_room_for_its_kernel(&self, wanted: &Wanted) -> Result<(), Error> {
        let total_mb = wanted.total_mb;
        let seen_mb = (total_mb - total_mb / PAGE_TABLE_PART).saturating_sub(KERNEL_MB);
        if seen_mb >= wanted.memory_mb {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "a guest of {total_mb} MiB shows slurmd about {seen_mb} MiB, less than the {} MiB promised; \
             raise the guests' memory overhead (now {} MiB) by {} MiB",
            wanted.memory_mb,
            self.settings.overhead_mb,
            wanted.memory_mb - seen_mb + 1
        )))
    }

    /// Makes the VM's folder, which decides that this call creates it, with
    /// room on the host and an address of its own. `None`: it exists.
    fn claim(&self, id: &VmId, host: &HostName, wanted: Wanted) -> Result<Option<Record>, Error> {
        let Some(capacity) = self.settings.hosts.iter().find(|other| other.name == *host) else {
            return Err(Error::Refused(format!("there is no host {host} on this machine")));
        };
        let folder = self.folder(id);
        let mut table = self.table();
        if table.contains_key(id) || folder.exists() {
            return Ok(None);
        }
        let total_mb = wanted.total_mb;
        let mut used_mb = 0;
        let mut addresses = BTreeSet::new();
        let mut newest: Option<&Record> = None;
        for (other, vm) in table.iter() {
            let Some(record) = &vm.record else { continue };
            if vm.starting || vmdir::life(&self.folder(other))? == Life::Alive {
                addresses.insert(record.address);
                used_mb += if record.host == host.as_str() {
                    record.total_mb
                } else {
                    0
                };
            }
            if newest.is_none_or(|newest| newest.created_ms < record.created_ms) {
                newest = Some(record);
            }
        }
        let free_mb = capacity.memory_mb.saturating_sub(used_mb);
        if total_mb > free_mb {
            return Err(Error::Full {
                host: host.clone(),
                free_mb,
                needed_mb: total_mb,
            });
        }
        let now = now();
        let mut last = self.last_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = match wanted.address {
            Some(given) if addresses.contains(&given) => {
                return Err(Error::Qemu(format!("another VM still has the address {given}")));
            }
            Some(given) => given,
            None => {
                let after = last.or(newest.map(|record| record.address));
                let pool = self.settings.network.pool();
                address::pick(pool, &addresses, after, now).ok_or(Error::NoAddress)?
            }
        };
        if !vmdir::make_private(&folder)? {
            return Ok(None);
        }
        *last = Some(address);
        drop(last);
        let record = Record {
            host: host.to_string(),
            cpus: wanted.cpus,
            memory_mb: wanted.memory_mb,
            total_mb,
            share_percent: wanted.share_percent,
            address,
            told: wanted.told,
            created_ms: now.0,
        };
        let vm = Vm {
            record: Some(record.clone()),
            starting: true,
            ..Vm::default()
        };
        table.insert(id.clone(), vm);
        drop(table);
        self.tell(id, "VM asked for");
        Ok(Some(record))
    }

    /// Ends QEMU if it lives, and removes all traces of the VM.
    fn end(&self, id: &VmId, folder: &Path) -> Result<(), Error> {
        if let Some(channels) = self.channels.get() {
            channels.forget(id);
        }
        launch::stop(folder, QUIT_LIMIT, KILL_LIMIT)?;
        self.cgroups.remove(id);
        // Renamed first: a look never sees half a folder.
        let removed = self.vms_dir.join(format!("{REMOVED}{id}"));
        let _ = fs::remove_dir_all(&removed);
        match fs::rename(folder, &removed) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("remove", folder, e)),
        }
        fs::remove_dir_all(&removed).map_err(|e| Error::io("remove", &removed, e))
    }

    /// Takes a guest's report into the table; true when it was new.
    fn take(&self, id: &VmId, report: Report) -> bool {
        let what = match &report.detail {
            Some(detail) => format!("{}: {detail}", report.phase.as_str()),
            None => report.phase.as_str().to_owned(),
        };
        {
            let mut table = self.table();
            let Some(vm) = table.get_mut(id) else { return false };
            if vm.reports.iter().any(|(seen, _)| *seen == report.phase) {
                return false;
            }
            vm.reports.push((report.phase, report.detail));
            // After an adoption the story on disk has it already, with the right time.
            if vm.story.iter().any(|(_, told)| *told == what) {
                return true;
            }
        }
        self.tell(id, &what);
        true
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

    /// Gives a guest its identity, unless it was given before.
    pub fn give_context(&self, id: &VmId) -> Result<(), Error> {
        let record = self.table().get(id).and_then(|vm| vm.record.clone());
        let (Some(record), Some(channels)) = (record, self.channels.get()) else {
            return Ok(());
        };
        if !self.first_context(id) {
            return Ok(());
        }
        let exports = self.export_ports();
        let context = guest::context(&self.settings, &exports, id, &record)?;
        channels
            .say(id, &Request::Context(Box::new(context)))
            .map_err(|e| Error::io("send its context to the guest in", &self.folder(id), e))?;
        self.tell(id, CONTEXT_SENT);
        Ok(())
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
            story,
            ..Self::default()
        }
    }
}

/// News from a guest, on the attending thread.
fn heard(inner: &Weak<Inner>, id: &VmId, news: News) {
    let Some(inner) = inner.upgrade() else { return };
    match news {
        News::Report(report) => {
            let waiting = report.phase == Phase::Waiting;
            if !inner.take(id, report) {
                return;
            }
            if waiting && let Err(error) = inner.give_context(id) {
                tracing::error!(vm = %id, %error, "the guest cannot be given its context");
                inner.tell(id, &format!("context not sent: {error}"));
            }
        }
        News::Closed => {
            let folder = inner.folder(id);
            // The lock goes with the process, a moment after its sockets.
            if vmdir::wait_gone(&folder, CLOSING_LIMIT).is_ok_and(|gone| gone) && folder.exists() {
                inner.tell(id, "QEMU ended");
            }
        }
    }
    (inner.wake)();
}

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
