//! The command line: what can be typed, and what the exit codes mean.

mod args;
mod doctor;
mod findings;
mod generate;
mod guest;
mod hostlist;
mod jobs;
mod look;
mod nodes;
mod place;
mod serve;
mod setup;
mod sim;
mod submit;
mod watch;

use crate::output::Printer;
use args::{Cli, Command, ConfigCommand};
use clap::Parser as _;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use thiao_api::client::{Client, ClientError};
use thiao_config::Config;

/// It did not work.
const FAILED: u8 = 1;
/// What was typed makes no sense.
const MALFORMED: u8 = 2;
/// No controller answers.
const UNREACHABLE: u8 = 3;

/// What was typed makes no sense; found later than by the parser.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Malformed(String);

/// Runs the command line, the program's name first.
#[must_use]
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    // Called as `thiaod` it is the controller.
    if args
        .first()
        .is_some_and(|name| Path::new(name).file_name() == Some("thiaod".as_ref()))
    {
        args.insert(1, "serve".into());
    }
    // Not for people: its arguments are between the controller and its child.
    if args
        .get(1)
        .is_some_and(|name| name == thiao_qemu::export::SUBCOMMAND)
    {
        return thiao_qemu::export::child(&args[2..]);
    }
    if let Some((file, words)) = submit::called(&args) {
        return ended(submit::run(file.as_deref(), words).map(|()| ExitCode::SUCCESS));
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" here, with code 0. A reader that has left is none.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(MALFORMED));
        }
    };
    ended(run(cli))
}

/// Says what went wrong, if anything did.
fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thiao: {}", crate::output::clean(&format!("{error:#}")));
            ExitCode::from(code_of(&error))
        }
    }
}

/// `thiao nodes | head` is no mistake.
fn reader_left(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ClientError>() {
        Some(error) if error.unreachable() => UNREACHABLE,
        Some(ClientError::Refused { code: 400, .. }) => MALFORMED,
        None if error.is::<Malformed>() => MALFORMED,
        _ => FAILED,
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = cli.config.as_deref();
    let printer = Printer::stdout();
    let client = || -> anyhow::Result<Client> { Ok(Client::new(&thiao_config::state_dir(file)?)) };
    match cli.command {
        Command::Serve => serve::run(Config::load(file)?)?,
        Command::Status(how) => look::status(&client()?, printer, how)?,
        Command::Nodes(which) => nodes::run(&client()?, printer, &which)?,
        Command::Vms(how) => look::vms(&client()?, printer, how)?,
        Command::Hosts(how) => look::hosts(&client()?, printer, how)?,
        Command::Jobs(how) => jobs::run(&client()?, printer, &how)?,
        Command::Plan(how) => look::plan(&client()?, printer, how)?,
        Command::Events(which) => look::events(&client()?, printer, &which)?,
        Command::Explain { name, how } => look::explain(&client()?, printer, &name, how)?,
        Command::Resume { nodes, force } => {
            hostlist::check(&nodes)?;
            let accepted = client()?.resume(&nodes, force)?;
            printer.say(&format!("{}: {}", accepted.nodes, accepted.message))?;
        }
        Command::Suspend { nodes, force } => {
            hostlist::check(&nodes)?;
            let accepted = client()?.suspend(&nodes, force)?;
            printer.say(&format!("{}: {}", accepted.nodes, accepted.message))?;
        }
        Command::Submit { words } => submit::run(file, &words)?,
        Command::Clean { job } => {
            let accepted = client()?.clean(job)?;
            printer.say(&accepted.message)?;
        }
        Command::Config(ConfigCommand::Show) => printer.print(&thiao_config::load(file)?.show())?,
        Command::Config(ConfigCommand::Check) => {
            let config = Config::load(file)?;
            let (nodes, sets) = (config.nodes.len(), config.nodesets.len());
            let file = config.file.display();
            printer.print(&format!(
                "{file} is right: cluster {}, {nodes} nodes in {sets} nodesets\n",
                config.cluster
            ))?;
        }
        Command::Setup(how) => setup::run(file, printer, &how)?,
        Command::Doctor(how) => return doctor::run(file, printer, &how),
        Command::Guest(how) => guest::run(file, printer, &how)?,
        Command::Hostlist(command) => hostlist::run(printer, &command)?,
        Command::Sim(command) => return sim::run(printer, &command),
        Command::Generate { what, dir } => generate::run(what, &dir)?,
        // The lab needs a process without other threads: nothing was started before this.
        Command::Lab(command) => return crate::lab::run(command),
    }
    Ok(ExitCode::SUCCESS)
}
