//! Job mode: jobs wait at a gate until they are admitted, each node is one job's alone,
//! and ends with it. A job starts when its prolog ends, which waits for our word.
//!
//! As measured on 22.05.8: a pending job starts as soon as the licence is taken from
//! it, by priority; a node with `POWER_DOWN` is given to nobody else, also while it comes
//! up, its job starts all the same, and it is powered down at once when it has none; one
//! that still comes up for a job that is over stays so until `POWER_DOWN_FORCE`.

use super::Slurm;
use super::state::{Call, Hook, Job, JobMode, Node, Power, Site, Stage};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::view::{Alloc, ArrayTasks, Gate};
use thiao_core::world::Mode;

impl Job {
    /// Fixes how many nodes a pending job gets.
    fn fix(&mut self, nodes: NonZeroU32) {
        if let (Stage::Pending(_), Some(job_mode)) = (&self.stage, &mut self.job_mode) {
            self.size = usize::try_from(nodes.get()).unwrap_or(usize::MAX);
            job_mode.most = self.size;
        }
    }

    /// The most nodes that it may get.
    #[must_use]
    pub fn most(&self) -> usize {
        self.job_mode
            .as_ref()
            .map_or(0, |job_mode| job_mode.most)
            .max(self.size)
    }
}

impl Slurm {
    /// Puts a node into job mode.
    pub fn job_mode_node(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.mode = Mode::Job;
        }
    }

    /// A user submits a job of job mode; `size` and `length` are of each task of an array.
    pub fn submit_job_mode(
        &mut self,
        id: JobId,
        size: usize,
        length: thiao_core::ids::Millis,
        job_mode: JobMode,
        now: Time,
    ) {
        self.submit(id, size, length, now);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.job_mode = Some(job_mode);
        }
    }

    /// `scontrol update JobId=.. Licenses=` of a pending job, or of these tasks of an
    /// array: Slurm gives each a record of its own; the last one left keeps the array's. With `nodes`
    /// that is how many each gets from then on (`NumNodes=`).
    pub fn admit(&mut self, id: JobId, tasks: Option<&ArrayTasks>, nodes: Option<NonZeroU32>) {
        for id in self.split(id, tasks) {
            self.set_gate(id, Gate::Open);
            if let (Some(nodes), Some(job)) = (nodes, self.jobs.get_mut(&id)) {
                job.fix(nodes);
            }
        }
    }

    /// The same the other way: they wait again.
    pub fn close_gate(&mut self, id: JobId, tasks: Option<&ArrayTasks>) {
        for id in self.split(id, tasks) {
            self.set_gate(id, Gate::Waits);
        }
    }

    /// What `state=POWER_DOWN` does: it goes once its job is over.
    pub fn end_with_job(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name)
            && matches!(node.power, Power::Rising(_) | Power::On)
        {
            node.ends = true;
        }
    }

    /// `state=POWER_DOWN_FORCE`: whatever runs there is put back or killed.
    pub fn power_down_now(&mut self, name: &NodeName, now: Time) {
        self.requeue_on(name, now);
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.power != Power::Off {
            node.power = Power::Falling(now);
        }
        node.drain = false;
        self.call(Hook::Suspend, vec![name.clone()], BTreeMap::new());
    }

    /// Puts a job back that has its nodes: `requeuehold`, the licence, `release`. With
    /// `whole` false we were cut short after the first. Whether Slurm did it.
    pub fn put_back(&mut self, id: JobId, comment: &str, whole: bool, now: Time) -> bool {
        let Some(Job {
            stage,
            job_mode: Some(job_mode),
            ..
        }) = self.jobs.get_mut(&id)
        else {
            return false;
        };
        let seated = matches!(stage, Stage::Configuring(..) | Stage::Running(..));
        if !seated || !job_mode.requeue {
            return false;
        }
        job_mode.comment = Some(comment.to_owned());
        job_mode.held = true;
        self.unseat(id, Stage::Pending(None), now);
        if whole {
            self.finish_put_back(id);
        }
        true
    }

    /// The rest of putting a job back.
    pub fn finish_put_back(&mut self, id: JobId) {
        if let Some(Job {
            stage: Stage::Pending(_),
            job_mode: Some(job_mode),
            ..
        }) = self.jobs.get_mut(&id)
        {
            job_mode.gate = Gate::Waits;
            job_mode.held = false;
        }
    }

    /// Puts a job back that has its nodes, and keeps it from those of job mode: `requeuehold`, `ExcNodeList`,
    /// `release`. If not `whole`, only the first is done; one that is back already is not held for that.
    pub fn turn_away(&mut self, id: JobId, why: &str, whole: bool, now: Time) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let seated = matches!(job.stage, Stage::Configuring(..) | Stage::Running(..));
            match whole {
                true => job.site = Site::Apart,
                false if seated => job.site = Site::Held(why.to_owned()),
                false => {}
            }
            if seated {
                self.unseat(id, Stage::Pending(None), now);
            }
        }
    }

    /// `scancel`. slurmctld kills a prolog that runs then, and the epilog with it if that
    /// has begun already: so it is heard of, or not.
    pub fn cancel(&mut self, id: JobId, now: Time) {
        let has_prolog = self.prologs.contains_key(&id);
        self.unseat(id, Stage::Done, now);
        if has_prolog && self.rng.coin() {
            self.calls
                .pop_if(|call| matches!(call.hook, Hook::JobEnded { job, .. } if job == id));
        }
    }

    /// Takes its nodes from a job, which goes on as `stage`; a job that cannot be put
    /// back is over.
    pub(super) fn unseat(&mut self, id: JobId, stage: Stage, now: Time) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let over = job.job_mode.as_ref().is_some_and(|job_mode| !job_mode.requeue);
        let stage = if over { Stage::Done } else { stage };
        let before = std::mem::replace(&mut job.stage, stage);
        self.prologs.remove(&id);
        if let Stage::Configuring(nodes, _) | Stage::Running(nodes, _) = before {
            self.release(&nodes, now);
            self.epilog(id, &nodes, true);
        }
    }

    /// What a job's prolog hears: the job starts, or is put back because it must not.
    pub fn answer_prolog(&mut self, id: JobId, may_start: bool) {
        if let Some(prolog) = self.prologs.get_mut(&id) {
            prolog.answer = Some(may_start);
        }
    }

    /// What a job's prolog has heard; it has ended then.
    pub(super) fn prolog_ended(&mut self, id: JobId) -> Option<bool> {
        let answer = self.prologs.get(&id)?.answer;
        if answer.is_some() {
            self.prologs.remove(&id);
        }
        answer
    }

    /// What EpilogSlurmctld does for a job of job mode.
    pub(super) fn epilog(&mut self, job: JobId, nodes: &[NodeName], failed: bool) {
        if self.jobs.get(&job).is_some_and(|job| job.job_mode.is_some()) {
            self.calls.push(Call {
                hook: Hook::JobEnded { job, failed },
                nodes: nodes.to_vec(),
                jobs: BTreeMap::new(),
            });
        }
    }

    /// All jobs, in the order in which Slurm looks for nodes for them.
    pub(super) fn in_turn(&self) -> Vec<JobId> {
        let mut ids: Vec<JobId> = self.jobs.keys().copied().collect();
        let priority = |id: &JobId| {
            self.jobs
                .get(id)
                .and_then(|job| job.job_mode.as_ref())
                .map(|job_mode| job_mode.priority)
        };
        ids.sort_by_key(|id| (Reverse(priority(id)), *id));
        ids
    }

    /// What of a node of job mode is allocated.
    pub(super) fn alloc(&self, node: &Node) -> Option<Alloc> {
        let job = self.jobs.get(&node.job?)?;
        job.job_mode.as_ref().map(|job_mode| job_mode.each)
    }

    fn set_gate(&mut self, id: JobId, gate: Gate) {
        if let Some(Job {
            stage: Stage::Pending(_),
            job_mode: Some(job_mode),
            ..
        }) = self.jobs.get_mut(&id)
        {
            job_mode.gate = gate;
        }
    }

    /// The records that then stand for these tasks, each for one; for a job that is no
    /// array, or without tasks, its own.
    fn split(&mut self, id: JobId, tasks: Option<&ArrayTasks>) -> Vec<JobId> {
        let Some(wanted) = tasks else { return vec![id] };
        let mut records = Vec::new();
        for task in &wanted.tasks {
            let Some(whole) = self.jobs.get(&id) else { break };
            let Some(array) = whole
                .job_mode
                .as_ref()
                .and_then(|job_mode| job_mode.array.clone())
            else {
                return vec![id];
            };
            if !matches!(whole.stage, Stage::Pending(_)) || !array.tasks.contains(task) {
                continue;
            }
            if array.tasks.len() == 1 {
                records.push(id);
                break;
            }
            let mut one = whole.clone();
            let own_id = self.fresh_id();
            let rest = array
                .tasks
                .iter()
                .copied()
                .filter(|other| other != task)
                .collect();
            self.set_tasks(id, rest);
            if let Some(job_mode) = &mut one.job_mode {
                job_mode.array = Some(ArrayTasks {
                    job: array.job,
                    tasks: vec![*task],
                });
            }
            self.jobs.insert(own_id, one);
            records.push(own_id);
        }
        records
    }

    fn set_tasks(&mut self, id: JobId, tasks: Vec<u32>) {
        let job_mode = self.jobs.get_mut(&id).and_then(|job| job.job_mode.as_mut());
        if let Some(array) = job_mode.and_then(|job_mode| job_mode.array.as_mut()) {
            array.tasks = tasks;
        }
    }

    /// Far above the ids of submitted jobs.
    fn fresh_id(&self) -> JobId {
        let last = self.jobs.keys().next_back().map_or(0, |id| id.0);
        JobId(last.max(1_000_000) + 1)
    }
}
