//! The settings: `thiao.toml`, read once, checked whole, resolved into plain
//! values that can be printed with where each came from. Nothing else reads
//! the file, the environment or a default.

pub mod import;
mod passwd;
mod places;
pub mod programs;
mod read;
mod resolve;

use read::{Findings, Lines, Origin, Shown};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::ids::{ClusterName, NodeName, NodesetName};
use thiao_core::options::OptionRule;
use thiao_core::policy::Policy;
use thiao_core::view::Shape;
use toml::de::DeTable;

pub use places::{Places, places, state_dir};
pub use read::Problem;
pub use resolve::Machine;
pub use thiao_core::world::{JobPartition, Mode, NodeSpec};

/// Everything that was configured or is the default, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// Whose nodes these are.
    pub cluster: ClusterName,
    /// Where sockets, spool, database and VMs live.
    pub state_dir: PathBuf,
    /// How Slurm is reached.
    pub slurm: SlurmSettings,
    /// Nodes of one shape, by name.
    pub nodesets: BTreeMap<NodesetName, Nodeset>,
    /// Every node of all nodesets.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// What holds for jobs in nodesets of job mode.
    pub job: JobSettings,
    /// The limits and times that `plan` obeys.
    pub policy: Policy,
    /// When the controller looks and acts.
    pub timing: Timing,
    /// Who makes the VMs, and what it must know.
    pub provider: ProviderSettings,
    /// The `thiao` binary that read the file: other programs of ours are beside it.
    pub program: PathBuf,
}

/// Who makes the VMs, and what it must know.
#[derive(Debug, Clone)]
pub enum ProviderSettings {
    /// The embedded provider: VMs on this machine.
    Qemu(thiao_qemu::Settings),
    /// OpenNebula: VMs on its hosts.
    OpenNebula(thiao_opennebula::Settings),
}

impl ProviderSettings {
    /// The embedded provider's settings, if it is the one.
    #[must_use]
    pub fn qemu(&self) -> Option<&thiao_qemu::Settings> {
        match self {
            Self::Qemu(settings) => Some(settings),
            Self::OpenNebula(_) => None,
        }
    }

    /// OpenNebula's settings, if it is the one.
    #[must_use]
    pub fn opennebula(&self) -> Option<&thiao_opennebula::Settings> {
        match self {
            Self::OpenNebula(settings) => Some(settings),
            Self::Qemu(_) => None,
        }
    }
}

/// How Slurm is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmSettings {
    /// `slurm.conf`; none: where Slurm's programs look themselves.
    pub conf: Option<PathBuf>,
    /// Where `scontrol`, `squeue` and `sinfo` are, with the daemons in its sibling `sbin`; none: by PATH.
    pub bin_dir: Option<PathBuf>,
    /// How long one of them may take.
    pub timeout: Duration,
}

/// Nodes of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodeset {
    /// Their names as a folded hostlist.
    pub nodes: String,
    /// How many.
    pub count: usize,
    /// How big each VM is.
    pub shape: Shape,
    /// The Slurm partition that `thiao setup` puts them in.
    pub partition: String,
    /// Slurm features of them.
    pub features: Vec<String>,
    /// What is set only in job mode; none in power-saving mode.
    pub job: Option<JobNodeset>,
}

impl Nodeset {
    /// For whom its VMs are made.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.job {
            Some(_) => Mode::Job,
            None => Mode::PowerSaving,
        }
    }

    /// The shapes that VMs of it certainly have: those that a provider readies ahead.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        let (one, many) = match &self.job {
            Some(job) => (None, job.warm.as_slice()),
            None => (Some(self.shape), &[][..]),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// What is set only for a nodeset of job mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNodeset {
    /// Memory for each CPU of a job that names none, in MiB: Slurm's `DefMemPerCPU`.
    pub memory_per_cpu_mb: u64,
    /// Sizes for which a guest is booted and saved ahead.
    pub warm: Vec<Shape>,
    /// The most GPUs of a job on one node.
    pub gpus: u32,
}

/// What holds for jobs in nodesets of job mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobSettings {
    /// Who may ask what of VMs (`--vm-*`); empty: nobody anything.
    pub options: Vec<OptionRule>,
    /// Whether a job's VMs are told in its `AdminComment` when it is over.
    pub admin_comment: bool,
}

