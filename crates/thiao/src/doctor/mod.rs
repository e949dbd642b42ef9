//! `thiao doctor`: looks at everything that has to be right, and says for each what is wrong, why, and
//! what mends it.
//!
//! What is looked at is collected here; what it means is said by the pure parts: [`machine`] (the embedded
//! provider), `thiao_opennebula::check` (OpenNebula), [`hooks`], [`slurm`] and [`reach`] (Slurm's side),
//! [`controller`], [`nodes`] and [`vms`].

pub mod controller;
pub mod hooks;
pub mod machine;
pub mod nodes;
pub mod partitions;
pub mod reach;
pub mod slurm;
pub mod vms;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiao_api::client::Client;
use thiao_api::types::Node;
use thiao_cli::output::now;
use thiao_config::{Config, DEFAULT_FILE, DEFAULT_SLURM_CONF, Nodeset, ProviderSettings};
use thiao_core::finding::{Finding, Remedy, Verdict, worst};
use thiao_core::ids::NodeName;
use thiao_core::options::OptionRule;
use thiao_core::view::{Shape, SlurmView};
use thiao_core::world::Mode;
use thiao_opennebula::check;
use thiao_slurm::details::NodeDetails;
use thiao_slurm::site::Site;
use thiao_slurm::{Slurm, SlurmError, defaults};

/// Troubled kinds of nodes whose story the controller is asked for.
const STORIES: usize = 16;

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is about.
    pub title: &'static str,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// The worst of all that was found.
#[must_use]
pub fn verdict(groups: &[Group]) -> Verdict {
    worst(groups.iter().flat_map(|group| &group.findings))
}

/// What the provider's checks saw, where other checks need it too.
pub struct ProviderChecked {
    /// What was found.
    pub findings: Vec<Finding>,
    /// OpenNebula's answers, if it is OpenNebula.
    pub seen: Option<check::Seen>,
}

/// Checks the provider alone. With `tried`, held VMs are made and removed at once.
#[must_use]
pub fn provider(config: &Config, client: &Client, tried: bool) -> ProviderChecked {
    let settings = match &config.provider {
        ProviderSettings::Qemu(settings) => {
            let facts = machine::look(settings, client.controller());
            return ProviderChecked {
                findings: machine::judge(&facts, settings),
                seen: None,
            };
        }
        ProviderSettings::OpenNebula(settings) => settings,
    };
    let asked = config
        .nodesets
        .iter()
        .map(|(name, set)| (name.clone(), asked(config, set)))
        .collect();
    let policy = &config.policy;
    let wanted = check::Wanted::new(settings, &asked, policy.max_vms, policy.max_vms_per_host);
    let key = settings
        .guest
        .credentials
        .as_ref()
        .map(|credentials| machine::key(credentials, &machine::readable(credentials.file())));
    let client = match thiao_opennebula::Client::new(&settings.access) {
        Ok(client) => client,
        Err(error) => {
            let mut findings =
                vec![Finding::bad("credentials", error.to_string()).advice(
                    "write user:password into that file, and chmod 600 it for the controller's user",
                )];
            findings.extend(key);
            return ProviderChecked { findings, seen: None };
        }
    };
    let mut seen = check::look(&client, settings, &wanted);
    if tried {
        seen.tried = check::try_vms(&client, settings, &wanted, &mut seen);
    }
    let mut findings = check::judge(&seen, &wanted);
    if tried && seen.tried.is_empty() {
        findings.push(Finding::warn("try", "nothing was tried: there is no node"));
    }
    findings.extend(key);
    ProviderChecked {
        findings,
        seen: Some(seen),
    }
}

