//! What callers send with a procedure, checked: who they are, names, and the attributes they want.

use crate::fs::Status;
use crate::xdr::{Garbage, Reader};
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use std::ffi::CString;

/// Longest name of an entry, in bytes.
pub const MAX_NAME: usize = 255;

/// Who asks, by his guest's word.
#[derive(Debug, Default)]
pub struct Caller {
    pub uid: Option<u32>,
    pub groups: Vec<u32>,
}

/// A user and his group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whom this process acts as.
    pub fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

/// What a caller wants attributes to be (`sattr3`).
#[derive(Debug, Clone, Copy, Default)]
pub struct NewAttributes {
    pub mode: Option<u32>,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    pub size: Option<u64>,
    pub accessed: When,
    pub modified: When,
}

/// What a time of a file is set to (`set_atime`, `set_mtime`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Keep,
    Now,
    /// Seconds and nanoseconds since the epoch.
    At(u32, u32),
}

impl When {
    /// Takes it off the front of the arguments.
    pub fn read(args: &mut Reader) -> Result<Self, Garbage> {
        match args.u32()? {
            0 => Ok(Self::Keep),
            1 => Ok(Self::Now),
            2 => Ok(Self::At(args.u32()?, args.u32()?)),
            _ => Err(Garbage),
        }
    }

    fn to_timespec(self) -> Timespec {
        match self {
            Self::Keep => Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            Self::Now => Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            },
            Self::At(seconds, nanoseconds) => Timespec {
                tv_sec: seconds.into(),
                tv_nsec: nanoseconds.into(),
            },
        }
    }
}

impl NewAttributes {
    /// Which times to set, if any.
    pub fn times(&self) -> Option<Timestamps> {
        ((self.accessed, self.modified) != (When::Keep, When::Keep)).then(|| Timestamps {
            last_access: self.accessed.to_timespec(),
            last_modification: self.modified.to_timespec(),
        })
    }

    /// Takes them off the front of the arguments.
    pub fn read(args: &mut Reader) -> Result<Self, Garbage> {
        let mut word = || {
            if args.bool()? {
                args.u32().map(Some)
            } else {
                Ok(None)
            }
        };
        let (mode, owner, group) = (word()?, word()?, word()?);
        let size = if args.bool()? { Some(args.u64()?) } else { None };
        Ok(Self {
            mode,
            owner,
            group,
            size,
            accessed: When::read(args)?,
            modified: When::read(args)?,
        })
    }
}

/// The permission bits among these, with set-user-id, set-group-id and sticky.
pub fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

/// A name that may stand for one entry of a folder, and never for the folder or what is above it.
pub fn component(name: &[u8]) -> Result<CString, Status> {
    if name.len() > MAX_NAME {
        return Err(Status::NAMETOOLONG);
    }
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Status::INVAL);
    }
    CString::new(name).map_err(|_| Status::INVAL)
}
