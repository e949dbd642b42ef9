//! The users that every guest knows whom nobody names.

use crate::protocol::UserEntry;

/// The user as whom munged runs.
const MUNGE: &str = "munge";

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
        fn no_line_makes_the_reader_panic(line in ".{0,60}") {
            let _ = passwd_line(&line);
        }
    }
}
