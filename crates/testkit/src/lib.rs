//! What tests of several crates share: a site of stand-ins (`site`), a day with a stand-in for OpenNebula (`day`),
//! a whole lab (`lab`), a real slurmctld in namespaces (`slurmctld`), guests' images (`guest`, `images`), namespaces
//! (`isolated`), a client for NFS (`nfs`), a clock that is set (`faketime`), a site big enough to measure
//! (`big`), and where the built programs are.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

pub mod big;
pub mod day;
pub mod faketime;
pub mod guest;
pub mod ids;
pub mod images;
pub mod isolated;
pub mod lab;
pub mod nfs;
pub mod process;
pub mod site;
pub mod slurmctld;
pub mod wait;

use std::path::{Path, PathBuf};

/// One of the programs, as it was built beside this test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = built().join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// A folder for what tests keep from one run to the next, as `CARGO_TARGET_TMPDIR` is.
#[must_use]
pub fn kept() -> PathBuf {
    built().parent().unwrap_or(Path::new("/")).join("tmp")
}

/// Where cargo puts programs: tests are in `deps` there.
fn built() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    folder
}
