//! The part of `slurm.conf` that `thiao setup` writes for an existing cluster, and what to do with it.
//!
//! It is a file of its own that `slurm.conf` includes. Keys that hold lists (`SlurmctldParameters`,
//! `PrivateData`) count once in Slurm, the last line wins: they are merged with what is in effect.

mod conflict;

use crate::conf::{self, MemoryForms, NodeLine, SCHEDULER_PARAMETERS, Timeouts, merged};
use crate::info::Version;
use crate::join;
use crate::names::{self, slurmctld_parameters};
use crate::quirks::Quirks;
use crate::site_keys::{self, SiteKeys};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use crate::quirks::OLDEST;
pub use conflict::Conflict;

/// Whether the guests have control groups, as slurmd looks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    All,
    /// Some are small guests, which have none.
    None,
    /// Their images are the site's.
    Unknown,
}

impl Cgroups {
    /// What a person does about it.
    fn step(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::None => Some(
                "See that cgroup.conf, beside slurm.conf, has CgroupPlugin=cgroup/v1, ConstrainCores=no and \
                 ConstrainRAMSpace=no: small guests have no control groups, and slurmd looks for them otherwise.",
            ),
            Self::Unknown => Some(
                "Where VMs run Thiao's own guest (`thiao guest`), see that cgroup.conf, beside slurm.conf, has \
                 CgroupPlugin=cgroup/v1, ConstrainCores=no and ConstrainRAMSpace=no: it has no control groups. \
                 Images with systemd have them, and need nothing.",
            ),
        }
    }
}

/// What goes into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The Slurm that reads it.
    pub version: Version,
    /// The folder with the hooks, as slurmctld's host sees it.
    pub hooks: PathBuf,
    pub nodes: Vec<NodeLine>,
    /// The partition that jobs go to when they name none, if it is one of ours.
    pub default_partition: Option<String>,
    pub timeouts: Timeouts,
    /// How long a VM may take to come up with all its tries, in seconds: Slurm may not give up before.
    pub tries_s: u32,
    /// The site's own programs, by key, that are called beside ours: see [`crate::join`].
    pub joined: BTreeMap<&'static str, String>,
    /// How the site's partitions say memory.
    pub memory: MemoryForms,
    /// What the guests have, for what comes next.
    pub cgroups: Cgroups,
}

