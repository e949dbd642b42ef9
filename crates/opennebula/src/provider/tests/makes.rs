use super::*;
use crate::state::LcmState;

const PROLOG: VmState = VmState::Active(LcmState::Prolog);

#[test]
fn a_vm_is_made_held_and_then_deployed() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    provider.observe().unwrap();
    fake.calls();
    assert_eq!(provider.create(&tag(0), &host(), &spec(), false).unwrap(), id(0));
    let calls = ["templates", "networks", "instantiate 5 prod-fg0-1", "deploy 0 1"];
    assert_eq!(fake.calls(), calls);
    assert_eq!(fake.state(0), PROLOG);
    let sent = fake.inside().vms[&0].sent.clone();
    for part in [
        "<CPU>1</CPU>",
        "<MEMORY>1088</MEMORY>",
        "<NETWORK_ID>12</NETWORK_ID>",
        "<SSH_PUBLIC_KEY>$USER[SSH_PUBLIC_KEY]</SSH_PUBLIC_KEY>",
        "<TOKEN>YES</TOKEN>",
    ] {
        assert!(sent.contains(part), "{part} in {sent}");
    }
    // What was resolved is kept: the next one costs two calls.
    provider.create(&tag(1), &host(), &spec(), false).unwrap();
    assert_eq!(fake.calls(), ["instantiate 5 prod-fg1-1", "deploy 1 1"]);
}

#[test]
fn with_opennebulas_placement_it_is_released_once() {
    let fake = Arc::new(Fake::default());
    let mut provider = provider(&fake);
    provider.settings.placement = Placement::OpenNebula;
    let anywhere = HostName::new(PSEUDO_HOST).unwrap();
    fake.fault("action", Fault::LoseAnswer);
    provider.create(&tag(0), &anywhere, &spec(), false).unwrap_err();
    assert_eq!(fake.calls().last().unwrap(), "action Release 0");
    provider.create(&tag(0), &anywhere, &spec(), true).unwrap();
    assert_eq!(seen(&provider), [("0".to_owned(), Seen::Pending)]);
    // And when an observation has shown that it is on its way.
    provider.create(&tag(0), &anywhere, &spec(), true).unwrap();
    assert_eq!(fake.alive(), [0]);
}

#[test]
fn a_vm_whose_answer_was_lost_is_found_and_released() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.fault("instantiate", Fault::LoseAnswer);
    let error = provider.create(&tag(0), &host(), &spec(), false).unwrap_err();
    assert_eq!(error.class, Class::Network);
    assert_eq!(fake.state(0), VmState::Hold);
    assert_eq!(provider.create(&tag(0), &host(), &spec(), true).unwrap(), id(0));
    assert_eq!((fake.state(0), fake.alive()), (PROLOG, vec![0]));
}

#[test]
fn a_deploy_whose_answer_was_lost_is_not_done_twice() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.fault("deploy", Fault::LoseAnswer);
    assert_eq!(
        provider
            .create(&tag(0), &host(), &spec(), false)
            .unwrap_err()
            .class,
        Class::Network
    );
    assert_eq!(provider.create(&tag(0), &host(), &spec(), true).unwrap(), id(0));
    assert_eq!(fake.alive(), [0]);
}

#[test]
fn the_next_controller_finds_what_the_last_one_made() {
    let fake = Arc::new(Fake::default());
    fake.fault("deploy", Fault::Refuse(Class::Network, "died here"));
    provider(&fake)
        .create(&tag(0), &host(), &spec(), false)
        .unwrap_err();
    provider(&fake).create(&tag(1), &host(), &spec(), false).unwrap();
    let next = provider(&fake);
    assert_eq!(next.create(&tag(0), &host(), &spec(), true).unwrap(), id(0));
    assert_eq!(next.create(&tag(1), &host(), &spec(), true).unwrap(), id(1));
    assert_eq!(next.create(&tag(2), &host(), &spec(), true).unwrap(), id(2));
    assert_eq!(fake.alive(), [0, 1, 2]);
}

