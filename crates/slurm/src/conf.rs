//! What the configurations that we write have in common.

use crate::conf_lines::{word_name, words};
use crate::join;
use crate::names::{GATE, GPU, GPU_FILE, HOOKS, LUA, OVERRIDES, VM};
use crate::quirks::Quirks;
use crate::site_keys::{self, SiteKeys};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Scheduling that loses the least time between `sbatch` and ResumeProgram.
///
/// Measured on 22.05.8: jobs that the backfill scheduler starts in its loop of 1 s reach ResumeProgram 6 to
/// 9 ms after their allocation, because slurmctld's power-save loop is in phase with it; 0.2 to 1.0 s after
/// `sbatch` in all. Those that the main scheduler starts wait up to another second (0.3 to 2.0 s in all).
/// So the main scheduler is held back.
pub const SCHEDULER_PARAMETERS: &[&str] = &["batch_sched_delay=10", "sched_interval=60", "bf_interval=1"];

/// The word for `sbatch --constraint` of nodes that have no other.
const FEATURE: &str = "thiao";

/// Nodes of one shape, as one `NodeName` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    /// The nodes, as a hostlist.
    pub nodes: String,
    /// How many CPUs each has.
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
    /// Every key is written that `NodeName=DEFAULT` of the site may set and that would make another node of
    /// it: Slurm has no line that ends such defaults. An empty `Feature=""` is logged as an error at each
    /// start (22.05 to 26.05), so there is always a word.
    fn write(&self, to: &mut String) {
        let Self {
            nodes,
            cpus,
            memory_mb,
            ..
        } = self;
        let (sockets, cores) = match self.job {
            // Else CPUs would be sockets, of which a smaller VM lacks some.
            Some(_) => (1, *cpus),
            None => (*cpus, 1),
        };
        let _ = write!(
            to,
            "NodeName={nodes} CPUs={cpus} Boards=1 Sockets={sockets} CoresPerSocket={cores} ThreadsPerCore=1 \
             CoreSpecCount=0 CPUSpecList=\"\" MemSpecLimit=0 RealMemory={memory_mb} TmpDisk=0 Weight=1"
        );
        match self.job {
            None => to.push_str(" Gres=\"\""),
            Some(JobLine { gpus: 0, .. }) => {
                let _ = write!(to, " Gres={VM}:1");
            }
            Some(JobLine { gpus, .. }) => {
                let _ = write!(to, " Gres={VM}:1,{GPU}:{gpus}");
            }
        }
        let features = match self.features.as_slice() {
            [] => FEATURE.to_owned(),
            some => some.join(","),
        };
        let _ = writeln!(to, " Feature={features} State=CLOUD");
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
        ("SlurmdParameters", vec![OVERRIDES.to_owned()]),
        ("JobSubmitPlugins", vec![LUA.to_owned()]),
    ]
}

/// Without such nodes a key that earlier lines set keeps what is the site's own.
pub(crate) fn write_job_mode(to: &mut String, lines: &[NodeLine], own: &SiteKeys) {
    let ours = job_mode(lines);
    if ours.is_empty() {
        let left = site_keys::JOB_MODE
            .iter()
            .filter_map(|key| Some((key, own.left(key)?)));
        for (key, words) in left {
            let _ = writeln!(to, "{key}={words}");
        }
    }
    for (key, words) in ours {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = writeln!(to, "{key}={}", merged(own, key, &words));
    }
}

/// A comma-separated value: what the site has, in its order, for a site may need that; the same words have
/// our values there, and what lacks of ours comes behind.
pub(crate) fn merged(own: &SiteKeys, key: &str, wanted: &[&str]) -> String {
    let mut left: Vec<&str> = wanted.to_vec();
    let mut all: Vec<&str> = Vec::new();
    for word in words(own.get(key)) {
        let same = |ours: &&str| word_name(ours) == word_name(word);
        match left.iter().position(same) {
            Some(ours) => all.push(left.remove(ours)),
            // A second time.
            None if wanted.iter().any(same) => {}
            None => all.push(word),
        }
    }
    all.extend(left);
    all.join(",")
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

/// Which of its two forms Slurm's partitions have for memory. Where two lines have both, Slurm takes the one
/// per node, whichever was written last, and each of its programs complains on its user's terminal (22.05 to
/// 26.05): so ours follow the site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryForms {
    /// What jobs get that name none is said per CPU.
    pub default_per_cpu: bool,
    /// The most that they may have is said per node.
    pub most_per_node: bool,
}

