//! The one task that owns the world: takes orders, observations and answers, and makes
//! rounds of plan, lint, store, execute. Who only wants to know something does not ask it: it shows
//! [`Snapshot`]s of what it knows.

use crate::addresses;
use crate::api::{ApiError, Demand, Reply};
use crate::bus::Told;
use crate::clock::{Clock, Saved};
use crate::ends::Ends;
use crate::execute::Executor;
use crate::intake::{self, Spool};
use crate::message::{Message, Pace};
use crate::newcomers::Waiter;
use crate::provider::{Provider, keep_to_one};
use crate::snapshot::{self, Shown, Snapshot, Wait};
use crate::start::Start;
use crate::store::{Store, StoreError};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiao_api::types::Observation;
use thiao_config::{Config, Timing};
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{JobId, Millis, NodeName, Time};
use thiao_core::options::VmOptions;
use thiao_core::orders::Order;
use thiao_core::plan::{Action, NodeVerb, Step};
use thiao_core::rounds::{Decided, Rounds};
use thiao_core::vm::Registration;
use thiao_core::world::{Desired, World};
use thiao_slurm::Slurm;
use tokio::net::UnixDatagram;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// Messages that may wait; senders wait when it is full. More than calls that are under way at once: who
/// ends one need not wait.
const BACKLOG: usize = 1024;

/// What helps when the state folder cannot be written.
pub(crate) const DISK_ADVICE: &str = "Free space on its file system, make that writable (dmesg says why it is not), or give thiaod's user the folder";

/// Pokes that are taken for one; the kernel holds fewer (`net.unix.max_dgram_qlen`).
const POKES: usize = 4096;

/// Of so many things it is remembered what was told of them last: a few of each of 10,000 nodes. Then all
/// is forgotten, and may be told once more.
const SAID: usize = 100_000;

/// Whether the provider can make VMs.
#[derive(Debug)]
pub(super) enum Readiness {
    Preparing(String),
    Ready,
}

impl Readiness {
    /// Why it makes none.
    pub(super) fn why_not(&self) -> Option<&str> {
        match self {
            Self::Preparing(what) => Some(what),
            Self::Ready => None,
        }
    }
}

/// All of the controller's state. Others see it as a [`Snapshot`].
pub struct Owner<P: Provider> {
    pub(super) rounds: Rounds,
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) clock: Arc<Clock>,
    /// What the store has of the clock.
    saved_clock: Saved,
    pub(super) provider: Arc<P>,
    pub(super) provider_notes: Vec<String>,
    pub(super) emulated: Option<String>,
    pub(super) started: Time,
    pub(super) start: Start,
    pub(super) slurm_observation: Observation,
    pub(super) provider_observation: Observation,
    /// What people were told last of how the provider's events are heard.
    pub(super) bus_told: Option<Told>,
    /// Why rounds cannot be stored, and when that was last told; none while they can.
    pub(super) unstored: Option<(String, Time)>,
    pub(super) spool: Spool,
    pub(super) slurm: Arc<Slurm>,
    /// Nodes that left the configuration and may have a VM: Slurm is asked for them, too.
    pub(super) left_nodes: Arc<Mutex<BTreeSet<NodeName>>>,
    pub(super) readiness: Readiness,
    /// Why jobs wait for us, as the last round that looked into it said.
    pub(super) job_waits: BTreeMap<JobId, Wait>,
    /// Jobs whose prologs were answered in this round: they start.
    pub(super) started_jobs: Vec<JobId>,
    /// Jobs whose ends are looked into.
    pub(super) ends: Ends,
    pub(super) waiters: Vec<Waiter>,
    /// Who waits for an observation of Slurm, and since when.
    pub(super) unseen: Vec<(Time, Reply<()>)>,
    said: BTreeMap<(Subject, Kind), (String, Time)>,
    poke: UnixDatagram,
    pub(super) messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    pub(super) slurm_pace: watch::Sender<Pace>,
    pub(super) vm_pace: watch::Sender<Pace>,
    pub(super) slurm_changed: Arc<Notify>,
    /// Whether the gate is being made.
    pub(super) makes_gate: Arc<AtomicBool>,
    pub(super) vms_changed: Arc<Notify>,
    executor: Executor<P>,
    pruned: Time,
    /// What others see of all this.
    pub(super) shown: Arc<Shown>,
}

