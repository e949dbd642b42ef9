//! `[network]` and `[[mount]]`: what VMs reach, and the site's folders that they see.

use super::machine::Machine;
use super::targets::Targets;
use crate::read::Section;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use thiao_opennebula::settings as opennebula;
use thiao_qemu::{Allowed, FenceSettings, Mount, NfsVersion, Resolver};

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// The most name servers that libc asks (`MAXNS` of resolv.h).
const MOST_SERVERS: usize = 3;

/// Mount options that say what the other keys do.
const OURS: [&str; 9] = [
    "addr",
    "clientaddr",
    "mountaddr",
    "mountport",
    "nfsvers",
    "port",
    "proto",
    "source",
    "vers",
];

/// Reads the table `[network]`: what VMs reach, if they are kept from anything, and whom they ask for names.
pub fn network(table: &Section<'_, '_>, machine: &Machine) -> (Option<FenceSettings>, Resolver) {
    let (fence, mut allow) = fence_and_allow(table);
    let named = table.has("dns");
    let servers = table.texts("dns", |text| {
        let address = text.parse::<Ipv4Addr>();
        address
            .map(drop)
            .map_err(|_| "is no IPv4 address of a name server".to_owned())
    });
    if servers.len() > MOST_SERVERS {
        table.problem(
            "dns",
            format!("names more than {MOST_SERVERS} servers, of which no more are asked"),
        );
    }
    table.close();
    let of_machine = resolver(&machine.resolv_conf);
    let servers: Vec<Ipv4Addr> = match named {
        true => servers.iter().filter_map(|server| server.parse().ok()).collect(),
        // A server that guests cannot reach would hold up each look-up by seconds.
        false => {
            let reached = |server: &Ipv4Addr| allow.iter().any(|allow| covers(allow, *server));
            of_machine.servers.into_iter().filter(reached).collect()
        }
    };
    allow.extend(servers.iter().map(|server| Allowed {
        address: *server,
        prefix_len: 32,
        ports: Some((DNS_PORT, DNS_PORT)),
    }));
    let resolver = Resolver {
        search: if servers.is_empty() {
            Vec::new()
        } else {
            of_machine.search
        },
        servers,
    };
    (fence.then_some(FenceSettings { allow }), resolver)
}

/// Reads it for OpenNebula's VMs, which are kept to it by security groups.
pub fn of_opennebula(table: &Section<'_, '_>, machine: &Machine) -> Option<opennebula::Fence> {
    let (fence, allow) = fence_and_allow(table);
    table.refuse(
        "dns",
        "has no effect with provider = \"opennebula\", whose networks say which name servers VMs ask: remove it",
    );
    table.close();
    let allow = allow.into_iter().map(|allow| opennebula::Allowed {
        address: allow.address,
        prefix_len: allow.prefix_len,
        ports: allow.ports,
    });
    fence.then(|| opennebula::Fence {
        allow: allow.collect(),
        any_port: machine.any_port,
    })
}

fn fence_and_allow(table: &Section<'_, '_>) -> (bool, Vec<Allowed>) {
    let fence = table.flag("fence", true);
    let texts = table.texts("allow", |text| allowed(text).map(drop));
    (
        fence,
        texts.iter().filter_map(|text| allowed(text).ok()).collect(),
    )
}

/// Reads `10.0.0.0/8`, `10.1.2.3:22` or `10.0.0.0/8:6000-6100`.
fn allowed(text: &str) -> Result<Allowed, String> {
    let wanted = || {
        "write an IPv4 address or network and, if not everything there is open, a port or two: \"10.0.0.0/8\", \
         \"10.1.2.3:22\", \"10.0.0.0/8:6000-6100\""
            .to_owned()
    };
    let (network, ports) = match text.split_once(':') {
        Some((network, ports)) => (network, Some(ports)),
        None => (text, None),
    };
    let (address, prefix_len) = match network.split_once('/') {
        Some((address, len)) => (address, len.parse().map_err(|_| wanted())?),
        None => (network, 32),
    };
    let address: Ipv4Addr = address.parse().map_err(|_| wanted())?;
    let ports = match ports {
        None => None,
        Some(ports) => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
            Some(port(first).zip(port(last)).ok_or_else(wanted)?)
        }
    };
    match prefix_len <= 32 && ports.is_none_or(|(first, last)| first <= last) {
        true => Ok(Allowed {
            address,
            prefix_len,
            ports,
        }),
        false => Err(wanted()),
    }
}

