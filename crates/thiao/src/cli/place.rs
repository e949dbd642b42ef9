//! Putting files where others may have theirs: looked at first, written whole.

use anyhow::{Context as _, bail};
use std::fs::{DirBuilder, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// What is at `path` now, links not followed; none if nothing is. A folder is in the way.
pub(super) fn present(path: &Path) -> anyhow::Result<Option<Metadata>> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be looked at", path.display())),
    };
    if meta.is_dir() {
        bail!(
            "{} is a folder: it is in the way, and is not replaced",
            path.display()
        );
    }
    Ok(Some(meta))
}

/// Makes a folder and those above it.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Puts a file that everybody may read in place at once: nobody ever sees half of it.
pub(super) fn file(path: &Path, content: &mut impl Read) -> io::Result<()> {
    with_mode(path, content, 0o644)
}

/// The same with a program that everybody may run.
pub(super) fn program(path: &Path, content: &mut impl Read) -> io::Result<()> {
    with_mode(path, content, 0o755)
}

fn with_mode(path: &Path, content: &mut impl Read, mode: u32) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    folder(parent)?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    io::copy(content, &mut file)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
