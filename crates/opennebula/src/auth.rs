//! Credentials as OpenNebula's users keep them.

use crate::error::{Class, Error};
use crate::secret_file;
use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The session string `user:secret`. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<credentials>")
    }
}

impl Credentials {
    /// Reads the first line, `user:password` or `user:token`, of the file.
    ///
    /// # Errors
    /// Class [`Class::Authentication`]: the file is not there, is no plain file, belongs
    /// to somebody else than this user or root (root takes anybody's: setup and doctor read
    /// what the service's user has), can be read by all or changed by its group, or its first
    /// line has no name and secret.
    pub fn read(file: &Path) -> Result<Self, Error> {
        Self::whole(file).map(|(credentials, ..)| credentials)
    }

    /// Credentials of a user that is not there yet, with a secret of 256 random bits.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random(user: &str) -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = bytes.get_mut(filled..).unwrap_or_default();
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{user}:{secret}")))
    }

    /// Writes them into a new file that nobody but `owner` (none: who runs this) can read, with a comment in the
    /// second line; whole or not at all, never over another file.
    ///
    /// # Errors
    /// The file is there already, or cannot be written or given to its owner.
    pub fn write_new(&self, file: &Path, comment: &str, owner: Option<u32>) -> io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let part = folder.join(format!(".{name}.{}.part", std::process::id()));
        let written = (|| {
            let mut to = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            writeln!(to, "{}\n# {comment}", self.0)?;
            if let Some(owner) = owner {
                std::os::unix::fs::fchown(&to, Some(owner), None)?;
            }
            to.sync_all()?;
            // A rename would replace what is there.
            std::fs::hard_link(&part, file)
        })();
        let _ = std::fs::remove_file(&part);
        written
    }

    /// The comment of [`Self::write_new`] in a file; none: there is no such file, or nobody wrote one.
    ///
    /// # Errors
    /// As [`Self::read`], except that the file may be missing.
    pub fn comment(file: &Path) -> Result<Option<String>, Error> {
        if matches!(file.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let (_, _, text) = Self::whole(file)?;
        let second = text.lines().nth(1).and_then(|line| line.strip_prefix("# "));
        Ok(second.map(str::to_owned))
    }

    /// The secret, for the call that makes its user.
    pub(crate) fn secret(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, secret)| secret)
    }

    /// The user's name, without the secret.
    #[must_use]
    pub fn user(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// What oned gets as first argument of every call.
    pub(crate) fn session(&self) -> &str {
        &self.0
    }

    fn load(path: &Path) -> Result<(Self, Stamp), Error> {
        Self::whole(path).map(|(credentials, stamp, _)| (credentials, stamp))
    }

    /// With all that the file has.
    fn whole(path: &Path) -> Result<(Self, Stamp, String), Error> {
        let what = "OpenNebula's credentials";
        let (text, found) = secret_file::read(path, what, Class::Authentication)?;
        let bad = |why: &str| {
            let said = format!("cannot use {what} in {}: {why}", path.display());
            Error::new(Class::Authentication, said)
        };
        let line = text.lines().next().unwrap_or_default().trim();
        match line.split_once(':') {
            Some((user, secret)) if !user.is_empty() && !secret.is_empty() => {}
            _ => return Err(bad("its first line is not NAME:PASSWORD or NAME:TOKEN")),
        }
        if line.chars().any(char::is_control) {
            return Err(bad("its first line has control characters"));
        }
        Ok((Self(line.to_owned()), Stamp::of(&found), text))
    }
}

/// What tells one content of the file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            changed: (found.mtime(), found.mtime_nsec()),
            size: found.size(),
        }
    }
}

/// The file with the credentials, read again when it changes: tokens expire.
#[derive(Debug)]
pub(crate) struct AuthFile {
    path: PathBuf,
    known: Mutex<(Credentials, Stamp)>,
}

