use super::*;
use thiao_opennebula::settings::{Bus, Placement, ReadyBy, TemplateSource};
use thiao_qemu::Credentials;

const SMALL: &str = r#"
cluster = "lab"
provider = "opennebula"
[[nodeset]]
name = "fg"
nodes = "fg[0-7]"
memory_mb = 200
template = "slurm worker"
[opennebula]
slurmctld_addr = "10.0.0.1"
"#;

fn settings(text: &str) -> thiao_opennebula::Settings {
    match read(text) {
        Ok(loaded) => loaded.config.provider.opennebula().unwrap().clone(),
        Err(e) => panic!("{e}\n{text}"),
    }
}

/// The small file with this line in `[opennebula]`, and what follows it.
#[track_caller]
fn refuses(added: &str, expected: &str) {
    let problems = wrong(&format!("{SMALL}{added}"));
    assert!(
        problems.contains(expected),
        "{added}\ngave\n{problems}\nwithout\n{expected}"
    );
}

#[test]
fn few_keys_are_enough() {
    let loaded = read(SMALL).unwrap_or_else(|e| panic!("{e}"));
    let one = loaded.config.provider.opennebula().unwrap();
    assert_eq!(one.access.endpoint, "http://localhost:2633/RPC2");
    assert_eq!(one.access.auth, Path::new("/home/me/.one/one_auth"));
    assert_eq!((one.access.requests_per_second, one.access.connections), (30, 8));
    assert_eq!(one.access.timeout, Duration::from_secs(30));
    assert_eq!((one.placement, one.ready), (Placement::Thiao, ReadyBy::Slurm));
    let munge = Credentials::Munge {
        key: "/etc/munge/munge.key".into(),
        socket: "/run/munge/munge.socket.2".into(),
    };
    assert_eq!(one.guest.credentials, Some(munge));
    assert_eq!(one.nodes.len(), 8);
    let set = &one.nodesets[&NodesetName::new("fg").unwrap()];
    assert_eq!(
        (&set.template, &set.networks),
        (&TemplateSource::Registered("slurm worker".into()), &Vec::new())
    );
    // What fits many hosts, and a front-end that takes 30 calls a second.
    let config = &loaded.config;
    assert_eq!(config.policy.max_starting, 1000);
    assert_eq!(config.policy.boot_timeout.0, 300_000);
    assert_eq!(config.timing.vm_poll, Duration::from_secs(10));
    assert_eq!(config.timing.vm_poll_busy, Duration::from_secs(1));
    assert_eq!(config.policy.max_vms, Policy::default().max_vms);
}

/// Every key that there is.
const EVERYTHING: &str = r#"
cluster = "lab"
provider = "opennebula"
[[nodeset]]
name = "a"
nodes = "a[1-2]"
memory_mb = 200
template_file = "/etc/thiao/a.one"
network = "slurm net"
[[nodeset]]
name = "b"
nodes = "b[1-2]"
memory_mb = 200
template_dir = "/etc/thiao/vms"
[timing]
opennebula_timeout = 5
terminate_grace = 90
[opennebula]
endpoint = "https://front.example:2634/RPC2"
auth = "/etc/thiao/one_auth"
ca_file = "/etc/ssl/one.pem"
requests_per_second = 0
connections = 15
events = "tcp://events.example:2111"
events_poll = 20
placement = "opennebula"
hosts = ["h1", "h2"]
host_cluster = "default"
ready = "onegate"
slurmctld_host = "ctl"
slurmctld_addr = "10.1.2.3"
slurmctld_port = 7000
munge_key = ""
munge_socket = "/s"
[[opennebula.user]]
name = "alice"
uid = 1000
gid = 1001
[[opennebula.share]]
server = "10.1.2.4"
path = "/export/home"
target = "/home"
[[opennebula.share]]
server = "10.1.2.5"
port = 4000
path = "/sw"
[opennebula.context]
SSH_PUBLIC_KEY = "$USER[SSH_PUBLIC_KEY]"
SITE_1 = "a \"b\"\nc"
"#;

