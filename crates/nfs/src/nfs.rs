//! The procedures of NFS version 3 (RFC 1813, section 3) on a [`Tree`].
//!
//! All work is done under the uid of this process, whoever asks. Only root
//! and that user of a guest may ask for everything; any other user may read
//! what the mode bits let him read, and change nothing.
//!
//! Answers carry no attributes from before a change: taken apart from the
//! change itself they would hide other clients' changes, and clients do well
//! without.

use crate::args::{Caller, MAX_NAME, NewAttributes, User, When, component, mode};
use crate::attributes::Attributes;
use crate::fs::{Object, Status, Tree};
use crate::xdr::{Garbage, Reader, Writer};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, OFlags, Uid, openat};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most bytes of one READ or WRITE.
pub const MAX_DATA: usize = 1 << 20;
const MAX_PATH: usize = 4096;

/// Why a procedure gave no result.
#[derive(Debug)]
pub enum Failure {
    Status(Status),
    Garbage,
}

impl From<Garbage> for Failure {
    fn from(Garbage: Garbage) -> Self {
        Self::Garbage
    }
}

impl<E: Into<Status>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Status(error.into())
    }
}

/// A procedure's result is in the answer already.
pub type Outcome = Result<(), Failure>;

/// What a caller must be allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Everybody may: to read attributes.
    Nothing,
    Read,
    Search,
    Change,
}

/// How far written data must be (`stable_how`): 0 is anywhere.
const UNSTABLE: u32 = 0;
const FILE_SYNC: u32 = 2;

/// The file system as its clients call it.
#[derive(Debug)]
pub struct Nfs {
    pub tree: Tree,
    /// Who owns the files, as the guests know him: in a user namespace he may be somebody else to this process.
    pub(super) owner: User,
    /// Who that is to this process.
    pub(super) acting: User,
    /// Changes when written data may have been lost before it was committed:
    /// with the machine's boot, not with ours, since what was written is the kernel's.
    verifier: [u8; 8],
}

impl Nfs {
    /// Serves the folder to the guests' root and to `owner`, whom this process acts for.
    pub fn new(tree: Tree, owner: User) -> Self {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let verifier = boot
            .iter()
            .fold(0_u64, |h, &b| h.wrapping_mul(31).wrapping_add(b.into()))
            .to_be_bytes();
        Self {
            tree,
            owner,
            acting: User::current(),
            verifier,
        }
    }

    /// Runs a procedure and puts its result at the end of `out`. `Ok(false)`: there is no such procedure.
    pub fn call(
        &self,
        procedure: u32,
        arguments: &[u8],
        caller: &Caller,
        out: &mut Writer,
    ) -> Result<bool, Garbage> {
        let args = &mut Reader::new(arguments);
        let start = out.len();
        out.u32(0);
        // Beside each: how many words of "no attributes follow" its failure carries.
        let (outcome, absent) = match procedure {
            0 => {
                out.truncate(start);
                return Ok(true);
            }
            1 => (self.getattr(args, out), 0),
            2 => (self.setattr(args, caller, out), 2),
            3 => (self.lookup(args, caller, out), 1),
            4 => (self.access(args, caller, out), 1),
            5 => (self.readlink(args, caller, out), 1),
            6 => (self.read(args, caller, out), 1),
            7 => (self.write(args, caller, out), 2),
            8 => (self.create(args, caller, out), 2),
            9 => (self.mkdir(args, caller, out), 2),
            10 => (self.symlink(args, caller, out), 2),
            11 => (self.mknod(args, caller, out), 2),
            12 => (self.remove(args, caller, out, AtFlags::empty()), 2),
            13 => (self.remove(args, caller, out, AtFlags::REMOVEDIR), 2),
            14 => (self.rename(args, caller, out), 4),
            15 => (self.link(args, caller, out), 3),
            16 => (self.readdir(args, caller, out), 1),
            17 => (self.readdirplus(args, caller, out), 1),
            18 => (self.fsstat(args, out), 1),
            19 => (self.fsinfo(args, out), 1),
            20 => (self.pathconf(args, out), 1),
            21 => (self.commit(args, caller, out), 2),
            _ => return Ok(false),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(Failure::Garbage) => Err(Garbage),
            Err(Failure::Status(status)) => {
                out.truncate(start);
                out.u32(status.0);
                for _ in 0..absent {
                    out.u32(0);
                }
                Ok(true)
            }
        }
    }

    fn getattr(&self, args: &mut Reader, out: &mut Writer) -> Outcome {
        let object = self.object(args, &Caller::default(), Want::Nothing)?;
        self.put_attributes(out, &object.attributes);
        Ok(())
    }

