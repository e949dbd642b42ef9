//! The guests' network: one bridge on this machine, one tap per VM.
//!
//! Taps are not persistent: they vanish with the last descriptor that holds
//! them, so a VM that ends, however it ends, leaves none behind. The bridge, in `bridge`,
//! stays until the machine's next boot: VMs and exports outlive the controller.

mod bridge;

pub use bridge::{Bridge, own_addresses};

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest name that the kernel takes for an interface (`IFNAMSIZ` less the final NUL).
const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// From `linux/sockios.h`; the crate libc lacks it.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

const TUN: &str = "/dev/net/tun";

/// Where Debian and its kin keep `ip`; an ordinary user's or a hook's `PATH` may name none of them.
const IP_PROGRAMS: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];

/// What went wrong with the guests' network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The name does not fit.
    #[error(
        "interface name {0:?} is not usable: choose 1 to {MAX_NAME} of letters, digits, '.', '_' and '-'"
    )]
    BadName(String),
    /// The network is too small, or its host side is not one of its usable addresses.
    #[error(
        "network {0} has no place for its host side and a guest: give an address inside a network of /8 to /30"
    )]
    BadNetwork(String),
    /// Another interface has addresses of this network.
    #[error("network {wanted} clashes with {taken} on {interface}: choose another network for the guests")]
    AddressClash {
        wanted: String,
        taken: String,
        interface: String,
    },
    /// The machine sends what is for some of these addresses elsewhere.
    #[error(
        "network {wanted} overlaps the route to {taken}{by}: choose another network for the guests (qemu.address, \
         qemu.prefix_len); if it must be this one, make the bridge yourself, with {wanted}, before thiaod starts"
    )]
    RouteClash {
        wanted: String,
        taken: String,
        /// ` by` which interface it goes, where one is named.
        by: String,
    },
    /// The name belongs to something else.
    #[error("interface {name} exists already and is {what}: choose another name (qemu.bridge), or {remedy}")]
    NotOurs {
        name: String,
        /// What it is, in words.
        what: String,
        /// What makes it usable.
        remedy: String,
    },
    /// A bridge that somebody else has made for us is not up.
    #[error("bridge {0} is down, and Thiao did not make it: `ip link set dev {0} up`")]
    Down(String),
    /// The bridge is not there.
    #[error("there is no bridge {0} to put a tap on: it was removed, or never made")]
    NoBridge(String),
    /// A tap of this name is held by a process.
    #[error("tap {0} is in use: the VM that holds it must end first, or the new one needs another name")]
    TapBusy(String),
    /// `/dev/net/tun` is not there.
    #[error("{TUN} is missing ({0}): load the driver with `modprobe tun` as root")]
    TunMissing(io::Error),
    /// `/dev/net/tun` may not be opened by us.
    #[error("{TUN} may not be opened by this user (mode {mode:04o}): run `chmod 0666 {TUN}` as root")]
    TunClosed { mode: u32 },
    /// We lack the right to change the network.
    #[error(
        "{what}: not permitted; it takes CAP_NET_ADMIN: run as root, or in the lab's own network namespace"
    )]
    NotPermitted { what: String },
    /// The program `ip` cannot be started.
    #[error("cannot run `ip` ({0}): install the package iproute2")]
    NoIpProgram(io::Error),
    /// The program `ip` refused, or was not understood.
    #[error("{what}: ip says: {said}")]
    Ip { what: String, said: String },
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
}

/// The guests' network and the bridge that carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub bridge: String,
    /// The host's address on it, which is the guests' gateway.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 8 to 30.
    pub prefix_len: u8,
}

/// The name of the tap of a VM with that address: unique where the address is, and at most 15 bytes.
#[must_use]
pub fn tap_of(address: Ipv4Addr) -> String {
    format!("th{:08x}", u32::from(address))
}

