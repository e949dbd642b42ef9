//! Slurm's configuration in effect against what `thiao setup` wrote.

use std::collections::BTreeMap;
use std::path::Path;
use thiao_config::Config as Settings;
use thiao_core::finding::Finding;
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::view::Shape;
use thiao_slurm::conf::{self, JobLine, MemoryForms, NodeLine, Timeouts};
use thiao_slurm::details::NodeDetails;
use thiao_slurm::fragment::Cgroups;
use thiao_slurm::fragment::{Conflict, Fragment, OLDEST};
use thiao_slurm::names::{GATE, HOOKS, RESERVATION};
use thiao_slurm::partitions::Partition;
use thiao_slurm::{Config, Ping, Quirks, Slurm, Version, keys, lua, quirks};

use super::{Unseen, partitions};

/// What is found fault with.
const CONF: &str = "slurm.conf";
/// What writes our lines anew.
const AGAIN: &str = "thiao setup && systemctl restart slurmctld";

/// What Slurm said; what it did not say is an error in words.
#[derive(Debug, Clone)]
pub struct Facts {
    /// slurmctld's version, or while it does not answer that of `scontrol`.
    pub version: Result<Version, Unseen>,
    /// That of the programs here, of which guests get slurmd; none when they do not say.
    pub programs: Option<Version>,
    /// What `scontrol ping` says.
    pub ping: Result<Ping, Unseen>,
    /// What `scontrol show config` says.
    pub config: Result<Config, Unseen>,
    /// What guests are booted, and where they are.
    pub nodes: keys::Nodes,
    /// What of `NodeName=DEFAULT` harms our nodes, in sentences.
    pub defaults: Vec<String>,
    /// What concerns job mode alone; none without nodesets of it.
    pub job_mode: Option<JobMode>,
    /// What `scontrol show partition` says.
    pub partitions: Result<BTreeMap<String, Partition>, Unseen>,
    /// The cluster's name in the settings.
    pub cluster: String,
    /// How long a node may be silent before Thiao takes it for lost, in seconds.
    pub silence_s: u64,
}

/// What concerns job mode alone.
#[derive(Debug, Clone)]
pub struct JobMode {
    /// Whether the reservation is there by which jobs wait for capacity.
    pub gate: Result<bool, Unseen>,
    /// The `job_submit.lua` in effect.
    pub script: Result<String, Unseen>,
    /// What `thiao setup` would write there.
    pub wanted: String,
}

/// The lines for slurm.conf that these settings ask for.
#[must_use]
pub fn fragment(settings: &Settings, version: Version, hooks: &Path) -> Fragment {
    let nodes = settings
        .nodesets
        .values()
        .map(|set| NodeLine {
            nodes: set.nodes.clone(),
            cpus: set.shape.cpus,
            memory_mb: set.shape.memory_mb,
            features: set.features.clone(),
            partition: set.partition.clone(),
            job: set.job.as_ref().map(|job| JobLine {
                memory_per_cpu_mb: job.memory_per_cpu_mb,
                gpus: job.gpus,
            }),
        })
        .collect();
    let policy = &settings.policy;
    // Slurm's own limit comes after everything that we try, so that it is never what discovers a failure.
    let tries = policy
        .boot_timeout
        .0
        .saturating_mul(policy.tries_before_down.into());
    let pauses: u64 = (1..policy.tries_before_down)
        .map(|failures| policy.backoff(failures).0)
        .sum();
    let ours_s = tries
        .saturating_add(pauses)
        .saturating_add(policy.capacity_patience.0)
        // While an idle VM gives way.
        .saturating_add(policy.terminate_grace.0)
        / 1000
        + 30;
    let (usual, tries_s) = (Timeouts::default(), u32::try_from(ours_s).unwrap_or(u32::MAX));
    Fragment {
        version,
        hooks: hooks.to_owned(),
        nodes,
        default_partition: None,
        timeouts: Timeouts {
            resume_s: usual.resume_s.max(tries_s),
            ..usual
        },
        tries_s,
        joined: BTreeMap::new(),
        memory: MemoryForms::default(),
        cgroups: settings.cgroups(),
    }
}

