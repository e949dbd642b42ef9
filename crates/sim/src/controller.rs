//! The controller in virtual time: the order of steps of the real one, without
//! its I/O. A round takes answers, looks and orders, plans, lints, notes what
//! begins, stores all of that, and only then acts.

use crate::faults::{Fault, Faults};
use crate::provider::Provider;
use crate::rng::Rng;
use crate::slurm::{Call, Hook, Slurm};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::fold::Order;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId};
use thiao_core::lint::lint;
use thiao_core::note::{Note, Subject};
use thiao_core::plan::{Action, Plan, Step, plan};
use thiao_core::view::{JobState, ProviderView, SlurmJob, SlurmView};
use thiao_core::world::{Breaker, NodeRecord, Phase, Wish, World};

/// How long a look is good enough to act on.
const LOOK_LIFE: Millis = Millis::secs(20);

/// How long a job waits for its nodes to be its own before it starts all the same.
const MARKED_WITHIN: Millis = Millis::secs(10);

/// A hook's order in the spool folder: the name sorts by the time of the call.
#[derive(Debug, Clone)]
pub struct SpoolFile {
    /// When the hook was called.
    pub at: Time,
    /// When it had written its file.
    pub written: Time,
    /// What it carries.
    pub call: Call,
}

/// What a `kill -9` leaves: the database and the spool folder.
#[derive(Debug, Default)]
pub struct Disk {
    /// The records as last stored.
    pub records: BTreeMap<NodeName, NodeRecord>,
    /// Names (here numbers) of the orders taken, stored with what they changed.
    pub taken: BTreeSet<u64>,
    /// The spool folder.
    pub spool: BTreeMap<u64, SpoolFile>,
}

/// An action on its way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// What.
    pub action: Action,
    /// The start of the look at Slurm that it was decided on.
    pub known: Time,
    /// When it takes effect; none after it did.
    acts: Option<Time>,
    /// When its answer comes.
    answers: Time,
    answer: Answer,
}

/// A moment at which a job may have been lost to us.
#[derive(Debug, Clone)]
pub struct Harm {
    /// What we did.
    pub action: Action,
    /// The start of the look at Slurm that it was decided on.
    pub known: Time,
    /// The job that ran there on a VM that lived, and since when.
    pub job: (JobId, Time),
}

/// How an action ended, as far as the controller learns it.
#[derive(Debug, Clone)]
enum Answer {
    Created(VmId),
    CreateFailed(String),
    Done,
    /// The VM's end has begun.
    Underway,
    /// Failed, or nothing was heard: it may have happened or not.
    Unknown,
}

/// A look under way, already taken, not yet delivered.
#[derive(Debug)]
struct Look<V> {
    began: Time,
    ready: Time,
    view: Option<V>,
}

/// What a round did, for those who check.
#[derive(Debug, Default)]
pub struct Round {
    /// Steps begun and stored so, whether or not they were carried out.
    pub begun: Vec<Step>,
    /// What the linter refused: always a bug.
    pub refused: Vec<String>,
    /// Orders whose effect was stored.
    pub taken: Vec<u64>,
    /// What is told to people.
    pub notes: Vec<Note>,
    /// Nodes that want a VM, get none, and are not told why.
    pub unexplained: Vec<NodeName>,
    /// Whether the controller was killed in it.
    pub killed: bool,
}

/// The controller.
#[derive(Debug)]
pub struct Controller {
    /// What it knows.
    pub world: World,
    /// What survives it.
    pub disk: Disk,
    /// What it waits for.
    pub flights: Vec<Flight>,
    /// Jobs that our actions met, since last asked.
    pub harms: Vec<Harm>,
    look_slurm: Option<Look<SlurmView>>,
    look_provider: Option<Look<ProviderView>>,
    /// The start of the looks in use.
    slurm_began: Time,
    provider_began: Time,
    /// Not running before then.
    down_until: Time,
    rng: Rng,
}

