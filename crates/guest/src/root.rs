//! The way from the first file system, in memory, to a disk with a whole system: its disks are
//! mounted, this program is left where the system's init starts it as a service, and init takes over.
//!
//! So the system on the disk needs nothing of ours: it is an ordinary one, and stays good when Thiao is
//! upgraded.

use crate::modules;
use crate::systemd::{MUNGE_DROP_IN, SLURMD_DROP_IN};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use thiao_guest::protocol::{DISK_ROOT, DISK_SCRATCH, Modules};
use thiao_guest::units::{MUNGE_SERVICE, SLURMD_SERVICE};

/// Where the disk's system is before it becomes the root.
const NEW_ROOT: &str = "/sysroot";

/// Where this program is once the disk's system runs, and what init needs to know of it.
const HOME: &str = "run/thiao";

/// The first process of the disk's system.
const INIT: &str = "/sbin/init";

/// How long a disk may take to appear.
const APPEAR_LIMIT: Duration = Duration::from_secs(20);

/// What this program is to systemd. It waits until the system has come up: a guest that is saved then,
/// as a template, does none of that again. When memory is full it is not the one that is killed; whatever kills
/// it, it is started once more, as often as that may be, and goes on where it was: jobs come to the node all the while.
const UNIT: &str = "[Unit]\n\
    Description=Thiao's guest agent\n\
    After=basic.target dbus.service\n\
    StartLimitIntervalSec=0\n\
    [Service]\n\
    ExecStart=/run/thiao/thiao-guest --service\n\
    StandardOutput=journal+console\n\
    StandardError=journal+console\n\
    Restart=always\n\
    RestartSec=1\n\
    OOMScoreAdjust=-1000\n";

/// Slurm's units, and what is added to them. Whoever enabled them in the image: this program starts
/// them, when all is there.
const SLURMS: [(&str, [&str; 2]); 2] = [
    ("munge.service", [MUNGE_DROP_IN, MUNGE_SERVICE]),
    ("slurmd.service", [SLURMD_DROP_IN, SLURMD_SERVICE]),
];

/// The console asks nobody who he is: only the machine's root and the controller's user can reach it.
const CONSOLE: (&str, [&str; 2]) = (
    "serial-getty@ttyS0.service",
    [
        "[Service]\n\
    ExecStart=\n\
    ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - vt220\n",
        "",
    ],
);

/// What is of no use in a guest that lives for a job or a few, and takes seconds under emulation.
const MASKED: [&str; 3] = ["e2scrub_reap.service", "getty@tty1.service", "apt-daily.timer"];

/// Becomes the init of the system on the disk.
///
/// # Errors
/// What is missing, for people. It returns only then.
pub fn enter() -> Result<(), String> {
    modules::load(Modules::Always)?;
    modules::load(Modules::VirtioDisk)?;
    let root = Path::new(NEW_ROOT);
    fs::create_dir_all(root).map_err(|e| format!("cannot make {NEW_ROOT}: {e}"))?;
    mount_disk(DISK_ROOT, root)?;
    let run = root.join("run");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", &run, "tmpfs", flags, c"mode=0755,size=20%")
        .map_err(|e| format!("cannot mount /run: {e}"))?;
    leave_service(root)?;
    mount_scratch(root)?;
    crate::mount::shared_memory()?;
    for folder in ["dev", "proc", "sys"] {
        mount_move(Path::new("/").join(folder), root.join(folder))
            .map_err(|e| format!("cannot take /{folder} along: {e}"))?;
    }
    free_memory();
    switch(root)
}

