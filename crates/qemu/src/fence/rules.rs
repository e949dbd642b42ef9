//! The fence's rules, as the words of `nft -j` (libnftables-json(5)): a pure function of who is to be fenced.
//!
//! All of it is one table of the family `bridge`, and matches the cards of our own VMs alone: whatever else is on
//! this machine's bridges passes as before. Nothing is kept of connections (that would need a module that not every
//! kernel has): what a VM begins is told by TCP's SYN, and answers pass.

use super::Fenced;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use thiao_guest::protocol::{NFS_PORT, NfsVersion};
use thiao_nfs::PORTS as EXPORT_PORTS;

/// Addresses and ports that all VMs may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allowed {
    pub address: Ipv4Addr,
    /// Length of the prefix that counts.
    pub prefix_len: u8,
    /// TCP and UDP; none: everything there is.
    pub ports: Option<(u16, u16)>,
}

/// A file server of the site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    pub address: Ipv4Addr,
    /// What is spoken with it.
    pub version: NfsVersion,
}

/// What holds for all VMs alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What the table in the kernel is called.
    pub table: String,
    /// This machine's address on the guests' network.
    pub host: Ipv4Addr,
    pub prefix_len: u8,
    /// Where slurmctlds listen, those that stand in included.
    pub slurmctlds: Vec<(Ipv4Addr, u16)>,
    /// The ports at which `srun` on this machine waits for its steps: what the kernel gives to who asks for any.
    pub any_port: (u16, u16),
    /// What all VMs may reach. Of ranges this machine's address is no part: only its own entry opens it.
    pub allow: Vec<Allowed>,
}