/// When the controller looks and acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Longest pause between two rounds when nothing wakes the controller.
    pub tick: Duration,
    /// Pause between looks at Slurm when nothing is under way.
    pub slurm_poll: Duration,
    /// Pause between looks at Slurm while nodes or jobs come up or go.
    pub slurm_poll_busy: Duration,
    /// Pause between looks at Slurm in the first seconds after a guest says that its
    /// slurmd runs: its registration is near, and a job waits for us to see it.
    pub slurm_poll_urgent: Duration,
    /// Pause between looks at the provider when nothing is under way.
    pub vm_poll: Duration,
    /// Pause between looks at the provider while VMs come up or go.
    pub vm_poll_busy: Duration,
    /// Looks older than this are not acted on.
    pub look_max_age: Duration,
    /// How long events are kept.
    pub events_keep: Duration,
}

/// Where slurm.conf is if nothing says otherwise.
pub const DEFAULT_SLURM_CONF: &str = "/etc/slurm/slurm.conf";
/// Where the file is when neither `--config` nor `THIAO_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/thiao/thiao.toml";

/// Root's lab, where no other folder is named.
pub const ROOTS_LAB: &str = "/var/lib/thiao-lab";

/// In a lab this variable of the environment names its folder.
pub const LAB_VARIABLE: &str = "THIAO_LAB";

/// Where the state is when the file does not say.
const DEFAULT_STATE_DIR: &str = "/var/lib/thiao";

/// No settings file of people is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: {error}; name another with --config or THIAO_CONFIG")]
    Unreadable {
        /// Which.
        file: PathDisplay,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not to be trusted.
    #[error("{file}: {why}")]
    Untrusted {
        /// Which.
        file: PathDisplay,
        /// Why, and the remedy.
        why: String,
    },
    /// What it says is wrong.
    #[error("{}", list(.file, .problems))]
    Wrong {
        /// Which.
        file: PathDisplay,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

/// A path that prints itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathDisplay(pub PathBuf);

impl fmt::Display for PathDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

fn list(file: &PathDisplay, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|Problem { line, key, message }| {
            let place = if *line == 0 {
                format!("{file}")
            } else {
                format!("{file}:{line}")
            };
            if key.is_empty() {
                format!("{place}: {message}")
            } else {
                format!("{place}: {key}: {message}")
            }
        })
        .collect();
    lines.join("\n")
}

/// The settings and how they came to be.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    shown: Vec<Shown>,
}

impl Config {
    /// The nodes whose VMs are made for one job each.
    #[must_use]
    pub fn job_nodes(&self) -> BTreeSet<NodeName> {
        let own = self.nodes.iter().filter(|(_, spec)| spec.mode == Mode::Job);
        own.map(|(node, _)| node.clone()).collect()
    }

    /// The shapes that VMs certainly have, each once: those that a provider readies ahead.
    #[must_use]
    pub fn shapes(&self) -> Vec<Shape> {
        let shapes: BTreeSet<Shape> = self.nodesets.values().flat_map(Nodeset::shapes).collect();
        shapes.into_iter().collect()
    }

    /// What job_submit.lua touches when a job of job mode is submitted.
    #[must_use]
    pub fn submitted_file(&self) -> PathBuf {
        self.state_dir.join("spool/submitted")
    }

    /// Whether VMs are Thiao's own guests: small, with slurmd and no more.
    #[must_use]
    pub fn own_guests(&self) -> bool {
        matches!(self.provider, ProviderSettings::Qemu(_))
    }

    /// The folders of this machine that Thiao's own guests see, by their paths there. What OpenNebula's images
    /// see is not known.
    #[must_use]
    pub fn shared_folders(&self) -> Vec<PathBuf> {
        match &self.provider {
            ProviderSettings::Qemu(settings) => {
                let shares = settings.guest.shares.iter();
                shares.map(|share| share.target.clone()).collect()
            }
            ProviderSettings::OpenNebula(_) => Vec::new(),
        }
    }

    /// The partitions whose jobs get VMs of their own.
    #[must_use]
    pub fn job_partitions(&self) -> BTreeMap<String, JobPartition> {
        let mut partitions: BTreeMap<String, JobPartition> = BTreeMap::new();
        for (name, set) in self.nodesets.iter().filter(|(_, set)| set.mode() == Mode::Job) {
            let partition = partitions
                .entry(set.partition.clone())
                .or_insert_with(|| JobPartition {
                    nodesets: Default::default(),
                    most: set.shape,
                    gpus: 0,
                });
            let gpus = set.job.as_ref().map_or(0, |job| job.gpus);
            partition.gpus = partition.gpus.max(gpus);
            partition.nodesets.insert(name.clone());
            partition.most.cpus = partition.most.cpus.max(set.shape.cpus);
            partition.most.memory_mb = partition.most.memory_mb.max(set.shape.memory_mb);
        }
        partitions
    }

