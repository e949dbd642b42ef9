//! `[opennebula]`, and what a nodeset says of its VMs there.

mod inputs;
mod values;

use self::values::{PCI_KEYS, attributes_of_pci, name, pci};
use super::machine::Machine;
use super::targets::Targets;
use super::{HOUR, cluster, people};
use crate::read::Section;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use thiao_core::ids::{ClusterName, HostName, Millis, NodeName, NodesetName};
use thiao_core::policy::Policy;
use thiao_core::world::NodeSpec;
use thiao_guest::protocol::ShareMount;
use thiao_opennebula::Settings;
use thiao_opennebula::settings::{
    Access, Bus, Events, Fence, Guest, Placement, ReadyBy, TemplateSource, VmSource,
};

/// Why a key is refused with another provider.
pub const ONLY: &str =
    "has no effect with provider = \"qemu\": remove it, or write provider = \"opennebula\"";

/// Why the embedded provider's folders are refused.
pub const NOT_OURS: &str = "has no effect with provider = \"opennebula\", whose guests mount what opennebula.share and a \
    nodeset's nfs say, or their image: remove it";

/// Where oned listens if nobody says otherwise; OpenNebula's own default.
const ENDPOINT: &str = "http://localhost:2633/RPC2";

/// Where OpenNebula's hook manager publishes events (`HM_MAD` of `oned.conf`).
const BUS_PORT: u16 = 2101;

/// What a person does to a VM is seen after so long at the latest, in ms, even where no event tells it.
const EVENTS_POLL: u64 = 15_000;

/// oned serves 15 connections at once, of everybody (`MAX_CONN`).
const MAX_CONNECTIONS: usize = 15;

/// The keys of a nodeset that say what a VM is made from, one of them each time.
const SOURCES: [&str; 3] = ["template", "template_file", "template_dir"];

/// What other parts of the file have given.
pub struct Given<'a> {
    pub cluster: Option<&'a ClusterName>,
    pub policy: &'a Policy,
    pub timeout: Duration,
    /// How old an observation may be that is acted on.
    pub max_age: Duration,
    pub machine: &'a Machine,
    pub nodesets: BTreeMap<NodesetName, VmSource>,
    pub nodes: &'a BTreeMap<NodeName, NodeSpec>,
    /// Whom VMs may reach, if they are kept from anything.
    pub fence: Option<Fence>,
}

/// Reads the table `[opennebula]`.
pub fn opennebula(table: &Section<'_, '_>, given: Given<'_>) -> Option<Settings> {
    let access = access(table, given.machine, given.timeout);
    let events = events(table, access.as_ref(), given.max_age);
    let placement = table.choice(
        "placement",
        Placement::Thiao,
        &[("thiao", Placement::Thiao), ("opennebula", Placement::OpenNebula)],
    );
    let hosts = table
        .texts("hosts", |name| {
            HostName::new(name).map(drop).map_err(|e| e.to_string())
        })
        .iter()
        .filter_map(|name| HostName::new(name).ok())
        .collect();
    let host_cluster = table.checked("host_cluster", None, name);
    let ready = table.choice(
        "ready",
        ReadyBy::Slurm,
        &[("slurm", ReadyBy::Slurm), ("onegate", ReadyBy::OneGate)],
    );
    let guest = guest(table, given.machine);
    for (nodeset, source) in &given.nodesets {
        if placement == Placement::OpenNebula && source.networks.len() > 1 {
            table.problem(
                "placement",
                format!(
                    "is \"opennebula\", and nodeset {nodeset} names several networks: its scheduler chooses the host, so it \
                     must choose the network too. Give the template a NIC with NETWORK_MODE = \"auto\", and remove networks"
                ),
            );
        }
    }
    table.close();
    let nodes = given.nodes.iter();
    Some(Settings {
        cluster: given.cluster?.clone(),
        access: access?,
        placement,
        hosts,
        host_cluster,
        ready,
        overhead_mb: given.policy.overhead_mb,
        terminate_grace: Duration::from_millis(given.policy.terminate_grace.0),
        nodesets: given.nodesets,
        nodes: nodes
            .map(|(node, spec)| (node.clone(), spec.nodeset.clone()))
            .collect(),
        guest: guest?,
        events,
        fence: given.fence,
    })
}

