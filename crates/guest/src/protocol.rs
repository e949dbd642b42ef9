//! The channel between the machine and a guest: JSON, one message per line,
//! over a virtio-serial port whose other end is a socket that only we can open.
//!
//! ```text
//!  machine                          guest
//!     |   <- report waiting           |   booted, held
//!     |   context ->                  |   identity, secrets, users, shares
//!     |   <- report configured        |
//!     |   <- report munge, shares     |   in any order
//!     |   <- report prepared          |   all is there but slurmd
//!     |   slurmd ->                   |   Slurm has asked for the node; may come before the rest
//!     |   <- report slurmd            |   slurmd runs
//!     |   people ->                   |   at any time: whose jobs come next
//!     |   <- report people            |
//!     |   status ->                   |   at any time: all reports once more
//! ```
//! An OpenNebula VM has no such channel: its guest reads a disk instead, see
//! [`crate::context_disk`], and writes its reports on the console.
//!
//! The guest keeps every report, so that whoever connects later (a controller
//! that was restarted) asks for the status and misses nothing.

use crate::auth::Auth;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;

/// The virtio-serial port's name, as seen in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "org.thiao.0";

/// The kernel argument that makes the guest say [`HELLO`] on its console and end.
pub const HELLO_ARGUMENT: &str = "thiao.hello";

/// What a guest started with [`HELLO_ARGUMENT`] writes on its console.
pub const HELLO: &str = "thiao-guest: hello";

/// The kernel argument of a guest whose system is on disks: [`DISK_ROOT`] and [`DISK_SCRATCH`].
pub const DISK_ARGUMENT: &str = "thiao.disk";

/// The serial number of the disk with a guest's system.
pub const DISK_ROOT: &str = "thiao-root";

/// The serial number of the disk for what jobs write to `/tmp`.
pub const DISK_SCRATCH: &str = "thiao-tmp";

/// How the guest's program is told that it is a service, and not the first process.
pub const SERVICE_ARGUMENT: &str = "--service";

/// The CONTEXT variable that has a guest's [`OneContext`].
pub const CONTEXT_VARIABLE: &str = "THIAO_CONTEXT";

/// The port of ordinary NFS servers.
pub const NFS_PORT: u16 = 2049;

/// Kernel modules that are loaded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// What every guest needs: the microVM's bus, the channel, the card, the shares.
    Always,
    /// The bus of full machines.
    Pci,
    /// Disks and CDs on virtio's own bus.
    VirtioDisk,
    /// Those behind a virtio SCSI controller.
    VirtioScsi,
    /// Those behind the IDE controller of a full machine.
    Ide,
    /// NFS version 4, which few sites' folders want of a guest: loaded for the first of them.
    Nfs4,
    /// The power button, by which OpenNebula asks a VM to end.
    Button,
}

impl Modules {
    /// Where the image lists them, one path a line, in the order to load them.
    #[must_use]
    pub fn list(self) -> &'static str {
        match self {
            Modules::Always => "/etc/thiao/modules/always",
            Modules::Pci => "/etc/thiao/modules/pci",
            Modules::VirtioDisk => "/etc/thiao/modules/virtio-disk",
            Modules::VirtioScsi => "/etc/thiao/modules/virtio-scsi",
            Modules::Ide => "/etc/thiao/modules/ide",
            Modules::Nfs4 => "/etc/thiao/modules/nfs4",
            Modules::Button => "/etc/thiao/modules/button",
        }
    }
}

/// The longest line that either side accepts, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// What the machine says to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Take this identity. The same one twice is harmless.
    Context(Box<Context>),
    /// Start slurmd: Slurm has asked for the node. A number that was told before is harmless.
    Slurmd {
        /// Which start it is; after the first one, slurmd is ended before.
        number: u32,
        /// How long to wait with it, in milliseconds.
        wait_ms: u64,
    },
    /// Have these people, too: their jobs come next, perhaps to a guest as it was before others. Answered by a report of [`Phase::People`]; the same again
    /// is harmless.
    People(Box<Arrival>),
    /// Say all reports once more.
    Status,
    /// Set the clock: nanoseconds since the Unix epoch.
    Clock(u64),
}

