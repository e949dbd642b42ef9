//! What is otherwise where these settings are a lab's: who sees all, and how he is called for.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_config::{LAB_VARIABLE, ROOTS_LAB};

/// The lab whose settings these are, if this runs in it.
pub fn around(settings: &Path) -> Option<PathBuf> {
    let dir = std::env::var_os(LAB_VARIABLE).map(PathBuf::from)?;
    settings.starts_with(&dir).then_some(dir)
}

/// Whether this user sees all that is to be looked at: root, and in a lab its owner.
pub fn sees_all(settings: &Path) -> bool {
    let user = rustix::process::geteuid();
    let owns = |lab: PathBuf| lab.metadata().is_ok_and(|lab| lab.uid() == user.as_raw());
    user.is_root() || around(settings).is_some_and(owns)
}

/// A command of ours, named with its words, as the lab's owner: typed outside of it.
pub fn as_owner(lab: &Path, words: &str) -> String {
    let dir = match lab == Path::new(ROOTS_LAB) {
        true => String::new(),
        false => format!("--dir {} ", lab.display()),
    };
    format!("thiao lab exec {dir}--admin -- thiao {words}")
}
