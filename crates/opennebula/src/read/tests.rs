use super::*;
use crate::model::{Devices, Quota};
use crate::size::{Beyond, MOST_CPU_PERCENT, MOST_MEMORY_MB, MOST_VMS};
use crate::testing::{mutations, recording};
use crate::wire::{Answer, answer};
use proptest::prelude::*;

/// The document in a recorded answer.
fn document(name: &str) -> String {
    match answer(&recording(name)) {
        Ok(Answer::Done(crate::wire::Value::Text(text))) => text,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_short_listing_is_read() {
    let vms = vms(&document("101-vmpool-info-all")).expect("read");
    assert_eq!(
        vms.iter().map(|vm| vm.id).collect::<Vec<_>>(),
        [6, 5, 4, 3, 2, 1, 0]
    );
    assert_eq!(
        vms[0],
        VmRow {
            id: 6,
            name: "ip1".into(),
            state: VmState::Hold,
            host: None,
            cpu_percent: 10,
            memory_mb: 64,
            beyond: None,
            addresses: vec!["10.0.0.77".parse().expect("an address")],
            error: None,
            sched_message: None,
        }
    );
    assert_eq!(vms[5].host, Some(("dummy3".into(), 3)));
    assert_eq!(vms[5].state.to_string(), "RUNNING");
    assert_eq!((vms[5].cpu_percent, vms[5].memory_mb), (50, 256));
}

#[test]
fn short_and_extended_listings_say_the_same() {
    let short = vms(&document("101-vmpool-info-all")).expect("read");
    let extended = document("118-vmpool-infoextended");
    assert_eq!(vms(&extended).expect("read"), short);
    let details = vm_details(&extended).expect("read");
    assert_eq!(details.into_iter().map(|vm| vm.row).collect::<Vec<_>>(), short);
}

#[test]
fn tags_and_context_are_in_the_details() {
    let vms = vm_details(&document("121-vmpool-infoset-extended")).expect("read");
    let vm = &vms[0];
    let tag = |name: &str| vm.user_template.get(name).map(String::as_str);
    assert_eq!((tag("SLURM_NODE"), tag("READY")), (Some("cloud-7"), Some("YES")));
    assert_eq!(
        tag("SCHED_REQUIREMENTS"),
        Some("HYPERVISOR=\"dummy\" & FREE_CPU > 10")
    );
    assert_eq!(vm.context.get("HOSTNAME").map(String::as_str), Some("cloud-7"));
}

#[test]
fn failures_and_ends_are_seen() {
    let failed = one_vm(&document("084-vm-info-boot-failure")).expect("read").row;
    assert_eq!(failed.state.to_string(), "BOOT_FAILURE");
    assert_eq!(failed.host, Some(("dummy0".into(), 0)));
    assert_eq!(
        failed.error.as_deref(),
        Some("Mon Nov 23 07:26:10 2026: DEPLOY: dummy0:rec-fail:dummy")
    );
    for name in ["093-vm-info-done-by-delete", "155-vm-info-done"] {
        assert_eq!(one_vm(&document(name)).expect("read").row.state, VmState::Done);
    }
}

#[test]
fn of_many_hosts_in_a_history_the_newest_counts() {
    let stopped = document("074-vm-info-stopped");
    assert!(stopped.matches("<HISTORY>").count() > 1);
    let vm = one_vm(&stopped).expect("read").row;
    assert_eq!(
        (vm.state, vm.host),
        (VmState::Stopped, Some(("dummy2".into(), 2)))
    );
    let reversed = "<VM_POOL><VM><ID>1</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><HISTORY_RECORDS>\
        <HISTORY><SEQ>1</SEQ><HOSTNAME>b</HOSTNAME><HID>5</HID></HISTORY>\
        <HISTORY><SEQ>0</SEQ><HOSTNAME>a</HOSTNAME><HID>4</HID></HISTORY></HISTORY_RECORDS></VM></VM_POOL>";
    assert_eq!(vms(reversed).expect("read")[0].host, Some(("b".into(), 5)));
}

#[test]
fn hosts_are_read() {
    let hosts = hosts(&document("123-hostpool-info"), Devices::Read).expect("read");
    assert_eq!(hosts.len(), 4);
    assert_eq!(
        hosts[0],
        Host {
            id: 3,
            name: "dummy3".into(),
            state: HostState::Monitored,
            cluster: "default".into(),
            cluster_id: 0,
            hypervisor: "dummy".into(),
            max_cpu_percent: 800,
            promised_cpu_percent: 60,
            max_memory_mb: 16384,
            promised_memory_mb: 320,
            vms: 2,
            beyond: None,
            pci: hosts[0].pci.clone(),
            load: hosts[0].load,
        }
    );
    let devices = hosts[0].pci.as_deref().expect("it has devices");
    let of = |vendor: &str| [("VENDOR".to_owned(), vendor.to_owned())];
    let those = |vendor| {
        devices
            .iter()
            .filter(|one| one.is_one_of(&of(vendor)) == Some(true))
            .count()
    };
    assert_eq!((devices.len(), those("10de"), those("15B3")), (22, 1, 18));
    assert!(devices.iter().all(|one| one.vm.is_none()));
    assert_eq!(
        super::hosts(&document("148-plain-user-hostpool"), Devices::Read),
        Ok(Vec::new())
    );
}

/// Two VMs on host 1 and that host, with this CPU, MEMORY and everything of the host's.
fn sized(cpu: &str, memory: &str, of_host: &str) -> (Vec<VmRow>, Vec<Host>) {
    let vm = |id: u32| {
        format!(
            "<VM><ID>{id}</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE><CPU>{cpu}</CPU>\
             <MEMORY>{memory}</MEMORY></TEMPLATE></VM>"
        )
    };
    let share = [
        "MAX_CPU",
        "CPU_USAGE",
        "MAX_MEM",
        "MEM_USAGE",
        "RUNNING_VMS",
        "USED_CPU",
        "USED_MEM",
    ]
    .map(|name| format!("<{name}>{of_host}</{name}>"));
    let host = format!(
        "<HOST><ID>1</ID><STATE>2</STATE><HOST_SHARE>{}</HOST_SHARE></HOST>",
        share.concat()
    );
    (
        vms(&format!("<VM_POOL>{}{}</VM_POOL>", vm(1), vm(2))).expect("read"),
        hosts(&format!("<HOST_POOL>{host}</HOST_POOL>"), Devices::Read).expect("read"),
    )
}

#[test]
fn a_size_that_no_machine_has_is_told_of_what_has_it() {
    for (cpu, memory, beyond) in [
        ("1", "18446744073709551615", Beyond::Memory),
        ("1", "1073741825", Beyond::Memory),
        ("1", "99999999999999999999999999", Beyond::Memory),
        ("65536.01", "1", Beyond::Cpu),
        ("1e300", "inf", Beyond::Cpu),
        ("NaN", "1", Beyond::Cpu),
    ] {
        let (vms, _) = sized(cpu, memory, "1");
        for vm in vms {
            assert_eq!(vm.beyond, Some(beyond), "{cpu} {memory}");
            assert!(vm.cpu_percent <= 100 && vm.memory_mb <= 1, "{vm:?}");
        }
    }
    let (vms, hosts) = sized("65536", "1073741824", "65536");
    assert_eq!((vms[0].beyond, hosts[0].beyond), (None, None));
    assert_eq!(
        (vms[0].cpu_percent, vms[0].memory_mb),
        (MOST_CPU_PERCENT, MOST_MEMORY_MB)
    );
    assert!(hosts[0].takes_vms());
    let (_, hosts) = sized("1", "1", "18446744073709551615");
    assert_eq!((hosts[0].beyond, hosts[0].load), (Some(Beyond::Cpu), None));
    assert!(!hosts[0].takes_vms());
    let (_, hosts) = sized("1", "1", "65537");
    assert_eq!(hosts[0].beyond, Some(Beyond::Vms));
    // More reserved than there is.
    let (vms, hosts) = sized("-1", "-1", "-1");
    assert_eq!((vms[0].beyond, vms[0].memory_mb), (None, 0));
    assert_eq!((hosts[0].beyond, hosts[0].max_memory_mb), (None, 0));
}

#[test]
fn load_is_where_each_version_has_it() {
    // The forms of the schemas of 7.4 and of 5.x; a reserved host has a negative MAX_CPU.
    let new = "<HOST_POOL><HOST><ID>1</ID><STATE>2</STATE><HOST_SHARE><MAX_CPU>-100</MAX_CPU></HOST_SHARE>\
        <MONITORING><CAPACITY><USED_CPU>150</USED_CPU><USED_MEMORY>2097152</USED_MEMORY></CAPACITY></MONITORING>\
        </HOST></HOST_POOL>";
    let old = "<HOST_POOL><HOST><ID>1</ID><STATE>2</STATE><HOST_SHARE><USED_CPU>150</USED_CPU>\
        <USED_MEM>2097152</USED_MEM></HOST_SHARE></HOST></HOST_POOL>";
    for xml in [new, old] {
        let hosts = hosts(xml, Devices::Read).expect("read");
        assert_eq!((hosts[0].load, hosts[0].max_cpu_percent), (Some((150, 2048)), 0));
    }
}

#[test]
fn the_last_record_says_what_is_used_of_a_host() {
    // As oned 7.4 answers one.hostpool.monitoring with 0.
    let xml = "<MONITORING_DATA><MONITORING><TIMESTAMP>1795473205</TIMESTAMP><ID>0</ID><CAPACITY>\
        <FREE_CPU><![CDATA[747]]></FREE_CPU><FREE_MEMORY><![CDATA[404377]]></FREE_MEMORY>\
        <USED_CPU><![CDATA[53]]></USED_CPU><USED_MEMORY><![CDATA[16372839]]></USED_MEMORY></CAPACITY>\
        <SYSTEM><NETRX><![CDATA[50104108822222]]></NETRX></SYSTEM></MONITORING>\
        <MONITORING><ID>1</ID></MONITORING></MONITORING_DATA>";
    assert_eq!(loads(xml), Ok([(0, (53, 15_989))].into()));
    assert_eq!(loads("<MONITORING_DATA/>"), Ok([].into()));
}

#[test]
fn templates_are_read_with_both_kinds_of_attributes() {
    let templates = templates(&document("005-templatepool-info")).expect("read");
    assert_eq!((templates[1].id, templates[1].name.as_str()), (0, "slurm-node"));
    assert_eq!(templates[1].owner, "oneadmin");
    let body = &templates[1].body;
    assert_eq!(body.get("MEMORY"), Some("64"));
    let context: Vec<_> = body.vectors("CONTEXT").flatten().cloned().collect();
    assert!(context.contains(&("SSH_PUBLIC_KEY".into(), "$USER[SSH_PUBLIC_KEY]".into())));
    assert_eq!(
        one_template(&document("006-template-info")).expect("read"),
        templates[0]
    );
}

#[test]
fn networks_are_read() {
    assert_eq!(
        networks(&document("127-vnpool-info")),
        Ok(vec![Network {
            id: 0,
            name: "cloud".into(),
            addresses: 20000,
            used: 1,
            clusters: vec![0],
        }])
    );
}

#[test]
fn users_are_read_without_their_secrets() {
    let user = user(&document("152-token-auth")).expect("read");
    assert_eq!((user.id, user.groups.as_slice()), (2, [1].as_slice()));
    assert!(user.template.is_empty(), "{:?}", user.template);
    let quota = |what, limit| Quota { what, limit, used: 0 };
    assert_eq!(
        user.quotas,
        [quota("VMS", 2), quota("CPU", 100), quota("MEMORY", 300)]
    );
    assert!(
        super::user(&document("003-user-info-self"))
            .expect("read")
            .quotas
            .is_empty()
    );
}

#[test]
fn a_quota_of_minus_one_is_the_default_and_of_minus_two_is_none() {
    let group = group(
        "<GROUP><ID>1</ID><NAME>users</NAME><VM_QUOTA>\
         <VM><VMS>-1</VMS><VMS_USED>3</VMS_USED><CPU>-2</CPU><CPU_USED>1</CPU_USED><MEMORY>-1</MEMORY></VM>\
         <VM><CLUSTER_IDS>100</CLUSTER_IDS><VMS>1</VMS></VM></VM_QUOTA>\
         <DEFAULT_GROUP_QUOTAS><VM_QUOTA><VM><VMS>5</VMS><CPU>7</CPU></VM></VM_QUOTA></DEFAULT_GROUP_QUOTAS></GROUP>",
    )
    .expect("read");
    assert_eq!(
        group.quotas,
        [Quota {
            what: "VMS",
            limit: 5,
            used: 3
        }]
    );
}

#[test]
fn texts_may_be_written_in_every_way() {
    let vms = vms(
        "<VM_POOL><VM><ID> 1 </ID><NAME>a&amp;<![CDATA[<b>&amp;]]>&#99;<!-- no --></NAME><STATE>1</STATE>\
         <LCM_STATE>0</LCM_STATE><TEMPLATE/><USER_TEMPLATE><ERROR/></USER_TEMPLATE></VM></VM_POOL>",
    )
    .expect("read");
    assert_eq!(vms[0].name, "a&<b>&amp;c");
    assert_eq!(vms[0].error, None);
}

#[test]
fn a_listing_is_whole_or_an_error() {
    let whole = document("101-vmpool-info-all");
    for end in (0..whole.len()).step_by(7) {
        assert!(vms(&whole[..end]).is_err(), "cut at {end}");
    }
    for bad in [
        "",
        "hello",
        "<HOST_POOL></HOST_POOL>",
        "<VM_POOL><VM></VM></VM_POOL>",
        "<VM_POOL><VM><ID>1</ID><STATE>3</STATE></VM></VM_POOL>",
        "<VM_POOL><VM><ID>x</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE></VM></VM_POOL>",
        "<VM_POOL></VM_POOL><VM_POOL></VM_POOL>",
        "<VM_POOL></VM_POOL>more",
        "<VM_POOL><VM></VM_POOL></VM>",
    ] {
        assert!(vms(bad).is_err(), "{bad}");
    }
}

#[test]
fn hostile_documents_are_refused() {
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><VM_POOL></VM_POOL>";
    assert_eq!(vms(bomb), Err(Malformed::other("it has a DTD")));
    let entity = "<VM_POOL><VM><NAME>&a;</NAME></VM></VM_POOL>";
    assert_eq!(vms(entity), Err(Malformed::other("it has an entity of its own")));
    let deep = format!("<VM_POOL>{}", "<a>".repeat(1_000_000));
    assert_eq!(
        vms(&deep),
        Err(Malformed::other("too many elements in each other"))
    );
}

/// What reads as a number.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "-?[0-9]{1,40}(e[0-9]{1,3})?",
    ]
}

