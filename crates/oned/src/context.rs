//! CONTEXT: variables filled in, network and OneGate added.

use crate::cards::{get, waits_for_network};
use crate::front_end::{FrontEnd, secret};
use crate::user::User;
use std::collections::BTreeMap;
use thiao_opennebula::syntax::{Template, Value};

/// What a card brings into the CONTEXT: name there, name in the card or its network, and
/// whether the network is asked too (`NETWORK_CONTEXT`, `NETWORK6_CONTEXT` in oned).
const NETWORK: [(&str, &str, bool); 23] = [
    ("IP", "IP", false),
    ("MAC", "MAC", false),
    ("MASK", "NETWORK_MASK", true),
    ("NETWORK", "NETWORK_ADDRESS", true),
    ("GATEWAY", "GATEWAY", true),
    ("DNS", "DNS", true),
    ("SEARCH_DOMAIN", "SEARCH_DOMAIN", true),
    ("MTU", "GUEST_MTU", true),
    ("METRIC", "METRIC", true),
    ("METHOD", "METHOD", true),
    ("VLAN_ID", "VLAN_ID", true),
    ("VROUTER_IP", "VROUTER_IP", false),
    ("VROUTER_MANAGEMENT", "VROUTER_MANAGEMENT", false),
    ("EXTERNAL", "EXTERNAL", false),
    ("ROUTES", "ROUTES", true),
    ("IP6", "IP6_GLOBAL", false),
    ("IP6_ULA", "IP6_ULA", false),
    ("IP6_GATEWAY", "GATEWAY6", true),
    ("IP6_METRIC", "IP6_METRIC", true),
    ("IP6_METHOD", "IP6_METHOD", true),
    ("IP6_PREFIX_LENGTH", "PREFIX_LENGTH", true),
    ("VROUTER_IP6", "VROUTER_IP6_GLOBAL", false),
    ("EXTERNAL", "EXTERNAL", false),
];

impl FrontEnd {
    /// Completes the CONTEXT of a VM that is being made. Ok: its OneGate secret, if it gets one.
    pub fn context(
        &self,
        known: &mut Template,
        user: &User,
        id: u32,
        name: &str,
    ) -> Result<Option<String>, String> {
        let Some(pairs) = known.vectors("CONTEXT").next().map(<[_]>::to_vec) else {
            return Ok(None);
        };
        let cards: Vec<Vec<(String, String)>> = known.vectors("NIC").map(<[_]>::to_vec).collect();
        let mut context: BTreeMap<String, String> = BTreeMap::new();
        for (key, text) in pairs {
            context.insert(key, self.expand(&text, known, user, id, name)?);
        }
        if is_yes(context.get("NETWORK")) {
            // One that waits for its network is told with it.
            for card in cards.iter().filter(|card| !waits_for_network(card)) {
                context.extend(self.context_of_card(card));
            }
        }
        let mut token = None;
        if is_yes(context.get("TOKEN")) {
            let endpoint = self
                .onegate_endpoint
                .clone()
                .filter(|endpoint| !endpoint.is_empty());
            let endpoint = endpoint.ok_or("TOKEN set, but onegate endpoint was not defined in oned.conf.")?;
            context.insert("ONEGATE_ENDPOINT".into(), endpoint);
            context.insert("VMID".into(), id.to_string());
            token = Some(secret());
        }
        let disks = known.vectors("DISK").count();
        context.insert("DISK_ID".into(), disks.to_string());
        context.insert("TARGET".into(), "hda".into());
        known.0.retain(|(key, _)| key != "CONTEXT");
        known
            .0
            .push(("CONTEXT".into(), Value::Vector(context.into_iter().collect())));
        if token.is_some() {
            crate::vm::replace(known, "CREATED_BY", user.id.to_string());
        }
        Ok(token)
    }

