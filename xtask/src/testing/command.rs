//! The command that runs tests: cargo's own, or nextest where it is installed.

use crate::steps::{cargo, has};
use std::process::Command;

/// Some of the tests.
#[derive(Debug)]
pub struct Tests {
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
        // Never of some packages alone: with other features cargo would build much anew.
        command.arg("--workspace");
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
