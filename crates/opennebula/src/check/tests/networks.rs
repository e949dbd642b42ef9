//! Networks of which one is enough, and clusters that lack what a nodeset needs.

use super::*;

fn network(id: u32, name: &str, used: u64, clusters: &[u32]) -> Network {
    Network {
        id,
        name: name.to_owned(),
        addresses: 10,
        used,
        clusters: clusters.to_vec(),
    }
}

/// Hosts in clusters 0 and 100, and a nodeset that names networks.
fn two_clusters(networks: &[&str]) -> (Seen, Needs) {
    let (mut seen, mut wanted) = (seen(), wanted());
    let hosts = seen.hosts.as_mut().unwrap();
    hosts[1].cluster_id = 100;
    hosts[1].cluster = "west".to_owned();
    seen.templates.as_mut().unwrap()[0].body = syntax::Template::default();
    let all = vec![network(0, "east", 6, &[0]), network(1, "west", 6, &[100])];
    seen.networks = Ok(all.clone());
    seen.places = Ok(Places {
        networks: all,
        ..Places::default()
    });
    wanted.nodesets[0].source.networks = networks.iter().map(|name| (*name).to_owned()).collect();
    (seen, wanted)
}

#[test]
fn addresses_of_several_networks_count_together() {
    let (seen, wanted) = two_clusters(&["east", "west"]);
    let finding = about(&seen, &wanted, "networks east, west");
    holds(
        &finding,
        Verdict::Ok,
        "8 addresses are free, 8 nodes have none yet",
        "",
    );
    let (mut seen, wanted) = two_clusters(&["east", "west"]);
    seen.networks.as_mut().unwrap()[0].used = 9;
    let finding = about(&seen, &wanted, "networks east, west");
    holds(
        &finding,
        Verdict::Warn,
        "5 of 20 addresses are free",
        "onevnet addar 1 ",
    );
    // One that is not there is told by its name.
    let (seen, wanted) = two_clusters(&["east", "gone"]);
    holds(
        &about(&seen, &wanted, "network gone"),
        Verdict::Bad,
        "there is none",
        "onevnet list",
    );
}

#[test]
fn hosts_that_a_nodeset_does_not_reach_are_told_with_their_number() {
    let (seen, wanted) = two_clusters(&["east", "west"]);
    assert!(
        judge(&seen, &wanted)
            .iter()
            .all(|finding| finding.what != "nodeset fg")
    );
    let (seen, wanted) = two_clusters(&["east"]);
    let finding = about(&seen, &wanted, "nodeset fg");
    holds(
        &finding,
        Verdict::Warn,
        "1 of 2 hosts that take VMs cannot run its VMs: cluster west has none of the nodeset's networks (east)",
        "addvnet",
    );
    let (mut seen, wanted) = two_clusters(&["east"]);
    seen.hosts.as_mut().unwrap().remove(0);
    let finding = about(&seen, &wanted, "nodeset fg");
    holds(
        &finding,
        Verdict::Bad,
        "none of the 1 hosts that take VMs can run its VMs",
        "host_cluster",
    );
    // What could not be read is no reason.
    let (mut seen, wanted) = two_clusters(&["east"]);
    seen.places = Err(Error::new(Class::Network, "away"));
    assert!(
        judge(&seen, &wanted)
            .iter()
            .all(|finding| finding.what != "nodeset fg")
    );
}