impl Controller {
    /// A controller that starts with this knowledge and nothing on disk.
    #[must_use]
    pub fn new(world: World, rng: Rng) -> Self {
        let disk = Disk {
            records: world.records.clone(),
            ..Disk::default()
        };
        Self {
            world,
            disk,
            flights: Vec::new(),
            harms: Vec::new(),
            look_slurm: None,
            look_provider: None,
            slurm_began: Time(0),
            provider_began: Time(0),
            down_until: Time(0),
            rng,
        }
    }

    /// One round at `now`, unless it is dead.
    pub fn round(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults, now: Time) -> Round {
        let mut round = Round::default();
        if now < self.down_until {
            return round;
        }
        // Where in the round the kill comes, if it comes.
        let mut kill_at = faults.strikes(Fault::Killed).then(|| self.rng.below(3));
        let mut killed = |here: u64| {
            let dies = kill_at == Some(here);
            kill_at = kill_at.filter(|_| !dies);
            dies
        };
        self.world.now = now;
        self.take_answers(&mut round);
        self.take_looks(slurm, provider, faults, &mut round);
        let taken = self.take_orders(&mut round);
        let plan = plan(&self.world);
        let (good, refused) = lint(&self.world, &plan);
        round
            .refused
            .extend(refused.iter().map(|r| format!("{}: {}", r.step.action, r.why)));
        round.unexplained = self.unexplained(&plan);
        for step in &good {
            self.world.begin(&step.action);
        }
        if killed(0) {
            return self.die(round, slurm, provider, faults);
        }
        self.disk.records.clone_from(&self.world.records);
        self.disk.taken.extend(&taken);
        round.taken.clone_from(&taken);
        round.begun.clone_from(&good);
        if killed(1) {
            return self.die(round, slurm, provider, faults);
        }
        for id in &taken {
            self.disk.spool.remove(id);
        }
        for step in &good {
            self.dispatch(&step.action);
        }
        if killed(2) {
            return self.die(round, slurm, provider, faults);
        }
        self.answer_prologs(slurm);
        round
    }

    /// Lets jobs of job mode start whose nodes are all up with VMs of their own, and that
    /// Slurm will give to nobody else.
    fn answer_prologs(&self, slurm: &mut Slurm) {
        let world = &self.world;
        let Some(view) = &world.slurm else { return };
        let asked = slurm
            .prologs
            .iter()
            .filter(|(_, prolog)| prolog.since < world.slurm_began);
        let asked: Vec<JobId> = asked.map(|(job, _)| *job).collect();
        for job in asked.iter().filter_map(|job| view.jobs.get(job)) {
            let marked = |node| {
                let seen = view.nodes.get(node);
                let vm = world.records.get(node).and_then(|record| record.vm.as_ref());
                let tried =
                    vm.is_some_and(|vm| vm.phase == Phase::Up && world.now.since(vm.since) > MARKED_WITHIN);
                seen.is_some_and(|seen| seen.is_up() && (seen.flags.power_down || tried))
            };
            if world.others_vm(job).is_some() {
                slurm.answer_prolog(job.id, false);
            } else if job.state == JobState::Configuring && job.nodes.iter().all(marked) {
                slurm.answer_prolog(job.id, true);
            }
        }
    }

    /// Lets the actions on their way take effect.
    pub fn act(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults, now: Time) {
        for flight in &mut self.flights {
            if flight.acts.take_if(|at| *at <= now).is_some() {
                self.harms.extend(harm(flight, slurm, provider));
                flight.answer = perform(&flight.action, slurm, provider, faults, now);
            }
        }
    }

