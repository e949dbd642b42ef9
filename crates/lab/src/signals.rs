//! Ctrl-C and its kin: noted, and obeyed by the loops that ask; or, for the
//! keeper, read from a descriptor.

use anyhow::{Context, Result};
use std::os::fd::{FromRawFd, OwnedFd};
pub use thiao_cli::signals::{interrupted, watch};

/// Blocks the keeper's signals; they are read from the returned descriptor instead.
///
/// # Errors
/// When the kernel gives none.
pub fn block() -> Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; the descriptor is new and ours.
    unsafe {
        let mut set = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).context("signals cannot be watched");
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next signal that came, if any.
pub fn next(signals: &OwnedFd) -> Option<i32> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let read = rustix::io::read(signals, &mut info).ok()?;
    (read == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
}
