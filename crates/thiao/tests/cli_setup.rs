//! `thiao setup`, with a `scontrol` that answers as 22.05.8 did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
mod stand_ins;

use setup_place::{Place, names};
use stand_ins::{HOOKS, front_end, oneadmin, write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_oned::UserSetup;
use thiao_testkit::process::run;

#[test]
fn it_links_the_hooks_and_writes_the_fragment() {
    let place = Place::new();
    let (code, out, err) = place.setup(&["--default-partition", "vm", "--idle", "90"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for (_, name) in HOOKS {
        assert_eq!(place.target(name), place.path("thiao-hook"));
    }
    assert_eq!(place.target("state"), place.path("state"));
    assert_eq!(names(&place.path("hooks")).len(), 6, "no scratch is left");
    assert_eq!(names(&place.path("etc")), ["thiao.conf"]);
    let mode = place
        .path("etc/thiao.conf")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644, "slurmd and users read it");

    let text = place.fragment();
    let resume = format!("ResumeProgram={}\n", place.path("hooks/Resume").display());
    for line in [
        resume.as_str(),
        "for Slurm 22.05.8",
        "NodeName=fg[0-7] CPUs=1 Boards=1 Sockets=1 CoresPerSocket=1 ThreadsPerCore=1 CoreSpecCount=0 CPUSpecList=\"\" MemSpecLimit=0 \
         RealMemory=200 TmpDisk=0 Weight=1 Gres=\"\" Feature=vm State=CLOUD",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(
        text.contains("SlurmctldParameters=max_rpc=3,power_save_interval=1,enable_configless"),
        "merged: {text}"
    );
    assert!(
        text.contains("Default=YES") && text.contains("SuspendTime=90"),
        "{text}"
    );
    // Two tries of 400 s, the pause between them, the patience, and some.
    assert!(text.contains("ResumeTimeout=855"), "{text}");
    // The place's folder is not that of slurm.conf.
    assert!(out.contains("Next:\n  1. Append what is in "), "{out}");

    // Again: nothing to do.
    let (code, out, _) = place.setup(&["--default-partition", "vm", "--idle", "90"]);
    assert_eq!((code, out.matches("is right").count()), (0, 7), "{out}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = Place::new();
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("NodeName=fg[0-7]") && out.contains("Next:"), "{out}");
    assert_eq!(out.lines().filter(|l| l.starts_with("new ")).count(), 7, "{out}");
    assert!(!place.path("hooks").exists() && !place.path("etc").exists());
}

#[test]
fn what_is_ours_is_replaced() {
    let place = Place::new();
    assert_eq!(place.setup(&[]).0, 0);
    let config = std::fs::read_to_string(place.path("thiao.toml")).unwrap();
    std::fs::write(place.path("thiao.toml"), config.replace("fg[0-7]", "fg[0-8]")).unwrap();
    // As an earlier version's installation left it.
    let link = place.path("hooks/Suspend");
    std::fs::remove_file(&link).unwrap();
    symlink(place.path("new/thiao-hook"), &link).unwrap();
    let (code, out, _) = place.setup(&[]);
    assert_eq!((code, out.matches("replaced").count()), (0, 2), "{out}");
    assert_eq!(place.target("Suspend"), place.path("thiao-hook"));
    assert!(place.fragment().contains("NodeName=fg[0-8]"));
}

#[test]
fn what_is_somebody_elses_stays() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("hooks")).unwrap();
    std::fs::create_dir_all(place.path("etc")).unwrap();
    std::fs::write(place.path("hooks/Resume"), "#!/bin/sh\n").unwrap();
    symlink("/bin/true", place.path("hooks/Suspend")).unwrap();
    std::fs::write(place.path("etc/thiao.conf"), "NodeName=mine\n").unwrap();
    let (code, out, err) = place.setup(&[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("nothing was written: ") && err.contains("--force"),
        "{err}"
    );
    for what in [
        "Resume (it is no link of ours)",
        "Suspend (it leads elsewhere)",
        "thiao.conf (we did not write it)",
    ] {
        assert!(err.contains(what), "{what} not in {err}");
    }
    assert_eq!(names(&place.path("hooks")), ["Resume", "Suspend"]);
    assert_eq!(place.fragment(), "NodeName=mine\n");
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert!(out.contains("somebody else's"), "{out}");
    assert!(
        code == 1 && err.contains("would be refused") && err.contains("in the way"),
        "{err}"
    );

    assert_eq!(place.setup(&["--force"]).0, 0);
    assert_eq!(place.target("Resume"), place.path("thiao-hook"));
    assert!(place.fragment().contains("NodeName=fg[0-7]"));

    // A folder is never removed.
    std::fs::remove_file(place.path("hooks/state")).unwrap();
    std::fs::create_dir(place.path("hooks/state")).unwrap();
    let (code, _, err) = place.setup(&["--force"]);
    assert!(code == 1 && err.contains("state is a folder"), "{err}");
}

#[test]
fn job_mode_brings_a_script_and_leaves_a_sites_own() {
    let place = Place::new();
    let (ours, beside) = (
        place.path("etc/job_submit.lua"),
        place.path("etc/thiao_job_submit.lua"),
    );
    assert_eq!(place.setup(&[]).0, 0);
    assert!(!ours.exists(), "no nodeset is in job mode");

    let settings = std::fs::read_to_string(place.path("thiao.toml")).unwrap();
    let more = "[[nodeset]]\nname = \"own\"\nmode = \"job\"\nnodes = \"j[0-3]\"\ncpus = 1\nmemory_mb = 400\n\
                partition = \"jobs\"\n[[vm_options]]\nuser = \"ada\"\nshare = \"25-75\"\n";
    std::fs::write(place.path("thiao.toml"), settings + more).unwrap();
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(!ours.exists() && out.contains("user = \"ada\""), "{out}");

    assert_eq!(place.setup(&[]).0, 0);
    let script = std::fs::read_to_string(&ours).unwrap();
    assert!(
        script.contains("[\"jobs\"] = true") && script.contains("share = { 25, 75 }"),
        "{script}"
    );
    assert!(!beside.exists());
    let fragment = place.fragment();
    for line in ["JobSubmitPlugins=lua\n", "Licenses=vm_room:1\n", " Gres=vm:1 "] {
        assert!(fragment.contains(line), "{line} not in {fragment}");
    }
    // An older one of ours is replaced.
    std::fs::write(&ours, "-- Written by `thiao setup`: older\n").unwrap();
    assert_eq!(place.setup(&[]).0, 0);
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), script);

    a_sites_own_script_is_kept(&place);
    let (code, out, err) = place.setup(&["--undo"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("put back"), "{out}");
    let kept = ["job_submit.lua", "job_submit.lua.bak", "thiao.conf.bak"];
    assert_eq!(names(&place.path("etc")), kept);
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), "-- newer\n");
    assert!(names(&place.path("hooks")).is_empty());

    // One that runs ours at its end, as an older setup advised.
    let text = "return dofile(\"/etc/slurm/thiao_job_submit.lua\")\n";
    std::fs::write(&ours, text).unwrap();
    assert_eq!(place.setup(&[]).0, 0);
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), text);
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), script);
}

