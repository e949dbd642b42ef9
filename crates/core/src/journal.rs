//! What the controller keeps on disk, as a round says it, and what keeps it.
//!
//! A round's orders, records and actions are one entry: it is on disk whole before
//! anything of it is executed, or nothing of it is.

use crate::event::Event;
use crate::ids::{Generation, JobId, NodeName, Time};
use crate::stays::Moves;
use crate::table::Table;
use crate::world::NodeRecord;
use std::collections::BTreeMap;

/// What one round changed beside the records.
#[derive(Debug, Default)]
pub struct Entry {
    /// Names of the spool files that were taken.
    pub intents: Vec<TakenIntent>,
    /// What happened, and whose job it is about; none: everybody may know.
    pub events: Vec<(Event, Option<u32>)>,
    /// Actions about to be executed.
    pub begun: Vec<Begun>,
    /// Actions that ended: key and outcome.
    pub ended: Vec<(i64, String)>,
    /// Whose jobs those are that have VMs of their own, as far as Slurm shows them.
    pub owners: BTreeMap<JobId, u32>,
    /// Which tasks of which arrays those jobs are that have VMs of their own, that the events are about or that are
    /// new on VMs, as far as Slurm shows them.
    pub tasks: BTreeMap<JobId, (JobId, u32)>,
    /// Which VMs jobs are on, as far as it is new.
    pub moves: Moves,
    /// What VMs said last that are gone.
    pub last_words: Vec<LastWords>,
}

/// What a VM wrote on its console before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWords {
    pub node: NodeName,
    /// Which VM of the node.
    pub generation: Generation,
    /// Whether it ended otherwise than was meant for it.
    pub badly: bool,
    pub text: String,
}

/// An order taken from the spool.
#[derive(Debug, Clone)]
pub struct TakenIntent {
    /// Its file's name, unique for ever.
    pub name: String,
    /// `resume`, `suspend`, `resume-fail`, `job-end`.
    pub kind: String,
    /// The nodes that it is about, as a hostlist.
    pub nodes: String,
    /// When the hook wrote it.
    pub at: Time,
    /// The uid under which the hook ran.
    pub uid: u32,
}

/// An action about to be executed.
#[derive(Debug)]
pub struct Begun {
    /// Its key: above all earlier ones.
    pub id: i64,
    /// What it is about.
    pub subject: String,
    pub what: String,
    pub why: String,
}

impl Entry {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intents.is_empty()
            && self.events.is_empty()
            && self.begun.is_empty()
            && self.ended.is_empty()
            && self.moves.is_empty()
            && self.last_words.is_empty()
    }
}

/// What survives the controller. One writer.
pub trait Journal {
    /// Why it cannot be read or written.
    type Error;

    /// All records, as they were when the last round was kept.
    ///
    /// # Errors
    /// When they cannot be read whole.
    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, Self::Error>;

    /// Keeps a round. When it returns, all of it is on disk; on an error, nothing of it.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn save(
        &mut self,
        records: &Table<NodeName, NodeRecord>,
        entry: &Entry,
        now: Time,
    ) -> Result<(), Self::Error>;

    /// Whether the order in the spool file of this name was taken already.
    ///
    /// # Errors
    /// When that cannot be read.
    fn is_taken(&self, name: &str) -> Result<bool, Self::Error>;

    /// The key of the next action.
    ///
    /// # Errors
    /// When that cannot be read.
    fn next_action(&self) -> Result<i64, Self::Error>;

    /// Marks actions without an outcome as cut short by the end of the last controller;
    /// returns what they were.
    ///
    /// # Errors
    /// When that cannot be kept.
    fn interrupted(&mut self, now: Time) -> Result<Vec<String>, Self::Error>;
}
