//! How a lab is asked for, and what that means once resolved. Written to
//! `lab.json`, so that every later command and the keeper read the same.

use crate::auth::AuthBy;
use crate::layout::{self, Layout};
use crate::person::{self, Person};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use thiao_config::programs;
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::view::Shape;
use thiao_qemu::Guests;

/// What can be chosen about a lab.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Nodes that Slurm knows; each gets a VM when a job wants it
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    pub nodes: u32,
    /// CPUs of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub cpus: u32,
    /// Memory of each node for its jobs, in MiB
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(64..=1_048_576), value_name = "MIB")]
    pub memory_mb: u64,
    /// Nodes of job mode: each job on them gets VMs of its own, of its size; 0: none
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=4096), value_name = "N")]
    #[serde(default)]
    pub job_nodes: u32,
    /// CPUs of the largest VM of a job (default: 4, or what a host has)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub job_cpus: Option<u32>,
    /// Memory of the largest VM of a job, in MiB (default: 800, or what a host has)
    #[arg(long, value_parser = clap::value_parser!(u64).range(64..=1_048_576), value_name = "MIB")]
    pub job_memory_mb: Option<u64>,
    /// A job size for which a guest is booted and saved ahead, as CPUSxMIB; may be repeated
    #[arg(long, default_values_t = [DEFAULT_JOB.to_owned()], value_delimiter = ',', value_name = "SIZE")]
    #[serde(default)]
    pub warm: Vec<String>,
    /// Hosts that share this machine and carry the VMs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub hosts: u32,
    /// CPUs of each host (default: what its part of the nodes needs)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    pub host_cpus: Option<u32>,
    /// Memory of each host for VMs, in MiB (default: what its part of the nodes needs)
    #[arg(long, value_parser = clap::value_parser!(u64).range(128..), value_name = "MIB")]
    pub host_memory_mb: Option<u64>,
    /// How guests are accelerated
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// Boot every VM from the start instead of from a warm template
    #[arg(long)]
    pub cold: bool,
    /// Run this image in the VMs, with control groups: one that `thiao image build` made, or a file with cloud-init
    /// (default: small guests)
    #[arg(long, value_name = "IMAGE", conflicts_with = "opennebula")]
    #[serde(default)]
    pub image: Option<String>,
    /// The user who submits jobs (root's labs only; default: the one behind sudo, else the first ordinary one)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// How many users submit jobs; if more than one, they are user1, user2..., known only in the lab (root's labs only)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    #[serde(default = "one")]
    pub users: u32,
    /// slurmctld's port, inside the lab's own network
    #[arg(long, default_value_t = 6817, value_name = "PORT")]
    pub slurmctld_port: u16,
    /// slurmd's port in the guests
    #[arg(long, default_value_t = 6818, value_name = "PORT")]
    pub slurmd_port: u16,
    /// The host's address in the lab's own network
    #[arg(long, default_value = "10.127.0.1", value_name = "ADDRESS")]
    pub address: Ipv4Addr,
    /// Prefix length of that network
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(8..=29), value_name = "BITS")]
    pub prefix_len: u8,
    /// Seconds that a VM has to register with Slurm
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=3600), value_name = "SECONDS")]
    pub boot_timeout: u32,
    /// Seconds that a node stays idle before its VM is given back (default: 30)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "SECONDS")]
    pub idle: Option<u32>,
    /// Where guest images are kept from lab to lab (default: ~/.cache/thiao)
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The folder of Slurm's client programs, with its daemons in the sibling `sbin` (default: by PATH)
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    pub slurm_bin_dir: Option<PathBuf>,
    /// How Slurm's daemons know each other; slurm (its own key) from 23.11 on
    #[arg(long, value_enum, default_value_t = AuthBy::Munge)]
    #[serde(default)]
    pub auth: AuthBy,
    /// Make VMs through OpenNebula's interface, with a stand-in for its front-end
    #[arg(long)]
    #[serde(default)]
    pub opennebula: bool,
    /// Nodes that Slurm knows and the controller does not, for VMs started by hand
    #[arg(skip)]
    #[serde(default)]
    pub raw_nodes: u32,
    /// More lines for thiao.toml
    #[arg(long, value_name = "FILE", hide = true)]
    pub extra_config: Option<PathBuf>,
}

