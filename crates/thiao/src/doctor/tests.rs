//! Every state of the troubleshooting page of 2011, and what else can be wrong, on facts alone.

use super::*;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiao_api::types::{EventBus, Observation, Status};
use thiao_core::hostlist;
use thiao_core::ids::{ClusterName, JobId, Time};
use thiao_core::view::{BaseState, JobState, NodeFlags, Shape, SlurmJob, SlurmNode, SlurmView};
use thiao_opennebula::model::{VmDetails, VmRow};
use thiao_opennebula::state::VmState;
use thiao_opennebula::template::{TAG_CLUSTER, TAG_GENERATION, TAG_NODE};
use thiao_slurm::details::NodeDetails;
use thiao_testkit::ids::node as name;

const NOW: u64 = 10_000_000;
const BOOT_TIMEOUT: u64 = 300_000;

/// Text and remedy of the one finding.
#[track_caller]
fn holds(found: &[Finding], what: &str, verdict: Verdict, words: &str, remedy: &str) {
    let [finding] = found else {
        panic!("not one: {found:#?}")
    };
    assert_eq!(
        (finding.what.as_str(), finding.verdict),
        (what, verdict),
        "{finding:?}"
    );
    assert!(finding.text.contains(words), "{finding:?}");
    let text = match &finding.remedy {
        Some(Remedy::Run(text) | Remedy::Advice(text)) => text.as_str(),
        None => "",
    };
    assert!(text.contains(remedy), "{finding:?}");
    assert_eq!(verdict == Verdict::Ok, finding.remedy.is_none(), "{finding:?}");
}

mod on_controller;
mod on_hooks;
mod on_nodes;
mod on_reach;
mod on_slurm;
mod on_vms;

fn after(mut finding: Finding) -> Finding {
    not_for_us(&mut finding);
    finding
}

#[test]
fn what_a_person_may_not_see_is_not_called_bad() {
    let denied = Finding::bad("spool", "/s: Permission denied (os error 13)")
        .run("x")
        .unless_denied(true);
    let missing = Finding::bad("spool", "/s: No such file or directory").run("x");
    holds(
        &[after(denied)],
        "spool",
        Verdict::Warn,
        "denied",
        "sudo thiao doctor",
    );
    assert_eq!(after(missing.clone()), missing);
}

#[test]
fn whoever_says_denied_it_is_the_system_that_counts() {
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    assert!(Unseen::from(denied()).denied);
    assert!(!Unseen::from(io::Error::from(io::ErrorKind::NotFound)).denied);
    let of_slurm = SlurmError::Io {
        command: "scontrol ping".to_owned(),
        source: denied(),
    };
    assert!(Unseen::from(of_slurm).denied);
    let said = |text: &str| Unseen::from(SlurmError::from_message("scontrol", "exit status: 1", text)).denied;
    assert!(said(
        "error: s_p_parse_file: unable to read \"/c\": Permission denied; Unable to process configuration file"
    ));
    assert!(!said("Unable to contact slurm controller (connect failure)"));

    // A sentence about a node may have any words.
    let reason = nodes::Trouble::GivenUp("qemu: Permission denied".to_owned());
    let finding = nodes::finding(&reason, &[name("fg0")], None);
    assert_eq!(after(finding.clone()), finding);
}

#[test]
fn commands_are_for_the_settings_that_were_looked_at() {
    let command = "thiao setup && systemctl restart thiaod && sudo thiao doctor";
    assert_eq!(with_settings(command, Path::new(DEFAULT_FILE)), command);
    assert_eq!(with_settings(command, Path::new("/a b/thiao.toml")), command);
    assert_eq!(
        with_settings(command, Path::new("/srv/thiao.toml")),
        "thiao --config /srv/thiao.toml setup && systemctl restart thiaod && sudo thiao --config /srv/thiao.toml doctor"
    );
}

#[test]
fn a_finding_names_the_settings_too_where_it_says_what_to_look_at() {
    let text = format!("`{}` says how it went", machine::LOOK);
    assert_eq!(looked_for(&text, Path::new(DEFAULT_FILE)), text);
    assert_eq!(
        looked_for(&text, Path::new("/srv/thiao.toml")),
        "`thiao --config /srv/thiao.toml status` says how it went"
    );
}

#[test]
fn in_a_lab_its_owner_is_called_for() {
    let typed = |dir: &str| {
        let file = Path::new(dir).join("thiao.toml");
        typed_for("sudo thiao doctor", &file, Some(Path::new(dir)))
    };
    assert_eq!(
        typed("/var/lib/thiao-lab"),
        "thiao lab exec --admin -- thiao doctor"
    );
    assert_eq!(
        typed("/srv/lab"),
        "thiao lab exec --dir /srv/lab --admin -- thiao doctor"
    );
}
