use super::*;
use thiao_api::client::ClientError;

fn status() -> Status {
    let observation = Observation {
        last_ok: Some(NOW - 5_000),
        error: None,
    };
    Status {
        version: "1".to_owned(),
        cluster: "lab".to_owned(),
        provider: "opennebula".to_owned(),
        provider_notes: Vec::new(),
        emulated: None,
        preparing: None,
        faults: Vec::new(),
        unstored: None,
        started: NOW - 60_000,
        now: NOW,
        slurm: observation.clone(),
        vms: observation,
        bus: None,
        ungated: None,
        breaker: None,
        nodes_by_state: BTreeMap::new(),
        vm_count: 0,
        pending_intents: 0,
    }
}

fn judged(status: Result<Status, ClientError>) -> Vec<Finding> {
    let expected = controller::Expected {
        cluster: "lab",
        provider: "opennebula",
        version: "1",
        observation_max_age: Duration::from_secs(60),
    };
    controller::judge(&status, expected)
}

/// What is not good.
fn said(status: Status) -> Vec<Finding> {
    let mut found = judged(Ok(status));
    found.retain(|finding| finding.verdict != Verdict::Ok);
    found
}

#[test]
fn a_good_one_is_good() {
    assert_eq!(said(status()), []);
    assert_eq!(judged(Ok(status())).len(), 3);
}

#[test]
fn events_that_should_be_heard_and_are_not_are_a_finding() {
    let with = |configured, relied_on| Status {
        bus: Some(EventBus {
            address: "one:2101".to_owned(),
            configured,
            relied_on,
            silent: false,
            text: "not heard at one:2101".to_owned(),
        }),
        ..status()
    };
    holds(
        &said(with(true, false)),
        "OpenNebula's events",
        Verdict::Warn,
        "one:2101",
        "HM_MAD",
    );
    assert_eq!(said(with(false, false)), []);
    assert_eq!(said(with(true, true)), []);
}

#[test]
fn silence_is_a_finding() {
    let silent = ClientError::NoController {
        socket: "/s".to_owned(),
        error: io::Error::other("nothing listens"),
    };
    holds(
        &judged(Err(silent)),
        "controller",
        Verdict::Bad,
        "nothing listens",
        "systemctl enable --now thiaod",
    );
    let barred = ClientError::Barred {
        socket: "/s".to_owned(),
        error: io::ErrorKind::PermissionDenied.into(),
    };
    assert!(judged(Err(barred)).iter().all(|finding| finding.denied));
}

#[test]
fn old_observations_other_settings_and_what_holds_it_up() {
    let with = |change: fn(&mut Status)| {
        let mut status = status();
        change(&mut status);
        said(status)
    };
    for (found, what, verdict, words, remedy) in [
        (
            with(|s| s.vms.last_ok = Some(NOW - 61_000)),
            "observation of the VMs",
            Verdict::Bad,
            "1 min old;",
            "thiao status",
        ),
        (
            with(|s| s.slurm.error = Some("gone".to_owned())),
            "observation of Slurm",
            Verdict::Bad,
            "5 s old (gone)",
            "thiao status",
        ),
        (
            with(|s| s.slurm.last_ok = None),
            "observation of Slurm",
            Verdict::Bad,
            "never succeeded",
            "thiao status",
        ),
        (
            with(|s| s.breaker = Some("full".to_owned())),
            "circuit breaker",
            Verdict::Bad,
            "full",
            "thiao events provider",
        ),
        (
            with(|s| s.unstored = Some("the disk is full".to_owned())),
            "store",
            Verdict::Bad,
            "the disk is full",
            "df -h",
        ),
        (
            with(|s| s.pending_intents = 3),
            "orders",
            Verdict::Warn,
            "3 of Slurm's orders wait",
            "thiao events",
        ),
        (
            with(|s| s.faults = vec!["no VM can be made for n[0-1]: no key".to_owned()]),
            "controller",
            Verdict::Bad,
            "n[0-1]: no key",
            "thiao events provider",
        ),
        (
            with(|s| s.preparing = Some("an image".to_owned())),
            "controller",
            Verdict::Warn,
            "an image",
            "thiao status",
        ),
        (
            with(|s| s.provider = "qemu".to_owned()),
            "controller",
            Verdict::Warn,
            "provider qemu, not opennebula",
            "systemctl restart thiaod",
        ),
        (
            with(|s| s.version = "0".to_owned()),
            "controller",
            Verdict::Warn,
            "version 0",
            "systemctl restart thiaod",
        ),
    ] {
        holds(&found, what, verdict, words, remedy);
    }
}

#[test]
fn a_state_folder_that_others_may_write_into_is_bad() {
    use std::fs::{Permissions, create_dir_all, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (above, state) = (dir.path().join("a"), dir.path().join("a/state"));
    let finding = || crate::doctor::controller::state_folder(&state);
    assert_eq!(finding().verdict, Verdict::Warn, "it is not there yet");
    create_dir_all(&state).unwrap();
    let chmod = |path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for (of_state, of_above, expected) in [
        (0o755, 0o755, Verdict::Ok),
        (0o775, 0o755, Verdict::Bad),
        (0o755, 0o777, Verdict::Bad),
        (0o755, 0o1777, Verdict::Ok),
    ] {
        chmod(&state, of_state);
        chmod(&above, of_above);
        assert_eq!(finding().verdict, expected, "{of_state:o} {of_above:o}");
    }
}