fn one() -> u32 {
    1
}

/// What the nodes of VMs that are started by hand are called; thiao.toml does not know them.
pub const RAW_NODE: &str = "raw";

/// Memory for each CPU of a job that names none, in MiB.
pub const JOB_MEMORY_PER_CPU_MB: u64 = 150;

/// The size of a job that asks for nothing.
const DEFAULT_JOB: &str = "1x150";

/// The largest VM of a job, when nobody says and the hosts are not smaller.
const JOB_CPUS: u32 = 4;
const JOB_MEMORY_MB: u64 = 800;

/// Seconds that a node stays idle, when nobody says.
pub const IDLE_S: u32 = 30;

/// Memory that a VM takes beside what its node promises, in MiB: what a lab plans with, as the
/// settings' own default.
pub const OVERHEAD_MB: u64 = 176;

/// What `/tmp` holds in a guest with disks, in GiB; a file that grows with what is written.
pub const TMP_GB: u64 = 1;

/// The name of the bridge, in the lab's own network namespace.
pub const BRIDGE: &str = "thiao0";

/// A lab, resolved: what the keeper follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub options: Options,
    /// Whose lab it is: slurmctld, munged and the controller run under this uid.
    pub owner: Person,
    /// Whose jobs run in it, at least one.
    pub submitters: Vec<Person>,
    /// The largest VM of a job.
    pub largest_job: JobSize,
    /// CPUs of each host.
    pub host_cpus: u32,
    /// Memory of each host for VMs, in MiB.
    pub host_memory_mb: u64,
    /// Where guest images are kept.
    pub cache_dir: PathBuf,
    pub thiao: PathBuf,
    pub thiaod: PathBuf,
    /// This program, which keeps the lab.
    pub keeper: PathBuf,
    /// The hooks' binary, which all of them are links to.
    pub hook: PathBuf,
    /// What becomes the guests' first process.
    pub agent: PathBuf,
    /// Whether the folder is removed when the lab ends, however it ends.
    pub ephemeral: bool,
}

/// What a job has of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSize {
    pub cpus: u32,
    pub memory_mb: u64,
}

impl Plan {
    /// What its guests are.
    ///
    /// # Errors
    /// When an image was named that none can be.
    pub fn guests(&self) -> Result<Guests> {
        match &self.options.image {
            None => Ok(Guests::Small),
            Some(image) => thiao_config::read_image(image).map_err(anyhow::Error::msg),
        }
    }

    /// Whether its guests have control groups: those of an image that was built.
    #[must_use]
    pub fn has_cgroups(&self) -> bool {
        self.options.image.is_some()
    }

    /// Resolves what was asked for on this machine.
    ///
    /// # Errors
    /// When it does not fit the machine, or a program of ours is missing.
    pub fn resolve(mut options: Options) -> Result<Self> {
        let owner = person::owner()?;
        let submitters = person::submitters(&owner, options.user.as_deref(), options.users)?;
        if options.slurmctld_port == options.slurmd_port {
            bail!("slurmctld and slurmd cannot share port {}", options.slurmd_port);
        }
        let (host_cpus, host_memory_mb) = host_size(&options, available_memory_mb()?);
        let one = with_overhead(options.memory_mb);
        if host_memory_mb < one {
            bail!(
                "a host would have {host_memory_mb} MiB for VMs, but one VM needs {one} MiB: \
                 lower --memory-mb or --hosts, or free memory on this machine"
            );
        }
        let largest_job = largest_job(&options, host_cpus, host_memory_mb);
        let most = with_overhead(largest_job.memory_mb);
        if options.job_nodes > 0 && (largest_job.cpus > host_cpus || most > host_memory_mb) {
            bail!(
                "the largest VM of a job would have {} CPUs and {most} MiB, but a host has {host_cpus} and \
                 {host_memory_mb}: lower --job-cpus, --job-memory-mb or --hosts, or have --job-nodes 0",
                largest_job.cpus
            );
        }
        let cache_dir = match &options.cache_dir {
            Some(dir) => {
                std::path::absolute(dir).with_context(|| format!("{} is no usable path", dir.display()))?
            }
            None => layout::cache_dir()?,
        };
        if let Some(dir) = &options.slurm_bin_dir {
            let dir =
                std::path::absolute(dir).with_context(|| format!("{} is no usable path", dir.display()))?;
            options.slurm_bin_dir = Some(dir);
        }
        let own = std::env::current_exe().context("this program cannot find its own path")?;
        Ok(Self {
            host_cpus,
            host_memory_mb,
            cache_dir,
            thiao: programs::find_typed(&own, "thiao")?,
            thiaod: programs::find(&own, "thiaod")?,
            hook: programs::find(&own, "thiao-hook")?,
            agent: programs::find(&own, "thiao-guest")?,
            keeper: own,
            owner,
            submitters,
            largest_job,
            options,
            ephemeral: false,
        })
    }

