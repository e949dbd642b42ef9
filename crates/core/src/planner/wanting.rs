//! Nodes that want a VM, in power-saving mode.

use super::way::Unplaced;
use super::{NO_HOST, Planner};
use crate::ids::{HostName, Millis, NodeName, Time};
use crate::plan::{Action, VmVerb};
use crate::view::VmSpec;
use crate::world::{NodeRecord, NodeSpec, Trouble};
use std::collections::BTreeSet;

impl<'a> Planner<'a> {
    /// A node that was asked to come up at `since`.
    pub(super) fn wants_vm(&mut self, node: &'a NodeName, record: &'a NodeRecord, since: Time) {
        let Some(spec) = self.world.specs.get(node) else {
            return self.hold(node, "it is no longer in the configuration: no VM is made for it");
        };
        if record.down.is_some() {
            return self.maybe_return(node, record);
        }
        if let Some(why) = self.world.faults.get(node) {
            return self.give_up_for_now(node, why, "no VM can be made for it until that is mended");
        }
        let avoid = &record.trouble.avoid;
        let need = self.takes(&spec.shape);
        let elsewhere = self.ledger().choose(&need, &[&spec.nodeset], avoid);
        if self.waits_after_failure(node, &record.trouble, elsewhere.is_ok()) {
            return;
        }
        let patient = self.is_patient(record, since);
        if let Some(twin) = self.twin(node, record.generation.next()) {
            // Just ended, as the next observation will say, or a stray that is ended as such.
            let text = format!("its VM {node}.{twin} is still at the provider");
            if patient {
                return self.hold(node, text);
            }
            return self.give_up_for_now(node, &text, "another VM of this node has been there for too long");
        }
        if self.starts_left == 0 || self.total_left == 0 {
            return self.held_by_caps(node, record, since);
        }
        let choice = match elsewhere {
            Err(_) if !avoid.is_empty() => self.ledger().choose(&need, &[&spec.nodeset], &BTreeSet::new()),
            choice => choice,
        };
        match choice {
            Ok(host) => self.create(node, record, spec, host),
            Err(no_capacity) if no_capacity.fits_empty => self.unplaced.push(Unplaced {
                node,
                record,
                since,
                lacks: no_capacity.to_string(),
                why: NO_HOST,
            }),
            Err(no_capacity) => self.give_up_for_now(node, &no_capacity.to_string(), NO_HOST),
        }
    }

    /// Whether a node waits because its VMs could not be had: Slurm is told once no other host is left to try.
    fn waits_after_failure(&mut self, node: &NodeName, trouble: &Trouble, elsewhere: bool) -> bool {
        let now = self.world.now;
        let tried = trouble.failures >= self.world.policy.tries_before_down || !elsewhere;
        if trouble.failures > 0 && !trouble.told && tried {
            let text = match trouble.retry_at {
                Some(at) => format!(
                    "{} (failure {}); tried again in {}",
                    trouble.last,
                    trouble.failures,
                    at.since(now)
                ),
                None => trouble.last.clone(),
            };
            let why = "it could not be backed, and no other host is left to try";
            self.give_up_for_now(node, &text, why);
            return true;
        }
        let Some(at) = trouble.retry_at.filter(|at| *at > now) else {
            return false;
        };
        let text = format!(
            "pausing {} after failure {}: {}",
            at.since(now),
            trouble.failures,
            trouble.last
        );
        self.hold(node, text);
        true
    }

    /// Whether a node has not waited so long yet that Slurm is told.
    pub(super) fn is_patient(&self, record: &NodeRecord, since: Time) -> bool {
        self.is_patient_for(record, since, self.world.policy.capacity_patience)
    }

    /// The same if it waits for `patience`.
    pub(super) fn is_patient_for(&self, record: &NodeRecord, since: Time, patience: Millis) -> bool {
        let began = record.trouble.retry_at.map_or(since, |at| at.max(since));
        self.world.now.since(began) < patience
    }

    /// Makes a node's next VM on this host.
    fn create(&mut self, node: &NodeName, record: &NodeRecord, spec: &NodeSpec, host: HostName) {
        let takes = self.takes(&spec.shape);
        self.ledger().take(&host, &takes);
        self.starts_left -= 1;
        self.total_left -= 1;
        let tag = self.world.tag(node, record.generation.next());
        let why = match record.jobs.as_slice() {
            [] => "the node was asked to come up".to_owned(),
            [job] => format!("the node was asked to come up for job {job}"),
            [job, more @ ..] => format!(
                "the node was asked to come up for job {job} and {} more",
                more.len()
            ),
        };
        self.step(
            Action::Vm(
                tag,
                VmVerb::Create {
                    host,
                    spec: VmSpec::of_node(spec.shape),
                    again: false,
                },
            ),
            why,
        );
    }

    fn held_by_caps(&mut self, node: &'a NodeName, record: &'a NodeRecord, since: Time) {
        let (policy, patient) = (&self.world.policy, self.is_patient(record, since));
        if let Some(opened) = self.world.breaker.opened {
            let Self { world, .. } = *self;
            let text = format!(
                "{} creations failed in a row, last: {}; the next try is {} after the last failure",
                world.breaker.failures, world.breaker.last, policy.breaker_pause
            );
            let probing = world.now.since(opened) >= policy.breaker_pause;
            if patient || probing {
                return self.hold(node, text);
            }
            return self.give_up_for_now(node, &text, "the circuit breaker is open");
        }
        if self.total_left == 0 {
            return self.unplaced.push(Unplaced {
                node,
                record,
                since,
                lacks: format!("the cap of {} VMs is reached (limits.max_vms)", policy.max_vms),
                why: "the cap on VMs has been reached for too long",
            });
        }
        self.hold(
            node,
            format!(
                "{} VMs are starting, as many as may start at once (limits.max_starting)",
                policy.max_starting
            ),
        );
    }
}
