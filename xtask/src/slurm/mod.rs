//! Other versions of Slurm than the machine's own: Debian's suites have them, each in a root file
//! system of its own, in which tests and commands run. They are built outside.

pub mod inside;
mod make;

pub use make::reach;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread::JoinHandle;

/// A release of Slurm's, as it is named: `24.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    year: u16,
    month: u16,
}

impl Release {
    /// Reads `24.11`, also out of a longer `24.11.5`.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let year = parts.next()?.parse().ok()?;
        let month = parts.next()?.parse().ok()?;
        Some(Self { year, month })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.year, self.month)
    }
}

/// One of Debian's suites.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// Debian's name of it.
    pub name: &'static str,
    /// The Slurm that it was seen to have; a suite that is not released yet gets newer ones.
    pub slurm: Release,
}

/// The suites with another Slurm than Debian 12's (seen in November 2026).
pub const SUITES: [Suite; 2] = [
    Suite {
        name: "trixie",
        slurm: Release { year: 24, month: 11 },
    },
    Suite {
        name: "forky",
        slurm: Release { year: 26, month: 5 },
    },
];

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slurm {} (Debian's {})", self.slurm, self.name)
    }
}

impl Suite {
    /// The suite that has this version.
    ///
    /// # Errors
    /// When none has; the message names those that there are.
    pub fn with(version: &str) -> Result<&'static Self> {
        let release = Release::read(version);
        let found = SUITES.iter().find(|suite| Some(suite.slurm) == release);
        found.with_context(|| {
            let known = SUITES.map(|suite| suite.slurm.to_string());
            format!(
                "no suite of Debian's has Slurm {version}: there are {}",
                known.join(" and ")
            )
        })
    }
}

/// A root file system that is whole. Nobody makes it anew while this is held.
pub struct Root {
    /// What is in it.
    pub suite: &'static Suite,
    path: PathBuf,
    _lock: File,
}

/// The root file systems of suites, as far as they could be made.
pub type Roots = Vec<(&'static Suite, Result<Root>)>;

/// Root file systems in the making, beside other work.
pub struct Making(Vec<(&'static Suite, JoinHandle<Result<Root>>)>);

impl Making {
    /// Begins to make those that are missing or stale, or all of them anew if `fresh`.
    #[must_use]
    pub fn start(suites: &[&'static Suite], fresh: bool) -> Self {
        let begin = |suite: &&'static Suite| {
            let suite: &'static Suite = suite;
            (suite, std::thread::spawn(move || Root::of(suite, fresh)))
        };
        Self(suites.iter().map(begin).collect())
    }

    /// Waits until all are made.
    pub fn wait(self) -> Roots {
        let end = |(suite, thread): (_, JoinHandle<Result<Root>>)| {
            let ended = thread.join();
            (
                suite,
                ended.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))),
            )
        };
        self.0.into_iter().map(end).collect()
    }
}

impl Root {
    /// The root file system of a suite, made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    fn of(suite: &'static Suite, fresh: bool) -> Result<Self> {
        let (path, lock) = make::root(suite, fresh)?;
        Ok(Self {
            suite,
            path,
            _lock: lock,
        })
    }

    /// The command that runs what is added to it in here.
    ///
    /// # Errors
    /// When this program does not find itself.
    fn command(&self) -> Result<Command> {
        let mut words = self.runner()?.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        Ok(command)
    }

    /// The words before a command that runs in here.
    pub fn runner(&self) -> Result<Vec<String>> {
        let own = std::env::current_exe().context("this program does not find itself")?;
        let text = |path: PathBuf| {
            path.into_os_string()
                .into_string()
                .map_err(|path| anyhow::anyhow!("{} is no Unicode", path.display()))
        };
        Ok(vec![
            text(own)?,
            inside::ENTER.to_owned(),
            text(self.path.clone())?,
        ])
    }

    /// The Slurm in it, by its own word; compared with what the suite is there for.
    pub fn version(&self) -> Result<String> {
        let mut command = self.command()?;
        command.args(["slurmctld", "-V"]);
        let output = command.output().context("slurmctld -V cannot be run")?;
        // Debian's says `slurm-wlm 24.11.5`, others `slurm 24.11.5`.
        let said = String::from_utf8_lossy(&output.stdout);
        judge(self.suite, said.split_whitespace().last().unwrap_or_default())
    }
}

/// What is said about the version that came with a suite.
fn judge(suite: &Suite, version: &str) -> Result<String> {
    let (name, known) = (suite.name, suite.slurm);
    match Release::read(version) {
        None => bail!("the slurmctld of Debian's {name} does not tell its version: {version:?}"),
        Some(came) if came < known => bail!("Debian's {name} has Slurm {version}, older than {known}"),
        Some(came) if came > known => Ok(format!(
            "Slurm {version} of Debian's {name}, newer than the {known} that is known"
        )),
        Some(_) => Ok(format!("Slurm {version} of Debian's {name}")),
    }
}

/// Runs a command in the root file system of a version.
///
/// # Errors
/// When there is none, or the command cannot be run.
pub fn run(version: &str, command: &[String]) -> Result<ExitCode> {
    let root = Root::of(Suite::with(version)?, false)?;
    eprintln!("== {}", root.version()?);
    Ok(inside::code(root.command()?.args(command).status()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_found_by_slurms_version() {
        assert_eq!(Suite::with("24.11").unwrap().name, "trixie");
        assert_eq!(Suite::with("26.05").unwrap().name, "forky");
        for wrong in ["25.11", "x", ""] {
            let why = Suite::with(wrong).unwrap_err().to_string();
            assert!(why.contains("24.11 and 26.05"), "{why}");
        }
    }

    #[test]
    fn a_newer_slurm_is_run_and_named_and_an_older_one_is_not() {
        let [trixie, forky] = &SUITES;
        assert_eq!(
            judge(trixie, "24.11.5").unwrap(),
            "Slurm 24.11.5 of Debian's trixie"
        );
        assert!(judge(forky, "26.11.0").unwrap().contains("newer than the 26.05"));
        assert!(judge(forky, "25.11.7").is_err() && judge(forky, "").is_err());
    }
}
