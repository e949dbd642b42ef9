//! Files with a secret that nobody else may read.

use crate::error::{Class, Error};
use rustix::fs::{Mode, OFlags};
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// More than any password or token, with the name of its user.
const LARGEST: u64 = 4096;

/// All of its text. `what` it is, and of which class an error is.
///
/// # Errors
/// It is not there, is no plain file, belongs to somebody else than this user or root (root takes
/// anybody's: setup and doctor read what the service's user has), can be read by all or changed by its
/// group, or is no text. No error shows anything of what is in it.
pub(crate) fn read(path: &Path, what: &str, class: Class) -> Result<(String, Metadata), Error> {
    let said = |why: &str| format!("cannot use {what} in {}: {why}", path.display());
    let bad = |why: String| Error::new(class, said(&why));
    let unread = |e: io::Error| Error::of_file(class, said(&e.to_string()), &e);
    // Not to be held up by a pipe. What is checked is what was opened, symlink or not.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(std::fs::File::from)
        .map_err(|e| unread(e.into()))?;
    let found = file.metadata().map_err(unread)?;
    if !found.is_file() {
        return Err(bad("it is not a plain file".into()));
    }
    let me = rustix::process::geteuid().as_raw();
    if me != 0 && found.uid() != me && found.uid() != 0 {
        return Err(bad(format!(
            "it belongs to user {}. It must belong to the user that Thiao runs as ({me}) or to root",
            found.uid()
        )));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o037 != 0 {
        return Err(bad(format!(
            "others may read or change it (mode {mode:04o}). Run: chmod 600 {}",
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > LARGEST {
        return Err(bad(format!("it is larger than {LARGEST} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not text".into()))?;
    Ok((text, found))
}
