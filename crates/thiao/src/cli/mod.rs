//! stub
use std::{ffi::OsString, process::ExitCode};
/// Runs the command line.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    ExitCode::FAILURE
}