    fn setattr(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let mut object = self.object(args, caller, Want::Change)?;
        let wanted = NewAttributes::read(args)?;
        if args.bool()? {
            let changed = object.attributes.0.stx_ctime;
            if (args.u32()?, args.u32()?) != (changed.tv_sec as u32, changed.tv_nsec) {
                return Err(Status::NOT_SYNC.into());
            }
        }
        self.apply(&object, &wanted)?;
        object.refresh()?;
        self.put_changed(out, &object);
        Ok(())
    }

    fn lookup(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let folder = self.object(args, caller, Want::Search)?.folder()?;
        let name = args.opaque(MAX_PATH)?;
        let found = match name {
            b"." => self.tree.resolve(&folder.handle.to_bytes())?,
            b".." => self.tree.parent(&folder)?,
            name => self.tree.child(&folder, &component(name)?)?,
        };
        out.opaque(&found.handle.to_bytes());
        self.put_post(out, &found.attributes);
        self.put_post(out, &folder.attributes);
        Ok(())
    }

    fn access(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        const READ: u32 = 1;
        const LOOKUP: u32 = 2;
        const MODIFY: u32 = 4;
        const EXTEND: u32 = 8;
        const DELETE: u32 = 16;
        const EXECUTE: u32 = 32;
        let object = self.object(args, caller, Want::Nothing)?;
        let asked = args.u32()?;
        let (change, run) = match object.attributes.kind() {
            FileType::Directory => (MODIFY | EXTEND | DELETE, LOOKUP),
            _ => (MODIFY | EXTEND, EXECUTE),
        };
        let mut granted = 0;
        for (bits, access, want) in [
            (READ, Access::READ_OK, Want::Read),
            (change, Access::WRITE_OK, Want::Change),
            (run, Access::EXEC_OK, Want::Search),
        ] {
            let may = asked & bits != 0
                && self.allowed(caller, &object.attributes, want)
                && rustix::fs::accessat(CWD, object.magic_path(), access, AtFlags::EACCESS).is_ok();
            granted |= if may { bits } else { 0 };
        }
        self.put_post(out, &object.attributes);
        out.u32(granted & asked);
        Ok(())
    }

    fn readlink(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let link = self.object(args, caller, Want::Nothing)?;
        if link.attributes.kind() != FileType::Symlink {
            return Err(Status::INVAL.into());
        }
        let target = rustix::fs::readlinkat(&link.fd, c"", Vec::new())?;
        self.put_post(out, &link.attributes);
        out.opaque(target.as_bytes());
        Ok(())
    }

