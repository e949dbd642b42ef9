//! What is known before anybody is asked: what was typed, what an old file says, what this site shows.

use super::ask::{Asker, Question};
use super::text::text;
use crate::cli::args::NewSettings;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_config::import::Imported;
use thiao_slurm::Slurm;
use thiao_slurm::site::{Host, Site};

/// What this machine and its Slurm show.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    pub(super) cluster: Option<String>,
    pub(super) slurmctld_host: Option<String>,
    pub(super) slurmctld_addr: Option<Ipv4Addr>,
    /// What of slurmctld is not as the settings have it when they say nothing.
    pub(super) slurmctld: Slurmctld,
    pub(super) endpoint: Option<String>,
    pub(super) auth: Option<PathBuf>,
    /// Where systemd puts the munge key for the controller, if it needs that.
    pub(super) munge_key: Option<String>,
}

/// slurmctld's port where nobody says.
const PORT: u16 = 6817;

/// Where the service's unit file may be.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/thiaod.service",
    "/usr/lib/systemd/system/thiaod.service",
    "/lib/systemd/system/thiaod.service",
];
/// Where the unit's `LoadCredential=munge.key` puts it.
const CREDENTIAL: &str = "/run/credentials/thiaod.service/munge.key";
/// The key itself, which munged wants to be readable by its own user alone.
const MUNGE_KEY: &str = "/etc/munge/munge.key";

/// Whose the file is, if that can be seen.
fn owner(file: &Path) -> Option<u32> {
    file.metadata().ok().map(|of| of.uid())
}

/// Whether the service, which runs as this user, surely cannot read a key of that owner: it needs a copy then,
/// also when its unit is installed later, as the README has it.
fn is_kept_from(service: Option<u32>, owner: Option<u32>) -> bool {
    matches!((service, owner), (Some(service), Some(owner)) if service != 0 && service != owner)
}

impl Here {
    /// Asks slurmctld, if it answers, and takes OpenNebula's variables.
    pub(super) fn of(slurm: &Slurm) -> Self {
        let config = slurm.config().ok();
        let get = |key: &str| config.as_ref().and_then(|config| config.get(key));
        let site = config.as_ref().map(Site::of);
        let primary = site.as_ref().and_then(|site| site.hosts.first());
        let slurmctld = site.as_ref().map(Slurmctld::of).unwrap_or_default();
        let service = site
            .as_ref()
            .and_then(|site| site.user.as_ref())
            .and_then(|(_, uid)| *uid);
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(|home| Path::new(&home).join(".one/one_auth"));
        Self {
            cluster: get("ClusterName").map(str::to_owned),
            slurmctld_host: primary.map(|host| host.name.clone()),
            slurmctld_addr: primary.and_then(|host| host.address.parse().ok()),
            endpoint: variable("ONE_XMLRPC").and_then(|url| url.into_string().ok()),
            // A home's file only if it is there: the controller's user has another home.
            auth: variable("ONE_AUTH")
                .map(PathBuf::from)
                .or(home.filter(|file| file.exists())),
            munge_key: (slurmctld.slurm_key.is_none()
                && (UNITS.iter().any(|unit| Path::new(unit).exists())
                    || is_kept_from(service, owner(Path::new(MUNGE_KEY)))))
            .then(|| CREDENTIAL.to_owned()),
            slurmctld,
        }
    }
}

/// What of slurmctld is not as the settings have it when they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slurmctld {
    pub(super) port: Option<u16>,
    pub(super) backups: Vec<String>,
    pub(super) user: Option<String>,
    /// Where the key is, if Slurm uses its own.
    pub(super) slurm_key: Option<PathBuf>,
}

impl Slurmctld {
    fn of(site: &Site) -> Self {
        let port = *site.ports.start();
        let user = site.user.as_ref().map(|(name, _)| name.clone());
        let beside = |name: &str| Some(site.conf.as_ref()?.with_file_name(name));
        // A list of keys counts before a single one (auth/slurm of 25.11).
        let list = beside("slurm.jwks").filter(|list| list.exists());
        let by_slurm = site.auth_type.as_deref() == Some("auth/slurm");
        Self {
            port: (port != PORT).then_some(port),
            backups: site.hosts.iter().skip(1).filter_map(backup).collect(),
            user: user.filter(|name| name != "slurm"),
            slurm_key: list.or_else(|| beside("slurm.key")).filter(|_| by_slurm),
        }
    }

    pub(super) fn write(&self, to: &mut String) {
        if let Some(port) = self.port {
            let _ = writeln!(to, "slurmctld_port = {port}");
        }
        if !self.backups.is_empty() {
            let _ = writeln!(
                to,
                "slurmctld_backups = {}",
                toml::Value::from(self.backups.clone())
            );
        }
        if let Some(user) = &self.user {
            text(to, "slurm_user", user);
        }
        if let Some(key) = &self.slurm_key {
            text(to, "slurm_key", key.display());
        }
    }
}

/// A backup with its IPv4 address, which this machine may have to look up; none: doctor will name it.
fn backup(host: &Host) -> Option<String> {
    let addr = match host.address.parse::<Ipv4Addr>() {
        Ok(addr) => addr,
        Err(_) => (host.address.as_str(), PORT)
            .to_socket_addrs()
            .ok()?
            .find_map(|found| match found.ip() {
                IpAddr::V4(addr) => Some(addr),
                IpAddr::V6(_) => None,
            })?,
    };
    Some(format!("{}({addr})", host.name))
}

/// Who is to make the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Qemu,
    OpenNebula,
}

/// What is known before anybody is asked.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// What was typed as options.
    pub(super) flags: &'a NewSettings,
    /// What an old file says.
    pub(super) imported: &'a Imported,
    /// What this site shows.
    pub(super) site: &'a Here,
}

impl Given<'_> {
    /// Who makes the VMs, as options tell or a person says.
    pub(super) fn maker(self, asker: &mut Asker<'_>) -> io::Result<Maker> {
        let flags = self.flags;
        if flags.qemu {
            return Ok(Maker::Qemu);
        }
        if flags.opennebula || flags.are_of_opennebula() || flags.import.is_some() {
            return Ok(Maker::OpenNebula);
        }
        let word = asker.ask(Question {
            flag: "--opennebula or --qemu",
            text: "Who makes the VMs, opennebula or qemu (this machine)?",
            given: None,
            default: Some("opennebula".to_owned()),
            sure: false,
            check: &|text| match text {
                "opennebula" | "qemu" => Ok(()),
                _ => Err("write opennebula or qemu".to_owned()),
            },
        })?;
        Ok(match word.as_deref() {
            Some("opennebula") => Maker::OpenNebula,
            Some(_) | None => Maker::Qemu,
        })
    }

    /// The cluster's secret, munge's or Slurm's own: what was typed takes the place of what was found.
    pub(super) fn keys(self) -> (Option<String>, Option<PathBuf>) {
        let (flags, site) = (self.flags, self.site);
        if flags.munge_key.is_some() || flags.slurm_key.is_some() {
            return (flags.munge_key.clone(), flags.slurm_key.clone());
        }
        (site.munge_key.clone(), site.slurmctld.slurm_key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_munge_key_of_anothers_is_had_as_a_copy_of_systemds() {
        assert!(is_kept_from(Some(64_030), Some(102)), "as Debian has it");
        assert!(!is_kept_from(Some(102), Some(102)));
        assert!(!is_kept_from(Some(0), Some(102)), "root reads it");
        assert!(!is_kept_from(None, Some(102)) && !is_kept_from(Some(64_030), None));
    }
}
