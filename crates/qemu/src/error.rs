//! What can go wrong, and what it means for what to do next.

use std::io;
use std::path::{Path, PathBuf};
use thiao_core::ids::HostName;
use thiao_core::view::ErrorClass;

/// A failure of the provider: what failed, why, and what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest image cannot be made.
    #[error("the guest image cannot be made: {0}")]
    Image(String),
    /// A file or program could not be used.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        path: PathBuf,
        /// Why; not as the error's source, which would be said twice.
        error: io::Error,
    },
    /// A host has no capacity left.
    #[error("host {host} has {free_mb} MiB of memory free, the VM needs {needed_mb} MiB")]
    Full {
        host: HostName,
        /// What is left of its memory.
        free_mb: u64,
        /// What was asked for.
        needed_mb: u64,
    },
    /// Every address of the network is in use.
    #[error("all addresses of the VMs' network are in use; declare a wider network")]
    NoAddress,
    /// What was asked for can't be done as things are configured.
    #[error("{0}")]
    Refused(String),
    /// QEMU did not start or did not do what it was told.
    #[error("{0}")]
    Qemu(String),
    /// A guest did not answer in the time that it has.
    #[error("{0}")]
    Unheard(String),
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    #[error(transparent)]
    Fence(#[from] crate::fence::FenceError),
    /// The shares could not be served.
    #[error(transparent)]
    Export(#[from] thiao_nfs::ExportError),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            error,
        }
    }

    /// Whether it is only that who asks may not.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What the failure means for what to do next.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Full { .. } | Error::NoAddress => ErrorClass::Full,
            Error::Image(_) | Error::Refused(_) => ErrorClass::Refused,
            Error::Fence(_)
            | Error::Io { .. }
            | Error::Qemu(_)
            | Error::Unheard(_)
            | Error::Net(_)
            | Error::Export(_) => ErrorClass::Transient,
        }
    }
}
