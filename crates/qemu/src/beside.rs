//! Names for what is not whole yet, beside the name that it gets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name beside `path` that no other thread or process uses.
pub(crate) fn beside(path: &Path, word: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{word}-{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_are_never_the_same() {
        let path = Path::new("/c/x");
        assert_ne!(beside(path, "new"), beside(path, "new"));
        assert_eq!(beside(path, "new").parent(), path.parent());
    }
}