/// The nodes' lines, and one `PartitionName` line for each of their partitions, in their order. The
/// power-saving times are set here and not for the whole cluster, so that nodes of other partitions are
/// never powered down (that this is enough was measured on 22.05.8).
pub(crate) fn write_nodes(
    to: &mut String,
    lines: &[NodeLine],
    default: Option<&str>,
    times: Timeouts,
    forms: MemoryForms,
    quirks: Quirks,
) {
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
        let here: Vec<&NodeLine> = lines.iter().filter(|l| l.partition == name).collect();
        write_partition(to, name, &here, default == Some(name), times, forms, quirks);
    }
}

/// Every key is written that `PartitionName=DEFAULT` or the whole cluster's settings would set otherwise and
/// by which jobs get no VM, or another one than they asked for. Who may use a partition, at which priority
/// and price, stays as the site's defaults say.
fn write_partition(
    to: &mut String,
    name: &str,
    here: &[&NodeLine],
    is_default: bool,
    times: Timeouts,
    forms: MemoryForms,
    quirks: Quirks,
) {
    let nodes: Vec<&str> = here.iter().map(|line| line.nodes.as_str()).collect();
    let yes_no = if is_default { "YES" } else { "NO" };
    // Jobs of job mode have their nodes to themselves by the generic resource: so Slurm counts for them
    // what they asked for.
    let job_mode = here.iter().any(|line| line.job.is_some());
    let shared = if job_mode { "NO" } else { "EXCLUSIVE" };
    let memory = memory(here, forms);
    let more = match quirks.newer_partitions {
        true => " MaxCPUsPerSocket=UNLIMITED PowerDownOnIdle=NO",
        false => "",
    };
    let Timeouts {
        resume_s,
        suspend_s,
        idle_s,
    } = times;
    let _ = writeln!(
        to,
        "PartitionName={name} Nodes={} Default={yes_no} State=UP MaxTime=INFINITE DefaultTime=INFINITE \
         MinNodes=0 MaxNodes=UNLIMITED MaxCPUsPerNode=UNLIMITED OverSubscribe={shared} ExclusiveUser=NO LLN=NO \
         Hidden=NO RootOnly=NO ReqResv=NO{more} {memory} ResumeTimeout={resume_s} SuspendTimeout={suspend_s} \
         SuspendTime={idle_s}",
        nodes.join(","),
    );
}

/// What jobs get that name no memory, and the most that a node gives. Power saving: as much as the smallest
/// of the partition's nodes has, so that such a job fits on each.
fn memory(here: &[&NodeLine], forms: MemoryForms) -> String {
    let per_cpu = |line: &&NodeLine| line.memory_mb / u64::from(line.cpus.max(1));
    let default = match here
        .iter()
        .filter_map(|line| line.job)
        .map(|job| job.memory_per_cpu_mb)
        .min()
    {
        Some(each) => format!("DefMemPerCPU={each}"),
        None if forms.default_per_cpu => {
            format!(
                "DefMemPerCPU={}",
                here.iter().map(per_cpu).min().unwrap_or(1).max(1)
            )
        }
        None => format!(
            "DefMemPerNode={}",
            here.iter().map(|line| line.memory_mb).min().unwrap_or(1)
        ),
    };
    let most = here.iter().map(|line| line.memory_mb).max().unwrap_or(1);
    // A CPU may have all: no limit beside the node's own.
    let unit = if forms.most_per_node { "Node" } else { "CPU" };
    format!("{default} MaxMemPer{unit}={most}")
}

/// Our programs; of those keys that are `joined` the scripts that call the site's too.
pub(crate) fn write_hooks(to: &mut String, folder: &Path, joined: &BTreeSet<&str>) {
    for (key, name) in HOOKS {
        let program = join::program(folder, name, joined.contains(key));
        let _ = writeln!(to, "{key}={}", program.display());
    }
}
