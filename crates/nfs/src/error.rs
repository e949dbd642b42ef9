//! What can go wrong with an export, and what mends it.

use crate::record::SUBCOMMAND;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What went wrong with an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The folder cannot be opened.
    #[error(
        "cannot export {folder}: {source}; the folder must be there, and its user must be able to enter it"
    )]
    Folder { folder: PathBuf, source: io::Error },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the guests' files: {source}; the bridge must have this address")]
    Listen { address: SocketAddr, source: io::Error },
    /// The process cannot become the share's user.
    #[error(
        "cannot act as uid {uid}, gid {gid}: {source}; run the controller as root, or share only its own user's folders"
    )]
    User { uid: u32, gid: u32, source: io::Error },
    /// A file of ours cannot be used.
    #[error("cannot {what} {path}: {source}")]
    State {
        /// What was tried, as a verb.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The process cannot be started.
    #[error("cannot start {program} {SUBCOMMAND}: {source}")]
    Start { program: PathBuf, source: io::Error },
    /// The process ended at once, or said nothing.
    #[error("the export of {folder} did not start: {said}; see {log}")]
    Silent {
        folder: PathBuf,
        said: String,
        /// What else it has said.
        log: PathBuf,
    },
    /// A running process holds the record, and is not one of ours.
    #[error(
        "{record} is locked by a process that is no export: end it (`fuser {record}` names it), then try again"
    )]
    Foreign { record: PathBuf },
    /// Not started as it must be.
    #[error("`{SUBCOMMAND}` is started by the controller, not by hand")]
    ByHand,
}
