//! What the provider must know before it starts: one plain value, resolved by
//! the caller, never read from the environment here.

use crate::image::built::ImageName;
use crate::net::Network;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use thiao_core::ids::{ClusterName, HostName, NodeName, NodesetName};

pub use crate::fence::Allowed;
pub use thiao_guest::auth::Credentials;
pub use thiao_guest::protocol::{Backup, NfsVersion, Resolver, UserEntry as User};

/// Everything that [`crate::Qemu::open`] needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose VMs these are; written into every VM.
    pub cluster: ClusterName,
    /// Where VM folders and warm templates live; private to us.
    pub state_dir: PathBuf,
    /// Where the guest image and downloaded packages are kept; no secrets there.
    pub cache_dir: PathBuf,
    /// The hosts that share this machine, each with its own capacity.
    pub hosts: Vec<Host>,
    /// The bridge that the VMs are on.
    pub network: Network,
    /// What the guests are, where their nodeset does not say.
    pub guests: Guests,
    /// What `/tmp` holds in guests with disks, in GiB; it takes what is written.
    pub tmp_gb: u64,
    /// What they are in nodesets that say it.
    pub nodesets: BTreeMap<NodesetName, Guests>,
    pub nodes: BTreeMap<NodeName, NodesetName>,
    /// How guests are accelerated.
    pub accel: AccelChoice,
    /// Whether VMs start from a saved, already booted guest.
    pub warm: bool,
    /// Most saved guests at once: beside those for the shapes that are prepared, sizes that
    /// are asked for often get one.
    pub templates_max: usize,
    /// Memory that a guest needs beside what Slurm promises its jobs, in MiB:
    /// its kernel (36, and 19 per GiB), its system in memory (25), munged and
    /// slurmd (40). 140 is enough for nodes of up to 2 GiB.
    pub overhead_mb: u64,
    /// The Slurm that guests get; else why there is none.
    pub slurm: Result<SlurmFiles, String>,
    /// What the guests are told.
    pub guest: GuestSettings,
    /// What VMs reach; none: nothing keeps them from anything.
    pub fence: Option<FenceSettings>,
    /// The `thiao-guest` binary, which becomes the guests' first process.
    pub agent: PathBuf,
    /// The program that is running: its hidden subcommand serves the shares.
    pub program: PathBuf,
}

impl Settings {
    /// What the guests of a nodeset are.
    #[must_use]
    pub fn guests_in(&self, nodeset: &NodesetName) -> &Guests {
        self.nodesets.get(nodeset).unwrap_or(&self.guests)
    }

    /// What the guest of a node is.
    #[must_use]
    pub fn guests_of(&self, node: &NodeName) -> &Guests {
        self.nodes
            .get(node)
            .map_or(&self.guests, |nodeset| self.guests_in(nodeset))
    }

    /// Every kind of guest that a node may have, each once.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<&Guests> {
        let own = |nodeset: &NodesetName| self.nodesets.contains_key(nodeset);
        let default = self.nodes.is_empty() || !self.nodes.values().all(own);
        let default = default.then_some(&self.guests);
        self.nodesets.values().chain(default).collect()
    }
}

/// Where this machine has its Slurm, which is in the guests at the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmFiles {
    /// The folder of `scontrol`, `srun` and the like.
    pub bin: PathBuf,
    /// The folder of `slurmd` and `slurmstepd`.
    pub sbin: PathBuf,
    /// The folders of plugins.
    pub plugins: Vec<PathBuf>,
}

/// What runs in a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guests {
    /// Small ones, made from this machine's own programs, all in memory: for tests and demos.
    Small,
    /// An image that `thiao image build` made, on disks.
    Built(ImageName),
    /// An image of the site's own with cloud-init: this file, raw or qcow2.
    Brought(PathBuf),
}

/// A host declared on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: HostName,
    /// Cores that it may promise.
    pub cpus: u32,
    /// Memory that its VMs may use in all, in MiB.
    pub memory_mb: u64,
}

/// How guests are accelerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccelChoice {
    /// KVM where a real guest was seen to boot with it, else TCG.
    #[default]
    Auto,
    /// The processor's virtualisation, without a trial.
    Kvm,
    /// Emulation by QEMU, on any processor.
    Tcg,
}

/// What every guest is told beside its own identity.
#[derive(Debug, Clone)]
pub struct GuestSettings {
    /// slurmctld's host name, as `SlurmctldHost` names it.
    pub slurmctld_host: String,
    /// Where guests reach it.
    pub slurmctld_addr: Ipv4Addr,
    /// Its port; the first, if there are several.
    pub slurmctld_port: u16,
    /// Those that stand in for it.
    pub backups: Vec<Backup>,
    /// Slurm's user, as `SlurmUser` names it.
    pub slurm_user: String,
    /// The cluster's secret on this machine.
    pub credentials: Credentials,
    /// Users that are named ahead: each has VMs.
    pub users: Vec<User>,
    /// Whether others have VMs, too, whom this machine knows.
    pub everybody: bool,
    /// Folders of this machine that the guests see.
    pub shares: Vec<Share>,
    /// Whether each user's home, if it is on this machine, is among these.
    pub homes: bool,
    /// Folders of the site's file servers that all guests see.
    pub mounts: Vec<Mount>,
    /// Whom guests ask for names.
    pub resolver: Resolver,
}

/// What VMs reach beside each other, slurmctld and their folders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FenceSettings {
    pub allow: Vec<Allowed>,
}

/// A folder of a site's file server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The server's name or IPv4 address.
    pub server: String,
    /// The folder, as it exports it.
    pub path: PathBuf,
    /// Where the guests see it.
    pub target: PathBuf,
    pub version: NfsVersion,
    /// Mount options, as mount(8) has them.
    pub options: Vec<String>,
}

/// A folder of this machine that the guests see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The folder on this machine.
    pub source: PathBuf,
    /// Where the guests see it.
    pub target: PathBuf,
    /// Whose it is: all access is under this uid.
    pub uid: u32,
    /// And under this gid.
    pub gid: u32,
}
