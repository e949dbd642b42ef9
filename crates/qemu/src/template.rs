//! Warm templates: a guest that was booted once, up to where it waits for its
//! context, and saved. Its memory stays in a file; a clone maps that file, copies
//! only the pages that it writes, and needs no boot.
//!
//! A template is good for one image, machine, shape and cluster, and until this
//! machine restarts (its memory file is not forced to disk). It holds no
//! identity and no secret; still nobody else may read it.

use crate::accel::Choice;
use crate::beside::beside;
use crate::disk::Disks;
use crate::error::Error;
use crate::image::{Image, System, hex};
use crate::machine::{LAYOUT, Machine, Memory, Start};
use crate::net::Network;
use crate::process;
use crate::qmp::{self, Qmp};
use crate::sums;
use crate::vmdir::{self, CHANNEL_SOCKET, CONSOLE_FILE, QMP_SOCKET};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use thiao_core::ids::ClusterName;
use thiao_guest::protocol::{Phase, Report};

/// How long a guest may take to boot until it waits.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long saving and restoring may take; they take a fraction of a second.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// How long one command to QEMU may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// The guest finishes what it does after saying that it waits.
const SETTLE: Duration = Duration::from_millis(300);

/// A saved guest, from which others start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    folder: PathBuf,
}

/// What a template is made for.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Where templates are kept.
    pub folder: &'a Path,
    /// Whose guests they become.
    pub cluster: &'a ClusterName,
    pub image: &'a Image,
    pub verdict: &'a Choice,
    /// The emulator's words about itself.
    pub emulator: &'a str,
    pub cpus: u32,
    /// The guest's memory in MiB.
    pub total_mb: u64,
}

