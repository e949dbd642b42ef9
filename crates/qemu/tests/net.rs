//! The bridge and taps for real, each test in a network namespace of its own:
//! the test runs itself again under `unshare`, so nothing outside is touched.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use thiao_qemu::net::{NetError, Network};
use thiao_testkit::isolated::{ip, isolated};
use thiao_testkit::wait::until;

fn network(bridge: &str) -> Network {
    Network {
        bridge: bridge.to_owned(),
        address: "10.231.7.1".parse().unwrap(),
        prefix_len: 24,
    }
}

fn exists(interface: &str) -> bool {
    Command::new("ip")
        .args(["link", "show", interface])
        .output()
        .unwrap()
        .status
        .success()
}

/// A tap goes away a little after its descriptor is closed.
fn wait_gone(interface: &str) {
    until(&format!("{interface} is gone"), || !exists(interface));
}

#[test]
fn bridge_is_made_kept_and_removed() {
    isolated("bridge_is_made_kept_and_removed", || {
        let network = network("thbr0");
        network.remove_bridge().unwrap();
        network.ensure_bridge().unwrap();
        let first = ip(&["-details", "address", "show", "thbr0"]);
        for wanted in [
            "link/ether 02:54:0a:e7:07:01",
            "inet 10.231.7.1/24 brd 10.231.7.255",
            "forward_delay 0 ",
            "stp_state 0 ",
        ] {
            assert!(first.contains(wanted), "no {wanted:?} in {first}");
        }
        assert!(first.contains(",UP"), "{first}");

        // What was changed from outside is mended; what is right stays, taps with it.
        let tap = network.open_tap("thtap0").unwrap();
        ip(&["link", "set", "thbr0", "down"]);
        network.ensure_bridge().unwrap();
        network.ensure_bridge().unwrap();
        let again = ip(&["address", "show", "thbr0"]);
        assert!(
            again.contains("link/ether 02:54:0a:e7:07:01") && again.contains(",UP"),
            "{again}"
        );
        assert_eq!(again.matches("inet 10.").count(), 1, "{again}");
        assert!(ip(&["link", "show", "thtap0"]).contains("master thbr0"));
        drop(tap);

        network.remove_bridge().unwrap();
        assert!(!exists("thbr0"));
        network.remove_bridge().unwrap();
    });
}

#[test]
fn taps_are_up_on_the_bridge_and_vanish_with_their_descriptor() {
    isolated(
        "taps_are_up_on_the_bridge_and_vanish_with_their_descriptor",
        || {
            let network = network("thbr0");
            assert!(matches!(network.open_tap("thtap0"), Err(NetError::NoBridge(_))));
            wait_gone("thtap0");
            network.ensure_bridge().unwrap();
            let taps: Vec<OwnedFd> = (0..20)
                .map(|i| network.open_tap(&format!("thtap{i}")).unwrap())
                .collect();
            for i in 0..20 {
                let shown = ip(&["link", "show", &format!("thtap{i}")]);
                assert!(shown.contains("master thbr0") && shown.contains(",UP"), "{shown}");
            }
            for tap in &taps {
                assert!(
                    rustix::io::fcntl_getfd(tap)
                        .unwrap()
                        .contains(rustix::io::FdFlags::CLOEXEC)
                );
            }
            assert!(
                ip(&["address", "show", "thbr0"]).contains("02:54:0a:e7:07:01"),
                "ports must not change the MAC"
            );
            assert!(matches!(network.open_tap("thtap0"), Err(NetError::TapBusy(_))));
            assert!(matches!(
                network.open_tap("a-name-too-long1"),
                Err(NetError::BadName(_))
            ));
            drop(taps);
            (0..20).for_each(|i| wait_gone(&format!("thtap{i}")));
            assert!(network.open_tap("thtap0").is_ok(), "a name is free again");
        },
    );
}

#[test]
fn taps_are_put_back_on_a_bridge_that_somebody_removed() {
    isolated("taps_are_put_back_on_a_bridge_that_somebody_removed", || {
        let network = network("thbr0");
        network.ensure_bridge().unwrap();
        let _tap = network.open_tap("thtap0").unwrap();
        assert!(!network.put_on_bridge("thtap0").unwrap(), "it is there");
        ip(&["link", "delete", "thbr0"]);
        assert!(matches!(
            network.put_on_bridge("thtap0"),
            Err(NetError::NoBridge(_))
        ));
        network.ensure_bridge().unwrap();
        assert!(network.put_on_bridge("thtap0").unwrap());
        assert!(ip(&["link", "show", "thtap0"]).contains("master thbr0"));
        assert!(!network.put_on_bridge("thtap1").unwrap(), "its VM has ended");
    });
}

#[test]
fn others_interfaces_and_networks_are_left_alone() {
    isolated("others_interfaces_and_networks_are_left_alone", || {
        ip(&["link", "add", "other0", "type", "bridge"]);
        ip(&["address", "add", "10.231.0.9/16", "dev", "other0"]);
        match network("thbr0").ensure_bridge() {
            Err(NetError::AddressClash { taken, interface, .. }) => {
                assert_eq!((taken.as_str(), interface.as_str()), ("10.231.0.9/16", "other0"));
            }
            other => panic!("{other:?}"),
        }
        assert!(!exists("thbr0"), "nothing was made");
        // A bridge of another network is not taken over, nor removed.
        assert!(matches!(
            network("other0").ensure_bridge(),
            Err(NetError::NotOurs { .. })
        ));
        assert!(matches!(
            network("other0").remove_bridge(),
            Err(NetError::NotOurs { .. })
        ));
        assert!(matches!(
            network("lo").ensure_bridge(),
            Err(NetError::NotOurs { .. })
        ));
        assert!(exists("other0"));
        // A persistent tap that somebody made is not taken over.
        ip(&["link", "delete", "other0"]);
        network("thbr0").ensure_bridge().unwrap();
        ip(&["tuntap", "add", "theirs", "mode", "tap"]);
        assert!(matches!(
            network("thbr0").open_tap("theirs"),
            Err(NetError::TapBusy(_))
        ));
        assert!(exists("theirs"));
    });
}

