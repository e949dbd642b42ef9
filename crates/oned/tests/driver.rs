//! Real machines behind the stand-in: what they do decides what oned shows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiao_oned::machines::{Machines, Seen, VmSpec};
use thiao_oned::{HostSetup, Lcm, NetworkSetup, Oned, Phase, Settings, State};
use thiao_testkit::wait::until;

/// Machines that are only noted down.
#[derive(Default)]
struct Noted(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    specs: BTreeMap<u32, VmSpec>,
    seen: BTreeMap<u32, Seen>,
    /// Guests that overhear soft shutdowns.
    deaf: BTreeSet<u32>,
    /// What every start fails with.
    broken: Option<String>,
    removed: Vec<u32>,
    /// Those that stand still.
    saved: BTreeSet<u32>,
}

impl Machines for Noted {
    fn start(&self, spec: &VmSpec) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        if let Some(text) = &inner.broken {
            return Err(text.clone());
        }
        inner.specs.insert(spec.id, spec.clone());
        inner.seen.insert(spec.id, Seen::Running);
        Ok(())
    }

    fn stop(&self, id: u32, hard: bool) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        if (hard || !inner.deaf.contains(&id))
            && let Some(seen) = inner.seen.get_mut(&id)
        {
            *seen = Seen::Ended;
        }
        Ok(())
    }

    fn save(&self, id: u32) -> Result<(), String> {
        self.0.lock().unwrap().saved.insert(id);
        Ok(())
    }

    fn restore(&self, spec: &VmSpec) -> Result<(), String> {
        let was = self.0.lock().unwrap().saved.remove(&spec.id);
        match was {
            true => Ok(()),
            false => Err("nothing is saved of it".to_owned()),
        }
    }

    fn remove(&self, id: u32) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        inner.seen.remove(&id);
        inner.removed.push(id);
        Ok(())
    }

    fn poll(&self) -> Vec<(u32, Seen)> {
        self.0
            .lock()
            .unwrap()
            .seen
            .iter()
            .map(|(id, seen)| (*id, seen.clone()))
            .collect()
    }
}

fn start(shutdown_timeout: Duration) -> (Oned, Arc<Noted>) {
    let machines = Arc::new(Noted::default());
    let template = [("NETWORK_MASK", "255.255.255.0"), ("GATEWAY", "10.0.0.1")];
    let oned = Oned::start(Settings {
        hosts: vec![HostSetup {
            name: "h0".into(),
            cpu_percent: 800,
            memory_mb: 8192,
            cluster: Default::default(),
        }],
        networks: vec![NetworkSetup {
            name: "cloud".into(),
            first: "10.0.0.10".parse().unwrap(),
            size: 10,
            template: template
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            public: true,
            clusters: vec![0],
        }],
        onegate: Some("127.0.0.1:0".parse().unwrap()),
        machines: Some(machines.clone()),
        shutdown_timeout,
        poll: Duration::from_millis(2),
        ..Settings::default()
    })
    .unwrap();
    (oned, machines)
}

fn say(oned: &Oned, method: &str, params: &[(&str, &str)]) {
    let mut body = format!(
        "<methodCall><methodName>{method}</methodName><params><param><value><string>oneadmin:opennebula</string></value></param>"
    );
    for (kind, text) in params {
        body.push_str(&format!("<param><value><{kind}>{text}</{kind}></value></param>"));
    }
    body.push_str("</params></methodCall>");
    let endpoint = oned.endpoint();
    let address = endpoint.trim_start_matches("http://").trim_end_matches("/RPC2");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /RPC2 HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("<boolean>1</boolean>"), "{method}: {answer}");
}

/// Makes VM 0 and deploys it.
fn deployed(oned: &Oned) {
    let text = "NAME=a\nCPU=0.5\nVCPU=2\nMEMORY=512\nTHIAO_NODE=n1\nNIC=[NETWORK=cloud]\n\
                CONTEXT=[NETWORK=YES,TOKEN=YES,SET_HOSTNAME=n1]";
    say(oned, "one.vm.allocate", &[("string", text), ("boolean", "1")]);
    say(
        oned,
        "one.vm.deploy",
        &[("int", "0"), ("int", "0"), ("boolean", "1")],
    );
}

fn act(oned: &Oned, action: &str) {
    say(oned, "one.vm.action", &[("string", action), ("int", "0")]);
}

fn reaches(oned: &Oned, state: State) {
    until(&format!("{state:?}"), || {
        oned.vm(0).is_some_and(|vm| vm.state == state)
    });
}

