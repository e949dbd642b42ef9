//! Slurm's partitions against what `thiao setup` wrote of ours, and what others of them do to our nodes.

use std::collections::{BTreeMap, BTreeSet};
use thiao_core::finding::{Finding, Verdict};
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_slurm::Config;
use thiao_slurm::conf::NodeLine;
use thiao_slurm::fragment::Fragment;
use thiao_slurm::partitions::Partition;

/// The least SuspendTimeout, in seconds: VMs of this machine are gone in less.
const LEAST_SUSPEND_S: u64 = 5;

const AGAIN: &str = "thiao setup && systemctl restart slurmctld";

/// What is said of each of our partitions: key, the words that are right, and what another one does.
const VALUES: &[(&str, &[&str], &str)] = &[
    ("State", &["UP"], "it starts no jobs"),
    ("MinNodes", &["0", "1"], "jobs on fewer nodes wait for ever"),
    ("MaxNodes", &["UNLIMITED"], "jobs on more nodes are refused"),
    (
        "MaxCPUsPerNode",
        &["UNLIMITED"],
        "jobs get a part of their VM's CPUs",
    ),
    (
        "MaxCPUsPerSocket",
        &["UNLIMITED"],
        "jobs get a part of their VM's CPUs",
    ),
    ("ExclusiveUser", &["NO"], "VMs are kept for one user"),
    ("RootOnly", &["NO"], "only root's jobs are taken"),
    ("ReqResv", &["NO"], "only jobs in a reservation are taken"),
    ("PowerDownOnIdle", &["NO"], "no VM is kept for a next job"),
];

/// How the partitions stand. `wanted` is what `thiao setup` would write.
#[must_use]
pub fn judge(wanted: &Fragment, config: &Config, all: &BTreeMap<String, Partition>) -> Vec<Finding> {
    let mut found = Vec::new();
    let ours = by_partition(wanted);
    for (name, lines) in &ours {
        // One that is missing is told with its nodes.
        let Some(seen) = all.get(*name) else { continue };
        let what = format!("partition {name}");
        let job_mode = lines.iter().any(|line| line.job.is_some());
        let mut wrong = values(seen, job_mode);
        wrong.extend(memory(lines, seen));
        if !wrong.is_empty() {
            found.push(
                Finding::bad(
                    what.clone(),
                    format!(
                        "{}: the lines in slurm.conf are older than the settings, or somebody changed it",
                        wrong.join("; ")
                    ),
                )
                .run(AGAIN),
            );
        }
        found.extend(overruled(&what, lines, seen));
        found.extend(times(&what, wanted, seen));
        if listed(config, "SuspendExcParts").contains(name) {
            found.push(
                Finding::warn(what, "SuspendExcParts has it: its VMs are never ended")
                    .advice("take it out of SuspendExcParts in slurm.conf, then restart slurmctld"),
            );
        }
    }
    for (name, other) in all.iter().filter(|(name, _)| !ours.contains_key(name.as_str())) {
        found.extend(overlap(name, other, wanted));
    }
    found.extend(never_suspended(wanted, config));
    found
}

/// For each of our partitions that Slurm gives up on too early: how long it waits for a node, and how long it
/// has to, in seconds.
#[must_use]
pub fn impatient(wanted: &Fragment, all: &BTreeMap<String, Partition>) -> BTreeMap<String, (u64, u64)> {
    let needed = u64::from(wanted.tries_s);
    by_partition(wanted)
        .into_keys()
        .filter_map(|name| {
            let has = all.get(name)?.seconds("ResumeTimeout")?;
            (has < needed).then(|| (name.to_owned(), (has, needed)))
        })
        .collect()
}

fn by_partition(wanted: &Fragment) -> BTreeMap<&str, Vec<&NodeLine>> {
    let mut ours: BTreeMap<&str, Vec<&NodeLine>> = BTreeMap::new();
    for line in &wanted.nodes {
        ours.entry(&line.partition).or_default().push(line);
    }
    ours
}

fn values(seen: &Partition, job_mode: bool) -> Vec<String> {
    let mut wrong: Vec<String> = VALUES
        .iter()
        .filter_map(|(key, good, why)| {
            let value = seen.get(key).filter(|value| !good.contains(value))?;
            Some(format!("{key} is {value}: {why}"))
        })
        .collect();
    let shared = seen.get("OverSubscribe").unwrap_or_default();
    if job_mode && shared != "NO" {
        wrong.push(format!("OverSubscribe is {shared}, not NO"));
    } else if !job_mode && !is_exclusive(seen) {
        wrong.push(format!(
            "OverSubscribe is {shared}, not EXCLUSIVE: jobs share a VM"
        ));
    }
    wrong
}

/// Whether each job has its nodes to itself; 26.05 says it in a key of its own.
fn is_exclusive(seen: &Partition) -> bool {
    seen.get("OverSubscribe") == Some("EXCLUSIVE") || seen.get("Exclusive") == Some("NODE")
}

fn number(seen: &Partition, key: &str) -> Option<u64> {
    seen.get(key)?.parse().ok()
}