impl<P: Provider> Owner<P> {
    /// Loads what the last controller knew. Nothing is done yet.
    pub fn open(
        config: &Config,
        provider: Arc<P>,
        slurm: Slurm,
        vms_changed: Arc<Notify>,
    ) -> anyhow::Result<Self> {
        let start = Start::now();
        let mut store = Store::open(&snapshot::database(config))?;
        let last_clock = store.clock()?.and_then(|text| Saved::decode(&text));
        let clock = Arc::new(Clock::start(last_clock.as_ref()));
        let (started, saved_clock) = (clock.now(), clock.saved());
        store.set_clock(&saved_clock.encode())?;
        let mut world = World::new(
            started,
            config.cluster.clone(),
            config.policy.clone(),
            config.nodes.clone().into_iter().collect(),
        );
        world.guests_know = config.guests_know().map(Arc::new);
        world.job_partitions = config.job_partitions();
        world.option_rules.clone_from(&config.job.options);
        let mut rounds = Rounds::open(&mut store, world)?;
        keep_to_one(&mut store, &rounds.world().records, provider.name())?;
        let text = format!("started, version {}", env!("CARGO_PKG_VERSION"));
        rounds.tell(Event::new(Subject::Controller, Kind::Started, text));
        let spool = Spool::open(&config.state_dir, &config.cluster, &config.nodes).with_context(|| {
            let dir = config.state_dir.display();
            format!("the spool in {dir} cannot be made. {}", DISK_ADVICE)
        })?;
        if let Err(error) = spool.publish_users(config.guests_know().as_ref()) {
            tracing::warn!(%error, "jobs of users whom the guests do not know are held, and not refused at submission");
        }
        let (slurm, messages) = (Arc::new(slurm), mpsc::channel(BACKLOG));
        let executor = Executor::new(provider.clone(), slurm.clone(), messages.0.clone(), clock.clone());
        let first = Snapshot::new(rounds.world().clone(), started);
        Ok(Self {
            rounds,
            store,
            config: config.clone(),
            clock,
            saved_clock,
            provider,
            provider_notes: Vec::new(),
            emulated: None,
            started,
            start,
            slurm_observation: Observation::default(),
            provider_observation: Observation::default(),
            bus_told: None,
            unstored: None,
            spool,
            slurm,
            left_nodes: Arc::default(),
            readiness: Readiness::Preparing(snapshot::STARTING.to_owned()),
            job_waits: BTreeMap::new(),
            started_jobs: Vec::new(),
            ends: Ends::default(),
            waiters: Vec::new(),
            unseen: Vec::new(),
            said: BTreeMap::new(),
            poke: bind_poke(&config.state_dir)?,
            messages,
            slurm_pace: watch::Sender::new(Pace::Calm),
            vm_pace: watch::Sender::new(Pace::Calm),
            slurm_changed: Arc::new(Notify::new()),
            makes_gate: Arc::default(),
            vms_changed,
            executor,
            pruned: Time(0),
            shown: Arc::new(Shown::new(first)),
        })
    }