/// Where OpenNebula's events are heard, and how often all is asked for beside that.
fn events(table: &Section<'_, '_>, access: Option<&Access>, max_age: Duration) -> Events {
    let usual = access.map(|access| Bus::Usual(format!("{}:{BUS_PORT}", host_of(&access.endpoint))));
    let chosen = table.checked("events", Some("auto".to_owned()), |text| match text {
        "auto" | "off" => Ok(text.to_owned()),
        text => bus(text).map(|_| text.to_owned()),
    });
    let bus = match chosen.as_deref() {
        Some("auto") => usual.unwrap_or(Bus::Off),
        None | Some("off") => Bus::Off,
        Some(text) => bus(text).map_or(Bus::Off, Bus::At),
    };
    let poll = table.seconds("events_poll", Millis(EVENTS_POLL), 100..=HOUR);
    let poll = Duration::from_millis(poll.0);
    if poll > max_age {
        table.problem(
            "events_poll",
            "is longer than timing.observation_max_age: no observation would be young enough to act on",
        );
    }
    Events { bus, poll }
}

/// Takes the address of a bus: `HOST:PORT`.
fn bus(text: &str) -> Result<String, String> {
    let wanted = || format!("write \"auto\", \"off\", or where it is, e.g. \"tcp://localhost:{BUS_PORT}\"");
    let address = text.strip_prefix("tcp://").ok_or_else(wanted)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(wanted)?;
    let good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    match port.parse::<u16>() {
        Ok(1..) if good => Ok(address.to_owned()),
        Ok(_) | Err(_) => Err(wanted()),
    }
}

/// The host in a URL of oned, which was checked.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    match host.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// How oned is reached; defaults are what OpenNebula's own programs take.
fn access(table: &Section<'_, '_>, machine: &Machine, timeout: Duration) -> Option<Access> {
    let from_environment = machine.one_xmlrpc.as_deref();
    let endpoint = table.checked(
        "endpoint",
        Some(from_environment.unwrap_or(ENDPOINT).to_owned()),
        url,
    );
    if let Some(text) = from_environment {
        table.default_is_from("ONE_XMLRPC");
        if let (false, Err(why)) = (table.has("endpoint"), url(text)) {
            table.problem("endpoint", format!("$ONE_XMLRPC is {text:?}: {why}"));
        }
    }
    let home = machine.home.as_ref().map(|home| home.join(".one/one_auth"));
    let default = machine.one_auth.clone().or(home);
    if let (false, Some(path)) = (table.has("auth"), &default)
        && !path.is_absolute()
    {
        table.problem(
            "auth",
            format!(
                "$ONE_AUTH or $HOME gives {}, which is not an absolute path",
                path.display()
            ),
        );
    }
    if default.is_none() && !table.has("auth") {
        table.problem(
            "auth",
            "is missing: name the file with user:password, as neither ONE_AUTH nor HOME is set",
        );
    }
    let auth = table.path("auth", default);
    if machine.one_auth.is_some() {
        table.default_is_from("ONE_AUTH");
    } else {
        table.default_is_from("HOME");
    }
    let ca_file = table.path("ca_file", None);
    Some(Access {
        ca_file,
        timeout,
        requests_per_second: table.number("requests_per_second", 30, 0..=10_000),
        connections: table.number("connections", 8, 1..=MAX_CONNECTIONS),
        endpoint: endpoint?,
        auth: auth?,
    })
}

/// Takes a URL of oned.
fn url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let wanted = || format!("write it as {ENDPOINT}, or with https");
    let rest = rest.ok_or_else(wanted)?;
    let (host, _) = rest.split_once('/').ok_or_else(wanted)?;
    if host.contains('@') {
        return Err("a URL is no place for a password: auth names its file".to_owned());
    }
    if host.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wanted());
    }
    Ok(text.to_owned())
}

/// What every guest is told.
fn guest(table: &Section<'_, '_>, machine: &Machine) -> Option<Guest> {
    let slurmctld = cluster::slurmctld(table, machine, None);
    let credentials = cluster::credentials(table, true);
    let slurm_worker = table.flag("slurm_worker", false);
    let users = people::guests_users(table, machine);
    let mut targets = Targets::default();
    let shares = table
        .tables("share")
        .iter()
        .filter_map(|table| share(table, &mut targets))
        .collect();
    let context = table.free_texts("context", attribute);
    Some(Guest {
        slurmctld_host: slurmctld.host?,
        slurmctld_addr: slurmctld.addr?,
        slurmctld_port: slurmctld.port,
        backups: slurmctld.backups,
        slurm_user: slurmctld.user,
        credentials,
        users,
        shares,
        slurm_worker,
        context,
    })
}

/// An NFS export that guests mount.
fn share(table: &Section<'_, '_>, targets: &mut Targets) -> Option<ShareMount> {
    table.show_head();
    let server = table.required::<Ipv4Addr>("server", "give the NFS server's IPv4 address");
    let port = table.number("port", 2049, 1..=u16::MAX);
    if !table.has("path") {
        table.problem("path", "is missing: name the exported folder, as the server does");
    }
    let path = table.path("path", None);
    let target = table.path("target", path.clone());
    table.close();
    if let Some(target) = &target {
        targets.take(table, target, None);
    }
    Some(ShareMount::plain(server?, port, path?, target?))
}

