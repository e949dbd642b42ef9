mod appliance;

use super::*;
use crate::inputs::Inputs;
use crate::settings::{Guest, ReadyBy};
use crate::syntax::Value;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use thiao_core::ids::{HostName, NodesetName};
use thiao_core::view::{Shape, VmSpec};
use thiao_guest::auth::Auth;
use thiao_guest::protocol::DiskContext;
use thiao_guest::secret::Secret;

fn guest() -> Guest {
    Guest {
        slurmctld_host: "head".to_owned(),
        slurmctld_addr: Ipv4Addr::new(10, 0, 0, 1),
        slurmctld_port: 6817,
        backups: vec![],
        slurm_user: "slurm".to_owned(),
        credentials: None,
        users: vec![],
        shares: vec![],
        slurm_worker: false,
        context: BTreeMap::from([("dns".to_owned(), "10.0.0.53".to_owned())]),
    }
}

fn tag() -> VmTag {
    VmTag {
        cluster: ClusterName::new("prod").unwrap(),
        node: NodeName::new("fg7").unwrap(),
        generation: Generation(3),
    }
}

const SHAPE: Shape = Shape {
    cpus: 3,
    memory_mb: 4096,
    share_percent: 50,
};

/// Calls `then` with a VM that is wanted, with the munge key "key".
fn with<T>(network: Option<(&str, u32)>, then: impl FnOnce(&mut NewVm<'_>) -> T) -> T {
    let auth = Auth::Munge {
        munge_key: Secret::from_bytes(b"key"),
        munge_socket: "/run/munge/munge.socket.2".into(),
    };
    then(&mut NewVm {
        tag: &tag(),
        nodeset: &NodesetName::new("small").unwrap(),
        host: Some(&HostName::new("kvm-04").unwrap()),
        spec: &VmSpec::of_node(SHAPE),
        gpu_pci: None,
        inputs: &Inputs::default(),
        ldap_password: None,
        context: &[],
        overhead_mb: 128,
        network,
        ready: ReadyBy::Slurm,
        guest: &guest(),
        auth: Some(&auth),
    })
}

fn pairs<'a>(template: &'a Template, name: &'a str) -> BTreeMap<&'a str, &'a str> {
    let vector = template.vectors(name).next().unwrap_or_default();
    vector.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

fn filled(text: &str) -> Result<Template, Error> {
    with(Some(("my \"net\", x = [1]", 12)), |wanted| {
        from_text(text, "small.one", wanted)
    })
}

#[track_caller]
fn refused(text: &str, words: &str) {
    let error = filled(text).expect_err("it is wrong");
    assert_eq!(error.class, Class::BadTemplate);
    assert!(error.text.starts_with("template small.one: "), "{}", error.text);
    assert!(error.text.contains(words), "{}", error.text);
}

#[test]
fn shares_are_plain_decimals() {
    let share = |cpus, share_percent| {
        super::share(Shape {
            cpus,
            memory_mb: 1,
            share_percent,
        })
    };
    assert_eq!(share(1, 100), "1");
    assert_eq!(share(3, 50), "1.5");
    assert_eq!(share(1, 25), "0.25");
    assert_eq!(share(1, 5), "0.05");
    assert_eq!(share(u32::MAX, 100), "4294967295");
}

#[test]
fn names_fit_and_keep_their_number() {
    assert_eq!(vm_name(&tag()), "prod-fg7-3");
    let long = "x".repeat(63);
    let name = vm_name(&VmTag {
        cluster: ClusterName::new(&long).unwrap(),
        node: NodeName::new(&long).unwrap(),
        generation: Generation(u64::MAX),
    });
    assert_eq!(name.len(), 128);
    assert!(name.ends_with("-18446744073709551615"));
}

#[test]
fn a_tag_is_read_whole_or_not() {
    let mut map = BTreeMap::from([(TAG_CLUSTER, "prod"), (TAG_NODE, "fg7"), (TAG_GENERATION, "3")]);
    let read = |map: &BTreeMap<&str, &str>| read_tag(|name| map.get(name).map(|v| (*v).to_owned()));
    assert_eq!(read(&map), Some(tag()));
    // Nor is one whose next VM would have no number.
    for odd in ["three", "18446744073709551615"] {
        map.insert(TAG_GENERATION, odd);
        assert_eq!(read(&map), None);
    }
    map.remove(TAG_GENERATION);
    assert_eq!(read(&map), None);
}

#[test]
fn a_registered_templates_context_is_kept_under_ours() {
    let template = Template::parse(
        "NAME = worker\nCPU = 9\nCONTEXT = [ SSH_PUBLIC_KEY = \"$USER[SSH_PUBLIC_KEY]\", NETWORK = NO,\n\
         SET_HOSTNAME = x ]\nNIC = [ NETWORK = old ]\nDISK = [ IMAGE = debian ]",
    )
    .unwrap();
    let extra = with(Some(("net", 12)), |wanted| over_registered(&template, wanted)).unwrap();
    let names: Vec<&str> = extra.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "CPU",
            "VCPU",
            "MEMORY",
            TAG_CLUSTER,
            TAG_NODE,
            TAG_GENERATION,
            "CONTEXT"
        ]
    );
    assert_eq!(extra.get("CPU"), Some("1.5"));
    assert_eq!(extra.get("VCPU"), Some("3"));
    assert_eq!(extra.get("MEMORY"), Some("4264"));
    let context = pairs(&extra, "CONTEXT");
    assert_eq!(context["SSH_PUBLIC_KEY"], "$USER[SSH_PUBLIC_KEY]");
    assert_eq!(context["NETWORK"], "YES");
    assert_eq!(context["SET_HOSTNAME"], "fg7");
    assert_eq!(context["DNS"], "10.0.0.53");
    assert_eq!(context["ONEAPP_SLURM_CONTROLLER_IP"], "10.0.0.1");
    assert_eq!(context["ONEAPP_MUNGE_KEY_BASE64"], "a2V5");
    assert!(!context.contains_key("TOKEN") && !context.contains_key("START_SCRIPT"));
}

