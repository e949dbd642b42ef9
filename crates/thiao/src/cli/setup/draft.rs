//! New settings: by what was typed, what an old file says, what this site shows, and what a person answers.

use super::ask::{Asker, Question};
use crate::cli::args::NewSettings;
use anyhow::bail;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use thiao_config::import::{Imported, Size};
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, NodesetName};
use thiao_core::policy::Policy;
use thiao_opennebula::settings::TemplateSource;
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    name: String,
    nodes: String,
    cpus: String,
    memory_mb: String,
    share_percent: Option<u32>,
    partition: Option<String>,
    source: Option<TemplateSource>,
    network: Option<String>,
}

/// Puts the settings together.
pub(super) fn draft(
    flags: &NewSettings,
    imported: &Imported,
    site: &Here,
    asker: &mut Asker<'_>,
) -> anyhow::Result<Draft> {
    let one = if flags.qemu {
        false
    } else if flags.opennebula || flags.are_of_opennebula() || flags.import.is_some() {
        true
    } else {
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
        word.as_deref() == Some("opennebula")
    };
    let cluster = asker.ask(Question {
        flag: "--cluster",
        text: "The cluster's name, ClusterName of slurm.conf",
        given: flags.cluster.as_ref().map(ToString::to_string),
        default: site.cluster.clone(),
        sure: true,
        check: &|text| ClusterName::new(text).map(drop).map_err(|e| e.to_string()),
    })?;
    let sets = sets(flags, imported, one, asker)?;
    let provider = if one {
        Some(opennebula(flags, imported, site, asker)?)
    } else {
        Some(Provider::Qemu)
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
    match (cluster, provider, sets) {
        (Some(cluster), Some(provider), Some(sets)) => Ok(Draft {
            cluster,
            state_dir: flags.state_dir.clone(),
            provider,
            munge_key: flags
                .munge_key
                .clone()
                .or_else(|| site.munge_key.clone().filter(|_| flags.slurm_key.is_none())),
            slurmctld: Slurmctld {
                slurm_key: flags.slurm_key.clone().or_else(|| {
                    site.slurmctld
                        .slurm_key
                        .clone()
                        .filter(|_| flags.munge_key.is_none())
                }),
                ..site.slurmctld.clone()
            },
            slurm_bin_dir: flags.slurm_bin_dir.clone(),
            slurm_conf: flags.slurm_conf.clone(),
            sets,
            origin: flags.import.clone(),
        }),
        (_, _, _) => bail!("not all that settings need was given; see `thiao setup --help`"),
    }
}

fn sets(
    flags: &NewSettings,
    imported: &Imported,
    one: bool,
    asker: &mut Asker<'_>,
) -> anyhow::Result<Option<Vec<Set>>> {
    let source = flags.source();
    let size = |size: Size| size.shape(Policy::default().overhead_mb);
    if flags.nodes.is_none() && !imported.sets.is_empty() {
        let set = |set: &thiao_config::import::ImportedSet| {
            let shape = size(set.size);
            Set {
                name: set.name.clone(),
                nodes: set.nodes.clone(),
                cpus: flags.cpus.unwrap_or(shape.cpus).to_string(),
                memory_mb: flags.memory_mb.unwrap_or(shape.memory_mb).to_string(),
                share_percent: Some(flags.share_percent.unwrap_or(shape.share_percent)),
                partition: flags.partition.clone(),
                source: Some(source.clone().unwrap_or_else(|| set.source.clone())).filter(|_| one),
                network: flags.network.clone().filter(|_| one),
            }
        };
        return Ok(Some(imported.sets.iter().map(set).collect()));
    }
    let shape = imported.size.map(size);
    let nodes = asker.ask(Question {
        flag: "--nodes",
        text: "The nodes' names, as Slurm writes them",
        given: flags.nodes.clone(),
        default: Some("vm[0-3]".to_owned()),
        sure: false,
        check: &|text| hostlist::expand(text).map(drop).map_err(|e| e.to_string()),
    })?;
    let number = |text: &str| text.parse::<u64>().map(drop).map_err(|e| e.to_string());
    let cpus = asker.ask(Question {
        flag: "--cpus",
        text: "CPUs of each node",
        given: flags.cpus.map(|n| n.to_string()),
        default: Some(shape.map_or(1, |shape| shape.cpus).to_string()),
        sure: true,
        check: &number,
    })?;
    let memory_mb = asker.ask(Question {
        flag: "--memory-mb",
        text: "Memory of each node for its jobs, in MiB",
        given: flags.memory_mb.map(|n| n.to_string()),
        default: Some(shape.map_or(1024, |shape| shape.memory_mb).to_string()),
        sure: shape.is_some(),
        check: &number,
    })?;
    let partition = asker.ask(Question {
        flag: "--partition",
        text: "Slurm's partition for them",
        given: flags.partition.clone(),
        default: Some("vm".to_owned()),
        sure: true,
        check: &filled,
    })?;
    let (mut from, mut network) = (
        source.or_else(|| imported.template.clone()),
        flags.network.clone(),
    );
    if one && from.is_none() {
        from = asker
            .ask(Question {
                flag: "--template",
                text: "OpenNebula's VM template, by name or id (see `onetemplate list`)",
                given: None,
                default: None,
                sure: false,
                check: &filled,
            })?
            .map(TemplateSource::Registered);
        if network.is_none() && matches!(asker, Asker::Person { .. }) {
            network = asker
                .ask(Question {
                    flag: "--network",
                    text: "The network for VMs whose template has no NIC (empty: it has one)",
                    given: None,
                    default: Some(String::new()),
                    sure: true,
                    check: &|_| Ok(()),
                })?
                .filter(|name| !name.is_empty());
        }
    }
    let (Some(nodes), Some(cpus), Some(memory_mb)) = (nodes, cpus, memory_mb) else {
        return Ok(None);
    };
    let name = match &flags.nodeset {
        Some(name) => name.to_string(),
        None => set_name(&nodes),
    };
    Ok(Some(vec![Set {
        name,
        nodes,
        cpus,
        memory_mb,
        share_percent: flags.share_percent.or(shape.map(|shape| shape.share_percent)),
        partition,
        source: from.filter(|_| one),
        network: network.filter(|_| one),
    }]))
}

fn filled(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("there is no default for it".to_owned());
    }
    Ok(())
}

