//! The lab: a private Slurm with VMs on one machine, wholly inside namespaces
//! of its own, for playing, for the demo, and for tests.
//!
//! ```text
//!  thiao lab up --clone3--> keeper (pid 1 of the lab) --> munged, slurmctld, thiaod --> VMs
//!       |  line: progress, "stay", or the end                ^
//!  thiao lab status|down --- keeper.sock --------------------+
//!  thiao lab shell|submit|exec: setns into the keeper's namespaces
//! ```
//! With `--opennebula` the keeper starts a stand-in for OpenNebula's front-end
//! before the controller, which then makes its VMs through that.
//!
//! Nothing of the machine is touched outside the lab's folder and the image
//! cache: bridge, taps, processes and mounts are the namespaces' and end with
//! the keeper. Root is not needed; without it the lab lives in a user
//! namespace in which the person keeps the own uid.

// They panic when nobody reads any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod auth;
mod bench;
mod console;
mod demo;
mod enter;
mod files;
mod image;
mod keeper;
mod layout;
mod oned;
mod person;
mod plan;
mod services;
mod signals;
mod slurm_log;
mod spawn;
mod up;
mod wire;
mod world;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use enter::{As, Running};
use layout::Layout;
use plan::Options;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command as Program, ExitCode, ExitStatus};
use std::time::Duration;
use thiao_cli::output::Printer;
use thiao_cli::{exit, say, tell};
use up::NotUp;
use wire::{Reply, Status};

/// Keep a private Slurm with VMs, for playing and tests
#[derive(Debug, Parser)]
#[command(
    name = "thiao-lab",
    bin_name = "thiao lab",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs the command line, the program's name first.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    if let Some(ended) = thiao_nfs::called(&args).or_else(|| console::called(&args)) {
        return ended;
    }
    match exit::parse(args) {
        // The lab needs a process without other threads: nothing was started before this.
        Ok(Cli { command }) => exit::ended(run(command), |_| None),
        Err(code) => code,
    }
}

/// All that can be typed, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a private Slurm whose nodes are VMs, and keep it
    Up {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        options: Box<Options>,
        /// Stay in the foreground: on Ctrl-C, or when standard input ends, the lab ends and its folder is removed
        #[arg(long)]
        foreground: bool,
    },
    /// Show what runs in the lab
    Status {
        #[command(flatten)]
        place: Place,
        /// Print JSON, for other programs
        #[arg(long)]
        json: bool,
    },
    /// Open a shell where sbatch, squeue and sinfo talk to the lab
    Shell {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        who: Who,
    },
    /// Run sbatch in the lab, in its home folder
    Submit {
        #[command(flatten)]
        place: Place,
        /// Whose job it is (default: the lab's first user)
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// sbatch's arguments, e.g. `-N2 job.sh` or `--wrap hostname`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Run one command in the lab
    Exec {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        who: Who,
        /// The command and its arguments
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            required = true,
            value_name = "COMMAND"
        )]
        command: Vec<OsString>,
    },
    /// End the lab; homes and logs stay
    Down {
        #[command(flatten)]
        place: Place,
        /// Remove homes and logs too
        #[arg(long)]
        purge: bool,
    },
    /// Stop, start or kill one program of the lab, to see what happens
    #[command(hide = true)]
    Service {
        #[command(flatten)]
        place: Place,
        /// What to do with it
        #[arg(value_parser = ["stop", "start", "kill"])]
        action: String,
        /// munged, slurmctld, oned or thiao
        name: String,
    },
    /// Show Slurm jobs getting VMs, in a lab that is made for it and removed again
    #[command(hide = true)]
    Demo(demo::DemoOptions),
    /// Measure how long a job waits for its VM, in a lab that is made for it and removed again
    #[command(hide = true)]
    Bench(bench::BenchOptions),
    /// Start VMs without the controller, for the bench
    #[command(hide = true)]
    ByHand {
        /// The thiao.toml of the lab
        config: PathBuf,
    },
    /// The oned that the lab's OpenNebula is
    #[command(hide = true)]
    Oned {
        #[command(flatten)]
        place: Place,
    },
    /// The lab's first process
    #[command(hide = true)]
    Keeper {
        #[command(flatten)]
        place: Place,
    },
}