/// CONTEXT attributes that Thiao writes itself.
fn is_ours(key: &str) -> bool {
    const OURS: [&str; 6] = [
        "NETWORK",
        "TOKEN",
        "REPORT_READY",
        "SET_HOSTNAME",
        "ONEAPP_SLURM_CONTROLLER_IP",
        "ONEAPP_MUNGE_KEY_BASE64",
    ];
    OURS.contains(&key) || key.starts_with("THIAO_")
}

/// Refuses what cannot be an attribute of CONTEXT.
fn attribute(key: &str, text: &str) -> Result<(), String> {
    let good = key.starts_with(|c: char| c.is_ascii_uppercase())
        && key
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if !good {
        return Err("is no attribute's name: use capital letters, digits and '_'".to_owned());
    }
    if is_ours(key) {
        return Err("is written by Thiao itself".to_owned());
    }
    if key.contains("PASSWORD") {
        return Err(
            "is no key for this file, which others may read: put the password into the CONTEXT of the \
                    VM template, in OpenNebula"
                .to_owned(),
        );
    }
    if key == "START_SCRIPT" {
        // Measured on oned 7.4: `${X}` and `$(...)` make the creation fail, `$HOME` becomes empty.
        return Err("OpenNebula takes each $ in it for a variable: use START_SCRIPT_BASE64".to_owned());
    }
    if text.contains('\0') {
        return Err("holds a NUL character".to_owned());
    }
    Ok(())
}

/// What a nodeset's VMs are made from; `gpus`: the most that one of them gets.
pub fn source(table: &Section<'_, '_>, gpus: u32) -> Option<VmSource> {
    let template = table
        .checked("template", None, name)
        .map(TemplateSource::Registered);
    let file = table.path("template_file", None).map(TemplateSource::File);
    let dir = table.path("template_dir", None).map(TemplateSource::PerNode);
    let network = table.checked("network", None, name);
    let networks = table.texts("networks", |text| name(text).map(drop));
    if network.is_some() && !networks.is_empty() {
        table.problem("networks", "network is there too: use one of them");
    }
    // They and `context` are the last keys that are taken: they are shown as tables.
    let gpu_pci = gpu_pci(table, gpus);
    let inputs = inputs::inputs(table);
    let context = table.free_texts("context", attribute);
    for (name, _) in inputs.attributes(Some("")) {
        if context.contains_key(name) {
            table.problem(
                "context",
                format!("has {name}, which the nodeset's nfs, ldap or infiniband says already"),
            );
        }
    }
    let mut written = SOURCES.into_iter().filter(|key| table.has(key));
    match (written.next(), written.next()) {
        (None, _) => table.problem(
            "template",
            "is missing: name a template that is registered in OpenNebula, or a file (template_file), \
             or a folder with NODE.one for each node (template_dir)",
        ),
        (Some(_), None) => (),
        (Some(first), Some(second)) => {
            table.problem(second, format!("{first} is there too: use one of them"));
        }
    }
    Some(VmSource {
        template: template.or(file).or(dir)?,
        networks: network.into_iter().chain(networks).collect(),
        gpu_pci,
        inputs,
        context: context.into_iter().collect(),
    })
}

/// What one GPU is to OpenNebula: the attributes of a `PCI`.
fn gpu_pci(table: &Section<'_, '_>, gpus: u32) -> Option<Vec<(String, String)>> {
    if gpus > 0 && !table.has("gpu_pci") {
        table.problem(
            "gpu_pci",
            "is missing: gpus is set, so say what a GPU is in OpenNebula (`onehost show`), \
             e.g. gpu_pci = { vendor = \"10de\", device = \"2235\", class = \"0302\" }",
        );
    }
    let given = table.free_texts("gpu_pci", pci);
    if given.is_empty() {
        if table.has("gpu_pci") {
            table.problem("gpu_pci", format!("says nothing: use {}", PCI_KEYS.join(", ")));
        }
        return None;
    }
    if given.contains_key("short_address") && given.len() > 1 {
        table.problem(
            "gpu_pci",
            "has short_address, which names one device, and more: use either",
        );
    }
    Some(attributes_of_pci(given))
}

/// Refuses these keys where no template is used.
pub fn refuse_source(table: &Section<'_, '_>) {
    let others = [
        "network",
        "networks",
        "gpu_pci",
        "nfs",
        "ldap",
        "infiniband",
        "context",
    ];
    for key in SOURCES.into_iter().chain(others) {
        table.refuse(key, ONLY);
    }
}