#[test]
fn without_a_whole_listing_nothing_is_made_again() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    provider.observe().unwrap();
    fake.fault("vms", Fault::Refuse(Class::Network, "down"));
    let error = provider.create(&tag(0), &host(), &spec(), true).unwrap_err();
    assert_eq!((error.class, fake.alive()), (Class::Network, vec![]));
}

#[test]
fn of_two_with_one_tag_the_one_that_runs_counts() {
    let tags = [
        ("THIAO_CLUSTER", "prod"),
        ("THIAO_NODE", "fg0"),
        ("THIAO_GENERATION", "1"),
    ];
    let fake = Arc::new(Fake::default());
    fake.put(3, vm(VmState::Hold, &tags));
    fake.put(4, vm(VmState::Active(LcmState::Running), &tags));
    fake.put(5, vm(VmState::Hold, &tags));
    assert_eq!(
        provider(&fake).create(&tag(0), &host(), &spec(), true).unwrap(),
        id(4)
    );
    fake.set(4, VmState::Done);
    assert_eq!(
        provider(&fake).create(&tag(0), &host(), &spec(), true).unwrap(),
        id(3)
    );
}

#[test]
fn a_host_that_does_not_take_it_is_full_and_the_held_vm_is_ended() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.fault(
        "deploy",
        Fault::Refuse(Class::WrongState, "Could not deploy in an offline host"),
    );
    let error = provider.create(&tag(0), &host(), &spec(), false).unwrap_err();
    assert_eq!(error.class, Class::Capacity);
    assert!(error.text.contains("offline host"), "{}", error.text);
    assert_eq!(fake.state(0), VmState::Hold);
    assert!(matches!(
        provider.destroy(&tag(0), None, true).unwrap(),
        Ended::Underway(_)
    ));
    provider.observe().unwrap();
    assert_eq!(provider.destroy(&tag(0), None, true).unwrap(), Ended::Gone);
    assert_eq!((seen(&provider), fake.alive()), (vec![], vec![]));
}

#[test]
fn a_full_quota_makes_nothing() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.fault(
        "instantiate",
        Fault::Refuse(Class::Capacity, "limit of 1 reached for CPU quota"),
    );
    let error = provider.create(&tag(0), &host(), &spec(), false).unwrap_err();
    assert_eq!((error.class, fake.alive()), (Class::Capacity, vec![]));
    assert_eq!(provider.destroy(&tag(0), None, false).unwrap(), Ended::Gone);
}

#[test]
fn a_template_made_anew_is_found_by_its_name() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    provider.create(&tag(0), &host(), &spec(), false).unwrap();
    fake.inside().templates = vec![(9, "worker", "slurm")];
    provider.create(&tag(1), &host(), &spec(), false).unwrap();
    fake.inside().templates.clear();
    let error = provider.create(&tag(2), &host(), &spec(), false).unwrap_err();
    assert_eq!(error.class, Class::NoSuchObject);
    assert!(
        error.text.contains("no template named \"worker\""),
        "{}",
        error.text
    );
    assert_eq!(fake.alive(), [0, 1]);
}

#[test]
fn of_several_templates_of_one_name_the_users_own_counts() {
    let fake = Arc::new(Fake::default());
    fake.inside().templates = vec![(7, "worker", "other"), (8, "worker", "slurm")];
    provider(&fake).create(&tag(0), &host(), &spec(), false).unwrap();
    assert!(fake.calls().iter().any(|call| call.starts_with("instantiate 8")));
    fake.inside().templates = vec![(7, "worker", "other"), (8, "worker", "third")];
    let error = provider(&fake)
        .create(&tag(1), &host(), &spec(), false)
        .unwrap_err();
    assert!(error.text.contains("give its id"), "{}", error.text);
}

