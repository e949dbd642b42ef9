//! Virtual networks and their leases.

use crate::rights::Object;
use crate::settings::NetworkSetup;
use crate::xml;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use thiao_opennebula::syntax::{Template, Value};

/// A virtual network as oned keeps it.
#[derive(Debug, Clone)]
pub struct Network {
    pub id: u32,
    pub setup: NetworkSetup,
    /// Addresses in use, by which VM.
    pub leases: BTreeMap<Ipv4Addr, u32>,
    /// Where the search for a free address goes on: addresses are not used again at once.
    next: u32,
}

/// A MAC as OpenNebula makes it of an address.
pub fn mac(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

impl Network {
    /// A network without leases.
    pub fn new(id: u32, setup: NetworkSetup) -> Self {
        Network {
            id,
            setup,
            leases: BTreeMap::new(),
            next: 0,
        }
    }

    fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.setup.first).wrapping_add(index))
    }

    /// Leases an address: that one, or any free one.
    pub fn lease(&mut self, vm: u32, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let ip = match wanted {
            Some(ip) => {
                let index = u32::from(ip).checked_sub(u32::from(self.setup.first))?;
                (index < self.setup.size && !self.leases.contains_key(&ip)).then_some(ip)?
            }
            None => (0..self.setup.size)
                .map(|step| self.address((self.next + step) % self.setup.size))
                .find(|ip| !self.leases.contains_key(ip))?,
        };
        if wanted.is_none() {
            self.next = (u32::from(ip) - u32::from(self.setup.first) + 1) % self.setup.size;
        }
        self.leases.insert(ip, vm);
        Some(ip)
    }

    /// An attribute of its template, or what oned has there by itself.
    pub fn attribute<'a>(&'a self, name: &str, usual: &'a str) -> &'a str {
        self.setup.template.get(name).map_or(usual, String::as_str)
    }

    /// Its element, with its leases or without.
    pub fn xml(&self, out: &mut String, leases: bool) {
        out.push_str("<VNET>");
        self.object().xml(out, ("oneadmin", "oneadmin"), &self.setup.name);
        xml::ids(out, "CLUSTERS", &self.setup.clusters);
        out.push_str("<BRIDGE><![CDATA[br0]]></BRIDGE><BRIDGE_TYPE><![CDATA[linux]]></BRIDGE_TYPE>");
        out.push_str("<STATE><![CDATA[1]]></STATE><PREV_STATE><![CDATA[1]]></PREV_STATE><PARENT_NETWORK_ID/><TEMPLATE_ID/>");
        xml::cdata(out, "VN_MAD", self.attribute("VN_MAD", "dummy"));
        out.push_str("<PHYDEV/><VLAN_ID/><OUTER_VLAN_ID/>");
        out.push_str(
            "<VLAN_ID_AUTOMATIC>0</VLAN_ID_AUTOMATIC><OUTER_VLAN_ID_AUTOMATIC>0</OUTER_VLAN_ID_AUTOMATIC>",
        );
        xml::element(out, "USED_LEASES", self.leases.len());
        out.push_str("<VROUTERS></VROUTERS>");
        xml::ids(out, "UPDATED_VMS", self.leases.values());
        out.push_str("<OUTDATED_VMS></OUTDATED_VMS><UPDATING_VMS></UPDATING_VMS><ERROR_VMS></ERROR_VMS>");
        let mut template: BTreeMap<String, String> = self.setup.template.clone();
        for (key, value) in [
            ("BRIDGE", "br0"),
            ("BRIDGE_TYPE", "linux"),
            ("OUTER_VLAN_ID", ""),
            ("PHYDEV", ""),
            ("SECURITY_GROUPS", "0"),
            ("VLAN_ID", ""),
            ("VN_MAD", "dummy"),
        ] {
            template.entry(key.into()).or_insert_with(|| value.into());
        }
        let template = Template(
            template
                .into_iter()
                .map(|(key, text)| (key, Value::Single(text)))
                .collect(),
        );
        xml::template(out, "TEMPLATE", &template);
        out.push_str("<AR_POOL><AR>");
        if !leases && !self.leases.is_empty() {
            // A list of offsets and owners packed into one number; nobody reads it.
            xml::cdata(out, "ALLOCATED", "");
        }
        xml::cdata(out, "AR_ID", "0");
        xml::cdata(out, "IP", &self.setup.first.to_string());
        xml::cdata(out, "MAC", &mac(self.setup.first));
        xml::cdata(out, "NEXT_INDEX", &self.next.to_string());
        xml::cdata(out, "SHARED", "NO");
        xml::cdata(out, "SIZE", &self.setup.size.to_string());
        xml::cdata(out, "TYPE", "IP4");
        if leases {
            let last = self.address(self.setup.size.saturating_sub(1));
            xml::cdata(out, "MAC_END", &mac(last));
            xml::cdata(out, "IP_END", &last.to_string());
            xml::element(out, "USED_LEASES", self.leases.len());
            out.push_str("<LEASES>");
            for (ip, vm) in &self.leases {
                out.push_str("<LEASE>");
                xml::cdata(out, "IP", &ip.to_string());
                xml::cdata(out, "MAC", &mac(*ip));
                xml::cdata(out, "VM", &vm.to_string());
                out.push_str("</LEASE>");
            }
            out.push_str("</LEASES>");
        }
        out.push_str("</AR></AR_POOL></VNET>");
    }

    /// What rules are about.
    pub fn object(&self) -> Object {
        Object {
            kind: "NET",
            id: Some(self.id),
            uid: 0,
            gid: 0,
            public: self.setup.public,
        }
    }
}
