//! `thiao setup --opennebula --create`: from an administrator's credentials alone to settings that doctor finds right;
//! `--remove`; what a dry run and a program read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
mod stand_ins;

use serde_json::Value;
use setup_place::Place;
use stand_ins::{front_end, oneadmin, write};
use std::process::Command;
use thiao_oned::{Oned, UserSetup};
use thiao_testkit::process::{at_terminal, run};

impl Place {
    /// `thiao setup` for new settings, with an administrator's credentials in `admin_auth`.
    fn create(&self, oned: &Oned, more: &[&str]) -> (i32, String, String) {
        let mut command = self.command("new.toml");
        command.args(["--endpoint", &oned.endpoint(), "--cluster", "lab"]);
        run(self.alone(command.args(more)))
    }

    /// With nothing of this machine's own settings.
    fn alone<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("PATH", self.dir.path())
            .env("HOME", self.dir.path())
            .env("ONE_AUTH", self.path("admin_auth"))
            .env("NO_COLOR", "1")
            .env_remove("ONE_XMLRPC")
            .stdin(std::process::Stdio::null())
    }

    fn secret(&self) -> String {
        let text = std::fs::read_to_string(self.path("one_auth")).unwrap();
        let line = text.lines().next().unwrap();
        line.split_once(':').unwrap().1.to_owned()
    }
}

const MAKE: [&str; 9] = [
    "--create",
    "--template",
    "worker",
    "--nodes",
    "fg[0-3]",
    "--memory-mb",
    "1000",
    "--munge-key",
    "",
];

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&MAKE[..], more].concat()
}

fn place() -> Place {
    let place = Place::new();
    write(&place.path("admin_auth"), "oneadmin:opennebula\n", 0o600);
    place
}

#[test]
fn who_makes_our_own_guest_is_told_to_name_its_users() {
    let (place, oned) = (place(), front_end(oneadmin()));
    let mut args: Vec<&str> = MAKE
        .iter()
        .map(|arg| if *arg == "worker" { "/var/tmp/guest" } else { arg })
        .collect();
    args[1] = "--guest";
    args.push("--yes");
    let (code, out, err) = place.create(&oned, &args);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1. Name the users whose jobs run there"), "{out}");
}

#[test]
fn from_credentials_alone_to_settings_that_doctor_finds_right_and_back() {
    let (place, oned) = (place(), front_end(oneadmin()));
    // Nobody is asked, so nothing is done.
    let (code, out, err) = place.create(&oned, &with(&[]));
    assert!(code == 1 && err.contains("repeat with --yes"), "{out}{err}");
    assert!(!place.path("one_auth").exists() && !place.path("new.toml").exists());
    let (code, out, err) = place.create(&oned, &with(&["--yes"]));
    assert_eq!(code, 0, "{out}{err}");
    for line in [
        "  make     user thiao-lab: Thiao's own",
        "  done     make user thiao-lab (2)",
        "  ok   credentials: are those of thiao-lab (user 2)",
        "  ok   rights: VM_MANAGE_OPERATIONS of thiao-lab has deploy and delete",
        "  ok   hosts: 4 of 4 nodes' VMs fit at once on 1 host",
        "Try one: sbatch",
    ] {
        assert!(out.contains(line), "{line} not in\n{out}");
    }
    let (plan, _) = out.split_once("Checks:").unwrap();
    assert!(
        plan.lines()
            .all(|line| line.chars().count() <= 80 || line.contains("/tmp/")),
        "{plan}"
    );
    let settings = std::fs::read_to_string(place.path("new.toml")).unwrap();
    assert!(
        settings.contains("template = \"worker\"\n") && settings.contains("one_auth\"\n"),
        "{settings}"
    );
    let secret = place.secret();
    assert_eq!(secret.len(), 64);
    assert!(
        !format!("{out}{err}{settings}").contains(&secret),
        "the password is nowhere but in its file"
    );
    // VMs are made as for jobs, by the new user, and doctor has nothing to say of OpenNebula.
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_thiao"));
    doctor
        .args(["doctor", "--json", "--try", "--config"])
        .arg(place.path("new.toml"));
    let (_, out, err) = run(place.alone(&mut doctor));
    let groups: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let of_opennebula = groups.to_string();
    for what in ["rights", "try", "credentials", "template worker", "hosts"] {
        assert!(
            of_opennebula.contains(&format!("\"what\":\"{what}\"")),
            "{what}: {out}"
        );
    }
    assert!(!out.contains("oneacl"), "{out}");
    // Again, now by the settings that are there: nothing is to be done, and nobody is asked.
    let mut again = place.command("new.toml");
    let (code, out, err) = run(place.alone(again.args(["--opennebula", "--create"])));
    assert!(
        code == 0 && !out.contains("  make ") && out.contains("is right"),
        "{out}{err}"
    );
    // The way back.
    let (code, out, err) = place.create(&oned, &["--remove"]);
    assert!(
        code == 1 && out.contains("remove   user thiao-lab (2)") && err.contains("--yes"),
        "{out}{err}"
    );
    let (code, out, err) = place.create(&oned, &["--remove", "--yes"]);
    assert!(
        code == 0 && out.contains("done     remove user thiao-lab (2)"),
        "{out}{err}"
    );
    assert!(!place.path("one_auth").exists());
    let (code, out, _) = place.create(&oned, &["--remove", "--yes"]);
    assert!(
        code == 0 && out.contains("Nothing there was made for this cluster"),
        "{out}"
    );
}

