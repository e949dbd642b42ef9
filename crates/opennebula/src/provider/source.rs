//! What VMs are made from, as OpenNebula has it now: kept for a while.

use super::calls::Calls;
use crate::error::{Class, Error};
use crate::model::{Network, Template};
use crate::settings::{TemplateSource, VmSource};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiao_core::ids::NodesetName;
use thiao_core::options::VmOptions;

/// How long a template is used before it is read again: a person may have changed it.
const KEEP: Duration = Duration::from_secs(60);

/// What OpenNebula has of a nodeset's source.
#[derive(Debug, PartialEq)]
pub(super) struct Resolved {
    /// The registered template, when there is one.
    pub template: Option<Template>,
    /// The networks as configured, and as OpenNebula has them.
    pub networks: Vec<(String, Network)>,
}

impl Resolved {
    /// The network for a VM in a cluster (none: any), by its name and id: the first that the cluster has and that has an
    /// address left, as it was last seen. None: the nodeset names no network, or the cluster has none of them.
    pub fn network_in(&self, cluster: Option<i64>) -> Option<(&str, u32)> {
        let there = |(_, network): &&(String, Network)| {
            cluster.is_none_or(|id| network.clusters.iter().any(|cluster| i64::from(*cluster) == id))
        };
        let mut there = self.networks.iter().filter(there);
        let first = there.clone().next();
        let (name, network) = there
            .find(|(_, network)| network.used < network.addresses)
            .or(first)?;
        Some((name, network.id))
    }
}

#[derive(Debug, Default)]
pub(super) struct Sources {
    kept: Mutex<BTreeMap<Key, (Instant, Arc<Resolved>)>>,
}

/// Jobs may ask for other templates than their nodeset's.
type Key = (NodesetName, TemplateSource);

impl Sources {
    /// What there is for this nodeset's VMs with these options. While one call asks, the others wait for its answer.
    pub fn get(
        &self,
        calls: &impl Calls,
        nodeset: &NodesetName,
        source: &VmSource,
        options: &VmOptions,
    ) -> Result<Arc<Resolved>, Error> {
        let source = source.with(options);
        let key = (nodeset.clone(), source.template.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (since, _)| since.elapsed() < KEEP);
        if let Some((_, resolved)) = kept.get(&key) {
            return Ok(resolved.clone());
        }
        let whose = match &options.template {
            Some(name) => format!("template {name} of --vm-template"),
            None => format!("nodeset {nodeset}"),
        };
        let template = match &source.template {
            TemplateSource::Registered(name) => Some(registered(calls, &whose, name)?),
            TemplateSource::File(_) | TemplateSource::PerNode(_) => None,
        };
        let networks = match source.networks.as_slice() {
            [] => Vec::new(),
            names => {
                let all = calls.networks()?;
                let of = |name: &String| Ok((name.clone(), network(&all, nodeset, name)?));
                names.iter().map(of).collect::<Result<_, Error>>()?
            }
        };
        let resolved = Arc::new(Resolved { template, networks });
        kept.insert(key, (Instant::now(), resolved.clone()));
        Ok(resolved)
    }

    /// What was kept does not hold any more.
    pub fn forget(&self, nodeset: &NodesetName, source: &VmSource, options: &VmOptions) {
        let key = (nodeset.clone(), source.with(options).template.clone());
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }
}

/// The template of that name or id; `whose` says who wants it.
fn registered(calls: &impl Calls, whose: &str, name: &str) -> Result<Template, Error> {
    let missing = |what: &str| {
        Error::new(
            Class::NoSuchObject,
            format!(
                "{whose}: {what}. See `onetemplate list` as the user of the credentials; USE rights on it are needed"
            ),
        )
    };
    if let Ok(id) = name.parse() {
        return calls.template(id).map_err(|error| match error.class {
            Class::NoSuchObject => missing(&format!("OpenNebula has no template with the id {id}")),
            _ => error,
        });
    }
    let mut found: Vec<Template> = calls.templates()?;
    found.retain(|template| template.name == name);
    if found.len() > 1 {
        let user = calls.user()?.name;
        let own = |template: &Template| template.owner == user;
        if found.iter().filter(|template| own(template)).count() == 1 {
            found.retain(own);
        }
    }
    match found.pop() {
        Some(template) if found.is_empty() => Ok(template),
        Some(_) => Err(Error::new(
            Class::BadTemplate,
            format!(
                "{whose}: several users have a template named {name:?}: give its id (`onetemplate list`)"
            ),
        )),
        None => Err(missing(&format!("OpenNebula shows no template named {name:?}"))),
    }
}

fn network(networks: &[Network], nodeset: &NodesetName, name: &str) -> Result<Network, Error> {
    let id: Option<u32> = name.parse().ok();
    let mut found = networks
        .iter()
        .filter(|network| Some(network.id) == id || (id.is_none() && network.name == name));
    match (found.next(), found.next()) {
        (Some(network), None) => Ok(network.clone()),
        (Some(_), Some(_)) => Err(Error::new(
            Class::BadTemplate,
            format!("nodeset {nodeset}: several networks are named {name:?}: give its id (`onevnet list`)"),
        )),
        (None, _) => Err(Error::new(
            Class::NoSuchObject,
            format!(
                "nodeset {nodeset}: OpenNebula shows no network {name:?}. See `onevnet list` as the user of the credentials; USE rights on it are needed"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_gets_a_network_of_its_hosts_cluster_that_has_addresses() {
        let network = |id: u32, clusters: &[u32], used: u64| {
            let network = Network {
                id,
                name: format!("n{id}"),
                addresses: 10,
                used,
                clusters: clusters.to_vec(),
            };
            (network.name.clone(), network)
        };
        let resolved = |networks| Resolved {
            template: None,
            networks,
        };
        let several = resolved(vec![
            network(0, &[0], 10),
            network(1, &[0, 100], 3),
            network(2, &[100], 0),
        ]);
        assert_eq!(several.network_in(Some(0)), Some(("n1", 1)));
        assert_eq!(several.network_in(Some(100)), Some(("n1", 1)));
        assert_eq!(several.network_in(None), Some(("n1", 1)));
        assert_eq!(several.network_in(Some(7)), None);
        // Where none has any, oned says so of the first.
        let full = resolved(vec![network(0, &[0], 10), network(1, &[0], 12)]);
        assert_eq!(full.network_in(Some(0)), Some(("n0", 0)));
        assert_eq!(resolved(Vec::new()).network_in(Some(0)), None);
    }
}
