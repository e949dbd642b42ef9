//! What a test of real VMs needs before it starts one: the agent, the image, and a
//! port where slurmd finds somebody.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use thiao_qemu::SlurmFiles;
use thiao_qemu::image::{self, Image};

/// Where slurmds look for slurmctld.
pub const SLURMCTLD_PORT: u16 = 6817;

/// Where the image is kept between runs.
pub fn cache() -> PathBuf {
    crate::kept().join("guest-cache")
}

/// Where the guests' agent is, `thiao-guest`.
pub fn agent() -> PathBuf {
    crate::program("thiao-guest")
}

/// Builds the image with the agent.
pub fn build() -> Image {
    image::prepare(&cache(), &agent(), Ok(&slurm()), None, &|words| {
        println!("{words}")
    })
    .unwrap()
}

/// Slurm as Debian installs it.
pub fn slurm() -> SlurmFiles {
    SlurmFiles {
        bin: "/usr/bin".into(),
        sbin: "/usr/sbin".into(),
        plugins: vec!["/usr/lib/x86_64-linux-gnu/slurm-wlm".into()],
    }
}

/// Takes slurmd's calls at this address and answers nothing, which keeps slurmd waiting.
pub fn silent_slurmctld(address: Ipv4Addr) {
    let silence = TcpListener::bind((address, SLURMCTLD_PORT)).unwrap();
    std::thread::spawn(move || silence.incoming().flatten().for_each(std::mem::forget));
}