/// Memory by which jobs are refused.
fn memory(lines: &[&NodeLine], seen: &Partition) -> Vec<String> {
    let mut wrong = Vec::new();
    let least = lines.iter().map(|line| line.memory_mb).min().unwrap_or(0);
    let most = lines.iter().map(|line| line.memory_mb).max().unwrap_or(0);
    if let Some(mb) = number(seen, "DefMemPerNode").filter(|mb| *mb > least) {
        wrong.push(format!(
            "DefMemPerNode is {mb}, and nodes have {least} MiB: jobs that name no memory are refused"
        ));
    }
    let too_much = |mb: &u64| {
        lines
            .iter()
            .any(|line| line.job.is_none() && mb.saturating_mul(line.cpus.into()) > line.memory_mb)
    };
    if let Some(mb) = number(seen, "DefMemPerCPU").filter(too_much) {
        wrong.push(format!(
            "DefMemPerCPU is {mb}, and nodes have {least} MiB: jobs that name no memory are refused"
        ));
    }
    for key in ["MaxMemPerNode", "MaxMemPerCPU"] {
        if let Some(mb) = number(seen, key).filter(|mb| *mb < most) {
            wrong.push(format!("{key} is {mb}, and nodes have {most} MiB"));
        }
    }
    wrong
}

/// What our line cannot say: where one has both forms, Slurm takes the one per node.
fn overruled(what: &str, lines: &[&NodeLine], seen: &Partition) -> Option<Finding> {
    let each = lines
        .iter()
        .filter_map(|line| line.job)
        .map(|job| job.memory_per_cpu_mb)
        .min()?;
    if number(seen, "DefMemPerCPU") == Some(each) {
        return None;
    }
    let instead = match seen.get("DefMemPerNode") {
        Some(mb) => format!("DefMemPerNode={mb}"),
        None => format!("DefMemPerCPU={}", seen.get("DefMemPerCPU").unwrap_or("UNLIMITED")),
    };
    Some(
        Finding::warn(
            what,
            format!(
                "jobs that name no memory get {instead}, not {each} MiB for each CPU (memory_per_cpu_mb): a line \
                 PartitionName=DEFAULT overrules ours, or ours is old"
            ),
        )
        .advice(
            "write DefMemPerNode on the lines of the partitions that it is for, not on that of \
             PartitionName=DEFAULT; then run thiao setup, and restart slurmctld",
        ),
    )
}

fn times(what: &str, wanted: &Fragment, seen: &Partition) -> Vec<Finding> {
    let mut found = Vec::new();
    let needed = u64::from(wanted.tries_s);
    if let Some(has) = seen.seconds("ResumeTimeout").filter(|has| *has < needed) {
        found.push(
            Finding::bad(
                what,
                format!(
                    "ResumeTimeout is {has} s, and a VM may take {needed} s with all its tries: Slurm \
                     gives up on nodes that come later, and their jobs start over"
                ),
            )
            .run(AGAIN),
        );
    }
    if let Some(has) = seen
        .seconds("SuspendTimeout")
        .filter(|has| *has < LEAST_SUSPEND_S)
    {
        found.push(
            Finding::warn(
                what,
                format!(
                    "SuspendTimeout is {has} s: Slurm may want nodes back {has} s after it suspended them, \
                     before their VMs have ended"
                ),
            )
            .run(AGAIN),
        );
    }
    if let Some(word) = seen
        .get("SuspendTime")
        .filter(|word| matches!(*word, "INFINITE" | "UNLIMITED" | "GLOBAL" | "NONE"))
    {
        found.push(
            Finding::warn(what, format!("SuspendTime is {word}: its VMs may never be ended")).run(AGAIN),
        );
    }
    found
}

/// Another partition that has nodes of ours: its jobs come to them by its own rules.
fn overlap(name: &str, other: &Partition, wanted: &Fragment) -> Option<Finding> {
    let nodes = |job_mode: bool| -> BTreeSet<NodeName> {
        let lines = wanted.nodes.iter().filter(|line| line.job.is_some() == job_mode);
        let of_ours = lines
            .filter_map(|line| hostlist::expand(&line.nodes).ok())
            .flatten();
        of_ours.filter(|node| other.nodes.contains(node)).collect()
    };
    let (own, shared) = (nodes(true), nodes(false));
    let (verdict, list, why) = if !own.is_empty() {
        (
            Verdict::Bad,
            &own,
            "which are in job mode: its jobs bypass the gate, and wait there for VMs that nobody makes",
        )
    } else if !shared.is_empty() && !is_exclusive(other) {
        (
            Verdict::Warn,
            &shared,
            "whose VMs its jobs share, with each other and with those of our partition",
        )
    } else {
        return None;
    };
    let rest: BTreeSet<&NodeName> = other
        .nodes
        .iter()
        .filter(|node| !own.contains(*node) && !shared.contains(*node))
        .collect();
    let cure = match rest.is_empty() {
        true => "take them out of it".to_owned(),
        false => format!("write Nodes={} there", hostlist::fold(rest)),
    };
    Some(
        Finding::new(
            format!("partition {name}"),
            verdict,
            format!("has the nodes {}, {why}", hostlist::fold(list)),
        )
        .advice(format!("{cure}, then restart slurmctld")),
    )
}

fn listed<'c>(config: &'c Config, key: &str) -> BTreeSet<&'c str> {
    let list = config.get(key).unwrap_or_default();
    list.split(',').map(str::trim).collect()
}

fn never_suspended(wanted: &Fragment, config: &Config) -> Option<Finding> {
    // `n[1-9]:3` keeps three of them.
    let list = config.get("SuspendExcNodes")?;
    let kept: BTreeSet<NodeName> = hostlist::expand(list.split(':').next()?)
        .ok()?
        .into_iter()
        .collect();
    let ours = wanted
        .nodes
        .iter()
        .filter_map(|line| hostlist::expand(&line.nodes).ok());
    let both: BTreeSet<NodeName> = ours.flatten().filter(|node| kept.contains(node)).collect();
    (!both.is_empty()).then(|| {
        Finding::warn(
            format!("node {}", hostlist::fold(&both)),
            "SuspendExcNodes has it: its VM is never ended",
        )
        .advice("take it out of SuspendExcNodes in slurm.conf, then restart slurmctld")
    })
}
