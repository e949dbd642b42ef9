//! The demo.
use anyhow::Result;
use std::process::ExitCode;
/// o
#[derive(Debug, clap::Args)]
pub struct Options {}
/// r
pub fn run(_options: &Options) -> Result<ExitCode> {
    todo!()
}
