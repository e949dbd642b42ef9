//! The fence for real: frames are put onto taps, each test in a network namespace of its own, and seen to come out
//! elsewhere or not.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use thiao_core::ids::VmId;
use thiao_qemu::fence::{Allowed, Fence, Fenced, POWER_SAVING, Rules};
use thiao_qemu::net::Network;
use thiao_testkit::isolated::{ip, isolated};
use thiao_testkit::wait::until;

/// What a tap puts before each frame for virtio's sake.
const VNET_HEADER: usize = 10;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 231, 7, 1);
const HOST_MAC: [u8; 6] = [2, 0x54, 10, 231, 7, 1];

/// A card with a VM's end of it in our hands.
struct Card {
    end: File,
    vm: Fenced,
}

/// What TCP segments are for.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn network() -> Network {
    Network {
        bridge: "thbr0".to_owned(),
        address: HOST,
        prefix_len: 24,
    }
}

fn fence(allow: Vec<Allowed>) -> Fence {
    Fence::new(Rules {
        table: "thiao_test".to_owned(),
        host: HOST,
        prefix_len: 24,
        slurmctlds: vec![(HOST, 6817)],
        any_port: (32_768, 60_999),
        allow,
    })
}

fn fenced(n: u8, group: u32, exports: &[u16]) -> Fenced {
    Fenced {
        vm: VmId::new(&format!("fg{n}.{group}")).unwrap(),
        tap: format!("th0ae707{n:02x}"),
        mac: [2, 0, 10, 231, 7, n],
        address: Ipv4Addr::new(10, 231, 7, n),
        group,
        exports: exports.iter().copied().collect(),
    }
}

