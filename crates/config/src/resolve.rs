//! Every key of `thiao.toml`: its name, default, range, and what it becomes.

mod cluster;
mod guests;
mod job;
mod machine;
mod network;
mod nodesets;
mod opennebula;
mod people;
mod qemu;
mod sharing;
mod targets;
pub use guests::{SMALL, read as read_image};

use crate::read::{Findings, Reader, Section};
use crate::settings::{Config, ProviderSettings, SlurmSettings, Timing};
use crate::usual::DEFAULT_STATE_DIR;
pub use machine::Machine;

use machine::{MAX_NODES, Maker, SECOND};
use nodesets::Nodesets;
use std::path::{Path, PathBuf};
use std::time::Duration;
use targets::Targets;
use thiao_core::ids::{ClusterName, Millis};
use thiao_core::policy::Policy;
use thiao_opennebula::settings::Placement;
use toml::de::DeTable;

/// The longest state folder: sockets in it must fit the 107 bytes of a Unix socket's address.
const MAX_STATE_DIR: usize = 80;

const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

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
    let cluster = cluster_name(root);
    let state_dir = state_dir(root);
    let maker = maker(root);
    let slurm = root.table("slurm");
    let (conf, bin_dir) = (slurm.path("conf", None), slurm.path("bin_dir", None));
    let plugins = plugin_dirs(&slurm);
    slurm.close();
    let Nodesets {
        sets: nodesets,
        nodes,
        sources,
        guests,
    } = nodesets::read(root, maker);
    job::partitions(root, &nodesets);
    let job = job::settings(root);
    let sharing = sharing::sharing(root);
    let mut policy = maker.policy();
    limits(&root.table("limits"), &mut policy);
    let Times {
        timing,
        slurm: slurm_timeout,
        opennebula: opennebula_timeout,
    } = timing(&root.table("timing"), &mut policy, maker);
    let cluster_name = cluster.as_ref();
    let provider = match maker {
        Maker::Qemu => {
            let mut targets = Targets::default();
            let mounts = network::mounts(root, &mut targets);
            let network = network::network(&root.table("network"), machine);
            let table = root.table("qemu");
            let files = (machine.slurm)(bin_dir.as_deref(), &plugins);
            let given = qemu::Given {
                nodesets: guests,
                nodes: nodes
                    .iter()
                    .map(|(node, spec)| (node.clone(), spec.nodeset.clone()))
                    .collect(),
                network,
                mounts,
                targets,
            };
            let qemu = qemu::qemu(&table, cluster_name, &state_dir, &policy, files, machine, given);
            root.close();
            let qemu = qemu?;
            qemu::fits(root, &nodesets, &policy, &qemu);
            ProviderSettings::Qemu(qemu)
        }
        Maker::OpenNebula => {
            let given = opennebula::Given {
                cluster: cluster_name,
                policy: &policy,
                timeout: opennebula_timeout,
                max_age: timing.observation_max_age,
                machine,
                nodesets: sources,
                nodes: &nodes,
                fence: network::of_opennebula(&root.table("network"), machine),
            };
            root.refuse("mount", opennebula::NOT_OURS);
            let table = root.table("opennebula");
            let settings = opennebula::opennebula(&table, given);
            root.close();
            let settings = settings?;
            if settings.placement == Placement::OpenNebula {
                // One name stands for all hosts then, and OpenNebula has limits of its own.
                policy.max_vms_per_host = policy.max_vms;
            }
            ProviderSettings::OpenNebula(settings)
        }
    };
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
        job,
        sharing,
        policy,
        timing,
        provider,
        program: machine.program.clone(),
    })
}

/// Slurm writes it in small letters, however slurm.conf has it (22.05 to 26.05): so do its hooks.
fn cluster_name(root: &Section<'_, '_>) -> Option<ClusterName> {
    let name: ClusterName = root.required(
        "cluster",
        "write cluster = \"NAME\", the ClusterName of slurm.conf; it marks every VM as this cluster's",
    )?;
    ClusterName::new(&name.as_str().to_ascii_lowercase()).ok()
}

fn state_dir(root: &Section<'_, '_>) -> PathBuf {
    let dir = root
        .path("state_dir", Some(DEFAULT_STATE_DIR.into()))
        .unwrap_or_default();
    if dir.as_os_str().len() > MAX_STATE_DIR {
        root.problem(
            "state_dir",
            format!("is longer than {MAX_STATE_DIR} bytes: its sockets would have no valid address"),
        );
    }
    dir
}

/// `PluginDir` as slurm.conf has it; empty: nobody says.
fn plugin_dirs(slurm: &Section<'_, '_>) -> Vec<PathBuf> {
    let given: Option<String> = slurm.checked("plugin_dir", None, |text| {
        match text.split(':').all(|dir| dir.starts_with('/')) {
            true => Ok(text.to_owned()),
            false => Err("write absolute paths with ':' between them, as PluginDir in slurm.conf".to_owned()),
        }
    });
    given.map_or_else(Vec::new, |text| folders(&text))
}

