//! The bridge: made where there is none, mended where it is ours, adopted where somebody has made it for us.
//!
//! Ours is what has the MAC that we give. One with our address and another MAC is somebody's who
//! wants the guests there: it is used, and never changed. Anything else is left alone.

use super::{NetError, Network, ip};
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

/// Routes of so short a prefix stand for a default route: `0.0.0.0/1` and `128.0.0.0/1` of VPNs.
const AS_DEFAULT: u8 = 1;

/// One that looks and makes: VMs start side by side.
static MAKING: Mutex<()> = Mutex::new(());

/// What there is of the guests' bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bridge {
    /// It can be made: nothing has its name or its network.
    Free,
    /// We made it, perhaps before this process.
    Ours,
    /// Somebody made it, with our address: it is used as it is.
    Adopted,
}

/// An interface, as `ip -json -details address show` tells it.
#[derive(serde::Deserialize)]
struct Interface {
    ifname: String,
    /// Its MAC, if it has one.
    #[serde(default)]
    address: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Default, serde::Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

#[derive(serde::Deserialize)]
struct Address {
    local: IpAddr,
    prefixlen: u8,
}

/// A route, as `ip -json -4 route show table all` tells it.
#[derive(serde::Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl Network {
    /// Makes the bridge, or brings ours to what it must be; changes nothing of anybody else's.
    ///
    /// It gets a fixed MAC: an unset one changes as ports come and go, and
    /// guests with the old one in their ARP cache stall for seconds.
    pub fn ensure_bridge(&self) -> Result<(), NetError> {
        let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let Self {
            bridge,
            address,
            prefix_len,
        } = self;
        let mut script = String::new();
        match self.find_bridge()? {
            Bridge::Adopted => return Ok(()),
            Bridge::Ours => {}
            Bridge::Free => {
                let _ = writeln!(
                    script,
                    "link add name {bridge} address {} type bridge",
                    self.mac()
                );
            }
        }
        let _ = writeln!(
            script,
            "link set dev {bridge} type bridge stp_state 0 forward_delay 0\n\
             address replace {address}/{prefix_len} broadcast + dev {bridge}\n\
             link set dev {bridge} up"
        );
        ip(
            &format!("cannot set up bridge {bridge}"),
            &["-batch", "-"],
            &script,
        )
        .map(drop)
    }

    /// Removes the bridge if it is there and ours; taps on it lose their network.
    pub fn remove_bridge(&self) -> Result<(), NetError> {
        if self.find_bridge()? == Bridge::Ours {
            let what = format!("cannot remove bridge {}", self.bridge);
            ip(&what, &["link", "delete", "dev", &self.bridge], "")?;
        }
        Ok(())
    }

    /// What there is of it; changes nothing, and takes no rights.
    ///
    /// # Errors
    /// Why it cannot be made or used.
    pub fn find_bridge(&self) -> Result<Bridge, NetError> {
        self.check()?;
        let interfaces: Vec<Interface> = listed(
            "cannot list the network interfaces",
            &["-json", "-details", "address", "show"],
        )?;
        let routes: Vec<Route> = listed(
            "cannot list the routes",
            &["-json", "-4", "route", "show", "table", "all"],
        )?;
        self.judge(&interfaces, &routes)
    }