/// And called by ours.
fn a_sites_own_script_is_kept(place: &Place) {
    let ours = place.path("etc/job_submit.lua");
    std::fs::write(&ours, "-- mine\n").unwrap();
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), "-- mine\n");
    assert!(
        out.contains("job_submit.lua is your own: it is kept as "),
        "{out}"
    );
    let site = place.path("etc/job_submit.site.lua");
    let both = || {
        assert_eq!(std::fs::read_to_string(&site).unwrap(), "-- mine\n");
        let text = std::fs::read_to_string(&ours).unwrap();
        assert!(text.starts_with("-- Written by `thiao setup`"), "{text}");
        assert!(
            text.contains(&format!("local SITE = {:?}\n", site.display().to_string())),
            "{text}"
        );
    };
    let (code, _, err) = place.setup(&[]);
    assert_eq!(code, 0, "{err}");
    both();
    // Again; and when whoever looks after it wrote it anew.
    assert_eq!(place.setup(&[]).0, 0);
    both();
    std::fs::write(&ours, "-- mine\n").unwrap();
    assert_eq!(place.setup(&[]).0, 0);
    both();
    std::fs::write(&ours, "-- newer\n").unwrap();
    let (code, _, err) = place.setup(&[]);
    assert!(code == 1 && err.contains("is somebody else's again"), "{err}");
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), "-- newer\n");
    assert_eq!(std::fs::read_to_string(&site).unwrap(), "-- mine\n");
    assert_eq!(place.setup(&["--force"]).0, 0);
    assert_eq!(std::fs::read_to_string(&site).unwrap(), "-- newer\n");
}