impl AuthFile {
    /// Reads it. Errors as [`Credentials::read`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            known: Mutex::new(Credentials::load(path)?),
        })
    }

    /// What the file says now. While it cannot be used, what it said before: it may be
    /// just being replaced, and oned says soon enough if that is not good any more.
    pub(crate) fn current(&self) -> Credentials {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = std::fs::metadata(&self.path).is_ok_and(|found| Stamp::of(&found) == known.1);
        if !same && let Ok(new) = Credentials::load(&self.path) {
            *known = new;
        }
        known.0.clone()
    }

    /// Reads it again, whatever it looks like, because oned did not take what it said.
    pub(crate) fn again(&self) -> Result<(), Error> {
        let new = Credentials::load(&self.path)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one_auth");
        write(&path, text, mode);
        (folder, path)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn the_first_line_counts() {
        let (_folder, path) = file("slurm:a:b c\nanother:line\n", 0o600);
        let read = Credentials::read(&path).expect("read");
        assert_eq!((read.user(), read.session()), ("slurm", "slurm:a:b c"));
    }

    #[test]
    fn only_files_closed_to_others_are_taken() {
        for mode in [0o400, 0o600, 0o440, 0o640] {
            let (_folder, path) = file("slurm:pw", mode);
            assert!(Credentials::read(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o660, 0o604, 0o606, 0o601, 0o650, 0o777] {
            let (_folder, path) = file("slurm:pw", mode);
            let error = Credentials::read(&path).expect_err("refused");
            assert_eq!(error.class, Class::Authentication);
            assert!(error.text.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_was_made_is_closed_to_others_and_never_replaces_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one_auth");
        let made = Credentials::random("thiao").expect("random");
        assert_ne!(made, Credentials::random("thiao").expect("random"));
        assert_eq!(Credentials::comment(&path), Ok(None));
        made.write_new(&path, "made for lab", None).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        assert_eq!(Credentials::read(&path).as_ref(), Ok(&made));
        assert_eq!(Credentials::comment(&path), Ok(Some("made for lab".to_owned())));
        let other = Credentials::random("other").expect("random");
        let refused = other.write_new(&path, "", None).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Credentials::read(&path).as_ref(), Ok(&made));
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("read").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn root_reads_what_the_services_user_has() {
        let (_folder, path) = file("slurm:pw", 0o600);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(64030), Some(64030)).expect("given away");
        }
        assert_eq!(Credentials::read(&path).expect("read").user(), "slurm");
    }

    #[test]
    fn what_has_no_name_and_secret_is_refused_without_being_shown() {
        let large = format!("slurm:{}", "hidden".repeat(1000));
        for text in [
            "",
            "hidden",
            ":hidden",
            "hidden:",
            "\nslurm:hidden",
            "hid:den\u{7}x",
            &large,
        ] {
            let (_folder, path) = file(text, 0o600);
            let error = Credentials::read(&path).expect_err(text);
            assert!(!error.text.contains("hid"), "{error}");
        }
    }

    #[test]
    fn folders_pipes_and_nothing_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Credentials::read(folder.path()).is_err());
        assert!(Credentials::read(&folder.path().join("none")).is_err());
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a pipe");
        assert!(Credentials::read(&pipe).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let (_folder, path) = file("slurm:hidden", 0o600);
        let file = AuthFile::open(&path).expect("read");
        assert!(!format!("{file:?} {:?}", file.current()).contains("hidden"));
    }

    #[test]
    fn a_new_file_is_read_and_a_bad_one_is_waited_out() {
        let (folder, path) = file("slurm:old", 0o600);
        let auth = AuthFile::open(&path).expect("read");
        let replace = |text, mode| {
            let new = folder.path().join("new");
            write(&new, text, mode);
            std::fs::rename(&new, &path).expect("renamed");
        };
        replace("slurm:newer", 0o600);
        assert_eq!(auth.current().session(), "slurm:newer");
        replace("slurm:open to all", 0o644);
        assert_eq!(auth.current().session(), "slurm:newer");
        assert!(auth.again().is_err());
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(auth.current().session(), "slurm:newer");
    }
}
