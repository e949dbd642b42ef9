//! What VMs of the embedded provider reach outside of them: whether the site's file servers are there, and whether
//! more of this machine is open to VMs than was meant.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;
use thiao_core::finding::Finding;
use thiao_qemu::{Allowed, Settings};

/// The port at which file servers are asked for NFS.
const NFS: u16 = 2049;

/// How long a file server may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// What a file server did when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Answers(Ipv4Addr),
    /// It is known by name, and does not take a connection; why.
    Silent(Ipv4Addr, String),
    /// Nobody knows its name; why.
    NotFound(String),
}

/// Asks for the file servers, all at once, and for this machine's addresses; and judges.
#[must_use]
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mounts = settings.guest.mounts.iter();
    let servers: BTreeSet<&str> = mounts.map(|mount| mount.server.as_str()).collect();
    let mut found: Vec<Finding> = std::thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|server| (server, scope.spawn(|| ask(server, NFS))))
            .collect();
        let answers = asked.into_iter().filter_map(|(server, seen)| {
            let seen = seen.join().ok()?;
            Some(file_server(server, &seen))
        });
        answers.collect()
    });
    if let Some(fence) = &settings.fence
        // What is not known was said of the bridge.
        && let Ok(mut own) = thiao_qemu::net::own_addresses()
    {
        own.retain(|address| *address != settings.network.address && !address.is_loopback());
        found.extend(too_open(&fence.allow, &own));
    }
    found
}

fn ask(server: &str, port: u16) -> Seen {
    match thiao_qemu::server_address(server) {
        Err(why) => Seen::NotFound(why),
        Ok(address) => match TcpStream::connect_timeout(&SocketAddr::from((address, port)), LIMIT) {
            Ok(_) => Seen::Answers(address),
            Err(error) => Seen::Silent(address, error.to_string()),
        },
    }
}

/// Judges a file server of `[[mount]]`.
fn file_server(server: &str, seen: &Seen) -> Finding {
    let what = format!("file server {server}");
    match seen {
        Seen::Answers(address) => Finding::ok(what, format!("answers at {address}, port {NFS}")),
        Seen::Silent(address, why) => Finding::warn(
            what,
            format!(
                "{address} does not answer at port {NFS}: {why}; VMs try for 40 s \
                 to mount its folders, and then fail"
            ),
        )
        .advice("start its NFS server, and let this machine and the VMs' network in, or take its [[mount]] out"),
        Seen::NotFound(why) => Finding::bad(
            what,
            format!("is not found, and no VM can be made without its address: {why}"),
        )
        .advice("correct the server's name in source of [[mount]], or have this machine know it (/etc/hosts, DNS)"),
    }
}

/// Which addresses of this machine the networks of `allow` open whole. A port that is named is meant.
fn too_open(allow: &[Allowed], own: &[Ipv4Addr]) -> Option<Finding> {
    let ranges = allow
        .iter()
        .filter(|allow| allow.prefix_len < 32 && allow.ports.is_none());
    let open: BTreeSet<String> = ranges
        .flat_map(|range| own.iter().filter(|own| has(range, **own)))
        .map(Ipv4Addr::to_string)
        .collect();
    let open: Vec<String> = open.into_iter().collect();
    (!open.is_empty()).then(|| {
        Finding::warn(
            "network.allow",
            format!(
                "opens all ports of this machine's own {} to VMs: it is in a network that is open to them",
                open.join(", ")
            ),
        )
        .advice("name ports (\"10.0.0.0/8:443\"), narrower networks, or single addresses in allow")
    })
}

fn has(range: &Allowed, address: Ipv4Addr) -> bool {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(range.prefix_len))
        .unwrap_or(0);
    (u32::from(range.address) ^ u32::from(address)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use thiao_core::finding::Verdict;

    #[test]
    fn a_file_server_that_is_not_there_is_told() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let judged = |name: &str| file_server(name, &ask(name, port));
        assert_eq!(judged("127.0.0.1").verdict, Verdict::Ok);
        drop(server);
        let silent = judged("127.0.0.1");
        assert!(
            silent.verdict == Verdict::Warn && silent.text.contains("refused"),
            "{silent:?}"
        );
        let unknown = judged("no-such-server.invalid");
        assert!(
            unknown.verdict == Verdict::Bad && unknown.text.contains("is not found"),
            "{unknown:?}"
        );
    }

    #[test]
    fn networks_that_open_this_machine_whole_are_told() {
        let own = [Ipv4Addr::new(10, 1, 0, 5), Ipv4Addr::new(192, 0, 2, 7)];
        let told = |address: [u8; 4], prefix_len, ports| {
            let allow = Allowed {
                address: address.into(),
                prefix_len,
                ports,
            };
            too_open(&[allow], &own).map(|finding| finding.text)
        };
        assert!(told([10, 0, 0, 0], 8, None).unwrap().contains("own 10.1.0.5 to"));
        assert!(told([0; 4], 0, None).unwrap().contains("10.1.0.5, 192.0.2.7"));
        assert_eq!(told([0; 4], 0, Some((443, 443))), None);
        assert_eq!(told([10, 1, 0, 5], 32, None), None, "it is meant");
        assert_eq!(told([10, 2, 0, 0], 16, None), None);
    }
}
