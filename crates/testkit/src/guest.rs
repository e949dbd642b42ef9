//! What a test of real VMs needs before it starts one: the agent, the image, and a
//! port where slurmd finds somebody.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_qemu::SlurmFiles;
use thiao_qemu::image::{self, Image};

/// Where slurmds look for slurmctld.
pub const SLURMCTLD_PORT: u16 = 6817;

/// Where the image is kept between runs.
pub fn cache() -> PathBuf {
    crate::kept().join("guest-cache")
}

/// The guests' agent, built from today's sources, beside the tests' own binaries.
pub fn agent() -> PathBuf {
    crate::built().join("thiao-guest")
}

/// Builds the agent and the image with it. In another root file system there is no cargo: what was
/// built outside is there.
pub fn build() -> Image {
    let cargo = Path::new(env!("CARGO"));
    if cargo.exists() {
        let built = Command::new(cargo)
            .args(["build", "-q", "-p", "thiao-guest"])
            .status()
            .unwrap();
        assert!(built.success());
    }
    image::prepare(&cache(), &agent(), Ok(&slurm()), &|words| println!("{words}")).unwrap()
}

/// Debian's Slurm.
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
