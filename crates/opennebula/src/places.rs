//! What OpenNebula's clusters have of what a VM needs: its image's datastores, networks, a system datastore.
//!
//! oned asks for that only where its own scheduler places a VM, by the `AUTOMATIC_REQUIREMENTS` that it writes
//! into it (`VirtualMachine::automatic_requirements`, `get_cluster_requirements`). A deploy looks at none of it, in
//! 6.10 as in 7.4 (`VirtualMachineAPI::deploy`): on a host of another cluster the VM's PROLOG fails, or it runs
//! without network. So whoever places has to know.

use crate::model::{Host, Network, Object};
use crate::syntax::Template;
use crate::template::uses;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiao_core::ids::NodesetName;

/// TYPE of a system datastore.
const SYSTEM: i32 = 1;

/// STATE of a datastore that takes VMs; the other one is DISABLED.
const READY: i32 = 0;

/// All that is there, as far as the user may see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    pub networks: Vec<Network>,
    pub datastores: Vec<Object>,
    pub images: Vec<Object>,
}

/// What VMs of a nodeset need of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Needed<'a> {
    /// The networks of which one is enough, as the nodeset names them.
    pub networks: &'a [String],
    /// The template; none: it is a file, whose text is filled for each VM.
    pub body: Option<&'a Template>,
    /// Whose names are meant where a template names no owner.
    pub user: &'a str,
}

/// Nodesets whose VMs cannot run in a cluster, and why, by the cluster's id.
pub type Reach = BTreeMap<i64, Arc<BTreeMap<NodesetName, String>>>;

/// Which clusters these nodesets do not reach.
#[must_use]
pub fn reach<'a>(
    places: &Places,
    hosts: &[Host],
    nodesets: impl Iterator<Item = (&'a NodesetName, Needed<'a>)> + Clone,
) -> Reach {
    let clusters: BTreeMap<i64, &str> = hosts
        .iter()
        .map(|host| (host.cluster_id, host.cluster.as_str()))
        .collect();
    let of = |(id, name): (i64, &str)| {
        let why = |(nodeset, needed): (&NodesetName, Needed<'_>)| {
            Some((nodeset.clone(), places.why_not(id, name, &needed)?))
        };
        (id, Arc::new(nodesets.clone().filter_map(why).collect()))
    };
    clusters.into_iter().map(of).collect()
}

impl Places {
    /// Why VMs that need this cannot run in a cluster. What the user does not see, or is not there at all, is no
    /// reason: others tell that, and a VM that needs it is not made.
    #[must_use]
    pub fn why_not(&self, id: i64, name: &str, needed: &Needed<'_>) -> Option<String> {
        let in_cluster = |clusters: &[u32]| clusters.iter().any(|cluster| i64::from(*cluster) == id);
        if self.systems().next().is_some() && !self.systems().any(|store| in_cluster(&store.clusters)) {
            return Some(format!(
                "cluster {name} has no system datastore that Thiao's user may use (`onecluster adddatastore`)"
            ));
        }
        for image in self.images_of(needed) {
            if let Some(store) = self.store_of(image).filter(|store| !in_cluster(&store.clusters)) {
                return Some(format!(
                    "cluster {name} does not have datastore {}, where image {} is",
                    store.name, image.name
                ));
            }
        }
        let of_template = needed.body.map(uses::networks).unwrap_or_default();
        for named in of_template {
            let found = self.networks.iter().find(|network| match &named {
                uses::Named::Id(id) => network.id == *id,
                uses::Named::Name { name, .. } => network.name == *name,
            });
            if let Some(network) = found.filter(|network| !in_cluster(&network.clusters)) {
                return Some(format!(
                    "cluster {name} does not have the template's network {}",
                    network.name
                ));
            }
        }
        let own = needed
            .networks
            .iter()
            .filter_map(|name| find(&self.networks, name));
        let mut own = own.peekable();
        let wants = needed.body.is_none_or(uses::needs_network);
        (wants && own.peek().is_some() && !own.any(|network| in_cluster(&network.clusters))).then(|| {
            format!(
                "cluster {name} has none of the nodeset's networks ({})",
                needed.networks.join(", ")
            )
        })
    }

