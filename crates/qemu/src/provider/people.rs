//! Whom a VM knows and what it sees: in job mode its job's user alone, with all his groups, his folders, and the
//! site's. In power-saving mode nobody knows beforehand whose jobs come: their users are handed to the guest when
//! Slurm has given it a job of theirs, before that starts.

use super::table::{Inner, Qemu};
use crate::error::Error;
use crate::fence::{Fenced, POWER_SAVING, Server};
use crate::image::System;
use crate::launch;
use crate::machine::mac_of;
use crate::people::{Person, Unknown};
use crate::settings::{Mount, Share, User};
use crate::vmdir::{self, ContextBy, Record};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use thiao_core::ids::{NodeName, VmId};
use thiao_core::prolog::Leftovers;
use thiao_guest::protocol::{Arrival, GroupEntry, Report, Request, ShareMount};
use thiao_nfs::Folder;

/// How long a guest may take to have people who come: it tries a share that does not answer for 40 s.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// Whom a VM knows beside its system's users, and what it sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct People {
    pub users: Vec<User>,
    pub groups: Vec<GroupEntry>,
    pub exports: Vec<Exported>,
    /// Folders of the site's file servers.
    pub mounts: Vec<ShareMount>,
    /// Who of them came later, and is surely there.
    #[serde(default)]
    pub arrived: BTreeSet<u32>,
}

/// A folder of this machine's that a VM sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exported {
    pub folder: Folder,
    pub target: PathBuf,
}

impl People {
    /// Whether a folder is in one that is shared.
    fn sees(&self, folder: &Path) -> bool {
        let exports = self.exports.iter().map(|export| &export.target);
        let mounts = self.mounts.iter().map(|mount| &mount.target);
        exports.chain(mounts).any(|target| folder.starts_with(target))
    }

    /// Whether somebody's jobs can run there.
    fn has(&self, uid: u32) -> bool {
        self.arrived.contains(&uid)
    }

    /// Those whom the settings name, with all that is shared: of power-saving mode, and of VMs that were made before
    /// this was kept.
    pub(super) fn ahead(users: impl Iterator<Item = Person>, shares: &[Share]) -> Self {
        let mut people = Self::default();
        users.for_each(|person| people.add(&person, Vec::new()));
        people.exports = shares.iter().map(exported).collect();
        people.arrived = people.users.iter().map(|user| user.uid).collect();
        people
    }

    /// Adds one; what is there already stays.
    fn add(&mut self, person: &Person, exports: Vec<Exported>) {
        if !self.users.contains(&person.user) {
            self.users.push(person.user.clone());
        }
        for group in &person.groups {
            match self.groups.iter_mut().find(|known| known.gid == group.gid) {
                Some(known) => {
                    let new = group.members.iter().filter(|name| !known.members.contains(name));
                    let new: Vec<String> = new.cloned().collect();
                    known.members.extend(new);
                }
                None => self.groups.push(group.clone()),
            }
        }
        for export in exports {
            if !self.exports.contains(&export) {
                self.exports.push(export);
            }
        }
    }
}

/// Whether a guest answered that was told whose job comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Yes,
    /// It did not, in the time that it has.
    No,
    /// There was nothing to tell it.
    NotAsked,
}

/// What people who came have answered, by VM and number; none of what failed.
pub(super) type Arrivals = BTreeMap<VmId, BTreeMap<u64, Option<String>>>;

