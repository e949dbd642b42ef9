//! How jobs ended. slurmctld knows that for MinJobAge (300 s by default) after their end, and no listing of jobs
//! shows it that is asked for those that are not over.
//!
//! Read in the source of 22.05.8 and 26.05.3, and seen on the first: a job that is over its memory is `OUT_OF_MEMORY`;
//! `FAILED` with the reason `JobLaunchFailure` is one that its slurmd could not start (then its exit code is a bare 1),
//! and up to some release also one whose script a signal ended. squeue of 22.05 prints the exit code as `wait` tells
//! it, 26.05 as `7:0`.

use crate::control::{Slurm, mark};
use crate::error::SlurmError;
use thiao_core::ids::JobId;
use thiao_core::view::JobEnd;

const WHAT: &str = "squeue's list of jobs that are over";

/// Most jobs in one command: their ids are short.
const MOST_JOBS: usize = 1000;

/// A job that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub job: JobId,
    /// The user who had submitted it.
    pub uid: u32,
    pub end: JobEnd,
}

impl Slurm {
    /// How those of these jobs ended that are over, as far as slurmctld still knows them: one command for all.
    ///
    /// # Errors
    /// When slurmctld does not answer.
    pub fn ends(&self, jobs: &[JobId]) -> Result<Vec<Ended>, SlurmError> {
        let mut ends = Vec::new();
        for some in jobs.chunks(MOST_JOBS) {
            let mark = mark()?;
            let list: Vec<String> = some.iter().map(JobId::to_string).collect();
            let args = [
                "-h",
                "-a",
                "-r",
                "-t",
                "all",
                "-j",
                &list.join(","),
                "-O",
                &format(&mark),
            ];
            match self.runner.run("squeue", args) {
                Ok(text) => ends.extend(parse(&text, &mark)?),
                // It says so of a single one.
                Err(SlurmError::NoSuchJob { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        ends.retain(|ended| jobs.contains(&ended.job));
        Ok(ends)
    }
}

/// The value of `squeue -O` whose output [`parse`] reads.
#[must_use]
pub fn format(mark: &str) -> String {
    format!("JobID:|,UserID:|,State:|,exit_code:|,Reason:{mark}")
}

/// Reads the listing: of jobs that are not over nothing is said.
///
/// # Errors
/// When a line is cut off, or is none of ours.
pub fn parse(text: &str, mark: &str) -> Result<Vec<Ended>, SlurmError> {
    let mut ends = Vec::new();
    for line in text.split(mark).map(str::trim).filter(|line| !line.is_empty()) {
        let wrong = || SlurmError::unparsable(WHAT, line, "five fields are expected");
        let mut fields = line.splitn(5, '|').map(str::trim);
        let mut next = || fields.next().ok_or_else(wrong);
        let (job, uid, state, code, reason) = (next()?, next()?, next()?, next()?, next()?);
        let job = JobId(job.parse().map_err(|_| wrong())?);
        let uid = crate::jobs::uid(uid).ok_or_else(wrong)?;
        ends.extend(end(state, code, reason).map(|end| Ended { job, uid, end }));
    }
    Ok(ends)
}

/// What Slurm's words say of a job's end; none if it is not over.
fn end(state: &str, code: &str, reason: &str) -> Option<JobEnd> {
    let number = |text: &str| text.parse::<u32>().ok();
    // The exit code, and the signal that ended it.
    let numbers = match code.split_once(':') {
        Some((code, signal)) => number(code).zip(number(signal)),
        None => number(code).map(|status| (status >> 8 & 0xff, status & 0x7f)),
    };
    Some(match (state, reason) {
        ("COMPLETED", _) => JobEnd::Completed,
        ("CANCELLED" | "REVOKED", _) => JobEnd::Cancelled,
        ("OUT_OF_MEMORY", _) | (_, "OutOfMemory") => JobEnd::OutOfMemory,
        ("TIMEOUT" | "DEADLINE", _) => JobEnd::TimeLimit,
        ("NODE_FAIL" | "BOOT_FAIL", _) => JobEnd::NodeFailed,
        ("PREEMPTED", _) => JobEnd::Preempted,
        ("LAUNCH_FAILED", _) => JobEnd::NotLaunched,
        ("FAILED", reason) => match (reason, numbers) {
            ("JobLaunchFailure", Some((_, signal @ 2..))) => JobEnd::Killed(signal),
            ("JobLaunchFailure", _) => JobEnd::NotLaunched,
            (_, Some((code, 0))) => JobEnd::Failed(code),
            (_, Some((_, signal))) => JobEnd::Killed(signal),
            (_, None) => JobEnd::Unknown(state.to_owned()),
        },
        (
            "PENDING" | "RUNNING" | "SUSPENDED" | "COMPLETING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD"
            | "REQUEUE_FED" | "RESIZING" | "SIGNALING" | "SPECIAL_EXIT" | "STAGE_OUT" | "STOPPED",
            _,
        ) => return None,
        (other, _) => JobEnd::Unknown(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_are_understood() {
        for (state, code, reason, wanted) in [
            ("COMPLETED", "0:0", "None", Some(JobEnd::Completed)),
            ("OUT_OF_MEMORY", "0:125", "OutOfMemory", Some(JobEnd::OutOfMemory)),
            ("FAILED", "0:125", "OutOfMemory", Some(JobEnd::OutOfMemory)),
            ("OUT_OF_MEMORY", "125", "OutOfMemory", Some(JobEnd::OutOfMemory)),
            ("FAILED", "1:0", "JobLaunchFailure", Some(JobEnd::NotLaunched)),
            ("FAILED", "1", "JobLaunchFailure", Some(JobEnd::NotLaunched)),
            ("FAILED", "9", "JobLaunchFailure", Some(JobEnd::Killed(9))),
            ("FAILED", "1792", "NonZeroExitCode", Some(JobEnd::Failed(7))),
            ("FAILED", "7:0", "NonZeroExitCode", Some(JobEnd::Failed(7))),
            ("FAILED", "0:9", "RaisedSignal:9(Killed)", Some(JobEnd::Killed(9))),
            ("TIMEOUT", "0:0", "TimeLimit", Some(JobEnd::TimeLimit)),
            ("NODE_FAIL", "0:0", "NodeDown", Some(JobEnd::NodeFailed)),
            ("RUNNING", "0:0", "None", None),
            ("PENDING", "0:0", "BeginTime", None),
            (
                "VANISHED",
                "0:0",
                "None",
                Some(JobEnd::Unknown("VANISHED".into())),
            ),
            ("FAILED", "odd", "None", Some(JobEnd::Unknown("FAILED".into()))),
        ] {
            assert_eq!(end(state, code, reason), wanted, "{state} {code} {reason}");
        }
    }

    #[test]
    fn a_listing_is_read_whole_or_not_at_all() {
        let text = "7|1000|OUT_OF_MEMORY|0:125|OutOfMemory@x\n8|0|RUNNING|0:0|None@x\n";
        let ended = Ended {
            job: JobId(7),
            uid: 1000,
            end: JobEnd::OutOfMemory,
        };
        assert_eq!(parse(text, "@x").unwrap(), [ended]);
        assert_eq!(parse("\n", "@x").unwrap(), []);
        for bad in ["7|1000|OUT_OF_MEMORY", "seven|0|FAILED|0:0|None@x", "<html>"] {
            assert!(parse(bad, "@x").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse(&text, "@x");
        }
    }
}
