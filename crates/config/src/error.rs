//! Why there are no settings.

use crate::read::Problem;
use std::fmt;
use std::path::PathBuf;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: {error}; name another with --config or THIAO_CONFIG")]
    Unreadable {
        file: PathDisplay,
        error: std::io::Error,
    },
    /// The file is not to be trusted.
    #[error("{file}: {why}")]
    Untrusted {
        file: PathDisplay,
        /// Why, and the remedy.
        why: String,
    },
    /// What it says is wrong.
    #[error("{}", list(.file, .problems))]
    Wrong {
        file: PathDisplay,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

/// A path that prints itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathDisplay(pub PathBuf);

impl fmt::Display for PathDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

fn list(file: &PathDisplay, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|Problem { line, key, message }| {
            let place = if *line == 0 {
                format!("{file}")
            } else {
                format!("{file}:{line}")
            };
            if key.is_empty() {
                format!("{place}: {message}")
            } else {
                format!("{place}: {key}: {message}")
            }
        })
        .collect();
    lines.join("\n")
}
