//! Checks of a live front-end against what is wanted of it: `thiao setup` and `thiao doctor` show them.
//!
//! [`look`] asks, [`judge`] says what that means; what cannot be told without doing harm is said so, or
//! tried with VMs that never run ([`try_vms`]).

mod attributes;
mod cards;
mod judge;
mod requirements;
mod rights;
mod room;
#[cfg(test)]
mod tests;
mod tries;

pub use judge::judge;
pub use requirements::meets;
pub use thiao_core::finding::{Finding, Remedy, Verdict};
pub use tries::{Tried, try_vms};

use crate::client::Client;
use crate::error::{Class, Error};
use crate::model::{Host, Network, Template, User, VmDetails};
use crate::settings::{Placement, Settings, TemplateSource, VmSource};
use crate::syntax;
use crate::template::{self, node_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, NodesetName, VmTag};
use thiao_core::view::{Shape, VmSpec};
use thiao_core::world::Mode;

/// Most VMs of ours that are asked for their tags in one call.
const TAGS_AT_ONCE: usize = 1_000;

/// Stands for the host that is chosen, in a file that names it.
const ANY_HOST: &str = "host-that-is-chosen";

/// What is wanted of the front-end.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose VMs these are.
    pub cluster: ClusterName,
    /// How oned is reached, for people.
    pub endpoint: String,
    /// Who chooses hosts.
    pub placement: Placement,
    /// The only hosts that take our VMs; empty: all.
    pub hosts: Vec<HostName>,
    /// The only OpenNebula cluster whose hosts take our VMs.
    pub host_cluster: Option<String>,
    /// Most VMs at once.
    pub max_vms: usize,
    /// Most VMs on one host.
    pub max_vms_per_host: usize,
    /// The nodesets.
    pub nodesets: Vec<WantedSet>,
}

/// What a nodeset wants.
#[derive(Debug, Clone)]
pub struct WantedSet {
    /// Its name.
    pub name: NodesetName,
    /// Its nodes.
    pub nodes: Vec<NodeName>,
    /// How big each VM is, as its jobs see it; in job mode at most.
    pub shape: Shape,
    /// And at least: in job mode that of a job which asks for one CPU and nothing else.
    pub smallest: Shape,
    /// The most GPUs of a VM.
    pub gpus: u32,
    /// For whom its VMs are made.
    pub mode: Mode,
    /// Memory of each VM beside that, in MiB.
    pub overhead_mb: u64,
    /// What its VMs are made from.
    pub source: VmSource,
    /// Registered templates that its jobs may name in place of that.
    pub named: Vec<String>,
}

/// How a nodeset's VMs are asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How big each is, as its jobs see it; in job mode at most.
    pub shape: Shape,
    /// And at least.
    pub smallest: Shape,
    /// The most GPUs of one.
    pub gpus: u32,
    /// For whom they are made.
    pub mode: Mode,
    /// Registered templates that its jobs may name in place of the nodeset's.
    pub named: Vec<String>,
}

impl WantedSet {
    /// All registered templates that its VMs may be of, each once.
    fn registered(&self) -> impl Iterator<Item = &str> {
        let own = match &self.source.template {
            TemplateSource::Registered(name) => Some(name.as_str()),
            TemplateSource::File(_) | TemplateSource::PerNode(_) => None,
        };
        let named = self.named.iter().map(String::as_str);
        own.into_iter()
            .chain(named.filter(move |name| Some(*name) != own))
    }

    /// Core share of each VM, in percent of a core.
    fn cpu_percent(&self) -> u64 {
        u64::from(self.shape.cpus) * u64::from(self.shape.share_percent)
    }

    /// Memory of each VM, in MiB.
    fn memory_mb(&self) -> u64 {
        self.shape.total_mb(self.overhead_mb)
    }
}

impl Wanted {
    /// What these settings want; `asked`: of each nodeset's VMs.
    #[must_use]
    pub fn new(
        settings: &Settings,
        asked: &BTreeMap<NodesetName, Asked>,
        max_vms: usize,
        max_vms_per_host: usize,
    ) -> Self {
        let set = |(name, source): (&NodesetName, &VmSource)| {
            let asked = asked.get(name)?;
            Some(WantedSet {
                shape: asked.shape,
                smallest: asked.smallest,
                gpus: asked.gpus,
                mode: asked.mode,
                named: asked.named.clone(),
                overhead_mb: settings.overhead_mb,
                name: name.clone(),
                nodes: settings
                    .nodes
                    .iter()
                    .filter(|(_, set)| *set == name)
                    .map(|(node, _)| node.clone())
                    .collect(),
                source: source.clone(),
            })
        };
        Self {
            cluster: settings.cluster.clone(),
            endpoint: settings.access.endpoint.clone(),
            placement: settings.placement,
            hosts: settings.hosts.clone(),
            host_cluster: settings.host_cluster.clone(),
            max_vms,
            max_vms_per_host,
            nodesets: settings.nodesets.iter().filter_map(set).collect(),
        }
    }

