//! What a nodeset's guests are given beside their Slurm: folders over NFS, people from LDAP, InfiniBand.
//!
//! These are the inputs of OpenNebula's OneSlurm, by the names and forms that its images read (one-apps,
//! `appliances/OneSlurm`: `scripts/net-12-mount-nfs`, `common/ldap.rb`, `common/infiniband.rb`).

use crate::error::{Class, Error};
use crate::secret_file;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiao_guest::protocol::{NFS_PORT, ShareMount};
use thiao_guest::secret::Secret;

/// Where guests have an export of homes, and one of scratch.
const HOME: &str = "/home";
const SCRATCH: &str = "/scratch";

/// What a nodeset says of that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// What guests mount at `/home`.
    pub home: Option<Export>,
    /// What guests mount at `/scratch`.
    pub scratch: Option<Export>,
    pub ldap: Option<Ldap>,
    pub infiniband: Option<Infiniband>,
}

/// An NFS export: `ADDRESS:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    server: Ipv4Addr,
    path: PathBuf,
}

/// Where a guest finds the cluster's people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ldap {
    pub url: LdapUrl,
    /// As `example.org`, or as a base DN.
    pub domain: LdapDomain,
    /// Who may search there; none: everybody.
    pub bind: Option<Bind>,
}

/// Who searches a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// A name, or a DN.
    pub user: LdapUser,
    /// The file whose first line is the password.
    pub password_file: PathBuf,
}

/// InfiniBand in each VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Infiniband {
    /// A virtual function of a host's card, as attributes of `PCI`; none: the template has it.
    pub pci: Option<Vec<(String, String)>>,
    /// IP over InfiniBand: the VM's address there ends as its first card's.
    pub ipoib: Option<Subnet>,
}

/// A network whose hosts are told by whole octets, since guests take theirs from another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Inputs {
    /// The attributes of CONTEXT that say so, `password` being that of the directory. OneSlurm's image asks for
    /// a subnet where InfiniBand is enabled, so without one it is not.
    #[must_use]
    pub fn attributes(&self, password: Option<&str>) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let exports = [
            ("ONEAPP_SLURM_NFS_HOME", &self.home),
            ("ONEAPP_SLURM_NFS_SCRATCH", &self.scratch),
        ];
        for (name, export) in exports {
            all.extend(export.as_ref().map(|export| (name, export.to_string())));
        }
        if let Some(Ldap { url, domain, bind }) = &self.ldap {
            all.push(("ONEAPP_LDAP_URL", url.to_string()));
            all.push(("ONEAPP_LDAP_DOMAIN", domain.to_string()));
            if let Some(bind) = bind {
                all.push(("ONEAPP_LDAP_BIND_USER", bind.user.to_string()));
                all.extend(password.map(|password| ("ONEAPP_LDAP_BIND_PASSWORD", password.to_owned())));
            }
        }
        if let Some(subnet) = self.infiniband.as_ref().and_then(|infiniband| infiniband.ipoib) {
            all.push(("ONEAPP_SLURM_INFINIBAND_ENABLE", "YES".to_owned()));
            all.push(("ONEAPP_SLURM_IPOIB_SUBNET", subnet.to_string()));
        }
        all
    }

    /// The file servers of its homes and scratch.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Ipv4Addr> {
        [&self.home, &self.scratch]
            .into_iter()
            .flatten()
            .map(|export| export.server)
    }

    /// What Thiao's own guest mounts: these, and of `all` what has another place.
    #[must_use]
    pub fn shares(&self, all: &[ShareMount]) -> Vec<ShareMount> {
        let own = [(HOME, &self.home), (SCRATCH, &self.scratch)];
        let mut shares: Vec<ShareMount> = own
            .into_iter()
            .filter_map(|(target, export)| Some(export.as_ref()?.mounted_at(target)))
            .collect();
        let others = all
            .iter()
            .filter(|share| shares.iter().all(|own| own.target != share.target));
        let others: Vec<ShareMount> = others.cloned().collect();
        shares.extend(others);
        shares
    }

    /// The lines `EXPORT MOUNTPOINT` of what a guest with systemd is to mount.
    pub(crate) fn mounts(&self) -> String {
        let own = [(HOME, &self.home), (SCRATCH, &self.scratch)];
        own.into_iter()
            .filter_map(|(target, export)| Some(format!("{} {target}\n", export.as_ref()?)))
            .collect()
    }
}

impl Ldap {
    /// The directory's password, if somebody has to say one.
    ///
    /// # Errors
    /// The file cannot be used, or what is in it cannot be said in CONTEXT.
    pub fn password(&self) -> Result<Option<Secret>, Error> {
        let Some(Bind { password_file, .. }) = &self.bind else {
            return Ok(None);
        };
        let what = "the LDAP password";
        let (text, _) = secret_file::read(password_file, what, Class::BadTemplate)?;
        let password = text.lines().next().unwrap_or_default();
        let said = |why: &str| {
            let text = format!("cannot use {what} in {}: {why}", password_file.display());
            Error::new(Class::BadTemplate, text)
        };
        if password.is_empty() || password.trim() != password {
            return Err(said("its first line is empty, or has spaces around the password"));
        }
        if password.chars().any(is_odd) {
            return Err(said(
                "it has one of $ \\ ` \" or a control character, which CONTEXT does not keep as they are: choose another",
            ));
        }
        Ok(Some(Secret::from_bytes(password.as_bytes())))
    }

