//! What a guest is told: its context, from the settings and its record.

use crate::channel::clock;
use crate::error::Error;
use crate::machine::mac_of;
use crate::settings::{Settings, Share};
use crate::vmdir::{Record, tag_of};
use std::fs;
use std::path::Path;
use thiao_core::ids::VmId;
use thiao_guest::protocol::{Card, Context, OneContext, ShareMount};
use thiao_guest::secret::Secret;
use thiao_guest::users::add_system_users;

/// The context of one VM, with the clock of now and fresh random bytes.
/// `exports` are the ports of the shares' servers, in the settings' order.
pub fn context(settings: &Settings, exports: &[u16], id: &VmId, record: &Record) -> Result<Context, Error> {
    let guest = &settings.guest;
    let credentials = &guest.credentials;
    let auth = credentials
        .read()
        .map_err(|e| Error::io("read the cluster's key", credentials.file(), e))?;
    let tag = tag_of(&settings.cluster, id)
        .ok_or_else(|| Error::Refused(format!("the VM {id} belongs to none of our nodes")))?;
    let mut users = guest.users.clone();
    add_system_users(
        &mut users,
        &guest.slurm_user,
        &fs::read_to_string("/etc/passwd").unwrap_or_default(),
    );
    let share = |(share, port): (&Share, &u16)| {
        ShareMount::plain(settings.network.address, *port, "/".into(), share.target.clone())
    };
    let shares = guest.shares.iter().zip(exports).map(share).collect();
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
            groups: Vec::new(),
            shares,
            resolver: Default::default(),
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
