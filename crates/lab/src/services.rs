//! The lab's long-running programs: started, watched, started again with a
//! growing pause when they die, ended in order.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Pause before a program that died is started again: the first, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A program that ran this long is not in a circle of failures.
const STEADY: Duration = Duration::from_secs(20);

/// One program of the lab.
pub struct Service {
    /// Its name in `lab status` and of its log.
    pub name: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    log: PathBuf,
    wanted: bool,
    pid: Option<i32>,
    started: Option<Instant>,
    retry: Option<Instant>,
    pause: Duration,
    starts: u32,
    last_end: Option<String>,
}

/// A program as `lab status` tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// Its process id inside the lab, while it runs.
    pub pid: Option<i32>,
    /// Whether it should run.
    pub wanted: bool,
    /// How often it was started.
    pub starts: u32,
    /// How it ended the last time.
    pub last_end: Option<String>,
}

impl Service {
    /// Describes a program; its output is appended to `log`.
    pub fn new(name: &'static str, program: PathBuf, log: PathBuf) -> Self {
        Self {
            name,
            program,
            args: Vec::new(),
            env: Vec::new(),
            log,
            wanted: false,
            pid: None,
            started: None,
            retry: None,
            pause: FIRST_PAUSE,
            starts: 0,
            last_end: None,
        }
    }

    /// Adds arguments after those that it has.
    #[must_use]
    pub fn args<I: IntoIterator<Item = A>, A: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Starts it, if it does not run, and from now on again when it dies.
    ///
    /// # Errors
    /// When the program cannot be started at all.
    pub fn start(&mut self) -> Result<()> {
        self.wanted = true;
        if self.pid.is_some() {
            return Ok(());
        }
        let log = open_log(&self.log)?;
        let errors = log.try_clone().context("no descriptor left")?;
        let mut command = Command::new(&self.program);
        // The keeper waits for its own signals with them blocked; a program that inherits that cannot be stopped.
        thiao_slurm::reset_signal_mask(&mut command);
        let child = command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        // Reaped by the keeper's own loop, which reaps everybody's children.
        self.pid = i32::try_from(child.id()).ok();
        self.started = Some(Instant::now());
        self.retry = None;
        self.starts += 1;
        Ok(())
    }

    /// Wants it ended and sends `signal` if it runs.
    pub fn stop(&mut self, signal: rustix::process::Signal) {
        self.wanted = false;
        self.retry = None;
        if let Some(pid) = self.pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Whether a process of it is there.
    pub fn runs(&self) -> bool {
        self.pid.is_some()
    }

    /// How often it ended by itself or by others since the lab is up.
    pub fn last_end(&self) -> Option<&str> {
        self.last_end.as_deref()
    }

    /// The file with what it wrote.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Takes note that process `pid` has ended, if that was it.
    pub fn reaped(&mut self, pid: i32, how: String) {
        if self.pid != Some(pid) {
            return;
        }
        self.pid = None;
        self.last_end = Some(how);
        if self.wanted {
            let steady = self.started.is_some_and(|started| started.elapsed() >= STEADY);
            self.pause = if steady { FIRST_PAUSE } else { self.pause };
            self.retry = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// When it wants to be started again.
    pub fn due(&self) -> Option<Instant> {
        self.retry
    }

    /// Starts it again if its pause is over. A program that cannot be started is tried later.
    pub fn retry(&mut self) {
        if self.retry.is_some_and(|at| at <= Instant::now())
            && let Err(error) = self.start()
        {
            self.last_end = Some(format!("{error:#}"));
            self.retry = Some(Instant::now() + LONGEST_PAUSE);
        }
    }

    /// As `lab status` tells it.
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus {
            name: self.name.to_owned(),
            pid: self.pid,
            wanted: self.wanted,
            starts: self.starts,
            last_end: self.last_end.clone(),
        }
    }
}

/// Opens a log for appending, readable for the lab's owner alone.
///
/// # Errors
/// When that fails.
pub fn open_log(path: &Path) -> Result<std::fs::File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("the log {} cannot be opened", path.display()))
}

/// The last lines of a log, for an error that people read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_dies_waits_longer_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::new("none", PathBuf::from("/bin/true"), dir.path().join("log"));
        service.wanted = true;
        let mut pauses = Vec::new();
        for pid in 1..=8 {
            service.pid = Some(pid);
            service.started = Some(Instant::now());
            service.reaped(pid, "exit 1".into());
            pauses.push(
                service
                    .due()
                    .unwrap()
                    .saturating_duration_since(Instant::now())
                    .as_millis(),
            );
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!((9_000..=10_000).contains(pauses.last().unwrap()), "{pauses:?}");
    }

    #[test]
    fn an_unwanted_program_stays_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::new("none", PathBuf::from("/bin/true"), dir.path().join("log"));
        service.pid = Some(7);
        service.wanted = false;
        service.reaped(7, "exit 0".into());
        assert_eq!(service.due(), None);
        service.reaped(8, "another's".into());
        assert_eq!(service.last_end(), Some("exit 0"));
    }

    #[test]
    fn the_tail_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "b\nc");
        assert_eq!(tail(&dir.path().join("none"), 2), "");
    }
}