/// The `job_submit.lua` that these settings ask for; none without nodesets of job mode. Jobs by `tsub` that
/// name no partition go to the first of its partitions. `site` is the site's own script, which it calls.
#[must_use]
pub fn job_submit(settings: &Settings, site: Option<&Path>) -> Option<String> {
    let partitions: Vec<String> = settings.job_partitions().into_keys().collect();
    let first = partitions.first()?;
    Some(lua::script(
        &partitions,
        Some(first),
        &settings.job.options,
        Some(&settings.submitted_file()),
        site,
    ))
}

/// What Slurm's keys need to know of the nodes. A topology that cannot be read may lack them.
#[must_use]
pub fn nodes(settings: &Settings, slurm: &Slurm, present: &Config) -> keys::Nodes {
    let has_all = || {
        let named = slurm.topology().ok()?;
        Some(settings.nodes.keys().all(|node| named.contains(node)))
    };
    keys::Nodes {
        small_guests: settings.cgroups() == Cgroups::None,
        own_guests: settings.own_guests(),
        shared: settings.shared_folders(),
        in_topology: keys::has_topology(present) && has_all() == Some(true),
    }
}

/// How Slurm's part stands. `wanted` is what `thiao setup` would write.
#[must_use]
pub fn judge(facts: &Facts, wanted: Option<&Fragment>) -> Vec<Finding> {
    let mut found = Vec::new();
    match &facts.version {
        Ok(version) if *version < OLDEST => found.push(
            Finding::bad(
                "Slurm",
                format!("{version} is older than {OLDEST}, the first that Thiao understands"),
            )
            .advice("upgrade Slurm"),
        ),
        Ok(version) if quirks::is_untried(*version) => found.push(
            Finding::warn(
                "Slurm",
                format!(
                    "{version} is newer than {}, the newest that Thiao was tried with: Thiao treats it as that one",
                    quirks::NEWEST
                ),
            )
            .advice("look for a newer Thiao; report what goes wrong"),
        ),
        Ok(version) => found.push(Finding::ok("Slurm", version.to_string())),
        Err(why) => {
            found.push(
                Finding::bad("Slurm", why.to_string())
                    .advice(
                        "install Slurm's client programs, or say where they and slurm.conf are: bin_dir and conf in \
                         thiao.toml's [slurm]",
                    )
                    .unless_denied(why.denied),
            );
            return found;
        }
    }
    match &facts.ping {
        Ok(ping) if ping.is_up() => found.push(Finding::ok("slurmctld", "answers")),
        Ok(_) => {
            found.push(Finding::bad("slurmctld", "does not answer").run("systemctl restart slurmctld"));
            return found;
        }
        Err(why) => {
            found.push(
                Finding::bad("slurmctld", why.to_string())
                    .run("systemctl status slurmctld munge")
                    .unless_denied(why.denied),
            );
            return found;
        }
    }
    match (&facts.config, wanted) {
        (Err(why), _) => found.push(
            Finding::bad(CONF, why.to_string())
                .run("scontrol show config")
                .unless_denied(why.denied),
        ),
        (Ok(config), Some(wanted)) => {
            found.extend(conf(config, wanted, facts));
            match &facts.partitions {
                Ok(all) => found.extend(partitions::judge(wanted, config, all)),
                Err(why) => {
                    found.push(
                        Finding::bad("partitions", why.to_string())
                            .run("scontrol show partition")
                            .unless_denied(why.denied),
                    );
                }
            }
            if let Some(job_mode) = &facts.job_mode {
                found.extend(self::job_mode(job_mode, config, wanted));
            }
        }
        (Ok(_), None) => {}
    }
    found
}

