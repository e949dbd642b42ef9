//! The guest image, made before the lab has a network of its own: packages
//! may have to be fetched for it.

use crate::plan::{Plan, TMP_GB};
use anyhow::{Context, Result};
use std::cell::RefCell;
use thiao_qemu::Guests;
use thiao_qemu::image::System;

/// Makes the guest image, or finds it in the cache; says what it does.
///
/// # Errors
/// When a package or program is missing, or the cache cannot be written.
pub fn build(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<()> {
    crate::layout::make_all(&plan.cache_dir)?;
    let say = RefCell::new(say);
    let slurm = plan.slurm_files();
    let progress = |text: &str| (say.borrow_mut())(text);
    let system = |guests: &Guests| {
        let made = thiao_qemu::image::of(
            &plan.cache_dir,
            &plan.agent,
            guests,
            TMP_GB,
            slurm.as_ref(),
            &progress,
        );
        made.context("the guest image cannot be made")
    };
    let text = match system(&plan.guests()?)? {
        System::Made(image) => format!(
            "guest image {} with kernel {}",
            short(&image.digest),
            image.kernel_release
        ),
        System::Brought(disk) => {
            // The controller tries KVM with the small one.
            system(&Guests::Small)?;
            format!("guest image {}", disk.base.path.display())
        }
    };
    (say.borrow_mut())(&text);
    Ok(())
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