/// The letters that the list begins with.
fn set_name(nodes: &str) -> String {
    let letters: String = nodes.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    match NodesetName::new(&letters) {
        Ok(name) => name.to_string(),
        Err(_) => "vms".to_owned(),
    }
}

fn opennebula(
    flags: &NewSettings,
    imported: &Imported,
    site: &Here,
    asker: &mut Asker<'_>,
) -> anyhow::Result<Provider> {
    let endpoint = asker.ask(Question {
        flag: "--endpoint",
        text: "oned's URL",
        given: flags.endpoint.clone(),
        default: Some(site.endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned())),
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
        given: flags.auth.as_ref().map(path),
        default: imported.auth.as_ref().or(site.auth.as_ref()).map(path),
        sure: true,
        check: &|text| match Path::new(text).is_absolute() {
            true => Ok(()),
            false => Err("write an absolute path".to_owned()),
        },
    })?;
    let slurmctld_addr = asker.ask(Question {
        flag: "--slurmctld-addr",
        text: "The IPv4 address at which VMs reach slurmctld",
        given: flags.slurmctld_addr.map(|addr| addr.to_string()),
        default: site.slurmctld_addr.map(|addr| addr.to_string()),
        sure: true,
        check: &|text| text.parse::<Ipv4Addr>().map(drop).map_err(|e| e.to_string()),
    })?;
    Ok(Provider::OpenNebula {
        // What is empty is told as missing by the caller.
        endpoint: endpoint.unwrap_or_default(),
        auth: auth.unwrap_or_default().into(),
        ca_file: flags.ca_file.clone(),
        placement: flags.placement.map(|word| word.word().to_owned()),
        ready: flags.ready.map(|word| word.word().to_owned()),
        slurmctld_host: flags
            .slurmctld_host
            .clone()
            .or_else(|| site.slurmctld_host.clone()),
        slurmctld_addr: slurmctld_addr.unwrap_or_default(),
    })
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

impl Set {
    fn write(&self, to: &mut String) {
        to.push_str("\n[[nodeset]]\n");
        text(to, "name", &self.name);
        text(to, "nodes", &self.nodes);
        let _ = writeln!(to, "cpus = {}\nmemory_mb = {}", self.cpus, self.memory_mb);
        if let Some(percent) = self.share_percent {
            let _ = writeln!(to, "share_percent = {percent}");
        }
        if let Some(partition) = &self.partition {
            text(to, "partition", partition);
        }
        match &self.source {
            Some(TemplateSource::Registered(name)) => text(to, "template", name),
            Some(TemplateSource::File(file)) => text(to, "template_file", file.display()),
            Some(TemplateSource::PerNode(dir)) => text(to, "template_dir", dir.display()),
            None => {}
        }
        if let Some(network) = &self.network {
            text(to, "network", network);
        }
    }
}
