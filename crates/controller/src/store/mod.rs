//! The controller's memory: SQLite in WAL mode, one writer, every round of
//! decisions one transaction that is on disk before anything is done about it.
//!
//! Tables: `intents` (orders already taken, so that none is taken twice),
//! `nodes` and `vms` (the records), `actions` (what was decided and how it
//! ended), `events` (what happened, for people), `job_vms` (the VMs that jobs had),
//! `job_stays` (those that jobs were on), `job_tasks` (which tasks of arrays they were), `last_words` (of VMs'
//! consoles), `meta` (whose VMs these are, and the clock).

mod job_stays;
mod job_tasks;
mod job_vms;
mod last_words;
mod past;
mod row;

pub use job_vms::Which;
pub use last_words::Kept;
pub use past::Past;

use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_api::state_dir;
use thiao_core::ids::{NodeName, Time};
use thiao_core::journal::{Entry, Journal};
use thiao_core::table::Table;
use thiao_core::world::NodeRecord;

/// What the database cannot do, and what that means.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {path} cannot be used: {source}. {}", advice(source))]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// It is not a file of ours.
    #[error("the database {path} cannot be opened: {source}")]
    Unsafe { path: PathBuf, source: std::io::Error },
    /// The file is of a version that we do not know.
    #[error(
        "the database {path} has layout {found}, this program knows up to {known}: start the newer thiao that wrote it"
    )]
    Newer {
        path: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The newest we know.
        known: i64,
    },
    /// A stored record makes no sense.
    #[error(
        "the database {path} holds a broken record of node {node}: {what}. Another thiao wrote it, or it is damaged, and it \
         was left as it is: start that one, or put a copy in its place"
    )]
    Broken {
        path: PathBuf,
        node: String,
        what: String,
    },
}

/// What helps against this error.
fn advice(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "Free space on its file system",
        Some(ErrorCode::ReadOnly) => {
            "Make its file system writable (dmesg says why it is not), and the file and its folder the controller's own"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "It is damaged, and was left as it is. Put a copy in its place, or stop thiaod, move it away together with \
             the files that end in -wal and -shm, and start thiaod: it finds its VMs by their tags and keeps them. What \
             is lost then is past events and which VMs past jobs had"
        }
        _ => "Check free space and permissions of its folder",
    }
}

/// Layout changes in order; `PRAGMA user_version` counts those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("schema1.sql"),
    include_str!("schema2.sql"),
    include_str!("schema3.sql"),
    include_str!("schema4.sql"),
    include_str!("schema5.sql"),
    include_str!("schema6.sql"),
    include_str!("schema7.sql"),
    include_str!("schema8.sql"),
];

/// The open database, for the one who writes it.
pub struct Store {
    past: Past,
    /// What the database holds, to write only what changed.
    saved: Table<NodeName, NodeRecord>,
    /// The same of tasks of arrays, as far as they are still told of.
    saved_tasks: job_tasks::Tasks,
}

impl Store {
    /// Opens or makes the database, readable by its owner alone.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let wrap = |source| StoreError::Sqlite {
            path: path.to_owned(),
            source,
        };
        // Before SQLite would make it readable; and it would follow a link, or wait at a pipe.
        state_dir::own_file(path).map_err(|source| StoreError::Unsafe {
            path: path.to_owned(),
            source,
        })?;
        let mut db = Connection::open(path).map_err(wrap)?;
        db.busy_timeout(Duration::from_secs(5)).map_err(wrap)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(wrap)?;
        // FULL: a round that returned is on disk, also after a power cut.
        db.pragma_update(None, "synchronous", "FULL").map_err(wrap)?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(wrap)?;
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
                known,
            });
        }
        for (version, sql) in MIGRATIONS.iter().enumerate().skip(found as usize) {
            let tx = db.transaction().map_err(wrap)?;
            tx.execute_batch(sql).map_err(wrap)?;
            tx.pragma_update(None, "user_version", version as i64 + 1)
                .map_err(wrap)?;
            tx.commit().map_err(wrap)?;
        }
        Ok(Self {
            past: Past::within(db, path),
            saved: Table::new(),
            saved_tasks: BTreeMap::new(),
        })
    }

    fn wrap(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        self.past.wrap()
    }

    /// What happened, also of the rounds that this controller has stored.
    #[must_use]
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// The provider whose VMs the records are about; none before the first.
    pub fn provider(&self) -> Result<Option<String>, StoreError> {
        self.meta("provider")
    }

    /// Says whose VMs the records are about from now on.
    pub fn set_provider(&mut self, name: &str) -> Result<(), StoreError> {
        self.set_meta("provider", name)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.past
            .db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(self.wrap())
    }

    fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.past
            .db
            .execute(
                "INSERT INTO meta (key, value) VALUES (?1, ?2) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [key, value],
            )
            .map(drop)
            .map_err(self.wrap())
    }

    /// What the last controller left of its clock, if it did.
    pub fn clock(&self) -> Result<Option<String>, StoreError> {
        self.meta("clock")
    }

    /// Keeps it for the next controller.
    pub fn set_clock(&mut self, clock: &str) -> Result<(), StoreError> {
        self.set_meta("clock", clock)
    }

    /// Forgets events, ended actions, taken orders, jobs' VMs and last words older than `before`.
    pub fn prune(&mut self, before: Time) -> Result<(), StoreError> {
        let wrap = self.wrap();
        job_vms::prune(&self.past.db, before).map_err(&wrap)?;
        job_stays::prune(&self.past.db, before).map_err(&wrap)?;
        job_tasks::prune(&self.past.db, before).map_err(&wrap)?;
        last_words::prune(&self.past.db, before).map_err(&wrap)?;
        let before = before.0 as i64;
        self.past
            .db
            .execute("DELETE FROM events WHERE at < ?1", [before])
            .map_err(&wrap)?;
        self.past
            .db
            .execute("DELETE FROM actions WHERE ended < ?1", [before])
            .map_err(&wrap)?;
        self.past
            .db
            .execute("DELETE FROM intents WHERE taken < ?1", [before])
            .map_err(&wrap)?;
        Ok(())
    }
}