/// A program of the site's that tells how it was called, and then does what `fails` says.
fn program(place: &Place, name: &str, fails: &str) -> String {
    let (path, told) = (place.path(name), place.path("told"));
    write(
        &path,
        &format!("#!/bin/sh\necho {name} \"$@\" >> {}\n{fails}", told.display()),
        0o755,
    );
    path.display().to_string()
}

/// From now on slurmctld says what `more` prints.
fn scontrol(place: &Place, more: &str) {
    let text = format!(
        "#!/bin/sh\ncase \"$1 $2\" in\n-V*) echo 'slurm-wlm 22.05.8' ;;\n-a*) ;;\n\
         'show hostnames') echo \"$3\" | tr , '\\n' ;;\n\
         *) echo 'ClusterName = lab'; echo 'SlurmctldHost[0] = head'; {more} ;;\nesac\n"
    );
    write(&place.path("scontrol"), &text, 0o755);
}

/// Runs one of the joined programs: how it ended, and whom it called.
fn told(place: &Place, name: &str, args: &[&str]) -> (Option<i32>, String) {
    let _ = std::fs::remove_file(place.path("told"));
    let status = Command::new(place.path("hooks/with-site").join(name))
        .args(args)
        .env_clear()
        .status()
        .unwrap();
    let told = std::fs::read_to_string(place.path("told"));
    (status.code(), told.unwrap_or_default())
}

#[test]
fn a_sites_own_programs_are_called_beside_ours() {
    let place = Place::new();
    let (resume, prolog) = (
        program(&place, "site-resume", ""),
        program(&place, "site-prolog", "exit 3\n"),
    );
    scontrol(
        &place,
        &format!("echo 'ResumeProgram = {resume}'; echo 'PrologSlurmctld = {prolog}'"),
    );
    program(&place, "thiao-hook", "");
    let (code, out, err) = place.setup(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains(&format!("ResumeProgram is {resume}: it is called beside ours")),
        "{out}"
    );
    let joined = place.path("hooks/with-site");
    assert_eq!(names(&joined), ["PrologSlurmctld", "Resume"]);
    let line = format!("ResumeProgram={}\n", joined.join("Resume").display());
    assert!(place.fragment().contains(&line), "{}", place.fragment());
    assert!(place.fragment().contains(&format!(
        "SuspendProgram={}\n",
        place.path("hooks/Suspend").display()
    )));

    std::fs::create_dir_all(place.path("state/spool")).unwrap();
    std::fs::write(place.path("state/spool/nodes"), "fg0,fg1\n").unwrap();
    assert_eq!(
        told(&place, "Resume", &["cn1,fg0,fg10,fg1"]),
        (Some(0), "thiao-hook fg0,fg1\nsite-resume cn1,fg10\n".to_owned())
    );
    assert_eq!(
        told(&place, "Resume", &["cn1"]),
        (Some(0), "site-resume cn1\n".to_owned())
    );
    assert_eq!(
        told(&place, "Resume", &["fg1"]),
        (Some(0), "thiao-hook fg1\n".to_owned())
    );
    // A prolog of the site's that fails keeps the job from starting, as before.
    assert_eq!(
        told(&place, "PrologSlurmctld", &[]),
        (Some(3), "site-prolog\n".to_owned())
    );

    // Again, when slurmctld calls what was written: the site's is not lost.
    let script = std::fs::read_to_string(joined.join("Resume")).unwrap();
    let ours = |name: &str| joined.join(name).display().to_string();
    scontrol(
        &place,
        &format!(
            "echo 'ResumeProgram = {}'; echo 'PrologSlurmctld = {}'",
            ours("Resume"),
            ours("PrologSlurmctld")
        ),
    );
    assert_eq!(place.setup(&[]).0, 0);
    assert_eq!(std::fs::read_to_string(joined.join("Resume")).unwrap(), script);
    assert!(place.fragment().contains(&line), "{}", place.fragment());
    undone_when_nothing_calls_them(&place);
}

