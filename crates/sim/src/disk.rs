//! What a `kill -9` leaves: the journal, and the spool with the hooks' orders.

use crate::slurm::{Call, Hook};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::journal::{Entry, Journal};
use thiao_core::spool::{IntentFile, IntentKind, file_name};
use thiao_core::table::Table;
use thiao_core::world::NodeRecord;

/// A journal that the simulated world can kill the writer of.
pub trait Disk: Journal<Error = String> + fmt::Debug {
    /// Its writer was killed, and another one begins.
    fn reopen(&mut self);

    /// From now on it is full, or not: then it keeps nothing and says so.
    fn set_full(&mut self, full: bool);

    /// Somebody makes a copy of it, as a backup.
    fn back_up(&mut self);

    /// Somebody puts the last copy in its place; whether there was one.
    fn restore(&mut self) -> bool;
}

/// A journal in memory. The real one is SQLite's; both are held to the same words.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    records: Table<NodeName, NodeRecord>,
    taken: BTreeSet<String>,
    /// Actions without an outcome.
    open: BTreeMap<i64, String>,
    last_action: i64,
    full: bool,
    copy: Option<Box<Memory>>,
}

impl Memory {
    /// Forgets which orders were taken.
    pub fn forget_orders(&mut self) {
        self.taken.clear();
    }
}

/// What a full disk says.
pub const FULL: &str = "database or disk is full";

impl Journal for Memory {
    type Error = String;

    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, String> {
        let mut records = self.records.clone();
        // Not kept: observations that began before a restart say nothing in any case.
        records.values_mut().for_each(|record| record.acted = Time(0));
        Ok(records)
    }

    fn save(
        &mut self,
        records: &Table<NodeName, NodeRecord>,
        entry: &Entry,
        _now: Time,
    ) -> Result<(), String> {
        if self.full {
            return Err(FULL.into());
        }
        if let Some(twice) = entry
            .intents
            .iter()
            .find(|intent| self.taken.contains(&intent.name))
        {
            return Err(format!("order {} is kept already", twice.name));
        }
        self.records.clone_from(records);
        self.taken
            .extend(entry.intents.iter().map(|intent| intent.name.clone()));
        for begun in &entry.begun {
            self.last_action = self.last_action.max(begun.id);
            self.open.insert(begun.id, begun.what.clone());
        }
        entry.ended.iter().for_each(|(id, _)| drop(self.open.remove(id)));
        Ok(())
    }

    fn is_taken(&self, name: &str) -> Result<bool, String> {
        Ok(self.taken.contains(name))
    }

    fn next_action(&self) -> Result<i64, String> {
        Ok(self.last_action + 1)
    }

    fn interrupted(&mut self, _now: Time) -> Result<Vec<String>, String> {
        Ok(std::mem::take(&mut self.open).into_values().collect())
    }
}

impl Disk for Memory {
    fn reopen(&mut self) {}

    fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    fn back_up(&mut self) {
        self.copy = None;
        self.copy = Some(Box::new(self.clone()));
    }

    fn restore(&mut self) -> bool {
        let Some(copy) = self.copy.take() else {
            return false;
        };
        *self = Self {
            copy: Some(copy.clone()),
            ..*copy
        };
        true
    }
}

/// A file in the spool.
#[derive(Debug, Clone)]
pub struct SpoolFile {
    /// From then on it is there.
    pub written: Time,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// The jobs of its resume file, which only Slurm's side can read.
    pub jobs: BTreeMap<NodeName, Vec<JobId>>,
}

/// The name and the bytes of the file that a hook makes of a call, as the `number`th process.
#[must_use]
pub fn intent(call: &Call, at: Time, number: u32) -> (String, Vec<u8>) {
    let kind = match call.hook {
        Hook::Resume => IntentKind::Resume { force: false },
        Hook::Suspend => IntentKind::Suspend,
        Hook::ResumeFail => IntentKind::ResumeFail,
        Hook::JobEnded { job, failed } => IntentKind::JobEnd {
            job,
            exit: Some(u32::from(failed) << 8),
        },
    };
    let file = IntentFile {
        kind,
        at,
        uid: 0,
        cluster: None,
        nodes: hostlist::fold(&call.nodes),
        resume_file: Vec::new(),
    };
    (
        file_name(u128::from(at.0) * 1_000_000, number, kind),
        file.encode(),
    )
}
