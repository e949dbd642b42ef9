//! `tsub` before an sbatch that writes down how it was called.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiao_api::SOCKET;
use thiao_testkit::process::run;

/// Prints its words and what it sees; ends with `EXIT`, or by the signal `KILL`.
const SBATCH: &str = r#"#!/bin/sh
printf '[%s]' "$@"
echo " vm=<${SLURM_THIAO_VM-unset}> conf=<${SLURM_CONF-unset}>"
cat
echo "to stderr" >&2
[ -z "$KILL" ] || kill -"$KILL" $$
exit ${EXIT:-0}
"#;

/// A folder with that sbatch, `tsub`, and settings; a controller answers as long as it is held.
struct Place {
    dir: tempfile::TempDir,
    _controller: Option<UnixListener>,
}

const AWAY: &str = "thiao: the controller does not answer: the job is queued, and gets its VMs when the controller is back\n";

impl Place {
    fn without_controller() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("sbatch"), SBATCH).unwrap();
        std::fs::set_permissions(bin.join("sbatch"), std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink(env!("CARGO_BIN_EXE_thiao"), dir.path().join("tsub")).unwrap();
        std::fs::write(dir.path().join("job.sh"), "#!/bin/sh\n").unwrap();
        let place = Self {
            dir,
            _controller: None,
        };
        place.settings("");
        place
    }

    fn new() -> Self {
        let mut place = Self::without_controller();
        place._controller = Some(UnixListener::bind(place.path(SOCKET)).unwrap());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Rewrites the settings, with more in `[slurm]`.
    fn settings(&self, slurm: &str) {
        let text = format!(
            "state_dir = {:?}\n[slurm]\nbin_dir = {:?}\n{slurm}",
            self.dir.path(),
            self.path("bin")
        );
        std::fs::write(self.path("thiao.toml"), text).unwrap();
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.dir.path())
            .env_remove("SLURM_CONF")
            .env_remove("SLURM_THIAO_VM")
            .env("THIAO_CONFIG", self.path("thiao.toml"))
            .stdin(Stdio::null());
        command
    }

    fn tsub(&self, words: &[&str]) -> Command {
        self.command(&self.path("tsub"), words)
    }
}

/// What sbatch was given, all being well.
#[track_caller]
fn given(mut command: Command) -> String {
    let (code, out, err) = run(&mut command);
    assert_eq!((code, err.as_str()), (0, "to stderr\n"), "{out}");
    out
}

#[test]
fn sbatch_gets_all_but_our_words() {
    let place = Place::new();
    let words = [
        "-n2",
        "--vm-share",
        "50",
        "-J",
        "a b",
        "job.sh",
        "--vm-image=x",
        "",
    ];
    assert_eq!(
        given(place.tsub(&words)),
        "[-n2][-J][a b][job.sh][--vm-image=x][] vm=<share=50> conf=<unset>\n"
    );
    // The mark of tsub is there without options too.
    assert_eq!(
        given(place.tsub(&["--parsable", "--test-only", "job.sh"])),
        "[--parsable][--test-only][job.sh] vm=<> conf=<unset>\n"
    );
    let thiao = Path::new(env!("CARGO_BIN_EXE_thiao"));
    for words in [
        &["submit", "--version", "--vm-keep-on-failure"][..],
        &[
            "--config",
            "thiao.toml",
            "submit",
            "--version",
            "--vm-keep-on-failure",
        ],
    ] {
        assert_eq!(
            given(place.command(thiao, words)),
            "[--version] vm=<keep-on-failure> conf=<unset>\n"
        );
    }
}