/// Lets a VM in, and gives its end of the card.
fn card(fence: &Fence, network: &Network, vm: Fenced) -> Card {
    fence.admit(vm.clone()).unwrap();
    let end = File::from(network.open_tap(&vm.tap).unwrap());
    // SAFETY: plain flags of a descriptor that is ours.
    unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let mac = mac_text(vm.mac);
    let address = vm.address.to_string();
    ip(&["neighbour", "replace", &address, "lladdr", &mac, "dev", "thbr0"]);
    Card { end, vm }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Begins the world: a bridge, forwarding on, as on a machine that is a router, too.
fn begin() -> Network {
    let network = network();
    network.ensure_bridge().unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    network
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IPv4 packet with a TCP segment.
fn tcp(from: Ipv4Addr, to: (Ipv4Addr, u16), source: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let mut pseudo = Vec::new();
    pseudo.extend(from.octets());
    pseudo.extend(to.0.octets());
    pseudo.extend([0, 6, 0, segment.len() as u8]);
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.0.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(segment);
    packet
}

/// A question or an answer of ARP.
fn arp(sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

impl Card {
    fn put(&mut self, to: [u8; 6], from: [u8; 6], kind: u16, packet: &[u8]) {
        let mut frame = vec![0; VNET_HEADER];
        frame.extend(to);
        frame.extend(from);
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame.resize(frame.len().max(VNET_HEADER + 60), 0);
        self.end.write_all(&frame).unwrap();
    }

    fn tcp(&mut self, to_mac: [u8; 6], to: (Ipv4Addr, u16), source: u16, flags: u8) {
        let packet = tcp(self.vm.address, to, source, flags);
        self.put(to_mac, self.vm.mac, 0x0800, &packet);
    }

    /// The TCP segments that come here until nothing has come for a while: source port and destination port.
    fn hears(&mut self) -> Vec<(u16, u16)> {
        let mut heard = Vec::new();
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) {
            match self.next() {
                Some(ports) => {
                    heard.push(ports);
                    last = Instant::now();
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        heard
    }

    /// The next TCP segment that is here already: source port and destination port.
    fn next(&mut self) -> Option<(u16, u16)> {
        loop {
            let mut frame = [0; 2048];
            let length = self.end.read(&mut frame).ok()?;
            let frame = &frame[VNET_HEADER..length];
            if frame[12..14] == [8, 0] && frame[23] == 6 {
                let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
                return Some((port(34), port(36)));
            }
        }
    }

    /// Whether this machine answers when a connection to it is begun: by taking or refusing it. slurmctld's port, which
    /// is open to all, answers what is asked after that: then nothing is on its way any more.
    fn reaches(&mut self, to: (Ipv4Addr, u16)) -> bool {
        self.tcp(HOST_MAC, to, 5000, SYN);
        self.tcp(HOST_MAC, (HOST, 6817), 5001, SYN);
        let mut reached = false;
        until("slurmctld's port answers", || {
            while let Some(ports) = self.next() {
                reached |= ports == (to.1, 5000);
                if ports == (6817, 5001) {
                    return true;
                }
            }
            false
        });
        reached
    }
}

#[test]
fn the_vms_of_one_job_reach_each_other_and_no_others() {
    isolated("the_vms_of_one_job_reach_each_other_and_no_others", || {
        let (network, fence) = (begin(), fence(vec![]));
        fence.adopt([]).unwrap();
        let mut cards: Vec<Card> = [(2, 17), (3, 17), (4, 18), (5, POWER_SAVING), (6, POWER_SAVING)]
            .map(|(n, group)| card(&fence, &network, fenced(n, group, &[])))
            .into();
        let vms: Vec<Fenced> = cards.iter().map(|card| card.vm.clone()).collect();
        let mut seen = Vec::new();
        for from in 0..vms.len() {
            for to in &vms {
                // Straight, and by way of this machine's routes, answers too.
                for (mac, flags) in [
                    (to.mac, SYN),
                    (to.mac, ACK),
                    ([0xff; 6], SYN),
                    (HOST_MAC, SYN),
                    (HOST_MAC, ACK),
                ] {
                    if to.address != vms[from].address {
                        cards[from].tcp(mac, (to.address, 22), 1000 + from as u16, flags);
                    }
                }
            }
        }
        for card in &mut cards {
            let mut heard: Vec<u16> = card
                .hears()
                .into_iter()
                .map(|(source, _)| source - 1000)
                .collect();
            heard.sort_unstable();
            heard.dedup();
            seen.push(heard);
        }
        let wanted: [&[u16]; 5] = [&[1], &[0], &[], &[4], &[3]];
        assert_eq!(seen, wanted);
    });
}

#[test]
fn nobody_speaks_under_anothers_address() {
    isolated("nobody_speaks_under_anothers_address", || {
        let (network, fence) = (begin(), fence(vec![]));
        let mut one = card(&fence, &network, fenced(2, 17, &[]));
        let mut two = card(&fence, &network, fenced(3, 17, &[]));
        let (mac, to, to_mac) = (one.vm.mac, two.vm.address, two.vm.mac);
        let other = Ipv4Addr::new(10, 231, 7, 9);
        one.put(to_mac, mac, 0x0800, &tcp(other, (to, 1), 1, SYN));
        one.put(
            to_mac,
            [2, 0, 10, 231, 7, 9],
            0x0800,
            &tcp(one.vm.address, (to, 2), 2, SYN),
        );
        // With a VLAN's tag before it.
        let mut tagged = vec![0, 5, 8, 0];
        tagged.extend(tcp(one.vm.address, (to, 3), 3, SYN));
        one.put(to_mac, mac, 0x8100, &tagged);
        one.tcp(to_mac, (to, 4), 4, SYN);
        assert_eq!(two.hears(), [(4, 4)]);
        // This machine learns no address of it but its own.
        for sender in [(mac, other), ([2, 0, 10, 231, 7, 9], one.vm.address), (mac, HOST)] {
            one.put([0xff; 6], mac, 0x0806, &arp(sender, HOST));
        }
        let known = ip(&["neighbour", "show", "dev", "thbr0"]);
        assert!(
            !known.contains("10.231.7.9") && !known.contains("07:09"),
            "{known}"
        );
    });
}

#[test]
fn of_this_machine_a_vm_reaches_slurmctld_its_exports_and_srun() {
    isolated(
        "of_this_machine_a_vm_reaches_slurmctld_its_exports_and_srun",
        || {
            let (network, fence) = (begin(), fence(vec![]));
            let mut one = card(&fence, &network, fenced(2, 17, &[20_500]));
            let mut two = card(&fence, &network, fenced(3, 18, &[20_501]));
            for (port, first, second) in [
                (6817, true, true),
                (20_500, true, false),
                (20_501, false, true),
                (20_502, false, false),
                (22, false, false),
                (40_000, true, true),
            ] {
                assert_eq!(one.reaches((HOST, port)), first, "{port} of the first");
                assert_eq!(two.reaches((HOST, port)), second, "{port} of the second");
            }
            // More folders later, and none any more: of an ended VM nothing is left.
            fence.admit(fenced(2, 17, &[20_500, 20_502])).unwrap();
            assert!(one.reaches((HOST, 20_502)) && one.reaches((HOST, 20_500)));
            fence.admit(fenced(2, 17, &[20_502])).unwrap();
            assert!(!one.reaches((HOST, 20_500)));
            fence.forget(&one.vm.vm).unwrap();
            drop(one);
            let rules = std::process::Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .unwrap();
            let rules = String::from_utf8(rules.stdout).unwrap();
            assert!(
                !rules.contains("th0ae70702") && rules.contains("th0ae70703"),
                "{rules}"
            );
        },
    );
}

#[test]
fn what_an_administrator_allows_is_reached_and_no_vm_by_it() {
    isolated("what_an_administrator_allows_is_reached_and_no_vm_by_it", || {
        ip(&["link", "add", "out0", "type", "bridge"]);
        ip(&["address", "add", "192.0.2.1/24", "dev", "out0"]);
        ip(&["link", "set", "out0", "up"]);
        let network = begin();
        let all = |ports| Allowed {
            address: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            ports,
        };
        let site = Ipv4Addr::new(192, 0, 2, 1);
        for (allow, wanted) in [
            (vec![], [false, false]),
            (vec![all(Some((22, 23)))], [true, false]),
            (
                vec![Allowed {
                    address: site,
                    prefix_len: 24,
                    ports: Some((80, 80)),
                }],
                [false, true],
            ),
            (vec![all(None)], [true, true]),
        ] {
            let fence = fence(allow.clone());
            fence.adopt([]).unwrap();
            let mut one = card(&fence, &network, fenced(2, 17, &[]));
            let mut two = card(&fence, &network, fenced(3, 18, &[]));
            let reached = [22, 80].map(|port| one.reaches((site, port)));
            assert_eq!(reached, wanted, "{allow:?}");
            assert!(
                !one.reaches((network.address, 22)),
                "{allow:?} opens this machine"
            );
            // What answers somebody out there passes: it begins nothing.
            one.tcp(HOST_MAC, (site, 81), 5001, SYN | ACK);
            assert_eq!(one.hears(), [(81, 5001)], "{allow:?}");
            one.tcp(HOST_MAC, (two.vm.address, 22), 5002, SYN);
            assert_eq!(two.hears(), [], "{allow:?}");
        }
    });
}

#[test]
fn nothing_of_it_is_left_when_a_controller_is_gone_for_good() {
    isolated("nothing_of_it_is_left_when_a_controller_is_gone_for_good", || {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("spool")).unwrap();
        let tables = || {
            let output = std::process::Command::new("nft")
                .args(["list", "tables"])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        fence(vec![]).adopt([]).unwrap();
        std::fs::write(state.path().join("spool/cluster"), "other\n").unwrap();
        thiao_qemu::left::end(state.path()).unwrap();
        assert!(tables().contains("thiao_test"));
        std::fs::write(state.path().join("spool/cluster"), "test\n").unwrap();
        thiao_qemu::left::end(state.path()).unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn a_vm_that_is_forgotten_late_takes_the_fence_of_nobody_who_has_its_address() {
    isolated(
        "a_vm_that_is_forgotten_late_takes_the_fence_of_nobody_who_has_its_address",
        || {
            let (network, fence) = (begin(), fence(vec![]));
            let former = fenced(2, 17, &[20_500]);
            drop(card(&fence, &network, former.clone()));
            let mut two = card(&fence, &network, fenced(3, 17, &[]));
            let mut next = Vec::new();
            until("the former card is gone", || {
                next.extend(network.open_tap("th0ae70702").ok().map(drop));
                !next.is_empty()
            });
            until("it is gone again", || {
                std::fs::metadata("/sys/class/net/th0ae70702").is_err()
            });
            let mut next = card(&fence, &network, fenced(2, 18, &[]));
            fence.forget(&former.vm).unwrap();
            next.tcp(two.vm.mac, (two.vm.address, 22), 1, SYN);
            assert_eq!(two.hears(), [], "it is of another job");
            assert!(!next.reaches((HOST, 20_500)));
        },
    );
}

#[test]
fn whoever_takes_the_vms_up_fences_them_and_an_emptied_table_comes_back() {
    isolated(
        "whoever_takes_the_vms_up_fences_them_and_an_emptied_table_comes_back",
        || {
            let (network, first) = (begin(), fence(vec![]));
            let mut one = card(&first, &network, fenced(2, 17, &[]));
            let mut two = card(&first, &network, fenced(3, 18, &[]));
            let mut reached = || {
                one.tcp(two.vm.mac, (two.vm.address, 22), 1, SYN);
                two.hears() == [(1, 22)]
            };
            assert!(!reached());
            drop(first);
            let second = fence(vec![]);
            second.adopt([fenced(2, 17, &[]), fenced(3, 18, &[])]).unwrap();
            assert!(!reached());
            assert!(!second.tend().unwrap(), "it stands");
            assert!(
                std::process::Command::new("nft")
                    .args(["flush", "ruleset"])
                    .status()
                    .unwrap()
                    .success()
            );
            assert!(reached(), "a test that cannot fail is none");
            assert!(second.tend().unwrap(), "it was gone");
            assert!(!reached());
        },
    );
}
