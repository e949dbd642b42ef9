//! Orders that people give by hand.

use crate::api::ApiError;
use crate::owner::Owner;
use crate::provider::Provider;
use thiao_api::types::Accepted;
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::orders::Order;
use thiao_core::orders::{Newer, newer_than_order};
use thiao_core::view::{JobsOn, SlurmView};

impl<P: Provider> Owner<P> {
    /// Takes an order for these nodes.
    ///
    /// # Errors
    /// When one of them is none of ours, or the order cannot be kept.
    pub(super) fn accept(
        &mut self,
        nodes: &[NodeName],
        order: &Order,
        message: &str,
    ) -> Result<Accepted, ApiError> {
        let unknown: Vec<&NodeName> = nodes
            .iter()
            .filter(|node| !self.rounds.world().specs.contains_key(*node))
            .collect();
        if !unknown.is_empty() {
            let names = hostlist::fold(unknown);
            return Err(ApiError::NotFound(format!(
                "not nodes of cluster {}: {names}",
                self.rounds.world().cluster
            )));
        }
        self.order_now(nodes, order)?;
        Ok(Accepted {
            nodes: hostlist::fold(nodes),
            message: message.to_owned(),
        })
    }

    /// Whether Slurm surely has no job on any of these nodes: a person who ends a job's VM says so.
    pub(super) fn without_jobs(&self, nodes: &[NodeName]) -> Result<(), ApiError> {
        let Some(slurm) = &self.rounds.world().slurm else {
            return Err(ApiError::Unavailable(
                "Slurm cannot be read now, so it is not known which jobs are there; `--force` ends the VMs with their jobs"
                    .to_owned(),
            ));
        };
        let on = slurm.jobs_on();
        let taken = nodes
            .iter()
            .find_map(|node| Some((node, on.get(node).first()?.id)));
        match taken {
            Some((node, job)) => Err(ApiError::Conflict(format!(
                "job {job} is on {node}: `scancel {job}` ends it, and Slurm gives the node back; `--force` takes its VM away under it"
            ))),
            None => Ok(()),
        }
    }

    /// Whether an order that is given now would be older than no job: Slurm tells starts in whole seconds, and in
    /// doubt a job's VM stays.
    pub(super) fn without_new_jobs(&self, nodes: &[NodeName]) -> Result<(), ApiError> {
        let world = self.rounds.world();
        let on = world
            .slurm
            .as_deref()
            .map_or_else(JobsOn::default, SlurmView::jobs_on);
        let newer = |node: &NodeName| match newer_than_order(world, &on, node, world.now)? {
            Newer::Job(job) => Some((node.clone(), job)),
            Newer::PoweredUp | Newer::InUse => None,
        };
        match nodes.iter().find_map(newer) {
            Some((node, job)) => Err(ApiError::Conflict(format!(
                "job {job} has only just started on {node}: nothing was done; repeat this in two seconds, or `scancel {job}`"
            ))),
            None => Ok(()),
        }
    }
}
