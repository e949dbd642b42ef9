//! The settings: `thiao.toml`, read once, checked whole, resolved into plain
//! values that can be printed with where each came from. Nothing else reads
//! the file, the environment or a default.

mod carries;
mod error;
pub mod import;
mod load;
mod passwd;
mod places;
pub mod programs;
mod read;
mod resolve;
mod settings;
mod usual;

pub use carries::overpromised;
pub use error::{ConfigError, PathDisplay};
pub use load::{Loaded, from_text, installed, load, parse};
pub use passwd::{home_of, user_id};
pub use places::{Places, places, state_dir};
pub use read::Problem;
pub use resolve::{Machine, SMALL, read_image};
pub use settings::{
    Config, JobNodeset, JobSettings, Nodeset, ProviderSettings, Sharing, SlurmSettings, Timing,
};
pub use thiao_core::world::{JobPartition, Mode, NodeSpec};
pub use usual::{DEFAULT_CACHE_DIR, DEFAULT_FILE, DEFAULT_SLURM_CONF, LAB_VARIABLE, ROOTS_LAB};

#[cfg(test)]
mod tests;
