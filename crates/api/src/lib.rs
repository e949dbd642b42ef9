//! What the controller and those who ask it share: the local API's contract (`types`, and the
//! `words` that programs go by), its client, how jobs are named there, and the folder that the socket is in (`state_dir`).

pub mod client;
mod job_name;
pub mod state_dir;
pub mod types;
pub mod words;

pub use job_name::{JobName, JobNames};

/// The API's version: the first part of every path.
pub const VERSION: u32 = 1;

/// The socket's file name in the state folder.
pub const SOCKET: &str = "api.sock";