    /// Reads and checks the settings; `file` is what `--config` or `THIAO_CONFIG` names, if anything.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
        load(file).map(|loaded| loaded.config)
    }
}

/// As [`Config::load`], with where each value came from.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    let text = read_trusted(file)?;
    parse(file, &text, &this_machine())
}

/// As [`Config::load`], of a text that is not in the file yet.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn from_text(file: &Path, text: &str) -> Result<Config, ConfigError> {
    parse(file, text, &this_machine()).map(|loaded| loaded.config)
}

/// Reads the file unless others than its owner and group may write to it: it names programs and secrets.
fn read_trusted(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable {
        file: PathDisplay(file.to_owned()),
        error,
    };
    let untrusted = |why: String| ConfigError::Untrusted {
        file: PathDisplay(file.to_owned()),
        why,
    };
    let handle = File::open(file).map_err(unreadable)?;
    let meta = handle.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(untrusted("is not a file".to_owned()));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(untrusted(format!(
            "everybody may write to it: chmod o-w {}",
            file.display()
        )));
    }
    let mut text = String::new();
    handle
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(untrusted(format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Checks a file's text: with nothing but these values, no file and no variable is read.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(file: &Path, text: &str, machine: &Machine) -> Result<Loaded, ConfigError> {
    let wrong = |problems| ConfigError::Wrong {
        file: PathDisplay(file.to_owned()),
        problems,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let lines = Lines::of(text);
        let problem = |e: &toml::de::Error| Problem {
            line: e.span().map_or(0, |span| lines.line(span.start)),
            key: String::new(),
            message: format!("is no TOML: {}", e.message()),
        };
        return Err(wrong(errors.iter().map(problem).collect()));
    }
    match resolve::resolve(file, text, table.get_ref(), machine) {
        (Some(config), findings) => Ok(Loaded {
            config,
            shown: findings.shown,
        }),
        (None, Findings { mut problems, .. }) => {
            if problems.is_empty() {
                let message = "cannot be resolved; please report this as a mistake of Thiao's".to_owned();
                problems.push(Problem {
                    line: 0,
                    key: String::new(),
                    message,
                });
            }
            Err(wrong(problems))
        }
    }
}

fn this_machine() -> Machine {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let info = rustix::system::sysinfo();
    // Only /proc missing can hide it; then PATH finds it.
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("thiao"));
    Machine {
        name: name.split('.').next().unwrap_or_default().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mb: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) >> 20,
        one_xmlrpc: variable("ONE_XMLRPC").and_then(|text| text.into_string().ok()),
        one_auth: variable("ONE_AUTH").map(PathBuf::from),
        home: variable("HOME").map(PathBuf::from),
        agent: programs::place(&program, "thiao-guest"),
        user: passwd::by_name,
        slurm: installed,
        program,
    }
}

/// The Slurm that is installed here.
///
/// # Errors
/// Where it was looked for in vain.
pub fn installed(bin_dir: Option<&Path>, plugins: &[PathBuf]) -> Result<thiao_qemu::SlurmFiles, String> {
    let found = thiao_slurm::Install::find(bin_dir, plugins).map_err(|error| error.to_string())?;
    let thiao_slurm::Install { bin, sbin, plugins } = found;
    Ok(thiao_qemu::SlurmFiles { bin, sbin, plugins })
}

/// A variable of the environment, unless it is empty.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Loaded {
    /// All settings as TOML, each with where it came from.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = format!("# resolved from {}\n", self.config.file.display());
        for line in &self.shown {
            // Writing to a String cannot fail.
            let _ = match line {
                Shown::Head(head) => writeln!(text, "\n{head}"),
                Shown::Key {
                    key,
                    value: Some(value),
                    origin,
                } => {
                    let set = format!("{key} = {value}");
                    match origin {
                        Origin::Line(line) => writeln!(text, "{set:<48} # line {line}"),
                        Origin::Default => writeln!(text, "{set:<48} # default"),
                        Origin::Environment(name) => writeln!(text, "{set:<48} # from ${name}"),
                    }
                }
                Shown::Key { key, value: None, .. } => {
                    writeln!(text, "{:<48} # not set", format!("# {key} ="))
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests;