/// How a nodeset's VMs are asked for.
fn asked(config: &Config, set: &Nodeset) -> check::Asked {
    let mode = set.mode();
    let may_name = |rule: &&OptionRule| match mode {
        Mode::Job => rule
            .partition
            .as_ref()
            .is_none_or(|partition| *partition == set.partition),
        Mode::PowerSaving => false,
    };
    let rules = config.job.options.iter().filter(may_name);
    let named: BTreeSet<&String> = rules.flat_map(|rule| &rule.templates).collect();
    check::Asked {
        shape: set.shape,
        smallest: set.job.as_ref().map_or(set.shape, |job| Shape {
            cpus: 1,
            memory_mb: job.memory_per_cpu_mb.min(set.shape.memory_mb),
            ..set.shape
        }),
        gpus: set.job.as_ref().map_or(0, |job| job.gpus),
        mode,
        named: named.into_iter().cloned().collect(),
    }
}

/// Runs all checks. `hooks` is where the hooks' folder is if slurm.conf does not say.
#[must_use]
pub fn examine(config: &Config, hooks: &Path, tried: bool) -> Vec<Group> {
    let asked = Slurm::new(
        config.slurm.conf.clone(),
        config.slurm.bin_dir.clone(),
        config.slurm.timeout,
    )
    // Those in no partition are asked for by name.
    .with_nodes(Arc::new(config.nodes.keys().cloned().collect()));
    let facts = slurm_facts(&asked, config);
    let client = Client::new(&config.state_dir);
    let status = client.status();
    let provider = provider(config, &client, tried);
    let hooks = hooks_folder(&facts, hooks);

    let fragment = facts
        .version
        .as_ref()
        .ok()
        .map(|version| slurm::fragment(config, *version, &hooks));
    let mut of_slurm = slurm::judge(&facts, fragment.as_ref());
    let site = facts.config.as_ref().ok().map(Site::of);
    if let Some(site) = &site {
        let clients = facts.programs;
        let told = reach::Told::of(config);
        of_slurm.extend(reach::judge(site, &told, clients, is_shared(&config.state_dir)));
    }
    let uid = site.and_then(|site| site.user?.1);
    of_slurm.extend(hooks::judge(
        &hooks::look(&hooks, &config.state_dir, uid),
        &config.state_dir,
    ));
    let mut of_nodes = Vec::new();
    let up = matches!(&facts.ping, Ok(ping) if ping.is_up());
    // Without slurmctld that was said already, and each command would wait for its timeout.
    let view = up.then(|| asked.look());
    let details = up.then(|| asked.details());
    for error in [
        view.as_ref().and_then(|view| view.as_ref().err()),
        details.as_ref().and_then(|details| details.as_ref().err()),
    ]
    .into_iter()
    .flatten()
    {
        of_nodes.push(unreadable(error));
    }
    let slurm = match (view, details) {
        (Some(Ok(view)), Some(Ok(details))) => Some((view, details)),
        (Some(_) | None, _) => None,
    };
    if let Some((_, details)) = &slurm {
        of_slurm.extend(slurm::sizes(&sizes(config), details));
    }
    let ours: Option<BTreeMap<String, Node>> = client
        .nodes()
        .ok()
        .map(|nodes| nodes.into_iter().map(|node| (node.name.clone(), node)).collect());
    if let Some((view, details)) = &slurm {
        let impatient = match (&fragment, &facts.partitions) {
            (Some(fragment), Ok(all)) => partitions::impatient(fragment, all),
            (Some(_) | None, _) => BTreeMap::new(),
        };
        of_nodes.extend(about_nodes(
            config,
            view,
            details,
            ours.as_ref(),
            &client,
            &impatient,
        ));
    }
    let mut of_controller = controller::judge(
        status
            .as_ref()
            .map_err(ToString::to_string)
            .as_deref()
            .map_err(String::as_str),
        config.cluster.as_str(),
        match &config.provider {
            ProviderSettings::Qemu(_) => "qemu",
            ProviderSettings::OpenNebula(_) => "opennebula",
        },
        env!("CARGO_PKG_VERSION"),
        config.timing.look_max_age,
    );
    of_controller.push(controller::state_folder(&config.state_dir));
    let mut groups = vec![
        Group {
            title: "Settings",
            findings: settings(config),
        },
        Group {
            title: match &config.provider {
                ProviderSettings::Qemu(_) => "This machine",
                ProviderSettings::OpenNebula(_) => "OpenNebula",
            },
            findings: provider.findings,
        },
        Group {
            title: "Slurm",
            findings: of_slurm,
        },
        Group {
            title: "Controller",
            findings: of_controller,
        },
        Group {
            title: "Nodes",
            findings: of_nodes,
        },
    ];
    if let Some(vms) = provider.seen.as_ref().and_then(|seen| seen.vms.as_ref().ok()) {
        let nodes: BTreeSet<NodeName> = config.nodes.keys().cloned().collect();
        let strays = client.vms().ok().map(|vms| {
            vms.into_iter()
                .filter(|vm| vm.state == "stray")
                .map(|vm| vm.id)
                .collect()
        });
        groups.push(Group {
            title: "VMs",
            findings: vms::judge(vms::Facts {
                cluster: &config.cluster,
                nodes: &nodes,
                vms,
                slurm: slurm.as_ref().map(|(view, details)| (view, details)),
                strays: strays.as_ref(),
            }),
        });
    }
    if !rustix::process::geteuid().is_root() {
        for finding in groups.iter_mut().flat_map(|group| &mut group.findings) {
            not_for_us(finding);
        }
    }
    for finding in groups.iter_mut().flat_map(|group| &mut group.findings) {
        if let Some(Remedy::Run(command)) = &mut finding.remedy {
            *command = with_settings(command, &config.file);
        }
    }
    groups
}