/// How far a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub phase: Phase,
    /// When, in milliseconds of the guest's own uptime (a template's included).
    pub uptime_ms: u64,
    /// What there is to say about it, e.g. the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of [`Phase::People`]: the number of the [`Arrival`] that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<u64>,
}

/// What a guest reaches, in about this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Booted; waits for its context.
    Waiting,
    /// All that the system on its disk starts by itself was started.
    Up,
    /// Has its name, clock, users and secrets.
    Configured,
    /// Its network is up.
    Network,
    /// munged runs and answers.
    Munge,
    /// All shares are mounted.
    Shares,
    /// All is there but slurmd.
    Prepared,
    /// slurmd was started, the first time.
    Slurmd,
    /// slurmd is started again: it ended soon after its start, as it does when slurmctld does not
    /// answer, or slurmctld has not heard it.
    SlurmdAgain,
    /// slurmd ended; the guest ends when no job's process is left.
    SlurmdEnded,
    /// Something failed for good; the guest ends.
    Failed,
    /// People who came later are there, with what they see; a detail says what of that failed.
    People,
}

impl Phase {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "guest booted",
            Phase::Up => "guest's system up",
            Phase::Configured => "guest configured",
            Phase::Network => "network up",
            Phase::Munge => "munged answers",
            Phase::Shares => "shares mounted",
            Phase::Prepared => "guest prepared",
            Phase::Slurmd => "slurmd started",
            Phase::SlurmdAgain => "slurmd started again",
            Phase::SlurmdEnded => "slurmd ended",
            Phase::Failed => "guest failed",
            Phase::People => "users handed over",
        }
    }
}

/// Who a guest is and what it needs to know, as the channel tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// What does not depend on who tells it.
    #[serde(flatten)]
    pub common: OneContext,
    #[serde(flatten)]
    pub card: Card,
    /// The clock, in nanoseconds since the Unix epoch.
    pub clock: u64,
    /// Random bytes in hexadecimal: guests restored from one template share their generator's state.
    pub seed: Secret,
}

/// What a guest is told whoever tells it. In an OpenNebula VM this is the
/// CONTEXT variable [`CONTEXT_VARIABLE`]: base64 of the JSON of [`DiskContext`]. The card's
/// identity is OpenNebula's own there (`ETH0_*`), the clock is the machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneContext {
    /// The VM's id: tells one context from another.
    pub id: String,
    /// The host name, which is the node's name.
    pub hostname: String,
    /// slurmctld's name, as in slurm.conf.
    pub slurmctld_host: String,
    /// Where it is reached.
    pub slurmctld_addr: Ipv4Addr,
    /// Its port, which is that of all: Slurm asks them at one port (`_print_controllers` in 22.05 and 25.11).
    pub slurmctld_port: u16,
    /// Those that stand in for it.
    #[serde(default)]
    pub backups: Vec<Backup>,
    /// What proves that it is of the cluster.
    #[serde(flatten)]
    pub auth: Auth,
    /// The users of the guest, beside root.
    pub users: Vec<UserEntry>,
    /// Groups, with those of the users who are in them beside their primary ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupEntry>,
    pub shares: Vec<ShareMount>,
    /// Who knows the addresses of names; none: nobody is asked.
    #[serde(default, skip_serializing_if = "Resolver::is_none")]
    pub resolver: Resolver,
}

/// What a guest's `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resolver {
    pub servers: Vec<Ipv4Addr>,
    /// Domains in which short names are looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

impl Resolver {
    /// Whether there is nobody to ask.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.servers.is_empty()
    }

    /// What the file says, in resolv.conf(5)'s words.
    #[must_use]
    pub fn text(&self) -> String {
        let search = match self.search.as_slice() {
            [] => String::new(),
            domains => format!("search {}\n", domains.join(" ")),
        };
        let servers = self.servers.iter().map(|server| format!("nameserver {server}\n"));
        search + &servers.collect::<String>()
    }
}

