//! The exported folder: finds files by handle, opens them, lists folders.
//!
//! Nothing here follows a symbolic link or leaves the folder: paths are
//! resolved by the kernel beneath the root (`openat2`), names are single
//! components, and whatever was opened is compared with the handle that asked
//! for it.

use crate::attributes::Attributes;
use crate::handles::{Handle, Key, Trail};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names remembered at most; beyond that, all but folders are forgotten and found again by their trail.
const MAX_NAMES: usize = 200_000;
/// Files kept open at most, and for how long after their last use. A file that
/// was removed by somebody else stays usable while it is kept open.
const MAX_OPEN: usize = 256;
const KEEP_OPEN: Duration = Duration::from_secs(300);
/// Folder listings kept, and how long a folder must have been unchanged for
/// its listing to be kept: times on disk are coarse, a younger one may miss a change.
const MAX_LISTINGS: usize = 8;
const LISTING_AGE: Duration = Duration::from_secs(2);
/// Entries looked at in a search without a trail, and the pause after such a
/// search in multiples of its length: a client with many stale handles must not keep us searching.
const SWEEP_ENTRIES: usize = 50_000;
const SWEEP_PAUSE: u32 = 10;
/// The longest path that the kernel takes, with its final NUL.
const PATH_MAX: usize = 4096;

/// An answer of NFS version 3 (RFC 1813, section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Those that are said here, by their names in the RFC without `NFS3ERR_`.
    pub const PERM: Self = Self(1);
    pub const NOENT: Self = Self(2);
    pub const IO: Self = Self(5);
    pub const ACCES: Self = Self(13);
    pub const EXIST: Self = Self(17);
    pub const NOTDIR: Self = Self(20);
    pub const ISDIR: Self = Self(21);
    pub const INVAL: Self = Self(22);
    pub const NAMETOOLONG: Self = Self(63);
    pub const STALE: Self = Self(70);
    pub const BADHANDLE: Self = Self(10001);
    pub const NOT_SYNC: Self = Self(10002);
    pub const NOTSUPP: Self = Self(10004);
    pub const TOOSMALL: Self = Self(10005);
    pub const BADTYPE: Self = Self(10007);
    /// It is to be tried again later.
    pub const JUKEBOX: Self = Self(10008);
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PERM => Self::PERM,
            Errno::NOENT => Self::NOENT,
            Errno::ACCESS => Self::ACCES,
            Errno::EXIST => Self::EXIST,
            Errno::XDEV => Self(18),
            Errno::NOTDIR => Self::NOTDIR,
            Errno::ISDIR => Self::ISDIR,
            Errno::INVAL => Self::INVAL,
            Errno::FBIG => Self(27),
            Errno::NOSPC => Self(28),
            Errno::ROFS => Self(30),
            Errno::MLINK => Self(31),
            Errno::NAMETOOLONG => Self::NAMETOOLONG,
            Errno::NOTEMPTY => Self(66),
            Errno::DQUOT => Self(69),
            Errno::STALE => Self::STALE,
            Errno::NOTSUP => Self::NOTSUPP,
            Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::JUKEBOX,
            _ => Self::IO,
        }
    }
}

impl From<std::io::Error> for Status {
    fn from(error: std::io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::IO, Self::from)
    }
}

/// A file that was found, held by a descriptor.
#[derive(Debug)]
pub struct Object {
    pub fd: OwnedFd,
    pub handle: Handle,
    pub attributes: Attributes,
}

impl Object {
    /// Refuses what is not a folder.
    pub fn folder(self) -> Result<Self, Status> {
        if self.attributes.kind() == FileType::Directory {
            Ok(self)
        } else {
            Err(Status::NOTDIR)
        }
    }

    /// Reads the attributes again, after a change.
    pub fn refresh(&mut self) -> Result<(), Status> {
        self.attributes = Attributes::of(&self.fd)?;
        Ok(())
    }

