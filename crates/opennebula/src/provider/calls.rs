//! What the provider asks of oned. A trait, so that bad days can be tried without one.

use crate::client::{Client, Recovery, VmAction};
use crate::error::Error;
use crate::model::{Devices, Host, Network, Template, User, VmDetails, VmRow};
use crate::places::Places;
use crate::secgroup::{SecGroup, Wired, Wires};
use crate::syntax;
use std::collections::BTreeMap;

/// [`Client`]'s calls, as far as the provider needs them.
pub(super) trait Calls: Send + Sync + 'static {
    fn version(&self) -> Result<String, Error>;
    fn user(&self) -> Result<User, Error>;
    fn hosts(&self, devices: Devices) -> Result<Vec<Host>, Error>;
    /// What is really used of them, by id; nothing where that is not known.
    fn loads(&self) -> Result<BTreeMap<u32, (u32, u64)>, Error> {
        Ok(BTreeMap::new())
    }
    fn vms(&self) -> Result<Vec<VmRow>, Error>;
    fn vms_of(&self, ids: &[u32]) -> Result<Vec<VmDetails>, Error>;
    fn vm(&self, id: u32) -> Result<VmDetails, Error>;
    fn templates(&self) -> Result<Vec<Template>, Error>;
    fn template(&self, id: u32) -> Result<Template, Error>;
    fn networks(&self) -> Result<Vec<Network>, Error>;
    /// What clusters have; nothing where that is not known.
    fn places(&self) -> Result<Places, Error> {
        Ok(Places::default())
    }
    fn instantiate(&self, template: &Template, name: &str, extra: &str) -> Result<u32, Error>;
    fn allocate(&self, template: &str) -> Result<u32, Error>;
    /// `store`: the system datastore; none: oned takes its own.
    fn deploy(&self, vm: u32, host: u32, store: Option<u32>) -> Result<(), Error>;
    fn action(&self, vm: u32, action: VmAction) -> Result<(), Error>;
    fn recover(&self, vm: u32, how: Recovery) -> Result<(), Error>;
    fn secgroups(&self) -> Result<Vec<SecGroup>, Error>;
    fn make_secgroup(&self, template: &syntax::Template) -> Result<u32, Error>;
    fn update_secgroup(&self, id: u32, template: &syntax::Template) -> Result<(), Error>;
    fn commit_secgroup(&self, id: u32) -> Result<(), Error>;
    fn delete_secgroup(&self, id: u32) -> Result<(), Error>;
    fn attach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error>;
    fn detach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error>;
    fn wired(&self, ids: &[u32]) -> Result<Vec<Wired>, Error>;
    fn wires(&self) -> Result<Vec<Wires>, Error>;
}

impl Calls for Client {
    fn version(&self) -> Result<String, Error> {
        Client::version(self)
    }
    fn user(&self) -> Result<User, Error> {
        Client::user(self)
    }
    fn hosts(&self, devices: Devices) -> Result<Vec<Host>, Error> {
        Client::hosts(self, devices)
    }
    fn loads(&self) -> Result<BTreeMap<u32, (u32, u64)>, Error> {
        Client::loads(self)
    }
    fn vms(&self) -> Result<Vec<VmRow>, Error> {
        Client::vms(self)
    }
    fn vms_of(&self, ids: &[u32]) -> Result<Vec<VmDetails>, Error> {
        Client::vms_of(self, ids)
    }
    fn vm(&self, id: u32) -> Result<VmDetails, Error> {
        Client::vm(self, id)
    }
    fn templates(&self) -> Result<Vec<Template>, Error> {
        Client::templates(self)
    }
    fn template(&self, id: u32) -> Result<Template, Error> {
        Client::template(self, id)
    }
    fn networks(&self) -> Result<Vec<Network>, Error> {
        Client::networks(self)
    }
    fn places(&self) -> Result<Places, Error> {
        Ok(Places {
            networks: Client::networks(self)?,
            datastores: Client::datastores(self)?,
            images: Client::images(self)?,
        })
    }
    // Always held: what is made by a call whose answer was lost has never run.
    fn instantiate(&self, template: &Template, name: &str, extra: &str) -> Result<u32, Error> {
        Client::instantiate(self, template, name, true, extra)
    }
    fn allocate(&self, template: &str) -> Result<u32, Error> {
        Client::allocate(self, template, true)
    }
    fn deploy(&self, vm: u32, host: u32, store: Option<u32>) -> Result<(), Error> {
        Client::deploy(self, vm, host, store)
    }
    fn action(&self, vm: u32, action: VmAction) -> Result<(), Error> {
        Client::action(self, vm, action)
    }
    fn recover(&self, vm: u32, how: Recovery) -> Result<(), Error> {
        Client::recover(self, vm, how)
    }
    fn secgroups(&self) -> Result<Vec<SecGroup>, Error> {
        Client::secgroups(self)
    }
    fn make_secgroup(&self, template: &syntax::Template) -> Result<u32, Error> {
        Client::make_secgroup(self, template)
    }
    fn update_secgroup(&self, id: u32, template: &syntax::Template) -> Result<(), Error> {
        Client::update_secgroup(self, id, template)
    }
    fn commit_secgroup(&self, id: u32) -> Result<(), Error> {
        Client::commit_secgroup(self, id)
    }
    fn delete_secgroup(&self, id: u32) -> Result<(), Error> {
        Client::delete_secgroup(self, id)
    }
    fn attach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error> {
        Client::attach_secgroup(self, vm, card, group)
    }
    fn detach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error> {
        Client::detach_secgroup(self, vm, card, group)
    }
    fn wired(&self, ids: &[u32]) -> Result<Vec<Wired>, Error> {
        Client::wired(self, ids)
    }
    fn wires(&self) -> Result<Vec<Wires>, Error> {
        Client::wires(self)
    }
}
