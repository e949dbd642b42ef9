//! Records as rows and back.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiao_core::ids::{Generation, HostName, JobId, NodeName, Time, VmId};
use thiao_core::options::VmOptions;
use thiao_core::table::Table;
use thiao_core::view::{JobOwner, Shape, VmSpec};
use thiao_core::vm::{Cause, Life, Registration, Starts, VmRecord};
use thiao_core::world::{Desired, NodeRecord, Trouble};

/// Why the records could not be read.
pub enum LoadError {
    Sqlite(rusqlite::Error),
    /// A row makes no sense.
    Broken {
        node: String,
        what: String,
    },
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What belongs to a VM's life beside its word.
#[derive(Default, Serialize, Deserialize)]
struct Detail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

/// Writes all that is known of a node, and of its VM if it has one.
pub fn write(db: &Connection, node: &NodeName, record: &NodeRecord) -> rusqlite::Result<()> {
    let (desired, desired_since) = match record.desired {
        Desired::Unasked => ("unasked", None),
        Desired::Early { since } => ("early", Some(since)),
        Desired::Up { since } => ("up", Some(since)),
        Desired::Down { since } => ("down", Some(since)),
    };
    let avoid: Vec<&str> = record.trouble.avoid.iter().map(HostName::as_str).collect();
    let jobs: Vec<u32> = record.jobs.iter().map(|job| job.0).collect();
    db.prepare_cached(
        "INSERT INTO nodes (name, desired, desired_since, generation, failures, retry_at, avoid, last, told, down, jobs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (name) DO UPDATE SET desired = ?2, desired_since = ?3, generation = ?4, failures = ?5,
         retry_at = ?6, avoid = ?7, last = ?8, told = ?9, down = ?10, jobs = ?11",
    )?
    .execute(params![
        node.as_str(),
        desired,
        desired_since.map(millis),
        record.generation.0 as i64,
        record.trouble.failures,
        record.trouble.retry_at.map(millis),
        json(&avoid),
        record.trouble.last,
        record.trouble.told,
        record.down,
        json(&jobs),
    ])?;
    match &record.vm {
        Some(vm) => write_vm(db, node, vm),
        None => db
            .prepare_cached("DELETE FROM vms WHERE node = ?1")?
            .execute([node.as_str()])
            .map(drop),
    }
}

fn write_vm(db: &Connection, node: &NodeName, vm: &VmRecord) -> rusqlite::Result<()> {
    let detail = match &vm.life {
        Life::Asked
        | Life::Held
        | Life::Pending
        | Life::Booting
        | Life::Running
        | Life::Paused
        | Life::Saving
        | Life::Saved
        | Life::Restoring => Detail::default(),
        Life::Moving { from } => Detail {
            from: from.as_ref().map(HostName::to_string),
            ..Detail::default()
        },
        Life::Dead { why } => Detail {
            why: Some(why.clone()),
            ..Detail::default()
        },
        Life::Ending { cause } => ending(cause),
    };
    let spec = vm.spec.as_ref();
    db.prepare_cached(
        "INSERT INTO vms (node, generation, id, host, life, detail, asked, since, missing_since,
                          cpus, memory_mb, share_percent, gpus, job, options, kept, starts, last_start,
                          registration, uid, leader)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)
         ON CONFLICT (node) DO UPDATE SET generation = ?2, id = ?3, host = ?4, life = ?5, detail = ?6,
         asked = ?7, since = ?8, missing_since = ?9, cpus = ?10, memory_mb = ?11, share_percent = ?12,
         gpus = ?13, job = ?14, options = ?15, kept = ?16, starts = ?17, last_start = ?18, registration = ?19,
         uid = ?20, leader = ?21",
    )?
    .execute(params![
        node.as_str(),
        vm.generation.0 as i64,
        vm.id.as_ref().map(VmId::as_str),
        vm.host.as_ref().map(HostName::as_str),
        vm.life.word(),
        json(&detail),
        millis(vm.asked),
        millis(vm.since),
        vm.missing_since.map(millis),
        spec.map(|spec| spec.shape.cpus),
        spec.map(|spec| spec.shape.memory_mb as i64),
        spec.map(|spec| spec.shape.share_percent),
        spec.map(|spec| spec.gpus),
        spec.and_then(|spec| spec.job).map(|job| job.0),
        spec.map(|spec| spec.options.to_string()),
        vm.kept.map(millis),
        vm.starts.times,
        millis(vm.starts.last),
        vm.registration.word(),
        spec.and_then(|spec| spec.owner).map(|owner| owner.uid),
        spec.and_then(|spec| spec.owner).map(|owner| owner.leader.0),
    ])
    .map(drop)
}

fn ending(cause: &Cause) -> Detail {
    let (word, why) = match cause {
        Cause::Ordered => ("ordered", None),
        Cause::BootTimeout => ("boot-timeout", None),
        Cause::Orphan => ("orphan", None),
        Cause::Dead { why } => ("dead", Some(why.clone())),
    };
    Detail {
        cause: Some(word.into()),
        why,
        from: None,
    }
}

/// Forgets a node and its VM.
pub fn remove(db: &Connection, node: &NodeName) -> rusqlite::Result<()> {
    db.execute("DELETE FROM vms WHERE node = ?1", [node.as_str()])?;
    db.execute("DELETE FROM nodes WHERE name = ?1", [node.as_str()])
        .map(drop)
}

