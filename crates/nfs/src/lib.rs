//! The users' folders, served to the guests by NFS version 3 over TCP.
//!
//! Each folder has a process of its own, which acts as the folder's user: the
//! kernel, not we, decides what may be read and written. It outlives the
//! controller (VMs go on using it) and is adopted by the next one.
//!
//! ```text
//! <state_dir>/exports/<id>      its pid and port; locked by the process for as long as it lives
//! <state_dir>/exports/<id>.log  its last words
//! ```
//!
//! A dead export is started again on the port that it had, and finds its
//! files by the handles that guests hold: mounts (`hard`) go on.
//!
//! Why it exists. Guests of many users hang on it, and none of what is ready-made serves a folder as its user:
//! - nfs-ganesha (4.3, tried) opens files by handles, for which it needs rights of root's
//!   (`CAP_DAC_READ_SEARCH`): as an ordinary user it answers MOUNT and no CREATE. It does not start without
//!   rpcbind, where a second user's process cannot register.
//! - unfs3 (0.11, tried) does run as an ordinary user. It answers unprivileged ports, takes handles that anybody
//!   can compute, follows links out of the folder, does not tell the users of a guest apart, ends at a malformed
//!   handle, and empties files that another guest has just made. Debian does not have it.
//! - The crate `nfsserve` (0.11) drops the mode of `mkdir` (a private folder would become public), has no hard
//!   links, named pipes, COMMIT or access checks, loses its handles with its process, and would answer any program
//!   that speaks to its port.

mod args;
mod attributes;
mod child;
mod fs;
mod handles;
mod nfs;
mod replies;
mod server;
mod xdr;

pub use child::child;

use args::User;
use nfs::Nfs;
use rustix::process::{Pid, PidfdFlags, Signal};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The hidden subcommand of a program that makes VMs: an export.
pub const SUBCOMMAND: &str = "nfs-export";

/// Becomes an export, if these are the words for one, the program's name first: between a program that makes VMs
/// and its child, not for people.
#[must_use]
pub fn called(args: &[OsString]) -> Option<ExitCode> {
    match args {
        [_, first, rest @ ..] if first == SUBCOMMAND => Some(child(rest)),
        _ => None,
    }
}

/// Under the state folder.
const FOLDER: &str = "exports";

/// How long an export may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that ends may take, before it is killed, and before its port is given up.
const GRACE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// How often files that nobody uses are closed.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// What went wrong with an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The folder cannot be opened.
    #[error(
        "cannot export {folder}: {source}; the folder must be there, and its user must be able to enter it"
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the guests' files: {source}; the bridge must have this address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The process cannot become the share's user.
    #[error(
        "cannot act as uid {uid}, gid {gid}: {source}; run the controller as root, or share only its own user's folders"
    )]
    User {
        /// Its user.
        uid: u32,
        /// And group.
        gid: u32,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of ours cannot be used.
    #[error("cannot {what} {path}: {source}")]
    State {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The process cannot be started.
    #[error("cannot start {program} {SUBCOMMAND}: {source}")]
    Start {
        /// The binary.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The process ended at once, or said nothing.
    #[error("the export of {folder} did not start: {said}; see {log}")]
    Silent {
        /// The folder.
        folder: PathBuf,
        /// Its last words.
        said: String,
        /// What else it has said.
        log: PathBuf,
    },
    /// A running process holds the record, and is not one of ours.
    #[error(
        "{record} is locked by a process that is no export: end it (`fuser {record}` names it), then try again"
    )]
    Foreign {
        /// The record.
        record: PathBuf,
    },
    /// Not started as it must be.
    #[error("`{SUBCOMMAND}` is started by the controller, not by hand")]
    ByHand,
}

/// What an export tells about itself.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Record {
    pid: u32,
    port: u16,
    /// For people who look into the file.
    folder: String,
}

/// A folder of this machine that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is: all access is under this uid.
    pub uid: u32,
    /// And under this gid.
    pub gid: u32,
}

/// The running exports, one for each folder.
#[derive(Debug)]
pub struct Exports {
    program: PathBuf,
    folder: PathBuf,
    bind: Ipv4Addr,
    exports: Vec<Export>,
}

#[derive(Debug)]
struct Export {
    folder: Folder,
    port: u16,
    /// Our child, unless it was adopted.
    child: Option<Child>,
}

