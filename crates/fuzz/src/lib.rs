//! Fuzz targets: everything that Thiao reads from outside, and what must hold
//! whatever that is.
//!
//! A target takes any bytes and panics when something does not hold; that there
//! is no panic of the code's own, no hang and no memory without bound goes without
//! saying. Targets touch no file, no network and no clock of people: the same
//! input does the same. `cargo xtask fuzz` runs them under libFuzzer; the
//! ordinary tests run them over the seeds in `corpus` and some changes of them.

mod api;
mod bus;
mod config;
mod guest;
mod hostlist;
mod input;
mod intent;
mod resume_file;
mod slurm;
mod template;
mod trace;
mod xmlrpc;

/// Something that is read from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its folder in `corpus`.
    pub name: &'static str,
    /// Panics when these bytes break what must hold.
    pub check: fn(&[u8]),
    /// The longest input worth trying, in bytes.
    pub longest: usize,
    /// Folders with inputs to begin with, as seen from this package's.
    pub seeds: &'static [&'static str],
}

/// All targets that `cargo xtask fuzz` tries.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "hostlist",
        check: hostlist::check,
        longest: 256,
        seeds: &["corpus/hostlist"],
    },
    Target {
        name: "intent",
        check: intent::check,
        longest: 1_024,
        seeds: &["corpus/intent"],
    },
    Target {
        name: "resume_file",
        check: resume_file::check,
        longest: 1_024,
        seeds: &["corpus/resume_file"],
    },
    Target {
        name: "xmlrpc",
        check: xmlrpc::check,
        longest: 2_048,
        seeds: &["corpus/xmlrpc", "../opennebula/tests/data"],
    },
    Target {
        name: "bus",
        check: bus::check,
        longest: 2_048,
        seeds: &["corpus/bus"],
    },
    Target {
        name: "config",
        check: config::check,
        longest: 2_048,
        seeds: &["corpus/config"],
    },
    Target {
        name: "api",
        check: api::check,
        longest: 2_048,
        seeds: &["corpus/api"],
    },
    Target {
        name: "template",
        check: template::check,
        longest: 1_024,
        seeds: &["corpus/template", "../opennebula/tests/data/2011"],
    },
    Target {
        name: "slurm",
        check: slurm::check,
        longest: 1_024,
        seeds: &["corpus/slurm", "../slurm/tests/data"],
    },
    Target {
        name: "guest",
        check: guest::check,
        longest: 1_024,
        seeds: &["corpus/guest"],
    },
    Target {
        name: "trace",
        check: trace::check,
        longest: 2_048,
        seeds: &["corpus/trace"],
    },
];