    /// Whether our VMs may go there.
    fn may_use(&self, host: &Host) -> bool {
        let named = self.hosts.is_empty() || self.hosts.iter().any(|name| name.as_str() == host.name);
        named
            && self
                .host_cluster
                .as_ref()
                .is_none_or(|cluster| *cluster == host.cluster)
    }
}

/// What the front-end and the files say.
#[derive(Debug, Clone)]
pub struct Seen {
    /// oned's version.
    pub version: Result<String, Error>,
    /// Who the credentials belong to.
    pub user: Result<User, Error>,
    /// The hosts that the user may see.
    pub hosts: Result<Vec<Host>, Error>,
    /// The templates that the user may see.
    pub templates: Result<Vec<Template>, Error>,
    /// The networks that the user may see.
    pub networks: Result<Vec<Network>, Error>,
    /// The user's own VMs that are not DONE, with their tags.
    pub vms: Result<Vec<VmDetails>, Error>,
    /// The template files that the settings name, filled for a node; or why that cannot be done.
    pub files: BTreeMap<PathBuf, Result<syntax::Template, Error>>,
    /// What became of tries, if any were made.
    pub tried: Vec<Tried>,
}

/// Asks the front-end for all that [`judge`] needs: seven calls, and one more per 1,000 own VMs.
/// Changes nothing.
#[must_use]
pub fn look(client: &Client, settings: &Settings, wanted: &Wanted) -> Seen {
    let version = client.version();
    let files = files(settings, wanted);
    // One timeout is enough to know that nobody is there.
    if let Err(error) = &version
        && error.class == Class::Network
    {
        return Seen {
            user: Err(error.clone()),
            hosts: Err(error.clone()),
            templates: Err(error.clone()),
            networks: Err(error.clone()),
            vms: Err(error.clone()),
            version,
            files,
            tried: Vec::new(),
        };
    }
    Seen {
        version,
        user: client.user(),
        hosts: client.hosts(),
        templates: client.templates(),
        networks: client.networks(),
        vms: vms(client),
        files,
        tried: Vec::new(),
    }
}

fn vms(client: &Client) -> Result<Vec<VmDetails>, Error> {
    let ids: Vec<u32> = client.vms()?.iter().map(|vm| vm.id).collect();
    let mut all = Vec::with_capacity(ids.len());
    for some in ids.chunks(TAGS_AT_ONCE) {
        all.extend(client.vms_of(some)?);
    }
    Ok(all)
}

fn files(settings: &Settings, wanted: &Wanted) -> BTreeMap<PathBuf, Result<syntax::Template, Error>> {
    let mut seen = BTreeMap::new();
    for set in &wanted.nodesets {
        match &set.source.template {
            TemplateSource::Registered(_) => {}
            TemplateSource::File(file) => {
                if let Some(node) = set.nodes.first() {
                    seen.insert(file.clone(), fill(settings, set, node, file));
                }
            }
            TemplateSource::PerNode(folder) => {
                for node in &set.nodes {
                    let file = node_file(folder, node);
                    let filled = fill(settings, set, node, &file);
                    seen.insert(file, filled);
                }
            }
        }
    }
    seen
}

/// The file as a VM of that node would be made from it; what only the creation can know is a stand-in.
fn fill(
    settings: &Settings,
    set: &WantedSet,
    node: &NodeName,
    file: &Path,
) -> Result<syntax::Template, Error> {
    let text = template::read_file(file)?;
    let network = set.source.network.as_deref().map(|name| (name, 0));
    sample(settings, set, node, &set.spec(set.shape), network, |vm| {
        template::from_text(&text, &file.display().to_string(), vm)
    })
}

/// Calls `then` with a VM as the provider would want it for that node; without the munge key.
fn sample<T>(
    settings: &Settings,
    set: &WantedSet,
    node: &NodeName,
    spec: &VmSpec,
    network: Option<(&str, u32)>,
    then: impl FnOnce(&template::Wanted<'_>) -> T,
) -> T {
    let tag = VmTag {
        cluster: settings.cluster.clone(),
        node: node.clone(),
        generation: Generation(1),
    };
    let host = HostName::new(ANY_HOST)
        .ok()
        .filter(|_| settings.placement == Placement::Thiao);
    then(&template::Wanted {
        tag: &tag,
        nodeset: &set.name,
        host: host.as_ref(),
        spec,
        gpu_pci: set.source.gpu_pci.as_deref(),
        overhead_mb: set.overhead_mb,
        network,
        ready: settings.ready,
        guest: &settings.guest,
        auth: None,
    })
}
