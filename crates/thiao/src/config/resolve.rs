//! Every key of `thiao.toml`: its name, default, range, and what it becomes.

use super::read::{Findings, Reader, Section, quoted};
use super::{Config, NodeSpec, Nodeset, SlurmSettings, Timing, passwd};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, HostName, Millis, NodeName, NodesetName};
use thiao_core::policy::Policy;
use thiao_core::view::Shape;
use thiao_qemu::{AccelChoice, GuestSettings, Host, Settings, Share, User};
use toml::de::DeTable;

/// Most nodes that one controller minds.
const MAX_NODES: usize = 65_536;

/// The longest state folder: sockets in it must fit the 107 bytes of a Unix socket's address.
const MAX_STATE_DIR: usize = 80;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// What this machine is, for defaults.
pub struct Machine {
    /// Its host name, up to the first dot.
    pub name: String,
    /// Its CPUs.
    pub cpus: u32,
    /// Its memory, in MiB.
    pub memory_mb: u64,
    /// The program that runs.
    pub program: PathBuf,
}

/// Reads a parsed file whole. The settings are there only if nothing is wrong.
pub fn resolve(
    file: &Path,
    text: &str,
    table: &DeTable<'_>,
    machine: &Machine,
) -> (Option<Config>, Findings) {
    let reader = Reader::new(text);
    let config = root(file, &reader.root(table), machine);
    let findings = reader.finish();
    (config.filter(|_| findings.problems.is_empty()), findings)
}

fn root(file: &Path, root: &Section<'_, '_>, machine: &Machine) -> Option<Config> {
    let cluster: Option<ClusterName> = root.required(
        "cluster",
        "write cluster = \"NAME\", the ClusterName of slurm.conf; it marks every VM as this cluster's",
    );
    let state_dir = root
        .path("state_dir", Some(super::DEFAULT_STATE_DIR.into()))
        .unwrap_or_default();
    if state_dir.as_os_str().len() > MAX_STATE_DIR {
        root.problem(
            "state_dir",
            format!("is longer than {MAX_STATE_DIR} bytes: its sockets would have no valid address"),
        );
    }
    let slurm = root.table("slurm");
    let (conf, bin_dir) = (slurm.path("conf", None), slurm.path("bin_dir", None));
    slurm.close();
    let (nodesets, nodes) = nodesets(root);
    let mut policy = Policy::default();
    limits(&root.table("limits"), &mut policy);
    let (timing, slurm_timeout) = timing(&root.table("timing"), &mut policy);
    let qemu = qemu(
        &root.table("qemu"),
        cluster.as_ref(),
        &state_dir,
        &policy,
        machine,
    );
    root.close();
    let qemu = qemu?;
    fits(root, &nodesets, &policy, &qemu);
    Some(Config {
        file: file.to_owned(),
        cluster: cluster?,
        state_dir,
        slurm: SlurmSettings {
            conf,
            bin_dir,
            timeout: slurm_timeout,
        },
        nodesets,
        nodes,
        policy,
        timing,
        qemu,
    })
}

/// The nodesets and their nodes.
fn nodesets(root: &Section<'_, '_>) -> (BTreeMap<NodesetName, Nodeset>, BTreeMap<NodeName, NodeSpec>) {
    let mut sets = BTreeMap::new();
    let mut all: BTreeMap<NodeName, NodeSpec> = BTreeMap::new();
    let tables = root.tables("nodeset");
    if tables.is_empty() && !root.has("nodeset") {
        root.problem(
            "nodeset",
            "is missing: write at least one [[nodeset]] with name, nodes and memory_mb",
        );
    }
    for table in tables {
        table.show_head();
        let name: Option<NodesetName> = table.required("name", "give the nodeset a name");
        let list = table.checked("nodes", None, |text| {
            hostlist::expand(text)
                .map(|nodes| Expanded { nodes })
                .map_err(|e| format!("{e}\n    {}", e.caret(text).replace('\n', "\n    ")))
        });
        if !table.has("nodes") {
            table.problem(
                "nodes",
                "is missing: name the nodes as in slurm.conf, e.g. \"fg[0-7]\"",
            );
        }
        let shape = Shape {
            cpus: table.number("cpus", 1, 1..=1024),
            memory_mb: table.required_number(
                "memory_mb",
                16..=1 << 24,
                "give the RealMemory of each node, in MiB",
            ),
            share_percent: table.number("share_percent", 100, 1..=100),
        };
        let partition = table
            .checked("partition", Some("vm".to_owned()), word)
            .unwrap_or_default();
        let features = table.texts("features", |text| word(text).map(drop));
        table.close();
        let (Some(name), Some(list)) = (name, list) else {
            continue;
        };
        let count = list.nodes.len();
        let nodes = hostlist::fold(&list.nodes);
        for node in list.nodes {
            match all.entry(node) {
                Entry::Vacant(place) => {
                    place.insert(NodeSpec {
                        nodeset: name.clone(),
                        shape,
                    });
                }
                Entry::Occupied(other) => {
                    table.problem(
                        "nodes",
                        format!("{} is already in nodeset {}", other.key(), other.get().nodeset),
                    );
                    break;
                }
            }
        }
        if all.len() > MAX_NODES {
            table.problem("nodes", format!("more than {MAX_NODES} nodes in all"));
        }
        let set = Nodeset {
            nodes,
            count,
            shape,
            partition,
            features,
        };
        if sets.insert(name.clone(), set).is_some() {
            table.problem("name", format!("there are two nodesets named {name}"));
        }
    }
    (sets, all)
}

