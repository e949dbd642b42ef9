use super::*;
use crate::inputs::{Infiniband, Inputs};
use crate::settings::TemplateSource;
use crate::size::Beyond;
use crate::state::VmState as OneState;
use proptest::prelude::*;
use thiao_core::ids::{ClusterName, Generation, NodeName};

const RULES: Rules<'_> = Rules {
    placement: Placement::Thiao,
    ready: ReadyBy::OneGate,
    hosts: &[],
    host_cluster: None,
    sources: &BTreeMap::new(),
    reach: &BTreeMap::new(),
};

fn ours(id: u32, (state, lcm): (i32, i32), host: Option<u32>) -> Ours {
    Ours {
        row: VmRow {
            id,
            name: "any".to_owned(),
            state: OneState::new(state, lcm),
            host: host.map(|host| (format!("h{host}"), host)),
            cpu_percent: 150,
            memory_mb: 1024,
            beyond: None,
            addresses: vec![],
            error: Some("boom".to_owned()),
            sched_message: None,
        },
        tag: VmTag {
            cluster: ClusterName::new("prod").unwrap(),
            node: NodeName::new("n1").unwrap(),
            generation: Generation(1),
        },
        ready: false,
        leaves: None,
        given: None,
        old_error: None,
    }
}

fn host(id: u32, promised_cpu_percent: u32, promised_memory_mb: u64) -> Host {
    Host {
        id,
        name: format!("h{id}"),
        state: HostState::Monitored,
        cluster: "default".to_owned(),
        cluster_id: 0,
        hypervisor: "dummy".to_owned(),
        max_cpu_percent: 800,
        promised_cpu_percent,
        max_memory_mb: 16_384,
        promised_memory_mb,
        vms: 0,
        beyond: None,
        pci: None,
        load: Some((10, 100)),
    }
}

fn map(vms: Vec<Ours>) -> BTreeMap<u32, Ours> {
    vms.into_iter().map(|vm| (vm.row.id, vm)).collect()
}

#[test]
fn states_mean_what_they_mean() {
    let of = |numbers| state(ReadyBy::OneGate, &ours(1, numbers, None));
    assert_eq!(of((2, 0)), VmState::Held);
    assert_eq!(of((1, 0)), VmState::Pending);
    assert_eq!(of((3, 2)), VmState::Pending);
    assert_eq!(of((3, 3)), VmState::Booting);
    assert_eq!(of((5, 0)), VmState::Saved);
    assert_eq!(of((3, 6)), VmState::Saving);
    assert_eq!(of((3, 21)), VmState::Restoring);
    assert_eq!(of((3, 4)), VmState::Moving);
    assert_eq!(of((3, 12)), VmState::Stopping);
    assert!(matches!(of((3, 16)), VmState::Unknown(_)));
    assert!(matches!(of((3, 99)), VmState::Unknown(_)));
    assert!(matches!(of((3, 37)), VmState::Unknown(_)));
    assert_eq!(of((6, 0)), VmState::Dead("terminated in OpenNebula".to_owned()));
    assert_eq!(
        of((3, 36)),
        VmState::Dead("failed in OpenNebula (BOOT_FAILURE): boom".to_owned())
    );
}

