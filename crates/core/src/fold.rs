//! Folds what was seen and what was done into the records.
//!
//! A fold never orders anything; it turns evidence into phases and says what
//! changed. Absence from a listing and unknown states are not evidence of death.

use crate::event::{Event, Kind, Subject};
use crate::ids::{Generation, HostName, JobId, NodeName, Time, VmId, VmTag};
use crate::orders::Order;
use crate::view::{GateSeen, SlurmView, VmView};
use crate::vm::{Cause, Life, Part, Registration, VmRecord};
use crate::world::{Desired, NodeRecord, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod begun;
mod early;
mod ended;
mod hosts;
mod jobs;
mod news;
mod powers;
mod provider;
mod unrecorded;
mod vm;

pub use ended::Outcome;

impl World {
    /// Takes an order about `node` at `at`. Unknown nodes are refused with an event.
    pub fn order(&mut self, node: &NodeName, order: &Order, at: Time) -> Event {
        if !self.specs.contains_key(node) && !self.records.contains_key(node) {
            return Event::node(
                node,
                Kind::Refused,
                format!(
                    "{node} is not a node of cluster {}: add it to a [[nodeset]] or take it out of slurm.conf",
                    self.cluster
                ),
            );
        }
        if let Order::JobEnded { job, failed } = order {
            return self.job_ended(node, *job, *failed);
        }
        let now = self.now;
        let job_mode = self.is_job_mode(node);
        let record = self.records.or_default(node);
        let in_force = match record.desired {
            Desired::Up { since } | Desired::Down { since } => since,
            // The prolog's word is followed by Slurm's own, which may have been given before it was heard.
            Desired::Early { .. } | Desired::Unasked => Time::default(),
        };
        // A hook may be slow to write its order. One in force that lies ahead of
        // us says that the clock was set back, and nothing about the order.
        if at < in_force && in_force <= now {
            return Event::node(
                node,
                Kind::OrderSuperseded,
                "an order that came late is not followed: a newer one is in force",
            );
        }
        match order {
            Order::Up { force, jobs } => {
                let jobs = jobs.get(node).cloned().unwrap_or_default();
                record.is_for(jobs, job_mode);
                record.asked_by_slurm(at);
                if *force {
                    record.trouble = Default::default();
                    self.breaker.succeeded();
                }
                let for_jobs = match record.jobs.as_slice() {
                    [] => String::new(),
                    jobs => format!(" for job {}", list(jobs)),
                };
                Event::node(
                    node,
                    Kind::ResumeAsked,
                    format!(
                        "asked to come up{for_jobs}{}",
                        if *force { ", forced" } else { "" }
                    ),
                )
            }
            Order::Down => {
                record.desired = Desired::Down { since: at };
                Event::node(node, Kind::SuspendAsked, "asked to go down")
            }
            // Told above: it orders nothing of the node.
            Order::JobEnded { .. } => Event::node(node, Kind::JobEnded, "its job is over"),
            Order::ResumeFailed => {
                record.desired = Desired::Down { since: at };
                if record.vm.as_ref().is_some_and(VmRecord::is_starting) {
                    let why = "Slurm's ResumeTimeout ran out".to_owned();
                    record.fail(&why, now, &self.policy);
                    record.trouble.told = true;
                    self.breaker.failed(&why, now, &self.policy);
                }
                Event::node(
                    node,
                    Kind::ResumeFailed,
                    "Slurm gave up on it: not registered within ResumeTimeout",
                )
            }
        }
    }

    /// Takes that the guest of this VM did not answer when it was told whose job comes.
    pub(crate) fn guest_is_unheard(&mut self, tag: &VmTag) {
        let records = &self.records;
        let backs = |node: &NodeName, generation: Generation| {
            let vm = records.get(node).and_then(|record| record.vm.as_ref());
            vm.is_some_and(|vm| vm.generation == generation)
        };
        self.unheard.retain(|node, generation| backs(node, *generation));
        if backs(&tag.node, tag.generation) {
            self.unheard.insert(tag.node.clone(), tag.generation);
        }
    }

    /// Takes a whole observation of Slurm that began at `began`.
    pub fn see_slurm(&mut self, view: SlurmView, began: Time) -> Vec<Event> {
        let mut events = Vec::new();
        let now = self.now;
        let mut idle = BTreeMap::new();
        for (node, record) in &mut self.records {
            let Some(seen) = view.nodes.get(node) else {
                continue;
            };
            if seen.is_drained_by_others() {
                self.drained.insert(node.clone());
            } else if !seen.flags.drain {
                self.drained.remove(node);
            }
            if self.busy.contains(node) || record.acted > began {
                continue;
            }
            self.give_way.remove(node);
            if seen.is_idle() && record.vm.as_ref().is_some_and(VmRecord::is_up) {
                let since = self.idle.get(node).copied().unwrap_or(began);
                idle.insert(node.clone(), since);
            }
            events.extend(record.see_early(node, seen, began, now));
            match seen.down_of_ours() {
                Some(reason) => {
                    record.down = Some(reason.text.clone());
                    // What Slurm asked for before that is void: it asks anew when it has the node back.
                    if matches!(record.desired, Desired::Early { since } | Desired::Up { since } if since < began)
                    {
                        // A VM that comes up all the same may get a job: it is kept until it surely has none.
                        record.desired = match record.vm {
                            Some(_) => Desired::Unasked,
                            None => Desired::Down { since: began },
                        };
                    }
                }
                None if record.down.is_some() => {
                    record.down = None;
                    events.push(Event::node(node, Kind::NodeReturned, "back in service"));
                }
                None => {}
            }
            let Some(vm) = record.vm.as_mut() else { continue };
            if vm.life.was_ended_by_us() && seen.is_counted_on() {
                // It came up before its end took effect, and may run a job.
                vm.enter(Life::Running, now);
                vm.register(Registration::Registered, now);
                events.push(Event::vm(
                    node,
                    vm.generation,
                    Kind::NodeUp,
                    format!("{node} is up after all: its VM is kept"),
                ));
            }
            if vm.comes_up() && seen.is_up() {
                // No listing has shown it since.
                events.extend(vm.life.is_before_start().then(|| vm.started(node)));
                vm.register(Registration::Registered, now);
                events.push(Event::vm(
                    node,
                    vm.generation,
                    Kind::NodeUp,
                    format!(
                        "its slurmd has registered: {node} is up, {} after it was asked for",
                        now.since(vm.asked)
                    ),
                ));
                record.trouble = Default::default();
                self.breaker.succeeded();
            }
        }
        self.idle = idle;
        self.jobs_started.clear();
        self.slurm_began = began;
        self.see_jobs(&view, began);
        events.extend(self.newly_unknown(&view));
        self.see_powers(&view, began);
        events.extend(self.see_gate(&view.gate));
        self.slurm = Some(Arc::new(view));
        events.extend(self.order_by_state());
        events
    }

    /// What is new of the gate.
    fn see_gate(&self, now: &GateSeen) -> Option<Event> {
        let before = self
            .slurm
            .as_ref()
            .map_or(&GateSeen::Unasked, |slurm| &slurm.gate);
        let (kind, text) = match (before, now) {
            (before, GateSeen::Open(why)) if before != now => (
                Kind::NoGate,
                format!("jobs of job mode start without waiting for capacity: {why}"),
            ),
            (GateSeen::Open(_), GateSeen::Shut) => (
                Kind::GateShut,
                "jobs of job mode wait for capacity again".to_owned(),
            ),
            (_, GateSeen::Unasked | GateSeen::Shut | GateSeen::Open(_)) => return None,
        };
        Some(Event::new(Subject::Slurm, kind, text))
    }

    /// The creation of `node`'s VM ended well; the provider calls it `id`.
    pub fn created(&mut self, node: &NodeName, id: VmId) -> Option<Event> {
        let now = self.now;
        let record = self.records.get_mut(node)?;
        record.acted = now;
        let vm = record.vm.as_mut()?;
        let host = vm
            .host
            .as_ref()
            .map_or("a host of the provider's choice", HostName::as_str)
            .to_owned();
        vm.id = Some(id);
        // Whether it runs, a listing says.
        if vm.life.is_unconfirmed() {
            vm.enter(Life::Pending, now);
        }
        Some(Event::vm(
            node,
            vm.generation,
            Kind::VmMade,
            format!("the provider has it, for {host}"),
        ))
    }

    /// The creation failed for sure: nothing of it is at the provider, or what is there is dead.
    pub fn create_failed(&mut self, node: &NodeName, why: &str) -> Option<Event> {
        let now = self.now;
        let record = self.records.get_mut(node)?;
        record.acted = now;
        let vm = record.vm.as_mut()?;
        vm.enter(Life::Dead { why: why.to_owned() }, now);
        Some(Event::vm(
            node,
            vm.generation,
            Kind::VmFailed,
            format!("could not be made: {why}"),
        ))
    }

    /// The end of the VM with this tag and id was asked for and goes on.
    pub fn ending(&mut self, tag: &VmTag) {
        if let Some(record) = self.records.get_mut(&tag.node) {
            record.acted = self.now;
        }
    }

    /// The VM with this tag and id, if it is known, is gone from the provider for sure.
    pub fn destroyed(&mut self, tag: &VmTag, id: Option<&VmId>) -> Vec<Event> {
        let now = self.now;
        let node = &tag.node;
        if let Some(id) = id {
            self.unrecorded.remove(id);
            self.strays.remove(id);
            self.take_out(tag, id);
        }
        let Some(record) = self.records.get_mut(node) else {
            return Vec::new();
        };
        record.acted = now;
        match record.vm.clone().filter(|vm| vm.is(tag.generation, id)) {
            Some(vm) => record.gone(node, &vm, now, &self.policy, &mut self.breaker),
            None => vec![Event::vm(
                node,
                tag.generation,
                Kind::VmGone,
                "gone: it backed nothing",
            )],
        }
    }

    /// Takes a VM out of the last observation, which surely is gone since: where events are heard, the next whole one
    /// may be long in coming, and until then its node would wait for it and its host keep its capacity.
    fn take_out(&mut self, tag: &VmTag, id: &VmId) {
        let it = |vm: &VmView| vm.id == *id && vm.tag.as_ref() == Some(tag);
        let view = self.provider.as_mut().filter(|view| view.vms.iter().any(it));
        if let Some(view) = view {
            Arc::make_mut(view).vms.retain(|vm| !it(vm));
        }
    }

    /// Slurm has `node` DOWN with our `reason` now. The next word about the node is Slurm's.
    pub fn told_down(&mut self, node: &NodeName, reason: &str, jobs: &[JobId]) -> Vec<Event> {
        let now = self.now;
        let Some(record) = self.records.get_mut(node) else {
            return Vec::new();
        };
        record.acted = now;
        record.down = Some(reason.to_owned());
        record.trouble.told = true;
        record.jobs = jobs.to_vec();
        record
            .trouble
            .retry_at
            .get_or_insert(now + self.policy.retry_first);
        record.desired = Desired::Down { since: now };
        let mut events = vec![Event::node(node, Kind::NodeDown, format!("set DOWN: {reason}"))];
        events.extend(jobs.iter().map(|job| {
            Event::new(
                Subject::Job(*job),
                Kind::JobTold,
                format!("told that {node} is DOWN: {reason}"),
            )
        }));
        events
    }

    /// Slurm was asked to take `node` back.
    pub fn returned(&mut self, node: &NodeName) -> Option<Event> {
        let now = self.now;
        let record = self.records.get_mut(node)?;
        record.acted = now;
        record.down = None;
        Some(Event::node(node, Kind::NodeReturned, "given back to Slurm"))
    }

    /// Drops records that hold nothing of nodes that left the configuration.
    pub fn forget_removed(&mut self) -> BTreeSet<NodeName> {
        // Every configured node has a record: as many records as nodes is nothing to forget.
        if self.records.len() == self.specs.len() {
            return BTreeSet::new();
        }
        let gone: BTreeSet<NodeName> = self
            .records
            .iter()
            .filter(|(node, record)| {
                !self.specs.contains_key(*node) && record.vm.is_none() && record.down.is_none()
            })
            .map(|(node, _)| node.clone())
            .collect();
        self.records.retain(|node, _| !gone.contains(node));
        gone
    }
}

impl NodeRecord {
    fn adopt(&mut self, seen: &VmView, now: Time) {
        self.vm = Some(VmRecord::found(seen, generation(seen), now));
    }

    fn fail(&mut self, why: &str, now: Time, policy: &crate::policy::Policy) {
        self.trouble.failures = self.trouble.failures.saturating_add(1);
        self.trouble.retry_at = Some(now + policy.backoff(self.trouble.failures));
        why.clone_into(&mut self.trouble.last);
        self.trouble.told = false;
    }

    fn gone(
        &mut self,
        node: &NodeName,
        vm: &VmRecord,
        now: Time,
        policy: &crate::policy::Policy,
        breaker: &mut crate::world::Breaker,
    ) -> Vec<Event> {
        self.vm = None;
        let why = match vm.life.part() {
            Part::Ending(cause) => match cause {
                Cause::Dead { why } => why.clone(),
                Cause::BootTimeout => vm.late(),
                Cause::Ordered | Cause::Orphan => {
                    if matches!((cause, self.desired), (Cause::Orphan, Desired::Up { since }) if since <= vm.since)
                    {
                        self.desired = Desired::Down { since: vm.since }; // nobody waits for it
                    }
                    let text = format!("gone: {}", cause.text());
                    return vec![Event::vm(node, vm.generation, Kind::VmGone, text)];
                }
            },
            Part::Unconfirmed | Part::There | Part::Dead(_) => {
                return vec![Event::vm(node, vm.generation, Kind::VmGone, "gone")];
            }
        };
        let told = self.down.is_some();
        self.fail(&why, now, policy);
        self.trouble.told = told;
        self.trouble.avoid.extend(vm.host.clone());
        // What only this job asked for says nothing of other VMs.
        let own_fault = vm
            .spec
            .as_ref()
            .is_some_and(|spec| spec.options.template.is_some() || spec.options.image.is_some());
        if !own_fault {
            breaker.failed(&why, now, policy);
        }
        let pause = policy.backoff(self.trouble.failures);
        vec![Event::vm(
            node,
            vm.generation,
            Kind::VmGone,
            format!("removed after its failure: {why}; tried again in {pause} at the earliest"),
        )]
    }
}

fn generation(vm: &VmView) -> crate::ids::Generation {
    vm.tag.as_ref().map(|tag| tag.generation).unwrap_or_default()
}

fn list(jobs: &[JobId]) -> String {
    jobs.iter().map(JobId::to_string).collect::<Vec<_>>().join(", ")
}
