//! Which VMs jobs were on, whatever these were made for: kept longer than Slurm shows it.

use super::Which;
use rusqlite::{Connection, Row, params};
use std::collections::BTreeSet;
use thiao_api::types::JobStay;
use thiao_core::ids::{Generation, HostName, JobId, NodeName, Time};
use thiao_core::stays::Moves;

/// Writes what changed since the last round.
pub fn write(db: &Connection, moves: &Moves, now: Time) -> rusqlite::Result<()> {
    let now = now.0 as i64;
    for job in &moves.left {
        end(db, job.0, now)?;
    }
    if moves.all {
        let there: BTreeSet<u32> = moves.begun.iter().map(|stay| stay.job.0).collect();
        let open: Vec<u32> = db
            .prepare_cached("SELECT DISTINCT job FROM job_stays WHERE ended IS NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for job in open.into_iter().filter(|job| !there.contains(job)) {
            end(db, job, now)?;
        }
    }
    for stay in &moves.begun {
        db.prepare_cached(
            "INSERT INTO job_stays (job, uid, node, generation, host, began, ended) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (job, node, generation) DO UPDATE SET
                 host = coalesce(excluded.host, host), uid = excluded.uid, ended = excluded.ended",
        )?
        .execute(params![
            stay.job.0,
            stay.uid,
            stay.node.as_str(),
            stay.generation.0 as i64,
            stay.host.as_ref().map(HostName::as_str),
            now,
            stay.over.then_some(now),
        ])?;
    }
    Ok(())
}

fn end(db: &Connection, job: u32, now: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE job_stays SET ended = ?2 WHERE job = ?1 AND ended IS NULL")?
        .execute(params![job, now])
        .map(drop)
}

const COLUMNS: &str = "SELECT id, job_stays.job, uid, node, generation, host, began, ended, array, task
                       FROM job_stays LEFT JOIN job_tasks ON job_tasks.job = job_stays.job";

/// Those of one job, in the order in which they began.
pub fn of_job(db: &Connection, job: JobId) -> rusqlite::Result<Vec<JobStay>> {
    db.prepare_cached(&format!("{COLUMNS} WHERE job_stays.job = ?1 ORDER BY id"))?
        .query_map([job.0], read)?
        .collect()
}

/// Those of all jobs, by their ids.
pub fn of_jobs(db: &Connection, which: Which) -> rusqlite::Result<Vec<JobStay>> {
    db.prepare_cached(&format!(
        "{COLUMNS} WHERE id > ?1 AND (ended IS NULL OR ended >= ?2) AND (?3 IS NULL OR uid = ?3)
         ORDER BY id LIMIT ?4"
    ))?
    .query_map(
        params![which.after, which.since.0 as i64, which.of, which.limit as i64],
        read,
    )?
    .collect()
}

/// Whose jobs were on this VM.
pub fn users_of(db: &Connection, node: &NodeName, generation: Generation) -> rusqlite::Result<Vec<u32>> {
    db.prepare_cached("SELECT DISTINCT uid FROM job_stays WHERE node = ?1 AND generation = ?2")?
        .query_map(params![node.as_str(), generation.0 as i64], |row| row.get(0))?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<JobStay> {
    let time = |at: i64| at.max(0) as u64;
    let node: String = row.get(3)?;
    let generation: i64 = row.get(4)?;
    let (array, task): (Option<u32>, Option<u32>) = (row.get(8)?, row.get(9)?);
    Ok(JobStay {
        id: row.get(0)?,
        job: row.get(1)?,
        task: array.zip(task).map(|(array, task)| format!("{array}_{task}")),
        uid: row.get(2)?,
        vm: format!("{node}.{generation}"),
        node,
        host: row.get(5)?,
        began: time(row.get(6)?),
        ended: row.get::<_, Option<i64>>(7)?.map(time),
    })
}

/// Forgets those that ended before.
pub fn prune(db: &Connection, before: Time) -> rusqlite::Result<()> {
    db.execute("DELETE FROM job_stays WHERE ended < ?1", [before.0 as i64])
        .map(drop)
}

#[cfg(test)]
mod tests;
