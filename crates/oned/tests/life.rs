//! The life of VMs in the stand-in, told by XML-RPC as any client does it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod caller;

use caller::{B, I, S, call, call_as, id};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use thiao_core::ids::{ClusterName, HostName, JobId, NodeName, NodesetName};
use thiao_core::options::VmOptions;
use thiao_core::view::{Shape, VmSpec};
use thiao_oned::{
    Fault, HostSetup, Lcm, NetworkSetup, Oned, Phase, Rule, Settings, State, TemplateSetup, UserSetup,
};
use thiao_testkit::ids::tag;
use thiao_testkit::wait::until;

fn site() -> Settings {
    Settings {
        hosts: vec![
            HostSetup {
                name: "h0".into(),
                cpu_percent: 400,
                memory_mb: 4096,
                cluster: Default::default(),
            },
            HostSetup {
                name: "h1".into(),
                cpu_percent: 400,
                memory_mb: 4096,
                cluster: Default::default(),
            },
        ],
        networks: vec![NetworkSetup {
            name: "cloud".into(),
            first: "10.0.0.10".parse().unwrap(),
            size: 3,
            template: [("NETWORK_MASK", "255.255.255.0"), ("GATEWAY", "10.0.0.1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            public: true,
            clusters: vec![0],
        }],
        ..Settings::default()
    }
}

fn reaches(oned: &Oned, vm: u32, state: State) {
    until(&format!("VM {vm} in {state:?}"), || {
        oned.vm(vm).is_some_and(|vm| vm.state == state)
    });
}

const SMALL: &str = "NAME=\"a\"\nCPU=1\nMEMORY=1024\nTAG=\"x\"";

fn made(oned: &Oned) -> u32 {
    id(&call(oned, "one.vm.allocate", &[S(SMALL), B(true)])).unwrap()
}

fn deploy(oned: &Oned, vm: u32, host: i64) -> Result<u32, i32> {
    id(&call(
        oned,
        "one.vm.deploy",
        &[I(vm.into()), I(host), B(true), I(-1), S("")],
    ))
}

fn act(oned: &Oned, vm: u32, action: &str) -> Result<u32, i32> {
    id(&call(oned, "one.vm.action", &[S(action), I(vm.into())]))
}

fn running(oned: &Oned) -> u32 {
    let vm = made(oned);
    assert_eq!(deploy(oned, vm, 0), Ok(vm));
    reaches(oned, vm, State::Active(Lcm::Running));
    vm
}

#[test]
fn a_held_vm_is_deployed_runs_and_ends() {
    let oned = Oned::start(site()).unwrap();
    assert!(call(&oned, "one.system.version", &[]).contains("7.4.1"));
    let vm = made(&oned);
    assert_eq!(oned.vm(vm).unwrap().state, State::Hold);
    assert_eq!(deploy(&oned, vm, 1), Ok(vm));
    assert_eq!(deploy(&oned, vm, 1), Err(0x800), "only one deploy wins");
    reaches(&oned, vm, State::Active(Lcm::Running));
    assert_eq!(oned.promised(1), (1, 100, 1024));
    let pool = call(&oned, "one.vmpool.info", &[I(-3), I(-1), I(-1), I(-1)]);
    assert!(
        pool.contains("&lt;LCM_STATE&gt;3&lt;") && !pool.contains("TAG"),
        "{pool}"
    );
    let set = call(&oned, "one.vmpool.infoset", &[S("0,7"), B(true)]);
    assert!(set.contains("&lt;TAG&gt;"), "{set}");
    assert_eq!(act(&oned, vm, "terminate"), Ok(vm));
    reaches(&oned, vm, State::Done);
    assert_eq!(oned.promised(1), (0, 0, 0));
    assert!(!call(&oned, "one.vmpool.info", &[I(-3), I(-1), I(-1), I(-1)]).contains("&lt;ID&gt;"));
    assert_eq!(act(&oned, vm, "terminate"), Ok(vm), "ok on DONE");
}

#[test]
fn terminate_is_refused_in_prolog_and_boot_and_recover_deletes_there() {
    for phase in [Phase::Prolog, Phase::Boot] {
        let oned = Oned::start(site()).unwrap();
        oned.hold_phase(phase);
        let vm = made(&oned);
        deploy(&oned, vm, 0).unwrap();
        let state = if phase == Phase::Prolog {
            Lcm::Prolog
        } else {
            Lcm::Boot
        };
        reaches(&oned, vm, State::Active(state));
        assert_eq!(act(&oned, vm, "terminate"), Err(0x800));
        assert_eq!(act(&oned, vm, "terminate-hard"), Err(0x800));
        assert_eq!(id(&call(&oned, "one.vm.recover", &[I(vm.into()), I(3)])), Ok(vm));
        reaches(&oned, vm, State::Done);
        assert_eq!(oned.promised(0), (0, 0, 0));
    }
}

#[test]
fn a_soft_terminate_is_refused_while_one_is_under_way_and_a_hard_one_overrides() {
    let oned = Oned::start(site()).unwrap();
    let vm = running(&oned);
    oned.hold_phase(Phase::Shutdown);
    assert_eq!(act(&oned, vm, "terminate"), Ok(vm));
    assert_eq!(act(&oned, vm, "terminate"), Err(0x800));
    assert_eq!(act(&oned, vm, "terminate-hard"), Ok(vm));
    oned.let_phase(Phase::Shutdown);
    reaches(&oned, vm, State::Done);
}

#[test]
fn a_guest_that_ignores_the_shutdown_silently_runs_on() {
    let oned = Oned::start(site()).unwrap();
    let vm = running(&oned);
    oned.ignore_shutdown(vm);
    oned.hold_phase(Phase::Shutdown);
    assert_eq!(act(&oned, vm, "terminate"), Ok(vm));
    assert_eq!(oned.vm(vm).unwrap().state, State::Active(Lcm::Shutdown));
    oned.let_phase(Phase::Shutdown);
    reaches(&oned, vm, State::Active(Lcm::Running));
    assert!(
        !oned.vm(vm).unwrap().tags.contains_key("ERROR"),
        "as recorded: without a word"
    );
    assert_eq!(act(&oned, vm, "terminate-hard"), Ok(vm));
    reaches(&oned, vm, State::Done);
}

#[test]
fn a_guest_that_dies_becomes_poweroff_and_keeps_its_place() {
    let oned = Oned::start(site()).unwrap();
    let vm = running(&oned);
    oned.die(vm);
    assert_eq!(oned.vm(vm).unwrap().state, State::Poweroff);
    assert_eq!(oned.promised(0).0, 1);
    assert_eq!(act(&oned, vm, "resume"), Ok(vm));
    reaches(&oned, vm, State::Active(Lcm::Running));
}

#[test]
fn a_failed_boot_says_why_and_can_be_terminated() {
    let oned = Oned::start(site()).unwrap();
    let vm = made(&oned);
    oned.fail_phase(vm, Phase::Boot, "no kernel");
    deploy(&oned, vm, 0).unwrap();
    reaches(&oned, vm, State::Active(Lcm::BootFailure));
    assert_eq!(
        oned.vm(vm).unwrap().tags.get("ERROR").map(String::as_str),
        Some("no kernel")
    );
    assert_eq!(act(&oned, vm, "terminate"), Ok(vm));
    reaches(&oned, vm, State::Done);
}

#[test]
fn a_host_takes_what_fits_and_an_offline_one_nothing() {
    let oned = Oned::start(site()).unwrap();
    for _ in 0..4 {
        running(&oned);
    }
    let vm = made(&oned);
    let refused = call(
        &oned,
        "one.vm.deploy",
        &[I(vm.into()), I(0), B(true), I(-1), S("")],
    );
    assert!(
        refused.contains("virtual machine [4] does not fit in host [0]. Not enough CPU: 100/0"),
        "{refused}"
    );
    oned.set_host(1, thiao_oned::HostState::Offline);
    assert_eq!(deploy(&oned, vm, 1), Err(0x800));
    oned.set_host(1, thiao_oned::HostState::Disabled);
    assert_eq!(deploy(&oned, vm, 1), Ok(vm));
    assert_eq!(deploy(&oned, vm, 9), Err(0x400));
}

#[test]
fn leases_are_given_once_and_come_back() {
    let oned = Oned::start(site()).unwrap();
    let with = |ip: &str| format!("CPU=1\nMEMORY=64\nNIC=[NETWORK=\"cloud\"{ip}]");
    let fixed = with(",IP=\"10.0.0.11\"");
    let first = id(&call(&oned, "one.vm.allocate", &[S(&fixed), B(true)])).unwrap();
    assert_eq!(
        id(&call(&oned, "one.vm.allocate", &[S(&fixed), B(true)])),
        Err(0x2000)
    );
    for _ in 0..2 {
        id(&call(&oned, "one.vm.allocate", &[S(&with("")), B(true)])).unwrap();
    }
    assert_eq!(
        id(&call(&oned, "one.vm.allocate", &[S(&with("")), B(true)])),
        Err(0x2000),
        "none is left"
    );
    act(&oned, first, "terminate").unwrap();
    assert!(id(&call(&oned, "one.vm.allocate", &[S(&fixed), B(true)])).is_ok());
}

#[test]
fn the_context_gets_the_network_and_a_bad_variable_is_refused() {
    let settings = Settings {
        onegate: Some("127.0.0.1:0".parse().unwrap()),
        ..site()
    };
    let oned = Oned::start(settings).unwrap();
    let with = |context: &str| format!("CPU=1\nMEMORY=64\nNIC=[NETWORK_ID=0]\nCONTEXT=[{context}]");
    let text = with("NETWORK=\"YES\",TOKEN=\"YES\",SET_HOSTNAME=\"n-$VMID\",A=\"$NIC[IP]\"");
    let vm = id(&call(&oned, "one.vm.allocate", &[S(&text), B(true)])).unwrap();
    let vm = oned.vm(vm).unwrap();
    let get = |key: &str| vm.context.get(key).map(String::as_str);
    assert_eq!(get("ETH0_IP"), Some("10.0.0.10"));
    assert_eq!(get("A"), Some("10.0.0.10"));
    assert_eq!(get("ETH0_MAC"), Some("02:00:0a:00:00:0a"));
    assert_eq!(get("ETH0_MASK"), Some("255.255.255.0"));
    assert_eq!(get("ETH0_GATEWAY"), Some("10.0.0.1"));
    assert_eq!(get("SET_HOSTNAME"), Some("n-0"));
    assert_eq!(get("ONEGATE_ENDPOINT"), oned.onegate_endpoint().as_deref());
    for bad in [
        "START_SCRIPT=\"a ${X}\"",
        "START_SCRIPT=\"$(id)\"",
        "A=\"a\\\\$\"",
    ] {
        assert_eq!(
            id(&call(&oned, "one.vm.allocate", &[S(&with(bad)), B(true)])),
            Err(0x2000),
            "{bad}"
        );
    }
}

fn onegate(oned: &Oned, request: &str, vm: u32, token: &str, body: &str) -> String {
    let endpoint = oned.onegate_endpoint().unwrap();
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nX-ONEGATE-TOKEN: {token}\r\nX-ONEGATE-VMID: {vm}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_guest_says_ready_with_its_own_token_only() {
    let settings = Settings {
        onegate: Some("127.0.0.1:0".parse().unwrap()),
        ..site()
    };
    let oned = Oned::start(settings).unwrap();
    let text = "CPU=1\nMEMORY=64\nCONTEXT=[TOKEN=\"YES\"]";
    let [a, b] = [0, 1].map(|_| id(&call(&oned, "one.vm.allocate", &[S(text), B(true)])).unwrap());
    let token = oned.vm(a).unwrap().onegate_token.unwrap();
    assert!(onegate(&oned, "PUT /vm", b, &token, "READY=YES").starts_with("HTTP/1.1 401"));
    assert!(onegate(&oned, "PUT /vm", a, "", "READY=YES").starts_with("HTTP/1.1 401"));
    assert!(onegate(&oned, "PUT /vm", a, &token, "READY=YES").starts_with("HTTP/1.1 200"));
    assert_eq!(
        oned.vm(a).unwrap().tags.get("READY").map(String::as_str),
        Some("YES")
    );
    assert!(!oned.vm(b).unwrap().tags.contains_key("READY"));
    assert!(onegate(&oned, "GET /vm", a, &token, "").contains("\"READY\":\"YES\""));
}

#[test]
fn a_lost_answer_is_of_a_call_that_was_executed() {
    let oned = Oned::start(site()).unwrap();
    oned.fault(Rule::once("one.vm.allocate", Fault::LoseAnswer));
    assert_eq!(call(&oned, "one.vm.allocate", &[S(SMALL), B(true)]), "");
    assert_eq!(oned.vms().len(), 1);
    oned.fault(Rule::once(
        "one.vm.allocate",
        Fault::Refuse(0x100, "database is locked".into()),
    ));
    assert_eq!(
        id(&call(&oned, "one.vm.allocate", &[S(SMALL), B(true)])),
        Err(0x100)
    );
    oned.fault(Rule::once("one.vm.allocate", Fault::Drop));
    assert_eq!(call(&oned, "one.vm.allocate", &[S(SMALL), B(true)]), "");
    assert_eq!(oned.vms().len(), 1);
    assert_eq!(oned.calls("one.vm.allocate"), 3);
}

#[test]
fn a_paused_oned_refuses_connections_and_comes_back_with_its_vms() {
    let mut oned = Oned::start(site()).unwrap();
    let vm = running(&oned);
    let endpoint = oned.endpoint();
    oned.pause();
    assert!(TcpStream::connect(endpoint.trim_start_matches("http://").trim_end_matches("/RPC2")).is_err());
    oned.resume().unwrap();
    assert!(caller::ok(&call(&oned, "one.vm.info", &[I(vm.into())])));
}

#[test]
fn listings_show_the_old_state_for_a_while_after_a_call() {
    let oned = Oned::start(Settings {
        lag: Duration::from_secs(3600),
        ..site()
    })
    .unwrap();
    let vm = made(&oned);
    deploy(&oned, vm, 0).unwrap();
    reaches(&oned, vm, State::Active(Lcm::Running));
    assert!(call(&oned, "one.vm.info", &[I(vm.into())]).contains("&lt;STATE&gt;2&lt;"));
}

#[test]
fn the_scheduler_places_what_is_released() {
    let oned = Oned::start(Settings {
        scheduler: Some(Duration::from_millis(2)),
        ..site()
    })
    .unwrap();
    let vm = made(&oned);
    act(&oned, vm, "release").unwrap();
    reaches(&oned, vm, State::Active(Lcm::Running));
    let text = format!("{SMALL}\nSCHED_REQUIREMENTS=\"ID=77\"");
    let vm = id(&call(&oned, "one.vm.allocate", &[S(&text), B(false)])).unwrap();
    until("a message", || {
        oned.vm(vm).unwrap().tags.contains_key("SCHED_MESSAGE")
    });
    assert_eq!(oned.vm(vm).unwrap().state, State::Pending);
}

#[test]
fn plain_users_have_the_rights_that_they_were_given() {
    let mut operator = UserSetup::new("operator", "pw");
    operator
        .template
        .insert("VM_MANAGE_OPERATIONS".into(), "deploy, delete".into());
    let mut settings = site();
    settings.users.extend([UserSetup::new("plain", "pw"), operator]);
    let oned = Oned::start(settings).unwrap();
    for (session, deploys) in [("plain:pw", Err(0x200)), ("operator:pw", Ok(()))] {
        let vm = id(&call_as(&oned, session, "one.vm.allocate", &[S(SMALL), B(true)])).unwrap();
        let deployed = call_as(&oned, session, "one.vm.deploy", &[I(vm.into()), I(0), B(true)]);
        assert_eq!(id(&deployed).map(|_| ()), deploys, "{session}");
        assert!(!call_as(&oned, session, "one.hostpool.info", &[]).contains("&lt;HOST&gt;"));
    }
    assert_eq!(
        id(&call_as(&oned, "plain:no", "one.user.info", &[I(-1)])),
        Err(0x100)
    );
}

#[test]
fn http_is_as_strict_as_the_real_one() {
    let oned = Oned::start(site()).unwrap();
    let endpoint = oned.endpoint();
    let address = endpoint.trim_start_matches("http://").trim_end_matches("/RPC2");
    for (request, status) in [
        (
            "POST /RPC2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "411",
        ),
        ("GET /RPC2 HTTP/1.1\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "404"),
        ("POST /RPC2 HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413"),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
}

#[test]
fn pci_devices_are_kept_and_not_for_plain_users() {
    let mut settings = site();
    settings.users.push(UserSetup::new("slurm", "pw"));
    let oned = Oned::start(settings).unwrap();
    let text = format!("{SMALL}\nPCI=[VENDOR=\"10de\"]\nPCI=[VENDOR=\"10de\"]\nTHIAO_JOB=\"7\"");
    let vm = id(&call(&oned, "one.vm.allocate", &[S(&text), B(true)])).unwrap();
    let shown = call(&oned, "one.vm.info", &[I(vm.into())]);
    let (template, user_template) = shown.split_once("USER_TEMPLATE").unwrap();
    assert_eq!(
        template.matches("VENDOR&gt;&lt;![CDATA[10de]]").count(),
        2,
        "{shown}"
    );
    assert!(user_template.contains("THIAO_JOB"), "{shown}");
    let refused = call_as(&oned, "slurm:pw", "one.vm.allocate", &[S(&text), B(true)]);
    assert!(
        refused.contains("VM Template includes a restricted attribute PCI"),
        "{refused}"
    );
}

/// Thiao's own provider, whose one node is made from the template `worker`.
fn provider(oned: &Oned, dir: &std::path::Path) -> thiao_opennebula::OpenNebula {
    use std::os::unix::fs::PermissionsExt;
    use thiao_opennebula::settings::{Access, Guest, Placement, ReadyBy, TemplateSource, VmSource};
    let auth = dir.join("one_auth");
    std::fs::write(&auth, "oneadmin:opennebula").unwrap();
    std::fs::set_permissions(&auth, PermissionsExt::from_mode(0o600)).unwrap();
    let set = NodesetName::new("n").unwrap();
    let source = VmSource {
        template: TemplateSource::Registered("worker".into()),
        networks: Vec::new(),
        gpu_pci: Some(vec![("VENDOR".into(), "10de".into())]),
        inputs: Default::default(),
        context: Vec::new(),
    };
    thiao_opennebula::OpenNebula::open(thiao_opennebula::Settings {
        cluster: ClusterName::new("prod").unwrap(),
        access: Access {
            endpoint: oned.endpoint(),
            auth,
            ca_file: None,
            timeout: Duration::from_secs(5),
            requests_per_second: 0,
            connections: 2,
        },
        placement: Placement::Thiao,
        hosts: vec![],
        host_cluster: None,
        ready: ReadyBy::Slurm,
        overhead_mb: 100,
        terminate_grace: std::time::Duration::from_secs(60),
        nodesets: [(set.clone(), source)].into(),
        nodes: [(NodeName::new("n0").unwrap(), set)].into(),
        guest: Guest {
            slurmctld_host: "head".into(),
            slurmctld_addr: "10.0.0.1".parse().unwrap(),
            slurmctld_port: 6817,
            backups: vec![],
            slurm_user: "slurm".to_owned(),
            credentials: None,
            users: vec![],
            shares: vec![],
            slurm_worker: false,
            context: Default::default(),
        },
        events: Default::default(),
        fence: None,
    })
    .unwrap()
}

/// As Thiao's provider asks for it.
#[test]
fn a_vm_of_a_job_is_what_the_job_asked_for() {
    let mut settings = site();
    let template = |name: &str, body: &str| TemplateSetup {
        name: name.into(),
        body: body.into(),
        public: true,
    };
    settings.templates = vec![
        template("worker", SMALL),
        template(
            "big",
            "DISK=[IMAGE=\"debian\",SIZE=\"900\"]\nPCI=[SHORT_ADDRESS=\"00:06.0\"]",
        ),
    ];
    let oned = Oned::start(settings).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(&oned, dir.path());
    let asks = |generation: u64, options: &str| {
        let tag = tag("prod", "n0", generation);
        let spec = VmSpec {
            shape: Shape {
                cpus: 3,
                memory_mb: 2560,
                share_percent: 25,
            },
            gpus: 2,
            job: Some(JobId(42)),
            owner: None,
            options: VmOptions::parse(options).unwrap(),
        };
        provider.create(&tag, &HostName::new("h0").unwrap(), &spec, false)
    };
    let vm: u32 = asks(1, "template=big image=0").unwrap().as_str().parse().unwrap();
    let seen = oned.vm(vm).unwrap();
    assert_eq!(
        (
            seen.tags["THIAO_JOB"].as_str(),
            seen.context["THIAO_JOB"].as_str()
        ),
        ("42", "42")
    );
    let shown = call(&oned, "one.vm.info", &[I(vm.into())]);
    // 2560 promised, 100 for the guest, 10 for the kernel's tables of what is above 2048.
    for part in [
        "CPU&gt;&lt;![CDATA[0.75]]",
        "VCPU&gt;&lt;![CDATA[3]]",
        "MEMORY&gt;&lt;![CDATA[2670]]",
        "IMAGE_ID&gt;&lt;![CDATA[0]]",
        "SIZE&gt;&lt;![CDATA[900]]",
        "SHORT_ADDRESS&gt;&lt;![CDATA[00:06.0]]",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert_eq!(
        shown.matches("VENDOR&gt;&lt;![CDATA[10de]]").count(),
        2,
        "{shown}"
    );
    assert!(!shown.contains("debian"), "{shown}");
    let error = asks(2, "template=huge").unwrap_err();
    assert!(
        error.text.starts_with("template huge of --vm-template: "),
        "{error}"
    );
    let error = asks(2, "image=9999").unwrap_err();
    let named =
        "Image with ID: 9999 does not exist. Correct the template. Its job names the image 9999 (--vm-image)";
    assert!(error.text.contains(named), "{error}");
}