#[test]
fn an_older_error_is_no_cause_of_a_death() {
    let vm = Ours {
        old_error: Some("boom".to_owned()),
        ..ours(1, (8, 0), None)
    };
    let dead = |vm: &Ours| match state(ReadyBy::Slurm, vm) {
        VmState::Dead(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(dead(&vm), "powered off in OpenNebula (POWEROFF)");
    let newer = Ours {
        old_error: Some("a resize was refused".to_owned()),
        ..vm
    };
    assert_eq!(dead(&newer), "powered off in OpenNebula (POWEROFF): boom");
}

#[test]
fn ready_is_the_guests_word_and_only_while_it_runs() {
    let of = |by, numbers| {
        let vm = Ours {
            ready: true,
            ..ours(1, numbers, None)
        };
        state(by, &vm)
    };
    assert_eq!(of(ReadyBy::OneGate, (3, 3)), VmState::Ready);
    assert_eq!(of(ReadyBy::OneGate, (3, 2)), VmState::Pending);
    assert_eq!(of(ReadyBy::Slurm, (3, 3)), VmState::Booting);
}

#[test]
fn what_others_were_promised_is_not_ours_to_give() {
    // On h1: ours 1024 MiB, others 2048. A held one takes nothing yet.
    let vms = map(vec![ours(1, (3, 3), Some(1)), ours(2, (2, 0), None)]);
    let view = view(RULES, &vms, &[host(1, 250, 3072), host(2, 0, 0)]);
    let capacity: Vec<(u32, u64)> = view.hosts.iter().map(|h| (h.cpu_percent, h.memory_mb)).collect();
    assert_eq!(capacity, [(700, 14_336), (800, 16_384)]);
    assert!(view.hosts.iter().all(|h| h.usable));
}

#[test]
fn a_vm_that_is_over_or_nowhere_takes_nothing() {
    // DONE, POWEROFF, STOPPED, UNDEPLOYED, SUSPENDED.
    let states = [(6, 0), (8, 0), (4, 0), (9, 0), (5, 0)];
    let vms = (1..).zip(states).map(|(id, state)| ours(id, state, Some(1)));
    let view = view(RULES, &map(vms.collect()), &[]);
    let memory: Vec<u64> = view.vms.iter().map(|vm| vm.memory_mb).collect();
    assert_eq!(memory, [0, 1024, 0, 0, 1024]);
}

#[test]
fn a_vm_that_moves_is_ours_on_both_hosts() {
    let moving = Ours {
        leaves: Some(1),
        ..ours(1, (3, 4), Some(2))
    };
    let hosts = view(
        RULES,
        &map(vec![moving]),
        &[host(1, 150, 1024), host(2, 150, 1024)],
    )
    .hosts;
    let left: Vec<u64> = hosts.iter().map(|host| host.memory_mb).collect();
    assert_eq!(left, [16_384, 16_384], "core counts it on both");
}

/// As seen on a real oned: a free core was refused beside a VM that a person had suspended.
#[test]
fn a_vm_that_a_person_keeps_still_is_counted_once() {
    for state in [(5, 0), (8, 0), (3, 5), (3, 6), (3, 10), (3, 21), (3, 28), (3, 41)] {
        let vms = map(vec![ours(1, state, Some(1))]);
        let hosts = view(RULES, &vms, &[host(1, 150, 1024)]).hosts;
        assert_eq!(
            (hosts[0].cpu_percent, hosts[0].memory_mb),
            (800, 16_384),
            "{state:?}"
        );
    }
    // oned has given its place away, or will.
    for state in [(4, 0), (9, 0), (3, 23), (3, 68)] {
        let vms = map(vec![ours(1, state, Some(1))]);
        let hosts = view(RULES, &vms, &[host(1, 150, 1024)]).hosts;
        assert_eq!(hosts[0].memory_mb, 15_360, "somebody else's: {state:?}");
    }
}

/// As seen on a real oned 6.10: one that was stopped, and resumed, waits for a host, and was counted where it had been.
#[test]
fn a_vm_that_waits_anew_takes_nothing_where_it_was() {
    let takes = |state, host| {
        let vms = map(vec![ours(1, state, host)]);
        let shown = view(RULES, &vms, &[]).vms.remove(0);
        (shown.memory_mb, shown.cpu_percent)
    };
    for state in [(1, 0), (2, 0)] {
        assert_eq!(takes(state, Some(1)), (0, 0), "{state:?}");
        assert_ne!(
            takes(state, None),
            (0, 0),
            "it has never been anywhere: {state:?}"
        );
    }
}

#[test]
fn sizes_that_no_machine_has_are_counted_nowhere() {
    let xml = "<VM><ID>1</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE><MEMORY>18446744073709551615</MEMORY>\
        </TEMPLATE><HISTORY_RECORDS><HISTORY><SEQ>0</SEQ><HOSTNAME>h1</HOSTNAME><HID>1</HID></HISTORY>\
        </HISTORY_RECORDS></VM>";
    let listing = format!("<VM_POOL>{xml}{}</VM_POOL>", xml.replace("<ID>1<", "<ID>2<"));
    let rows = crate::read::vms(&listing).unwrap();
    let of = |row: VmRow| Ours {
        row,
        ..ours(0, (3, 3), None)
    };
    let odd = Host {
        beyond: Some(Beyond::Memory),
        ..host(2, 0, 0)
    };
    let view = view(
        RULES,
        &map(rows.into_iter().map(of).collect()),
        &[host(1, 300, 4096), odd],
    );
    for vm in &view.vms {
        assert_eq!((vm.memory_mb, vm.host.as_ref().unwrap().as_str()), (0, "h1"));
        let VmState::Unknown(why) = &vm.state else {
            panic!("{vm:?}")
        };
        assert_eq!(
            why,
            "cannot be: OpenNebula reports more than 1073741824 MiB of memory"
        );
    }
    // What it promises to them is promised to somebody.
    let hosts: Vec<_> = view.hosts.iter().map(|h| (h.memory_mb, h.usable)).collect();
    assert_eq!(hosts, [(12_288, true), (16_384, false)]);
    let over = Ours {
        row: VmRow {
            beyond: Some(Beyond::Cpu),
            ..ours(1, (6, 0), None).row
        },
        ..ours(1, (6, 0), None)
    };
    assert!(matches!(state(ReadyBy::OneGate, &over), VmState::Dead(_)));
}

#[test]
fn only_the_named_hosts_count() {
    let hosts = [host(1, 0, 0), host(2, 0, 0)];
    let named = [HostName::new("h2").unwrap()];
    let names = |rules| {
        let view = view(rules, &BTreeMap::new(), &hosts);
        view.hosts.iter().map(|h| h.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(Rules {
            hosts: &named,
            ..RULES
        }),
        ["h2"]
    );
    let elsewhere = Some("other");
    assert!(
        names(Rules {
            host_cluster: elsewhere,
            ..RULES
        })
        .is_empty()
    );
}

#[test]
fn gpus_that_others_have_are_not_ours_to_give() {
    let card = |vendor: &str, vm: i64| {
        format!(
            "<PCI><VENDOR>{vendor}</VENDOR><DEVICE>2235</DEVICE><CLASS>0302</CLASS><VMID>{vm}</VMID></PCI>"
        )
    };
    let devices = [
        card("10de", -1),
        card("10de", 1),
        card("10de", 77),
        card("8086", -1),
    ];
    let share = format!("<PCI_DEVICES>{}</PCI_DEVICES>", devices.concat());
    let listing = |share: &str| {
        let pool = format!(
            "<HOST_POOL><HOST><ID>1</ID><NAME>h1</NAME><STATE>2</STATE><HOST_SHARE>{share}</HOST_SHARE></HOST></HOST_POOL>"
        );
        crate::read::hosts(&pool, crate::model::Devices::Read).unwrap()
    };
    let source = |gpu: Option<(&str, &str)>| {
        let gpu_pci = gpu.map(|(key, text)| vec![(key.to_owned(), text.to_owned())]);
        let source = VmSource {
            template: TemplateSource::Registered("worker".to_owned()),
            networks: Vec::new(),
            gpu_pci,
            inputs: Default::default(),
            context: Vec::new(),
        };
        BTreeMap::from([(NodesetName::new("set").unwrap(), source)])
    };
    let gpus = |sources: &BTreeMap<NodesetName, VmSource>, hosts: &[Host]| {
        let vms = map(vec![ours(1, (3, 3), Some(1))]);
        view(Rules { sources, ..RULES }, &vms, hosts).hosts[0].gpus
    };
    let hosts = listing(&share);
    assert_eq!(gpus(&source(Some(("VENDOR", "10de"))), &hosts), Some(2));
    assert_eq!(gpus(&source(None), &hosts), None, "nobody asks for any");
    assert_eq!(
        gpus(&source(Some(("PROFILE", "nvidia-63"))), &hosts),
        None,
        "who can tell?"
    );
    assert_eq!(
        gpus(&source(Some(("VENDOR", "10de"))), &listing("")),
        None,
        "it says nothing"
    );
}

#[test]
fn a_host_whose_functions_are_taken_is_not_for_a_nodeset_that_needs_one() {
    let listing = |devices: &str| {
        let pool = format!(
            "<HOST_POOL><HOST><ID>1</ID><NAME>h1</NAME><STATE>2</STATE><CLUSTER_ID>0</CLUSTER_ID><HOST_SHARE>\
             {devices}</HOST_SHARE></HOST></HOST_POOL>"
        );
        crate::read::hosts(&pool, crate::model::Devices::Read).unwrap()
    };
    let function = |vm: i64| {
        format!("<PCI><VENDOR>15b3</VENDOR><DEVICE>101e</DEVICE><CLASS>0207</CLASS><VMID>{vm}</VMID></PCI>")
    };
    let devices = |all: &str| format!("<PCI_DEVICES>{all}</PCI_DEVICES>");
    let set = NodesetName::new("ib").unwrap();
    let source = |asked: &[(&str, &str)]| {
        let asked = asked
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        let source = VmSource {
            template: TemplateSource::Registered("worker".to_owned()),
            networks: Vec::new(),
            gpu_pci: None,
            inputs: Inputs {
                infiniband: Some(Infiniband {
                    pci: Some(asked.collect()),
                    ipoib: None,
                }),
                ..Inputs::default()
            },
            context: Vec::new(),
        };
        BTreeMap::from([(set.clone(), source)])
    };
    let why = |sources: &BTreeMap<NodesetName, VmSource>, devices: &str| {
        let view = view(Rules { sources, ..RULES }, &BTreeMap::new(), &listing(devices));
        view.hosts[0].not_for.get(&set).cloned()
    };
    let ib = source(&[("VENDOR", "15b3"), ("CLASS", "0207")]);
    assert_eq!(why(&ib, &devices(&(function(7) + &function(-1)))), None);
    assert!(
        why(&ib, &devices(&function(7)))
            .unwrap()
            .contains("no function of an InfiniBand card is free")
    );
    // Nobody can tell what a profile is, nor what a host has that says nothing.
    assert_eq!(why(&source(&[("PROFILE", "x")]), &devices(&function(7))), None);
    assert_eq!(why(&ib, ""), None);
    assert!(why(&ib, &devices("")).is_some(), "it says that it has none");
    // What its whole cluster lacks is said first.
    let cluster = Arc::new(BTreeMap::from([(set.clone(), "no network".to_owned())]));
    let reach = BTreeMap::from([(0, cluster)]);
    let rules = Rules {
        sources: &ib,
        reach: &reach,
        ..RULES
    };
    let seen = view(rules, &BTreeMap::new(), &listing(&devices(&function(7))));
    assert_eq!(seen.hosts[0].not_for[&set], "no network");
}

#[test]
fn opennebulas_own_scheduler_is_one_host_with_capacity_for_all() {
    let rules = Rules {
        placement: Placement::OpenNebula,
        ..RULES
    };
    let view = view(rules, &BTreeMap::new(), &[host(1, 0, 0)]);
    let usable: Vec<&str> = view
        .hosts
        .iter()
        .filter(|h| h.usable)
        .map(|h| h.name.as_str())
        .collect();
    assert_eq!(usable, [PSEUDO_HOST]);
    assert_eq!(view.hosts.len(), 2);
}

proptest! {
    #[test]
    fn no_place_is_promised_twice(
        vms in prop::collection::vec((0..4_i32, 0..70_i32, prop::option::of(0..3_u32)), 0..12),
        others in prop::collection::vec(0..20_000_u64, 3),
    ) {
        let vms = vms.into_iter().enumerate().map(|(id, (state, lcm, host))| ours(id as u32, (state, lcm), host));
        let vms = map(vms.collect());
        let hosts: Vec<Host> = (0_u32..).zip(&others).map(|(id, others)| {
            let counted = vms.values().filter(|vm| vm.row.state.holds_capacity());
            let here = counted.filter(|vm| vm.row.host.as_ref().is_some_and(|h| h.1 == id)).count() as u64;
            host(id, 0, others + here * 1024)
        }).collect();
        for (host, others) in view(RULES, &vms, &hosts).hosts.iter().zip(others) {
            prop_assert_eq!(host.memory_mb, 16_384_u64.saturating_sub(others));
        }
    }
}
