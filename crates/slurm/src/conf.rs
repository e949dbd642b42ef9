//! What the configurations that we write have in common.

use std::fmt::Write as _;
use std::path::Path;

/// The hooks that Slurm calls, by `slurm.conf` key and program name in the hooks' folder.
pub const HOOKS: &[(&str, &str)] = &[
    ("ResumeProgram", "Resume"),
    ("SuspendProgram", "Suspend"),
    ("ResumeFailProgram", "ResumeFail"),
    ("PrologSlurmctld", "PrologSlurmctld"),
    ("EpilogSlurmctld", "EpilogSlurmctld"),
];

/// Scheduling that loses the least time between `sbatch` and ResumeProgram.
///
/// Measured on 22.05.8: jobs that the backfill scheduler starts in its loop of 1 s reach ResumeProgram 6 to
/// 9 ms after their allocation, because slurmctld's power-save loop is in phase with it; 0.2 to 1.0 s after
/// `sbatch` in all. Those that the main scheduler starts wait up to another second (0.3 to 2.0 s in all).
/// So the main scheduler is held back.
pub const SCHEDULER_PARAMETERS: &[&str] = &["batch_sched_delay=10", "sched_interval=60", "bf_interval=1"];

/// `SlurmctldParameters` of nodes that come and go: slurmd fetches its configuration, brings its own
/// address, and slurmctld looks after its power-save work each second (default 10).
///
/// `idle_on_node_suspend` is left out on purpose: with it a node that we set DOWN comes back as soon as it
/// is powered down, and not when it can be backed again (measured on 22.05.8).
pub const SLURMCTLD_PARAMETERS: &[&str] = &[
    "enable_configless",
    "power_save_interval=1",
    "power_save_min_interval=0",
    "cloud_reg_addrs",
];

/// Nodes of one shape, as one `NodeName` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    /// The nodes, as a hostlist.
    pub nodes: String,
    /// CPUs of each.
    pub cpus: u32,
    /// Memory that each promises to jobs, in MiB.
    pub memory_mb: u64,
    /// Words for `sbatch --constraint`.
    pub features: Vec<String>,
    /// The partition that they are in.
    pub partition: String,
}

impl NodeLine {
    fn write(&self, to: &mut String) {
        let Self {
            nodes,
            cpus,
            memory_mb,
            ..
        } = self;
        let _ = write!(to, "NodeName={nodes} CPUs={cpus} RealMemory={memory_mb}");
        if !self.features.is_empty() {
            let _ = write!(to, " Feature={}", self.features.join(","));
        }
        to.push_str(" State=CLOUD\n");
    }
}

/// Slurm's waits in power saving, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From ResumeProgram to the node's registration: when it is over, Slurm gives up. Ours to report
    /// long before.
    pub resume_s: u32,
    /// From SuspendProgram until the node may be resumed again.
    pub suspend_s: u32,
    /// How long a node stays idle before it is powered down.
    pub idle_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resume_s: 300,
            suspend_s: 10,
            idle_s: 60,
        }
    }
}

/// The nodes' lines, and one `PartitionName` line for each of their partitions, in their order. The
/// power-saving times are set here and not for the whole cluster, so that nodes of other partitions are
/// never powered down (that this is enough was measured on 22.05.8).
pub(crate) fn write_nodes(to: &mut String, lines: &[NodeLine], default: Option<&str>, times: Timeouts) {
    for line in lines {
        line.write(to);
    }
    let mut done: Vec<&str> = Vec::new();
    for line in lines {
        let name = line.partition.as_str();
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let nodes: Vec<&str> = lines
            .iter()
            .filter(|l| l.partition == name)
            .map(|l| l.nodes.as_str())
            .collect();
        let Timeouts {
            resume_s,
            suspend_s,
            idle_s,
        } = times;
        let _ = writeln!(
            to,
            "PartitionName={name} Nodes={}{} State=UP MaxTime=INFINITE OverSubscribe=EXCLUSIVE \
             ResumeTimeout={resume_s} SuspendTimeout={suspend_s} SuspendTime={idle_s}",
            nodes.join(","),
            if default == Some(name) { " Default=YES" } else { "" },
        );
    }
}

pub(crate) fn write_hooks(to: &mut String, folder: &Path) {
    for (key, program) in HOOKS {
        let _ = writeln!(to, "{key}={}", folder.join(program).display());
    }
}
