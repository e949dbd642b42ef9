//! What keeps setup from writing anything.

use anyhow::bail;

/// Why nothing may be written: a real run ends with the first reason, a dry one goes on and ends with all.
pub(super) struct Refusals {
    dry: bool,
    why: Vec<String>,
}

impl Refusals {
    pub(super) fn none(dry: bool) -> Self {
        Self { dry, why: Vec::new() }
    }

    pub(super) fn add(&mut self, why: impl Into<String>) -> anyhow::Result<()> {
        self.why.push(why.into());
        match self.dry {
            true => Ok(()),
            false => bail!("nothing was written: {}", self.why.join("; ")),
        }
    }

    /// The end of a dry run.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        match self.why.as_slice() {
            [] => Ok(()),
            why => bail!(
                "without --dry-run this would be refused, and nothing written: {}",
                why.join("; ")
            ),
        }
    }
}