    /// What a card brings into the CONTEXT.
    pub fn context_of_card(&self, card: &[(String, String)]) -> Vec<(String, String)> {
        let number = get(card, "NIC_ID").unwrap_or("0");
        let network = get(card, "NETWORK_ID").and_then(|id| id.parse::<usize>().ok());
        let network = network.and_then(|id| self.networks.get(id));
        let told = NETWORK.into_iter().map(|(there, here, ask)| {
            let of_network = network
                .filter(|_| ask)
                .and_then(|network| network.setup.template.get(here));
            let value = get(card, here)
                .or(of_network.map(String::as_str))
                .unwrap_or_default();
            (format!("ETH{number}_{there}"), value.to_owned())
        });
        told.collect()
    }

    /// Fills in `$NAME`, `$NAME[ATTR]` and `$NAME[ATTR, KEY="value"]`, as oned's own lexer takes
    /// them (`vm_var_parser.l`). A `$` that no name follows makes the creation fail.
    fn expand(
        &self,
        text: &str,
        known: &Template,
        user: &User,
        id: u32,
        name: &str,
    ) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (plain, tail) = rest.split_at(at);
            let tail = tail.get(1..).unwrap_or_default();
            // An escaped one stands for itself, with its backslash.
            let escapes = plain.len() - plain.trim_end_matches('\\').len();
            if escapes % 2 == 1 {
                out.push_str(plain);
                out.push('$');
                rest = tail;
                continue;
            }
            out.push_str(plain);
            let end = tail
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(tail.len());
            let (variable, after) = tail.split_at(end);
            if variable.is_empty() {
                return Err("Error parsing: syntax error, unexpected EOA, expecting VARIABLE".into());
            }
            let Some(inner) = after.strip_prefix('[') else {
                out.push_str(&plain_variable(&variable.to_ascii_uppercase(), known, id, name));
                rest = after;
                continue;
            };
            let Some((inside, after)) = inner.split_once(']') else {
                return Err(
                    "Error parsing: syntax error, unexpected EOA, expecting COMMA or CBRACKET".into(),
                );
            };
            let (attribute, filter) = match inside.split_once(',') {
                Some((attribute, filter)) => (attribute.trim(), filter.split_once('=')),
                None => (inside.trim(), None),
            };
            let filter = filter.map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
            out.push_str(&self.vector_variable(variable, attribute, filter, known, user));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn vector_variable(
        &self,
        variable: &str,
        attribute: &str,
        filter: Option<(&str, &str)>,
        known: &Template,
        user: &User,
    ) -> String {
        let value = match variable {
            "USER" => user.setup.template.get(attribute).cloned(),
            "NETWORK" => {
                let network = known.vectors("NIC").find_map(|card| {
                    let get = |name: &str| {
                        card.iter()
                            .find(|(key, _)| key == name)
                            .map(|(_, value)| value.as_str())
                    };
                    let wanted = filter.is_none_or(|(key, value)| get(key) == Some(value));
                    get("NETWORK_ID").filter(|_| wanted)?.parse::<usize>().ok()
                });
                network.and_then(|id| self.networks.get(id)?.setup.template.get(attribute).cloned())
            }
            _ => {
                let found = known.vectors(variable).find(|pairs| {
                    filter.is_none_or(|(key, value)| {
                        pairs.iter().any(|(name, text)| name == key && text == value)
                    })
                });
                found
                    .and_then(|pairs| pairs.iter().find(|(key, _)| key == attribute))
                    .map(|(_, text)| text.clone())
            }
        };
        value.unwrap_or_default()
    }
}

fn plain_variable(variable: &str, known: &Template, id: u32, name: &str) -> String {
    match variable {
        "VMID" => id.to_string(),
        "NAME" => name.to_owned(),
        other => known.get(other).unwrap_or_default().to_owned(),
    }
}

fn is_yes(value: Option<&String>) -> bool {
    value.is_some_and(|text| text.eq_ignore_ascii_case("YES"))
}