    /// Works until nobody can demand anything any more.
    pub async fn run(mut self, mut demands: mpsc::Receiver<Demand>) -> anyhow::Result<()> {
        self.prepare_provider();
        self.ensure_gate();
        self.ask_of_scheduler();
        self.hear_of_jobs();
        self.start_observers();
        let mut last_round = None;
        loop {
            // Not after every demand: some only wait, and anybody may come with those as often as he likes.
            let last = *last_round.get_or_insert_with(|| {
                let began = Instant::now();
                tokio::task::block_in_place(|| self.one_round());
                began
            });
            let mut due = tokio::select! {
                message = self.messages.1.recv() => {
                    // The owner holds a sender itself: the channel never closes.
                    let Some(message) = message else { return Ok(()) };
                    self.take(message);
                    true
                }
                demand = demands.recv() => {
                    let Some(demand) = demand else { return Ok(()) };
                    let orders = demand.orders();
                    self.rounds.wake(self.clock.now());
                    tokio::task::block_in_place(|| self.demand(demand));
                    orders
                }
                () = self.shown.called() => {
                    self.publish_if_wanted();
                    false
                }
                () = poked(&self.poke, last + self.config.timing.rounds_apart) => true,
                () = tokio::time::sleep_until(last + self.config.timing.tick) => true,
            };
            while let Ok(message) = self.messages.1.try_recv() {
                self.take(message);
                due = true;
            }
            if due {
                last_round = None;
            }
        }
    }

    fn prepare_provider(&self) {
        let shapes = self.config.shapes();
        let (provider, messages) = (self.provider.clone(), self.messages.0.clone());
        tokio::task::spawn_blocking(move || {
            let progress = |what: &str| {
                let _ = messages.blocking_send(Message::Progress(what.to_owned()));
            };
            let result = provider.prepare(&shapes, &progress);
            let _ = messages.blocking_send(Message::Prepared(result));
        });
    }

    /// Observe (what has come in), plan, lint, store, execute.
    fn one_round(&mut self) {
        self.rounds.wake(self.clock.now());
        for step in self.clock.steps() {
            self.record(Event::new(Subject::Controller, Kind::ClockSet, step));
        }
        self.tell_of_bus();
        let consumed = self.take_orders();
        let Decided { plan, steps, refused } = self.rounds.decide(self.readiness.why_not());
        if self.sees_all() {
            let told = self.start.planned(steps.len());
            self.tell_all(told);
        }
        for refusal in refused {
            let text = format!(
                "the linter refused \"{}\": {}; please report this",
                refusal.step.action, refusal.why
            );
            tracing::error!("{text}");
            self.record(Event::new(refusal.step.action.subject(), Kind::LintRefused, text));
        }
        self.remember_waits(&plan);
        self.remember_left_nodes();
        let kept = self.save(steps);
        self.publish_if_due();
        let Some(steps) = kept else { return };
        intake::remove(consumed);
        self.tell_of_started_jobs();
        let tells =
            |(_, step): &(i64, Step)| matches!(step.action, Action::Node(_, NodeVerb::SetDown { .. }));
        let options = match steps.iter().any(tells) {
            true => self.options_of_jobs(),
            false => BTreeMap::new(),
        };
        let options = Arc::new(options);
        if self.sees_all() {
            self.executor.wait(addresses::waiting(self.rounds.world()));
        }
        self.executor.execute(steps, &options);
        self.set_pace();
    }

    fn remember_left_nodes(&self) {
        let World { records, specs, .. } = self.rounds.world();
        let left = records.keys().filter(|node| !specs.contains_key(*node));
        // Every configured node has a record.
        let left = (records.len() > specs.len()).then(|| left.cloned().collect());
        *self.left_nodes.lock().unwrap_or_else(PoisonError::into_inner) = left.unwrap_or_default();
    }

    /// The options for VMs of those jobs that have some.
    fn options_of_jobs(&self) -> BTreeMap<JobId, VmOptions> {
        let jobs = self
            .rounds
            .world()
            .slurm
            .iter()
            .flat_map(|slurm| slurm.jobs.values());
        jobs.filter_map(|job| {
            let options = VmOptions::from_comment(job.admin_comment.as_deref()?).ok()?;
            (!options.is_empty()).then_some((job.id, options))
        })
        .collect()
    }

    /// Whether plans rest on whole views of both sides.
    fn sees_all(&self) -> bool {
        let world = self.rounds.world();
        self.readiness.why_not().is_none() && world.slurm.is_some() && world.provider.is_some()
    }