proptest! {
    #[test]
    fn changed_listings_are_read_or_refused(changes in mutations(), which in 0usize..4) {
        let name = ["118-vmpool-infoextended", "127-vnpool-info", "152-token-auth", "005-templatepool-info"][which];
        let changed = String::from_utf8_lossy(&changes.of(document(name).as_bytes())).into_owned();
        match which {
            0 => { let _ = vms(&changed); let _ = vm_details(&changed); }
            1 => { let _ = networks(&changed); }
            2 => { let _ = user(&changed); }
            _ => { let _ = templates(&changed); }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = vms(&text);
        let _ = hosts(&format!("<HOST_POOL>{text}</HOST_POOL>"), Devices::Read);
    }

    #[test]
    fn sums_over_a_pool_stay_far_from_their_end(
        cpu in number(), memory in number(), of_host in number(),
    ) {
        let (vms, hosts) = sized(&cpu, &memory, &of_host);
        // As many as ids can tell apart, all as large as one of these.
        let pool = 1_u64 << 32;
        for vm in vms {
            prop_assert!(vm.memory_mb.checked_mul(pool).is_some_and(|sum| sum <= 1 << 62));
            prop_assert!(u64::from(vm.cpu_percent).checked_mul(pool).is_some_and(|sum| sum <= 1 << 55));
        }
        for host in hosts {
            let memory = host.max_memory_mb.max(host.promised_memory_mb);
            prop_assert!(memory.max(host.load.map_or(0, |load| load.1)) <= MOST_MEMORY_MB);
            let cpu = host.max_cpu_percent.max(host.promised_cpu_percent);
            prop_assert!(cpu.max(host.load.map_or(0, |load| load.0)) <= MOST_CPU_PERCENT);
            prop_assert!(host.vms <= MOST_VMS);
        }
    }

    /// What we write as a template is what oned gives back, as far as XML goes.
    #[test]
    fn names_are_kept(name in "[^\u{0}-\u{1f}\u{fffe}\u{ffff}]{0,40}") {
        let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let xml = format!("<VM_POOL><VM><ID>1</ID><NAME>{escaped}</NAME><STATE>1</STATE><LCM_STATE>0</LCM_STATE></VM></VM_POOL>");
        prop_assert_eq!(&vms(&xml).expect("read")[0].name, &name);
    }
}
