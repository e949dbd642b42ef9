//! A simulated slurmctld with power saving, in virtual time.
//!
//! ```text
//!   idle~ --allocate--> alloc# --registers--> alloc --job over--> idle
//!     ^                   | ResumeTimeout                          | SuspendTime
//!     |                   v                                        v
//!     +---SuspendTimeout--------------- (down, powering down) <- idle%
//! ```
//! As measured on 22.05.8 with `SlurmdTimeout=0` and `ReturnToService=2`: a job
//! starts when all of its nodes have registered, at the latest in the next
//! sweep; a job whose node goes DOWN is queued again and pauses for two minutes;
//! a VM that dies is noticed by nobody here; a node set DOWN and powered down
//! gets a call of SuspendProgram, and stays DOWN; one whose slurmd lives returns
//! by itself. What is different for nodes and jobs of job mode is in `job_mode`.

mod admin;
mod down;
mod job_mode;
mod release;
mod shown;
mod state;
#[cfg(test)]
mod tests;

pub use admin::{BROKEN, DRAINED, SPOOL_FULL};
pub use release::Release;
pub use state::{
    Call, Hook, JOB_MODE_CPUS, JOB_MODE_PARTITION, Job, JobMode, Node, Power, Prolog, Rules, Site, Stage,
};

use crate::faults::{Fault, Faults};
use crate::rng::Rng;
use std::collections::BTreeMap;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId};
use thiao_core::view::{BaseState, JobState, SlurmView};
use thiao_core::world::Mode;

/// The whole truth of a simulated slurmctld.
#[derive(Debug)]
pub struct Slurm {
    pub nodes: BTreeMap<NodeName, Node>,
    /// All jobs, also those over.
    pub jobs: BTreeMap<JobId, Job>,
    /// Prologs of jobs of job mode that wait.
    pub prologs: BTreeMap<JobId, Prolog>,
    /// Hooks called and not yet fetched.
    pub calls: Vec<Call>,
    /// How often ResumeTimeout was what ended a resume.
    pub resume_timeouts: u32,
    /// How often a slurmd was not heard: it seemed to have started before its node was asked for.
    pub unheard: u32,
    /// It restarts, and is back then.
    away_until: Time,
    rules: Rules,
    rng: Rng,
}