#[test]
fn a_card_is_added_only_where_there_is_none() {
    let template = Template::parse("DISK = [ IMAGE = debian ]").unwrap();
    let extra = with(Some(("net", 12)), |wanted| over_registered(&template, wanted)).unwrap();
    assert_eq!(pairs(&extra, "NIC"), BTreeMap::from([("NETWORK_ID", "12")]));
    let extra = with(None, |wanted| over_registered(&template, wanted)).unwrap();
    assert!(!extra.has("NIC"));
}

/// A NIC whose network the scheduler would choose, as real sites have it.
const AUTO: &str = "NIC = [ NETWORK_MODE = \"auto\", SCHED_REQUIREMENTS = \"TRAFFIC_TYPE = \\\"cluster\\\"\",\n\
                    SCHED_RANK = \"-USED_LEASES\", MODEL = \"virtio\" ]\nNIC_DEFAULT = [ FILTER = \"a\" ]\n";

#[test]
fn a_card_that_the_scheduler_would_choose_comes_into_the_nodesets_network() {
    let registered = Template::parse(&format!("{AUTO}NIC = [ NETWORK = \"lab\" ]")).unwrap();
    for made in [
        with(Some(("net", 12)), |wanted| over_registered(&registered, wanted)),
        with(Some(("net", 12)), |wanted| {
            from_text(&registered.to_text(), "x.one", wanted)
        }),
    ] {
        let made = made.unwrap();
        let cards: Vec<_> = made.vectors("NIC").map(<[_]>::to_vec).collect();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            cards,
            [
                vec![pair("NETWORK_ID", "12"), pair("MODEL", "virtio")],
                vec![pair("NETWORK", "lab")]
            ]
        );
    }
    // OpenNebula's scheduler chooses for itself.
    let made = with(Some(("net", 12)), |wanted| {
        wanted.host = None;
        over_registered(&registered, wanted)
    });
    assert!(!made.unwrap().has("NIC"));
}

