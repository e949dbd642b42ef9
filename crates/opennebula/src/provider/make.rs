//! Making a VM: held first, then released.

use super::calls::Calls;
use super::fold::vm_id;
use super::{Inner, Order, now};
use crate::client::VmAction;
use crate::error::{Class, Error};
use crate::settings::Placement;
use crate::state::{Kind, VmState};
use thiao_core::ids::{HostName, VmId, VmTag};
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
        let host_id = match self.settings.placement {
            Placement::Thiao => Some(self.host_id(host)?),
            Placement::OpenNebula => None,
        };
        let asked = now();
        let mut known = self.memory().by_tag(tag);
        if again && known.is_none() {
            // Only a listing that began now can say that it is not there.
            self.fresh()?;
            known = self.memory().by_tag(tag);
        }
        let (id, state) = match known {
            Some(id) => {
                let mut memory = self.memory();
                let state = memory.state(id, now().instant);
                memory.tell(id, asked.time, "taken up again");
                (id, state)
            }
            None => {
                let id = self.make(tag, host, spec)?;
                let made = now();
                let mut memory = self.memory();
                memory.made(tag, id, made);
                memory.tell(id, asked.time, "asked for");
                memory.tell(id, made.time, &format!("made, held, as VM {id}"));
                (id, Some(VmState::Hold))
            }
        };
        self.release(id, state, host, host_id)?;
        vm_id(id).ok_or_else(|| Error::new(Class::Unknown, format!("{id} is no VM id")))
    }

    /// Makes the VM, held; its id.
    fn make(&self, tag: &VmTag, host: &HostName, spec: &VmSpec) -> Result<u32, Error> {
        let (nodeset, source) = self.source_of(&tag.node)?;
        let name = crate::template::vm_name(tag);
        let mut fresh = false;
        loop {
            let resolved = self.sources.get(&self.calls, nodeset, source, &spec.options)?;
            let made = match self.order(tag, self.chosen(host), spec, &resolved)? {
                Order::Registered { template, extra } => self.calls.instantiate(template, &name, &extra),
                Order::Whole(template) => self.calls.allocate(&template),
            };
            match made {
                // The template as we know it is gone; its name may have another by now.
                Err(error) if error.class == Class::NoSuchObject && !fresh => {
                    self.sources.forget(nodeset, source, &spec.options);
                    fresh = true;
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
        host_id: Option<u32>,
    ) -> Result<(), Error> {
        can_be_released(id, state)?;
        let done = match (state.map(VmState::kind), host_id) {
            (None | Some(Kind::Held | Kind::Pending), Some(host_id)) => self.calls.deploy(id, host_id),
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

    fn host_id(&self, host: &HostName) -> Result<u32, Error> {
        let find = || {
            let memory = self.memory();
            let known = memory.hosts.iter().find(|known| known.name == host.as_str());
            known.map(|known| known.id)
        };
        if let Some(id) = find() {
            return Ok(id);
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
