//! Making a VM: held first, then released.

use super::calls::Calls;
use super::fold::vm_id;
use super::source::Resolved;
use super::{Inner, Order, now};
use crate::client::VmAction;
use crate::error::{Class, Error};
use crate::places::Needed;
use crate::secgroup::Whose;
use crate::settings::Placement;
use crate::state::{Kind, VmState};
use crate::template::uses::needs_network;
use thiao_core::ids::{HostName, NodeName, VmId, VmTag};
use thiao_core::options::VmOptions;
use thiao_core::view::VmSpec;

impl<C: Calls> Inner<C> {
    pub(super) fn create(
        &self,
        tag: &VmTag,
        host: &HostName,
        spec: &VmSpec,
        again: bool,
    ) -> Result<VmId, Error> {
        if tag.cluster != self.settings.cluster {
            return Err(Error::new(
                Class::BadTemplate,
                format!(
                    "{tag} belongs to another cluster: this is {}",
                    self.settings.cluster
                ),
            ));
        }
        if !self.memory().making.insert(tag.clone()) {
            return Err(Error::new(Class::Busy, format!("{tag} is being made already")));
        }
        let _making = Making { inner: self, tag };
        self.create_alone(tag, host, spec, again)
    }

    /// As the only call that makes this VM.
    fn create_alone(&self, tag: &VmTag, host: &HostName, spec: &VmSpec, again: bool) -> Result<VmId, Error> {
        // Before anything is made: a host that is not there needs no VM.
        let place: Option<Place> = match self.settings.placement {
            Placement::Thiao => Some(self.place(host)?),
            Placement::OpenNebula => None,
        };
        let asked = now();
        let mut known = self.memory().by_tag(tag);
        if again && known.is_none() {
            // Only a listing that began now can say that it is not there.
            self.fresh()?;
            known = self.memory().by_tag(tag);
        }
        let known = known.map(|id| {
            let mut memory = self.memory();
            let state = memory.state(id, now().instant);
            memory.tell(id, asked.time, "taken up again");
            (id, state)
        });
        // What is on its way was let go with its group.
        let fencing = match known.map(|(_, state)| state.map(VmState::kind)) {
            None | Some(None | Some(Kind::Held | Kind::Pending)) => self.fence_for(Whose::of(spec))?,
            Some(Some(_)) => None,
        };
        let (id, state) = match known {
            Some(known) => known,
            None => {
                let id = self.make(tag, host, place.map(|place| place.cluster), spec)?;
                let made = now();
                let mut memory = self.memory();
                memory.made(tag, id, made);
                memory.tell(id, asked.time, "asked for");
                memory.tell(id, made.time, &format!("made, held, as VM {id}"));
                (id, Some(VmState::Hold))
            }
        };
        let place = place.map(|place| (place.host, self.system_datastore(&tag.node, place.cluster, spec)));
        if let Some(fencing) = &fencing {
            let fenced = self.fence(fencing, id);
            let told = fenced
                .as_ref()
                .err()
                .map_or("put into its security group", |error| &error.text);
            self.memory().tell(id, now().time, told);
            fenced?;
        }
        self.release(id, state, host, place)?;
        vm_id(id).ok_or_else(|| Error::new(Class::Unknown, format!("{id} is no VM id")))
    }

    /// Makes the VM, held; its id.
    fn make(&self, tag: &VmTag, host: &HostName, cluster: Option<i64>, spec: &VmSpec) -> Result<u32, Error> {
        let (nodeset, source) = self.source_of(&tag.node)?;
        let name = crate::template::vm_name(tag);
        let mut fresh = false;
        loop {
            let resolved = self.sources.get(&self.calls, nodeset, source, &spec.options)?;
            let network = network_for(&resolved, host, cluster)?;
            let made = match self.order(tag, self.chosen(host), spec, (&resolved, network))? {
                Order::Registered { template, extra } => self.calls.instantiate(template, &name, &extra),
                Order::Whole(template) => self.calls.allocate(&template),
            };
            match made {
                // The template as we know it is gone; its name may have another by now.
                Err(error) if error.class == Class::NoSuchObject && !fresh => {
                    self.sources.forget(nodeset, source, &spec.options);
                    fresh = true;
                }
                Err(error) if error.class == Class::Capacity => {
                    // Another network may have addresses left: how many each has is asked for anew.
                    self.sources.forget(nodeset, source, &spec.options);
                    return Err(error);
                }
                made => return made.map_err(|error| with_options(error, &spec.options)),
            }
        }
    }

    /// Lets a VM go that was made. One that is on its way already is fine.
    fn release(
        &self,
        id: u32,
        state: Option<VmState>,
        host: &HostName,
        place: Option<(u32, Option<u32>)>,
    ) -> Result<(), Error> {
        can_be_released(id, state)?;
        let host_id = place.map(|(host_id, _)| host_id);
        let done = match (state.map(VmState::kind), place) {
            (None | Some(Kind::Held | Kind::Pending), Some((host_id, store))) => {
                self.calls.deploy(id, host_id, store)
            }
            (None | Some(Kind::Held), None) => self.calls.action(id, VmAction::Release),
            (Some(_), _) => return Ok(()),
        };
        let at = now();
        {
            let mut memory = self.memory();
            memory.did(id, at);
            match (&done, host_id) {
                (Ok(()), Some(_)) => memory.tell(id, at.time, &format!("deployed to {host}")),
                (Ok(()), None) => memory.tell(id, at.time, "released to OpenNebula's scheduler"),
                // It may be on its way already.
                (Err(error), _) if error.class == Class::WrongState => {}
                (Err(error), _) => memory.tell(id, at.time, &error.text),
            }
        }
        match done {
            Ok(()) => Ok(()),
            Err(error) => match error.class {
                // Its state, or its host: ask which.
                Class::WrongState | Class::NoSuchObject => self.why_not(id, host, host_id, error),
                Class::Authentication
                | Class::Authorization
                | Class::BadTemplate
                | Class::Capacity
                | Class::Busy
                | Class::Network
                | Class::Unknown => Err(error),
            },
        }
    }

