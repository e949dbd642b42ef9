//! The simulated world on the real journal: SQLite in a folder, opened anew after every
//! kill, and now and then replaced by an older copy. What it keeps must be what it gives back,
//! and no order may be taken twice.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use std::fmt;
use std::path::{Path, PathBuf};
use thiao_controller::store::Store;
use thiao_core::ids::{Millis, NodeName, Time};
use thiao_core::journal::{Entry, Journal};
use thiao_core::table::Table;
use thiao_core::world::NodeRecord;
use thiao_sim::disk::{Disk, FULL};
use thiao_sim::faults::Rates;
use thiao_sim::sim::{JobModePlan, JobPlan, Setup, Sim};

struct Sqlite {
    path: PathBuf,
    store: Store,
    full: bool,
}

impl Sqlite {
    fn new(dir: &Path) -> Self {
        let path = dir.join("thiao.db");
        Self {
            store: Store::open(&path).unwrap(),
            path,
            full: false,
        }
    }

    fn copy(&self) -> PathBuf {
        self.path.with_extension("copy")
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({})", self.path.display())
    }
}

impl Journal for Sqlite {
    type Error = String;

    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, String> {
        self.store.load().map_err(|error| error.to_string())
    }

    fn save(
        &mut self,
        records: &Table<NodeName, NodeRecord>,
        entry: &Entry,
        now: Time,
    ) -> Result<(), String> {
        if self.full {
            return Err(FULL.into());
        }
        self.store
            .save(records, entry, now)
            .map_err(|error| error.to_string())
    }

    fn is_taken(&self, name: &str) -> Result<bool, String> {
        self.store.is_taken(name).map_err(|error| error.to_string())
    }

    fn next_action(&self) -> Result<i64, String> {
        self.store.next_action().map_err(|error| error.to_string())
    }

    fn interrupted(&mut self, now: Time) -> Result<Vec<String>, String> {
        self.store.interrupted(now).map_err(|error| error.to_string())
    }
}

impl Disk for Sqlite {
    fn reopen(&mut self) {
        self.store = Store::open(&self.path).unwrap();
    }

    fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    fn back_up(&mut self) {
        let _ = std::fs::remove_file(self.copy());
        let copy = self.copy();
        let db = rusqlite::Connection::open(&self.path).unwrap();
        db.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    }

    fn restore(&mut self) -> bool {
        if !self.copy().exists() {
            return false;
        }
        // What it wrote since lies beside it.
        for beside in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{beside}", self.path.display()));
        }
        std::fs::copy(self.copy(), &self.path).unwrap();
        self.reopen();
        true
    }
}

#[test]
fn bad_days_are_the_same_on_sqlite() {
    let job_mode = JobModePlan {
        cpus: 2,
        memory_mb: 60,
        most: 0,
        priority: 1,
        tasks: 3,
        requeue: true,
        cancel: None,
    };
    let job = |submit, size, job_mode| JobPlan {
        submit: Millis::secs(submit),
        size,
        length: Millis::secs(15),
        job_mode,
    };
    for seed in 0..4 {
        let setup = Setup {
            seed,
            job_mode_nodes: 3,
            host_capacity: 3,
            jobs: vec![job(1, 2, None), job(2, 1, Some(job_mode)), job(50, 4, None)],
            faults: Rates {
                killed: 60,
                disk_full: 50,
                journal_restored: 100,
                create_unanswered: 200,
                dies_booting: 100,
                hook_late: 200,
                hook_twice: 200,
                ..Rates::none()
            },
            calm: Millis::secs(200),
            ..Setup::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let disk = Box::new(Sqlite::new(dir.path()));
        let on_disk = Sim::with_disk(setup.clone(), disk).run().unwrap();
        assert!(on_disk.kills > 3, "{on_disk:?}");
        assert_eq!(on_disk, Sim::new(setup).run().unwrap(), "as in memory");
    }
}
