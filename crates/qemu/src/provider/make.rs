//! Making a VM: it is claimed by making its folder, with capacity on its host and
//! an address of its own, and then started.

use super::people::People;
use super::table::{Inner, Qemu, Vm, now};
use crate::context_disk::write_disk;
use crate::error::Error;
use crate::settings::Guests;
use crate::vmdir::{self, ContextBy, Life, Record};
use crate::{address, guest, launch, seed};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::PoisonError;
use thiao_core::ids::{HostName, JobId, NodeName, VmId, VmTag};
use thiao_core::view::{Shape, VmSpec};

/// What a guest's kernel keeps for itself, in MiB: measured 35 on guests of 204 to 840 MiB.
const KERNEL_MB: u64 = 36;

/// And one part in this many of all memory, for its tables: measured 55 to 57 on guests
/// of 2 to 20 GiB.
const PAGE_TABLE_PART: u64 = 54;

/// A VM to be made.
pub(crate) struct NewVm {
    pub cpus: u32,
    /// What Slurm promises on it, in MiB.
    pub memory_mb: u64,
    /// What it takes from its host, in MiB.
    pub total_mb: u64,
    pub share_percent: u32,
    /// None: a free one of the network's.
    pub address: Option<Ipv4Addr>,
    pub told: ContextBy,
    /// The one job that it is for.
    pub job: Option<JobId>,
    /// The job that its VMs are grouped by: the leader of a heterogeneous one.
    pub leader: Option<JobId>,
    /// Whom its guest knows, and what it sees.
    pub people: People,
}

impl Qemu {
    /// Starts a VM on a host. The same tag again gives the same id and starts nothing.
    pub fn create(&self, tag: &VmTag, host: &HostName, spec: &VmSpec) -> Result<VmId, Error> {
        all_there(spec)?;
        if let Ok(id) = vmdir::id_of(tag)
            && tag.cluster == self.inner.settings.cluster
            && self.inner.folder(&id).exists()
        {
            // Nobody need be asked whom it knows.
            return Ok(id);
        }
        let shape = spec.shape;
        let told = match self.inner.settings.guests_of(&tag.node) {
            Guests::Small | Guests::Built(_) => ContextBy::Channel,
            Guests::Brought(_) => ContextBy::Seed,
        };
        let wanted = NewVm {
            cpus: shape.cpus,
            memory_mb: shape.memory_mb,
            total_mb: self.inner.total_mb(shape),
            share_percent: shape.share_percent,
            address: None,
            told,
            job: spec.job,
            leader: spec.owner.map(|owner| owner.leader),
            people: self.inner.people_for(spec, told, &tag.node)?,
        };
        self.inner.has_capacity_for_its_kernel(&wanted)?;
        self.make(tag, host, wanted, &|id, record, people| {
            self.inner.write_seed(id, record, people)
        })
    }

    /// Claims and starts a VM; `furnish` adds to its folder what QEMU needs there.
    pub(crate) fn make(
        &self,
        tag: &VmTag,
        host: &HostName,
        wanted: NewVm,
        furnish: &dyn Fn(&VmId, &Record, &People) -> Result<(), Error>,
    ) -> Result<VmId, Error> {
        let inner = &self.inner;
        if tag.cluster != inner.settings.cluster {
            return Err(Error::Refused(format!(
                "{tag} belongs to another cluster: this is {}",
                inner.settings.cluster
            )));
        }
        let id = vmdir::id_of(tag)?;
        let ready = inner
            .ready()
            .ok_or_else(|| Error::Refused("the provider was not prepared yet".to_owned()))?;
        // Before it is claimed: a folder that hangs holds up nobody else's capacity.
        inner.serve(&wanted.people.exports)?;
        let people = wanted.people.clone();
        let Some(record) = inner.claim(&id, host, wanted)? else {
            return Ok(id);
        };
        let folder = inner.folder(&id);
        let channels = inner.channels.get();
        let started = record
            .write(&folder)
            .and_then(|()| vmdir::write_people(&folder, &people))
            .and_then(|()| inner.let_in(&id, &record, &people))
            .and_then(|()| furnish(&id, &record, &people))
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
}

/// What a job asks for must be something that there is: it is refused otherwise, not left out.
fn all_there(spec: &VmSpec) -> Result<(), Error> {
    let lacking = |what: String, there: &str| {
        Err(Error::Refused(format!(
            "cannot provide {what}: the VMs of provider \"qemu\" {there}; submit the job without it"
        )))
    };
    let options = &spec.options;
    let one = "all have the same image, made from this machine's own packages";
    match (&options.template, &options.image, spec.gpus) {
        (Some(name), _, _) => lacking(format!("template {name} (--vm-template)"), one),
        (None, Some(name), _) => lacking(format!("image {name} (--vm-image)"), one),
        (None, None, 0) => Ok(()),
        (None, None, gpus) => lacking(format!("{gpus} GPUs"), "have no devices"),
    }
}

impl Inner {
    /// Whom a VM is to know.
    fn people_for(&self, spec: &VmSpec, told: ContextBy, node: &NodeName) -> Result<People, Error> {
        match (spec.job, spec.owner) {
            (_, Some(owner)) => self.people_of(Some(owner.uid), told, node),
            (None, None) => self.people_of(None, told, node),
            (Some(job), None) => Err(Error::Refused(format!("whose job {job} is was not said"))),
        }
    }

    /// What a VM of this shape takes from its host, in MiB.
    pub fn total_mb(&self, shape: Shape) -> u64 {
        shape.total_mb(self.settings.overhead_mb)
    }

    /// Writes the disc that tells a guest with cloud-init who it is; others need none.
    fn write_seed(&self, id: &VmId, record: &Record, people: &People) -> Result<(), Error> {
        match record.told {
            ContextBy::Channel | ContextBy::Disk { .. } => Ok(()),
            ContextBy::Seed => {
                let People {
                    users,
                    groups,
                    exports,
                    mounts,
                    ..
                } = people;
                let shares = mounts.iter().cloned().chain(self.served(exports)?).collect();
                let known = (users.clone(), groups.clone());
                let context = guest::context(&self.settings, id, record, known, shares)?;
                write_disk(&self.folder(id), &seed::disc(&context)?)
            }
        }
    }

    /// Whether slurmd will see the memory that is promised.
    fn has_capacity_for_its_kernel(&self, wanted: &NewVm) -> Result<(), Error> {
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
    /// capacity on the host and an address of its own. `None`: it exists.
    fn claim(&self, id: &VmId, host: &HostName, wanted: NewVm) -> Result<Option<Record>, Error> {
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
            job: wanted.job.map(|job| job.0),
            leader: wanted.leader.map(|job| job.0),
            created_ms: now.0,
            boot: vmdir::boot().to_owned(),
        };
        let vm = Vm {
            record: Some(record.clone()),
            starting: true,
            people: wanted.people,
            ..Vm::default()
        };
        table.insert(id.clone(), vm);
        drop(table);
        self.tell(id, "VM asked for");
        Ok(Some(record))
    }
}
