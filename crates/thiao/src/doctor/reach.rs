//! How guests reach slurmctld and prove who they are: what slurmctld says of itself against the settings.

use std::cmp::Ordering;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use thiao_config::{Config, ProviderSettings};
use thiao_core::finding::Finding;
use thiao_qemu::{Backup, Credentials};
use thiao_slurm::Version;
use thiao_slurm::site::{Host, Site};

/// What guests are told, and what they run.
#[derive(Debug, Clone)]
pub struct GuestContext {
    /// The host that slurmctld is on.
    pub host: String,
    pub addr: Ipv4Addr,
    pub port: u16,
    /// Those that stand in for it.
    pub backups: Vec<Backup>,
    /// The user as whom slurmctld runs.
    pub slurm_user: String,
    /// The secret; none: the guests' image has it.
    pub credentials: Option<Credentials>,
    /// The plugins that are in guests; none: not known.
    pub plugins: Option<Vec<PathBuf>>,
    /// Whether they are on this machine, by whose bridge they reach every address of it.
    pub here: bool,
}

impl GuestContext {
    /// What these settings tell guests.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match &config.provider {
            ProviderSettings::Qemu(settings) => Self {
                host: settings.guest.slurmctld_host.clone(),
                addr: settings.guest.slurmctld_addr,
                port: settings.guest.slurmctld_port,
                backups: settings.guest.backups.clone(),
                slurm_user: settings.guest.slurm_user.clone(),
                credentials: Some(settings.guest.credentials.clone()),
                plugins: settings.slurm.as_ref().ok().map(|files| files.plugins.clone()),
                here: true,
            },
            ProviderSettings::OpenNebula(settings) => Self {
                host: settings.guest.slurmctld_host.clone(),
                addr: settings.guest.slurmctld_addr,
                port: settings.guest.slurmctld_port,
                backups: settings.guest.backups.clone(),
                slurm_user: settings.guest.slurm_user.clone(),
                credentials: settings.guest.credentials.clone(),
                plugins: None,
                here: false,
            },
        }
    }

    /// Whether guests know this host.
    fn knows(&self, host: &Host) -> bool {
        self.host == host.name || self.backups.iter().any(|backup| backup.host == host.name)
    }
}

/// Whether a folder is on a file system that several machines may have: by its magic number in
/// `linux/magic.h` and in the file systems' own sources.
#[must_use]
pub fn is_shared(dir: &Path) -> bool {
    const NETWORKED: [u64; 8] = [
        0x6969,      // NFS
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB 2
        0x00c3_6400, // Ceph
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
        0x0116_1970, // GFS 2
    ];
    rustix::fs::statfs(dir).is_ok_and(|found| NETWORKED.contains(&found.f_type.cast_unsigned()))
}

/// What does not go together. `clients`: the version of the client programs here; `shared`: whether the state
/// folder is on a network's file system.
#[must_use]
pub fn judge(site: &Site, told: &GuestContext, clients: Option<Version>, shared: bool) -> Vec<Finding> {
    let mut found = against_settings(site, told, clients);
    found.extend(hooks_of_backups(site, shared));
    if found.is_empty() {
        let at = format!("{}({}) at port {}", told.host, told.addr, told.port);
        found.push(Finding::ok(
            "guests' way",
            format!("guests ask {at}, as slurmctld says"),
        ));
    }
    found
}

