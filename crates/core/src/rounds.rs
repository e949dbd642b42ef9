//! The rounds of the controller, without its I/O: what came in is folded into the world;
//! a plan is made and linted; what begins is kept in the journal; and only then is it given
//! to whoever executes it.
//!
//! ```text
//!   take, saw_slurm, saw_provider, ended     what came in since the last round
//!        |
//!      decide  ->  keep  ->  (executed)      a round; what comes of it is told by `ended`
//! ```
//! The controller and the simulated world both run this; they differ in I/O and time alone.

use crate::event::{Event, Kind, Subject};
use crate::fold::Outcome;
use crate::ids::{JobId, Millis, NodeName, Time, VmTag};
use crate::journal::{Begun, Entry, Journal, LastWords, TakenIntent};
use crate::lint::{Refusal, lint};
use crate::orders::Order;
use crate::plan::{Action, EndWhy, NodeVerb, Plan, Step, VmVerb};
use crate::planner::{plan, plan_without_provider};
use crate::prolog::PrologAnswer;
use crate::stays::Stays;
use crate::view::{ProviderView, SlurmView, VmNews};
use crate::world::World;
use std::collections::BTreeMap;

/// What is known, and what of it is not on disk yet.
#[derive(Debug)]
pub struct Rounds {
    world: World,
    /// What changed and is not kept yet.
    entry: Entry,
    /// What people should know, not yet in the entry.
    events: Vec<Event>,
    next_action: i64,
    /// Nodes that wait after a failed action, until then.
    pauses: BTreeMap<NodeName, Time>,
    /// Which VMs jobs were on when Slurm was observed last.
    stays: Stays,
}

/// What a round decided.
#[derive(Debug)]
pub struct Decided {
    /// The whole plan, with what is not done and why.
    pub plan: Plan,
    /// What begins, with the journal's keys.
    pub steps: Vec<(i64, Step)>,
    /// What the linter refused: a bug of ours.
    pub refused: Vec<Refusal>,
}

/// Waiting prologs that can end: of which jobs, since when they wait, and what they hear.
pub type Verdicts = Vec<(JobId, Time, PrologAnswer)>;

