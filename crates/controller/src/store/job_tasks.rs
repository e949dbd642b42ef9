//! Which tasks of arrays jobs were that were told of or had VMs: kept longer than Slurm knows it.

use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use thiao_core::ids::{JobId, Time};

/// Jobs by their numbers: the array, and the task.
pub type Tasks = BTreeMap<JobId, (JobId, u32)>;

/// Writes those of `tasks` that `saved` lacks.
pub fn write(db: &Connection, tasks: &Tasks, saved: &Tasks, now: Time) -> rusqlite::Result<()> {
    for (job, name) in tasks {
        if saved.get(job) == Some(name) {
            continue;
        }
        db.prepare_cached(
            "INSERT OR REPLACE INTO job_tasks (job, array, task, seen) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![job.0, name.0.0, name.1, now.0 as i64])?;
    }
    Ok(())
}

/// The job that this task was, the newest if it was several.
pub fn job_of(db: &Connection, array: JobId, task: u32) -> rusqlite::Result<Option<JobId>> {
    db.prepare_cached("SELECT job FROM job_tasks WHERE array = ?1 AND task = ?2 ORDER BY seen DESC LIMIT 1")?
        .query_row([array.0, task], |row| row.get(0).map(JobId))
        .optional()
}

/// The array, and the task of it that this job was.
pub fn name_of(db: &Connection, job: JobId) -> rusqlite::Result<Option<(JobId, u32)>> {
    db.prepare_cached("SELECT array, task FROM job_tasks WHERE job = ?1")?
        .query_row([job.0], |row| Ok((JobId(row.get(0)?), row.get(1)?)))
        .optional()
}

/// Forgets those that were seen before and of which no VM is known.
pub fn prune(db: &Connection, before: Time) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM job_tasks WHERE seen < ?1 AND job NOT IN (SELECT job FROM job_vms)
             AND job NOT IN (SELECT job FROM job_stays)",
        [before.0 as i64],
    )
    .map(drop)
}

#[cfg(test)]
mod tests;
