//! The keeper: first process of the lab's namespaces.
//!
//! ```text
//! mounts, network, files -> munged -> slurmctld -> [oned] -> thiao serve -> ready -> stop -> gone
//! ```
//! One thread, one loop: signals, children, the line to `lab up` and the
//! control socket are all looked at in [`Keeper::turn`]; bringing the lab up
//! (`start`) waits inside the same loop, so a stop is obeyed at any moment.
//!
//! *Architecture invariant:* nothing of a lab outlives its keeper. The kernel
//! sees to it for processes, bridge and taps; the folder is removed by whoever
//! ends the lab, or by the keeper when the lab is ephemeral.

mod start;

use crate::layout::{self, Layout};
use crate::plan::Plan;
use crate::services::Service;
use crate::wire::{DETACH, Progress, Reply, Status};
use crate::{signals, world};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use thiao_cli::tell;

/// How long a program may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);

const SLURMCTLD: &str = "slurmctld";
const CONTROLLER: &str = "thiao";

/// Why bringing up ended early.
enum Trouble {
    /// Somebody wants the lab to end.
    Stopped,
    /// It does not work.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

struct Keeper {
    layout: Layout,
    plan: Plan,
    signals: OwnedFd,
    line: Option<UnixStream>,
    /// Held for the keeper's life.
    _lock: Option<std::fs::File>,
    listener: Option<UnixListener>,
    services: Vec<Service>,
    since: Instant,
    ready: bool,
    stop: bool,
}

/// Runs the lab in `layout` until it is told to end. The process must be the first one of its
/// process namespace, its standard input the line to `lab up`.
///
/// # Errors
/// When this process is not a keeper at all; everything later is told on the line.
pub fn run(layout: Layout) -> Result<ExitCode> {
    if std::process::id() != 1 {
        bail!("this is the inner part of `thiao lab up`, which starts it");
    }
    let signals = signals::block()?;
    let line = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("no line to `thiao lab up`")?;
    let plan = Plan::read(&layout)?;
    let mut keeper = Keeper {
        layout,
        plan,
        signals,
        line: Some(UnixStream::from(line)),
        _lock: None,
        listener: None,
        services: Vec::new(),
        since: Instant::now(),
        ready: false,
        stop: false,
    };
    let outcome = keeper.bring_up();
    let code = match &outcome {
        Ok(()) => {
            keeper.ready = true;
            keeper.tell(&Progress::Ready);
            while !keeper.stop {
                keeper.turn(Duration::from_secs(60));
            }
            ExitCode::SUCCESS
        }
        Err(Trouble::Stopped) => ExitCode::SUCCESS,
        Err(Trouble::Failed(error)) => {
            let why = format!("{error:#}");
            log(&why);
            keeper.tell(&Progress::Failed(why));
            ExitCode::FAILURE
        }
    };
    keeper.end();
    Ok(code)
}

impl Keeper {
    /// Waits for whatever comes first, at most `longest`, and deals with it.
    fn turn(&mut self, longest: Duration) {
        let now = Instant::now();
        let due = self
            .services
            .iter()
            .filter_map(Service::due)
            .map(|at| at.saturating_duration_since(now))
            .min();
        let wait = due.map_or(longest, |due| due.min(longest));
        let wait = rustix::time::Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let (mut line_ready, mut caller_ready) = (false, false);
        {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
            let line_at = self.line.as_ref().map(|line| {
                fds.push(PollFd::new(line, PollFlags::IN));
                fds.len() - 1
            });
            let listener_at = self.listener.as_ref().map(|listener| {
                fds.push(PollFd::new(listener, PollFlags::IN));
                fds.len() - 1
            });
            if poll(&mut fds, Some(&wait)).is_ok() {
                line_ready = line_at.is_some_and(|at| !fds[at].revents().is_empty());
                caller_ready = listener_at.is_some_and(|at| !fds[at].revents().is_empty());
            }
        }
        self.take_signals();
        self.reap();
        if line_ready {
            self.hear_line();
        }
        if caller_ready {
            self.answer_caller();
        }
        if !self.stop {
            self.services.iter_mut().for_each(Service::retry);
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = signals::next(&self.signals) {
            if signal == libc::SIGTERM || signal == libc::SIGINT {
                self.stop = true;
            }
        }
    }

    /// Collects every ended process: the first process of a namespace inherits all orphans.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => continue,
            };
            for service in &mut self.services {
                if service.status().pid == Some(pid) {
                    log(&format!("{} ended: {how}", service.name));
                }
                service.reaped(pid, how.clone());
            }
        }
    }

    /// The line to `lab up`: a byte means "stay without me", its end means "end".
    fn hear_line(&mut self) {
        let Some(line) = &mut self.line else { return };
        let mut byte = [0];
        match line.read(&mut byte) {
            Ok(1) if byte[0] == DETACH => self.line = None,
            Ok(1) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                self.line = None;
                self.stop = true;
            }
        }
    }

    fn answer_caller(&mut self) {
        let Some(Ok((mut socket, _))) = self.listener.as_ref().map(UnixListener::accept) else {
            return;
        };
        let reply = self
            .reply_to(&socket)
            .unwrap_or_else(|error| Reply::Refused(format!("{error:#}")));
        let text = serde_json::to_string(&reply).unwrap_or_default();
        // A caller that has gone away is no concern of the lab.
        let _ = writeln!(socket, "{text}");
    }

    fn reply_to(&mut self, socket: &UnixStream) -> Result<Reply> {
        socket
            .set_nonblocking(false)
            .context("the caller cannot be heard")?;
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .context("the caller cannot be heard")?;
        socket
            .set_write_timeout(Some(Duration::from_secs(1)))
            .context("the caller cannot be answered")?;
        let mut line = String::new();
        BufReader::new(socket.take(256))
            .read_line(&mut line)
            .context("the request did not come")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let caller = world::peer_uid(socket).context("the caller is not known")?;
        if words != ["status"] && caller != self.plan.owner.uid && caller != 0 {
            bail!("only the lab's owner can do that");
        }
        match words[..] {
            ["status"] => Ok(Reply::Status(self.status())),
            ["down"] => {
                self.stop = true;
                Ok(Reply::Done)
            }
            ["stop", name] => self.service(name)?.map_stop(Signal::TERM),
            ["kill", name] => self.service(name)?.map_kill(),
            ["start", name] => {
                self.service(name)?.start()?;
                Ok(Reply::Done)
            }
            _ => bail!("the lab's keeper does not know {:?}", line.trim()),
        }
    }

    fn service(&mut self, name: &str) -> Result<&mut Service> {
        let known: Vec<_> = self.services.iter().map(|service| service.name).collect();
        self.services
            .iter_mut()
            .find(|service| service.name == name)
            .with_context(|| format!("the lab has no program {name}; it has {}", known.join(", ")))
    }

    fn status(&self) -> Status {
        Status {
            ready: self.ready,
            age_s: self.since.elapsed().as_secs(),
            services: self.services.iter().map(Service::status).collect(),
            vms: world::count_processes("qemu-system"),
        }
    }

    fn say(&mut self, text: String) {
        log(&text);
        self.tell(&Progress::Say(text));
    }

    fn tell(&mut self, progress: &Progress) {
        if let (Some(line), Ok(text)) = (&mut self.line, serde_json::to_string(progress)) {
            // Whoever is gone is noticed when the line is read.
            let _ = writeln!(line, "{text}");
        }
    }

    /// Ends everything: the controller first, so that it does not take the rest's end for failures.
    fn end(&mut self) {
        log("the lab ends");
        for name in [CONTROLLER, SLURMCTLD] {
            if let Some(service) = self.services.iter_mut().find(|service| service.name == name) {
                service.stop(Signal::TERM);
            }
            let deadline = Instant::now() + GRACE;
            while self
                .services
                .iter()
                .any(|service| service.name == name && service.runs())
                && Instant::now() < deadline
            {
                self.turn(Duration::from_millis(20));
            }
        }
        world::end_all(GRACE);
        world::forget_cgroups(&self.layout.cluster());
        world::take_programs_away(&self.layout, &self.plan);
        if self.plan.ephemeral
            && let Err(error) = layout::remove(self.layout.dir())
        {
            log(&format!("{error:#}"));
        }
    }
}

impl Service {
    fn map_stop(&mut self, signal: Signal) -> Result<Reply> {
        self.stop(signal);
        Ok(Reply::Done)
    }

    /// Kills it without telling it to stay away: it is started again like after any death.
    fn map_kill(&mut self) -> Result<Reply> {
        let pid = self
            .status()
            .pid
            .and_then(rustix::process::Pid::from_raw)
            .context("it does not run")?;
        rustix::process::kill_process(pid, Signal::KILL).context("it cannot be killed")?;
        Ok(Reply::Done)
    }
}

/// The keeper's own log is its standard error.
fn log(text: &str) {
    tell!("{} {text}", jiff::Timestamp::now());
}
