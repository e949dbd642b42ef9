//! The simulated slurmctld as a world for scenarios.

use super::replay::{Cluster, Target};
use super::{JobAct, NodeAct, Scenario, Submission};
use crate::faults::Faults;
use crate::rng::Rng;
use crate::slurm::{Call, Hook, JobMode, Power, Release, Rules, Slurm, Stage};
use std::collections::BTreeMap;
use thiao_core::ids::{JobId, Millis, NodeName, Time, VmId};
use thiao_core::view::{Alloc, ArrayTasks, SlurmView};

/// The time between two observations.
const MOMENT: Millis = Millis(100);
/// How long slurmctld is away when it restarts.
const AWAY: Millis = Millis::secs(1);

/// A simulated slurmctld in virtual time, and the slurmds of its nodes.
#[derive(Debug)]
pub struct Simulated {
    slurm: Slurm,
    now: Time,
    /// The slurmds that live, by the VMs that they are in.
    slurmds: BTreeMap<NodeName, VmId>,
    /// Those that have not registered yet.
    fresh: Vec<NodeName>,
    booted: u32,
    submitted: u32,
    calls: Vec<Call>,
}

impl Simulated {
    /// The world in which the scenario begins, with a slurmctld of this release. All that a seed decides must not matter.
    #[must_use]
    pub fn new(scenario: &Scenario, release: Release, seed: u64) -> Self {
        let rules = Rules {
            resume_timeout: scenario.times.resume_timeout,
            suspend_time: scenario.times.suspend_time,
            suspend_timeout: scenario.times.suspend_timeout,
            // The prolog's end lets a job start.
            sweep: Millis(0),
            release,
            ..Rules::default()
        };
        let nodes = scenario.nodes.iter().chain(&scenario.job_nodes).cloned();
        let mut slurm = Slurm::new(nodes, rules, Rng::new(seed));
        scenario
            .job_nodes
            .iter()
            .for_each(|node| slurm.job_mode_node(node));
        Self {
            slurm,
            now: Time(1_000_000),
            slurmds: BTreeMap::new(),
            fresh: Vec::new(),
            booted: 0,
            submitted: 0,
            calls: Vec::new(),
        }
    }

    /// slurmds that have not registered try again and again.
    fn register(&mut self) {
        if !self.slurm.answers(self.now) {
            return;
        }
        for node in std::mem::take(&mut self.fresh) {
            if let Some(vm) = self.slurmds.get(&node) {
                // As the real ones there, which wait for a second.
                let started = self.now + Millis::secs(1);
                self.slurm.register(&node, vm, started, self.now);
            }
        }
    }

    /// Prologs whose jobs have all of their nodes end.
    fn end_prologs(&mut self) {
        let slurm = &self.slurm;
        let up = |id: &JobId| match slurm.jobs.get(id).map(|job| &job.stage) {
            Some(Stage::Configuring(nodes, _)) => nodes
                .iter()
                .all(|name| slurm.nodes.get(name).is_some_and(|node| node.power == Power::On)),
            _ => false,
        };
        let done: Vec<JobId> = slurm.prologs.keys().copied().filter(up).collect();
        done.into_iter().for_each(|id| self.slurm.answer_prolog(id, true));
    }

    /// What the hooks do: suspended nodes lose their slurmd.
    fn take_calls(&mut self) {
        for call in std::mem::take(&mut self.slurm.calls) {
            if matches!(call.hook, Hook::Suspend | Hook::ResumeFail) {
                for node in &call.nodes {
                    self.slurmds.remove(node);
                }
            }
            self.calls.push(call);
        }
    }
}

impl Cluster for Simulated {
    fn submit(&mut self, job: &Submission) -> Result<JobId, String> {
        self.submitted += 1;
        let id = JobId(self.submitted);
        if !job.job_mode {
            self.slurm.submit(id, job.size, job.length, self.now);
            return Ok(id);
        }
        let each = Alloc {
            cpus: 1,
            memory_mb: 50,
            gpus: 0,
        };
        let array = (job.tasks > 0).then(|| ArrayTasks {
            job: id,
            tasks: (0..job.tasks).collect(),
        });
        let job_mode = JobMode {
            most: job.most,
            requeue: job.requeue,
            array,
            // As with Slurm's own priorities: who came first is served first.
            ..JobMode::new(each, u64::from(u32::MAX - self.submitted))
        };
        self.slurm
            .submit_job_mode(id, job.size, job.length, job_mode, self.now);
        Ok(id)
    }

    fn to_node(&mut self, act: &NodeAct, node: &NodeName) -> Result<(), String> {
        let now = self.now;
        let lives = self.slurmds.get(node).cloned();
        match act {
            NodeAct::Boot => {
                self.booted += 1;
                let vm = VmId::new(&format!("vm{}", self.booted)).map_err(|error| error.to_string())?;
                self.slurmds.insert(node.clone(), vm);
                self.fresh.push(node.clone());
            }
            NodeAct::Kill => drop(self.slurmds.remove(node)),
            NodeAct::SetDown(reason) => {
                let works = |vm: &VmId| lives.as_ref() == Some(vm);
                self.slurm.set_down(node, reason, works, now);
            }
            NodeAct::Return => self.slurm.return_to_service(node, now),
            NodeAct::EndWithJob => self.slurm.end_with_job(node),
            NodeAct::PowerDownNow => self.slurm.power_down_now(node, now),
            NodeAct::Drain => self.slurm.admin_drain(node, now),
            NodeAct::Undrain => self.slurm.admin_undrain(node),
            NodeAct::SpoolFull => drop(self.slurm.slurmd_drains(node)),
            NodeAct::LiftDrain => self.slurm.undrain(node),
            NodeAct::AdminDown => self.slurm.admin_down(node, now),
            NodeAct::AdminResume => self.slurm.admin_resume(node, now),
        }
        self.take_calls();
        Ok(())
    }

    fn to_job(&mut self, act: JobAct, job: &Target) -> Result<(), String> {
        match act {
            JobAct::Admit(nodes) => self.slurm.admit(job.id, job.array.as_ref(), nodes),
            JobAct::CloseGate => self.slurm.close_gate(job.id, job.array.as_ref()),
            JobAct::PutBack => {
                if !self
                    .slurm
                    .put_back(job.id, "vm: ; put back: no capacity", true, self.now)
                {
                    return Err("it cannot be put back".into());
                }
            }
            JobAct::StartNow => self.slurm.start_now(job.id),
            JobAct::Cancel => self.slurm.cancel(job.id, self.now),
        }
        self.take_calls();
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        self.slurm.restart(self.now + AWAY);
        Ok(())
    }

    fn observe(&mut self) -> Result<Option<SlurmView>, String> {
        Ok(self.slurm.observe(&Faults::none(), self.now))
    }

    fn calls(&mut self) -> Result<Vec<Call>, String> {
        Ok(std::mem::take(&mut self.calls))
    }

    fn pass(&mut self) {
        self.now = self.now + MOMENT;
        self.register();
        self.end_prologs();
        let slurmds = &self.slurmds;
        self.slurm
            .step(|vm| slurmds.values().any(|lives| lives == vm), self.now);
        self.take_calls();
    }

    fn now(&self) -> Millis {
        Millis(self.now.0)
    }
}