#[test]
fn everything_can_be_said() {
    let loaded = read(EVERYTHING).unwrap_or_else(|e| panic!("{e}"));
    let one = loaded.config.provider.opennebula().unwrap();
    assert_eq!(one.access.timeout, Duration::from_secs(5));
    assert_eq!(loaded.config.policy.terminate_grace.0, 90_000);
    assert_eq!(
        (one.placement, one.ready),
        (Placement::OpenNebula, ReadyBy::OneGate)
    );
    assert_eq!(
        one.hosts.iter().map(|h| h.as_str()).collect::<Vec<_>>(),
        ["h1", "h2"]
    );
    // All hosts have one name for us then.
    assert_eq!(
        loaded.config.policy.max_vms_per_host,
        loaded.config.policy.max_vms
    );
    assert_eq!(one.events.bus, Bus::At("events.example:2111".to_owned()));
    assert_eq!(one.events.poll, Duration::from_secs(20));
    assert_eq!(one.guest.credentials, None);
    assert_eq!(one.guest.users[0].name, "alice");
    let shares = &one.guest.shares;
    assert_eq!(
        (shares[0].port, shares[0].target.as_path()),
        (2049, Path::new("/home"))
    );
    assert_eq!(
        (shares[1].port, shares[1].target.as_path()),
        (4000, Path::new("/sw"))
    );
    assert_eq!(one.guest.context["SITE_1"], "a \"b\"\nc");
    assert_eq!(one.guest.context.len(), 2);

    // What is shown is a file that gives the same settings.
    let shown = loaded.show();
    let again = read(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    assert!(
        shown.contains("[opennebula.context]\nSITE_1 = ") && shown.contains("munge_key = \"\" "),
        "{shown}"
    );
}

#[test]
fn the_environment_gives_defaults_and_is_named() {
    let machine = resolve::Machine {
        one_xmlrpc: Some("http://front:2633/RPC2".into()),
        one_auth: Some("/run/one_auth".into()),
        ..machine()
    };
    let parsed = |text: &str, machine: &resolve::Machine| parse(Path::new("thiao.toml"), text, machine);
    let loaded = parsed(SMALL, &machine).unwrap_or_else(|e| panic!("{e}"));
    let access = &loaded.config.provider.opennebula().unwrap().access;
    assert_eq!(access.endpoint, "http://front:2633/RPC2");
    assert_eq!(access.auth, Path::new("/run/one_auth"));
    let origin = |shown: &str, key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
        line.rsplit_once(" # ").unwrap().1.to_owned()
    };
    let shown = loaded.show();
    assert_eq!(origin(&shown, "endpoint"), "from $ONE_XMLRPC");
    assert_eq!(origin(&shown, "auth"), "from $ONE_AUTH");
    let plain = read(SMALL).unwrap_or_else(|e| panic!("{e}")).show();
    assert_eq!(origin(&plain, "endpoint"), "default");
    assert_eq!(origin(&plain, "auth"), "from $HOME");

    // The file's word goes first, and what is not taken from the environment is not checked.
    let written = format!("{SMALL}endpoint = \"http://b/RPC2\"\nauth = \"/a\"\n");
    let odd = resolve::Machine {
        one_xmlrpc: Some("front".into()),
        one_auth: Some("one_auth".into()),
        ..machine
    };
    let loaded = parsed(&written, &odd).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        loaded.config.provider.opennebula().unwrap().access.endpoint,
        "http://b/RPC2"
    );
    assert!(origin(&loaded.show(), "endpoint").starts_with("line "));

    let said = |machine: &resolve::Machine| parsed(SMALL, machine).err().unwrap().to_string();
    let problems = said(&odd);
    assert!(
        problems.contains("opennebula.endpoint: $ONE_XMLRPC is \"front\": write it as http://localhost"),
        "{problems}"
    );
    assert!(
        problems
            .contains("opennebula.auth: $ONE_AUTH or $HOME gives one_auth, which is not an absolute path"),
        "{problems}"
    );
    let nowhere = resolve::Machine {
        one_auth: None,
        one_xmlrpc: None,
        home: None,
        ..odd
    };
    let problems = said(&nowhere);
    assert!(problems.contains("opennebula.auth: is missing"), "{problems}");
}

