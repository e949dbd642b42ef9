//! Typed calls. Each takes its turn in the budget; creating and ending go before looking.

use crate::error::Error;
use crate::model::{Host, Network, Template, User, VmDetails, VmRow};
use crate::settings::Access;

/// A connection to one oned. Clones share the budget.
#[derive(Debug, Clone)]
pub struct Client {}

/// What `one.vm.action` can be told, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmAction {
    /// Let a held VM be scheduled.
    Release,
    /// End it by the guest's own shutdown.
    Terminate,
    /// End it now.
    TerminateHard,
}

/// What `one.vm.recover` can be told, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Remove the VM in whatever state (operation 3).
    Delete,
}

impl Client {
    /// Reads the credentials; nothing is called yet.
    pub fn new(access: &Access) -> Result<Self, Error> {
        let _ = access;
        todo!()
    }

    /// oned's version, e.g. `7.4.1` (`one.system.version`).
    pub fn version(&self) -> Result<String, Error> {
        todo!()
    }

    /// The user that the credentials belong to (`one.user.info`, -1).
    pub fn user(&self) -> Result<User, Error> {
        todo!()
    }

    /// All hosts that the user may see (`one.hostpool.info`).
    pub fn hosts(&self) -> Result<Vec<Host>, Error> {
        todo!()
    }

    /// The user's own VMs that are not DONE, in one call (`one.vmpool.info`, -3, state -1).
    pub fn vms(&self) -> Result<Vec<VmRow>, Error> {
        todo!()
    }

    /// Those VMs with their tags, DONE ones too, in one call (`one.vmpool.infoset`, extended).
    /// Ids that do not exist, or that the user may not see, are missing in the answer.
    pub fn vms_of(&self, ids: &[u32]) -> Result<Vec<VmDetails>, Error> {
        let _ = ids;
        todo!()
    }

    /// All templates that the user may see (`one.templatepool.info`, -2).
    pub fn templates(&self) -> Result<Vec<Template>, Error> {
        todo!()
    }

    /// One template (`one.template.info`).
    pub fn template(&self, id: u32) -> Result<Template, Error> {
        let _ = id;
        todo!()
    }

    /// All networks that the user may see (`one.vnpool.info`, -2).
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        todo!()
    }

    /// Makes a VM of a registered template, with more attributes (`one.template.instantiate`).
    pub fn instantiate(&self, template: u32, name: &str, hold: bool, extra: &str) -> Result<u32, Error> {
        let _ = (template, name, hold, extra);
        todo!()
    }

    /// Makes a VM of a whole template (`one.vm.allocate`).
    pub fn allocate(&self, template: &str, hold: bool) -> Result<u32, Error> {
        let _ = (template, hold);
        todo!()
    }

    /// Starts a held or pending VM on a host; capacity is enforced (`one.vm.deploy`).
    pub fn deploy(&self, vm: u32, host: u32) -> Result<(), Error> {
        let _ = (vm, host);
        todo!()
    }

    /// Tells a VM to do something (`one.vm.action`).
    pub fn action(&self, vm: u32, action: VmAction) -> Result<(), Error> {
        let _ = (vm, action);
        todo!()
    }

    /// Recovers a VM (`one.vm.recover`).
    pub fn recover(&self, vm: u32, how: Recovery) -> Result<(), Error> {
        let _ = (vm, how);
        todo!()
    }
}
