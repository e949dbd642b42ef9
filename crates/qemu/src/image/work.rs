//! The folder in which an image is made, and that nothing stays of it, whatever ends its builder.
//!
//! One build of a name runs at a time: a lock on `roots/.NAME.lock`, which the kernel takes away from a builder that
//! is gone, with all programs that it started. Whoever gets it knows that all folders of that name that are not whole
//! are nobody's.

use super::built::{self, ImageName};
use crate::beside::beside;
use crate::error::Error;
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What stands behind an image's name in the name of a folder that is not whole.
const WORD: &str = "build";

/// The link in a work folder that leads to the folder for the temporary files of its programs.
const TEMPORARY: &str = "temporary";

/// How the names of such folders begin.
const TEMPORARY_NAME: &str = "thiao-image";

/// A build that is going on. What it has not given a place is removed with it.
#[derive(Debug)]
pub struct Work {
    folder: PathBuf,
    lock: PathBuf,
    /// Held as long as this is; and by programs, should they outlive the builder.
    _held: File,
}

impl Work {
    /// Begins to make an image of this name.
    ///
    /// # Errors
    /// When another build of it is going on, or something cannot be written.
    pub fn begin(cache: &Path, name: &ImageName) -> Result<Self, Error> {
        let roots = built::roots(cache);
        fs::create_dir_all(&roots).map_err(|e| Error::io("make", &roots, e))?;
        let lock = lock_file(&roots, name);
        let held = locked(&lock).map_err(|e| Error::io("lock", &lock, e))?.ok_or_else(|| {
            Error::Image(format!(
                "the image {name} is being made by another `thiao image`, or by what one that was killed started: wait \
                 until it has ended, or end it"
            ))
        })?;
        fcntl_setfd(&held, FdFlags::empty()).map_err(|e| Error::io("lock", &lock, e.into()))?;
        remove_left(&roots, name);
        let work = Self {
            folder: aside(cache, name),
            lock,
            _held: held,
        };
        fs::create_dir(&work.folder).map_err(|e| Error::io("make", &work.folder, e))?;
        Ok(work)
    }

    /// The folder for what the image is to be.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder for temporary files, where programs have them usually and others can read.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary(&self) -> Result<PathBuf, Error> {
        let name = beside(Path::new(TEMPORARY_NAME), WORD);
        let name = name.to_string_lossy();
        let path = std::env::temp_dir().join(name.trim_start_matches('.'));
        let link = self.folder.join(TEMPORARY);
        // Known before it is there: whoever comes after this build finds it.
        symlink(&path, &link).map_err(|e| Error::io("make", &link, e))?;
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .map_err(|e| Error::io("make", &path, e))?;
        Ok(path)
    }

    /// Removes the folder for temporary files.
    pub fn end_temporary(&self) {
        end_temporary(&self.folder);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        remove(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Removes what is left of builds whose builders are gone. Failing to is no harm.
pub fn tidy(cache: &Path) {
    let roots = built::roots(cache);
    for entry in fs::read_dir(&roots).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = name_of(&name) else { continue };
        let lock = lock_file(&roots, &name);
        if let Ok(Some(_held)) = locked(&lock) {
            remove_left(&roots, &name);
            let _ = fs::remove_file(lock);
        }
    }
}

/// A name for what an image of this name is not, or no longer.
pub(super) fn aside(cache: &Path, name: &ImageName) -> PathBuf {
    beside(&built::roots(cache).join(name.as_str()), WORD)
}

/// A command that may give files to anybody: as root, or in a user namespace with the ids that
/// `/etc/subuid` gives this user.
#[must_use]
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-auto", "--map-root-user", "--", program]);
    command
}

/// The image of which something in the folder of all content is left, by its name there.
fn name_of(entry: &str) -> Option<ImageName> {
    let entry = entry.strip_prefix('.')?;
    let (name, _) = entry.rsplit_once(&format!(".{WORD}-"))?;
    name.parse().ok()
}