#[test]
fn exit_codes_signals_and_streams_are_sbatchs() {
    let place = Place::new();
    let (code, _, err) = run(place.tsub(&["-W"]).env("EXIT", "37"));
    assert_eq!((code, err.as_str()), (37, "to stderr\n"));
    let mut command = place.tsub(&["-W"]);
    let ended = command.env("KILL", "TERM").output().unwrap();
    assert_eq!(ended.status.signal(), Some(15));
    // A heredoc.
    let mut child = place
        .tsub(&["--vm-share=5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"#!/bin/sh\nhostname\n")
        .unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "[] vm=<share=5> conf=<unset>\n#!/bin/sh\nhostname\n");
    assert!(child.wait().unwrap().success());
    // Signals that Rust's programs ignore are as they were.
    let text = std::fs::read_to_string(place.path("bin/sbatch")).unwrap();
    let text = text.replace("cat\n", "grep SigIgn /proc/$$/status\n");
    std::fs::write(place.path("bin/sbatch"), text).unwrap();
    let out = given(place.tsub(&[]));
    let ignored = out.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_eq!(
        u64::from_str_radix(ignored.trim(), 16).unwrap() & pipe,
        0,
        "{out}"
    );
}

#[test]
fn who_does_not_get_through_is_told_and_the_job_is_queued() {
    let place = Place::without_controller();
    let (code, out, err) = run(&mut place.tsub(&["job.sh"]));
    assert_eq!((code, err), (0, format!("{AWAY}to stderr\n")));
    assert!(out.starts_with("[job.sh] vm=<>"), "{out}");
    // One that was killed leaves its socket.
    drop(UnixListener::bind(place.path(SOCKET)).unwrap());
    assert_eq!(run(&mut place.tsub(&["job.sh"])).2, format!("{AWAY}to stderr\n"));
    // To give a queued job VMs needs one.
    let (code, _, err) = run(&mut place.tsub(&["17"]));
    assert_eq!(code, 3);
    assert!(err.contains("no controller answers"), "{err}");
}

#[test]
fn slurm_is_found_as_the_settings_say() {
    let place = Place::new();
    place.settings("conf = \"/etc/slurm/other.conf\"\n");
    assert!(given(place.tsub(&[])).contains("conf=</etc/slurm/other.conf>"));
    let mut command = place.tsub(&[]);
    command.env("SLURM_CONF", "/mine");
    assert!(given(command).contains("conf=</mine>"));
    // By PATH, if they do not say.
    std::fs::write(
        place.path("thiao.toml"),
        format!("state_dir = {:?}\n", place.dir.path()),
    )
    .unwrap();
    let mut command = place.tsub(&[]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", place.path("bin").display()));
    assert!(given(command).contains("conf=<unset>"));
    std::fs::write(place.path("thiao.toml"), "[slurm]\nbin_dir = \"/no/such\"\n").unwrap();
    let (code, _, err) = run(&mut place.tsub(&[]));
    assert_eq!(code, 1);
    assert!(err.contains("sbatch") && err.contains("/no/such"), "{err}");
    // Named, so it must be there.
    std::fs::remove_file(place.path("thiao.toml")).unwrap();
    let (code, _, err) = run(&mut place.tsub(&[]));
    assert!(code == 1 && err.contains("thiao.toml"), "{err}");
}

#[test]
fn options_of_ours_that_make_no_sense_end_it() {
    let place = Place::new();
    for words in [
        &["--vm-shares=3", "job.sh"][..],
        &["--vm-share=0"],
        &["--vm-share"],
    ] {
        let (code, out, err) = run(&mut place.tsub(words));
        assert_eq!((code, out.as_str()), (2, ""), "sbatch is not called");
        assert!(err.starts_with("thiao: ") && err.contains("--vm-share"), "{err}");
    }
}

#[test]
fn its_help_is_ours() {
    let place = Place::without_controller();
    let (code, help, err) = run(&mut place.tsub(&["--help"]));
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "Usage: tsub",
        "All of sbatch's options work",
        "--vm-keep-on-failure",
        "up to a word `--` or the job's script",
        "JOBID",
    ] {
        assert!(help.contains(part), "{part:?} is missing in: {help}");
    }
    let thiao = Path::new(env!("CARGO_BIN_EXE_thiao"));
    assert_eq!(run(&mut place.command(thiao, &["submit", "-h"])).1, help);
    // The script's own.
    let (_, out, _) = run(&mut place.tsub(&["job.sh", "--help"]));
    assert!(out.starts_with("[job.sh][--help]"), "{out}");
}

#[test]
fn ssh_becomes_a_step_of_the_job_also_without_a_controller() {
    let place = Place::without_controller();
    std::fs::copy(place.path("bin/sbatch"), place.path("bin/srun")).unwrap();
    let thiao = Path::new(env!("CARGO_BIN_EXE_thiao"));
    let mut command = place.command(thiao, &["ssh", "17", "-w", "fg1", "uptime", "-p"]);
    let (code, said, _) = run(command.env("EXIT", "7"));
    assert_eq!(code, 7);
    let words = "[--jobid=17][--overlap][-N1][-n1][--nodelist=fg1][uptime][-p] vm=<unset> conf=<unset>\n";
    assert_eq!(said, words);
    let (_, _, said) = run(&mut place.command(thiao, &["ssh", "fg1"]));
    assert!(said.contains("is thiaod running?"), "{said}");
    // srun takes no task of an array, and nobody else knows its number.
    let (_, _, said) = run(&mut place.command(thiao, &["ssh", "17_3"]));
    assert!(
        said.contains("is thiaod running?") && said.contains("squeue -h -j 17_3 -O JobID"),
        "{said}"
    );
}
