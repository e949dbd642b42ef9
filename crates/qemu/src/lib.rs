//! The embedded provider: makes the guest image, starts, watches and ends
//! microVMs with QEMU on this machine.
//!
//! ```text
//!  image ---> template ---> launch ---> a daemonized QEMU, its folder (vmdir)
//!  (cached)   (warm: by shape) |              ^            |
//!  accel: what runs guests     +-- machine: its command line
//!                              +-- channel: the guest's context, its reports
//! ```
//! `context_disk` makes VMs as OpenNebula would, for its stand-in: with a context disk
//! in the channel's place.
//!
//! The VMs outlive the process that made them. Their folders are the truth.

mod accel;
mod address;
mod beside;
pub mod cgroup;
mod channel;
mod context_disk;
mod error;
mod guest;
pub mod image;
mod launch;
pub mod left;
mod machine;
pub mod net;
mod provider;
mod qmp;
mod settings;
mod sums;
mod template;
mod vmdir;
mod warm;

pub use accel::Choice;
pub use context_disk::DiskVm;
pub use error::Error;
pub use machine::Accel;
pub use provider::{Prepared, Qemu};
pub use settings::{
    AccelChoice, Backup, Credentials, GuestSettings, Host, Settings, Share, SlurmFiles, User,
};
pub use vmdir::Moment;
pub use warm::Warmth;
