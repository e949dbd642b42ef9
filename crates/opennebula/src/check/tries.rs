//! Tries: VMs as jobs would have them, made held, looked at, and removed at once.
//!
//! They never run, carry none of our tags (a controller takes no notice of them), and hold their addresses and
//! quota for a moment. They have no munge key. What is left of one, because an answer or the program was lost,
//! is found by its tag ([`is_left`]), and removed by the next try.

use super::needs::{Needs, NodesetNeeds};
use super::observe::{sample, vms};
use super::seen::{Seen, TAG, Tried, is_left, registered};
use crate::client::{Client, Recovery, VmAction};
use crate::error::{Class, Error};
use crate::places::find;
use crate::settings::{Settings, TemplateSource};
use crate::template::{self, JOB, TAG_CLUSTER, TAG_GENERATION, TAG_NODE, node_file};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use thiao_core::ids::NodeName;
use thiao_core::view::VmSpec;

/// How often a VM is asked to go, and how long after each other: one whose images are copied cannot at once.
const REMOVALS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// What a VM is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Registered(String),
    File(PathBuf),
}

/// A VM that is to be tried.
struct Attempt<'a> {
    set: &'a NodesetNeeds,
    node: &'a NodeName,
    source: Source,
    spec: VmSpec,
}

/// Makes a VM of every template that is wanted in every size that is certain, one after another, and removes
/// each at once; before them, what earlier tries left. `seen` does not have these any more then.
#[must_use]
pub fn try_vms(client: &Client, settings: &Settings, wanted: &Needs, seen: &mut Seen) -> Vec<Tried> {
    if let Ok(vms) = &mut seen.vms {
        vms.retain(|vm| !is_left(vm, wanted) || remove(client, vm.row.id).1.is_err());
    }
    let mut tried: Vec<Tried> = Vec::new();
    let mut lost = false;
    for attempt in attempts(wanted) {
        let result = attempt.run(client, settings, wanted, seen);
        let failed = result.made.as_ref().err().map(|error| error.class);
        let stays = result.removed.is_err();
        tried.push(result);
        // It may have been made all the same.
        lost |= matches!(failed, Some(Class::Network | Class::Unknown));
        // Nobody may be there any more; and no more than one VM is left.
        if failed == Some(Class::Network) || stays {
            break;
        }
    }
    if lost {
        remove_left(client, wanted);
    }
    tried
}

/// Makes a security group and removes it at once; what an earlier try left, too. None: nobody is to have one.
#[must_use]
pub fn try_group(client: &Client, wanted: &Needs) -> Option<Result<(), Error>> {
    if !wanted.fence {
        return None;
    }
    let tried = || {
        let mut body = crate::syntax::Template::default();
        body.set("NAME", format!("thiao-{}-try", wanted.cluster));
        body.set(TAG, wanted.cluster.as_str());
        for group in client.secgroups()? {
            if group.body.get(TAG) == Some(wanted.cluster.as_str()) {
                client.delete_secgroup(group.id)?;
            }
        }
        let id = client.make_secgroup(&body)?;
        client.delete_secgroup(id)
    };
    Some(tried())
}

fn remove_left(client: &Client, wanted: &Needs) {
    for vm in vms(client).unwrap_or_default() {
        if is_left(&vm, wanted) {
            let _ = remove(client, vm.row.id);
        }
    }
}

/// Removes it by `recover`, which asks for the right that deploying needs, else as its owner; both answers.
fn remove(client: &Client, vm: u32) -> (Result<(), Error>, Result<(), Error>) {
    let recovered = client.recover(vm, Recovery::Delete);
    let mut removed = recovered.clone();
    for n in 0..REMOVALS {
        let Err(error) = &removed else { break };
        match error.class {
            // An answer was lost: it is gone.
            Class::NoSuchObject => removed = Ok(()),
            Class::Authentication
            | Class::Authorization
            | Class::BadTemplate
            | Class::Capacity
            | Class::WrongState
            | Class::Busy
            | Class::Network
            | Class::Unknown => {
                if n > 0 {
                    std::thread::sleep(PAUSE);
                }
                removed = client.action(vm, VmAction::TerminateHard);
            }
        }
    }
    (recovered, removed)
}

