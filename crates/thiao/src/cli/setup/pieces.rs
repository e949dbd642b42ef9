//! What setup puts in place: links, the fragment, the settings; looked at first, written at once.

use crate::cli::place;
use anyhow::Context as _;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// How a file of ours begins.
const MARKS: [&str; 3] = [
    "# Written by `thiao setup`",
    thiao_slurm::lua::MARK,
    thiao_slurm::join::MARK,
];

/// What the hooks lead to is called so.
pub(super) const HOOK: &str = "thiao-hook";

/// Something to be put in place.
pub(super) struct Piece {
    pub(super) path: PathBuf,
    pub(super) what: What,
}

pub(super) enum What {
    Link(PathBuf),
    File(String),
    /// A file that is run.
    Program(String),
    /// Settings: once written they are the person's.
    Settings(String),
}

/// What is there now.
pub(super) enum Found {
    Nothing,
    Same,
    /// Ours, of an earlier setup.
    Older,
    /// Somebody else's, as this tells.
    Foreign(&'static str),
}

pub(super) fn look(piece: &Piece) -> anyhow::Result<Found> {
    let Some(meta) = place::present(&piece.path)? else {
        return Ok(Found::Nothing);
    };
    let unreadable = || format!("{} cannot be read", piece.path.display());
    Ok(match &piece.what {
        What::Link(wanted) if meta.is_symlink() => {
            let target = std::fs::read_link(&piece.path).with_context(unreadable)?;
            if target == *wanted {
                Found::Same
            } else if target.file_name() == Some(HOOK.as_ref()) {
                Found::Older
            } else {
                Found::Foreign("it points elsewhere")
            }
        }
        What::Link(_) => Found::Foreign("it is not our link"),
        What::File(_) | What::Program(_) | What::Settings(_) if !meta.is_file() => {
            Found::Foreign("it is not our file")
        }
        What::Settings(wanted) => {
            if std::fs::read(&piece.path).with_context(unreadable)? == wanted.as_bytes() {
                Found::Same
            } else {
                Found::Foreign("it is there already")
            }
        }
        What::File(wanted) | What::Program(wanted) => {
            let text = std::fs::read(&piece.path).with_context(unreadable)?;
            if text == wanted.as_bytes() {
                Found::Same
            } else if is_ours(&text) {
                Found::Older
            } else {
                Found::Foreign("we did not write it")
            }
        }
    })
}

/// Whether an earlier setup wrote this file.
pub(super) fn is_ours(text: &[u8]) -> bool {
    MARKS.iter().any(|mark| text.starts_with(mark.as_bytes()))
}

/// Takes away what setup put there, and leaves what it did not: whether something was there.
pub(super) fn remove(piece: &Piece) -> anyhow::Result<bool> {
    // Settings are the person's.
    if matches!(piece.what, What::Settings(_)) {
        return Ok(false);
    }
    match look(piece)? {
        Found::Same | Found::Older => {
            std::fs::remove_file(&piece.path)
                .with_context(|| format!("{} cannot be removed", piece.path.display()))?;
            Ok(true)
        }
        Found::Nothing | Found::Foreign(_) => Ok(false),
    }
}

/// Where the file goes that is to be replaced: a person may have changed it, ours too.
pub(super) fn kept_as(piece: &Piece) -> anyhow::Result<Option<PathBuf>> {
    if matches!(piece.what, What::Link(_)) || matches!(look(piece)?, Found::Nothing | Found::Same) {
        return Ok(None);
    }
    let is_file = place::present(&piece.path)?.is_some_and(|meta| meta.is_file());
    Ok(is_file.then(|| kept(&piece.path)))
}

/// The name under which the text before is kept.
fn kept(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".bak");
    name.into()
}

/// Takes away the text before as well, where that is ours: which one it was, or none.
pub(super) fn remove_kept(piece: &Piece) -> anyhow::Result<Option<PathBuf>> {
    let path = kept(&piece.path);
    let what = match piece.what {
        What::Link(_) | What::Settings(_) => return Ok(None),
        What::File(_) | What::Program(_) => What::File(String::new()),
    };
    let earlier = Piece { path, what };
    Ok(remove(&earlier)?.then_some(earlier.path))
}

/// Puts a piece in place at once: slurmctld never sees half of it, nor none.
pub(super) fn write(piece: &Piece) -> anyhow::Result<()> {
    if let Some(kept) = kept_as(piece)? {
        // One link more, and the new file takes the place of the other.
        if place::present(&kept)?.is_some() {
            std::fs::remove_file(&kept)?;
        }
        std::fs::hard_link(&piece.path, &kept)?;
    }
    Ok(put(piece)?)
}

fn put(piece: &Piece) -> io::Result<()> {
    match &piece.what {
        What::File(text) | What::Settings(text) => place::file(&piece.path, &mut text.as_bytes())?,
        What::Program(text) => place::program(&piece.path, &mut text.as_bytes())?,
        What::Link(target) => {
            let folder = piece.path.parent().unwrap_or(Path::new("/"));
            place::folder(folder)?;
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
