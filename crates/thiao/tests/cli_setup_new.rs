//! `thiao setup` where there are no settings yet: what it asks, finds, tries and writes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
mod stand_ins;

use setup_place::Place;
use stand_ins::{front_end, oneadmin, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_oned::UserSetup;
use thiao_testkit::process::run;

impl Place {
    /// The file with the credentials.
    fn auth(&self, text: &str) -> PathBuf {
        let file = self.path("one_auth");
        write(&file, text, 0o600);
        file
    }

    /// `thiao setup` for a settings file that is not there yet.
    fn new_settings(&self, more: &[&str]) -> (i32, String, String) {
        run(self
            .command("new.toml")
            .args(["--state-dir", "/var/lib/thiao-test"])
            .args(more)
            .env("PATH", self.dir.path())
            .env("HOME", self.dir.path())
            .env_remove("ONE_AUTH")
            .env_remove("ONE_XMLRPC")
            .stdin(std::process::Stdio::null()))
    }

    fn settings(&self) -> String {
        std::fs::read_to_string(self.path("new.toml")).unwrap()
    }
}

/// What is typed for a front-end where all is well.
fn typed<'a>(endpoint: &'a str, auth: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "--endpoint",
        endpoint,
        "--auth",
        auth,
        "--nodes",
        "fg[0-3]",
        "--memory-mb",
        "1000",
        "--template",
        "worker",
    ];
    args.extend(more);
    args
}

#[test]
fn what_slurmctld_says_of_itself_is_taken_over() {
    let (place, oned) = (Place::new(), front_end(oneadmin()));
    let auth = place.auth("oneadmin:opennebula\n");
    let (endpoint, auth) = (oned.endpoint(), auth.display().to_string());
    let scontrol = "#!/bin/sh\ncase \"$1\" in\n-V) echo 'slurm 25.11.7' ;;\n*) echo 'Configuration data as of now'\n\
                    echo 'ClusterName = lab'\necho 'SlurmctldHost[0] = head(10.9.0.1)'\n\
                    echo 'SlurmctldHost[1] = head2(10.9.0.2)'\necho 'SlurmctldPort = 7000-7003'\n\
                    echo 'SlurmUser = slurmadm(990)'\necho 'AuthType = auth/slurm'\n\
                    echo 'SLURM_CONF = /opt/slurm/etc/slurm.conf' ;;\nesac\n";
    write(&place.path("scontrol"), scontrol, 0o755);
    let bin_dir = place.dir.path().display().to_string();
    let settings = place.path("new.toml").display().to_string();
    let mut args = typed(&endpoint, &auth, &["--slurm-bin-dir", &bin_dir, "--dry-run"]);
    let (code, out, err) = place.new_settings(&args);
    // Its key is not there: what would be written is shown all the same.
    assert!(code == 1 && err.contains("would be refused"), "{out}{err}");
    for line in [
        &format!("[slurm]\nbin_dir = {bin_dir:?}\n"),
        "slurmctld_host = \"head\"\n",
        "slurmctld_port = 7000\n",
        "slurmctld_backups = [\"head2(10.9.0.2)\"]\n",
        "slurm_user = \"slurmadm\"\n",
        "slurm_key = \"/opt/slurm/etc/slurm.key\"\n",
    ] {
        assert!(out.contains(line), "{line} not in\n{out}");
    }
    assert!(!out.contains("munge_key"), "{out}");
    // Who types another secret gets that, and its lines go beside slurmctld's slurm.conf.
    args.extend(["--munge-key", "/k"]);
    let (_, out, _) = run(Command::new(env!("CARGO_BIN_EXE_thiao"))
        .args(["setup", "--config", &settings])
        .args(&args)
        .stdin(std::process::Stdio::null())
        .env_remove("SLURM_CONF"));
    assert!(
        out.contains("munge_key = \"/k\"\n") && !out.contains("slurm_key = "),
        "{out}"
    );
    assert!(out.contains("\n/opt/slurm/etc/thiao.conf:\n"), "{out}");
}

