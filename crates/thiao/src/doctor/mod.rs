//! `thiao doctor`: looks at everything that has to be right, and says for each what is wrong, why, and
//! what mends it.
//!
//! What is looked at is collected here, and Slurm's side in `observation`; what it means is said by the pure
//! parts: [`machine`] (the embedded provider), `outside` (file servers, and what is open to its VMs), [`keys`] (the cluster's key), `thiao_opennebula::check` (OpenNebula), [`images`] (what its
//! images and Slurm have to do with each other), [`hooks`], [`slurm`], [`folders`] and [`reach`] (Slurm's side), [`controller`], [`nodes`] and [`vms`].

pub mod controller;
mod folders;
mod guests;
pub mod hooks;
pub mod images;
pub mod keys;
mod lab;
pub mod machine;
pub mod nodes;
mod observation;
mod outside;
pub mod partitions;
pub mod reach;
pub mod slurm;
mod unseen;
pub mod vms;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use thiao_api::client::Client;
use thiao_api::types::Node;
use thiao_api::words::VmState;
use thiao_cli::output::now;
use thiao_config::{Config, DEFAULT_FILE, NodeSpec, Nodeset, ProviderSettings};
use thiao_core::finding::{Finding, Remedy, Verdict, worst};
use thiao_core::ids::NodeName;
use thiao_core::options::OptionRule;
use thiao_core::view::Shape;
use thiao_core::world::Mode;
use thiao_opennebula::check;
use thiao_opennebula::model::VmDetails;
use thiao_qemu::Credentials;
use thiao_slurm::SlurmError;
use thiao_slurm::site::Site;

use observation::{Alive, Observation};
pub use unseen::Unseen;

/// Troubled kinds of nodes whose story the controller is asked for.
const STORIES: usize = 16;

/// Findings that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is about.
    pub title: &'static str,
    pub findings: Vec<Finding>,
}

/// The worst of all that was found.
#[must_use]
pub fn verdict(groups: &[Group]) -> Verdict {
    worst(groups.iter().flat_map(|group| &group.findings))
}

/// What the provider's checks saw, where other checks need it too.
pub struct ProviderChecked {
    pub findings: Vec<Finding>,
    /// OpenNebula's answers, if it is OpenNebula.
    pub seen: Option<check::Seen>,
}

/// Checks the provider alone. With `tried`, held VMs are made and removed at once.
#[must_use]
pub fn provider(config: &Config, client: &Client, tried: bool) -> ProviderChecked {
    let settings = match &config.provider {
        ProviderSettings::Qemu(settings) => {
            let facts = machine::observe(settings, client.controller(), client.status().ok().as_ref());
            let mut findings = machine::judge(&facts, settings);
            findings.extend(keys::judge(&keys::observe(&settings.guest.credentials)));
            findings.push(machine::memory(thiao_config::overpromised(config)));
            findings.extend(outside::examine(settings));
            return ProviderChecked { findings, seen: None };
        }
        ProviderSettings::OpenNebula(settings) => settings,
    };
    let asked = config
        .nodesets
        .iter()
        .map(|(name, set)| (name.clone(), asked(config, set)))
        .collect();
    let policy = &config.policy;
    let wanted = check::Needs::new(settings, &asked, policy.max_vms, policy.max_vms_per_host);
    let key: Vec<Finding> = settings.guest.credentials.iter().flat_map(key).collect();
    let client = match thiao_opennebula::Client::new(&settings.access) {
        Ok(client) => client,
        Err(error) => {
            let mut findings = vec![
                Finding::bad("credentials", error.to_string())
                    .advice("write user:password into that file, and chmod 600 it for the controller's user")
                    .unless_denied(error.denied),
            ];
            findings.extend(key);
            return ProviderChecked { findings, seen: None };
        }
    };
    let mut seen = check::observe(&client, settings, &wanted);
    if tried {
        seen.tried = check::try_vms(&client, settings, &wanted, &mut seen);
        seen.tried_group = check::try_group(&client, &wanted);
    }
    let mut findings = check::judge(&seen, &wanted);
    if tried && seen.tried.is_empty() {
        findings.push(Finding::warn("try", "nothing was tried: there is no node"));
    }
    findings.extend(key);
    findings.extend(ldap_passwords(settings));
    ProviderChecked {
        findings,
        seen: Some(seen),
    }
}

