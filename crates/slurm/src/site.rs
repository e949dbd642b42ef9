//! Where a cluster's slurmctlds are and how they are spoken to, by what one of them says of itself.

use crate::info::{Config, Version};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// slurmctld's port where nobody says.
const PORT: u16 = 6817;

/// A host that slurmctld may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// Its address, as a name or a number; where slurm.conf gives none, it is the name.
    pub address: String,
}

/// What `scontrol show config` says of where and who slurmctld is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Every host that slurmctld may run on, the primary first.
    pub hosts: Vec<Host>,
    /// The ports at which each is asked: Slurm has one setting for all of them.
    pub ports: RangeInclusive<u16>,
    /// The name of Slurm's user, and its number.
    pub user: Option<(String, Option<u32>)>,
    /// What `AuthType` says, e.g. `auth/munge`.
    pub auth_type: Option<String>,
    /// What encrypts the connections (`TLSType`, since 25.05), if something does.
    pub tls: Option<String>,
    /// Where slurm.conf is on slurmctld's host.
    pub conf: Option<PathBuf>,
    /// Where slurmctld looks for plugins.
    pub plugin_dirs: Vec<PathBuf>,
    /// slurmctld's own version, which may be another than that of the client programs here.
    pub version: Option<Version>,
}

impl Site {
    /// Takes it from slurmctld's configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let hosts = config.values("SlurmctldHost").into_iter();
        let plugin_dirs = config.get("PluginDir").unwrap_or_default().split(':');
        Self {
            hosts: hosts.map(host).collect(),
            ports: config.get("SlurmctldPort").and_then(ports).unwrap_or(PORT..=PORT),
            user: config.get("SlurmUser").map(user),
            auth_type: config.get("AuthType").map(str::to_owned),
            tls: config
                .get("TLSType")
                .filter(|kind| !matches!(*kind, "none" | "tls/none"))
                .map(str::to_owned),
            conf: config.get("SLURM_CONF").map(PathBuf::from),
            plugin_dirs: plugin_dirs
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from)
                .collect(),
            version: config.get("SLURM_VERSION").and_then(Version::parse),
        }
    }
}

/// Reads `head(10.9.0.1)`, or `head` alone.
fn host(text: &str) -> Host {
    let (name, address) = match text.split_once('(') {
        Some((name, address)) => (name, address.trim_end_matches(')')),
        None => (text, text),
    };
    Host {
        name: name.to_owned(),
        address: address.to_owned(),
    }
}

/// Reads `6817`, or a range `6817-6820`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

/// Reads `slurm(64030)`: a name and a uid.
fn user(text: &str) -> (String, Option<u32>) {
    match text.split_once('(') {
        Some((name, uid)) => (name.to_owned(), uid.trim_end_matches(')').parse().ok()),
        None => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slurmctlds_are_where_they_say() {
        let text = "SlurmctldHost[0]        = head(10.9.0.1)\nSlurmctldHost[1] = head2\nSlurmctldPort = 6817-6820\n\
                    SlurmUser = slurmadm(990)\nAuthType = auth/slurm\nTLSType = tls/s2n\n\
                    SLURM_CONF = /opt/slurm/etc/slurm.conf\nPluginDir = /opt/spank:/opt/slurm/lib/slurm\n\
                    SLURM_VERSION = 25.11.7\n";
        let named = |name: &str, address: &str| Host {
            name: name.into(),
            address: address.into(),
        };
        let expected = Site {
            hosts: vec![named("head", "10.9.0.1"), named("head2", "head2")],
            ports: 6817..=6820,
            user: Some(("slurmadm".into(), Some(990))),
            auth_type: Some("auth/slurm".into()),
            tls: Some("tls/s2n".into()),
            conf: Some("/opt/slurm/etc/slurm.conf".into()),
            plugin_dirs: vec!["/opt/spank".into(), "/opt/slurm/lib/slurm".into()],
            version: Some(Version::new(25, 11, 7)),
        };
        assert_eq!(Site::of(&Config::parse(text)), expected);
    }

    #[test]
    fn what_is_not_said_is_slurms_default_or_unknown() {
        let site = Site::of(&Config::parse("TLSType = tls/none\nSlurmctldPort = odd\n"));
        assert_eq!((site.ports, site.tls, site.hosts), (6817..=6817, None, vec![]));
        assert!(site.plugin_dirs.is_empty() && site.user.is_none());
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(text in "\\PC{0,30}") {
            let _ = (host(&text), ports(&text), user(&text));
        }
    }
}
