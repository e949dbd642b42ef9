//! The cluster's key: whether thiaod and the daemon beside it still use the one that is in its file.
//! Both have read it when they started, and a rotated key shows nowhere else but on guests' consoles.

use super::Unseen;
use rustix::process::Pid;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiao_core::finding::Finding;
use thiao_qemu::Credentials;

/// Where munge's key is, which systemd copies for thiaod when thiaod starts.
const MUNGE_KEY: &str = "/etc/munge/munge.key";

/// Below it systemd keeps such copies.
const COPIES: &str = "/run/credentials";

/// How many ticks of `/proc` make a second: `USER_HZ`, on every architecture that Slurm is built for.
const TICKS: u64 = 100;

/// A key may be written right before its daemon starts, as where both are new.
const CLOSE: Duration = Duration::from_secs(1);

/// What was seen of the key.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The file that the cluster's other programs read.
    pub file: PathBuf,
    /// Whether thiaod's copy has the same bytes; none: it reads that file itself, or has no copy now.
    pub copy_is_same: Option<Result<bool, Unseen>>,
    /// When the file was written, and munged started, if both are known.
    pub written_and_started: Option<(SystemTime, SystemTime)>,
}

/// Looks at the key's files, and at the munged that answers on the socket.
#[must_use]
pub fn observe(credentials: &Credentials) -> Facts {
    let given = credentials.file();
    let is_copy = given.starts_with(COPIES);
    let file = if is_copy { Path::new(MUNGE_KEY) } else { given };
    let read = |path: &Path| std::fs::read(path).map_err(Unseen::from);
    let same = || Ok(read(given)? == read(file)?);
    let started = match credentials {
        Credentials::Munge { socket, .. } => listener(socket).and_then(started),
        Credentials::Slurm { .. } => None,
    };
    let written = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    Facts {
        file: file.to_owned(),
        copy_is_same: (is_copy && given.exists()).then(same),
        written_and_started: written.zip(started),
    }
}

/// What has to be started again.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    const WHAT: &str = "key in use";
    let file = facts.file.display();
    let mut found = Vec::new();
    match &facts.copy_is_same {
        Some(Ok(false)) => found.push(
            Finding::bad(
                WHAT,
                format!(
                    "thiaod has another key than {file}, which was changed since it started: new guests cannot join \
                     the cluster"
                ),
            )
            .run("systemctl restart thiaod"),
        ),
        Some(Err(why)) if !why.denied => found.push(
            Finding::warn(WHAT, format!("thiaod's copy cannot be compared with {file}: {why}"))
                .run("systemctl restart thiaod"),
        ),
        Some(Ok(true) | Err(_)) | None => {}
    }
    if let Some((written, started)) = facts.written_and_started
        && written > started + CLOSE
    {
        found.push(
            Finding::bad(
                WHAT,
                format!("{file} was changed after munged started, which still uses the old one: guests get the new one"),
            )
            .run("systemctl restart munge && systemctl restart slurmctld"),
        );
    }
    if found.is_empty() && matches!(facts.copy_is_same, Some(Ok(true))) {
        found.push(Finding::ok(
            WHAT,
            format!("thiaod and munged have the one in {file}"),
        ));
    }
    found
}

/// The process that listens on a socket.
fn listener(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
}

/// When a process started, to a few hundredths of a second.
fn started(process: Pid) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let started = Duration::from_millis(start_ticks(&stat)?.checked_mul(1000)? / TICKS);
    let age = Duration::try_from_secs_f64(uptime).ok()?.checked_sub(started)?;
    SystemTime::now().checked_sub(age)
}

/// The 22nd field of `/proc/PID/stat`: its start in ticks after the boot. The second is a name in brackets, in which
/// anything may be.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;
    use thiao_core::finding::{Remedy, Verdict};

    fn facts(copy: Option<Result<bool, Unseen>>, written: u64, started: u64) -> Facts {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        Facts {
            file: MUNGE_KEY.into(),
            copy_is_same: copy,
            written_and_started: Some((at(written), at(started))),
        }
    }

    #[test]
    fn what_has_an_old_key_is_to_be_started_again() {
        let said = |facts: Facts| -> Vec<(Verdict, Option<Remedy>)> {
            judge(&facts)
                .into_iter()
                .map(|found| (found.verdict, found.remedy))
                .collect()
        };
        let run = |command: &str| Some(Remedy::Run(command.to_owned()));
        assert_eq!(said(facts(Some(Ok(true)), 10, 20)), [(Verdict::Ok, None)]);
        assert_eq!(said(facts(None, 10, 20)), []);
        assert_eq!(
            said(facts(Some(Ok(false)), 10, 20)),
            [(Verdict::Bad, run("systemctl restart thiaod"))]
        );
        assert_eq!(
            said(facts(Some(Ok(false)), 30, 20)),
            [
                (Verdict::Bad, run("systemctl restart thiaod")),
                (
                    Verdict::Bad,
                    run("systemctl restart munge && systemctl restart slurmctld")
                )
            ]
        );
        // Who may not read them is told nothing of it.
        let denied = Unseen {
            why: "Permission denied".into(),
            denied: true,
        };
        assert_eq!(said(facts(Some(Err(denied)), 10, 20)), []);
    }

    #[test]
    fn a_key_that_its_daemon_has_not_read_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (key, socket) = (dir.path().join("munge.key"), dir.path().join("socket"));
        let write = |at| {
            let file = std::fs::File::create(&key).unwrap();
            file.set_modified(at).unwrap();
        };
        write(SystemTime::now() + Duration::from_secs(5));
        let _munged = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let credentials = Credentials::Munge {
            key: key.clone(),
            socket,
        };
        // It stands for munged, and started before the key was written.
        let seen = observe(&credentials);
        let (written, started) = seen.written_and_started.unwrap();
        assert!(started <= written, "{seen:?}");
        assert_eq!(judge(&seen)[0].verdict, Verdict::Bad);
        write(UNIX_EPOCH + Duration::from_secs(1));
        assert!(judge(&observe(&credentials)).is_empty());
    }

    #[test]
    fn a_programs_name_does_not_hide_when_it_started() {
        let stat = "42 (mun) ged) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987 20";
        assert_eq!(start_ticks(stat), Some(987));
        assert_eq!(start_ticks("42 (x) S 1"), None);
    }
}
