//! Replays what was said to a real oned 7.4.1 with dummy drivers, and compares the answers:
//! elements, their order and nesting, types, values, error codes and texts, states.
//!
//! The recordings are whole HTTP bodies, `NNN-name.{request,response}.xml`. What happened
//! between them (schedulers, drivers, calls that were not recorded) is done by `before`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod compare;

use compare::{Care, differences, parse};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_oned::{HostSetup, Lcm, NetworkSetup, Oned, Phase, Settings, State, TemplateSetup};
use thiao_testkit::wait::until_some;

/// Recordings that are not replayed, and why.
const LEFT_OUT: [(&str, &str); 1] =
    // Says what a second oned without ONEGATE_ENDPOINT says: a test of its own.
    [(
        "x01-template-instantiate-token-without-onegate-endpoint",
        "another configuration",
    )];

/// Recordings of which only success and the root element are compared, and why.
const ROOT_ONLY: [(&str, &str); 4] = [
    (
        "054-vm-monitoring",
        "the dummy drivers' random values are not played",
    ),
    (
        "055-vmpool-monitoring",
        "the dummy drivers' random values are not played",
    ),
    ("122-vmpool-accounting", "accounting is not modelled"),
    ("125-host-monitoring", "the number of samples depends on the time"),
];

/// What is not compared, and why. Paths are of elements; the longest ending that fits decides.
fn care(path: &str) -> Care {
    let within = |part: &str| path.contains(part);
    let ends = |names: &[&str]| names.iter().any(|name| path.ends_with(&format!("/{name}")));
    // Random values of the dummy monitoring driver, which come when they come.
    if ends(&[
        "VM/MONITORING",
        "HOST/MONITORING/CAPACITY",
        "HOST/MONITORING/SYSTEM",
    ]) {
        return Care::Name;
    }
    // Devices and topology that the dummy driver invents; nobody of us reads them.
    if ends(&["HOST_SHARE/PCI_DEVICES", "HOST_SHARE/NUMA_NODES"]) {
        return Care::Name;
    }
    if ends(&["HOST/MONITORING/NUMA_NODE"]) {
        return Care::Nothing;
    }
    // Words of the dummy driver about its own host.
    if within("/HOST/TEMPLATE/")
        && ends(&[
            "KVM_CPU_FEATURES",
            "KVM_CPU_MODELS",
            "MEMORY_ENCRYPTION",
            "MODELNAME",
        ])
    {
        return Care::Name;
    }
    // Digests and secrets.
    if ends(&["PASSWORD", "TOKEN_PASSWORD", "LOGIN_TOKEN/TOKEN"]) {
        return Care::Name;
    }
    // Leases packed into one number: nobody reads them.
    if ends(&["AR/ALLOCATED"]) {
        return Care::Name;
    }
    // The error of a failed driver starts with the date.
    if ends(&["USER_TEMPLATE/ERROR"]) {
        return Care::Set;
    }
    // When a VM was looked at last depends on the monitoring driver.
    if ends(&[
        "LAST_POLL",
        "OS/UUID",
        "REGTIME",
        "MONITORING/TIMESTAMP",
        "EXPIRATION_TIME",
    ]) {
        return Care::Name;
    }
    // The scheduler's own number of a placement within its plan.
    if ends(&["HISTORY/ACTION_ID"]) {
        return Care::Name;
    }
    // Clock times and random numbers: only whether they are there.
    let times = [
        "STIME",
        "ETIME",
        "PSTIME",
        "PETIME",
        "RSTIME",
        "RETIME",
        "ESTIME",
        "EETIME",
        "REQUEST_ID",
    ];
    if ends(&times) {
        return Care::Set;
    }
    // The dummy driver keeps its first name over migrations and renames; real drivers have
    // names of their own.
    if ends(&["DEPLOY_ID"]) {
        return Care::Set;
    }
    Care::All
}

