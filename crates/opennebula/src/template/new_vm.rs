//! The VM that is wanted, and what follows from that alone.

use crate::inputs::Inputs;
use crate::settings::{Guest, ReadyBy};
use thiao_core::ids::{HostName, NodesetName, VmTag};
use thiao_core::view::{Shape, VmSpec};
use thiao_guest::auth::Auth;
use thiao_guest::secret::Secret;

/// The longest name that OpenNebula takes.
const MAX_VM_NAME: usize = 128;

/// The one job that it is for: for people, and for who finds it. In CONTEXT too.
pub const JOB: &str = "THIAO_JOB";

/// The VM that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct NewVm<'a> {
    pub tag: &'a VmTag,
    pub nodeset: &'a NodesetName,
    /// Where it will be, if we choose.
    pub host: Option<&'a HostName>,
    /// What it is to be.
    pub spec: &'a VmSpec,
    /// What one GPU is in a `PCI` attribute, if the nodeset says it.
    pub gpu_pci: Option<&'a [(String, String)]>,
    /// Folders, people and InfiniBand of the nodeset's guests.
    pub inputs: &'a Inputs,
    /// The password for its people's directory, when guests get it from us.
    pub ldap_password: Option<&'a Secret>,
    /// More CONTEXT attributes, of the nodeset alone.
    pub context: &'a [(String, String)],
    /// Memory beside what Slurm promises, in MiB.
    pub overhead_mb: u64,
    /// The nodeset's network: as configured, and its id.
    pub network: Option<(&'a str, u32)>,
    /// What says that the guest is ready.
    pub ready: ReadyBy,
    /// What every guest is told.
    pub guest: &'a Guest,
    /// The cluster's secret, when guests get it from us.
    pub auth: Option<&'a Auth>,
}

impl NewVm<'_> {
    /// What `MEMORY` says, in MiB: overhead included.
    #[must_use]
    pub fn memory_mb(&self) -> u64 {
        self.spec.shape.total_mb(self.overhead_mb)
    }
}

/// The VM's name. People read it; nothing is matched by it.
#[must_use]
pub fn vm_name(tag: &VmTag) -> String {
    // Names have nothing that OpenNebula refuses, and are ASCII.
    let number = format!("-{}", tag.generation);
    let mut name = format!("{}-{}", tag.cluster, tag.node);
    name.truncate(MAX_VM_NAME - number.len());
    name + &number
}

/// `CPU`: promised cores, as OpenNebula reads numbers (no exponent).
#[must_use]
pub fn share(shape: Shape) -> String {
    let percent = u64::from(shape.cpus) * u64::from(shape.share_percent);
    match (percent / 100, percent % 100) {
        (cores, 0) => cores.to_string(),
        (cores, part) if part % 10 == 0 => format!("{cores}.{}", part / 10),
        (cores, part) => format!("{cores}.{part:02}"),
    }
}
