//! How big it is, its settings, and its folder.

use std::path::{Path, PathBuf};
use thiao_config::Config;

/// Nodes that Slurm knows.
pub const NODES: usize = 10_000;
/// Those of them that have a VM and a job.
pub const VMS: usize = 5_000;
/// What carries the VMs.
pub const HOSTS: usize = 500;

/// The file beside Slurm's programs with the number of nodes that are still powering up.
pub(super) const WAITING: &str = "waiting";

/// Where the stand-ins for Slurm's programs are.
pub fn bin_dir(dir: &Path) -> PathBuf {
    dir.join("bin")
}

/// Puts this program there under the names of Slurm's. So many nodes are still powering up.
pub fn stand_in_for_slurm(dir: &Path, waiting: usize) -> anyhow::Result<()> {
    let bin = bin_dir(dir);
    std::fs::create_dir(&bin)?;
    for program in ["sinfo", "squeue", "scontrol"] {
        std::os::unix::fs::symlink(std::env::current_exe()?, bin.join(program))?;
    }
    std::fs::write(bin.join(WAITING), waiting.to_string())?;
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
            NODES - 1
        ),
    )?;
    Ok(Config::load(Some(&file))?)
}
