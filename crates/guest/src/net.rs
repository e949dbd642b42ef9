//! The network card: address, route, link, by ioctl (no program is started for it).

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use thiao_guest::protocol::Card;

/// The card's name in the guest: there is one card.
const CARD: &str = "eth0";

/// Brings the links up that need no identity for it: a guest restored from a
/// template has that behind it. Without a card there is only the loopback.
pub fn links() -> io::Result<()> {
    let socket = socket()?;
    set_up(socket.as_raw_fd(), "lo")?;
    match set_up(socket.as_raw_fd(), CARD) {
        Err(e) if e.raw_os_error() != Some(libc::ENODEV) => Err(e),
        _ => Ok(()),
    }
}

/// Gives the card its identity and brings it up, with a default route.
/// Doing it again with the same values changes nothing.
pub fn configure(card: Card) -> Result<(), String> {
    let fail = |what: &str, e: io::Error| format!("cannot set the {what} of {CARD}: {e}");
    let socket = socket().map_err(|e| fail("identity", e))?;
    let fd = socket.as_raw_fd();

    let mut request = named(CARD);
    request.ifr_ifru.ifru_hwaddr = hardware(card.mac);
    ioctl(fd, libc::SIOCSIFHWADDR, &mut request).map_err(|e| fail("hardware address", e))?;

    let mut request = named(CARD);
    request.ifr_ifru.ifru_addr = internet(card.address);
    ioctl(fd, libc::SIOCSIFADDR, &mut request).map_err(|e| fail("address", e))?;

    let mask = u32::MAX
        .checked_shl(32 - u32::from(card.prefix_len.min(32)))
        .unwrap_or(0);
    let mut request = named(CARD);
    request.ifr_ifru.ifru_netmask = internet(Ipv4Addr::from(mask));
    ioctl(fd, libc::SIOCSIFNETMASK, &mut request).map_err(|e| fail("netmask", e))?;

    set_up(fd, CARD).map_err(|e| fail("link", e))?;

    let Some(gateway) = card.gateway else {
        return Ok(());
    };
    // SAFETY: rtentry is plain data, for which all zeroes is a valid value.
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    match ioctl(fd, libc::SIOCADDRT, &mut route) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(fail("default route", e)),
        _ => Ok(()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is checked and owned at once.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

fn set_up(fd: RawFd, card: &str) -> io::Result<()> {
    let mut request = named(card);
    ioctl(fd, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel has just filled the flags of this union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ioctl(fd, libc::SIOCSIFFLAGS, &mut request)
}

fn named(card: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: it ends the name.
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(card.bytes())
    {
        *to = from as libc::c_char;
    }
    request
}

fn hardware(mac: [u8; 6]) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: data,
    }
}

/// A `sockaddr_in` laid over a `sockaddr`: port 0, then the address.
fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn ioctl<T>(fd: RawFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller pairs the request with the structure that the kernel documents for it.
    let done = unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(argument)) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
