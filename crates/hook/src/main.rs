//! The programs that Slurm runs, in one file: it looks at the name it is
//! called by (`Resume`, `Suspend`, `ResumeFail`, `PrologSlurmctld`,
//! `EpilogSlurmctld`, `tclean`), or at its first argument when called `thiao-hook`.
//!
//! *Architecture invariant:* a hook decides nothing and starts nothing. It
//! leaves an order in the spool, or waits for the controller, and ends; the
//! standard library is all it needs, so that it starts in a millisecond.
//!
//! Exit codes: 0, done (an order is safe on disk); 1, an order could not be
//! kept, or a job must be requeued; 2, refused: wrong arguments, a malformed
//! hostlist, nodes that are not ours.

mod job_end;
mod order;
mod prolog;
mod state;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use thiao_core::spool::IntentKind;

/// What it is called as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Resume,
    Suspend,
    ResumeFail,
    Prolog,
    Epilog,
    Clean,
}

impl Program {
    const ALL: [Self; 6] = [
        Self::Resume,
        Self::Suspend,
        Self::ResumeFail,
        Self::Prolog,
        Self::Epilog,
        Self::Clean,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Resume => "Resume",
            Self::Suspend => "Suspend",
            Self::ResumeFail => "ResumeFail",
            Self::Prolog => "PrologSlurmctld",
            Self::Epilog => "EpilogSlurmctld",
            Self::Clean => "tclean",
        }
    }

    fn by_name(name: &OsString) -> Option<Self> {
        Self::ALL.into_iter().find(|program| name == program.name())
    }

    fn help(self) -> &'static str {
        match self {
            Self::Resume => RESUME_HELP,
            Self::Suspend => SUSPEND_HELP,
            Self::ResumeFail => RESUME_FAIL_HELP,
            Self::Prolog => PROLOG_HELP,
            Self::Epilog => EPILOG_HELP,
            Self::Clean => CLEAN_HELP,
        }
    }
}

const RESUME_HELP: &str = "\
Usage: Resume [-f|--force] HOSTLIST
Asks the controller to give these nodes their VMs. slurm.conf: ResumeProgram.
  -f, --force    also for nodes that the controller has given up on for now
  -h, --help     print this
  -V, --version  print the version
HOSTLIST is Slurm's: fg0,fg[3-5]. Exit code 0: the order is safe on disk, and
is carried out even if the controller is not running now. The controller's
state folder is $THIAO_STATE_DIR, else `state` beside this program, else
/var/lib/thiao.
";
const SUSPEND_HELP: &str = "\
Usage: Suspend HOSTLIST
Asks the controller to end these nodes' VMs. slurm.conf: SuspendProgram.
  -h, --help     print this
  -V, --version  print the version
HOSTLIST is Slurm's: fg0,fg[3-5]. Exit code 0: the order is safe on disk.
";
const RESUME_FAIL_HELP: &str = "\
Usage: ResumeFail HOSTLIST
Tells the controller that Slurm gave up waiting for these nodes. slurm.conf:
ResumeFailProgram.
  -h, --help     print this
  -V, --version  print the version
HOSTLIST is Slurm's: fg0,fg[3-5]. Exit code 0: the order is safe on disk.
";
const PROLOG_HELP: &str = "\
Usage: PrologSlurmctld
Waits until the nodes of job $SLURM_JOB_ID are up, so that the job starts at
once. slurm.conf: PrologSlurmctld. Ends after $THIAO_PROLOG_LIMIT seconds (600)
at the latest, and when the controller is away for $THIAO_PROLOG_AWAY seconds
(30); Slurm then starts the job by itself, up to 30 s later. Exit code 1, only when
the controller says so: the job cannot start as it is, and must be requeued.
  -h, --help     print this
  -V, --version  print the version
";
const EPILOG_HELP: &str = "\
Usage: EpilogSlurmctld
Wakes the controller, so that it sees the end of job $SLURM_JOB_ID at once; if
the job had nodes of job mode, the order to end their VMs is on disk first.
slurm.conf: EpilogSlurmctld.
  -h, --help     print this
  -V, --version  print the version
Exit code 1: the order could not be kept. Slurm ends the job all the same.
";
const CLEAN_HELP: &str = "\
Usage: tclean [JOBID]
Asks the controller to end the VMs that were made for this job alone. A job that
still runs keeps them. Without JOBID it acts as EpilogSlurmctld, for job
$SLURM_JOB_ID; slurm.conf may name it as that.
  -h, --help     print this
  -V, --version  print the version
