//! What an administrator reads: all users, groups, ACL rules, and what he gives others to use.

use super::{Read, alone, body, ids, pool, required};
use crate::acl::Rule;
use crate::model::{Account, Circle, Object};
use crate::syntax::Template as Body;
use crate::wire::Malformed;
use crate::wire::xml::Doc;
use std::collections::BTreeMap;

/// `ACL_POOL`: rules with their ids. A rule that makes no sense is left out: nothing is done to it.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn acls(xml: &str) -> Read<Vec<(u32, Rule)>> {
    let mut rules = Vec::new();
    pool(xml, "ACL_POOL", "ACL", |doc| {
        let mut id = None;
        let [mut user, mut resource, mut rights] = [const { String::new() }; 3];
        doc.children(|doc, name| {
            match name {
                "ID" => id = doc.number("id")?,
                "USER" => user = doc.text()?.into_owned(),
                "RESOURCE" => resource = doc.text()?.into_owned(),
                "RIGHTS" => rights = doc.text()?.into_owned(),
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        let id = required(id, "a rule without id")?;
        rules.extend(Rule::of_hex(&user, &resource, &rights).map(|rule| (id, rule)));
        Ok(())
    })?;
    Ok(rules)
}

/// `USER_POOL`. Passwords and salts are left out.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn accounts(xml: &str) -> Read<Vec<Account>> {
    let mut users = Vec::new();
    pool(xml, "USER_POOL", "USER", |doc| {
        let (mut id, mut name, mut groups) = (None, String::new(), Vec::new());
        let mut template = BTreeMap::new();
        doc.children(|doc, element| {
            match element {
                "ID" => id = doc.number("id")?,
                "NAME" => name = doc.text()?.into_owned(),
                "GROUPS" => ids(doc, &mut groups)?,
                "TEMPLATE" => template = doc.singles()?,
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        template.retain(|key, _| !key.contains("PASSWORD"));
        users.push(Account {
            id: required(id, "a user without id")?,
            name,
            groups,
            template,
        });
        Ok(())
    })?;
    Ok(users)
}

/// `GROUP_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn circles(xml: &str) -> Read<Vec<Circle>> {
    let mut groups = Vec::new();
    pool(xml, "GROUP_POOL", "GROUP", |doc| {
        let (mut id, mut name, mut users) = (None, String::new(), Vec::new());
        let mut template = BTreeMap::new();
        doc.children(|doc, element| {
            match element {
                "ID" => id = doc.number("id")?,
                "NAME" => name = doc.text()?.into_owned(),
                "USERS" => ids(doc, &mut users)?,
                "TEMPLATE" => template = doc.singles()?,
                _ => doc.skip()?,
            }
            Ok(())
        })?;
        groups.push(Circle {
            id: required(id, "a group without id")?,
            name,
            users,
            template,
        });
        Ok(())
    })?;
    Ok(groups)
}

/// `VMTEMPLATE_POOL`, with who may use each.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn templates_whole(xml: &str) -> Read<Vec<Object>> {
    objects(xml, "VMTEMPLATE_POOL", "VMTEMPLATE")
}

/// `VNET_POOL`, with who may use each.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn networks_whole(xml: &str) -> Read<Vec<Object>> {
    objects(xml, "VNET_POOL", "VNET")
}

/// `IMAGE_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn images(xml: &str) -> Read<Vec<Object>> {
    objects(xml, "IMAGE_POOL", "IMAGE")
}

/// `DATASTORE_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn datastores(xml: &str) -> Read<Vec<Object>> {
    objects(xml, "DATASTORE_POOL", "DATASTORE")
}

/// `IMAGE`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn one_image(xml: &str) -> Read<Object> {
    let mut found = None;
    alone(xml, "IMAGE", |doc| {
        found = Some(object(doc)?);
        Ok(())
    })?;
    found.ok_or_else(|| Malformed::other("no image"))
}

fn objects(xml: &str, root: &str, item: &str) -> Read<Vec<Object>> {
    let mut objects = Vec::new();
    pool(xml, root, item, |doc| {
        objects.push(object(doc)?);
        Ok(())
    })?;
    Ok(objects)
}

fn object(doc: &mut Doc<'_>) -> Read<Object> {
    let mut id = None;
    let mut object = Object {
        id: 0,
        name: String::new(),
        owner: String::new(),
        for_all: false,
        kind: None,
        state: None,
        vms: 0,
        body: Body::default(),
    };
    doc.children(|doc, name| {
        match name {
            "ID" => id = doc.number("id")?,
            "NAME" => object.name = doc.text()?.into_owned(),
            "UNAME" => object.owner = doc.text()?.into_owned(),
            "TYPE" => object.kind = doc.number("type")?,
            "STATE" => object.state = doc.number("state")?,
            "RUNNING_VMS" => object.vms = doc.number("RUNNING_VMS")?.unwrap_or_default(),
            "TEMPLATE" => object.body = body(doc)?,
            "PERMISSIONS" => doc.children(|doc, name| {
                match name {
                    "OTHER_U" => object.for_all = doc.number::<i32>("OTHER_U")? == Some(1),
                    _ => doc.skip()?,
                }
                Ok(())
            })?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    object.id = required(id, "an object without id")?;
    Ok(object)
}
