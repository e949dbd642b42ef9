//! `thiao doctor`, with stand-ins for Slurm's programs and for oned.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod stand_ins;

use serde_json::Value;
use stand_ins::{HOOKS, front_end, oneadmin, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_oned::{Fault, Oned, Rule};
use thiao_testkit::process::run;

struct Place {
    dir: tempfile::TempDir,
    oned: Oned,
}

impl Place {
    /// A site of four nodes where nothing but the controller lacks.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self {
            dir,
            oned: front_end(oneadmin()),
        };
        let hooks = place.path("hooks");
        std::fs::create_dir(&hooks).unwrap();
        std::fs::create_dir_all(place.path("state/spool/new")).unwrap();
        write(&place.path("thiao-hook"), "#!/bin/sh\n", 0o755);
        for (_, name) in HOOKS {
            symlink(place.path("thiao-hook"), hooks.join(name)).unwrap();
        }
        symlink(place.path("state"), hooks.join("state")).unwrap();
        write(&place.path("one_auth"), "oneadmin:opennebula\n", 0o600);
        let programs: String = HOOKS
            .map(|(key, name)| format!("{key} = {}\n", hooks.join(name).display()))
            .concat();
        write(
            &place.path("conf"),
            &format!(
                "{programs}SlurmUser = root(0)\nReturnToService = 2\nResumeRate = 0 nodes/min\n\
                 SuspendRate = 0 nodes/min\nPrivateData = cloud\nSchedulerType = sched/backfill\n\
                 SlurmctldParameters = enable_configless,cloud_reg_addrs,power_save_interval=1\n"
            ),
            0o644,
        );
        // The words `-h -a -O FORMAT`; the mark that ends each line is the end of the format.
        write(
            &place.path("sinfo"),
            &format!(
                "#!/bin/sh\nmark=${{4##*|}}\nwhile IFS= read -r line; do printf '%s|%s\\n' \"$line\" \"$mark\"; done \
                 < {}\n",
                place.path("nodes").display()
            ),
            0o755,
        );
        write(&place.path("squeue"), "#!/bin/sh\n", 0o755);
        write(
            &place.path("scontrol"),
            &format!(
                "#!/bin/sh\ncase \"$*\" in\n-V) echo 'slurm-wlm 22.05.8' ;;\n\
                 ping) echo 'Slurmctld(primary) at head is UP' ;;\n*config) cat {} ;;\n*node) cat {} ;;\nesac\n",
                place.path("conf").display(),
                place.path("details").display()
            ),
            0o755,
        );
        place.nodes("fg[0-3]|idle+cloud+powered_down|none\n");
        let details: String = (0..4)
            .map(|n| {
                format!("NodeName=fg{n} CPUTot=1 NodeAddr=fg{n} NodeHostName=fg{n} RealMemory=1000 Partitions=vm\n")
            })
            .collect();
        write(&place.path("details"), &details, 0o644);
        let settings = format!(
            "cluster = \"lab\"\nprovider = \"opennebula\"\nstate_dir = {:?}\n[slurm]\nbin_dir = {:?}\n\
             [[nodeset]]\nname = \"fg\"\nnodes = \"fg[0-3]\"\nmemory_mb = 1000\ntemplate = \"worker\"\n\
             [opennebula]\nendpoint = {:?}\nauth = {:?}\nslurmctld_addr = \"10.0.0.1\"\nmunge_key = \"\"\n",
            place.path("state"),
            place.dir.path(),
            place.oned.endpoint(),
            place.path("one_auth"),
        );
        write(&place.path("thiao.toml"), &settings, 0o644);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What sinfo shows: lines of `nodes|state|reason`.
    fn nodes(&self, lines: &str) {
        write(&self.path("nodes"), lines, 0o644);
    }

    fn doctor(&self, more: &[&str]) -> (i32, String) {
        let (code, out, err) = run(Command::new(env!("CARGO_BIN_EXE_thiao"))
            .args(["doctor", "--config"])
            .arg(self.path("thiao.toml"))
            .args(more)
            .env_remove("SLURM_CONF"));
        assert_eq!(err, "");
        (code, out)
    }

    /// All findings of that verdict, as `what: text`.
    fn found(&self, verdict: &str) -> Vec<String> {
        let (_, text) = self.doctor(&["--json"]);
        let report: Value = serde_json::from_str(&text).unwrap();
        let groups = report["groups"].as_array().unwrap();
        groups
            .iter()
            .flat_map(|group| group["findings"].as_array().unwrap())
            .filter(|finding| finding["verdict"] == verdict)
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().unwrap().to_owned();
                assert!(
                    verdict == "ok" || finding["command"].is_string() || finding["advice"].is_string(),
                    "{finding}"
                );
                format!("{}: {}", text("what"), text("text"))
            })
            .collect()
    }
}