#[test]
fn a_card_without_a_network_is_refused_before_anything_is_made() {
    let auto = Template::parse(AUTO).unwrap();
    let error = with(None, |wanted| over_registered(&auto, wanted)).unwrap_err();
    assert_eq!(error.class, Class::BadTemplate);
    for words in [
        "NETWORK_MODE = auto",
        "set network = \"NAME\"",
        "placement = \"opennebula\"",
    ] {
        assert!(
            error.text.to_lowercase().contains(&words.to_lowercase()),
            "{error}"
        );
    }
    assert_eq!(
        with(None, |wanted| from_text(AUTO, "x", wanted)).unwrap_err(),
        error
    );
    // A device's network is in the template or nowhere.
    let device = Template::parse("NIC = [ NETWORK = a ]\nPCI = [ TYPE = NIC, NETWORK_MODE = AUTO ]").unwrap();
    for network in [None, Some(("net", 12))] {
        assert!(with(network, |wanted| over_registered(&device, wanted)).is_err());
    }
}

/// A VM is as big as Slurm says, from its start to its end.
#[test]
fn limits_for_growth_do_not_hold() {
    let template = Template::parse("MEMORY_MAX = 9999\nVCPU_MAX = 64\nNIC = [ NETWORK = a ]").unwrap();
    let extra = with(None, |wanted| over_registered(&template, wanted)).unwrap();
    let of = |name| extra.get(name);
    assert_eq!(
        [of("MEMORY_MAX"), of("VCPU_MAX"), of("MEMORY_SLOTS")],
        [Some("0"), Some("0"), None]
    );
}

#[test]
fn our_own_guest_is_told_all_in_one_value() {
    let extra = with(None, |wanted| {
        wanted.ready = ReadyBy::OneGate;
        over_registered(&Template::default(), wanted)
    })
    .unwrap();
    let context = pairs(&extra, "CONTEXT");
    assert_eq!((context["TOKEN"], context["REPORT_READY"]), ("YES", "YES"));
    let (mut bits, mut json) = (0_u32, Vec::new());
    for (at, digit) in context["THIAO_CONTEXT"]
        .bytes()
        .filter(|b| *b != b'=')
        .enumerate()
    {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        if at % 4 != 0 {
            json.push((bits >> (6 - 2 * (at % 4)) & 255) as u8);
        }
    }
    let DiskContext { common: told, seed } = serde_json::from_slice(&json).unwrap();
    assert!(seed.unwrap().to_bytes().is_some_and(|seed| seed.len() == 64));
    assert_eq!((told.id.as_str(), told.hostname.as_str()), ("fg7.3", "fg7"));
    let Auth::Munge { munge_key, .. } = told.auth else {
        panic!("{:?}", told.auth);
    };
    assert_eq!(munge_key.to_bytes().as_deref(), Some(b"key".as_slice()));
}

#[test]
fn a_key_of_slurms_is_told_to_our_own_guest_alone() {
    let auth = Auth::Slurm {
        slurm_key: Secret::from_bytes(b"key"),
    };
    let extra = with(None, |wanted| {
        over_registered(
            &Template::default(),
            &NewVm {
                auth: Some(&auth),
                ..*wanted
            },
        )
    });
    let extra = extra.unwrap();
    let context = pairs(&extra, "CONTEXT");
    assert!(context.contains_key("THIAO_CONTEXT") && !context.contains_key("ONEAPP_MUNGE_KEY_BASE64"));
}

#[test]
fn without_a_key_no_guest_is_told_one() {
    let extra = with(None, |wanted| {
        wanted.auth = None;
        over_registered(&Template::default(), wanted)
    })
    .unwrap();
    let context = pairs(&extra, "CONTEXT");
    assert!(!context.contains_key("ONEAPP_MUNGE_KEY_BASE64") && !context.contains_key("THIAO_CONTEXT"));
}

