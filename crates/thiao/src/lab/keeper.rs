//! The keeper: first process of the lab's namespaces.
//!
//! ```text
//! mounts, network, files -> munged -> slurmctld -> [oned] -> thiao serve -> ready -> stop -> gone
//! ```
//! One thread, one loop: signals, children, the line to `lab up` and the
//! control socket are all looked at in [`Keeper::turn`]; bringing the lab up
//! waits inside the same loop, so a stop is obeyed at any moment.
//!
//! *Architecture invariant:* nothing of a lab outlives its keeper. The kernel
//! sees to it for processes, bridge and taps; the folder is removed by whoever
//! ends the lab, or by the keeper when the lab is ephemeral.

use super::enter::find_program;
use super::files;
use super::layout::{self, Layout};
use super::one;
use super::plan::Plan;
use super::services::{Service, ServiceStatus, tail};
use super::{signals, world};
use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What the keeper says on the line while it brings the lab up, one JSON value per line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Progress {
    /// Something is done or under way.
    Say(String),
    /// The lab can be used.
    Ready,
    /// It cannot; why and what to do.
    Failed(String),
}

/// Said on the line by `lab up` when the lab shall stay after it has gone.
pub const DETACH: u8 = b'd';

/// The keeper's answer on its socket, one JSON value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To `status`.
    Status(Status),
    /// Done, or begun (`down`).
    Done,
    /// Why not.
    Refused(String),
}

/// What runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Whether the lab came up wholly.
    pub ready: bool,
    /// Seconds since it was started.
    pub age_s: u64,
    /// Its programs.
    pub services: Vec<ServiceStatus>,
    /// QEMU processes.
    pub vms: usize,
}

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

/// How long munged and slurmctld may take to answer.
const DAEMON_LIMIT: Duration = Duration::from_secs(30);
/// How long the controller may take: it may have to try the acceleration and boot templates.
const CONTROLLER_LIMIT: Duration = Duration::from_secs(240);
/// How long a program may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);