/// How it stands with what only job mode needs.
fn job_mode(facts: &JobMode, config: &Config, wanted: &Fragment) -> Vec<Finding> {
    const WHAT: &str = "job mode";
    let mut found = Vec::new();
    for (key, words) in conf::job_mode(&wanted.nodes) {
        let name = |word: &str| word.split(':').next().unwrap_or_default().trim().to_owned();
        let present: Vec<String> = config.get(key).unwrap_or_default().split(',').map(name).collect();
        let lacks: Vec<String> = words
            .iter()
            .map(|word| name(word))
            .filter(|word| !present.contains(word))
            .collect();
        if !lacks.is_empty() {
            found.push(Finding::bad(WHAT, format!("{key} has no {}", lacks.join(", "))).run(AGAIN));
        }
    }
    match &facts.script {
        Ok(text) if *text == facts.wanted || text.contains(lua::BESIDE) => {}
        Ok(text) if text.starts_with(lua::MARK) => {
            found.push(
                Finding::warn(WHAT, format!("{} was written for other settings", lua::FILE))
                    .run("thiao setup"),
            );
        }
        Ok(_) => found.push(
            Finding::bad(
                WHAT,
                format!(
                    "{} beside slurm.conf is somebody else's: jobs do not wait for capacity",
                    lua::FILE
                ),
            )
            .run("thiao setup"),
        ),
        Err(why) => found.push(
            Finding::bad(WHAT, why.to_string())
                .run("thiao setup")
                .unless_denied(why.denied),
        ),
    }
    match &facts.gate {
        Ok(true) => {}
        Ok(false) => found.push(
            Finding::bad(
                WHAT,
                format!("there is no reservation {RESERVATION} to hold the licence {GATE}: jobs do not wait for capacity"),
            )
            .run("systemctl restart thiaod"),
        ),
        Err(why) => found.push(
            Finding::bad(WHAT, why.to_string())
                .run("scontrol show reservation")
                .unless_denied(why.denied),
        ),
    }
    if found.is_empty() {
        found.push(Finding::ok(WHAT, "jobs wait at the gate for their VMs"));
    }
    found
}

/// What is wrong with slurm.conf as a whole.
fn conf(config: &Config, fragment: &Fragment, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(other_cluster(config, &facts.cluster));
    found.extend(hasty(config, facts.silence_s));
    found.extend(keys::harmful(config, &facts.nodes));
    found.extend(
        facts
            .defaults
            .iter()
            .map(|text| Finding::bad(CONF, text.clone()).advice("then restart slurmctld")),
    );
    found.extend(without_programs(config));
    found.extend(words(
        config,
        Quirks::of(config.version().unwrap_or(fragment.version)),
    ));
    let conflicts = fragment.conflicts(config);
    found.extend(conflicts.iter().filter_map(|it| conflict(it, fragment)));
    if found.is_empty() {
        found.push(Finding::ok(CONF, "has what `thiao setup` wrote"));
    }
    found
}

/// Places for our programs where slurm.conf names none.
fn without_programs(config: &Config) -> Option<Finding> {
    let missing: Vec<&str> = HOOKS
        .iter()
        .map(|(key, _)| *key)
        .filter(|key| config.values(key).is_empty())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let text = format!(
        "{} not set: the lines of `thiao setup` are not included, or slurmctld has not read them",
        are(&missing)
    );
    Some(Finding::bad(CONF, text).run(AGAIN))
}

/// Values that have to be a word, and lists that have to have one.
fn words(config: &Config, quirks: Quirks) -> Vec<Finding> {
    let values = [
        ("ReturnToService", "2", "a VM that registers late would stay DOWN"),
        ("ResumeRate", "0", "Slurm would start nodes a few at a time"),
        ("SuspendRate", "0", "Slurm would stop nodes a few at a time"),
    ];
    let lists = [
        (
            "PrivateData",
            "cloud",
            "sinfo does not show nodes that are powered down",
        ),
        (
            "SlurmctldParameters",
            "enable_configless",
            "guests cannot fetch slurm.conf from slurmctld",
        ),
        (
            "SlurmctldParameters",
            "power_save_interval",
            "slurmctld attends to power saving only every 10 s",
        ),
    ];
    let lacks = |(key, wanted, why): (&str, &str, &str)| {
        // Newer releases do not know the word, and do what it says.
        let gone = key == "PrivateData" && !quirks.private_cloud;
        let lacks = !gone && !config.has(key, wanted);
        lacks.then(|| Finding::warn(CONF, format!("{key} has no {wanted}: {why}")).run(AGAIN))
    };
    values
        .into_iter()
        .filter_map(|(key, wanted, why)| word(config, key, wanted, why))
        .chain(lists.into_iter().filter_map(lacks))
        .collect()
}

