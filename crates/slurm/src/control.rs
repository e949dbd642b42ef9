//! What Thiao asks of slurmctld, through `sinfo`, `squeue` and `scontrol`.

use crate::error::SlurmError;
use crate::run::Runner;
use crate::{jobs, nodes};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::view::SlurmView;

/// Longest hostlist given to one command, in bytes. Linux takes 128 KiB in one argument.
const MAX_LIST: usize = 32 << 10;
/// Longest text given to a job or as a reason, in bytes.
const MAX_TEXT: usize = 500;

/// A way to talk to one slurmctld. Cheap to clone; keeps nothing between calls.
#[derive(Debug, Clone)]
pub struct Slurm {
    runner: Runner,
}

impl Slurm {
    /// `conf` becomes `SLURM_CONF` (default: ours), `bin_dir` is where Slurm's programs are (default: `PATH`
    /// and the usual places), `timeout` bounds each single command.
    #[must_use]
    pub fn new(conf: Option<PathBuf>, bin_dir: Option<PathBuf>, timeout: Duration) -> Self {
        Self {
            runner: Runner {
                conf,
                bin_dir,
                timeout,
            },
        }
    }

    /// All nodes and all jobs that are not over. Two commands, run side by side, whatever the cluster's size.
    ///
    /// # Errors
    /// Any failure of either command: a look is whole or none.
    pub fn look(&self) -> Result<SlurmView, SlurmError> {
        thread::scope(|scope| {
            let jobs = scope.spawn(|| self.jobs());
            let nodes = self.nodes()?;
            let jobs = jobs
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(SlurmView { nodes, jobs })
        })
    }

    fn nodes(&self) -> Result<BTreeMap<NodeName, thiao_core::view::SlurmNode>, SlurmError> {
        let mark = mark()?;
        let text = self
            .runner
            .run("sinfo", ["-h", "-a", "-O", &nodes::format(&mark)])?;
        nodes::parse(&text, &mark)
    }

    fn jobs(&self) -> Result<BTreeMap<JobId, thiao_core::view::SlurmJob>, SlurmError> {
        let mark = mark()?;
        let text = self
            .runner
            .run("squeue", ["-h", "-a", "-o", &jobs::format(&mark)])?;
        jobs::parse(&text, &mark)
    }

    /// Puts nodes out of service with a reason that people see in `sinfo -R`.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchNode`] names unknown ones, after the known ones were set.
    pub fn set_down(&self, nodes: &[NodeName], reason: &str) -> Result<(), SlurmError> {
        self.update_nodes(nodes, &["state=DOWN", &format!("reason={}", plain(reason))])
    }

    /// Gives nodes that we had set DOWN back to Slurm: powered down and free (`idle~`).
    ///
    /// `POWER_DOWN` and then `RESUME`, without a pause between them (measured on 22.05.8, with and without
    /// `idle_on_node_suspend`): SuspendProgram is called within `power_save_interval`, the node is
    /// `idle%` for SuspendTimeout and then `idle~`; the reason goes. `RESUME` alone leaves it `POWERING_UP`
    /// until ResumeTimeout. The job that was there waits in the queue until 120 s after the failure, see
    /// [`Slurm::start_now`].
    ///
    /// # Errors
    /// [`SlurmError::InvalidState`] when a node is not DOWN any more.
    pub fn return_to_service(&self, nodes: &[NodeName]) -> Result<(), SlurmError> {
        self.update_nodes(nodes, &["state=POWER_DOWN"])?;
        self.update_nodes(nodes, &["state=RESUME"])
    }

