//! What exit codes mean, and how a program says what went wrong.

use crate::output::clean;
use clap::Parser;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// It did not work.
pub const FAILED: u8 = 1;
/// What was typed makes no sense.
pub const MALFORMED: u8 = 2;
/// No controller could be reached.
pub const UNREACHABLE: u8 = 3;

/// What was typed makes no sense; found later than by the parser.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Reads what was typed, the program's name first. Help and mistakes are printed.
///
/// # Errors
/// When the program is to end at once, with this code.
pub fn parse<C: Parser>(args: Vec<OsString>) -> Result<C, ExitCode> {
    C::try_parse_from(args).map_err(|error| {
        // Help and version are "errors" here, with code 0. A reader that has left is none.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(MALFORMED))
    })
}

/// Says what went wrong, if anything did. `code` is asked for errors that have a code of their own.
pub fn ended(result: anyhow::Result<ExitCode>, code: impl FnOnce(&anyhow::Error) -> Option<u8>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            crate::tell!("thiao: {}", clean(&format!("{error:#}")));
            let malformed = error.is::<Malformed>().then_some(MALFORMED);
            ExitCode::from(malformed.or_else(|| code(&error)).unwrap_or(FAILED))
        }
    }
}

/// `thiao nodes | head` is no mistake.
fn reader_left(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