    /// Whether there is more than one system datastore.
    #[must_use]
    pub fn has_several_systems(&self) -> bool {
        self.systems().count() > 1
    }

    /// The system datastore of a cluster for a VM that needs this; none: oned is to take its own, which is that
    /// of the lowest id (`Cluster::get_default_system_ds`), whatever it has left.
    ///
    /// Where a cluster has several that are shared by its hosts, the one with the most free space. What others have
    /// free, each of their hosts knows.
    #[must_use]
    pub fn system_datastore(&self, cluster: i64, needed: &Needed<'_>) -> Option<u32> {
        let systems = self.systems().filter(|store| {
            store.state == Some(READY) && store.clusters.iter().any(|id| i64::from(*id) == cluster)
        });
        let images = self.images_of(needed);
        let stores: Vec<&Object> = images.filter_map(|image| self.store_of(image)).collect();
        // What cannot be seen cannot be compared.
        if needed
            .body
            .is_none_or(|body| uses::images(body).len() != stores.len())
        {
            return None;
        }
        let good: Vec<&Object> = systems
            .filter(|system| stores.iter().all(|store| suits(store, system)))
            .collect();
        let shared = |store: &&Object| {
            store
                .body
                .get("SHARED")
                .is_some_and(|word| word.eq_ignore_ascii_case("YES"))
        };
        if good.len() < 2 || !good.iter().all(shared) {
            return None;
        }
        // Of equals the first, as oned does.
        good.into_iter()
            .rev()
            .max_by_key(|store| store.free_mb)
            .map(|store| store.id)
    }

    fn systems(&self) -> impl Iterator<Item = &Object> {
        self.datastores.iter().filter(|store| store.kind == Some(SYSTEM))
    }

    /// The datastore where an image is.
    fn store_of(&self, image: &Object) -> Option<&Object> {
        let mut stores = self.datastores.iter();
        stores.find(|store| Some(store.id) == image.datastore)
    }

    /// The images that VMs of this use and the user sees.
    fn images_of<'a>(&'a self, needed: &'a Needed<'_>) -> impl Iterator<Item = &'a Object> {
        let named = needed.body.map(uses::images).unwrap_or_default();
        let user = needed.user;
        named
            .into_iter()
            .filter_map(move |named| named.find(&self.images, user))
    }
}

/// Whether VMs with an image of `store` can be in `system`: it may say which ones (`COMPATIBLE_SYS_DS`), and must know
/// how to copy there (`VirtualMachineDisks::check_tm_mad`, `Datastore::get_tm_mad_targets`). Kernels and
/// ramdisks are copied to any.
fn suits(store: &Object, system: &Object) -> bool {
    const FILES: i32 = 2;
    if store.kind == Some(FILES) {
        return true;
    }
    let compatible = store.body.get("COMPATIBLE_SYS_DS").unwrap_or_default();
    let mut compatible = compatible
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .peekable();
    if compatible.peek().is_some() && !compatible.any(|id| id.parse() == Ok(system.id)) {
        return false;
    }
    let by = |store: &Object| store.body.get("TM_MAD").unwrap_or_default().to_ascii_uppercase();
    let mode = by(system);
    mode == by(store) || store.body.has(&format!("CLONE_TARGET_{mode}"))
}

/// The network of that name, or that id.
#[must_use]
pub fn find<'a>(networks: &'a [Network], name: &str) -> Option<&'a Network> {
    networks.iter().find(|network| network.name == name).or_else(|| {
        let id = name.parse::<u32>().ok()?;
        networks.iter().find(|network| network.id == id)
    })
}

#[cfg(test)]
mod tests;
