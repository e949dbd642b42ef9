//! The controller in virtual time: the rounds of the real one ([`Rounds`]), with
//! simulated observations, a simulated executor, and a `kill -9` wherever one may come.

use crate::disk::{Disk, SpoolFile};
use crate::faults::{Fault, Faults};
use crate::flaw::Flaw;
use crate::perform::{Harm, harm, meddled, perform};
use crate::provider::Provider;
use crate::rng::Rng;
use crate::slurm::Slurm;
use std::collections::BTreeMap;
use thiao_core::event::{Event, Subject};
use thiao_core::fold::Outcome;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId};
use thiao_core::plan::{Action, Plan, Step};
use thiao_core::prolog::PrologAnswer;
use thiao_core::rounds::{Decided, Rounds};
use thiao_core::spool::IntentFile;
use thiao_core::table::Table;
use thiao_core::view::{ProviderView, SlurmJob, SlurmView};
use thiao_core::world::{Desired, NodeRecord, World};

/// An action on its way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// The key that the journal has for it.
    pub id: i64,
    pub action: Action,
    /// The start of the observation of Slurm that it was decided on.
    pub known: Time,
    /// When it takes effect; none after it did.
    acts: Option<Time>,
    /// When its answer comes.
    answers: Time,
    /// For how long no listing that was taken in had shown the node's VM when it was decided.
    unshown: Option<Millis>,
    outcome: Outcome,
}

/// Where in a round a kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All is decided, nothing is kept.
    BeforeWrite,
    /// The round is kept, the orders' files are there still, nothing is executed.
    AfterWrite,
    /// What was decided is on its way.
    Acting,
}

impl Moment {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::BeforeWrite, Self::AfterWrite, Self::Acting];

    /// Its name for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeWrite => "before",
            Self::AfterWrite => "after",
            Self::Acting => "acting",
        }
    }
}

/// A kill at the journal's `write`th write, the first being 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    pub write: u64,
    pub moment: Moment,
}

/// An observation under way, already taken, not yet delivered.
#[derive(Debug)]
struct Observation<V> {
    began: Time,
    ready: Time,
    view: Option<V>,
}

/// What is truly known of the observations of one side, whatever the controller makes of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight {
    /// When the last whole observation began.
    pub began: Time,
    /// Whether the last observation that ended failed.
    pub failed: bool,
}

/// What a round did, for those who check.
#[derive(Debug, Default)]
pub struct Round {
    /// Steps begun and kept so, whether or not they were carried out.
    pub begun: Vec<Step>,
    /// What the linter refused: always a bug.
    pub refused: Vec<String>,
    /// Orders whose effect was kept: their files' names.
    pub taken: Vec<String>,
    /// What is told to people.
    pub events: Vec<Event>,
    /// Nodes that want a VM, get none, and are not told why.
    pub unexplained: Vec<NodeName>,
    /// What was kept once and was not there when it was read again.
    pub forgotten: Option<String>,
    /// Whether the controller was killed in it.
    pub killed: bool,
}

/// The controller, with all that it has on disk and under way.
#[derive(Debug)]
pub struct Controller {
    /// What it knows, as long as it runs.
    pub rounds: Rounds,
    pub disk: Box<dyn Disk>,
    /// The spool folder, by files' names.
    pub spool: BTreeMap<String, SpoolFile>,
    /// What it waits for.
    pub flights: Vec<Flight>,
    /// Jobs that our actions met, since last asked.
    pub harms: Vec<Harm>,
    /// What we did to what others had set, since last asked.
    pub meddled: Vec<String>,
    /// Actions that took effect though they were not in the journal, since last asked.
    pub unkept: Vec<String>,
    /// How often the journal was written.
    pub writes: u64,
    /// What is known of observations of Slurm.
    pub slurm_sight: Sight,
    /// The same of the provider.
    pub provider_sight: Sight,
    slurm_observation: Option<Observation<SlurmView>>,
    provider_observation: Option<Observation<ProviderView>>,
    /// When a listing that was taken in last showed each VM.
    shown: BTreeMap<VmId, Time>,
    /// Not running before then; none: it runs.
    down_until: Option<Time>,
    /// What it begins with: the configuration.
    first: World,
    /// The records as last kept, and the newest action that was.
    kept: Table<NodeName, NodeRecord>,
    last_kept: i64,
    /// Whether the machine lets it down at a given write.
    crash: Option<Crash>,
    flaw: Option<Flaw>,
    rng: Rng,
}