/// Whether the controller can give guests the cluster's secret, and whether that is the one in use.
fn key(credentials: &Credentials) -> Vec<Finding> {
    let mut found = vec![machine::key(credentials, &machine::readable(credentials.file()))];
    found.extend(keys::judge(&keys::observe(credentials)));
    found
}

/// Whether the controller can give guests the passwords of their directories.
fn ldap_passwords(settings: &thiao_opennebula::Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    for (nodeset, source) in &settings.nodesets {
        let Some((ldap, file)) = source
            .inputs
            .ldap
            .as_ref()
            .and_then(|ldap| Some((ldap, ldap.password_file()?)))
        else {
            continue;
        };
        found.push(match ldap.password() {
            Ok(_) => Finding::ok("LDAP password", format!("{} can be used", file.display())),
            Err(error) => Finding::bad("LDAP password", format!("nodeset {nodeset}: {error}: no VM is made for it"))
                .advice("write the password into the first line of that file, and chmod 600 it for the controller's user")
                .unless_denied(error.denied),
        });
    }
    found
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
    let slurm = Observation::of_slurm(config, hooks);
    let client = Client::new(&config.state_dir);
    let controller = of_controller(config, &client);
    let mut provider = provider(config, &client, tried);
    let site = slurm.facts.config.as_ref().ok().map(Site::of);
    let version = site.and_then(|site| site.version);
    provider
        .findings
        .extend(images::judge(config, provider.seen.as_ref(), version));
    if let ProviderSettings::Qemu(settings) = &config.provider {
        provider.findings.extend(guests::examine(settings, version));
        provider.findings.extend(guests::strangers(config, settings));
    }
    let group = |title, findings| Group { title, findings };
    let mut groups = vec![
        group("Settings", settings(config)),
        group(
            match &config.provider {
                ProviderSettings::Qemu(_) => "This machine",
                ProviderSettings::OpenNebula(_) => "OpenNebula",
            },
            provider.findings,
        ),
        group("Slurm", of_slurm(config, &slurm)),
        group("Controller", controller),
        group("Nodes", of_nodes(config, &slurm, &client)),
    ];
    if let Some(vms) = provider.seen.as_ref().and_then(|seen| seen.vms.as_ref().ok()) {
        groups.push(group("VMs", of_vms(config, vms, &slurm, &client)));
    }
    groups.retain(|group| !group.findings.is_empty());
    for finding in groups.iter_mut().flat_map(|group| &mut group.findings) {
        for_this_person(finding, config);
    }
    groups
}

/// Slurm's configuration, the way to it, and the programs that it calls.
fn of_slurm(config: &Config, slurm: &Observation) -> Vec<Finding> {
    let mut found = slurm::judge(&slurm.facts, slurm.fragment.as_ref());
    let site = slurm.facts.config.as_ref().ok().map(Site::of);
    if let Some(site) = &site {
        let told = reach::GuestContext::of(config);
        let shared = reach::is_shared(&config.state_dir);
        found.extend(reach::judge(site, &told, slurm.facts.programs, shared));
    }
    let uid = site.and_then(|site| site.user?.1);
    let hooks = hooks::observe(&slurm.hooks, &config.state_dir, uid);
    found.extend(hooks::judge(&hooks, &config.state_dir));
    found.extend(slurm.folders.clone());
    if let Some(alive) = &slurm.alive {
        found.extend(slurm::sizes(&sizes(config), &alive.details));
    }
    found
}

fn of_controller(config: &Config, client: &Client) -> Vec<Finding> {
    let expected = controller::Expected {
        cluster: config.cluster.as_str(),
        provider: match &config.provider {
            ProviderSettings::Qemu(_) => "qemu",
            ProviderSettings::OpenNebula(_) => "opennebula",
        },
        version: env!("CARGO_PKG_VERSION"),
        observation_max_age: config.timing.observation_max_age,
    };
    let mut found = controller::judge(&client.status(), expected);
    found.push(controller::state_folder(&config.state_dir));
    found
}