#[test]
fn a_bridge_that_somebody_made_for_guests_is_used_as_it_is() {
    isolated("a_bridge_that_somebody_made_for_guests_is_used_as_it_is", || {
        let network = network("mine0");
        ip(&[
            "link",
            "add",
            "mine0",
            "address",
            "02:00:00:00:00:07",
            "type",
            "bridge",
        ]);
        let bare = network.ensure_bridge().unwrap_err().to_string();
        assert!(bare.contains("ip address add 10.231.7.1/24 dev mine0"), "{bare}");
        ip(&["address", "add", "10.231.7.1/24", "dev", "mine0"]);
        assert!(matches!(network.ensure_bridge(), Err(NetError::Down(_))));
        ip(&["link", "set", "mine0", "up"]);
        let before = ip(&["address", "show", "mine0"]);
        network.ensure_bridge().unwrap();
        network.remove_bridge().unwrap();
        assert_eq!(ip(&["address", "show", "mine0"]), before);
        assert!(ip(&["-details", "link", "show", "mine0"]).contains("forward_delay 1500"));
        assert!(network.open_tap("thtap0").is_ok());
    });
}

#[test]
fn a_network_that_is_reached_elsewhere_is_refused_before_anything_is_made() {
    isolated(
        "a_network_that_is_reached_elsewhere_is_refused_before_anything_is_made",
        || {
            ip(&["link", "add", "up0", "type", "bridge"]);
            ip(&["link", "set", "up0", "up"]);
            ip(&["route", "add", "10.231.0.0/16", "dev", "up0", "table", "52"]);
            match network("thbr0").ensure_bridge() {
                Err(NetError::RouteClash { taken, by, .. }) => {
                    assert_eq!((taken.as_str(), by.as_str()), ("10.231.0.0/16", " by up0"));
                }
                other => panic!("{other:?}"),
            }
            assert!(!exists("thbr0"));
            ip(&["route", "flush", "table", "52"]);
            ip(&["route", "add", "default", "dev", "up0"]);
            network("thbr0").ensure_bridge().unwrap();
        },
    );
}

/// thiaod has this one right of root's, and no other; `ip` gives up its rights unless they are handed on.
#[test]
fn the_controllers_rights_suffice() {
    isolated("the_controllers_rights_suffice", || {
        const MAKE: &str = "THIAO_TEST_MAKE_BRIDGE";
        if std::env::var_os(MAKE).is_some() {
            assert!(!rustix::process::geteuid().is_root());
            network("thbr0").ensure_bridge().unwrap();
            return drop(network("thbr0").open_tap("thtap0").unwrap());
        }
        let tun = fs::metadata("/dev/net/tun").expect("/dev/net/tun is there");
        if fs::read_to_string("/proc/self/uid_map")
            .unwrap()
            .split_whitespace()
            .nth(2)
            == Some("1")
            || tun.permissions().mode() & 0o006 != 0o006
        {
            return eprintln!("no other user can be become here, or /dev/net/tun is not open to all");
        }
        // Where others may start it: the folder of the build may be closed to them.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"])
            .args(["--bounding-set=-all,+net_admin", "--no-new-privs"])
            .arg(&program)
            .args(["--exact", "the_controllers_rights_suffice", "--nocapture"])
            .env(MAKE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(exists("thbr0"));
    });
}

#[test]
fn a_closed_tun_device_is_explained_with_its_cure() {
    isolated("a_closed_tun_device_is_explained_with_its_cure", || {
        let real = fs::metadata("/dev/net/tun").expect("/dev/net/tun is there");
        if !rustix::process::geteuid().is_root() || real.uid() != 0 {
            return eprintln!("not root of the machine: a stand-in for the device cannot be made");
        }
        let network = network("thbr0");
        network.ensure_bridge().unwrap();
        // A folder over the device's, seen in this mount namespace alone.
        let empty = tempfile::tempdir().unwrap();
        let mount =
            |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
        mount(&["--bind", empty.path().to_str().unwrap(), "/dev/net"]);
        let missing = network.open_tap("thtap0").unwrap_err().to_string();
        assert!(missing.contains("modprobe tun"), "{missing}");
        fs::write(empty.path().join("tun"), "").unwrap();
        fs::set_permissions(empty.path().join("tun"), fs::Permissions::from_mode(0o600)).unwrap();
        // Root opens everything: become nobody, in this thread alone.
        fs::set_permissions(empty.path(), fs::Permissions::from_mode(0o755)).unwrap();
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        let closed = network.open_tap("thtap0").unwrap_err().to_string();
        assert!(
            closed.contains("mode 0600") && closed.contains("chmod 0666 /dev/net/tun"),
            "{closed}"
        );
    });
}
