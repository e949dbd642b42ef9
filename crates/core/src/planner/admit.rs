//! Which of the jobs that wait for their VMs are admitted: in the order of Slurm's
//! priorities, those for all of whose VMs there is capacity.

use super::Planner;
use super::way::UnplacedJob;
use crate::event::Subject;
use crate::evidence::stranger;
use crate::ids::{JobId, Millis, Time};
use crate::options::{Asker, put_back_reason};
use crate::plan::{Action, Held, JobVerb};
use crate::size::{Vms, guess, node_counts};
use crate::view::{ArrayTasks, Gate, GpusBy, JobState, SlurmJob, SlurmNode, WaitsFor};
use crate::world::JobPartition;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// Most jobs that a sentence names.
const NAMED: usize = 3;

/// A job that waits, and its partition.
type Waiting<'a> = (&'a SlurmJob, &'a JobPartition);

/// How many nodes each partition has left for jobs; counted when somebody asks.
#[derive(Debug, Clone, Default)]
struct FreeNodes<'a>(BTreeMap<&'a str, usize>);

impl<'a> Planner<'a> {
    /// Admits waiting jobs, and takes back what was admitted in vain.
    pub fn waiting_jobs(&mut self) {
        let world = self.world;
        let Some(slurm) = world.slurm.as_ref().filter(|_| !world.job_partitions.is_empty()) else {
            return;
        };
        // What was admitted after the observation began may be anywhere in it.
        if world.slurm_began <= world.jobs_acted || !world.busy_jobs.is_empty() {
            return;
        }
        let mut waiting: Vec<Waiting<'a>> = Vec::new();
        let mut free = FreeNodes::default();
        for job in slurm.jobs.values() {
            let Some(partition) = world.job_partitions.get(&job.partition) else {
                self.maybe_lost_at_the_gate(job);
                continue;
            };
            match (&job.state, job.gate) {
                (JobState::Pending, Gate::Waits) => waiting.push((job, partition)),
                (JobState::Pending, Gate::Open) => self.already_admitted(job, partition, &mut free),
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
        let mut parts_done = BTreeSet::new();
        for (job, partition) in &waiting {
            if let Some(first) = overtaken {
                self.hold_job(
                    job,
                    format!("waits behind job {first}, which has waited long for capacity and may no longer be overtaken"),
                );
                continue;
            }
            overtaken = match job.het {
                None => self.maybe_admit(job, partition, &mut free),
                Some(leader) if parts_done.insert(leader) => {
                    let same = |(part, _): &&Waiting<'a>| part.het == Some(leader);
                    let parts: Vec<Waiting<'a>> = waiting.iter().filter(same).copied().collect();
                    self.maybe_let_parts_go(&parts, &mut free)
                }
                Some(_) => None,
            };
        }
    }

    /// A job at the gate of no partition of ours, or of more than one: job_submit.lua takes none such, but Slurm's
    /// administrators may move one. Which VMs it gets cannot be known, and Slurm says no more than `Licenses`.
    fn maybe_lost_at_the_gate(&mut self, job: &SlurmJob) {
        if job.state != JobState::Pending || job.gate != Gate::Waits {
            return;
        }
        let partitions = &self.world.job_partitions;
        let mut named = job.partition.split(',');
        let one = named.find_map(|name| partitions.get_key_value(name).map(|(name, _)| name));
        let Some(one) = one.or_else(|| partitions.keys().next()) else {
            return;
        };
        self.hold_job(
            job,
            format!(
                "it waits for VMs of its own, but partition {} does not give any: name a single one that does, as in scontrol update jobid={} partition={one}",
                job.partition,
                job.key(),
            ),
        );
    }

    /// How long capacity is held for a job that Slurm does not start. Some it starts only in its backfill pass:
    /// heterogeneous ones, and those behind one that does not fit. None waits again before that came.
    fn admit_patience(&self) -> Millis {
        self.world.policy.admit_patience.max(self.world.scheduling_pass)
    }

    /// A job that was admitted and that Slurm has not started: its capacity is held for a while.
    fn already_admitted(&mut self, job: &'a SlurmJob, partition: &'a JobPartition, free: &mut FreeNodes<'a>) {
        let comment = job.admin_comment.as_deref().unwrap_or_default();
        if job.reason.has(&WaitsFor::Release) && put_back_reason(comment).is_some() {
            return self.step(
                Action::Job(
                    job.id,
                    JobVerb::FinishPutBack {
                        licenses: job.licenses.clone(),
                    },
                ),
                "putting it back was begun, and it is still held",
            );
        }
        let admitted = self.world.jobs.get(&job.id).and_then(|record| record.admitted);
        let age = admitted.map(|at| self.world.now.since(at)).unwrap_or_default();
        // One that was requeued is paused by Slurm for two minutes, unless it is let start now.
        let start_now = Action::Job(job.id, JobVerb::StartNow);
        let paused = job.reason.has(&WaitsFor::BeginTime)
            && self.plan.steps.iter().all(|step| step.action != start_now);
        if paused || age >= self.admit_patience() {
            let why = match paused {
                true => format!("Slurm does not let it start yet ({})", job.reason),
                false => format!(
                    "it was admitted {age} ago, and Slurm does not start it ({})",
                    job.reason
                ),
            };
            return self.step(
                Action::Job(
                    job.id,
                    JobVerb::CloseGate {
                        array: job.array.clone(),
                        licenses: job.licenses.clone(),
                    },
                ),
                why,
            );
        }
        let wanted = Bid::of(
            job,
            partition,
            self.options(job).ok().and_then(|o| o.share_percent),
        );
        let tasks = job.array.as_ref().map_or(1, |array| array.tasks.len());
        let vms = wanted.vms(wanted.fewest);
        let vms = vms.times(u32::try_from(tasks).unwrap_or(u32::MAX));
        self.take_nodes(job, partition, vms.count(), free);
        let of: Vec<_> = partition.nodesets.iter().collect();
        match self.reserve(&vms, &of) {
            Ok(()) => self.awaited.push(job.id),
            Err(_) => self.hold_job(job, "was admitted, but the capacity for it has been taken"),
        }
    }

    /// A job that has its nodes and not all its VMs: their capacity is spoken for.
    fn reserve_unmade(&mut self, job: &SlurmJob, partition: &JobPartition) {
        if self.placed.contains(&job.id) {
            return; // counted
        }
        let world = self.world;
        let made = |node| world.records.get(node).is_some_and(|record| record.vm.is_some());
        let missing = job.nodes.iter().filter(|node| !made(*node)).count();
        let count = |some: usize| u32::try_from(some).unwrap_or(u32::MAX);
        let vms = guess(job, partition, count(job.nodes.len()), None);
        // Without it there is less capacity for others, which is all that is told by it.
        let of: Vec<_> = partition.nodesets.iter().collect();
        if missing > 0 && self.reserve(&vms.largest_of(count(missing)), &of).is_ok() {
            self.awaited.push(job.id);
        }
    }

    /// For whom capacity is held, behind the reason why another job has none.
    fn held_capacity(&self) -> String {
        let named: Vec<String> = self.awaited.iter().take(NAMED).map(JobId::to_string).collect();
        let jobs = named.join(", ");
        match self.awaited.len() {
            0 => String::new(),
            1 => format!("; capacity is held for job {jobs}, which was admitted"),
            2..=NAMED => format!("; capacity is held for jobs {jobs}, which were admitted"),
            many => format!(
                "; capacity is held for jobs {jobs} and {} more, which were admitted",
                many - NAMED
            ),
        }
    }

    /// Admits a job if it may, of an array as many tasks as have capacity; the job that nobody
    /// overtakes any more, if this is one.
    fn maybe_admit(
        &mut self,
        job: &'a SlurmJob,
        partition: &'a JobPartition,
        free: &mut FreeNodes<'a>,
    ) -> Option<JobId> {
        let wanted = match self.may_go(job, partition) {
            Ok(wanted) => wanted,
            Err(why) => {
                self.hold_job(job, why);
                return None;
            }
        };
        let tasks = job.array.as_ref().map_or(1, |array| array.tasks.len());
        let mut fitting = 0;
        if let Some(vms) = self.take_capacity(&wanted, free) {
            fitting = 1;
            // The others of a range's tasks get as many nodes as the first, or wait for another observation.
            while fitting < tasks && self.take(&wanted, &vms, free).is_ok() {
                fitting += 1;
            }
            let array = job.array.as_ref().map(|array| ArrayTasks {
                job: array.job,
                tasks: array.tasks.iter().take(fitting).copied().collect(),
            });
            self.admit_bid(&wanted, array, &vms);
        }
        if fitting == tasks {
            return None;
        }
        self.blocked(&wanted, free)
    }

    /// The same for the parts of a heterogeneous job: Slurm starts all of them at once or none.
    fn maybe_let_parts_go(&mut self, parts: &[Waiting<'a>], free: &mut FreeNodes<'a>) -> Option<JobId> {
        let mut all = Vec::with_capacity(parts.len());
        for (part, partition) in parts {
            match self.may_go(part, partition) {
                Ok(wanted) => all.push(wanted),
                Err(why) => {
                    self.hold_job(part, why);
                    return None;
                }
            }
        }
        let before = (self.ledger().mark(), self.total_left, free.clone());
        let mut capacity = Vec::with_capacity(parts.len());
        for wanted in &all {
            if let Some(vms) = self.take_capacity(wanted, free) {
                capacity.push(vms);
                continue;
            }
            let blocked = self.blocked(wanted, free);
            let (mark, total_left, nodes) = before;
            self.ledger().back_to(mark);
            (self.total_left, *free) = (total_left, nodes);
            return blocked;
        }
        for (wanted, vms) in all.iter().zip(&capacity) {
            self.admit_bid(wanted, None, vms);
        }
        None
    }

    /// The leader of a heterogeneous job that has a part here and is in no partition of job mode itself: with
    /// it the gate opens for all parts (23.02 and later), and nobody opens it there.
    fn foreign_leader(&self, part: &SlurmJob) -> Option<&'a SlurmJob> {
        let world = self.world;
        let leader = part.het.filter(|leader| *leader != part.id)?;
        let leader = world.slurm.as_ref()?.jobs.get(&leader)?;
        (!world.job_partitions.contains_key(&leader.partition)).then_some(leader)
    }

    /// What a job waits for, if that is nothing but capacity.
    ///
    /// # Errors
    /// What else keeps it.
    fn may_go(&self, job: &'a SlurmJob, partition: &'a JobPartition) -> Result<Bid<'a>, String> {
        let world = self.world;
        if let Some(what) = job.reason.waits.iter().find(|what| !ends_by_itself(what)) {
            let unknown = if let WaitsFor::Unknown(word) = what {
                format!(" (what \"{word}\" means is not known here)")
            } else {
                String::new()
            };
            return Err(format!("Slurm does not let it start: {}{unknown}", job.reason));
        }
        if let Some(leader) = self.foreign_leader(job) {
            return Err(format!(
                "it is a part of a heterogeneous job that starts with job {}, in partition {}, which gives no VMs: submit it again, with all parts or the first in partitions that do",
                leader.id, leader.partition
            ));
        }
        if stranger(world, job) {
            return Err("its user is not known in the guests".to_owned());
        }
        let options = self.options(job)?;
        let asker = Asker {
            partition: &job.partition,
            account: &job.account,
            user: &job.user,
        };
        options
            .check(&world.option_rules, asker)
            .map_err(|why| format!("its options for VMs are refused: {why}"))?;
        let record = world.jobs.get(&job.key());
        if let Some((at, last)) = record.and_then(|record| Some((record.retry_at?, &record.last)))
            && at > world.now
        {
            return Err(format!("tried again in {}: {last}", at.since(world.now)));
        }
        if world.breaker.pauses(world.now, &world.policy) {
            return Err(format!("creations of VMs fail: {}", world.breaker.last));
        }
        if let Some(why) = self.fault_of(partition) {
            return Err(format!("no VM can be made for any of its nodes: {why}"));
        }
        let wanted = Bid::of(job, partition, options.share_percent);
        if job.het.is_some() && wanted.has_choice() {
            return Err(format!(
                "it is a part of a heterogeneous job and asks for {} to {} nodes, and Slurm fixes no count for such parts: submit it again with one count for each part (-N{})",
                wanted.fewest, wanted.most, wanted.fewest
            ));
        }
        Ok(wanted)
    }

    /// Sets nodes and capacity for a job (or a task of an array) aside, if there are enough: as many as it may
    /// have.
    fn take_capacity(&mut self, wanted: &Bid<'a>, free: &mut FreeNodes<'a>) -> Option<Vms> {
        let count = |some: usize| u32::try_from(some).unwrap_or(u32::MAX);
        let nodes = self.free_nodes(wanted.job, wanted.partition, free);
        let mut nodes = count(nodes.min(self.total_left)).min(wanted.best);
        while nodes >= wanted.fewest {
            let vms = wanted.vms(nodes);
            match self.take(wanted, &vms, free) {
                Ok(()) => return Some(vms),
                // Those of fewer nodes are no smaller: there is capacity for no more of them.
                Err(fitting) => nodes = fitting.min(nodes - 1),
            }
        }
        None
    }

    /// Sets nodes and capacity for these VMs aside, if there are enough.
    ///
    /// # Errors
    /// For how many there is capacity.
    fn take(&mut self, wanted: &Bid<'a>, vms: &Vms, free: &mut FreeNodes<'a>) -> Result<(), u32> {
        let count = vms.count();
        let nodes = self.free_nodes(wanted.job, wanted.partition, free);
        if nodes < count as usize {
            return Err(u32::try_from(nodes).unwrap_or(u32::MAX));
        }
        let of: Vec<_> = wanted.partition.nodesets.iter().collect();
        self.reserve(vms, &of)?;
        self.take_nodes(wanted.job, wanted.partition, count, free);
        Ok(())
    }

    fn admit_bid(&mut self, wanted: &Bid<'a>, array: Option<ArrayTasks>, vms: &Vms) {
        self.awaited.push(wanted.job.id);
        let count = vms.count();
        let its = match count {
            0 | 1 => "its VM",
            _ => "all its VMs",
        };
        self.step(
            Action::Job(
                wanted.job.id,
                JobVerb::Admit {
                    array,
                    nodes: NonZeroU32::new(count).filter(|_| wanted.has_choice()),
                    licenses: wanted.job.licenses.clone(),
                },
            ),
            format!("there is capacity for {its}: {vms}"),
        );
    }

    /// A job for which there is no capacity now.
    fn blocked(&mut self, wanted: &Bid<'a>, free: &FreeNodes<'a>) -> Option<JobId> {
        let (world, job, each) = (self.world, wanted.job, wanted.fewest);
        let has_nodes = self.free_nodes(job, wanted.partition, free) >= each as usize;
        let size = match wanted.has_choice() {
            false => wanted.vms(each).to_string(),
            true => format!("{}, or for up to {} VMs", wanted.vms(each), wanted.best),
        };
        let (why, possible) = if !has_nodes {
            (format!("fewer than {each} nodes of its partition are free"), true)
        } else if self.total_left < each as usize {
            (
                format!(
                    "the cap of {} VMs is reached (limits.max_vms)",
                    world.policy.max_vms
                ),
                true,
            )
        } else {
            // The most nodes have the smallest VMs.
            let vms = wanted.vms(wanted.best);
            let largest = vms.largest();
            let need = largest.map(|shape| self.takes(shape));
            let of: Vec<_> = wanted.partition.nodesets.iter().collect();
            match need.map(|need| self.ledger().choose(&need, &of, &BTreeSet::new())) {
                Some(Err(no_capacity)) => (no_capacity.to_string(), no_capacity.fits_empty),
                Some(Ok(_)) | None => ("its VMs do not all fit at once".to_owned(), true),
            }
        };
        let held = if has_nodes {
            self.held_capacity()
        } else {
            String::new()
        };
        let waits: Option<Time> = world.jobs.get(&job.key()).and_then(|record| record.waits);
        let waited = waits.map(|since| world.now.since(since)).unwrap_or_default();
        // What is being freed may be for them all; Slurm starts the parts of a heterogeneous job together or not.
        if has_nodes && possible && job.het.is_none() {
            self.unplaced_jobs.push(UnplacedJob {
                vms: wanted.vms(each),
                of: wanted.partition.nodesets.iter().collect(),
                held: self.plan.held.len(),
            });
        }
        self.plan.held.push(Held {
            subject: Subject::Job(job.id),
            why: format!("waits for capacity for {size}: {why}{held}"),
        });
        (possible && waited >= world.policy.overtake_limit).then_some(job.id)
    }

    /// How many nodes of a job's partition could be given to it now.
    fn free_nodes(&self, job: &SlurmJob, partition: &JobPartition, free: &FreeNodes<'_>) -> usize {
        let known = free.0.get(job.partition.as_str()).copied();
        known.unwrap_or_else(|| self.count_free(partition))
    }

    /// What is wrong with a partition, if no VM can be made for any of its nodes.
    fn fault_of(&self, partition: &JobPartition) -> Option<&'a str> {
        let world = self.world;
        let first = world.faults.values().next()?;
        let nodes = world.specs.iter();
        let mut nodes = nodes.filter(|(_, spec)| partition.nodesets.contains(&spec.nodeset));
        let why = nodes
            .clone()
            .find_map(|(node, _)| world.faults.get(node))
            .unwrap_or(first);
        nodes
            .all(|(node, _)| world.faults.contains_key(node))
            .then_some(why)
    }