impl Slurm {
    /// A cluster of these nodes, all powered down.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeName>, rules: Rules, rng: Rng) -> Self {
        let node = Node {
            mode: Mode::PowerSaving,
            ends: false,
            down: false,
            reason: None,
            admin_down: Time(0),
            power: Power::Off,
            drain: false,
            admin_drained: Time(0),
            job: None,
            asks_at: None,
            backed: None,
            unknown_until: Time(0),
            outside_until: Time(0),
            completing_until: Time(0),
            silent_until: Time(0),
            idle_since: Time(0),
            undone: None,
        };
        Self {
            nodes: nodes.into_iter().map(|name| (name, node.clone())).collect(),
            jobs: BTreeMap::new(),
            prologs: BTreeMap::new(),
            calls: Vec::new(),
            resume_timeouts: 0,
            unheard: 0,
            away_until: Time(0),
            rules,
            rng,
        }
    }

    fn ways(&self) -> release::Ways {
        self.rules.release.ways()
    }

    /// Whether it answers, or restarts.
    #[must_use]
    pub fn answers(&self, now: Time) -> bool {
        self.away_until <= now
    }

    /// Restarts slurmctld: back at `back`, and nodes are silent for a while after that.
    pub fn restart(&mut self, back: Time) {
        self.away_until = back;
        for node in self.nodes.values_mut() {
            node.silent_until = back + Millis(self.rng.below(8000));
        }
    }

    /// A user submits a job.
    pub fn submit(&mut self, id: JobId, size: usize, length: Millis, now: Time) {
        let stage = Stage::Pending(None);
        self.jobs.insert(
            id,
            Job {
                size,
                length,
                stage,
                job_mode: None,
                site: Site::Apart,
                submit: now,
                start: None,
            },
        );
    }

    /// Lets time pass until `now`. `works` tells in which VMs a slurmd can.
    pub fn step(&mut self, works: impl Fn(&VmId) -> bool, now: Time) {
        if !self.answers(now) {
            return;
        }
        self.undo_downs(now);
        let ways = self.ways();
        for node in self.nodes.values_mut() {
            // A dead slurmd is noticed in the end, and flagged, and that is all.
            let lives = node.backed.as_ref().is_some_and(&works);
            let dead = node.power == Power::On && !lives;
            if dead && self.rng.chance(30) {
                node.silent_until = Time(u64::MAX);
            }
            // One that is taken for dead registers anew within 0.2 s.
            if node.power == Power::On && lives && node.down {
                node.lift(ways);
                node.idle_since = now;
            }
        }
        self.power_timeouts(now);
        self.run_jobs(works, now);
        self.power_down_idle(now);
        self.schedule(now);
        self.ask_for_nodes(now);
    }

    /// The slurmd in VM `vm`, which was started then, registers as `node`; whether it is heard.
    pub fn register(&mut self, name: &NodeName, vm: &VmId, started: Time, now: Time) -> bool {
        let (takes_unasked, ways) = (self.rules.takes_unasked, self.ways());
        // Its age is told in whole seconds of another beat, and taken off those of this clock.
        let seems = (started.0 / 1000).saturating_sub(self.rng.below(2));
        let Some(node) = self.nodes.get_mut(name) else {
            return false;
        };
        match node.power {
            Power::Rising(asked) if seems < asked.0 / 1000 => {
                self.unheard += 1;
                return false;
            }
            Power::Rising(_) | Power::On => {}
            Power::Off if takes_unasked => node.idle_since = now,
            Power::Off | Power::Falling(_) => return false,
        }
        let anew = node.power == Power::On && node.backed.as_ref() != Some(vm);
        node.power = Power::On;
        node.backed = Some(vm.clone());
        node.silent_until = Time(0);
        if node.down {
            node.lift(ways); // ReturnToService=2
        }
        if anew {
            self.requeue_on(name, now); // the job that it had is not known there
        }
        true
    }

    fn power_timeouts(&mut self, now: Time) {
        let (mut failed, ways) = (Vec::new(), self.ways());
        for (name, node) in &mut self.nodes {
            match node.power {
                // One in no partition stays so (22.05.8, 24.11.5).
                Power::Falling(since)
                    if now.since(since) >= self.rules.suspend_timeout && node.outside_until <= now =>
                {
                    node.power = Power::Off;
                    node.backed = None;
                    node.ends = false;
                    if self.rules.idle_on_suspend && node.down {
                        node.lift(ways);
                    }
                }
                Power::Rising(since) if now.since(since) >= self.rules.resume_timeout => {
                    failed.push(name.clone());
                }
                Power::Off | Power::On | Power::Rising(_) | Power::Falling(_) => {}
            }
        }
        for name in &failed {
            self.give_up(name, now);
        }
        self.call(Hook::ResumeFail, failed, BTreeMap::new());
    }

    fn run_jobs(&mut self, works: impl Fn(&VmId) -> bool, now: Time) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            let Some(job) = self.jobs.get(&id) else { continue };
            match job.stage.clone() {
                Stage::Configuring(nodes, starts) => {
                    let up = |name| {
                        self.nodes
                            .get(name)
                            .is_some_and(|n| n.power == Power::On && !n.down)
                    };
                    if job.job_mode.is_some() {
                        let up = nodes.iter().all(up);
                        match self.prolog_ended(id) {
                            Some(false) => {
                                let again = now + self.rules.requeue_pause;
                                self.unseat(id, Stage::Pending(Some(again)), now);
                            }
                            Some(true) if up => self.set_stage(id, Stage::Running(nodes, now)),
                            // It came too early: the sweep does the rest.
                            Some(true) => self.set_stage(id, Stage::Configuring(nodes, Some(now))),
                            None if up && starts.is_some() => self.set_stage(id, Stage::Running(nodes, now)),
                            None => {}
                        }
                    } else if nodes.iter().all(up) {
                        let starts =
                            starts.unwrap_or_else(|| now + Millis(self.rng.below(self.rules.sweep.0)));
                        let stage = if starts <= now {
                            Stage::Running(nodes, now)
                        } else {
                            Stage::Configuring(nodes, Some(starts))
                        };
                        self.set_stage(id, stage);
                    }
                }
                Stage::Running(nodes, since) => {
                    let whole = nodes.iter().all(|name| {
                        let vm = self.nodes.get(name).and_then(|node| node.backed.as_ref());
                        vm.is_some_and(&works)
                    });
                    // With a dead VM the job would hang for ever.
                    if whole && now.since(since) >= job.length {
                        self.set_stage(id, Stage::Done);
                        self.release(&nodes, now);
                        self.epilog(id, &nodes, false);
                    }
                }
                // Its reason is told anew once it could start but for its gate.
                Stage::Pending(Some(at)) if job.job_mode.is_some() && at <= now => {
                    self.set_stage(id, Stage::Pending(None));
                }
                Stage::Pending(_) | Stage::Done => {}
            }
        }
    }

    fn power_down_idle(&mut self, now: Time) {
        let mut falling = Vec::new();
        let undrains = self.rules.idle_on_suspend;
        for (name, node) in &mut self.nodes {
            let unused = node.job.is_none() && node.completing_until <= now;
            // One in no partition is powered down only when that was asked (22.05.8, 24.11.5).
            let idle = now.since(node.idle_since) >= self.rules.suspend_time && node.outside_until <= now;
            if node.power == Power::On && unused && (idle || node.ends) {
                node.power = Power::Falling(now);
                // As in `set_down`; and idle_on_node_suspend forgets drains (power_save.c of 22.05.8 to 26.05.3).
                node.drain &= !(node.ends || undrains);
                falling.push(name.clone());
            }
        }
        self.call(Hook::Suspend, falling, BTreeMap::new());
    }

    fn schedule(&mut self, now: Time) {
        for id in self.in_turn() {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let Stage::Pending(begin) = job.stage else {
                continue;
            };
            if begin.is_some_and(|at| at > now) || !job.may_start() {
                continue;
            }
            let (mode, anywhere) = (job.mode(), job.site == Site::Anywhere);
            let free = |node: &Node, power: fn(Power) -> bool| {
                power(node.power)
                    && (node.mode == mode || anywhere)
                    && node.job.is_none()
                    && !node.down
                    && !node.drain
                    && !node.ends
                    && node.completing_until <= now
                    && (node.silent_until <= now || node.power == Power::Off)
                    && node.unknown_until <= now
                    && node.outside_until <= now
            };
            let kinds: [fn(Power) -> bool; 2] = [|p| p == Power::On, |p| p == Power::Off];
            let chosen: Vec<NodeName> = kinds
                .iter()
                .flat_map(|kind| self.nodes.iter().filter(move |(_, node)| free(node, *kind)))
                .map(|(name, _)| name.clone())
                .take(job.most())
                .collect();
            if chosen.len() < job.size {
                continue;
            }
            for name in &chosen {
                let Some(node) = self.nodes.get_mut(name) else {
                    continue;
                };
                node.job = Some(id);
                node.reason = None;
                if node.power == Power::Off {
                    node.asks_at = Some(now + Millis(self.rng.below(self.rules.asks_after.0 + 1)));
                }
            }
            job.stage = Stage::Configuring(chosen, None);
            job.start = Some(now);
            if job.job_mode.is_some() {
                self.prologs.insert(id, Prolog::new(now));
            }
        }
    }

    /// Asks for the nodes that jobs have and that are powered down; not for those that a job has
    /// left before.
    fn ask_for_nodes(&mut self, now: Time) {
        let mut jobs_of: BTreeMap<NodeName, Vec<JobId>> = BTreeMap::new();
        for (name, node) in &mut self.nodes {
            if node.asks_at.take_if(|at| *at <= now).is_none() {
                continue;
            }
            if let (Power::Off, Some(job)) = (node.power, node.job) {
                node.power = Power::Rising(now);
                jobs_of.insert(name.clone(), vec![job]);
            }
        }
        self.call(Hook::Resume, jobs_of.keys().cloned().collect(), jobs_of);
    }

    /// `scontrol update job=.. StartTime=now`
    pub fn start_now(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id)
            && matches!(job.stage, Stage::Pending(_))
        {
            job.stage = Stage::Pending(None);
        }
    }

    /// The job that runs on `name`, and since when.
    #[must_use]
    pub fn running_on(&self, name: &NodeName) -> Option<(JobId, Time)> {
        let id = self.nodes.get(name)?.job?;
        match &self.jobs.get(&id)?.stage {
            Stage::Running(_, since) => Some((id, *since)),
            Stage::Pending(_) | Stage::Configuring(..) | Stage::Done => None,
        }
    }

    /// What an observation at `now` shows; none if it fails.
    pub fn observe(&mut self, faults: &Faults, now: Time) -> Option<SlurmView> {
        if !self.answers(now) || faults.strikes(Fault::ObservationFails) {
            return None;
        }
        let mut view = SlurmView::default();
        for (name, node) in &self.nodes {
            if faults.strikes(Fault::ObservationOmits) {
                continue;
            }
            if node.unknown_until > now {
                view.gone.insert(name.clone());
            } else {
                if node.outside_until > now {
                    view.without_partition.insert(name.clone());
                }
                let mut shown = node.shown(now);
                shown.alloc = self.alloc(node);
                let part = shown.alloc.is_some_and(|alloc| alloc.cpus < JOB_MODE_CPUS);
                // In some releases a drained one is ALLOCATED, whatever of it is.
                let mixed = !node.drain || self.rules.release.ways().drained_is_mixed;
                if part && shown.base == BaseState::Allocated && mixed {
                    shown.base = BaseState::Mixed;
                }
                if faults.strikes(Fault::ObservationUnknown) {
                    if self.rng.coin() {
                        shown.flags.unknown = true;
                    } else {
                        shown.base = BaseState::Unknown("PERHAPS".into());
                    }
                }
                view.nodes.insert(name.clone(), shown);
            }
        }
        for (id, job) in &self.jobs {
            if job.stage != Stage::Done {
                let mut shown = job.shown(*id);
                if faults.strikes(Fault::ObservationUnknown) {
                    shown.state = JobState::Unknown("STAGE_SIDEWAYS".into());
                }
                view.jobs.insert(*id, shown);
            }
        }
        Some(view)
    }

    fn requeue_on(&mut self, name: &NodeName, now: Time) {
        let Some(id) = self.nodes.get(name).and_then(|node| node.job) else {
            return;
        };
        let pause = self.rules.requeue_pause;
        self.unseat(id, Stage::Pending(Some(now + pause)), now);
    }

    fn release(&mut self, nodes: &[NodeName], now: Time) {
        for name in nodes {
            let completing = now + Millis(self.rng.below(2500));
            if let Some(node) = self.nodes.get_mut(name) {
                node.job = None;
                node.completing_until = completing;
                node.idle_since = now;
            }
        }
    }

    fn set_stage(&mut self, id: JobId, stage: Stage) {
        if let Some(job) = self.jobs.get_mut(&id) {
            if let Stage::Running(_, since) = &stage {
                job.start = Some(*since);
            }
            job.stage = stage;
        }
    }

    fn call(&mut self, hook: Hook, nodes: Vec<NodeName>, jobs: BTreeMap<NodeName, Vec<JobId>>) {
        if !nodes.is_empty() {
            self.calls.push(Call { hook, nodes, jobs });
        }
    }
}