const RUNNING: State = State::Active(Lcm::Running);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_machine_is_told_all_that_its_guest_needs() {
    let (oned, machines) = start(LONG);
    deployed(&oned);
    reaches(&oned, RUNNING);
    let spec = machines.0.lock().unwrap().specs[&0].clone();
    assert_eq!(
        (spec.host.as_str(), spec.vcpu, spec.cpu_percent, spec.memory_mb),
        ("h0", 2, 50, 512)
    );
    assert_eq!(spec.user_template["THIAO_NODE"], "n1");
    assert_eq!(spec.context["SET_HOSTNAME"], "n1");
    assert_eq!(spec.context["ETH0_IP"], "10.0.0.10");
    assert_eq!(spec.context["ONEGATE_ENDPOINT"], oned.onegate_endpoint().unwrap());
    assert_eq!(spec.onegate_token, oned.vm(0).unwrap().onegate_token);
    assert!(spec.onegate_token.is_some());
    let nic = &spec.nics[0];
    assert_eq!(
        (nic.ip.to_string().as_str(), nic.mac.as_str()),
        ("10.0.0.10", "02:00:0a:00:00:0a")
    );
    assert_eq!(nic.mask, Some("255.255.255.0".parse().unwrap()));
    assert_eq!(nic.gateway, Some("10.0.0.1".parse().unwrap()));
}

#[test]
fn a_terminated_machine_is_ended_and_removed() {
    let (oned, machines) = start(LONG);
    deployed(&oned);
    reaches(&oned, RUNNING);
    act(&oned, "terminate");
    reaches(&oned, State::Done);
    assert_eq!(machines.0.lock().unwrap().removed, [0]);
}

#[test]
fn a_machine_that_ends_by_itself_becomes_poweroff_and_starts_again_on_resume() {
    let (oned, machines) = start(LONG);
    deployed(&oned);
    reaches(&oned, RUNNING);
    machines.0.lock().unwrap().seen.insert(0, Seen::Ended);
    reaches(&oned, State::Poweroff);
    act(&oned, "resume");
    reaches(&oned, RUNNING);
    assert_eq!(machines.0.lock().unwrap().seen[&0], Seen::Running);
}

#[test]
fn a_guest_that_overhears_the_shutdown_runs_on_until_it_is_ended_hard() {
    let (oned, machines) = start(Duration::from_millis(20));
    machines.0.lock().unwrap().deaf.insert(0);
    deployed(&oned);
    reaches(&oned, RUNNING);
    act(&oned, "terminate");
    reaches(&oned, RUNNING);
    assert_eq!(machines.0.lock().unwrap().seen[&0], Seen::Running);
    act(&oned, "terminate-hard");
    reaches(&oned, State::Done);
}

#[test]
fn a_machine_that_does_not_start_is_a_boot_failure_with_its_words() {
    let (oned, machines) = start(LONG);
    machines.0.lock().unwrap().broken = Some("no such image".into());
    deployed(&oned);
    reaches(&oned, State::Active(Lcm::BootFailure));
    until("its words", || {
        oned.vm(0)
            .unwrap()
            .tags
            .get("ERROR")
            .is_some_and(|text| text.contains("no such image"))
    });
    machines.0.lock().unwrap().broken = None;
    say(&oned, "one.vm.recover", &[("int", "0"), ("int", "2")]);
    reaches(&oned, RUNNING);
}

#[test]
fn a_vm_deleted_in_boot_leaves_no_machine() {
    let (oned, machines) = start(LONG);
    oned.hold_phase(Phase::Boot);
    deployed(&oned);
    reaches(&oned, State::Active(Lcm::Boot));
    say(&oned, "one.vm.recover", &[("int", "0"), ("int", "3")]);
    oned.let_phase(Phase::Boot);
    reaches(&oned, State::Done);
    assert!(machines.0.lock().unwrap().seen.is_empty());
}

/// Its memory is kept, whichever way it is saved: it never starts anew.
#[test]
fn a_machine_that_is_saved_goes_on_where_it_was() {
    let (oned, machines) = start(LONG);
    deployed(&oned);
    reaches(&oned, RUNNING);
    machines.0.lock().unwrap().specs.clear();
    for (action, state) in [("suspend", State::Suspended), ("stop", State::Stopped)] {
        act(&oned, action);
        reaches(&oned, state);
        assert_eq!(machines.0.lock().unwrap().saved, BTreeSet::from([0]));
        act(&oned, "resume");
        if state == State::Stopped {
            oned.schedule(0, 0);
        }
        reaches(&oned, RUNNING);
        assert!(machines.0.lock().unwrap().saved.is_empty());
    }
    let inner = machines.0.lock().unwrap();
    assert!(
        inner.specs.is_empty() && inner.removed.is_empty(),
        "it was started anew"
    );
}