impl Inner {
    /// Whom a VM is to know from its start on, and what it sees. Asks the directory; starts no export.
    pub(super) fn people_of(
        &self,
        uid: Option<u32>,
        told: ContextBy,
        node: &NodeName,
    ) -> Result<People, Error> {
        let mut people = match uid {
            // Root's jobs are the administrator's, and see what he shares.
            Some(0) => People::ahead(std::iter::empty(), &self.settings.guest.shares),
            Some(uid) => {
                let person = self.person(uid, node)?;
                let mut people = People::default();
                people.add(&person, self.exports_for(&person.user));
                people
            }
            // Nobody is handed to it later: it is told all.
            None if told == ContextBy::Seed => {
                let mut people = People::default();
                for user in &self.settings.guest.users {
                    people.add(&self.directory.described(user), self.exports_for(user));
                }
                people
            }
            None => {
                let users = &self.settings.guest.users;
                let ahead = users.iter().filter(|user| self.is_whole_ahead(user));
                People::ahead(
                    ahead.map(|user| self.directory.described(user)),
                    &self.settings.guest.shares,
                )
            }
        };
        people.mounts = self.site_mounts()?;
        people.arrived = people.users.iter().map(|user| user.uid).collect();
        Ok(people)
    }

    /// A user whose jobs may have VMs on this node.
    fn person(&self, uid: u32, node: &NodeName) -> Result<Person, Error> {
        let person = self.anybody(uid)?;
        self.is_nobody_else(&person.user, node)?;
        Ok(person)
    }

