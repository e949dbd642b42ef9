//! The local API: HTTP and JSON on a Unix socket in the state folder, versioned
//! by path (`/v1/…`), authorised by the kernel's peer credentials.
//!
//! `types` is the contract, `server` asks the controller over a bounded
//! channel of [`Query`], `client` is what the command line uses.

pub mod client;
mod query;
pub mod server;
pub mod types;

pub use query::{ApiError, JobName, Query, Reply, Viewer};

/// The API's version: the first part of every path.
pub const VERSION: u32 = 1;

/// The socket's file name in the state folder.
pub const SOCKET: &str = "api.sock";