    /// The names of the nodes of power-saving mode as Slurm writes them.
    pub fn node_list(&self) -> String {
        format!("vm[1-{}]", self.options.nodes)
    }

    /// The names of the nodes of job mode, if there are any.
    pub fn job_node_list(&self) -> Option<String> {
        let count = self.options.job_nodes;
        (count > 0).then(|| format!("j[1-{count}]"))
    }

    /// The names of the nodes that a benchmark starts itself, if there are any.
    pub fn raw_node_list(&self) -> Option<String> {
        let count = self.options.raw_nodes;
        (count > 0).then(|| format!("{}[1-{count}]", RAW_NODE))
    }

    /// Each of the nodes by its name.
    ///
    /// # Errors
    /// When there are more than a list may have.
    pub fn node_names(&self) -> Result<impl Iterator<Item = NodeName>> {
        let lists = [Some(self.node_list()), self.job_node_list(), self.raw_node_list()];
        let names = lists.iter().flatten().map(hostlist::expand);
        let names: Vec<_> = names.collect::<std::result::Result<_, _>>()?;
        Ok(names.into_iter().flatten())
    }

    /// The one whose jobs they are when nobody else is named.
    pub fn submitter(&self) -> &Person {
        // There is always one; the owner's jobs would run as well.
        self.submitters.first().unwrap_or(&self.owner)
    }

    /// Where one of Slurm's programs is.
    ///
    /// # Errors
    /// When it is missing.
    pub fn slurm_program(&self, name: &str) -> Result<PathBuf> {
        Ok(thiao_slurm::find(name, self.options.slurm_bin_dir.as_deref())?)
    }

    /// The Slurm that the guests get, or why there is none.
    pub fn slurm_files(&self) -> std::result::Result<thiao_qemu::SlurmFiles, String> {
        thiao_config::installed(self.options.slurm_bin_dir.as_deref(), &[])
    }

    /// The folders of the lab's Slurm, if they are not to be found by PATH.
    pub fn slurm_dirs(&self) -> Vec<PathBuf> {
        let dirs = self.options.slurm_bin_dir.iter();
        dirs.flat_map(|dir| [dir.clone(), dir.with_file_name("sbin")])
            .collect()
    }

    /// The network that the VMs are in.
    pub fn network(&self) -> thiao_qemu::net::Network {
        thiao_qemu::net::Network {
            bridge: BRIDGE.to_owned(),
            address: self.options.address,
            prefix_len: self.options.prefix_len,
        }
    }

    /// The hosts' names: `host1`, `host2` and so on.
    pub fn host_names(&self) -> impl Iterator<Item = String> {
        (0..self.options.hosts).map(|number| format!("host{}", number + 1))
    }

    /// The folders that guests see, at the same path: the homes of those who submit jobs.
    pub fn shares(&self, layout: &Layout) -> Vec<(PathBuf, &Person)> {
        let people = self.submitters.iter();
        people.map(|person| (layout.home(&person.name), person)).collect()
    }

