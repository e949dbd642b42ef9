//! What the store tells of what happened. It is read beside the store's one writer: whoever
//! only reads has a connection of his own, and sees all rounds that were stored before he asks.

use super::{Kept, StoreError, Which, job_stays, job_tasks, job_vms, last_words};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_api::types::{Event, JobStay, JobVm};
use thiao_core::ids::{Generation, JobId, NodeName, Time};

/// A connection that tells of the past.
pub struct Past {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
}

impl Past {
    /// One that cannot write, to a database that the [`super::Store`] has open: in its WAL
    /// mode neither waits for the other.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags)
            .and_then(|db| db.busy_timeout(Duration::from_secs(5)).map(|()| db));
        match opened {
            Ok(db) => Ok(Self::within(db, path)),
            Err(source) => Err(StoreError::Sqlite {
                path: path.to_owned(),
                source,
            }),
        }
    }

    pub(super) fn within(db: Connection, path: &Path) -> Self {
        Self {
            db,
            path: path.to_owned(),
        }
    }

    pub(super) fn wrap(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Sqlite {
            path: path.clone(),
            source,
        }
    }

    /// The newest `limit` events above `after` about `subjects` (all if empty), oldest
    /// first; the oldest ones of them if `after` is given, so that a follower misses none.
    /// A subject may end in `*`.
    pub fn events(
        &self,
        limit: usize,
        after: Option<i64>,
        subjects: &[String],
    ) -> Result<Vec<Event>, StoreError> {
        self.events_between(limit, after, Time(i64::MAX as u64), subjects)
    }

    /// The newest `limit` events until then about `subjects`, oldest first.
    pub fn events_until(
        &self,
        limit: usize,
        until: Time,
        subjects: &[String],
    ) -> Result<Vec<Event>, StoreError> {
        self.events_between(limit, None, until, subjects)
    }

    fn events_between(
        &self,
        limit: usize,
        after: Option<i64>,
        until: Time,
        subjects: &[String],
    ) -> Result<Vec<Event>, StoreError> {
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let mut filters = String::new();
        for i in 0..subjects.len() {
            filters.push_str(if i == 0 { " AND (" } else { " OR " });
            filters.push_str(&format!("subject GLOB ?{}", i + 4));
        }
        if !subjects.is_empty() {
            filters.push(')');
        }
        let sql = format!(
            "SELECT id, at, subject, kind, message, uid FROM events WHERE id > ?1 AND at <= ?3{filters} \
             ORDER BY id {order} LIMIT ?2"
        );
        let wrap = self.wrap();
        let mut statement = self.db.prepare_cached(&sql).map_err(&wrap)?;
        let mut values: Vec<rusqlite::types::Value> = vec![
            after.unwrap_or(0).into(),
            (limit as i64).into(),
            (until.0 as i64).into(),
        ];
        values.extend(
            subjects
                .iter()
                .map(|subject| rusqlite::types::Value::from(subject.clone())),
        );
        let rows = statement
            .query_map(rusqlite::params_from_iter(values), |row| {
                Ok(Event {
                    id: row.get(0)?,
                    at: row.get::<_, i64>(1)? as u64,
                    subject: row.get(2)?,
                    kind: row.get(3)?,
                    message: row.get(4)?,
                    uid: row.get(5)?,
                })
            })
            .map_err(&wrap)?;
        let mut events = rows.collect::<Result<Vec<_>, _>>().map_err(&wrap)?;
        if after.is_none() {
            events.reverse();
        }
        Ok(events)
    }

    /// The VMs that a job had or has, as they cost until now.
    pub fn vms_of_job(&self, job: JobId, now: Time) -> Result<Vec<JobVm>, StoreError> {
        job_vms::of_job(&self.db, job, now).map_err(self.wrap())
    }

    /// The same, with those of all tasks if that job is an array.
    pub fn vms_of_array(&self, job: JobId, now: Time) -> Result<Vec<JobVm>, StoreError> {
        job_vms::of_array(&self.db, job, now).map_err(self.wrap())
    }

    /// The job that a task of an array was, if that was seen.
    pub fn job_of_task(&self, array: JobId, task: u32) -> Result<Option<JobId>, StoreError> {
        job_tasks::job_of(&self.db, array, task).map_err(self.wrap())
    }

    /// The array, and the task of it that a job was, if that was seen.
    pub fn task_of_job(&self, job: JobId) -> Result<Option<(JobId, u32)>, StoreError> {
        job_tasks::name_of(&self.db, job).map_err(self.wrap())
    }

    /// Which VMs a job was on or is on.
    pub fn stays_of_job(&self, job: JobId) -> Result<Vec<JobStay>, StoreError> {
        job_stays::of_job(&self.db, job).map_err(self.wrap())
    }

    /// The same of many jobs.
    pub fn stays_of_jobs(&self, which: Which) -> Result<Vec<JobStay>, StoreError> {
        job_stays::of_jobs(&self.db, which).map_err(self.wrap())
    }

    /// Whose jobs were on a VM.
    pub fn users_of_vm(&self, node: &NodeName, generation: Generation) -> Result<Vec<u32>, StoreError> {
        job_stays::users_of(&self.db, node, generation).map_err(self.wrap())
    }

    /// What a VM said last, if that is kept.
    pub fn last_words(&self, node: &NodeName, generation: Generation) -> Result<Option<Kept>, StoreError> {
        last_words::of_vm(&self.db, node, generation).map_err(self.wrap())
    }

    /// Which of a node's VMs that ended badly is the newest whose last words are kept.
    pub fn last_bad_vm(&self, node: &NodeName) -> Result<Option<Generation>, StoreError> {
        last_words::last_bad(&self.db, node).map_err(self.wrap())
    }

    /// The VMs that jobs had or have.
    pub fn vms_of_jobs(&self, which: Which, now: Time) -> Result<Vec<JobVm>, StoreError> {
        job_vms::of_jobs(&self.db, which, now).map_err(self.wrap())
    }
}
