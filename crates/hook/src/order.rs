//! Leaving an order in the controller's spool so that it cannot get lost.

use crate::{Failure, state, tell};
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, Time};
use thiao_core::spool::{self, IntentFile, IntentKind};
use thiao_hook::from_slurm::{self, Chosen, Listed, OtherCluster};

/// The most of a resume file that is kept, in bytes: some 100,000 jobs'.
const MAX_RESUME_FILE: u64 = 32 << 20;

/// What Slurm says about the jobs that the nodes are for. It helps and is not
/// needed: when it can't be read, the order is kept without it.
pub fn read_resume_file() -> Vec<u8> {
    let Some(path) = env::var_os("SLURM_RESUME_FILE").filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_RESUME_FILE + 1).read_to_end(&mut bytes));
    let problem = match read {
        Ok(_) if bytes.len() as u64 <= MAX_RESUME_FILE => return bytes,
        Ok(_) => format!("it has more than {MAX_RESUME_FILE} bytes"),
        Err(error) => error.to_string(),
    };
    tell(format_args!(
        "Resume: going on without SLURM_RESUME_FILE={}: {problem}. The controller asks Slurm about the jobs instead.",
        Path::new(&path).display()
    ));
    Vec::new()
}

/// Checks the order and leaves it in the spool of this state folder.
///
/// # Errors
/// Code 2 when it is refused, or when some of its nodes are unknown; an order
/// for those that are known is kept then. Code 1 when it could not be kept.
pub fn leave(state: &Path, kind: IntentKind, list: &OsStr, resume_file: Vec<u8>) -> Result<(), Failure> {
    let bytes = list.as_bytes();
    let spool = state.join("spool");
    let cluster = check_cluster(&spool)?;
    let Chosen { nodes, unknown } = from_slurm::choose(bytes, &listed(&spool.join(spool::NODES)))
        .map_err(|error| Failure::refused(format!("{error}\n{}", error.caret(bytes))))?;
    if let Some(nodes) = &nodes {
        keep(&spool, kind, cluster, nodes, resume_file)?;
        state::poke(state);
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let kept = match nodes {
        Some(nodes) => format!("The order for {nodes} is kept."),
        None => "Nothing was kept.".to_owned(),
    };
    Err(Failure::refused(format!(
        "unknown nodes: {}. {kept}\nThe controller knows those in {}. To add nodes, name them in a nodeset of its \
         thiao.toml and in slurm.conf (`thiao setup` writes the lines), then restart it.",
        hostlist::fold(&unknown),
        spool.join(spool::NODES).display(),
    )))
}

/// The cluster that calls, if Slurm says so; refused if the controller serves another one.
pub fn check_cluster(spool: &Path) -> Result<Option<ClusterName>, Failure> {
    let Some(calling) = env::var_os("SLURM_CLUSTER_NAME").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let ours = read_text(&spool.join(spool::CLUSTER));
    from_slurm::cluster(&calling, ours.as_deref()).map_err(|OtherCluster { calling, ours }| {
        Failure::refused(format!(
            "node of another cluster: called by cluster {calling:?} (SLURM_CLUSTER_NAME), but the controller of {} \
             serves {ours:?}. Nothing was kept. Give each cluster a controller and a state folder of its own: set \
             THIAO_STATE_DIR, or let slurm.conf name the programs that `thiao setup` made for this cluster.",
            spool.display()
        ))
    })
}

/// Reads a list of nodes in the spool.
pub fn listed(path: &Path) -> Listed {
    let unclear = |why: &dyn fmt::Display| {
        tell(format_args!(
            "The nodes are not checked: {}: {why}",
            path.display()
        ));
        Listed::Unclear
    };
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Listed::Unsaid,
        Err(error) => unclear(&error),
        Ok(list) => Listed::read(&list).unwrap_or_else(|error| unclear(&error)),
    }
}

/// A small file's text without the newline at its end; nothing if it can't be read.
fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim_end().to_owned())
}

/// Writes the order, and returns when it would survive a power cut.
///
/// # Errors
/// Code 1: it is lost, and what can be done.
pub fn keep(
    spool: &Path,
    kind: IntentKind,
    cluster: Option<ClusterName>,
    nodes: &str,
    resume_file: Vec<u8>,
) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = spool::file_name(now.as_nanos(), std::process::id(), kind);
    let at = Time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let intent = |uid| IntentFile {
        kind,
        at,
        uid,
        cluster,
        nodes: nodes.to_owned(),
        resume_file,
    };
    write(spool, &name, intent).map_err(|(path, error)| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let (what, consequence) = match kind {
            IntentKind::Resume { .. } => (
                format!("order for {nodes}"),
                "They get no VMs; Slurm marks them DOWN after ResumeTimeout and requeues their jobs",
            ),
            IntentKind::Suspend => (
                format!("order for {nodes}"),
                "Their VMs keep running, until Slurm asks again or someone does",
            ),
            IntentKind::ResumeFail => (
                format!("order for {nodes}"),
                "The controller will find out later that Slurm gave them up",
            ),
            IntentKind::JobEnd { job, .. } if denied => {
                return Failure::lost(format!(
                    "{}: {error}. For a job of your own: `thiao clean {job}`, which asks the controller. For others \
                     run this as root or as the controller's user, who owns {}.",
                    path.display(),
                    spool.display()
                ));
            }
            IntentKind::JobEnd { job, .. } => (
                format!("end of job {job}"),
                "Its VMs end only when Slurm takes their nodes away or the controller sees that it is over",
            ),
        };
        Failure::lost(format!(
            "the {what} is LOST: {}: {error}.\n{consequence}. {}, then run this again by hand.",
            path.display(),
            advice(&error, spool),
        ))
    })
}

/// What helps against this error.
fn advice(error: &io::Error, spool: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "Start the controller once (`thiao serve`: it makes {}), or set THIAO_STATE_DIR to its state folder",
            spool.display()
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "Run this as the controller's user, who owns {} (Slurm's SlurmUser)",
                spool.display()
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("Free space on the file system of {}", spool.display())
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "Make the file system of {} writable again (dmesg says why it is not)",
                spool.display()
            )
        }
        _ => format!("Repair {}", spool.display()),
    }
}

/// `tmp/name`, written and synced, becomes `new/name`. On an error neither is
/// left, and the path that could not be used is told.
fn write(
    spool: &Path,
    name: &str,
    intent: impl FnOnce(u32) -> IntentFile,
) -> Result<(), (PathBuf, io::Error)> {
    let new = spool.join(spool::NEW);
    let from = spool.join(spool::TMP).join(name);
    let to = new.join(name);
    let on = |path: &Path| {
        let path = path.to_owned();
        |error| (path, error)
    };

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&from)
        .map_err(on(&from))?;
    // The file's owner is who we are.
    let written = file
        .metadata()
        .and_then(|meta| file.write_all(&intent(meta.uid()).encode()))
        .and_then(|()| file.sync_all())
        .map_err(on(&from));
    let moved = written.and_then(|()| fs::rename(&from, &to).map_err(on(&to)));
    if moved.is_err() {
        _ = fs::remove_file(&from);
        return moved;
    }
    let synced = File::open(&new)
        .and_then(|folder| folder.sync_all())
        .map_err(on(&new));
    if synced.is_err() {
        _ = fs::remove_file(&to);
    }
    synced
}
