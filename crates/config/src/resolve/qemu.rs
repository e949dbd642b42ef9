//! `[qemu]`: the embedded provider.

use super::guests::{self, SMALL};
use super::machine::{Machine, word};
use super::targets::Targets;
use super::{cluster, people};
use crate::read::{Section, quoted};
use crate::settings::Nodeset;
use crate::usual::DEFAULT_CACHE_DIR;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use thiao_core::ids::{ClusterName, HostName, NodeName, NodesetName};
use thiao_core::policy::Policy;
use thiao_qemu::{
    AccelChoice, FenceSettings, GuestSettings, Guests, Host, Mount, Resolver, Settings, Share, SlurmFiles,
    User,
};

/// What other parts of the file have given.
pub struct Given {
    /// What runs in the VMs of nodesets that say it.
    pub nodesets: BTreeMap<NodesetName, Guests>,
    pub nodes: BTreeMap<NodeName, NodesetName>,
    /// What the fence lets through, and whom guests ask for names.
    pub network: (Option<FenceSettings>, Resolver),
    /// Folders of the site's file servers.
    pub mounts: Vec<Mount>,
    /// Where guests see these.
    pub targets: Targets,
}

/// Reads the table `[qemu]`.
pub fn qemu(
    table: &Section<'_, '_>,
    name: Option<&ClusterName>,
    state_dir: &Path,
    policy: &Policy,
    slurm: Result<SlurmFiles, String>,
    machine: &Machine,
    given: Given,
) -> Option<Settings> {
    let Given {
        nodesets,
        nodes,
        network: (fence, resolver),
        mounts,
        mut targets,
    } = given;
    let bridge = table.checked("bridge", Some("thiao0".to_owned()), |text| match word(text) {
        Ok(name) if name.len() <= 15 => Ok(name),
        _ => Err("use 1 to 15 of letters, digits, '.', '_' and '-'".to_owned()),
    });
    let address = table.parsed("address", Some(Ipv4Addr::new(10, 84, 0, 1)))?;
    let prefix_len: u8 = table.number("prefix_len", 16, 8..=30);
    let words = [
        ("auto", AccelChoice::Auto),
        ("kvm", AccelChoice::Kvm),
        ("tcg", AccelChoice::Tcg),
    ];
    let accel = table.choice("accel", AccelChoice::Auto, &words);
    let default = guests::image(table, Some(SMALL));
    let tmp_gb = table.number("tmp_gb", 8, 1..=1 << 16);
    let warm = table.flag("warm", true);
    let templates_max = table.number("templates_max", 8, 0..=1024);
    let cache_dir = table.path("cache_dir", Some(DEFAULT_CACHE_DIR.into()))?;
    let agent = table.path("agent", Some(machine.agent.clone()))?;
    let slurmctld = cluster::slurmctld(table, machine, Some(address));
    let guest = GuestSettings {
        slurmctld_host: slurmctld.host?,
        slurmctld_addr: slurmctld.addr?,
        slurmctld_port: slurmctld.port,
        backups: slurmctld.backups,
        slurm_user: slurmctld.user,
        credentials: cluster::credentials(table, false)?,
        users: Vec::new(),
        everybody: false,
        shares: Vec::new(),
        homes: table.flag("homes", true),
        mounts,
        resolver,
    };
    let (users, narrowed) = people::named(table, machine);
    let shares = table
        .tables("share")
        .iter()
        .filter_map(|t| share(t, &users, &mut targets))
        .collect();
    let hosts = hosts(table, machine)?;
    table.close();
    Some(Settings {
        cluster: name?.clone(),
        state_dir: state_dir.to_owned(),
        cache_dir,
        hosts,
        network: thiao_qemu::net::Network {
            bridge: bridge?,
            address,
            prefix_len,
        },
        guests: default?,
        tmp_gb,
        nodesets,
        nodes,
        accel,
        warm,
        templates_max,
        overhead_mb: policy.overhead_mb,
        slurm,
        guest: GuestSettings {
            users,
            everybody: !narrowed,
            shares,
            ..guest
        },
        fence,
        agent,
        program: machine.program.clone(),
    })
}

/// A folder that guests see.
fn share(table: &Section<'_, '_>, users: &[User], targets: &mut Targets) -> Option<Share> {
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
    if let Some(target) = &target {
        targets.take(table, target, Some(owner.uid));
    }
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
pub fn fits(
    root: &Section<'_, '_>,
    nodesets: &BTreeMap<NodesetName, Nodeset>,
    policy: &Policy,
    qemu: &Settings,
) {
    for (name, set) in nodesets {
        let memory = set.shape.total_mb(policy.overhead_mb);
        let cpu = u64::from(set.shape.cpus) * u64::from(set.shape.share_percent);
        let capacity = |host: &Host| {
            let cores = u64::from(host.cpus) * u64::from(policy.cpu_overcommit_percent);
            memory <= host.memory_mb && cpu <= cores
        };
        if !qemu.hosts.is_empty() && !qemu.hosts.iter().any(capacity) {
            root.problem(
                "nodeset",
                format!(
                    "{name}: no host can carry one of its VMs, which needs {memory} MiB (limits.overhead_mb included) \
                     and {cpu} % of a core; make the nodes smaller or qemu.host larger"
                ),
            );
        }
    }
    let with_gpus = nodesets
        .iter()
        .find(|(_, set)| set.job.as_ref().is_some_and(|job| job.gpus > 0));
    if let Some((name, _)) = with_gpus {
        root.problem(
            "nodeset",
            format!("{name}: the VMs of provider \"qemu\" have no devices: remove its gpus, or name the other provider"),
        );
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
