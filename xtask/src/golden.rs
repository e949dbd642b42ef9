//! The planner of sharing, held to figures that others published: whole logs, which the repository does not hold.

use crate::steps::{cargo, code, passes, root};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the logs and the figures are.
const FOLDER: &str = "THIAO_TRACES";

/// What reads whole logs, then what runs them; both, whether or not the first succeeds.
const RUNS: [&[&str]; 2] = [
    &[
        "test",
        "--release",
        "--package=thiao-trace",
        "--test=whole_logs",
        "--",
        "--ignored",
    ],
    &[
        "run",
        "--release",
        "--quiet",
        "--package=thiao-trace",
        "--example=golden",
    ],
];

/// Compares all there is.
pub fn golden() -> Result<ExitCode> {
    let named = std::env::var_os(FOLDER).map(PathBuf::from);
    let folder = named.unwrap_or_else(|| root().join("../shared/traces"));
    if !folder.is_dir() {
        bail!(
            "there is no folder {}: name the one with the golden runs in {FOLDER}",
            folder.display()
        );
    }
    let folder = folder.canonicalize()?;
    let mut passed = true;
    for run in RUNS {
        passed &= passes(cargo().args(run).env(FOLDER, &folder))?;
    }
    Ok(code(passed))
}
