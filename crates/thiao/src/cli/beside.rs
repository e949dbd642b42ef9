//! Commands that are programs of their own, found as git finds its commands.

use anyhow::Context as _;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Becomes one of our other programs; its exit code is then this one's.
///
/// # Errors
/// When it is not installed, or cannot be run.
pub(super) fn run(name: &str, words: &[OsString]) -> anyhow::Result<Infallible> {
    let own = std::env::current_exe().context("this program cannot find its own path")?;
    let program = thiao_config::programs::find(&own, name)?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("{} cannot be run", program.display()))
}
