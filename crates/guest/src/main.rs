//! The first process of a guest. It readies the kernel's file systems, waits
//! for its context on the channel, takes the identity, starts munged and
//! slurmd, and then reaps.
//!
//! It never panics on purpose: what fails is reported on the channel and the
//! console, and the guest ends, so that the controller sees a dead VM with a
//! reason instead of a silent one.

mod channel;
mod context;
mod mount;
mod net;
mod slurm;

use channel::Channel;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use thiao_guest::protocol::{Context, HELLO, HELLO_ARGUMENT, Phase, Report, Request};

/// How long slurmd may take to find slurmctld.
const START_LIMIT: Duration = Duration::from_secs(300);

/// The pause before slurmd is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the main loop waits for.
enum Event {
    /// The machine said something.
    Asked(Request),
    /// A task in the background is through.
    Reached(Phase, Result<(), String>),
    /// A child ended: its process id, and how.
    Ended(u32, String),
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("thiao-guest is the first process of a VM that Thiao makes; it does nothing here");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|info| eprintln!("thiao-guest: this is a bug: {info}")));
    // A panic in a task ends that task alone; in the main loop it ends the guest, after the hook's words.
    let why = match std::panic::catch_unwind(run) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some("the guest's agent failed".to_owned()),
    };
    if let Some(why) = why {
        eprintln!("thiao-guest: {why}");
    }
    end()
}

/// Ends the machine; with `-no-reboot` a restart ends QEMU, and it needs no ACPI.
fn end() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn run() -> Result<(), String> {
    mount::kernel_filesystems()?;
    console();
    let arguments = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if arguments
        .split_whitespace()
        .any(|argument| argument == HELLO_ARGUMENT)
    {
        println!("{HELLO}");
        return Ok(());
    }
    mount::modules()?;
    net::links().map_err(|e| format!("cannot bring the network links up: {e}"))?;
    let (events, inbox) = mpsc::channel();
    let channel = Channel::open()?;
    channel.listen(events.clone());
    Guest {
        channel,
        events,
        history: Vec::new(),
        stage: Stage::Waiting,
    }
    .live(&inbox)
}

/// The kernel starts its first process without usable standard streams when
/// /dev is empty: take the console.
fn console() {
    let Ok(console) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
    else {
        return;
    };
    let _ = rustix::stdio::dup2_stdin(&console);
    let _ = rustix::stdio::dup2_stdout(&console);
    let _ = rustix::stdio::dup2_stderr(&console);
}

/// Where a guest is on its way.
enum Stage {
    /// No context yet.
    Waiting,
    /// Took a context; these tasks are not through yet.
    Preparing {
        context: Box<Context>,
        missing: Vec<Phase>,
    },
    /// slurmd runs under this process id, the first one since then.
    Running {
        context: Box<Context>,
        slurmd: u32,
        since: Instant,
    },
}

struct Guest {
    channel: Channel,
    events: Sender<Event>,
    history: Vec<Report>,
    stage: Stage,
}

impl Guest {
    fn live(mut self, inbox: &Receiver<Event>) -> Result<(), String> {
        self.report(Phase::Waiting, None);
        loop {
            let event = inbox.recv().map_err(|e| e.to_string())?;
            let done = match event {
                Event::Asked(request) => self.asked(request),
                Event::Reached(phase, Ok(())) => self.reached(phase),
                Event::Reached(_, Err(error)) => Err(error),
                Event::Ended(pid, how) => match &self.stage {
                    Stage::Running { slurmd, since, .. } if *slurmd == pid => {
                        if since.elapsed() > START_LIMIT || slurm::job_processes_left() {
                            return self.wind_up(&how);
                        }
                        self.again(&how)
                    }
                    Stage::Waiting | Stage::Preparing { .. } | Stage::Running { .. } => Ok(()),
                },
            };
            if let Err(error) = done {
                self.report(Phase::Failed, Some(error.clone()));
                return Err(error);
            }
        }
    }

