//! Calls about security groups, and about VMs' cards in them. Their arguments are as in 7.4.0's `src/rm/xml-rpc`.

use super::{Client, int};
use crate::error::Error;
use crate::read;
use crate::secgroup::{SecGroup, Wired, Wires};
use crate::syntax::Template;
use crate::wire::Arg;

/// `one.secgroup.update` replaces all that there is.
const REPLACE: i32 = 0;

impl Client {
    /// The user's own security groups (`one.secgrouppool.info`, -3).
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn secgroups(&self) -> Result<Vec<SecGroup>, Error> {
        let args = [Arg::Int(-3), Arg::Int(-1), Arg::Int(-1)];
        let doing = "list OpenNebula's security groups";
        self.read("one.secgrouppool.info", &args, doing, read::secgroups)
    }

    /// One security group (`one.secgroup.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn secgroup(&self, id: u32) -> Result<SecGroup, Error> {
        let doing = format!("read security group {id}");
        let args = [int(id, &doing)?, Arg::Bool(false)];
        self.read("one.secgroup.info", &args, &doing, read::one_secgroup)
    }

    /// Makes a security group (`one.secgroup.allocate`); its id. A user has one of a name: a second one is refused.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn make_secgroup(&self, template: &Template) -> Result<u32, Error> {
        let doing = format!(
            "make the security group {}",
            template.get("NAME").unwrap_or_default()
        );
        let text = template.to_xml();
        self.create("one.secgroup.allocate", &[Arg::Text(&text)], &doing)
    }

    /// Writes a security group anew (`one.secgroup.update`). oned tells the hosts of the VMs that have it.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn update_secgroup(&self, id: u32, template: &Template) -> Result<(), Error> {
        let doing = format!("write the rules of security group {id}");
        let text = template.to_xml();
        let args = [int(id, &doing)?, Arg::Text(&text), Arg::Int(REPLACE)];
        self.act("one.secgroup.update", &args, &doing)
    }

    /// Tells hosts once more what they could not be told (`one.secgroup.commit`, recover).
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn commit_secgroup(&self, id: u32) -> Result<(), Error> {
        let doing = format!("tell hosts the rules of security group {id}");
        let args = [int(id, &doing)?, Arg::Bool(true)];
        self.act("one.secgroup.commit", &args, &doing)
    }

    /// Removes a security group (`one.secgroup.delete`). One that VMs have is refused.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn delete_secgroup(&self, id: u32) -> Result<(), Error> {
        let doing = format!("remove security group {id}");
        self.act("one.secgroup.delete", &[int(id, &doing)?], &doing)
    }

    /// Puts a VM's card into a group (`one.vm.attachsg`); since 6.4.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn attach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error> {
        let doing = format!("give card {card} of VM {vm} security group {group}");
        self.of_card("one.vm.attachsg", [vm, card, group], &doing)
    }

    /// Takes a VM's card out of a group (`one.vm.detachsg`); since 6.4.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn detach_secgroup(&self, vm: u32, card: u32, group: u32) -> Result<(), Error> {
        let doing = format!("take security group {group} from card {card} of VM {vm}");
        self.of_card("one.vm.detachsg", [vm, card, group], &doing)
    }

    fn of_card(&self, method: &'static str, [vm, card, group]: [u32; 3], doing: &str) -> Result<(), Error> {
        let args = [int(vm, doing)?, int(card, doing)?, int(group, doing)?];
        self.act(method, &args, doing)
    }

    /// Those VMs with their cards, in one call (`one.vmpool.infoset`, extended). Ids that do not exist are missing.
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn wired(&self, ids: &[u32]) -> Result<Vec<Wired>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let doing = format!("read the cards of {} of OpenNebula's VMs", ids.len());
        let args = [Arg::Text(&list), Arg::Bool(true)];
        self.read("one.vmpool.infoset", &args, &doing, read::wired)
    }

    /// All networks that the user may see, as far as security groups go (`one.vnpool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`crate::error::Class`].
    pub fn wires(&self) -> Result<Vec<Wires>, Error> {
        let args = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1)];
        self.read(
            "one.vnpool.info",
            &args,
            "list OpenNebula's networks",
            read::wires,
        )
    }
}