    /// Whether it runs, and is not dead.
    #[must_use]
    pub fn runs(&self, now: Time) -> bool {
        self.down_until <= now
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_quiet(&self, now: Time) -> bool {
        self.down_until <= now
            && self.flights.is_empty()
            && self.world.busy.is_empty()
            && self.world.busy_jobs.is_empty()
            && self.disk.spool.is_empty()
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
            let up = matches!(record.wish, Wish::Up { .. });
            up && record.vm.is_none() && !self.world.busy.contains(node)
        };
        // In job mode a job's nodes are decided together: what is told of it or of one is told of all.
        let jobs = self.world.slurm.iter().flat_map(|slurm| slurm.jobs.values());
        let jobs: Vec<&SlurmJob> = jobs.filter(|job| !job.nodes.is_empty()).collect();
        let told_of_job = |node: &NodeName| {
            let of = jobs.iter().find(|job| job.nodes.contains(node));
            self.world.is_job_mode(node)
                && of.is_some_and(|job| {
                    let held = plan.held.iter().any(|held| held.subject == Subject::Job(job.id));
                    let step = plan.steps.iter().any(|step| step.action.job() == Some(job.id));
                    held || step || self.world.busy_jobs.contains(&job.id) || job.nodes.iter().any(told)
                })
        };
        let records = self.world.records.iter();
        records
            .filter(|(node, record)| wants(node, record) && !told(node) && !told_of_job(node))
            .map(|(node, _)| node.clone())
            .collect()
    }

    fn take_answers(&mut self, round: &mut Round) {
        let now = self.world.now;
        let (ended, waiting): (Vec<_>, Vec<_>) = self
            .flights
            .drain(..)
            .partition(|f| f.acts.is_none() && f.answers <= now);
        self.flights = waiting;
        for flight in ended {
            if let Some(node) = flight.action.node() {
                self.world.busy.remove(node);
            }
            round
                .notes
                .extend(self.fold_answer(&flight.action, flight.answer));
            if let Some(job) = flight
                .action
                .job()
                .filter(|job| self.world.busy_jobs.contains(job))
            {
                self.world.job_action_ended(job);
            }
        }
    }

    fn fold_answer(&mut self, action: &Action, answer: Answer) -> Vec<Note> {
        let world = &mut self.world;
        match (action, answer) {
            (Action::CreateVm { tag, .. }, Answer::Created(id)) => {
                world.created(&tag.node, id).into_iter().collect()
            }
            (Action::CreateVm { tag, .. }, Answer::CreateFailed(why)) => {
                world.create_failed(&tag.node, &why).into_iter().collect()
            }
            (Action::DestroyVm { tag, id, .. }, Answer::Done) => world.destroyed(tag, id.as_ref()),
            (Action::DestroyVm { tag, .. }, Answer::Underway) => {
                world.ending(tag);
                Vec::new()
            }
            (Action::SetDown { node, reason, jobs }, Answer::Done) => world.told_down(node, reason, jobs),
            (Action::ReturnNode { node }, Answer::Done) => world.returned(node).into_iter().collect(),
            (Action::CloseGate { job, .. }, Answer::Done) => vec![world.gate_closed(*job)],
            (Action::PutBack { job, comment, .. }, Answer::Done) => vec![world.put_back(*job, comment)],
            (Action::PutBack { job, .. }, Answer::Unknown) => {
                vec![world.not_put_back(*job, "Slurm refused, or was not heard")]
            }
            (Action::EndWithJob { node } | Action::PowerDown { node }, Answer::Done) => {
                world.ends_with_job(node);
                Vec::new()
            }
            (Action::StartNow { .. } | Action::Admit { .. } | Action::FinishPutBack { .. }, Answer::Done)
            | (_, Answer::Unknown) => Vec::new(),
            (action, answer) => unreachable!("{action} was answered by {answer:?}"),
        }
    }

