//! What the keeper does to its namespaces: own view of the files, own host
//! name, own processes; and how all of that ends.

use crate::auth::AuthBy;
use crate::layout::Layout;
use crate::person::{self, Person};
use crate::plan::Plan;
use anyhow::{Context, Result, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    unmount,
};
use rustix::process::{Signal, WaitOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The lab's host name, which `SlurmctldHost` must equal.
pub const HOST_NAME: &str = "thiao-lab";

/// Where nodes are until they say it themselves: nowhere. The kernel knows no way to this network, which is
/// for examples in documents (RFC 5737), and says so at once.
const NOWHERE: &str = "192.0.2.1";

/// Makes mounts private, gives the lab its own `/proc`, host name, `/etc/hosts`, users and loopback.
///
/// # Errors
/// When the kernel refuses a step; the error names it.
pub fn separate(layout: &Layout, plan: &Plan) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("the lab's mounts cannot be made private")?;
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )
    .context("the lab cannot have a /proc of its own (inside a container that masks parts of /proc?)")?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).context("the lab's host name cannot be set")?;
    crate::layout::make(&layout.etc(), 0o755)?;
    let address = plan.options.address;
    // Debian's Slurm from 24.11 on (not SchedMD's) tries for 10 s to resolve a name that has no address, and
    // slurmctld does nothing else meanwhile (measured on 24.11.5 and 26.05.5).
    let nodes: String = plan
        .node_names()?
        .map(|node| format!("{NOWHERE} {node}\n"))
        .collect();
    put_in_place(&layout.etc().join("hosts"), "/etc/hosts", |hosts| {
        format!("{hosts}\n{address} {HOST_NAME}\n{nodes}")
    })?;
    // There is no name server in here; asking for one takes Slurm's programs seconds.
    put_in_place(
        &layout.etc().join("nsswitch.conf"),
        "/etc/nsswitch.conf",
        |switch| {
            let rest = switch
                .lines()
                .filter(|line| !line.trim_start().starts_with("hosts:"));
            rest.chain(["hosts: files"])
                .map(|line| format!("{line}\n"))
                .collect()
        },
    )?;
    know_users(layout, plan)?;
    match plan.options.auth {
        AuthBy::Munge => {}
        AuthBy::Slurm => own_run(layout)?,
    }
    loopback_up()
}

/// A `/run` that the lab may write to, with all that the machine's has: with its own key, slurmctld listens
/// in a folder there, wherever else its files are.
fn own_run(layout: &Layout) -> Result<()> {
    let (run, outer) = (Path::new("/run"), layout.outer_run());
    let fail = || "the lab cannot have a /run of its own";
    crate::layout::make(&outer, 0o700)?;
    mount_bind_recursive(run, &outer).with_context(fail)?;
    mount(
        "tmpfs",
        run,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=755"),
    )
    .with_context(fail)?;
    for entry in std::fs::read_dir(&outer).with_context(fail)? {
        let entry = entry.with_context(fail)?;
        let (theirs, ours) = (entry.path(), run.join(entry.file_name()));
        let kind = entry.file_type().with_context(fail)?;
        if kind.is_symlink() {
            let target = std::fs::read_link(&theirs).with_context(fail)?;
            std::os::unix::fs::symlink(target, &ours).with_context(fail)?;
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(&ours).with_context(fail)?;
        } else {
            std::fs::write(&ours, "").with_context(fail)?;
        }
        mount_bind_recursive(&theirs, &ours).with_context(fail)?;
    }
    unmount(&outer, UnmountFlags::DETACH).with_context(fail)
}

/// A group that all of the lab's own users are in beside their own.
const COMMON_GROUP: &str = "labusers";
/// Its number, before theirs.
const COMMON_GID: u32 = 61_000;

/// Lets the lab know those of its users whom the machine does not know.
fn know_users(layout: &Layout, plan: &Plan) -> Result<()> {
    let own: Vec<&Person> = plan
        .submitters
        .iter()
        .filter(|person| !person::is_known(person))
        .collect();
    if own.is_empty() {
        return Ok(());
    }
    let with = |text: &str, line: &dyn Fn(&Person) -> String| {
        let mut all: String = text.lines().map(|line| format!("{line}\n")).collect();
        all.extend(own.iter().map(|person| line(person)));
        all
    };
    put_in_place(&layout.etc().join("passwd"), "/etc/passwd", |text| {
        with(text, &|Person { name, uid, gid }| {
            let home = layout.home(name);
            format!(
                "{name}:x:{uid}:{gid}:A user of this lab:{}:/bin/bash\n",
                home.display()
            )
        })
    })?;
    put_in_place(&layout.etc().join("group"), "/etc/group", |text| {
        let own_groups = with(text, &|Person { name, gid, .. }| format!("{name}:x:{gid}:\n"));
        let names: Vec<&str> = own.iter().map(|person| person.name.as_str()).collect();
        format!("{own_groups}{COMMON_GROUP}:x:{COMMON_GID}:{}\n", names.join(","))
    })
}

