//! Every check and test: with the machine's own Slurm, and with others.

mod command;
mod others;

use crate::report::Report;
use crate::slurm::{self, Making, Roots, Suite};
use crate::steps::{self, cargo, code, has, passes, simulate};
use crate::tools::Deny;
use anyhow::{Context, Result, bail};
use command::Tests;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What `test` was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestArgs {
    /// Without those with real VMs.
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

/// Every check and test that is wanted; what came of each is told in the last lines.
pub fn test(wanted: &TestArgs) -> Result<ExitCode> {
    let mut report = Report::default();
    let making = Making::start(&wanted.suites, wanted.fresh);
    let denying = wanted.own.then(Deny::start);
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
    if let Some(denying) = denying {
        deny(&mut report, denying)?;
    }
    for beside in side_by_side(wanted, roots)? {
        report.add_all(beside);
    }
    println!("\n{report}");
    Ok(code(report.passed()))
}

/// Runs the tests of the machine's own Slurm, and beside them those of the others, one after the other, and the
/// simulation: they wait for most of their time. With all beside each other slurmctlds came too late for what was
/// recorded, on two cores.
fn side_by_side(wanted: &TestArgs, roots: Roots) -> Result<Vec<Report>> {
    let fast = wanted.fast;
    std::thread::scope(|scope| {
        let own = wanted.own.then(|| scope.spawn(move || own_tests(fast)));
        let mut others = Vec::new();
        for (suite, root) in roots {
            others.push(others::test(suite, root, fast)?);
        }
        if wanted.own {
            others.push(simulation()?);
        }
        let own = own.map(|lane| match lane.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        own.into_iter().chain(others.into_iter().map(Ok)).collect()
    })
}

/// All tests, with the machine's own Slurm.
fn own_tests(fast: bool) -> Result<Report> {
    let mut report = Report::default();
    let all = Tests {
        binaries: &[],
        only: None,
        without: fast.then_some("lab_"),
        // In cargo's own harness nothing keeps labs apart but this.
        at_once: has("nextest").then(|| 2 * cores()),
    };
    report.tests("all tests", &mut all.command(None))?;
    for (test, why) in ignored(&steps::root())? {
        report.skipped(&format!("test {test}"), &why);
    }
    if fast {
        report.skipped("labs with real VMs", "--fast");
    }
    Ok(report)
}

/// The tests below this folder that run only when they are asked for, each with its reason.
fn ignored(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            found.extend(ignored(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.extend(ignored_in(&std::fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

/// The same of one file.
fn ignored_in(source: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let two = lines.windows(2).filter_map(|two| {
        let why = two[0].strip_prefix("#[ignore = \"")?.strip_suffix("\"]")?;
        let name = two[1].strip_prefix("fn ")?.split('(').next()?;
        Some((name.to_owned(), why.to_owned()))
    });
    two.collect()
}

/// A thousand worlds, in the time that the tests leave.
fn simulation() -> Result<Report> {
    let mut report = Report::default();
    report.run("the simulation", &mut behind(&simulate(&[])))?;
    Ok(report)
}

/// The same command, behind all others in the kernel's eyes.
fn behind(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "10"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, _) in command.get_envs().filter(|(_, value)| value.is_none()) {
        nice.env_remove(name);
    }
    nice
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
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
    Ok(())
}

/// What comes into the program from outside. Not the advisories: their database must be fetched, and changes by
/// itself.
fn deny(report: &mut Report, deny: Deny) -> Result<()> {
    match deny.wait() {
        Ok(mut command) => report.run(
            "cargo deny",
            command.args(["--log-level", "error", "check", "bans", "licenses", "sources"]),
        ),
        Err(why) => {
            report.skipped(
                "cargo deny",
                &format!("{why:#}; xtask/tests/dependencies.rs asks the same"),
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(typed: &str) -> Result<TestArgs> {
        let args: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
        TestArgs::read(&args)
    }

    #[test]
    fn tests_that_run_only_when_asked_for_are_told_with_their_reason() {
        let source = "#[test]\n#[ignore = \"minutes: ask for it\"]\nfn long() {\n}\n#[test]\nfn short() {}\n";
        assert_eq!(
            ignored_in(source),
            [("long".to_owned(), "minutes: ask for it".to_owned())]
        );
        let all = ignored(&steps::root()).unwrap();
        assert!(
            all.iter().any(|(test, _)| test == "lab_chaos_ends_in_peace"),
            "{all:?}"
        );
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
