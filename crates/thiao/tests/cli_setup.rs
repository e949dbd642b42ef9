//! `thiao setup`, with a `scontrol` that answers as 22.05.8 did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
mod stand_ins;

use setup_place::{Place, names};
use stand_ins::{HOOKS, write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
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
    // Two tries of 400 s, the pause between them, the patience with the grace of who gives way, and some.
    assert!(text.contains("ResumeTimeout=915"), "{text}");
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
        "Resume (it is not our link)",
        "Suspend (it points elsewhere)",
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
    assert_eq!(names(&place.path("etc")), ["job_submit.lua"]);
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
        out.contains(&format!(
            "ResumeProgram is {resume}: a script in with-site calls it beside ours"
        )),
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
            && err.contains("nothing was removed: slurmctld still calls")
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
            && err.contains("perhaps with jobs: fg0.3. First:\n  1. systemctl start thiaod. Let the jobs on"),
        "{err}"
    );
    assert!(place.path("etc/thiao.conf").exists());
    drop(running);
    // Setup ran more than once: what it kept of its own goes with the rest; what a person wrote stays.
    let mark = place.fragment().lines().next().unwrap_or_default().to_owned();
    write(&place.path("etc/thiao.conf.bak"), &format!("{mark}\n"), 0o644);
    write(&place.path("hooks/with-site/mine.bak"), "theirs\n", 0o644);
    let (code, out, err) = place.setup(&["--undo"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(!place.path("etc/thiao.conf.bak").exists(), "{out}");
    assert!(place.path("hooks/with-site/mine.bak").exists());
    std::fs::remove_dir_all(place.path("hooks/with-site")).unwrap();
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
        code == 1 && err.contains("new is not a Slurm release; write e.g. 22.05"),
        "{err}"
    );
}
