//! Reads the file, checks it whole, and says where each value came from.

use crate::error::{ConfigError, PathDisplay};
use crate::read::{Findings, Lines, Origin, Problem, Shown};
use crate::resolve::{self, Machine};
use crate::settings::Config;
use crate::usual::DEFAULT_FILE;
use crate::{passwd, programs};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// No settings file of people is longer.
const MAX_BYTES: u64 = 1 << 20;

/// The settings and how they came to be.
pub struct Loaded {
    pub config: Config,
    shown: Vec<Shown>,
}

impl Config {
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
pub(crate) fn read_trusted(file: &Path) -> Result<String, ConfigError> {
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
            message: format!("is not TOML: {}", e.message()),
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
                let message = "cannot be resolved; please report this as a bug in Thiao".to_owned();
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

/// The file; where a resolver of this machine's own stands before its servers, what that goes by.
/// As `ip_local_port_range` has it; Linux's own where that cannot be read.
fn any_port() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    ports.next().zip(ports.next()).unwrap_or((32_768, 60_999))
}

fn resolv_conf() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    match text.lines().any(|line| line.trim() == "nameserver 127.0.0.53") {
        true => read("/run/systemd/resolve/resolv.conf"),
        false => text,
    }
}

pub(crate) fn this_machine() -> Machine {
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
        resolv_conf: resolv_conf(),
        any_port: any_port(),
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