#[test]
fn variables_are_filled_and_ours_come_on_top() {
    let template = filled(
        "NAME = mine\nvCPU = 99\nhostname = {{ node }}\nA = \"{{ cluster }}-{{ generation }}.{{cpus}}\"\n\
         NIC = [ NETWORK = \"{{ network }}\", ID = {{ network_id }} ]\n\
         CONTEXT = [ VMID = $VMID, HOST = {{ host }}, GW = \"$NETWORK[GATEWAY, NAME=\\\"fg1\\\"]\" ]\n\
         # a comment with {{ node }}\n",
    )
    .unwrap();
    assert_eq!(template.get("NAME"), Some("prod-fg7-3"));
    assert_eq!(template.get("VCPU"), Some("3"));
    assert_eq!(template.get("HOSTNAME"), Some("fg7"));
    assert_eq!(template.get("A"), Some("prod-3.3"));
    assert_eq!(template.get(TAG_NODE), Some("fg7"));
    let nic = pairs(&template, "NIC");
    assert_eq!((nic["NETWORK"], nic["ID"]), ("my \"net\", x = [1]", "12"));
    let context = pairs(&template, "CONTEXT");
    assert_eq!((context["VMID"], context["HOST"]), ("$VMID", "kvm-04"));
    assert_eq!(context["GW"], "$NETWORK[GATEWAY, NAME=\"fg1\"]");
}

/// The examples that Thiao of 2011 came with.
#[test]
fn the_templates_of_2011_are_taken_as_they_are() {
    for text in [
        include_str!("../../tests/data/2011/fg.vmg.one"),
        include_str!("../../tests/data/2011/fg0.one"),
    ] {
        let template = filled(text).unwrap();
        assert_eq!(template.get("NAME"), Some("prod-fg7-3"));
        assert_eq!(template.get("VCPU"), Some("3"));
        assert_eq!(template.get("MEMORY"), Some("4264"));
        let networks: Vec<_> = template.vectors("NIC").map(|nic| nic[0].1.as_str()).collect();
        assert_eq!(networks, ["fg1", "fg2"]);
        assert_eq!(pairs(&template, "DISK")["SOURCE"], "/srv/images/worker.qcow2");
        let context = pairs(&template, "CONTEXT");
        assert_eq!(context["GW"], "$NETWORK[GATEWAY, NAME=\"fg1\"]");
        assert_eq!(context["TARGET"], "hdb");
        assert_eq!(context["SET_HOSTNAME"], "fg7");
    }
}

/// What shells and other programs write is theirs.
#[test]
fn only_a_name_in_braces_is_special() {
    let template = filled(
        "DISK = [ IMAGE = \"a\" ] # {# {% {{\nNIC = [ NETWORK = lab ]\n\
         CONTEXT = [ NETWORK = YES,\n  START_SCRIPT = \"#!/bin/bash\ndisks=(/dev/vd?)\n\
         echo \\\"${#disks[@]} of {{ node }} {% if x %} ${x%%.*} #} %} }} {#\\\"\n\
         docker ps --format '{{.ID}} {{json .}}'; echo ${{{ node }}} {{ {{\n\" ]\n",
    )
    .unwrap();
    let script = pairs(&template, "CONTEXT")["START_SCRIPT"];
    assert_eq!(
        script,
        "#!/bin/bash\ndisks=(/dev/vd?)\necho \"${#disks[@]} of fg7 {% if x %} ${x%%.*} #} %} }} {#\"\n\
         docker ps --format '{{.ID}} {{json .}}'; echo ${fg7} {{ {{"
    );
    // Nothing between two signs is lost.
    let template = filled("CONTEXT = [ A = \"n=\\${#a}; m=\\${#b} #} \" ]").unwrap();
    assert_eq!(pairs(&template, "CONTEXT")["A"], "n=\\${#a}; m=\\${#b} #}");
}

