//! The users' folders, served to the guests by NFS version 3 over TCP.
//!
//! Each folder has a process of its own, which acts as the folder's user: the
//! kernel, not we, decides what may be read and written. It outlives the
//! controller (VMs go on using it) and is adopted by the next one.
//!
//! ```text
//! <state_dir>/exports/<id>      its pid and port; locked by the process for as long as it lives
//! <state_dir>/exports/<id>.log  its last words
//! ```
//!
//! A dead export is started again on the port that it had, and finds its
//! files by the handles that guests hold: mounts (`hard`) go on.
//!
//! Why it exists. Guests of many users hang on it, and none of what is ready-made serves a folder as its user:
//! - nfs-ganesha (4.3, tried) opens files by handles, for which it needs rights of root's
//!   (`CAP_DAC_READ_SEARCH`): as an ordinary user it answers MOUNT and no CREATE. It does not start without
//!   rpcbind, where a second user's process cannot register.
//! - unfs3 (0.11, tried) does run as an ordinary user. It answers unprivileged ports, takes handles that anybody
//!   can compute, follows links out of the folder, does not tell the users of a guest apart, ends at a malformed
//!   handle, and empties files that another guest has just made. Debian does not have it.
//! - The crate `nfsserve` (0.11) drops the mode of `mkdir` (a private folder would become public), has no hard
//!   links, named pipes, COMMIT or access checks, loses its handles with its process, and would answer any program
//!   that speaks to its port.

mod args;
mod attributes;
mod child;
mod error;
mod exports;
mod fs;
mod handles;
mod nfs;
mod record;
mod replies;
mod server;
mod start;
mod xdr;

pub use child::child;
pub use error::ExportError;
pub use exports::{Exports, Folder};
pub use record::{PORTS, SUBCOMMAND};
pub use start::serve;

use std::ffi::OsString;
use std::process::ExitCode;

/// Becomes an export, if these are the words for one, the program's name first: between a program that makes VMs
/// and its child, not for people.
#[must_use]
pub fn called(args: &[OsString]) -> Option<ExitCode> {
    match args {
        [_, first, rest @ ..] if first == SUBCOMMAND => Some(child(rest)),
        _ => None,
    }
}
