//! Nodes of job mode: each has a VM that is one job's alone, as big as Slurm's
//! allocation there, and that ends with it.

use super::Planner;
use crate::event::Subject;
use crate::hostlist;
use crate::ids::{HostName, NodeName, Time};
use crate::options::{VmOptions, put_back_comment};
use crate::place::NoCapacity;
use crate::plan::{Action, EndWhy, Held, JobVerb, NodeVerb, Step, VmVerb};
use crate::resources::Resources;
use crate::view::{BaseState, JobOwner, JobState, Shape, SlurmJob, SlurmNode, VmSpec};
use crate::vm::VmRecord;
use crate::world::{Desired, Mode, NodeRecord, NodeSpec, Trouble};
use std::cell::LazyCell;
use std::collections::{BTreeSet, HashSet};

/// A node that wants a VM, and since when.
pub(crate) type Wanting<'a> = (Time, &'a NodeName, &'a NodeRecord);

impl<'a> Planner<'a> {
    /// A node of job mode that wants a VM: all nodes of its job are decided together.
    pub fn wants_for_job(&mut self, node: &NodeName, record: &NodeRecord, wanting: &[Wanting<'a>]) {
        if !self.world.specs.contains_key(node) {
            return self.hold(node, "it is no longer in the configuration: no VM is made for it");
        }
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        let Some(job) = self.job_mode_job(node) else {
            if self.world.is_unbacked(node) {
                return self.give_up_for_now(
                    node,
                    "its VM is gone, and its last job cannot be ended",
                    "Slurm waits there for a slurmd that is gone",
                );
            }
            let why = match self.shown_on(node).first() {
                Some(job) => format!(
                    "job {} of partition {} is on it, which is not in job mode: no VM is made for it",
                    job.id, job.partition
                ),
                None => "waits until Slurm shows which job it is for".to_owned(),
            };
            return self.hold(node, why);
        };
        if !self.served.insert(job.id) {
            return;
        }
        let nodes: Vec<Wanting<'a>> = wanting
            .iter()
            .filter(|(_, node, record)| record.down.is_none() && job.nodes.contains(node))
            .copied()
            .collect();
        if nodes.iter().any(|(_, _, record)| self.is_too_early(record)) {
            return nodes.iter().for_each(|(_, node, _)| self.waits_for_slurm(node));
        }
        self.serve(job, &nodes);
    }

    /// Jobs of other partitions that Slurm has given nodes of job mode. They could only wait there
    /// for ResumeTimeout, again and again.
    pub fn jobs_out_of_place(&mut self) {
        let world = self.world;
        let Some(slurm) = world.slurm.as_ref().filter(|_| !world.job_partitions.is_empty()) else {
            return;
        };
        if world.slurm_began <= world.jobs_acted {
            return;
        }
        let job_mode = world.specs.iter().filter(|(_, spec)| spec.mode == Mode::Job);
        let from = LazyCell::new(|| hostlist::fold(job_mode.map(|(node, _)| node)));
        for job in slurm
            .jobs
            .values()
            .filter(|job| !world.busy_jobs.contains(&job.id))
        {
            if let Some(why) = world.half_away(job) {
                self.step(
                    Action::Job(
                        job.id,
                        JobVerb::TurnAway {
                            from: from.clone(),
                            why: why.to_owned(),
                        },
                    ),
                    "turning it away was begun, and it is still held",
                );
                continue;
            }
            let nodes = world.out_of_place(job);
            let Some(first) = nodes.first().filter(|_| job.state == JobState::Configuring) else {
                continue;
            };
            let why = format!(
                "partition {} has nodes of job mode, and no VM is made there for its jobs: have it list others",
                job.partition
            );
            let stuck = world.jobs.get(&job.key()).is_some_and(|record| record.stuck);
            if job.requeue && !stuck {
                self.step(
                    Action::Job(
                        job.id,
                        JobVerb::TurnAway {
                            from: from.clone(),
                            why,
                        },
                    ),
                    "it would wait there until Slurm's ResumeTimeout, and be sent there again",
                );
                continue;
            }
            let idle = |node: &NodeName| {
                let planned = |step: &Step| step.action.node() == Some(node);
                !world.busy.contains(node) && !self.plan.steps.iter().any(planned)
            };
            if world
                .records
                .get(*first)
                .is_some_and(|r| r.down.is_none() && r.vm.is_none())
                && idle(first)
            {
                self.give_up_for_now(
                    first,
                    &format!("job {}: {why}", job.id),
                    "its job cannot go back into the queue",
                );
            }
        }
    }

    /// The job that Slurm has on a node of job mode.
    fn job_mode_job(&self, node: &NodeName) -> Option<&'a SlurmJob> {
        let job_mode = |job: &&SlurmJob| self.world.job_partitions.contains_key(&job.partition);
        let mut jobs = self.shown_on(node).iter().copied().filter(job_mode);
        jobs.find(|job| match &job.state {
            JobState::Configuring | JobState::Running | JobState::Suspended => true,
            JobState::Pending | JobState::Completing | JobState::Over(_) | JobState::Unknown(_) => false,
        })
    }

