//! Why something could not be looked at.

use std::{fmt, io};
use thiao_slurm::SlurmError;

/// Why something could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// Why, in words for people.
    pub why: String,
    /// Whether this user was not let; another may be.
    pub denied: bool,
}

impl Unseen {
    /// For a reason that is no question of who asks.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            denied: false,
        }
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        Self {
            why: error.to_string(),
            denied: error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<SlurmError> for Unseen {
    fn from(error: SlurmError) -> Self {
        Self {
            why: error.to_string(),
            denied: error.is_denied(),
        }
    }
}
