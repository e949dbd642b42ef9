//! What OpenNebula's clusters have, asked for now and then: see [`crate::places`].

use super::Inner;
use super::calls::Calls;
use crate::model::Host;
use crate::places::{Needed, Places, Reach, reach};
use crate::settings::{Placement, VmSource};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use thiao_core::ids::NodesetName;
use thiao_core::options::VmOptions;

/// How long it is kept where there is something to choose: a person may change it.
const KEEP: Duration = Duration::from_secs(60);

/// And where there is not: one cluster, one network, one system datastore.
const KEEP_ALONE: Duration = Duration::from_secs(3600);

/// What was asked last.
#[derive(Debug, Clone)]
pub(super) struct Known {
    asked: Instant,
    /// Empty where it could not be read.
    pub places: Arc<Places>,
    /// Which nodesets do not reach which clusters.
    pub reach: Arc<Reach>,
    /// The name of our user, whose own images are meant first.
    pub user: String,
}

impl<C: Calls> Inner<C> {
    /// Asks again where it is time to. What cannot be read stays as it was: unknown is no reason to keep a VM from a host.
    pub(super) fn look_at_places(&self, hosts: &[Host], now: Instant) {
        let sources = &self.settings.nodesets;
        if self.settings.placement == Placement::OpenNebula {
            return;
        }
        let known = self.known_places();
        let mut clusters: Vec<i64> = hosts.iter().map(|host| host.cluster_id).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let choice = clusters.len() > 1 || sources.values().any(|source| source.networks.len() > 1);
        let fresh = |known: &Known| {
            let all = clusters.iter().all(|id| known.reach.contains_key(id));
            // What could not be read is asked for again soon.
            let unread = *known.places == Places::default();
            let keep = if choice || unread || known.places.has_several_systems() {
                KEEP
            } else {
                KEEP_ALONE
            };
            all && now.duration_since(known.asked) < keep
        };
        if known.as_ref().is_some_and(fresh) {
            return;
        }
        let places = match (self.calls.places(), &known) {
            (Ok(places), _) => Arc::new(places),
            (Err(_), Some(known)) => known.places.clone(),
            (Err(_), None) => Arc::default(),
        };
        // Where nothing is known nothing follows.
        let sources = sources.iter().filter(|_| *places != Places::default());
        let user = match places.images.is_empty() {
            true => String::new(),
            false => self.calls.user().map(|user| user.name).unwrap_or_default(),
        };
        let bodies: Vec<(&NodesetName, &VmSource, _)> = sources
            .map(|(nodeset, source)| {
                let resolved = self
                    .sources
                    .get(&self.calls, nodeset, source, &VmOptions::default());
                (nodeset, source, resolved.ok())
            })
            .collect();
        let needed = bodies.iter().filter_map(|(nodeset, source, resolved)| {
            let body = resolved
                .as_ref()?
                .template
                .as_ref()
                .map(|template| &template.body);
            let needed = Needed {
                networks: &source.networks,
                body,
                user: &user,
            };
            Some((*nodeset, needed))
        });
        let reach = Arc::new(reach(&places, hosts, needed));
        let known = Known {
            asked: now,
            places,
            reach,
            user,
        };
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Which nodesets do not reach which clusters, as far as that is known.
    pub(super) fn reach(&self) -> Arc<Reach> {
        self.known_places().map(|known| known.reach).unwrap_or_default()
    }

    /// What is known of the clusters, if anything.
    pub(super) fn known_places(&self) -> Option<Known> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
