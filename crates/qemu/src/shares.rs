//! The exports of users' folders: those that the settings name, and those that are started when a VM comes to need
//! one. Each has a lock of its own: a home that hangs (it may be another server's) holds up its own user's VMs alone.

use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiao_nfs::{Exports, Folder};

/// How often the exports are looked after.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// How long an export stays that no VM uses: its user's next job may come.
const IDLE: Duration = Duration::from_secs(300);

/// All exports of this state folder, by their folders.
#[derive(Debug)]
pub(crate) struct Shares {
    program: PathBuf,
    state_dir: PathBuf,
    bind: Ipv4Addr,
    slots: Mutex<BTreeMap<Folder, Arc<Slot>>>,
    looked: Mutex<Instant>,
}

/// One export, which may not run yet.
#[derive(Debug)]
struct Slot {
    /// Its port as it is known without waiting for who looks after it; 0: it has none yet.
    port: AtomicU16,
    running: Mutex<Running>,
}

/// The process, if it was started.
#[derive(Debug)]
struct Running {
    exports: Option<Exports>,
    wanted: Instant,
}

impl Shares {
    /// None yet; `bind` is where they will listen, `program` what they will be.
    pub fn new(program: PathBuf, state_dir: PathBuf, bind: Ipv4Addr) -> Self {
        Self {
            program,
            state_dir,
            bind,
            slots: Mutex::default(),
            looked: Mutex::new(Instant::now()),
        }
    }

    /// The port of a folder's export, which runs then.
    pub fn serve(&self, folder: &Folder) -> Result<u16, Error> {
        let slot = self.slot(folder);
        let mut running = lock(&slot.running);
        running.wanted = Instant::now();
        self.start(folder, &slot, &mut running)
    }

    /// The port that a folder's export was last known to have.
    pub fn port(&self, folder: &Folder) -> Option<u16> {
        let port = lock(&self.slots).get(folder)?.port.load(Ordering::SeqCst);
        Some(port).filter(|port| *port != 0)
    }

    /// Now and then: starts ended exports again, and ends those that nobody has used for a while. VMs live on
    /// without one, so its failure fails nothing else. Gives those that have another port now.
    pub fn tend(&self, used: impl FnOnce() -> BTreeSet<Folder>) -> Vec<(Folder, u16)> {
        {
            let mut looked = lock(&self.looked);
            if looked.elapsed() < TEND_EVERY {
                return Vec::new();
            }
            *looked = Instant::now();
        }
        let used = used();
        let slots: Vec<(Folder, Arc<Slot>)> = {
            let slots = lock(&self.slots);
            slots
                .iter()
                .map(|(folder, slot)| (folder.clone(), Arc::clone(slot)))
                .collect()
        };
        let mut moved = Vec::new();
        for (folder, slot) in slots {
            // Whoever holds it looks after it.
            let Ok(mut running) = slot.running.try_lock() else {
                continue;
            };
            if used.contains(&folder) {
                running.wanted = Instant::now();
            }
            if running.wanted.elapsed() > IDLE {
                slot.port.store(0, Ordering::SeqCst);
                if let Some(exports) = running.exports.take()
                    && let Err(error) = exports.end()
                {
                    tracing::warn!(%error, "an export that nobody uses does not end");
                }
                continue;
            }
            let before = slot.port.load(Ordering::SeqCst);
            match self.start(&folder, &slot, &mut running) {
                Ok(port) if before != port => moved.push((folder, port)),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a share is not served"),
            }
        }
        moved
    }

    fn start(&self, folder: &Folder, slot: &Slot, running: &mut Running) -> Result<u16, Error> {
        let port = match &mut running.exports {
            Some(exports) => {
                exports.tend()?;
                exports.port(0)
            }
            None => {
                let one = std::slice::from_ref(folder);
                let exports = Exports::start(one, self.bind, &self.program, &self.state_dir)?;
                running.exports.insert(exports).port(0)
            }
        };
        slot.port.store(port, Ordering::SeqCst);
        Ok(port)
    }

    fn slot(&self, folder: &Folder) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(folder.clone()).or_insert_with(|| {
            Arc::new(Slot {
                port: AtomicU16::new(0),
                running: Mutex::new(Running {
                    exports: None,
                    wanted: Instant::now(),
                }),
            })
        });
        Arc::clone(slot)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
