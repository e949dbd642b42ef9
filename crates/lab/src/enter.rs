//! Enters a running lab's namespaces: for a shell, for single commands, and
//! for programs that only need its network and files.

use crate::layout::Layout;
use crate::person::Person;
use crate::plan::Plan;
use crate::wire::Reply;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A lab that runs, seen from outside or from inside of it.
pub struct Running {
    pub layout: Layout,
    pub plan: Plan,
    /// Its keeper's process id, as seen from here.
    pub pid: i32,
    keeper: OwnedFd,
    inside: bool,
}

/// Under whom a command runs in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As<'a> {
    /// The lab's owner (root in root's labs).
    Owner,
    /// One whose jobs run in it.
    User(&'a Person),
}

impl Running {
    /// Finds the lab's keeper by its socket; the kernel tells who listens there.
    ///
    /// # Errors
    /// When no lab runs in that folder, or it belongs to somebody else.
    pub fn find(layout: Layout) -> Result<Self> {
        let plan = Plan::read(&layout)?;
        let socket = ask_socket(&layout)?;
        let peer =
            rustix::net::sockopt::socket_peercred(&socket).context("the keeper cannot be identified")?;
        let keeper = rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty())
            .context("the lab's keeper has just ended")?;
        let pid = peer.pid.as_raw_nonzero().get();
        let inside = same_network(pid);
        Ok(Self {
            layout,
            plan,
            pid,
            keeper,
            inside,
        })
    }

    /// Asks the keeper one thing.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn ask(&self, request: &str) -> Result<Reply> {
        let mut socket = ask_socket(&self.layout)?;
        socket
            .write_all(format!("{request}\n").as_bytes())
            .context("the lab's keeper does not listen")?;
        let mut line = String::new();
        BufReader::new(socket)
            .read_line(&mut line)
            .context("the lab's keeper does not answer")?;
        let reply = serde_json::from_str(&line)
            .with_context(|| format!("the keeper's answer is not understood: {line}"))?;
        match reply {
            Reply::Refused(why) => bail!(why),
            reply @ (Reply::Status(_) | Reply::Done) => Ok(reply),
        }
    }

    /// Waits for the keeper's end; whether it came in time.
    pub fn wait_end(&self, limit: Duration) -> bool {
        ended(&self.keeper, limit)
    }

    /// Ends the keeper, and by that everything in the lab, at once.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.keeper, rustix::process::Signal::KILL);
    }

    /// A command that will run in the lab's network and with its files, `who` its user, in `cwd`.
    /// It stays a child of this process and outside of the lab's process namespace.
    ///
    /// # Errors
    /// When the namespaces cannot be entered.
    pub fn command(&self, program: &str, who: As<'_>, cwd: &Path) -> Result<Command> {
        let mut command = Command::new(self.program(program)?);
        self.environment(&mut command, who);
        let enter = if self.inside {
            None
        } else {
            Some(
                self.keeper
                    .as_fd()
                    .try_clone_to_owned()
                    .context("no descriptor left")?,
            )
        };
        let flags = self.namespaces() & !libc::CLONE_NEWPID;
        let user = self.change_to(who);
        let cwd = std::ffi::CString::new(cwd.as_os_str().as_encoded_bytes())
            .context("a NUL in the folder's path")?;
        // SAFETY: the closure runs after fork and only makes system calls on values it owns.
        unsafe {
            command.pre_exec(move || {
                if let Some(keeper) = &enter {
                    check(libc::setns(keeper.as_raw_fd(), flags))?;
                }
                become_user(user)?;
                check(libc::chdir(cwd.as_ptr()))
            });
        }
        Ok(command)
    }

    /// Moves this process into the lab for good; its children are the lab's and end with it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        if self.inside {
            return Ok(());
        }
        // SAFETY: a plain system call on a descriptor we own.
        check(unsafe { libc::setns(self.keeper.as_raw_fd(), self.namespaces()) })
            .context("the lab's namespaces cannot be entered (only its owner can)")
    }

    /// A command for a process that has [entered](Self::enter) the lab.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn inner_command(&self, program: &str, who: As<'_>, cwd: &Path) -> Result<Command> {
        let mut command = Command::new(self.program(program)?);
        self.environment(&mut command, who);
        let user = self.change_to(who);
        let cwd = std::ffi::CString::new(cwd.as_os_str().as_encoded_bytes())
            .context("a NUL in the folder's path")?;
        // SAFETY: as in `command`.
        unsafe {
            command.pre_exec(move || {
                become_user(user)?;
                check(libc::chdir(cwd.as_ptr()))
            });
        }
        Ok(command)
    }

    /// A program's path: the lab's own first, then its Slurm's.
    fn program(&self, program: &str) -> Result<PathBuf> {
        let mut own = [self.layout.bin()].into_iter().chain(self.plan.slurm_dirs());
        if !program.contains('/')
            && let Some(path) =
                own.find_map(|dir| Some(dir.join(program)).filter(|path| path.symlink_metadata().is_ok()))
        {
            return Ok(path);
        }
        find_program(program)
    }

    /// One whose jobs run in the lab, by name; the first one if nobody is named.
    ///
    /// # Errors
    /// When the lab has no such user.
    pub fn user(&self, name: Option<&str>) -> Result<&Person> {
        let Some(name) = name else {
            return Ok(self.plan.submitter());
        };
        let mut people = self.plan.submitters.iter();
        people.find(|person| person.name == name).with_context(|| {
            let all: Vec<&str> = self
                .plan
                .submitters
                .iter()
                .map(|person| person.name.as_str())
                .collect();
            format!("the lab has no user {name}; it has {}", all.join(", "))
        })
    }

    /// A user's home folder in the lab.
    pub fn home(&self, user: &Person) -> PathBuf {
        self.layout.home(&user.name)
    }

    /// `cwd` if the guests see it too, else the user's home folder: where a job's output can land.
    pub fn job_folder(&self, cwd: Option<PathBuf>, user: &Person) -> PathBuf {
        let home = self.home(user);
        cwd.and_then(|cwd| cwd.canonicalize().ok())
            .filter(|cwd| cwd.starts_with(&home))
            .unwrap_or(home)
    }

    fn namespaces(&self) -> libc::c_int {
        let rest = libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
        if self.plan.rootless() {
            rest | libc::CLONE_NEWUSER
        } else {
            rest
        }
    }

    /// The user to become, if it is not already the one.
    fn change_to(&self, who: As<'_>) -> Option<(u32, u32)> {
        match who {
            As::Owner => None,
            As::User(&Person { uid, gid, .. }) => {
                let change = uid != self.plan.owner.uid && rustix::process::geteuid().is_root();
                change.then_some((uid, gid))
            }
        }
    }

    fn environment(&self, command: &mut Command, who: As<'_>) {
        command
            .env(thiao_config::LAB_VARIABLE, self.layout.dir())
            .env("SLURM_CONF", self.layout.slurm_conf())
            .env("THIAO_CONFIG", self.layout.thiao_conf());
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let paths = [self.layout.bin()]
            .into_iter()
            .chain(self.plan.slurm_dirs())
            .chain(std::env::split_paths(&path))
            .chain(SYSTEM.map(PathBuf::from));
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        match who {
            As::Owner => {}
            As::User(user) => {
                command
                    .env("HOME", self.home(user))
                    .env("USER", &user.name)
                    .env("LOGNAME", &user.name);
            }
        }
        // A job inherits its submitter's environment: nothing of another Slurm may come along.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("SLURM_") && text != "SLURM_CONF")
                || text.starts_with("SBATCH_")
                || text.starts_with("SUDO_")
            {
                command.env_remove(name);
            }
        }
    }
}

