//! What an administrator reads: all users, groups, ACL rules, and what he gives others to use.

use super::{Read, all, alone, body, ids, pool, required};
use crate::acl::Rule;
use crate::model::{Account, Circle, Object};
use crate::syntax::Template as Body;
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
    all(xml, "USER_POOL", "USER", |doc| {
        let (id, name, groups, mut template) = named(doc, "GROUPS", "a user without id")?;
        template.retain(|key, _| !key.contains("PASSWORD"));
        Ok(Account {
            id,
            name,
            groups,
            template,
        })
    })
}

/// `GROUP_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn circles(xml: &str) -> Read<Vec<Circle>> {
    all(xml, "GROUP_POOL", "GROUP", |doc| {
        let (id, name, users, template) = named(doc, "USERS", "a group without id")?;
        Ok(Circle {
            id,
            name,
            users,
            template,
        })
    })
}

/// What users and groups have in common: id, name, the ids of the others in `list`, and the template's plain
/// attributes.
type Named = (u32, String, Vec<u32>, BTreeMap<String, String>);

fn named(doc: &mut Doc<'_>, list: &str, without: &str) -> Read<Named> {
    let (mut id, mut name, mut others) = (None, String::new(), Vec::new());
    let mut template = BTreeMap::new();
    doc.children(|doc, element| {
        match element {
            "ID" => id = doc.number("id")?,
            "NAME" => name = doc.text()?.into_owned(),
            "TEMPLATE" => template = doc.singles()?,
            other if other == list => ids(doc, &mut others)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    Ok((required(id, without)?, name, others, template))
}

/// `VMTEMPLATE_POOL`, with who may use each.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn templates_whole(xml: &str) -> Read<Vec<Object>> {
    all(xml, "VMTEMPLATE_POOL", "VMTEMPLATE", object)
}

/// `VNET_POOL`, with who may use each.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn networks_whole(xml: &str) -> Read<Vec<Object>> {
    all(xml, "VNET_POOL", "VNET", object)
}

/// `IMAGE_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn images(xml: &str) -> Read<Vec<Object>> {
    all(xml, "IMAGE_POOL", "IMAGE", object)
}

/// `DATASTORE_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn datastores(xml: &str) -> Read<Vec<Object>> {
    all(xml, "DATASTORE_POOL", "DATASTORE", object)
}

/// `IMAGE`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn one_image(xml: &str) -> Read<Object> {
    alone(xml, "IMAGE", "no image", object)
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
        datastore: None,
        clusters: Vec::new(),
        free_mb: 0,
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
            "DATASTORE_ID" => object.datastore = doc.number("DATASTORE_ID")?,
            "CLUSTERS" => ids(doc, &mut object.clusters)?,
            "FREE_MB" => object.free_mb = doc.number("FREE_MB")?.unwrap_or_default(),
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
