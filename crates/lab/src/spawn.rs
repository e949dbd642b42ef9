//! Starts the keeper as the first process of new namespaces.
//!
//! One `clone3` makes all of them: network, mounts, processes, host name, and
//! (when not root) a user namespace in which the caller keeps his own uid and
//! gets the rights over the others. Whatever happens, the kernel ends every
//! process of the namespace when its first one ends.

use anyhow::{Context, Result, anyhow, bail};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

/// A started keeper, seen from outside.
pub struct Spawned {
    /// Becomes readable when the keeper has ended.
    pub pidfd: OwnedFd,
    /// Progress comes out of it; when it is closed before `detach` was said, the lab ends.
    pub line: UnixStream,
}

/// What the child must do before it becomes the keeper, in this order. The
/// number travels over a pipe when a step fails.
const STEPS: [&str; 6] = [
    "giving it a session of its own",
    "forbidding setgroups in the user namespace",
    "mapping the user id",
    "mapping the group id",
    "keeping its rights over the namespace",
    "starting the keeper",
];

/// Starts `program` with `args` as the first process of new namespaces. Its standard input is
/// the line, its output goes to `log`.
///
/// # Errors
/// When the kernel refuses; the error says what can be done.
pub fn keeper(program: &OsStr, args: &[&OsStr], log: &File) -> Result<Spawned> {
    let program = CString::new(program.as_bytes()).context("a NUL in the program's path")?;
    let args: Vec<CString> = std::iter::once(Ok(program.clone()))
        .chain(args.iter().map(|arg| CString::new(arg.as_bytes())))
        .collect::<Result<_, _>>()
        .context("a NUL in an argument")?;
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());

    let (ours, theirs) = UnixStream::pair().context("no socket pair for the keeper")?;
    let (mut failure, failure_end) = pipe()?;
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let maps = (uid != 0).then(|| (format!("{uid} {uid} 1"), format!("{gid} {gid} 1")));

    let mut flags =
        libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_PIDFD;
    if maps.is_some() {
        flags |= libc::CLONE_NEWUSER;
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut request: libc::clone_args = unsafe { std::mem::zeroed() };
    request.flags = u64::from(flags.cast_unsigned());
    request.pidfd = (&raw mut pidfd).addr() as u64;
    request.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything, and only makes
    // system calls on values prepared above until it execs.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut request, size_of::<libc::clone_args>()) };
    if pid == 0 {
        // SAFETY: we are the child; every pointer lives in our copy of the memory.
        unsafe {
            let maps = maps.as_ref().map(|(uid, gid)| (uid.as_bytes(), gid.as_bytes()));
            let step = become_keeper(maps, theirs.as_raw_fd(), log.as_raw_fd(), &argv);
            let told = [step, (*libc::__errno_location()).to_le_bytes()[0]];
            libc::write(failure_end.as_raw_fd(), told.as_ptr().cast(), told.len());
            libc::_exit(127);
        }
    }
    if pid < 0 {
        bail!(refusal(&std::io::Error::last_os_error(), uid == 0));
    }
    // SAFETY: the kernel put a new descriptor there, which is ours.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    drop((theirs, failure_end));
    let mut told = Vec::new();
    failure
        .read_to_end(&mut told)
        .context("the keeper's start cannot be followed")?;
    if let [step, errno] = told[..] {
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        let what = STEPS.get(usize::from(step)).unwrap_or(&"an unknown step");
        let error = std::io::Error::from_raw_os_error(i32::from(errno));
        return Err(anyhow!(error).context(format!("the lab's keeper could not be started ({what})")));
    }
    Ok(Spawned { pidfd, line: ours })
}

/// Why the kernel did not make the namespaces, and what to do.
fn refusal(error: &std::io::Error, root: bool) -> String {
    let what = format!("the kernel refuses new namespaces for the lab ({error})");
    match (error.raw_os_error(), root) {
        (Some(libc::EPERM), true) => format!(
            "{what}: this root has no CAP_SYS_ADMIN (a container?); run the lab as an ordinary user instead"
        ),
        (Some(libc::EPERM | libc::EACCES), false) => format!(
            "{what}: ask root for `sysctl kernel.unprivileged_userns_clone=1` (and, where AppArmor restricts them, `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)"
        ),
        (Some(libc::ENOSPC | libc::EUSERS), _) => {
            format!("{what}: the limit is reached; ask root for `sysctl user.max_user_namespaces=10000`")
        }
        _ => what,
    }
}

fn pipe() -> Result<(File, OwnedFd)> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("no pipe for the keeper")?;
    Ok((File::from(read), write))
}

/// Runs in the child; returns the number of the step that failed, `errno` says why.
///
/// # Safety
/// Only in a freshly forked child; `argv` ends with a null pointer.
unsafe fn become_keeper(
    maps: Option<(&[u8], &[u8])>,
    line: RawFd,
    log: RawFd,
    argv: &[*const libc::c_char],
) -> u8 {
    // SAFETY: only system calls, on descriptors and memory that the caller owns.
    unsafe {
        if libc::setsid() < 0 {
            return 0;
        }
        if let Some((uid, gid)) = maps {
            // A namespace whose maker may not change groups must give that up before it maps one.
            for (step, path, text) in [
                (1, c"/proc/self/setgroups", b"deny".as_slice()),
                (2, c"/proc/self/uid_map", uid),
                (3, c"/proc/self/gid_map", gid),
            ] {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if file < 0 || libc::write(file, text.as_ptr().cast(), text.len()) < 0 {
                    return step;
                }
                libc::close(file);
            }
            if !keep_rights() {
                return 4;
            }
        }
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        for (from, to) in [(line, 0), (log, 1), (log, 2)] {
            if libc::dup2(from, to) < 0 {
                return 5;
            }
        }
        libc::execv(argv[0], argv.as_ptr());
        5
    }
}

/// Makes the rights over the new user namespace survive `exec` without being uid 0 (`unshare --keep-caps`).
///
/// # Safety
/// Only system calls: safe in a forked child.
unsafe fn keep_rights() -> bool {
    /// `struct __user_cap_header_struct`, version 3.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`, of which version 3 has two.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 has two data elements; both structures outlive the calls.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) < 0 {
            return false;
        }
        for word in &mut data {
            word.inheritable = word.permitted;
        }
        if libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) < 0 {
            return false;
        }
        for capability in 0..64_u32 {
            let word = data[(capability / 32) as usize];
            let held = word.permitted >> (capability % 32) & 1 == 1;
            if held && libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0 {
                return false;
            }
        }
    }
    true
}
