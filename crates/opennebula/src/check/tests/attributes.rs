//! What templates say that VMs of ours do not follow is told, with its name and the cure.

use super::*;
use crate::check::attributes::TABLE;

fn with(text: &str) -> Seen {
    let body = syntax::Template::parse(text).unwrap();
    Seen {
        templates: Ok(vec![Template {
            body,
            ..template(3, "worker", Vec::new())
        }]),
        ..seen()
    }
}

const NIC: &str = "NIC = [ NETWORK = vms ]\n";

/// What is said of an attribute; none: nothing.
fn said(text: &str, wanted: &Needs, attribute: &str) -> Option<Finding> {
    let found = judge(&with(&format!("{NIC}{text}")), wanted);
    let what = format!("template worker, {attribute}");
    found.into_iter().find(|finding| finding.what == what)
}

#[track_caller]
fn told(text: &str, wanted: &Needs, attribute: &str, verdict: Verdict, words: &str, cure: &str) {
    let finding = said(text, wanted, attribute).expect("it is told");
    holds(&finding, verdict, words, cure);
}

#[test]
fn what_the_scheduler_alone_follows_is_told_where_it_is_not_asked() {
    for (text, attribute, verdict) in [
        ("SCHED_RANK = FREE_CPU", "SCHED_RANK", Verdict::Warn),
        (
            "SCHED_DS_REQUIREMENTS = \"ID=9\"",
            "SCHED_DS_REQUIREMENTS",
            Verdict::Bad,
        ),
        ("SCHED_DS_RANK = FREE_MB", "SCHED_DS_RANK", Verdict::Warn),
        ("VMGROUP = [ VMGROUP_ID = 1, ROLE = a ]", "VMGROUP", Verdict::Bad),
        ("PCI = [ VENDOR = 10de ]", "PCI", Verdict::Warn),
        ("TOPOLOGY = [ PIN_POLICY = CORE ]", "TOPOLOGY", Verdict::Bad),
        ("TOPOLOGY = [ HUGEPAGE_SIZE = 2 ]", "TOPOLOGY", Verdict::Bad),
        (
            "SCHED_REQUIREMENTS = \"ID=9\"",
            "SCHED_REQUIREMENTS",
            Verdict::Bad,
        ),
    ] {
        told(
            text,
            &wanted(),
            attribute,
            verdict,
            "",
            "placement = \"opennebula\"",
        );
        let mut by_one = wanted();
        by_one.placement = Placement::OpenNebula;
        assert_eq!(said(text, &by_one, attribute), None, "{text}");
    }
    for (text, attribute) in [
        ("MEMORY_MAX = 99", "MEMORY_MAX"),
        ("MEMORY_SLOTS = 2", "MEMORY_SLOTS"),
        ("VCPU_MAX = 8", "VCPU_MAX"),
        ("HOT_RESIZE = [ MEMORY_HOT_ADD_ENABLED = YES ]", "HOT_RESIZE"),
    ] {
        told(
            text,
            &wanted(),
            attribute,
            Verdict::Warn,
            "does not grow",
            "take ",
        );
    }
    for text in [
        "CPU_MODEL = [ MODEL = host-passthrough ]",
        "MEMORY_MAX = 0",
        "HOT_RESIZE = [ CPU_HOT_ADD_ENABLED = NO ]",
        "NIC_DEFAULT = [ MODEL = virtio ]",
    ] {
        let found = judge(&with(&format!("{NIC}{text}")), &wanted());
        assert!(
            found.iter().all(|finding| finding.verdict == Verdict::Ok),
            "{found:#?}"
        );
    }
}

#[test]
fn requirements_that_all_our_hosts_meet_are_followed() {
    let attribute = "SCHED_REQUIREMENTS";
    let text = |what: &str| format!("SCHED_REQUIREMENTS = \"{}\"", what.replace('"', "\\\""));
    for met in [
        "",
        "HYPERVISOR != \"vcenter\" & CLUSTER_ID = 0",
        "NAME = \"h[01]\"",
        "ID = 0 | ID = 1",
    ] {
        assert_eq!(said(&text(met), &wanted(), attribute), None, "{met}");
    }
    told(
        &text("ID = 1"),
        &wanted(),
        attribute,
        Verdict::Bad,
        "does not allow h0,",
        "set opennebula.hosts = [\"h1\"]",
    );
    told(
        &text("FREE_CPU > 10"),
        &wanted(),
        attribute,
        Verdict::Bad,
        "only OpenNebula's scheduler can tell",
        "opennebula.hosts",
    );
    // The cure cures.
    let mut cured = wanted();
    cured.hosts = vec![HostName::new("h1").unwrap()];
    assert_eq!(said(&text("ID = 1"), &cured, attribute), None);
}