    /// All or nothing: every one of these nodes of `job` gets its VM, or the job is told why.
    fn serve(&mut self, job: &'a SlurmJob, nodes: &[Wanting<'a>]) {
        if self.world.busy_jobs.contains(&job.id) {
            return;
        }
        let options = match self.options(job) {
            Ok(options) => options,
            Err(why) => return self.hold_job(job, why),
        };
        if let Some(why) = nodes.iter().find_map(|(_, node, _)| self.world.faults.get(*node)) {
            return self.cannot_have(job, nodes, &options, why);
        }
        let mut specs = Vec::with_capacity(nodes.len());
        for (_, node, _) in nodes {
            match self.job_spec(job, node, &options) {
                Some(spec) => specs.push(spec),
                None => return self.hold(node, "waits until Slurm shows how much of it is allocated"),
            }
        }
        let policy = &self.world.policy;
        let mut troubles = nodes.iter().map(|(_, _, record)| &record.trouble);
        // Once that was told, it is tried anew: the job may be there again.
        let enough = |trouble: &&Trouble| trouble.failures >= policy.tries_before_down && !trouble.told;
        if let Some(trouble) = troubles.find(enough) {
            return self.cannot_have(job, nodes, &options, &trouble.last);
        }
        let waited = nodes.iter().map(|(since, ..)| self.world.now.since(*since)).max();
        let patience = match job.requeue {
            true => policy.capacity_patience,
            // It cannot go back: it waits as long as a VM may take.
            false => policy.boot_timeout,
        };
        let patient = waited.is_none_or(|waited| waited < patience);
        for (_, node, record) in nodes {
            if let Some(at) = record.trouble.retry_at.filter(|at| *at > self.world.now) {
                let pause = at.since(self.world.now);
                return self.hold(node, format!("pausing {pause}: {}", record.trouble.last));
            }
            if let Some(twin) = self.twin(node, record.generation.next()) {
                let why = format!("its VM {node}.{twin} is still at the provider");
                if patient {
                    return self.hold(node, why);
                }
                return self.cannot_have(job, nodes, &options, &why);
            }
        }
        let choice = match self.caps(nodes.len()) {
            Ok(()) => self
                .place(nodes, &specs)
                .map_err(|no_capacity| (no_capacity.fits_empty, no_capacity.to_string())),
            Err(why) => Err((true, why)),
        };
        match choice {
            Ok(hosts) => {
                self.placed.insert(job.id);
                self.make(job, nodes, specs, hosts);
            }
            Err((true, why)) if patient => self.hold_job(job, format!("its VMs wait for capacity: {why}")),
            Err((_, why)) => self.cannot_have(job, nodes, &options, &why),
        }
    }

    /// The options that a job has for its VMs, once they are known.
    pub(super) fn options(&self, job: &SlurmJob) -> Result<VmOptions, String> {
        match (&job.admin_comment, job.has_options) {
            (_, false) => Ok(VmOptions::default()),
            (Some(comment), true) => VmOptions::from_comment(comment)
                .map_err(|why| format!("the options for its VMs cannot be read: {why}")),
            (None, true) => Err("waits until Slurm shows the options for its VMs".to_owned()),
        }
    }

    /// What the VM of one of a job's nodes is to be: Slurm's allocation there.
    fn job_spec(&self, job: &SlurmJob, node: &NodeName, options: &VmOptions) -> Option<VmSpec> {
        let most = self.world.specs.get(node)?.shape;
        let alloc = self.slurm_node(node)?.alloc?;
        let memory_mb = match alloc.memory_mb {
            0 => most.memory_mb,
            some => some,
        };
        Some(VmSpec {
            shape: Shape {
                cpus: alloc.cpus,
                memory_mb,
                share_percent: options.share_percent.unwrap_or(most.share_percent),
            },
            gpus: alloc.gpus,
            job: Some(job.id),
            owner: Some(JobOwner {
                uid: job.uid,
                leader: job.het.unwrap_or(job.id),
            }),
            options: options.clone(),
        })
    }

    fn caps(&self, count: usize) -> Result<(), String> {
        let breaker = &self.world.breaker;
        if breaker.pauses(self.world.now, &self.world.policy) {
            return Err(format!(
                "{} creations failed in a row, last: {}",
                breaker.failures, breaker.last
            ));
        }
        if self.total_left < count {
            let most = self.world.policy.max_vms;
            return Err(format!("the cap of {most} VMs is reached (limits.max_vms)"));
        }
        Ok(())
    }

    /// A host for each, all at once; their capacity is taken then.
    fn place(&mut self, nodes: &[Wanting<'a>], specs: &[VmSpec]) -> Result<Vec<HostName>, NoCapacity> {
        let world = self.world;
        let ledger = self.ledger();
        let before = ledger.mark();
        let mut hosts = Vec::with_capacity(nodes.len());
        for ((_, node, record), spec) in nodes.iter().zip(specs) {
            let need = Resources::of_spec(spec, &world.policy);
            let of_node = world.specs.get(*node).map(|of_node| &of_node.nodeset);
            let of = of_node.as_slice();
            let elsewhere = ledger.choose(&need, of, &record.trouble.avoid);
            match elsewhere.or_else(|_| ledger.choose(&need, of, &BTreeSet::new())) {
                Ok(host) => {
                    ledger.take(&host, &need);
                    hosts.push(host);
                }
                Err(none) => {
                    ledger.back_to(before);
                    return Err(none);
                }
            }
        }
        self.total_left -= nodes.len();
        Ok(hosts)
    }

    fn make(&mut self, job: &SlurmJob, nodes: &[Wanting<'a>], specs: Vec<VmSpec>, hosts: Vec<HostName>) {
        for (((_, node, record), spec), host) in nodes.iter().zip(specs).zip(hosts) {
            if self.starts_left == 0 {
                let most = self.world.policy.max_starting;
                self.hold(
                    node,
                    format!("{most} VMs are starting, as many as may start at once; its capacity is kept"),
                );
                continue;
            }
            self.starts_left -= 1;
            let tag = self.world.tag(node, record.generation.next());
            let why = format!("job {} has {node}, and there is capacity for all its VMs", job.id);
            self.step(
                Action::Vm(
                    tag,
                    VmVerb::Create {
                        host,
                        spec,
                        again: false,
                    },
                ),
                why,
            );
        }
    }

    /// A job whose VMs cannot be had goes back into the queue; one that cannot, is told by its node.
    fn cannot_have(&mut self, job: &SlurmJob, nodes: &[Wanting<'a>], options: &VmOptions, why: &str) {
        let stuck = self.world.jobs.get(&job.key()).is_some_and(|record| record.stuck);
        if self.world.slurm_began < self.world.jobs_acted {
            return self.hold_job(
                job,
                "waits for an observation of Slurm that is younger than what was done last",
            );
        }
        if job.requeue && !stuck && job.state == JobState::Configuring {
            return self.step(
                Action::Job(
                    job.id,
                    JobVerb::PutBack {
                        licenses: job.licenses.clone(),
                        comment: put_back_comment(options, why),
                    },
                ),
                "not all of its VMs can be made, and some of them alone are no use",
            );
        }
        if let Some((_, node, _)) = nodes.first() {
            let names = hostlist::fold(nodes.iter().map(|(_, node, _)| *node));
            let why = format!("no VMs for {names} of job {}: {why}", job.id);
            self.give_up_for_now(node, &why, "its job cannot go back into the queue");
        }
    }

    pub(super) fn hold_job(&mut self, job: &SlurmJob, why: impl Into<String>) {
        self.plan.held.push(Held {
            subject: Subject::Job(job.id),
            why: why.into(),
        });
    }

    /// A failed job's VM that stays for its owner: Slurm is kept off its node meanwhile.
    pub(super) fn keep(&mut self, node: &NodeName, record: &NodeRecord, vm: &VmRecord, until: Time) {
        let left = until.since(self.world.now);
        let job = vm.spec.as_ref().and_then(|spec| spec.job);
        let whose = job.map(|job| format!(" of job {job}")).unwrap_or_default();
        if record.down.is_none() {
            let why = format!("VM {node}.{}{whose} is kept after its failure", vm.generation);
            return self.give_up_for_now(node, &why, "its job asked to keep it when it fails");
        }
        self.hold(node, format!("its VM{whose} is kept for {left} more"));
    }

    /// Nodes of job mode for which nothing else is done now: Slurm ends each with its job.
    pub fn job_mode_nodes(&mut self) {
        let Some(slurm) = self
            .world
            .slurm
            .as_ref()
            .filter(|_| !self.world.job_partitions.is_empty())
        else {
            return;
        };
        let steps = self.plan.steps.iter();
        let planned: HashSet<NodeName> = steps.filter_map(|step| step.action.node().cloned()).collect();
        let job_mode = |spec: &NodeSpec| spec.mode == Mode::Job;
        for (node, _) in self.world.specs.iter().filter(|(_, spec)| job_mode(spec)) {
            let Some(seen) = slurm.nodes.get(node) else {
                continue;
            };
            let due = self.world.records.get(node).is_some_and(|record| {
                // An order to go down may be older than the job that is there.
                let stays = !matches!(record.desired, Desired::Down { .. }) || seen.may_run_job();
                stays && record.acted < self.world.slurm_began
            });
            if !due {
                continue;
            }
            if planned.contains(node) || self.world.busy.contains(node) {
                continue;
            }
            match end_with_job(seen) {
                End::Settled => {}
                End::WithJob => self.step(
                    Action::Node(node.clone(), NodeVerb::EndWithJob(EndWhy::OneJob)),
                    "its VM is for one job alone",
                ),
                End::Now => self.step(
                    Action::Node(node.clone(), NodeVerb::PowerDown),
                    "it still comes up, and its job is over",
                ),
            }
        }
    }
}

/// What is to be arranged with Slurm for the end of a node of job mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing: Slurm does not have it up, or ends it by itself.
    Settled,
    /// Slurm is to give it to nobody else, and to power it down when its job is over.
    WithJob,
    /// Its job is over before it came up: it is to be powered down now. No other job can
    /// be given it meanwhile, since a power-down was asked for.
    Now,
}

pub(crate) fn end_with_job(seen: &SlurmNode) -> End {
    let f = &seen.flags;
    if f.powered_down || f.powering_down || f.unknown {
        return End::Settled;
    }
    match seen.base {
        BaseState::Allocated | BaseState::Mixed | BaseState::Idle if !f.power_down => End::WithJob,
        BaseState::Idle if f.powering_up && !f.completing => End::Now,
        BaseState::Idle
        | BaseState::Allocated
        | BaseState::Mixed
        | BaseState::Down
        | BaseState::Error
        | BaseState::Future
        | BaseState::Unknown(_) => End::Settled,
    }
}
