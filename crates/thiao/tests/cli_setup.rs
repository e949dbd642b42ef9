//! `thiao setup`, with a `scontrol` that answers as 22.05.8 did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 5] = [
    "Resume",
    "Suspend",
    "ResumeFail",
    "PrologSlurmctld",
    "EpilogSlurmctld",
];

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scontrol = "#!/bin/sh\ncase \"$1\" in\n-V) echo 'slurm-wlm 22.05.8' ;;\n*) echo 'Configuration data as of now'\n\
                        echo 'SlurmctldParameters     = max_rpc=3,power_save_interval=9'\necho 'PrivateData = none' ;;\nesac\n";
        let place = Self { dir };
        for (name, text) in [("scontrol", scontrol), ("thiao-hook", "#!/bin/sh\n")] {
            let path = place.path(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let config = format!(
            "cluster = \"lab\"\nstate_dir = {:?}\n[slurm]\nbin_dir = {:?}\n\
             [[nodeset]]\nname = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\nfeatures = [\"vm\"]\n\
             [timing]\nboot_timeout = 400\n[[qemu.host]]\nname = \"h\"\nmemory_mb = 4000\n",
            place.path("state"),
            place.dir.path()
        );
        std::fs::write(place.path("thiao.toml"), config).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn setup(&self, more: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_thiao"))
            .args(["setup", "--config"])
            .arg(self.path("thiao.toml"))
            .arg("--hooks")
            .arg(self.path("hooks"))
            .arg("--fragment")
            .arg(self.path("etc/thiao.conf"))
            .arg("--hook-program")
            .arg(self.path("thiao-hook"))
            .args(more)
            .env_remove("SLURM_CONF")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn fragment(&self) -> String {
        std::fs::read_to_string(self.path("etc/thiao.conf")).unwrap()
    }

    fn target(&self, name: &str) -> PathBuf {
        std::fs::read_link(self.path("hooks").join(name)).unwrap()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn it_links_the_hooks_and_writes_the_fragment() {
    let place = Place::new();
    let (code, out, err) = place.setup(&["--default-partition", "vm", "--idle", "90"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for name in PROGRAMS {
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
        "NodeName=fg[0-7] CPUs=1 RealMemory=200 Feature=vm State=CLOUD",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    assert!(
        text.contains("SlurmctldParameters=max_rpc=3,enable_configless,power_save_interval=1"),
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
    assert!(place.setup(&["--dry-run"]).1.contains("somebody else's"));

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
fn odd_paths_and_missing_programs_are_named() {
    let place = Place::new();
    std::fs::remove_file(place.path("thiao-hook")).unwrap();
    let (code, _, err) = place.setup(&[]);
    assert!(
        code == 1 && err.contains("thiao-hook is no program: build or install thiao-hook"),
        "{err}"
    );
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_thiao"))
            .args(["setup", "--config"])
            .arg(place.path("thiao.toml"))
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for args in [["--hooks", "/a b"], ["--fragment", "thiao.conf"]] {
        let (code, err) = run(&args);
        assert!(
            code == 1 && err.contains("slurm.conf needs an absolute path of letters"),
            "{err}"
        );
    }
    let (code, err) = run(&["--slurm-version", "new"]);
    assert!(
        code == 1 && err.contains("new is no Slurm release; write e.g. 22.05"),
        "{err}"
    );
}