/// Guests get slurmd from the programs here, whatever slurmctld is.
#[test]
fn programs_of_another_release_than_slurmctld_are_named() {
    let place = Place::new();
    let conf = std::fs::read_to_string(place.path("conf")).unwrap();
    write(
        &place.path("conf"),
        &format!("{conf}SLURM_VERSION = 22.05.8\n"),
        0o644,
    );
    assert!(!place.found("bad").concat().contains("programs here"));
    let scontrol = std::fs::read_to_string(place.path("scontrol")).unwrap();
    for (here, verdict, words) in [
        (
            "26.05.5",
            "bad",
            "slurmctld refuses one that is newer than itself",
        ),
        (
            "21.08.1",
            "warn",
            "slurmctld only takes those of the releases just before its own",
        ),
    ] {
        write(&place.path("scontrol"), &scontrol.replace("22.05.8", here), 0o755);
        let found = place.found(verdict).concat();
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn a_site_where_only_the_controller_lacks() {
    let place = Place::new();
    let (code, out) = place.doctor(&[]);
    assert_eq!(code, 1, "no controller is something bad\n{out}");
    for words in [
        "Settings\n  ok   settings: ",
        "OpenNebula\n  ok   endpoint: ",
        "ok   hosts: 4 of 4 nodes' VMs fit at once on 1 host",
        "Slurm\n  ok   Slurm: 22.05.8",
        "ok   slurm.conf: has what `thiao setup` wrote",
        "ok   hooks: ",
        "ok   state link: ",
        "ok   spool: ",
        "Controller\n  BAD  controller: does not answer",
        "         run: systemctl enable --now thiaod",
        "Nodes\n  ok   nodes: 4 nodes",
        "VMs\n  ok   VMs: 0 of this cluster",
        "\n1 bad, ",
    ] {
        assert!(out.contains(words), "{words} not in\n{out}");
    }
    assert!(!out.contains('\x1b'), "colours are for terminals: {out}");
    assert!(
        !out.contains("opennebula\n:") && !out.contains("oneadmin:"),
        "a secret: {out}"
    );
    assert_eq!(place.oned.calls("one.template.instantiate"), 0);
    assert_eq!(place.found("bad").len(), 1);
}

#[test]
fn the_states_of_2011_are_found_in_what_slurm_prints() {
    let place = Place::new();
    place.nodes(
        "fg0|down+cloud+not_responding|none\nfg1|idle+cloud+not_responding|none\n\
         fg2|allocated+cloud+powering_up|none\nfg3|idle+cloud+drain+powered_down|fan\n",
    );
    let bad = place.found("bad");
    let warn = place.found("warn");
    for (all, words) in [
        (&bad, "node fg0: down*"),
        (&bad, "node fg1: idle* or alloc*"),
        (&warn, "node fg2: idle# or alloc#"),
        (&warn, "node fg3: drained (fan)"),
    ] {
        assert!(
            all.iter().any(|line| line.starts_with(words)),
            "{words}: {bad:#?} {warn:#?}"
        );
    }
}

#[test]
fn vms_that_have_each_others_address_are_found() {
    let place = Place::new();
    let client = |text: &str| {
        let access = thiao_opennebula::settings::Access {
            endpoint: place.oned.endpoint(),
            auth: place.path("one_auth"),
            ca_file: None,
            timeout: std::time::Duration::from_secs(10),
            requests_per_second: 0,
            connections: 2,
        };
        thiao_opennebula::Client::new(&access)
            .unwrap()
            .allocate(text, true)
            .unwrap()
    };
    let vm = |node: &str| {
        client(&format!(
            "NAME=\"{node}\"\nCPU=\"1\"\nMEMORY=\"1000\"\nNIC=[NETWORK=\"vms\"]\nTHIAO_CLUSTER=\"lab\"\n\
             THIAO_NODE=\"{node}\"\nTHIAO_GENERATION=\"1\"\n"
        ))
    };
    let (first, second) = (vm("fg0"), vm("fg1"));
    // Addresses are leased in order: fg0 has .10, fg1 has .11.
    place.nodes("fg[0-1]|idle+cloud|none\nfg[2-3]|idle+cloud+powered_down|none\n");
    let crossed = "NodeName=fg0 CPUTot=1 NodeAddr=10.0.0.11 NodeHostName=fg0 RealMemory=1000 Partitions=vm\n\
                   NodeName=fg1 CPUTot=1 NodeAddr=10.0.0.10 NodeHostName=fg1 RealMemory=1000 Partitions=vm\n\
                   NodeName=fg2 CPUTot=1 NodeAddr=fg2 NodeHostName=fg2 RealMemory=1000 Partitions=vm\n\
                   NodeName=fg3 CPUTot=1 NodeAddr=fg3 NodeHostName=fg3 RealMemory=1000 Partitions=vm\n";
    write(&place.path("details"), crossed, 0o644);
    let bad = place.found("bad");
    let words = format!(
        "node fg0: Slurm reaches it at 10.0.0.11, which is the VM of fg1 (VM {second}); its own VM {first} has 10.0.0.10"
    );
    assert!(bad.iter().any(|line| line.starts_with(&words)), "{bad:#?}");
    assert!(
        place
            .found("ok")
            .iter()
            .any(|line| line.contains("14 addresses are free, 2 nodes have none yet")),
        "VMs that exist have theirs already"
    );
}

#[test]
fn a_front_end_that_is_down_hides_nothing_else() {
    let mut place = Place::new();
    place.oned.pause();
    std::fs::remove_file(place.path("hooks/Suspend")).unwrap();
    let bad = place.found("bad");
    assert!(
        bad[0].starts_with("endpoint: ") && bad[0].contains("does not answer"),
        "{bad:#?}"
    );
    assert!(
        bad.iter().any(|line| line.contains("Suspend is missing")),
        "{bad:#?}"
    );
    assert_eq!(bad.len(), 3, "the controller too: {bad:#?}");
}

#[test]
fn a_try_leaves_nothing_behind() {
    let place = Place::new();
    let (_, out) = place.doctor(&["--try"]);
    assert!(
        out.contains("ok   try: a VM could be made from template worker and removed"),
        "{out}"
    );
    assert_eq!(place.oned.calls("one.template.instantiate"), 1);
    assert_eq!(place.oned.vms(), []);
}

impl Place {
    /// Puts a text into thiao.toml in place of another.
    fn change(&self, from: &str, to: &str) {
        let file = self.path("thiao.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        write(&file, &text.replace(from, to), 0o644);
    }

    /// The lines about tries.
    fn tries(&self) -> Vec<String> {
        let (_, out) = self.doctor(&["--try"]);
        let lines = out.lines().filter(|line| line.contains("  try: "));
        lines.map(|line| line.trim().to_owned()).collect()
    }
}

/// What jobs would have: each template, in the smallest and the largest size.
#[test]
fn a_try_makes_what_jobs_would_have() {
    let place = Place::new();
    let file = place.path("big.one");
    write(
        &file,
        "NIC = [ NETWORK = \"vms\" ]\nTEXT = \"${#a[@]} {{ job }} {{ node }}\"\n",
        0o644,
    );
    place.change(
        "template = \"worker\"",
        &format!(
            "cpus = 2\nmode = \"job\"\nmemory_per_cpu_mb = 300\ntemplate_file = {file:?}\n[[vm_options]]\n\
             templates = [\"worker\", \"gone\"]"
        ),
    );
    let tries = place.tries();
    let ok = |source: &str, size: &str, ip: u32| {
        tries.iter().any(|line| {
            line.starts_with(&format!("ok   try: a VM could be made from {source} and removed"))
                && line.contains(&format!("never started: {size}, 10.0.0.{ip})"))
        })
    };
    let big = format!("file {}", file.display());
    assert!(ok("template worker", "1 CPU, 300 MiB", 10), "{tries:#?}");
    assert!(ok("template worker", "2 CPUs, 1000 MiB", 11), "{tries:#?}");
    assert!(ok(&big, "1 CPU, 300 MiB", 12), "{tries:#?}");
    assert!(ok(&big, "2 CPUs, 1000 MiB", 13), "{tries:#?}");
    let bad: Vec<&String> = tries.iter().filter(|line| line.starts_with("BAD")).collect();
    assert_eq!(bad.len(), 2, "{tries:#?}");
    assert!(
        bad.iter()
            .all(|line| line.contains("can be made from template gone: there is none"))
    );
    assert_eq!(tries.len(), 6, "{tries:#?}");
    assert_eq!(place.oned.vms(), []);
}

/// Seen on a real oned 7.4.0: a topology that is not the size's, and a card whose network nobody chooses.
#[test]
fn what_no_job_could_have_is_told_before_one_finds_out() {
    let place = Place::new();
    let file = place.path("vm.one");
    place.change(
        "template = \"worker\"",
        &format!("cpus = 2\ntemplate_file = {file:?}"),
    );
    let nic = "NIC = [ NETWORK = \"vms\" ]\n";
    let topology = format!("{nic}TOPOLOGY = [ SOCKETS = 1, CORES = 4, THREADS = 1 ]\n");
    let auto = "NIC = [ NETWORK_MODE = \"auto\", SCHED_REQUIREMENTS = \"TRAFFIC_TYPE = \\\"cluster\\\"\" ]\n";
    for (text, words) in [
        (
            topology.as_str(),
            "Total threads per core and socket needs to match VCPU",
        ),
        (auto, "NETWORK_MODE = auto"),
    ] {
        write(&file, text, 0o644);
        let tries = place.tries();
        assert!(
            tries[0].starts_with("BAD") && tries[0].contains(words),
            "{tries:#?}"
        );
        let bad = place.found("bad");
        let named = words
            .split_once(' ')
            .map_or(words, |_| if text == auto { "NETWORK_MODE" } else { "TOPOLOGY" });
        assert!(bad.iter().any(|line| line.contains(named)), "{bad:#?}");
    }
    // The cure that is named cures.
    place.change("cpus = 2\n", "cpus = 2\nnetwork = \"vms\"\n");
    let tries = place.tries();
    assert!(
        tries[0].starts_with("ok") && tries[0].contains("10.0.0."),
        "{tries:#?}"
    );
    assert_eq!(place.oned.vms(), []);
}

#[test]
fn a_try_whose_answer_was_lost_leaves_nothing_either() {
    let place = Place::new();
    place
        .oned
        .fault(Rule::once("one.template.instantiate", Fault::LoseAnswer));
    let tries = place.tries();
    assert!(tries[0].starts_with("BAD"), "{tries:#?}");
    assert_eq!(place.oned.vms(), []);
    // One that cannot be removed is named, told until it is, and taken away by the next try.
    let refuse = |method: &str| Rule::always(method, Fault::Refuse(0x2000, "no".to_owned()));
    place.oned.fault(refuse("one.vm.recover"));
    place.oned.fault(refuse("one.vm.action"));
    let tries = place.tries();
    assert!(tries[0].contains("could not be removed"), "{tries:#?}");
    assert_eq!(place.oned.vms().len(), 1);
    let warned = place.found("warn");
    assert!(
        warned
            .iter()
            .any(|line| line.contains("is left from an earlier try")),
        "{warned:#?}"
    );
    place.oned.clear_faults();
    assert!(place.tries()[0].starts_with("ok"));
    assert_eq!(place.oned.vms(), []);
}

#[test]
fn bad_settings_are_the_first_finding() {
    let place = Place::new();
    write(
        &place.path("thiao.toml"),
        "cluster = \"lab\"\nnonsense = 1\n",
        0o644,
    );
    let (code, out) = place.doctor(&[]);
    assert_eq!(code, 1);
    assert!(
        out.starts_with("Settings\n  BAD  settings: ") && out.contains("nonsense"),
        "{out}"
    );
    assert_eq!(place.found("bad").len(), 1);
}

#[test]
fn in_a_lab_the_labs_owner_is_called_for() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let dir = place.dir.path();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = |lab: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thiao"));
        command.args(["doctor", "--config"]).arg(place.path("thiao.toml"));
        command.uid(1001).gid(1001).env_remove("SLURM_CONF");
        run(command.envs(lab.map(|lab| ("THIAO_LAB", lab)))).1
    };
    let file = place.path("thiao.toml").display().to_string();
    let of_site = format!("run: sudo thiao --config {file} doctor\n");
    let of_lab = format!(
        "run: thiao lab exec --dir {} --admin -- thiao doctor\n",
        dir.display()
    );
    for (lab, right, wrong) in [
        (None, &of_site, &of_lab),
        (Some(dir), &of_lab, &of_site),
        // The site's own settings, looked at from a lab.
        (Some(Path::new("/nowhere")), &of_site, &of_lab),
    ] {
        let out = user(lab);
        assert!(out.contains(right) && !out.contains(wrong), "{lab:?}: {out}");
    }
}
