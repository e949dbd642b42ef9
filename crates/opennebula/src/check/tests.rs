use super::*;
use crate::error::{Class, Error};
use crate::model::{Host, Network, Quota, Template, User, VmDetails, VmRow};
use crate::places::Places;
use crate::settings::{Access, Guest, Placement, ReadyBy, Settings, TemplateSource, VmSource};
use crate::size::Beyond;
use crate::state::{HostState, VmState};
use crate::syntax::{self, Value};
use crate::template::{TAG_CLUSTER, TAG_NODE};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use thiao_core::ids::{ClusterName, HostName, NodeName, NodesetName};
use thiao_core::view::Shape;
use thiao_core::world::Mode;

mod attributes;
mod capacity;
mod fence;
mod files;
mod inputs;
mod networks;
mod tries;

fn error(class: Class) -> Error {
    Error::new(class, format!("{class:?} it is"))
}

fn nodes(list: &str) -> Vec<NodeName> {
    thiao_core::hostlist::expand(list).unwrap()
}

fn card(network: &str) -> (String, Value) {
    (
        "NIC".to_owned(),
        Value::Vector(vec![("NETWORK".to_owned(), network.to_owned())]),
    )
}

fn template(id: u32, name: &str, attributes: Vec<(String, Value)>) -> Template {
    Template {
        id,
        name: name.to_owned(),
        owner: "slurm".to_owned(),
        body: syntax::Template(attributes),
    }
}

fn host(id: u32, state: HostState) -> Host {
    Host {
        id,
        name: format!("h{id}"),
        state,
        cluster: "default".to_owned(),
        cluster_id: 0,
        hypervisor: "dummy".to_owned(),
        max_cpu_percent: 800,
        promised_cpu_percent: 0,
        max_memory_mb: 16_000,
        promised_memory_mb: 0,
        vms: 0,
        beyond: None,
        pci: None,
        load: None,
    }
}

fn vm(id: u32, cluster: &str, node: &str, on: u32) -> VmDetails {
    VmDetails {
        row: VmRow {
            id,
            name: format!("lab-{node}-1"),
            state: VmState::Pending,
            host: Some((format!("h{on}"), on)),
            cpu_percent: 100,
            memory_mb: 1_000,
            beyond: None,
            addresses: Vec::new(),
            error: None,
            sched_message: None,
        },
        user_template: [(TAG_CLUSTER, cluster), (TAG_NODE, node)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        context: BTreeMap::new(),
        owner: (5, "slurm".to_owned()),
    }
}

/// Eight nodes of a core and 1,000 MiB each; all is well.
fn wanted() -> Needs {
    Needs {
        cluster: ClusterName::new("lab").unwrap(),
        endpoint: "http://one:2633/RPC2".to_owned(),
        placement: Placement::Thiao,
        hosts: Vec::new(),
        host_cluster: None,
        max_vms: 100,
        max_vms_per_host: 100,
        nodesets: vec![NodesetNeeds {
            name: NodesetName::new("fg").unwrap(),
            nodes: nodes("fg[0-7]"),
            shape: Shape {
                cpus: 2,
                memory_mb: 900,
                share_percent: 50,
            },
            smallest: Shape {
                cpus: 2,
                memory_mb: 900,
                share_percent: 50,
            },
            gpus: 0,
            mode: Mode::PowerSaving,
            overhead_mb: 100,
            source: VmSource {
                template: TemplateSource::Registered("worker".to_owned()),
                networks: Vec::new(),
                gpu_pci: None,
                inputs: Default::default(),
                context: Vec::new(),
            },
            named: Vec::new(),
        }],
        fence: false,
    }
}

fn seen() -> Seen {
    Seen {
        version: Ok("6.10.0".to_owned()),
        user: Ok(User {
            id: 7,
            name: "slurm".to_owned(),
            groups: vec![1, 0],
            template: BTreeMap::new(),
            quotas: Vec::new(),
        }),
        hosts: Ok(vec![host(0, HostState::Monitored), host(1, HostState::Monitored)]),
        templates: Ok(vec![template(3, "worker", vec![card("vms")])]),
        networks: Ok(vec![Network {
            id: 2,
            name: "vms".to_owned(),
            addresses: 10,
            used: 2,
            clusters: vec![0],
        }]),
        wires: Ok(Vec::new()),
        places: Ok(Places::default()),
        vms: Ok(Vec::new()),
        files: BTreeMap::new(),
        tried: Vec::new(),
        tried_group: None,
    }
}

fn plain(seen: &mut Seen) -> &mut User {
    let user = seen.user.as_mut().unwrap();
    user.groups = vec![1];
    user
}

/// The one finding about `what`.
#[track_caller]
fn about(seen: &Seen, wanted: &Needs, what: &str) -> Finding {
    let found = judge(seen, wanted);
    let mut of: Vec<Finding> = found.iter().filter(|f| f.what == what).cloned().collect();
    assert_eq!(of.len(), 1, "{what} in {found:#?}");
    of.remove(0)
}

#[track_caller]
fn holds(finding: &Finding, verdict: Verdict, words: &str, remedy: &str) {
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    assert!(finding.text.contains(words), "{finding:?}");
    let text = match &finding.remedy {
        Some(Remedy::Run(text) | Remedy::Advice(text)) => text.as_str(),
        None => "",
    };
    assert!(text.contains(remedy), "{finding:?}");
    assert_eq!(
        verdict == Verdict::Ok,
        finding.remedy.is_none(),
        "what is wrong has a remedy, what is right has none: {finding:?}"
    );
}

#[test]
fn a_good_front_end_is_called_good_in_all() {
    let found = judge(&seen(), &wanted());
    let whats: Vec<&str> = found.iter().map(|f| f.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "endpoint",
            "version",
            "credentials",
            "rights",
            "template worker",
            "network vms",
            "hosts"
        ]
    );
    assert!(found.iter().all(|f| f.verdict == Verdict::Ok), "{found:#?}");
    assert_eq!(
        found.last().unwrap().text,
        "8 of 8 nodes' VMs fit at once on 2 hosts"
    );
}