fn lock_file(roots: &Path, name: &ImageName) -> PathBuf {
    roots.join(format!(".{name}.lock"))
}

/// The lock, if nobody has it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it removed it: it may be another file's name by now.
        let ours = file.metadata()?;
        if fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

/// Removes what builds of a name left. The lock is held.
fn remove_left(roots: &Path, name: &ImageName) {
    for entry in fs::read_dir(roots).into_iter().flatten().flatten() {
        if name_of(&entry.file_name().to_string_lossy()).as_ref() == Some(name) {
            remove(&entry.path());
        }
    }
}

fn remove(work: &Path) {
    end_temporary(work);
    if fs::remove_dir_all(work).is_err() && work.exists() {
        rm(work);
    }
}

fn end_temporary(work: &Path) {
    let link = work.join(TEMPORARY);
    if let Ok(path) = fs::read_link(&link) {
        // Root may do it in a cache of somebody else's, whose link may lead anywhere.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TEMPORARY_NAME) {
            rm(&path);
        }
        let _ = fs::remove_file(link);
    }
}

/// Files may be others' than this user's; and what was mounted for a program of them is never gone into.
fn rm(path: &Path) {
    let _ = as_root("rm")
        .args(["-rf", "--one-file-system", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(cache: &Path) -> usize {
        fs::read_dir(built::roots(cache)).unwrap().count()
    }

    #[test]
    fn nothing_stays_of_a_build_that_ends() {
        let cache = tempfile::tempdir().unwrap();
        let name: ImageName = "site".parse().unwrap();
        let work = Work::begin(cache.path(), &name).unwrap();
        let temporary = work.temporary().unwrap();
        fs::write(temporary.join("file"), "x").unwrap();
        assert!(work.folder().is_dir());
        drop(work);
        assert!(!temporary.exists());
        assert_eq!(entries(cache.path()), 0);
    }

    #[test]
    fn a_link_to_elsewhere_removes_nothing_there() {
        let cache = tempfile::tempdir().unwrap();
        let precious = tempfile::tempdir().unwrap();
        let work = Work::begin(cache.path(), &"site".parse().unwrap()).unwrap();
        symlink(precious.path(), work.folder().join(TEMPORARY)).unwrap();
        drop(work);
        assert!(precious.path().is_dir());
        assert_eq!(entries(cache.path()), 0);
    }

    #[test]
    fn one_build_of_a_name_runs_and_others_of_other_names() {
        let cache = tempfile::tempdir().unwrap();
        let begin = |name: &str| Work::begin(cache.path(), &name.parse().unwrap());
        let first = begin("site").unwrap();
        let why = begin("site").unwrap_err().to_string();
        assert!(why.contains("being made by another"), "{why}");
        let other = begin("site2").unwrap();
        tidy(cache.path());
        assert!(first.folder().is_dir() && other.folder().is_dir());
        drop(first);
        begin("site").unwrap();
    }

    #[test]
    fn what_a_killed_build_left_is_removed_by_the_next_and_by_whoever_tidies() {
        let cache = tempfile::tempdir().unwrap();
        let name: ImageName = "a.build-b".parse().unwrap();
        let kill = || {
            let work = Work::begin(cache.path(), &name).unwrap();
            let left = (work.folder().to_owned(), work.temporary().unwrap());
            // As the kernel does it: the lock goes, nothing else.
            work._held.unlock().unwrap();
            std::mem::forget(work);
            left
        };
        let (folder, temporary) = kill();
        // Another name's, beginning the same.
        let other = Work::begin(cache.path(), &"a".parse().unwrap()).unwrap();
        assert!(other.folder().is_dir() && folder.is_dir() && temporary.is_dir());
        tidy(cache.path());
        assert!(!folder.exists() && !temporary.exists() && other.folder().is_dir());
        let (folder, temporary) = kill();
        let next = Work::begin(cache.path(), &name).unwrap();
        assert!(!folder.exists() && !temporary.exists() && next.folder().is_dir());
        drop((next, other));
        assert_eq!(entries(cache.path()), 0);
    }
}
