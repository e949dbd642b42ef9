//! Every check and test: with the machine's own Slurm, and with others.

use crate::report::Report;
use crate::slurm::{self, Making, Suite};
use crate::steps::{cargo, code, has, passes, simulate};
use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode};

/// What `test` was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestArgs {
    /// Without real VMs.
    pub fast: bool,
    /// Everything, on the machine's own Slurm.
    pub own: bool,
    /// What another Slurm may change, on these.
    pub suites: Vec<&'static Suite>,
    /// Their root file systems are made anew.
    pub fresh: bool,
}

impl TestArgs {
    /// Reads what was typed.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn read(args: &[String]) -> Result<Self> {
        let mut wanted = Self::default();
        let mut words = args.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "--fast" => wanted.fast = true,
                "--fresh" => wanted.fresh = true,
                "--slurm" => match words.next().context("--slurm needs a version, or all")? {
                    "all" => {
                        wanted.own = true;
                        wanted.suites.extend(slurm::SUITES.iter());
                    }
                    version => wanted.suites.push(Suite::with(version)?),
                },
                other => bail!("test takes --fast, --slurm, --fresh and --yes, not {other}"),
            }
        }
        if wanted.suites.is_empty() {
            wanted.own = true;
        }
        Ok(wanted)
    }
}

/// Some of the tests.
#[derive(Debug)]
pub struct Tests {
    /// Of this package alone.
    pub package: Option<&'static str>,
    /// Of these test programs alone.
    pub binaries: &'static [&'static str],
    /// Only those with this in their names.
    pub only: Option<&'static str>,
    /// Not those with this in their names.
    pub without: Option<&'static str>,
    /// So many at the same time; by default as many as there are cores.
    pub at_once: Option<usize>,
}

impl Tests {
    /// The command that runs them, each by `runner`.
    pub fn command(&self, runner: Option<&[String]>) -> Command {
        let nextest = has("nextest");
        let mut command = cargo();
        match nextest {
            true => command.args(["nextest", "run"]),
            false => command.arg("test"),
        };
        match self.package {
            Some(package) => command.args(["--package", package]),
            None => command.arg("--workspace"),
        };
        for binary in self.binaries {
            command.args(["--test", binary]);
        }
        command.arg("--no-fail-fast");
        if let Some(runner) = runner {
            command.arg("--config");
            // As TOML has strings, also of odd names.
            command.arg(format!("target.'cfg(all())'.runner = {runner:?}"));
        }
        let at_once = self.at_once.map(|count| format!("--test-threads={count}"));
        if let (true, Some(at_once)) = (nextest, &at_once) {
            command.arg(at_once);
        }
        command.arg("--");
        if let (false, Some(at_once)) = (nextest, &at_once) {
            command.arg(at_once);
        }
        command.args(self.only);
        if let Some(name) = self.without {
            command.args(["--skip", name]);
        }
        command
    }
}

/// Every check and test that is wanted; what came of each is told in the last lines.
pub fn test(wanted: &TestArgs) -> Result<ExitCode> {
    let mut report = Report::default();
    let making = Making::start(&wanted.suites, wanted.fresh);
    if wanted.own {
        checks(&mut report)?;
    }
    // Labs run our own binaries, which a test's own build does not make. All targets: so that
    // the tests below find everything built with the same features.
    if !passes(cargo().args(["build", "--workspace", "--all-targets"]))? {
        bail!("the build failed");
    }
    // Before the tests, of which many measure time.
    let roots = making.wait();
    if wanted.own {
        let all = Tests {
            package: None,
            binaries: &[],
            only: None,
            without: wanted.fast.then_some("lab_"),
            at_once: None,
        };
        report.tests("all tests", &mut all.command(None))?;
        if wanted.fast {
            report.skipped("labs with real VMs", "--fast");
        }
        report.run("the simulation", &mut simulate(&[]))?;
    }
    for (suite, root) in roots {
        slurm::test(suite, root, wanted.fast, &mut report)?;
    }
    println!("\n{report}");
    Ok(code(report.passed()))
}

/// What is checked without running anything of ours.
fn checks(report: &mut Report) -> Result<()> {
    report.run("cargo fmt", cargo().args(["fmt", "--all", "--check"]))?;
    report.run(
        "cargo clippy",
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    if !has("deny") {
        report.skipped(
            "cargo deny",
            "it is not installed; xtask/tests/dependencies.rs asks the same",
        );
        return Ok(());
    }
    // Not the advisories: their database must be fetched, and changes by itself.
    report.run(
        "cargo deny",
        cargo().args([
            "deny",
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(typed: &str) -> Result<TestArgs> {
        let args: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
        TestArgs::read(&args)
    }

    #[test]
    fn tests_are_asked_for_by_slurms_version() {
        let own = wanted("--fast").unwrap();
        assert!(own.own && own.fast && own.suites.is_empty());
        let one = wanted("--slurm 26.05 --fresh").unwrap();
        assert!(!one.own && one.fresh && one.suites == [&slurm::SUITES[1]]);
        let all = wanted("--slurm all").unwrap();
        assert!(all.own && all.suites.len() == slurm::SUITES.len());
        for wrong in ["--slurm", "--slurm 25.11", "--slow"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
