//! New settings: by what was typed, what an old file says, what this site shows, and what a person answers.

mod sets;

use super::ask::{Asker, Question};
use crate::cli::args::NewSettings;
use anyhow::bail;
use sets::{Set, sets};
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use thiao_config::import::Imported;
use thiao_core::ids::ClusterName;
use thiao_slurm::Slurm;
use thiao_slurm::site::{Host, Site};

/// OpenNebula's own default.
const ENDPOINT: &str = "http://localhost:2633/RPC2";

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
    /// Where systemd puts the munge key for the controller, if its service is installed.
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
/// The unit's `LoadCredential=munge.key`.
const CREDENTIAL: &str = "/run/credentials/thiaod.service/munge.key";

impl Here {
    /// Asks slurmctld, if it answers, and takes OpenNebula's variables.
    pub(super) fn look(slurm: &Slurm) -> Self {
        let config = slurm.config().ok();
        let get = |key: &str| config.as_ref().and_then(|config| config.get(key));
        let site = config.as_ref().map(Site::of);
        let primary = site.as_ref().and_then(|site| site.hosts.first());
        let slurmctld = site.as_ref().map(Slurmctld::of).unwrap_or_default();
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
            munge_key: (slurmctld.slurm_key.is_none() && UNITS.iter().any(|unit| Path::new(unit).exists()))
                .then(|| CREDENTIAL.to_owned()),
            slurmctld,
        }
    }
}

/// What of slurmctld is not as the settings have it when they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slurmctld {
    port: Option<u16>,
    backups: Vec<String>,
    user: Option<String>,
    /// Where the key is, if Slurm uses its own.
    slurm_key: Option<PathBuf>,
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

    fn write(&self, to: &mut String) {
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

/// Settings to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    cluster: String,
    state_dir: Option<PathBuf>,
    provider: Provider,
    munge_key: Option<String>,
    slurmctld: Slurmctld,
    slurm_bin_dir: Option<PathBuf>,
    slurm_conf: Option<PathBuf>,
    sets: Vec<Set>,
    origin: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Provider {
    Qemu,
    OpenNebula {
        endpoint: String,
        auth: PathBuf,
        ca_file: Option<PathBuf>,
        placement: Option<String>,
        ready: Option<String>,
        slurmctld_host: Option<String>,
        slurmctld_addr: String,
    },
}

/// Who is to make the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Qemu,
    OpenNebula,
}

/// What is known before anybody is asked.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// What was typed.
    pub(super) flags: &'a NewSettings,
    /// What an old file says.
    pub(super) imported: &'a Imported,
    /// What this site shows.
    pub(super) site: &'a Here,
}

/// Puts the settings together.
pub(super) fn draft(given: Given<'_>, asker: &mut Asker<'_>) -> anyhow::Result<Draft> {
    let (flags, site) = (given.flags, given.site);
    let maker = given.maker(asker)?;
    let cluster = asker.ask(Question {
        flag: "--cluster",
        text: "The cluster's name, ClusterName of slurm.conf",
        given: flags.cluster.as_ref().map(ToString::to_string),
        default: site.cluster.clone(),
        sure: true,
        check: &|text| ClusterName::new(text).map(drop).map_err(|e| e.to_string()),
    })?;
    let sets = sets(given, maker, asker)?;
    let provider = match maker {
        Maker::Qemu => Provider::Qemu,
        Maker::OpenNebula => given.opennebula(asker)?,
    };
    if let Asker::Nobody { missing } = asker
        && !missing.is_empty()
    {
        bail!(
            "there is no settings file to start from, and for a new one this is missing: {}",
            missing.join(", ")
        );
    }
    // Nothing is missing: all answers are there.
    let (Some(cluster), Some(sets)) = (cluster, sets) else {
        bail!("not all that settings need was given; see `thiao setup --help`");
    };
    let (munge_key, slurm_key) = given.keys();
    Ok(Draft {
        cluster,
        state_dir: flags.state_dir.clone(),
        provider,
        munge_key,
        slurmctld: Slurmctld {
            slurm_key,
            ..site.slurmctld.clone()
        },
        slurm_bin_dir: flags.slurm_bin_dir.clone(),
        slurm_conf: flags.slurm_conf.clone(),
        sets,
        origin: flags.import.clone(),
    })
}

