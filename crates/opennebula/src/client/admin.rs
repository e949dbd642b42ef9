//! Calls that only an administrator makes, to give a cluster its place in OpenNebula. Their arguments are as in
//! 7.4.0's `src/rm/xml-rpc`; 5.12 takes the same.

use super::{Client, int};
use crate::acl::Rule;
use crate::auth::Credentials;
use crate::error::{Class, Error};
use crate::model::{Account, Circle, Object, VmDetails};
use crate::read;
use crate::secgroup::SecGroup;
use crate::wire::Arg;

/// `one.*.update` merges, and does not replace.
const APPEND: i32 = 1;
const REPLACE: i32 = 0;
/// All objects, whoever's, without a range of ids.
const EVERY: [Arg<'static>; 3] = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1)];

/// What has a template of its own that an administrator changes, or is removed by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    User,
    Group,
    Template,
    Image,
    SecGroup,
}

impl Element {
    /// OpenNebula's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Template => "template",
            Self::Image => "image",
            Self::SecGroup => "security group",
        }
    }

    fn update(self) -> &'static str {
        match self {
            Self::User => "one.user.update",
            Self::Group => "one.group.update",
            Self::Template => "one.template.update",
            Self::Image => "one.image.update",
            Self::SecGroup => "one.secgroup.update",
        }
    }

    fn delete(self) -> &'static str {
        match self {
            Self::User => "one.user.delete",
            Self::Group => "one.group.delete",
            Self::Template => "one.template.delete",
            Self::Image => "one.image.delete",
            Self::SecGroup => "one.secgroup.delete",
        }
    }
}

