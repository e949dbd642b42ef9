//! Which of the jobs that wait for their VMs are let go: in the order of Slurm's
//! priorities, those for all of whose VMs there is room.

use super::Planner;
use crate::ids::{JobId, Time};
use crate::note::Subject;
use crate::options::{Asker, put_back_reason};
use crate::plan::{Action, Held};
use crate::view::{ArrayTasks, Gate, JobState, Shape, SlurmJob, SlurmNode};
use crate::world::JobPartition;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What Slurm says of a pending job when nothing but us keeps it. Of an array several
/// of these words may stand there.
const OURS: [&str; 5] = ["None", "Licenses", "Priority", "Resources", "Cleaning"];

/// What it says when so many nodes of a partition are away that a job has too few to choose
/// from, whatever else keeps it: of nodes in job mode most are, at times.
const AWAY: &str =
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions";

/// What it says of one that was put back with a hold, as `squeue` shows it.
const HELD: [&str; 2] = ["JobHeldAdmin", "job requeued in held state"];

impl<'a> Planner<'a> {
    /// Lets waiting jobs go, and takes back what was let go in vain.
    pub fn waiting_jobs(&mut self) {
        let world = self.world;
        let Some(slurm) = world.slurm.as_ref().filter(|_| !world.job_partitions.is_empty()) else {
            return;
        };
        // What was let go after the look began may be anywhere in it.
        if world.slurm_began <= world.jobs_acted || !world.busy_jobs.is_empty() {
            return;
        }
        let mut waiting = Vec::new();
        for job in slurm.jobs.values() {
            let Some(partition) = world.job_partitions.get(&job.partition) else {
                continue;
            };
            match (&job.state, job.gate) {
                (JobState::Pending, Gate::Waits) => waiting.push((job, partition)),
                (JobState::Pending, Gate::Open) => self.let_go_already(job, partition),
                (JobState::Configuring, _) => self.reserve_unmade(job, partition),
                (
                    JobState::Running
                    | JobState::Suspended
                    | JobState::Completing
                    | JobState::Over(_)
                    | JobState::Unknown(_),
                    _,
                ) => {}
            }
        }
        waiting.sort_by_key(|(job, _)| (Reverse(job.priority), job.id));
        let mut overtaken: Option<JobId> = None;
        for (job, partition) in waiting {
            if let Some(first) = overtaken {
                self.hold_job(
                    job,
                    format!("waits behind job {first}, which has waited for room for long and is not overtaken any more"),
                );
                continue;
            }
            overtaken = self.maybe_let_go(job, partition);
        }
    }

    /// A job that was let go and that Slurm has not started: its room is held for a while.
    fn let_go_already(&mut self, job: &'a SlurmJob, partition: &JobPartition) {
        let comment = job.admin_comment.as_deref().unwrap_or_default();
        if HELD.contains(&job.reason.as_str()) && put_back_reason(comment).is_some() {
            return self.step(
                Action::FinishPutBack {
                    job: job.id,
                    licenses: job.licenses.clone(),
                },
                "putting it back was begun, and it is held still",
            );
        }
        let admitted = self.world.jobs.get(&job.id).and_then(|record| record.admitted);
        let age = admitted.map(|at| self.world.now.since(at)).unwrap_or_default();
        // Slurm has a pause of its own for jobs whose node failed.
        if age >= self.world.policy.admit_patience {
            return self.step(
                Action::CloseGate {
                    job: job.id,
                    array: job.array.clone(),
                    licenses: job.licenses.clone(),
                },
                format!(
                    "it was let go {age} ago, and Slurm does not start it ({})",
                    job.reason
                ),
            );
        }
        let share = self.options(job).ok().and_then(|options| options.share_percent);
        let tasks = job.array.as_ref().map_or(1, |array| array.tasks.len());
        let count = job
            .request
            .nodes
            .max(1)
            .saturating_mul(u32::try_from(tasks).unwrap_or(u32::MAX));
        if !self.reserve(&estimate(job, partition, share), count) {
            self.hold_job(job, "was let go, and the room that it was to have is taken");
        }
    }

    /// A job that has its nodes and not all its VMs: their room is spoken for.
    fn reserve_unmade(&mut self, job: &SlurmJob, partition: &JobPartition) {
        if self.placed.contains(&job.id) {
            return; // counted
        }
        let world = self.world;
        let made = |node| world.records.get(node).is_some_and(|record| record.vm.is_some());
        let missing = job.nodes.iter().filter(|node| !made(*node)).count();
        let shape = estimate(job, partition, None);
        self.reserve(&shape, u32::try_from(missing).unwrap_or(u32::MAX));
    }

