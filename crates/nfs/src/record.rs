//! What an export and whoever starts it share.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The hidden subcommand of a program that makes VMs: an export.
pub const SUBCOMMAND: &str = "nfs-export";

/// Exports listen here and nowhere else, and nothing else does: below the ports that the kernel gives to programs that
/// ask for any. So a firewall can tell them from all others.
pub const PORTS: RangeInclusive<u16> = 20_480..=28_671;

/// How long one that ends may take, before it is killed, and before its port is given up.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// What an export tells about itself.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    /// For people who look into the file.
    pub(crate) folder: String,
}
