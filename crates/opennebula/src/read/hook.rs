//! What the hook manager publishes.

use super::{Read, required, vm};
use crate::model::VmDetails;
use crate::wire::Malformed;
use crate::wire::xml::Doc;

/// The VM in a `HOOK_MESSAGE` about a VM's state.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn hook_vm(xml: &str) -> Read<VmDetails> {
    let mut found = None;
    Doc::new(xml).root("HOOK_MESSAGE", |doc, name| {
        match name {
            "VM" if found.is_none() => found = Some(vm(doc, true)?),
            "VM" => return Err(Malformed::other("a second VM")),
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    required(found, "a message without VM")
}

/// The parameter of that number, from 1 on, in a `HOOK_MESSAGE` about a call, if it is a number. oned writes parameters
/// as they came: with a `&` in a later one the whole is no XML (`HookAPI.cc` of 7.4).
#[must_use]
pub fn hook_parameter(xml: &str, number: u32) -> Option<u32> {
    let (_, rest) = xml.split_once(&format!("<POSITION>{number}</POSITION>"))?;
    let (head, value) = rest.split_once("<VALUE>")?;
    let (value, _) = value.split_once("</VALUE>")?;
    let same = !head.contains("<POSITION>");
    value.trim().parse().ok().filter(|_| same)
}