#[test]
fn the_embedded_provider_does_not_read_the_environment_of_opennebula() {
    let machine = resolve::Machine {
        one_xmlrpc: Some("nonsense".into()),
        one_auth: Some("nonsense".into()),
        home: None,
        ..machine()
    };
    assert!(parse(Path::new("thiao.toml"), GOOD, &machine).is_ok());
}

#[test]
fn what_belongs_to_the_other_provider_is_refused() {
    check(
        "[opennebula]\nslurmctld_addr = '10.0.0.1'",
        "thiao.toml:8: opennebula: has no effect as long as the provider is qemu: write provider = \"opennebula\"",
    );
    refuses(
        "[qemu]\nwarm = true",
        "qemu: has no effect with provider = \"opennebula\": remove this table",
    );
    let qemu = |added: &str| {
        wrong(&format!(
            "provider = 'qemu'\ncluster = 'lab'\n[[nodeset]]\nname='a'\nnodes='a1'\nmemory_mb=99\n{added}"
        ))
    };
    for (added, expected) in [
        (
            "[opennebula]\nauth = '/x'",
            "thiao.toml:7: opennebula: has no effect with provider = \"qemu\"",
        ),
        ("template = 'x'", "nodeset.template: has no effect with provider"),
        ("template_file = '/x'", "nodeset.template_file: has no effect"),
        ("template_dir = '/x'", "nodeset.template_dir: has no effect"),
        ("network = 'x'", "nodeset.network: has no effect"),
        (
            "[timing]\nopennebula_timeout = 3",
            "timing.opennebula_timeout: has no effect",
        ),
    ] {
        let problems = qemu(added);
        assert!(problems.contains(expected), "{problems}");
        // And nothing else: it is no typo, and the table is not read.
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
    let odd = wrong(&GOOD.replacen("cluster", "provider = 'kvm'\ncluster", 1));
    assert!(
        odd.contains("provider: \"kvm\" is not possible: use qemu or opennebula"),
        "{odd}"
    );
}

#[test]
fn events_are_listened_to_where_they_usually_are() {
    let bus = |added: &str| {
        let text = SMALL.replacen("[opennebula]\n", &format!("[opennebula]\n{added}\n"), 1);
        settings(&text).events.bus
    };
    for (endpoint, there) in [
        ("http://localhost:2633/RPC2", "localhost:2101"),
        ("https://one.example.org/RPC2", "one.example.org:2101"),
        ("http://[2001:db8::1]:2633/RPC2", "[2001:db8::1]:2101"),
        ("http://[2001:db8::1]/RPC2", "[2001:db8::1]:2101"),
    ] {
        let added = format!("endpoint = {endpoint:?}");
        assert_eq!(bus(&added), Bus::Usual(there.to_owned()), "{endpoint}");
    }
    assert_eq!(bus("events = 'off'"), Bus::Off);
    assert_eq!(bus("events = 'tcp://b:1'"), Bus::At("b:1".to_owned()));
    for odd in [
        "on",
        "tcp://b",
        "tcp://:2101",
        "tcp://b:0",
        "tcp://b:x",
        "tcp://b/c:1",
        "http://b:1",
    ] {
        let text = SMALL.replacen("[opennebula]\n", &format!("[opennebula]\nevents = {odd:?}\n"), 1);
        let problems = wrong(&text);
        assert!(problems.contains("opennebula.events: "), "{odd}: {problems}");
    }
    let text = SMALL.replacen("[opennebula]\n", "[opennebula]\nevents_poll = 61\n", 1);
    let problems = wrong(&text);
    assert!(
        problems.contains("opennebula.events_poll: is longer than"),
        "{problems}"
    );
}

#[test]
fn a_nodeset_has_one_source() {
    let without = SMALL.replace("template = \"slurm worker\"\n", "");
    let problems = wrong(&without);
    assert!(
        problems.contains("nodeset.template: is missing: name a template"),
        "{problems}"
    );
    let twice = SMALL.replace("memory_mb", "template_dir = '/x'\nmemory_mb");
    let problems = wrong(&twice);
    assert!(
        problems.contains("nodeset.template_dir: template is there too: use one of them"),
        "{problems}"
    );
    let by_file = SMALL.replace("template = \"slurm worker\"", "template_file = '/x.one'");
    assert_eq!(
        settings(&by_file)
            .nodesets
            .values()
            .next()
            .map(|s| s.template.clone()),
        Some(TemplateSource::File("/x.one".into()))
    );
    let problems = wrong(&SMALL.replace("slurm worker", " "));
    assert!(
        problems.contains("nodeset.template: \" \" is not possible"),
        "{problems}"
    );
}

#[test]
fn a_bad_value_is_named_with_what_would_be_right() {
    for (added, expected) in [
        (
            "endpoint = 'ftp://x/RPC2'",
            "opennebula.endpoint: \"ftp://x/RPC2\" is not possible: write it as http://localhost:2633/RPC2",
        ),
        ("endpoint = 'http:///RPC2'", "is not possible: write it as"),
        ("endpoint = 'http://a b/RPC2'", "is not possible: write it as"),
        ("endpoint = 'http://front:2633'", "is not possible: write it as"),
        (
            "endpoint = 'http://me:secret@x/RPC2'",
            "a URL is no place for a password",
        ),
        ("auth = 'one_auth'", "is not an absolute path"),
        (
            "munge_key = 'x'",
            "is not an absolute path in quotes, or \"\" for none",
        ),
        ("connections = 16", "16 is not a whole number from 1 to 15"),
        (
            "placement = 'me'",
            "opennebula.placement: \"me\" is not possible: use thiao or opennebula",
        ),
        ("ready = true", "opennebula.ready: true is not a text"),
        ("hosts = ['a b']", "opennebula.hosts: \"a b\" is not possible"),
        ("templat = 'x'", "there is no such key"),
        (
            "[opennebula.context]\nlower = 'x'",
            "thiao.toml:12: opennebula.context.lower: is no attribute's name",
        ),
        (
            "[opennebula.context]\nNETWORK = 'NO'",
            "opennebula.context.NETWORK: is written by Thiao itself",
        ),
        (
            "[opennebula.context]\nTHIAO_X = 'NO'",
            "opennebula.context.THIAO_X: is written by Thiao itself",
        ),
        (
            "[opennebula.context]\nONEAPP_LDAP_BIND_PASSWORD = 'NO'",
            "opennebula.context.ONEAPP_LDAP_BIND_PASSWORD: is no key for this file, which others may read",
        ),
        (
            "[opennebula.context]\nSTART_SCRIPT = 'NO'",
            "use START_SCRIPT_BASE64",
        ),
        (
            "[opennebula.context]\nX = 7",
            "opennebula.context.X: 7 is not a text; put it in quotes",
        ),
        (
            "context = 7",
            "opennebula.context: 7 is not a table of texts; write [opennebula.context]",
        ),
        (
            "[[opennebula.share]]\nserver = '10.0.0.1'",
            "opennebula.share.path: is missing",
        ),
    ] {
        refuses(added, expected);
    }
    let without = wrong(&SMALL.replace("slurmctld_addr = \"10.0.0.1\"", ""));
    assert!(
        without.contains("opennebula.slurmctld_addr: is missing: give the IPv4 address"),
        "{without}"
    );
}

#[test]
fn a_nodesets_vms_are_told_more_and_shown_so() {
    let lines = "memory_mb = 200\ncontext = { ONEAPP_SLURM_NFS_HOME = \"10.0.0.2:/home\" }\n";
    let loaded = read(&SMALL.replace("memory_mb = 200\n", lines)).unwrap_or_else(|e| panic!("{e}"));
    let one = loaded.config.provider.opennebula().unwrap();
    let told = [("ONEAPP_SLURM_NFS_HOME".to_owned(), "10.0.0.2:/home".to_owned())];
    assert_eq!(one.nodesets[&NodesetName::new("fg").unwrap()].context, told);
    let shown = loaded.show();
    let again = read(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    let wrong = wrong(&SMALL.replace(
        "memory_mb = 200\n",
        "memory_mb = 200\ncontext = { SET_HOSTNAME = \"x\" }\n",
    ));
    assert!(
        wrong.contains("context.SET_HOSTNAME: is written by Thiao itself"),
        "{wrong}"
    );
}

#[test]
fn a_gpu_is_said_as_opennebula_says_it() {
    let with = |lines: &str| SMALL.replace("memory_mb = 200\n", &format!("memory_mb = 200\n{lines}\n"));
    let one = settings(&with(
        "mode = \"job\"\ngpus = 2\ngpu_pci = { vendor = \"10de\", class = \"0302\" }",
    ));
    let set = &one.nodesets[&NodesetName::new("fg").unwrap()];
    let pairs =
        [("CLASS", "0302"), ("VENDOR", "10de")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(set.gpu_pci.as_deref(), Some(pairs.as_slice()));
    // None are none, said or not.
    let none = settings(&with("mode = \"job\"\ngpus = 0"));
    assert_eq!(none.nodesets[&NodesetName::new("fg").unwrap()].gpu_pci, None);
    for (lines, expected) in [
        ("mode = \"job\"\ngpus = 1", "gpu_pci: is missing: gpus is set"),
        (
            "gpu_pci = {}",
            "gpu_pci: says nothing: use vendor, device, class, ",
        ),
        (
            "gpu_pci = { vendor = \"nvidia\" }",
            "gpu_pci.vendor: \"nvidia\" is not possible",
        ),
        (
            "gpu_pci = { slot = \"1\" }",
            "gpu_pci.slot: is no attribute of a PCI device",
        ),
        (
            "gpu_pci = { short_address = \"02:00.0\", class = \"0302\" }",
            "gpu_pci: has short_address, which names one device",
        ),
    ] {
        let problems = wrong(&with(lines));
        assert!(problems.contains(expected), "{lines}\ngave\n{problems}");
    }
}

#[test]
fn a_nodeset_says_what_its_guests_are_given() {
    let with = |lines: &str| SMALL.replace("[opennebula]\n", &format!("{lines}\n[opennebula]\n"));
    let text = with(
        "[nodeset.nfs]\nhome = \"10.0.0.2:/export/home\"\nscratch = \"10.0.0.2:/export/scratch\"\n\
         [nodeset.ldap]\nurl = \"ldap://10.0.0.5\"\ndomain = \"example.org\"\nbind_user = \"reader\"\n\
         bind_password_file = \"/etc/thiao/ldap\"\n\
         [nodeset.infiniband]\nvendor = \"15b3\"\nclass = \"0207\"\nipoib_subnet = \"10.20.0.0/16\"",
    );
    let fg = NodesetName::new("fg").unwrap();
    let inputs = settings(&text).nodesets[&fg].inputs.clone();
    let told = inputs.attributes(None);
    assert_eq!(told.len(), 7, "{told:?}");
    assert_eq!(
        inputs.ldap.unwrap().password_file(),
        Some(Path::new("/etc/thiao/ldap"))
    );
    let card = [("VENDOR", "15b3"), ("CLASS", "0207")].map(|(key, text)| (key.to_owned(), text.to_owned()));
    assert_eq!(inputs.infiniband.unwrap().pci.as_deref(), Some(card.as_slice()));
    assert_eq!(settings(SMALL).nodesets[&fg].inputs, Default::default());
    // What is shown is a file again.
    let shown = read(&text).unwrap_or_else(|e| panic!("{e}")).show();
    assert!(
        shown.contains("[nodeset.nfs]\nhome = \"10.0.0.2:/export/home\""),
        "{shown}"
    );
    assert_eq!(settings(&shown).nodesets, settings(&text).nodesets);

    for (lines, expected) in [
        (
            "[nodeset.nfs]",
            "nodeset.nfs: says nothing: use home, scratch or both",
        ),
        (
            "[nodeset.nfs]\nhome = \"nas:/home\"",
            "nodeset.nfs.home: \"nas:/home\" is not possible: write the server's IPv4",
        ),
        (
            "[nodeset.nfs]\nhme = \"x\"",
            "nodeset.nfs.hme: there is no such key; did you mean home?",
        ),
        (
            "[nodeset.ldap]\ndomain = \"x\"",
            "nodeset.ldap.url: is missing: say where",
        ),
        (
            "[nodeset.ldap]\nurl = \"x\"",
            "nodeset.ldap.url: \"x\" is not possible: write ldap://HOST",
        ),
        (
            "[nodeset.ldap]\nurl = \"ldap://h\"\ndomain = \"x\"\nbind_user = \"u\"",
            "nodeset.ldap.bind_user: needs bind_password_file",
        ),
        (
            "[nodeset.ldap]\nurl = \"ldap://h\"\ndomain = \"x\"\nbind_password = \"p\"",
            "nodeset.ldap.bind_password: there is no such key; did you mean bind_password_file?",
        ),
        (
            "[nodeset.infiniband]",
            "nodeset.infiniband: says nothing: name a card's function",
        ),
        (
            "[nodeset.infiniband]\nvendor = \"mellanox\"",
            "nodeset.infiniband.vendor: \"mellanox\" is not possible",
        ),
        (
            "[nodeset.infiniband]\nipoib_subnet = \"10.0.0.0/20\"",
            "nodeset.infiniband.ipoib_subnet: \"10.0.0.0/20\" is not possible: write a network of /8, /16 or /24",
        ),
        (
            "[nodeset.nfs]\nhome = \"10.0.0.2:/h\"\n[nodeset.context]\nONEAPP_SLURM_NFS_HOME = \"10.0.0.3:/h\"",
            "nodeset.context: has ONEAPP_SLURM_NFS_HOME, which the nodeset's nfs, ldap or infiniband says already",
        ),
    ] {
        let problems = wrong(&with(lines));
        assert!(
            problems.contains(expected),
            "{lines}\ngave\n{problems}\nwithout\n{expected}"
        );
    }
    let qemu = wrong(&with("[nodeset.nfs]\nhome = \"10.0.0.2:/h\"").replace("\"opennebula\"", "\"qemu\""));
    assert!(
        qemu.contains("nodeset.nfs: has no effect with provider"),
        "{qemu}"
    );
}

#[test]
fn a_nodeset_names_one_network_or_several() {
    let with = |lines: &str| SMALL.replace("memory_mb = 200\n", &format!("memory_mb = 200\n{lines}\n"));
    let networks = |lines: &str| {
        settings(&with(lines)).nodesets[&NodesetName::new("fg").unwrap()]
            .networks
            .clone()
    };
    assert_eq!(networks("network = \"a\""), ["a"]);
    assert_eq!(networks("networks = [\"a\", \"7\"]"), ["a", "7"]);
    let both = wrong(&with("network = \"a\"\nnetworks = [\"b\"]"));
    assert!(
        both.contains("nodeset.networks: network is there too: use one of them"),
        "{both}"
    );
    let text = with("networks = [\"a\", \"b\"]") + "placement = \"opennebula\"\n";
    let scheduled = wrong(&text);
    assert!(
        scheduled.contains("opennebula.placement: is \"opennebula\", and nodeset fg names several networks"),
        "{scheduled}"
    );
}

#[test]
fn what_vms_reach_is_said_by_the_same_table() {
    assert_eq!(settings(SMALL).fence.map(|fence| fence.allow), Some(Vec::new()));
    let with = |text: &str| settings(&format!("{SMALL}\n[network]\n{text}")).fence;
    let fence = with("fence = true\nallow = ['10.1.0.0/16:443', '10.2.0.1']").unwrap();
    let shown: Vec<_> = fence
        .allow
        .iter()
        .map(|allow| (allow.address.to_string(), allow.prefix_len, allow.ports))
        .collect();
    assert_eq!(
        shown,
        [
            ("10.1.0.0".to_owned(), 16, Some((443, 443))),
            ("10.2.0.1".to_owned(), 32, None)
        ]
    );
    assert_eq!(fence.any_port, (40_000, 50_000));
    assert_eq!(with("fence = false\nallow = ['10.2.0.1']"), None);
    refuses("[network]\nallow = ['x']", "network.allow: \"x\" is not possible");
    refuses(
        "[network]\ndns = ['10.0.0.53']",
        "network.dns: has no effect with provider",
    );
    refuses(
        "[[mount]]\nsource = 'files:/home'",
        "mount: has no effect with provider",
    );
}
