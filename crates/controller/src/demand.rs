//! Does what is demanded of the owner: takes orders, and lets those wait who wait for something.

mod by_hand;
mod job_mode;

pub use job_mode::{NOT_READ, record_of};

use crate::api::Demand;
use crate::owner::Owner;
use crate::provider::Provider;
use std::collections::BTreeMap;
use thiao_core::orders::Order;

impl<P: Provider> Owner<P> {
    /// Does one. An asker that has left is no error.
    pub(super) fn demand(&mut self, demand: Demand) {
        match demand {
            Demand::Resume { nodes, force, reply } => {
                let order = Order::Up {
                    force,
                    jobs: BTreeMap::new(),
                };
                let message = "their VMs are made now; follow with `thiao nodes --watch`";
                drop(reply.send(self.accept(&nodes, &order, message)));
            }
            Demand::Suspend { nodes, force, reply } => {
                let free = match force {
                    true => self.without_new_jobs(&nodes),
                    false => self.without_jobs(&nodes),
                };
                let accepted =
                    free.and_then(|()| self.accept(&nodes, &Order::Down, "their VMs are ended now"));
                drop(reply.send(accepted));
            }
            Demand::JobReady { job, work_dir, reply } => self.wait_for_job(job, work_dir, reply),
            Demand::JobSeen { reply, .. } => self.see_jobs(reply),
            Demand::Give { job, options, reply } => self.give(job, options, reply),
            Demand::Clean { job, reply } => drop(reply.send(self.clean(job))),
        }
    }
}
