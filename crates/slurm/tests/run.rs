//! How Slurm's programs are run: bounded, clean, without deadlock; shown with stand-ins.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use thiao_core::ids::{JobId, NodeName};
use thiao_slurm::{Slurm, SlurmError};

/// A folder with stand-ins for programs, each doing what its shell text says.
fn programs(texts: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/stand-in.sh");
    for (name, text) in texts {
        symlink(script, dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(format!("{name}.sh")), text).unwrap();
    }
    std::fs::write(dir.path().join("slurm.conf"), "").unwrap();
    dir
}

fn slurm(dir: &Path, timeout: Duration) -> Slurm {
    Slurm::new(Some(dir.join("slurm.conf")), Some(dir.to_owned()), timeout)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_program_that_hangs_is_killed() {
    let dir = programs(&[("scontrol", "echo $$ > \"$0.pid\"; exec sleep 60")]);
    let start = Instant::now();
    let error = slurm(dir.path(), Duration::from_secs(2)).version().unwrap_err();
    assert!(
        matches!(error, SlurmError::Timeout { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    let pid = std::fs::read_to_string(dir.path().join("scontrol.pid")).unwrap();
    assert!(
        !Path::new("/proc").join(pid.trim()).exists(),
        "still there: {pid}"
    );
}

#[test]
fn one_that_closes_its_outputs_and_hangs_is_killed_too() {
    let dir = programs(&[("scontrol", "exec sleep 60 >/dev/null 2>&1")]);
    let error = slurm(dir.path(), Duration::from_millis(500))
        .version()
        .unwrap_err();
    assert!(matches!(error, SlurmError::Timeout { .. }), "{error}");
}

#[test]
fn much_on_both_outputs_is_no_deadlock() {
    let noise = "head -c 3000000 /dev/zero | tr '\\0' x";
    let dir = programs(&[(
        "scontrol",
        &format!("{noise} >&2; {noise}; {noise} >&2; echo; echo slurm 23.02.7"),
    )]);
    let version = slurm(dir.path(), LONG).config().unwrap();
    assert_eq!(version.get("x"), None);
    let dir = programs(&[("scontrol", &format!("{noise} >&2; echo the end >&2; exit 1"))]);
    let error = slurm(dir.path(), LONG).version().unwrap_err();
    assert!(
        error.to_string().len() < 40_000,
        "what a program says is cut: {}",
        error.to_string().len()
    );
}

#[test]
fn endless_output_is_cut_off() {
    let dir = programs(&[("scontrol", "exec cat /dev/zero")]);
    let error = slurm(dir.path(), LONG).version().unwrap_err();
    assert!(matches!(error, SlurmError::TooMuch { .. }), "{error}");
}

#[test]
fn the_environment_is_clean_and_no_signal_is_blocked() {
    // SAFETY: blocks SIGTERM in this thread only, as slurmctld does in its children.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        assert_eq!(
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()),
            0
        );
    }
    let dir = programs(&[(
        "scontrol",
        "env; sed -n 's/^SigBlk:/Blocked =/p' /proc/self/status; readlink /proc/self/fd/0 | sed 's/^/Input = /'",
    )]);
    let said = slurm(dir.path(), LONG).config().unwrap();
    assert_eq!(said.get("Blocked"), Some("0000000000000000"));
    assert_eq!(said.get("Input"), Some("/dev/null"));
    assert_eq!(said.get("LC_ALL"), Some("C"));
    assert_eq!(said.get("SLURM_TIME_FORMAT"), Some("%s"));
    assert_eq!(
        said.get("SLURM_CONF"),
        Some(dir.path().join("slurm.conf").to_str().unwrap())
    );
    assert_eq!(said.get("CARGO_MANIFEST_DIR"), None);
    assert_eq!(said.get("HOME"), None);
}

#[test]
fn an_observation_is_whole_or_none() {
    // The format ends with the mark, as does each record.
    let nodes = "for f in \"$@\"; do :; done; echo \"n[0-1]|idle+cloud|none|${f##*|}\"";
    let job = "7|7|N/A|N/A|0|vm|RUNNING|2|2|1|2|n[0-1]|9|cpu=2,node=2|1|1";
    let words = "root ${m}(null)${m}${m}None${m}N/A|N/A|N/A|N/A${m}(null)${m}wrap";
    let jobs = &format!("m=\"${{4##*Name:}}\"; echo \"{job}${{m}}{words}$m\"");
    let dir = programs(&[("sinfo", nodes), ("squeue", jobs)]);
    let view = slurm(dir.path(), LONG).observe().unwrap();
    assert_eq!(view.nodes.len(), 2);
    assert_eq!(view.jobs[&JobId(7)].nodes.len(), 2);

    let dir = programs(&[
        ("sinfo", nodes),
        (
            "squeue",
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
        ),
    ]);
    assert!(matches!(
        slurm(dir.path(), LONG).observe().unwrap_err(),
        SlurmError::Unreachable { .. }
    ));
    let dir = programs(&[("sinfo", &format!("{nodes} | head -c 12")), ("squeue", jobs)]);
    assert!(matches!(
        slurm(dir.path(), LONG).observe().unwrap_err(),
        SlurmError::Unparsable { .. }
    ));
    // A mark of somebody else's.
    let dir = programs(&[
        ("sinfo", nodes),
        ("squeue", &format!("echo '{job}@0(null)@0wrap@0'")),
    ]);
    assert!(matches!(
        slurm(dir.path(), LONG).observe().unwrap_err(),
        SlurmError::Unparsable { .. }
    ));
}

#[test]
fn many_nodes_are_few_commands_of_bounded_length() {
    // Names that don't fold: about 20 bytes each, 5,000 of them.
    let names: Vec<NodeName> = (0..5000)
        .map(|n| NodeName::new(&format!("node-{}-x{n}-rack", (b'a' + (n % 26) as u8) as char)).unwrap())
        .collect();
    let list = names
        .iter()
        .map(NodeName::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let sinfo = format!("for f in \"$@\"; do :; done; echo \"{list}|idle+cloud|none|${{f##*|}}\"");
    let dir = programs(&[("sinfo", &sinfo), ("scontrol", "echo \"$*\" >> \"$0.calls\"")]);
    slurm(dir.path(), LONG)
        .set_down(&names, "thiao: two\nlines | and bars")
        .unwrap();
    let calls = std::fs::read_to_string(dir.path().join("scontrol.calls")).unwrap();
    assert!(calls.lines().count() <= 16, "{}", calls.lines().count());
    let mut down = 0;
    for call in calls.lines() {
        assert!(call.len() < 34_000);
        let names = call
            .strip_prefix("update NodeName=")
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        if call.ends_with(" state=DOWN reason=thiao: two lines | and bars") {
            down += thiao_core::hostlist::count(names).unwrap();
        } else {
            assert!(call.ends_with(" state=POWER_DOWN"));
        }
    }
    assert_eq!(down, 5000);
}

/// Between an observation and our word Slurm may have put the job back by itself.
#[test]
fn a_job_that_is_back_already_is_kept_away_all_the_same() {
    let scontrol = "echo \"$*\" >> \"$0.told\"\n\
                    case \"$1\" in\n\
                    requeuehold) echo 'Job is pending execution' >&2; exit 1 ;;\n\
                    -o) echo 'JobId=7 ExcNodeList=(null)' ;;\nesac\n";
    let squeue = "m=\"${4##*Name:}\"; state=CONFIGURING; nodes=n1\n\
                  grep -qs requeuehold \"${0%squeue}scontrol.told\" && state=PENDING && nodes=\n\
                  words=\"root${m}(null)${m}${m}None${m}N/A|N/A|N/A|N/A${m}(null)${m}wrap\"\n\
                  echo \"7|7|N/A|N/A|0|all|$state|1|1|1|2|$nodes|9|cpu=2,node=1|1|1$m$words$m\"\n";
    let dir = programs(&[("scontrol", scontrol), ("squeue", squeue)]);
    slurm(dir.path(), LONG)
        .turn_away(JobId(7), "n[1-4]", "no VM")
        .unwrap();
    let told = std::fs::read_to_string(dir.path().join("scontrol.told")).unwrap();
    for word in [
        "ExcNodeList=n[1-4]",
        "release 7",
        "thiao: kept from n[1-4]: no VM",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
}
