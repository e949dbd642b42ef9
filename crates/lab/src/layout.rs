//! Where a lab keeps its files: everything is below one folder.

use crate::auth::AuthBy;
use anyhow::{Context, Result, anyhow, bail};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiao_qemu::Credentials;

/// The longest folder accepted, in bytes: the path of a VM's socket below it
/// must fit a Unix socket address (107 bytes).
const MAX_DIR: usize = 60;

/// A lab's folder and what lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The lab in `dir`, or in the usual place. Makes the path absolute and free of symbolic links.
    ///
    /// # Errors
    /// When the path is too long for Unix sockets below it, or no place can be told.
    pub fn new(dir: Option<&Path>) -> Result<Self> {
        let wanted = match dir {
            Some(dir) => {
                std::path::absolute(dir).with_context(|| format!("{} is no usable path", dir.display()))?
            }
            None => usual_dir()?,
        };
        // The guests see the home folder at the same path, so it must be the real one.
        let dir = wanted.canonicalize().unwrap_or(wanted);
        if dir.as_os_str().len() > MAX_DIR {
            bail!(
                "the lab's folder {} is too long for Unix sockets below it: choose one of at most {MAX_DIR} bytes with --dir",
                dir.display()
            );
        }
        Ok(Self { dir })
    }

    /// The folder that all of it is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which lab this is, in a word that fits a cluster name: labs in two folders never share one.
    pub fn cluster(&self) -> String {
        // FNV-1a: a short stable name, no secret.
        let hash = self
            .dir
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("lab{:06x}", hash & 0xff_ffff)
    }

    /// Held (flock) by the keeper as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Takes the lab's lock, for as long as the file is open: two keepers would destroy each other's files.
    ///
    /// # Errors
    /// When a keeper has it.
    pub fn take_lock(&self) -> Result<std::fs::File> {
        let file = crate::services::open_log(&self.lock())?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            anyhow!(
                "a lab runs already in {}: `thiao lab down` ends it",
                self.dir.display()
            )
        })?;
        Ok(file)
    }

    /// How this lab was asked for.
    pub fn options(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// Where the keeper answers.
    pub fn keeper_socket(&self) -> PathBuf {
        self.dir.join("keeper.sock")
    }

    /// What the programs of the lab say.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The log of one program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The folder of slurm.conf: slurmctld hands the files beside it to the guests.
    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// The `slurm.conf` of the lab.
    pub fn slurm_conf(&self) -> PathBuf {
        self.etc().join("slurm.conf")
    }

    /// The `thiao.toml` of the lab.
    pub fn thiao_conf(&self) -> PathBuf {
        self.dir.join("thiao.toml")
    }

    /// Where slurmctld keeps its state.
    pub fn slurm_state(&self) -> PathBuf {
        self.dir.join("ctld")
    }

    /// Keys: for the lab's owner alone.
    pub fn secrets(&self) -> PathBuf {
        self.dir.join("secret")
    }

    /// The munge key that the guests share.
    pub fn munge_key(&self) -> PathBuf {
        self.secrets().join("munge.key")
    }

    /// Slurm's own key, which the guests share.
    pub fn slurm_key(&self) -> PathBuf {
        self.secrets().join("slurm.key")
    }

    /// Where the cluster's secret is.
    pub fn credentials(&self, auth: AuthBy) -> Credentials {
        match auth {
            AuthBy::Munge => Credentials::Munge {
                key: self.munge_key(),
                socket: self.munge_socket(),
            },
            AuthBy::Slurm => Credentials::Slurm {
                key: self.slurm_key(),
            },
        }
    }

    /// Where the machine's `/run` is while the lab gets its own.
    pub fn outer_run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// munged's socket and pid file; users must reach it.
    pub fn munge(&self) -> PathBuf {
        self.dir.join("munge")
    }

    /// munged's socket, as `AuthInfo` names it.
    pub fn munge_socket(&self) -> PathBuf {
        self.munge().join("socket")
    }

    /// What OpenNebula's stand-in and its user need: for the lab's owner alone.
    pub fn one(&self) -> PathBuf {
        self.dir.join("one")
    }

    /// The user and password for it.
    pub fn one_auth(&self) -> PathBuf {
        self.one().join("one_auth")
    }

    /// What it says when it serves.
    pub fn one_ready(&self) -> PathBuf {
        self.one().join("ready.json")
    }

    /// The folder of its machines.
    pub fn one_state(&self) -> PathBuf {
        self.dir.join("o")
    }

    /// The programs that people call.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The programs that Slurm calls.
    pub fn hooks(&self) -> PathBuf {
        self.dir.join("hooks")
    }

    /// The controller's state folder.
    pub fn state(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// The controller's API socket.
    pub fn api(&self) -> PathBuf {
        self.state().join("api.sock")
    }

    /// The home folder of one who submits jobs, the same path outside and in the guests.
    pub fn home(&self, user: &str) -> PathBuf {
        self.dir.join("home").join(user)
    }

    /// What ends with the lab; the home folders, the logs and `lab.json` stay.
    pub fn run_time_parts(&self) -> Vec<PathBuf> {
        vec![
            self.keeper_socket(),
            self.etc(),
            self.thiao_conf(),
            self.slurm_state(),
            self.secrets(),
            self.munge(),
            self.bin(),
            self.hooks(),
            self.state(),
            self.one(),
            self.one_state(),
            self.outer_run(),
        ]
    }

    /// Makes the lab's own folder, passable for users (jobs' homes and the API socket are below it);
    /// whether it is new or was empty.
    ///
    /// # Errors
    /// When the folder cannot be made, or is there and holds something else.
    pub fn make_dir(&self) -> Result<bool> {
        let mut fresh = true;
        if self.dir.exists() {
            let mut entries = std::fs::read_dir(&self.dir)
                .with_context(|| format!("{} cannot be read", self.dir.display()))?;
            fresh = entries.next().is_none();
            if !fresh && !self.options().exists() {
                bail!(
                    "{} is not empty and holds no lab: name another folder with --dir",
                    self.dir.display()
                );
            }
        }
        make(&self.dir, 0o755)?;
        Ok(fresh)
    }
}

/// Makes a folder (and those above it) with this mode; sets the mode when it is there already.
///
/// # Errors
/// When that fails; the error names the folder.
pub fn make(dir: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)))
        .with_context(|| {
            format!(
                "the folder {} cannot be made: choose another with --dir",
                dir.display()
            )
        })
}