#[test]
fn nothing_is_said_of_what_cannot_be_asked() {
    let mut seen = seen();
    seen.version = Err(error(Class::Network));
    seen.user = Err(error(Class::Network));
    let found = judge(&seen, &wanted());
    assert_eq!(found.len(), 1);
    holds(&found[0], Verdict::Bad, "does not answer: Network it is", "curl ");

    seen.version = Err(error(Class::Unknown));
    holds(
        &about(&seen, &wanted(), "endpoint"),
        Verdict::Bad,
        "Unknown it is",
        "oned.log",
    );
}

#[test]
fn refused_credentials_are_told_wherever_they_show() {
    for both in [false, true] {
        let mut seen = seen();
        seen.user = Err(error(Class::Authentication));
        if both {
            seen.version = Err(error(Class::Authentication));
        }
        let found = judge(&seen, &wanted());
        assert_eq!(found.len(), 2, "{found:#?}");
        holds(&found[0], Verdict::Ok, "answers", "");
        holds(&found[1], Verdict::Bad, "are not accepted", "opennebula.auth");
    }
}

#[test]
fn versions_are_known_too_old_or_too_new() {
    for (text, verdict) in [
        ("5.10.5", Verdict::Bad),
        ("4.14.2", Verdict::Bad),
        ("5.12.0", Verdict::Ok),
        ("6.10.3", Verdict::Ok),
        ("7.4.1", Verdict::Ok),
        ("8.0.0", Verdict::Warn),
        ("seven", Verdict::Warn),
        ("", Verdict::Warn),
    ] {
        let mut seen = seen();
        seen.version = Ok(text.to_owned());
        assert_eq!(about(&seen, &wanted(), "version").verdict, verdict, "{text}");
    }
}

#[test]
fn a_plain_users_rights_are_unsure_until_told_or_tried() {
    let mut seen = seen();
    plain(&mut seen);
    let finding = about(&seen, &wanted(), "rights");
    holds(
        &finding,
        Verdict::Warn,
        "no deploy and no delete",
        "oneacl create '#7 VM/@1 USE+MANAGE+ADMIN'",
    );
    assert!(finding.text.contains("ADMIN of the VM and MANAGE of the host"));

    for list in ["hold, deploy,DELETE", "delete,deploy"] {
        plain(&mut seen)
            .template
            .insert("VM_MANAGE_OPERATIONS".to_owned(), list.to_owned());
        holds(
            &about(&seen, &wanted(), "rights"),
            Verdict::Ok,
            "has deploy and delete",
            "",
        );
    }
    plain(&mut seen)
        .template
        .insert("VM_MANAGE_OPERATIONS".to_owned(), "deploy".to_owned());
    holds(
        &about(&seen, &wanted(), "rights"),
        Verdict::Warn,
        "has no delete:",
        "oneacl",
    );
}

