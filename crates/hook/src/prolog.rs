//! `PrologSlurmctld`: waits until the job's nodes are up.
//!
//! slurmctld notices nodes that came up in a sweep every 30 s, or when a
//! PrologSlurmctld ends; so this one ends when they are up. It only helps: in
//! doubt it exits 0 and the sweep does the work, because a failed prolog makes
//! Slurm requeue the job. It is one blocking request; polling by one process
//! per job would load the machine.

use crate::{Failure, order, tell};
use std::env;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use thiao_core::spool;
use thiao_hook::from_slurm::{self, Answer};

/// How long to wait when `THIAO_PROLOG_LIMIT` says nothing.
const LIMIT: Duration = Duration::from_secs(600);

/// How long the controller may be away in a row when `THIAO_PROLOG_AWAY` says nothing.
const AWAY: Duration = Duration::from_secs(30);

/// The first and the longest pause between attempts to reach it.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How much of an answer is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Waits for the nodes of `$SLURM_JOB_ID`.
///
/// # Errors
/// Code 1, if the controller says that the job can never start so.
pub fn wait(state: &Path) -> Result<(), Failure> {
    // Slurm runs it for every job of the cluster: those of other nodes do not wait for a controller that is away.
    let ours = order::listed(&state.join("spool").join(spool::NODES));
    if env::var_os("SLURM_JOB_NODELIST").is_some_and(|list| !from_slurm::may_have_ours(&list, &ours)) {
        return Ok(());
    }
    match ask(state) {
        Ok(()) => Ok(()),
        Err(GaveUp::Requeue(why)) => Err(Failure {
            code: 1,
            message: format!("the job cannot start and is requeued: {why}"),
        }),
        Err(GaveUp::Leave(why)) => {
            tell(format_args!(
                "PrologSlurmctld: {why}. Leaving the start of the job to Slurm's own sweep (every 30 s)."
            ));
            Ok(())
        }
    }
}

/// Why the waiting ended before the nodes were up.
enum GaveUp {
    /// The job must be requeued.
    Requeue(String),
    /// Slurm can do without us.
    Leave(String),
}

fn ask(state: &Path) -> Result<(), GaveUp> {
    let limit = seconds("THIAO_PROLOG_LIMIT").unwrap_or(LIMIT);
    let away_limit = seconds("THIAO_PROLOG_AWAY").unwrap_or(AWAY);
    let deadline = Instant::now() + limit;
    let job: u32 = env::var("SLURM_JOB_ID")
        .ok()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| GaveUp::Leave("SLURM_JOB_ID is missing or not a number".to_owned()))?;
    // Whatever hangs, even the connecting itself: not longer than this.
    // (Without the thread it is only less sure; `thread::spawn` would panic.)
    let watch = move || {
        thread::sleep(limit + Duration::from_secs(1));
        std::process::exit(0);
    };
    _ = thread::Builder::new().spawn(watch);

    let mut away_since: Option<Instant> = None;
    let mut pause = PAUSES.0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(GaveUp::Leave(format!(
                "job {job}: its nodes are not up after {} s",
                limit.as_secs()
            )));
        }
        let asked = Instant::now();
        let problem = match request(state, job, left) {
            Ok(Answer { status: 200, .. }) => return Ok(()),
            Ok(Answer { status: 409, body }) => return Err(GaveUp::Requeue(body)),
            Ok(Answer {
                status: status @ 500..=599,
                body,
            }) => format!("it answers {status} {body}"),
            Ok(Answer { status, body }) => {
                return Err(GaveUp::Leave(format!(
                    "job {job}: the controller answers {status} {body}"
                )));
            }
            Err(error) => error.to_string(),
        };
        if asked.elapsed() > PAUSES.1 {
            // It was there until now: it restarts, or holds no request longer than this.
            away_since = None;
            pause = PAUSES.0;
        }
        let away = away_since.get_or_insert_with(Instant::now).elapsed();
        if away > away_limit {
            return Err(GaveUp::Leave(format!(
                "job {job}: the controller of {} is away for more than {} s: {problem}",
                state.display(),
                away_limit.as_secs()
            )));
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// A whole number of seconds from the environment; a day at most, so that sums of times fit.
fn seconds(name: &str) -> Option<Duration> {
    let seconds: u64 = env::var(name).ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

/// Bytes as a header can have them: all but the plainest as `%2F`.
fn percent(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let words = bytes.iter().map(|byte| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    words.collect()
}

/// One request that the controller holds until the nodes are up, or until `left` has passed.
fn request(state: &Path, job: u32, left: Duration) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(state.join("api.sock"))?;
    stream.set_read_timeout(Some(left + Duration::from_secs(1)))?;
    let folder = env::var_os("SLURM_JOB_WORK_DIR").map_or_else(String::new, |folder| {
        format!("{}: {}\r\n", spool::WORK_DIR_HEADER, percent(folder.as_bytes()))
    });
    let text = format!(
        "GET /v1/jobs/{job}/ready?timeout_ms={} HTTP/1.1\r\nHost: thiao\r\n{folder}Connection: close\r\n\r\n",
        left.as_millis()
    );
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    from_slurm::answer(&answer).ok_or_else(|| io::Error::other("it closed the connection without an answer"))
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn no_folder_breaks_out_of_its_header() {
        assert_eq!(
            percent("/home/ada/A b\r\nX: 50%\u{e9}".as_bytes()),
            "/home/ada/A%20b%0D%0AX%3A%2050%25%C3%A9"
        );
    }
}
