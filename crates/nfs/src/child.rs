//! The process that an export is: becomes its share's user, tells its port, and serves until it is ended.

use crate::args::User;
use crate::error::ExportError;
use crate::record::{GRACE, PAUSE, PORTS, Record};
use crate::start::{listen, open, port, serve_on};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The subcommand: becomes the share's user and serves until it is ended.
/// Arguments: the folder, the address, uid and gid. Returns only when it fails.
#[must_use]
pub fn child(arguments: &[OsString]) -> ExitCode {
    let Err(error) = run_child(arguments);
    // To the controller, which waits for a line, and to the log.
    let _ = writeln!(io::stdout(), "{error}");
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::FAILURE
}

fn run_child(arguments: &[OsString]) -> Result<Infallible, ExportError> {
    let number = |text: &OsStr| text.to_str()?.parse().ok();
    let [folder, bind, uid, gid] = arguments else {
        return Err(ExportError::ByHand);
    };
    let bind: Option<Ipv4Addr> = bind.to_str().and_then(|b| b.parse().ok());
    let (Some(bind), Some(uid), Some(gid)) = (bind, number(uid), number(gid)) else {
        return Err(ExportError::ByHand);
    };
    let stdin = rustix::io::dup(io::stdin()).map_err(|_| ExportError::ByHand)?;
    let mut record = File::from(stdin);
    if !record.metadata().is_ok_and(|m| m.is_file()) {
        return Err(ExportError::ByHand);
    }
    // Away from the controller's terminal and its Ctrl-C.
    let _ = rustix::process::setsid();
    let owner = User { uid, gid };
    become_user(owner).map_err(|source| ExportError::User { uid, gid, source })?;

    let mut former = String::new();
    let _ = record.read_to_string(&mut former);
    let former: Option<Record> = serde_json::from_str(&former).ok();
    let folder = Path::new(folder);
    let nfs = open(folder, owner)?;
    let first = usual_port(folder, owner);
    let listener = listen_again(bind, former.map_or(first, |r| r.port), first)?;
    let port = port(&listener)?;
    let told = Record {
        pid: std::process::id(),
        port,
        folder: folder.display().to_string(),
    };
    let text = serde_json::to_vec(&told).map_err(io::Error::from);
    text.and_then(|text| {
        record.set_len(0)?;
        record.rewind()?;
        record.write_all(&text)
    })
    .map_err(|source| ExportError::State {
        what: "write",
        path: "the export's record".into(),
        source,
    })?;
    let _ = writeln!(io::stdout(), "ready {port}");
    serve_on(&listener, nfs)
}

/// Listens on the former port. It may be held for a moment by the export that had it, whose lock goes before its
/// socket does; when it stays taken, guests of before must go without, and later ones get another port.
fn listen_again(bind: Ipv4Addr, former: u16, first: u16) -> Result<TcpListener, ExportError> {
    let start = Instant::now();
    loop {
        match listen(SocketAddr::V4(SocketAddrV4::new(bind, former))) {
            Err(error) if is_in_use(&error) => {}
            result => return result,
        }
        if former == first || start.elapsed() > GRACE {
            return listen_anew(bind, first);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Listens on the first port that is free, from `first` on and around.
fn listen_anew(bind: Ipv4Addr, first: u16) -> Result<TcpListener, ExportError> {
    let around = (first..=*PORTS.end()).chain(*PORTS.start()..first);
    let mut last = None;
    for port in around {
        match listen(SocketAddr::V4(SocketAddrV4::new(bind, port))) {
            Err(error @ ExportError::Listen { .. }) if is_in_use(&error) => last = Some(error),
            result => return result,
        }
    }
    Err(last.unwrap_or(ExportError::ByHand))
}

fn is_in_use(error: &ExportError) -> bool {
    matches!(error, ExportError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

/// Where a folder's export looks for a port first: each elsewhere, so that few are tried.
fn usual_port(folder: &Path, owner: User) -> u16 {
    let mut hash = Sha256::new();
    hash.update(folder.as_os_str().as_bytes());
    hash.update(format!("\0{}", owner.uid));
    let hash = hash.finalize();
    let number = u16::from_be_bytes([hash[0], hash[1]]);
    PORTS.start() + number % (PORTS.end() - PORTS.start() + 1)
}

/// Gives up all rights but that user's. Where his uid does not exist (a user
/// namespace with one user), that one user acts for him.
fn become_user(user: User) -> io::Result<()> {
    let check = |result: libc::c_int| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    let current = User::current();
    if user.uid != current.uid && maps(user.uid)? {
        // Root has these rights, and a service to which they are given.
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        if user.uid == 0 || !capabilities(None)?.effective.contains(needed) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let groups = groups(user);
        // SAFETY: a pointer to that many gids.
        check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
        // SAFETY: plain numbers; glibc changes all threads.
        check(unsafe { libc::setgid(user.gid) })?;
        // SAFETY: as above.
        check(unsafe { libc::setuid(user.uid) })?;
    } else if user.uid == 0 && current.uid == 0 {
        return Ok(());
    }
    // Root's went with the uid; those of a service would not.
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

/// Whether a uid exists in this user namespace.
fn maps(uid: u32) -> io::Result<bool> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    Ok(map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _outside, count) = (numbers.next(), numbers.next(), numbers.next());
        first
            .zip(count)
            .is_some_and(|(first, count)| (first..first + count).contains(&u64::from(uid)))
    }))
}

/// All groups that the user is in, by the machine's own lists; his given one alone if he is not known there.
fn groups(user: User) -> Vec<libc::gid_t> {
    let mut buffer = vec![0; 16 << 10];
    // SAFETY: all-zero bytes are a valid `passwd`.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: the buffer has the length that is told, and outlives the entry, whose strings lie in it.
    let result = unsafe {
        libc::getpwuid_r(
            user.uid,
            &mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    if result != 0 || found.is_null() {
        return vec![user.gid];
    }
    let mut groups = vec![user.gid; 1024];
    let mut count = groups.len() as libc::c_int;
    // SAFETY: the name is the entry's; there is space for `count` gids.
    let result = unsafe { libc::getgrouplist(entry.pw_name, user.gid, groups.as_mut_ptr(), &mut count) };
    groups.truncate(if result < 0 {
        1
    } else {
        usize::try_from(count).unwrap_or(1)
    });
    groups
}
