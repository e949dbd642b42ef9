//! The settings: `thiao.toml`, read once, checked whole, resolved into plain
//! values that can be printed with where each came from. Nothing else reads
//! the file, the environment or a default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use thiao_core::ids::{ClusterName, NodeName, NodesetName};
use thiao_core::policy::Policy;
use thiao_core::view::Shape;

pub use thiao_core::world::NodeSpec;

/// Everything that was configured or is the default, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// Whose nodes these are.
    pub cluster: ClusterName,
    /// Where sockets, spool, database and VMs live.
    pub state_dir: PathBuf,
    /// How Slurm is reached.
    pub slurm: SlurmSettings,
    /// Nodes of one shape, by name.
    pub nodesets: BTreeMap<NodesetName, Nodeset>,
    /// Every node of all nodesets.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// The limits and times that `plan` obeys.
    pub policy: Policy,
    /// When the controller looks and acts.
    pub timing: Timing,
    /// What the embedded provider must know.
    pub qemu: thiao_qemu::Settings,
}

/// How Slurm is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmSettings {
    /// `slurm.conf`; none: where Slurm's programs look themselves.
    pub conf: Option<PathBuf>,
    /// Where `scontrol`, `squeue` and `sinfo` are; none: by PATH.
    pub bin_dir: Option<PathBuf>,
    /// How long one of them may take.
    pub timeout: Duration,
}

/// Nodes of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodeset {
    /// Their names as a folded hostlist.
    pub nodes: String,
    /// How many.
    pub count: usize,
    /// How big each VM is.
    pub shape: Shape,
    /// The Slurm partition that `thiao setup` puts them in.
    pub partition: String,
    /// Slurm features of them.
    pub features: Vec<String>,
}

/// When the controller looks and acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Longest pause between two rounds when nothing wakes the controller.
    pub tick: Duration,
    /// Pause between looks at Slurm when nothing is under way.
    pub slurm_poll: Duration,
    /// Pause between looks at Slurm while nodes or jobs come up or go.
    pub slurm_poll_busy: Duration,
    /// Pause between looks at the provider when nothing is under way.
    pub vm_poll: Duration,
    /// Pause between looks at the provider while VMs come up or go.
    pub vm_poll_busy: Duration,
    /// Looks older than this are not acted on.
    pub look_max_age: Duration,
    /// How long events are kept.
    pub events_keep: Duration,
}