/// Where Debian keeps the programs of administration; an ordinary `PATH` lacks them.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program's path: as `PATH` says, else among the programs of administration.
///
/// # Errors
/// When it is nowhere; names the package that has it, if known.
pub fn find_program(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let package = match name {
        "munged" => " (package munge)",
        "sbatch" | "squeue" | "sinfo" | "scontrol" => " (package slurm-client)",
        "qemu-system-x86_64" => " (package qemu-system-x86)",
        _ => "",
    };
    std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("the program {name} is missing{package}: install it"))
}

/// Waits until the process behind `pidfd` has ended; whether it has.
pub fn ended(pidfd: &OwnedFd, limit: Duration) -> bool {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let wait = rustix::time::Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}

fn ask_socket(layout: &Layout) -> Result<UnixStream> {
    let path = layout.keeper_socket();
    let socket = UnixStream::connect(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            anyhow::anyhow!(
                "no lab runs in {}: start it with `thiao lab up`",
                layout.dir().display()
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("the lab in {} belongs to another user", layout.dir().display())
        }
        _ => anyhow::Error::new(error).context(format!("{} does not answer", path.display())),
    })?;
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .context("no time limit can be set")?;
    Ok(socket)
}

/// Whether this process is already in the network of process `pid`.
fn same_network(pid: i32) -> bool {
    let link = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    matches!((link("self"), link(&pid.to_string())), (Some(own), Some(other)) if own == other)
}

/// Gives up root for `user`: groups, gid, uid, in this order.
fn become_user(user: Option<(u32, u32)>) -> std::io::Result<()> {
    let Some((uid, gid)) = user else { return Ok(()) };
    // SAFETY: plain system calls; the group list is one valid element.
    unsafe {
        check(libc::setgroups(1, &raw const gid))?;
        check(libc::setgid(gid))?;
        check(libc::setuid(uid))
    }
}

fn check(outcome: libc::c_int) -> std::io::Result<()> {
    if outcome < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}