impl Given<'_> {
    /// Who makes the VMs, as options tell or a person says.
    fn maker(self, asker: &mut Asker<'_>) -> io::Result<Maker> {
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
    fn keys(self) -> (Option<String>, Option<PathBuf>) {
        let (flags, site) = (self.flags, self.site);
        if flags.munge_key.is_some() || flags.slurm_key.is_some() {
            return (flags.munge_key.clone(), flags.slurm_key.clone());
        }
        (site.munge_key.clone(), site.slurmctld.slurm_key.clone())
    }

    /// How oned is reached, and what its VMs are told.
    fn opennebula(self, asker: &mut Asker<'_>) -> io::Result<Provider> {
        let endpoint = asker.ask(Question {
            flag: "--endpoint",
            text: "oned's URL",
            given: self.flags.endpoint.clone(),
            default: Some(self.site.endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned())),
            sure: true,
            check: &|text| match text.starts_with("http://") || text.starts_with("https://") {
                true => Ok(()),
                false => Err(format!("write it as {ENDPOINT}, or with https")),
            },
        })?;
        let path = |path: &PathBuf| path.display().to_string();
        let auth = asker.ask(Question {
            flag: "--auth",
            text: "The file with user:password or user:token, for the controller's user alone",
            given: self.flags.auth.as_ref().map(path),
            default: self.imported.auth.as_ref().or(self.site.auth.as_ref()).map(path),
            sure: true,
            check: &|text| match Path::new(text).is_absolute() {
                true => Ok(()),
                false => Err("write an absolute path".to_owned()),
            },
        })?;
        let slurmctld_addr = asker.ask(Question {
            flag: "--slurmctld-addr",
            text: "The IPv4 address at which VMs reach slurmctld",
            given: self.flags.slurmctld_addr.map(|addr| addr.to_string()),
            default: self.site.slurmctld_addr.map(|addr| addr.to_string()),
            sure: true,
            check: &|text| text.parse::<Ipv4Addr>().map(drop).map_err(|e| e.to_string()),
        })?;
        Ok(Provider::OpenNebula {
            // What is empty is told as missing by the caller.
            endpoint: endpoint.unwrap_or_default(),
            auth: auth.unwrap_or_default().into(),
            ca_file: self.flags.ca_file.clone(),
            placement: self.flags.placement.map(|word| word.word().to_owned()),
            ready: self.flags.ready.map(|word| word.word().to_owned()),
            slurmctld_host: self
                .flags
                .slurmctld_host
                .clone()
                .or_else(|| self.site.slurmctld_host.clone()),
            slurmctld_addr: slurmctld_addr.unwrap_or_default(),
        })
    }
}

fn filled(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("there is no default for it".to_owned());
    }
    Ok(())
}

/// `key = "value"`, lines of TOML.
fn text(to: &mut String, key: &str, value: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(to, "{key} = {}", toml::Value::from(value.to_string()));
}

impl Draft {
    /// The file's text; no secret is in it.
    pub(super) fn to_toml(&self) -> String {
        let mut to = String::from(
            "# Written by `thiao setup`, and yours from now on: `thiao config check` says whether it is right,\n\
             # `thiao config show` shows all settings as they hold, `thiao doctor` whether they work.\n",
        );
        if let Some(origin) = &self.origin {
            let _ = writeln!(to, "# Taken over from {:?}.", origin.display().to_string());
        }
        to.push('\n');
        text(&mut to, "cluster", &self.cluster);
        text(
            &mut to,
            "provider",
            match &self.provider {
                Provider::Qemu => "qemu",
                Provider::OpenNebula { .. } => "opennebula",
            },
        );
        if let Some(dir) = &self.state_dir {
            text(&mut to, "state_dir", dir.display());
        }
        if self.slurm_bin_dir.is_some() || self.slurm_conf.is_some() {
            to.push_str("\n[slurm]\n");
        }
        for (key, path) in [("bin_dir", &self.slurm_bin_dir), ("conf", &self.slurm_conf)] {
            if let Some(path) = path {
                text(&mut to, key, path.display());
            }
        }
        for set in &self.sets {
            set.write(&mut to);
        }
        match &self.provider {
            Provider::Qemu => {
                if self.munge_key.is_some() || self.slurmctld != Slurmctld::default() {
                    to.push_str("\n[qemu]\n");
                }
                if let Some(key) = &self.munge_key {
                    text(&mut to, "munge_key", key);
                }
                self.slurmctld.write(&mut to);
            }
            Provider::OpenNebula {
                endpoint,
                auth,
                ca_file,
                placement,
                ready,
                slurmctld_host,
                slurmctld_addr,
            } => {
                to.push_str("\n[opennebula]\n");
                text(&mut to, "endpoint", endpoint);
                text(&mut to, "auth", auth.display());
                if let Some(file) = ca_file {
                    text(&mut to, "ca_file", file.display());
                }
                for (key, value) in [
                    ("placement", placement),
                    ("ready", ready),
                    ("slurmctld_host", slurmctld_host),
                    ("munge_key", &self.munge_key),
                ] {
                    if let Some(value) = value {
                        text(&mut to, key, value);
                    }
                }
                text(&mut to, "slurmctld_addr", slurmctld_addr);
                self.slurmctld.write(&mut to);
            }
        }
        to
    }
}
