//! Kernel file systems, and the shares of the machine.

use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use thiao_guest::protocol::{NFS_PORT, ShareMount};

/// How long a share may take to answer before the guest gives up.
const SHARE_LIMIT: Duration = Duration::from_secs(40);

/// Mounts what every program expects of a Linux system.
pub fn kernel_filesystems() -> Result<(), String> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let device = MountFlags::NOSUID;
    let table = [
        ("devtmpfs", "/dev", device, "mode=0755"),
        ("proc", "/proc", plain, ""),
        ("sysfs", "/sys", plain, ""),
        (
            "devpts",
            "/dev/pts",
            device | MountFlags::NOEXEC,
            "mode=0620,gid=5,ptmxmode=0666",
        ),
        ("tmpfs", "/dev/shm", plain, "mode=1777"),
    ];
    for (kind, target, flags, data) in table {
        // The folders below /dev exist only once /dev is mounted.
        let _ = fs::create_dir(target);
        let data = CString::new(data).map_err(|e| e.to_string())?;
        match mount(kind, target, kind, flags, data.as_c_str()) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(e) => return Err(format!("cannot mount {kind} on {target}: {e}")),
        }
    }
    for (link, to) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(to, link);
    }
    Ok(())
}

/// Mounts a share, trying again while the server or the way to it is not there yet.
pub fn share(share: &ShareMount) -> Result<(), String> {
    let target = &share.target;
    fs::create_dir_all(target).map_err(|e| format!("cannot make {}: {e}", target.display()))?;
    if is_mounted(target) {
        return Ok(());
    }
    let started = Instant::now();
    loop {
        match try_share(share) {
            Ok(()) => return Ok(()),
            Err(e) if started.elapsed() > SHARE_LIMIT => {
                return Err(format!(
                    "cannot mount {}:{} on {}: {e}",
                    share.server,
                    share.port,
                    target.display()
                ));
            }
            Err(e) => {
                eprintln!("thiao-guest: {} is not there yet: {e}", target.display());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// The kernel does the mount protocol by itself when given addresses and ports;
/// without a port for it, it asks the server's port mapper.
/// No lock daemon runs on either side, hence `nolock`. `retrans` and `timeo`
/// stay at the defaults of a hard mount: a job waits rather than loses output.
fn try_share(share: &ShareMount) -> Result<(), String> {
    let mut options = format!(
        "vers=3,proto=tcp,mountproto=tcp,nolock,port={port},actimeo=1,addr={addr},mountaddr={addr}",
        port = share.port,
        addr = share.server,
    );
    if share.port != NFS_PORT {
        // Writing to a String does not fail.
        let _ = write!(options, ",mountport={}", share.port);
    }
    let source =
        CString::new(format!("{}:{}", share.server, share.path.display())).map_err(|e| e.to_string())?;
    let options = CString::new(options).map_err(|e| e.to_string())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        source.as_c_str(),
        &share.target,
        c"nfs",
        flags,
        options.as_c_str(),
    )
    .map_err(|e| e.to_string())
}

fn is_mounted(target: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
        return false;
    };
    let target = target
        .to_string_lossy()
        .replace('\\', "\\134")
        .replace(' ', "\\040");
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&target))
}