    fn judge(&self, interfaces: &[Interface], routes: &[Route]) -> Result<Bridge, NetError> {
        let Some(found) = interfaces.iter().find(|other| other.ifname == self.bridge) else {
            self.clash(interfaces, routes)?;
            return Ok(Bridge::Free);
        };
        let bridge = &self.bridge;
        let not_ours = |what: String, remedy: String| {
            Err(NetError::NotOurs {
                name: bridge.clone(),
                what,
                remedy,
            })
        };
        let remove = format!("remove it with `ip link del {bridge}`");
        if found.linkinfo.info_kind.as_deref() != Some("bridge") {
            return not_ours("not a bridge".to_owned(), remove);
        }
        let mut has_ours = false;
        for (address, prefix_len) in found.addresses() {
            if (address, prefix_len) != (self.address, self.prefix_len) {
                return not_ours(format!("a bridge of the network {address}/{prefix_len}"), remove);
            }
            has_ours = true;
        }
        if found.address == self.mac() {
            // What would be added is asked about; what is there was decided before.
            if !has_ours {
                self.clash(interfaces, routes)?;
            }
            return Ok(Bridge::Ours);
        }
        if !has_ours {
            return not_ours(
                "a bridge that Thiao did not make".to_owned(),
                format!("give it the guests' network with `ip address add {self} dev {bridge}`"),
            );
        }
        if !found.flags.iter().any(|flag| flag == "UP") {
            return Err(NetError::Down(bridge.clone()));
        }
        Ok(Bridge::Adopted)
    }

    /// Whether addresses or routes of this machine's are in the way of this network.
    fn clash(&self, interfaces: &[Interface], routes: &[Route]) -> Result<(), NetError> {
        for interface in interfaces {
            for (address, prefix_len) in interface.addresses() {
                if self.overlaps(address, prefix_len) {
                    return Err(NetError::AddressClash {
                        wanted: self.to_string(),
                        taken: format!("{address}/{prefix_len}"),
                        interface: interface.ifname.clone(),
                    });
                }
            }
        }
        for route in routes {
            // The kernel's own, for the addresses that were asked about above.
            let own = matches!(
                route.kind.as_deref(),
                Some("local" | "broadcast" | "multicast" | "anycast")
            );
            let to = route.network().filter(|(_, prefix_len)| *prefix_len > AS_DEFAULT);
            let taken = to.filter(|(address, prefix_len)| !own && self.overlaps(*address, *prefix_len));
            if let Some((address, prefix_len)) = taken {
                return Err(NetError::RouteClash {
                    wanted: self.to_string(),
                    taken: format!("{address}/{prefix_len}"),
                    by: route
                        .dev
                        .as_ref()
                        .map_or_else(String::new, |dev| format!(" by {dev}")),
                });
            }
        }
        Ok(())
    }

    fn overlaps(&self, address: Ipv4Addr, prefix_len: u8) -> bool {
        let theirs = Network {
            bridge: String::new(),
            address,
            prefix_len,
        };
        let ((first, last), (their_first, their_last)) = (self.range(), theirs.range());
        their_first <= last && first <= their_last
    }
}

impl Interface {
    fn addresses(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        self.addr_info.iter().filter_map(|found| match found.local {
            IpAddr::V4(address) => Some((address, found.prefixlen)),
            IpAddr::V6(_) => None,
        })
    }
}

impl Route {
    /// Where it leads; none: everywhere else (`default`).
    fn network(&self) -> Option<(Ipv4Addr, u8)> {
        let (address, prefix_len) = self.dst.split_once('/').unwrap_or((&self.dst, "32"));
        Some((address.parse().ok()?, prefix_len.parse().ok()?))
    }
}

/// All IPv4 addresses of this machine.
///
/// # Errors
/// When `ip` does not say.
pub fn own_addresses() -> Result<Vec<Ipv4Addr>, NetError> {
    let interfaces: Vec<Interface> = listed(
        "looking at this machine's addresses",
        &["-json", "-details", "address", "show"],
    )?;
    let addresses = interfaces.iter().flat_map(Interface::addresses);
    Ok(addresses.map(|(address, _)| address).collect())
}

