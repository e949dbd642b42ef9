//! A VM's network cards.
//!
//! With `NETWORK_MODE = auto` OpenNebula's scheduler chooses a card's network. Our placement passes the
//! scheduler by, and oned then starts the VM without a network (seen on 7.4.0): so the network that the
//! nodeset names stands in for the choice, and without one nothing is made.

use super::new_vm::NewVm;
use crate::error::{Class, Error};
use crate::syntax::Template;

/// The attributes of a network card.
pub type Card = [(String, String)];

/// What the scheduler reads of a card, and nobody else.
const OF_THE_SCHEDULER: [&str; 3] = ["NETWORK_MODE", "SCHED_REQUIREMENTS", "SCHED_RANK"];

/// A card's attribute; an empty one is as none.
pub fn get<'a>(card: &'a Card, name: &str) -> Option<&'a str> {
    let found = card.iter().find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// All cards: also those that are PCI devices (`TYPE = NIC`).
pub fn cards(template: &Template) -> impl Iterator<Item = &Card> {
    let devices = template
        .vectors("PCI")
        .filter(|device| get(device, "TYPE") == Some("NIC"));
    template.vectors("NIC").chain(devices)
}

/// Whether the scheduler is to choose the card's network.
pub fn is_auto(card: &Card) -> bool {
    in_mode(card, "AUTO") && get(card, "NETWORK_ID").is_none()
}

/// Whether it is in no network, and shall not be.
pub fn is_dummy(card: &Card) -> bool {
    in_mode(card, "DUMMY")
}

fn in_mode(card: &Card, mode: &str) -> bool {
    get(card, "NETWORK_MODE").is_some_and(|word| word.eq_ignore_ascii_case(mode))
}

/// Why a VM by our placement would be without a network, and the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unchosen {
    pub why: &'static str,
    pub cure: &'static str,
}

/// Whether a card stays without a network where the scheduler is not asked; `network`: the nodeset has one.
#[must_use]
pub fn unchosen(template: &Template, network: bool) -> Option<Unchosen> {
    if template.vectors("PCI").any(is_auto) {
        return Some(Unchosen {
            why: "a PCI device has NETWORK_MODE = auto: OpenNebula's scheduler would choose its network, and with \
                  placement = \"thiao\" it is not asked",
            cure: "name the NETWORK of that device in the template, or set placement = \"opennebula\"",
        });
    }
    (!network && template.vectors("NIC").any(is_auto)).then_some(Unchosen {
        why: "a NIC has NETWORK_MODE = auto: OpenNebula's scheduler would choose its network, and with placement = \
              \"thiao\" it is not asked: the VM would have none",
        cure: "set network = \"NAME\" in the nodeset, or name the NETWORK in the template, or set placement = \
               \"opennebula\"",
    })
}

/// Puts the cards into `onto` that a VM of ours has, where they are others than `theirs`.
pub(super) fn put(onto: &mut Template, theirs: &Template, wanted: &NewVm<'_>) -> Result<(), Error> {
    // Whoever places the VM chooses the network.
    let by_us = wanted.host.is_some();
    if by_us && let Some(Unchosen { why, cure }) = unchosen(theirs, wanted.network.is_some()) {
        return Err(Error::new(Class::BadTemplate, format!("{why}: {cure}")));
    }
    let Some((_, id)) = wanted.network else {
        return Ok(());
    };
    let ours = ("NETWORK_ID".to_owned(), id.to_string());
    if !theirs.has("NIC") {
        onto.set_vector("NIC", vec![ours]);
    } else if by_us && theirs.vectors("NIC").any(is_auto) {
        let settled = theirs.vectors("NIC").map(|card| settle(card, &ours));
        super::devices::put_all(onto, "NIC", settled);
    }
    Ok(())
}

/// A card in the network that is chosen for it, if nothing else says one.
fn settle(card: &Card, ours: &(String, String)) -> Vec<(String, String)> {
    let mut card = card.to_vec();
    if is_auto(&card) {
        card.retain(|(key, _)| !OF_THE_SCHEDULER.contains(&key.as_str()) && key != &ours.0);
        card.insert(0, ours.clone());
    }
    card
}