    /// Lets a job go if it may; the job that nobody overtakes any more, if this is one.
    fn maybe_let_go(&mut self, job: &'a SlurmJob, partition: &JobPartition) -> Option<JobId> {
        let world = self.world;
        let reasons = job.reason.replace(AWAY, "Resources");
        let ours = |reason: &str| reason.is_empty() || OURS.contains(&reason);
        if !reasons.split(',').map(str::trim).all(ours) {
            self.hold_job(job, format!("Slurm does not let it start: {}", job.reason));
            return None;
        }
        let options = match self.options(job) {
            Ok(options) => options,
            Err(why) => {
                self.hold_job(job, why);
                return None;
            }
        };
        let asker = Asker {
            partition: &job.partition,
            account: &job.account,
            user: &job.user,
        };
        if let Err(why) = options.check(&world.option_rules, asker) {
            self.hold_job(job, format!("its options for VMs are refused: {why}"));
            return None;
        }
        let record = world.jobs.get(&job.key());
        if let Some((at, last)) = record.and_then(|record| Some((record.retry_at?, &record.last)))
            && at > world.now
        {
            self.hold_job(job, format!("tried again in {}: {last}", at.since(world.now)));
            return None;
        }
        if let Some(opened) = world.breaker.opened
            && world.now.since(opened) < world.policy.breaker_pause
        {
            self.hold_job(job, format!("creations of VMs fail: {}", world.breaker.last));
            return None;
        }
        let shape = estimate(job, partition, options.share_percent);
        let each = job.request.nodes.max(1);
        let tasks = job.array.as_ref().map_or(1, |array| array.tasks.len());
        let mut fitting = 0;
        let mut free = self.free_nodes(partition);
        let enough = |free: usize| free >= each as usize;
        while fitting < tasks && enough(free) && self.reserve(&shape, each) {
            fitting += 1;
            free -= each as usize;
        }
        if fitting > 0 {
            let array = job.array.as_ref().map(|array| ArrayTasks {
                job: array.job,
                tasks: array.tasks.iter().take(fitting).copied().collect(),
            });
            let why = match each {
                1 => format!(
                    "there is room for its VM of {} CPUs and {} MiB",
                    shape.cpus, shape.memory_mb
                ),
                n => format!(
                    "there is room for all its {n} VMs of {} CPUs and {} MiB",
                    shape.cpus, shape.memory_mb
                ),
            };
            self.step(
                Action::Admit {
                    job: job.id,
                    array,
                    licenses: job.licenses.clone(),
                },
                why,
            );
        }
        if fitting == tasks {
            return None;
        }
        self.blocked(job, &shape, each, enough(free))
    }

    /// A job for which there is no room now.
    fn blocked(&mut self, job: &'a SlurmJob, shape: &Shape, each: u32, has_nodes: bool) -> Option<JobId> {
        let world = self.world;
        let size = format!("{each} x ({} CPUs, {} MiB)", shape.cpus, shape.memory_mb);
        let (why, possible) = if !has_nodes {
            (format!("not {each} nodes of its partition are free"), true)
        } else if self.total_left < each as usize {
            (
                format!(
                    "the cap of {} VMs is reached (limits.max_vms)",
                    world.policy.max_vms
                ),
                true,
            )
        } else {
            match self.ledger().choose(shape, &BTreeSet::new()) {
                Ok(_) => ("not all of its VMs fit beside each other".to_owned(), true),
                Err(no_room) => (no_room.to_string(), no_room.fits_empty),
            }
        };
        let waits: Option<Time> = world.jobs.get(&job.key()).and_then(|record| record.waits);
        let waited = waits.map(|since| world.now.since(since)).unwrap_or_default();
        self.plan.held.push(Held {
            subject: Subject::Job(job.id),
            why: format!("waits for room for {size}: {why}"),
        });
        (possible && waited >= world.policy.overtake_limit).then_some(job.id)
    }

    /// How many nodes of a partition could be given to a job now.
    fn free_nodes(&self, partition: &JobPartition) -> usize {
        let world = self.world;
        let Some(slurm) = &world.slurm else { return 0 };
        let is_free = |seen: &SlurmNode| {
            let f = &seen.flags;
            f.powered_down
                && !(f.powering_up || f.powering_down || f.drain || f.unknown)
                && !seen.may_run_job()
        };
        let own = world.specs.iter();
        let own = own.filter(|(_, spec)| partition.nodesets.contains(&spec.nodeset));
        own.filter(|(node, _)| slurm.nodes.get(*node).is_some_and(is_free))
            .count()
    }
}

/// How big each VM of a job will be, before Slurm has given it nodes: its request, shared
/// out evenly.
pub(crate) fn estimate(job: &SlurmJob, partition: &JobPartition, share: Option<u32>) -> Shape {
    let request = &job.request;
    let nodes = request.nodes.max(1);
    let memory_mb = match request.memory_mb.div_ceil(u64::from(nodes)) {
        0 => partition.most.memory_mb,
        some => some,
    };
    Shape {
        cpus: request.cpus.div_ceil(nodes).max(1),
        memory_mb,
        share_percent: share.unwrap_or(partition.most.share_percent),
    }
}
