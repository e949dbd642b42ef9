//! Reads `squeue`'s listing of jobs.
//!
//! A job's name is whatever its user typed, newlines included (measured on 22.05.8: `sbatch -J $'a\nb'`
//! puts a second line into the listing). Every line therefore begins with a mark that nobody can guess,
//! and the name comes last: no user can forge a line.

use crate::error::SlurmError;
use std::collections::BTreeMap;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, Time};
use thiao_core::view::{JobState, SlurmJob};

const WHAT: &str = "squeue's list of jobs";
const FIELDS: usize = 11;

/// The value of `squeue -o` whose output [`parse`] reads. `mark` begins every line.
#[must_use]
pub fn format(mark: &str) -> String {
    format!("{mark}|%A|%U|%u|%P|%T|%D|%V|%S|%N|%r|%j")
}

/// Reads the whole listing; an error if a line is not as expected.
pub fn parse(text: &str, mark: &str) -> Result<BTreeMap<JobId, SlurmJob>, SlurmError> {
    let mut jobs = BTreeMap::new();
    let start = format!("{mark}|");
    let Some(mut rest) = text.strip_prefix(start.as_str()) else {
        let text = text.trim();
        return if text.is_empty() {
            Ok(jobs)
        } else {
            Err(SlurmError::unparsable(WHAT, text, "the mark is missing"))
        };
    };
    let next = format!("\n{start}");
    loop {
        let (record, after) = match rest.split_once(next.as_str()) {
            Some((record, after)) => (record, Some(after)),
            None => (rest.strip_suffix('\n').unwrap_or(rest), None),
        };
        let job = parse_job(record)?;
        jobs.insert(job.id, job);
        match after {
            Some(after) => rest = after,
            None => return Ok(jobs),
        }
    }
}

fn parse_job(record: &str) -> Result<SlurmJob, SlurmError> {
    let bad = |why: &str| SlurmError::unparsable(WHAT, record, why);
    let mut fields = record.splitn(FIELDS, '|');
    let mut field = || fields.next().ok_or_else(|| bad("eleven fields are expected"));
    let id = field()?
        .trim()
        .parse()
        .map_err(|_| bad("the job id is no number"))?;
    let uid = field()?.trim().parse().map_err(|_| bad("the uid is no number"))?;
    let user = field()?.to_owned();
    let partition = field()?.to_owned();
    let state = parse_state(field()?.trim());
    let node_count = parse_count(field()?).ok_or_else(|| bad("the node count is no number"))?;
    let submit = parse_time(field()?);
    let start = parse_time(field()?);
    let list = field()?.trim();
    let nodes = if list.is_empty() || list == "(null)" {
        Vec::new()
    } else {
        hostlist::expand(list).map_err(|e| bad(&e.to_string()))?
    };
    let reason = field()?.to_owned();
    let name = field()?.to_owned();
    Ok(SlurmJob {
        id: JobId(id),
        name,
        uid,
        user,
        partition,
        state,
        reason,
        nodes,
        node_count,
        submit,
        start,
        ..SlurmJob::new(JobId(id))
    })
}

/// Slurm's word for a job's state, long (`CONFIGURING`).
#[must_use]
pub fn parse_state(word: &str) -> JobState {
    match word {
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
            JobState::Pending
        }
        "CONFIGURING" | "POWER_UP_NODE" => JobState::Configuring,
        "RUNNING" | "RESIZING" | "SIGNALING" => JobState::Running,
        "SUSPENDED" | "STOPPED" => JobState::Suspended,
        "COMPLETING" | "STAGE_OUT" => JobState::Completing,
        "COMPLETED" | "CANCELLED" | "FAILED" | "TIMEOUT" | "NODE_FAIL" | "PREEMPTED" | "BOOT_FAIL"
        | "DEADLINE" | "OUT_OF_MEMORY" | "REVOKED" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => {
            JobState::Over(word.to_owned())
        }
        _ => JobState::Unknown(word.to_owned()),
    }
}

/// A count as squeue prints it: a number, with `K` or `M` for exact multiples of 1024, or the least of a range.
fn parse_count(text: &str) -> Option<u32> {
    let text = text.trim();
    let least = text.split_once('-').map_or(text, |(least, _)| least);
    let (digits, unit) = match least.as_bytes().last()? {
        b'K' => (&least[..least.len() - 1], 1024),
        b'M' => (&least[..least.len() - 1], 1024 * 1024),
        _ => (least, 1),
    };
    digits.parse::<u32>().ok()?.checked_mul(unit)
}

/// Seconds since the epoch (`SLURM_TIME_FORMAT=%s`); anything else, such as `N/A`, is no time.
fn parse_time(text: &str) -> Option<Time> {
    let secs: u64 = text.trim().parse().ok()?;
    (secs > 0).then(|| Time(secs.saturating_mul(1000)))
}
