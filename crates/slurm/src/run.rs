//! Runs one of Slurm's programs: bounded in time and size, in a clean environment, without a shell.

use crate::error::SlurmError;
use crate::programs::find;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Most that we take from a program, in bytes; 10,000 nodes and 100,000 jobs are about 20 MB.
const MAX_OUTPUT: usize = 128 << 20;
/// Most that we keep of what a program says on stderr, in bytes.
const MAX_STDERR: usize = 16 << 10;
/// The children's own `PATH`.
const CHILD_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How often a child is looked at after it closed its outputs but has not ended.
const REAP_PAUSE: Duration = Duration::from_millis(1);

/// Where the programs are and what they are told.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) conf: Option<PathBuf>,
    pub(crate) bin_dir: Option<PathBuf>,
    pub(crate) timeout: Duration,
}

impl Runner {
    /// Runs `program` to its end and returns its standard output; an exit code other than 0 is an error.
    pub(crate) fn run<S: Into<OsString>>(
        &self,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, SlurmError> {
        self.output(program, args)?.text()
    }

    /// Runs `program` to its end, whatever its exit code.
    pub(crate) fn output<S: Into<OsString>>(
        &self,
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output, SlurmError> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let shown = show(program, &args);
        let mut command = Command::new(find(program, self.bin_dir.as_deref())?);
        command.args(&args).env_clear();
        command
            .env("LC_ALL", "C")
            .env("PATH", CHILD_PATH)
            .env("SLURM_TIME_FORMAT", "%s");
        if let Some(conf) = self.conf()? {
            command.env("SLURM_CONF", conf);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        reset_signal_mask(&mut command);
        let io = |source| SlurmError::Io {
            command: shown.clone(),
            source,
        };
        let mut child = command.spawn().map_err(io)?;
        let ended = collect(&mut child, Instant::now() + self.timeout);
        if !matches!(ended, Ok(End::Exited { .. })) {
            // Best effort: it may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
        match ended.map_err(io)? {
            End::TimedOut => Err(SlurmError::Timeout {
                command: shown,
                after: self.timeout,
            }),
            End::TooMuch => Err(SlurmError::TooMuch {
                command: shown,
                limit: MAX_OUTPUT,
            }),
            End::Exited {
                status,
                stdout,
                stderr,
            } => Ok(Output {
                command: shown,
                status,
                stdout,
                stderr,
            }),
        }
    }

    /// The `slurm.conf` to be used: the one given, else the one that our environment names. Checked here
    /// because Slurm's programs retry for a minute when it is missing (measured on 22.05.8).
    fn conf(&self) -> Result<Option<PathBuf>, SlurmError> {
        let path = self
            .conf
            .clone()
            .or_else(|| std::env::var_os("SLURM_CONF").map(PathBuf::from));
        match path {
            Some(path) => match path.metadata() {
                Ok(_) => Ok(Some(path)),
                Err(source) => Err(SlurmError::NoConf { path, source }),
            },
            None => Ok(None),
        }
    }
}

/// The command as people would type it, shortened; for messages only, never run. Without the mark at the end of
/// each line, which is another each time: the same failure is told in the same words.
fn show(program: &str, args: &[OsString]) -> String {
    let mut text = program.to_owned();
    for arg in args {
        text.push(' ');
        text.extend(
            without_marks(&arg.to_string_lossy())
                .chars()
                .map(|c| if c.is_control() { '.' } else { c })
                .take(160),
        );
        if text.len() > 400 {
            text.push_str(" ...");
            break;
        }
    }
    text
}

/// Leaves out what [`crate::control::mark`] made.
fn without_marks(arg: &str) -> String {
    let mut pieces = arg.split('@');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_at_checked(16) {
            Some((mark, rest)) if mark.bytes().all(|b| b.is_ascii_hexdigit()) => text += rest,
            _ => text = format!("{text}@{piece}"),
        }
    }
    text
}

/// Lets a program start with no signal blocked: Slurm's programs started by a child of slurmctld would
/// inherit its blocked signals, and others those of whoever starts them.
pub fn reset_signal_mask(command: &mut Command) {
    // SAFETY: between fork and exec only the two async-signal-safe calls below run, on memory of their own.
    unsafe {
        command.pre_exec(|| {
            let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            if libc::sigemptyset(none.as_mut_ptr()) != 0
                || libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// What a program that ended has left.
pub(crate) struct Output {
    command: String,
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// The standard output of a program that ended with code 0; else an error of the class of what it said.
    pub(crate) fn text(self) -> Result<String, SlurmError> {
        if self.status.success() {
            return Ok(String::from_utf8(self.stdout)
                .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()));
        }
        let said = if self.stderr.trim_ascii().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        Err(SlurmError::from_message(
            &self.command,
            &self.status.to_string(),
            &String::from_utf8_lossy(said),
        ))
    }
}

enum End {
    Exited {
        status: ExitStatus,
        stdout: Vec<u8>,
        stderr: Vec<u8>,
    },
    TimedOut,
    TooMuch,
}

/// Reads both outputs as they come until the child has ended.
fn collect(child: &mut Child, deadline: Instant) -> io::Result<End> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
        else {
            return Ok(End::TimedOut);
        };
        let (out_ready, err_ready) =
            wait(out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd), left)?;
        if out_ready && !read_some(&mut out, &mut stdout, usize::MAX)? {
            out = None;
        }
        if err_ready && !read_some(&mut err, &mut stderr, MAX_STDERR)? {
            err = None;
        }
        if stdout.len() > MAX_OUTPUT {
            return Ok(End::TooMuch);
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited {
                status,
                stdout,
                stderr,
            });
        }
        if Instant::now() >= deadline {
            return Ok(End::TimedOut);
        }
        std::thread::sleep(REAP_PAUSE);
    }
}

/// Waits for either pipe; says which can be read.
fn wait(
    out: Option<BorrowedFd<'_>>,
    err: Option<BorrowedFd<'_>>,
    left: Duration,
) -> io::Result<(bool, bool)> {
    let mut fds = Vec::with_capacity(2);
    fds.extend(out.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    fds.extend(err.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let limit = Timespec::try_from(left).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let out_ready = out.is_some() && ready.next().unwrap_or(false);
    let err_ready = err.is_some() && ready.next().unwrap_or(false);
    Ok((out_ready, err_ready))
}

/// Reads once, keeping at most `keep` bytes in all; false at the end of the stream.
fn read_some(from: &mut Option<impl Read>, into: &mut Vec<u8>, keep: usize) -> io::Result<bool> {
    let Some(from) = from else { return Ok(false) };
    let mut buffer = [0; 64 << 10];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(n) => {
            let kept = keep.saturating_sub(into.len()).min(n);
            into.extend_from_slice(&buffer[..kept]);
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_command_is_told_in_the_same_words() {
        let told = |mark: &str| {
            let format = format!("UserName:{mark},Reason:|{mark}");
            show("squeue", &["-O", &format, "a@b.example"].map(OsString::from))
        };
        let marks = [(); 2].map(|()| crate::control::mark().unwrap());
        assert_ne!(marks[0], marks[1]);
        assert_eq!(told(&marks[0]), "squeue -O UserName:,Reason:| a@b.example");
        assert_eq!(told(&marks[1]), told(&marks[0]));
    }
}