    fn take_looks(&mut self, slurm: &mut Slurm, provider: &mut Provider, faults: &Faults, round: &mut Round) {
        let now = self.world.now;
        if let Some(look) = self.look_slurm.take_if(|look| look.ready <= now) {
            match look.view {
                Some(view) => {
                    self.slurm_began = look.began;
                    round.notes.extend(self.world.see_slurm(view, look.began));
                }
                None => self.world.slurm = None,
            }
        }
        if let Some(look) = self.look_provider.take_if(|look| look.ready <= now) {
            match look.view {
                Some(view) => {
                    self.provider_began = look.began;
                    round.notes.extend(self.world.see_provider(view, look.began));
                }
                None => self.world.provider = None,
            }
        }
        if now.since(self.slurm_began) > LOOK_LIFE {
            self.world.slurm = None;
        }
        if now.since(self.provider_began) > LOOK_LIFE {
            self.world.provider = None;
        }
        if self.look_slurm.is_none() && self.rng.chance(700) {
            let takes = if faults.strikes(Fault::LookSlow) {
                9000
            } else {
                300
            };
            self.look_slurm = Some(Look {
                began: now,
                ready: now + Millis(self.rng.below(takes)),
                view: slurm.look(faults, now),
            });
        }
        if self.look_provider.is_none() && self.rng.chance(700) {
            self.look_provider = Some(Look {
                began: now,
                ready: now + Millis(self.rng.below(2000)),
                view: provider.list(faults, now),
            });
        }
    }

    fn take_orders(&mut self, round: &mut Round) -> Vec<u64> {
        let now = self.world.now;
        let mut files: Vec<(u64, SpoolFile)> = self
            .disk
            .spool
            .iter()
            .filter(|(_, file)| file.written <= now)
            .map(|(id, file)| (*id, file.clone()))
            .collect();
        files.sort_by_key(|(id, file)| (file.at, *id));
        let mut taken = Vec::new();
        for (id, SpoolFile { at, call, .. }) in files {
            if self.disk.taken.contains(&id) {
                self.disk.spool.remove(&id); // killed between "stored" and "removed"
                continue;
            }
            let order = match call.hook {
                Hook::Resume => Order::Up {
                    force: false,
                    jobs: call.jobs,
                },
                Hook::Suspend => Order::Down,
                Hook::ResumeFail => Order::ResumeFailed,
                Hook::JobEnded { job, failed } => Order::JobEnded { job, failed },
            };
            for node in &call.nodes {
                round.notes.push(self.world.order(node, &order, at));
            }
            taken.push(id);
        }
        taken
    }