    fn take_orders(&mut self) -> Vec<PathBuf> {
        let batch = match self.spool.read(&self.store, &self.clock) {
            Ok(batch) => batch,
            Err(error) => {
                self.record(Event::new(
                    Subject::Controller,
                    Kind::SpoolFailed,
                    error.to_string(),
                ));
                return Vec::new();
            }
        };
        self.tell_all(batch.events);
        let mut paths = batch.leftovers;
        for taken in batch.orders {
            let Some(nodes) = self.nodes_of(&taken) else {
                continue;
            };
            let new = self.rounds.take(taken.intent, taken.at, &nodes, &taken.order);
            paths.push(taken.path);
            // Else it was followed in an earlier round, which could not be stored yet.
            if new {
                self.slurm_changed.notify_one();
            }
        }
        paths
    }

    /// Stores what is new, with the steps that begin; none if it could not be.
    fn save(&mut self, steps: Vec<(i64, Step)>) -> Option<Vec<(i64, Step)>> {
        self.tell();
        let kept = self.rounds.keep(&mut self.store, steps);
        self.stored(kept)
    }

    /// What comes after something was stored, or could not be.
    fn stored<T>(&mut self, kept: Result<T, StoreError>) -> Option<T> {
        match kept {
            Ok(kept) => {
                if self.unstored.take().is_some() {
                    self.record(Event::new(
                        Subject::Controller,
                        Kind::StoreOk,
                        "rounds are stored again, and what waited for that is done",
                    ));
                }
                self.save_clock();
                let now = self.rounds.world().now;
                if now.since(self.pruned) > millis(self.config.timing.prune) {
                    self.pruned = now;
                    let keep = millis(self.config.timing.events_keep);
                    if let Err(error) = self.store.prune(Time(now.0.saturating_sub(keep.0))) {
                        tracing::warn!(%error, "old events could not be removed");
                    }
                }
                Some(kept)
            }
            Err(error) => {
                let (error, now) = (error.to_string(), self.rounds.world().now);
                let told = self.unstored.take();
                let within = millis(self.config.timing.same_words);
                let again = told.filter(|(_, at)| now.since(*at) < within);
                if again.is_none() {
                    tracing::error!("nothing is done until rounds can be stored: {error}");
                }
                self.unstored = Some((error, again.map_or(now, |(_, at)| at)));
                None
            }
        }
    }

    /// Keeps an event about the job of this user, which no observation shows any more.
    pub(super) fn record_of(&mut self, event: Event, uid: u32) {
        logged(&event);
        self.rounds.record(event, Some(uid));
    }

    /// Lets the next controller know how far our clock is from the machine's.
    fn save_clock(&mut self) {
        let clock = self.clock.saved();
        if !clock.differs(&self.saved_clock) {
            return;
        }
        match self.store.set_clock(&clock.encode()) {
            Ok(()) => self.saved_clock = clock,
            Err(error) => tracing::warn!(%error, "the state of the clock could not be stored"),
        }
    }

    pub(super) fn set_pace(&self) {
        let Timing {
            registers_within,
            shown_within,
            ..
        } = self.config.timing;
        let (registers_within, shown_within) = (millis(registers_within), millis(shown_within));
        let moving = self
            .rounds
            .world()
            .records
            .values()
            .any(|record| match (&record.vm, record.desired) {
                (Some(vm), _) => !vm.is_up() || vm.missing_since.is_some(),
                (None, Desired::Early { .. } | Desired::Up { .. }) => true,
                (None, Desired::Down { .. } | Desired::Unasked) => record.down.is_some(),
            });
        let registering = self
            .rounds
            .world()
            .records
            .values()
            .filter_map(|record| record.vm.as_ref())
            .filter(|vm| vm.life.is_there() && vm.registration == Registration::GuestReady)
            .any(|vm| self.rounds.world().now.since(vm.since) < registers_within);
        let waiting = self.rounds.world().jobs.values();
        let waiting = waiting
            .into_iter()
            .any(|job| job.waits.is_some() || job.admitted.is_some());
        // Slurm may show a job's nodes a moment after it has run the job's prolog.
        let new = |waiter: &Waiter| self.rounds.world().now.since(waiter.since) < shown_within;
        let pace = match (
            registering || self.waiters.iter().any(new),
            moving || waiting || !self.waiters.is_empty(),
        ) {
            (true, _) => Pace::Urgent,
            (false, true) => Pace::Busy,
            (false, false) => Pace::Calm,
        };
        for sender in [&self.slurm_pace, &self.vm_pace] {
            sender.send_if_modified(|old| std::mem::replace(old, pace) != pace);
        }
    }