#[test]
fn a_topology_is_compared_with_the_sizes_that_vms_have() {
    let topology = |sockets, cores, threads| {
        format!("TOPOLOGY = [ SOCKETS = {sockets}, CORES = {cores}, THREADS = {threads} ]")
    };
    let mut wanted = wanted();
    assert_eq!(said(&topology(1, 2, 1), &wanted, "TOPOLOGY"), None);
    assert_eq!(
        said("TOPOLOGY = [ PIN_POLICY = NONE ]", &wanted, "TOPOLOGY"),
        None
    );
    let cure = "take SOCKETS, CORES and THREADS out";
    told(
        &topology(2, 2, 1),
        &wanted,
        "TOPOLOGY",
        Verdict::Bad,
        "for 4 VCPUs (",
        cure,
    );
    told(
        "TOPOLOGY = [ CORES = 2 ]",
        &wanted,
        "TOPOLOGY",
        Verdict::Bad,
        "together",
        cure,
    );
    told(
        "TOPOLOGY = 2",
        &wanted,
        "TOPOLOGY",
        Verdict::Bad,
        "not in a form",
        "mend",
    );
    wanted.nodesets[0].mode = Mode::Job;
    told(
        &topology(1, 2, 1),
        &wanted,
        "TOPOLOGY",
        Verdict::Bad,
        "its VMs have 1 to 2",
        cure,
    );
    // Whoever places them.
    wanted.placement = Placement::OpenNebula;
    told(
        &topology(1, 2, 1),
        &wanted,
        "TOPOLOGY",
        Verdict::Bad,
        "its VMs have 1 to 2",
        cure,
    );
    wanted.nodesets[0].shape.cpus = 1;
    assert_eq!(said(&topology(1, 1, 1), &wanted, "TOPOLOGY"), None);
}

#[test]
fn what_one_vm_alone_can_have_is_told() {
    let text = "NIC = [ NETWORK = vms, IP = \"10.0.0.9\" ]";
    told(
        text,
        &wanted(),
        "NIC/IP",
        Verdict::Bad,
        "8 VMs",
        "take NIC/IP out",
    );
    let mut one = wanted();
    one.nodesets[0].nodes.truncate(1);
    assert_eq!(said(text, &one, "NIC/IP"), None);
    told(
        "SCHED_ACTION = [ ACTION = terminate, TIME = 1 ]",
        &wanted(),
        "SCHED_ACTION",
        Verdict::Bad,
        "under a running job",
        "take SCHED_ACTION out",
    );
}

/// As oned 7.4.1 was seen to read them.
#[test]
fn scripts_that_opennebula_would_change_are_told() {
    let context = |script: &str| {
        format!("CONTEXT = [ SSH_PUBLIC_KEY = \"$USER[SSH_PUBLIC_KEY]\", START_SCRIPT = \"{script}\" ]")
    };
    for refused in ["echo ${#a[@]}", "n=$(nproc)", "cost: 5$", "a\\\\$"] {
        told(
            &context(refused),
            &wanted(),
            "CONTEXT",
            Verdict::Bad,
            "makes no VM",
            "START_SCRIPT_BASE64",
        );
    }
    told(
        &context("cd $HOME"),
        &wanted(),
        "CONTEXT",
        Verdict::Warn,
        "nothing for $HOME",
        "START_SCRIPT_BASE64",
    );
    for kept in [
        "echo $VMID $NAME $NIC",
        "a=\\$",
        "echo $NETWORK[DNS, NAME=\\\"a\\\"]",
    ] {
        assert_eq!(said(&context(kept), &wanted(), "CONTEXT"), None, "{kept}");
    }
    // It is not called good in the same breath.
    let is_good = |text: &str| {
        let found = judge(&with(&format!("{NIC}{text}")), &wanted());
        let good = |finding: &Finding| finding.what == "template worker" && finding.verdict == Verdict::Ok;
        found.iter().any(good)
    };
    assert!(!is_good("CONTEXT = [ A = \"$(x)\" ]") && is_good("CONTEXT = [ A = \"$HOME\" ]"));
    let other = "CONTEXT = [ GW = \"$NETWORK[GATEWAY, NAME=\\\"fg1\\\"]\", VMID = $VMID, A = \"$HOME\" ]";
    assert_eq!(said(other, &wanted(), "CONTEXT"), None);
    told(
        "CONTEXT = [ A = \"$(x)\" ]",
        &wanted(),
        "CONTEXT",
        Verdict::Bad,
        "in A",
        "without $",
    );
}

