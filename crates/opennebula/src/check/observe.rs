//! Asks a front-end.

use super::functions;
use super::needs::{ANY_HOST, Needs, NodesetNeeds};
use super::seen::Seen;
use crate::client::Client;
use crate::error::{Class, Error};
use crate::model::VmDetails;
use crate::places::Places;
use crate::settings::{Placement, Settings, TemplateSource};
use crate::syntax;
use crate::template::{self, node_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiao_core::ids::{Generation, HostName, NodeName, VmTag};
use thiao_core::view::VmSpec;

/// Most VMs of ours that are asked for their tags in one call.
const TAGS_AT_ONCE: usize = 1_000;

/// Asks the front-end for all that [`super::judge()`] needs: nine or ten calls, and one more per 1,000 own VMs.
/// Changes nothing.
#[must_use]
pub fn observe(client: &Client, settings: &Settings, wanted: &Needs) -> Seen {
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
            wires: Err(error.clone()),
            places: Err(error.clone()),
            vms: Err(error.clone()),
            version,
            files,
            tried: Vec::new(),
            tried_group: None,
        };
    }
    let networks = client.networks();
    let places = networks.clone().and_then(|networks| {
        Ok(Places {
            networks,
            datastores: client.datastores()?,
            images: client.images()?,
        })
    });
    Seen {
        version,
        user: client.user(),
        hosts: client.hosts(functions::devices(wanted)),
        templates: client.templates(),
        networks,
        wires: match wanted.fence {
            true => client.wires(),
            false => Ok(Vec::new()),
        },
        places,
        vms: vms(client),
        files,
        tried: Vec::new(),
        tried_group: None,
    }
}

pub(super) fn vms(client: &Client) -> Result<Vec<VmDetails>, Error> {
    let ids: Vec<u32> = client.vms()?.iter().map(|vm| vm.id).collect();
    let mut all = Vec::with_capacity(ids.len());
    for some in ids.chunks(TAGS_AT_ONCE) {
        all.extend(client.vms_of(some)?);
    }
    Ok(all)
}

pub(super) fn files(
    settings: &Settings,
    wanted: &Needs,
) -> BTreeMap<PathBuf, Result<syntax::Template, Error>> {
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
    set: &NodesetNeeds,
    node: &NodeName,
    file: &Path,
) -> Result<syntax::Template, Error> {
    let text = template::read_file(file)?;
    let network = set.source.networks.first().map(|name| (name.as_str(), 0));
    sample(settings, set, node, &set.spec(set.shape), network, |vm| {
        template::from_text(&text, &file.display().to_string(), vm)
    })
}

/// Calls `then` with a VM as the provider would want it for that node; without the munge key and passwords.
pub(super) fn sample<T>(
    settings: &Settings,
    set: &NodesetNeeds,
    node: &NodeName,
    spec: &VmSpec,
    network: Option<(&str, u32)>,
    then: impl FnOnce(&template::NewVm<'_>) -> T,
) -> T {
    let tag = VmTag {
        cluster: settings.cluster.clone(),
        node: node.clone(),
        generation: Generation(1),
    };
    let host = HostName::new(ANY_HOST)
        .ok()
        .filter(|_| settings.placement == Placement::Thiao);
    then(&template::NewVm {
        tag: &tag,
        nodeset: &set.name,
        host: host.as_ref(),
        spec,
        gpu_pci: set.source.gpu_pci.as_deref(),
        inputs: &set.source.inputs,
        ldap_password: None,
        context: &set.source.context,
        overhead_mb: set.overhead_mb,
        network,
        ready: settings.ready,
        guest: &settings.guest,
        auth: None,
    })
}