impl Fragment {
    /// The file's text. `own` is what the site has of its own.
    #[must_use]
    pub fn render(&self, own: &SiteKeys) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# Written by `thiao setup` for Slurm {}. Include it at the end of slurm.conf;\n\
             # slurmctld and every slurmd must read the same.\n\n# Who makes and removes the nodes",
            self.version
        );
        conf::write_hooks(&mut text, &self.hooks, &self.joined.keys().copied().collect());
        text.push_str(
            "\n# As many nodes at once as Slurm wants\nResumeRate=0\nSuspendRate=0\n\
             # A node that registers is in service\nReturnToService=2\n\
             # Messages go to each node directly: addresses of nodes that come and go are not in slurm.conf\n\
             TreeWidth=65533\n",
        );
        let quirks = Quirks::of(self.version);
        if quirks.private_cloud {
            let _ = writeln!(
                text,
                "# sinfo shows nodes that are powered down\nPrivateData={}",
                merged(own, "PrivateData", &[names::CLOUD])
            );
        } else if let Some(left) = own.left("PrivateData") {
            let _ = writeln!(text, "PrivateData={left}");
        }
        let _ = writeln!(
            text,
            "SlurmctldParameters={}",
            merged(own, "SlurmctldParameters", &slurmctld_parameters(quirks))
        );
        let _ = writeln!(
            text,
            "\n# Jobs reach their nodes about a second earlier with this, and heterogeneous ones of job mode up to a\n\
             # minute (only backfill starts them); it concerns the whole cluster:\n\
             # SchedulerParameters={}",
            merged(own, names::SCHEDULER, SCHEDULER_PARAMETERS)
        );
        if self.has_job_mode() {
            text.push_str(
                "\n# Job mode: one VM per node, a licence that jobs wait for, VMs smaller than their nodes' lines (for the\n\
                 # whole cluster: no node is drained any more for less memory or CPUs than its line), job_submit.lua\n",
            );
        } else if site_keys::JOB_MODE.iter().any(|key| own.left(key).is_some()) {
            text.push_str("\n# Your own, which earlier lines of ours took the place of\n");
        }
        conf::write_job_mode(&mut text, &self.nodes, own);
        let record = own.record(&text);
        if let Some(end) = text.find("\n\n") {
            text.insert_str(
                end,
                &format!(
                    "\n#\n# What of yours these lines take the place of:\n{}",
                    record.trim_end()
                ),
            );
        }
        text.push_str("\n# The nodes\n");
        conf::write_nodes(
            &mut text,
            &self.nodes,
            self.default_partition.as_deref(),
            self.timeouts,
            self.memory,
            quirks,
        );
        text
    }

    /// Whether some nodes are of job mode.
    #[must_use]
    pub fn has_job_mode(&self) -> bool {
        self.nodes.iter().any(|line| line.job.is_some())
    }
    /// What a person does after `text` was written to `file`, in order.
    #[must_use]
    pub fn next_steps(&self, text: &str, file: &Path, slurm_conf: &Path) -> Vec<String> {
        // slurmctld sends nodes what is included by its name alone; with a folder before the name they look
        // for it on their own disk, and do not start (measured on 22.05.8).
        let include = match (file.file_name(), file.parent() == slurm_conf.parent()) {
            (Some(name), true) => format!(
                "Put the line `Include {}` at the end of {}: without a folder, so that slurmctld sends it to the nodes.",
                name.display(),
                slurm_conf.display()
            ),
            (Some(_) | None, _) => format!(
                "Append what is in {} to {}. (To include it instead, write it into the same folder with --fragment: \
                 slurmctld sends the nodes no other included files.)",
                file.display(),
                slurm_conf.display()
            ),
        };
        let mut steps = vec![include];
        steps.extend(self.cgroups.step().map(str::to_owned));
        steps.push(self.lines_to_remove(text));
        steps.extend(self.job_mode_steps(file, slurm_conf));
        steps.extend([
            "Start the controller: systemctl enable --now thiaod".to_owned(),
            "Restart slurmctld (new nodes need it; running jobs go on): systemctl restart slurmctld"
                .to_owned(),
            format!("See the nodes as idle~: sinfo -N -n {}", self.nodes_list()),
            format!(
                "Try one: sbatch {}--wrap hostname, and watch with `thiao events --follow`.",
                self.partition_option()
            ),
        ]);
        steps
    }

    /// The lines of slurm.conf that ours take the place of. Of some keys Slurm takes several lines: there the
    /// site's own are not in ours.
    fn lines_to_remove(&self, text: &str) -> String {
        let stays = |key: &&str| join::takes_several(key, self.version) && !self.joined.contains_key(key);
        let (stay, go): (Vec<&str>, Vec<&str>) = site_keys::keys(text).into_iter().partition(stays);
        let mut step = format!(
            "Remove earlier lines for these keys from slurm.conf: {}. The same for our nodes and partitions.",
            go.join(", ")
        );
        if !stay.is_empty() {
            let _ = write!(
                step,
                " Your own lines for {} stay there: Slurm runs them and ours.",
                stay.join(" and ")
            );
        }
        step
    }

    fn job_mode_steps(&self, file: &Path, slurm_conf: &Path) -> Vec<String> {
        let mut steps = Vec::new();
        if self.has_job_mode() && file.parent() != slurm_conf.parent() {
            steps.push(format!(
                "Move {} beside {}: slurmctld looks for it there.",
                file.with_file_name(crate::lua::FILE).display(),
                slurm_conf.display()
            ));
        }
        let devices: Vec<String> = self.nodes.iter().filter_map(NodeLine::gres).collect();
        if !devices.is_empty() {
            steps.push(format!(
                "Put into gres.conf, beside slurm.conf: {}. (slurmd counts GPUs by these files, which Thiao's guests \
                 make; guests of your own need them before slurmd starts, as many as the line says.)",
                devices.join(" and ")
            ));
        }
        steps
    }

    /// Nothing if jobs come to our nodes by themselves.
    fn partition_option(&self) -> String {
        match (&self.default_partition, self.nodes.first()) {
            (None, Some(line)) => format!("-p {} ", line.partition),
            (Some(_), _) | (None, None) => String::new(),
        }
    }

    fn nodes_list(&self) -> String {
        self.nodes
            .iter()
            .map(|line| line.nodes.as_str())
            .collect::<Vec<_>>()
            .join(",")
    }
}
