//! Takes an identity: random state, clock, name, users, secrets. Each step
//! gives the same result when it is done again.

use crate::Init;
use rustix::time::{ClockId, Timespec, clock_settime};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use thiao_guest::auth::Auth;
use thiao_guest::protocol::{Backup, GroupEntry, OneContext, UserEntry};
use thiao_guest::secret::Secret;
use thiao_guest::users::{SMALL_GROUP, SMALL_PASSWD, merge};

/// The munge key's place.
pub const MUNGE_KEY: &str = "/etc/munge/munge.key";

/// The Slurm key's place; slurmd is told it.
pub const SLURM_KEY: &str = "/etc/slurm/slurm.key";

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Makes this guest differ from others that were restored from the same template.
pub fn refresh(seed: &Secret, unix_ns: u64) -> Result<(), String> {
    reseed(seed).map_err(|e| format!("cannot reseed the random generator: {e}"))?;
    set_clock(unix_ns)
}

/// Everything of an identity that only this guest's memory is needed for.
pub fn apply(context: &OneContext, address: Ipv4Addr, init: Init) -> Result<(), String> {
    rustix::system::sethostname(context.hostname.as_bytes())
        .map_err(|e| format!("cannot set the host name: {e}"))?;
    let (passwd, group) = match init {
        Init::Own => (SMALL_PASSWD.to_owned(), SMALL_GROUP.to_owned()),
        Init::Systemd => (read(PASSWD)?, read(GROUP)?),
    };
    let people = merge(&passwd, &group, &context.users, &context.groups);
    complain(&people.clashes);
    let mut files = names(context, address, init);
    files.extend([(PASSWD, people.passwd), (GROUP, people.group)]);
    for (path, text) in files {
        write(Path::new(path), text.as_bytes(), 0o644)?;
    }
    let (place, secret) = match &context.auth {
        Auth::Munge { munge_key, .. } => (MUNGE_KEY, munge_key),
        Auth::Slurm { slurm_key } => (SLURM_KEY, slurm_key),
    };
    let key = secret
        .to_bytes()
        .ok_or("the cluster's key in the context is not hexadecimal")?;
    write(Path::new(place), &key, 0o400)?;
    if init == Init::Systemd {
        // Those that were restored from one template have the same.
        let id = random_uuid()?.replace('-', "");
        write(Path::new("/etc/machine-id"), id.as_bytes(), 0o444)?;
    }
    if let Err(why) = boot_id() {
        eprintln!("thiao-guest: {why}");
    }
    for user in &context.users {
        home(user)?;
    }
    Ok(())
}

/// Has these people beside those who are there already.
pub fn admit(users: &[UserEntry], groups: &[GroupEntry]) -> Result<(), String> {
    /// Two arrivals at once must not forget each other.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let people = merge(&read(PASSWD)?, &read(GROUP)?, users, groups);
    complain(&people.clashes);
    write(Path::new(GROUP), people.group.as_bytes(), 0o644)?;
    write(Path::new(PASSWD), people.passwd.as_bytes(), 0o644)?;
    users.iter().try_for_each(home)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))
}

/// For who reads the console.
fn complain(clashes: &[String]) {
    for clash in clashes {
        eprintln!("thiao-guest: {clash}");
    }
}

/// Where the kernel says by which number this boot is known.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Gives this guest a boot of its own. The kernel draws its number once: guests that were restored from one
/// template have the same, and who asks by it whether two processes are on one machine (UCX, of MPI) takes two
/// guests for one. As in systemd-nspawn's containers, another file takes its place.
fn boot_id() -> Result<(), String> {
    let file = Path::new("/run/thiao-boot-id");
    if file.exists() {
        return Ok(());
    }
    write(file, random_uuid()?.as_bytes(), 0o444)?;
    rustix::mount::mount_bind(file, BOOT_ID).map_err(|e| format!("cannot change {BOOT_ID}: {e}"))
}

fn random_uuid() -> Result<String, String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| format!("cannot draw a number: {e}"))
}

/// Sets the clock; credentials of munge live 300 s, so it must be about right.
pub fn set_clock(unix_ns: u64) -> Result<(), String> {
    const NS: u64 = 1_000_000_000;
    let time = Timespec {
        tv_sec: (unix_ns / NS).cast_signed(),
        tv_nsec: (unix_ns % NS).cast_signed(),
    };
    clock_settime(ClockId::Realtime, time).map_err(|e| format!("cannot set the clock: {e}"))
}

