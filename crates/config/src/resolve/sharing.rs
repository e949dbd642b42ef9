//! `[sharing]`: who decides that jobs share their hosts, once the controller can do that.

use crate::read::Section;
use crate::settings::Sharing;

/// Reads `[sharing]`: there may be none.
pub fn sharing(root: &Section<'_, '_>) -> Sharing {
    let table = root.table("sharing");
    let policy = table.checked("policy", Some(Sharing::Exclusive), policy);
    table.close();
    policy.unwrap_or_default()
}

fn policy(text: &str) -> Result<Sharing, String> {
    match text {
        "exclusive" => Ok(Sharing::Exclusive),
        // It is known, and tried on logs: who asks for it is told that, and not of a typo.
        "shared" => Err(
            "the controller does not act on it yet, use \"exclusive\"; what it would do for \
                         your jobs, `thiao sim trace` says from a log of them"
                .to_owned(),
        ),
        _ => Err("use \"exclusive\"".to_owned()),
    }
}
