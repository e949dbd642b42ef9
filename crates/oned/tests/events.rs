//! What the bus says, against recordings of a real oned 7.4.0 with dummy drivers
//! (`crates/opennebula/tests/data/events`): topics, their order, and the XML in the bodies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod caller;
mod compare;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caller::{B, I, P, S, call, id, ok};
use compare::{Care, differences, parse};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use thiao_oned::{BusFaults, HostSetup, Oned, Settings, State, TemplateSetup};
use thiao_opennebula::events::link::Link;
use thiao_opennebula::events::zmtp::Message;
use thiao_testkit::wait::until;

fn site() -> Settings {
    let host = |n| HostSetup {
        name: format!("h{n}"),
        cpu_percent: 800,
        memory_mb: 16 * 1024,
        cluster: Default::default(),
    };
    let template = |name: &str| TemplateSetup {
        name: name.into(),
        body: "CPU=1\nMEMORY=512\nVCPU=1".into(),
        public: false,
    };
    Settings {
        bus: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        hosts: (1..5).map(host).collect(),
        templates: vec![template("node"), template("bare")],
        ..Settings::default()
    }
}

/// Topics and XML, as they were recorded.
fn recorded(step: &str) -> Vec<(String, String)> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../opennebula/tests/data/events/{step}.txt"));
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.chunks(2);
    pairs
        .map(|pair| (pair[0].to_owned(), xml(pair[1].as_bytes())))
        .collect()
}

fn xml(base64: &[u8]) -> String {
    String::from_utf8(STANDARD.decode(base64).unwrap()).unwrap()
}

/// So many messages, as they came.
fn heard(link: &mut Link, count: usize) -> Vec<(String, String)> {
    let mut all: Vec<Message> = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while all.len() < count && Instant::now() < until {
        all.extend(link.hear(Instant::now() + Duration::from_millis(50)).unwrap());
    }
    let of = |message: Message| {
        (
            String::from_utf8(message.topic).unwrap(),
            xml(&message.body.unwrap()),
        )
    };
    all.into_iter().map(of).collect()
}

/// What is not compared, and why.
fn care(path: &str) -> Care {
    let ends = |names: &[&str]| names.iter().any(|name| path.ends_with(&format!("/{name}")));
    // The recorded VM was renamed and given away before; ids of actions and times are the machine's.
    if ends(&["VM/NAME", "VM/GID", "VM/GNAME", "DEPLOY_ID"]) {
        return Care::Name;
    }
    // Who resumed it is not modelled, nor what a host was before, nor that a stay begins after it was placed.
    if ends(&[
        "HISTORY/ACTION",
        "HISTORY/UID",
        "HISTORY/GID",
        "HISTORY/STIME",
        "HISTORY/REQUEST_ID",
        "HOST/PREV_STATE",
    ]) {
        return Care::Name;
    }
    // Rights that were set by hand; READY, tags; devices that the dummy driver invents.
    if ends(&[
        "VM/PERMISSIONS",
        "VM/USER_TEMPLATE",
        "PCI_DEVICES",
        "NUMA_NODES",
        "LAST_POLL",
        "HOST/TEMPLATE",
    ]) {
        return Care::Name;
    }
    // The machine's type and UUID, and monitored values, which come when they come.
    if ends(&["TEMPLATE/OS", "VM/MONITORING"]) {
        return Care::Nothing;
    }
    let times = [
        "STIME", "ETIME", "PSTIME", "PETIME", "RSTIME", "RETIME", "ESTIME", "EETIME",
    ];
    if ends(&times) {
        return Care::Set;
    }
    Care::All
}

