//! The VMs that jobs had: kept from the records as they change, in the same
//! transaction, and longer than these.

use rusqlite::{Connection, Row, named_params, params};
use std::collections::BTreeMap;
use thiao_api::types::{JobVm, core_hours};
use thiao_core::ids::{HostName, JobId, NodeName, Time};
use thiao_core::view::VmSpec;
use thiao_core::vm::{Registration, VmRecord};

/// Which of the VMs that jobs had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// Those that were there at that time or later.
    pub since: Time,
    /// Only those of this user's jobs.
    pub of: Option<u32>,
    /// Only those with a higher id.
    pub after: i64,
    /// How many at most.
    pub limit: usize,
}

/// A VM that is for one job.
#[derive(Clone, Copy)]
struct Dedicated<'a> {
    vm: &'a VmRecord,
    spec: &'a VmSpec,
    job: JobId,
}

fn dedicated(vm: Option<&VmRecord>) -> Option<Dedicated<'_>> {
    let vm = vm?;
    let spec = vm.spec.as_ref()?;
    let job = spec.job?;
    Some(Dedicated { vm, spec, job })
}

/// Writes what became of the VM of `node` since the last round.
pub fn follow(
    db: &Connection,
    node: &NodeName,
    before: Option<&VmRecord>,
    after: Option<&VmRecord>,
    owners: &BTreeMap<JobId, u32>,
    now: Time,
) -> rusqlite::Result<()> {
    let (before, after) = (dedicated(before), dedicated(after));
    if let Some(Dedicated { vm, job, .. }) = before
        && !after.is_some_and(|dedicated| dedicated.job == job && dedicated.vm.generation == vm.generation)
    {
        db.prepare_cached(
            "UPDATE job_vms SET ended = ?4 WHERE job = ?1 AND node = ?2 AND generation = ?3 AND ended IS NULL",
        )?
        .execute(params![
            job.0,
            node.as_str(),
            vm.generation.0 as i64,
            now.0 as i64
        ])?;
    }
    match after {
        Some(dedicated) => write(db, node, dedicated, owners.get(&dedicated.job).copied()),
        None => Ok(()),
    }
}

/// The first word on each step holds.
fn write(
    db: &Connection,
    node: &NodeName,
    dedicated: Dedicated<'_>,
    uid: Option<u32>,
) -> rusqlite::Result<()> {
    let Dedicated { vm, spec, job } = dedicated;
    let since = Some(vm.since.0 as i64);
    let (started, ready, up) = match (vm.life.is_there(), vm.registration) {
        (false, _) => (None, None, None),
        (true, Registration::NotYet) => (since, None, None),
        (true, Registration::GuestReady) => (since, since, None),
        (true, Registration::Registered) => (since, None, since),
    };
    db.prepare_cached(
        "INSERT INTO job_vms (job, uid, node, generation, host, cpus, memory_mb, share_percent, gpus,
                              asked, started, ready, up)
         VALUES (:job, :uid, :node, :generation, :host, :cpus, :memory_mb, :share_percent, :gpus,
                 :asked, :started, :ready, :up)
         ON CONFLICT (job, node, generation) DO UPDATE SET
             uid = coalesce(uid, excluded.uid), host = coalesce(excluded.host, host),
             started = coalesce(started, excluded.started), ready = coalesce(ready, excluded.ready),
             up = coalesce(up, excluded.up)",
    )?
    .execute(named_params! {
        ":job": job.0,
        ":uid": uid,
        ":node": node.as_str(),
        ":generation": vm.generation.0 as i64,
        ":host": vm.host.as_ref().map(HostName::as_str),
        ":cpus": spec.shape.cpus,
        ":memory_mb": spec.shape.memory_mb as i64,
        ":share_percent": spec.shape.share_percent,
        ":gpus": spec.gpus,
        ":asked": vm.asked.0 as i64,
        ":started": started,
        ":ready": ready,
        ":up": up,
    })
    .map(drop)
}

const COLUMNS: &str =
    "SELECT id, job_vms.job, uid, node, generation, host, cpus, memory_mb, share_percent, gpus,
                              asked, started, ready, up, ended, array, task
                       FROM job_vms LEFT JOIN job_tasks ON job_tasks.job = job_vms.job";

/// Those of one job, in the order in which they were asked for.
pub fn of_job(db: &Connection, job: JobId, now: Time) -> rusqlite::Result<Vec<JobVm>> {
    db.prepare_cached(&format!("{COLUMNS} WHERE job_vms.job = ?1 ORDER BY asked, id"))?
        .query_map([job.0], |row| read(row, now))?
        .collect()
}

/// Those of a job and, if that is an array, of all its tasks, in the same order.
pub fn of_array(db: &Connection, job: JobId, now: Time) -> rusqlite::Result<Vec<JobVm>> {
    db.prepare_cached(&format!(
        "{COLUMNS} WHERE job_vms.job = ?1 OR job_vms.job IN (SELECT job FROM job_tasks WHERE array = ?1) ORDER BY asked, id"
    ))?
    .query_map([job.0], |row| read(row, now))?
    .collect()
}

/// Those of all jobs, by their ids.
pub fn of_jobs(db: &Connection, which: Which, now: Time) -> rusqlite::Result<Vec<JobVm>> {
    db.prepare_cached(&format!(
        "{COLUMNS} WHERE id > ?1 AND (ended IS NULL OR ended >= ?2) AND (?3 IS NULL OR uid = ?3)
         ORDER BY id LIMIT ?4"
    ))?
    .query_map(
        params![which.after, which.since.0 as i64, which.of, which.limit as i64],
        |row| read(row, now),
    )?
    .collect()
}

fn read(row: &Row<'_>, now: Time) -> rusqlite::Result<JobVm> {
    let time = |index: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|at| at.max(0) as u64))
    };
    let node: String = row.get(3)?;
    let generation: i64 = row.get(4)?;
    let (cpus, share_percent) = (row.get(6)?, row.get(8)?);
    let (started, ended) = (time(11)?, time(14)?);
    let (array, task): (Option<u32>, Option<u32>) = (row.get(15)?, row.get(16)?);
    Ok(JobVm {
        id: row.get(0)?,
        job: row.get(1)?,
        task: array.zip(task).map(|(array, task)| format!("{array}_{task}")),
        uid: row.get(2)?,
        vm: format!("{node}.{generation}"),
        node,
        host: row.get(5)?,
        cpus,
        memory_mb: row.get::<_, i64>(7)?.max(0) as u64,
        share_percent,
        gpus: row.get(9)?,
        asked: time(10)?.unwrap_or_default(),
        started,
        ready: time(12)?,
        up: time(13)?,
        ended,
        core_hours: core_hours(cpus, share_percent, started, ended.unwrap_or(now.0)),
    })
}

/// Forgets those that ended before.
pub fn prune(db: &Connection, before: Time) -> rusqlite::Result<()> {
    db.execute("DELETE FROM job_vms WHERE ended < ?1", [before.0 as i64])
        .map(drop)
}

#[cfg(test)]
mod tests;