    fn asked(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Status => {
                self.channel.replay(&self.history);
                Ok(())
            }
            Request::Clock(unix_ns) => context::set_clock(unix_ns),
            Request::Context(context) => match &self.stage {
                Stage::Waiting => self.take(context),
                Stage::Preparing { context: mine, .. } | Stage::Running { context: mine, .. } => {
                    if mine.id != context.id {
                        eprintln!(
                            "thiao-guest: refused the context of {}: this is {}",
                            context.id, mine.id
                        );
                    }
                    self.channel.replay(&self.history);
                    Ok(())
                }
            },
        }
    }

    /// Takes the identity, then lets munged start while the shares are mounted.
    fn take(&mut self, context: Box<Context>) -> Result<(), String> {
        context::apply(&context)?;
        self.report(Phase::Configured, None);
        // Before munged, which looks for its address on the card.
        net::configure(context.mac, context.address, context.prefix_len, context.gateway)?;
        self.report(Phase::Network, None);
        let (socket, address) = (context.munge_socket.clone(), context.address);
        self.task(Phase::Munge, move || slurm::munge(&socket, address));
        reap(self.events.clone());
        let shares = context.shares.clone();
        self.task(Phase::Shares, move || shares.iter().try_for_each(mount::share));
        self.stage = Stage::Preparing {
            context,
            missing: vec![Phase::Munge, Phase::Shares],
        };
        Ok(())
    }

    /// Runs `work` beside the main loop and tells it when it is through.
    fn task(&self, phase: Phase, work: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let events = self.events.clone();
        std::thread::spawn(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .unwrap_or_else(|_| Err(format!("the guest's agent failed before: {}", phase.as_str())));
            // The main loop is gone only when the guest ends.
            let _ = events.send(Event::Reached(phase, done));
        });
    }

    fn reached(&mut self, phase: Phase) -> Result<(), String> {
        self.report(phase, None);
        let Stage::Preparing { context, missing } = &mut self.stage else {
            return Ok(());
        };
        missing.retain(|other| *other != phase);
        if missing.is_empty() {
            let slurmd = slurm::slurmd(context)?;
            let context = context.clone();
            self.stage = Stage::Running {
                context,
                slurmd,
                since: Instant::now(),
            };
            self.report(Phase::Slurmd, None);
        }
        Ok(())
    }

    /// slurmd gives up after 10 s without slurmctld, which may just be restarting: try again for a while.
    fn again(&mut self, how: &str) -> Result<(), String> {
        let Stage::Running { context, slurmd, .. } = &mut self.stage else {
            return Ok(());
        };
        std::thread::sleep(AGAIN);
        *slurmd = slurm::slurmd(context)?;
        if !self
            .history
            .iter()
            .any(|report| report.phase == Phase::SlurmdAgain)
        {
            self.report(Phase::SlurmdAgain, Some(how.to_owned()));
        }
        Ok(())
    }

    /// A guest without slurmd is of no use, but a job's processes outlive slurmd: let them end.
    fn wind_up(mut self, how: &str) -> Result<(), String> {
        self.report(Phase::SlurmdEnded, Some(how.to_owned()));
        while slurm::job_processes_left() {
            std::thread::sleep(Duration::from_secs(1));
        }
        Err(format!("slurmd ended: {how}"))
    }

    fn report(&mut self, phase: Phase, detail: Option<String>) {
        let report = Report {
            phase,
            uptime_ms: uptime_ms(),
            detail,
        };
        self.channel.send(&report);
        self.history.push(report);
    }
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Collects every child, also those of others that this process inherits.
fn reap(events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            match rustix::process::wait(rustix::process::WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let how = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("exit status {code}"),
                        (None, Some(signal)) => format!("signal {signal}"),
                        (None, None) => continue,
                    };
                    if events
                        .send(Event::Ended(pid.as_raw_nonzero().get().unsigned_abs(), how))
                        .is_err()
                    {
                        return;
                    }
                }
                // No child at the moment.
                Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    });
}