#[test]
fn new_settings_are_checked_and_written() {
    let (place, oned) = (Place::new(), front_end(oneadmin()));
    let auth = place.auth("oneadmin:opennebula\n");
    let (endpoint, auth) = (oned.endpoint(), auth.display().to_string());
    let args = typed(&endpoint, &auth, &["--munge-key", ""]);
    let (code, out, err) = place.new_settings(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for line in [
        "ok   endpoint: ",
        "ok   version: OpenNebula 7.4.1",
        "ok   template worker: ",
        "ok   network vms: 16 addresses are free, 4 nodes have none yet",
        "ok   hosts: 4 of 4 nodes' VMs fit at once on 1 host",
    ] {
        assert!(out.contains(line), "{line} not in\n{out}");
    }
    let text = place.settings();
    for line in [
        "cluster = \"lab\"",
        "provider = \"opennebula\"",
        "name = \"fg\"",
        "nodes = \"fg[0-3]\"",
        "template = \"worker\"",
        "slurmctld_host = \"head\"",
        "slurmctld_addr = \"10.9.0.1\"",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(
        !text.contains("opennebula\n:") && !text.contains("oneadmin"),
        "a secret: {text}"
    );
    let mode = place.path("new.toml").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let fragment = place.fragment();
    assert!(fragment.contains("NodeName=fg[0-3] CPUs=1 ") && fragment.contains(" RealMemory=1000 "));
    assert_eq!(
        oned.calls("one.template.instantiate"),
        0,
        "nothing is made unasked"
    );

    // The same again changes nothing; something else is not written over what is there.
    assert_eq!(place.new_settings(&args).1.matches("is right").count(), 8);
    let mut other = args.clone();
    other.extend(["--cpus", "2"]);
    let (code, out, err) = place.new_settings(&other);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("new.toml (it is there already)"), "{err}");
    assert_eq!(place.settings(), text);
    other.push("--force");
    assert_eq!(place.new_settings(&other).0, 0);
    assert!(place.settings().contains("cpus = 2"));
}

#[test]
fn settings_that_cannot_work_are_not_written() {
    let (place, oned) = (Place::new(), front_end(oneadmin()));
    let auth = place.auth("oneadmin:wrong\n");
    let (endpoint, auth) = (oned.endpoint(), auth.display().to_string());
    let args = typed(&endpoint, &auth, &["--munge-key", ""]);
    let (code, out, err) = place.new_settings(&args);
    assert_eq!(code, 1);
    assert!(out.contains("BAD  credentials: are not accepted"), "{out}");
    assert!(
        err.contains("nothing was written: no VM could be made with these settings"),
        "{err}"
    );
    assert!(!place.path("new.toml").exists() && !place.path("hooks").exists() && !place.path("etc").exists());
    assert!(
        !out.contains("wrong") && !err.contains("wrong"),
        "a secret is shown"
    );

    let (code, out, err) = place.new_settings(&typed(&endpoint, &auth, &["--munge-key", "", "--dry-run"]));
    assert!(
        code == 1
            && err.contains("would be refused, and nothing written: no VM could be made with these settings"),
        "{err}"
    );
    assert!(
        out.contains("BAD  credentials") && out.contains("[opennebula]") && out.contains("NodeName=fg[0-3]"),
        "{out}"
    );
    assert!(!place.path("new.toml").exists());
    assert_eq!(
        place
            .new_settings(&typed(&endpoint, &auth, &["--munge-key", "", "--force"]))
            .0,
        0
    );
    assert!(place.path("new.toml").exists());
}

#[test]
fn a_try_shows_what_a_plain_user_may_not() {
    let mut users = oneadmin();
    users.push(UserSetup::new("slurm", "pw"));
    let (place, oned) = (Place::new(), front_end(users));
    let auth = place.auth("slurm:pw\n");
    let (endpoint, auth) = (oned.endpoint(), auth.display().to_string());
    let (code, out, _) = place.new_settings(&typed(&endpoint, &auth, &["--munge-key", "", "--try"]));
    assert_eq!(code, 1);
    for words in [
        "BAD  rights: slurm lacks ADMIN of its VMs",
        "run: oneacl create '#2 VM/@1 USE+MANAGE+ADMIN'",
        "never started",
        "BAD  hosts: OpenNebula shows no host",
    ] {
        assert!(out.contains(words), "{words} not in\n{out}");
    }
    assert_eq!(oned.calls("one.template.instantiate"), 1);
    assert_eq!(oned.vms(), [], "what was tried is removed");
}

#[test]
fn without_a_terminal_what_lacks_is_named() {
    let place = Place::new();
    let (code, out, err) = place.new_settings(&["--opennebula", "--cpus", "2"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("a new one still needs --nodes, --memory-mb, --template, --auth"),
        "{err}"
    );
    let (code, _, err) = place.new_settings(&["--qemu", "--template", "x"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn settings_for_this_machine_need_little() {
    let place = Place::new();
    let (code, out, err) =
        place.new_settings(&["--qemu", "--nodes", "vm[0-1]", "--memory-mb", "200", "--dry-run"]);
    // Whether VMs could be made on this machine is another matter.
    let good = !out.contains("\nBAD  ");
    assert_eq!((code == 0, err.is_empty()), (good, good), "{out}{err}");
    assert!(
        out.contains("provider = \"qemu\"") && !out.contains("[opennebula]"),
        "{out}"
    );
    let line = out
        .lines()
        .find(|line| line.starts_with("NodeName=vm[0-1] CPUs=1 "));
    assert!(
        line.is_some_and(|line| line.contains(" RealMemory=200 ")),
        "{out}"
    );
}

#[test]
fn the_settings_of_2011_are_taken_over() {
    let place = Place::new();
    let legacy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tests/data/legacy");
    let home = place.path("thiao");
    std::fs::create_dir_all(home.join("examples")).unwrap();
    for node in ["fg0", "fg1", "fg2", "fg3"] {
        let name = format!("{node}.one");
        let copy = home.join("examples").join(&name);
        std::fs::copy(legacy.join(&name), &copy).unwrap();
        std::fs::set_permissions(copy, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    write(&home.join("thiao.db"), "", 0o666);
    let auth = place.auth("oneadmin:opennebula\n").display().to_string();
    let text = std::fs::read_to_string(legacy.join("thiao.cfg"))
        .unwrap()
        .replace("/opt/thiao", &home.display().to_string())
        .replace("/var/lib/one/.one/one_auth", &auth);
    let old = home.join("thiao.cfg");
    std::fs::write(&old, text).unwrap();

    let oned = front_end(oneadmin());
    let endpoint = oned.endpoint();
    let old = old.display().to_string();
    let import = ["--import", &old, "--endpoint", &endpoint, "--munge-key", ""];
    let (code, out, err) = place.new_settings(&import);
    // The front-end has none of the networks of 2011.
    assert_eq!(code, 0, "{out}{err}");
    for words in [
        "taken       auth = ",
        "taken       nodeset fg: fg[0-3], 3 CPUs of 33 %, 3000 MiB, from ",
        "not needed  ",
        "dbfile = thiao.db",
        "look        everybody may write to ",
        "examples: has a file for each of 4 nodes",
    ] {
        assert!(out.contains(words), "{words} not in\n{out}");
    }
    let text = place.settings();
    for line in [
        "nodes = \"fg[0-3]\"",
        "cpus = 3",
        "memory_mb = 2824",
        "share_percent = 33",
        "template_dir = ",
        &format!("auth = {auth:?}"),
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
}
