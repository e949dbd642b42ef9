//! A VM's network cards.
//!
//! With `NETWORK_MODE = auto` OpenNebula's scheduler chooses a card's network. Our placement passes the
//! scheduler by, and oned then starts the VM without a network (seen on 7.4.0): so the network that the
//! nodeset names stands in for the choice, and without one nothing is made.

use super::Wanted;
use crate::error::{Class, Error};
use crate::syntax::Template;

/// A card's attributes.
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

/// Puts the cards into `onto` that a VM of ours has, where they are others than `theirs`.
pub(super) fn put(onto: &mut Template, theirs: &Template, wanted: &Wanted<'_>) -> Result<(), Error> {
    let ours = wanted
        .network
        .map(|(_, id)| ("NETWORK_ID".to_owned(), id.to_string()));
    // Whoever places the VM chooses the network.
    let chosen_by_us = wanted.host.is_some() && cards(theirs).any(is_auto);
    match ours {
        Some(ours) if !theirs.has("NIC") => onto.set_vector("NIC", vec![ours]),
        Some(ours) if chosen_by_us => {
            if theirs.vectors("PCI").any(is_auto) {
                return Err(unchosen(
                    "a PCI device",
                    "Name the NETWORK of that device in the template",
                ));
            }
            let settled = theirs.vectors("NIC").map(|card| settle(card, &ours));
            super::devices::put_all(onto, "NIC", settled);
        }
        None if chosen_by_us => {
            return Err(unchosen(
                "a NIC",
                "Set network = \"NAME\" in the nodeset, or name the NETWORK in the template",
            ));
        }
        Some(_) | None => {}
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

fn unchosen(what: &str, cure: &str) -> Error {
    Error::new(
        Class::BadTemplate,
        format!(
            "{what} has NETWORK_MODE = auto: OpenNebula's scheduler would choose its network, and with placement = \
             \"thiao\" it is not asked: the VM would have none. {cure}, or set placement = \"opennebula\""
        ),
    )
}
