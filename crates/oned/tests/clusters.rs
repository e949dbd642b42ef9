//! Hosts in several of OpenNebula's clusters: what oned asks of a VM, and what Thiao's provider makes of it. Facts: the
//! sources of 6.10.0 and 7.4.0, where `src/cluster.rs` says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod caller;
mod provider;

use caller::{B, I, S, call, id};
use provider::{create, provider};
use thiao_core::ids::{HostName, NodesetName};
use thiao_core::view::ProviderView;
use thiao_oned::{Cluster, HostSetup, NetworkSetup, Oned, Settings, StoreSetup, TemplateSetup};
use thiao_opennebula::OpenNebula;
use thiao_opennebula::provider::Observed;
use thiao_opennebula::settings::Placement;

/// Host `east` is in the cluster of a fresh installation, `west` in another with two system datastores, `bare` in one
/// that has nothing.
fn site() -> Oned {
    let host = |name: &str, id: u32| HostSetup {
        name: name.into(),
        cpu_percent: 800,
        memory_mb: 8192,
        cluster: match id {
            0 => Cluster::default(),
            id => Cluster {
                id,
                name: format!("c-{name}"),
            },
        },
    };
    let network = |name: &str, first: &str, size: u32, clusters: &[u32]| NetworkSetup {
        name: name.into(),
        first: first.parse().unwrap(),
        size,
        template: Default::default(),
        public: true,
        clusters: clusters.to_vec(),
    };
    let store = |id: u32, free_mb: u64| StoreSetup {
        id,
        name: format!("system-{id}"),
        clusters: vec![100],
        free_mb,
    };
    Oned::start(Settings {
        hosts: vec![host("east", 0), host("west", 100), host("bare", 101)],
        networks: vec![
            network("n-east", "10.0.0.10", 9, &[0]),
            network("n-west", "10.0.1.10", 1, &[100]),
            network("n-both", "10.0.2.10", 9, &[0, 100]),
        ],
        stores: vec![store(102, 1_000), store(103, 9_000)],
        templates: vec![TemplateSetup {
            name: "worker".into(),
            body: "DISK = [ IMAGE_ID = 0 ]".into(),
            public: true,
        }],
        ..Settings::default()
    })
    .unwrap()
}

fn shown(oned: &Oned, vm: &str) -> String {
    call(oned, "one.vm.info", &[I(vm.parse().unwrap())])
        .replace("&lt;", "<")
        .replace("&gt;", ">")
}

fn deploy(oned: &Oned, vm: u32, host: u32, store: i64) -> String {
    call(
        oned,
        "one.vm.deploy",
        &[I(vm.into()), I(host.into()), B(true), I(store), S("")],
    )
}

#[test]
fn oned_takes_the_first_system_datastore_of_a_hosts_cluster_or_the_one_that_is_named() {
    let oned = site();
    let made = || id(&call(&oned, "one.vm.allocate", &[S("CPU=1\nMEMORY=64"), B(true)])).unwrap();
    let vm = made();
    for (host, store, why) in [
        (
            0,
            102,
            "datastore [102] and host [0] are not in the same cluster [0]",
        ),
        (
            1,
            0,
            "datastore [0] and host [1] are not in the same cluster [100]",
        ),
        (1, 1, "it is not of type system datastore"),
        (1, 77, "Error getting datastore [77]"),
        (
            2,
            -1,
            "cluster [101] does not have any datastore of type SYSTEM_DS",
        ),
    ] {
        let answer = deploy(&oned, vm, host, store);
        assert!(id(&answer).is_err() && answer.contains(why), "{answer}");
    }
    assert_eq!(id(&deploy(&oned, vm, 1, -1)), Ok(vm));
    let text = shown(&oned, &vm.to_string());
    assert!(
        text.contains("<CID>100</CID>") && text.contains("<DS_ID>102</DS_ID>"),
        "{text}"
    );
    let vm = made();
    assert_eq!(id(&deploy(&oned, vm, 1, 103)), Ok(vm));
    assert!(shown(&oned, &vm.to_string()).contains("<DS_ID>103</DS_ID>"));
}

#[test]
fn oned_makes_no_vm_of_networks_without_a_common_cluster() {
    let oned = site();
    let made = |cards: &str| {
        let text = format!("CPU=1\nMEMORY=64\n{cards}");
        call(&oned, "one.vm.allocate", &[S(&text), B(true)])
    };
    let answer = made("NIC=[NETWORK_ID=0]\nNIC=[NETWORK_ID=1]");
    assert!(
        answer.contains("Incompatible clusters in NIC. Network for NIC 1"),
        "{answer}"
    );
    let both = id(&made("NIC=[NETWORK_ID=2]")).unwrap();
    let text = shown(&oned, &both.to_string());
    assert!(
        text.contains("(CLUSTER_ID = 0 | CLUSTER_ID = 100) &amp; "),
        "{text}"
    );
}

fn view(thiao: &OpenNebula) -> ProviderView {
    match thiao.observe().unwrap() {
        Observed::Whole(view) => view,
        Observed::News(news) => panic!("only news: {news:?}"),
    }
}

/// Why the nodeset's VMs cannot be on that host.
fn why_not(view: &ProviderView, host: &str) -> Option<String> {
    let host = HostName::new(host).unwrap();
    let seen = view.hosts.iter().find(|seen| seen.name == host).unwrap();
    seen.not_for.get(&NodesetName::new("n").unwrap()).cloned()
}

#[test]
fn a_vm_gets_the_network_and_the_datastore_that_its_hosts_cluster_has() {
    let oned = site();
    let thiao = provider(&oned, Placement::Thiao, &["n-east", "n-west", "n-both"]);
    let seen = view(&thiao);
    assert_eq!((why_not(&seen, "east"), why_not(&seen, "west")), (None, None));
    assert!(
        why_not(&seen, "bare")
            .unwrap()
            .contains("cluster c-bare has no system datastore")
    );

    let vm = create(&thiao, "n0", "east").unwrap();
    let text = shown(&oned, vm.as_str());
    assert!(
        text.contains("<NETWORK><![CDATA[n-east]]>") && text.contains("<DS_ID>0</DS_ID>"),
        "{text}"
    );
    let vm = create(&thiao, "n1", "west").unwrap();
    let text = shown(&oned, vm.as_str());
    assert!(
        text.contains("<NETWORK><![CDATA[n-west]]>") && text.contains("<DS_ID>103</DS_ID>"),
        "{text}"
    );
    // Its only address is taken: what was seen before is asked for anew, and the next one is taken.
    let error = create(&thiao, "n2", "west").unwrap_err();
    assert_eq!(error.class, thiao_opennebula::Class::Capacity, "{error}");
    let vm = create(&thiao, "n2", "west").unwrap();
    assert!(shown(&oned, vm.as_str()).contains("<NETWORK><![CDATA[n-both]]>"));
}

#[test]
fn a_cluster_without_the_nodesets_network_gets_none_of_its_vms() {
    let oned = site();
    let thiao = provider(&oned, Placement::Thiao, &["n-east"]);
    let seen = view(&thiao);
    assert_eq!(why_not(&seen, "east"), None);
    let why = why_not(&seen, "west").unwrap();
    assert_eq!(why, "cluster c-west has none of the nodeset's networks (n-east)");
    // Who asks for it all the same makes nothing there.
    let error = create(&thiao, "n0", "west").unwrap_err();
    assert_eq!(error.class, thiao_opennebula::Class::Capacity, "{error}");
    assert!(
        error.text.contains("has none of the nodeset's networks"),
        "{error}"
    );
    assert!(oned.vms().is_empty());
}
