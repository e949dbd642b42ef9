//! What can go wrong between us and Slurm, in classes that a caller can act on.
//!
//! Slurm's programs exit 1 for everything; the class is in what they print.
//! The texts matched here were taken from the real programs (see
//! `tests/data/errors.txt`), by the part that did not change between releases.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a call of Slurm's programs gave no result.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The program is not installed, or not where we look.
    #[error(
        "{program} is not in {searched}; install the Debian package {package}, or set `bin_dir` to where Slurm's programs are"
    )]
    Missing {
        program: String,
        /// The Debian package that holds it.
        package: &'static str,
        /// The folders that were searched.
        searched: String,
    },
    /// Programs, but none of the folders where their plugins may be.
    #[error(
        "no folder of Slurm's plugins is found for the programs in {}; set `plugin_dir` to it (PluginDir in `scontrol show config`)",
        bin.display()
    )]
    NoPlugins {
        /// Where the programs are.
        bin: PathBuf,
    },
    /// The configuration file that we were told to use can't be read.
    #[error("can't read Slurm's configuration {}: {source}; set SLURM_CONF, or `conf` in thiao.toml's [slurm], to the right file", path.display())]
    NoConf {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Slurm's programs find no configuration, neither a file nor by the network.
    #[error(
        "`{command}` finds no slurm.conf: {detail}; set SLURM_CONF, or `conf` in thiao.toml's [slurm], to the file"
    )]
    Unconfigured { command: String, detail: String },
    /// slurmctld (or munged) does not answer. Worth another try later.
    #[error(
        "slurmctld can't be reached by `{command}`: {detail}; is it running (`scontrol ping`), and munged too?"
    )]
    Unreachable { command: String, detail: String },
    /// Slurm does not let us: we are not SlurmUser or root.
    #[error("Slurm refuses `{command}`: {detail}; run as SlurmUser or root")]
    Refused { command: String, detail: String },
    /// A node in the command is unknown to slurmctld.
    #[error("slurmctld knows no such node (`{command}`): {detail}; compare slurm.conf with thiao.toml")]
    NoSuchNode { command: String, detail: String },
    /// The job is unknown to slurmctld, or over for so long that it was forgotten.
    #[error("slurmctld knows no such job (`{command}`): {detail}")]
    NoSuchJob { command: String, detail: String },
    /// The node or job can't go from its present state to the one asked for.
    #[error("Slurm can't do `{command}` in the present state: {detail}")]
    InvalidState { command: String, detail: String },
    /// `slurm.conf` has no licence for jobs that wait for capacity.
    #[error(
        "slurm.conf has no licence {}, by which jobs of job mode wait for capacity: include what `thiao setup` writes, then restart slurmctld",
        crate::names::GATE
    )]
    NoGate,
    /// Nothing came in time; the program was killed.
    #[error("`{command}` did not end within {after:?} and was killed; slurmctld may hang or be overloaded")]
    Timeout {
        command: String,
        /// How long we waited.
        after: Duration,
    },
    /// The output is not what this version of Thiao understands.
    #[error(
        "can't read {what}: {why} in the line {line:?}; please report it with the output of `scontrol --version`"
    )]
    Unparsable {
        /// What was being read.
        what: &'static str,
        /// The offending line, shortened.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// More output than any cluster has: refused rather than taken in.
    #[error("`{command}` printed more than {limit} bytes and was killed")]
    TooMuch {
        command: String,
        /// The cap, in bytes.
        limit: usize,
    },
    /// The program failed in a way that we do not know.
    #[error("`{command}` failed ({status}): {detail}")]
    Failed {
        command: String,
        status: String,
        detail: String,
    },
    /// The system did not let us run it or read from it.
    #[error("can't run `{command}`: {source}")]
    Io {
        /// What was to be run.
        command: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How much of a line is quoted in an error, in bytes.
const QUOTE: usize = 200;

impl SlurmError {
    /// An output that we can't read, with the line quoted.
    pub(crate) fn unparsable(what: &'static str, line: &str, why: impl Into<String>) -> Self {
        let mut end = line.len().min(QUOTE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        Self::Unparsable {
            what,
            line: line[..end].to_owned(),
            why: why.into(),
        }
    }

    /// The class of what a failed program said, how it ended being `status`.
    #[must_use]
    pub fn from_message(command: &str, status: &str, said: &str) -> Self {
        let detail = said.trim().replace('\n', "; ");
        let command = command.to_owned();
        let has = |words: &[&str]| words.iter().any(|w| detail.contains(w));
        if has(UNCONFIGURED) {
            Self::Unconfigured { command, detail }
        } else if has(UNREACHABLE) {
            Self::Unreachable { command, detail }
        } else if has(REFUSED) {
            Self::Refused { command, detail }
        } else if has(NO_NODE) {
            Self::NoSuchNode { command, detail }
        } else if has(NO_JOB) {
            Self::NoSuchJob { command, detail }
        } else if has(BAD_STATE) {
            Self::InvalidState { command, detail }
        } else {
            Self::Failed {
                command,
                status: status.to_owned(),
                detail,
            }
        }
    }

    /// Whether another user than this one might be let.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::NoConf { source, .. } | Self::Io { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Refused { .. } => true,
            Self::Unconfigured { detail, .. }
            | Self::Unreachable { detail, .. }
            | Self::Failed { detail, .. } => detail.contains(DENIED),
            Self::Missing { .. }
            | Self::NoPlugins { .. }
            | Self::NoSuchNode { .. }
            | Self::NoSuchJob { .. }
            | Self::InvalidState { .. }
            | Self::NoGate
            | Self::Timeout { .. }
            | Self::Unparsable { .. }
            | Self::TooMuch { .. } => false,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }
}

const UNCONFIGURED: &[&str] = &[
    "Could not establish a configuration source",
    "Unable to process configuration file",
];
const UNREACHABLE: &[&str] = &[
    "Unable to contact slurm controller",
    "Socket timed out on send/recv operation",
    "Transport endpoint is not connected",
    "Connection refused",
    "Zero Bytes were transmitted or received",
    "Protocol authentication error",
    "Slurm backup controller in standby mode",
    "Slurm controller in standby mode",
    "Slurm temporarily unable to accept job, sleeping and retrying",
    "Munge decode failed",
    "Munge encode failed",
    "Failed to connect to",
];
/// What the C library says of files, which Slurm's programs print, too.
const DENIED: &str = "Permission denied";
const REFUSED: &[&str] = &[
    "Invalid user id",
    "Access/permission denied",
    DENIED,
    "Operation not permitted",
    "not authorized",
];
const NO_NODE: &[&str] = &["Invalid node name"];
const NO_JOB: &[&str] = &["Invalid job id"];
const BAD_STATE: &[&str] = &[
    "Invalid node state",
    "Job/step already completing or completed",
    "Job is pending execution",
    "Job is no longer pending execution",
    "Requested operation is presently disabled",
    "Requested nodes are busy",
];
