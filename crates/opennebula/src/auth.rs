//! Credentials as OpenNebula's users keep them.

use crate::error::Error;
use std::fmt;
use std::path::Path;

/// The session string `user:secret`. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<credentials>")
    }
}

impl Credentials {
    /// Reads the file; refuses one that others may read or write.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let _ = file;
        todo!()
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// What oned gets as first argument of every call.
    pub(crate) fn session(&self) -> &str {
        &self.0
    }
}
