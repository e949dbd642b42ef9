//! What an administrator gives a new user, and what he may then: groups, users, rules, images, templates.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod caller;

use caller::{B, I, S, call, call_as, id, ok};
use thiao_oned::{HostSetup, NetworkSetup, Oned, Settings};
use thiao_opennebula::acl::Rule;

fn oned() -> Oned {
    Oned::start(Settings {
        hosts: vec![HostSetup {
            name: "h0".into(),
            cpu_percent: 800,
            memory_mb: 8192,
            cluster: Default::default(),
        }],
        networks: vec![NetworkSetup {
            name: "vms".into(),
            first: "10.0.0.10".parse().unwrap(),
            size: 16,
            template: Default::default(),
            public: false,
            clusters: vec![0],
        }],
        ..Settings::default()
    })
    .unwrap()
}

fn rule(oned: &Oned, text: &str) -> Result<u32, i32> {
    let [user, resource, rights] = Rule::parse(text).unwrap().to_hex();
    id(&call(
        oned,
        "one.acl.addrule",
        &[S(&user), S(&resource), S(&rights)],
    ))
}

#[test]
fn the_first_rules_are_those_of_a_real_one() {
    // As a fresh oned 7.4.0 answered.
    let real = include_str!("data/acl-info.xml").trim_end();
    let ours = call(&oned(), "one.acl.info", &[])
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    assert!(ours.contains(real), "{ours}");
}

#[test]
fn a_new_user_may_only_what_rules_say() {
    let oned = oned();
    let group = id(&call(&oned, "one.group.allocate", &[S("g")])).unwrap();
    assert_eq!(
        (group, id(&call(&oned, "one.group.allocate", &[S("g")]))),
        (100, Err(0x2000))
    );
    let user = id(&call(&oned, "one.user.allocate", &[S("u"), S("pw"), S("core")])).unwrap();
    let as_user = |method: &str, params: &[caller::P<'_>]| call_as(&oned, "u:pw", method, params);
    // Of the group `users`: as any user.
    assert!(as_user("one.vnpool.info", &[I(-2), I(-1), I(-1)]).contains("vms"));
    assert!(!as_user("one.hostpool.info", &[]).contains("h0"));
    rule(&oned, &format!("#{user} HOST/* USE")).unwrap();
    assert_eq!(
        rule(&oned, &format!("#{user} HOST/* USE")),
        Err(0x2000),
        "it is there already"
    );
    assert!(as_user("one.hostpool.info", &[]).contains("h0"));
    // Nobody but administrators makes rules, users, groups.
    for (method, params) in [
        ("one.acl.info", vec![]),
        ("one.group.allocate", vec![S("h")]),
        ("one.user.allocate", vec![S("v"), S("pw"), S("core")]),
    ] {
        assert_eq!(id(&as_user(method, &params)), Err(0x200), "{method}");
    }
    // His rules end with him.
    assert!(ok(&call(&oned, "one.user.delete", &[I(user.into())])));
    assert!(!call(&oned, "one.acl.info", &[]).contains(&format!("#{user} ")));
    assert!(ok(&call(&oned, "one.group.delete", &[I(group.into())])));
    assert!(!call(&oned, "one.acl.info", &[]).contains("@100 "));
}

#[test]
fn a_template_of_another_is_used_by_rule_and_so_is_its_image() {
    let oned = oned();
    let template = "NAME=\"t\"\nCPU=1\nMEMORY=64\nDISK=[IMAGE=\"img\",IMAGE_UNAME=\"oneadmin\"]\n";
    let template = id(&call(&oned, "one.template.allocate", &[S(template)])).unwrap();
    let user = id(&call(&oned, "one.user.allocate", &[S("u"), S("pw"), S("core")])).unwrap();
    let make = || {
        let params = [I(template.into()), S("vm"), B(true), S("")];
        let answer = call_as(&oned, "u:pw", "one.template.instantiate", &params);
        (id(&answer), answer)
    };
    let (code, answer) = make();
    assert!(
        code == Err(0x200) && answer.contains("perform USE TEMPLATE [0]"),
        "{answer}"
    );
    rule(&oned, &format!("#{user} TEMPLATE/#{template} USE")).unwrap();
    let (code, answer) = make();
    assert!(
        code == Err(0x200) && answer.contains("perform USE IMAGE [0]"),
        "{answer}"
    );
    rule(&oned, &format!("#{user} IMAGE/#0 USE")).unwrap();
    let vm = make().0.unwrap();
    // An image that a VM uses stays.
    let answer = call(&oned, "one.image.delete", &[I(0)]);
    assert!(
        id(&answer) == Err(0x800) && answer.contains("1 VMs using it"),
        "{answer}"
    );
    assert!(ok(&call(&oned, "one.vm.recover", &[I(vm.into()), I(3)])));
    assert!(ok(&call(&oned, "one.image.delete", &[I(0)])));
}

#[test]
fn a_file_from_outside_the_safe_folders_becomes_an_image_in_error() {
    let oned = oned();
    for (path, state) in [("/var/tmp/g/vmlinuz", 1), ("/root/vmlinuz", 5)] {
        let text = format!("NAME=\"{path}\"\nPATH=\"{path}\"\nTYPE=\"KERNEL\"\n");
        assert_eq!(
            id(&call(&oned, "one.image.allocate", &[S(&text), I(1)])),
            Err(0x2000)
        );
        let image = id(&call(&oned, "one.image.allocate", &[S(&text), I(2)])).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let shown = call(&oned, "one.image.info", &[I(image.into())]);
        assert!(shown.contains(&format!("&lt;STATE&gt;{state}&lt;")), "{shown}");
    }
}
