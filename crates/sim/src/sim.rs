//! The clock and the people: steps the simulated world, makes its bad days,
//! and has every step checked.

use crate::check::{Broken, Checker, Invariant, Violation};
use crate::controller::{Controller, Crash};
use crate::disk::{Disk, SpoolFile, intent};
use crate::faults::{Fault, Faults, Hit, Rates, Tally};
use crate::flaw::Flaw;
use crate::provider::Provider;
use crate::rng::Rng;
use crate::slurm::{Call, Hook, OWN_PARTITION, Own, Rules, Slurm, Stage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use thiao_core::ids::{
    ClusterName, Generation, HostName, JobId, Millis, NodeName, NodesetName, Time, VmId, VmTag,
};
use thiao_core::policy::Policy;
use thiao_core::view::{Alloc, ArrayTasks, HostView, Shape};
use thiao_core::world::{JobPartition, Mode, NodeSpec, World};

/// How many lines of the story are kept for a violation's report.
const STORY: usize = 400;

/// The most CPUs of a VM of job mode.
pub const OWN_CPUS: u32 = 4;

/// What each VM promises its node, in MiB; in job mode at most.
pub const VM_MEMORY_MB: u64 = 100;

/// A run, wholly: the same setup gives the same run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where all chance comes from.
    pub seed: u64,
    /// Nodes `n0`, `n1`, ...
    pub nodes: usize,
    /// Nodes of job mode `j0`, `j1`, ..., beside those.
    pub own_nodes: usize,
    /// Hosts `h0`, `h1`, ...
    pub hosts: usize,
    /// How many VMs fit on a host.
    pub host_room: u64,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// `slurm.conf`.
    pub rules: Rules,
    /// Our limits and times.
    pub policy: Policy,
    /// What goes wrong before `calm`.
    pub faults: Rates,
    /// Faults that do not strike all the same.
    pub muted: BTreeSet<Hit>,
    /// Spans after the start in which nothing new goes wrong.
    pub lulls: Vec<(Millis, Millis)>,
    /// When faults stop.
    pub calm: Millis,
    /// A kill of the controller at one certain write of its journal.
    pub crash: Option<Crash>,
    /// What is wrong with the controller.
    pub flaw: Option<Flaw>,
}

/// A job to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPlan {
    /// When, after the start.
    pub submit: Millis,
    /// Nodes wanted.
    pub size: usize,
    /// How long it runs.
    pub length: Millis,
    /// What it is beside in job mode.
    pub own: Option<OwnPlan>,
}

/// What a job to come is beside in job mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnPlan {
    /// CPUs on each node, 1 to [`OWN_CPUS`].
    pub cpus: u32,
    /// Memory on each node, in MiB, at most [`VM_MEMORY_MB`].
    pub memory_mb: u64,
    /// The highest is served first.
    pub priority: u64,
    /// Tasks of an array; 0: none.
    pub tasks: u32,
    /// Whether it can go back into the queue.
    pub requeue: bool,
    /// Cancelled that long after it was submitted.
    pub cancel: Option<Millis>,
}

impl Default for Setup {
    /// Four nodes on two hosts, one job, no faults.
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 4,
            own_nodes: 0,
            hosts: 2,
            host_room: 2,
            jobs: vec![JobPlan {
                submit: Millis::secs(1),
                size: 2,
                length: Millis::secs(20),
                own: None,
            }],
            rules: Rules::default(),
            policy: Policy {
                max_vms: 64,
                max_starting: 8,
                overhead_mb: 40,
                boot_timeout: Millis::secs(30),
                capacity_patience: Millis::secs(15),
                orphan_grace: Millis::secs(20),
                missing_grace: Millis::secs(30),
                silence_grace: Millis::secs(60),
                retry_first: Millis::secs(3),
                retry_max: Millis::secs(60),
                breaker_failures: 6,
                breaker_pause: Millis::secs(20),
                look_max_age: Millis::secs(20),
                mark_patience: Millis::secs(10),
                ..Policy::default()
            },
            faults: Rates::none(),
            muted: BTreeSet::new(),
            lulls: Vec::new(),
            calm: Millis::secs(0),
            crash: None,
            flaw: None,
        }
    }
}

/// How a run ended, when it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// When all was done and quiet, since the start: what was simulated.
    pub took: Millis,
    /// Rounds of the controller.
    pub rounds: u64,
    /// How often an invariant was asked for.
    pub checks: u64,
    /// What went wrong how often.
    pub faults: Vec<(Fault, Tally)>,
    /// VMs made.
    pub created: usize,
    /// Writes of its journal.
    pub writes: u64,
    /// Kills of the controller.
    pub kills: usize,
    /// How often Slurm's ResumeTimeout ended a resume.
    pub resume_timeouts: u32,
    /// How often each node was set DOWN by us, in all.
    pub downs: usize,
}

