//! The first process of a guest. It readies the kernel's file systems, waits
//! for its context on the channel or finds it on a disk, takes the identity,
//! starts munged (where Slurm uses it) and slurmd, and then reaps.
//!
//! It never panics on purpose: what fails is reported on the channel or the
//! console, and the guest ends, so that the controller sees a dead VM with a
//! reason instead of a silent one.

mod button;
mod channel;
mod clock;
mod context;
mod disk;
mod goes_on;
mod kept;
mod leftovers;
mod memory;
mod modules;
mod mount;
mod net;
mod onegate;
mod root;
mod slurm;
mod source;
mod systemd;
mod tls;

use channel::Channel;
use kept::Kept;
use source::Source;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use thiao_guest::auth::Auth;
use thiao_guest::context_disk::OneGate;
use thiao_guest::protocol::{
    Arrival, Card, DISK_ARGUMENT, HELLO, HELLO_ARGUMENT, Modules, OneContext, Phase, Report, Request,
    SERVICE_ARGUMENT,
};

/// How long slurmd may take to find slurmctld.
const START_LIMIT: Duration = Duration::from_secs(300);

/// slurmd waits no longer than for the end of a second, whatever is told.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The pause before slurmd is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the main loop waits for.
enum Event {
    /// The machine said something.
    Asked(Request),
    /// A task in the background is through.
    Reached(Phase, Result<(), String>),
    /// People who came later are there, or why not: the arrival's number.
    Arrived(u64, Result<(), String>),
    /// A child ended: its process id, and how.
    Ended(u32, String),
    /// The power button was pressed.
    Pressed,
}

/// What starts programs in this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Init {
    /// This program is the first process, and has the guest to itself.
    Own,
    /// systemd is, of the system on the guest's disk, and this program is a service of it.
    Systemd,
}