    /// Whether the system of this node's guests leaves a user his name and number. Else his jobs would run there as
    /// somebody else, as munge's user for one, who reads the cluster's key.
    fn is_nobody_else(&self, user: &User, node: &NodeName) -> Result<(), Error> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner).clone();
        let system = ready
            .as_ref()
            .map(|ready| ready.system(self.settings.guests_of(node)));
        let Some(Ok(System::Made(image))) = system else {
            return Ok(());
        };
        let User { name, uid, .. } = user;
        match image.other_than(name, *uid) {
            None => Ok(()),
            Some((other, number)) => Err(Error::Refused(format!(
                "user {name} (uid {uid}) can have no VM of node {node}'s image, whose own user {other} has uid {number}: his \
                 job would run as somebody else"
            ))),
        }
    }

    /// A user whose jobs may have VMs.
    fn anybody(&self, uid: u32) -> Result<Person, Error> {
        let guest = &self.settings.guest;
        if let Some(user) = guest.users.iter().find(|user| user.uid == uid) {
            return Ok(self.directory.described(user));
        }
        if !guest.everybody {
            return Err(Error::Refused(format!(
                "the user with uid {uid} is not among those who may have VMs: qemu.users of thiao.toml names them"
            )));
        }
        self.directory.person(uid).map_err(|unknown| match unknown {
            Unknown::Nobody(_) => Error::Refused(unknown.to_string()),
            Unknown::Silent { .. } => Error::Qemu(unknown.to_string()),
        })
    }

    /// What of this machine a user sees: his shares, and his home.
    fn exports_for(&self, user: &User) -> Vec<Exported> {
        let shares = &self.settings.guest.shares;
        let his = shares.iter().filter(|share| share.uid == user.uid).map(exported);
        his.chain(self.home_of(user)).collect()
    }

    /// A user's home, if it is exported: it is there, his own, and nothing else is mounted over it.
    fn home_of(&self, user: &User) -> Option<Exported> {
        let guest = &self.settings.guest;
        let home = &user.home;
        let covered = |target: &PathBuf| home.starts_with(target);
        let elsewhere = guest.mounts.iter().any(|mount| covered(&mount.target))
            || guest
                .shares
                .iter()
                .any(|share| share.uid == user.uid && covered(&share.target));
        if !guest.homes || elsewhere || !home.is_absolute() || home.parent().is_none() {
            return None;
        }
        let is_his = match std::fs::metadata(home) {
            Ok(folder) => folder.is_dir() && std::os::unix::fs::MetadataExt::uid(&folder) == user.uid,
            // Perhaps he alone may look; his export will tell.
            Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
        };
        is_his.then(|| Exported {
            folder: Folder {
                path: home.clone(),
                uid: user.uid,
                gid: user.gid,
            },
            target: home.clone(),
        })
    }

    /// Whether a user's jobs find all that they see though nobody hands him over later.
    fn is_whole_ahead(&self, user: &User) -> bool {
        self.home_of(user).is_none()
    }

    /// The site's folders, with the servers' addresses: a guest may have nobody to ask for them. Whom they are on is
    /// let through the fence.
    fn site_mounts(&self) -> Result<Vec<ShareMount>, Error> {
        let resolved = |mount: &Mount| {
            let server = self.directory.server(&mount.server).map_err(|why| {
                Error::Qemu(format!(
                    "the file server {} of [[mount]] is not found: {why}",
                    mount.server
                ))
            })?;
            if let Some(fence) = &self.fence {
                fence.open_server(Server {
                    address: server,
                    version: mount.version,
                })?;
            }
            Ok(ShareMount {
                server,
                port: thiao_guest::protocol::NFS_PORT,
                path: mount.path.clone(),
                target: mount.target.clone(),
                version: mount.version,
                options: mount.options.clone(),
            })
        };
        self.settings.guest.mounts.iter().map(resolved).collect()
    }

    /// Has all exports of a VM run; their mounts, and their ports.
    pub(super) fn serve(&self, exports: &[Exported]) -> Result<Vec<ShareMount>, Error> {
        let mount = |export: &Exported| {
            let port = self.shares.serve(&export.folder)?;
            Ok(self.mount_of(export, port))
        };
        exports.iter().map(mount).collect()
    }

    /// The same of exports that ran before, without waiting for anybody who looks after one.
    pub(super) fn served(&self, exports: &[Exported]) -> Result<Vec<ShareMount>, Error> {
        let mount = |export: &Exported| match self.shares.port(&export.folder) {
            Some(port) => Ok(self.mount_of(export, port)),
            None => Ok(self.mount_of(export, self.shares.serve(&export.folder)?)),
        };
        exports.iter().map(mount).collect()
    }

    fn mount_of(&self, export: &Exported, port: u16) -> ShareMount {
        let server = self.settings.network.address;
        ShareMount::plain(server, port, "/".into(), export.target.clone())
    }

    /// Lets a VM in through the fence, before its card exists.
    pub(super) fn let_in(&self, id: &VmId, record: &Record, people: &People) -> Result<(), Error> {
        match &self.fence {
            Some(fence) => Ok(fence.admit(self.fenced(id, record, people))?),
            None => Ok(()),
        }
    }

    /// A VM as the fence is to know it.
    pub(super) fn fenced(&self, id: &VmId, record: &Record, people: &People) -> Fenced {
        let ports = people
            .exports
            .iter()
            .filter_map(|export| self.shares.port(&export.folder));
        Fenced {
            vm: id.clone(),
            tap: launch::tap_name(record),
            mac: match record.told {
                ContextBy::Channel | ContextBy::Seed => mac_of(record.address),
                ContextBy::Disk { mac } => mac,
            },
            address: record.address,
            group: record.leader.or(record.job).unwrap_or(POWER_SAVING),
            exports: ports.collect(),
        }
    }

    /// Takes a guest's answer about people who came.
    pub(super) fn arrived(&self, id: &VmId, report: Report) {
        let Some(number) = report.arrival else { return };
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals
            .entry(id.clone())
            .or_default()
            .insert(number, report.detail);
        drop(arrivals);
        self.arrival.notify_all();
    }

    /// Waits for that answer.
    fn wait_for_arrival(&self, id: &VmId, number: u64) -> Result<(), Error> {
        let until = Instant::now() + ARRIVAL_LIMIT;
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = arrivals.get_mut(id).and_then(|of_vm| of_vm.remove(&number)) {
                return match answer {
                    None => Ok(()),
                    Some(why) => Err(Error::Qemu(format!("the guest of {id}: {why}"))),
                };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unheard(format!(
                    "the guest of {id} does not say that it is ready for the job and knows its user, after {} s",
                    ARRIVAL_LIMIT.as_secs()
                )));
            }
            let woken = self.arrival.wait_timeout(arrivals, left);
            arrivals = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

pub(super) fn exported(share: &Share) -> Exported {
    Exported {
        folder: Folder {
            path: share.source.clone(),
            uid: share.uid,
            gid: share.gid,
        },
        target: share.target.clone(),
    }
}

