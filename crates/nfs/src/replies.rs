//! What procedures answer with: attributes, new files, listings.

use crate::args::User;
use crate::attributes::Attributes;
use crate::fs::{Object, Status};
use crate::nfs::{MAX_DATA, Nfs, Outcome};
use crate::xdr::Writer;
use rustix::fs::FileType;
use std::ffi::CStr;

/// Bytes of an answer to a listing that are kept free for what is not an entry.
const LISTING_FRAME: usize = 128;

impl Nfs {
    /// A file's owner, as the guests are told.
    pub(super) fn shown(&self, attributes: &Attributes) -> User {
        let User { uid, gid } = User {
            uid: attributes.0.stx_uid,
            gid: attributes.0.stx_gid,
        };
        User {
            uid: if uid == self.acting.uid {
                self.owner.uid
            } else {
                uid
            },
            gid: if gid == self.acting.gid {
                self.owner.gid
            } else {
                gid
            },
        }
    }

    /// The entries after `cookie` as far as they fit into `limit` bytes; `more` adds what is told beside a name.
    pub(super) fn put_listing(
        &self,
        out: &mut Writer,
        folder: &Object,
        cookie: u64,
        limit: usize,
        more: impl Fn(&mut Writer, &CStr),
    ) -> Outcome {
        let entries = self.tree.list(folder)?;
        let parent = self.tree.parent(folder)?;
        let dots = [
            (1, self.tree.file_id(&folder.attributes), c"."),
            (2, self.tree.file_id(&parent.attributes), c".."),
        ];
        let after = entries.partition_point(|e| e.cookie <= cookie);
        let rest = entries[after..]
            .iter()
            .map(|e| (e.cookie, e.inode, e.name.as_c_str()));
        let limit = limit.clamp(LISTING_FRAME, MAX_DATA) - LISTING_FRAME;
        self.put_post(out, &folder.attributes);
        out.u64(0);
        let first = out.len();
        let mut complete = true;
        for (cookie, inode, name) in dots.into_iter().filter(|d| d.0 > cookie).chain(rest) {
            let before = out.len();
            out.bool(true).u64(inode).opaque(name.to_bytes()).u64(cookie);
            more(out, name);
            if out.len() - first > limit {
                out.truncate(before);
                complete = false;
                break;
            }
        }
        if !complete && out.len() == first {
            return Err(Status::TOOSMALL.into());
        }
        out.bool(false).bool(complete);
        Ok(())
    }

    /// The answer of what has made something: its handle and attributes, and the folder's.
    pub(super) fn put_new(&self, out: &mut Writer, mut folder: Object, mut object: Object) -> Outcome {
        object.refresh()?;
        folder.refresh()?;
        out.bool(true).opaque(&object.handle.to_bytes());
        self.put_post(out, &object.attributes);
        self.put_changed(out, &folder);
        Ok(())
    }

    pub(super) fn put_post(&self, out: &mut Writer, attributes: &Attributes) {
        out.bool(true);
        self.put_attributes(out, attributes);
    }

    pub(super) fn put_changed(&self, out: &mut Writer, object: &Object) {
        self.put_changed_attributes(out, &object.attributes);
    }

    pub(super) fn put_changed_attributes(&self, out: &mut Writer, attributes: &Attributes) {
        out.bool(false);
        self.put_post(out, attributes);
    }

    pub(super) fn put_attributes(&self, out: &mut Writer, attributes: &Attributes) {
        let stat = &attributes.0;
        let kind = match attributes.kind() {
            FileType::RegularFile | FileType::Unknown => 1,
            FileType::Directory => 2,
            FileType::BlockDevice => 3,
            FileType::CharacterDevice => 4,
            FileType::Symlink => 5,
            FileType::Socket => 6,
            FileType::Fifo => 7,
        };
        let User { uid, gid } = self.shown(attributes);
        out.u32(kind)
            .u32(attributes.mode())
            .u32(stat.stx_nlink)
            .u32(uid)
            .u32(gid);
        out.u64(stat.stx_size).u64(stat.stx_blocks.saturating_mul(512));
        out.u32(stat.stx_rdev_major)
            .u32(stat.stx_rdev_minor)
            .u64(0)
            .u64(self.tree.file_id(attributes));
        for time in [stat.stx_atime, stat.stx_mtime, stat.stx_ctime] {
            out.u32(u32::try_from(time.tv_sec.max(0)).unwrap_or(u32::MAX))
                .u32(time.tv_nsec);
        }
    }
}
