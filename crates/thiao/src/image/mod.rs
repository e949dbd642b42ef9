//! Images of an ordinary Debian for VMs: made with mmdebstrap from apt's packages, with systemd, Slurm's
//! daemon and munge of the cluster's version, and what else the admin lists.
//!
//! The system's files come out the same for the same versions of the packages (`digest`); the disk that
//! is made of them has times of its own.

mod build;
mod check;
mod group;
mod read;

pub use build::{Built, Listener, build, disk_of};
pub use check::{Wanted, judge};
pub use read::{suite_of, this_suite};

/// Packages that every image has: a system that boots a microVM by itself, and what slurmd needs.
/// `procps` and `iproute2` are what people type first on a node that they do not know.
const ALWAYS: [&str; 10] = [
    "ca-certificates",
    "dbus",
    "iproute2",
    KERNEL,
    "munge",
    "procps",
    "slurm-client",
    "slurmd",
    "systemd-sysv",
    "udev",
];

/// The package of the kernel: the one that is made for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What an image has beside, where nobody lists anything.
pub const USUAL: [&str; 1] = ["python3"];
