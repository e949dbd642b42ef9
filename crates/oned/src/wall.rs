//! Security groups of real machines: what a host lets pass at a VM's card, by nftables on the bridge.
//!
//! As OpenNebula's driver has it (7.4.0, `security_groups_iptables.rb`): what a rule of a card's groups opens passes,
//! all else is dropped, where it leaves the VM and where it comes to it through the bridge; what the host itself begins
//! comes to it always. ARP passes, and nothing under another's address (FILTER_IP_SPOOFING, FILTER_MAC_SPOOFING).
//! Its conntrack needs modules that not every kernel has: here answers are TCP that begins nothing.

use crate::machines::{Nic, Pass};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use thiao_qemu::fence;
use thiao_qemu::net::tap_of;

const TABLE: &str = "one_groups";

/// Keeps machines to their groups.
#[derive(Debug, Default)]
pub struct Wall(Mutex<BTreeMap<u32, Nic>>);

impl Wall {
    /// Has these rules hold for the machine's card, which need not be there yet. Where nobody goes by groups nothing
    /// is done.
    pub fn hold(&self, id: u32, card: &Nic) -> Result<(), String> {
        let mut cards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match card.passes {
            Some(_) => cards.insert(id, card.clone()),
            None => cards.remove(&id),
        };
        if before.as_ref() == Some(card) || (before.is_none() && card.passes.is_none()) {
            return Ok(());
        }
        tell(&cards)
    }

    /// Forgets a machine whose card is gone.
    pub fn forget(&self, id: u32) -> Result<(), String> {
        let mut cards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match cards.remove(&id) {
            Some(_) => tell(&cards),
            None => Ok(()),
        }
    }
}

/// All of it at once, so that no packet finds a gap.
fn tell(cards: &BTreeMap<u32, Nic>) -> Result<(), String> {
    fence::tell(&whole(cards.values())).map_err(|e| e.to_string())
}

fn whole<'a>(cards: impl Iterator<Item = &'a Nic>) -> Value {
    let table = json!({"family": "bridge", "name": TABLE});
    let mut commands = vec![
        // Adding first: what is not there cannot be removed.
        json!({"add": {"table": table}}),
        json!({"delete": {"table": table}}),
        json!({"add": {"table": table}}),
    ];
    for (name, hook) in [("between", "forward"), ("host", "input")] {
        commands.push(
            json!({"add": {"chain": {"family": "bridge", "table": TABLE, "name": name, "type": "filter",
            "hook": hook, "prio": 0, "policy": "accept"}}}),
        );
    }
    let mut jumps = Vec::new();
    for card in cards {
        let tap = tap_of(card.ip);
        for (way, outbound) in [("out", true), ("in", false)] {
            let chain = format!("{tap}-{way}");
            commands.push(json!({"add": {"chain": {"family": "bridge", "table": TABLE, "name": chain}}}));
            commands.extend(
                of_card(card, outbound)
                    .into_iter()
                    .map(|expr| rule(&chain, &expr)),
            );
            let key = if outbound { "iifname" } else { "oifname" };
            let jump = vec![
                is(json!({"meta": {"key": key}}), json!(tap)),
                json!({"jump": {"target": chain}}),
            ];
            if outbound {
                jumps.push(rule("host", &jump));
            }
            jumps.push(rule("between", &jump));
        }
    }
    commands.extend(jumps);
    json!({"nftables": commands})
}

fn rule(chain: &str, expr: &[Value]) -> Value {
    json!({"add": {"rule": {"family": "bridge", "table": TABLE, "chain": chain, "expr": expr}}})
}

/// What passes returns to whoever else has a say; the rest is dropped.
fn of_card(card: &Nic, outbound: bool) -> Vec<Vec<Value>> {
    let field = |protocol: &str, name: &str| json!({"payload": {"protocol": protocol, "field": name}});
    let (ok, drop_it) = (json!({"return": null}), json!({"drop": null}));
    let mut rules = Vec::new();
    if outbound {
        let differs =
            |left: Value, right: Value| json!({"match": {"op": "!=", "left": left, "right": right}});
        rules.push(vec![
            differs(field("ether", "saddr"), json!(card.mac)),
            drop_it.clone(),
        ]);
        rules.push(vec![is(field("ether", "type"), json!("arp")), ok.clone()]);
        rules.push(vec![
            differs(field("ip", "saddr"), json!(card.ip)),
            drop_it.clone(),
        ]);
    } else {
        rules.push(vec![is(field("ether", "type"), json!("arp")), ok.clone()]);
    }
    let flags = json!({"&": [field("tcp", "flags"), ["syn", "ack"]]});
    rules.push(vec![
        json!({"match": {"op": "!=", "left": flags, "right": "syn"}}),
        ok.clone(),
    ]);
    let peer = field("ip", if outbound { "daddr" } else { "saddr" });
    for pass in card
        .passes
        .iter()
        .flatten()
        .filter(|pass| pass.outbound == outbound)
    {
        let Pass {
            protocol,
            peers,
            ports,
            ..
        } = pass;
        let mut expr: Vec<Value> = peers
            .iter()
            .map(|(first, last)| is(peer.clone(), range(*first, *last)))
            .collect();
        match (protocol, ports.is_empty()) {
            (None, _) => {}
            (Some(protocol), true) => expr.push(is(json!({"meta": {"key": "l4proto"}}), json!(protocol))),
            (Some(protocol), false) => {
                let all: Vec<Value> = ports
                    .iter()
                    .map(|(first, last)| range_of(json!(first), json!(last), first == last))
                    .collect();
                expr.push(is(field(protocol, "dport"), json!({"set": all})));
            }
        }
        expr.push(ok.clone());
        rules.push(expr);
    }
    rules.push(vec![drop_it]);
    rules
}

fn is(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn range(first: Ipv4Addr, last: Ipv4Addr) -> Value {
    range_of(json!(first), json!(last), first == last)
}

fn range_of(first: Value, last: Value, one: bool) -> Value {
    match one {
        true => first,
        false => json!({"range": [first, last]}),
    }
}
