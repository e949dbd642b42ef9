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

use crate::order;
use crate::{Failure, say, state};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use thiao_core::ids::JobId;
use thiao_core::spool::{self, IntentKind};
use thiao_hook::from_slurm;

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
    let job = from_slurm::number(job).ok_or_else(|| {
        Failure::refused(format!(
            "{} is not a job's number: name one as in `scontrol show job`; a task of an array has one of its own",
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
    let ours = order::listed(&spool.join(spool::JOB_NODES));
    let exit = variable("SLURM_JOB_EXIT_CODE");
    let order = from_slurm::job_end(&id, &list, exit.as_deref(), &ours).map_err(Failure::refused)?;
    let Some((kind, nodes)) = order else {
        return Ok(());
    };
    let cluster = order::check_cluster(&spool)?;
    order::keep(&spool, kind, cluster, &nodes, Vec::new())
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
