//! The exports of a controller: each a process, known by the record that it holds locked.

use crate::error::ExportError;
use crate::record::{GRACE, PAUSE, Record, SUBCOMMAND};
use rustix::process::{Pid, PidfdFlags, Signal};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Under the state folder.
const FOLDER: &str = "exports";

/// How long an export may take to say that it is ready, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder of this machine that is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Folder {
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

    /// Ends these exports, and no others of this state folder. Guests that still use them wait.
    pub fn end(mut self) -> Result<(), ExportError> {
        for export in &self.exports {
            end(&self.folder.join(id(&export.folder, self.bind)))?;
        }
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
