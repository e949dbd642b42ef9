//! `thiao lab up`: makes the folder and the guest image, starts the keeper,
//! shows what it says.

use crate::auth::AuthBy;
use crate::enter::{self, find_program};
use crate::layout::{self, Layout};
use crate::plan::{Options, Plan};
use crate::services::{open_log, tail};
use crate::wire::{DETACH, Progress};
use crate::{files, image, signals, spawn};
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;
use thiao_cli::tell;

/// What a lab cannot do without, asked for before anything is made.
const PROGRAMS: [&str; 3] = ["qemu-system-x86_64", "ip", "busybox"];

/// The same of Slurm's.
const SLURM_PROGRAMS: [&str; 5] = ["slurmctld", "sbatch", "squeue", "sinfo", "scontrol"];

/// How long a lab may take to end by itself.
pub const END_LIMIT: Duration = Duration::from_secs(30);

/// A lab that is up and ends when this is dropped, unless it is [left](Up::leave).
pub struct Up {
    spawned: spawn::Spawned,
    layout: Layout,
    ephemeral: bool,
    left: bool,
}

/// Why a lab is not up.
pub enum NotUp {
    /// The person interrupted; the exit code to end with.
    Interrupted(u8),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NotUp {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Brings a lab up; each step is given to `say` as it is done. An ephemeral lab's folder is removed
/// with it, unless there was one before.
///
/// # Errors
/// When a step fails (with the end of the log that tells why) or the person interrupts. Nothing is left then.
pub fn up(layout: Layout, options: Options, ephemeral: bool, say: &mut dyn FnMut(&str)) -> Result<Up, NotUp> {
    for program in PROGRAMS {
        find_program(program)?;
    }
    check_tun()?;
    match options.auth {
        AuthBy::Munge => drop(find_program("munged")?),
        AuthBy::Slurm => {}
    }
    let mut plan = Plan::resolve(options)?;
    for program in SLURM_PROGRAMS {
        plan.slurm_program(program)?;
    }
    // What is not possible is refused before anything is made.
    drop(files::settings(&layout, &plan)?);
    plan.ephemeral = layout.make_dir()? && ephemeral;
    // Whoever holds the lock uses the files that are cleared here.
    drop(layout.take_lock()?);
    clear(&layout)?;
    layout::make(&layout.logs(), 0o700)?;
    plan.write(&layout)?;

    // In the lab there is no network to fetch packages over: the image is made before.
    image::build(&plan, say)?;
    if let Some(code) = signals::interrupted() {
        return Err(NotUp::Interrupted(code));
    }

    let log = open_log(&layout.log("keeper"))?;
    let args = ["keeper", "--dir"]
        .map(OsStr::new)
        .into_iter()
        .chain([layout.dir().as_os_str()])
        .collect::<Vec<_>>();
    let spawned = spawn::keeper(plan.keeper.as_os_str(), &args, &log)?;
    let up = Up {
        spawned,
        layout,
        ephemeral: plan.ephemeral,
        left: false,
    };
    up.follow(say)?;
    Ok(up)
}

impl Up {
    /// Relays what the keeper says until the lab is ready.
    fn follow(&self, say: &mut dyn FnMut(&str)) -> Result<(), NotUp> {
        let line = self.spawned.line.try_clone().context("no descriptor left")?;
        line.set_read_timeout(Some(Duration::from_millis(200)))
            .context("no time limit can be set")?;
        let mut reader = BufReader::new(line);
        let mut text = String::new();
        loop {
            if let Some(code) = signals::interrupted() {
                return Err(NotUp::Interrupted(code));
            }
            match reader.read_line(&mut text) {
                Ok(0) => {
                    let log = self.layout.log("keeper");
                    return Err(anyhow!(
                        "the lab's keeper ended early\n--- the end of {}:\n{}",
                        log.display(),
                        tail(&log, 15)
                    )
                    .into());
                }
                Ok(_) => {
                    let progress =
                        serde_json::from_str(&text).with_context(|| format!("the keeper said {text:?}"))?;
                    text.clear();
                    match progress {
                        Progress::Say(what) => say(&what),
                        Progress::Ready => return Ok(()),
                        Progress::Failed(why) => return Err(anyhow!(why).into()),
                    }
                }
                // What came of an unfinished line stays in `text`.
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock
                            | std::io::ErrorKind::TimedOut
                            | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    return Err(anyhow::Error::new(error)
                        .context("the keeper cannot be followed")
                        .into());
                }
            }
        }
    }

    /// Lets the lab stay when this process has gone.
    ///
    /// # Errors
    /// When the keeper cannot be told; the lab ends then.
    pub fn leave(mut self) -> Result<()> {
        self.spawned
            .line
            .write_all(&[DETACH])
            .context("the lab's keeper has gone")?;
        self.left = true;
        Ok(())
    }

    /// Waits until the person interrupts (the exit code then), standard input ends, or the lab does.
    pub fn stay(&self) -> Option<u8> {
        let input = std::io::stdin();
        let mut buffer = [0; 256];
        loop {
            let mut fds = [
                PollFd::new(&input, PollFlags::IN),
                PollFd::new(&self.spawned.pidfd, PollFlags::IN),
            ];
            // A signal wakes this, too; the limit is for one that came just before.
            let woken = rustix::event::poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                }),
            );
            let (heard, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if let Some(code) = signals::interrupted() {
                return Some(code);
            }
            if ended {
                return None;
            }
            if woken.is_ok() && heard && matches!(rustix::io::read(&input, &mut buffer), Ok(0)) {
                return None;
            }
        }
    }

    /// Ends the lab and waits until it is gone.
    ///
    /// # Errors
    /// When something of it is left.
    pub fn end(mut self) -> Result<()> {
        self.left = true;
        self.take_down()
    }

    fn take_down(&self) -> Result<()> {
        let _ = self.spawned.line.shutdown(std::net::Shutdown::Both);
        let orderly = enter::ended(&self.spawned.pidfd, END_LIMIT);
        if !orderly {
            let _ = rustix::process::pidfd_send_signal(&self.spawned.pidfd, rustix::process::Signal::KILL);
        }
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.spawned.pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        clear(&self.layout)?;
        if self.ephemeral {
            layout::remove(self.layout.dir())?;
        }
        if !orderly {
            bail!(
                "the lab did not end within {} s and was killed",
                END_LIMIT.as_secs()
            );
        }
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = self.take_down()
        {
            tell!("thiao lab: {error:#}");
        }
    }
}

/// Removes what belongs to a run of the lab, not to the person.
///
/// # Errors
/// When something is left.
pub fn clear(layout: &Layout) -> Result<()> {
    layout
        .run_time_parts()
        .iter()
        .try_for_each(|path| layout::remove(path))
}

/// VMs need `/dev/net/tun`, which is the one thing that root may have to open.
fn check_tun() -> Result<()> {
    let path = "/dev/net/tun";
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!(
                "{path} may not be opened by this user: run `chmod 0666 {path}` as root, once (Debian's udev does it by itself)"
            )
        }
        Err(error) => bail!("{path} cannot be opened ({error}): run `modprobe tun` as root, once"),
    }
}
