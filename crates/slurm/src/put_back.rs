//! Jobs that go back into the queue, from the nodes that they have: behind the gate, or away from these nodes.
//!
//! *Heterogeneous jobs.* Slurm requeues, holds and releases all parts of one together, and an update by the
//! leader's id is one of all parts; so the leader's own record is `5+0`. All parts wait where the leader does.

use crate::control::{Slurm, mark};
use crate::error::SlurmError;
use crate::gate::{address, alone};
use crate::jobs;
use crate::licenses::with_gate;
use crate::words::plain;
use std::thread;
use std::time::{Duration, Instant};
use thiao_core::hostlist;
use thiao_core::ids::JobId;
use thiao_core::options::{VmOptions, put_back_comment, turned_away_comment};
use thiao_core::table::Table;
use thiao_core::view::{JobState, REASON_PREFIX, SlurmJob};

/// How long a job that is put back may take until it is pending.
const PUT_BACK_WAIT: Duration = Duration::from_secs(10);
const PUT_BACK_PAUSE: Duration = Duration::from_millis(100);
/// A job, and what `scontrol` calls it.
pub(crate) struct Found {
    pub(crate) job: SlurmJob,
    /// This one record, for updates.
    address: String,
    /// All that is requeued, held and released together: of a heterogeneous job all parts.
    whole: String,
}

impl Found {
    fn of(job: SlurmJob) -> Self {
        let one = address(job.id, job.array.as_ref());
        let (address, whole) = match job.het {
            Some(leader) if leader == job.id => (alone(leader), leader.to_string()),
            Some(leader) => (one, leader.to_string()),
            None => (one.clone(), one),
        };
        Self { job, address, whole }
    }
}

fn is_over(job: JobId) -> SlurmError {
    SlurmError::NoSuchJob {
        command: format!("squeue -j {job}"),
        detail: "it is over".to_owned(),
    }
}

impl Slurm {
    /// Puts a job that has nodes back into the queue, behind the gate; `comment` is its whole
    /// `AdminComment` from then on, options first. A part of a heterogeneous job takes all of it along.
    ///
    /// It is requeued with a hold, because one that is merely requeued could start before its gate is
    /// closed; then it gets the gate, and is released. Its `StartTime` is set as well, without which users
    /// would see `BeginTime` for 120 s. A CONFIGURING job is pending at once, one that runs within 0.4 s
    /// (when its PrologSlurmctld has ended, too).
    ///
    /// When it fails after the hold, the job stays held, with the reason "job requeued in held state" and
    /// the comment: that is a sign for the caller to call [`Slurm::reopen`].
    ///
    /// # Errors
    /// [`SlurmError::InvalidState`] when Slurm may not requeue it (`--no-requeue`, `srun`, `salloc`);
    /// [`SlurmError::Timeout`] when it is not pending within 10 s.
    pub fn put_back(&self, job: JobId, licenses: &str, comment: &str) -> Result<(), SlurmError> {
        let before = self.find(job)?;
        let admin_comment = |text: &str| [format!("AdminComment={}", plain(text))];
        // Before the hold, so that whoever finds it held knows why.
        self.update_job(&before.address, &admin_comment(comment))?;
        if before.job.state == JobState::Pending {
            return self.close(&before, licenses);
        }
        if let Err(error) = self.runner.run("scontrol", ["requeuehold", &before.whole]) {
            if self.is_back(&before) {
                return self.close(&before, licenses);
            }
            // Best effort: what the comment says does not hold.
            let _ = self.update_job(
                &before.address,
                &admin_comment(before.job.admin_comment.as_deref().unwrap_or_default()),
            );
            return Err(error);
        }
        self.until_pending(&before)?;
        self.reopen_as(&before, licenses)
    }

    /// Puts a job back into the queue that has nodes it cannot run on, and keeps it from the nodes of
    /// `from`, a hostlist, beside those that it is kept from already; its `AdminComment` says so, and `why`.
    ///
    /// It is requeued with a hold, since only a pending job takes an `ExcNodeList`, and released then. When it
    /// fails in between, the job stays held, and its comment is that of [`put_back_comment`]: a sign for the caller
    /// to call this again. One
    /// that asked for those very nodes, or fits no other, stays pending with the comment (22.05.8: the reason is
    /// `None` at first, then `BadConstraints`).
    ///
    /// # Errors
    /// [`SlurmError::InvalidState`] when Slurm may not requeue it (`--no-requeue`, `srun`, `salloc`);
    /// [`SlurmError::Timeout`] when it is not pending within 10 s.
    pub fn turn_away(&self, job: JobId, from: &str, why: &str) -> Result<(), SlurmError> {
        let before = self.find(job)?;
        let comment = |text: &str| format!("AdminComment={}", plain(text));
        self.update_job(
            &before.address,
            &[comment(&put_back_comment(&VmOptions::default(), why))],
        )?;
        if before.job.state != JobState::Pending {
            match self.runner.run("scontrol", ["requeuehold", &before.whole]) {
                Ok(_) => self.until_pending(&before)?,
                Err(_) if self.is_back(&before) => {}
                Err(error) => return Err(error),
            }
        }
        let text = self
            .runner
            .run("scontrol", ["-o", "show", "job", &before.address])?;
        let has = text.lines().next().and_then(excluded);
        let all = has.map_or_else(|| from.to_owned(), |has| both(has, from));
        self.update_job(&before.address, &[format!("ExcNodeList={all}")])?;
        self.release(&before)?;
        self.update_job(&before.address, &[comment(&turned_away_comment(from, why))])
    }

