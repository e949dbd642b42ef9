//! What a template names: the images and networks that its VMs use, so that somebody may be given just these.
//!
//! Discs and cards as in 7.4's `src/vm/VirtualMachineDisk.cc` and `src/vm/VirtualMachineNic.cc`; files of `OS` and
//! `CONTEXT` as in `src/parsers/vm_file_var_syntax.y`: oned asks for USE of each.

use super::cards::{Card, cards, get, is_auto};
use crate::model::Object;
use crate::syntax::Template;

/// How a template names an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Id(u32),
    /// A name among the objects of an owner; none: of whoever makes the VM.
    Name {
        name: String,
        owner: Option<String>,
    },
}

impl Named {
    fn of(pairs: &Card, id: &str, name: &str, owner: &str) -> Option<Self> {
        if let Some(id) = get(pairs, id).and_then(|id| id.trim().parse().ok()) {
            return Some(Self::Id(id));
        }
        Some(Self::Name {
            name: get(pairs, name)?.to_owned(),
            owner: get(pairs, owner).map(str::to_owned),
        })
    }

    /// The object that is meant by a user of that name. A name without an owner means one's own object, else
    /// the only one of that name, as Thiao itself looks for networks.
    #[must_use]
    pub fn find<'a>(&self, objects: &'a [Object], user: &str) -> Option<&'a Object> {
        let (name, owner) = match self {
            Self::Id(id) => return objects.iter().find(|object| object.id == *id),
            Self::Name { name, owner } => (name, owner.as_deref()),
        };
        let named = || objects.iter().filter(|object| object.name == *name);
        if let Some(found) = named().find(|object| object.owner == owner.unwrap_or(user)) {
            return Some(found);
        }
        let mut others = named().filter(|_| owner.is_none());
        match (others.next(), others.next()) {
            (Some(only), None) => Some(only),
            (Some(_) | None, _) => None,
        }
    }
}

/// The images of its discs, kernel, ramdisk and context.
#[must_use]
pub fn images(template: &Template) -> Vec<Named> {
    let of = |pairs: &Card| Named::of(pairs, "IMAGE_ID", "IMAGE", "IMAGE_UNAME");
    let mut all: Vec<Named> = template.vectors("DISK").filter_map(of).collect();
    let files = [("OS", "KERNEL_DS"), ("OS", "INITRD_DS"), ("CONTEXT", "FILES_DS")];
    for (vector, key) in files {
        for text in template.vectors(vector).filter_map(|pairs| get(pairs, key)) {
            all.extend(files_of(text).iter().filter_map(|pairs| of(pairs)));
        }
    }
    all
}

/// The networks of its cards, those that a scheduler chooses left out.
#[must_use]
pub fn networks(template: &Template) -> Vec<Named> {
    let defaults = template.vectors("NIC_DEFAULT");
    cards(template)
        .filter(|card| !is_auto(card))
        .chain(template.vectors("NIC_ALIAS"))
        .chain(defaults)
        .filter_map(|card| Named::of(card, "NETWORK_ID", "NETWORK", "NETWORK_UNAME"))
        .collect()
}

/// Whether its VMs get a card only in a network that the nodeset names.
#[must_use]
pub fn needs_network(template: &Template) -> bool {
    let mut cards = cards(template).peekable();
    cards.peek().is_none() || cards.any(is_auto)
}

/// The attributes in each `$FILE[A = b, C = d]` of a text.
fn files_of(text: &str) -> Vec<Vec<(String, String)>> {
    let inside = |rest: &str| {
        let end = rest.find(']')?;
        let pairs = rest
            .get(..end)?
            .split(',')
            .filter_map(|pair| pair.split_once('='));
        let plain = |text: &str| text.trim().trim_matches('"').to_owned();
        Some(pairs.map(|(key, value)| (plain(key), plain(value))).collect())
    };
    text.split("$FILE[").skip(1).filter_map(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: u32, name: &str, owner: &str) -> Object {
        Object {
            id,
            name: name.into(),
            owner: owner.into(),
            for_all: false,
            kind: None,
            state: None,
            vms: 0,
            datastore: None,
            clusters: Vec::new(),
            free_mb: 0,
            body: Template::default(),
        }
    }

    #[test]
    fn all_that_oned_asks_rights_for_is_named() {
        let template = Template::parse(
            "DISK=[IMAGE=\"os\",IMAGE_UNAME=\"a\"]\nDISK=[IMAGE_ID=7]\nDISK=[TYPE=swap,SIZE=9]\n\
             OS=[KERNEL_DS=\"$FILE[IMAGE=\\\"k\\\", IMAGE_UNAME=\\\"a\\\"]\"]\n\
             CONTEXT=[FILES_DS=\"$FILE[IMAGE_ID=3] $FILE[IMAGE=f]\"]\n\
             NIC=[NETWORK=\"n\"]\nNIC=[NETWORK_MODE=auto]\nNIC_ALIAS=[NETWORK_ID=2]\n",
        )
        .expect("a template");
        let name = |name: &str, owner: Option<&str>| Named::Name {
            name: name.into(),
            owner: owner.map(str::to_owned),
        };
        assert_eq!(
            images(&template),
            [
                name("os", Some("a")),
                Named::Id(7),
                name("k", Some("a")),
                Named::Id(3),
                name("f", None)
            ]
        );
        assert_eq!(networks(&template), [name("n", None), Named::Id(2)]);
        assert!(needs_network(&template));
        let plain = Template::parse("NIC=[NETWORK=\"n\"]").expect("a template");
        assert!(!needs_network(&plain) && needs_network(&Template::default()));
    }

    #[test]
    fn a_name_means_ones_own_or_the_only_one() {
        let all = [object(1, "x", "a"), object(2, "x", "b"), object(3, "y", "b")];
        let named = |name: &str, owner: Option<&str>, user: &str| {
            let named = Named::Name {
                name: name.into(),
                owner: owner.map(str::to_owned),
            };
            named.find(&all, user).map(|object| object.id)
        };
        assert_eq!(named("x", None, "b"), Some(2));
        assert_eq!(named("x", Some("a"), "b"), Some(1));
        assert_eq!(named("x", None, "c"), None, "which one?");
        assert_eq!(named("y", None, "c"), Some(3));
        assert_eq!(named("y", Some("c"), "b"), None);
        assert_eq!(Named::Id(3).find(&all, "").map(|object| object.id), Some(3));
    }
}
