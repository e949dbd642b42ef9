//! What is wanted, from the settings and the VMs' files.

use super::*;

fn settings(wanted: &Needs) -> Settings {
    Settings {
        cluster: wanted.cluster.clone(),
        access: Access {
            endpoint: wanted.endpoint.clone(),
            auth: PathBuf::from("/a"),
            ca_file: None,
            timeout: std::time::Duration::from_secs(1),
            requests_per_second: 30,
            connections: 8,
        },
        placement: wanted.placement,
        hosts: Vec::new(),
        host_cluster: None,
        ready: ReadyBy::Slurm,
        overhead_mb: 100,
        terminate_grace: std::time::Duration::from_secs(60),
        nodesets: wanted
            .nodesets
            .iter()
            .map(|set| (set.name.clone(), set.source.clone()))
            .collect(),
        nodes: wanted
            .nodesets
            .iter()
            .flat_map(|set| set.nodes.iter().map(|node| (node.clone(), set.name.clone())))
            .collect(),
        guest: Guest {
            slurmctld_host: "head".to_owned(),
            slurmctld_addr: Ipv4Addr::new(10, 0, 0, 1),
            slurmctld_port: 6817,
            backups: vec![],
            slurm_user: "slurm".to_owned(),
            credentials: None,
            slurm_worker: false,
            users: Vec::new(),
            shares: Vec::new(),
            context: BTreeMap::new(),
        },
        events: Default::default(),
        fence: None,
    }
}

#[test]
fn what_is_wanted_comes_from_the_settings() {
    let by_hand = wanted();
    let shapes = by_hand
        .nodesets
        .iter()
        .map(|set| {
            let asked = Asked {
                shape: set.shape,
                smallest: set.smallest,
                gpus: set.gpus,
                mode: set.mode,
                named: set.named.clone(),
            };
            (set.name.clone(), asked)
        })
        .collect();
    let made = Needs::new(&settings(&by_hand), &shapes, 100, 100);
    assert_eq!(format!("{made:?}"), format!("{by_hand:?}"));
    assert_eq!(made.nodesets[0].cpu_percent(), 100);
    assert_eq!(made.nodesets[0].memory_mb(), 1_000);
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn template_files_are_filled_and_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vm.one");
    let mut wanted = wanted();
    wanted.nodesets[0].source.template = TemplateSource::File(file.clone());
    let what = format!("file {}", file.display());
    let observe = |wanted: &Needs| Seen {
        files: observe::files(&settings(wanted), wanted),
        ..seen()
    };
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Bad,
        "vm.one",
        "write the template",
    );
    write(&file, "NIC = [ NETWORK = \"{{ nett }}\" ]\n");
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Bad,
        "nett",
        "write the template",
    );
    write(&file, "DISK = [ IMAGE = \"{{ node }} on {{ host }}\" ]\n");
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Bad,
        "has no NIC",
        "set network",
    );
    write(&file, "NIC = [ NETWORK = \"vms\" ]\n");
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Ok,
        "makes a VM",
        "",
    );
    assert_eq!(
        about(&observe(&wanted), &wanted, "network vms").verdict,
        Verdict::Ok
    );
    // The host that is chosen meets what asks for it.
    write(
        &file,
        "NIC = [ NETWORK = \"vms\" ]\nSCHED_REQUIREMENTS = \"NAME = \\\"{{ host }}\\\"\"\n",
    );
    let bad = |seen: &Seen| {
        judge(seen, &wanted)
            .iter()
            .any(|finding| finding.verdict == Verdict::Bad)
    };
    assert!(!bad(&observe(&wanted)));
    write(
        &file,
        "NIC = [ NETWORK = \"vms\" ]\nSCHED_REQUIREMENTS = \"NAME = other\"\n",
    );
    assert!(bad(&observe(&wanted)));
    // Nobody needs to be asked for that.
    let mut away = observe(&wanted);
    away.version = Err(error(Class::Network));
    away.user = Err(error(Class::Network));
    assert_eq!(about(&away, &wanted, &what).verdict, Verdict::Ok);
}

#[test]
fn each_node_has_its_file_as_in_2011() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = wanted();
    wanted.nodesets[0].source.template = TemplateSource::PerNode(dir.path().to_owned());
    let what = format!("folder {}", dir.path().display());
    let observe = |wanted: &Needs| Seen {
        files: observe::files(&settings(wanted), wanted),
        ..seen()
    };
    for n in 0..7 {
        write(
            &dir.path().join(format!("fg{n}.one")),
            "CPU = 1\nNIC = [ NETWORK = \"vms\" ]\n",
        );
    }
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Bad,
        "no usable .one file for fg7",
        "NODE.one",
    );
    write(&dir.path().join("fg7.one"), "CPU = 1\n");
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Bad,
        "the file of fg7: nodeset fg: it has no NIC",
        "set network",
    );
    wanted.nodesets[0].source.networks = vec!["vms".to_owned()];
    holds(
        &about(&observe(&wanted), &wanted, &what),
        Verdict::Ok,
        "each of 8 nodes",
        "",
    );
    assert_eq!(
        about(&observe(&wanted), &wanted, "network vms").verdict,
        Verdict::Ok
    );
}
