//! What becomes of a template's attributes: networks that the scheduler chooses, defaults and aliases of
//! cards, topologies. Facts: a real oned 7.4.0, and its source where `src/cards.rs` and
//! `src/topology.rs` say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod caller;
mod provider;

use caller::{B, I, S, call, call_as, id};
use provider::{create, provider};
use std::time::Duration;
use thiao_oned::{HostSetup, Lcm, NetworkSetup, Oned, Settings, State, TemplateSetup, UserSetup};
use thiao_opennebula::settings::Placement;
use thiao_testkit::wait::until;

fn network(name: &str, first: &str, public: bool) -> NetworkSetup {
    NetworkSetup {
        name: name.into(),
        first: first.parse().unwrap(),
        size: 2,
        template: [("NETWORK_MASK".to_owned(), "255.255.255.0".to_owned())].into(),
        public,
        clusters: vec![0],
    }
}

fn site() -> Oned {
    site_with("")
}

fn site_with(worker: &str) -> Oned {
    let mut users = Settings::default().users;
    users.push(UserSetup::new("plain", "pw"));
    Oned::start(Settings {
        users,
        hosts: vec![HostSetup {
            name: "h0".into(),
            cpu_percent: 800,
            memory_mb: 8192,
            cluster: Default::default(),
        }],
        networks: vec![
            network("private", "10.0.0.10", false),
            network("cloud", "10.0.1.10", true),
        ],
        templates: vec![TemplateSetup {
            name: "worker".into(),
            body: worker.into(),
            public: true,
        }],
        scheduler: Some(Duration::from_millis(2)),
        ..Settings::default()
    })
    .unwrap()
}

fn made(oned: &Oned, more: &str) -> u32 {
    let text = format!("CPU=1\nVCPU=4\nMEMORY=512\nCONTEXT=[NETWORK=\"YES\"]\n{more}");
    id(&call(oned, "one.vm.allocate", &[S(&text), B(true)])).unwrap()
}

fn refused(oned: &Oned, more: &str) -> String {
    let text = format!("CPU=1\nVCPU=4\nMEMORY=512\n{more}");
    let answer = call(oned, "one.vm.allocate", &[S(&text), B(true)]);
    assert!(id(&answer).is_err(), "{answer}");
    answer
}

fn shown(oned: &Oned, vm: u32) -> String {
    call(oned, "one.vm.info", &[I(vm.into())])
        .replace("&lt;", "<")
        .replace("&gt;", ">")
}

fn deploy(oned: &Oned, vm: u32, networks: &str) -> String {
    call(
        oned,
        "one.vm.deploy",
        &[I(vm.into()), I(0), B(true), I(-1), S(networks)],
    )
}

fn runs(oned: &Oned, vm: u32) {
    until("it runs", || {
        oned.vm(vm)
            .is_some_and(|vm| vm.state == State::Active(Lcm::Running))
    });
}

const AUTO: &str = "NIC=[NETWORK_MODE=\"auto\",SCHED_REQUIREMENTS=\"NAME=\\\"cloud\\\"\",SCHED_RANK=\"-USED_LEASES\"]\n\
                    NIC_DEFAULT=[MODEL=\"virtio\"]";

/// Seen on a real oned 7.4.0.
#[test]
fn a_deploy_by_host_leaves_an_auto_card_without_network() {
    let oned = site();
    let vm = made(&oned, AUTO);
    assert_eq!(id(&deploy(&oned, vm, "")), Ok(vm));
    runs(&oned, vm);
    let shown = shown(&oned, vm);
    assert!(shown.contains("<NETWORK_MODE><![CDATA[auto]]>"), "{shown}");
    assert!(!shown.contains("<IP>") && !shown.contains("ETH0_IP"), "{shown}");
    assert!(shown.contains("<NIC_DEFAULT><MODEL>"), "{shown}");
}

/// The last parameter of `one.vm.deploy`, as oned's own scheduler fills it.
#[test]
fn a_deploy_may_name_networks_for_auto_cards_alone() {
    let oned = site();
    let vm = made(&oned, &format!("NIC=[NETWORK=\"private\"]\n{AUTO}"));
    for (networks, why) in [
        ("NIC=[NIC_ID=\"7\",NETWORK_ID=\"1\"]", "NIC_ID 7 not found"),
        ("NIC=[NIC_ID=\"0\",NETWORK_ID=\"1\"]", "NIC_ID 0 not AUTO"),
    ] {
        let answer = deploy(&oned, vm, networks);
        assert_eq!(id(&answer), Err(0x800));
        assert!(answer.contains(why), "{answer}");
    }
    let networks = "NIC=[NIC_ID=\"1\", NETWORK_MODE=\"auto\" , NETWORK_ID=\"1\"]";
    assert_eq!(id(&deploy(&oned, vm, networks)), Ok(vm));
    let shown = shown(&oned, vm);
    assert!(shown.contains("<IP><![CDATA[10.0.1.10]]>"), "{shown}");
    assert!(shown.contains("<ETH1_IP><![CDATA[10.0.1.10]]>"), "{shown}");
}