/// All VMs that are worth a try: of every template, in the nodeset's smallest and largest size.
fn attempts(wanted: &Needs) -> Vec<Attempt<'_>> {
    let mut all = Vec::new();
    for set in &wanted.nodesets {
        let Some(first) = set.nodes.first() else { continue };
        let mut sources: Vec<(&NodeName, Source)> = set
            .registered()
            .map(|name| (first, Source::Registered(name.to_owned())))
            .collect();
        match &set.source.template {
            TemplateSource::Registered(_) => {}
            TemplateSource::File(file) => sources.push((first, Source::File(file.clone()))),
            TemplateSource::PerNode(folder) => {
                sources.extend(
                    set.nodes
                        .iter()
                        .map(|node| (node, Source::File(node_file(folder, node)))),
                );
            }
        }
        let mut sizes = vec![(set.smallest, 0), (set.shape, set.gpus)];
        sizes.dedup();
        for (node, source) in sources {
            for (shape, gpus) in &sizes {
                let spec = VmSpec {
                    gpus: *gpus,
                    ..set.spec(*shape)
                };
                all.push(Attempt {
                    set,
                    node,
                    source: source.clone(),
                    spec,
                });
            }
        }
    }
    all
}

impl Attempt<'_> {
    fn run(&self, client: &Client, settings: &Settings, wanted: &Needs, seen: &Seen) -> Tried {
        let made = self.make(client, settings, wanted, seen);
        let source = match &self.source {
            Source::Registered(name) => format!("template {name}"),
            Source::File(file) => format!("file {}", file.display()),
        };
        let (addresses, (recovered, removed)) = match &made {
            Ok(vm) => (addresses(client, *vm), remove(client, *vm)),
            Err(error) => (Err(error.clone()), (Err(error.clone()), Ok(()))),
        };
        Tried {
            source,
            shape: self.spec.shape,
            made,
            addresses,
            recovered,
            removed,
        }
    }

    /// Makes it, held, as the provider would; without our tags.
    fn make(&self, client: &Client, settings: &Settings, wanted: &Needs, seen: &Seen) -> Result<u32, Error> {
        let name = format!("{}-try", wanted.cluster);
        let missing = |what: String| Error::new(Class::NoSuchObject, what);
        let network = match self.set.source.networks.first() {
            None => None,
            Some(name) => {
                let known = seen.networks.as_deref().map_err(Clone::clone)?;
                let known =
                    find(known, name).ok_or_else(|| missing(format!("there is no network {name}")))?;
                Some((name.as_str(), known.id))
            }
        };
        sample(settings, self.set, self.node, &self.spec, network, |vm| {
            let untagged = |mut template: crate::syntax::Template| {
                for tag in [TAG_CLUSTER, TAG_NODE, TAG_GENERATION, JOB, "NAME"] {
                    template.remove(tag);
                }
                template.set(TAG, wanted.cluster.as_str());
                template
            };
            match &self.source {
                Source::Registered(template) => {
                    let known = seen.templates.as_deref().map_err(Clone::clone)?;
                    let known = registered(known, template).map_err(missing)?;
                    let extra = untagged(template::over_registered(&known.body, vm)?);
                    client.instantiate(known, &name, true, &extra.to_xml())
                }
                Source::File(file) => {
                    let text = template::read_file(file)?;
                    let mut whole = untagged(template::from_text(&text, &file.display().to_string(), vm)?);
                    whole.set("NAME", name.as_str());
                    client.allocate(&whole.to_xml(), true)
                }
            }
        })
    }
}

fn addresses(client: &Client, vm: u32) -> Result<Vec<IpAddr>, Error> {
    let seen = client.vms_of(&[vm])?;
    Ok(seen.into_iter().flat_map(|vm| vm.row.addresses).collect())
}
