use super::*;
use reach::GuestContext;
use thiao_qemu::{Backup, Credentials};
use thiao_slurm::site::Site;
use thiao_slurm::{Config, Version};

const GOOD: &str = "SlurmctldHost[0] = head(10.9.0.1)\nSlurmctldPort = 6817\nSlurmUser = slurm(64030)\n\
    AuthType = auth/munge\nPluginDir = /opt/slurm/lib/slurm\nSLURM_VERSION = 25.11.7\n";

fn told() -> GuestContext {
    GuestContext {
        host: "head".to_owned(),
        addr: "10.9.0.1".parse().unwrap(),
        port: 6817,
        backups: vec![],
        slurm_user: "slurm".to_owned(),
        credentials: Some(Credentials::Munge {
            key: "/k".into(),
            socket: "/s".into(),
        }),
        plugins: Some(vec!["/opt/slurm/lib/slurm".into()]),
        here: false,
    }
}

/// What is wrong, as `what: words: remedy`.
fn said(config: &str, told: &GuestContext, shared: bool) -> Vec<String> {
    let site = Site::of(&Config::parse(config));
    let mut found = reach::judge(&site, told, Some(Version::new(25, 11, 2)), shared);
    found.retain(|finding| finding.verdict != Verdict::Ok);
    let words = |finding: Finding| format!("{}: {}: {:?}", finding.what, finding.text, finding.remedy);
    found.into_iter().map(words).collect()
}

#[track_caller]
fn one(config: &str, told: &GuestContext, words: &[&str]) {
    let found = said(config, told, false);
    assert_eq!(found.len(), 1, "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "{word}: {found:?}");
    }
}

#[test]
fn guests_that_are_told_what_slurmctld_says_are_right() {
    assert_eq!(said(GOOD, &told(), false), [""; 0]);
    // A range has the port; root is everywhere; nothing said, nothing wrong.
    let range = GOOD
        .replace("6817", "6815-6820")
        .replace("slurm(64030)", "root(0)");
    assert_eq!(said(&range, &told(), false), [""; 0]);
    assert_eq!(said("", &told(), false), [""; 0]);
    // An address of this machine is reached over its bridge, too.
    let here = GuestContext {
        addr: "10.84.0.1".parse().unwrap(),
        here: true,
        ..told()
    };
    assert_eq!(said(GOOD, &here, false), [""; 0]);
}

#[test]
fn what_differs_is_named_with_the_key_that_mends_it() {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    one(
        &with("25.11.7", "24.11.5"),
        &told(),
        &["slurmctld is 24.11.5", "25.11.2", "slurm.bin_dir"],
    );
    one(
        &with("auth/munge", "auth/slurm"),
        &told(),
        &["AuthType", "munge key", "set slurm_key"],
    );
    let key = GuestContext {
        credentials: Some(Credentials::Slurm { key: "/k".into() }),
        ..told()
    };
    one(GOOD, &key, &["auth/munge", "Slurm key", "set munge_key"]);
    one(
        &format!("{GOOD}TLSType = tls/s2n\n"),
        &told(),
        &["TLSType", "no certificates"],
    );
    one(
        &with("6817", "7000-7003"),
        &told(),
        &["7000-7003", "6817", "slurmctld_port = 7000"],
    );
    one(&with("head(", "ctl("), &told(), &["is ctl", "slurmctld_host"]);
    one(
        &with("10.9.0.1", "10.9.0.8"),
        &told(),
        &["10.9.0.8", "slurmctld_addr"],
    );
    one(
        &with("slurm(64030)", "slurmadm(990)"),
        &told(),
        &["slurmadm", "slurm_user"],
    );
    one(
        &with("= /opt/slurm", "= /opt/spank:/opt/slurm"),
        &told(),
        &["/opt/spank", "plugin_dir", "/opt/spank:/opt/slurm/lib/slurm"],
    );
}

#[test]
fn a_backup_is_told_to_guests_and_what_its_hooks_reach_is_said() {
    let two = format!("{GOOD}SlurmctldHost[1] = head2(10.9.0.2)\n");
    let found = said(&two, &told(), false);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("slurmctld_backups = [\\\"head2(10.9.0.2)\\\"]"),
        "{found:?}"
    );
    assert!(found[1].contains("reach no controller"), "{found:?}");
    let knows = GuestContext {
        backups: vec![Backup {
            host: "head2".to_owned(),
            addr: "10.9.0.2".parse().unwrap(),
        }],
        ..told()
    };
    let found = said(&two, &knows, true);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("if the state folder is mounted there"),
        "{found:?}"
    );
}
