//! Every fact about Slurm: its commands and their text formats, `SLURM_RESUME_FILE`, the `slurm.conf`
//! that power saving needs. No decisions: those are `thiao-core`'s.
//!
//! *Architecture invariant:* nothing else in Thiao runs one of Slurm's programs or knows what they print.
//! A look is whole or an error; no call is made per node or per job to look.

pub mod conf;
mod control;
mod error;
pub mod fragment;
mod info;
pub mod jobs;
pub mod lab;
pub mod nodes;
pub mod resume_file;
mod run;

pub use control::Slurm;
pub use error::SlurmError;
pub use info::{Config, Ping, Version};
pub use run::package_of;