/// The whole simulated world.
#[derive(Debug)]
pub struct Sim {
    /// The instant.
    pub now: Time,
    /// slurmctld.
    pub slurm: Slurm,
    /// The provider.
    pub provider: Provider,
    /// The controller.
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
    /// Undone at these times.
    repairs: Vec<(Time, Repair)>,
    summary: Summary,
    rng: Rng,
}

#[derive(Debug, Clone)]
enum Repair {
    Host(HostName),
    Drain(NodeName),
    Down(NodeName),
    /// Nothing is repaired: a user has enough of a job.
    Cancel(JobId),
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
        let own = numbered("j", setup.own_nodes);
        let names = numbered("n", setup.nodes);
        let memory_mb = setup.host_room * (VM_MEMORY_MB + setup.policy.overhead_mb) + 30;
        let hosts = (0..setup.hosts)
            .map(|i| HostView {
                name: HostName::new(&format!("h{i}")).expect("a host's name"),
                cpu_percent: 6400,
                memory_mb,
                usable: true,
                load: None,
            })
            .collect();
        let all = names.iter().chain(&own).cloned();
        let mut slurm = Slurm::new(all, setup.rules.clone(), rng.fork(1));
        own.iter().for_each(|node| slurm.own_node(node));
        let provider = Provider::new(hosts, setup.policy.overhead_mb, rng.fork(2));
        let controller = Controller::new(
            first_world(&setup, &names, &own, begin),
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
            faults: Faults::new(setup.faults.clone(), setup.muted.clone(), &rng.fork(5)),
            begin,
            check: Checker::default(),
            submitted: 0,
            next_file: 1,
            last_call: begin,
            next_mischief: begin,
            repairs: Vec::new(),
            summary: Summary {
                took: Millis(0),
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
        let work: u64 = self
            .setup
            .jobs
            .iter()
            .map(|job| job.length.0 * job.own.map_or(1, |own| u64::from(own.tasks.max(1))))
            .sum();
        let last = self
            .setup
            .jobs
            .iter()
            .map(|job| job.submit)
            .max()
            .unwrap_or_default();
        // The longest pauses in a row: those of Slurm's requeue, of our back-off, of a boot; a few times each.
        let bound = self.begin + Millis(self.setup.calm.0.max(last.0) + work + 1_200_000);
        loop {
            self.step()?;
            let left = self.left_over();
            if left.is_empty() {
                self.summary.took = self.now.since(self.begin);
                self.summary.resume_timeouts = self.slurm.resume_timeouts;
                self.summary.checks = self.check.made();
                self.summary.writes = self.controller.writes;
                self.summary.faults = self.faults.tally();
                return Ok(self.summary);
            }
            if self.now > bound {
                let what = format!("not done in time: {}", left.join("; "));
                return Err(self.violation(Broken {
                    invariant: Invariant::AllEndsWell,
                    what,
                }));
            }
        }
    }

    /// One step of the clock, checked.
    ///
    /// # Errors
    /// A broken invariant.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.now = self.now + Millis(self.rng.between(20, 900));
        let now = self.now;
        let passed = now.since(self.begin);
        if passed >= self.setup.calm && !self.faults.are_over() {
            self.calm();
        }
        let lulls = &self.setup.lulls;
        self.faults.pause(
            lulls
                .iter()
                .any(|(from, until)| (*from..*until).contains(&passed)),
        );
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
        for (fault, number) in self.faults.struck() {
            self.tell(format!("fault: {} {number}", fault.name()));
        }
        for note in &round.notes {
            self.tell(format!("{} [{}] {}", note.subject, note.kind, note.text));
        }
        for step in &round.begun {
            self.tell(format!("-> {} ({})", step.action, step.why));
        }
        if round.killed {
            self.tell("controller killed".into());
        }
        self.summary.kills += usize::from(round.killed);
        for step in &round.begun {
            match step.action {
                thiao_core::plan::Action::CreateVm { .. } => self.summary.created += 1,
                thiao_core::plan::Action::SetDown { .. } => self.summary.downs += 1,
                _ => {}
            }
        }
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

    /// Adds a line to the story.
    fn tell(&mut self, line: String) {
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        let at = self.now.since(self.begin).0;
        self.story
            .push_back(format!("{:>5}.{:03} {line}", at / 1000, at % 1000));
    }

    fn violation(&self, broken: Broken) -> Violation {
        Violation {
            broken,
            story: self.story.iter().cloned().collect(),
        }
    }

    /// Writes the orders of the hooks that slurmctld called.
    fn hooks(&mut self) {
        for call in std::mem::take(&mut self.slurm.calls) {
            self.write_order(call);
        }
    }

    /// Has a hook write an order, as a person or slurmctld does.
    pub fn write_order(&mut self, call: Call) {
        let names: Vec<&str> = call.nodes.iter().map(NodeName::as_str).collect();
        self.tell(format!("{:?} {}", call.hook, names.join(",")));
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
                self.slurm.register(&tag.node, &vm.view.id, self.now);
                lines.push(format!("{tag} registers ({})", vm.view.id));
            }
        }
        lines.into_iter().for_each(|line| self.tell(line));
    }

    /// Users submit, admins and outsiders do what they do.
    fn people(&mut self) {
        let now = self.now;
        while let Some(job) = self.setup.jobs.get(self.submitted) {
            if now.since(self.begin) < job.submit {
                break;
            }
            self.submitted += 1;
            let id = JobId(u32::try_from(self.submitted).unwrap_or(u32::MAX));
            match &job.own {
                None => self.slurm.submit(id, job.size, job.length, now),
                Some(plan) => {
                    let own = plan.submitted(id);
                    self.slurm.submit_own(id, job.size, job.length, own, now);
                    let cancel = plan.cancel.map(|after| (now + after, Repair::Cancel(id)));
                    self.repairs.extend(cancel);
                }
            }
            self.tell(format!("job {id} submitted"));
        }
        let (due, later) = std::mem::take(&mut self.repairs)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.repairs = later;
        let due: Vec<(Time, Repair)> = due;
        due.into_iter().for_each(|(_, repair)| self.repair(repair));
        if now >= self.next_mischief {
            self.next_mischief = now + Millis::secs(5);
            self.mischief();
        }
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Host(name) => {
                for host in self.provider.hosts.iter_mut().filter(|host| host.name == name) {
                    host.usable = true;
                }
            }
            Repair::Drain(name) => {
                if let Some(node) = self.slurm.nodes.get_mut(&name) {
                    node.drain = false;
                }
            }
            Repair::Down(name) => self.slurm.admin_resume(&name, self.now),
            Repair::Cancel(id) => self.slurm.cancel(id, self.now),
        }
    }

    fn mischief(&mut self) {
        let now = self.now;
        let soon = now + Millis(self.rng.between(1000, 60_000));
        let names: Vec<NodeName> = self.slurm.nodes.keys().cloned().collect();
        let hosts: Vec<HostName> = self.provider.hosts.iter().map(|host| host.name.clone()).collect();
        let (Some(node), Some(host)) = (self.rng.pick(&names).cloned(), self.rng.pick(&hosts).cloned())
        else {
            return;
        };
        if self.faults.strikes(Fault::SlurmctldRestarts) && self.slurm.answers(now) {
            self.tell("slurmctld restarts".into());
            let away = Millis(self.rng.between(1000, 25_000));
            self.slurm.restart(now + away);
        }
        if self.faults.strikes(Fault::HostUnusable) {
            self.tell(format!("host {host} unusable"));
            for seen in self.provider.hosts.iter_mut().filter(|seen| seen.name == host) {
                seen.usable = false;
            }
            self.repairs.push((soon, Repair::Host(host.clone())));
        }
        if self.faults.strikes(Fault::VmHidden) {
            let ids: Vec<VmId> = self.provider.vms.keys().cloned().collect();
            if let Some(vm) = self.rng.pick(&ids).and_then(|id| self.provider.vms.get_mut(id)) {
                vm.hidden_until = soon;
                let line = format!("{} hidden", vm.view.id);
                self.tell(line);
            }
        }
        if self.faults.strikes(Fault::ForeignVm) && self.provider.free_mb(&host) >= 20 {
            let other = VmTag {
                cluster: ClusterName::new("other").expect("a cluster's name"),
                node: node.clone(),
                generation: Generation(self.rng.below(4)),
            };
            let tag = self.rng.coin().then_some(other);
            self.provider.add_outsider(tag, &host, 20);
        }
        if self.faults.strikes(Fault::TwinVm) && self.provider.free_mb(&host) >= 10 {
            let known = self.controller.world().records.get(&node);
            let known = known.map_or(0, |record| record.generation.0);
            let generation = Generation((known + self.rng.below(4)).saturating_sub(1));
            let tag = self.controller.world().tag(&node, generation);
            if !self
                .provider
                .vms
                .values()
                .any(|vm| vm.view.tag.as_ref() == Some(&tag))
            {
                self.tell(format!("somebody makes a twin {tag}"));
                self.provider.add_outsider(Some(tag), &host, 10);
            }
        }
        for (fault, hook) in [
            (Fault::SuspendByHand, Hook::Suspend),
            (Fault::ResumeByHand, Hook::Resume),
        ] {
            if self.faults.strikes(fault) {
                self.tell("by hand:".into());
                self.write_order(Call {
                    hook,
                    nodes: vec![node.clone()],
                    jobs: BTreeMap::new(),
                });
            }
        }
        if !self.slurm.answers(now) {
            return;
        }
        if self.faults.strikes(Fault::AdminDrains) {
            self.tell(format!("admin drains {node}"));
            if let Some(node) = self.slurm.nodes.get_mut(&node) {
                node.drain = true;
            }
            self.repairs.push((soon, Repair::Drain(node.clone())));
        }
        if self.faults.strikes(Fault::AdminDowns) {
            self.tell(format!("admin sets {node} DOWN"));
            self.slurm.admin_down(&node, now);
            self.repairs.push((soon, Repair::Down(node.clone())));
        }
        if self.faults.strikes(Fault::NodeUnknown) {
            // Jobs on it would be killed: nobody does that.
            let free = |seen: &&mut crate::slurm::Node| seen.job.is_none();
            if let Some(seen) = self.slurm.nodes.get_mut(&node).filter(free) {
                seen.unknown_until = soon;
                self.tell(format!("{node} out of slurm.conf"));
            }
        }
    }

    /// From now on nothing goes wrong any more, and people undo what they did.
    fn calm(&mut self) {
        self.tell("faults stop".into());
        self.faults.stop();
        for (at, _) in &mut self.repairs {
            *at = self.now;
        }
        for node in self.slurm.nodes.values_mut() {
            node.unknown_until = Time(0);
        }
        for vm in self.provider.vms.values_mut() {
            vm.hidden_until = Time(0);
        }
        self.provider
            .vms
            .retain(|id, vm| !self.check.is_foreign(id) || !vm.outsider);
        self.check.foreign_gone();
    }

    /// What still has to end; empty when all is done and quiet.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let mut left = Vec::new();
        let world = self.controller.world();
        if self.submitted < self.setup.jobs.len() || !self.faults.are_over() || !self.repairs.is_empty() {
            left.push("more is to come".into());
            return left;
        }
        for (id, job) in self.slurm.jobs.iter().filter(|(_, job)| job.stage != Stage::Done) {
            left.push(format!("job {id} is {:?}", job.stage));
        }
        for (name, node) in &self.slurm.nodes {
            if node.power != crate::slurm::Power::Off || node.down.is_some() {
                left.push(format!("node {name} is {:?}, down {:?}", node.power, node.down));
            }
        }
        for vm in self.provider.vms.values() {
            if vm
                .view
                .tag
                .as_ref()
                .is_some_and(|tag| tag.cluster == world.cluster)
            {
                left.push(format!("VM {} is {:?}", vm.view.id, vm.view.state));
            }
        }
        for (name, record) in &world.records {
            if record.vm.is_some() || record.down.is_some() {
                left.push(format!("record {name} holds {record:?}"));
            }
        }
        if self.check.untaken() > 0 {
            left.push(format!("{} orders were never taken", self.check.untaken()));
        }
        if !self.controller.is_quiet(self.now) {
            let busy: &BTreeSet<NodeName> = &world.busy;
            left.push(format!(
                "the controller is busy with {busy:?}, {} actions",
                self.controller.flights.len()
            ));
        }
        left
    }
}