impl Exports {
    /// Starts an export for each folder on the address `bind`, or adopts the one that runs already.
    /// `program` is a binary with the subcommand [`SUBCOMMAND`].
    pub fn start(
        folders: &[Folder],
        bind: Ipv4Addr,
        program: &Path,
        state_dir: &Path,
    ) -> Result<Self, ExportError> {
        let folder = state_dir.join(FOLDER);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| ExportError::State {
                what: "make",
                path: folder.clone(),
                source,
            })?;
        let mut exports = Self {
            program: program.to_owned(),
            folder,
            bind,
            exports: Vec::new(),
        };
        for folder in folders {
            let (port, child) = exports.adopt_or_start(folder)?;
            exports.exports.push(Export {
                folder: folder.clone(),
                port,
                child,
            });
        }
        Ok(exports)
    }

    /// The TCP port of a folder's export, by its place among those given to [`Self::start`];
    /// MOUNT and NFS both answer there. Panics if there is no such folder.
    #[must_use]
    pub fn port(&self, index: usize) -> u16 {
        self.exports[index].port
    }

    /// Starts again what has ended, on its former port. To be called now and then.
    pub fn tend(&mut self) -> Result<(), ExportError> {
        for index in 0..self.exports.len() {
            if let Some(child) = &mut self.exports[index].child {
                // Reaps it; whether it lives is told by its lock.
                let _ = child.try_wait();
            }
            let (port, child) = self.adopt_or_start(&self.exports[index].folder)?;
            let export = &mut self.exports[index];
            export.port = port;
            if child.is_some() {
                export.child = child;
            }
        }
        Ok(())
    }

    /// Ends all exports of this state folder, also those of folders that are no longer configured.
    /// Guests that still use them wait.
    pub fn stop(mut self) -> Result<(), ExportError> {
        end_all(&self.folder)?;
        for child in self.exports.iter_mut().filter_map(|e| e.child.as_mut()) {
            let _ = child.wait();
        }
        Ok(())
    }

    /// [`Self::stop`] by whoever did not start them.
    pub fn stop_recorded(state_dir: &Path) -> Result<(), ExportError> {
        let folder = state_dir.join(FOLDER);
        if folder.exists() { end_all(&folder) } else { Ok(()) }
    }

    fn adopt_or_start(&self, folder: &Folder) -> Result<(u16, Option<Child>), ExportError> {
        let path = self.folder.join(id(folder, self.bind));
        let failed = |what, path: &Path, source| ExportError::State {
            what,
            path: path.to_owned(),
            source,
        };
        let start = Instant::now();
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let file = file.map_err(|e| failed("open", &path, e))?;
            if try_lock(&file).map_err(|e| failed("lock", &path, e))? {
                let (port, child) = self.spawn(folder, &path, file)?;
                return Ok((port, Some(child)));
            }
            if let Some((record, _)) = holder(&path) {
                return Ok((record.port, None));
            }
            // Just starting, or somebody only looks: soon to be told.
            if start.elapsed() > PATIENCE {
                return Err(ExportError::Foreign { record: path });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Starts an export; its standard input is the locked record, which so stays locked until it ends.
    fn spawn(&self, folder: &Folder, path: &Path, record: File) -> Result<(u16, Child), ExportError> {
        let log = path.with_extension("log");
        let log_file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log);
        let log_file = log_file.map_err(|source| ExportError::State {
            what: "open",
            path: log.clone(),
            source,
        })?;
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg(&folder.path)
            .args([
                self.bind.to_string(),
                folder.uid.to_string(),
                folder.gid.to_string(),
            ])
            .env_clear()
            .current_dir("/")
            .stdin(record)
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(|source| ExportError::Start {
                program: self.program.clone(),
                source,
            })?;
        let said = child.stdout.take().map(first_line).unwrap_or_default();
        match said.strip_prefix("ready ").and_then(|port| port.parse().ok()) {
            Some(port) => Ok((port, child)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                let said = if said.is_empty() {
                    "it said nothing".to_owned()
                } else {
                    said
                };
                Err(ExportError::Silent {
                    folder: folder.path.clone(),
                    said,
                    log,
                })
            }
        }
    }
}