#[test]
fn a_template_is_found_by_name_or_id_and_never_guessed() {
    let mut wanted = wanted();
    let name = |wanted: &mut Needs, name: &str| {
        wanted.nodesets[0].source.template = TemplateSource::Registered(name.to_owned());
    };
    name(&mut wanted, "3");
    holds(&about(&seen(), &wanted, "template 3"), Verdict::Ok, "id 3", "");
    name(&mut wanted, "x");
    holds(
        &about(&seen(), &wanted, "template x"),
        Verdict::Bad,
        "there is none",
        "onetemplate list",
    );

    name(&mut wanted, "worker");
    let mut seen = seen();
    let twice = seen.templates.as_mut().unwrap();
    twice.push(template(9, "worker", vec![card("vms")]));
    holds(
        &about(&seen, &wanted, "template worker"),
        Verdict::Bad,
        "there are 2 templates of that name: 3 of slurm, 9 of slurm; name one by its id",
        "onetemplate list",
    );
    // A name that is a number is a name first.
    let mut named = self::seen();
    named
        .templates
        .as_mut()
        .unwrap()
        .push(template(9, "3", vec![card("vms")]));
    name(&mut wanted, "3");
    holds(&about(&named, &wanted, "template 3"), Verdict::Ok, "id 9", "");

    seen.templates = Err(error(Class::Busy));
    holds(
        &about(&seen, &wanted, "templates"),
        Verdict::Bad,
        "Busy it is",
        "onetemplate list",
    );
}

#[test]
fn a_vm_without_a_card_is_told() {
    let mut seen = seen();
    seen.templates = Ok(vec![template(3, "worker", Vec::new())]);
    let mut wanted = wanted();
    holds(
        &about(&seen, &wanted, "template worker"),
        Verdict::Bad,
        "has no NIC",
        "set network",
    );
    wanted.nodesets[0].source.networks = vec!["vms".to_owned()];
    assert_eq!(about(&seen, &wanted, "template worker").verdict, Verdict::Ok);
    assert_eq!(about(&seen, &wanted, "network vms").verdict, Verdict::Ok);
    wanted.nodesets[0].source.networks = vec!["other".to_owned()];
    holds(
        &about(&seen, &wanted, "network other"),
        Verdict::Bad,
        "there is none",
        "onevnet list",
    );
}

#[test]
fn leases_are_counted_for_nodes_that_have_none() {
    let mut seen = seen();
    seen.networks.as_mut().unwrap()[0].used = 5;
    let finding = about(&seen, &wanted(), "network vms");
    holds(
        &finding,
        Verdict::Warn,
        "5 of 10 addresses are free, 8 nodes",
        "onevnet addar 2",
    );
    assert!(matches!(&finding.remedy, Some(Remedy::Run(command)) if command.ends_with("--size 3")));

    // Three of those leases are our nodes' own; another cluster's VM is none of ours.
    seen.vms = Ok(vec![
        vm(1, "lab", "fg0", 0),
        vm(2, "lab", "fg1", 0),
        vm(3, "lab", "fg2", 0),
        vm(4, "other", "fg3", 0),
    ]);
    holds(
        &about(&seen, &wanted(), "network vms"),
        Verdict::Ok,
        "5 addresses are free, 5 nodes",
        "",
    );

    // Two cards take two, whether the network is named or numbered.
    let by_id = (
        "NIC".to_owned(),
        Value::Vector(vec![("NETWORK_ID".to_owned(), "2".to_owned())]),
    );
    seen.templates = Ok(vec![template(3, "worker", vec![card("vms"), by_id])]);
    holds(
        &about(&seen, &wanted(), "network vms"),
        Verdict::Warn,
        "10 nodes have none",
        "addar",
    );

    seen.networks.as_mut().unwrap()[0].addresses = 0;
    assert_eq!(about(&seen, &wanted(), "network vms").verdict, Verdict::Bad);
}