/// The folders of a `PluginDir`.
pub fn folders(text: &str) -> Vec<PathBuf> {
    text.split(':').map(PathBuf::from).collect()
}

/// Who makes the VMs. The table of another provider is a mistake: it would have no effect.
fn maker(root: &Section<'_, '_>) -> Maker {
    // Where the word is missing or no word, its table says what was meant.
    let meant = if root.has("opennebula") {
        Maker::OpenNebula
    } else {
        Maker::Qemu
    };
    if meant == Maker::OpenNebula && !root.has("provider") {
        root.problem(
            "opennebula",
            "has no effect as long as the provider is qemu: write provider = \"opennebula\" at the file's top, \
             or remove this table",
        );
    }
    let maker = root.choice("provider", meant, &Maker::WORDS);
    let (other, why) = match maker {
        Maker::Qemu => ("opennebula", "has no effect with provider = \"qemu\""),
        Maker::OpenNebula => ("qemu", "has no effect with provider = \"opennebula\""),
    };
    root.refuse(
        other,
        format!("{why}: remove this table, or name the other provider"),
    );
    maker
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

/// What `[timing]` says beside the policy's times.
struct Times {
    timing: Timing,
    /// One call of Slurm's programs.
    slurm: Duration,
    /// One call of oned; nothing with another provider.
    opennebula: Duration,
}

/// All times, each in seconds in the file.
fn timing(table: &Section<'_, '_>, policy: &mut Policy, maker: Maker) -> Times {
    let from = |least: u64, most: u64| least..=most;
    policy.boot_timeout = table.seconds("boot_timeout", policy.boot_timeout, from(SECOND, HOUR));
    policy.capacity_patience = table.seconds("capacity_patience", policy.capacity_patience, from(0, HOUR));
    policy.orphan_grace = table.seconds("orphan_grace", policy.orphan_grace, from(SECOND, DAY));
    policy.missing_grace = table.seconds("missing_grace", policy.missing_grace, from(SECOND, DAY));
    policy.silence_grace = table.seconds("silence_grace", policy.silence_grace, from(SECOND, DAY));
    policy.terminate_grace = table.seconds("terminate_grace", policy.terminate_grace, from(SECOND, DAY));
    policy.retry_first = table.seconds("retry_first", policy.retry_first, from(100, HOUR));
    policy.retry_max = table.seconds("retry_max", policy.retry_max, from(100, DAY));
    policy.breaker_pause = table.seconds("breaker_pause", policy.breaker_pause, from(100, DAY));
    policy.admit_patience = table.seconds("admit_patience", policy.admit_patience, from(SECOND, HOUR));
    policy.overtake_limit = table.seconds("overtake_limit", policy.overtake_limit, from(0, 30 * DAY));
    policy.keep_failed = table.seconds("keep_failed", policy.keep_failed, from(SECOND, 30 * DAY));
    let span = |key, default: u64, least, most| {
        Duration::from_millis(table.seconds(key, Millis(default), from(least, most)).0)
    };
    let (vm_poll, vm_poll_busy) = maker.polls();
    // The old name is taken for one release.
    let max_age = table.renamed("observation_max_age", "look_max_age");
    let timing = Timing {
        tick: span("tick", 5 * SECOND, 50, HOUR),
        slurm_poll: span("slurm_poll", 10 * SECOND, 50, HOUR),
        slurm_poll_busy: span("slurm_poll_busy", 500, 50, HOUR),
        slurm_poll_urgent: span("slurm_poll_urgent", 20, 10, HOUR),
        vm_poll: span("vm_poll", vm_poll, 50, HOUR),
        vm_poll_busy: span("vm_poll_busy", vm_poll_busy, 50, HOUR),
        observation_max_age: span(max_age, 60 * SECOND, SECOND, HOUR),
        events_keep: span("events_keep", 14 * DAY, HOUR, 3650 * DAY),
        // No site has a reason to turn these.
        rounds_apart: Duration::from_millis(20),
        registers_within: Duration::from_secs(3),
        shown_within: Duration::from_millis(500),
        shown_every: Duration::from_secs(1),
        same_words: Duration::from_secs(60),
        prune: Duration::from_secs(3600),
    };
    let slurm = span("slurm_timeout", 20 * SECOND, 100, HOUR);
    let opennebula = match maker {
        Maker::OpenNebula => span("opennebula_timeout", 30 * SECOND, 100, HOUR),
        Maker::Qemu => {
            table.refuse("opennebula_timeout", opennebula::ONLY);
            Duration::ZERO
        }
    };
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
                format!("is longer than {other}: a busy time has shorter pauses, not longer ones"),
            );
        }
    }
    if timing.observation_max_age < timing.slurm_poll.max(timing.vm_poll) {
        table.problem(
            max_age,
            "is shorter than slurm_poll or vm_poll: no observation would be young enough to act on",
        );
    }
    table.close();
    Times {
        timing,
        slurm,
        opennebula,
    }
}
