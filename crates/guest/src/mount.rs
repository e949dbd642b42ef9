//! Kernel file systems, and the shares of the machine.

use crate::modules;
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use thiao_guest::protocol::{Modules, NfsVersion, ShareMount};

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
    ];
    for (kind, target, flags, data) in table {
        one(kind, target, flags, data)?;
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

/// The shared memory of a guest whose `/tmp` is on a disk.
pub fn shared_memory() -> Result<(), String> {
    one("tmpfs", SHARED_MEMORY, SHARED_MEMORY_FLAGS, "mode=1777")
}

/// The folders for all of a guest that has memory alone. Each has a limit, and none is one with slurmd's spool: who
/// fills one is told so, and nobody else is.
pub fn folders_for_all() -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    one("tmpfs", "/tmp", flags, "mode=1777,size=20%")?;
    one("tmpfs", "/var/tmp", flags, "mode=1777,size=10%")?;
    one("tmpfs", SHARED_MEMORY, SHARED_MEMORY_FLAGS, "mode=1777,size=20%")
}

const SHARED_MEMORY: &str = "/dev/shm";

const SHARED_MEMORY_FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NODEV);

fn one(kind: &str, target: &str, flags: MountFlags, data: &str) -> Result<(), String> {
    // The folders below /dev exist only once /dev is mounted.
    let _ = fs::create_dir(target);
    let data = CString::new(data).map_err(|e| e.to_string())?;
    match mount(kind, target, kind, flags, data.as_c_str()) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(e) => Err(format!("cannot mount {kind} on {target}: {e}")),
    }
}

/// Mounts a share, trying again while the server or the way to it is not there yet.
pub fn share(share: &ShareMount) -> Result<(), String> {
    let target = &share.target;
    fs::create_dir_all(target).map_err(|e| format!("cannot make {}: {e}", target.display()))?;
    if is_mounted(target) {
        return Ok(());
    }
    if share.version == NfsVersion::V4_2 {
        modules::load(Modules::Nfs4)?;
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

fn try_share(share: &ShareMount) -> Result<(), String> {
    let (flags, options) = words(share);
    let source =
        CString::new(format!("{}:{}", share.server, share.path.display())).map_err(|e| e.to_string())?;
    let options = CString::new(options).map_err(|e| e.to_string())?;
    mount(
        source.as_c_str(),
        &share.target,
        c"nfs",
        flags,
        options.as_c_str(),
    )
    .map_err(|e| e.to_string())
}

/// What mount(2) is told. Options that the kernel has as flags are not among the words that it reads.
fn words(share: &ShareMount) -> (MountFlags, String) {
    let mut words = share.first_options();
    // Never these two, whatever is asked for: what a user puts there must not make him root.
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    for option in &share.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "rw" | "exec" | "atime" | "nosuid" | "nodev" | "suid" | "dev" | "defaults" | "_netdev"
            | "auto" => {}
            word => {
                words.push(',');
                words.push_str(word);
            }
        }
    }
    (flags, words)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use thiao_guest::protocol::NFS_PORT;

    #[test]
    fn our_exports_and_a_sites_servers_are_mounted_each_in_its_way() {
        let server = Ipv4Addr::new(10, 9, 0, 1);
        let mut share = ShareMount::plain(server, 4000, "/".into(), "/home/ada".into());
        let always = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(
            words(&share),
            (
                always,
                "vers=3,proto=tcp,mountproto=tcp,nolock,port=4000,addr=10.9.0.1,mountaddr=10.9.0.1,mountport=4000,\
                 actimeo=1"
                    .to_owned()
            )
        );
        share.port = NFS_PORT;
        share.version = NfsVersion::V4_2;
        share.options = ["ro", "suid", "rsize=65536"].map(str::to_owned).to_vec();
        assert_eq!(
            words(&share),
            (
                always | MountFlags::RDONLY,
                "vers=4.2,proto=tcp,port=2049,addr=10.9.0.1,rsize=65536".to_owned()
            )
        );
    }
}
