//! Folders, people and InfiniBand that a nodeset promises its guests.

use super::*;
use crate::inputs::{Infiniband, Inputs};
use crate::pci::PciDevice;
use crate::syntax::Template as Body;

#[test]
fn what_a_guest_without_discs_does_not_follow_is_told() {
    let mut wanted = wanted();
    let mut seen = seen();
    let told = |seen: &Seen, wanted: &Needs| {
        let found = judge(seen, wanted);
        found
            .into_iter()
            .find(|finding| finding.text.contains("as Thiao's own guest"))
    };
    let body = "NIC = [ NETWORK = vms ]\nOS = [ INITRD_DS = \"$FILE[IMAGE=i]\" ]";
    seen.templates.as_mut().unwrap()[0].body = Body::parse(body).unwrap();
    wanted.nodesets[0].source.inputs = Inputs {
        home: Some("10.0.0.2:/home".parse().unwrap()),
        ..Inputs::default()
    };
    assert_eq!(told(&seen, &wanted), None, "folders it mounts");
    wanted.nodesets[0].source.inputs.infiniband = Some(Infiniband {
        pci: None,
        ipoib: None,
    });
    let finding = told(&seen, &wanted).unwrap();
    holds(
        &finding,
        Verdict::Warn,
        "does not follow infiniband",
        "an image with sssd",
    );
    // With a disc it may be any image.
    let body = format!("{body}\nDISK = [ IMAGE = os ]");
    seen.templates.as_mut().unwrap()[0].body = Body::parse(&body).unwrap();
    assert_eq!(told(&seen, &wanted), None);
}

#[test]
fn hosts_without_the_function_that_infiniband_asks_for_are_told() {
    let (mut seen, mut wanted) = (seen(), wanted());
    let told = |seen: &Seen, wanted: &Needs| {
        let found = judge(seen, wanted);
        found.into_iter().find(|finding| finding.what == "nodeset fg")
    };
    let asked = [("VENDOR", "15b3"), ("CLASS", "0207")];
    wanted.nodesets[0].source.inputs.infiniband = Some(Infiniband {
        pci: Some(
            asked
                .map(|(key, text)| (key.to_owned(), text.to_owned()))
                .to_vec(),
        ),
        ipoib: None,
    });
    assert_eq!(told(&seen, &wanted), None, "the hosts do not say what they have");
    let device = |class: u32| PciDevice {
        vendor: Some(0x15b3),
        class: Some(class),
        ..PciDevice::default()
    };
    for host in seen.hosts.as_mut().unwrap() {
        host.pci = Some(vec![device(0x200)]);
    }
    let finding = told(&seen, &wanted).unwrap();
    holds(
        &finding,
        Verdict::Bad,
        "hosts that take VMs can run its VMs: they have no function",
        "onehost show",
    );
    let taken = PciDevice {
        vm: Some(7),
        ..device(0x207)
    };
    seen.hosts.as_mut().unwrap()[0].pci.as_mut().unwrap().push(taken);
    let finding = told(&seen, &wanted).unwrap();
    holds(&finding, Verdict::Warn, "1 of 2 hosts", "pci.conf");
}