/// Feeds the seed to the kernel's generator and makes it take effect at once:
/// until then, guests restored from one template would draw the same numbers.
pub fn reseed(seed: &Secret) -> io::Result<()> {
    /// The kernel's `struct rand_pool_info` with capacity for the seed.
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; 64],
    }
    /// `_IOW('R', 3, int[2])` and `_IO('R', 7)` of `linux/random.h`.
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

    let seed = seed
        .to_bytes()
        .ok_or_else(|| io::Error::other("the seed is not hexadecimal"))?;
    let mut pool = PoolInfo {
        entropy_bits: 0,
        bytes: 0,
        data: [0; 64],
    };
    let length = seed.len().min(pool.data.len());
    pool.data[..length].copy_from_slice(&seed[..length]);
    pool.bytes = length as libc::c_int;
    pool.entropy_bits = pool.bytes * 8;
    let device = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the structure is the one that the kernel documents for the request, and lives through the call.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &raw const pool) };
    if added < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request takes no argument.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The files by which this guest finds names. Where there is nobody to ask, the list of servers is empty,
/// whatever the image had there: a look-up fails at once then, and waits for no server out of reach.
fn names(context: &OneContext, address: Ipv4Addr, init: Init) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("/etc/hostname", format!("{}\n", context.hostname)),
        ("/etc/hosts", hosts(context, address)),
        ("/etc/resolv.conf", context.resolver.text()),
    ];
    if init == Init::Own {
        // An image has its own.
        let hosts = if context.resolver.is_none() {
            "files"
        } else {
            "files dns"
        };
        let others = "passwd: files\ngroup: files\nshadow: files\nservices: files\n";
        files.push(("/etc/nsswitch.conf", format!("{others}hosts: {hosts}\n")));
    }
    files
}

fn hosts(context: &OneContext, address: Ipv4Addr) -> String {
    let mut text = String::from("127.0.0.1 localhost\n");
    // Writing to a String does not fail.
    let _ = writeln!(text, "{address} {}", context.hostname);
    let _ = writeln!(text, "{} {}", context.slurmctld_addr, context.slurmctld_host);
    for Backup { host, addr } in &context.backups {
        let _ = writeln!(text, "{addr} {host}");
    }
    text
}

/// A home that no share brings: the user's own empty folder.
fn home(user: &UserEntry) -> Result<(), String> {
    if user.uid == 0 || !user.home.is_absolute() || user.home.exists() {
        return Ok(());
    }
    let say = |e: io::Error| format!("cannot make {}: {e}", user.home.display());
    fs::create_dir_all(&user.home).map_err(say)?;
    chown(&user.home, Some(user.uid), Some(user.gid)).map_err(say)
}

/// Replaces a file as a whole, so that nobody reads half of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let say = |e: io::Error| format!("cannot write {}: {e}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(say)?;
    }
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(say)?;
    file.write_all(bytes).map_err(say)?;
    fs::rename(&fresh, path).map_err(say)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_guest::protocol::Resolver;

    fn context(servers: &[Ipv4Addr]) -> OneContext {
        OneContext {
            id: "fg1.3".into(),
            hostname: "fg1".into(),
            slurmctld_host: "head".into(),
            slurmctld_addr: Ipv4Addr::new(10, 9, 0, 1),
            slurmctld_port: 6817,
            backups: vec![],
            auth: Auth::Slurm {
                slurm_key: Secret::from_bytes(b"key"),
            },
            users: vec![],
            groups: vec![],
            shares: vec![],
            resolver: Resolver {
                servers: servers.to_vec(),
                search: vec![],
            },
        }
    }

    #[test]
    fn a_guest_with_nobody_to_ask_has_no_server_of_the_image() {
        let address = Ipv4Addr::new(10, 9, 0, 7);
        let of = |context: &OneContext, init, path| {
            let found = names(context, address, init)
                .into_iter()
                .find(|(name, _)| *name == path);
            found.map(|(_, text)| text)
        };
        let alone = context(&[]);
        for init in [Init::Own, Init::Systemd] {
            assert_eq!(of(&alone, init, "/etc/resolv.conf").as_deref(), Some(""));
            let hosts = of(&alone, init, "/etc/hosts").unwrap();
            assert!(
                hosts.contains("10.9.0.7 fg1\n") && hosts.contains("10.9.0.1 head\n"),
                "{hosts}"
            );
        }
        let told = context(&[Ipv4Addr::new(10, 0, 0, 53)]);
        assert_eq!(
            of(&told, Init::Systemd, "/etc/resolv.conf").as_deref(),
            Some("nameserver 10.0.0.53\n")
        );
        assert_eq!(
            of(&told, Init::Systemd, "/etc/nsswitch.conf"),
            None,
            "it is the image's"
        );
        assert!(
            of(&told, Init::Own, "/etc/nsswitch.conf")
                .unwrap()
                .contains("hosts: files dns\n")
        );
        assert!(
            of(&alone, Init::Own, "/etc/nsswitch.conf")
                .unwrap()
                .contains("hosts: files\n")
        );
    }
}