#[test]
fn a_dry_run_prints_commands_and_does_nothing() {
    let (place, oned) = (place(), front_end(oneadmin()));
    let before = oned.all_calls();
    let (code, out, err) = place.create(&oned, &["--create", "--image", "img", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for line in [
        "group=$(onegroup create thiao-lab --resources ' ' | sed 's/^ID: //')\n",
        "template=$(onetemplate create <<'END' | sed 's/^ID: //'\nNAME = \"thiao-lab\"\n",
        "oneacl create \"#$user IMAGE/#0 USE\"\n",
        "# Then: thiao setup --opennebula --auth ",
        "--network vms",
    ] {
        assert!(out.contains(line), "{line} not in\n{out}");
    }
    assert!(!place.path("one_auth").exists() && !place.path("new.toml").exists());
    let (code, out, _) = place.create(&oned, &["--create", "--image", "img", "--json"]);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &plan["network"]), (0, &Value::from("vms")));
    assert!(
        plan["steps"][0]["command"]
            .as_str()
            .unwrap()
            .starts_with("install -D -m 600"),
        "{out}"
    );
    let changing = |method: &&String| !method.ends_with("info") && !before.contains_key(*method);
    assert_eq!(
        oned.all_calls().keys().filter(changing).count(),
        0,
        "{:?}",
        oned.all_calls()
    );
}

#[test]
fn what_stands_in_the_way_is_said_before_anything_is_made() {
    let users = vec![
        UserSetup::new("oneadmin", "opennebula"),
        UserSetup::new("bob", "pw"),
    ];
    let (place, oned) = (place(), front_end(users));
    for (args, said) in [
        (
            with(&["--yes", "--user", "bob"]),
            "user bob is there, and was not made by this",
        ),
        (
            with(&["--yes", "--network", "other"]),
            "network other: there is none; there are vms",
        ),
        (
            vec!["--create", "--yes"],
            "name what VMs are made from: --template (registered are worker)",
        ),
        (
            vec!["--create", "--yes", "--template", "worker"],
            "a new one still needs --nodes",
        ),
    ] {
        let (code, out, err) = place.create(&oned, &args);
        assert!(code == 1 && err.contains(said), "{args:?}: {out}{err}");
    }
    // Somebody who may not, and the administrator's file as the service's.
    write(&place.path("admin_auth"), "bob:pw\n", 0o600);
    let (code, _, err) = place.create(&oned, &with(&["--yes"]));
    assert!(
        code == 1 && err.contains("bob is not in OpenNebula's group oneadmin"),
        "{err}"
    );
    let admin = place.path("admin_auth").display().to_string();
    let mut args: Vec<&str> = with(&["--yes"]);
    args.extend(["--auth", &admin]);
    let (code, _, err) = place.create(&oned, &args);
    assert!(
        code == 1 && err.contains("cannot have the service's too"),
        "{err}"
    );
    assert_eq!(oned.calls("one.user.allocate"), 0);
    assert!(!place.path("one_auth").exists());
}

/// What is asked before anything is done.
const QUESTION: &str = "Do this? [y/N]: ";

/// What people type who do not say yes; the last ones end the input by Ctrl-D, without Enter.
const NO: [&[u8]; 10] = [
    b"n\n",
    b"N\n",
    b"no\n",
    b"\n",
    b"  \n",
    b"yes please\n",
    b"\xff\xfey\n",
    b"\x04",
    b"y\x15\x04",
    b"y\x04\x04",
];

/// What those type who do say yes.
const YES: [&[u8]; 4] = [b"y\n", b"Y\n", b"yes\n", b" YES \n"];

#[test]
fn a_person_is_asked_before_anything_is_made_or_removed() {
    let (place, oned) = (place(), front_end(oneadmin()));
    let create = |typed: &[u8]| {
        let mut command = place.command("new.toml");
        command.args(["--endpoint", &oned.endpoint(), "--cluster", "lab"]);
        // The other questions are about the settings: they are as they come.
        let answer = |asked: &str| if asked == QUESTION { typed } else { b"\n" };
        at_terminal(place.alone(command.args(with(&[]))), answer)
    };
    for typed in NO {
        let (code, text) = create(typed);
        let what = String::from_utf8_lossy(typed);
        assert!(
            code == 1 && text.ends_with("\nthiao: nothing was made\n"),
            "{what:?}: {text}"
        );
        assert!(
            !place.path("one_auth").exists() && !place.path("new.toml").exists(),
            "{what:?}: {text}"
        );
    }
    assert_eq!(oned.calls("one.user.allocate"), 0);
    let remove = |typed: &[u8]| {
        let mut command = place.command("new.toml");
        at_terminal(place.alone(command.arg("--remove")), |_| typed)
    };
    for (typed, users) in YES.into_iter().zip(1..) {
        let (code, text) = create(typed);
        let what = String::from_utf8_lossy(typed);
        assert!(
            code == 0 && text.contains("done     make user thiao-lab"),
            "{what:?}: {text}"
        );
        assert_eq!(oned.calls("one.user.allocate"), users);
        for typed in NO {
            let (code, text) = remove(typed);
            assert!(
                code == 1 && text.ends_with("\nthiao: nothing was removed\n"),
                "{text}"
            );
        }
        assert_eq!(oned.calls("one.user.delete"), users - 1);
        let (code, text) = remove(typed);
        assert!(
            code == 0 && text.contains("done     remove user thiao-lab"),
            "{what:?}: {text}"
        );
        assert_eq!(oned.calls("one.user.delete"), users);
    }
}
