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
use thiao_guest::auth::Auth;
use thiao_guest::protocol::{Backup, OneContext, UserEntry};
use thiao_guest::secret::Secret;

/// The munge key's place.
pub const MUNGE_KEY: &str = "/etc/munge/munge.key";

/// The Slurm key's place; slurmd is told it.
pub const SLURM_KEY: &str = "/etc/slurm/slurm.key";

/// Makes this guest differ from others that were restored from the same template.
pub fn refresh(seed: &Secret, unix_ns: u64) -> Result<(), String> {
    reseed(seed).map_err(|e| format!("cannot reseed the random generator: {e}"))?;
    set_clock(unix_ns)
}

/// Everything of an identity that only this guest's memory is needed for.
pub fn apply(context: &OneContext, address: Ipv4Addr, init: Init) -> Result<(), String> {
    rustix::system::sethostname(context.hostname.as_bytes())
        .map_err(|e| format!("cannot set the host name: {e}"))?;
    let files = [
        ("/etc/hostname", format!("{}\n", context.hostname)),
        ("/etc/hosts", hosts(context, address)),
        ("/etc/passwd", known("/etc/passwd", passwd(&context.users), init)),
        ("/etc/group", known("/etc/group", group(&context.users), init)),
    ];
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
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(|e| format!("cannot draw a number: {e}"))?;
        write(
            Path::new("/etc/machine-id"),
            id.replace('-', "").as_bytes(),
            0o444,
        )?;
    }
    for user in &context.users {
        home(user)?;
    }
    Ok(())
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

/// The lines of a file of names, beside those that the guest's system has of its own.
fn known(path: &str, lines: String, init: Init) -> String {
    let there = match init {
        Init::Own => return lines,
        Init::Systemd => fs::read_to_string(path).unwrap_or_default(),
    };
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut text = there.clone();
    for line in lines
        .lines()
        .filter(|line| !there.lines().any(|other| name(other) == name(line)))
    {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn passwd(users: &[UserEntry]) -> String {
    let mut text = String::from(
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    );
    for user in listed(users) {
        let UserEntry {
            name,
            uid,
            gid,
            home,
            shell,
        } = user;
        let _ = writeln!(
            text,
            "{name}:x:{uid}:{gid}:{name}:{}:{}",
            home.display(),
            shell.display()
        );
    }
    text
}

fn group(users: &[UserEntry]) -> String {
    let mut text = String::from("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    let mut seen = vec![0, 5, 65534];
    for user in listed(users) {
        if !seen.contains(&user.gid) {
            seen.push(user.gid);
            let _ = writeln!(text, "{}:x:{}:", user.name, user.gid);
        }
    }
    text
}

/// The users that may stand in a line-based file, beside those that are always there.
fn listed(users: &[UserEntry]) -> impl Iterator<Item = &UserEntry> {
    let plain = |text: &str| !text.contains([':', '\n', '\r', '\0']);
    users.iter().filter(move |user| {
        !["root", "nobody", ""].contains(&user.name.as_str())
            && plain(&user.name)
            && plain(&user.home.to_string_lossy())
            && plain(&user.shell.to_string_lossy())
    })
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

    fn user(name: &str, uid: u32, gid: u32) -> UserEntry {
        UserEntry {
            name: name.into(),
            uid,
            gid,
            home: format!("/home/{name}").into(),
            shell: "/bin/bash".into(),
        }
    }

    #[test]
    fn users_are_listed_once_and_cannot_smuggle_lines() {
        let users = [
            user("ada", 1000, 1000),
            user("bob", 1001, 1000),
            user("root", 7, 7),
            user("x\ny:0", 0, 0),
        ];
        let text = passwd(&users);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains("\nada:x:1000:1000:ada:/home/ada:/bin/bash\n"),
            "{text}"
        );
        let text = group(&users);
        assert_eq!(text.lines().filter(|l| l.contains(":1000:")).count(), 1, "{text}");
    }
}
