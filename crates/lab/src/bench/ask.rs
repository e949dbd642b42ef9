//! What all measurements ask of a lab, and how they wait for it.

use crate::api;
use crate::enter::{As, Running};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Pause between questions to Slurm while something is waited for.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// No single wait takes longer, or something is broken.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
pub(super) fn median(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub(super) fn ask(lab: &Running, program: &str, args: &[&str]) -> Result<String> {
    let output = lab
        .command(program, As::Owner, lab.layout.dir())?
        .args(args)
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        if begun.elapsed() > LIMIT {
            bail!("not within {} s: {what}", LIMIT.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

pub(super) fn wait_for_templates(lab: &Running) -> Result<()> {
    wait_until("the controller is ready to make VMs", || {
        Ok(api::status(&lab.layout.api()).is_some_and(|status| status.preparing.is_none()))
    })
}