    /// The file of whoever may read the password.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.bind.as_ref().map(|bind| bind.password_file.as_path())
    }

    /// sssd's settings as OneSlurm writes them (`apply_sssd_ldap_client`), but for its `ldap_tls_reqcert = never`:
    /// whoever stands between would get the password. sssd's own default asks for a certificate that is known.
    pub(crate) fn sssd_conf(&self, password: Option<&str>) -> String {
        let base = self.domain.base_dn();
        let mut bind = String::new();
        if let Some(Bind { user, .. }) = &self.bind {
            bind = format!(
                "ldap_default_bind_dn = {}\nldap_default_authtok_type = password\n",
                user.dn(&base)
            );
            if let Some(password) = password {
                bind += &format!("ldap_default_authtok = {password}\n");
            }
        }
        format!(
            "[sssd]\nservices = nss, pam\nconfig_file_version = 2\ndomains = slurm\n\n\
             [domain/slurm]\nid_provider = ldap\nauth_provider = ldap\nldap_uri = {}\nldap_search_base = {base}\n\
             ldap_user_search_base = ou=People,{base}\nldap_group_search_base = ou=Groups,{base}\n\
             cache_credentials = True\nenumerate = False\nldap_id_use_start_tls = false\n{bind}",
            self.url
        )
    }
}

impl Export {
    fn mounted_at(&self, target: &str) -> ShareMount {
        ShareMount::plain(self.server, NFS_PORT, self.path.clone(), target.into())
    }
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || "write the server's IPv4 address and the exported folder, e.g. \"10.0.0.2:/export/home\"";
        let (server, path) = text.split_once(':').ok_or_else(wanted)?;
        // It goes into lists that are split at spaces, and between quotes.
        let plain = |c: char| c.is_ascii_graphic() && c != '\'' && !is_odd(c);
        if !path.starts_with('/') || !path.chars().all(plain) {
            return Err(wanted().to_owned());
        }
        Ok(Self {
            server: server.parse().map_err(|_| wanted())?,
            path: path.into(),
        })
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.server, self.path.display())
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "write a network of /8, /16 or /24, e.g. \"10.20.0.0/16\"";
        // As OneSlurm has it.
        let (network, prefix) = text.split_once('/').unwrap_or((text, "24"));
        let network: Ipv4Addr = network.parse().map_err(|_| wanted())?;
        let prefix: u8 = prefix.parse().map_err(|_| wanted())?;
        let hosts = match prefix {
            8 | 16 | 24 => u32::MAX >> prefix,
            _ => return Err(wanted().to_owned()),
        };
        if network.to_bits() & hosts != 0 {
            let right = Ipv4Addr::from_bits(network.to_bits() & !hosts);
            return Err(format!("that is an address: the network is \"{right}/{prefix}\""));
        }
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Subnet {
    /// The octets that all its addresses begin with, and the prefix.
    pub(crate) fn parts(self) -> (String, u8) {
        let kept = usize::from(self.prefix / 8);
        let octets: Vec<String> = self
            .network
            .octets()
            .iter()
            .take(kept)
            .map(u8::to_string)
            .collect();
        (octets.join("."), self.prefix)
    }
}

/// What changes on its way through CONTEXT: oned takes what follows a `$` for a variable's name
/// (`vm_var_parser.l`), and one-context lets a shell read the values between `"` (`loc-16-gen-env`).
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '$' | '\\' | '`' | '"')
}

/// A text for sssd's settings and for CONTEXT, on one line.
fn plain(text: &str, wanted: &str) -> Result<String, String> {
    if text.is_empty() || text.trim() != text || text.chars().any(is_odd) {
        return Err(wanted.to_owned());
    }
    Ok(text.to_owned())
}

/// Where a directory answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUrl(String);

impl LdapUrl {
    /// Where directories answer by that protocol if nobody says otherwise.
    pub(crate) fn usual_port(&self) -> u16 {
        if self.0.starts_with("ldaps:") { 636 } else { 389 }
    }
}

impl FromStr for LdapUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "write ldap://HOST or ldaps://HOST, with :PORT if it is another than usual";
        let rest = text
            .strip_prefix("ldap://")
            .or_else(|| text.strip_prefix("ldaps://"))
            .ok_or(wanted)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (rest, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':');
        let good = !host.is_empty() && host.chars().all(plain);
        if !good || port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err(wanted.to_owned());
        }
        if matches!(host, "localhost" | "[::1]") || host.starts_with("127.") {
            return Err("in a VM that is the VM itself: write an address that VMs reach".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LdapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The domain of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapDomain(String);

impl LdapDomain {
    /// The base DN: `dc=example,dc=org` of `example.org`.
    fn base_dn(&self) -> String {
        if self.0.contains('=') {
            return self.0.clone();
        }
        let parts: Vec<String> = self.0.split('.').map(|part| format!("dc={part}")).collect();
        parts.join(",")
    }
}

impl FromStr for LdapDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "write it as \"example.org\", or as a base DN, \"dc=example,dc=org\"";
        let domain = |text: &str| {
            let part =
                |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            text.split('.').all(part)
        };
        let named = |part: &str| {
            part.split_once('=')
                .is_some_and(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty())
        };
        if !(domain(text) || text.split(',').all(named)) {
            return Err(wanted.to_owned());
        }
        plain(text, wanted).map(Self)
    }
}

impl fmt::Display for LdapDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUser(String);

impl LdapUser {
    /// As a DN, below the base where it is a name.
    fn dn(&self, base: &str) -> String {
        if self.0.contains('=') {
            self.0.clone()
        } else {
            format!("cn={},{base}", self.0)
        }
    }
}

impl FromStr for LdapUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        plain(
            text,
            "write a name, or a DN, on one line and without any of $ \\ ` \"",
        )
        .map(Self)
    }
}

impl fmt::Display for LdapUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
