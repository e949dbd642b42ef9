//! What setup puts in place: links, the fragment, the settings; looked at first, written at once.

use anyhow::{Context as _, bail};
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// How a file of ours begins.
pub(super) const MARK: &str = "# Written by `thiao setup`";

/// Something to be put in place.
pub(super) struct Piece {
    pub(super) path: PathBuf,
    pub(super) what: What,
}

pub(super) enum What {
    Link(PathBuf),
    File(String),
    /// Settings: once written they are the person's.
    Settings(String),
}

/// What is there now.
pub(super) enum Found {
    Nothing,
    Same,
    /// Ours, of an earlier setup.
    Older,
    /// Somebody else's.
    Foreign(&'static str),
}

pub(super) fn look(piece: &Piece) -> anyhow::Result<Found> {
    let meta = match piece.path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be looked at", piece.path.display())),
    };
    if meta.is_dir() {
        bail!(
            "{} is a folder: it is in the way, and is not replaced",
            piece.path.display()
        );
    }
    let unreadable = || format!("{} cannot be read", piece.path.display());
    Ok(match &piece.what {
        What::Link(wanted) if meta.is_symlink() => {
            let target = std::fs::read_link(&piece.path).with_context(unreadable)?;
            if target == *wanted {
                Found::Same
            } else if target.file_name() == Some("thiao-hook".as_ref()) {
                Found::Older
            } else {
                Found::Foreign("it leads elsewhere")
            }
        }
        What::Link(_) => Found::Foreign("it is no link of ours"),
        What::File(_) | What::Settings(_) if !meta.is_file() => Found::Foreign("it is no file of ours"),
        What::Settings(wanted) => {
            if std::fs::read(&piece.path).with_context(unreadable)? == wanted.as_bytes() {
                Found::Same
            } else {
                Found::Foreign("it is there already")
            }
        }
        What::File(wanted) => {
            let text = std::fs::read(&piece.path).with_context(unreadable)?;
            if text == wanted.as_bytes() {
                Found::Same
            } else if text.starts_with(MARK.as_bytes()) {
                Found::Older
            } else {
                Found::Foreign("we did not write it")
            }
        }
    })
}

/// Puts a piece in place at once: slurmctld never sees half of it.
pub(super) fn write(piece: &Piece) -> io::Result<()> {
    let folder = piece.path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    match &piece.what {
        What::File(text) | What::Settings(text) => {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&piece.path).map_err(|e| e.error)?;
        }
        What::Link(target) => {
            let scratch = tempfile::Builder::new()
                .prefix(".thiao-setup-")
                .tempdir_in(folder)?;
            let link = scratch.path().join("link");
            symlink(target, &link)?;
            std::fs::rename(link, &piece.path)?;
        }
    }
    Ok(())
}