impl Journal for Store {
    type Error = StoreError;

    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, StoreError> {
        let records = row::load(&self.past.db).map_err(|error| match error {
            row::LoadError::Sqlite(source) => StoreError::Sqlite {
                path: self.past.path.clone(),
                source,
            },
            row::LoadError::Broken { node, what } => StoreError::Broken {
                path: self.past.path.clone(),
                node,
                what,
            },
        })?;
        self.saved.clone_from(&records);
        Ok(records)
    }

    fn save(
        &mut self,
        records: &Table<NodeName, NodeRecord>,
        entry: &Entry,
        now: Time,
    ) -> Result<(), StoreError> {
        let changed: Vec<_> = records
            .iter()
            .filter(|(node, record)| self.saved.get(*node) != Some(*record))
            .collect();
        let removed: Vec<_> = self
            .saved
            .keys()
            .filter(|node| !records.contains_key(*node))
            .cloned()
            .collect();
        if changed.is_empty() && removed.is_empty() && entry.is_empty() {
            return Ok(());
        }
        let wrap = self.wrap();
        let tx = self.past.db.transaction().map_err(&wrap)?;
        for (node, record) in &changed {
            row::write(&tx, node, record).map_err(&wrap)?;
            let before = self.saved.get(*node).and_then(|record| record.vm.as_ref());
            let after = record.vm.as_ref();
            job_vms::follow(&tx, node, before, after, &entry.owners, now).map_err(&wrap)?;
        }
        for node in &removed {
            row::remove(&tx, node).map_err(&wrap)?;
            let before = self.saved.get(node).and_then(|record| record.vm.as_ref());
            job_vms::follow(&tx, node, before, None, &entry.owners, now).map_err(&wrap)?;
        }
        write_entry(&tx, entry, now).map_err(&wrap)?;
        job_stays::write(&tx, &entry.moves, now).map_err(&wrap)?;
        last_words::write(&tx, &entry.last_words, now).map_err(&wrap)?;
        job_tasks::write(&tx, &entry.tasks, &self.saved_tasks, now).map_err(&wrap)?;
        tx.commit().map_err(&wrap)?;
        let changed: Vec<_> = changed
            .into_iter()
            .map(|(node, record)| (node.clone(), record.clone()))
            .collect();
        self.saved.extend(changed);
        for node in removed {
            self.saved.remove(&node);
        }
        // Without an observation of Slurm none is told of.
        if !entry.tasks.is_empty() {
            self.saved_tasks.clone_from(&entry.tasks);
        }
        Ok(())
    }

    fn is_taken(&self, name: &str) -> Result<bool, StoreError> {
        self.past
            .db
            .query_row("SELECT 1 FROM intents WHERE name = ?1", [name], |_| Ok(()))
            .optional()
            .map(|found| found.is_some())
            .map_err(self.wrap())
    }

    fn next_action(&self) -> Result<i64, StoreError> {
        self.past
            .db
            .query_row("SELECT coalesce(max(id), 0) + 1 FROM actions", [], |row| {
                row.get(0)
            })
            .map_err(self.wrap())
    }

    fn interrupted(&mut self, now: Time) -> Result<Vec<String>, StoreError> {
        let wrap = self.wrap();
        let tx = self.past.db.transaction().map_err(&wrap)?;
        let open = {
            let mut statement = tx
                .prepare("SELECT what FROM actions WHERE ended IS NULL ORDER BY id")
                .map_err(&wrap)?;
            let rows = statement.query_map([], |row| row.get(0)).map_err(&wrap)?;
            rows.collect::<Result<Vec<String>, _>>().map_err(&wrap)?
        };
        tx.execute(
            "UPDATE actions SET ended = ?1, outcome = 'interrupted' WHERE ended IS NULL",
            [now.0 as i64],
        )
        .map_err(&wrap)?;
        tx.commit().map_err(&wrap)?;
        Ok(open)
    }
}

fn write_entry(db: &Connection, entry: &Entry, now: Time) -> rusqlite::Result<()> {
    let now = now.0 as i64;
    for intent in &entry.intents {
        db.prepare_cached(
            "INSERT INTO intents (name, kind, nodes, at, uid, taken) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            intent.name,
            intent.kind,
            intent.nodes,
            intent.at.0 as i64,
            intent.uid,
            now
        ])?;
    }
    for (event, uid) in &entry.events {
        db.prepare_cached(
            "INSERT INTO events (at, subject, kind, message, uid) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            now,
            event.subject.to_string(),
            event.kind.word(),
            event.text,
            uid
        ])?;
    }
    for action in &entry.begun {
        db.prepare_cached("INSERT INTO actions (id, begun, subject, what, why) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![action.id, now, action.subject, action.what, action.why])?;
    }
    for (id, outcome) in &entry.ended {
        db.prepare_cached("UPDATE actions SET ended = ?2, outcome = ?3 WHERE id = ?1")?
            .execute(params![id, now, outcome])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