/// Makes the call, and compares what is said then; `in_order`: a real one says it in any.
fn compared(oned: &Oned, link: &mut Link, step: &str, method: &str, params: &[P<'_>], in_order: bool) {
    assert!(ok(&call(oned, method, params)), "{step}");
    let mut theirs = recorded(step);
    let mut ours = heard(link, theirs.len());
    if !in_order {
        theirs.sort();
        ours.sort();
    }
    let topics = |all: &[(String, String)]| all.iter().map(|(topic, _)| topic.clone()).collect::<Vec<_>>();
    assert_eq!(topics(&ours), topics(&theirs), "{step}");
    for ((topic, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        let found = differences(&parse(theirs), &parse(ours), &care);
        assert_eq!(found, Vec::<String>::new(), "{topic}");
    }
}

#[test]
fn what_is_published_is_what_a_real_one_publishes() {
    let oned = Oned::start(site()).unwrap();
    let mut link = Link::open(&oned.bus_address().unwrap()).unwrap();
    until("it is heard", || oned.is_heard());
    // The recorder's first VM had the number 1.
    assert!(ok(&call(
        &oned,
        "one.template.instantiate",
        &[I(1), S("evt0"), B(true), S(""), B(false)]
    )));
    heard(&mut link, 1);
    let act = |link: &mut Link, step: &str, action: &str| {
        compared(&oned, link, step, "one.vm.action", &[S(action), I(1)], true);
    };
    let tags = "THIAO_CLUSTER=\"c1\"";
    let made = [I(1), S("evt1"), B(true), S(tags), B(false)];
    compared(
        &oned,
        &mut link,
        "create-held",
        "one.template.instantiate",
        &made,
        true,
    );
    let deploy = [I(1), I(3), B(false), I(-1), S("")];
    compared(&oned, &mut link, "deploy", "one.vm.deploy", &deploy, true);
    let update = [I(1), S("THIAO_NODE=\"n1\"\nREADY=\"YES\""), I(1)];
    compared(&oned, &mut link, "update-append", "one.vm.update", &update, true);
    act(&mut link, "suspend", "suspend");
    act(&mut link, "resume", "resume");
    act(&mut link, "poweroff", "poweroff");
    compared(
        &oned,
        &mut link,
        "host-disable",
        "one.host.status",
        &[I(0), I(1)],
        true,
    );
}

#[test]
fn an_end_by_recover_is_told_in_any_order() {
    let oned = Oned::start(site()).unwrap();
    let mut link = Link::open(&oned.bus_address().unwrap()).unwrap();
    until("it is heard", || oned.is_heard());
    for number in 0..3 {
        let made = [I(1), S("evt"), B(true), S(""), B(false)];
        assert_eq!(id(&call(&oned, "one.template.instantiate", &made)), Ok(number));
    }
    assert!(ok(&call(
        &oned,
        "one.vm.deploy",
        &[I(2), I(3), B(false), I(-1), S("")]
    )));
    heard(&mut link, 7);
    let theirs: Vec<String> = recorded("recover-delete")
        .into_iter()
        .map(|(topic, _)| topic)
        .collect();
    assert!(
        theirs[0].contains("DONE"),
        "the real one says the end first: {theirs:?}"
    );
    assert!(ok(&call(&oned, "one.vm.recover", &[I(2), I(3)])));
    let mut ours: Vec<String> = heard(&mut link, 2).into_iter().map(|(topic, _)| topic).collect();
    ours.reverse();
    assert_eq!(ours, theirs);
}

#[test]
fn what_goes_wrong_on_demand_does() {
    let mut oned = Oned::start(site()).unwrap();
    let address = oned.bus_address().unwrap();
    let mut link = Link::open(&address).unwrap();
    until("it is heard", || oned.is_heard());
    let make = |oned: &Oned| {
        let made = [I(1), S("evt"), B(true), S(""), B(false)];
        assert!(ok(&call(oned, "one.template.instantiate", &made)));
    };
    // Each state is published by two topics, of which one is subscribed to.
    oned.bus_faults(BusFaults {
        drop: 3,
        ..BusFaults::default()
    });
    make(&oned);
    make(&oned);
    let heard_now = heard(&mut link, 1);
    assert_eq!(heard_now[0].0, "EVENT STATE VM/HOLD/LCM_INIT/1 ");
    oned.bus_faults(BusFaults {
        twice: true,
        delay: Duration::from_millis(50),
        ..BusFaults::default()
    });
    make(&oned);
    assert_eq!(heard(&mut link, 2).len(), 2);
    oned.bus_faults(BusFaults::default());
    oned.lie(2, State::Done);
    assert_eq!(heard(&mut link, 1)[0].0, "EVENT STATE VM/DONE/LCM_INIT/2 ");
    assert_eq!(oned.vm(2).unwrap().state, State::Hold);
    oned.close_bus();
    assert!(link.hear(Instant::now() + Duration::from_secs(10)).is_err());
    assert!(Link::open(&address).is_err());
    oned.open_bus().unwrap();
    Link::open(&address).unwrap();
}