impl Rules {
    /// Everything, in place of whatever there was: in one transaction, so that no packet finds a gap.
    pub fn whole<'a>(
        &self,
        vms: impl Iterator<Item = &'a Fenced>,
        servers: impl Iterator<Item = &'a Server>,
    ) -> Value {
        let table = json!({"family": "bridge", "name": self.table});
        let mut commands = vec![
            // Adding first: what is not there cannot be removed.
            json!({"add": {"table": table}}),
            json!({"delete": {"table": table}}),
            json!({"add": {"table": table}}),
        ];
        commands.extend(self.sets());
        commands.extend(self.chains());
        commands.extend(vms.flat_map(|vm| self.elements("add", vm)));
        commands.extend(servers.flat_map(|server| self.server(server)));
        json!({"nftables": commands})
    }

    /// Lets a VM in, or opens more exports to it: what is there already stays.
    pub fn admit(&self, vm: &Fenced) -> Value {
        json!({"nftables": self.elements("add", vm)})
    }

    /// Opens a file server to all VMs.
    pub fn admit_server(&self, server: &Server) -> Value {
        json!({"nftables": self.server(server)})
    }

    fn server(&self, server: &Server) -> Vec<Value> {
        let ports: &[(u16, u16)] = match server.version {
            NfsVersion::V4_2 => &[(NFS_PORT, NFS_PORT)],
            // Of this machine's own services not all.
            NfsVersion::V3 if server.address == self.host => {
                &[(111, 111), (NFS_PORT, NFS_PORT), (20_048, 20_048)]
            }
            // It tells by its port mapper where the rest of it is.
            NfsVersion::V3 => &[(1, u16::MAX)],
        };
        let elements = ports
            .iter()
            .map(|(first, last)| json!({"concat": [server.address, range(*first, *last)]}));
        // One by one: what is there already, alone or as a part of more, is no error of the others.
        let command = |element: Value| json!({"add": {"element": {"family": "bridge", "table": self.table, "name": "servers", "elem": [element]}}});
        elements.map(command).collect()
    }

    /// Forgets a VM with all that was open to it.
    pub fn forget(&self, vm: &Fenced) -> Value {
        // Adding first: what is not there cannot be removed, and a half is no use.
        let mut commands = self.elements("add", vm);
        commands.extend(self.elements("delete", vm));
        json!({"nftables": commands})
    }

    fn elements(&self, verb: &str, vm: &Fenced) -> Vec<Value> {
        let Fenced {
            tap,
            address,
            group,
            exports,
            ..
        } = vm;
        let mac = vm.mac_text();
        let mut sets = vec![
            ("taps", json!([tap])),
            ("cards", json!([{"concat": [tap, mac, address]}])),
            (
                "groups",
                match verb {
                    "add" => json!([[tap, group]]),
                    _ => json!([tap]),
                },
            ),
            ("members", json!([{"concat": [group, tap]}])),
        ];
        if !exports.is_empty() {
            let open: Vec<Value> = exports
                .iter()
                .map(|port| json!({"concat": [tap, port]}))
                .collect();
            sets.push(("exports", Value::Array(open)));
        }
        let command = |(name, elements)| json!({verb: {"element": {"family": "bridge", "table": self.table, "name": name, "elem": elements}}});
        sets.into_iter().map(command).collect()
    }

    fn sets(&self) -> Vec<Value> {
        let (family, table) = ("bridge", &self.table);
        let set = |name: &str, kind: Value| json!({"add": {"set": {"family": family, "table": table, "name": name, "type": kind}}});
        vec![
            // Who is fenced.
            set("taps", json!("ifname")),
            // Whose addresses are whose.
            set("cards", json!(["ifname", "ether_addr", "ipv4_addr"])),
            // Which group a card is in, and which cards a group has.
            json!({"add": {"map": {"family": family, "table": table, "name": "groups",
                   "type": "ifname", "map": "mark"}}}),
            set("members", json!(["mark", "ifname"])),
            // Which users' folders a card reaches.
            set("exports", json!(["ifname", "inet_service"])),
            // File servers.
            json!({"add": {"set": {"family": family, "table": table, "name": "servers",
                   "type": ["ipv4_addr", "inet_service"], "flags": ["interval"]}}}),
        ]
    }

    fn chains(&self) -> Vec<Value> {
        let base = |name: &str, hook: &str, priority: i32| {
            json!({"add": {"chain": {"family": "bridge", "table": self.table, "name": name, "type": "filter",
                   "hook": hook, "prio": priority, "policy": "accept"}}})
        };
        let mut commands = vec![
            base("from", "prerouting", -300),
            base("between", "forward", 0),
            base("in", "input", 0),
        ];
        commands.extend(
            ["out", "host"].map(
                |name| json!({"add": {"chain": {"family": "bridge", "table": self.table, "name": name}}}),
            ),
        );
        let chains = [
            ("from", self.spoofing()),
            ("between", Self::between()),
            ("in", vec![vec![is(meta("iifname"), "@taps"), jump("out")]]),
            ("out", self.out()),
            ("host", self.of_this_machine()),
        ];
        for (chain, rules) in chains {
            commands.extend(rules.into_iter().map(|expr| {
                json!({"add": {"rule": {"family": "bridge", "table": self.table, "chain": chain, "expr": expr}}})
            }));
        }
        commands
    }

    /// Nobody speaks under another's address, hardware or IP, or in another tongue (IPv6, VLANs).
    fn spoofing(&self) -> Vec<Vec<Value>> {
        let card = |ether: Value, ip: Value| is(json!({"concat": [meta("iifname"), ether, ip]}), "@cards");
        let ether = || field("ether", "saddr");
        vec![
            vec![is_not(meta("iifname"), "@taps"), accept()],
            vec![
                is(field("ether", "type"), "arp"),
                card(ether(), field("arp", "saddr ip")),
                card(field("arp", "saddr ether"), field("arp", "saddr ip")),
                accept(),
            ],
            vec![
                is(field("ether", "type"), "ip"),
                card(ether(), field("ip", "saddr")),
                accept(),
            ],
            vec![drop_it()],
        ]
    }

    /// VMs reach those of their group; and through the bridge's other ports what they reach through this machine.
    fn between() -> Vec<Vec<Value>> {
        let mark = json!({"mangle": {"key": meta("mark"),
                          "value": {"map": {"key": meta("iifname"), "data": "@groups"}}}});
        let theirs = json!({"concat": [meta("mark"), meta("oifname")]});
        vec![
            vec![is_not(meta("iifname"), "@taps"), accept()],
            vec![is_not(meta("oifname"), "@taps"), jump("out")],
            vec![mark],
            vec![is(theirs, "@members"), accept()],
            vec![drop_it()],
        ]
    }

    /// What VMs reach beside each other.
    fn out(&self) -> Vec<Vec<Value>> {
        let mut rules = vec![
            vec![is(field("ether", "type"), "arp"), accept()],
            vec![is(field("ip", "daddr"), json!(self.host)), jump("host")],
            // By way of this machine's routes, too, no other VM is reached.
            vec![
                is(field("ip", "daddr"), prefix(self.host, self.prefix_len)),
                drop_it(),
            ],
        ];
        rules.extend(self.slurmctlds());
        rules.push(to_servers());
        rules.extend(self.allow.iter().flat_map(allowed));
        rules.push(vec![is_answer(), accept()]);
        rules.push(vec![drop_it()]);
        rules
    }

    /// What of this machine's own they reach.
    fn of_this_machine(&self) -> Vec<Vec<Value>> {
        let tcp = || field("tcp", "dport");
        let own_export = json!({"concat": [meta("iifname"), tcp()]});
        let exports = range(*EXPORT_PORTS.start(), *EXPORT_PORTS.end());
        let mut rules = vec![
            vec![is(own_export, "@exports"), accept()],
            vec![is(tcp(), exports), drop_it()],
        ];
        rules.extend(self.slurmctlds());
        rules.push(vec![is(tcp(), range(self.any_port.0, self.any_port.1)), accept()]);
        rules.push(vec![is(meta("l4proto"), "icmp"), accept()]);
        rules.push(to_servers());
        // Who opens a range means what is there beside this machine.
        let named = self.allow.iter().filter(|allow| allow.prefix_len == 32);
        rules.extend(named.flat_map(allowed));
        rules.push(vec![is_answer(), accept()]);
        rules.push(vec![drop_it()]);
        rules
    }

    fn slurmctlds(&self) -> impl Iterator<Item = Vec<Value>> {
        self.slurmctlds.iter().map(|(address, port)| {
            vec![
                is(field("ip", "daddr"), json!(address)),
                is(field("tcp", "dport"), json!(port)),
                accept(),
            ]
        })
    }
}