impl Plan<'_> {
    /// The template's name: a digest of all that a saved guest depends on.
    pub fn name(&self) -> String {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let text = format!(
            "{LAYOUT} {} {} {} {} {} {} {} {boot}",
            self.cluster,
            self.image.digest,
            self.verdict.accel.as_str(),
            self.verdict.tsc_khz,
            self.emulator,
            self.cpus,
            self.total_mb,
        );
        hex(&Sha256::digest(text))[..32].to_owned()
    }

    /// Finds the template or makes it.
    pub fn prepare(&self, network: &Network, progress: &dyn Fn(&str)) -> Result<Template, Error> {
        let template = Template {
            folder: self.folder.join(self.name()),
        };
        if template.is_whole(self.total_mb) {
            if sums::hold(&template.folder) {
                return Ok(template);
            }
            progress("a guest that was saved to start others from is damaged: it is made anew");
        }
        progress(&format!(
            "booting a guest to start others from: {} CPUs, {} MiB",
            self.cpus, self.total_mb
        ));
        vmdir::make_private(self.folder)?;
        let _ = fs::remove_dir_all(&template.folder);
        let work = beside(&template.folder, "new");
        let _ = fs::remove_dir_all(&work);
        vmdir::make_private(&work)?;
        let made = self.make(network, &work);
        // Whatever happened, nothing of it may stay: the guest was told to end, or is ended now.
        vmdir::kill(&work)?;
        vmdir::wait_gone(&work, COMMAND_LIMIT)?;
        let summed = made.and_then(|()| sums::write(&work).map_err(|e| Error::io("read", &work, e)));
        let placed = summed.and_then(|()| {
            fs::rename(&work, &template.folder).map_err(|e| Error::io("make", &template.folder, e))
        });
        if placed.is_err() {
            let _ = fs::remove_dir_all(&work);
        }
        placed.map(|()| template)
    }

    /// How far a guest comes before it is saved: what it does until then, no clone does again.
    fn saved_at(&self) -> Phase {
        match self.image.disks {
            None => Phase::Waiting,
            Some(_) => Phase::Up,
        }
    }

    fn make(&self, network: &Network, work: &Path) -> Result<(), Error> {
        let memory = private_file(&work.join(MEMORY_FILE))?;
        memory
            .set_len(self.total_mb << 20)
            .map_err(|e| Error::io("size", &work.join(MEMORY_FILE), e))?;
        let state = private_file(&work.join(STATE_FILE))?;
        if let Some(disks) = &self.image.disks {
            disks.lay_over(work)?;
        }
        // Two templates may be made at the same time; a tap's name has at most 15 bytes.
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tap = network.open_tap(&format!("tm{:x}-{count:x}", std::process::id()))?;
        let machine = Machine {
            name: format!("thiao-{}-template", self.cluster),
            cpus: self.cpus,
            memory_mb: self.total_mb,
            accel: self.verdict.accel,
            tsc_khz: self.verdict.tsc_khz,
            memory: Memory::Shared(work.join(MEMORY_FILE)),
            start: Start::Boot,
            mac: [0x02, 0x54, 0, 0, 0, 0],
            tap: Some(tap.as_raw_fd()),
        };
        machine.start(&System::Made(self.image.clone()), work, &[tap.as_fd()])?;
        drop(tap);
        wait_until(self.saved_at(), work)?;
        std::thread::sleep(SETTLE);
        let mut qmp = Qmp::connect(work, QMP_SOCKET, COMMAND_LIMIT)?;
        ignore_shared_memory(&mut qmp)?;
        // Not stopped before: a guest saved while it stands still would stand still when restored.
        let place = qmp.state_file(&work.join(STATE_FILE), state.as_fd(), COMMAND_LIMIT)?;
        qmp.ask("migrate", place, COMMAND_LIMIT)?;
        let until = Instant::now() + SAVE_LIMIT;
        loop {
            let answer = qmp.ask("query-migrate", json!({}), COMMAND_LIMIT)?;
            match answer["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => {
                    return Err(Error::Qemu(format!("the guest could not be saved: {answer}")));
                }
                _ if Instant::now() > until => {
                    return Err(Error::Qemu(format!("saving the guest took too long: {answer}")));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        // QEMU's answer may be lost when it ends fast.
        let _ = qmp.ask("quit", json!({}), COMMAND_LIMIT);
        vmdir::wait_gone(work, COMMAND_LIMIT)?;
        Ok(())
    }
}

const MEMORY_FILE: &str = "memory";
const STATE_FILE: &str = "state";

/// `stat` counts blocks of 512 bytes.
const BLOCKS_PER_MB: u64 = 2048;

impl Template {
    /// The file with its memory.
    pub fn memory(&self) -> PathBuf {
        self.folder.join(MEMORY_FILE)
    }

    /// The disks as its guest left them, where guests of the image have any.
    pub fn disks(&self, system: &System) -> Option<Disks> {
        match system {
            System::Made(image) => image.disks.as_ref().map(|_| Disks::in_folder(&self.folder)),
            System::Brought(_) => None,
        }
    }

    /// Brings its guest to life in a QEMU that waits for it in `folder`.
    pub fn restore(&self, folder: &Path) -> Result<(), Error> {
        let path = self.folder.join(STATE_FILE);
        let state = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut qmp = Qmp::connect(folder, QMP_SOCKET, COMMAND_LIMIT)?;
        ignore_shared_memory(&mut qmp)?;
        let place = qmp.state_file(&path, state.as_fd(), COMMAND_LIMIT)?;
        qmp.ask("migrate-incoming", place, COMMAND_LIMIT)?;
        qmp.wait_for("RESUME", SAVE_LIMIT)
    }

    /// Removes it, so that it is made anew. Running clones keep their memory.
    pub fn discard(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// What it takes on disk, in MiB: of its memory file only what the guest has written.
    pub fn price_mb(&self) -> u64 {
        let blocks = |name: &str| fs::metadata(self.folder.join(name)).map_or(0, |meta| meta.blocks());
        (blocks(MEMORY_FILE) + blocks(STATE_FILE)).div_ceil(BLOCKS_PER_MB)
    }

    fn is_whole(&self, total_mb: u64) -> bool {
        let length = |name: &str| {
            fs::metadata(self.folder.join(name))
                .map(|meta| meta.len())
                .unwrap_or(0)
        };
        length(MEMORY_FILE) == total_mb << 20 && length(STATE_FILE) > 0
    }
}

/// Removes templates and remains that are not among those in use.
pub fn prune(folder: &Path, used: &[&Template]) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if !used.iter().any(|template| template.folder == path) && vmdir::kill(&path).is_ok() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Memory that is in a file is not written into the saved state.
fn ignore_shared_memory(qmp: &mut Qmp) -> Result<(), Error> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.ask(
        "migrate-set-capabilities",
        json!({ "capabilities": [capability] }),
        COMMAND_LIMIT,
    )
    .map(drop)
}

/// Waits until the guest has said this.
fn wait_until(wanted: Phase, work: &Path) -> Result<(), Error> {
    let silent = |why: String| {
        let words = process::tail(&work.join(CONSOLE_FILE));
        Error::Qemu(format!(
            "a guest booted for a template did not come so far: {} ({why}); its console: {words}",
            wanted.as_str()
        ))
    };
    let stream = qmp::connect(work, CHANNEL_SOCKET).map_err(|e| silent(e.to_string()))?;
    let until = Instant::now() + BOOT_LIMIT;
    let mut reader = BufReader::new(stream);
    loop {
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let mut line = String::new();
        let read = reader
            .get_ref()
            .set_read_timeout(Some(left))
            .and_then(|()| reader.read_line(&mut line))
            .map_err(|e| silent(e.to_string()))?;
        if read == 0 {
            return Err(silent("QEMU ended".to_owned()));
        }
        match serde_json::from_str::<Report>(&line) {
            Ok(Report { phase, .. }) if phase == wanted => return Ok(()),
            Ok(Report {
                phase: Phase::Failed,
                detail,
                ..
            }) => return Err(silent(detail.unwrap_or_default())),
            Ok(_) | Err(_) => {}
        }
    }
}

fn private_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io("make", path, e))
}