/// Puts the programs that people call into a folder that everybody may reach, wherever they were built.
///
/// # Errors
/// When the kernel refuses.
pub fn place_programs(layout: &Layout, plan: &Plan) -> Result<()> {
    for (program, name) in programs(plan) {
        let place = layout.bin().join(name);
        std::fs::write(&place, "").with_context(|| format!("{} cannot be made", place.display()))?;
        mount_bind(program, &place).with_context(|| format!("{} cannot be put in place", place.display()))?;
    }
    Ok(())
}

/// Lets the folder with the programs be removed from in here.
pub fn take_programs_away(layout: &Layout, plan: &Plan) {
    for (_, name) in programs(plan) {
        let _ = unmount(layout.bin().join(name), UnmountFlags::DETACH);
    }
}

/// Our own programs; they find each other by lying in one folder.
fn programs(plan: &Plan) -> [(&Path, &'static str); 5] {
    [
        (&plan.thiao, "thiao"),
        (&plan.thiaod, "thiaod"),
        (&plan.keeper, "thiao-lab"),
        (&plan.hook, "thiao-hook"),
        (&plan.agent, "thiao-guest"),
    ]
}

/// Puts a changed copy of a file of `/etc` in its place, for this mount namespace alone.
fn put_in_place(copy: &Path, original: &str, change: impl Fn(&str) -> String) -> Result<()> {
    let text = std::fs::read_to_string(original).unwrap_or_default();
    std::fs::write(copy, change(&text))
        .and_then(|()| std::fs::set_permissions(copy, std::fs::Permissions::from_mode(0o644)))
        .with_context(|| format!("the lab's {original} cannot be written"))?;
    if Path::new(original).exists() {
        mount_bind(copy, original).with_context(|| format!("the lab's {original} cannot be put in place"))?;
    }
    Ok(())
}

/// `ip link set lo up`, by the old ioctl: one flag needs no program.
fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .context("no socket for the loopback interface")?;
    // SAFETY: all-zero is a valid ifreq; the name fits and stays terminated; the union's field is
    // the one that both requests use.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            bail!(
                "the lab has no loopback interface: {}",
                std::io::Error::last_os_error()
            );
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw mut request) < 0 {
            bail!(
                "the lab's loopback interface cannot be started: {}",
                std::io::Error::last_os_error()
            );
        }
    }
    Ok(())
}

/// Lets every user connect to a socket; who he is tells the kernel.
///
/// # Errors
/// When the mode cannot be changed.
pub fn open_to_all(socket: &Path) -> Result<()> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("{} cannot be opened to users", socket.display()))
}

/// Who is at the other end of a socket. By the raw call: a caller from outside of this process
/// namespace has no process id here, which typed ones refuse.
///
/// # Errors
/// When the kernel does not tell.
pub fn peer_uid(socket: &std::os::unix::net::UnixStream) -> std::io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
    // SAFETY: the buffer is a ucred, as SO_PEERCRED writes it, and `size` is its size.
    let outcome = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if outcome < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(peer.uid)
    }
}

/// How many processes of this namespace have a name that starts so.
pub fn count_processes(name: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with(name))
        })
        .count()
}

/// Ends every other process of this namespace: asks first, then does not ask.
pub fn end_all(grace: Duration) {
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, grace)] {
        // From the first process of a namespace, "all" means all in it and nobody else.
        // SAFETY: a plain system call.
        unsafe { libc::kill(-1, signal.as_raw()) };
        let deadline = Instant::now() + wait;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Err(rustix::io::Errno::CHILD) => return,
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// Removes the (empty) control groups of the lab's VMs.
pub fn forget_cgroups(cluster: &str) {
    if let Ok(cluster) = thiao_core::ids::ClusterName::new(cluster) {
        // Looking for the control groups sweeps those that this cluster's VMs have left.
        let _ = thiao_qemu::cgroup::Cgroups::detect(&cluster);
    }
}