/// The rules by which an address and its ports are open.
fn allowed(allowed: &Allowed) -> Vec<Vec<Value>> {
    let Allowed {
        address,
        prefix_len,
        ports,
    } = allowed;
    let mut to = Vec::new();
    // libnftables takes no prefix of nothing.
    if *prefix_len > 0 {
        to.push(is(field("ip", "daddr"), prefix(*address, *prefix_len)));
    }
    let rule = |more: Option<Value>| to.iter().cloned().chain(more).chain([accept()]).collect();
    match ports {
        None => vec![rule(None)],
        Some((first, last)) => ["tcp", "udp"]
            .map(|protocol| rule(Some(is(field(protocol, "dport"), range(*first, *last)))))
            .into(),
    }
}

fn to_servers() -> Vec<Value> {
    let to = json!({"concat": [field("ip", "daddr"), field("tcp", "dport")]});
    vec![is(to, "@servers"), accept()]
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn field(protocol: &str, name: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": name}})
}

fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right.into()}})
}

fn is_not(left: Value, right: &str) -> Value {
    json!({"match": {"op": "!=", "left": left, "right": right}})
}

/// TCP that begins nothing: SYN alone would.
fn is_answer() -> Value {
    let flags = json!({"&": [field("tcp", "flags"), ["syn", "ack"]]});
    json!({"match": {"op": "!=", "left": flags, "right": "syn"}})
}

fn prefix(address: Ipv4Addr, len: u8) -> Value {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    let network = Ipv4Addr::from(u32::from(address) & mask);
    match len {
        32 => json!(network),
        _ => json!({"prefix": {"addr": network, "len": len}}),
    }
}

fn range(first: u16, last: u16) -> Value {
    match first == last {
        true => json!(first),
        false => json!({"range": [first, last]}),
    }
}

fn accept() -> Value {
    json!({"accept": null})
}

fn drop_it() -> Value {
    json!({"drop": null})
}

fn jump(chain: &str) -> Value {
    json!({"jump": {"target": chain}})
}