JOBID is a number as in `scontrol show job`; a task of an array has one of its
own. For root and the controller's user; others clean up after their own jobs
with `thiao clean JOBID`. Exit code 0: the order is safe on disk, and is carried
out even if the controller is not running now. Calling it twice does no harm.
";

/// Why a hook did not do what it was asked: the exit code and the sentences for stderr.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// What was asked for makes no sense: exit code 2.
    fn refused(message: impl fmt::Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
        }
    }

    /// The order is lost: exit code 1.
    fn lost(message: impl fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }
}

/// Says something on stderr. Not `eprintln`, which panics when that is full or
/// closed: a message is never worth an order.
fn tell(message: fmt::Arguments<'_>) {
    _ = writeln!(io::stderr(), "{message}");
}

/// The same on stdout.
fn say(message: fmt::Arguments<'_>) {
    _ = writeln!(io::stdout(), "{message}");
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = arguments.collect();
    let base = Path::new(&called).file_name().unwrap_or_default().to_owned();

    let mut program = Program::by_name(&base);
    if program.is_none()
        && let Some(named) = arguments.first().and_then(Program::by_name)
    {
        arguments.remove(0);
        program = Some(named);
    }
    let Some(program) = program else {
        return unnamed(&arguments);
    };
    match run(program, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(format_args!("{}: {}", program.name(), failure.message));
            ExitCode::from(failure.code)
        }
    }
}

/// Called by none of the names.
fn unnamed(arguments: &[OsString]) -> ExitCode {
    let names = Program::ALL.map(Program::name).join("|");
    let usage = format!("Usage: thiao-hook {names} ...\nOr link it to these names. Each has --help.");
    match arguments {
        [one] if one == "-h" || one == "--help" => say(format_args!("{usage}")),
        [one] if one == "-V" || one == "--version" => {
            say(format_args!("thiao-hook {}", env!("CARGO_PKG_VERSION")))
        }
        _ => {
            tell(format_args!("{usage}"));
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn run(program: Program, arguments: &[OsString]) -> Result<(), Failure> {
    // First of all: Slurm removes it soon.
    let resume_file = match program {
        Program::Resume => order::read_resume_file(),
        Program::Suspend | Program::ResumeFail | Program::Prolog | Program::Epilog | Program::Clean => {
            Vec::new()
        }
    };

    let mut force = false;
    let mut operands = Vec::new();
    let mut options_end = false;
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        if options_end || !text.starts_with('-') {
            operands.push(argument);
            continue;
        }
        match text {
            "--" => options_end = true,
            "-f" | "--force" if program == Program::Resume => force = true,
            "-h" | "--help" => {
                say(format_args!("{}", program.help().trim_end()));
                return Ok(());
            }
            "-V" | "--version" => {
                say(format_args!(
                    "{} (thiao) {}",
                    program.name(),
                    env!("CARGO_PKG_VERSION")
                ));
                return Ok(());
            }
            _ => {
                return Err(Failure::refused(format!(
                    "unknown option {text}\n{}",
                    program.help()
                )));
            }
        }
    }
    let kind = match program {
        Program::Resume => IntentKind::Resume { force },
        Program::Suspend => IntentKind::Suspend,
        Program::ResumeFail => IntentKind::ResumeFail,
        Program::Prolog | Program::Epilog if !operands.is_empty() => {
            return Err(Failure::refused(format!(
                "takes no arguments\n{}",
                program.help()
            )));
        }
        Program::Prolog => return prolog::wait(&state::dir()),
        Program::Epilog => return job_end::by_slurm(&state::dir()),
        Program::Clean => {
            return match operands.as_slice() {
                [job] => job_end::by_hand(&state::dir(), job),
                [] if job_end::has_job() => job_end::by_slurm(&state::dir()),
                operands => Err(Failure::refused(format!(
                    "expected one JOBID, got {}\n{}",
                    operands.len(),
                    program.help()
                ))),
            };
        }
    };
    match operands.as_slice() {
        [list] => order::leave(&state::dir(), kind, list, resume_file),
        _ => Err(Failure::refused(format!(
            "expected one HOSTLIST, got {}\n{}",
            operands.len(),
            program.help()
        ))),
    }
}