/// A hostlist that shows itself folded.
struct Expanded {
    nodes: Vec<NodeName>,
}

impl std::fmt::Display for Expanded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hostlist::fold(&self.nodes))
    }
}

/// A word that slurm.conf takes without quotes.
fn word(text: &str) -> Result<String, String> {
    let good = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 63 of letters, digits, '.', '_' and '-'".to_owned())
    }
}

/// The counts that `plan` obeys.
fn limits(table: &Section<'_, '_>, policy: &mut Policy) {
    policy.max_vms = table.number("max_vms", policy.max_vms, 1..=MAX_NODES);
    policy.max_vms_per_host = table.number("max_vms_per_host", policy.max_vms_per_host, 1..=MAX_NODES);
    policy.max_starting = table.number("max_starting", policy.max_starting, 1..=MAX_NODES);
    policy.cpu_overcommit_percent = table.number(
        "cpu_overcommit_percent",
        policy.cpu_overcommit_percent,
        1..=10_000,
    );
    policy.overhead_mb = table.number("overhead_mb", policy.overhead_mb, 0..=1 << 20);
    policy.tries_before_down = table.number("tries_before_down", policy.tries_before_down, 1..=100);
    policy.breaker_failures = table.number("breaker_failures", policy.breaker_failures, 1..=10_000);
    table.close();
}

/// All times, each in seconds in the file.
fn timing(table: &Section<'_, '_>, policy: &mut Policy) -> (Timing, Duration) {
    let from = |least: u64, most: u64| least..=most;
    policy.boot_timeout = table.seconds("boot_timeout", policy.boot_timeout, from(SECOND, HOUR));
    policy.capacity_patience = table.seconds("capacity_patience", policy.capacity_patience, from(0, HOUR));
    policy.orphan_grace = table.seconds("orphan_grace", policy.orphan_grace, from(SECOND, DAY));
    policy.missing_grace = table.seconds("missing_grace", policy.missing_grace, from(SECOND, DAY));
    policy.silence_grace = table.seconds("silence_grace", policy.silence_grace, from(SECOND, DAY));
    policy.retry_first = table.seconds("retry_first", policy.retry_first, from(100, HOUR));
    policy.retry_max = table.seconds("retry_max", policy.retry_max, from(100, DAY));
    policy.breaker_pause = table.seconds("breaker_pause", policy.breaker_pause, from(100, DAY));
    let span = |key, default: u64, least, most| {
        Duration::from_millis(table.seconds(key, Millis(default), from(least, most)).0)
    };
    let timing = Timing {
        tick: span("tick", 5 * SECOND, 50, HOUR),
        slurm_poll: span("slurm_poll", 10 * SECOND, 50, HOUR),
        slurm_poll_busy: span("slurm_poll_busy", 500, 50, HOUR),
        slurm_poll_urgent: span("slurm_poll_urgent", 50, 10, HOUR),
        vm_poll: span("vm_poll", 5 * SECOND, 50, HOUR),
        vm_poll_busy: span("vm_poll_busy", 250, 50, HOUR),
        look_max_age: span("look_max_age", 60 * SECOND, SECOND, HOUR),
        events_keep: span("events_keep", 14 * DAY, HOUR, 3650 * DAY),
    };
    let slurm_timeout = span("slurm_timeout", 20 * SECOND, 100, HOUR);
    if policy.retry_max < policy.retry_first {
        table.problem("retry_max", "is shorter than retry_first");
    }
    for (busy, idle, key, other) in [
        (
            timing.slurm_poll_busy,
            timing.slurm_poll,
            "slurm_poll_busy",
            "slurm_poll",
        ),
        (timing.vm_poll_busy, timing.vm_poll, "vm_poll_busy", "vm_poll"),
    ] {
        if busy > idle {
            table.problem(
                key,
                format!("is longer than {other}: a busy time looks more often, not less"),
            );
        }
    }
    if timing.look_max_age < timing.slurm_poll.max(timing.vm_poll) {
        table.problem(
            "look_max_age",
            "is shorter than slurm_poll or vm_poll: no look would be young enough to act on",
        );
    }
    table.close();
    (timing, slurm_timeout)
}

