//! The users of a guest: those that every guest knows whom nobody names, and those who are handed over, who are
//! merged into whatever the guest's files have already.

use crate::protocol::{GroupEntry, UserEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The user as whom munged runs.
const MUNGE: &str = "munge";

/// What a guest without an image of its own has before anybody is handed over.
pub const SMALL_PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";

/// The same of groups.
pub const SMALL_GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

/// The texts of `/etc/passwd` and `/etc/group` with those who were handed over, and what could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub passwd: String,
    pub group: String,
    /// Who or what is not as it was handed over, and why; for people.
    pub clashes: Vec<String>,
}

/// Merges users and groups into the texts of `/etc/passwd` and `/etc/group`.
///
/// What is there already stays as it is, line for line: a system user of an image is never replaced. Of users and
/// groups that are there under the same name and number nothing is changed but a group's members. Another
/// name for the same number, or another number for the same name, is a clash: who causes it is left out, and told.
/// The same merge again changes nothing.
#[must_use]
pub fn merge(passwd: &str, group: &str, users: &[UserEntry], groups: &[GroupEntry]) -> Merged {
    let mut clashes = Vec::new();
    let passwd = merge_users(passwd, users, &mut clashes);
    let known: BTreeSet<&str> = passwd.lines().filter_map(|line| line.split(':').next()).collect();
    let mut wanted: BTreeMap<u32, GroupEntry> = BTreeMap::new();
    for entry in groups {
        let same = wanted.entry(entry.gid).or_insert_with(|| entry.clone());
        same.members.extend(entry.members.iter().cloned());
    }
    // A primary group that nobody has named gets its user's name.
    let given: Vec<&str> = wanted.values().map(|entry| entry.name.as_str()).collect();
    let unnamed = users
        .iter()
        .filter(|user| !wanted.contains_key(&user.gid) && !given.contains(&&*user.name));
    let unnamed: Vec<GroupEntry> = unnamed
        .map(|user| GroupEntry {
            name: user.name.clone(),
            gid: user.gid,
            members: Vec::new(),
        })
        .collect();
    for entry in unnamed {
        wanted.entry(entry.gid).or_insert(entry);
    }
    for entry in wanted.values_mut() {
        let mut seen = BTreeSet::new();
        let members = std::mem::take(&mut entry.members);
        let fit = |name: &String| known.contains(name.as_str()) && seen.insert(name.clone());
        entry.members = members.into_iter().filter(fit).collect();
    }
    let group = merge_groups(group, wanted, &mut clashes);
    Merged {
        passwd,
        group,
        clashes,
    }
}

fn merge_users(passwd: &str, users: &[UserEntry], clashes: &mut Vec<String>) -> String {
    let mut text = whole_lines(passwd);
    let mut known: Vec<(String, u32)> = named_numbers(passwd);
    for user in users {
        let UserEntry {
            name,
            uid,
            gid,
            home,
            shell,
        } = user;
        let (home, shell) = (home.to_string_lossy(), shell.to_string_lossy());
        if name.is_empty() || ![name, &*home, &*shell].iter().all(|text| is_plain(text)) {
            clashes.push(format!("user {name:?} cannot stand in /etc/passwd"));
            continue;
        }
        match known
            .iter()
            .find(|(other, number)| other == name || number == uid)
        {
            Some((other, number)) if other == name && number == uid => {}
            Some((other, number)) => clashes.push(format!(
                "user {name} (uid {uid}) is not taken: this guest has {other} with uid {number}"
            )),
            None => {
                // "*" and not "x": there is no password, and no shadow entry that would have to say so.
                // Writing to a String does not fail.
                let _ = writeln!(text, "{name}:*:{uid}:{gid}:{name}:{home}:{shell}");
                known.push((name.clone(), *uid));
            }
        }
    }
    text
}