#[test]
fn a_nodes_own_file_is_what_its_vm_is_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let mut provider = provider(&fake);
    let source = provider.settings.nodesets.values_mut().next().unwrap();
    source.template = TemplateSource::PerNode(folder.path().to_owned());
    let error = provider.create(&tag(0), &host(), &spec(), false).unwrap_err();
    assert_eq!(error.class, Class::BadTemplate);
    assert!(error.text.contains("fg0.one"), "{}", error.text);
    std::fs::write(
        folder.path().join("fg0.one"),
        "vCPU = 3\nCONTEXT = [ vmid = $VMID ]\nHOST = {{ host }}",
    )
    .unwrap();
    provider.create(&tag(0), &host(), &spec(), false).unwrap();
    let sent = fake.inside().vms[&0].sent.clone();
    for part in [
        "<VCPU>2</VCPU>",
        "<VMID>$VMID</VMID>",
        "<HOST>h1</HOST>",
        "<NAME>prod-fg0-1</NAME>",
    ] {
        assert!(sent.contains(part), "{part} in {sent}");
    }
}

#[test]
fn what_cannot_be_makes_nothing() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    let nowhere = HostName::new("h9").unwrap();
    let error = provider.create(&tag(0), &nowhere, &spec(), false).unwrap_err();
    assert_eq!(error.class, Class::Capacity);
    let foreign = VmTag {
        cluster: ClusterName::new("test").unwrap(),
        ..tag(0)
    };
    assert_eq!(
        provider
            .create(&foreign, &host(), &spec(), false)
            .unwrap_err()
            .class,
        Class::BadTemplate
    );
    assert_eq!(
        provider
            .create(&tag(99), &host(), &spec(), false)
            .unwrap_err()
            .class,
        Class::BadTemplate
    );
    assert_eq!(fake.alive(), Vec::<u32>::new());
}

#[test]
fn what_was_seen_of_a_vm_is_told_in_order() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    provider.create(&tag(0), &host(), &spec(), false).unwrap();
    fake.set(0, VmState::Active(LcmState::Running));
    provider.observe().unwrap();
    fake.inside()
        .vms
        .get_mut(&0)
        .unwrap()
        .tags
        .insert("READY".to_owned(), "YES".to_owned());
    provider.observe().unwrap();
    let story = provider.memory().story(0);
    let words: Vec<&str> = story.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        words,
        [
            "asked for",
            "made, held, as VM 0",
            "deployed to h1",
            "seen RUNNING on h1",
            "its guest says READY"
        ]
    );
    assert!(story.is_sorted_by_key(|(at, _)| *at));
}

#[test]
fn a_file_that_names_its_job_is_no_reason_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.one");
    std::fs::write(&file, "NIC = [ NETWORK = net ]\nA = {{ job }}\n").unwrap();
    let mut settings = settings();
    for source in settings.nodesets.values_mut() {
        source.template = TemplateSource::File(file.clone());
    }
    let fake = Arc::new(Fake::default());
    Inner::new(settings, fake).prepare(&[SHAPE], &|_| {}).unwrap();
}

#[test]
fn preparing_finds_what_would_fail_later() {
    let prepare = |change: fn(&mut fake::Inside)| {
        let fake = Arc::new(Fake::default());
        change(&mut fake.inside());
        provider(&fake).prepare(&[SHAPE], &|_| {})
    };
    let notes = prepare(|_| {}).unwrap().notes.join("\n");
    assert!(
        notes.contains("OpenNebula 7.4.1") && notes.contains("2 of 2 hosts"),
        "{notes}"
    );
    assert!(
        prepare(|oned| oned.version = "5.10.2")
            .unwrap_err()
            .text
            .contains("5.12 or later")
    );
    assert!(prepare(|oned| oned.version = "5.12.0").is_ok());
    // A fault of the nodes, even if it is of all: VMs that are there are looked after.
    let without = prepare(|oned| oned.templates.clear()).unwrap();
    assert!(!without.faults.is_empty());
    assert!(
        without
            .faults
            .values()
            .all(|why| why.contains("no template named"))
    );
    assert!(
        prepare(|oned| oned.no_hosts = true)
            .unwrap()
            .notes
            .join("\n")
            .contains("no host to this user")
    );
}