/// The embedded provider.
fn qemu(
    table: &Section<'_, '_>,
    cluster: Option<&ClusterName>,
    state_dir: &Path,
    policy: &Policy,
    machine: &Machine,
) -> Option<Settings> {
    let bridge = table.checked("bridge", Some("thiao0".to_owned()), |text| match word(text) {
        Ok(name) if name.len() <= 15 => Ok(name),
        _ => Err("use 1 to 15 of letters, digits, '.', '_' and '-'".to_owned()),
    });
    let address = table.parsed("address", Some(Ipv4Addr::new(10, 84, 0, 1)))?;
    let prefix_len: u8 = table.number("prefix_len", 16, 8..=30);
    let accel = table.checked("accel", Some(Accel(AccelChoice::Auto)), Accel::new)?;
    let warm = table.flag("warm", true);
    let cache_dir = table.path("cache_dir", Some("/var/cache/thiao".into()))?;
    let agent = table.path("agent", Some(default_agent(&machine.program)))?;
    let guest = GuestSettings {
        slurmctld_host: table.checked("slurmctld_host", Some(machine.name.clone()), word)?,
        slurmctld_addr: table.parsed("slurmctld_addr", Some(address))?,
        slurmctld_port: table.number("slurmctld_port", 6817, 1..=u16::MAX),
        munge_key: table.path("munge_key", Some("/etc/munge/munge.key".into()))?,
        munge_socket: table.path("munge_socket", Some("/run/munge/munge.socket.2".into()))?,
        users: Vec::new(),
        shares: Vec::new(),
    };
    let mut users = users(table);
    let own = table.tables("user");
    users.extend(own.iter().filter_map(user));
    for (n, user) in users.iter().enumerate() {
        if users
            .iter()
            .take(n)
            .any(|other| other.name == user.name || other.uid == user.uid)
        {
            table.problem("user", format!("{} (uid {}) is there twice", user.name, user.uid));
        }
    }
    let shares = table
        .tables("share")
        .iter()
        .filter_map(|t| share(t, &users))
        .collect();
    let hosts = hosts(table, machine)?;
    table.close();
    Some(Settings {
        cluster: cluster?.clone(),
        state_dir: state_dir.to_owned(),
        cache_dir,
        hosts,
        network: thiao_qemu::net::Network {
            bridge: bridge?,
            address,
            prefix_len,
        },
        accel: accel.0,
        warm,
        overhead_mb: policy.overhead_mb,
        guest: GuestSettings {
            users,
            shares,
            ..guest
        },
        agent,
        thiao: machine.program.clone(),
    })
}

/// The users that are taken as this machine knows them.
fn users(table: &Section<'_, '_>) -> Vec<User> {
    let names = table.texts("users", |name| match passwd::by_name(name)? {
        user if user.uid == 0 => Err(format!("{name} has uid 0, which jobs never have")),
        _ => Ok(()),
    });
    names
        .iter()
        .filter_map(|name| passwd::by_name(name).ok())
        .collect()
}

/// A user described in the file.
fn user(table: &Section<'_, '_>) -> Option<User> {
    table.show_head();
    let name = table.required::<String>("name", "give the login name");
    let uid = table.required_number("uid", 1..=u32::MAX - 2, "give the numeric user id");
    let gid = table.required_number(
        "gid",
        1..=u32::MAX - 2,
        "give the numeric id of the primary group",
    );
    let home = table.path("home", Some("/".into()))?;
    let shell = table.path("shell", Some("/bin/bash".into()))?;
    table.close();
    let name = name?;
    // What a line of passwd can hold.
    let good = |text: &str| !text.bytes().any(|b| b == b':' || b.is_ascii_control());
    if name.is_empty() || !good(&name) {
        table.problem("name", "is no login name");
    }
    if !good(&home.to_string_lossy()) || !good(&shell.to_string_lossy()) {
        table.problem("home", "home and shell may not hold ':' or control characters");
    }
    Some(User {
        name,
        uid,
        gid,
        home,
        shell,
    })
}