impl Client {
    /// All users (`one.userpool.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn accounts(&self) -> Result<Vec<Account>, Error> {
        self.read(
            "one.userpool.info",
            &[],
            "list OpenNebula's users",
            read::accounts,
        )
    }

    /// All groups (`one.grouppool.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn circles(&self) -> Result<Vec<Circle>, Error> {
        self.read(
            "one.grouppool.info",
            &[],
            "list OpenNebula's groups",
            read::circles,
        )
    }

    /// All ACL rules with their ids (`one.acl.info`); needs MANAGE of ACL.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn acls(&self) -> Result<Vec<(u32, Rule)>, Error> {
        self.read("one.acl.info", &[], "list OpenNebula's ACL rules", read::acls)
    }

    /// All templates with who may use them (`one.templatepool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn templates_whole(&self) -> Result<Vec<Object>, Error> {
        let doing = "list OpenNebula's templates";
        self.read("one.templatepool.info", &EVERY, doing, read::templates_whole)
    }

    /// All images (`one.imagepool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn images(&self) -> Result<Vec<Object>, Error> {
        self.read(
            "one.imagepool.info",
            &EVERY,
            "list OpenNebula's images",
            read::images,
        )
    }

    /// One image (`one.image.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn image(&self, id: u32) -> Result<Object, Error> {
        let doing = format!("read image {id}");
        self.read("one.image.info", &[int(id, &doing)?], &doing, read::one_image)
    }

    /// All networks with who may use them (`one.vnpool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn networks_whole(&self) -> Result<Vec<Object>, Error> {
        let doing = "list OpenNebula's networks";
        self.read("one.vnpool.info", &EVERY, doing, read::networks_whole)
    }

    /// All security groups (`one.secgrouppool.info`, -2).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn secgroups_of_all(&self) -> Result<Vec<SecGroup>, Error> {
        let doing = "list OpenNebula's security groups";
        self.read("one.secgrouppool.info", &EVERY, doing, read::secgroups)
    }

    /// All datastores (`one.datastorepool.info`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn datastores(&self) -> Result<Vec<Object>, Error> {
        let doing = "list OpenNebula's datastores";
        self.read("one.datastorepool.info", &[], doing, read::datastores)
    }

    /// Every VM that is not DONE, of all users, with tags (`one.vmpool.infoextended`, -2, state -1).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn vms_of_all(&self) -> Result<Vec<VmDetails>, Error> {
        let args = [Arg::Int(-2), Arg::Int(-1), Arg::Int(-1), Arg::Int(-1)];
        let doing = "list all of OpenNebula's VMs";
        self.read("one.vmpool.infoextended", &args, doing, read::vm_details)
    }

    /// The ids of a user's VMs that are not DONE (`one.vmpool.info`, the user's id).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn vms_of_user(&self, user: u32) -> Result<Vec<u32>, Error> {
        let doing = format!("list the VMs of user {user}");
        let args = [int(user, &doing)?, Arg::Int(-1), Arg::Int(-1), Arg::Int(-1)];
        let rows = self.read("one.vmpool.info", &args, &doing, read::vms)?;
        Ok(rows.iter().map(|row| row.id).collect())
    }

    /// Makes a group (`one.group.allocate`). Unlike `onegroup create` it gives its users no right to make objects;
    /// the default VDC gives it USE of networks and datastores, and MANAGE of hosts.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]; the name is taken.
    pub fn make_group(&self, name: &str) -> Result<u32, Error> {
        let doing = format!("make group {name}");
        self.create("one.group.allocate", &[Arg::Text(name)], &doing)
    }

    /// Makes the user of these credentials, in that group alone (`one.user.allocate`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]; the name is taken.
    pub fn make_user(&self, credentials: &Credentials, group: u32) -> Result<u32, Error> {
        let doing = format!("make user {}", credentials.user());
        let group = i32::try_from(group)
            .map_err(|_| Error::new(Class::NoSuchObject, format!("cannot {doing}: no group {group}")))?;
        let args = [
            Arg::Text(credentials.user()),
            Arg::Text(credentials.secret()),
            Arg::Text("core"),
            Arg::Ints(&[group]),
        ];
        self.create("one.user.allocate", &args, &doing)
    }

    /// Gives a user the secret of these credentials as his password (`one.user.passwd`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn set_password(&self, user: u32, credentials: &Credentials) -> Result<(), Error> {
        let doing = format!("set the password of user {user}");
        let args = [int(user, &doing)?, Arg::Text(credentials.secret())];
        self.act("one.user.passwd", &args, &doing)
    }

    /// Makes a rule in the front-end's zone (`one.acl.addrule`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]; the same rule is there already.
    pub fn make_rule(&self, rule: &Rule) -> Result<u32, Error> {
        let [user, resource, rights] = rule.to_hex();
        let args = [Arg::Text(&user), Arg::Text(&resource), Arg::Text(&rights)];
        self.create("one.acl.addrule", &args, &format!("make the rule {rule}"))
    }

    /// Registers a VM template, whose text names it (`one.template.allocate`).
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]; its owner has one of that name.
    pub fn make_template(&self, text: &str) -> Result<u32, Error> {
        self.create("one.template.allocate", &[Arg::Text(text)], "register a template")
    }

    /// Registers an image, whose text names it (`one.image.allocate`). It is copied after the answer.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`]; its owner has one of that name, or the datastore takes it not.
    pub fn make_image(&self, text: &str, datastore: u32) -> Result<u32, Error> {
        let doing = "register an image";
        let args = [Arg::Text(text), int(datastore, doing)?];
        self.create("one.image.allocate", &args, doing)
    }

    /// Adds attributes to an object's own template, or writes over those of the same name.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn add_attributes(&self, kind: Element, id: u32, text: &str) -> Result<(), Error> {
        self.update(kind, id, text, APPEND)
    }

    /// Writes an object's own template anew.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn rewrite(&self, kind: Element, id: u32, text: &str) -> Result<(), Error> {
        self.update(kind, id, text, REPLACE)
    }

    fn update(&self, kind: Element, id: u32, text: &str, how: i32) -> Result<(), Error> {
        let doing = format!("change {} {id}", kind.word());
        let args = [int(id, &doing)?, Arg::Text(text), Arg::Int(how)];
        self.act(kind.update(), &args, &doing)
    }

    /// Removes an object; with a user the rules that are for him, with a group those of its own.
    ///
    /// # Errors
    /// As every call's: by class, see [`Class`].
    pub fn remove(&self, kind: Element, id: u32) -> Result<(), Error> {
        let doing = format!("remove {} {id}", kind.word());
        self.act(kind.delete(), &[int(id, &doing)?], &doing)
    }
}