    /// Holds a job that could not run where it is to run; its `AdminComment` says why. It goes back into the queue
    /// for that; one that cannot (`--no-requeue`, `srun`, `salloc`) is ended.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchJob`] when it is over.
    pub fn refuse(&self, job: JobId, why: &str) -> Result<(), SlurmError> {
        let before = self.find(job)?;
        let comment = format!("AdminComment={}", plain(&format!("{REASON_PREFIX} {why}")));
        self.update_job(&before.address, &[comment])?;
        let verb = match before.job.state {
            JobState::Pending => "hold",
            _ => "requeuehold",
        };
        match self.runner.run("scontrol", [verb, &before.whole]) {
            Err(SlurmError::InvalidState { .. }) if !self.is_back(&before) => {
                self.runner.run("scancel", [&before.whole]).map(drop)
            }
            Err(SlurmError::InvalidState { .. }) => {
                self.runner.run("scontrol", ["hold", &before.whole]).map(drop)
            }
            told => told.map(drop),
        }
    }

    /// Whether Slurm has put a job back meanwhile: its node failed, or a prolog refused it.
    fn is_back(&self, found: &Found) -> bool {
        let now = self.find(found.job.id);
        now.is_ok_and(|now| now.job.state == JobState::Pending)
    }

    /// Waits until a job that was requeued is pending, with all its parts.
    fn until_pending(&self, found: &Found) -> Result<(), SlurmError> {
        let end = Instant::now() + PUT_BACK_WAIT;
        let job = &found.job;
        let is_part = |other: &SlurmJob| other.id == job.id || (job.het.is_some() && other.het == job.het);
        loop {
            let listed = self.listed(&job.het.unwrap_or(job.id).to_string())?;
            if !listed.contains_key(&job.id) {
                return Err(is_over(job.id));
            }
            let mut parts = listed.values().filter(|other| is_part(other));
            if parts.all(|part| part.state == JobState::Pending) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(SlurmError::Timeout {
                    command: format!("scontrol requeuehold {}", found.whole),
                    after: PUT_BACK_WAIT,
                });
            }
            thread::sleep(PUT_BACK_PAUSE);
        }
    }

    /// Finishes what [`Slurm::put_back`] began: closes the gate of a job that is held, and releases it.
    /// Again is harmless.
    ///
    /// # Errors
    /// When one of the two failed.
    pub fn reopen(&self, job: JobId, licenses: &str) -> Result<(), SlurmError> {
        self.reopen_as(&self.find(job)?, licenses)
    }

    fn reopen_as(&self, found: &Found, licenses: &str) -> Result<(), SlurmError> {
        self.close(found, licenses)?;
        self.release(found)
    }

    /// Takes a requeued job's hold away, and its pause.
    fn release(&self, found: &Found) -> Result<(), SlurmError> {
        self.update_job(&found.whole, &["StartTime=now".to_owned()])?;
        self.runner.run("scontrol", ["release", &found.whole]).map(drop)
    }

    /// The one job of this id, and what `scontrol` calls it.
    pub(crate) fn find(&self, job: JobId) -> Result<Found, SlurmError> {
        // The id of an array's last task lists the whole array, that of a leader all parts.
        let found = self.listed(&job.to_string())?.remove(&job);
        found.map(Found::of).ok_or_else(|| is_over(job))
    }

    /// The jobs of these ids, with commas between.
    pub(crate) fn listed(&self, ids: &str) -> Result<Table<JobId, SlurmJob>, SlurmError> {
        let mark = mark()?;
        let format = jobs::format(&mark, self.squeue());
        let text = self
            .runner
            .run("squeue", ["-h", "-a", "-O", &format, "-r", "-j", ids])?;
        jobs::parse(&text, &mark)
    }

    /// Closes the gate of a pending job; of a heterogeneous one its leader's, with which all parts wait.
    pub(crate) fn close(&self, found: &Found, licenses: &str) -> Result<(), SlurmError> {
        match found.job.het {
            Some(leader) if leader != found.job.id => {
                let first = self.find(leader)?;
                self.set_licenses(&first.address, &with_gate(&first.job.licenses))
            }
            Some(_) | None => self.set_licenses(&found.address, &with_gate(licenses)),
        }
    }
}

/// `ExcNodeList` in a line of `scontrol -o show job`: before the folders and the command line that users
/// choose; a user who writes it into his job's name bends what his own job is kept from.
fn excluded(line: &str) -> Option<&str> {
    let mut words = line
        .split(' ')
        .filter_map(|word| word.strip_prefix("ExcNodeList="));
    words.next().filter(|list| *list != "(null)")
}

/// Two hostlists as one, each name once: Slurm keeps the text as it is given, and a job may be turned away
/// again. A list that cannot be read here was read by Slurm.
fn both(one: &str, other: &str) -> String {
    match (hostlist::expand(one), hostlist::expand(other)) {
        (Ok(some), Ok(more)) => hostlist::fold(some.iter().chain(&more)),
        (Err(_), _) | (_, Err(_)) => format!("{one},{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_from_the_whole() {
        let of = |id: u32, het: Option<u32>| {
            let job = SlurmJob {
                het: het.map(JobId),
                ..SlurmJob::new(JobId(id))
            };
            let found = Found::of(job);
            (found.address, found.whole)
        };
        assert_eq!(of(5, None), ("5".into(), "5".into()));
        assert_eq!(of(5, Some(5)), ("5+0".into(), "5".into()));
        assert_eq!(of(6, Some(5)), ("6".into(), "5".into()));
    }

    #[test]
    fn a_job_is_kept_from_each_node_once() {
        let all = both("n[1-3],n8", "n[5-8]");
        assert_eq!(all, "n[1-3,5-8]");
        assert_eq!(both(&all, "n[5-8]"), all);
        assert_eq!(both("n[3-1]", "n5"), "n[3-1],n5");
    }
}