/// A folder that guests see.
fn share(table: &Section<'_, '_>, users: &[User]) -> Option<Share> {
    table.show_head();
    if !table.has("source") {
        table.problem(
            "source",
            "is missing: name the folder of this machine that guests see",
        );
    }
    let source = table.path("source", None);
    let target = table.path("target", source.clone());
    let user = table.required::<String>(
        "user",
        "name the user whose folder it is; all access is under his uid",
    );
    table.close();
    let user = user?;
    let Some(owner) = users.iter().find(|u| u.name == user) else {
        table.problem(
            "user",
            format!("{user} is not among the guests' users: add it to qemu.users"),
        );
        return None;
    };
    Some(Share {
        source: source?,
        target: target?,
        uid: owner.uid,
        gid: owner.gid,
    })
}

/// The hosts that share this machine; by default the machine itself.
fn hosts(table: &Section<'_, '_>, machine: &Machine) -> Option<Vec<Host>> {
    let tables = table.tables("host");
    if tables.is_empty() {
        // A quarter of the memory stays the machine's own.
        let memory_mb = machine.memory_mb * 3 / 4;
        return match HostName::new(&machine.name) {
            Ok(name) => {
                let values = [
                    ("name", quoted(name.as_str())),
                    ("cpus", machine.cpus.to_string()),
                    ("memory_mb", memory_mb.to_string()),
                ];
                table.show_default("host", &values);
                Some(vec![Host {
                    name,
                    cpus: machine.cpus,
                    memory_mb,
                }])
            }
            Err(e) => {
                table.problem(
                    "host",
                    format!("is missing, and this machine's name will not do: {e}"),
                );
                None
            }
        };
    }
    let mut hosts: Vec<Host> = Vec::new();
    for table in tables {
        table.show_head();
        let name: Option<HostName> = table.required("name", "give the host a name");
        let cpus = table.number("cpus", machine.cpus, 1..=4096);
        let memory_mb = table.required_number(
            "memory_mb",
            16..=1 << 26,
            "say how much memory VMs may use in all, in MiB",
        );
        table.close();
        let Some(name) = name else { continue };
        if hosts.iter().any(|h| h.name == name) {
            table.problem("name", format!("there are two hosts named {name}"));
        }
        hosts.push(Host {
            name,
            cpus,
            memory_mb,
        });
    }
    Some(hosts)
}

/// What only shows when all parts are known: that each VM fits a host and has an address.
fn fits(root: &Section<'_, '_>, nodesets: &BTreeMap<NodesetName, Nodeset>, policy: &Policy, qemu: &Settings) {
    for (name, set) in nodesets {
        let memory = set.shape.memory_mb + policy.overhead_mb;
        let cpu = u64::from(set.shape.cpus) * u64::from(set.shape.share_percent);
        let room = |host: &Host| {
            let cores = u64::from(host.cpus) * u64::from(policy.cpu_overcommit_percent);
            memory <= host.memory_mb && cpu <= cores
        };
        if !qemu.hosts.is_empty() && !qemu.hosts.iter().any(room) {
            root.problem(
                "nodeset",
                format!(
                    "{name}: no host can carry one of its VMs, which needs {memory} MiB (limits.overhead_mb included) \
                     and {cpu} % of a core; make the nodes smaller or qemu.host larger"
                ),
            );
        }
    }
    let wanted = nodesets
        .values()
        .map(|set| set.count)
        .sum::<usize>()
        .min(policy.max_vms);
    let addresses = (1_usize << (32 - qemu.network.prefix_len)) - 3;
    if wanted > addresses {
        root.problem(
            "qemu",
            format!("prefix_len leaves {addresses} addresses for {wanted} VMs: use a smaller one"),
        );
    }
}

/// Where `thiao-guest` is when nobody says: beside the running program, else where packages put it.
fn default_agent(program: &Path) -> PathBuf {
    let beside = program.with_file_name("thiao-guest");
    if beside.is_file() {
        beside
    } else {
        PathBuf::from("/usr/lib/thiao/thiao-guest")
    }
}

/// [`AccelChoice`] as it is written.
struct Accel(AccelChoice);

impl Accel {
    fn new(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(AccelChoice::Auto)),
            "kvm" => Ok(Self(AccelChoice::Kvm)),
            "tcg" => Ok(Self(AccelChoice::Tcg)),
            _ => Err("use auto, kvm or tcg".to_owned()),
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            AccelChoice::Auto => "auto",
            AccelChoice::Kvm => "kvm",
            AccelChoice::Tcg => "tcg",
        })
    }
}
