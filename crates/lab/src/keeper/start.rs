//! Bringing the lab up: what is started, in which order, and when it answers.

use super::{CONTROLLER, Keeper, SLURMCTLD, Trouble};
use crate::auth::AuthBy;
use crate::enter::find_program;
use crate::services::{Service, tail};
use crate::{files, oned, world};
use anyhow::{Context, anyhow};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long munged and slurmctld may take to answer.
const DAEMON_LIMIT: Duration = Duration::from_secs(30);
/// How long the controller may take: it may have to try the acceleration and boot templates.
const CONTROLLER_LIMIT: Duration = Duration::from_secs(240);

const MUNGED: &str = "munged";
const ONED: &str = "oned";

impl Keeper {
    /// Makes the lab's own world and starts all programs in it.
    pub(super) fn bring_up(&mut self) -> Result<(), Trouble> {
        self._lock = Some(self.layout.take_lock()?);
        let listener =
            UnixListener::bind(self.layout.keeper_socket()).context("the keeper's socket cannot be made")?;
        world::open_to_all(&self.layout.keeper_socket())?;
        listener
            .set_nonblocking(true)
            .context("the keeper's socket cannot be used")?;
        self.listener = Some(listener);

        world::separate(&self.layout, &self.plan)?;
        let network = self.plan.network();
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

        match self.plan.options.auth {
            AuthBy::Munge => self.start_munged()?,
            AuthBy::Slurm => {}
        }
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
            self.plan.slurm_program(SLURMCTLD)?,
            self.layout.log("slurmctld.out"),
        )
        .args(["-D".into(), "-f".into(), conf.clone().into_os_string()])
        .env("SLURM_CONF", &conf)
        .env("TZ", "UTC");
        let service = match self.plan.options.auth {
            // With this variable slurmctld takes auth/slurm for given, whatever slurm.conf says (25.11).
            AuthBy::Slurm => service.env("SLURM_SACK_KEY", self.layout.slurm_key()),
            AuthBy::Munge => service,
        };
        let port = std::net::SocketAddr::from((self.plan.options.address, self.plan.options.slurmctld_port));
        self.launch(service, DAEMON_LIMIT, |_| {
            Ok(std::net::TcpStream::connect_timeout(&port, Duration::from_millis(200)).is_ok())
        })?;
        let sinfo = self.plan.slurm_program("sinfo")?;
        let nodes: Vec<String> = [self.plan.node_list()]
            .into_iter()
            .chain(self.plan.job_node_list())
            .collect();
        let nodes = nodes.join(" and ");
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
        let service = Service::new(ONED, self.plan.keeper.clone(), self.layout.log(ONED))
            .args(["oned", "--dir"])
            .args([self.layout.dir()])
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        // It may have to try the acceleration before.
        self.launch(service, CONTROLLER_LIMIT, |keeper| {
            Ok(oned::Ready::read(&keeper.layout).is_some())
        })?;
        let ready = oned::Ready::read(&self.layout).context("the stand-in said nothing of itself")?;
        ready.notes.into_iter().for_each(|note| self.say(note));
        self.say(format!(
            "a stand-in for OpenNebula answers at {}",
            oned::endpoint(&self.plan)
        ));
        Ok(ready.share_ports)
    }

    fn start_controller(&mut self) -> Result<(), Trouble> {
        let plan = &self.plan;
        let service = Service::new(CONTROLLER, plan.thiaod.clone(), self.layout.log(CONTROLLER))
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
            let Some(events) = crate::api::events(&api, last) else {
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
            let ready = |status: thiao_api::types::Status| {
                status.preparing.is_none() && status.slurm.last_ok.is_some() && status.vms.last_ok.is_some()
            };
            Ok(crate::api::status(&api).is_some_and(ready))
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