#[test]
fn quotas_are_counted_but_for_oneadmin() {
    let quota = |what, limit, used| Quota { what, limit, used };
    let mut seen = seen();
    seen.user.as_mut().unwrap().quotas = vec![quota("VMS", 1, 1)];
    assert!(judge(&seen, &wanted()).iter().all(|f| f.what != "quota VMS"));

    plain(&mut seen).quotas = vec![
        quota("VMS", 20, 12),
        quota("CPU", 1_000, 250),
        quota("MEMORY", 900, 0),
    ];
    holds(
        &about(&seen, &wanted(), "quota VMS"),
        Verdict::Ok,
        "8 VMs are free, 8 VMs are needed",
        "",
    );
    holds(
        &about(&seen, &wanted(), "quota CPU"),
        Verdict::Warn,
        "7.50 cores of 10.00 cores are free, the nodes without a VM need 8.00 cores",
        "oneuser quota 7",
    );
    holds(
        &about(&seen, &wanted(), "quota MEMORY"),
        Verdict::Bad,
        "900 MiB in all, and one VM needs 1000 MiB",
        "oneuser quota 7",
    );
}

#[test]
fn an_empty_host_pool_is_a_right_that_lacks() {
    let mut seen = seen();
    seen.hosts = Ok(Vec::new());
    let mut wanted = wanted();
    holds(
        &about(&seen, &wanted, "hosts"),
        Verdict::Bad,
        "shows no host",
        "oneacl create '#7 HOST/* USE+MANAGE'",
    );
    wanted.placement = Placement::OpenNebula;
    holds(
        &about(&seen, &wanted, "hosts"),
        Verdict::Warn,
        "so nobody can say",
        "oneacl",
    );
}

#[test]
fn hosts_that_take_nothing_are_named_and_not_counted() {
    let mut seen = seen();
    for (state, remedy) in [
        (HostState::Disabled, "onehost enable 1"),
        (HostState::Offline, "onehost enable 1"),
        (HostState::Error, "onehost show 1"),
        (HostState::Init, "wait"),
        (HostState::Unknown(99), "onehost show 1"),
    ] {
        seen.hosts.as_mut().unwrap()[1].state = state;
        holds(
            &about(&seen, &wanted(), "host h1"),
            Verdict::Warn,
            "takes no new VMs",
            remedy,
        );
    }
    holds(
        &about(&seen, &wanted(), "hosts"),
        Verdict::Ok,
        "8 of 8 nodes' VMs fit at once on 1 host",
        "",
    );
    let hosts = seen.hosts.as_mut().unwrap();
    hosts[1].state = HostState::Monitored;
    hosts[1].beyond = Some(Beyond::Cpu);
    holds(
        &about(&seen, &wanted(), "host h1"),
        Verdict::Warn,
        "takes no VMs: OpenNebula reports more than 65536 cores there",
        "onehost show 1",
    );
    seen.hosts.as_mut().unwrap()[0].state = HostState::Disabled;
    holds(
        &about(&seen, &wanted(), "hosts"),
        Verdict::Bad,
        "none takes VMs",
        "onehost list",
    );
}

#[test]
fn only_the_hosts_that_we_may_use_count() {
    let mut wanted = wanted();
    wanted.hosts = vec![HostName::new("h1").unwrap(), HostName::new("h9").unwrap()];
    holds(
        &about(&seen(), &wanted, "host h9"),
        Verdict::Warn,
        "no host of that name",
        "onehost list",
    );
    holds(&about(&seen(), &wanted, "hosts"), Verdict::Ok, "on 1 host", "");
    wanted.host_cluster = Some("gold".to_owned());
    holds(
        &about(&seen(), &wanted, "hosts"),
        Verdict::Bad,
        "none of the 2 hosts may take",
        "onehost list",
    );
}

#[test]
fn capacity_is_what_others_leave() {
    let mut seen = seen();
    let hosts = seen.hosts.as_mut().unwrap();
    // Others have six cores of each host, one of our VMs a seventh.
    for host in hosts.iter_mut() {
        host.promised_cpu_percent = 600;
    }
    hosts[0].promised_cpu_percent = 700;
    hosts[0].promised_memory_mb = 1_000;
    seen.vms = Ok(vec![vm(1, "lab", "fg0", 0)]);
    holds(
        &about(&seen, &wanted(), "hosts"),
        Verdict::Warn,
        "4 of 8 nodes' VMs fit at once on 2 hosts: jobs for more wait",
        "share_percent",
    );
    // What a limit allows anyway is enough.
    let mut few = wanted();
    few.max_vms = 4;
    assert_eq!(about(&seen, &few, "hosts").verdict, Verdict::Ok);

    let mut large = wanted();
    large.nodesets[0].shape.memory_mb = 20_000;
    holds(
        &about(&seen, &large, "hosts"),
        Verdict::Bad,
        "a full-size VM of nodeset fg fits on none of them",
        "smaller",
    );
}
