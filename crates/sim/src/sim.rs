//! The clock and the people: steps the simulated world, makes its bad days,
//! and has every step checked.

mod people;

pub use crate::setup::{JOB_MODE_CPUS, JobModePlan, JobPlan, Setup, VM_MEMORY_MB};

use crate::check::Checker;
use crate::controller::{Controller, Round};
use crate::disk::{Disk, SpoolFile, intent};
use crate::faults::{Fault, Faults, Hit};
use crate::flaw::Flaw;
use crate::outcome::{Broken, Invariant, Summary, Violation};
use crate::provider::{Provider, Vm};
use crate::rng::Rng;
use crate::setup::{first_world, node_name};
use crate::slurm::{Call, Job, Node, Power, Slurm, Stage};
use std::collections::{BTreeMap, VecDeque};
use std::mem::Discriminant;
use thiao_core::ids::{HostName, JobId, Millis, NodeName, Time};
use thiao_core::plan::{Action, NodeVerb, VmVerb};
use thiao_core::view::HostView;
use thiao_core::world::{Desired, NodeRecord};

/// How many lines of the story are kept for a violation's report.
const STORY: usize = 400;

/// How often something may go wrong that is not an answer to anything.
const MISCHIEF: Millis = Millis::secs(5);

/// The longest step of the clock while things happen, and while nothing does: still
/// well below what an observation is good for.
const BUSY_STEP: Millis = Millis(900);
const IDLE_STEP: Millis = Millis::secs(5);

/// After so many steps in which nothing was told, the clock may go faster.
const IDLE_AFTER: u32 = 30;

/// How long Slurm remembers jobs that are over (its MinJobAge).
const JOB_AGE: Millis = Millis::secs(300);

/// What a job that still has to run may cost beside its own time, all of them one after
/// another: boots, sweeps, one pause of a requeue.
const JOB_PATIENCE: Millis = Millis::secs(180);

/// The longest pauses in a row: those of our back-off, of a boot; a few times each.
const PATIENCE: Millis = Millis::secs(1200);

/// What is undone later.
#[derive(Debug, Clone)]
enum Repair {
    Host(HostName),
    Drain(NodeName),
    Down(NodeName),
    /// Nothing is repaired: a user has enough of a job.
    Cancel(JobId),
}

/// The whole simulated world.
#[derive(Debug)]
pub struct Sim {
    pub now: Time,
    pub slurm: Slurm,
    pub provider: Provider,
    pub controller: Controller,
    /// What was decided and what happened, newest last.
    pub story: VecDeque<String>,
    setup: Setup,
    faults: Faults,
    begin: Time,
    check: Checker,
    submitted: usize,
    /// A number for each hook.
    next_file: u32,
    /// When the last hook was called: no two at once.
    last_call: Time,
    next_mischief: Time,
    next_purge: Time,
    /// Steps since something was told.
    idle: u32,
    /// How far each job was when last seen.
    stages: BTreeMap<JobId, Discriminant<Stage>>,
    /// Undone at these times.
    repairs: Vec<(Time, Repair)>,
    /// Faults that struck, oldest first.
    hits: Vec<Hit>,
    summary: Summary,
    rng: Rng,
}