impl Rounds {
    /// Begins with what the last controller kept. `world` has the configuration; nothing was
    /// seen yet. Nothing is done.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn open<J: Journal + ?Sized>(journal: &mut J, mut world: World) -> Result<Self, J::Error> {
        // Also those of nodes that left the configuration: they may have a VM.
        world.records.extend(journal.load()?);
        for record in world.records.values_mut() {
            record.not_after(world.now, &world.policy);
        }
        let interrupted = journal.interrupted(world.now)?.into_iter().map(|what| {
            let text = format!("the controller ended during \"{what}\": it is observed anew");
            Event::new(Subject::Controller, Kind::Interrupted, text)
        });
        Ok(Self {
            events: interrupted.collect(),
            entry: Entry::default(),
            next_action: journal.next_action()?,
            pauses: BTreeMap::new(),
            stays: Stays::default(),
            world,
        })
    }

    /// All that is known at this moment.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The same, for the faults that the simulated world plants.
    pub fn tampered(&mut self) -> &mut World {
        &mut self.world
    }

    /// What people should know, and was not asked for yet.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The same, each once: what is to be kept of it comes back by [`Rounds::record`].
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Has people told something.
    pub fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Has an event kept; `owner`: whose job it is about, if not everybody may know it.
    pub fn record(&mut self, event: Event, owner: Option<u32>) {
        self.entry.events.push((event, owner));
    }

    /// Has what a VM said last kept, which ends.
    pub fn last_words(&mut self, words: LastWords) {
        self.entry.last_words.push(words);
    }

    /// Whether there is something to keep beside the records.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.entry.is_empty()
    }

    /// Nodes for which the provider can make no VM, and why.
    pub fn has_faults(&mut self, faults: BTreeMap<NodeName, String>) {
        self.world.faults = faults;
    }

    /// How long Slurm's scheduler takes at the most until it has looked at every pending job.
    pub fn schedules_within(&mut self, pass: Millis) {
        self.world.scheduling_pass = pass;
    }

    /// Sets the time to `now`, and ends the pauses that are over.
    pub fn wake(&mut self, now: Time) {
        self.world.now = now;
        let world = &mut self.world;
        self.pauses.retain(|node, until| {
            if *until <= now {
                world.release(node);
            }
            *until > now
        });
    }

    /// Takes an order that is on disk about these nodes; whether it was not taken yet. `at`:
    /// when it was given, by our clock, which is not always the hook's.
    pub fn take(&mut self, intent: TakenIntent, at: Time, nodes: &[NodeName], order: &Order) -> bool {
        // Taken in an earlier round that could not be kept?
        if self.entry.intents.iter().any(|known| known.name == intent.name) {
            return false;
        }
        for node in nodes {
            let event = self.world.order(node, order, at);
            self.events.push(event);
        }
        self.entry.intents.push(intent);
        true
    }

    /// Takes an order that no file has: it is kept before this returns, or nothing of it holds. What people
    /// should know of it is returned, and kept already.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn order_now<J: Journal + ?Sized>(
        &mut self,
        journal: &mut J,
        nodes: &[NodeName],
        order: &Order,
    ) -> Result<Vec<Event>, J::Error> {
        let record = |node: &NodeName| (node.clone(), self.world.records.get(node).cloned());
        let records: Vec<_> = nodes.iter().map(record).collect();
        let (jobs, breaker) = (self.world.jobs.clone(), self.world.breaker.clone());
        let kept = self.entry.events.len();
        let now = self.world.now;
        let orders = nodes.iter().map(|node| self.world.order(node, order, now));
        let events: Vec<Event> = orders.collect();
        self.entry
            .events
            .extend(events.iter().map(|event| (event.clone(), None)));
        match self.keep(journal, Vec::new()) {
            Ok(_) => Ok(events),
            Err(error) => {
                // Whoever is told that it failed does not expect it to be followed later.
                self.entry.events.truncate(kept);
                (self.world.jobs, self.world.breaker) = (jobs, breaker);
                for (node, record) in records {
                    match record {
                        Some(record) => self.world.records.insert(node, record),
                        None => self.world.records.remove(&node),
                    };
                }
                Err(error)
            }
        }
    }

    /// Takes a whole observation of Slurm that began at `began`, and says which of the prologs that
    /// wait (each since then) can end.
    pub fn saw_slurm(&mut self, view: SlurmView, began: Time, prologs: &[(JobId, Time)]) -> Verdicts {
        let events = self.world.see_slurm(view, began);
        self.events.extend(events);
        if let Some(slurm) = &self.world.slurm {
            let moves = self.stays.follow(slurm, &self.world.records);
            self.entry.moves.extend(moves);
        }
        let events = self.world.order_for_prologs(prologs);
        self.events.extend(events);
        let mut verdicts = Vec::new();
        for (job, since) in prologs {
            let Some(verdict) = self.world.prolog(*job, *since) else {
                continue;
            };
            if verdict == PrologAnswer::Start {
                let waited = self.world.now.since(*since);
                let text = format!("all its nodes are up: its prolog ends after {waited}");
                self.events
                    .push(Event::new(Subject::Job(*job), Kind::JobReleased, text));
            }
            verdicts.push((*job, *since, verdict));
        }
        verdicts
    }

    /// Takes a whole observation of the provider that began at `began`.
    pub fn saw_provider(&mut self, view: ProviderView, began: Time) {
        let events = self.world.see_provider(view, began);
        self.events.extend(events);
    }

    /// Takes what is new of single VMs.
    pub fn saw_news(&mut self, news: Vec<VmNews>) {
        let events = self.world.see_news(news);
        self.events.extend(events);
    }

    /// The guest of this VM did not answer when it was told whose job comes. That is no evidence of its end.
    pub fn unheard(&mut self, tag: &VmTag) {
        self.world.guest_is_unheard(tag);
    }

    /// Slurm could not be read whole: what it showed before is acted on no more.
    pub fn slurm_unread(&mut self) {
        self.world.slurm = None;
    }

    /// The same of the provider.
    pub fn provider_unread(&mut self) {
        self.world.provider = None;
    }

    /// What came of an action that was executed.
    pub fn ended(&mut self, id: i64, action: &Action, outcome: &Outcome) {
        let (events, pauses) = self.world.ended(action, outcome);
        self.events.extend(events);
        if let Some(node) = action.node().filter(|_| pauses) {
            let until = self.world.now + self.world.policy.retry_first;
            self.pauses.insert(node.clone(), until);
        }
        self.entry.ended.push((id, outcome.words()));
    }

    /// Decides what to do now. What begins is in the entry; it may be executed once
    /// [`Rounds::keep`] has returned it.
    pub fn decide(&mut self, preparing: Option<&str>) -> Decided {
        let world = &mut self.world;
        let max = world.policy.observation_max_age;
        if world.now.since(world.slurm_began) > max {
            world.slurm = None;
        }
        if world.now.since(world.provider_began) > max {
            world.provider = None;
        }
        let plan = plan_for(&self.world, preparing);
        let (good, refused) = lint(&self.world, &plan);
        let steps: Vec<_> = good.into_iter().map(|step| (self.begin(&step), step)).collect();
        Decided { plan, steps, refused }
    }

    fn begin(&mut self, step: &Step) -> i64 {
        self.world.begin(&step.action);
        let (id, subject) = (self.next_action, step.action.subject());
        self.next_action += 1;
        let what = step.action.to_string();
        let told = match &step.action {
            Action::Vm(_, VmVerb::Create { .. }) => Some(Kind::VmAsked),
            Action::Vm(_, VmVerb::Destroy { .. }) => Some(Kind::VmDestroyAsked),
            Action::Node(_, NodeVerb::EndWithJob(EndWhy::GivesWay)) => Some(Kind::NodeGivesWay),
            // Told when the guest or Slurm has answered.
            Action::Vm(_, VmVerb::StartSlurmd { .. }) | Action::Node(..) | Action::Job(..) => None,
        };
        if let Some(kind) = told {
            let text = format!("{what}: {}", step.why);
            self.events.push(Event::new(subject.clone(), kind, text));
        }
        self.entry.begun.push(Begun {
            id,
            subject: subject.to_string(),
            what,
            why: step.why.clone(),
        });
        id
    }

    /// Keeps the entry with all records. Gives the steps back when they are on disk: only
    /// then may they be executed.
    ///
    /// # Errors
    /// When it cannot be kept. Then nothing is done: the records say what was meant, and the
    /// next round means the same.
    pub fn keep<J: Journal + ?Sized>(
        &mut self,
        journal: &mut J,
        steps: Vec<(i64, Step)>,
    ) -> Result<Vec<(i64, Step)>, J::Error> {
        self.world.forget_removed();
        self.entry.owners = self.owners_of_jobs();
        self.entry.tasks = self.tasks_of_arrays();
        match journal.save(&self.world.records, &self.entry, self.world.now) {
            Ok(()) => {
                self.entry = Entry::default();
                Ok(steps)
            }
            Err(error) => {
                self.entry.begun.clear();
                for (_, step) in steps {
                    if let Some(node) = step.action.node() {
                        self.world.busy.remove(node);
                    }
                    if let Some(job) = step.action.job() {
                        self.world.busy_jobs.remove(&job);
                    }
                }
                Err(error)
            }
        }
    }

    fn owners_of_jobs(&self) -> BTreeMap<JobId, u32> {
        let Some(slurm) = &self.world.slurm else {
            return BTreeMap::new();
        };
        self.jobs_with_vms()
            .filter_map(|job| Some((job, slurm.jobs.get(&job)?.uid)))
            .collect()
    }

    fn tasks_of_arrays(&self) -> BTreeMap<JobId, (JobId, u32)> {
        let Some(slurm) = &self.world.slurm else {
            return BTreeMap::new();
        };
        let told = self
            .entry
            .events
            .iter()
            .filter_map(|(event, _)| match event.subject {
                Subject::Job(job) => Some(job),
                Subject::Node(_)
                | Subject::Vm(..)
                | Subject::Host(_)
                | Subject::Slurm
                | Subject::Provider
                | Subject::Controller => None,
            });
        let begun = self.entry.moves.begun.iter().map(|stay| stay.job);
        self.jobs_with_vms()
            .chain(told)
            .chain(begun)
            .filter_map(|job| {
                let array = slurm.jobs.get(&job)?.array.as_ref()?;
                // A record of several tasks is none of them yet.
                let [task] = array.tasks.as_slice() else {
                    return None;
                };
                Some((job, (array.job, *task)))
            })
            .collect()
    }

    fn jobs_with_vms(&self) -> impl Iterator<Item = JobId> {
        let records = self.world.records.values();
        records.filter_map(|record| record.vm.as_ref()?.spec.as_ref()?.job)
    }
}

/// The plan for a world as it is. `preparing`: why the provider makes no VMs yet; then none is made.
#[must_use]
pub fn plan_for(world: &World, preparing: Option<&str>) -> Plan {
    match preparing {
        None => plan(world),
        Some(what) => plan_without_provider(world, &format!("the provider is being prepared: {what}")),
    }
}
