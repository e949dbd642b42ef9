//! The network cards that VMs get, and in which networks.

use super::needs::{Needs, NodesetNeeds};
use super::seen::{Seen, body_of};
use crate::settings::Placement;
use crate::syntax::Template;
use crate::template::cards::{self, Card, Unchosen, get, is_auto, is_dummy, unchosen};

/// Why a template's VMs would be without a network, and the cure; none: they have one.
pub(super) fn trouble(set: &NodesetNeeds, wanted: &Needs, body: &Template) -> Option<(String, String)> {
    let network = !set.source.networks.is_empty();
    if !network && cards::cards(body).next().is_none() {
        return Some((
            "it has no NIC, and no network is given: its VMs would have no network".to_owned(),
            "set network = \"NAME\" in the nodeset, or add a NIC to the template".to_owned(),
        ));
    }
    match wanted.placement {
        Placement::Thiao => {
            if let Some(Unchosen { why, cure }) = unchosen(body, network) {
                return Some((why.to_owned(), cure.to_owned()));
            }
        }
        Placement::OpenNebula => {}
    }
    // One of ours comes only where there is no NIC.
    (body.has("NIC") && cards::cards(body).all(is_dummy)).then(|| {
        (
            "NETWORK_MODE = dummy: its NICs are in no network, and its VMs would have no network".to_owned(),
            "name the NETWORK of a NIC in the template".to_owned(),
        )
    })
}

/// The networks that one VM of the nodeset has an address in, by name or id; a name may be there twice. Each time those
/// of which it is in one.
pub(super) fn networks(set: &NodesetNeeds, wanted: &Needs, seen: &Seen) -> Vec<Vec<String>> {
    let ours = Some(set.source.networks.clone()).filter(|names| !names.is_empty());
    let body = body_of(set, seen);
    let Some(body) = body.filter(|body| body.has("NIC") || ours.is_none()) else {
        return ours.into_iter().collect();
    };
    let default = body.vectors("NIC_DEFAULT").next().unwrap_or_default();
    let by_us = wanted.placement == Placement::Thiao;
    let named = |card: &Card| {
        get(card, "NETWORK_ID")
            .or_else(|| get(card, "NETWORK"))
            .map(|name| vec![name.to_owned()])
    };
    let of_card = |card: &Card| match is_auto(card) {
        // The scheduler chooses, or we do.
        true => ours.clone().filter(|_| by_us),
        false => named(card).or_else(|| named(default).filter(|_| !is_dummy(card))),
    };
    let aliases = body.vectors("NIC_ALIAS").filter_map(named);
    cards::cards(body).filter_map(of_card).chain(aliases).collect()
}