/// Every record that the database has, by node.
pub fn load(db: &Connection) -> Result<Table<NodeName, NodeRecord>, LoadError> {
    let mut records = Vec::new();
    let mut statement = db.prepare(
        "SELECT name, desired, desired_since, generation, failures, retry_at, avoid, last, told, down, jobs FROM nodes",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let broken = |what: String| LoadError::Broken {
            node: name.clone(),
            what,
        };
        let node = NodeName::new(&name).map_err(|error| broken(error.to_string()))?;
        let desired: String = row.get(1)?;
        let since = row.get::<_, Option<i64>>(2)?.map_or(Time(0), time);
        let avoid: Vec<String> = parse(&row.get::<_, String>(6)?).map_err(broken)?;
        let jobs: Vec<u32> = parse(&row.get::<_, String>(10)?).map_err(broken)?;
        let record = NodeRecord {
            desired: match desired.as_str() {
                "early" => Desired::Early { since },
                "up" => Desired::Up { since },
                "down" => Desired::Down { since },
                "unasked" => Desired::Unasked,
                other => return Err(broken(format!("desired {other:?}"))),
            },
            generation: Generation(row.get::<_, i64>(3)? as u64),
            vm: None,
            trouble: Trouble {
                failures: row.get(4)?,
                retry_at: row.get::<_, Option<i64>>(5)?.map(time),
                avoid: avoid
                    .iter()
                    .filter_map(|host| HostName::new(host).ok())
                    .collect::<BTreeSet<_>>(),
                last: row.get(7)?,
                told: row.get(8)?,
            },
            down: row.get(9)?,
            jobs: jobs.into_iter().map(JobId).collect(),
            acted: Time(0),
        };
        records.push((node, record));
    }
    drop(rows);
    let mut records = records.into_iter().collect();
    load_vms(db, &mut records)?;
    Ok(records)
}

fn load_vms(db: &Connection, records: &mut Table<NodeName, NodeRecord>) -> Result<(), LoadError> {
    let mut statement = db.prepare(
        "SELECT node, generation, id, host, life, detail, asked, since, missing_since,
                cpus, memory_mb, share_percent, gpus, job, options, kept, starts, last_start,
                registration, uid, leader FROM vms",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let broken = |what: String| LoadError::Broken {
            node: name.clone(),
            what,
        };
        let detail: Detail = parse(&row.get::<_, String>(5)?).map_err(broken)?;
        let (word, heard): (String, String) = (row.get("life")?, row.get("registration")?);
        let vm = VmRecord {
            generation: Generation(row.get::<_, i64>(1)? as u64),
            id: row
                .get::<_, Option<String>>(2)?
                .and_then(|id| VmId::new(&id).ok()),
            host: row
                .get::<_, Option<String>>(3)?
                .and_then(|host| HostName::new(&host).ok()),
            spec: spec(row, broken)?,
            life: life(&word, detail).ok_or_else(|| broken(format!("life {word:?}")))?,
            registration: registration(&heard).ok_or_else(|| broken(format!("registration {heard:?}")))?,
            asked: time(row.get(6)?),
            since: time(row.get(7)?),
            aside: Default::default(),
            missing_since: row.get::<_, Option<i64>>(8)?.map(time),
            kept: row.get::<_, Option<i64>>("kept")?.map(time),
            starts: Starts {
                times: row.get("starts")?,
                last: time(row.get("last_start")?),
            },
        };
        match records.get_mut(name.as_str()) {
            Some(record) => record.vm = Some(vm),
            None => return Err(broken("a VM without its node".into())),
        }
    }
    Ok(())
}

/// What the VM is, if that is known.
fn spec(row: &Row<'_>, broken: impl Fn(String) -> LoadError) -> Result<Option<VmSpec>, LoadError> {
    let Some(cpus) = row.get("cpus")? else {
        return Ok(None);
    };
    let options: String = row.get("options")?;
    Ok(Some(VmSpec {
        shape: Shape {
            cpus,
            memory_mb: row.get::<_, i64>("memory_mb")?.max(0) as u64,
            share_percent: row.get("share_percent")?,
        },
        gpus: row.get("gpus")?,
        job: row.get::<_, Option<u32>>("job")?.map(JobId),
        owner: owner(row)?,
        options: VmOptions::parse(&options).map_err(broken)?,
    }))
}

/// Whose job it is for, if that is known.
fn owner(row: &Row<'_>) -> rusqlite::Result<Option<JobOwner>> {
    let uid: Option<u32> = row.get("uid")?;
    let leader: Option<u32> = row.get("leader")?;
    Ok(uid.zip(leader).map(|(uid, leader)| JobOwner {
        uid,
        leader: JobId(leader),
    }))
}

fn life(word: &str, detail: Detail) -> Option<Life> {
    let why = detail.why.unwrap_or_default();
    Some(match word {
        "asked" => Life::Asked,
        "held" => Life::Held,
        "pending" => Life::Pending,
        "booting" => Life::Booting,
        "running" => Life::Running,
        "paused" => Life::Paused,
        "saving" => Life::Saving,
        "saved" => Life::Saved,
        "restoring" => Life::Restoring,
        "moving" => Life::Moving {
            from: detail.from.and_then(|host| HostName::new(&host).ok()),
        },
        "dead" => Life::Dead { why },
        "ending" => Life::Ending {
            cause: match detail.cause?.as_str() {
                "ordered" => Cause::Ordered,
                "boot-timeout" => Cause::BootTimeout,
                "orphan" => Cause::Orphan,
                "dead" => Cause::Dead { why },
                _ => return None,
            },
        },
        _ => return None,
    })
}

fn registration(word: &str) -> Option<Registration> {
    let all = [
        Registration::NotYet,
        Registration::GuestReady,
        Registration::Registered,
    ];
    all.into_iter().find(|one| one.word() == word)
}

fn millis(time: Time) -> i64 {
    time.0 as i64
}

fn time(millis: i64) -> Time {
    Time(millis.max(0) as u64)
}

fn json<T: Serialize>(value: &T) -> String {
    // Strings, numbers and booleans in plain structs: this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{text:?}: {error}"))
}
