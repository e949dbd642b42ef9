//! Folders, people and InfiniBand that a nodeset promises its guests.

use super::*;
use crate::inputs::{Infiniband, Inputs};
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
