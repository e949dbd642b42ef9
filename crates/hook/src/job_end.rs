//! `EpilogSlurmctld` and `tclean`: a job is over, and so are the VMs that were
//! for it alone.
//!
//! What EpilogSlurmctld exits with does nothing to the job: slurmctld only logs
//! it (22.05.8, `prep_epilog_slurmctld_callback`). But as long as it runs the
//! job is COMPLETING; so it waits for nobody.
//!
//! Measured with 22.05.8: `SLURM_JOB_EXIT_CODE` is 768 after `exit 3`, 11 after
//! SIGSEGV, and 0 of a running job that was cancelled. An array's task has its own
//! `SLURM_JOB_ID`. For a job that is cancelled while it waits no epilog runs.

use crate::order::{self, Listed};
use crate::{Failure, say, state};
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::spool::{self, IntentKind};

/// What slurmctld (22.05.8) has for the nodes of a job that had none.
const NO_NODES: &str = "(null)";

/// The end of job `$SLURM_JOB_ID`, told by slurmctld: an order if it had nodes of
/// job mode; in any case the controller is woken.
///
/// # Errors
/// Code 1 when the order could not be kept, 2 when another cluster calls or what
/// it says makes no sense.
pub fn by_slurm(state: &Path) -> Result<(), Failure> {
    let left = leave(state);
    state::poke(state);
    left
}

/// Whether slurmctld, or somebody inside a job, has said which job it is.
pub fn has_job() -> bool {
    variable("SLURM_JOB_ID").is_some()
}

/// The end of a job, told by a person.
///
/// # Errors
/// Code 1 when the order could not be kept, 2 when that is no job's number.
pub fn by_hand(state: &Path, job: &OsStr) -> Result<(), Failure> {
    let job = number(job).ok_or_else(|| {
        Failure::refused(format!(
            "{} is no job's number: name one as in `scontrol show job`; a task of an array has one of its own",
            job.display()
        ))
    })?;
    let kind = IntentKind::JobEnd {
        job: JobId(job),
        exit: None,
    };
    let spool = state.join("spool");
    let cluster = order::check_cluster(&spool)?;
    order::keep(&spool, kind, cluster, "", Vec::new())?;
    state::poke(state);
    say(format_args!(
        "job {job}: its VMs are ended, unless it still runs; follow with `thiao explain {job}`"
    ));
    Ok(())
}

fn leave(state: &Path) -> Result<(), Failure> {
    let spool = state.join("spool");
    let (Some(id), Some(list)) = (variable("SLURM_JOB_ID"), variable("SLURM_JOB_NODELIST")) else {
        return Ok(());
    };
    let ours = match order::listed(&spool.join(spool::JOB_NODES)) {
        Listed::Unsaid => return Ok(()),
        said => said,
    };
    if list == NO_NODES {
        return Ok(());
    }
    let job = number(&id)
        .ok_or_else(|| Failure::refused(format!("SLURM_JOB_ID={} is no job's number", id.display())))?;
    let nodes = hostlist::expand(list.as_bytes())
        .map_err(|error| Failure::refused(format!("SLURM_JOB_NODELIST={}: {error}", list.display())))?;
    let nodes: Vec<NodeName> = nodes.into_iter().filter(|node| ours.may_have(node)).collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let kind = IntentKind::JobEnd {
        job: JobId(job),
        // A status as of wait(2) in decimal; SLURM_JOB_EXIT_CODE2 is the same as 1:0.
        exit: variable("SLURM_JOB_EXIT_CODE").and_then(|text| number(&text)),
    };
    let cluster = order::check_cluster(&spool)?;
    order::keep(&spool, kind, cluster, &hostlist::fold(&nodes), Vec::new())
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn number(text: &OsStr) -> Option<u32> {
    let text = text.to_str()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
