//! The local API: HTTP and JSON on a Unix socket in the state folder, versioned
//! by path (`/v1/…`), authorised by the kernel's peer credentials.
//!
//! `server` asks the controller over a bounded channel of [`Query`]; the contract is
//! `thiao_api::types`.

mod query;
pub mod server;

pub use query::{ApiError, Demand, Query, Read, Reply, Viewer};
