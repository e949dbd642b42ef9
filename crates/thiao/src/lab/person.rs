//! Who a lab belongs to and who submits its jobs.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::path::Path;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
}

/// The one who runs this program.
///
/// # Errors
/// When the user is not in the user database (Slurm could not know him either).
pub fn owner() -> Result<Person> {
    let uid = rustix::process::geteuid().as_raw();
    by_uid(uid).with_context(|| format!("uid {uid} has no entry in the user database, which Slurm needs"))
}

/// The one who submits the lab's jobs: never root. An ordinary user's lab is his own;
/// root's is for the user behind `sudo`, else the first regular one, else `nobody`.
///
/// # Errors
/// When a named user does not exist or is root, or nobody is left.
pub fn submitter(owner: &Person, named: Option<&str>) -> Result<Person> {
    if owner.uid != 0 {
        if named.is_some_and(|name| name != owner.name) {
            bail!("only root can choose another user for the lab's jobs");
        }
        return Ok(owner.clone());
    }
    if let Some(name) = named {
        let person = by_name(name).with_context(|| format!("there is no user {name}"))?;
        if person.uid == 0 {
            bail!("jobs do not run as root: name an ordinary user with --user");
        }
        return Ok(person);
    }
    let sudo = std::env::var("SUDO_UID")
        .ok()
        .and_then(|uid| uid.parse().ok())
        .filter(|uid| *uid != 0);
    if let Some(person) = sudo.and_then(by_uid) {
        return Ok(person);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
    first_regular(&passwd, |home| Path::new(home).is_dir())
        .or_else(|| by_name("nobody"))
        .context("no ordinary user found for the lab's jobs: name one with --user")
}

/// The first ordinary login with a home folder (`uid` 1000 to 59999, Debian's range).
fn first_regular(passwd: &str, home_is_there: impl Fn(&str) -> bool) -> Option<Person> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        ((1000..60_000).contains(&uid) && home_is_there(home)).then(|| Person {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

fn by_uid(uid: u32) -> Option<Person> {
    // SAFETY: the pointers are valid for the call, and `lookup` owns the buffer they point into.
    lookup(|entry, buffer, found| unsafe {
        libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found)
    })
}

fn by_name(name: &str) -> Option<Person> {
    let name = CString::new(name).ok()?;
    // SAFETY: as above; `name` lives over the call.
    lookup(|entry, buffer, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found)
    })
}

/// Asks the user database (which may be more than a file), with a buffer that grows as it wants.
fn lookup(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> i32,
) -> Option<Person> {
    let mut size = 1024;
    loop {
        let mut buffer = vec![0; size];
        let mut entry = std::mem::MaybeUninit::<libc::passwd>::zeroed();
        let mut found = std::ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            libc::ERANGE if size < 1 << 20 => size *= 2,
            0 if !found.is_null() => {
                // SAFETY: a found entry points to `entry`, whose strings are in `buffer`.
                let (name, entry) = unsafe { (CStr::from_ptr((*found).pw_name), *found) };
                return Some(Person {
                    name: name.to_str().ok()?.to_owned(),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                });
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ordinary_user_is_taken() {
        let passwd = "root:x:0:0::/root:/bin/sh\nghost:x:1000:1000::/gone:/bin/sh\n\
                      broken line\nada:x:1001:100::/home/ada:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        let found = first_regular(passwd, |home| home == "/home/ada").unwrap();
        assert_eq!(
            found,
            Person {
                name: "ada".into(),
                uid: 1001,
                gid: 100
            }
        );
        assert_eq!(first_regular(passwd, |_| false), None);
    }

    #[test]
    fn root_is_known_and_refused() {
        let root = by_uid(0).unwrap();
        assert_eq!(by_name("root"), Some(root.clone()));
        assert!(submitter(&root, Some("root")).is_err());
        assert!(submitter(&root, Some("no such user")).is_err());
    }

    #[test]
    fn an_ordinary_user_submits_himself() {
        let me = Person {
            name: "ada".into(),
            uid: 1001,
            gid: 100,
        };
        assert_eq!(submitter(&me, None).unwrap(), me);
        assert!(submitter(&me, Some("bob")).is_err());
    }
}
