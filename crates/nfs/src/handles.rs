//! File handles: what a client holds to name a file, for as long as it likes.
//!
//! A handle tells the inode, its device and its time of birth (so that a
//! reused inode number is another file), and a *trail*: one byte for each
//! folder on the way from the export's root. With the trail a file is found
//! again after a restart of the server, without any table that outlives it,
//! by looking only into folders that can be on its way. The trail is made of
//! inode numbers, not names, so renaming a folder does not break it.

use crate::attributes::Attributes;

/// Longest handle that NFS version 3 allows, in bytes.
const MAX_HANDLE: usize = 64;
const FORMAT: u8 = 1;
const FIXED: usize = 1 + 8 + 4 + 4;
const MAX_TRAIL: usize = MAX_HANDLE - FIXED;

/// One file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub inode: u64,
    pub device: u32,
    pub birth: u32,
}

impl Key {
    /// The key of the file that has these attributes.
    pub fn of(attributes: &Attributes) -> Self {
        let born = attributes.0.stx_btime;
        let birth = if attributes.has_birth() {
            (born.tv_sec as u32).rotate_left(11) ^ born.tv_nsec
        } else {
            0
        };
        Self {
            inode: attributes.0.stx_ino,
            device: attributes.device(),
            birth,
        }
    }
}

/// The way to a file: a byte for each folder below the root. Cut where a handle has no more space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail(Vec<u8>);

impl Trail {
    /// The trail of what lies in the folder `inode`, which is at this trail itself.
    pub fn within(&self, inode: u64) -> Self {
        let mut bytes = self.0.clone();
        if bytes.len() < MAX_TRAIL {
            bytes.push(Self::mark(inode));
        }
        Self(bytes)
    }

    /// Whether the folder `inode` can be the one at this depth.
    pub fn passes(&self, depth: usize, inode: u64) -> bool {
        self.0.get(depth).is_some_and(|&mark| mark == Self::mark(inode))
    }

    /// How many folders of the way it knows.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether it had no space for the whole way.
    pub fn is_cut(&self) -> bool {
        self.0.len() == MAX_TRAIL
    }

    /// The top byte of a multiplicative hash: neighbouring inodes get different marks.
    fn mark(inode: u64) -> u8 {
        (inode.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }
}

/// What is sent to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    pub key: Key,
    pub trail: Trail,
}

impl Handle {
    /// What a client gets, at most 64 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.trail.depth());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.key.inode.to_be_bytes());
        bytes.extend_from_slice(&self.key.device.to_be_bytes());
        bytes.extend_from_slice(&self.key.birth.to_be_bytes());
        bytes.extend_from_slice(&self.trail.0);
        bytes
    }

    /// Reads a handle; `None` if it is none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&format, rest) = bytes.split_first()?;
        let (inode, rest) = rest.split_first_chunk()?;
        let (device, rest) = rest.split_first_chunk()?;
        let (birth, trail) = rest.split_first_chunk()?;
        if format != FORMAT || trail.len() > MAX_TRAIL {
            return None;
        }
        let key = Key {
            inode: u64::from_be_bytes(*inode),
            device: u32::from_be_bytes(*device),
            birth: u32::from_be_bytes(*birth),
        };
        Some(Self {
            key,
            trail: Trail(trail.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_survive_the_wire_and_never_outgrow_it() {
        let key = Key {
            inode: 1 << 50,
            device: 0xfd00_0001,
            birth: 7,
        };
        let mut trail = Trail::default();
        for inode in 0..200 {
            let handle = Handle {
                key,
                trail: trail.clone(),
            };
            let bytes = handle.to_bytes();
            assert!(bytes.len() <= MAX_HANDLE);
            assert_eq!(Handle::from_bytes(&bytes), Some(handle));
            trail = trail.within(inode);
        }
        assert!(trail.passes(3, 3) && !trail.passes(3, 4) && !trail.passes(MAX_TRAIL, MAX_TRAIL as u64));
        for bad in [&b""[..], b"\x01short", &[2; 30], &[1; 65]] {
            assert_eq!(Handle::from_bytes(bad), None);
        }
    }
}
