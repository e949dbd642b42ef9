//! Names for what is not whole yet, beside the name that it gets.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name beside `path` that no other thread or process uses: nor one of another namespace that has the same
/// number there and the same cache.
pub(crate) fn beside(path: &Path, word: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let space = fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.st_ino());
    path.with_file_name(format!(".{name}.{word}-{space}-{}-{count}", std::process::id()))
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