/// Nothing is said of nodes while slurmctld does not answer: that was said already.
fn of_nodes(config: &Config, slurm: &Observation, client: &Client) -> Vec<Finding> {
    let unreadable = |error: &SlurmError| {
        Finding::bad("nodes", error.to_string())
            .run("scontrol ping")
            .unless_denied(error.is_denied())
    };
    let mut found: Vec<Finding> = slurm.unreadable.iter().map(unreadable).collect();
    if let Some(alive) = &slurm.alive {
        found.extend(about_nodes(config, alive, &slurm.impatient(), client));
    }
    found
}

fn about_nodes(
    config: &Config,
    alive: &Alive,
    impatient: &BTreeMap<String, (u64, u64)>,
    client: &Client,
) -> Vec<Finding> {
    let ours: Option<BTreeMap<String, Node>> = client
        .nodes()
        .ok()
        .map(|nodes| nodes.into_iter().map(|node| (node.name.clone(), node)).collect());
    let partitions = sizes(config)
        .into_iter()
        .map(|(name, (_, partition))| (name, partition))
        .collect();
    let facts = nodes::Facts {
        nodes: &partitions,
        slurm: &alive.view,
        ours: ours.as_ref(),
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
    found.extend(nodes::mixed_up(facts, &alive.details));
    if found.is_empty() {
        found.push(Finding::ok(
            "nodes",
            format!("{} nodes, each in the state it should be in", partitions.len()),
        ));
    }
    found
}

/// `vms`: the user's own in OpenNebula.
fn of_vms(config: &Config, vms: &[VmDetails], slurm: &Observation, client: &Client) -> Vec<Finding> {
    let nodes: BTreeSet<NodeName> = config.nodes.keys().cloned().collect();
    let strays = client.vms().ok().map(|vms| {
        vms.into_iter()
            .filter(|vm| vm.state == VmState::Stray)
            .map(|vm| vm.id)
            .collect()
    });
    vms::judge(vms::Facts {
        cluster: &config.cluster,
        nodes: &nodes,
        vms,
        slurm: slurm.alive.as_ref().map(|alive| (&alive.view, &alive.details)),
        strays: strays.as_ref(),
    })
}

/// As this person needs it, who may not see everything, and whose settings may be anywhere.
fn for_this_person(finding: &mut Finding, config: &Config) {
    if !lab::sees_all(&config.file) {
        not_for_us(finding);
    }
    if let Some(Remedy::Run(command)) = &mut finding.remedy {
        *command = with_settings(command, &config.file);
    }
    finding.text = looked_for(&finding.text, &config.file);
}

/// What a finding says to look at, for these settings.
fn looked_for(text: &str, file: &Path) -> String {
    text.replace(machine::LOOK, &with_settings(machine::LOOK, file))
}

/// The command for these settings, where they are not at the usual place.
#[must_use]
pub fn with_settings(command: &str, file: &Path) -> String {
    typed_for(command, file, lab::around(file).as_deref())
}

/// The same; `lab`: whose settings they are.
fn typed_for(command: &str, file: &Path, lab: Option<&Path>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let name = file.to_string_lossy();
    // A name that a shell would take apart is left to the person.
    if file == Path::new(DEFAULT_FILE) || !name.chars().all(plain) {
        return command.to_owned();
    }
    let parts = command.split(" && ").map(|part| {
        if let (Some(lab), Some(words)) = (lab, part.strip_prefix("sudo thiao ")) {
            return lab::as_owner(lab, words);
        }
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
    if finding.denied && finding.verdict != Verdict::Ok {
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
    if !lab::sees_all(&config.file) {
        found.push(
            Finding::warn(
                "user",
                "this user cannot see everything: Slurm's files, other users' jobs",
            )
            .run("sudo thiao doctor"),
        );
    }
    found
}

/// Each node's size and partition in the settings.
fn sizes(config: &Config) -> BTreeMap<NodeName, (Shape, String)> {
    let of = |(name, spec): (&NodeName, &NodeSpec)| {
        let partition = config.nodesets.get(&spec.nodeset)?.partition.clone();
        Some((name.clone(), (spec.shape, partition)))
    };
    config.nodes.iter().filter_map(of).collect()
}