/// Whether a name server is open by this.
fn covers(allowed: &Allowed, server: Ipv4Addr) -> bool {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(allowed.prefix_len))
        .unwrap_or(0);
    let open = allowed
        .ports
        .is_none_or(|(first, last)| (first..=last).contains(&DNS_PORT));
    open && (u32::from(allowed.address) ^ u32::from(server)) & mask == 0
}

/// Reads resolv.conf(5). Servers on this machine's own loopback are no use to guests.
fn resolver(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok());
                resolver
                    .servers
                    .extend(server.filter(|server| !server.is_loopback()));
            }
            // The last one counts.
            Some("search" | "domain") => {
                let plain = |word: &&str| {
                    word.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
                };
                resolver.search = words.filter(plain).map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    resolver.servers.truncate(MOST_SERVERS);
    resolver
}

/// Reads the tables `[[mount]]`.
pub fn mounts(root: &Section<'_, '_>, targets: &mut Targets) -> Vec<Mount> {
    let tables = root.tables("mount");
    tables.iter().filter_map(|table| mount(table, targets)).collect()
}

fn mount(table: &Section<'_, '_>, targets: &mut Targets) -> Option<Mount> {
    table.show_head();
    let source = table.required::<String>(
        "source",
        "name the file server and the folder: \"files:/export/home\"",
    );
    let source = source.and_then(|source| match server_and_path(&source) {
        Some(known) => Some(known),
        None => {
            table.problem(
                "source",
                format!("{source:?} is not SERVER:/FOLDER, e.g. \"files:/export/home\""),
            );
            None
        }
    });
    let target = table.path("target", source.as_ref().map(|(_, path)| path.clone()));
    let words = [("nfs4", NfsVersion::V4_2), ("nfs3", NfsVersion::V3)];
    let version = table.choice("type", NfsVersion::V4_2, &words);
    let options = table.texts("options", |option| {
        let name = option.split('=').next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'=' | b'.' | b':' | b'/');
        match (
            option.is_empty() || !option.bytes().all(plain),
            OURS.contains(&name),
        ) {
            (true, _) => {
                Err("is no mount option: write one a text, e.g. [\"ro\", \"rsize=65536\"]".to_owned())
            }
            (_, true) => Err(format!("{name} is told by source and type")),
            (false, false) => Ok(()),
        }
    });
    table.close();
    if let Some(target) = &target {
        targets.take(table, target, None);
    }
    let (server, path) = source?;
    let target = target?;
    Some(Mount {
        server,
        path,
        target,
        version,
        options,
    })
}

fn server_and_path(source: &str) -> Option<(String, PathBuf)> {
    let (server, path) = source.split_once(':')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let good = !server.is_empty() && !server.starts_with('-') && server.bytes().all(plain);
    let good = good && path.starts_with('/') && !path.contains(char::is_control);
    good.then(|| (server.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_allowed_is_an_address_a_network_and_ports() {
        let of = |text| {
            let Allowed {
                address,
                prefix_len,
                ports,
            } = allowed(text).unwrap();
            (address.to_string(), prefix_len, ports)
        };
        assert_eq!(of("10.1.2.3"), ("10.1.2.3".into(), 32, None));
        assert_eq!(of("0.0.0.0/0"), ("0.0.0.0".into(), 0, None));
        assert_eq!(of("10.0.0.0/8:22"), ("10.0.0.0".into(), 8, Some((22, 22))));
        assert_eq!(of("10.0.0.1:60-70"), ("10.0.0.1".into(), 32, Some((60, 70))));
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.1:0",
            "10.0.0.1:70-60",
            "10.0.0.1:",
            "fe80::1",
            "10.0.0.1/8/9",
        ] {
            assert!(allowed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_name_servers_that_guests_reach_are_told() {
        let text = "nameserver 127.0.0.53\nnameserver fe80::1\nnameserver 10.0.0.53 # x\ndomain old\nsearch a.org b.org\n";
        let known = resolver(text);
        assert_eq!(known.servers, [Ipv4Addr::new(10, 0, 0, 53)]);
        assert_eq!(known.search, ["a.org", "b.org"]);
        let covers = |text| covers(&allowed(text).unwrap(), known.servers[0]);
        assert!(covers("10.0.0.0/24") && covers("0.0.0.0/0:53") && covers("10.0.0.53:1-100"));
        assert!(!covers("10.0.1.0/24") && !covers("10.0.0.53:54"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "[0-9./:a \n-]{0,30}") {
            let _ = (allowed(&text), resolver(&text), server_and_path(&text));
        }
    }
}