/// The command for these settings, where they are not at the usual place.
fn with_settings(command: &str, file: &Path) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let name = file.to_string_lossy();
    // A name that a shell would take apart is left to the person.
    if file == Path::new(DEFAULT_FILE) || !name.chars().all(plain) {
        return command.to_owned();
    }
    let parts = command.split(" && ").map(|part| {
        for program in ["thiao ", "sudo thiao "] {
            if let Some(rest) = part.strip_prefix(program) {
                return format!("{program}--config {name} {rest}");
            }
        }
        part.to_owned()
    });
    parts.collect::<Vec<String>>().join(" && ")
}

/// What this user may not see may be right all the same.
fn not_for_us(finding: &mut Finding) {
    if finding.verdict != Verdict::Ok && finding.text.contains("Permission denied") {
        finding.verdict = Verdict::Warn;
        finding.remedy = Some(Remedy::Run("sudo thiao doctor".to_owned()));
    }
}

fn settings(config: &Config) -> Vec<Finding> {
    let mut found = vec![Finding::ok(
        "settings",
        format!(
            "{} is right: cluster {}, {} nodes in {} nodesets",
            config.file.display(),
            config.cluster,
            config.nodes.len(),
            config.nodesets.len()
        ),
    )];
    if !rustix::process::geteuid().is_root() {
        found.push(
            Finding::warn(
                "user",
                "not all can be seen by this user: files of Slurm's, others' jobs",
            )
            .run("sudo thiao doctor"),
        );
    }
    found
}

fn slurm_facts(slurm: &Slurm, config: &Config) -> slurm::Facts {
    let told = |error: SlurmError| error.to_string();
    let version = slurm.version().map_err(told);
    // Without Slurm's programs nothing else can be asked.
    let ping = match &version {
        Ok(_) => slurm.ping().map_err(told),
        Err(why) => Err(why.clone()),
    };
    let effective = match &ping {
        Ok(ping) if ping.is_up() => slurm.config().map_err(told),
        Ok(_) => Err("slurmctld does not answer".to_owned()),
        Err(why) => Err(why.clone()),
    };
    let of_slurmctld = effective.as_ref().ok().and_then(thiao_slurm::Config::version);
    let programs = version.as_ref().ok().copied();
    let version = of_slurmctld.map_or(version, Ok);
    let job_mode = effective.as_ref().ok().and_then(|effective| {
        let script = job_submit(effective);
        // The site's own script is the site's: that it is called is all that is asked.
        let site = script.as_deref().ok().and_then(thiao_slurm::lua::site_of);
        let wanted = slurm::job_submit(config, site.as_deref())?;
        Some(slurm::JobMode {
            gate: slurm.has_gate().map_err(told),
            script,
            wanted,
        })
    });
    let partitions = match &effective {
        Ok(_) => slurm.partitions().map_err(told),
        Err(why) => Err(why.clone()),
    };
    let nodes = slurm::nodes(
        config,
        slurm,
        effective.as_ref().unwrap_or(&thiao_slurm::Config::default()),
    );
    let of_default = effective
        .as_ref()
        .map(|effective| defaults::harmful(&slurm_conf(effective)))
        .unwrap_or_default();
    slurm::Facts {
        version,
        programs,
        ping,
        config: effective,
        nodes,
        defaults: of_default,
        job_mode,
        partitions,
        cluster: config.cluster.to_string(),
        silence_s: config.policy.silence_grace.0 / 1000,
    }
}