    /// What a refused deploy or release means, by the VM's state after it.
    fn why_not(&self, id: u32, host: &HostName, host_id: Option<u32>, refused: Error) -> Result<(), Error> {
        let seen = self.calls.vms_of(&[id])?;
        let state = seen.iter().find(|vm| vm.row.id == id).map(|vm| vm.row.state);
        can_be_released(id, state)?;
        match (state.map(VmState::kind), host_id) {
            (None | Some(Kind::Done), _) => {
                self.memory().forget(id);
                Err(Error::new(
                    Class::Busy,
                    format!("VM {id} was ended before it could be started: {}", refused.text),
                ))
            }
            // It waits still: so it is the host that does not take it.
            (Some(Kind::Held), _) | (Some(Kind::Pending), Some(_)) => Err(Error::new(
                Class::Capacity,
                format!("host {host} does not take VM {id}: {}", refused.text),
            )),
            // It was released before.
            (Some(Kind::Pending), None) => Ok(()),
            (
                Some(
                    Kind::Starting
                    | Kind::Running
                    | Kind::Moving
                    | Kind::Restoring
                    | Kind::Saving
                    | Kind::Saved
                    | Kind::Off
                    | Kind::Ending
                    | Kind::Failed
                    | Kind::FailedUnsure
                    | Kind::Lost
                    | Kind::Unknown(_),
                ),
                _,
            ) => Ok(()),
        }
    }

    /// The system datastore for a VM there, if there is one to choose.
    fn system_datastore(&self, node: &NodeName, cluster: i64, spec: &VmSpec) -> Option<u32> {
        let known = self.known_places()?;
        let (nodeset, source) = self.source_of(node).ok()?;
        let resolved = self
            .sources
            .get(&self.calls, nodeset, source, &spec.options)
            .ok()?;
        known.places.system_datastore(
            cluster,
            &Needed {
                networks: &source.networks,
                // Another image, which a job asked for, may be elsewhere.
                body: resolved
                    .template
                    .as_ref()
                    .map(|template| &template.body)
                    .filter(|_| spec.options.image.is_none()),
                user: &known.user,
            },
        )
    }

    fn place(&self, host: &HostName) -> Result<Place, Error> {
        let find = || {
            let memory = self.memory();
            let known = memory.hosts.iter().find(|known| known.name == host.as_str());
            known.map(|known| Place {
                host: known.id,
                cluster: known.cluster_id,
            })
        };
        if let Some(place) = find() {
            return Ok(place);
        }
        // The first call after a start, or a new host.
        self.fresh()?;
        find().ok_or_else(|| {
            Error::new(
                Class::Capacity,
                format!("OpenNebula shows no host {host}: see `onehost list` as the user of the credentials"),
            )
        })
    }
}

/// Where a VM will be.
#[derive(Debug, Clone, Copy)]
struct Place {
    host: u32,
    /// The OpenNebula cluster of that host.
    cluster: i64,
}

/// The nodeset's network for a VM on that host.
fn network_for<'a>(
    resolved: &'a Resolved,
    host: &HostName,
    cluster: Option<i64>,
) -> Result<Option<(&'a str, u32)>, Error> {
    let found = resolved.network_in(cluster);
    let wants = resolved
        .template
        .as_ref()
        .is_none_or(|template| needs_network(&template.body));
    if found.is_none() && wants && !resolved.networks.is_empty() {
        let names: Vec<&str> = resolved.networks.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::new(
            Class::Capacity,
            format!(
                "the OpenNebula cluster of host {host} has none of the nodeset's networks ({}): `onecluster addvnet`",
                names.join(", ")
            ),
        ));
    }
    Ok(found)
}

/// Says so when it may be what the job asked for that oned does not take.
fn with_options(error: Error, options: &VmOptions) -> Error {
    match (&options.image, error.class) {
        (Some(image), Class::BadTemplate | Class::NoSuchObject | Class::Authorization) => Error {
            text: format!(
                "{}. Its job names the image {image} (--vm-image): see `oneimage list` as the user of the credentials",
                error.text
            ),
            ..error
        },
        (None, _)
        | (
            Some(_),
            Class::Authentication
            | Class::Capacity
            | Class::WrongState
            | Class::Busy
            | Class::Network
            | Class::Unknown,
        ) => error,
    }
}

/// A VM is held only when the copies of its images are there.
fn can_be_released(id: u32, state: Option<VmState>) -> Result<(), Error> {
    match state {
        Some(state @ (VmState::Init | VmState::Cloning)) => Err(Error::new(
            Class::Busy,
            format!("VM {id} is in {state}, where it cannot be released yet"),
        )),
        _ => Ok(()),
    }
}

/// A VM that this call alone makes; another may when this is dropped.
struct Making<'a, C: Calls> {
    inner: &'a Inner<C>,
    tag: &'a VmTag,
}

impl<C: Calls> Drop for Making<'_, C> {
    fn drop(&mut self) {
        self.inner.memory().making.remove(self.tag);
    }
}
