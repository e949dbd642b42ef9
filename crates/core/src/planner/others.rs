//! What is planned beside the nodes' own VMs: strays, and jobs that were requeued because of us.

use super::Planner;
use crate::event::Subject;
use crate::evidence::is_superseded;
use crate::ids::{JobId, Millis, NodeName, NodesetName};
use crate::plan::{Action, EndWhy, Held, JobVerb, NodeVerb, VmVerb};
use crate::size::{Vms, guess};
use crate::view::{JobState, JobsOn, SlurmJob, VmState, WaitsFor};
use crate::vm::{Cause, VmRecord};
use crate::world::NodeSpec;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl<'a> Planner<'a> {
    /// VMs with our tag that no record holds.
    pub fn strays(&mut self) {
        if self.world.strays.is_empty() {
            return;
        }
        let steps = self.plan.steps.iter();
        let mut planned: HashSet<NodeName> = steps.filter_map(|step| step.action.node().cloned()).collect();
        for vm in &self.provider.vms {
            let (Some(first), Some(tag)) = (self.world.strays.get(&vm.id), &vm.tag) else {
                continue;
            };
            if tag.cluster != self.world.cluster || self.world.busy.contains(&tag.node) {
                continue;
            }
            let subject = Subject::Vm(tag.node.clone(), tag.generation);
            let age = self.world.now.since(*first);
            let superseded = is_superseded(self.world, vm);
            let dead = matches!(vm.state, VmState::Dead(_));
            // Nobody admits it any more: there is nothing to wait for.
            let never_runs = superseded && vm.state == VmState::Held;
            let grace = self.world.policy.orphan_grace;
            let why = if age < grace && !dead && !never_runs {
                format!(
                    "backs nothing; terminated in {} if that stays so",
                    Millis(grace.0 - age.0)
                )
            } else if planned.contains(&tag.node) {
                "backs nothing; waits for the other action on its node".to_owned()
            } else if self.world.slurm.is_none() {
                "backs nothing; kept: Slurm could not be read".to_owned()
            } else if !(superseded || dead || self.surely_unused(&tag.node)) {
                if self.never_idle(&tag.node) {
                    planned.insert(tag.node.clone());
                    self.step(
                        Action::Node(tag.node.clone(), NodeVerb::EndWithJob(EndWhy::Strays)),
                        format!("VM {}.{} is there beside its own, and takes capacity while jobs follow each other there", tag.node, tag.generation),
                    );
                }
                "backs nothing that we know of; kept: Slurm may be using its node".to_owned()
            } else {
                planned.insert(tag.node.clone());
                self.step(
                    Action::Vm(
                        tag.clone(),
                        VmVerb::Destroy {
                            id: Some(vm.id.clone()),
                            cause: Cause::Orphan,
                            hard: dead || age.0 >= grace.0 + self.world.policy.terminate_grace.0,
                        },
                    ),
                    Cause::Orphan.text(),
                );
                continue;
            };
            self.plan.held.push(Held { subject, why });
        }
    }

    /// Whether `node` is up in power-saving mode and may be given job after job: which of its VMs Slurm uses shows
    /// only when it has none.
    fn never_idle(&self, node: &NodeName) -> bool {
        let record = self
            .world
            .records
            .get(node)
            .filter(|_| !self.world.is_job_mode(node));
        let fresh = record.is_some_and(|record| {
            record.vm.as_ref().is_some_and(VmRecord::is_up) && record.acted < self.world.slurm_began
        });
        let seen = self.slurm_node(node).filter(|_| fresh);
        // A power-down would lift an admin's drain, which leads to the same.
        seen.is_some_and(|seen| seen.is_counted_on() && !seen.flags.power_down && !seen.flags.drain)
    }

    /// Slurm waits two minutes before it starts a job again whose node failed.
    pub fn requeued_jobs(&mut self) {
        let Some(slurm) = &self.world.slurm else { return };
        let mut told: BTreeMap<JobId, &NodeSpec> = BTreeMap::new();
        let records = self.world.records.iter();
        for (node, record) in records.filter(|(_, r)| r.down.is_some() || r.trouble.told) {
            if let Some(spec) = self.world.specs.get(node) {
                told.extend(record.jobs.iter().map(|job| (*job, spec)));
            }
        }
        for (job, spec) in told {
            let waiting = slurm
                .jobs
                .get(&job)
                .filter(|j| j.state == JobState::Pending && j.reason.has(&WaitsFor::BeginTime))
                .filter(|_| !self.world.jobs_started.contains(&job));
            let Some(waiting) = waiting else { continue };
            let (vms, of) = match self.world.job_partitions.get(&waiting.partition) {
                Some(partition) => {
                    let of = partition.nodesets.iter().collect();
                    (guess(waiting, partition, waiting.node_count, None), of)
                }
                None => (Vms::alike(spec.shape, waiting.node_count), vec![&spec.nodeset]),
            };
            if self.reserve(&vms, &of).is_ok() {
                self.step(
                    Action::Job(job, JobVerb::StartNow),
                    "Slurm requeued it because its node was DOWN, and pauses it for two minutes",
                );
            } else {
                self.plan.held.push(Held {
                    subject: Subject::Job(job),
                    why: "Slurm pauses it, and it is left so: not all of its nodes have capacity now"
                        .to_owned(),
                });
            }
        }
    }

    /// Sets capacity for more VMs aside, of one of the nodesets `of`, if there is as much. Jobs that start again without it would hold some
    /// of their nodes and wait for each other's.
    ///
    /// # Errors
    /// For how many of them there is capacity, the largest first.
    pub(super) fn reserve(&mut self, vms: &Vms, of: &[&NodesetName]) -> Result<(), u32> {
        let count = vms.count();
        let Some(left) = self.total_left.checked_sub(count as usize) else {
            return Err(u32::try_from(self.total_left).unwrap_or(u32::MAX));
        };
        let before = self.ledger().mark();
        let mut fitting = 0;
        for (shape, count) in vms.sizes() {
            let need = self.takes(shape);
            let ledger = self.ledger();
            for _ in 0..*count {
                let Ok(host) = ledger.choose(&need, of, &BTreeSet::new()) else {
                    ledger.back_to(before);
                    return Err(fitting);
                };
                ledger.take(&host, &need);
                fitting += 1;
            }
        }
        self.total_left = left;
        Ok(())
    }

    /// Slurm's jobs by node.
    pub(super) fn jobs_on_nodes(&self) -> &JobsOn<'a> {
        let slurm = self.world.slurm.as_ref();
        self.jobs
            .get_or_init(|| slurm.map_or_else(JobsOn::default, |slurm| slurm.jobs_on()))
    }

    /// Jobs that Slurm has on `node`.
    pub(super) fn shown_on(&self, node: &NodeName) -> &[&'a SlurmJob] {
        self.jobs_on_nodes().get(node)
    }

    /// Jobs that Slurm has on `node`, and those it was resumed for that are not over.
    pub(super) fn jobs_of(&self, node: &NodeName) -> Vec<JobId> {
        let Some(slurm) = &self.world.slurm else {
            return Vec::new();
        };
        let mut jobs: Vec<JobId> = self.shown_on(node).iter().map(|job| job.id).collect();
        if let Some(record) = self.world.records.get(node) {
            jobs.extend(record.jobs.iter().filter(|id| slurm.jobs.contains_key(id)));
        }
        jobs.sort_unstable();
        jobs.dedup();
        jobs
    }
}