    /// A path by which the kernel opens exactly this file.
    pub fn magic_path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

/// An entry of a folder. Cookies are made from names, so that a listing goes
/// on at the right place whatever was added or removed meanwhile.
#[derive(Debug)]
pub struct Entry {
    pub cookie: u64,
    pub inode: u64,
    pub name: CString,
    kind: FileType,
}

/// Where a file was last seen.
#[derive(Debug)]
struct Name {
    parent: Key,
    name: CString,
    /// That of the handle first given out: a file's handle stays when it is moved.
    trail: Trail,
    folder: bool,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    readable: bool,
    writable: bool,
    used: Instant,
}

#[derive(Debug)]
struct Listing {
    key: Key,
    changed: (i64, u32),
    entries: Arc<Vec<Entry>>,
}

/// The exported folder and what is known about the files in it.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    root_key: Key,
    /// The uid that this process acts under.
    owner: u32,
    names: Mutex<HashMap<Key, Name>>,
    open: Mutex<HashMap<Key, Open>>,
    listings: Mutex<Vec<Listing>>,
    next_sweep: Mutex<Instant>,
}

impl Tree {
    /// Opens the folder that is exported.
    pub fn new(folder: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder, flags, Mode::empty())?;
        let root_key = Key::of(&Attributes::of(&root)?);
        Ok(Self {
            root,
            root_key,
            owner: rustix::process::geteuid().as_raw(),
            names: Mutex::default(),
            open: Mutex::default(),
            listings: Mutex::default(),
            next_sweep: Mutex::new(Instant::now()),
        })
    }

    /// The exported folder itself, as it is now.
    pub fn root(&self) -> Result<Object, Status> {
        let fd = self.root.try_clone()?;
        let attributes = Attributes::of(&fd)?;
        Ok(Object {
            fd,
            handle: Handle {
                key: self.root_key,
                trail: Trail::default(),
            },
            attributes,
        })
    }

    /// The id by which clients tell files apart; unique even when other file systems are mounted in the folder.
    pub fn file_id(&self, attributes: &Attributes) -> u64 {
        if attributes.device() == self.root_key.device {
            return attributes.0.stx_ino;
        }
        attributes.0.stx_ino
            ^ (u64::from(attributes.device()) << 32)
                .swap_bytes()
                .rotate_left(17)
            ^ (1 << 63)
    }

    /// Finds the file of a handle, wherever it is now.
    pub fn resolve(&self, handle: &[u8]) -> Result<Object, Status> {
        let handle = Handle::from_bytes(handle).ok_or(Status::BADHANDLE)?;
        if handle.key == self.root_key {
            return self.root();
        }
        if let Some(found) = self.where_last_seen(&handle)? {
            return Ok(found);
        }
        let opened = lock(&self.open).get(&handle.key).map(|o| Arc::clone(&o.file));
        let opened = match opened {
            Some(file) => Some(Object {
                attributes: Attributes::of(&*file)?,
                fd: file.as_fd().try_clone_to_owned()?,
                handle: handle.clone(),
            }),
            None => None,
        };
        match opened {
            Some(removed) if removed.attributes.0.stx_nlink == 0 => Ok(removed),
            opened => match self.search(&handle)? {
                Some(found) => Ok(found),
                None => opened.ok_or(Status::STALE),
            },
        }
    }

    /// The entry of that name; `name` is one component.
    pub fn child(&self, folder: &Object, name: &CStr) -> Result<Object, Status> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.adopt(folder, name, openat(&folder.fd, name, flags, Mode::empty())?)
    }

    /// Remembers a descriptor as the entry of that name.
    pub fn adopt(&self, folder: &Object, name: &CStr, fd: OwnedFd) -> Result<Object, Status> {
        let attributes = Attributes::of(&fd)?;
        let key = Key::of(&attributes);
        let parent = folder.handle.key;
        let mut names = lock(&self.names);
        if names.len() >= MAX_NAMES {
            names.retain(|_, n| n.folder);
        }
        let name = name.to_owned();
        let known = names.entry(key).or_insert_with(|| Name {
            parent,
            name: name.clone(),
            trail: if parent == self.root_key {
                Trail::default()
            } else {
                folder.handle.trail.within(parent.inode)
            },
            folder: attributes.kind() == FileType::Directory,
        });
        (known.parent, known.name) = (parent, name);
        let trail = known.trail.clone();
        Ok(Object {
            fd,
            handle: Handle { key, trail },
            attributes,
        })
    }

    /// The folder that this one lies in; the root lies in itself.
    pub fn parent(&self, folder: &Object) -> Result<Object, Status> {
        let parent = lock(&self.names).get(&folder.handle.key).map(|n| n.parent);
        let Some(parent) = parent.filter(|&p| p != self.root_key) else {
            return self.root();
        };
        let trail = lock(&self.names)
            .get(&parent)
            .map(|n| n.trail.clone())
            .unwrap_or_default();
        self.resolve(&Handle { key: parent, trail }.to_bytes())
    }

    /// Opens a file's content, or takes the descriptor that is open already.
    pub fn content(&self, object: &Object, write: bool) -> Result<Arc<File>, Status> {
        match object.attributes.kind() {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Status::ISDIR),
            _ => return Err(Status::INVAL),
        }
        let key = object.handle.key;
        if let Some(open) = lock(&self.open)
            .get_mut(&key)
            .filter(|o| if write { o.writable } else { o.readable })
        {
            open.used = Instant::now();
            return Ok(Arc::clone(&open.file));
        }
        let (fd, readable) = self.reopen(object, write)?;
        let file = Arc::new(File::from(fd));
        self.keep(key, Arc::clone(&file), readable, write);
        Ok(file)
    }

    /// Keeps a descriptor of a file's content, instead of that which was least used.
    pub fn keep(&self, key: Key, file: Arc<File>, readable: bool, writable: bool) {
        let mut open = lock(&self.open);
        if open.len() >= MAX_OPEN && !open.contains_key(&key) {
            let oldest = open.iter().min_by_key(|(_, o)| o.used).map(|(&k, _)| k);
            oldest.and_then(|k| open.remove(&k));
        }
        open.insert(
            key,
            Open {
                file,
                readable,
                writable,
                used: Instant::now(),
            },
        );
    }

    /// Closes files that nobody has used for long.
    pub fn close_idle(&self) {
        lock(&self.open).retain(|_, o| o.used.elapsed() < KEEP_OPEN);
    }

    /// All entries but `.` and `..`, by cookie.
    pub fn list(&self, folder: &Object) -> Result<Arc<Vec<Entry>>, Status> {
        let time = folder.attributes.0.stx_mtime;
        let (key, changed) = (folder.handle.key, (time.tv_sec, time.tv_nsec));
        let kept = lock(&self.listings)
            .iter()
            .find(|l| l.key == key && l.changed == changed)
            .map(|l| Arc::clone(&l.entries));
        if let Some(entries) = kept {
            return Ok(entries);
        }
        let entries = Arc::new(read_folder(folder)?);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let settled = u64::try_from(changed.0).is_ok_and(|s| Duration::from_secs(s) + LISTING_AGE < now);
        let mut listings = lock(&self.listings);
        listings.retain(|l| l.key != key);
        if settled {
            listings.truncate(MAX_LISTINGS - 1);
            listings.insert(
                0,
                Listing {
                    key,
                    changed,
                    entries: Arc::clone(&entries),
                },
            );
        }
        Ok(entries)
    }

    /// Opens by path, with all rights that the owner has over his files even
    /// when their mode denies them: a client may go on writing a file that it
    /// made read-only, and asked for access before.
    ///
    /// Tells beside the descriptor whether one for writing can also be read.
    fn reopen(&self, object: &Object, write: bool) -> Result<(OwnedFd, bool), Errno> {
        let path = object.magic_path();
        let open = |access| {
            openat(
                CWD,
                &path,
                access | OFlags::CLOEXEC | OFlags::NONBLOCK,
                Mode::empty(),
            )
        };
        let attempt = || match open(if write { OFlags::RDWR } else { OFlags::RDONLY }) {
            Err(Errno::ACCESS) if write => Ok((open(OFlags::WRONLY)?, false)),
            result => Ok((result?, true)),
        };
        let result = attempt();
        if result.as_ref().err() != Some(&Errno::ACCESS) || object.attributes.0.stx_uid != self.owner {
            return result;
        }
        let mode = object.attributes.mode();
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode | 0o600))?;
        let result = attempt();
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode))?;
        result
    }

    fn where_last_seen(&self, wanted: &Handle) -> Result<Option<Object>, Status> {
        let Some(path) = self.path(wanted.key) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(&self.root, path, flags, Mode::empty(), within) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let attributes = Attributes::of(&fd)?;
        let found = Key::of(&attributes) == wanted.key;
        Ok(found.then(|| Object {
            fd,
            handle: wanted.clone(),
            attributes,
        }))
    }

    fn path(&self, mut key: Key) -> Option<Vec<u8>> {
        let names = lock(&self.names);
        let mut parts = Vec::new();
        let mut length = 0;
        while key != self.root_key {
            let known = names.get(&key)?;
            length += known.name.count_bytes() + 1;
            // Also ends a circle of folders, which two renames on the host can leave in our memory.
            if length > PATH_MAX {
                return None;
            }
            parts.push(known.name.to_bytes());
            key = known.parent;
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// Looks for a file that is not where it was: in its last folder, on its trail, then anywhere.
    fn search(&self, wanted: &Handle) -> Result<Option<Object>, Status> {
        let last = lock(&self.names).get(&wanted.key).map(|n| n.parent);
        let last = last.map(|key| {
            self.folder_at(&Handle {
                key,
                trail: Trail::default(),
            })
        });
        let mut budget = usize::MAX;
        let mut found = match last {
            Some(Ok(folder)) => self.hunt(folder, Some(wanted.trail.depth()), wanted, &mut budget)?,
            _ => None,
        };
        if found.is_none() {
            found = self.hunt(self.root()?, Some(0), wanted, &mut budget)?;
        }
        if found.is_none() {
            let mut next_sweep = lock(&self.next_sweep);
            let start = Instant::now();
            if start >= *next_sweep {
                budget = SWEEP_ENTRIES;
                found = self.hunt(self.root()?, None, wanted, &mut budget)?;
                *next_sweep = Instant::now() + start.elapsed() * SWEEP_PAUSE;
            }
        }
        if let (Some(object), Some(name)) = (&mut found, lock(&self.names).get_mut(&wanted.key)) {
            name.trail = wanted.trail.clone();
            object.handle = wanted.clone();
        }
        Ok(found)
    }

    /// Looks beneath a folder; `depth` is how far along the trail that is, `None` looks everywhere.
    fn hunt(
        &self,
        folder: Object,
        depth: Option<usize>,
        wanted: &Handle,
        budget: &mut usize,
    ) -> Result<Option<Object>, Status> {
        // By handle, not by descriptor: there may be more folders to visit than descriptors.
        let mut ahead = vec![(folder.handle, depth)];
        while let Some((handle, depth)) = ahead.pop() {
            // A folder that may not be entered hides what is in it; that is no error of the search.
            let Ok(folder) = self.folder_at(&handle) else {
                continue;
            };
            let Ok(entries) = read_folder(&folder) else {
                continue;
            };
            *budget = budget.saturating_sub(entries.len() + 1);
            let here = depth.is_none_or(|d| d == wanted.trail.depth());
            if here {
                for entry in entries.iter().filter(|e| e.inode == wanted.key.inode) {
                    match self.child(&folder, &entry.name) {
                        Ok(object) if object.handle.key == wanted.key => return Ok(Some(object)),
                        _ => {}
                    }
                }
            }
            if *budget == 0 {
                continue;
            }
            // Where a trail had to be cut, the rest of the way is unknown.
            let depth = depth.filter(|_| !(here && wanted.trail.is_cut()));
            let may_be = |e: &&Entry| {
                matches!(e.kind, FileType::Directory | FileType::Unknown)
                    && depth.is_none_or(|d| wanted.trail.passes(d, e.inode))
            };
            for entry in entries.iter().filter(may_be) {
                if let Ok(child) = self.child(&folder, &entry.name).and_then(Object::folder) {
                    ahead.push((child.handle, depth.map(|d| d + 1)));
                }
            }
        }
        Ok(None)
    }

    /// A folder that is where it was last seen.
    fn folder_at(&self, handle: &Handle) -> Result<Object, Status> {
        let found = if handle.key == self.root_key {
            Some(self.root()?)
        } else {
            self.where_last_seen(handle)?
        };
        found.ok_or(Status::STALE)?.folder()
    }
}

fn read_folder(folder: &Object) -> Result<Vec<Entry>, Status> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut entries = Vec::new();
    for entry in Dir::new(openat(&folder.fd, c".", flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entries.push(Entry {
                cookie: cookie(name.to_bytes()),
                inode: entry.ino(),
                kind: entry.file_type(),
                name: name.to_owned(),
            });
        }
    }
    entries.sort_unstable_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
    Ok(entries)
}

/// FNV-1a, within what clients can hold as a positive offset, above the cookies of `.` and `..`.
fn cookie(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 2).max(3)
}

/// What these locks guard is whole after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