impl Sim {
    /// The world at its start: nothing runs.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let disk = Flaw::disk(setup.flaw);
        Self::with_disk(setup, disk)
    }

    /// The same with a journal of the caller's, which must be new.
    #[must_use]
    pub fn with_disk(setup: Setup, disk: Box<dyn Disk>) -> Self {
        let rng = Rng::new(setup.seed);
        let begin = Time(1_000_000_000);
        let numbered = |word: &str, count: usize| -> Vec<NodeName> {
            (0..count).map(|i| node_name(&format!("{word}{i}"))).collect()
        };
        let job_mode = numbered("j", setup.job_mode_nodes);
        let names = numbered("n", setup.nodes);
        let memory_mb = setup.host_capacity * (VM_MEMORY_MB + setup.policy.overhead_mb) + 30;
        let hosts = (0..setup.hosts)
            .map(|i| HostView {
                name: HostName::new(&format!("h{i}")).expect("a host's name"),
                cpu_percent: 6400,
                memory_mb,
                gpus: None,
                usable: true,
                closed: None,
                not_for: Default::default(),
                load: None,
            })
            .collect();
        let all = names.iter().chain(&job_mode).cloned();
        let mut slurm = Slurm::new(all, setup.rules.clone(), rng.fork(1));
        job_mode.iter().for_each(|node| slurm.job_mode_node(node));
        let provider = Provider::new(hosts, &setup.policy, rng.fork(2));
        let controller = Controller::new(
            first_world(&setup, &names, &job_mode, begin),
            disk,
            setup.crash,
            setup.flaw,
            rng.fork(3),
        );
        Self {
            now: begin,
            slurm,
            provider,
            controller,
            story: VecDeque::new(),
            faults: Faults::new(setup.faults.clone(), setup.only.clone(), &rng.fork(5)),
            begin,
            check: Checker::default(),
            submitted: 0,
            next_file: 1,
            last_call: begin,
            next_mischief: begin,
            next_purge: begin,
            idle: 0,
            stages: BTreeMap::new(),
            repairs: Vec::new(),
            hits: Vec::new(),
            summary: Summary {
                took: Millis(0),
                jobs: 0,
                rounds: 0,
                checks: 0,
                faults: Vec::new(),
                created: 0,
                writes: 0,
                kills: 0,
                resume_timeouts: 0,
                downs: 0,
            },
            rng: rng.fork(4),
            setup,
        }
    }

    /// Runs until faults have stopped, all jobs are done and nothing is left over.
    ///
    /// # Errors
    /// The first broken invariant, with the story so far.
    pub fn run(mut self) -> Result<Summary, Violation> {
        self.finish()
    }

    /// The same, for who wants to see what is left.
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    pub fn finish(&mut self) -> Result<Summary, Violation> {
        let mut bound = None;
        loop {
            self.step()?;
            if self.more_to_come() {
                continue;
            }
            let bound = *bound.get_or_insert_with(|| self.bound());
            if self.left_over().next().is_none() {
                return Ok(self.summary());
            }
            if self.now > bound {
                let left: Vec<String> = self.left_over().collect();
                return Err(self.violation(Broken {
                    invariant: Invariant::AllEndsWell,
                    what: format!("not done in time: {}", left.join("; ")),
                }));
            }
        }
    }

    /// When all must be done, if nothing more comes.
    fn bound(&self) -> Time {
        let jobs = self.slurm.jobs.values().filter(|job| job.stage != Stage::Done);
        let work = jobs.map(|job| {
            let array = job.job_mode.as_ref().and_then(|job_mode| job_mode.array.as_ref());
            let tasks = array.map_or(1, |array| array.tasks.len() as u64);
            (job.length.0 + JOB_PATIENCE.0) * tasks
        });
        self.now + Millis(work.sum::<u64>() + PATIENCE.0)
    }

    /// How it went so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let jobs = self.slurm.jobs.values().filter(|job| job.stage == Stage::Done);
        Summary {
            took: self.now.since(self.begin),
            jobs: self.summary.jobs + jobs.count(),
            resume_timeouts: self.slurm.resume_timeouts,
            checks: self.check.made(),
            writes: self.controller.writes,
            faults: self.faults.tally(),
            ..self.summary.clone()
        }
    }

    /// How long the next step of the clock is. While nothing happens the clock goes
    /// faster, and if nothing is even there it goes to where something comes.
    fn stride(&mut self) -> Millis {
        if self.idle < IDLE_AFTER || !self.is_steady() {
            return Millis(self.rng.between(20, BUSY_STEP.0));
        }
        let usual = Millis(self.rng.between(20, IDLE_STEP.0));
        let next = self.next_event();
        if self.more_to_come() && self.left_over().next().is_none() {
            return next.map_or(usual, |next| usual.max(next.since(self.now)));
        }
        next.map_or(usual, |next| usual.min(next.since(self.now).max(Millis(20))))
    }

    /// Whether nothing is on its way up or down, so that no deadline is near.
    fn is_steady(&self) -> bool {
        let stays = |record: &NodeRecord| match &record.vm {
            Some(vm) => vm.is_up(),
            None => !matches!(record.desired, Desired::Early { .. } | Desired::Up { .. }),
        };
        let rests = |node: &Node| matches!(node.power, Power::On | Power::Off);
        self.controller.is_quiet(self.now)
            && self.controller.world().records.values().all(stays)
            && self.slurm.nodes.values().all(rests)
    }

    /// When people next do something, or begin or cease to.
    fn next_event(&self) -> Option<Time> {
        let at = |after: Millis| self.begin + after;
        let submit = self.setup.jobs.get(self.submitted).map(|job| at(job.submit));
        let repair = self.repairs.iter().map(|(at, _)| *at).min();
        let calm = (!self.faults.are_over()).then_some(at(self.setup.calm));
        let lulls = self.setup.lulls.iter().flat_map(|(from, until)| [*from, *until]);
        let lull = lulls.map(at).filter(|at| *at > self.now).min();
        let mischief = self.faults.are_about().then_some(self.next_mischief);
        [submit, repair, calm, lull, mischief].into_iter().flatten().min()
    }

    /// One step of the clock, checked.
    ///
    /// # Errors
    /// A broken invariant.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.now = self.now + self.stride();
        let now = self.now;
        self.idle += 1;
        self.weather();
        self.people();
        self.provider.step(now);
        self.registrations();
        self.slurm.step(|vm| self.provider.works(vm), now);
        self.hooks();
        self.controller
            .act(&mut self.slurm, &mut self.provider, &self.faults, now);
        self.hooks();
        self.summary.rounds += u64::from(self.controller.runs(now));
        let round = self
            .controller
            .round(&mut self.slurm, &mut self.provider, &self.faults, now);
        self.hooks();
        self.jobs();
        self.retell(&round);
        match self.check.round(
            &round,
            &mut self.controller,
            &self.provider,
            &self.slurm,
            &self.setup,
        ) {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.violation(broken)),
        }
    }

    /// Begins and ends the spans in which things go wrong.
    fn weather(&mut self) {
        if self.faults.are_over() {
            return;
        }
        let passed = self.now.since(self.begin);
        if passed >= self.setup.calm {
            self.calm();
            return;
        }
        let lulls = &self.setup.lulls;
        let lull = lulls
            .iter()
            .any(|(from, until)| (*from..*until).contains(&passed));
        if lull && self.faults.are_about() {
            self.tell("a lull".into());
            self.repair_all();
        }
        self.faults.pause(lull);
    }

    /// Counts what a round did, and tells of it.
    fn retell(&mut self, round: &Round) {
        self.struck();
        for event in &round.events {
            self.tell(format!("{} [{}] {}", event.subject, event.kind, event.text));
        }
        for step in &round.begun {
            self.tell(format!("-> {} ({})", step.action, step.why));
            match step.action {
                Action::Vm(_, VmVerb::Create { .. }) => self.summary.created += 1,
                Action::Node(_, NodeVerb::SetDown { .. }) => self.summary.downs += 1,
                Action::Vm(_, VmVerb::StartSlurmd { .. } | VmVerb::Destroy { .. })
                | Action::Node(
                    _,
                    NodeVerb::Return
                    | NodeVerb::Undrain { .. }
                    | NodeVerb::EndWithJob(_)
                    | NodeVerb::PowerDown,
                )
                | Action::Job(..) => {}
            }
        }
        if round.killed {
            self.tell("controller killed".into());
            self.summary.kills += 1;
        }
    }

    /// Tells how far jobs came, and forgets old ones.
    fn jobs(&mut self) {
        let mut lines = Vec::new();
        for (id, job) in &self.slurm.jobs {
            let stage = std::mem::discriminant(&job.stage);
            if self.stages.insert(*id, stage) != Some(stage) {
                lines.push(match &job.stage {
                    Stage::Pending(None) => format!("job {id} is queued"),
                    Stage::Pending(Some(_)) => format!("job {id} is queued, for later"),
                    Stage::Configuring(nodes, _) => format!("job {id} waits for {}", names(nodes)),
                    Stage::Running(nodes, _) => format!("job {id} runs on {}", names(nodes)),
                    Stage::Done => format!("job {id} is over"),
                });
            }
        }
        lines.into_iter().for_each(|line| self.tell(line));
        if self.now >= self.next_purge {
            self.next_purge = self.now + JOB_AGE;
            let before = self.slurm.jobs.len();
            // The last one stays: its number is never given again.
            let last = self.slurm.jobs.keys().next_back().copied();
            let stays = |id: &JobId, job: &Job| job.stage != Stage::Done || Some(*id) == last;
            self.slurm.jobs.retain(|id, job| stays(id, job));
            self.stages.retain(|id, _| self.slurm.jobs.contains_key(id));
            self.summary.jobs += before - self.slurm.jobs.len();
        }
    }

    /// Adds a line to the story.
    fn tell(&mut self, line: String) {
        self.idle = 0;
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        let at = self.now.since(self.begin).0;
        self.story
            .push_back(format!("{:>5}.{:03} {line}", at / 1000, at % 1000));
    }

    /// What `broken` is when it is told now.
    pub(crate) fn violation(&mut self, broken: Broken) -> Violation {
        self.struck();
        Violation {
            broken,
            run: Box::new(self.summary()),
            story: self.story.iter().cloned().collect(),
            hits: self.hits.clone(),
        }
    }

    /// Tells what faults struck.
    fn struck(&mut self) {
        let struck = self.faults.struck();
        for (fault, number) in &struck {
            self.line(&format!("fault: {} {number}", fault.name()));
        }
        self.hits.extend(struck);
    }

    /// Writes the orders of the hooks that slurmctld called.
    fn hooks(&mut self) {
        for call in std::mem::take(&mut self.slurm.calls) {
            self.write_order(call);
        }
    }

    /// Has a hook write an order, as a person or slurmctld does.
    pub fn write_order(&mut self, call: Call) {
        self.tell(format!("{:?} {}", call.hook, names(&call.nodes)));
        if self.faults.strikes(Fault::HookLost) {
            return;
        }
        let times = 1 + u32::from(self.faults.strikes(Fault::HookTwice));
        for _ in 0..times {
            let late = if self.faults.strikes(Fault::HookLate) {
                15_000
            } else {
                400
            };
            let written = self.now + Millis(self.rng.below(late));
            self.last_call = self.now.max(self.last_call + Millis(1));
            let (name, bytes) = intent(&call, self.last_call, self.next_file);
            self.next_file += 1;
            self.check.issued(name.clone(), &call, self.last_call);
            let file = SpoolFile {
                written,
                bytes,
                jobs: call.jobs.clone(),
            };
            self.controller.spool.insert(name, file);
        }
    }

    /// The slurmds that have come up talk to slurmctld, when it answers.
    fn registrations(&mut self) {
        if !self.slurm.answers(self.now) {
            return;
        }
        let mut lines = Vec::new();
        for vm in self.provider.vms.values_mut().filter(|vm| vm.works()) {
            if vm.registers_at.take_if(|at| *at <= self.now).is_some()
                && let Some(tag) = &vm.view.tag
            {
                let started = vm.slurmd.unwrap_or_default();
                let before = self.slurm.unheard;
                self.slurm.register(&tag.node, &vm.view.id, started, self.now);
                let heard = match self.slurm.unheard > before {
                    true => ", and is not heard",
                    false => "",
                };
                lines.push(format!("{tag} registers ({}){heard}", vm.view.id));
            }
        }
        lines.into_iter().for_each(|line| self.tell(line));
    }

    /// Whether people, or faults, still have something in store.
    #[must_use]
    pub fn more_to_come(&self) -> bool {
        self.submitted < self.setup.jobs.len() || !self.faults.are_over() || !self.repairs.is_empty()
    }

    /// What still has to end; nothing when all is done and quiet.
    pub fn left_over(&self) -> impl Iterator<Item = String> {
        let world = self.controller.world();
        let jobs = self.slurm.jobs.iter().filter(|(_, job)| job.stage != Stage::Done);
        let jobs = jobs.map(|(id, job)| format!("job {id} is {:?}", job.stage));
        let nodes = self.slurm.nodes.iter();
        // A drain that may be others' is left to them: nobody could see that theirs was lifted before slurmd's began.
        let drained = |name: &NodeName, node: &Node| node.drain && !world.drained.contains(name);
        let nodes =
            nodes.filter(move |(name, node)| node.power != Power::Off || node.down || drained(name, node));
        let nodes = nodes.map(|(name, node)| {
            let out = (node.down || node.drain).then_some(&node.reason);
            format!("node {name} is {:?}, down or drained {out:?}", node.power)
        });
        let ours = |vm: &&Vm| {
            vm.view
                .tag
                .as_ref()
                .is_some_and(|tag| tag.cluster == world.cluster)
        };
        let vms = self.provider.vms.values().filter(ours);
        let vms = vms.map(|vm| format!("VM {} is {:?}", vm.view.id, vm.view.state));
        // A node of job mode that was resumed by hand gets no VM, since there is no job.
        let wants = |(node, record): &(&NodeName, &NodeRecord)| {
            matches!(record.desired, Desired::Early { .. } | Desired::Up { .. }) && !world.is_job_mode(node)
        };
        let holds = |(_, record): &(&NodeName, &NodeRecord)| record.vm.is_some() || record.down.is_some();
        let records = world.records.iter();
        let records = records.filter(move |known| holds(known) || wants(known));
        let records = records.map(|(name, record)| format!("record {name} holds {record:?}"));
        let untaken = Some(self.check.untaken()).filter(|untaken| *untaken > 0);
        let untaken = untaken.map(|untaken| format!("{untaken} orders were never taken"));
        let busy = (!self.controller.is_quiet(self.now)).then(|| {
            let (busy, flights) = (&world.busy, self.controller.flights.len());
            format!("the controller is busy with {busy:?}, {flights} actions")
        });
        let others = untaken.into_iter().chain(busy);
        jobs.chain(nodes).chain(vms).chain(records).chain(others)
    }
}

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(",")
}
