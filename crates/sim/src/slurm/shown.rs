//! How the simulated slurmctld's nodes and jobs look from outside.

use super::state::{JOB_MODE_PARTITION, Job, JobMode, Node, Power, Site, Stage};
use thiao_core::ids::{JobId, Millis, Time};
use thiao_core::options::{VmOptions, put_back_comment};
use thiao_core::view::{
    BaseState, Gate, JobReason, JobState, MemoryBy, NodeFlags, Request, SlurmJob, SlurmNode, WaitsFor,
};
use thiao_core::world::Mode;

impl Node {
    /// Whether it is up and has been free for jobs for as long, and will be.
    #[must_use]
    pub fn is_idle(&self, span: Millis, now: Time) -> bool {
        let free = self.job.is_none() && !(self.down || self.drain || self.ends);
        let times = [
            self.completing_until,
            self.silent_until,
            self.unknown_until,
            self.outside_until,
        ];
        let since = now.since(self.idle_since) >= span;
        self.power == Power::On && free && since && times.iter().all(|until| *until <= now)
    }

    pub(super) fn shown(&self, now: Time) -> SlurmNode {
        let base = match (self.down, self.job) {
            (true, _) => BaseState::Down,
            (false, Some(_)) => BaseState::Allocated,
            (false, None) => BaseState::Idle,
        };
        SlurmNode {
            base,
            flags: NodeFlags {
                cloud: true,
                powered_down: self.power == Power::Off,
                powering_up: matches!(self.power, Power::Rising(_)),
                powering_down: matches!(self.power, Power::Falling(_)),
                power_down: self.ends && !matches!(self.power, Power::Falling(_)),
                drain: self.drain,
                not_responding: self.silent_until > now,
                completing: self.completing_until > now,
                ..NodeFlags::default()
            },
            reason: self.reason.clone(),
            alloc: None,
        }
    }
}

impl Job {
    pub(super) fn mode(&self) -> Mode {
        match self.job_mode {
            Some(_) => Mode::Job,
            None => Mode::PowerSaving,
        }
    }

    pub(super) fn may_start(&self) -> bool {
        match &self.job_mode {
            Some(job_mode) => job_mode.may_start(),
            None => !matches!(self.site, Site::Held(_)),
        }
    }

    pub(super) fn shown(&self, id: JobId) -> SlurmJob {
        let waits = JobReason::new;
        let (state, reason, nodes) = match &self.stage {
            Stage::Pending(Some(_)) => (
                JobState::Pending,
                waits("BeginTime", WaitsFor::BeginTime),
                &[][..],
            ),
            Stage::Pending(None) if matches!(self.site, Site::Held(_)) => (
                JobState::Pending,
                waits("JobHeldAdmin", WaitsFor::Release),
                &[][..],
            ),
            Stage::Pending(None) => (JobState::Pending, waits("Resources", WaitsFor::Nodes), &[][..]),
            Stage::Configuring(nodes, _) => (JobState::Configuring, JobReason::default(), &nodes[..]),
            Stage::Running(nodes, _) => (JobState::Running, JobReason::default(), &nodes[..]),
            Stage::Done => (JobState::Over("COMPLETED".into()), JobReason::default(), &[][..]),
        };
        let shown = SlurmJob {
            id,
            name: "job".into(),
            uid: 1000,
            user: "somebody".into(),
            partition: match self.site {
                Site::Apart => "vm".into(),
                Site::Anywhere | Site::Held(_) => "all".into(),
            },
            admin_comment: match &self.site {
                Site::Held(why) => Some(put_back_comment(&VmOptions::default(), why)),
                Site::Apart | Site::Anywhere => None,
            },
            state,
            reason,
            nodes: nodes.to_vec(),
            node_count: u32::try_from(self.size).unwrap_or(u32::MAX),
            submit: Some(self.submit),
            // In whole seconds.
            start: self.start.map(|at| Time(at.0 / 1000 * 1000)),
            gate: Gate::Open,
            ..SlurmJob::new(id)
        };
        match &self.job_mode {
            Some(job_mode) => job_mode.show(self, shown),
            None => shown,
        }
    }
}

impl JobMode {
    fn show(&self, job: &Job, mut shown: SlurmJob) -> SlurmJob {
        if matches!(job.stage, Stage::Pending(None)) {
            shown.reason = match (self.held, self.gate) {
                (true, _) => JobReason::new("JobHeldAdmin", WaitsFor::Release),
                (false, Gate::Waits) => JobReason::new("Licenses", WaitsFor::Licenses),
                (false, Gate::Open) => shown.reason,
            };
        }
        let count = |some: usize| u32::try_from(some).unwrap_or(u32::MAX);
        let (nodes, most) = match shown.nodes.len() {
            0 => (count(job.size), count(job.size.max(self.most))),
            seated => (count(seated), count(seated)),
        };
        SlurmJob {
            partition: JOB_MODE_PARTITION.into(),
            priority: self.priority,
            request: Request {
                cpus: self.each.cpus * nodes,
                memory_mb: self.each.memory_mb * u64::from(nodes),
                nodes,
                most_nodes: most,
                node_cpus: self.each.cpus,
                memory_by: MemoryBy::Node,
                gpus: self.each.gpus * nodes,
                ..Request::default()
            },
            node_count: most,
            array: self.array.clone(),
            gate: self.gate,
            requeue: self.requeue,
            admin_comment: self.comment.clone(),
            ..shown
        }
    }
}
