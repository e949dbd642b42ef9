//! Users of this machine, by the system's own lookup (also LDAP and the like).

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use thiao_qemu::User;

/// The user of this name, with what guests must know of him.
///
/// # Errors
/// When there is none, or the lookup failed.
pub fn by_name(name: &str) -> Result<User, String> {
    let unknown = || format!("this machine has no user {name}");
    let wanted = CString::new(name).map_err(|_| unknown())?;
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        // SAFETY: all zeroes are valid for this struct of integers and pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, the length is the buffer's.
        let code = unsafe {
            libc::getpwnam_r(
                wanted.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        match code {
            0 if found.is_null() => return Err(unknown()),
            0 => {
                return Ok(User {
                    name: name.to_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                    home: path(entry.pw_dir),
                    shell: path(entry.pw_shell),
                });
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            code => {
                let error = std::io::Error::from_raw_os_error(code);
                return Err(format!("the user database could not be read for {name}: {error}"));
            }
        }
    }
}

/// The number of the user with that name on this machine.
///
/// # Errors
/// When there is none, or the lookup failed.
pub fn user_id(name: &str) -> Result<u32, String> {
    by_name(name).map(|user| user.uid)
}

/// The home of the user with that name, if this machine knows him.
#[must_use]
pub fn home_of(name: &str) -> Option<PathBuf> {
    by_name(name).ok().map(|user| user.home)
}

/// A path out of a passwd entry, copied.
fn path(text: *const libc::c_char) -> PathBuf {
    if text.is_null() {
        return PathBuf::new();
    }
    // SAFETY: getpwnam_r gave a terminated string inside the caller's buffer, which still lives.
    let text = unsafe { CStr::from_ptr(text) };
    PathBuf::from(OsStr::from_bytes(text.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_others_are_named() {
        let root = by_name("root").unwrap();
        assert_eq!((root.uid, root.home), (0, PathBuf::from("/root")));
        assert!(
            by_name("no-such-user-here")
                .unwrap_err()
                .contains("no-such-user-here")
        );
        assert!(by_name("a\0b").is_err());
    }
}