    /// Keeps an event for the store; the same one again soon is dropped, if nothing else was told of its matter
    /// meanwhile.
    pub(super) fn record(&mut self, event: Event) {
        let key = (event.subject.clone(), event.kind.matter());
        let now = self.rounds.world().now;
        let within = millis(self.config.timing.same_words);
        let repeated = self
            .said
            .get(&key)
            .is_some_and(|(text, at)| *text == event.text && now.since(*at) < within);
        if repeated {
            return;
        }
        if self.said.len() > SAID {
            self.said.clear();
        }
        logged(&event);
        self.said.insert(key, (event.text.clone(), now));
        let uid = match &event.subject {
            // Somebody's job: unknown whose is root's to see.
            Subject::Job(id) => Some(
                self.rounds
                    .world()
                    .slurm
                    .as_ref()
                    .and_then(|slurm| slurm.jobs.get(id))
                    .map_or(0, |job| job.uid),
            ),
            Subject::Node(_)
            | Subject::Vm(..)
            | Subject::Host(_)
            | Subject::Slurm
            | Subject::Provider
            | Subject::Controller => None,
        };
        self.rounds.record(event, uid);
    }

    /// Has people told what the rounds say.
    pub(super) fn tell(&mut self) {
        let events = self.rounds.take_events();
        self.tell_all(events);
    }

    pub(super) fn tell_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.record(event);
        }
    }

    /// Takes a person's order from the API and stores it before the answer.
    pub(super) fn order_now(&mut self, nodes: &[NodeName], order: &Order) -> Result<(), ApiError> {
        self.rounds.wake(self.clock.now());
        self.tell();
        let kept = self.rounds.order_now(&mut self.store, nodes, order);
        let kept = self.stored(kept);
        self.publish();
        if let Some(events) = kept {
            events.iter().for_each(logged);
            return Ok(());
        }
        let why = self.unstored.as_ref().map_or("see the log", |(why, _)| why);
        Err(ApiError::Unavailable(format!(
            "the order could not be stored, and is not followed: {why}"
        )))
    }
}

/// For who reads the log.
fn logged(event: &Event) {
    tracing::info!(subject = %event.subject, kind = event.kind.word(), "{}", event.text);
}

/// Waits for a poke, and takes it and those behind it; not before that time. Taking has an end
/// also where they come without one.
async fn poked(socket: &UnixDatagram, earliest: Instant) {
    tokio::time::sleep_until(earliest).await;
    // An error would be there again at once: the tick has to do then.
    if socket.readable().await.is_err() {
        return std::future::pending().await;
    }
    let mut byte = [0; 1];
    for _ in 0..POKES {
        if socket.try_recv(&mut byte).is_err() {
            return;
        }
    }
}

fn bind_poke(state_dir: &Path) -> anyhow::Result<UnixDatagram> {
    let path = state_dir.join("poke.sock");
    let _ = std::fs::remove_file(&path);
    let bind = || -> std::io::Result<UnixDatagram> {
        let socket = StdDatagram::bind(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket)
    };
    bind().with_context(|| format!("the socket {} cannot be made", path.display()))
}

pub(super) fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