    fn dispatch(&mut self, action: &Action) {
        let acts = self.world.now + Millis(self.rng.below(1500));
        self.flights.push(Flight {
            action: action.clone(),
            known: self.slurm_began,
            acts: Some(acts),
            answers: acts + Millis(self.rng.below(1500)),
            answer: Answer::Unknown,
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
        let now = self.world.now;
        for mut flight in std::mem::take(&mut self.flights) {
            if flight.acts.take().is_some() && self.rng.coin() {
                self.harms.extend(harm(&flight, slurm, provider));
                perform(&flight.action, slurm, provider, faults, now);
            }
        }
        let away = Millis(self.rng.between(500, 20_000));
        self.restart(now + away);
        round
    }

    /// Somebody deletes the database of the running controller and restarts it.
    pub fn lose_records(&mut self, now: Time) {
        self.flights.clear();
        self.disk
            .records
            .values_mut()
            .for_each(|record| *record = NodeRecord::default());
        self.restart(now);
    }

    /// Forgets all that is not on disk; running again at `at`.
    fn restart(&mut self, at: Time) {
        self.down_until = at;
        self.look_slurm = None;
        self.look_provider = None;
        self.slurm_began = Time(0);
        self.provider_began = Time(0);
        let world = &mut self.world;
        world.records.clone_from(&self.disk.records);
        world.busy.clear();
        world.jobs_started.clear();
        world.jobs.clear();
        world.busy_jobs.clear();
        world.jobs_acted = Time::default();
        world.slurm_began = Time::default();
        world.strays.clear();
        world.unbacked.clear();
        world.provider_seen = Time::default();
        world.breaker = Breaker::default();
        world.slurm = None;
        world.provider = None;
    }
}

/// The job that runs on a living VM where `flight` ends the VM or takes the node down.
fn harm(flight: &Flight, slurm: &Slurm, provider: &Provider) -> Option<Harm> {
    let node = match &flight.action {
        Action::DestroyVm { tag, .. } => &tag.node,
        Action::SetDown { node, .. } | Action::PowerDown { node } => node,
        Action::CreateVm { .. }
        | Action::ReturnNode { .. }
        | Action::StartNow { .. }
        | Action::Admit { .. }
        | Action::CloseGate { .. }
        | Action::PutBack { .. }
        | Action::FinishPutBack { .. }
        | Action::EndWithJob { .. } => return None,
    };
    let backed = slurm.nodes.get(node)?.backed.as_ref()?;
    let vm = provider.vms.get(backed).filter(|vm| vm.works())?;
    if let Action::DestroyVm { tag, id, .. } = &flight.action {
        let meant = id.as_ref().is_none_or(|id| id == backed);
        vm.view.tag.as_ref().filter(|own| *own == tag && meant)?;
    }
    Some(Harm {
        action: flight.action.clone(),
        known: flight.known,
        job: slurm.running_on(node)?,
    })
}

/// Does what the action says to the world outside; tells how it ended.
fn perform(
    action: &Action,
    slurm: &mut Slurm,
    provider: &mut Provider,
    faults: &Faults,
    now: Time,
) -> Answer {
    if let Action::CreateVm { tag, host, spec, .. } = action {
        if faults.strikes(Fault::CreateHeld) {
            provider.create_held(tag, spec);
            return Answer::Unknown;
        }
        return match provider.create(tag, host, spec, faults, now) {
            _ if faults.strikes(Fault::CreateUnanswered) => Answer::Unknown,
            Ok(id) => Answer::Created(id),
            Err(why) => Answer::CreateFailed(why),
        };
    }
    let slurm_knows =
        |node| slurm.answers(now) && slurm.nodes.get(node).is_some_and(|n| n.unknown_until <= now);
    let possible = match action {
        Action::CreateVm { .. } | Action::DestroyVm { .. } => true,
        Action::SetDown { node, .. }
        | Action::ReturnNode { node }
        | Action::EndWithJob { node }
        | Action::PowerDown { node } => slurm_knows(node),
        Action::StartNow { .. }
        | Action::Admit { .. }
        | Action::CloseGate { .. }
        | Action::PutBack { .. }
        | Action::FinishPutBack { .. } => slurm.answers(now),
    };
    if !possible || faults.strikes(Fault::ActFails) {
        return Answer::Unknown;
    }
    match action {
        Action::CreateVm { .. } => {}
        Action::DestroyVm { tag, id, hard, .. } => {
            if !provider.destroy(tag, id.as_ref(), *hard, faults, now) {
                return if faults.strikes(Fault::ActUnanswered) {
                    Answer::Unknown
                } else {
                    Answer::Underway
                };
            }
        }
        Action::SetDown { node, reason, .. } => slurm.set_down(node, reason, |vm| provider.works(vm), now),
        Action::ReturnNode { node } => slurm.return_to_service(node, now),
        Action::StartNow { job } => slurm.start_now(*job),
        Action::Admit { job, array, .. } => slurm.admit(*job, array.as_ref()),
        Action::CloseGate { job, array, .. } => slurm.close_gate(*job, array.as_ref()),
        Action::PutBack { job, comment, .. } => {
            let whole = !faults.strikes(Fault::ActFails);
            if !(slurm.put_back(*job, comment, whole, now) && whole) {
                return Answer::Unknown;
            }
        }
        Action::FinishPutBack { job, .. } => slurm.finish_put_back(*job),
        Action::EndWithJob { node } => slurm.end_with_job(node),
        Action::PowerDown { node } => slurm.power_down_now(node, now),
    }
    if faults.strikes(Fault::ActUnanswered) {
        Answer::Unknown
    } else {
        Answer::Done
    }
}