fn world() -> Settings {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    Settings {
        hosts: (0..4)
            .map(|n| HostSetup { name: format!("dummy{n}"), cpu_percent: 800, memory_mb: 16 * 1024, cluster: Default::default() })
            .collect(),
        networks: vec![NetworkSetup {
            name: "cloud".into(),
            first: "10.0.0.10".parse().unwrap(),
            size: 20_000,
            template: text(&[
                ("DNS", "10.0.0.1"),
                ("GATEWAY", "10.0.0.1"),
                ("NETWORK_ADDRESS", "10.0.0.0"),
                ("NETWORK_MASK", "255.255.0.0"),
            ]),
            public: false, clusters: vec![0]
        }],
        templates: vec![
            TemplateSetup {
                name: "slurm-node".into(),
                body: "CPU=0.1\nVCPU=1\nMEMORY=64\nDISK=[IMAGE_ID=0]\nNIC=[NETWORK_ID=0]\n\
                       GRAPHICS=[TYPE=\"VNC\",LISTEN=\"127.0.0.1\"]\n\
                       CONTEXT=[NETWORK=\"YES\",SSH_PUBLIC_KEY=\"$USER[SSH_PUBLIC_KEY]\",REPORT_READY=\"YES\"]"
                    .into(),
                public: false,
            },
            TemplateSetup { name: "diskless".into(), body: "CPU=0.1\nVCPU=1\nMEMORY=64".into(), public: false },
        ],
        onegate_endpoint: Some("http://127.0.0.1:5030".into()),
        ..Settings::default()
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(data())
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".request.xml")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

fn recorded(name: &str, what: &str) -> String {
    std::fs::read_to_string(data().join(format!("{name}.{what}.xml"))).unwrap()
}

fn say(oned: &Oned, body: &str) -> String {
    let endpoint = oned.endpoint();
    let address = endpoint.trim_start_matches("http://").trim_end_matches("/RPC2");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// A call that was not recorded.
fn unrecorded(oned: &Oned, method: &str, params: &str) {
    let answer = say(
        oned,
        &format!(
            "<methodCall><methodName>{method}</methodName><params>\
             <param><value><string>oneadmin:opennebula</string></value></param>{params}</params></methodCall>"
        ),
    );
    assert!(answer.contains("<boolean>1</boolean>"), "{method}: {answer}");
}

fn reaches(oned: &Oned, vm: u32, state: State) {
    until_some(
        Duration::from_secs(60),
        Duration::from_millis(1),
        || format!("VM {vm} in {state:?}: {:?}", oned.vm(vm)),
        || oned.vm(vm).filter(|vm| vm.state == state),
    );
}

const RUNNING: State = State::Active(Lcm::Running);
const FAILED: State = State::Active(Lcm::BootFailure);

/// A VM as the recorder made them, held and deployed to host 0.
fn deployed(oned: &Oned, vm: u32, name: &str, fails: bool) {
    let text = format!("NAME={name}\nCPU=0.1\nMEMORY=64");
    let value = |kind: &str, text: &str| format!("<param><value><{kind}>{text}</{kind}></value></param>");
    unrecorded(
        oned,
        "one.vm.allocate",
        &(value("string", &text) + &value("boolean", "1")),
    );
    if fails {
        oned.fail_phase(vm, Phase::Boot, &format!("DEPLOY: dummy0:{name}:dummy"));
    }
    unrecorded(
        oned,
        "one.vm.deploy",
        &(value("int", &vm.to_string()) + &value("int", "0")),
    );
    reaches(oned, vm, if fails { FAILED } else { RUNNING });
}

/// What happened before that recording, beside the recorded calls.
fn before(oned: &Oned, number: &str) {
    match number {
        "039" => {
            oned.hold_phase(Phase::Prolog);
            oned.hold_phase(Phase::Boot);
        }
        "040" => reaches(oned, 1, State::Active(Lcm::Prolog)),
        "041" => {
            oned.let_phase(Phase::Prolog);
            reaches(oned, 1, State::Active(Lcm::Boot));
        }
        "044" => {
            oned.let_phase(Phase::Boot);
            reaches(oned, 1, RUNNING);
        }
        "046" => {
            oned.schedule(0, 3);
            oned.schedule(2, 2);
            reaches(oned, 0, RUNNING);
            reaches(oned, 2, RUNNING);
        }
        "058" => oned.hold_phase(Phase::Migrate),
        "060" => {
            oned.let_phase(Phase::Migrate);
            reaches(oned, 1, RUNNING);
        }
        "065" | "068" | "071" | "073" => reaches(oned, 1, RUNNING),
        "066" => reaches(oned, 1, State::Suspended),
        "069" | "072" => reaches(oned, 1, State::Poweroff),
        "074" => reaches(oned, 1, State::Stopped),
        "077" | "080" => {
            oned.schedule(1, 3);
            reaches(oned, 1, RUNNING);
        }
        "078" => reaches(oned, 1, State::Undeployed),
        "084" => deployed(oned, 7, "rec-fail", true),
        "085" | "087" => oned.fail_phase(7, Phase::Boot, "DEPLOY: dummy0:rec-fail:dummy"),
        "086" | "088" => reaches(oned, 7, FAILED),
        "091" => reaches(oned, 7, State::Pending),
        "094" => deployed(oned, 8, "rec-fail2", true),
        "095" => {
            reaches(oned, 8, State::Done);
            deployed(oned, 9, "rec-shutfail", false);
            oned.ignore_shutdown(9);
        }
        "096" => reaches(oned, 9, RUNNING),
        "097" => oned.hold_phase(Phase::Shutdown),
        "101" => {
            oned.let_phase(Phase::Shutdown);
            reaches(oned, 9, State::Done);
        }
        "153" => oned.hold_phase(Phase::Epilog),
        "154" => reaches(oned, 0, State::Active(Lcm::Epilog)),
        "155" => {
            oned.let_phase(Phase::Epilog);
            reaches(oned, 0, State::Done);
        }
        _ => {}
    }
}

/// oned's words about what its generated parser expected are not ours: compared up to there.
fn without_parser_words(text: &str) -> String {
    match text.find("Parse error: ") {
        Some(at) => {
            let (head, tail) = text.split_at(at + "Parse error: ".len());
            let rest = tail.find("</string>").map_or("", |end| &tail[end..]);
            format!("{head}...{rest}")
        }
        None => text.to_owned(),
    }
}

#[test]
fn every_recorded_answer_is_ours_too() {
    let oned = Oned::start(world()).unwrap();
    let mut tokens: Vec<(String, String)> = Vec::new();
    let mut wrong = Vec::new();
    let mut replayed = 0;
    for name in names() {
        if LEFT_OUT.iter().any(|(left, _)| *left == name) {
            continue;
        }
        before(&oned, &name[..3]);
        let mut request = recorded(&name, "request");
        for (theirs, ours) in &tokens {
            request = request.replace(theirs, ours);
        }
        let (mut theirs, ours) = (recorded(&name, "response"), say(&oned, &request));
        if name.starts_with("m01") {
            // Recorded on another day, after many more VMs.
            theirs = theirs.replace("<i4>1884</i4>", "<i4>11</i4>");
        }
        let (theirs, ours) = (without_parser_words(&theirs), without_parser_words(&ours));
        let (mut theirs, mut ours) = (parse(&theirs), parse(&ours));
        if name == "151-user-login-token" {
            tokens.push((take_string(&mut theirs), take_string(&mut ours)));
        }
        let root_only = ROOT_ONLY.iter().any(|(other, _)| *other == name);
        let found = differences(&theirs, &ours, &|path| {
            // .../string/ROOT/anything
            let below = path
                .split("/string/")
                .nth(1)
                .is_some_and(|rest| rest.contains('/'));
            if root_only && below {
                Care::Nothing
            } else {
                care(path)
            }
        });
        replayed += 1;
        wrong.extend(
            found
                .into_iter()
                .map(|difference| format!("{name}: {difference}")),
        );
    }
    assert!(replayed > 160, "only {replayed} were replayed");
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Takes the first string's value out: tokens are random.
fn take_string(node: &mut compare::Node) -> String {
    if node.name == "string" {
        return std::mem::take(&mut node.text);
    }
    node.children
        .iter_mut()
        .map(take_string)
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

#[test]
fn without_an_endpoint_for_onegate_tokens_are_refused() {
    let oned = Oned::start(Settings {
        onegate_endpoint: None,
        ..world()
    })
    .unwrap();
    let name = "x01-template-instantiate-token-without-onegate-endpoint";
    let ours = say(&oned, &recorded(name, "request"));
    let found = differences(&parse(&recorded(name, "response")), &parse(&ours), &care);
    assert!(found.is_empty(), "{found:?}");
}

/// The comparison itself: every change of an answer must be seen, or be one of those that are
/// not compared.
#[test]
fn a_changed_answer_is_noticed() {
    let mut compared = 0;
    let mut changed = 0;
    for name in names() {
        let theirs = parse(&recorded(&name, "response"));
        let inner = find_xml(&theirs);
        let tree = inner.as_ref().unwrap_or(&theirs);
        // Each change compares the whole tree: the few big ones show nothing more.
        if count(tree) > 80 {
            continue;
        }
        for at in 0..count(tree) {
            for change in [remove as fn(&mut compare::Node, usize), double, rename] {
                let mut other = tree.clone();
                change(&mut other, at);
                changed += 1;
                if !differences(tree, &other, &care).is_empty() {
                    compared += 1;
                }
            }
        }
    }
    // Devices, topologies and monitoring are many elements in few answers.
    assert!(
        compared * 100 > changed * 45,
        "only {compared} of {changed} changes were noticed"
    );
    // In an answer without any of those, nothing goes unseen.
    let tree = find_xml(&parse(&recorded("108-vmpool-info-state-hold", "response"))).unwrap();
    for at in 1..count(&tree) {
        let mut other = tree.clone();
        rename(&mut other, at);
        assert!(
            !differences(&tree, &other, &care).is_empty(),
            "element {at} may have any name"
        );
        let mut other = tree.clone();
        remove(&mut other, at);
        assert!(
            !differences(&tree, &other, &care).is_empty(),
            "element {at} may be missing"
        );
    }
}

#[test]
fn changed_states_codes_texts_and_types_are_noticed() {
    for (name, from, to) in [
        ("044-vm-info-running", "LCM_STATE&gt;3", "LCM_STATE&gt;2"),
        (
            "042-vm-action-terminate-in-boot",
            "<i4>2048</i4>",
            "<i4>1024</i4>",
        ),
        (
            "042-vm-action-terminate-in-boot",
            "wrong state BOOT",
            "wrong state PROLOG",
        ),
        ("042-vm-action-terminate-in-boot", "<i8>-1</i8>", "<i4>-1</i4>"),
        ("013-vm-allocate-hold", "<i4>3</i4>", "<string>3</string>"),
        ("023-bad-auth", "<boolean>0</boolean>", "<boolean>1</boolean>"),
        ("026-fault-no-such-method", "-506", "-501"),
        ("121-vmpool-infoset-extended", "cloud-7", "cloud-8"),
        (
            "060-vm-info-after-live-migrate",
            "RETIME&gt;1795418739",
            "RETIME&gt;0",
        ),
    ] {
        let theirs = recorded(name, "response");
        let changed = theirs.replacen(from, to, 1);
        assert_ne!(theirs, changed, "{name} does not hold {from}");
        assert!(
            !differences(&parse(&theirs), &parse(&changed), &care).is_empty(),
            "{name}: {from} -> {to}"
        );
    }
}

fn find_xml(node: &compare::Node) -> Option<compare::Node> {
    if node.name == "string" && node.text.starts_with('<') {
        return Some(parse(&node.text));
    }
    node.children.iter().find_map(find_xml)
}

fn count(node: &compare::Node) -> usize {
    1 + node.children.iter().map(count).sum::<usize>()
}

/// Changes the element of that number, the root being 0, in its parent's list.
fn edit(node: &mut compare::Node, at: &mut usize, change: &dyn Fn(&mut Vec<compare::Node>, usize)) -> bool {
    for index in 0..node.children.len() {
        *at -= 1;
        if *at == 0 {
            change(&mut node.children, index);
            return true;
        }
        if edit(&mut node.children[index], at, change) {
            return true;
        }
    }
    false
}

fn remove(node: &mut compare::Node, mut at: usize) {
    if at == 0 {
        node.name.push('X')
    } else {
        edit(node, &mut at, &|list, index| drop(list.remove(index)));
    }
}

fn double(node: &mut compare::Node, mut at: usize) {
    if at == 0 {
        node.name.push('X')
    } else {
        edit(node, &mut at, &|list, index| {
            list.insert(index, list[index].clone())
        });
    }
}

fn rename(node: &mut compare::Node, mut at: usize) {
    if at == 0 {
        node.name.push('X')
    } else {
        edit(node, &mut at, &|list, index| list[index].name.push('X'));
    }
}