/// A value that has to be this word.
fn word(config: &Config, key: &str, wanted: &str, why: &str) -> Option<Finding> {
    let value = config.get(key)?;
    let first = value.split_whitespace().next().unwrap_or_default();
    (first != wanted)
        .then(|| Finding::warn(CONF, format!("{key} is {value}, not {wanted}: {why}")).run(AGAIN))
}

/// What of a site's does not go together with our lines; none for what is told as missing.
fn conflict(conflict: &Conflict, fragment: &Fragment) -> Option<Finding> {
    let text = conflict.to_string();
    let changed = |text| Finding::warn(CONF, text).advice("change slurm.conf, then restart slurmctld");
    match conflict {
        Conflict::OtherProgram { .. } => Some(Finding::bad(CONF, text).run(AGAIN)),
        Conflict::NoAccounting(_) if fragment.has_job_mode() => {
            Some(Finding::bad("job mode", text).advice("jobs of power-saving nodes run meanwhile"))
        }
        // What setup would change is told as what lacks.
        Conflict::ConfigOverrides => None,
        Conflict::TooOld(_)
        | Conflict::IdleOnSuspend
        | Conflict::SuspendTime
        | Conflict::NoAccounting(_)
        | Conflict::PlansForLicence
        | Conflict::LongPass(_)
        | Conflict::WholeNodes(_)
        | Conflict::MemoryUnmanaged
        | Conflict::NotBackfill => Some(changed(text)),
    }
}

/// The hooks say Slurm's name of the cluster; the controller takes no other's orders.
fn other_cluster(config: &Config, ours: &str) -> Option<Finding> {
    let theirs = config.get("ClusterName").filter(|theirs| *theirs != ours)?;
    Some(
        Finding::bad(
            CONF,
            format!(
                "ClusterName is {theirs}, and the settings say {ours}: orders of Slurm's hooks are refused"
            ),
        )
        .advice(format!(
            "write cluster = \"{theirs}\" in thiao.toml, then restart thiaod"
        )),
    )
}

/// Slurm would give a VM up, and its job, that we still wait for.
fn hasty(config: &Config, silence_s: u64) -> Option<Finding> {
    let limit = config
        .number("SlurmdTimeout")
        .filter(|limit| (1..silence_s).contains(limit))?;
    Some(
        Finding::warn(
            CONF,
            format!(
                "SlurmdTimeout is {limit} s: a VM that does not answer for that long loses its job, before \
                 timing.silence_grace ({silence_s} s)"
            ),
        )
        .advice(format!(
            "write SlurmdTimeout={silence_s} or more (0: Slurm leaves it to Thiao, and watches no other node \
             either), or a shorter silence_grace"
        )),
    )
}

fn are(keys: &[&str]) -> String {
    let verb = if keys.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", keys.join(", "))
}

/// Nodes whose size or partition in Slurm is another than in the settings: the included lines are old.
#[must_use]
pub fn sizes(
    wanted: &BTreeMap<NodeName, (Shape, String)>,
    details: &BTreeMap<NodeName, NodeDetails>,
) -> Vec<Finding> {
    let mut odd: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for (node, (shape, partition)) in wanted {
        let Some(known) = details.get(node) else { continue };
        let mut text = Vec::new();
        if let Some(cpus) = known.cpus.filter(|cpus| *cpus != shape.cpus) {
            text.push(format!("{cpus} CPUs in Slurm and {} in the settings", shape.cpus));
        }
        if let Some(mb) = known.memory_mb.filter(|mb| *mb != shape.memory_mb) {
            text.push(format!(
                "{mb} MiB in Slurm and {} in the settings",
                shape.memory_mb
            ));
        }
        let mut why = "the lines in slurm.conf are older than the settings";
        if !known.partitions.contains(partition) {
            if text.is_empty() {
                why = "somebody took it out (scontrol update), or the lines in slurm.conf are older than the settings";
            }
            text.push(format!("not in partition {partition}"));
        }
        if !text.is_empty() {
            let text = format!("{}: {why}", text.join(", "));
            odd.entry(text).or_default().push(node);
        }
    }
    odd.into_iter()
        .map(|(text, nodes)| Finding::warn(format!("node {}", hostlist::fold(nodes)), text).run(AGAIN))
        .collect()
}
