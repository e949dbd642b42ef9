//! Names for what is not whole yet, beside the name that it gets.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A name beside `path` that no other thread or process uses: nor one of another namespace that has the same
/// number there and the same cache.
pub(crate) fn beside(path: &Path, word: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let space = own_space();
    path.with_file_name(format!(".{name}.{word}-{space}-{}-{count}", std::process::id()))
}

/// How old something must be that is taken for left, in case another machine uses the same folder.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// Removes what has such a name in a folder, is a day old, and is of a process that is gone. Failing to is no harm.
pub(crate) fn remove_left(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|meta| meta.modified());
        let old = changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > OLD));
        if old && maker(&entry.file_name().to_string_lossy()).is_some_and(is_gone) {
            let path = entry.path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

/// The namespace and the number of the process that made a name beside another.
fn maker(name: &str) -> Option<(u64, u32)> {
    let mut numbers = name.strip_prefix('.')?.rsplit('-');
    let _count: u32 = numbers.next()?.parse().ok()?;
    let process = numbers.next()?.parse().ok()?;
    Some((numbers.next()?.parse().ok()?, process))
}

/// Whether a process is surely gone: of another namespace nothing is known.
fn is_gone((space, process): (u64, u32)) -> bool {
    space == own_space() && !Path::new("/proc").join(process.to_string()).exists()
}

fn own_space() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.st_ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn only_what_is_old_and_nobodys_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (space, own) = (own_space(), std::process::id());
        // No process has the highest number that there can be.
        let gone = 1 << 22;
        let make = |name: String, old: bool| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let age = if old { OLD * 2 } else { OLD / 2 };
            let folder = fs::File::open(&path).unwrap();
            folder.set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let left = make(format!(".6.1-x.fetch-{space}-{gone}-0"), true);
        let kept = [
            make(format!(".6.1-y.fetch-{space}-{gone}-0"), false),
            make(format!(".6.1-x.fetch-{space}-{own}-0"), true),
            make(format!(".6.1-x.fetch-{}-{gone}-0", space + 1), true),
            make(format!("6.1-x.fetch-{space}-{gone}-0"), true),
            make(".x".into(), true),
        ];
        remove_left(dir.path());
        assert!(!left.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }

    #[test]
    fn names_beside_are_never_the_same() {
        let path = Path::new("/c/x");
        assert_ne!(beside(path, "new"), beside(path, "new"));
        assert_eq!(beside(path, "new").parent(), path.parent());
    }
}
