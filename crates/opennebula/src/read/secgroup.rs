//! Security groups, and networks and VMs as far as these go.

use super::{Read, all, alone, body, ids, required};
use crate::secgroup::ranges::Range;
use crate::secgroup::{Card, SecGroup, Wired, Wires};
use crate::state::VmState;
use crate::syntax::Template as Body;
use crate::wire::xml::Doc;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// `SECURITY_GROUP_POOL`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn secgroups(xml: &str) -> Read<Vec<SecGroup>> {
    all(xml, "SECURITY_GROUP_POOL", "SECURITY_GROUP", secgroup)
}

/// `SECURITY_GROUP`.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn one_secgroup(xml: &str) -> Read<SecGroup> {
    alone(xml, "SECURITY_GROUP", "no security group", secgroup)
}

/// `VNET_POOL`: what each network does with its VMs' cards.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn wires(xml: &str) -> Read<Vec<Wires>> {
    all(xml, "VNET_POOL", "VNET", network)
}

/// `VM_POOL`, extended: the cards of each VM.
///
/// # Errors
/// What is no such XML, not whole, or has a DTD or entities.
pub fn wired(xml: &str) -> Read<Vec<Wired>> {
    all(xml, "VM_POOL", "VM", vm)
}

fn secgroup(doc: &mut Doc<'_>) -> Read<SecGroup> {
    let (mut id, mut owner, mut name, mut template) = (None, None, String::new(), Body::default());
    let [mut updated, mut waiting, mut failed] = [const { Vec::new() }; 3];
    doc.children(|doc, element| {
        match element {
            "ID" => id = doc.number("id")?,
            "UID" => owner = doc.number("UID")?,
            "NAME" => name = doc.text()?.into_owned(),
            "UPDATED_VMS" => ids(doc, &mut updated)?,
            "OUTDATED_VMS" | "UPDATING_VMS" => ids(doc, &mut waiting)?,
            "ERROR_VMS" => ids(doc, &mut failed)?,
            "TEMPLATE" => template = body(doc)?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    Ok(SecGroup {
        id: required(id, "a security group without id")?,
        name,
        owner: required(owner, "a security group without UID")?,
        vms: updated.iter().chain(&waiting).chain(&failed).copied().collect(),
        waiting: waiting.into_iter().collect(),
        failed: failed.into_iter().collect(),
        body: template,
    })
}

fn network(doc: &mut Doc<'_>) -> Read<Wires> {
    let mut id = None;
    let mut network = Wires {
        id: 0,
        name: String::new(),
        driver: String::new(),
        groups: BTreeSet::new(),
        filters: (false, false),
        ranges: Vec::new(),
    };
    doc.children(|doc, element| {
        match element {
            "ID" => id = doc.number("id")?,
            "NAME" => network.name = doc.text()?.into_owned(),
            "VN_MAD" => network.driver = doc.text()?.into_owned(),
            "TEMPLATE" => {
                let template = doc.singles()?;
                let get = |key: &str| template.get(key).map(String::as_str).unwrap_or_default();
                let yes = |key: &str| get(key).eq_ignore_ascii_case("YES");
                network.groups.extend(numbers(get("SECURITY_GROUPS")));
                network.filters = (yes("FILTER_IP_SPOOFING"), yes("FILTER_MAC_SPOOFING"));
            }
            "AR_POOL" => doc.children(|doc, element| {
                if element != "AR" {
                    return doc.skip();
                }
                let (_, pairs) = doc.text_and_children()?;
                let get = |key: &str| {
                    let found = pairs.iter().find(|(name, _)| name == key);
                    found.map(|(_, text)| text.as_str()).unwrap_or_default()
                };
                network.groups.extend(numbers(get("SECURITY_GROUPS")));
                // One of IPv6 alone has none of these.
                if let (Ok(first), Ok(size)) = (get("IP").parse(), get("SIZE").parse()) {
                    network.ranges.extend(Range::of_size(first, size));
                }
                Ok(())
            })?,
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    network.id = required(id, "a network without id")?;
    Ok(network)
}

fn vm(doc: &mut Doc<'_>) -> Read<Wired> {
    let mut id = None;
    let mut wired = Wired {
        id: 0,
        over: false,
        cards: Vec::new(),
        name_servers: BTreeSet::new(),
        onegate: None,
    };
    doc.children(|doc, element| {
        match element {
            "ID" => id = doc.number("id")?,
            "STATE" => {
                let state: Option<i32> = doc.number("state")?;
                wired.over = state.is_some_and(|state| VmState::new(state, 0) == VmState::Done);
            }
            "TEMPLATE" => {
                let template = body(doc)?;
                wired.cards.extend(template.vectors("NIC").filter_map(card));
                let devices = template.vectors("PCI").filter(|device| is_card(device));
                wired.cards.extend(devices.filter_map(card));
                for (key, text) in template.vectors("CONTEXT").flatten() {
                    if key.starts_with("ETH") && key.ends_with("_DNS") {
                        let servers = text
                            .split([' ', ','])
                            .filter_map(|word| word.parse::<Ipv4Addr>().ok());
                        wired.name_servers.extend(servers);
                    } else if key == "ONEGATE_ENDPOINT" && !text.is_empty() {
                        wired.onegate = Some(text.clone());
                    }
                }
            }
            _ => doc.skip()?,
        }
        Ok(())
    })?;
    wired.id = required(id, "a VM without id")?;
    Ok(wired)
}

fn is_card(device: &[(String, String)]) -> bool {
    device.iter().any(|(key, text)| key == "TYPE" && text == "NIC")
}

fn card(pairs: &[(String, String)]) -> Option<Card> {
    let get = |key: &str| {
        let found = pairs.iter().find(|(name, _)| name == key);
        found.map(|(_, text)| text.as_str()).unwrap_or_default()
    };
    let network = get("NETWORK_ID").parse().ok();
    Some(Card {
        id: get("NIC_ID").parse().ok()?,
        network,
        unchosen: network.is_none() && get("NETWORK_MODE").eq_ignore_ascii_case("AUTO"),
        address: get("IP").parse().ok(),
        groups: numbers(get("SECURITY_GROUPS")).collect(),
    })
}

/// The ids in a list like `0,105`.
fn numbers(list: &str) -> impl Iterator<Item = u32> {
    list.split(',').filter_map(|word| word.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::recording;
    use crate::wire::{Answer, Value, answer};

    fn recorded(name: &str) -> String {
        match answer(&recording(name)) {
            Ok(Answer::Done(Value::Text(text))) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn what_a_real_oned_says_of_networks_and_cards_is_read() {
        let networks = wires(&recorded("127-vnpool-info")).unwrap();
        assert_eq!(networks[0].driver, "dummy");
        assert_eq!(networks[0].groups, BTreeSet::from([crate::secgroup::DEFAULT]));
        assert!(networks[0].ranges[0].has([10, 0, 0, 77].into()));
        let vms = wired(&recorded("118-vmpool-infoextended")).unwrap();
        let cards: Vec<&Card> = vms.iter().flat_map(|vm| &vm.cards).collect();
        assert!(
            cards
                .iter()
                .any(|card| card.network == Some(0) && card.address.is_some())
        );
        assert!(cards.iter().all(|card| card.groups == BTreeSet::from([0])));
    }

    /// As `SecurityGroup::to_xml` of 7.4.0 writes it.
    const GROUP: &str = "<SECURITY_GROUP><ID>105</ID><UID>5</UID><GID>100</GID><UNAME>thiao</UNAME>\
        <GNAME>thiao</GNAME><NAME>thiao-prod-job-42</NAME><PERMISSIONS><OWNER_U>1</OWNER_U></PERMISSIONS>\
        <UPDATED_VMS><ID>7</ID></UPDATED_VMS><OUTDATED_VMS></OUTDATED_VMS><UPDATING_VMS><ID>8</ID></UPDATING_VMS>\
        <ERROR_VMS><ID>9</ID></ERROR_VMS><TEMPLATE><THIAO_CLUSTER><![CDATA[prod]]></THIAO_CLUSTER>\
        <RULE><PROTOCOL><![CDATA[ALL]]></PROTOCOL><RULE_TYPE><![CDATA[INBOUND]]></RULE_TYPE></RULE>\
        </TEMPLATE></SECURITY_GROUP>";

    #[test]
    fn a_group_says_who_has_it_and_who_has_old_rules() {
        let pool = format!("<SECURITY_GROUP_POOL>{GROUP}</SECURITY_GROUP_POOL>");
        let all = secgroups(&pool).unwrap();
        assert_eq!(all, [one_secgroup(GROUP).unwrap()]);
        let group = &all[0];
        assert_eq!(
            (group.id, group.owner, group.name.as_str()),
            (105, 5, "thiao-prod-job-42")
        );
        assert_eq!(group.vms, BTreeSet::from([7, 8, 9]));
        assert_eq!(group.waiting, BTreeSet::from([8]));
        assert_eq!(group.failed, BTreeSet::from([9]));
        assert_eq!(group.body.vectors("RULE").count(), 1);
        for bad in ["", "<SECURITY_GROUP_POOL>", "<VM_POOL></VM_POOL>"] {
            assert!(secgroups(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_says_its_driver_groups_and_addresses() {
        let xml = "<VNET_POOL><VNET><ID>3</ID><NAME>hpc</NAME><VN_MAD><![CDATA[fw]]></VN_MAD><TEMPLATE>\
            <SECURITY_GROUPS><![CDATA[0,101]]></SECURITY_GROUPS>\
            <FILTER_IP_SPOOFING><![CDATA[yes]]></FILTER_IP_SPOOFING></TEMPLATE><AR_POOL>\
            <AR><AR_ID>0</AR_ID><IP>10.2.0.10</IP><SIZE>20</SIZE><SECURITY_GROUPS>102</SECURITY_GROUPS></AR>\
            <AR><AR_ID>1</AR_ID><IP6>fd00::1</IP6><SIZE>20</SIZE></AR></AR_POOL></VNET></VNET_POOL>";
        let network = &wires(xml).unwrap()[0];
        assert_eq!(network.driver, "fw");
        assert_eq!(network.groups, BTreeSet::from([0, 101, 102]));
        assert_eq!(network.filters, (true, false));
        assert_eq!(
            network.ranges,
            [Range::of_size([10, 2, 0, 10].into(), 20).unwrap()]
        );
    }

    #[test]
    fn a_vm_says_its_cards() {
        let xml = "<VM_POOL><VM><ID>7</ID><TEMPLATE><NIC><IP>10.2.0.10</IP><NETWORK_ID>3</NETWORK_ID>\
            <NIC_ID>0</NIC_ID><SECURITY_GROUPS><![CDATA[0]]></SECURITY_GROUPS></NIC>\
            <NIC><NIC_ID>1</NIC_ID><NETWORK_MODE>auto</NETWORK_MODE></NIC>\
            <PCI><TYPE>NIC</TYPE><NIC_ID>2</NIC_ID><IP>10.2.0.11</IP><NETWORK_ID>3</NETWORK_ID></PCI>\
            <PCI><VENDOR>10de</VENDOR></PCI>\
            <CONTEXT><ETH0_DNS>10.0.0.53 10.0.0.54</ETH0_DNS>\
            <ONEGATE_ENDPOINT>http://10.0.0.1:5030</ONEGATE_ENDPOINT></CONTEXT></TEMPLATE></VM></VM_POOL>";
        let vm = &wired(xml).unwrap()[0];
        assert_eq!(vm.id, 7);
        let of = |card: &Card| (card.id, card.network, card.address.map(|ip| ip.to_string()));
        let cards: Vec<_> = vm.cards.iter().map(of).collect();
        let ip = |text: &str| Some(text.to_owned());
        assert_eq!(
            cards,
            [
                (0, Some(3), ip("10.2.0.10")),
                (1, None, None),
                (2, Some(3), ip("10.2.0.11"))
            ]
        );
        assert_eq!(vm.cards[0].groups, BTreeSet::from([0]));
        assert!(vm.cards[1].unchosen && !vm.cards[0].unchosen);
        assert_eq!(vm.name_servers.len(), 2);
        assert_eq!(vm.onegate.as_deref(), Some("http://10.0.0.1:5030"));
    }
}