#[test]
fn what_cannot_be_filled_says_which_and_where() {
    refused(
        "A = 1\nB = {{ nodename }}\n",
        "line 2: there is no variable \"nodename\" here; there are cluster, cpus,",
    );
    // What would take any memory.
    let long = "x".repeat(1_000);
    let many = "A = {{ network }}\n".repeat(1_100);
    let error = with(Some((long.as_str(), 1)), |wanted| {
        from_text(&many, "x.one", wanted)
    })
    .unwrap_err();
    assert!(error.text.contains("more than 1048576 bytes"), "{error}");
    refused("A = {{ munge_key }}", "no variable \"munge_key\"");
    refused(
        "A = 1\nB = {{ no_such }}",
        "line 2: there is no variable \"no_such\"",
    );
    // What was left out is told, not left in.
    refused("A = {{ node", "line 1: only the name can stand there: {{ node }}");
    refused("A = 1\nB = \"{{ node | upper }}\"", "line 2: only the name");
    refused("A = {{ cpus * 2 }}", "only the name");
    refused("{{ node }} = 1", "line 1, column 1: expected an attribute's name");
    refused("{{ node }} = 1", "can only be in a value");
    refused("A = \"\u{e000}0\u{e001}\"", "private");
    refused("A = [ B", "expected = after B");
}

#[test]
fn files_are_read_unless_everybody_may_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = node_file(folder.path(), &tag().node);
    assert!(file.ends_with("fg7.one"));
    assert!(read_file(&file).unwrap_err().text.contains("cannot read it"));
    std::fs::write(&file, "A = 1").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(read_file(&file).unwrap(), "A = 1");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o646)).unwrap();
    assert!(read_file(&file).unwrap_err().text.contains("chmod o-w"));
    assert!(
        read_file(folder.path())
            .unwrap_err()
            .text
            .contains("it is no file")
    );
    std::fs::write(&file, vec![b'#'; MAX_TEXT + 1]).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(read_file(&file).unwrap_err().text.contains("more than"));
}

#[test]
fn a_nodesets_context_goes_over_the_sites_and_under_ours() {
    let context = [
        ("SITE_A", "nodeset"),
        ("SET_HOSTNAME", "other"),
        ("ONEAPP_SLURM_NFS_HOME", "10.0.0.2:/home"),
    ];
    let context = context.map(|(key, text)| (key.to_owned(), text.to_owned()));
    let mut guest = guest();
    guest.context = [("SITE_A", "site"), ("SITE_B", "site")]
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
    let template = Template::parse("CONTEXT = [ SITE_B = theirs, OWN = theirs ]").unwrap();
    let extra = with(None, |wanted| {
        let wanted = NewVm {
            guest: &guest,
            context: &context,
            ..*wanted
        };
        over_registered(&template, &wanted)
    });
    let extra = extra.unwrap();
    let all = pairs(&extra, "CONTEXT");
    assert_eq!(
        (all["SITE_A"], all["SITE_B"], all["OWN"]),
        ("nodeset", "site", "theirs")
    );
    assert_eq!(
        (all["ONEAPP_SLURM_NFS_HOME"], all["SET_HOSTNAME"]),
        ("10.0.0.2:/home", "fg7")
    );
}

proptest! {
    #[test]
    fn no_variable_becomes_an_attribute(network in "(?s).{0,20}") {
        let text = "A = {{ network }}\nB = \"x{{ network }}\"\nNIC = [ C = {{ network }}, D = \"{{ network }}\" ]";
        match with(Some((&network, 1)), |wanted| from_text(text, "t", wanted)) {
            Ok(template) => {
                prop_assert_eq!(template.get("A"), Some(network.as_str()));
                let prefixed = format!("x{network}");
                prop_assert_eq!(template.get("B"), Some(prefixed.as_str()));
                let nics: Vec<_> = template.vectors("NIC").map(|nic| nic.iter().map(|p| p.0.clone()).collect::<Vec<_>>()).collect();
                prop_assert_eq!(nics, [["C", "D"]]);
                prop_assert_eq!(template.0.iter().filter(|(_, v)| matches!(v, Value::Vector(_))).count(), 2);
            }
            // Control characters and such are refused, by name.
            Err(error) => prop_assert!(error.text.contains("the value of A"), "{}", error.text),
        }
    }
}