/// Makes a folder and those above it, if they are not there yet.
///
/// # Errors
/// When that fails; the error names the folder.
pub fn make_all(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("the folder {} cannot be made", dir.display()))
}

/// Removes a file or a whole folder; absence is fine.
///
/// # Errors
/// When something is left.
pub fn remove(path: &Path) -> Result<()> {
    let outcome = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where a lab is when nobody says: short, because Unix socket paths are.
fn usual_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(thiao_config::ROOTS_LAB));
    }
    let state = absolute_var("XDG_STATE_HOME")
        .or_else(|| absolute_var("HOME").map(|home| home.join(".local/state")))
        .context("neither XDG_STATE_HOME nor HOME is set: name the lab's folder with --dir")?;
    Ok(state.join("thiao/lab"))
}

/// Where guest images are kept over labs.
///
/// # Errors
/// When no place can be told.
pub fn cache_dir() -> Result<PathBuf> {
    let cache = absolute_var("XDG_CACHE_HOME")
        .or_else(|| absolute_var("HOME").map(|home| home.join(".cache")))
        .or_else(|| {
            rustix::process::geteuid()
                .is_root()
                .then(|| PathBuf::from("/var/cache"))
        })
        .context("neither XDG_CACHE_HOME nor HOME is set: name the cache with --cache-dir")?;
    Ok(cache.join("thiao"))
}

fn absolute_var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_folder_is_refused_before_sockets_fail() {
        let long = PathBuf::from("/").join("x".repeat(MAX_DIR));
        let error = Layout::new(Some(&long)).unwrap_err().to_string();
        assert!(error.contains("--dir"), "{error}");
    }

    #[test]
    fn labs_in_two_folders_have_two_names() {
        let one = Layout::new(Some(Path::new("/nowhere/a"))).unwrap();
        let two = Layout::new(Some(Path::new("/nowhere/b"))).unwrap();
        assert_ne!(one.cluster(), two.cluster());
        assert_eq!(one.cluster().len(), 9);
    }

    #[test]
    fn a_folder_with_other_things_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        let lab = Layout::new(Some(dir.path())).unwrap();
        assert!(lab.make_dir().unwrap_err().to_string().contains("holds no lab"));
        std::fs::remove_file(dir.path().join("thesis.tex")).unwrap();
        assert!(lab.make_dir().unwrap());
        std::fs::write(lab.options(), "{}").unwrap();
        assert!(!lab.make_dir().unwrap());
    }

    #[test]
    fn the_lock_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Layout::new(Some(dir.path())).unwrap();
        let held = lab.take_lock().unwrap();
        assert!(lab.take_lock().unwrap_err().to_string().contains("runs already"));
        drop(held);
        lab.take_lock().unwrap();
    }

    #[test]
    fn removing_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        make(&path.join("b"), 0o700).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