/// Mounts the disk for what jobs write, as `/tmp` and as `/var/tmp`: neither may fill the disk on which
/// slurmd's spool is.
fn mount_scratch(root: &Path) -> Result<(), String> {
    let disk = root.join(HOME).join("scratch");
    let say = |what: &Path, e: &dyn std::fmt::Display| format!("cannot mount {}: {e}", what.display());
    fs::create_dir_all(&disk).map_err(|e| say(&disk, &e))?;
    mount_disk(DISK_SCRATCH, &disk)?;
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o700)).map_err(|e| say(&disk, &e))?;
    for name in ["tmp", "var/tmp"] {
        let (part, target) = (disk.join(name.replace('/', "-")), root.join(name));
        fs::create_dir_all(&part)
            .and_then(|()| fs::create_dir_all(&target))
            .and_then(|()| fs::set_permissions(&part, fs::Permissions::from_mode(0o1777)))
            .map_err(|e| say(&target, &e))?;
        mount_bind(&part, &target).map_err(|e| say(&target, &e))?;
    }
    Ok(())
}

/// Mounts the file system of the disk with this serial number.
fn mount_disk(serial: &str, target: &Path) -> Result<(), String> {
    let device = appear(serial)?;
    let flags = MountFlags::NOATIME;
    // Nobody needs what is on it once the VM is gone.
    const OPTIONS: &CStr = c"nobarrier";
    mount(&device, target, "ext4", flags, OPTIONS).map_err(|e| {
        format!(
            "cannot mount the disk {serial} ({}) on {}: {e}",
            device.display(),
            target.display()
        )
    })
}

/// The device of the disk with this serial number, once it is there.
fn appear(serial: &str) -> Result<PathBuf, String> {
    let started = Instant::now();
    loop {
        let disks = fs::read_dir("/sys/block").map_err(|e| format!("cannot read /sys/block: {e}"))?;
        for disk in disks.flatten() {
            let of = fs::read_to_string(disk.path().join("serial")).unwrap_or_default();
            let device = Path::new("/dev").join(disk.file_name());
            if of.trim() == serial && device.exists() {
                return Ok(device);
            }
        }
        if started.elapsed() > APPEAR_LIMIT {
            return Err(format!("there is no disk {serial}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Puts this program and its unit where the system's init finds them.
fn leave_service(root: &Path) -> Result<(), String> {
    let program = root.join(HOME).join("thiao-guest");
    let units = root.join("run/systemd/system");
    let wanted = units.join("multi-user.target.wants");
    let say = |what: &Path, e: io::Error| format!("cannot write {}: {e}", what.display());
    for folder in [&root.join(HOME), &wanted] {
        fs::create_dir_all(folder).map_err(|e| say(folder, e))?;
    }
    fs::copy("/init", &program).map_err(|e| say(&program, e))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(|e| say(&program, e))?;
    let unit = units.join("thiao-guest.service");
    fs::write(&unit, UNIT).map_err(|e| say(&unit, e))?;
    symlink("../thiao-guest.service", wanted.join("thiao-guest.service")).map_err(|e| say(&wanted, e))?;
    let enabled = root.join("etc/systemd/system/multi-user.target.wants");
    for (name, _) in SLURMS {
        let _ = fs::remove_file(enabled.join(name));
    }
    for name in MASKED {
        let unit = units.join(name);
        symlink("/dev/null", &unit).map_err(|e| say(&unit, e))?;
    }
    for (name, drop_in) in SLURMS.into_iter().chain([CONSOLE]) {
        let folder = units.join(format!("{name}.d"));
        let file = folder.join("50-thiao.conf");
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, drop_in.concat()))
            .map_err(|e| say(&file, e))?;
    }
    Ok(())
}

/// What is in memory only was needed to come here.
fn free_memory() {
    for place in ["/usr", "/etc", "/init"] {
        let path = Path::new(place);
        let _ = match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
    }
}

fn switch(root: &Path) -> Result<(), String> {
    let fail = |what: &str, e: rustix::io::Errno| format!("cannot change to the disk's system: {what}: {e}");
    rustix::process::chdir(root).map_err(|e| fail("chdir", e))?;
    mount_move(".", "/").map_err(|e| fail("mount", e))?;
    rustix::process::chroot(".").map_err(|e| fail("chroot", e))?;
    rustix::process::chdir("/").map_err(|e| fail("chdir", e))?;
    let error = Command::new(INIT).exec();
    Err(format!("cannot start the disk's {INIT}: {error}"))
}