impl Network {
    /// Opens a new tap of that name, on the bridge and up.
    ///
    /// The descriptor closes on exec (the caller decides who inherits it) and
    /// carries virtio-net headers, which QEMU finds out by itself.
    pub fn open_tap(&self, name: &str) -> Result<OwnedFd, NetError> {
        check_name(name)?;
        let tun = open_tun()?;
        let mut request = ifreq(name);
        // EXCL: never take over a persistent tap that somebody else has made.
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        ioctl(&tun, libc::TUNSETIFF, &mut request).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => NetError::TapBusy(name.to_owned()),
            _ => os(format!("cannot make tap {name}"), e),
        })?;

        self.put_on_bridge(name)?;
        Ok(tun.into())
    }

    /// Puts a tap on the bridge, and up. No: it is on one already, or there is no such tap.
    ///
    /// # Errors
    /// When there is no bridge, or it takes no more.
    pub fn put_on_bridge(&self, tap: &str) -> Result<bool, NetError> {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .map_err(|e| os("cannot open a socket to set up taps".to_owned(), e.into()))?;
        let index = match rustix::net::netdevice::name_to_index(&socket, tap) {
            Ok(index) => index,
            Err(rustix::io::Errno::NODEV) => return Ok(false),
            Err(e) => return Err(os(format!("cannot find the tap {tap}"), e.into())),
        };
        let mut request = ifreq(&self.bridge);
        request.ifr_ifru.ifru_ifindex = index as c_int;
        match ioctl(&socket, SIOCBRADDIF, &mut request).map_err(|e| (e.raw_os_error(), e)) {
            Ok(()) => {}
            Err((Some(libc::EBUSY), _)) => return Ok(false),
            Err((Some(libc::ENODEV), _)) => return Err(NetError::NoBridge(self.bridge.clone())),
            Err((_, e)) => return Err(os(format!("cannot put tap {tap} on bridge {}", self.bridge), e)),
        }
        let mut request = ifreq(tap);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        ioctl(&socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
            .map_err(|e| os(format!("cannot set tap {tap} up"), e))?;
        Ok(true)
    }

    /// Addresses for guests, in order: the network's own, its broadcast address and the host side are left out.
    pub fn pool(&self) -> impl Iterator<Item = Ipv4Addr> {
        let host = u32::from(self.address);
        let (first, last) = self.range();
        (first.saturating_add(1)..last)
            .filter(move |&a| a != host)
            .map(Ipv4Addr::from)
    }

    /// The bridge's MAC: locally administered, told by the host side's address.
    #[must_use]
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// First and last address of the network.
    fn range(&self) -> (u32, u32) {
        let hosts = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
        let address = u32::from(self.address);
        (address & !hosts, address | hosts)
    }

    fn check(&self) -> Result<(), NetError> {
        check_name(&self.bridge)?;
        let (first, last) = self.range();
        let address = u32::from(self.address);
        if !(8..=30).contains(&self.prefix_len) || address == first || address == last {
            return Err(NetError::BadNetwork(self.to_string()));
        }
        Ok(())
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

fn check_name(name: &str) -> Result<(), NetError> {
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if good {
        Ok(())
    } else {
        Err(NetError::BadName(name.to_owned()))
    }
}

fn open_tun() -> Result<File, NetError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN)
        .map_err(|e| match e.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => NetError::TunClosed {
                mode: std::fs::metadata(TUN).map_or(0, |m| m.permissions().mode() & 0o7777),
            },
            _ => NetError::TunMissing(e),
        })
}

fn os(what: String, source: io::Error) -> NetError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NetError::NotPermitted { what },
        _ => NetError::Os { what, source },
    }
}

/// Runs `ip` with these arguments and this text as its input; gives what it printed.
fn ip(what: &str, arguments: &[&str], input: &str) -> Result<Vec<u8>, NetError> {
    let program = IP_PROGRAMS
        .into_iter()
        .find(|p| Path::new(p).exists())
        .unwrap_or("ip");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetError::NoIpProgram)?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(NetError::NoIpProgram)?;
    if output.status.success() {
        written.map_err(|e| os(what.to_owned(), e))?;
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if said.contains("Operation not permitted") {
        return Err(NetError::NotPermitted {
            what: what.to_owned(),
        });
    }
    Err(NetError::Ip {
        what: what.to_owned(),
        said,
    })
}

/// A request about the interface of that name, else zero. The name was checked, or is cut to what fits.
fn ifreq(name: &str) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid `ifreq`: an array of characters and a union of plain numbers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(fd: &impl AsRawFd, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every number used here reads or writes one `ifreq` and keeps no pointer to it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix_len: u8) -> Network {
        Network {
            bridge: "br0".to_owned(),
            address: address.parse().unwrap(),
            prefix_len,
        }
    }

    #[test]
    fn pool_leaves_out_what_no_guest_may_have() {
        let pool: Vec<_> = network("10.9.0.5", 29).pool().map(|a| a.octets()[3]).collect();
        assert_eq!(pool, [1, 2, 3, 4, 6]);
        assert_eq!(network("10.9.0.1", 30).pool().count(), 1);
        assert_eq!(network("10.9.0.1", 16).pool().count(), 65533);
        for narrow in [31, 32] {
            assert_eq!(network("10.9.0.1", narrow).pool().count(), 0);
        }
        assert_eq!(network("255.255.255.254", 24).pool().count(), 253);
    }

    #[test]
    fn impossible_networks_and_names_are_refused() {
        for bad in [
            ("10.9.0.0", 24),
            ("10.9.0.255", 24),
            ("10.9.0.1", 31),
            ("10.9.0.1", 0),
            ("10.9.0.1", 33),
        ] {
            assert!(
                matches!(network(bad.0, bad.1).check(), Err(NetError::BadNetwork(_))),
                "{bad:?}"
            );
        }
        assert!(network("10.9.0.1", 24).check().is_ok());
        for bad in ["", "0123456789abcdef", "a b", "-br", "br\ndel", "br/0", "é"] {
            assert!(matches!(check_name(bad), Err(NetError::BadName(_))), "{bad:?}");
        }
        assert!(check_name("0123456789abcde").is_ok());
    }

    #[test]
    fn mac_is_local_and_tells_networks_apart() {
        assert_eq!(network("10.9.0.1", 24).mac(), "02:54:0a:09:00:01");
    }
}