fn node_name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node's name")
}

fn first_world(setup: &Setup, names: &[NodeName], own: &[NodeName], now: Time) -> World {
    let spec = |nodeset: &str, cpus, mode| NodeSpec {
        nodeset: NodesetName::new(nodeset).expect("a nodeset's name"),
        shape: Shape {
            cpus,
            memory_mb: VM_MEMORY_MB,
            share_percent: 100,
        },
        mode,
    };
    let (usual, largest) = (spec("n", 1, Mode::PowerSaving), spec("j", OWN_CPUS, Mode::Job));
    let cluster = ClusterName::new("sim").expect("a cluster's name");
    let usual = names.iter().map(|name| (name.clone(), usual.clone()));
    let specs = usual.chain(own.iter().map(|name| (name.clone(), largest.clone())));
    let mut world = World::new(
        now,
        cluster,
        Flaw::policy(setup.flaw, setup.policy.clone()),
        specs.collect(),
    );
    if !own.is_empty() {
        let partition = JobPartition {
            nodesets: BTreeSet::from([largest.nodeset]),
            most: largest.shape,
        };
        world.job_partitions.insert(OWN_PARTITION.into(), partition);
    }
    world
}

impl OwnPlan {
    fn submitted(&self, id: JobId) -> Own {
        let each = Alloc {
            cpus: self.cpus,
            memory_mb: self.memory_mb,
            gpus: 0,
        };
        let array = (self.tasks > 0).then(|| ArrayTasks {
            job: id,
            tasks: (0..self.tasks).collect(),
        });
        Own {
            requeue: self.requeue,
            array,
            ..Own::new(each, self.priority)
        }
    }
}
