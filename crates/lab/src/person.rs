//! Who a lab belongs to and who submits its jobs.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::path::Path;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub name: String,
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

/// Those who submit a lab's jobs, `count` of them. One alone is one whom this machine knows; of several
/// all but a named first one are the lab's own, whom only the lab knows.
///
/// # Errors
/// When nobody can be that one; or several are wanted in a lab that has one uid only.
pub fn submitters(owner: &Person, named: Option<&str>, count: u32) -> Result<Vec<Person>> {
    let mut people = Vec::new();
    if owner.uid != 0 && count > 1 {
        bail!("a lab without root has only one uid, and so one user: leave --users out");
    }
    if count <= 1 || named.is_some() {
        people.push(submitter(owner, named)?);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let known = |person: &Person| {
        by_name(&person.name).is_some() || by_uid(person.uid).is_some() || has_group(&groups, person)
    };
    let first = people.len() as u32 + 1;
    let fresh = (first..=MOST_USERS).map(fresh).filter(|person| !known(person));
    people.extend(fresh.take(count.saturating_sub(first - 1) as usize));
    Ok(people)
}

/// The lab's own user with this number.
fn fresh(number: u32) -> Person {
    Person {
        name: format!("user{number}"),
        uid: FIRST_UID + number - 1,
        gid: FIRST_UID + number - 1,
    }
}

/// The lab's own users have uids from here on: behind Debian's ordinary ones, before those that systemd
/// gives away (61184).
const FIRST_UID: u32 = 61_001;
/// As many uids as there are in between.
const MOST_USERS: u32 = 183;

/// Whether it is one of the lab's own users.
pub fn is_labs_own(person: &Person) -> bool {
    (FIRST_UID..FIRST_UID + MOST_USERS).contains(&person.uid)
}

/// Whether a group file has this person's group, by name or number.
fn has_group(groups: &str, person: &Person) -> bool {
    groups.lines().any(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next(), fields.nth(1));
        name == Some(&person.name) || gid.and_then(|gid| gid.parse().ok()) == Some(person.gid)
    })
}

/// Whether this machine's own user database knows that person.
pub fn is_known(person: &Person) -> bool {
    by_name(&person.name).is_some()
}

/// The one who submits the lab's jobs: never root. An ordinary user's lab is his own;
/// root's is for the user behind `sudo`, else the first regular one, else `nobody`.
///
/// # Errors
/// When a named user does not exist or is root, or nobody is left.
fn submitter(owner: &Person, named: Option<&str>) -> Result<Person> {
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
    fn several_users_are_the_labs_own() {
        let root = by_uid(0).unwrap();
        let people = submitters(&root, None, 3).unwrap();
        assert_eq!(people.len(), 3);
        assert!(
            people
                .iter()
                .all(|person| person.uid >= FIRST_UID && !is_known(person))
        );
        assert!(people.windows(2).all(|two| two[0].uid < two[1].uid));
        let named = submitters(&root, Some("nobody"), 2).unwrap();
        assert_eq!((named.len(), named[0].name.as_str()), (2, "nobody"));
        let ada = Person {
            name: "ada".into(),
            uid: 1001,
            gid: 100,
        };
        assert!(submitters(&ada, None, 2).is_err());
        assert_eq!(submitters(&ada, None, 1).unwrap(), [ada]);
        let groups = "root:x:0:\nuser7:x:5:ada\nother:x:61008:\n";
        let taken: Vec<u32> = (1..10)
            .filter(|number| has_group(groups, &fresh(*number)))
            .collect();
        assert_eq!(taken, [7, 8]);
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