/// The file that slurmctld reads.
fn slurm_conf(effective: &thiao_slurm::Config) -> PathBuf {
    effective.get("SLURM_CONF").unwrap_or(DEFAULT_SLURM_CONF).into()
}

/// The script that slurmctld runs at each submission.
fn job_submit(effective: &thiao_slurm::Config) -> Result<String, String> {
    let file = slurm_conf(effective).with_file_name(thiao_slurm::lua::FILE);
    std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Where slurmctld calls our programs, else where `thiao setup` puts them.
fn hooks_folder(facts: &slurm::Facts, usual: &Path) -> PathBuf {
    let program = facts
        .config
        .as_ref()
        .ok()
        .and_then(|config| config.get("ResumeProgram"));
    program
        .map(Path::new)
        .filter(|program| program.file_name().is_some_and(|name| name == "Resume"))
        .and_then(thiao_slurm::join::hooks_of)
        .unwrap_or(usual)
        .to_owned()
}

/// Whether a folder is on a file system that several machines may have: by its magic number in
/// `linux/magic.h` and in the file systems' own sources.
fn is_shared(dir: &Path) -> bool {
    const NETWORKED: [u64; 8] = [
        0x6969,      // NFS
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB 2
        0x00c3_6400, // Ceph
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
        0x0116_1970, // GFS 2
    ];
    rustix::fs::statfs(dir).is_ok_and(|found| NETWORKED.contains(&found.f_type.cast_unsigned()))
}

fn unreadable(error: &SlurmError) -> Finding {
    Finding::bad("nodes", error.to_string()).run("scontrol ping")
}

fn sizes(config: &Config) -> BTreeMap<NodeName, (thiao_core::view::Shape, String)> {
    let of = |(name, spec): (&NodeName, &thiao_config::NodeSpec)| {
        let partition = config.nodesets.get(&spec.nodeset)?.partition.clone();
        Some((name.clone(), (spec.shape, partition)))
    };
    config.nodes.iter().filter_map(of).collect()
}

fn about_nodes(
    config: &Config,
    view: &SlurmView,
    details: &BTreeMap<NodeName, NodeDetails>,
    ours: Option<&BTreeMap<String, Node>>,
    client: &Client,
    impatient: &BTreeMap<String, (u64, u64)>,
) -> Vec<Finding> {
    let partitions = sizes(config)
        .into_iter()
        .map(|(name, (_, partition))| (name, partition))
        .collect();
    let facts = nodes::Facts {
        nodes: &partitions,
        slurm: view,
        ours,
        boot_timeout: config.policy.boot_timeout.0,
        impatient,
        now: now(),
    };
    let mut found = Vec::new();
    for (n, (trouble, names)) in nodes::troubles(facts).iter().enumerate() {
        // Where it knows more; one of them stands for all.
        let why = names
            .first()
            .filter(|_| ours.is_some() && n < STORIES)
            .and_then(|name| client.explain(name.as_str()).ok())
            .map(|story| story.now.join("; "));
        found.push(nodes::finding(trouble, names, why.as_deref()));
    }
    found.extend(nodes::not_waking(facts));
    found.extend(nodes::mixed_up(facts, details));
    if found.is_empty() {
        found.push(Finding::ok(
            "nodes",
            format!("{} nodes, each in a state that it should be in", partitions.len()),
        ));
    }
    found
}
