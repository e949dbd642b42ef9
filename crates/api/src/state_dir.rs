//! The state folder must be safe from other users of the machine: they reach the
//! socket in it and nothing else. What is opened there is a plain file of ours, and
//! never a link, a pipe or a device that somebody put in its place.

use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Others' and the group's right to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a folder with this bit people can rename and remove their own files alone.
const STICKY: u32 = 0o1000;

/// The uid that the kernel shows for users it cannot map into this user namespace.
pub const OVERFLOW_UID: u32 = 65_534;

/// Makes the folder where it is missing, and refuses one that others could write into.
///
/// # Errors
/// When it cannot be made, or is not ours alone; with what mends it.
pub fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let meta = fs::metadata(dir)?;
    match trouble(&meta, own_uid()) {
        None => Ok(()),
        Some(trouble) => Err(refused(format!("{trouble}: {}", trouble.remedy(dir)))),
    }
}

/// Makes a folder that only we can enter, or closes it to others; refuses one of another user's.
///
/// # Errors
/// When it cannot be made or closed, or is another's or no folder.
pub fn make_private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // A slash at the end would let a link be followed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(dir.components().as_path(), flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(refused("it is not a folder: move it away".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let meta = folder.metadata()?;
    if !is_ours(&meta) {
        let trouble = Trouble::Owned(meta.uid());
        return Err(refused(format!("{trouble}: {}", trouble.remedy(dir))));
    }
    if meta.mode() & 0o077 != 0 {
        folder.set_permissions(fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a file of ours for writing behind its end, or makes it for us alone. Waits for nothing.
///
/// # Errors
/// When it cannot be opened, or is no plain file.
pub fn own_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    plain(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Opens a plain file for reading that we or root own. Waits for nothing.
///
/// # Errors
/// When it cannot be opened; [`is_unsafe`] of one that is another's or no plain file.
pub fn read_own_file(path: &Path) -> io::Result<File> {
    let file = plain(path, OFlags::RDONLY, Mode::empty())?;
    let meta = file.metadata()?;
    match is_ours(&meta) {
        true => Ok(file),
        false => Err(refused(Trouble::Owned(meta.uid()).to_string())),
    }
}

/// Whether something was refused for what it is, and will be again; other errors may pass.
#[must_use]
pub fn is_unsafe(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Unsafe>())
}

/// Why something is refused for what it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsafe(String);

fn plain(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    // Without NONBLOCK the opening of a pipe waits for whoever is at its other end.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let no_file = || refused("it is not a plain file".to_owned());
    let file = match rustix::fs::open(path, flags, mode) {
        Ok(file) => File::from(file),
        // What NOFOLLOW says of a link; a folder, a socket, or a pipe that nobody reads.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO) => {
            return Err(no_file());
        }
        Err(error) => return Err(error.into()),
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(no_file()),
    }
}

/// Why a folder is not safe from other users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Others may write into it, by these bits of its mode.
    Writable(u32),
    /// It is this other user's.
    Owned(u32),
}

impl Trouble {
    /// What a person does against it.
    #[must_use]
    pub fn remedy(self, dir: &Path) -> String {
        match self {
            Self::Writable(_) => format!("chmod go-w {}", dir.display()),
            Self::Owned(_) => format!(
                "run thiaod as that user, or check what is in {} and give it to the user that thiaod runs as (chown)",
                dir.display()
            ),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable(mode) => write!(f, "other users may write into it (mode {mode:04o})"),
            Self::Owned(uid) => write!(f, "it is owned by the user with uid {uid}"),
        }
    }
}

/// The folders above this one in which others than this user could put another in its place.
#[must_use]
pub fn exposed_above(dir: &Path, user: u32) -> Vec<(PathBuf, Trouble)> {
    let Ok(real) = dir.canonicalize() else {
        return Vec::new();
    };
    let above = real.ancestors().skip(1);
    let unsafe_one = |above: &Path| {
        let meta = fs::metadata(above).ok()?;
        let trouble = trouble(&meta, user)?;
        let guarded = meta.mode() & STICKY != 0 && matches!(trouble, Trouble::Writable(_));
        (!guarded).then(|| (above.to_owned(), trouble))
    };
    above.filter_map(unsafe_one).collect()
}

/// What is wrong with a folder by itself that is to be this user's or root's.
#[must_use]
pub fn trouble(meta: &Metadata, user: u32) -> Option<Trouble> {
    if !matches!(meta.uid(), 0 | OVERFLOW_UID) && meta.uid() != user {
        return Some(Trouble::Owned(meta.uid()));
    }
    let bits = meta.mode() & 0o7777;
    (bits & WRITABLE_BY_OTHERS != 0).then_some(Trouble::Writable(bits))
}

/// The effective uid of this process.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Root may do all anyway.
fn is_ours(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == own_uid()
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Unsafe(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_into_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/state");
        make(&state).unwrap();
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o755);
        for mode in [0o777, 0o1777, 0o775] {
            chmod(&state, mode);
            let refusal = make(&state).unwrap_err().to_string();
            assert!(
                refusal.contains(&format!("(mode {mode:04o})")) && refusal.contains("chmod go-w"),
                "{refusal}"
            );
        }
        chmod(&state, 0o755);
        make(&state).unwrap();
    }

    #[test]
    fn folders_above_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (above, state) = (dir.path().join("a"), dir.path().join("a/state"));
        make(&state).unwrap();
        assert_eq!(exposed_above(&state, own_uid()), []);
        chmod(&above, 0o777);
        let real = above.canonicalize().unwrap();
        assert_eq!(
            exposed_above(&state, own_uid()),
            [(real, Trouble::Writable(0o777))]
        );
        chmod(&above, 0o1777);
        assert_eq!(exposed_above(&state, own_uid()), [], "as /tmp is");
    }

    #[test]
    fn private_folders_are_closed_and_are_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        fs::create_dir(&spool).unwrap();
        chmod(&spool, 0o777);
        make_private(&spool).unwrap();
        assert_eq!(fs::metadata(&spool).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        symlink(&spool, &link).unwrap();
        chmod(&spool, 0o755);
        for link in [link.clone(), link.join("")] {
            assert!(
                make_private(&link)
                    .unwrap_err()
                    .to_string()
                    .contains("not a folder")
            );
        }
        assert_eq!(
            fs::metadata(&spool).unwrap().mode() & 0o777,
            0o755,
            "not what it leads to"
        );
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(
            make_private(&file)
                .unwrap_err()
                .to_string()
                .contains("not a folder")
        );
    }

    #[test]
    fn only_plain_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        own_file(&path("file")).unwrap();
        assert_eq!(fs::metadata(path("file")).unwrap().mode() & 0o777, 0o600);
        symlink(path("file"), path("link")).unwrap();
        symlink(path("new"), path("dangling")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for odd in ["link", "dangling", "folder", "socket", "pipe"] {
            for opened in [own_file(&path(odd)), read_own_file(&path(odd))] {
                let refusal = opened.unwrap_err().to_string();
                assert!(refusal.contains("not a plain file"), "{odd}: {refusal}");
            }
        }
        assert!(is_unsafe(&read_own_file(&path("pipe")).unwrap_err()));
        assert!(!is_unsafe(&read_own_file(&path("missing")).unwrap_err()));
        assert!(!path("new").exists(), "nothing is made at a link's end");
        read_own_file(&path("file")).unwrap();
    }
}