/// People who come to a guest that has its identity already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arrival {
    /// Tells one arrival from another in the answer.
    pub number: u64,
    pub users: Vec<UserEntry>,
    pub groups: Vec<GroupEntry>,
    /// The folders that they see there.
    pub shares: Vec<ShareMount>,
    /// Remove first what earlier jobs left where everybody may write.
    #[serde(default)]
    pub fresh: bool,
}

impl OneContext {
    /// Where slurmd asks for its configuration, one after another: the value of `--conf-server`.
    #[must_use]
    pub fn servers(&self) -> String {
        let backups = self.backups.iter().map(|backup| backup.addr);
        let all = [self.slurmctld_addr].into_iter().chain(backups);
        let all: Vec<String> = all
            .map(|addr| SocketAddrV4::new(addr, self.slurmctld_port).to_string())
            .collect();
        all.join(",")
    }
}

/// The JSON of [`CONTEXT_VARIABLE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskContext {
    #[serde(flatten)]
    pub common: OneContext,
    /// Random bytes in hexadecimal. A VM's processor may give none (libvirt's default model does not); the kernel
    /// would collect them from its timer then, for a second, before munged gets any. None: it has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Secret>,
}

/// A slurmctld that stands in for the first one, as `SlurmctldHost` has it: `head2(10.9.0.2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Backup {
    pub host: String,
    /// Where it is reached.
    pub addr: Ipv4Addr,
}

impl FromStr for Backup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is not possible: write NAME(ADDRESS), e.g. \"head2(10.9.0.2)\"");
        let (host, addr) = text
            .strip_suffix(')')
            .and_then(|text| text.split_once('('))
            .ok_or_else(wanted)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(wanted());
        }
        Ok(Self {
            host: host.to_owned(),
            addr: addr.parse().map_err(|_| wanted())?,
        })
    }
}

impl TryFrom<String> for Backup {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Backup> for String {
    fn from(backup: Backup) -> Self {
        backup.to_string()
    }
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.host, self.addr)
    }
}

/// The identity of a guest's network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The address on the cluster's network.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// Where everything else is reached; none when there is nothing else.
    pub gateway: Option<Ipv4Addr>,
    pub mac: [u8; 6],
}

/// A line of the guest's `/etc/passwd`, with a group of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    pub name: String,
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// A line of the guest's `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    pub name: String,
    pub gid: u32,
    /// Users who are in it beside their primary groups.
    #[serde(default)]
    pub members: Vec<String>,
}

/// Which NFS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum NfsVersion {
    #[default]
    #[serde(rename = "3")]
    V3,
    #[serde(rename = "4.2")]
    V4_2,
}

impl NfsVersion {
    /// Whether it is [`Self::V3`].
    #[must_use]
    pub fn is_v3(&self) -> bool {
        *self == Self::V3
    }
}

/// An NFS export that the guest mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMount {
    pub server: Ipv4Addr,
    /// Its port. [`NFS_PORT`] is an ordinary NFS server's, which tells by its
    /// port mapper where its mount protocol is; any other port serves both.
    pub port: u16,
    /// The folder, as the server exports it.
    #[serde(default = "root")]
    pub path: PathBuf,
    /// Where the guest sees it.
    pub target: PathBuf,
    #[serde(default, skip_serializing_if = "NfsVersion::is_v3")]
    pub version: NfsVersion,
    /// Mount options of an administrator's, as mount(8) has them: `ro`, `rsize=65536`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl ShareMount {
    /// One by NFS version 3, without options.
    #[must_use]
    pub fn plain(server: Ipv4Addr, port: u16, path: PathBuf, target: PathBuf) -> Self {
        Self {
            server,
            port,
            path,
            target,
            version: NfsVersion::V3,
            options: Vec::new(),
        }
    }

    /// The options that every mount of it begins with, in the kernel's words; `options` follow.
    ///
    /// Of version 3 the kernel does the mount protocol by itself when given addresses and ports; without a port for
    /// it, it asks the server's port mapper. No lock daemon runs on either side, hence `nolock`; 4.2 has its locks in
    /// itself. `retrans` and `timeo` stay at the defaults of a hard mount: a job waits rather than loses output.
    #[must_use]
    pub fn first_options(&self) -> String {
        let Self { server, port, .. } = self;
        if self.version == NfsVersion::V4_2 {
            return format!("vers=4.2,proto=tcp,port={port},addr={server}");
        }
        let mut words =
            format!("vers=3,proto=tcp,mountproto=tcp,nolock,port={port},addr={server},mountaddr={server}");
        if *port != NFS_PORT {
            // Writing to a String does not fail.
            let _ = write!(words, ",mountport={port}");
        }
        // Our own exports are other guests' at the same time, whose writes are to be seen soon.
        if self.options.is_empty() {
            words.push_str(",actimeo=1");
        }
        words
    }
}