    fn take_nodes(&self, job: &SlurmJob, partition: &'a JobPartition, count: u32, free: &mut FreeNodes<'a>) {
        let left = self
            .free_nodes(job, partition, free)
            .saturating_sub(count as usize);
        let name = self.world.job_partitions.get_key_value(&job.partition);
        free.0.extend(name.map(|(name, _)| (name.as_str(), left)));
    }

    fn count_free(&self, partition: &JobPartition) -> usize {
        let world = self.world;
        let Some(slurm) = &world.slurm else { return 0 };
        let is_free = |seen: &SlurmNode| {
            let f = &seen.flags;
            f.powered_down
                && !(f.powering_up || f.powering_down || f.drain || f.unknown)
                && !seen.may_run_job()
        };
        let nodes = world.specs.iter();
        let nodes = nodes.filter(|(_, spec)| partition.nodesets.contains(&spec.nodeset));
        let nodes = nodes.filter(|(node, _)| !slurm.without_partition.contains(*node));
        let nodes = nodes.filter(|(node, _)| !world.faults.contains_key(*node));
        nodes
            .filter(|(node, _)| slurm.nodes.get(*node).is_some_and(is_free))
            .count()
    }
}

/// What a job waits for, or each task of an array.
#[derive(Debug, Clone, Copy)]
struct Bid<'a> {
    job: &'a SlurmJob,
    partition: &'a JobPartition,
    share: Option<u32>,
    /// The fewest nodes that it may get.
    fewest: u32,
    /// The most nodes that it may get.
    most: u32,
    /// The most that it is given.
    best: u32,
}

impl<'a> Bid<'a> {
    fn of(job: &'a SlurmJob, partition: &'a JobPartition, share: Option<u32>) -> Self {
        let (fewest, most) = node_counts(job, partition);
        // With more nodes some would have no GPU.
        let best = match job.request.gpus_by {
            GpusBy::Job => fewest,
            GpusBy::Node | GpusBy::Task(_) => most,
        };
        Self {
            job,
            partition,
            share,
            fewest,
            most,
            best,
        }
    }

    /// Whether Slurm may give it more nodes or fewer, if it is not told how many.
    fn has_choice(&self) -> bool {
        self.fewest < self.most
    }

    /// Its VMs, if it gets so many nodes.
    fn vms(&self, nodes: u32) -> Vms {
        guess(self.job, self.partition, nodes, self.share)
    }
}

/// Whether nothing but us keeps a job that waits for this.
fn ends_by_itself(what: &WaitsFor) -> bool {
    match what {
        WaitsFor::Licenses | WaitsFor::Turn | WaitsFor::Nodes | WaitsFor::Cleaning => true,
        WaitsFor::NamedNodes
        | WaitsFor::BeginTime
        | WaitsFor::Release
        | WaitsFor::Other
        | WaitsFor::Unknown(_) => false,
    }
}
