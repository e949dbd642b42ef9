//! What guests must know of the cluster, alike for all providers.

use super::machine::{Machine, word};
use crate::read::Section;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use thiao_guest::auth::Credentials;
use thiao_guest::protocol::Backup;

/// Where slurmctld is, and who it is.
pub struct Slurmctld {
    pub host: Option<String>,
    pub addr: Option<Ipv4Addr>,
    pub port: u16,
    pub backups: Vec<Backup>,
    pub user: String,
}

/// Reads where slurmctld is. `addr` is where guests reach it if nobody says.
pub fn slurmctld(table: &Section<'_, '_>, machine: &Machine, addr: Option<Ipv4Addr>) -> Slurmctld {
    let host = table.checked("slurmctld_host", Some(machine.name.clone()), word);
    let addr = match addr {
        Some(addr) => table.parsed("slurmctld_addr", Some(addr)),
        None => table.required(
            "slurmctld_addr",
            "give the IPv4 address at which VMs reach slurmctld",
        ),
    };
    let port = table.number("slurmctld_port", 6817, 1..=u16::MAX);
    let backups = table.texts("slurmctld_backups", |text| text.parse::<Backup>().map(drop));
    let user = table.checked("slurm_user", Some("slurm".to_owned()), word);
    Slurmctld {
        host,
        addr,
        port,
        backups: backups.iter().filter_map(|text| text.parse().ok()).collect(),
        user: user.unwrap_or_default(),
    }
}

/// Reads where the cluster's secret is: munge's key, or, if it is named, Slurm's. None: the guests' image
/// has it, where that is allowed.
pub fn credentials(table: &Section<'_, '_>, may_lack: bool) -> Option<Credentials> {
    const MUNGE_KEY: &str = "/etc/munge/munge.key";
    const WHY: &str = "has no effect beside slurm_key: use the one that AuthType of slurm.conf asks for";
    if let Some(key) = table.path("slurm_key", None) {
        table.refuse("munge_key", WHY);
        table.refuse("munge_socket", WHY);
        return Some(Credentials::Slurm { key });
    }
    let key: Option<PathBuf> = match may_lack {
        true => table.path_or_none("munge_key", MUNGE_KEY.into()),
        false => table.path("munge_key", Some(MUNGE_KEY.into())),
    };
    let socket = table.path("munge_socket", Some("/run/munge/munge.socket.2".into()));
    Some(Credentials::Munge {
        key: key?,
        socket: socket?,
    })
}