impl Controller {
    /// A controller that starts with this knowledge, on a new and empty disk.
    ///
    /// # Panics
    /// If such a disk cannot be read.
    #[must_use]
    pub fn new(
        world: World,
        disk: Box<dyn Disk>,
        crash: Option<Crash>,
        flaw: Option<Flaw>,
        rng: Rng,
    ) -> Self {
        let mut disk = disk;
        let rounds = Rounds::open(&mut *disk, world.clone()).expect("an empty journal is read");
        Self {
            kept: rounds.world().records.clone(),
            rounds,
            disk,
            spool: BTreeMap::new(),
            flights: Vec::new(),
            harms: Vec::new(),
            meddled: Vec::new(),
            unkept: Vec::new(),
            writes: 0,
            slurm_sight: Sight::default(),
            provider_sight: Sight::default(),
            slurm_observation: None,
            provider_observation: None,
            shown: BTreeMap::new(),
            down_until: None,
            first: world,
            last_kept: 0,
            crash,
            flaw,
            rng,
        }
    }

    /// What the controller knows.
    #[must_use]
    pub fn world(&self) -> &World {
        self.rounds.world()
    }

    /// One round at `now`, unless it is dead.
    pub fn round(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults, now: Time) -> Round {
        let mut round = Round::default();
        if self.down_until.is_some_and(|until| now < until) {
            return round;
        }
        if self.down_until.take().is_some() {
            self.begin_anew(&mut round, now);
        }
        let kill = faults
            .strikes(Fault::Killed)
            .then(|| Moment::ALL[usize::try_from(self.rng.below(3)).unwrap_or(0)]);
        self.rounds.wake(now);
        self.take_answers();
        self.take_observations(slurm, provider, faults);
        let taken = self.take_orders(&mut round);
        Flaw::before_plan(self.flaw, self.rounds.tampered());
        let Decided { plan, steps, refused } = self.rounds.decide(None);
        let steps = Flaw::decided(self.flaw, self.rounds.world(), steps);
        let refusal = |r: &thiao_core::lint::Refusal| format!("{}: {}", r.step.action, r.why);
        round.refused.extend(refused.iter().map(refusal));
        round.unexplained = self.unexplained(&plan);
        round.events.append(&mut self.rounds.take_events());
        let writes = self.rounds.has_news() || self.rounds.world().records != self.kept;
        self.writes += u64::from(writes);
        let crash = self.crash.filter(|crash| writes && crash.write == self.writes);
        let dies = |moment| kill == Some(moment) || crash.is_some_and(|crash| crash.moment == moment);
        if Flaw::RemovesOrdersFirst.is(self.flaw) {
            self.remove_orders(&taken);
        }
        if Flaw::ActsBeforeItKeeps.is(self.flaw) {
            steps.iter().for_each(|step| self.dispatch(step));
        }
        if dies(Moment::BeforeWrite) {
            return self.die(round, slurm, provider, faults);
        }
        let steps = match writes {
            true => match self.keep(steps, faults) {
                Ok(steps) => steps,
                Err(_) => return round,
            },
            false => steps,
        };
        round.taken.clone_from(&taken);
        round.begun.extend(steps.iter().map(|(_, step)| step.clone()));
        if dies(Moment::AfterWrite) {
            return self.die(round, slurm, provider, faults);
        }
        self.remove_orders(&taken);
        if !Flaw::ActsBeforeItKeeps.is(self.flaw) {
            steps.iter().for_each(|step| self.dispatch(step));
        }
        if dies(Moment::Acting) {
            return self.die(round, slurm, provider, faults);
        }
        round
    }

