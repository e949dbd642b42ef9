//! What the configurations that we write have in common.

use crate::gate::{GATE, GPU, GPU_FILE, VM};
use crate::info::Config;
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
    /// What is said of nodes of job mode alone.
    pub job: Option<JobLine>,
}

/// What is said of nodes of job mode alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLine {
    /// Memory for each CPU of a job that names none, in MiB.
    pub memory_per_cpu_mb: u64,
    /// The most GPUs of a job on one node.
    pub gpus: u32,
}

impl NodeLine {
    fn write(&self, to: &mut String) {
        let Self {
            nodes,
            cpus,
            memory_mb,
            ..
        } = self;
        let _ = write!(to, "NodeName={nodes} CPUs={cpus}");
        if self.job.is_some() {
            // Else CPUs would be sockets, of which a smaller VM lacks some.
            let _ = write!(to, " Sockets=1 CoresPerSocket={cpus} ThreadsPerCore=1");
        }
        let _ = write!(to, " RealMemory={memory_mb}");
        if let Some(job) = self.job {
            let _ = write!(to, " Gres={VM}:1");
            if job.gpus > 0 {
                let _ = write!(to, ",{GPU}:{}", job.gpus);
            }
        }
        if !self.features.is_empty() {
            let _ = write!(to, " Feature={}", self.features.join(","));
        }
        to.push_str(" State=CLOUD\n");
    }

    /// Its line for `gres.conf`, if it needs one.
    pub(crate) fn gres(&self) -> Option<String> {
        let gpus = self.job.map(|job| job.gpus).filter(|gpus| *gpus > 0)?;
        let files = match gpus {
            1 => format!("{GPU_FILE}0"),
            some => format!("{GPU_FILE}[0-{}]", some - 1),
        };
        Some(format!("NodeName={} Name={GPU} File={files}", self.nodes))
    }
}

/// What the whole of Slurm is told for job mode, by key of `slurm.conf`; nothing without such nodes.
///
/// `config_overrides` lets a VM register that is smaller than its node's line: the line is the largest that
/// a job may have. Without it slurmctld drains the node for "Low RealMemory". A generic resource that has
/// no plugin, as [`VM`], needs no `gres.conf`. Measured on 22.05.8.
#[must_use]
pub fn job_mode(lines: &[NodeLine]) -> Vec<(&'static str, Vec<String>)> {
    let jobs = || lines.iter().filter_map(|line| line.job);
    if jobs().next().is_none() {
        return Vec::new();
    }
    let mut kinds = vec![VM.to_owned()];
    if jobs().any(|job| job.gpus > 0) {
        kinds.push(GPU.to_owned());
    }
    vec![
        ("GresTypes", kinds),
        ("Licenses", vec![format!("{GATE}:1")]),
        ("SlurmdParameters", vec!["config_overrides".to_owned()]),
        ("JobSubmitPlugins", vec!["lua".to_owned()]),
    ]
}

pub(crate) fn write_job_mode(to: &mut String, lines: &[NodeLine], present: Option<&Config>) {
    for (key, words) in job_mode(lines) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = writeln!(to, "{key}={}", merged(present, key, &words));
    }
}

/// A comma-separated value: what is in effect, with our words in place of the same words there.
pub(crate) fn merged(present: Option<&Config>, key: &str, wanted: &[&str]) -> String {
    let name = |word: &str| {
        let name = word.split(['=', ':']).next().unwrap_or(word);
        name.trim().to_ascii_lowercase()
    };
    let ours: Vec<String> = wanted.iter().map(|w| name(w)).collect();
    let theirs = present
        .and_then(|c| c.get(key))
        .filter(|v| !v.eq_ignore_ascii_case("none"))
        .unwrap_or_default();
    let kept = theirs
        .split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty() && !ours.contains(&name(w)));
    kept.chain(wanted.iter().copied()).collect::<Vec<_>>().join(",")
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
        let here = || lines.iter().filter(|l| l.partition == name);
        let nodes: Vec<&str> = here().map(|l| l.nodes.as_str()).collect();
        // Jobs of job mode have their nodes to themselves by the generic resource: so Slurm counts for them
        // what they asked for.
        let shared = match here()
            .filter_map(|l| l.job)
            .map(|job| job.memory_per_cpu_mb)
            .min()
        {
            Some(each) => format!("OverSubscribe=NO DefMemPerCPU={each}"),
            None => "OverSubscribe=EXCLUSIVE".to_owned(),
        };
        let Timeouts {
            resume_s,
            suspend_s,
            idle_s,
        } = times;
        let _ = writeln!(
            to,
            "PartitionName={name} Nodes={}{} State=UP MaxTime=INFINITE {shared} \
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
