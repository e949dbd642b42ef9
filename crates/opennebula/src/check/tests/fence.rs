use super::*;
use crate::secgroup::Wires;
use std::collections::BTreeSet;
use thiao_core::finding::Verdict;

fn network(driver: &str, groups: &[u32], filters: (bool, bool)) -> Wires {
    Wires {
        id: 4,
        name: "vms".to_owned(),
        driver: driver.to_owned(),
        groups: groups.iter().copied().collect::<BTreeSet<u32>>(),
        filters,
        ranges: Vec::new(),
    }
}

/// What is said of the fence, with that network.
fn said(network: Wires, change: impl FnOnce(&mut Seen, &mut Needs)) -> Vec<String> {
    let (mut seen, mut wanted) = (seen(), wanted());
    wanted.fence = true;
    seen.wires = Ok(vec![network]);
    change(&mut seen, &mut wanted);
    let about = |what: &str| matches!(what, "fence" | "network vms" | "nodeset fg");
    let found = judge(&seen, &wanted).into_iter();
    found
        .filter(|finding| finding.verdict != Verdict::Ok && about(&finding.what))
        .map(|finding| format!("{}: {} {:?}", finding.what, finding.text, finding.remedy))
        .collect()
}

#[test]
fn a_network_that_filters_is_fine_with_the_default_group_too() {
    // Ours is given each card in place of the default one.
    assert_eq!(said(network("fw", &[0], (true, true)), |_, _| ()), [""; 0]);
}

#[test]
fn what_would_let_vms_around_the_fence_is_told() {
    let driver = said(network("bridge", &[0], (true, true)), |_, _| ());
    assert!(driver[0].contains("does not go by security groups"), "{driver:?}");
    let forged = said(network("vxlan", &[0], (false, true)), |_, _| ());
    assert!(
        forged[0].contains("FILTER_IP_SPOOFING") && !forged[0].contains("MAC"),
        "{forged:?}"
    );
    let group = said(network("802.1Q", &[0, 101], (true, true)), |_, _| ());
    assert!(group[0].contains("security group 101"), "{group:?}");
    let none = said(network("dummy", &[101], (false, false)), |_, wanted| {
        wanted.fence = false
    });
    assert_eq!(none, [""; 0]);
}

#[test]
fn what_keeps_vms_from_being_made_is_told_with_its_cure() {
    let fine = || network("fw", &[0], (true, true));
    let old = said(fine(), |seen, _| seen.version = Ok("6.2.1".to_owned()));
    assert!(old[0].contains("6.4"), "{old:?}");
    let lacks = said(fine(), |seen, _| {
        seen.tried_group = Some(Err(error(Class::Authorization)));
    });
    assert!(
        lacks[0].contains("oneacl create '#7 SECGROUP/* CREATE'"),
        "{lacks:?}"
    );
    let unchosen = said(fine(), |seen, wanted| {
        wanted.placement = Placement::OpenNebula;
        let auto = vec![("NETWORK_MODE".to_owned(), "auto".to_owned())];
        seen.templates = Ok(vec![template(
            3,
            "worker",
            vec![("NIC".to_owned(), Value::Vector(auto))],
        )]);
    });
    assert!(
        unchosen
            .iter()
            .any(|text| text.contains("scheduler chooses the network")),
        "{unchosen:?}"
    );
}