/// What of it the settings say otherwise than slurmctld.
#[must_use]
pub fn against_settings(site: &Site, told: &GuestContext, clients: Option<Version>) -> Vec<Finding> {
    [
        versions(site, clients),
        auth(site, told),
        tls(site),
        port(site, told),
        primary(site, told),
        user(site, told),
        plugins(site, told),
        backups(site, told),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Guests run this machine's slurmd, which must not be newer than slurmctld.
fn versions(site: &Site, clients: Option<Version>) -> Option<Finding> {
    let (server, clients) = (site.version?, clients?);
    let release = |version: Version| (version.major, version.minor);
    let cure = "name the folder of its release's client programs with slurm.bin_dir in thiao.toml";
    match release(clients).cmp(&release(server)) {
        Ordering::Equal => None,
        Ordering::Greater => Some(
            Finding::bad(
                "Slurm",
                format!(
                    "slurmctld is {server}, but guests get the slurmd of the programs here, {clients}: \
                     slurmctld refuses one that is newer than itself"
                ),
            )
            .advice(cure),
        ),
        Ordering::Less => Some(
            Finding::warn(
                "Slurm",
                format!(
                    "slurmctld is {server}, but guests get the slurmd of the programs here, {clients}: \
                     slurmctld only takes those of the releases just before its own"
                ),
            )
            .advice(cure),
        ),
    }
}

fn auth(site: &Site, told: &GuestContext) -> Option<Finding> {
    let (theirs, credentials) = (site.auth_type.as_deref()?, told.credentials.as_ref()?);
    if theirs == credentials.auth_type() {
        return None;
    }
    let finding = Finding::bad(
        "AuthType",
        format!(
            "is {theirs}, and guests get a {}: none of them could join the cluster",
            credentials.name()
        ),
    );
    Some(match theirs {
        "auth/slurm" => {
            finding.advice("set slurm_key in thiao.toml to the slurm.key of slurmctld, instead of munge_key")
        }
        "auth/munge" => finding
            .advice("set munge_key in thiao.toml to the munge key of slurmctld's host, instead of slurm_key"),
        _ => finding.advice("use auth/munge or auth/slurm: Thiao knows no other"),
    })
}

fn tls(site: &Site) -> Option<Finding> {
    let kind = site.tls.as_deref()?;
    Some(
        Finding::bad(
            "TLSType",
            format!("is {kind}: guests have no certificates, and Thiao gives them none yet; none could join the cluster"),
        )
        .advice("leave TLSType out of slurm.conf"),
    )
}

fn port(site: &Site, told: &GuestContext) -> Option<Finding> {
    (!site.ports.contains(&told.port)).then(|| {
        let (first, last) = (site.ports.start(), site.ports.end());
        let theirs = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        Finding::bad(
            "SlurmctldPort",
            format!("is {theirs}, and guests ask port {}", told.port),
        )
        .advice(format!("set slurmctld_port = {first} in thiao.toml"))
    })
}

fn primary(site: &Site, told: &GuestContext) -> Option<Finding> {
    let first = site.hosts.first()?;
    let theirs: Option<Ipv4Addr> = first.address.parse().ok();
    if first.name != told.host {
        return Some(
            Finding::bad(
                "SlurmctldHost",
                format!(
                    "is {}, and guests are told {}: they do not know slurmctld's name",
                    first.name, told.host
                ),
            )
            .advice(format!("set slurmctld_host = {:?} in thiao.toml", first.name)),
        );
    }
    theirs
        .filter(|theirs| *theirs != told.addr && !told.here)
        .map(|theirs| {
            Finding::warn(
                "SlurmctldHost",
                format!(
                    "is at {theirs}, and guests first ask {}: they must reach both, as slurmd asks the first \
                 one once it has slurm.conf",
                    told.addr
                ),
            )
            .advice(format!(
                "set slurmctld_addr = \"{theirs}\" in thiao.toml, or make sure that guests reach both"
            ))
        })
}

fn user(site: &Site, told: &GuestContext) -> Option<Finding> {
    let (name, _) = site.user.as_ref()?;
    // root is in every guest.
    (*name != told.slurm_user && name != "root").then(|| {
        Finding::bad(
            "SlurmUser",
            format!(
                "is {name}, and guests know {} as Slurm's user: slurmd does not start there",
                told.slurm_user
            ),
        )
        .advice(format!(
            "set slurm_user = {name:?} in thiao.toml; thiaod runs as that user, too"
        ))
    })
}

fn plugins(site: &Site, told: &GuestContext) -> Option<Finding> {
    let ours = told.plugins.as_ref()?;
    let lacks = |dir: &&PathBuf| !ours.contains(dir);
    let missing: Vec<String> = site
        .plugin_dirs
        .iter()
        .filter(lacks)
        .map(|dir| dir.display().to_string())
        .collect();
    (!missing.is_empty()).then(|| {
        let all: Vec<String> = site
            .plugin_dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        Finding::warn(
            "PluginDir",
            format!("has {}, which guests do not get", missing.join(", ")),
        )
        .advice(format!(
            "set plugin_dir = {:?} in [slurm] of thiao.toml",
            all.join(":")
        ))
    })
}

/// Backups of slurmctld that guests do not know.
fn backups(site: &Site, told: &GuestContext) -> Option<Finding> {
    let unknown: Vec<String> = others(site)
        .iter()
        .filter(|host| !told.knows(host))
        .map(|host| format!("\"{}({})\"", host.name, host.address))
        .collect();
    (!unknown.is_empty()).then(|| {
        Finding::warn(
            "SlurmctldHost",
            format!(
                "has {} backups that guests are not told about: a guest that boots while a backup is in charge finds no \
                 slurmctld",
                unknown.len()
            ),
        )
        .advice(format!(
            "set slurmctld_backups = [{}] in thiao.toml, with addresses",
            unknown.join(", ")
        ))
    })
}

/// Whether the hooks of backups reach the controller.
fn hooks_of_backups(site: &Site, shared: bool) -> Option<Finding> {
    let names: Vec<&str> = others(site).iter().map(|host| host.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let names = names.join(", ");
    Some(if shared {
        Finding::warn(
            "backup",
            format!(
                "slurmctld may run on {names}: orders that its hooks leave reach the controller if the state folder is \
                 mounted there at the same path; a prolog's question does not, and such jobs start up to 30 s later"
            ),
        )
        .advice(format!("make sure that {names} has the hooks and the state folder at the same paths"))
    } else {
        Finding::warn(
            "backup",
            format!(
                "slurmctld may run on {names}, and the state folder is this machine's own: orders that its hooks leave \
                 there reach no controller. Running jobs go on and their VMs are kept; no VM is made or given back for \
                 those orders"
            ),
        )
        .advice("bring the primary back soon after a failure; Slurm asks again for nodes whose VMs did not come")
    })
}

fn others(site: &Site) -> &[Host] {
    site.hosts.get(1..).unwrap_or_default()
}
