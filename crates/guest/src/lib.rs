//! What the machine and its guests say to each other. The one place where the
//! words exist: the agent (this crate's binary) and the providers all use it.

pub mod auth;
pub mod authorities;
pub mod context_disk;
pub mod dns;
pub mod protocol;
pub mod secret;
pub mod units;
pub mod users;
