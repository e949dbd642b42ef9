use super::*;

fn object(id: u32, name: &str, kind: i32, clusters: &[u32], body: &str) -> Object {
    Object {
        id,
        name: name.into(),
        owner: "oneadmin".into(),
        for_all: true,
        kind: Some(kind),
        state: Some(READY),
        vms: 0,
        datastore: None,
        clusters: clusters.to_vec(),
        free_mb: 0,
        body: Template::parse(body).unwrap(),
    }
}

fn network(id: u32, name: &str, clusters: &[u32]) -> Network {
    Network {
        id,
        name: name.into(),
        addresses: 10,
        used: 0,
        clusters: clusters.to_vec(),
    }
}

/// Clusters 0 and 100; the image's datastore is in both, each has a network and a system datastore of its own.
fn places() -> Places {
    let image = Object {
        datastore: Some(1),
        ..object(7, "os", 0, &[], "")
    };
    Places {
        networks: vec![network(0, "east", &[0]), network(1, "west", &[100])],
        datastores: vec![
            object(0, "system", SYSTEM, &[0], "TM_MAD = shared\nSHARED = YES"),
            object(1, "images", 0, &[0, 100], "TM_MAD = shared"),
            object(102, "west", SYSTEM, &[100], "TM_MAD = shared\nSHARED = YES"),
        ],
        images: vec![image],
    }
}

fn body(text: &str) -> Template {
    Template::parse(text).unwrap()
}

const DISK: &str = "DISK = [ IMAGE = os, IMAGE_UNAME = oneadmin ]";

#[track_caller]
fn why(places: &Places, networks: &[&str], text: &str, cluster: i64) -> Option<String> {
    let networks: Vec<String> = networks.iter().map(|name| (*name).to_owned()).collect();
    let body = body(text);
    let needed = Needed {
        networks: &networks,
        body: Some(&body),
        user: "thiao",
    };
    places.why_not(cluster, "the-cluster", &needed)
}

#[test]
fn a_cluster_must_have_what_a_vm_needs() {
    let all = places();
    assert_eq!(why(&all, &["east", "west"], DISK, 0), None);
    assert_eq!(why(&all, &["east", "west"], DISK, 100), None);
    let said = why(&all, &["east"], DISK, 100).unwrap();
    assert_eq!(
        said,
        "cluster the-cluster has none of the nodeset's networks (east)"
    );
    // By id, too.
    assert!(why(&all, &["0"], DISK, 100).is_some());
    // A template with a card of its own does not ask for the nodeset's.
    let own = format!("{DISK}\nNIC = [ NETWORK_ID = 1 ]");
    assert_eq!(why(&all, &["east"], &own, 100), None);
    let said = why(&all, &["east"], &own, 0).unwrap();
    assert!(said.contains("the template's network west"), "{said}");

    let mut far = places();
    far.datastores[1].clusters = vec![0];
    let said = why(&far, &["west"], DISK, 100).unwrap();
    assert_eq!(
        said,
        "cluster the-cluster does not have datastore images, where image os is"
    );
    // A kernel of the files' datastore counts as a disc does.
    let kernel = "OS = [ KERNEL_DS = \"$FILE[IMAGE=os, IMAGE_UNAME=oneadmin]\" ]";
    assert!(why(&far, &["west"], kernel, 100).is_some());

    let said = why(&places(), &[], DISK, 7).unwrap();
    assert!(said.contains("has no system datastore"), "{said}");
}

#[test]
fn what_is_not_seen_keeps_no_vm_from_a_host() {
    let mut none = places();
    none.datastores.clear();
    assert_eq!(why(&none, &[], DISK, 7), None);
    assert_eq!(why(&places(), &["unseen"], DISK, 0), None);
    assert_eq!(why(&places(), &["west"], "DISK = [ IMAGE = unseen ]", 100), None);
    assert_eq!(why(&Places::default(), &["east"], DISK, 100), None);
}

#[test]
fn the_system_datastore_with_the_most_space_is_taken_where_it_can_be_told() {
    let choose = |places: &Places, text: &str| {
        let body = body(text);
        places.system_datastore(
            100,
            &Needed {
                networks: &[],
                body: Some(&body),
                user: "thiao",
            },
        )
    };
    let mut all = places();
    // One is no choice.
    assert_eq!(choose(&all, DISK), None);
    let more = |id: u32, free_mb: u64, body: &str| Object {
        free_mb,
        ..object(id, "more", SYSTEM, &[0, 100], body)
    };
    const SHARED: &str = "TM_MAD = shared\nSHARED = YES";
    all.datastores.push(more(103, 900, SHARED));
    assert_eq!(choose(&all, DISK), Some(103));
    // Of equals the first, as oned.
    all.datastores[2].free_mb = 900;
    assert_eq!(choose(&all, DISK), Some(102));
    // One that is disabled, that cannot take the image, or that the image's store does not name takes none.
    all.datastores.push(more(104, 5_000, SHARED));
    all.datastores[4].state = Some(1);
    all.datastores
        .push(more(105, 5_000, "TM_MAD = ceph\nSHARED = YES"));
    assert_eq!(choose(&all, DISK), Some(102));
    all.datastores[1].body = body("TM_MAD = shared\nCLONE_TARGET_CEPH = SYSTEM");
    assert_eq!(choose(&all, DISK), Some(105));
    all.datastores[1].body = body("TM_MAD = shared\nCOMPATIBLE_SYS_DS = \"102, 103\"");
    all.datastores[3].free_mb = 901;
    assert_eq!(choose(&all, DISK), Some(103));
    // What hosts have for themselves, or nobody saw, is left to oned.
    assert_eq!(choose(&all, "DISK = [ IMAGE = unseen ]"), None);
    all.datastores[2].body = body("TM_MAD = shared\nSHARED = NO");
    assert_eq!(choose(&all, DISK), None);
}

#[test]
fn hosts_of_one_cluster_share_what_is_said_of_it() {
    let host = |id: u32, cluster_id: i64| Host {
        id,
        name: format!("h{id}"),
        state: crate::state::HostState::Monitored,
        cluster: format!("c{cluster_id}"),
        cluster_id,
        hypervisor: "kvm".into(),
        max_cpu_percent: 100,
        promised_cpu_percent: 0,
        max_memory_mb: 1,
        promised_memory_mb: 0,
        vms: 0,
        beyond: None,
        pci: None,
        load: None,
    };
    let networks = ["east".to_owned()];
    let body = body(DISK);
    let needed = Needed {
        networks: &networks,
        body: Some(&body),
        user: "thiao",
    };
    let set = NodesetName::new("fg").unwrap();
    let found = reach(
        &places(),
        &[host(0, 0), host(1, 0), host(2, 100)],
        [(&set, needed)].into_iter(),
    );
    assert_eq!(found.keys().collect::<Vec<_>>(), [&0, &100]);
    assert!(found[&0].is_empty());
    assert!(found[&100][&set].contains("cluster c100 has none"));
}