/// A folder keeps its record, and so its port, whatever becomes of the others.
fn id(folder: &Folder, bind: Ipv4Addr) -> String {
    let mut hash = Sha256::new();
    hash.update(folder.path.as_os_str().as_bytes());
    hash.update([0]);
    hash.update(format!("{} {} {bind}", folder.uid, folder.gid));
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The process that a record names, held by a descriptor, if it surely has that record as its standard input.
fn holder(path: &Path) -> Option<(Record, std::os::fd::OwnedFd)> {
    let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let pid = Pid::from_raw(record.pid.try_into().ok()?)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let ours = std::fs::metadata(path).ok()?;
    match std::fs::metadata(format!("/proc/{}/fd/0", record.pid)) {
        Ok(theirs) if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) => None,
        // Some containers keep even root from looking at other users' processes; the lock must do there. One that
        // just ends may not be looked at either, and has no memory any more.
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied || !has_memory(record.pid) => None,
        _ => Some((record, process)),
    }
}

fn has_memory(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|text| !text.starts_with("0 "))
}

/// Ends whatever has a record in this folder.
fn end_all(folder: &Path) -> Result<(), ExportError> {
    let failed = |path: &Path, source| ExportError::State {
        what: "read",
        path: path.to_owned(),
        source,
    };
    for entry in folder.read_dir().map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        if path.extension().is_none() {
            end(&path)?;
        }
    }
    Ok(())
}

/// Ends the export that holds this record, if any.
fn end(path: &Path) -> Result<(), ExportError> {
    let failed = |what, source| ExportError::State {
        what,
        path: path.to_owned(),
        source,
    };
    let start = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        let file = File::open(path).map_err(|e| failed("open", e))?;
        if try_lock(&file).map_err(|e| failed("lock", e))? {
            return Ok(());
        }
        drop(file);
        if let Some((_, process)) = holder(path) {
            match rustix::process::pidfd_send_signal(&process, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(failed("end the export of", e.into())),
            }
        } else if start.elapsed() > PATIENCE {
            return Err(ExportError::Foreign {
                record: path.to_owned(),
            });
        }
        if start.elapsed() > GRACE {
            signal = Signal::KILL;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The first line that a new process writes, waited for with patience.
fn first_line(pipe: std::process::ChildStdout) -> String {
    let start = Instant::now();
    let mut said = Vec::new();
    let mut reader = BufReader::new(pipe);
    while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
        let mut ready = [rustix::event::PollFd::new(
            reader.get_ref(),
            rustix::event::PollFlags::IN,
        )];
        let left = rustix::time::Timespec::try_from(left).ok();
        match rustix::event::poll(&mut ready, left.as_ref()) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => continue,
            _ => {}
        }
        // One line is written at once, and comes whole.
        match reader.read_until(b'\n', &mut said) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Serves a folder under this process's user, and gives the port to `ready` once it listens. Returns only when it
/// fails. Takes the process over: sets its umask to 0, since clients apply their own.
pub fn serve(dir: &Path, listen_on: SocketAddr, ready: impl FnOnce(u16)) -> Result<Infallible, ExportError> {
    let nfs = open(dir, User::current())?;
    let listener = listen(listen_on)?;
    ready(port(&listener)?);
    serve_on(&listener, nfs)
}

fn open(folder: &Path, owner: User) -> Result<Arc<Nfs>, ExportError> {
    let failed = |path: &Path, source| ExportError::Folder {
        folder: path.to_owned(),
        source,
    };
    // Files are opened again by their descriptors' names there.
    let proc = Path::new("/proc/self/fd");
    proc.read_dir().map_err(|e| failed(proc, e))?;
    let tree = fs::Tree::new(folder).map_err(|e| failed(folder, e.into()))?;
    Ok(Arc::new(Nfs::new(tree, owner)))
}

fn listen(address: SocketAddr) -> Result<TcpListener, ExportError> {
    TcpListener::bind(address).map_err(|source| ExportError::Listen { address, source })
}

fn port(listener: &TcpListener) -> Result<u16, ExportError> {
    let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    listener
        .local_addr()
        .map(|a| a.port())
        .map_err(|source| ExportError::Listen { address, source })
}

fn serve_on(listener: &TcpListener, nfs: Arc<Nfs>) -> Result<Infallible, ExportError> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    let idle = Arc::clone(&nfs);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(IDLE_CHECK);
            idle.tree.close_idle();
        }
    });
    server::run(listener, &nfs)
}
