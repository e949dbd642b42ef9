//! The whole configuration of a private lab: one slurmctld with its own ports, state and munge socket.
//!
//! The values were found by experiment on 22.05.8 (Debian 12) and are told where they are not obvious.

use crate::conf::{self, MemoryForms, NodeLine, SCHEDULER_PARAMETERS, Timeouts};
use crate::names::slurmctld_parameters;
use crate::quirks::Quirks;
use crate::site_keys::SiteKeys;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

/// The guests' `cgroup.conf`: no cgroups needed, none touched. Works where v1 or nothing is mounted.
pub const CGROUP_CONF: &str = "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\n";

/// The `cgroup.conf` of guests that have them: jobs get the cores and the memory that they asked for, no more.
pub const CGROUP_CONF_FULL: &str = "ConstrainCores=yes\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n";

/// What tracks and confines jobs where nodes have control groups, and where they have none.
const WITH_CGROUPS: &str = "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup,task/affinity\nJobAcctGatherType=jobacct_gather/cgroup\n";
const WITHOUT_CGROUPS: &str =
    "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n";

/// How Slurm's daemons know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// By munged at this socket. Guests that fetch their configuration by the network need it at the default
    /// place first: `/run/munge/munge.socket.2`.
    Munge(PathBuf),
    /// By Slurm's own key (23.11 and later); the daemons find it by `SLURM_SACK_KEY`. slurmctld listens for
    /// clients at `/run/slurmctld/sack.socket`, which no setting changes (25.11: `sack.c`).
    Slurm,
}

impl Auth {
    fn lines(&self) -> String {
        match self {
            Self::Munge(socket) => format!(
                "AuthType=auth/munge\nAuthInfo=socket={}\nCredType=cred/munge\n",
                socket.display()
            ),
            Self::Slurm => "AuthType=auth/slurm\nCredType=cred/slurm\n".to_owned(),
        }
    }
}

/// A slurmctld for tests and labs, and its `slurm.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// What is peculiar to its slurmctld.
    pub quirks: Quirks,
    pub cluster: String,
    /// What `hostname -s` says where slurmctld runs; it refuses to start under another name.
    pub host: String,
    /// Where nodes reach it.
    pub address: IpAddr,
    pub slurmctld_port: u16,
    /// The port of the nodes' slurmds.
    pub slurmd_port: u16,
    /// Who slurmctld runs as.
    pub user: String,
    /// Its state, 0700; absolute.
    pub state: PathBuf,
    /// Where its log goes; absolute.
    pub log: PathBuf,
    /// Its pid file; absolute.
    pub pid_file: PathBuf,
    /// How its daemons know each other.
    pub auth: Auth,
    /// Whether all its nodes have control groups.
    pub cgroups: bool,
    /// The folder with the hooks; `None` leaves them out.
    pub hooks: Option<PathBuf>,
    pub nodes: Vec<NodeLine>,
    /// The partition for jobs that name none.
    pub default_partition: Option<String>,
    pub timeouts: Timeouts,
}

impl Lab {
    /// The text of `slurm.conf`.
    #[must_use]
    pub fn slurm_conf(&self) -> String {
        let mut text = format!(
            "ClusterName={}\nSlurmctldHost={}({})\nSlurmUser={}\nSlurmdUser=root\nSlurmctldPort={}\nSlurmdPort={}\n\
             {}StateSaveLocation={}\n\
             SlurmctldLogFile={}\nSlurmctldPidFile={}\n",
            self.cluster,
            self.host,
            self.address,
            self.user,
            self.slurmctld_port,
            self.slurmd_port,
            self.auth.lines(),
            self.state.display(),
            self.log.display(),
            self.pid_file.display(),
        );
        let _ = write!(
            text,
            "SlurmctldDebug=info\nLogTimeFormat=iso8601_ms\n\
             # Nothing that a guest or the machine may lack\n\
             {}\
             AccountingStorageType=accounting_storage/none\nMpiDefault=none\nSwitchType=switch/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\n\
             SchedulerType=sched/backfill\nSchedulerParameters={}\nSlurmctldParameters={}\n\
             ResumeRate=0\nSuspendRate=0\nReturnToService=2\nTreeWidth=65533\n\
             # Thiao watches the VMs; a VM held still is no failed node\nSlurmdTimeout=0\n\
             # A job stays known for a while after its end\nMinJobAge=300\n",
            match self.cgroups {
                true => WITH_CGROUPS,
                false => WITHOUT_CGROUPS,
            },
            SCHEDULER_PARAMETERS.join(","),
            slurmctld_parameters(self.quirks).join(","),
        );
        if self.quirks.private_cloud {
            text.push_str("PrivateData=cloud\n");
        }
        conf::write_job_mode(&mut text, &self.nodes, &SiteKeys::default());
        if let Some(hooks) = &self.hooks {
            conf::write_hooks(&mut text, hooks, &BTreeSet::new());
        }
        conf::write_nodes(
            &mut text,
            &self.nodes,
            self.default_partition.as_deref(),
            self.timeouts,
            MemoryForms::default(),
            self.quirks,
        );
        text
    }
}
