//! By what the daemons of a lab's Slurm know each other.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the daemons of a lab's Slurm know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthBy {
    /// By a munged of the lab's own
    #[default]
    Munge,
    /// By Slurm's own key
    Slurm,
}
