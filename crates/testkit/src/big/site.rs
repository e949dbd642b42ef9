//! How big it is, its settings, and its folder.

use std::path::{Path, PathBuf};
use thiao_config::Config;

/// How many there are of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes that Slurm knows.
    pub nodes: usize,
    /// Those of them that have a VM and a job.
    pub vms: usize,
    /// What carries the VMs.
    pub hosts: usize,
    /// Nodes with VMs that are still powering up.
    pub waiting: usize,
}

impl Size {
    /// A site that is big, and not the biggest that there may be.
    pub const BIG: Self = Self {
        nodes: 10_000,
        vms: 5_000,
        hosts: 500,
        waiting: 0,
    };

    /// As big as a zone of OpenNebula may be by its documentation, with as many nodes as Slurm takes
    /// some care of.
    pub const ZONE: Self = Self {
        nodes: 50_000,
        vms: 20_000,
        hosts: 1_250,
        waiting: 0,
    };

    /// What the site in this folder was made with.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(dir.join(SIZE))?;
        let numbers: Result<Vec<usize>, _> = text.split_whitespace().map(str::parse).collect();
        let [nodes, vms, hosts, waiting] = numbers?[..] else {
            anyhow::bail!("{text:?} is no size");
        };
        Ok(Self {
            nodes,
            vms,
            hosts,
            waiting,
        })
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        let Self {
            nodes,
            vms,
            hosts,
            waiting,
        } = self;
        std::fs::write(dir.join(SIZE), format!("{nodes} {vms} {hosts} {waiting}"))
    }
}

/// The file in the site's folder with its size.
const SIZE: &str = "size";

/// Where the stand-ins for Slurm's programs are.
pub fn bin_dir(dir: &Path) -> PathBuf {
    dir.join("bin")
}

/// Begins a site of this size: puts this program there under the names of Slurm's.
pub fn stand_in_for_slurm(dir: &Path, size: Size) -> anyhow::Result<()> {
    size.write(dir)?;
    let bin = bin_dir(dir);
    std::fs::create_dir(&bin)?;
    for program in ["sinfo", "squeue", "scontrol"] {
        std::os::unix::fs::symlink(std::env::current_exe()?, bin.join(program))?;
    }
    std::fs::write(dir.join("slurm.conf"), "")?;
    Ok(())
}

/// Where the settings are: thiao.toml.
pub fn file(dir: &Path) -> PathBuf {
    dir.join("thiao.toml")
}

/// Writes and reads the settings, with more for the top, the nodeset, and the end.
pub fn configure(dir: &Path, top: &str, nodeset: &str, end: &str) -> anyhow::Result<Config> {
    let file = file(dir);
    let size = Size::read(dir)?;
    std::fs::write(
        &file,
        format!(
            "cluster = \"bench\"\nstate_dir = {:?}\n{top}\
             [slurm]\nbin_dir = {:?}\nconf = {:?}\n\
             [[nodeset]]\nname = \"n\"\nnodes = \"n[0-{}]\"\nmemory_mb = 1000\n{nodeset}\
             [timing]\ntick = 60\nslurm_poll = 0.5\nslurm_poll_busy = 0.5\nslurm_poll_urgent = 0.5\n\
             vm_poll = 0.5\nvm_poll_busy = 0.5\n{end}",
            dir.join("state"),
            bin_dir(dir),
            dir.join("slurm.conf"),
            size.nodes - 1
        ),
    )?;
    Ok(Config::load(Some(&file))?)
}