fn main() -> ExitCode {
    let service = std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == SERVICE_ARGUMENT);
    let init = match (std::process::id(), service) {
        (1, _) => Init::Own,
        (_, true) => Init::Systemd,
        (_, false) => {
            eprintln!("thiao-guest is the first process of a VM that Thiao makes; it does nothing here");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|info| eprintln!("thiao-guest: this is a bug: {info}")));
    // A panic in a task ends that task alone; in the main loop it ends the guest, after the hook's words.
    let why = match std::panic::catch_unwind(|| run(init)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some("the guest's agent failed".to_owned()),
    };
    if let Some(why) = why {
        eprintln!("thiao-guest: {why}");
        // No job that runs ends for this program's sake.
        while slurm::job_processes_left() {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    end()
}

/// Ends the machine. A microVM's QEMU takes a restart for the end, which needs
/// no ACPI; a full machine would start again, and is switched off.
fn end() -> ! {
    use rustix::system::{RebootCommand, reboot};
    rustix::fs::sync();
    if modules::is_full_machine() {
        let _ = reboot(RebootCommand::PowerOff);
    }
    let _ = reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn run(init: Init) -> Result<(), String> {
    match init {
        Init::Own => {
            mount::kernel_filesystems()?;
            console();
            let arguments = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
            let told = |word: &str| arguments.split_whitespace().any(|argument| argument == word);
            if told(HELLO_ARGUMENT) {
                println!("{HELLO}");
                return Ok(());
            }
            if told(DISK_ARGUMENT) {
                return root::enter();
            }
            mount::folders_for_all()?;
            modules::load(Modules::Always)?;
        }
        Init::Systemd => {}
    }
    memory::give_to_the_job();
    clock::keep();
    net::links().map_err(|e| format!("cannot bring the network links up: {e}"))?;
    let (events, inbox) = mpsc::channel();
    let mut guest = Guest {
        init,
        channel: None,
        onegate: None,
        events,
        history: Vec::new(),
        card: None,
        stage: Stage::Waiting,
        starts: Starts::none(),
    };
    let before = match init {
        Init::Own => None,
        Init::Systemd => Kept::read()?,
    };
    match (Source::find()?, before) {
        (Source::Channel(channel), Some(kept)) => {
            channel.listen(guest.events.clone());
            guest.channel = Some(channel);
            guest.go_on(kept)?;
        }
        (Source::Channel(channel), None) => {
            channel.listen(guest.events.clone());
            guest.channel = Some(channel);
            guest.report(Phase::Waiting, None);
            if init == Init::Systemd {
                guest.task(Phase::Up, || {
                    systemd::wait_until_up();
                    // Who was told who it is by now is not going to be saved.
                    if Kept::read().is_ok_and(|kept| kept.is_none()) {
                        systemd::settle();
                    }
                    Ok(())
                });
            }
        }
        (Source::Disk(told), _) => {
            guest.report(Phase::Waiting, None);
            button::attend(guest.events.clone());
            guest.onegate = told.onegate;
            if let Some(why) = told.unheard {
                eprintln!("thiao-guest: OneGate does not hear when this guest is ready: {why}");
            }
            if let Some(Err(why)) = told.seed.as_ref().map(context::reseed) {
                eprintln!(
                    "thiao-guest: cannot seed the random generator, and waits for the kernel to do it: {why}"
                );
            }
            // Its VM was not made before Slurm asked, and nobody else tells it.
            guest.starts.ask(1, Duration::ZERO);
            guest.take(told.common, told.card)?;
        }
    }
    guest.live(&inbox)
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
    /// No context has come yet.
    Waiting,
    /// Took a context; these tasks are not through yet.
    Preparing {
        context: Box<OneContext>,
        missing: Vec<Phase>,
    },
    /// Has all but slurmd.
    Prepared { context: Box<OneContext> },
    /// slurmd runs under this process id, the first one since then.
    Running {
        context: Box<OneContext>,
        slurmd: u32,
        since: Instant,
        /// It was ended, to be started again.
        ended: bool,
    },
}

/// Which start of slurmd was asked for, and which was made.
struct Starts {
    asked: u32,
    not_before: Instant,
    made: u32,
}

impl Starts {
    fn none() -> Self {
        Self {
            asked: 0,
            not_before: Instant::now(),
            made: 0,
        }
    }

    fn ask(&mut self, number: u32, wait: Duration) {
        if number > self.asked {
            self.asked = number;
            self.not_before = Instant::now() + wait.min(LONGEST_WAIT);
        }
    }
}

struct Guest {
    init: Init,
    /// None when a disk told the context: reports go to the console then.
    channel: Option<Channel>,
    /// Whom to tell that slurmd runs, beside the channel.
    onegate: Option<OneGate>,
    events: Sender<Event>,
    history: Vec<Report>,
    /// The identity of its network card, once it was told.
    card: Option<Card>,
    stage: Stage,
    starts: Starts,
}

impl Guest {
    fn live(mut self, inbox: &Receiver<Event>) -> Result<(), String> {
        loop {
            let event = inbox.recv().map_err(|e| e.to_string())?;
            let done = match event {
                Event::Asked(request) => self.asked(request),
                Event::Reached(phase, Ok(())) => self.reached(phase),
                Event::Reached(_, Err(error)) => Err(error),
                Event::Arrived(number, done) => {
                    self.say(Report {
                        phase: Phase::People,
                        uptime_ms: uptime_ms(),
                        detail: done.err(),
                        arrival: Some(number),
                    });
                    Ok(())
                }
                Event::Ended(pid, how) => match &self.stage {
                    Stage::Running {
                        slurmd, since, ended, ..
                    } if *slurmd == pid => {
                        let old = since.elapsed() > START_LIMIT || slurm::job_processes_left();
                        if old && !ended {
                            return self.wind_up(&how);
                        }
                        self.again(&how)
                    }
                    Stage::Waiting
                    | Stage::Preparing { .. }
                    | Stage::Prepared { .. }
                    | Stage::Running { .. } => Ok(()),
                },
                // Who presses it wants this guest gone, whatever runs.
                Event::Pressed => {
                    println!("thiao-guest: the power button was pressed");
                    return Ok(());
                }
            };
            if let Err(error) = done {
                self.report(Phase::Failed, Some(error.clone()));
                return Err(error);
            }
            self.keep();
        }
    }

    fn asked(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Status => {
                self.replay();
                Ok(())
            }
            Request::Clock(unix_ns) => context::set_clock(unix_ns),
            Request::People(arrival) => {
                self.admit(*arrival);
                Ok(())
            }
            Request::Slurmd { number, wait_ms } => {
                self.starts.ask(number, Duration::from_millis(wait_ms));
                self.start_slurmd()
            }
            Request::Context(context) => match &self.stage {
                Stage::Waiting => {
                    context::refresh(&context.seed, context.clock)?;
                    self.take(context.common, context.card)
                }
                Stage::Preparing { context: mine, .. }
                | Stage::Prepared { context: mine }
                | Stage::Running { context: mine, .. } => {
                    let context = context.common;
                    if mine.id != context.id {
                        eprintln!(
                            "thiao-guest: refused the context of {}: this is {}",
                            context.id, mine.id
                        );
                    }
                    self.replay();
                    Ok(())
                }
            },
        }
    }

    /// Has more people, and mounts what they see. What fails of that is told, and costs their jobs alone.
    fn admit(&self, arrival: Arrival) {
        let (events, arrival_number) = (self.events.clone(), arrival.number);
        let named = !matches!(self.stage, Stage::Waiting);
        std::thread::spawn(move || {
            let work = move || {
                if !named {
                    return Err("people came before this guest's own identity".to_owned());
                }
                // Before anything that takes long: jobs may come that are not to lose anything.
                if arrival.fresh
                    && let Err(why) = leftovers::clear()
                {
                    eprintln!("thiao-guest: the next job finds what others left in /tmp: {why}");
                }
                arrival.shares.iter().try_for_each(mount::share)?;
                context::admit(&arrival.users, &arrival.groups)
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .unwrap_or_else(|_| Err("the guest's agent failed over people who came".to_owned()));
            // The main loop is gone only when the guest ends.
            let _ = events.send(Event::Arrived(arrival_number, done));
        });
    }

    /// Takes the identity, then lets munged start while the shares are mounted.
    fn take(&mut self, context: OneContext, card: Card) -> Result<(), String> {
        let mut missing = vec![Phase::Shares];
        if let Auth::Munge { .. } = &context.auth {
            missing.push(Phase::Munge);
        }
        self.card = Some(card);
        self.stage = Stage::Preparing {
            context: Box::new(context.clone()),
            missing,
        };
        // Before anything comes of it: nobody tells it twice.
        self.keep();
        context::apply(&context, card.address, self.init)?;
        self.report(Phase::Configured, None);
        // Before munged, which looks for its address on the card.
        net::configure(card)?;
        self.report(Phase::Network, None);
        match context.auth {
            Auth::Munge { munge_socket, .. } => {
                let (init, address) = (self.init, card.address);
                self.task(Phase::Munge, move || match init {
                    Init::Own => slurm::munge(&munge_socket, address),
                    Init::Systemd => systemd::munge(&munge_socket),
                });
            }
            Auth::Slurm { .. } => {}
        }
        if self.init == Init::Own {
            reap(self.events.clone());
        }
        let shares = context.shares;
        self.task(Phase::Shares, move || shares.iter().try_for_each(mount::share));
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
        if !missing.is_empty() {
            return Ok(());
        }
        let context = context.clone();
        self.stage = Stage::Prepared { context };
        // For who reads the console, and for tests: what slurmd will find.
        println!("thiao-guest: {}", slurm::seen());
        self.report(Phase::Prepared, None);
        self.start_slurmd()
    }

    /// Starts slurmd, if that was asked for and all else is there; or has it end, so that it is started again.
    fn start_slurmd(&mut self) -> Result<(), String> {
        let Starts {
            asked,
            not_before,
            made,
        } = self.starts;
        if made >= asked {
            return Ok(());
        }
        match &mut self.stage {
            Stage::Waiting | Stage::Preparing { .. } => return Ok(()),
            Stage::Prepared { context } => {
                std::thread::sleep(not_before.saturating_duration_since(Instant::now()));
                let slurmd = slurmd(self.init, context, &self.events)?;
                let context = context.clone();
                self.stage = Stage::Running {
                    context,
                    slurmd,
                    since: Instant::now(),
                    ended: false,
                };
                self.report(Phase::Slurmd, None);
                if let Some(onegate) = self.onegate.take() {
                    onegate::say_ready(onegate);
                }
            }
            // One that was heard after all may have a job.
            Stage::Running { .. } if slurm::job_processes_left() => {}
            Stage::Running { slurmd, ended, .. } => *ended = slurm::end(*slurmd),
        }
        self.starts.made = asked;
        Ok(())
    }

    /// slurmd gives up after 10 s without slurmctld, which may just be restarting: try again for a while.
    /// The pause is also for the second in which Slurm may have asked anew.
    fn again(&mut self, how: &str) -> Result<(), String> {
        let Stage::Running {
            context,
            slurmd,
            since,
            ended,
        } = &mut self.stage
        else {
            return Ok(());
        };
        std::thread::sleep(AGAIN);
        *slurmd = self::slurmd(self.init, context, &self.events)?;
        if std::mem::take(ended) {
            *since = Instant::now();
        }
        if !self
            .history
            .iter()
            .any(|report| report.phase == Phase::SlurmdAgain)
        {
            // Here, too: what keeps it from registering may be all that is left to read.
            eprintln!("thiao-guest: slurmd ended: {how}");
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
            arrival: None,
        };
        self.say(report);
    }

    fn say(&mut self, report: Report) {
        let phase = report.phase;
        match (&self.channel, &report.detail) {
            (Some(channel), _) => channel.send(&report),
            (None, Some(detail)) => println!("thiao-guest: {}: {detail}", phase.as_str()),
            // For who reads the console: how long it took.
            (None, None) => println!("thiao-guest: {} after {} ms", phase.as_str(), report.uptime_ms),
        }
        // Whoever waits for an answer about people hears it now or not at all.
        if phase != Phase::People {
            self.history.push(report);
        }
    }

    fn replay(&self) {
        if let Some(channel) = &self.channel {
            channel.replay(&self.history);
        }
    }
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Starts slurmd, and has its end told to the main loop.
fn slurmd(init: Init, context: &OneContext, events: &Sender<Event>) -> Result<u32, String> {
    match init {
        Init::Own => slurm::slurmd(context),
        Init::Systemd => {
            let slurmd = systemd::slurmd(context)?;
            Ok(goes_on::attend(slurmd, events))
        }
    }
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