/// A VM of job 7 with these options.
fn asking(options: &str) -> VmSpec {
    VmSpec {
        job: Some(thiao_core::ids::JobId(7)),
        options: VmOptions::parse(options).unwrap(),
        ..spec()
    }
}

#[test]
fn a_jobs_template_takes_the_place_of_its_nodesets() {
    let fake = Arc::new(Fake::default());
    fake.inside().templates.push((9, "big", "slurm"));
    let provider = provider(&fake);
    let name = |n| format!("prod-fg{n}-1");
    for (n, options, template) in [
        (0, "", 5),
        (1, "template=big", 9),
        (2, "template=9", 9),
        (3, "template=big", 9),
        (4, "", 5),
    ] {
        fake.calls();
        provider
            .create(&tag(n), &host(), &asking(options), false)
            .unwrap();
        let made = format!("instantiate {template} {}", name(n));
        let calls = fake.calls();
        assert!(calls.contains(&made), "{made} is not among {calls:?}");
        // What is known of one template is kept beside the other.
        assert_eq!(
            calls.iter().any(|call| call.starts_with("template")),
            n < 3,
            "{calls:?}"
        );
        let sent = fake.inside().vms[&n].sent.clone();
        assert!(sent.contains("<THIAO_JOB>7</THIAO_JOB>"), "{sent}");
    }
}

#[test]
fn a_jobs_template_that_is_not_there_is_its_own_fault() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    let error = provider
        .create(&tag(0), &host(), &asking("template=big"), false)
        .unwrap_err();
    assert_eq!(error.class, Class::NoSuchObject);
    assert_eq!(
        error.text,
        "template big of --vm-template: OpenNebula shows no template named \"big\". See `onetemplate list` as the \
         user of the credentials; USE rights on it are needed"
    );
    // It was there, and is deleted: the same.
    fake.inside().templates.push((9, "big", "slurm"));
    provider
        .create(&tag(1), &host(), &asking("template=big"), false)
        .unwrap();
    fake.inside().templates.pop();
    let error = provider
        .create(&tag(2), &host(), &asking("template=big"), false)
        .unwrap_err();
    assert!(
        error.text.starts_with("template big of --vm-template: "),
        "{error}"
    );
    // The nodeset's own works on.
    provider.create(&tag(3), &host(), &asking(""), false).unwrap();
}

#[test]
fn an_image_that_is_not_taken_is_named() {
    let fake = Arc::new(Fake::default());
    let provider = provider(&fake);
    fake.fault("instantiate", Fault::Refuse(Class::BadTemplate, "no image"));
    let error = provider
        .create(&tag(0), &host(), &asking("image=rocky"), false)
        .unwrap_err();
    assert!(
        error.text.starts_with("no image. Its job names the image rocky"),
        "{error}"
    );
    provider
        .create(&tag(0), &host(), &asking("image=rocky"), false)
        .unwrap();
    assert!(
        fake.inside().vms[&0]
            .sent
            .contains("<DISK><IMAGE>rocky</IMAGE></DISK>")
    );
}

#[test]
fn a_nodesets_missing_template_costs_that_nodeset_alone() {
    let fake = Arc::new(Fake::default());
    let mut settings = settings();
    let (large, lost) = (NodesetName::new("large").unwrap(), node(7));
    let source = VmSource {
        template: TemplateSource::Registered("gone".to_owned()),
        ..settings.nodesets.values().next().unwrap().clone()
    };
    settings.nodesets.insert(large.clone(), source);
    settings.nodes.insert(lost.clone(), large);
    let prepared = Inner::new(settings, fake).prepare(&[SHAPE], &|_| {}).unwrap();
    assert_eq!(prepared.faults.keys().collect::<Vec<_>>(), [&lost]);
    assert!(
        prepared.faults[&lost].contains("gone") && prepared.faults[&lost].contains("nodeset large"),
        "{prepared:?}"
    );
}