fn merge_groups(group: &str, mut wanted: BTreeMap<u32, GroupEntry>, clashes: &mut Vec<String>) -> String {
    let known = named_numbers(group);
    let mut text = String::new();
    for line in group.lines() {
        let there = group_line(line).and_then(|(name, gid)| {
            let same = wanted.get(&gid).is_some_and(|entry| entry.name == name);
            same.then(|| wanted.remove(&gid)).flatten()
        });
        let _ = match there {
            Some(entry) => writeln!(text, "{}", with_members(line, &entry.members)),
            None => writeln!(text, "{line}"),
        };
    }
    for entry in wanted.into_values() {
        let GroupEntry { name, gid, members } = entry;
        if name.is_empty() || !is_plain(&name) || name.contains(',') {
            clashes.push(format!("group {name:?} cannot stand in /etc/group"));
            continue;
        }
        match known
            .iter()
            .find(|(other, number)| *other == name || *number == gid)
        {
            Some((other, number)) => clashes.push(format!(
                "group {name} (gid {gid}) is not taken: this guest has {other} with gid {number}"
            )),
            None => {
                let _ = writeln!(text, "{name}:*:{gid}:{}", members.join(","));
            }
        }
    }
    text
}

/// A line of `/etc/group` with these members beside its own.
fn with_members(line: &str, members: &[String]) -> String {
    let there: Vec<&str> = line.rsplit(':').next().unwrap_or_default().split(',').collect();
    let mut text = line.to_owned();
    let mut is_empty = there.iter().all(|name| name.is_empty());
    for name in members.iter().filter(|name| !there.contains(&name.as_str())) {
        if !std::mem::replace(&mut is_empty, false) {
            text.push(',');
        }
        text.push_str(name);
    }
    text
}

/// Whether it can stand in a field of a line.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c == ':' || c.is_control())
}

/// The text, whose last line ends.
fn whole_lines(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What has which number, of the lines `name:password:number:...`.
#[must_use]
pub fn named_numbers(text: &str) -> Vec<(String, u32)> {
    let numbered = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(numbered).collect()
}

/// Reads name and number of a line `name:password:number:members`, which has all four fields.
fn group_line(line: &str) -> Option<(&str, u32)> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, gid, _] => Some((name, gid.parse().ok()?)),
        _ => None,
    }
}

/// Adds `slurm`, Slurm's user, and munge's as `passwd`, a machine's `/etc/passwd`, has
/// them; users that are there already stay as they are.
pub fn add_system_users(users: &mut Vec<UserEntry>, slurm: &str, passwd: &str) {
    for user in passwd.lines().filter_map(passwd_line) {
        let named = users.iter().any(|other| other.name == user.name);
        if [slurm, MUNGE].contains(&user.name.as_str()) && !named {
            users.push(user);
        }
    }
}