/// Not while slurmctld calls them, nor while slurm.conf has the line.
fn undone_when_nothing_calls_them(place: &Place) {
    let joined = place.path("hooks/with-site");
    let (code, _, err) = place.setup(&["--undo"]);
    assert!(
        code == 1
            && err.contains("nothing was removed: slurmctld calls")
            && err.contains("restart slurmctld"),
        "{err}"
    );
    assert_eq!(names(&joined).len(), 2);
    // Nor while slurm.conf has the line, in a file of its own perhaps.
    scontrol(place, "true");
    let conf = place.path("etc/slurm.conf");
    write(
        &conf,
        "ClusterName=lab\n# Include thiao.conf\nInclude nodes.conf\n",
        0o644,
    );
    write(
        &place.path("etc/nodes.conf"),
        " include thiao.conf # ours\n",
        0o644,
    );
    scontrol(place, &format!("echo 'SLURM_CONF = {}'", conf.display()));
    let (code, _, err) = place.setup(&["--undo"]);
    assert!(
        code == 1 && err.contains("nodes.conf includes") && err.contains("(line 1)"),
        "{err}"
    );
    assert!(place.path("etc/thiao.conf").exists());
    write(&place.path("etc/nodes.conf"), "", 0o644);
    // Nor while VMs are left, in which jobs may be.
    let running = running_vm(&place.path("state"), "fg0.3");
    let (code, _, err) = place.setup(&["--undo"]);
    assert!(
        code == 1
            && err
                .contains("jobs may be in them: fg0.3. First:\n  1. systemctl start thiaod. Let the jobs on"),
        "{err}"
    );
    assert!(place.path("etc/thiao.conf").exists());
    drop(running);
    let (code, out, err) = place.setup(&["--undo"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(!place.path("etc/thiao.conf").exists());
    assert_eq!(names(&place.path("hooks")), [""; 0]);
}

/// What a running VM looks like from outside: its folder's life is locked.
fn running_vm(state: &Path, id: &str) -> std::fs::File {
    let folder = state.join("vms").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let life = std::fs::File::create(folder.join("life")).unwrap();
    // SAFETY: flock is plain data, for which all zeroes is a valid value; it lives through the call.
    let locked = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        libc::fcntl(life.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock)
    };
    assert_eq!(locked, 0);
    life
}

#[test]
fn odd_paths_and_missing_programs_are_named() {
    let place = Place::new();
    std::fs::remove_file(place.path("thiao-hook")).unwrap();
    let (code, _, err) = place.setup(&[]);
    assert!(
        code == 1 && err.contains("thiao-hook is no program: build or install thiao-hook"),
        "{err}"
    );
    let refused = |args: &[&str]| {
        let (code, _, err) = run(Command::new(env!("CARGO_BIN_EXE_thiao"))
            .args(["setup", "--config"])
            .arg(place.path("thiao.toml"))
            .args(args));
        (code, err)
    };
    for args in [["--hooks", "/a b"], ["--fragment", "thiao.conf"]] {
        let (code, err) = refused(&args);
        assert!(
            code == 1 && err.contains("slurm.conf needs an absolute path of letters"),
            "{err}"
        );
    }
    let (code, err) = refused(&["--slurm-version", "new"]);
    assert!(
        code == 1 && err.contains("new is no Slurm release; write e.g. 22.05"),
        "{err}"
    );
}

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
        err.contains("nothing was written: with these settings no VM could be made"),
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
            && err.contains("would be refused, and nothing written: with these settings no VM could be made"),
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
        err.contains("this is missing: --nodes, --memory-mb, --template, --auth"),
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
