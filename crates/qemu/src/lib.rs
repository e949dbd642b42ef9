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
pub mod disk;
mod error;
pub mod fence;
mod guest;
pub mod image;
pub mod iso;
mod launch;
pub mod left;
mod machine;
pub mod net;
mod people;
mod process;
mod provider;
mod qmp;
mod seed;
mod settings;
mod shares;
mod sums;
mod template;
pub mod trial;
mod vmdir;
mod warm;

pub use accel::Choice;
pub use context_disk::DiskVm;
pub use error::Error;
pub use machine::Accel;
pub use provider::{Heard, Prepared, Qemu};
pub use settings::{
    AccelChoice, Allowed, Backup, Credentials, FenceSettings, GuestSettings, Guests, Host, Mount, NfsVersion,
    Resolver, Settings, Share, SlurmFiles, User,
};
pub use vmdir::Moment;
pub use warm::Warmth;

/// The IPv4 address of a server of the site's, as VMs are told it.
///
/// # Errors
/// When this machine knows none, or does not say in time.
pub fn server_address(name: &str) -> Result<std::net::Ipv4Addr, String> {
    people::Directory::default().server(name)
}

/// Connects to a VM's console, if it is on this machine and the caller may enter its folder.
///
/// # Errors
/// When there is no such VM, it has ended, or the caller may not.
pub fn console(
    state_dir: &std::path::Path,
    id: &thiao_core::ids::VmId,
) -> std::io::Result<std::os::unix::net::UnixStream> {
    qmp::connect(&state_dir.join("vms").join(id.as_str()), vmdir::CONSOLE_SOCKET)
}
