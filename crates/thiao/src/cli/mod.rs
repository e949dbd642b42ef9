//! The command line: what can be typed, and what the exit codes mean.

mod args;
mod beside;
mod console;
mod doctor;
mod findings;
mod guest;
mod hostlist;
mod image;
mod jobs;
mod nodes;
mod place;
mod setup;
mod show;
mod ssh;
mod submit;
mod time;
mod watch;

use args::{Cli, Command, ConfigCommand};
use clap::CommandFactory as _;
use std::ffi::OsString;
use std::process::ExitCode;
use thiao_api::client::{Client, ClientError};
use thiao_cli::exit::{self, MALFORMED, UNREACHABLE};
use thiao_cli::output::Printer;
use thiao_config::Config;

/// Runs the command line, the program's name first.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    if let Some((file, words)) = submit::called(&args) {
        return ended(submit::run(file.as_deref(), words).map(|()| ExitCode::SUCCESS));
    }
    match exit::parse(args) {
        Ok(cli) => ended(run(cli)),
        Err(code) => code,
    }
}

/// All that can be typed, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    exit::ended(result, code_of)
}

/// The exit codes of what a controller answers, or does not.
fn code_of(error: &anyhow::Error) -> Option<u8> {
    match error.downcast_ref::<ClientError>()? {
        error if error.unreachable() => Some(UNREACHABLE),
        ClientError::Refused { code: 400, .. } => Some(MALFORMED),
        _ => None,
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = cli.config.as_deref();
    let printer = Printer::stdout();
    let client = || -> anyhow::Result<Client> { Ok(Client::new(&thiao_config::state_dir(file)?)) };
    match cli.command {
        Command::Serve => {
            let file = file
                .iter()
                .flat_map(|file| ["--config".as_ref(), file.as_os_str()]);
            let words: Vec<OsString> = file.map(OsString::from).collect();
            match beside::run("thiaod", &words)? {}
        }
        Command::Status(how) => show::status(&client()?, printer, how)?,
        Command::Nodes(which) => nodes::run(&client()?, printer, &which)?,
        Command::Vms(how) => show::vms(&client()?, printer, how)?,
        Command::Hosts(how) => show::hosts(&client()?, printer, how)?,
        Command::Jobs(how) => jobs::run(&client()?, printer, &how)?,
        Command::Plan(how) => show::plan(&client()?, printer, how)?,
        Command::Events(which) => show::events(&client()?, printer, &which)?,
        Command::Explain { name, how } => show::explain(&client()?, printer, &name, how)?,
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
            let client = client()?;
            for job in job.each() {
                printer.say(&client.clean(*job)?.message)?;
            }
        }
        Command::Config(ConfigCommand::Show) => printer.print(&thiao_config::load(file)?.show())?,
        Command::Config(ConfigCommand::Check) => {
            let config = Config::load(file)?;
            if let Some(why) = thiao_config::overpromised(&config) {
                anyhow::bail!("{}: {why}", config.file.display());
            }
            let (nodes, sets) = (config.nodes.len(), config.nodesets.len());
            let file = config.file.display();
            printer.print(&format!(
                "{file} is right: cluster {}, {nodes} nodes in {sets} nodesets\n",
                config.cluster
            ))?;
        }
        Command::Setup(how) => setup::run(file, printer, &how)?,
        Command::Doctor(how) => return doctor::run(file, printer, &how),
        Command::Ssh { place, node, command } => ssh::run(file, &place, node.as_deref(), &command)?,
        Command::Console { vm } => console::run(file, &vm)?,
        Command::Image(how) => return image::run(file, printer, &how),
        Command::Guest(how) => guest::run(file, printer, &how)?,
        Command::Hostlist(command) => hostlist::run(printer, &command)?,
        Command::Sim(typed) => match beside::run("thiao-sim", &typed.words)? {},
        Command::Lab(typed) => match beside::run("thiao-lab", &typed.words)? {},
    }
    Ok(ExitCode::SUCCESS)
}