    /// Tells the users of a job: a message on the output of a running one, and its `AdminComment`, which
    /// stays readable by `scontrol show job`.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchJob`] when it is over and forgotten. A job that can't be messaged (pending ones
    /// can't) only gets the comment.
    pub fn notify_job(&self, job: JobId, message: &str) -> Result<(), SlurmError> {
        let message = plain(message);
        self.runner.run(
            "scontrol",
            [
                "update".to_owned(),
                format!("JobId={job}"),
                format!("AdminComment={message}"),
            ],
        )?;
        match self
            .runner
            .run("scontrol", ["notify".to_owned(), job.to_string(), message])
        {
            Ok(_) | Err(SlurmError::InvalidState { .. } | SlurmError::NoSuchJob { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Lets pending jobs start as soon as they can: a job that Slurm requeued after a node failure otherwise
    /// waits for 120 s.
    ///
    /// # Errors
    /// The first failure; the other jobs were set all the same.
    pub fn start_now(&self, jobs: &[JobId]) -> Result<(), SlurmError> {
        for some in jobs.chunks(1000) {
            let list: Vec<String> = some.iter().map(JobId::to_string).collect();
            self.runner.run(
                "scontrol",
                [
                    "update".to_owned(),
                    format!("JobId={}", list.join(",")),
                    "StartTime=now".to_owned(),
                ],
            )?;
        }
        Ok(())
    }

    /// The version of Slurm's programs here.
    ///
    /// # Errors
    /// Also when no `slurm.conf` is found: Slurm's programs read it before all else.
    pub fn version(&self) -> Result<Version, SlurmError> {
        let text = self.runner.run("scontrol", ["-V"])?;
        Version::parse(&text)
            .ok_or_else(|| SlurmError::unparsable("Slurm's version", text.trim(), "no version number"))
    }

    /// Whether slurmctld answers. Down is an answer, not an error.
    ///
    /// # Errors
    /// When the program can't be run or there is no configuration.
    pub fn ping(&self) -> Result<Ping, SlurmError> {
        // Exit code 1 and the same text on stdout when no slurmctld answers.
        match self.runner.run("scontrol", ["ping"]) {
            Ok(text) => Ok(Ping::parse(&text)),
            Err(SlurmError::Failed { detail, .. }) if detail.contains("is DOWN") => Ok(Ping::parse(&detail)),
            Err(e) => Err(e),
        }
    }

    /// slurmctld's configuration in effect.
    ///
    /// # Errors
    /// When slurmctld does not answer.
    pub fn config(&self) -> Result<Config, SlurmError> {
        Ok(Config::parse(&self.runner.run("scontrol", ["show", "config"])?))
    }

    /// One order for many nodes, in as few commands as their names fit.
    pub(crate) fn update_nodes(&self, nodes: &[NodeName], orders: &[&str]) -> Result<(), SlurmError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let list = hostlist::fold(nodes);
        if list.len() > MAX_LIST && nodes.len() > 1 {
            let (left, right) = nodes.split_at(nodes.len() / 2);
            let left = self.update_nodes(left, orders);
            return self.update_nodes(right, orders).and(left);
        }
        let mut args: Vec<OsString> = vec!["update".into(), format!("NodeName={list}").into()];
        args.extend(orders.iter().map(OsString::from));
        self.runner.run("scontrol", args).map(drop)
    }
}

/// A text that no user of Slurm can foresee, so that none can forge a line of a listing.
fn mark() -> Result<String, SlurmError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|e| {
        SlurmError::Io {
            command: "getrandom".to_owned(),
            source: e.into(),
        }
    })?;
    Ok(format!("@{:016x}", u64::from_ne_bytes(bytes)))
}

/// One line of bounded length: what a person may see in a terminal.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        out.push(c);
    }
    out
}

/// A release of Slurm, e.g. 22.05.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The year.
    pub major: u16,
    /// The month.
    pub minor: u16,
    /// The number of the bug-fix release.
    pub patch: u16,
}

impl Version {
    /// A version from its parts.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `slurm-wlm 22.05.8`, `slurm 24.11.0-0rc1` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = text
            .split_whitespace()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = word.splitn(3, '.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().unwrap_or("0");
        let digits = patch
            .find(|c: char| !c.is_ascii_digit())
            .map_or(patch, |end| &patch[..end]);
        Some(Self {
            major,
            minor,
            patch: digits.parse().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}.{}", self.major, self.minor, self.patch)
    }
}

/// Which slurmctld answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ping {
    /// Each slurmctld's host and whether it is up, the primary first.
    pub controllers: Vec<(String, bool)>,
}

impl Ping {
    /// Whether any slurmctld answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.controllers.iter().any(|(_, up)| *up)
    }

    /// Reads lines like `Slurmctld(primary) at node1 is UP`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (host, state) = line.trim().split_once(") at ")?.1.split_once(" is ")?;
            Some((host.to_owned(), state.starts_with("UP")))
        };
        Self {
            controllers: text.split([';', '\n']).filter_map(line).collect(),
        }
    }
}

/// slurmctld's configuration as `scontrol show config` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    entries: BTreeMap<String, String>,
}

impl Config {
    /// Reads lines of `Key = value`; other lines are headings.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let (key, value) = (key.trim(), value.trim());
            (!key.is_empty() && !key.contains(' ')).then(|| (key.to_ascii_lowercase(), value.to_owned()))
        };
        Self {
            entries: text.lines().filter_map(entry).collect(),
        }
    }

    /// A value by its key, in any case; `None` when absent or `(null)`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .get(&key.to_ascii_lowercase())
            .map(String::as_str)
            .filter(|v| *v != "(null)" && !v.is_empty())
    }

    /// Whether a comma-separated value such as `SlurmctldParameters` holds `word`, alone or as `word=...`.
    #[must_use]
    pub fn has(&self, key: &str, word: &str) -> bool {
        self.option(key, word).is_some()
    }

    /// The text behind `word=` in a comma-separated value; empty if the word stands alone.
    #[must_use]
    pub fn option(&self, key: &str, word: &str) -> Option<&str> {
        self.get(key)?.split(',').find_map(|item| {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            name.trim().eq_ignore_ascii_case(word).then_some(value.trim())
        })
    }

    /// The leading number of a value such as `60 sec`.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.split_whitespace().next()?.parse().ok()
    }
}