    /// Whether the lab lives in a user namespace of its own.
    pub fn rootless(&self) -> bool {
        self.owner.uid != 0
    }

    /// Reads what `lab up` wrote.
    ///
    /// # Errors
    /// When there is no lab in that folder, or another version wrote it.
    pub fn read(layout: &Layout) -> Result<Self> {
        let path = layout.options();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no lab in {}: start one with `thiao lab up`",
                layout.dir().display()
            ),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        };
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not understood (another version's?): `thiao lab down --purge`, then up again",
                path.display()
            )
        })
    }

    /// Writes it for the keeper and later commands.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        let path = layout.options();
        let text = serde_json::to_vec_pretty(self).context("the lab's plan cannot be encoded")?;
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Memory that a VM takes from its host, in MiB.
fn with_overhead(memory_mb: u64) -> u64 {
    let shape = Shape {
        cpus: 1,
        memory_mb,
        share_percent: 100,
    };
    shape.total_mb(OVERHEAD_MB)
}

/// CPUs and memory of each host: as chosen, else what its part of the nodes of power-saving mode needs, and at
/// least the largest job; of memory no more than three quarters of what is there for all.
fn host_size(options: &Options, available_mb: u64) -> (u32, u64) {
    let each = options.nodes.div_ceil(options.hosts);
    let job = largest_job(options, u32::MAX, u64::MAX);
    let (job_cpus, job_mb) = match options.job_nodes {
        0 => (0, 0),
        _ => (job.cpus, with_overhead(job.memory_mb)),
    };
    let cpus = each.saturating_mul(options.cpus).max(job_cpus);
    let wanted_mb = u64::from(each)
        .saturating_mul(with_overhead(options.memory_mb))
        .max(job_mb);
    let most_mb = available_mb * 3 / 4 / u64::from(options.hosts);
    (
        options.host_cpus.unwrap_or(cpus),
        options.host_memory_mb.unwrap_or(wanted_mb.min(most_mb)),
    )
}

/// The largest VM of a job: as chosen, else the usual one or what a host has.
fn largest_job(options: &Options, host_cpus: u32, host_memory_mb: u64) -> JobSize {
    let capacity = host_memory_mb.saturating_sub(OVERHEAD_MB);
    JobSize {
        cpus: options.job_cpus.unwrap_or(JOB_CPUS.min(host_cpus)),
        memory_mb: options.job_memory_mb.unwrap_or(JOB_MEMORY_MB.min(capacity)),
    }
}

/// Memory that could be used now, in MiB.
fn available_memory_mb() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo cannot be read")?;
    available_in(&text).context("/proc/meminfo has no MemAvailable line")
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn options(typed: &str) -> Options {
        use clap::Parser as _;
        Typed::try_parse_from(["lab"].into_iter().chain(typed.split_whitespace()))
            .unwrap()
            .options
    }

    #[test]
    fn a_host_has_capacity_for_its_nodes_and_for_the_largest_job() {
        let plenty = 1 << 20;
        assert_eq!(host_size(&options(""), plenty), (4, 4 * (200 + OVERHEAD_MB)));
        assert_eq!(host_size(&options("--nodes 2"), plenty), (4, 800 + OVERHEAD_MB));
        assert_eq!(
            host_size(&options("--nodes 2 --job-nodes 0"), plenty),
            (1, 200 + OVERHEAD_MB)
        );
        assert_eq!(
            host_size(&options("--nodes 2 --job-cpus 6 --job-memory-mb 2000"), plenty),
            (6, 2000 + OVERHEAD_MB)
        );
        assert_eq!(host_size(&options(""), 1600), (4, 600));
    }

    #[test]
    fn the_largest_job_fits_a_small_host() {
        let size = |typed: &str| {
            let JobSize { cpus, memory_mb } = largest_job(&options(typed), 2, 500);
            (cpus, memory_mb)
        };
        assert_eq!(size(""), (2, 500 - OVERHEAD_MB));
        assert_eq!(size("--job-cpus 3 --job-memory-mb 900"), (3, 900));
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(
            available_in("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"),
            Some(2048)
        );
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
    }
}