/// Under whom something runs in a lab.
#[derive(Debug, Clone, Args)]
struct Who {
    /// As the lab's owner (root in root's lab), not as one of its users
    #[arg(long, conflicts_with = "user")]
    admin: bool,
    /// As this user of the lab (default: the first one)
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Who {
    /// As whom, and in which folder.
    fn in_lab<'a>(&self, lab: &'a Running) -> Result<(As<'a>, PathBuf)> {
        let user = lab.user(self.user.as_deref())?;
        let who = if self.admin { As::Owner } else { As::User(user) };
        Ok((who, lab.job_folder(std::env::current_dir().ok(), user)))
    }
}

/// Which lab is meant.
#[derive(Debug, Clone, Args)]
struct Place {
    /// The lab's folder (default: ~/.local/state/thiao/lab, root's /var/lib/thiao-lab)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn layout(&self) -> Result<Layout> {
        Layout::new(self.dir.as_deref())
    }

    fn running(&self) -> Result<Running> {
        Running::find(self.layout()?)
    }
}

/// Runs one of the lab's commands. The process must not have other threads yet:
/// entering a user namespace is only possible alone.
///
/// # Errors
/// When it fails; the error says what to do.
fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up {
            place,
            options,
            foreground,
        } => start(place.layout()?, *options, foreground),
        Command::Status { place, json } => status(&place.running()?, json),
        Command::Shell { place, who } => shell(&place.running()?, &who),
        Command::Submit { place, user, args } => submit(&place.running()?, user.as_deref(), &args),
        Command::Exec { place, who, command } => exec(&place.running()?, &who, &command),
        Command::Down { place, purge } => down(place.layout()?, purge),
        Command::Service { place, action, name } => {
            place.running()?.ask(&format!("{action} {name}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::ByHand { config } => bench::by_hand(&config),
        Command::Oned { place } => oned::run(&place.layout()?),
        Command::Keeper { place } => keeper::run(place.layout()?),
    }
}

fn start(layout: Layout, options: Options, foreground: bool) -> Result<ExitCode> {
    signals::watch();
    let begun = std::time::Instant::now();
    let mut say = |text: &str| say!("{:6.1} s  {text}", begun.elapsed().as_secs_f64());
    let up = match up::up(layout.clone(), options, foreground, &mut say) {
        Ok(up) => up,
        Err(NotUp::Interrupted(code)) => return Ok(ExitCode::from(code)),
        Err(NotUp::Failed(error)) => return Err(error),
    };
    let here = layout.dir().display();
    let usual = Layout::new(None).is_ok_and(|usual| usual.dir() == layout.dir());
    let to_it = match usual {
        true => String::new(),
        false => format!(" --dir {here}"),
    };
    say!(
        "The lab is up in {here}. Try `thiao lab shell{to_it}`, then `sbatch --wrap hostname`; end it with `thiao lab down{to_it}`."
    );
    if foreground {
        let code = up.stay();
        up.end()?;
        return Ok(code.map_or(ExitCode::SUCCESS, ExitCode::from));
    }
    up.leave()?;
    Ok(ExitCode::SUCCESS)
}

fn status(lab: &Running, json: bool) -> Result<ExitCode> {
    let Reply::Status(status) = lab.ask("status")? else {
        bail!("the keeper's answer is not a status")
    };
    let printer = Printer::stdout();
    if json {
        let text = serde_json::to_string_pretty(&status).context("the status cannot be encoded")?;
        printer.print(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.print(&draw(lab, &status))?;
    let sinfo = shown(lab.command("sinfo", As::Owner, lab.layout.dir())?, "sinfo")?;
    printer.print("\n")?;
    let thiao = lab.plan.thiao.to_string_lossy();
    let mut own = lab.command(&thiao, As::Owner, lab.layout.dir())?;
    own.arg("status");
    let own = shown(own, "thiao status")?;
    Ok(if sinfo && own && status.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What runs in the lab, for people.
fn draw(lab: &Running, status: &Status) -> String {
    let options = &lab.plan.options;
    let mut lines = vec![
        format!(
            "lab        {} ({}, cluster {})",
            lab.layout.dir().display(),
            if status.ready { "up" } else { "coming up" },
            lab.layout.cluster()
        ),
        format!(
            "keeper     process {}, {} s old{}",
            lab.pid,
            status.age_s,
            if lab.plan.rootless() {
                ", in a user namespace"
            } else {
                ""
            }
        ),
        format!(
            "network    {}/{}, slurmctld's port {}, slurmd's {}",
            options.address, options.prefix_len, options.slurmctld_port, options.slurmd_port
        ),
    ];
    for user in &lab.plan.submitters {
        lines.push(format!(
            "jobs of    {} in {}",
            user.name,
            lab.home(user).display()
        ));
    }
    for service in &status.services {
        let state = match (service.pid, service.wanted) {
            (Some(pid), _) => format!("process {pid} in the lab"),
            (None, true) => "down, will be started again".to_owned(),
            (None, false) => "stopped".to_owned(),
        };
        let again = match (&service.last_end, service.starts) {
            (Some(end), starts) => format!(", started {starts} times, last end: {end}"),
            (None, _) => String::new(),
        };
        lines.push(format!("{:<10} {state}{again}", service.name));
    }
    lines.push(format!("VMs        {}\n\n", status.vms));
    lines.join("\n")
}

/// Whether a program that shows something has worked; that the reader of it has left is told as by our own
/// printing.
fn shown(mut program: Program, name: &str) -> Result<bool> {
    let status = program
        .status()
        .with_context(|| format!("{name} cannot be run"))?;
    if status.signal() == Some(libc::SIGPIPE) {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
    }
    Ok(status.success())
}

fn shell(lab: &Running, who: &Who) -> Result<ExitCode> {
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/bash".to_owned());
    let (who, cwd) = who.in_lab(lab)?;
    lab.enter()?;
    let mut program = lab.inner_command(&shell, who, &cwd)?;
    program.env("PS1", "[lab] \\u:\\w\\$ ");
    if shell.ends_with("/bash") {
        // A person's own rc file would set the prompt anew, and it is another home here.
        program.arg("--norc");
    }
    say!(
        "This is the lab in {}: sbatch, tsub, squeue, sinfo, scontrol and thiao talk to it. `exit` leaves it.",
        lab.layout.dir().display()
    );
    finish(program, &shell)
}

fn submit(lab: &Running, user: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    let user = lab.user(user)?;
    let cwd = lab.job_folder(std::env::current_dir().ok(), user);
    let mut program = lab.command("sbatch", As::User(user), &cwd)?;
    // A script is named from where the person is, though sbatch runs where the guests can write.
    program.args(args.iter().map(absolute_file));
    finish(program, "sbatch")
}

fn exec(lab: &Running, who: &Who, command: &[OsString]) -> Result<ExitCode> {
    let [name, args @ ..] = command else {
        bail!("which command?")
    };
    let (who, cwd) = who.in_lab(lab)?;
    lab.enter()?;
    let name = name.to_string_lossy();
    let mut program = lab.inner_command(&name, who, &cwd)?;
    program.args(args);
    finish(program, &name)
}

/// The absolute path of an argument that names a file here; every other argument as it is.
fn absolute_file(arg: &OsString) -> OsString {
    let is_file = !arg.as_encoded_bytes().starts_with(b"-") && std::path::Path::new(arg).is_file();
    if is_file {
        std::path::absolute(arg).map_or_else(|_| arg.clone(), PathBuf::into_os_string)
    } else {
        arg.clone()
    }
}

/// Runs a program to its end on this terminal; its exit code is ours.
fn finish(mut program: Program, name: &str) -> Result<ExitCode> {
    let status = program
        .status()
        .with_context(|| format!("{name} cannot be run in the lab"))?;
    Ok(code_of(status))
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn down(layout: Layout, purge: bool) -> Result<ExitCode> {
    if !layout.options().exists() {
        if layout.dir().exists() {
            bail!("there is no lab in {}", layout.dir().display());
        }
        say!("There is no lab in {}.", layout.dir().display());
        return Ok(ExitCode::SUCCESS);
    }
    if let Ok(lab) = Running::find(layout.clone()) {
        lab.ask("down")?;
        if !lab.wait_end(up::END_LIMIT) {
            tell!(
                "The lab did not end within {} s: it is killed.",
                up::END_LIMIT.as_secs()
            );
            lab.kill();
            lab.wait_end(Duration::from_secs(5));
        }
    }
    up::clear(&layout)?;
    if purge {
        layout::remove(layout.dir())?;
        say!("The lab in {} is gone.", layout.dir().display());
    } else {
        say!(
            "The lab is down. Homes and logs are still in {}; `thiao lab down --purge` removes them.",
            layout.dir().display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_nobody_reads_no_more_is_shown() {
        let shell = |script: &str| {
            let mut program = Program::new("/bin/sh");
            program.args(["-c", script]);
            shown(program, "sh")
        };
        assert!(shell("exit 0").unwrap());
        assert!(!shell("exit 1").unwrap());
        let left = exit::ended(shell("kill -s PIPE $$").map(|_| ExitCode::FAILURE), |_| None);
        assert_eq!(left, ExitCode::SUCCESS);
    }
}
