//! New settings: by what was typed, what an old file says, what this site shows, and what a person answers.

mod sets;

use super::ask::{Asker, Question};
use super::given::{Given, Maker, Slurmctld};
use super::text::text;
use anyhow::bail;
use sets::{Set, sets};
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use thiao_core::ids::ClusterName;

/// The endpoint that OpenNebula's programs take by default.
const ENDPOINT: &str = "http://localhost:2633/RPC2";

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
    /// What runs in the VMs that QEMU makes.
    image: String,
    sets: Vec<Set>,
    origin: Option<PathBuf>,
}

/// The image of VMs that QEMU makes, where nobody names one.
const IMAGE: &str = "debian";

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
            "there is no settings file yet, and a new one still needs {}",
            missing.join(", ")
        );
    }
    // Nothing is missing: all answers are there.
    let (Some(cluster), Some(sets)) = (cluster, sets) else {
        bail!("some settings are missing; see `thiao setup --help`");
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
        image: flags.qemu_image.clone().unwrap_or_else(|| IMAGE.to_owned()),
        sets,
        origin: flags.import.clone(),
    })
}

impl Given<'_> {
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
                to.push_str("\n[qemu]\n");
                text(&mut to, "image", &self.image);
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
