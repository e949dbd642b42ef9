//! The guest image, made before the lab has a network of its own: packages
//! may have to be fetched for it.

use crate::plan::{Plan, TMP_GB};
use anyhow::{Context, Result};
use std::cell::RefCell;

/// Makes the guest image, or finds it in the cache; says what it does.
///
/// # Errors
/// When a package or program is missing, or the cache cannot be written.
pub fn build(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<()> {
    crate::layout::make_all(&plan.cache_dir)?;
    let say = RefCell::new(say);
    let slurm = plan.slurm_files();
    let progress = |text: &str| (say.borrow_mut())(text);
    let image = thiao_qemu::image::of(
        &plan.cache_dir,
        &plan.agent,
        &plan.guests()?,
        TMP_GB,
        slurm.as_ref(),
        &progress,
    )
    .context("the guest image cannot be made")?;
    (say.borrow_mut())(&format!(
        "guest image {} with kernel {}",
        short(&image.digest),
        image.kernel_release
    ));
    Ok(())
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
