//! What the resolving of single keys goes by: the machine, who makes the VMs, and what words may be.

use std::path::{Path, PathBuf};
use thiao_core::ids::Millis;
use thiao_core::policy::Policy;

/// Most nodes that one controller minds.
pub(super) const MAX_NODES: usize = 65_536;

/// A second, in milliseconds.
pub(super) const SECOND: u64 = 1_000;

/// What this machine is, for defaults. Nothing else of it is looked at.
pub struct Machine {
    /// Its host name, up to the first dot.
    pub name: String,
    /// How many CPUs it has.
    pub cpus: u32,
    /// Its memory, in MiB.
    pub memory_mb: u64,
    /// The program that runs.
    pub program: PathBuf,
    /// `$ONE_XMLRPC`, where OpenNebula's own programs find oned.
    pub one_xmlrpc: Option<String>,
    /// `$ONE_AUTH`, where they find the credentials.
    pub one_auth: Option<PathBuf>,
    /// `$HOME`, in which they find them otherwise.
    pub home: Option<PathBuf>,
    /// Where `thiao-guest` is when the file does not say.
    pub agent: PathBuf,
    /// Its `resolv.conf`, with the servers behind a resolver of its own.
    pub resolv_conf: String,
    /// The ports of which its kernel gives one to who asks for any: at these `srun` waits for its steps.
    pub any_port: (u16, u16),
    /// Its user of a name, or why there is none.
    pub user: fn(&str) -> Result<thiao_qemu::User, String>,
    /// Its Slurm, by the folder of the clients and those of the plugins, or why there is none.
    pub slurm: fn(Option<&Path>, &[PathBuf]) -> Result<thiao_qemu::SlurmFiles, String>,
}

/// Who makes the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Qemu,
    OpenNebula,
}

impl Maker {
    /// Each with its word, which is also its table's name.
    pub(super) const WORDS: [(&str, Self); 2] = [("qemu", Self::Qemu), ("opennebula", Self::OpenNebula)];

    /// The limits and times that fit it where the file says nothing.
    pub(super) fn policy(self) -> Policy {
        match self {
            Self::Qemu => Policy {
                guests_wait: true,
                ..Policy::default()
            },
            Self::OpenNebula => Policy {
                max_starting: 1000,
                boot_timeout: Millis::secs(300),
                ..Policy::default()
            },
        }
    }

    /// How often to observe its VMs, in milliseconds: at rest, and while VMs come up or go.
    pub(super) fn polls(self) -> (u64, u64) {
        match self {
            Self::Qemu => (5 * SECOND, 250),
            Self::OpenNebula => (10 * SECOND, SECOND),
        }
    }
}

/// A word that slurm.conf takes without quotes.
pub(super) fn word(text: &str) -> Result<String, String> {
    let good = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 63 of letters, digits, '.', '_' and '-'".to_owned())
    }
}
