//! Where the controller keeps its state, and how it is woken.

use std::env;
use std::ffi::{CStr, OsStr, c_char, c_ulong};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The controller's state folder: `$THIAO_STATE_DIR`, else the link `state`
/// beside this program as it was called, else `/var/lib/thiao`.
///
/// The link lets several controllers live on one machine: slurmctld gives its
/// programs almost no environment, but calls them by the path in `slurm.conf`.
pub fn dir() -> PathBuf {
    if let Some(dir) = env::var_os("THIAO_STATE_DIR").filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    let beside = executed_path().and_then(|path| Some(path.parent()?.join("state")));
    match beside {
        // Also when it leads nowhere: then that is what has to be said.
        Some(link) if link.symlink_metadata().is_ok() => link,
        _ => PathBuf::from("/var/lib/thiao"),
    }
}

/// The path given to `execve`, links not followed. `argv[0]` is no help: Slurm
/// (22.05, `power_save.c`) puts the base name alone there.
fn executed_path() -> Option<PathBuf> {
    // From <elf.h>; getauxval(3).
    const AT_EXECFN: c_ulong = 31;
    unsafe extern "C" {
        fn getauxval(kind: c_ulong) -> c_ulong;
    }
    // SAFETY: it takes any number and only reads the process's auxiliary vector.
    let address = unsafe { getauxval(AT_EXECFN) };
    let path = std::ptr::with_exposed_provenance::<c_char>(usize::try_from(address).ok()?);
    if path.is_null() {
        return None;
    }
    // SAFETY: the kernel put a string with its NUL there, which nobody changes.
    let path = unsafe { CStr::from_ptr(path) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Wakes the controller, if it is there. Not waited for and not checked: it
/// also looks by itself now and then, and at its start.
pub fn poke(state: &Path) {
    if let Ok(socket) = UnixDatagram::unbound() {
        _ = socket.set_nonblocking(true);
        _ = socket.send_to(b"!", state.join("poke.sock"));
    }
}