#[test]
fn the_scheduler_chooses_a_network_that_the_owner_may_use() {
    let oned = site();
    let text = format!("CPU=1\nMEMORY=512\nCONTEXT=[NETWORK=\"YES\"]\n{AUTO}");
    let make = || {
        id(&call_as(
            &oned,
            "plain:pw",
            "one.vm.allocate",
            &[S(&text), B(false)],
        ))
        .unwrap()
    };
    let (first, second) = (make(), make());
    runs(&oned, first);
    runs(&oned, second);
    let told = shown(&oned, second);
    assert!(told.contains("<NETWORK><![CDATA[cloud]]>"), "{told}");
    assert!(told.contains("<MODEL><![CDATA[virtio]]>"), "{told}");
    // Two addresses are all that there are.
    let third = make();
    until("a message", || {
        shown(&oned, third).contains("No virtual network meets SCHED_NIC_REQUIREMENTS for NIC 0")
    });
    assert_eq!(oned.vm(third).unwrap().state, State::Pending);
    // What it had is free again.
    id(&call(
        &oned,
        "one.vm.action",
        &[S("terminate-hard"), I(first.into())],
    ))
    .unwrap();
    runs(&oned, third);
}

#[test]
fn cards_take_defaults_and_aliases_take_addresses() {
    let oned = site();
    let vm = made(
        &oned,
        "NIC_DEFAULT=[NETWORK=\"cloud\",MODEL=\"virtio\"]\nNIC=[NAME=\"a\"]\nNIC=[MODEL=\"e1000\",NETWORK=\"private\"]\n\
         NIC=[NETWORK_MODE=\"dummy\"]\nPCI=[TYPE=\"NIC\",NETWORK=\"private\",VENDOR=\"15b3\"]\n\
         NIC_ALIAS=[NETWORK=\"cloud\",PARENT=\"a\"]",
    );
    let told = shown(&oned, vm);
    for ip in ["10.0.1.10", "10.0.0.10", "10.0.0.11", "10.0.1.11"] {
        assert!(told.contains(&format!("<IP><![CDATA[{ip}]]>")), "{ip}: {told}");
    }
    assert!(told.contains("<MODEL><![CDATA[e1000]]>"), "{told}");
    assert!(told.contains("<NAME><![CDATA[NIC0_ALIAS4]]>"), "{told}");
    let answer = refused(
        &oned,
        "NIC=[NETWORK_MODE=\"auto\"]\nNIC_ALIAS=[PARENT=\"NIC0\",NETWORK=\"cloud\"]",
    );
    assert!(answer.contains("NIC named NIC0 not found for alias"), "{answer}");
    let answer = refused(
        &oned,
        "NIC=[MODEL=\"virtio\"]\nNIC_ALIAS=[PARENT=\"NIC0\",NETWORK_MODE=\"auto\"]",
    );
    assert!(
        answer.contains("Alias is incompatible with mode AUTO"),
        "{answer}"
    );
}

#[test]
fn a_topology_must_be_that_of_the_vcpus() {
    let oned = site();
    for (more, why) in [
        (
            "TOPOLOGY=[SOCKETS=\"1\",CORES=\"2\",THREADS=\"1\"]",
            "Total threads per core and socket needs to match VCPU",
        ),
        (
            "TOPOLOGY=[CORES=\"4\"]",
            "needs to set  SOCKETS, CORES and THREADS numbers",
        ),
        (
            "VCPU_MAX=\"8\"\nTOPOLOGY=[CORES=\"4\"]",
            "VM with TOPOLOGY does not support CPU hotplug (VCPU_MAX)",
        ),
        (
            "TOPOLOGY=[PIN_POLICY=\"THREAD\",CORES=\"2\",THREADS=\"1\"]",
            "Total threads per core and socket needs to match VCPU",
        ),
    ] {
        let answer = refused(&oned, more);
        assert!(answer.contains(why) && answer.contains("16384"), "{answer}");
    }
    let vm = made(
        &oned,
        "VCPU_MAX=\"0\"\nTOPOLOGY=[SOCKETS=\"2\",CORES=\"2\",THREADS=\"1\"]",
    );
    assert!(shown(&oned, vm).contains("<SOCKETS><![CDATA[2]]>"));
    // Pinned: no share of a core.
    let vm = made(&oned, "TOPOLOGY=[PIN_POLICY=\"CORE\"]");
    assert!(shown(&oned, vm).contains("<CPU><![CDATA[4]]>"));
}

/// As Thiao's provider asks for it: whoever places, the VM has an address in the end, or is not made.
#[test]
fn a_vm_of_an_auto_card_has_a_network_whoever_places_it() {
    let oned = site_with(&format!("CPU=1\nMEMORY=512\n{AUTO}"));
    let addresses = |vm: &str| {
        let shown = shown(&oned, vm.parse().unwrap());
        shown.matches("<IP><![CDATA[").count()
    };
    let with_network = provider(&oned, Placement::Thiao, &["private"]);
    let vm = create(&with_network, "n0", "h0").unwrap();
    runs(&oned, vm.as_str().parse().unwrap());
    assert_eq!(addresses(vm.as_str()), 1);
    let by_scheduler = provider(&oned, Placement::OpenNebula, &[]);
    let vm = create(&by_scheduler, "n1", thiao_opennebula::provider::PSEUDO_HOST).unwrap();
    runs(&oned, vm.as_str().parse().unwrap());
    assert_eq!(addresses(vm.as_str()), 1);
    let without = provider(&oned, Placement::Thiao, &[]);
    let error = create(&without, "n2", "h0").unwrap_err();
    assert!(error.text.contains("NETWORK_MODE = auto"), "{error}");
    assert_eq!(oned.vms().len(), 2);
}
