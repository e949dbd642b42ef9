//! What a guest is told: its context, from the settings and its record.

use crate::channel::clock;
use crate::error::Error;
use crate::machine::mac_of;
use crate::settings::{Settings, Share, User};
use crate::vmdir::{Record, tag_of};
use std::fs;
use std::path::Path;
use thiao_core::ids::VmId;
use thiao_guest::protocol::{Card, Context, OneContext, Secret, ShareMount, UserEntry};

/// Bytes of randomness that a guest gets: what its kernel's generator takes in.
const SEED_BYTES: usize = 64;

/// System users whose files or processes Slurm has, taken from this machine when it has them.
const SYSTEM_USERS: [&str; 2] = ["slurm", "munge"];

/// The context of one VM, with the clock of now and fresh random bytes.
/// `exports` are the ports of the shares' servers, in the settings' order.
pub fn context(settings: &Settings, exports: &[u16], id: &VmId, record: &Record) -> Result<Context, Error> {
    let guest = &settings.guest;
    let key = fs::read(&guest.munge_key).map_err(|e| Error::io("read the munge key", &guest.munge_key, e))?;
    let tag = tag_of(&settings.cluster, id)
        .ok_or_else(|| Error::Refused(format!("the VM {id} is of no node of ours")))?;
    let mut users: Vec<UserEntry> = guest.users.iter().map(entry).collect();
    for user in system_users(Path::new("/etc/passwd")) {
        if !users.iter().any(|other| other.name == user.name) {
            users.push(user);
        }
    }
    let share = |(share, port): (&Share, &u16)| ShareMount {
        server: settings.network.address,
        port: *port,
        path: "/".into(),
        target: share.target.clone(),
    };
    let shares = guest.shares.iter().zip(exports).map(share).collect();
    Ok(Context {
        common: OneContext {
            id: id.to_string(),
            hostname: tag.node.to_string(),
            slurmctld_host: guest.slurmctld_host.clone(),
            slurmctld_addr: guest.slurmctld_addr,
            slurmctld_port: guest.slurmctld_port,
            munge_key: Secret::from_bytes(&key),
            munge_socket: guest.munge_socket.clone(),
            users,
            shares,
        },
        card: Card {
            address: record.address,
            prefix_len: settings.network.prefix_len,
            gateway: Some(settings.network.address),
            mac: mac_of(record.address),
        },
        seed: Secret::from_bytes(&seed()?),
        clock: clock(),
    })
}

fn entry(user: &User) -> UserEntry {
    UserEntry {
        name: user.name.clone(),
        uid: user.uid,
        gid: user.gid,
        home: user.home.clone(),
        shell: user.shell.clone(),
    }
}

fn seed() -> Result<[u8; SEED_BYTES], Error> {
    let mut seed = [0; SEED_BYTES];
    let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::Qemu(format!("the kernel gives no random bytes: {e}")))?;
    if got < SEED_BYTES {
        return Err(Error::Qemu("the kernel gives too few random bytes".to_owned()));
    }
    Ok(seed)
}

fn system_users(passwd: &Path) -> Vec<UserEntry> {
    let text = fs::read_to_string(passwd).unwrap_or_default();
    text.lines()
        .filter_map(passwd_line)
        .filter(|user| SYSTEM_USERS.contains(&user.name.as_str()))
        .collect()
}

/// Reads `name:x:uid:gid:comment:home:shell`.
fn passwd_line(line: &str) -> Option<UserEntry> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.into();
    let shell = fields.next()?.into();
    Some(UserEntry {
        name,
        uid,
        gid,
        home,
        shell,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slurms_own_users_come_along() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/sh\nslurm:x:64030:64030::/var/lib/slurm:/bin/false\nbad\n",
        )
        .unwrap();
        let users = system_users(&passwd);
        assert_eq!(users.len(), 1);
        assert_eq!(
            (users[0].uid, users[0].home.to_str()),
            (64030, Some("/var/lib/slurm"))
        );
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in ".{0,60}") {
            let _ = passwd_line(&line);
        }
    }
}