impl Qemu {
    /// Has a VM's guest know the user of a job that comes, see what he sees, and be as it was before other jobs. Returns
    /// when that is so. A guest that cannot be cleared is told, and costs the job nothing.
    pub fn welcome(&self, id: &VmId, uid: u32, leftovers: Leftovers) -> Result<Heard, Error> {
        let inner = &self.inner;
        let known = |inner: &Inner| {
            let table = inner.table();
            let vm = table.get(id);
            vm.map(|vm| (vm.people.has(uid), vm.speaks()))
        };
        let Some((here, speaks)) = known(inner) else {
            return Err(Error::Refused(format!("there is no VM {id} here")));
        };
        if !speaks {
            return Ok(Heard::NotAsked);
        }
        let tag = vmdir::tag_of(&inner.settings.cluster, id);
        let tag = tag.ok_or_else(|| Error::Refused(format!("{id} is no VM of a node")))?;
        let fresh = leftovers == Leftovers::Remove;
        if uid == 0 || here {
            // Who was listed, it knows without having been asked about.
            if let Some(user) = inner.settings.guest.users.iter().find(|user| user.uid == uid) {
                inner.is_nobody_else(user, &tag.node)?;
            }
            let nobody = Arrival {
                number: inner.arrival_number(),
                fresh,
                ..Arrival::default()
            };
            if !fresh {
                return Ok(Heard::NotAsked);
            }
            return Ok(match inner.hand_over(id, nobody) {
                Ok(()) => Heard::Yes,
                Err(error) => {
                    tracing::warn!(vm = %id, %error, "a job may find what others left in its VM");
                    match error {
                        Error::Unheard(_) => Heard::No,
                        _ => Heard::Yes,
                    }
                }
            });
        }
        let person = inner.person(uid, &tag.node)?;
        let exports = inner.exports_for(&person.user);
        let shares = inner.serve(&exports)?;
        // Known before it is open, so that whoever takes this VM up opens it, too.
        inner.remember(id, |people| people.add(&person, exports))?;
        if let Some(fence) = &inner.fence {
            fence.open(id, shares.iter().map(|share| share.port))?;
        }
        let arrival = Arrival {
            number: inner.arrival_number(),
            users: vec![person.user],
            groups: person.groups,
            shares,
            fresh,
        };
        inner.hand_over(id, arrival)?;
        inner.remember(id, |people| people.arrived.extend([uid]))?;
        Ok(Heard::Yes)
    }
}

impl Qemu {
    /// Whether what a VM writes below this folder is in a folder of this machine's or of the site's; none if there is
    /// no such VM.
    #[must_use]
    pub fn sees(&self, id: &VmId, folder: &Path) -> Option<bool> {
        let table = self.inner.table();
        table.get(id).map(|vm| vm.people.sees(folder))
    }
}

impl Inner {
    /// Tells a guest of people who come, and waits for its answer.
    fn hand_over(&self, id: &VmId, arrival: Arrival) -> Result<(), Error> {
        let number = arrival.number;
        let channels = self.channels.get();
        let channels = channels.ok_or_else(|| Error::Qemu("no guest can be told anything".to_owned()))?;
        channels
            .say(id, &Request::People(Box::new(arrival)))
            .map_err(|e| Error::io("hand a job's user to the guest in", &self.folder(id), e))?;
        self.wait_for_arrival(id, number)
    }

    /// Changes whom a VM knows, in memory and in its folder.
    fn remember(&self, id: &VmId, change: impl FnOnce(&mut People)) -> Result<(), Error> {
        let folder = self.folder(id);
        let mut table = self.table();
        match table.get_mut(id) {
            Some(vm) => {
                change(&mut vm.people);
                vmdir::write_people(&folder, &vm.people)
            }
            None => Err(Error::Refused(format!("the VM {id} is gone"))),
        }
    }

    /// A number that no arrival of this machine's had before, also of an earlier process: a time.
    fn arrival_number(&self) -> u64 {
        let mut last = self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner);
        *last = super::table::now().0.max(*last + 1);
        *last
    }
}
