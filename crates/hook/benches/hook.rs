//! How long slurmctld's helper is held by `Resume` of 1,000 nodes, and a job by
//! `EpilogSlurmctld`: the whole process, from fork to its end, with the order
//! synced to disk; beside `/bin/true` in the same run. `cargo bench -p thiao-hook`; the folder is made
//! in `TMPDIR` (it should be on a disk).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 200;

fn main() {
    let dir = tempfile::TempDir::new().expect("a folder for the spool");
    let place = dir.path();
    fs::create_dir_all(place.join("spool/tmp")).expect("the spool");
    fs::create_dir_all(place.join("spool/new")).expect("the spool");
    fs::write(place.join("spool/nodes"), "fg[0-4999],vm[0001-5000]\n").expect("the known nodes");
    fs::write(place.join("spool/job-nodes"), "vm[0001-5000]\n").expect("those of job mode");
    let jobs: Vec<String> = (0..1000)
        .map(|n| format!("{{\"job_id\":{n},\"nodes\":\"fg{}\"}}", n * 4))
        .collect();
    let json = format!("{{\"jobs\":[{}],\"all_nodes\":\"...\"}}", jobs.join(","));
    fs::write(place.join("resume-file"), json).expect("the resume file");
    for name in ["Resume", "EpilogSlurmctld"] {
        symlink(env!("CARGO_BIN_EXE_thiao-hook"), place.join(name)).expect("the link");
    }

    // The worst case of writing 1,000 nodes: each by its name.
    let scattered: Vec<String> = (0..1000).map(|n| format!("fg{}", n * 4)).collect();
    println!("{RUNS} runs each, in {}", place.display());
    measure("/bin/true", Path::new("/bin/true"), "", place);
    measure("Resume of fg[0-999]", &place.join("Resume"), "fg[0-999]", place);
    measure(
        "Resume of 1,000 names",
        &place.join("Resume"),
        &scattered.join(","),
        place,
    );
    let epilog = |what, nodes| {
        let times = times(|| run(Command::new(place.join("EpilogSlurmctld")), nodes, place));
        report(what, times);
    };
    epilog("EpilogSlurmctld, job mode", "vm[0001-0016]");
    epilog("EpilogSlurmctld, another job", "fg[0-15]");
    let raw = times(|| write_and_sync(place));
    report("write, fsync, rename, fsync alone", raw);
    let kept = fs::read_dir(place.join("spool/new")).expect("the spool").count();
    assert_eq!(kept, 3 * (RUNS + WARM), "an order is missing");
}

const WARM: usize = 5;

fn times(mut run: impl FnMut()) -> Vec<Duration> {
    let mut once = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    for _ in 0..WARM {
        once();
    }
    let mut times: Vec<Duration> = (0..RUNS).map(|_| once()).collect();
    times.sort();
    times
}

fn measure(what: &str, program: &Path, list: &str, state: &Path) {
    let times = times(|| {
        let mut command = Command::new(program);
        command.arg(list);
        run(command, list, state);
    });
    report(what, times);
}

/// Once, with what slurmctld puts into the environment.
fn run(mut command: Command, nodes: &str, state: &Path) {
    let status = command
        .env_clear()
        .env("THIAO_STATE_DIR", state)
        .env("SLURM_RESUME_FILE", state.join("resume-file"))
        .env("SLURM_JOB_ID", "17")
        .env("SLURM_JOB_NODELIST", nodes)
        .env("SLURM_JOB_EXIT_CODE", "0")
        .stderr(Stdio::inherit())
        .status();
    assert!(status.expect("the program").success());
}

/// What the disk alone takes for an order of that size.
fn write_and_sync(place: &Path) {
    let (from, to) = (place.join("raw.tmp"), place.join("raw"));
    let write = || {
        let mut file = fs::File::create(&from)?;
        std::io::Write::write_all(&mut file, &[b'x'; 40_000])?;
        file.sync_all()?;
        fs::rename(&from, &to)?;
        fs::File::open(place)?.sync_all()
    };
    write().expect("the disk");
}

fn report(what: &str, times: Vec<Duration>) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{what:34} median {:6.2} ms   p99 {:6.2} ms", at(0.5), at(0.99));
}