    fn read(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let object = self.object(args, caller, Want::Nothing)?;
        let (offset, count) = (args.u64()?, args.u32()? as usize);
        // Running a program takes reading it.
        if ![Want::Read, Want::Search]
            .iter()
            .any(|&w| self.allowed(caller, &object.attributes, w))
        {
            return Err(Status::ACCES.into());
        }
        let file = self.tree.content(&object, false)?;
        let mut data = vec![0; count.min(MAX_DATA)];
        let mut filled = 0;
        while filled < data.len() {
            match file.read_at(
                &mut data[filled..],
                offset.checked_add(filled as u64).ok_or(Status::INVAL)?,
            ) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        let attributes = Attributes::of(&*file)?;
        self.put_post(out, &attributes);
        out.u32(filled as u32)
            .bool(offset + filled as u64 >= attributes.0.stx_size)
            .opaque(&data[..filled]);
        Ok(())
    }

    fn write(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let object = self.object(args, caller, Want::Change)?;
        let (offset, _count, stable) = (args.u64()?, args.u32()?, args.u32()?);
        let data = args.opaque(MAX_DATA)?;
        let file = self.tree.content(&object, true)?;
        file.write_all_at(data, offset)?;
        if stable != UNSTABLE {
            file.sync_data()?;
        }
        self.put_changed_attributes(out, &Attributes::of(&*file)?);
        out.u32(data.len() as u32)
            .u32(if stable == UNSTABLE { UNSTABLE } else { FILE_SYNC })
            .fixed(&self.verifier);
        Ok(())
    }

    fn create(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        const UNCHECKED: u32 = 0;
        const GUARDED: u32 = 1;
        const EXCLUSIVE: u32 = 2;
        let (folder, name) = self.place(args, caller)?;
        let how = args.u32()?;
        let (wanted, stamp) = match how {
            UNCHECKED | GUARDED => (NewAttributes::read(args)?, None),
            EXCLUSIVE => {
                let stamp = (args.u32()? & i32::MAX as u32, args.u32()? & i32::MAX as u32);
                (
                    NewAttributes {
                        mode: Some(0o600),
                        ..NewAttributes::default()
                    },
                    Some(stamp),
                )
            }
            _ => return Err(Failure::Garbage),
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let object = match openat(&folder.fd, &name, flags, mode(wanted.mode.unwrap_or(0o644))) {
            Ok(fd) => {
                let object = self.tree.adopt(&folder, &name, fd.try_clone()?)?;
                // The mode may forbid to open it once more, not to write through this descriptor.
                self.tree
                    .keep(object.handle.key, Arc::new(File::from(fd)), true, true);
                // An exclusive creation is recognised, when it is asked for again, by
                // these times; the client sets the right ones afterwards.
                let times = stamp.map(|(a, m)| (When::At(a, 0), When::At(m, 0)));
                let (accessed, modified) = times.unwrap_or((wanted.accessed, wanted.modified));
                self.apply(
                    &object,
                    &NewAttributes {
                        mode: None,
                        owner: None,
                        accessed,
                        modified,
                        ..wanted
                    },
                )?;
                object
            }
            Err(Errno::EXIST) => {
                let object = self.tree.child(&folder, &name)?;
                let times = (
                    object.attributes.0.stx_atime.tv_sec,
                    object.attributes.0.stx_mtime.tv_sec,
                );
                let same = stamp.is_some_and(|(a, m)| times == (a.into(), m.into()));
                if object.attributes.kind() != FileType::RegularFile || !(how == UNCHECKED || same) {
                    return Err(Status::EXIST.into());
                }
                self.apply(
                    &object,
                    &NewAttributes {
                        size: wanted.size,
                        ..NewAttributes::default()
                    },
                )?;
                object
            }
            Err(e) => return Err(e.into()),
        };
        self.put_new(out, folder, object)
    }

    fn mkdir(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let (folder, name) = self.place(args, caller)?;
        let wanted = NewAttributes::read(args)?;
        rustix::fs::mkdirat(&folder.fd, &name, mode(wanted.mode.unwrap_or(0o755)))?;
        let object = self.tree.child(&folder, &name)?;
        self.apply(
            &object,
            &NewAttributes {
                mode: None,
                owner: None,
                size: None,
                ..wanted
            },
        )?;
        self.put_new(out, folder, object)
    }

    fn symlink(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let (folder, name) = self.place(args, caller)?;
        NewAttributes::read(args)?;
        let target = CString::new(args.opaque(MAX_PATH)?).map_err(|_| Status::INVAL)?;
        rustix::fs::symlinkat(&target, &folder.fd, &name)?;
        let object = self.tree.child(&folder, &name)?;
        self.put_new(out, folder, object)
    }

    /// Makes named pipes and sockets; devices are nobody's to make in a shared folder.
    fn mknod(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let (folder, name) = self.place(args, caller)?;
        let kind = match args.u32()? {
            6 => FileType::Socket,
            7 => FileType::Fifo,
            3 | 4 => return Err(Status::PERM.into()),
            _ => return Err(Status::BADTYPE.into()),
        };
        let wanted = NewAttributes::read(args)?;
        rustix::fs::mknodat(&folder.fd, &name, kind, mode(wanted.mode.unwrap_or(0o644)), 0)?;
        let object = self.tree.child(&folder, &name)?;
        self.put_new(out, folder, object)
    }

    fn remove(&self, args: &mut Reader, caller: &Caller, out: &mut Writer, flags: AtFlags) -> Outcome {
        let (mut folder, name) = self.place(args, caller)?;
        rustix::fs::unlinkat(&folder.fd, &name, flags)?;
        folder.refresh()?;
        self.put_changed(out, &folder);
        Ok(())
    }

    fn rename(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let (mut from, old) = self.place(args, caller)?;
        let (mut to, new) = self.place(args, caller)?;
        rustix::fs::renameat(&from.fd, &old, &to.fd, &new)?;
        // Remembers the new place; whoever has moved it on already is found by a search.
        let _ = self.tree.child(&to, &new);
        from.refresh()?;
        to.refresh()?;
        self.put_changed(out, &from);
        self.put_changed(out, &to);
        Ok(())
    }

    fn link(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let mut object = self.object(args, caller, Want::Change)?;
        let (mut folder, name) = self.place(args, caller)?;
        if object.attributes.kind() == FileType::Directory {
            return Err(Status::PERM.into());
        }
        rustix::fs::linkat(
            CWD,
            object.magic_path(),
            &folder.fd,
            &name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        object.refresh()?;
        folder.refresh()?;
        self.put_post(out, &object.attributes);
        self.put_changed(out, &folder);
        Ok(())
    }

    fn readdir(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let folder = self.object(args, caller, Want::Read)?.folder()?;
        let (cookie, _verifier, limit) = (args.u64()?, args.u64()?, args.u32()?);
        self.put_listing(out, &folder, cookie, limit as usize, |_, _| {})
    }

    fn readdirplus(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let folder = self.object(args, caller, Want::Read)?.folder()?;
        let (cookie, _verifier, _names_limit, limit) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
        let searchable = self.allowed(caller, &folder.attributes, Want::Search);
        self.put_listing(out, &folder, cookie, limit as usize, |out, name| {
            let object = match name.to_bytes() {
                b"." => self.tree.resolve(&folder.handle.to_bytes()),
                b".." => self.tree.parent(&folder),
                _ => self.tree.child(&folder, name),
            };
            match object {
                Ok(object) if searchable => {
                    self.put_post(out, &object.attributes);
                    out.bool(true).opaque(&object.handle.to_bytes());
                }
                // Gone meanwhile, or not for this caller: its name alone.
                _ => drop(out.bool(false).bool(false)),
            }
        })
    }

    fn fsstat(&self, args: &mut Reader, out: &mut Writer) -> Outcome {
        let object = self.object(args, &Caller::default(), Want::Nothing)?;
        let stat = rustix::fs::fstatvfs(&object.fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        self.put_post(out, &object.attributes);
        out.u64(bytes(stat.f_blocks))
            .u64(bytes(stat.f_bfree))
            .u64(bytes(stat.f_bavail));
        out.u64(stat.f_files).u64(stat.f_ffree).u64(stat.f_favail).u32(0);
        Ok(())
    }

    fn fsinfo(&self, args: &mut Reader, out: &mut Writer) -> Outcome {
        /// Hard links, symbolic links, all of one kind, times can be set.
        const PROPERTIES: u32 = 0x1 | 0x2 | 0x8 | 0x10;
        let object = self.object(args, &Caller::default(), Want::Nothing)?;
        self.put_post(out, &object.attributes);
        let data = MAX_DATA as u32;
        out.u32(data)
            .u32(data)
            .u32(4096)
            .u32(data)
            .u32(data)
            .u32(4096)
            .u32(64 << 10);
        out.u64(i64::MAX as u64).u32(0).u32(1).u32(PROPERTIES);
        Ok(())
    }

    fn pathconf(&self, args: &mut Reader, out: &mut Writer) -> Outcome {
        let object = self.object(args, &Caller::default(), Want::Nothing)?;
        self.put_post(out, &object.attributes);
        out.u32(32_000)
            .u32(MAX_NAME as u32)
            .bool(true)
            .bool(true)
            .bool(false)
            .bool(true);
        Ok(())
    }

    fn commit(&self, args: &mut Reader, caller: &Caller, out: &mut Writer) -> Outcome {
        let object = self.object(args, caller, Want::Change)?;
        let file = self.tree.content(&object, true)?;
        file.sync_data()?;
        self.put_changed_attributes(out, &Attributes::of(&*file)?);
        out.fixed(&self.verifier);
        Ok(())
    }

    /// Reads a handle and finds its file; refuses callers who may not.
    fn object(&self, args: &mut Reader, caller: &Caller, want: Want) -> Result<Object, Failure> {
        let object = self.tree.resolve(args.opaque(64)?)?;
        if self.allowed(caller, &object.attributes, want) {
            Ok(object)
        } else {
            Err(Status::ACCES.into())
        }
    }

    /// Reads a folder and a name for a change in it.
    fn place(&self, args: &mut Reader, caller: &Caller) -> Result<(Object, CString), Failure> {
        let folder = self.object(args, caller, Want::Change)?.folder()?;
        Ok((folder, component(args.opaque(MAX_PATH)?)?))
    }

    fn allowed(&self, caller: &Caller, attributes: &Attributes, want: Want) -> bool {
        if caller.uid.is_some_and(|uid| uid == 0 || uid == self.owner.uid) {
            return true;
        }
        let bit = match want {
            Want::Nothing => return true,
            Want::Change => return false,
            Want::Read => 0o4,
            Want::Search => 0o1,
        };
        let User { uid, gid } = self.shown(attributes);
        let class = if caller.uid == Some(uid) {
            6
        } else if caller.groups.contains(&gid) {
            3
        } else {
            0
        };
        attributes.mode() >> class & bit != 0
    }

    fn apply(&self, object: &Object, wanted: &NewAttributes) -> Result<(), Failure> {
        if let Some(size) = wanted.size {
            self.tree.content(object, true)?.set_len(size)?;
        }
        // What is so already is not set: that takes rights which the owner may lack.
        let shown = self.shown(&object.attributes);
        let owner = wanted.owner.filter(|&uid| uid != shown.uid).map(Uid::from_raw);
        let group = wanted.group.filter(|&gid| gid != shown.gid).map(Gid::from_raw);
        if owner.is_some() || group.is_some() {
            rustix::fs::chownat(&object.fd, c"", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if let Some(bits) = wanted.mode {
            rustix::fs::chmod(object.magic_path(), mode(bits))?;
        }
        if let Some(times) = wanted.times() {
            rustix::fs::utimensat(&object.fd, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }
}