fn root() -> PathBuf {
    "/".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            common: OneContext {
                id: "fg1.3".into(),
                hostname: "fg1".into(),
                slurmctld_host: "head".into(),
                slurmctld_addr: Ipv4Addr::new(10, 9, 0, 1),
                slurmctld_port: 6817,
                backups: vec![],
                auth: Auth::Munge {
                    munge_key: Secret::from_bytes(b"key\xff"),
                    munge_socket: "/run/munge/munge.socket.2".into(),
                },
                users: vec![],
                groups: vec![],
                shares: vec![],
                resolver: Resolver::default(),
            },
            card: Card {
                address: Ipv4Addr::new(10, 9, 0, 7),
                prefix_len: 24,
                gateway: Some(Ipv4Addr::new(10, 9, 0, 1)),
                mac: [2, 0, 10, 9, 0, 7],
            },
            clock: 1,
            seed: Secret::from_bytes(&[1, 2]),
        }
    }

    #[test]
    fn messages_survive_the_channel_and_fit_one_line() {
        for request in [
            Request::Context(Box::new(context())),
            Request::People(Box::default()),
            Request::Status,
            Request::Clock(5),
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        let report = Report {
            phase: Phase::SlurmdEnded,
            uptime_ms: 12,
            detail: Some("a\nb".into()),
            arrival: None,
        };
        let line = serde_json::to_string(&report).unwrap();
        assert!(!line.contains('\n') && line.contains("slurmd_ended"), "{line}");
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }

    #[test]
    fn a_share_without_a_path_is_the_servers_root() {
        let text = r#"{"server":"10.9.0.1","port":4000,"target":"/home"}"#;
        let share: ShareMount = serde_json::from_str(text).unwrap();
        assert_eq!(share.path, PathBuf::from("/"));
    }

    #[test]
    fn a_resolver_is_written_as_its_file_has_it() {
        let resolver = Resolver {
            servers: vec![Ipv4Addr::new(10, 0, 0, 53)],
            search: vec!["a.org".into(), "b.org".into()],
        };
        assert_eq!(resolver.text(), "search a.org b.org\nnameserver 10.0.0.53\n");
        assert!(Resolver::default().is_none());
    }

    #[test]
    fn a_backup_is_written_as_in_slurm_conf() {
        let backup: Backup = serde_json::from_str("\"head2(10.9.0.2)\"").unwrap();
        assert_eq!(
            (backup.host.as_str(), backup.addr),
            ("head2", Ipv4Addr::new(10, 9, 0, 2))
        );
        assert_eq!(backup.to_string(), "head2(10.9.0.2)");
        for bad in [
            "head2",
            "head2()",
            "(10.9.0.2)",
            "a b(10.9.0.2)",
            "x(10.9.0.2",
            "x(fe80::1)",
        ] {
            assert!(bad.parse::<Backup>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", context());
        assert!(
            text.contains("<4 secret bytes>") && !text.contains("6b6579"),
            "{text}"
        );
    }
}