/// A VM of job 42 with `gpus` GPUs and these options, made from this template's text.
fn for_job(text: &str, gpus: u32, options: &str) -> Result<Template, Error> {
    let spec = VmSpec {
        gpus,
        job: Some(thiao_core::ids::JobId(42)),
        options: thiao_core::options::VmOptions::parse(options).unwrap(),
        ..VmSpec::of_node(SHAPE)
    };
    let gpu = [("VENDOR", "10de"), ("CLASS", "0302")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    with(None, |wanted| {
        let wanted = NewVm {
            spec: &spec,
            gpu_pci: Some(&gpu),
            ..*wanted
        };
        let extra = over_registered(&Template::parse(text)?, &wanted)?;
        // A file's text gets the same on top.
        let whole = from_text(text, "small.one", &wanted)?;
        for name in ["PCI", "DISK"].into_iter().filter(|name| extra.has(name)) {
            assert!(extra.vectors(name).eq(whole.vectors(name)), "{name} of {text}");
        }
        Ok(extra)
    })
}

#[test]
fn each_gpu_is_a_device_beside_the_templates_own() {
    let extra = for_job("PCI = [ SHORT_ADDRESS = \"00:06.0\" ]", 2, "").unwrap();
    let devices: Vec<&str> = extra.vectors("PCI").map(|pairs| pairs[0].1.as_str()).collect();
    assert_eq!(devices, ["00:06.0", "10de", "10de"]);
    // Without GPUs the template's devices are its own affair.
    assert!(!for_job("PCI = [ SHORT_ADDRESS = x ]", 0, "").unwrap().has("PCI"));
}

#[test]
fn gpus_that_nobody_described_are_refused() {
    let spec = VmSpec {
        gpus: 2,
        ..VmSpec::of_node(SHAPE)
    };
    let refusal = |gpu_pci| {
        let refused = with(None, |wanted| {
            let wanted = NewVm {
                spec: &spec,
                gpu_pci,
                ..*wanted
            };
            over_registered(&Template::default(), &wanted)
        });
        let error = refused.unwrap_err();
        assert_eq!(error.class, Class::BadTemplate);
        error.text
    };
    assert!(refusal(None).contains("give it gpu_pci"));
    let one = [("SHORT_ADDRESS".to_owned(), "02:00.0".to_owned())];
    assert!(refusal(Some(&one)).contains("names one device by its address"));
}

#[test]
fn another_image_takes_the_place_of_the_first_discs() {
    let discs = |text, options| -> Vec<String> {
        let extra = for_job(text, 0, options).unwrap();
        let show = |pairs: &[(String, String)]| {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            pairs.join(" ")
        };
        extra.vectors("DISK").map(show).collect()
    };
    let two = "DISK = [ IMAGE = debian, IMAGE_UNAME = ada, SIZE = 9 ]\nDISK = [ TYPE = swap, SIZE = 1 ]";
    assert_eq!(
        discs(two, "image=rocky"),
        ["IMAGE=rocky IMAGE_UNAME=ada SIZE=9", "TYPE=swap SIZE=1"]
    );
    assert_eq!(discs(two, "image=7"), ["IMAGE_ID=7 SIZE=9", "TYPE=swap SIZE=1"]);
    assert_eq!(
        discs("DISK = [ TYPE = swap, SIZE = 1 ]", "image=rocky"),
        ["IMAGE=rocky", "TYPE=swap SIZE=1"]
    );
    assert_eq!(discs("CPU = 1", "image=rocky"), ["IMAGE=rocky"]);
    assert!(discs(two, "").is_empty());
}

#[test]
fn a_vm_says_which_job_it_is_for() {
    let extra = for_job("A = 1", 0, "").unwrap();
    assert_eq!(extra.get(JOB), Some("42"));
    assert_eq!(pairs(&extra, "CONTEXT")[JOB], "42");
    // A template that was written down from such a VM says nothing of another.
    let template = filled("THIAO_JOB = 41").unwrap();
    assert!(!template.has(JOB) && !pairs(&template, "CONTEXT").contains_key(JOB));
}
