//! What another Slurm than the machine's own may change, tested on each of them.

use super::command::Tests;
use crate::report::Report;
use crate::slurm::{Root, Suite};
use anyhow::Result;

/// Tests that wait for most of their time: so many run at once.
const AT_ONCE: usize = 4;

/// Tests that boot real VMs: beside those of the machine's own Slurm.
const VMS_AT_ONCE: usize = 1;

/// The test program that needs none.
const REAL: &[&str] = &["real"];

/// What is run on each: everything that another Slurm, QEMU or kernel may change.
const PARTS: [(&str, Tests); 4] = [
    (
        "the real slurmctld",
        Tests {
            binaries: REAL,
            only: None,
            without: Some("scenario::"),
            at_once: Some(AT_ONCE),
        },
    ),
    (
        "the scenarios",
        Tests {
            binaries: REAL,
            only: Some("scenario::"),
            without: None,
            at_once: None,
        },
    ),
    (
        "virtual machines",
        Tests {
            binaries: &["boot"],
            only: None,
            without: None,
            at_once: Some(VMS_AT_ONCE),
        },
    ),
    (
        "the demos, a lab in each mode",
        Tests {
            binaries: &["lab_jobs", "lab_job_mode"],
            only: Some("demo_comes_out_right"),
            without: None,
            at_once: Some(VMS_AT_ONCE),
        },
    ),
];

/// Runs the tests in a root file system. `fast` leaves out real VMs.
///
/// # Errors
/// When cargo cannot be run.
pub fn test(suite: &Suite, root: Result<Root>, fast: bool) -> Result<Report> {
    let mut report = Report::headed(&format!("{} | ", suite.slurm));
    let root = root.and_then(|root| root.version().map(|version| (root, version)));
    let (root, version) = match root {
        Ok(found) => found,
        Err(why) => {
            report.failed(&suite.to_string(), &format!("{why:#}"));
            return Ok(report);
        }
    };
    println!("== {version}");
    let runner = root.runner()?;
    for (name, tests) in &PARTS {
        let name = format!("{version}: {name}");
        if fast && tests.binaries != REAL {
            report.skipped(&name, "--fast");
            continue;
        }
        report.tests(&name, &mut tests.command(Some(&runner)))?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::{Release, SUITES};

    #[test]
    fn the_readme_names_what_is_always_run() {
        let readme = include_str!("../../../README.md");
        let rows = |release: Release| {
            let begin = format!("| {release}.");
            let rows = readme.lines().filter(move |line| line.starts_with(&begin));
            rows.collect::<Vec<_>>()
        };
        for suite in &SUITES {
            let [row] = rows(suite.slurm)[..] else {
                panic!("one row for {suite} in README.md")
            };
            for what in ["tests with the real slurmctld", "scenarios", "VMs", "demos"] {
                assert!(row.contains(what), "{row}: {what}");
            }
        }
        assert_eq!(PARTS.len(), 4, "README.md says what is run");
    }
}
