//! What a guest is told: its context, from the settings and its record.

use crate::channel::clock;
use crate::error::Error;
use crate::machine::mac_of;
use crate::settings::Settings;
use crate::vmdir::{Record, tag_of};
use std::fs;
use std::path::Path;
use thiao_core::ids::VmId;
use thiao_guest::protocol::{Card, Context, GroupEntry, OneContext, ShareMount, UserEntry};
use thiao_guest::secret::Secret;
use thiao_guest::users::add_system_users;

/// The context of one VM, with the clock of now and fresh random bytes.
/// `people`: whom the guest knows beside its system's users, with their groups; `shares`: what it sees.
pub fn context(
    settings: &Settings,
    id: &VmId,
    record: &Record,
    people: (Vec<UserEntry>, Vec<GroupEntry>),
    shares: Vec<ShareMount>,
) -> Result<Context, Error> {
    let guest = &settings.guest;
    let credentials = &guest.credentials;
    let auth = credentials
        .read()
        .map_err(|e| Error::io("read the cluster's key", credentials.file(), e))?;
    let tag = tag_of(&settings.cluster, id)
        .ok_or_else(|| Error::Refused(format!("the VM {id} belongs to none of our nodes")))?;
    let (mut users, groups) = people;
    add_system_users(
        &mut users,
        &guest.slurm_user,
        &fs::read_to_string("/etc/passwd").unwrap_or_default(),
    );
    Ok(Context {
        common: OneContext {
            id: id.to_string(),
            hostname: tag.node.to_string(),
            slurmctld_host: guest.slurmctld_host.clone(),
            slurmctld_addr: guest.slurmctld_addr,
            slurmctld_port: guest.slurmctld_port,
            backups: guest.backups.clone(),
            auth,
            users,
            groups,
            shares,
            resolver: guest.resolver.clone(),
        },
        card: Card {
            address: record.address,
            prefix_len: settings.network.prefix_len,
            gateway: Some(settings.network.address),
            mac: mac_of(record.address),
        },
        seed: Secret::random()
            .map_err(|e| Error::io("ask the kernel for random bytes", Path::new("/dev/urandom"), e))?,
        clock: clock(),
    })
}
