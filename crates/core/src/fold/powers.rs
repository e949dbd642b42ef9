//! What Slurm's state says by itself is an order, too, so that a lost one costs time and
//! nothing else: a node that Slurm powers up wants a VM, one that it powers down wants none.

use crate::event::{Event, Kind};
use crate::ids::Time;
use crate::orders::Order;
use crate::view::{Power, SlurmNode, SlurmView};
use crate::world::{Desired, NodeRecord, World};
use std::collections::BTreeMap;

impl World {
    /// Takes what an observation of Slurm that began at `began` says of the nodes' power.
    pub(super) fn see_powers(&mut self, view: &SlurmView, began: Time) {
        let records = &self.records;
        self.powers.retain(|node, last| {
            let seen = view.nodes.get(node);
            // What is not shown or cannot be read says nothing new.
            let now = seen.and_then(SlurmNode::power).filter(|power| *power != last.0);
            if let Some(power) = now {
                *last = (power, began);
            }
            records.contains_key(node) && (seen.is_some() || !view.gone.contains(node))
        });
        let unknown = records.keys().filter(|node| !self.powers.contains_key(*node));
        let seen = unknown.filter_map(|node| Some((node.clone(), (view.nodes.get(node)?.power()?, began))));
        let new: Vec<_> = seen.collect();
        self.powers.extend(new);
    }

    /// Takes what Slurm has shown for a while and nobody has ordered for an order.
    pub(super) fn order_by_state(&mut self) -> Vec<Event> {
        let Some(slurm) = &self.slurm else {
            return Vec::new();
        };
        let mut orders = Vec::new();
        let jobs = std::cell::OnceCell::new();
        for (node, (power, at)) in &self.powers {
            let lately = self.now.since(*at) < self.policy.retry_first;
            let Some(record) = self.records.get(node).filter(|_| !lately) else {
                continue;
            };
            let fresh = record.acted <= self.slurm_began && !self.busy.contains(node);
            if !fresh || record.down.is_some() || !record.is_asked_before(*at) {
                continue;
            }
            let rises = slurm.nodes.get(node).is_some_and(|seen| seen.flags.powering_up);
            let on = jobs.get_or_init(|| slurm.jobs_on()).get(node);
            let jobs: Vec<_> = on.iter().map(|job| job.id).collect();
            let order = match power {
                // In job mode nobody else wants a VM there.
                Power::Up if rises && jobs.is_empty() && self.is_job_mode(node) => continue,
                Power::Up if record.wants_none() && (rises || record.has_vm()) => Order::Up {
                    force: false,
                    jobs: BTreeMap::from([(node.clone(), jobs)]),
                },
                Power::Falling if !record.wants_none() && record.has_vm() && jobs.is_empty() => Order::Down,
                Power::Up | Power::Falling | Power::Off => continue,
            };
            orders.push((node.clone(), order, *at));
        }
        let told = orders.into_iter().flat_map(|(node, order, at)| {
            let what = match order {
                Order::Up { .. } => "up",
                Order::Down | Order::ResumeFailed | Order::JobEnded { .. } => "down",
            };
            let text = format!("Slurm has powered it {what} without sending an order: taken as one");
            [
                Event::node(&node, Kind::StateOrdered, text),
                self.order(&node, &order, at),
            ]
        });
        told.collect()
    }
}

impl NodeRecord {
    /// Whether what was last ordered is older than `at`.
    fn is_asked_before(&self, at: Time) -> bool {
        match self.desired {
            Desired::Early { since } | Desired::Up { since } | Desired::Down { since } => since < at,
            Desired::Unasked => true,
        }
    }

    fn wants_none(&self) -> bool {
        match self.desired {
            Desired::Down { .. } | Desired::Unasked => true,
            Desired::Early { .. } | Desired::Up { .. } => false,
        }
    }

    /// Whether it has a VM that is not on its way out.
    fn has_vm(&self) -> bool {
        self.vm.as_ref().is_some_and(|vm| !vm.life.is_past())
    }
}
