//! The embedded provider: makes the guest image, starts, watches and ends
//! microVMs with QEMU on this machine.

pub mod cgroup;
pub mod export;
pub mod net;
mod settings;

pub use settings::{AccelChoice, GuestSettings, Host, Settings, Share, User};
