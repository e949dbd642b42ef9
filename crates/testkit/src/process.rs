//! Programs that are run to their end.

use std::process::{Command, Output};

/// Runs it: its exit code, what it printed, and what it complained of.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String, String) {
    said(command.output().unwrap())
}

/// The same of a program that has ended.
#[track_caller]
pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}