const MUNGED: &str = "munged";
const SLURMCTLD: &str = "slurmctld";
const ONED: &str = "oned";
const CONTROLLER: &str = "thiao";

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
    fn bring_up(&mut self) -> Result<(), Trouble> {
        self._lock = Some(self.layout.take_lock()?);
        let listener =
            UnixListener::bind(self.layout.keeper_socket()).context("the keeper's socket cannot be made")?;
        world::open_to_all(&self.layout.keeper_socket())?;
        listener
            .set_nonblocking(true)
            .context("the keeper's socket cannot be used")?;
        self.listener = Some(listener);

        world::separate(&self.layout, &self.plan)?;
        let network = files::network(&self.plan);
        network
            .ensure_bridge()
            .context("the lab's bridge cannot be made")?;
        files::write(&self.layout, &self.plan)?;
        self.say(format!(
            "network {}/{} of its own, host name {}",
            network.address,
            network.prefix_len,
            world::HOST_NAME
        ));

        self.start_munged()?;
        self.start_slurmctld()?;
        let share_ports = if self.plan.options.opennebula {
            self.start_oned()?
        } else {
            Vec::new()
        };
        files::write_thiao(&self.layout, &self.plan, &share_ports)?;
        self.start_controller()?;
        Ok(())
    }

    fn start_munged(&mut self) -> Result<(), Trouble> {
        let munge = self.layout.munge();
        let mut args: Vec<std::ffi::OsString> = vec!["--foreground".into()];
        if self.plan.rootless() {
            // In a user namespace the folders above ours belong to nobody known, which munged takes for unsafe.
            args.push("--force".into());
        }
        for (option, path) in [
            ("--socket", self.layout.munge_socket()),
            ("--key-file", self.layout.munge_key()),
            ("--pid-file", munge.join("pid")),
            ("--log-file", self.layout.log(MUNGED)),
            ("--seed-file", self.layout.secrets().join("munge.seed")),
        ] {
            let mut arg = std::ffi::OsString::from(format!("{option}="));
            arg.push(path);
            args.push(arg);
        }
        let service = Service::new(MUNGED, find_program(MUNGED)?, self.layout.log("munged.out")).args(args);
        let socket = self.layout.munge_socket();
        self.launch(
            service,
            DAEMON_LIMIT,
            |_| Ok(UnixStream::connect(&socket).is_ok()),
        )?;
        self.say("munged answers".to_owned());
        Ok(())
    }

    fn start_slurmctld(&mut self) -> Result<(), Trouble> {
        let conf = self.layout.slurm_conf();
        let service = Service::new(
            SLURMCTLD,
            find_program(SLURMCTLD)?,
            self.layout.log("slurmctld.out"),
        )
        .args(["-D".into(), "-f".into(), conf.clone().into_os_string()])
        .env("SLURM_CONF", &conf)
        .env("TZ", "UTC");
        let port = std::net::SocketAddr::from((self.plan.options.address, self.plan.options.slurmctld_port));
        self.launch(service, DAEMON_LIMIT, |_| {
            Ok(std::net::TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_ok())
        })?;
        let sinfo = find_program("sinfo")?;
        let nodes = self.plan.node_list();
        let deadline = Instant::now() + DAEMON_LIMIT;
        loop {
            let answer = Command::new(&sinfo)
                .args(["-h", "-o", "%D %T"])
                .env("SLURM_CONF", &conf)
                .stdin(Stdio::null())
                .output();
            match answer {
                Ok(answer) if answer.status.success() && !answer.stdout.is_empty() => break,
                Ok(answer) if Instant::now() > deadline => {
                    return Err(anyhow!(
                        "sinfo does not show the nodes {nodes}: {}",
                        String::from_utf8_lossy(&answer.stderr).trim()
                    )
                    .into());
                }
                Ok(_) => self.pause(Duration::from_millis(100))?,
                Err(error) => return Err(anyhow!("sinfo cannot be run: {error}").into()),
            }
        }
        self.say(format!("slurmctld answers, nodes {nodes}"));
        Ok(())
    }

    /// The stand-in for OpenNebula's front-end; the ports of the shares that it serves.
    fn start_oned(&mut self) -> Result<Vec<u16>, Trouble> {
        let service = Service::new(ONED, self.plan.thiao.clone(), self.layout.log(ONED))
            .args(["lab", "oned", "--dir"])
            .args([self.layout.dir()])
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        // It may have to try the acceleration before.
        self.launch(service, CONTROLLER_LIMIT, |keeper| {
            Ok(one::Ready::read(&keeper.layout).is_some())
        })?;
        let ready = one::Ready::read(&self.layout).context("the stand-in said nothing of itself")?;
        ready.notes.into_iter().for_each(|note| self.say(note));
        self.say(format!(
            "a stand-in for OpenNebula answers at {}",
            one::endpoint(&self.plan)
        ));
        Ok(ready.share_ports)
    }

    fn start_controller(&mut self) -> Result<(), Trouble> {
        let plan = &self.plan;
        let service = Service::new(CONTROLLER, plan.thiao.clone(), self.layout.log(CONTROLLER))
            .args(["serve"])
            .env("THIAO_CONFIG", self.layout.thiao_conf())
            .env("SLURM_CONF", self.layout.slurm_conf())
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        let api = self.layout.api();
        let mut last = 0;
        self.launch(service, CONTROLLER_LIMIT, |keeper| {
            // The controller tries the acceleration and boots a template before VMs can be made.
            let Some(events) = crate::lab::api::events(&api, last) else {
                return Ok(false);
            };
            for event in &events {
                last = last.max(event.id);
                match event.kind.as_str() {
                    "preparing" => keeper.say(event.message.clone()),
                    "prepared" => event
                        .message
                        .split("; ")
                        .for_each(|note| keeper.say(note.to_owned())),
                    "not-prepared" => return Err(event.message.clone()),
                    _ => {}
                }
            }
            let ready = |status: crate::api::types::Status| {
                status.preparing.is_none() && status.slurm.last_ok.is_some() && status.vms.last_ok.is_some()
            };
            Ok(crate::lab::api::status(&api).is_some_and(ready))
        })?;
        self.say("controller answers".to_owned());
        Ok(())
    }

    /// Starts a program and waits until it answers. Its first death while it comes up is a failure.
    fn launch(
        &mut self,
        mut service: Service,
        limit: Duration,
        mut answers: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), Trouble> {
        let (name, log) = (service.name, service.log().to_path_buf());
        service.start()?;
        self.services.push(service);
        let deadline = Instant::now() + limit;
        loop {
            match answers(self) {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => return Err(with_log(format!("{name}: {why}"), &self.logs_of(name, &log)).into()),
            }
            let ended = self
                .services
                .iter()
                .find(|service| service.name == name)
                .and_then(Service::last_end);
            if let Some(how) = ended {
                return Err(with_log(
                    format!("{name} ended while it came up ({how})"),
                    &self.logs_of(name, &log),
                )
                .into());
            }
            if Instant::now() > deadline {
                let text = format!("{name} does not answer after {} s", limit.as_secs());
                return Err(with_log(text, &self.logs_of(name, &log)).into());
            }
            self.pause(Duration::from_millis(50))?;
        }
        Ok(())
    }

    fn logs_of(&self, name: &str, own: &Path) -> Vec<std::path::PathBuf> {
        vec![own.to_path_buf(), self.layout.log(name)]
    }

    /// Keeps the loop turning for a while; `Err` when the lab shall end.
    fn pause(&mut self, span: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + span;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.turn(left);
            if self.stop {
                return Err(Trouble::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

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

/// An error that ends with what the program itself wrote.
fn with_log(text: String, logs: &[std::path::PathBuf]) -> anyhow::Error {
    let shown = logs
        .iter()
        .map(|log| (log, tail(log, 15)))
        .find(|(_, tail)| !tail.is_empty());
    match shown {
        Some((log, tail)) => anyhow!("{text}\n--- the end of {}:\n{tail}", log.display()),
        None => anyhow!(text),
    }
}

/// The keeper's own log is its standard error.
fn log(text: &str) {
    eprintln!("{} {text}", jiff::Timestamp::now());
}