/// What `ip` lists; nothing is an empty list.
fn listed<T: DeserializeOwned>(what: &str, arguments: &[&str]) -> Result<Vec<T>, NetError> {
    let listing = ip(what, arguments, "")?;
    if listing.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&listing).map_err(|e| NetError::Ip {
        what: what.to_owned(),
        said: format!("text that is not understood: {e}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "02:54:0a:54:00:01";

    fn network() -> Network {
        Network {
            bridge: "thiao0".to_owned(),
            address: Ipv4Addr::new(10, 84, 0, 1),
            prefix_len: 16,
        }
    }

    fn interface(name: &str, kind: &str, mac: &str, flags: &str, address: &str) -> String {
        let address = match address.split_once('/') {
            Some((local, len)) => format!(r#"{{"family":"inet","local":"{local}","prefixlen":{len}}}"#),
            None => String::new(),
        };
        format!(
            r#"{{"ifname":"{name}","flags":["{flags}"],"address":"{mac}","linkinfo":{{"info_kind":"{kind}"}},"addr_info":[{address}]}}"#
        )
    }

    fn judged(interfaces: &[String], routes: &str) -> Result<Bridge, String> {
        let interfaces: Vec<Interface> =
            serde_json::from_str(&format!("[{}]", interfaces.join(","))).unwrap();
        let routes: Vec<Route> = serde_json::from_str(routes).unwrap();
        network()
            .judge(&interfaces, &routes)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_ours_is_known_by_its_mac_and_others_are_left_alone() {
        let is = |mac: &str, flags: &str, address: &str| {
            judged(&[interface("thiao0", "bridge", mac, flags, address)], "[]")
        };
        assert_eq!(is(OURS, "UP", "10.84.0.1/16"), Ok(Bridge::Ours));
        assert_eq!(is(OURS, "NO-CARRIER", ""), Ok(Bridge::Ours));
        let other = "52:54:00:11:22:33";
        assert_eq!(is(other, "UP", "10.84.0.1/16"), Ok(Bridge::Adopted));
        let down = is(other, "NO-CARRIER", "10.84.0.1/16").unwrap_err();
        assert!(down.contains("`ip link set dev thiao0 up`"), "{down}");
        let bare = is(other, "UP", "").unwrap_err();
        assert!(
            bare.contains("did not make") && bare.contains("ip address add 10.84.0.1/16 dev thiao0"),
            "{bare}"
        );
        for elsewhere in ["10.84.0.2/16", "10.84.0.1/24", "192.168.0.1/24"] {
            let said = is(OURS, "UP", elsewhere).unwrap_err();
            assert!(said.contains(&format!("of the network {elsewhere}")), "{said}");
        }
        let card = judged(&[interface("thiao0", "veth", OURS, "UP", "10.84.0.1/16")], "[]").unwrap_err();
        assert!(card.contains("not a bridge"), "{card}");
    }

    #[test]
    fn no_network_is_taken_that_the_machine_reaches_elsewhere() {
        let routes =
            |dst: &str, more: &str| judged(&[], &format!(r#"[{{"dst":"{dst}","dev":"tun0"{more}}}]"#));
        for taken in ["10.0.0.0/8", "10.84.7.0/24", "10.84.200.9", "10.84.0.0/16"] {
            let said = routes(taken, "").unwrap_err();
            assert!(
                said.contains("overlaps the route to 10.") && said.contains("by tun0"),
                "{said}"
            );
            assert!(routes(taken, r#","table":"52""#).is_err());
        }
        for fine in ["default", "0.0.0.0/1", "10.85.0.0/16", "192.168.0.0/16"] {
            assert_eq!(routes(fine, ""), Ok(Bridge::Free), "{fine}");
        }
        assert_eq!(
            routes("10.84.255.255", r#","type":"broadcast""#),
            Ok(Bridge::Free)
        );
        assert!(judged(&[], r#"[{"dst":"10.84.0.0/24","type":"blackhole"}]"#).is_err());
        // A bridge that has its address was decided about before, by whoever made it.
        let ours = [interface("thiao0", "bridge", OURS, "UP", "10.84.0.1/16")];
        let wide = r#"[{"dst":"10.0.0.0/8","dev":"tun0"}]"#;
        assert_eq!(judged(&ours, wide), Ok(Bridge::Ours));
        let bare = [interface("thiao0", "bridge", OURS, "UP", "")];
        assert!(judged(&bare, wide).is_err());
    }
}