/// Reads a line `name:x:uid:gid:comment:home:shell`.
fn passwd_line(line: &str) -> Option<UserEntry> {
    let mut fields = line.split(':');
    Some(UserEntry {
        name: fields.next()?.to_owned(),
        uid: fields.nth(1)?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
        home: fields.nth(1)?.into(),
        shell: fields.next()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str, uid: u32, gid: u32) -> UserEntry {
        UserEntry {
            name: name.into(),
            uid,
            gid,
            home: format!("/home/{name}").into(),
            shell: "/bin/bash".into(),
        }
    }

    fn members(name: &str, gid: u32, members: &[&str]) -> GroupEntry {
        GroupEntry {
            name: name.into(),
            gid,
            members: members.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn users_come_with_all_their_groups() {
        let users = [user("ada", 1000, 100), user("bob", 1001, 1001)];
        let groups = [
            members("users", 100, &[]),
            members("physics", 5000, &["ada", "stranger"]),
            members("physics", 5000, &["bob", "ada"]),
        ];
        let merged = merge(SMALL_PASSWD, SMALL_GROUP, &users, &groups);
        assert_eq!(merged.clashes, Vec::<String>::new());
        assert!(
            merged.passwd.ends_with(
                "ada:*:1000:100:ada:/home/ada:/bin/bash\nbob:*:1001:1001:bob:/home/bob:/bin/bash\n"
            )
        );
        let added = merged.group.strip_prefix(SMALL_GROUP).unwrap();
        assert_eq!(added, "users:*:100:\nbob:*:1001:\nphysics:*:5000:ada,bob\n");
        let again = merge(&merged.passwd, &merged.group, &users, &groups);
        assert_eq!(again, merged);
    }

    #[test]
    fn what_an_image_has_is_never_replaced_and_clashes_are_told() {
        let passwd = "root:x:0:0::/root:/bin/sh\nsshd:x:1000:65534::/run/sshd:/usr/sbin/nologin\n+@netgroup\nada:x:7:7::/:/bin/false";
        let group = "root:x:0:\ndocker:x:998:core\nvideo:x:44:\n+";
        let users = [
            user("ada", 1005, 1005),
            user("eve", 1000, 1006),
            user("root", 1007, 1007),
            user("x\ny:0", 1008, 1008),
            user("bob", 1009, 1009),
        ];
        let groups = [
            members("video", 44, &["bob"]),
            members("docker", 997, &["bob"]),
            members("physics", 998, &["bob"]),
            members("a,b", 6000, &["bob"]),
        ];
        let merged = merge(passwd, group, &users, &groups);
        let added = merged.passwd.strip_prefix(passwd).unwrap();
        assert_eq!(added, "\nbob:*:1009:1009:bob:/home/bob:/bin/bash\n");
        let kept: Vec<&str> = merged.group.lines().take(4).collect();
        assert_eq!(kept, ["root:x:0:", "docker:x:998:core", "video:x:44:bob", "+"]);
        let said = merged.clashes.join("\n");
        for who in [
            "user ada (uid 1005)",
            "has sshd with uid 1000",
            "user root",
            "user \"x\\ny:0\"",
            "group docker (gid 997)",
            "group physics (gid 998)",
            "group \"a,b\"",
        ] {
            assert!(said.contains(who), "{who} is missing in {said}");
        }
    }

    #[test]
    fn slurms_own_users_come_along() {
        let mut users = Vec::new();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nslurm:x:64030:64030::/var/lib/slurm:/bin/false\nbad\n";
        add_system_users(&mut users, "slurmadm", passwd);
        assert_eq!(users.len(), 0);
        add_system_users(&mut users, "slurm", passwd);
        assert_eq!(users.len(), 1);
        assert_eq!(
            (users[0].uid, users[0].home.to_str()),
            (64030, Some("/var/lib/slurm"))
        );
        users[0].uid = 7;
        add_system_users(&mut users, "slurm", passwd);
        assert_eq!((users.len(), users[0].uid), (1, 7), "one that is named stays");
    }

    proptest! {
        #[test]
        fn whatever_is_merged_every_line_stays_and_each_user_is_there_once(
            passwd in "([a-c]:x:[0-3]:[0-3]:::\n|[a:\n]{0,4}){0,5}",
            group in "([a-c]:x:[0-3]:[a-c]?\n|[a:\n]{0,4}){0,5}",
            new in proptest::collection::vec(("[a-d:\n]{0,2}", 0..5_u32, 0..5_u32), 0..4),
        ) {
            let users: Vec<UserEntry> = new.iter().map(|(name, uid, gid)| user(name, *uid, *gid)).collect();
            let groups: Vec<GroupEntry> =
                new.iter().map(|(name, gid, _)| members(name, *gid, &["a", "b"])).collect();
            let once = merge(&passwd, &group, &users, &groups);
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            prop_assert!(lines(&once.passwd).starts_with(&lines(&passwd)));
            prop_assert!(lines(&once.group).len() >= lines(&group).len());
            for (old, new) in lines(&group).iter().zip(lines(&once.group)) {
                prop_assert!(new.starts_with(old.as_str()), "{old:?} became {new:?}");
            }
            let again = merge(&once.passwd, &once.group, &users, &groups);
            prop_assert_eq!((&again.passwd, &again.group), (&once.passwd, &once.group));
            for added in &named_numbers(&once.passwd)[named_numbers(&passwd).len()..] {
                let same = |other: &&(String, u32)| other.0 == added.0 || other.1 == added.1;
                prop_assert_eq!(named_numbers(&once.passwd).iter().filter(same).count(), 1);
            }
        }

        #[test]
        fn no_line_makes_the_reader_panic(line in ".{0,60}") {
            let _ = passwd_line(&line);
        }
    }
}