#[test]
fn a_card_that_would_stay_without_network_is_told() {
    let auto = "NIC = [ NETWORK_MODE = auto, SCHED_REQUIREMENTS = \"TRAFFIC_TYPE = \\\"cluster\\\"\" ]";
    let mut wanted = wanted();
    holds(
        &about(&with(auto), &wanted, "template worker"),
        Verdict::Bad,
        "NETWORK_MODE = auto",
        "set network",
    );
    wanted.nodesets[0].source.networks = vec!["vms".to_owned()];
    assert_eq!(
        about(&with(auto), &wanted, "template worker").verdict,
        Verdict::Ok
    );
    assert!(
        about(&with(auto), &wanted, "network vms")
            .text
            .contains("8 nodes")
    );
    wanted.nodesets[0].source.networks = Vec::new();
    wanted.placement = Placement::OpenNebula;
    assert_eq!(
        about(&with(auto), &wanted, "template worker").verdict,
        Verdict::Ok
    );
    holds(
        &about(
            &with("NIC = [ NETWORK_MODE = dummy ]"),
            &wanted,
            "template worker",
        ),
        Verdict::Bad,
        "NETWORK_MODE = dummy",
        "name the NETWORK",
    );
}

#[test]
fn every_card_takes_an_address() {
    let mut seen = with(
        "NIC_DEFAULT = [ NETWORK = vms ]\nNIC = [ MODEL = virtio ]\nNIC = [ NETWORK_ID = 2 ]\n\
         NIC_ALIAS = [ PARENT = NIC0, NETWORK = vms ]\nPCI = [ TYPE = NIC, NETWORK = vms ]",
    );
    holds(
        &about(&seen, &wanted(), "network vms"),
        Verdict::Warn,
        "8 of 10 addresses are free, 32 nodes",
        "addar",
    );
    seen.templates = Ok(vec![template(3, "worker", vec![card("vms")])]);
    assert_eq!(about(&seen, &wanted(), "network vms").verdict, Verdict::Ok);
}

/// Jobs may name other templates.
#[test]
fn templates_that_jobs_may_name_are_looked_at_too() {
    let mut wanted = wanted();
    wanted.nodesets[0].named = vec!["big".to_owned(), "gone".to_owned(), "worker".to_owned()];
    let mut seen = seen();
    let big = template(4, "big", vec![("VMGROUP".to_owned(), Value::Vector(Vec::new()))]);
    seen.templates.as_mut().unwrap().push(big);
    holds(
        &about(&seen, &wanted, "template big"),
        Verdict::Bad,
        "has no NIC",
        "set network",
    );
    assert_eq!(
        about(&seen, &wanted, "template big, VMGROUP").verdict,
        Verdict::Bad
    );
    holds(
        &about(&seen, &wanted, "template gone"),
        Verdict::Bad,
        "there is none",
        "onetemplate list",
    );
    assert_eq!(about(&seen, &wanted, "template worker").verdict, Verdict::Ok);
}

#[test]
fn the_guide_has_every_attribute() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/opennebula.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for row in &TABLE {
        let name = row.path().replace('/', "` of a `");
        let parts: Vec<&str> = name.split("` of a `").collect();
        let there = parts.iter().all(|part| guide.contains(&format!("`{part}`")));
        assert!(there, "docs/opennebula.md says nothing of {}", row.path());
    }
}