    fn keep(&mut self, steps: Vec<(i64, Step)>, faults: &Faults) -> Result<Vec<(i64, Step)>, String> {
        self.disk.set_full(faults.strikes(Fault::DiskFull));
        let steps = self.rounds.keep(&mut *self.disk, steps)?;
        self.kept.clone_from(&self.rounds.world().records);
        self.last_kept = steps.last().map_or(self.last_kept, |(id, _)| *id);
        Ok(steps)
    }

    fn remove_orders(&mut self, names: &[String]) {
        names.iter().for_each(|name| drop(self.spool.remove(name)));
    }

    /// Lets the actions on their way take effect.
    pub fn act(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults, now: Time) {
        let mut flights = std::mem::take(&mut self.flights);
        for flight in &mut flights {
            if flight.acts.take_if(|at| *at <= now).is_some() {
                flight.outcome = self.perform(flight, slurm, provider, faults, now);
            }
        }
        self.flights = flights;
    }

    fn perform(
        &mut self,
        flight: &Flight,
        slurm: &mut Slurm,
        provider: &mut Provider,
        faults: &Faults,
        now: Time,
    ) -> Outcome {
        self.harms.extend(harm(
            &flight.action,
            flight.known,
            flight.unshown,
            slurm,
            provider,
        ));
        self.meddled.extend(meddled(&flight.action, flight.known, slurm));
        if flight.id > self.last_kept {
            self.unkept.push(flight.action.to_string());
        }
        perform(&flight.action, slurm, provider, faults, now)
    }

