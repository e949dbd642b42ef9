//! The OpenNebula provider: every fact about OpenNebula, and no decisions.
//!
//! `wire` and `client` speak XML-RPC (measured on oned 7.4, with differences to
//! 5.x and 6.x read from its sources), `state` and `model` are what it says,
//! `syntax` and `template` are what it is told, `provider` is all of it as a
//! provider of VMs.

pub mod acl;
pub mod auth;
pub mod budget;
pub mod check;
pub mod client;
pub mod error;
pub mod events;
pub mod inputs;
pub mod model;
pub mod pci;
pub mod places;
pub mod provider;
pub mod read;
pub mod secgroup;
mod secret_file;
pub mod settings;
pub mod size;
pub mod state;
pub mod syntax;
pub mod template;
#[cfg(test)]
mod testing;
pub mod wire;

pub use client::Client;
pub use error::{Class, Error};
pub use provider::OpenNebula;
pub use settings::Settings;
