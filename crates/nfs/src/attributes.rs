//! What the kernel tells of a file.

use rustix::fs::{AtFlags, FileType, RawMode, Statx, StatxFlags, statx};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// A file's attributes, as the kernel tells them.
#[derive(Debug, Clone, Copy)]
pub struct Attributes(pub Statx);

impl Attributes {
    /// Asks the kernel about an open file.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        Ok(Self(statx(
            fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        )?))
    }

    /// Whether the file system says when the file was made.
    pub fn has_birth(&self) -> bool {
        self.0.stx_mask & StatxFlags::BTIME.bits() != 0
    }

    /// The file system that it is on, both parts of the number in one.
    pub fn device(&self) -> u32 {
        (self.0.stx_dev_major << 20) | self.0.stx_dev_minor
    }

    /// Whether it is a file, a folder, or what else.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(RawMode::from(self.0.stx_mode))
    }

    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode) & 0o7777
    }
}