    /// Whether it runs, and is not dead.
    #[must_use]
    pub fn runs(&self, now: Time) -> bool {
        self.down_until.is_none_or(|until| until <= now)
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_quiet(&self, now: Time) -> bool {
        let world = self.world();
        self.runs(now)
            && self.flights.is_empty()
            && world.busy.is_empty()
            && world.busy_jobs.is_empty()
            && self.spool.is_empty()
    }

    fn unexplained(&self, plan: &Plan) -> Vec<NodeName> {
        let told = |node: &NodeName| {
            let subject = Subject::Node(node.clone());
            let held = plan.held.iter();
            let mut held = held.map(|held| &held.subject);
            held.any(|held| *held == subject || *held == Subject::Provider)
                || plan.steps.iter().any(|step| step.action.node() == Some(node))
        };
        let wants = |node: &NodeName, record: &NodeRecord| {
            let up = matches!(record.desired, Desired::Early { .. } | Desired::Up { .. });
            up && record.vm.is_none() && !self.rounds.world().busy.contains(node)
        };
        // In job mode a job's nodes are decided together: what is told of it or of one is told of all.
        let jobs = self
            .rounds
            .world()
            .slurm
            .iter()
            .flat_map(|slurm| slurm.jobs.values());
        let jobs: Vec<&SlurmJob> = jobs.filter(|job| !job.nodes.is_empty()).collect();
        let told_of_job = |node: &NodeName| {
            let of = jobs.iter().find(|job| job.nodes.contains(node));
            self.rounds.world().is_job_mode(node)
                && of.is_some_and(|job| {
                    let held = plan.held.iter().any(|held| held.subject == Subject::Job(job.id));
                    let step = plan.steps.iter().any(|step| step.action.job() == Some(job.id));
                    held || step
                        || self.rounds.world().busy_jobs.contains(&job.id)
                        || job.nodes.iter().any(told)
                })
        };
        let records = self.rounds.world().records.iter();
        records
            .filter(|(node, record)| wants(node, record) && !told(node) && !told_of_job(node))
            .map(|(node, _)| node.clone())
            .collect()
    }

    fn take_answers(&mut self) {
        let now = self.rounds.world().now;
        let (ended, waiting): (Vec<_>, Vec<_>) = self
            .flights
            .drain(..)
            .partition(|f| f.acts.is_none() && f.answers <= now);
        self.flights = waiting;
        for flight in ended {
            Flaw::ended(self.flaw, self.rounds.tampered(), &flight.action, &flight.outcome);
            self.rounds.ended(flight.id, &flight.action, &flight.outcome);
        }
    }

    fn take_observations(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults) {
        let now = self.rounds.world().now;
        if let Some(ended) = self.slurm_observation.take_if(|it| it.ready <= now) {
            self.slurm_sight.failed = ended.view.is_none();
            match ended.view {
                Some(view) => {
                    self.slurm_sight.began = ended.began;
                    let view = Flaw::observation(self.flaw, view);
                    self.take_slurm(slurm, view, ended.began);
                }
                None if Flaw::TrustsOldObservations.is(self.flaw) => {}
                None => self.rounds.slurm_unread(),
            }
        }
        if let Some(ended) = self.provider_observation.take_if(|it| it.ready <= now) {
            self.provider_sight.failed = ended.view.is_none();
            if let Some(view) = &ended.view {
                self.provider_sight.began = ended.began;
                // What was not shown for an hour is not asked for any more.
                self.shown.retain(|_, at| now.since(*at) < Millis::secs(3600));
                let shown = view.vms.iter().map(|vm| (vm.id.clone(), now));
                self.shown.extend(shown);
            }
            match Flaw::listing(self.flaw, self.world(), ended.view) {
                Some(view) => self.rounds.saw_provider(view, ended.began),
                None if Flaw::TrustsOldObservations.is(self.flaw) => {}
                None => self.rounds.provider_unread(),
            }
        }
        if self.slurm_observation.is_none() && self.rng.chance(700) {
            let takes = if faults.strikes(Fault::ObservationSlow) {
                9000
            } else {
                300
            };
            self.slurm_observation = Some(Observation {
                began: now,
                ready: now + Millis(self.rng.below(takes)),
                view: slurm.observe(faults, now),
            });
        }
        if self.provider_observation.is_none() && self.rng.chance(700) {
            self.provider_observation = Some(Observation {
                began: now,
                ready: now + Millis(self.rng.below(2000)),
                view: provider.list(faults, now),
            });
        }
    }

    /// Takes an observation of Slurm, and answers the prologs that can end by it.
    fn take_slurm(&mut self, slurm: &mut Slurm, view: SlurmView, began: Time) {
        let asked = slurm.prologs.iter().filter(|(_, prolog)| !prolog.is_answered());
        let asked: Vec<(JobId, Time)> = asked.map(|(job, prolog)| (*job, prolog.since)).collect();
        for (job, _, verdict) in self.rounds.saw_slurm(view, began, &asked) {
            // In doubt the hook ends well, and the sweep does the work.
            let starts = match verdict {
                PrologAnswer::Start | PrologAnswer::Over(_) => true,
                PrologAnswer::Never(_) => Flaw::StartsAnyJob.is(self.flaw),
            };
            slurm.answer_prolog(job, starts);
        }
    }

    /// Takes the orders from the spool; gives the names of their files.
    fn take_orders(&mut self, round: &mut Round) -> Vec<String> {
        let now = self.rounds.world().now;
        let mut taken = Vec::new();
        let files = self.spool.iter().filter(|(_, file)| file.written <= now);
        for (name, file) in files
            .map(|(name, file)| (name.clone(), file.clone()))
            .collect::<Vec<_>>()
        {
            // Killed between "kept" and "removed"? One that cannot be told is asked again later.
            match self.disk.is_taken(&name) {
                Ok(true) => drop(self.spool.remove(&name)),
                Ok(false) => {
                    let intent = IntentFile::decode(&file.bytes).map_err(|error| error.to_string());
                    let nodes = |intent: &IntentFile| intent.nodes().map_err(|error| error.to_string());
                    match intent.and_then(|intent| Ok((nodes(&intent)?, intent))) {
                        Ok((nodes, intent)) => {
                            let order = intent.order(file.jobs);
                            let at = Flaw::order(self.flaw, self.rounds.world(), intent.at);
                            self.rounds.take(intent.taken(&name), at, &nodes, &order);
                            taken.push(name);
                        }
                        Err(why) => round.refused.push(format!("order {name} cannot be read: {why}")),
                    }
                }
                Err(_) => break,
            }
        }
        taken
    }

    fn dispatch(&mut self, (id, step): &(i64, Step)) {
        let now = self.rounds.world().now;
        let acts = now + Millis(self.rng.below(1500));
        let record = step.action.node().and_then(|node| self.world().records.get(node));
        let vm = record.and_then(|record| record.vm.as_ref()?.id.as_ref());
        let shown = vm.and_then(|vm| self.shown.get(vm));
        self.flights.push(Flight {
            unshown: shown.map(|at| now.since(*at)),
            id: *id,
            action: step.action.clone(),
            known: self.slurm_sight.began,
            acts: Some(acts),
            answers: acts + Millis(self.rng.below(1500)),
            outcome: Outcome::Failed("nothing was heard of it".into()),
        });
    }

    /// `kill -9`, and a start from what the disk has. What was on its way takes effect or never does.
    fn die(
        &mut self,
        mut round: Round,
        slurm: &mut Slurm,
        provider: &mut Provider,
        faults: &Faults,
    ) -> Round {
        round.killed = true;
        let now = self.rounds.world().now;
        for mut flight in std::mem::take(&mut self.flights) {
            if flight.acts.take().is_some() && self.rng.coin() {
                self.perform(&flight, slurm, provider, faults, now);
            }
        }
        let away = Millis(self.rng.between(500, 20_000));
        self.down_until = Some(now + away);
        self.disk.reopen();
        round
    }

    /// Starts from what is on disk.
    fn begin_anew(&mut self, round: &mut Round, now: Time) {
        let mut world = self.first.clone();
        world.now = now;
        match Rounds::open(&mut *self.disk, world) {
            Ok(rounds) => self.rounds = rounds,
            Err(why) => {
                round.forgotten = Some(format!("the journal cannot be read: {why}"));
                return;
            }
        }
        // What was done is not remembered; what was kept is.
        let as_kept = |record: &NodeRecord| NodeRecord {
            acted: Time(0),
            ..record.clone()
        };
        let lost = self.kept.iter().find(|(node, kept)| {
            let read = self.world().records.get(*node);
            read.is_none_or(|read| as_kept(read) != as_kept(kept))
        });
        round.forgotten = lost.map(|(node, kept)| format!("of {node} was kept {kept:?}"));
        self.kept.clone_from(&self.rounds.world().records);
        self.slurm_observation = None;
        self.provider_observation = None;
        self.slurm_sight = Sight::default();
        self.provider_sight = Sight::default();
    }

    /// Somebody makes a copy of its journal.
    pub fn back_up(&mut self) {
        self.disk.back_up();
    }

    /// Somebody ends it, puts the last copy of its journal in the journal's place, and starts it
    /// again; whether there was a copy.
    pub fn restore(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults) -> bool {
        // One that was killed first finishes what that has left: an order whose file is still there.
        if self.down_until.is_some() {
            return false;
        }
        self.die(Round::default(), slurm, provider, faults);
        let restored = self.disk.restore();
        if restored {
            // What was kept since is lost: that is what a copy is.
            self.kept.clear();
            self.last_kept = 0;
            let records = self.disk.load().unwrap_or_default();
            for vm in provider.vms.values_mut().filter(|vm| !vm.outsider) {
                let generation = |record: &NodeRecord| record.vm.as_ref().map(|vm| vm.generation);
                vm.forgotten |=
                    vm.view.tag.as_ref().is_some_and(|tag| {
                        records.get(&tag.node).and_then(generation) != Some(tag.generation)
                    });
            }
        }
        restored
    }

    /// Somebody deletes the database of the running controller and restarts it.
    pub fn lose_records(&mut self, disk: Box<dyn Disk>, now: Time) {
        self.flights.clear();
        self.disk = disk;
        self.kept.clear();
        self.last_kept = 0;
        self.down_until = Some(now);
    }
}
