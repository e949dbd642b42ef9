//! Jobs in VMs of their own, with real Slurm and real VMs: made for one job, as
//! big as it asks, gone after it, whatever happens to the job.

use std::collections::BTreeSet;
use thiao_testkit::lab::{Lab, demo_comes_out_right, text, wait};

const ADA: &str = "user1";
const BOB: &str = "user2";

/// Three users' jobs at once, one without capacity, one cancelled while its VM boots:
/// the demo's own checks are the test's.
#[test]
fn lab_job_mode_demo_comes_out_right() {
    demo_comes_out_right(&["--job-mode"]);
}

/// What people do with sbatch, srun, salloc, tsub and scontrol does what it does elsewhere.
#[test]
fn lab_job_mode_is_slurm_as_people_know_it() {
    // One host: what fits beside what is told apart by its four CPUs.
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        rules.path(),
        format!("\n[[vm_options]]\nuser = \"{ADA}\"\nshare = \"50-100\"\n"),
    )
    .unwrap();
    let lab = Lab::up(&[
        "--users=2",
        "--nodes=1",
        "--hosts=1",
        "--host-cpus=4",
        "--host-memory-mb=1600",
        "--job-nodes=6",
        "--idle=3",
        "--extra-config",
        rules.path().to_str().unwrap(),
    ]);
    queued_while_the_controller_is_down(&lab);
    no_capacity_lets_others_go_ahead(&lab);
    changed_while_it_waits(&lab);
    by_all_ways_to_submit(&lab);
    tsub_is_sbatch(&lab);
    options_by_the_rules(&lab);
    only_ones_own_jobs(&lab);
    lab.wait_all_back(90);
    lab.down();
}

fn queued_while_the_controller_is_down(lab: &Lab) {
    assert!(lab.lab("service", &["stop", "thiao"]).status.success());
    let plain = lab.submit_by(
        ADA,
        &["sbatch", "-p", "jobs", "-o", "plain", "--wrap", "hostname"],
    );
    let told = lab.run_as(BOB, &["tsub", "-o", "told", "--wrap", "hostname"]);
    assert!(told.status.success(), "{}", text(&told));
    assert!(text(&told).contains("controller"), "{}", text(&told));
    assert_eq!(lab.state_of(plain).as_deref(), Some("PENDING"));
    assert!(lab.lab("service", &["start", "thiao"]).status.success());
    for job in [plain, plain + 1] {
        lab.wait_job(job, "COMPLETED", 90);
    }
    assert!(lab.output_of(ADA, "plain").starts_with('j'));
    assert!(lab.output_of(BOB, "told").starts_with('j'));
}

/// Beside a job of three CPUs there is capacity for one more, not for four; and for a node of the other mode.
fn no_capacity_lets_others_go_ahead(lab: &Lab) {
    let job = |cpus: &str, name: &str, what: &str| {
        lab.submit_by(
            ADA,
            &[
                "tsub",
                "-c",
                cpus,
                "--mem=200",
                "-J",
                name,
                "-o",
                name,
                "--wrap",
                what,
            ],
        )
    };
    let first = job("3", "first", "nproc; sleep 15");
    lab.wait_job(first, "RUNNING", 60);
    let whole = job("4", "whole", "nproc");
    let small = job("1", "small", "nproc");
    lab.wait_job(small, "COMPLETED", 60);
    assert_eq!(lab.state_of(whole).as_deref(), Some("PENDING"));
    wait("Slurm's word on the job without capacity", 20, || {
        (lab.reason_of(whole) == "Licenses").then_some(())
    });
    let why = lab.by(ADA, &["thiao", "explain", &whole.to_string()]);
    assert!(why.contains("CPU") || why.contains("capacity"), "{why}");
    let other = lab.submit_by(BOB, &["sbatch", "-o", "other", "--wrap", "hostname"]);
    lab.wait_job(whole, "COMPLETED", 90);
    lab.wait_job(other, "COMPLETED", 90);
    assert_eq!(lab.output_of(ADA, "first"), "3\n");
    assert_eq!(lab.output_of(ADA, "whole"), "4\n");
    assert_eq!(lab.output_of(ADA, "small"), "1\n");
    assert_eq!(lab.output_of(BOB, "other"), "vm1\n");
    assert!(lab.vms_of(other).is_empty());
}

/// Held, changed by its user, released; another waits for it by a dependency.
fn changed_while_it_waits(lab: &Lab) {
    let memory = "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
    let held = lab.submit_by(ADA, &["tsub", "-H", "--mem=150", "-o", "held", "--wrap", memory]);
    let dependency = format!("--dependency=afterok:{held}");
    let after = lab.submit_by(
        ADA,
        &[
            "sbatch",
            "-p",
            "jobs",
            &dependency,
            "-o",
            "after",
            "--wrap",
            "echo after",
        ],
    );
    let id = held.to_string();
    let change = format!("JobId={id}");
    lab.by(
        ADA,
        &["scontrol", "update", &change, "MinMemoryNode=500", "TimeLimit=7"],
    );
    assert_eq!(lab.state_of(held).as_deref(), Some("PENDING"));
    assert!(lab.vms_of(held).is_empty(), "a held job has no VM");
    lab.by(ADA, &["scontrol", "release", &id]);
    lab.wait_job(after, "COMPLETED", 90);
    let memory: u32 = lab
        .output_of(ADA, "held")
        .trim()
        .parse()
        .expect("a number of MiB");
    assert!((500..676).contains(&memory), "{memory}");
}

fn by_all_ways_to_submit(lab: &Lab) {
    let array = lab.submit_by(
        ADA,
        &[
            "tsub",
            "--array=0-2",
            "-o",
            "array.%a",
            "--wrap",
            "cat /proc/sys/kernel/random/boot_id",
        ],
    );
    let told = lab.by(BOB, &["srun", "-p", "jobs", "-c2", "--mem=250", "nproc"]);
    assert_eq!(told.lines().last(), Some("2"), "{told}");
    // All or nothing: two nodes at once, each its VM.
    let told = lab.by(
        BOB,
        &["salloc", "-p", "jobs", "-N2", "srun", "sh", "-c", "hostname"],
    );
    let hosts: BTreeSet<&str> = told.lines().filter(|line| line.starts_with('j')).collect();
    assert_eq!(hosts.len(), 2, "{told}");
    wait("the array is done", 90, || {
        let left = lab.admin(&["squeue", "-h", "-j", &array.to_string()]);
        left.trim().is_empty().then_some(())
    });
    let boots: BTreeSet<String> = (0..3)
        .map(|task| lab.output_of(ADA, &format!("array.{task}")))
        .collect();
    assert_eq!(boots.len(), 3, "each task has a VM of its own");
}

fn tsub_is_sbatch(lab: &Lab) {
    let heredoc = "tsub --parsable <<'EOF'\n#!/bin/bash\n#SBATCH -c 2\n#SBATCH -o heredoc\nnproc\nEOF";
    let job: u32 = lab.by(ADA, &["sh", "-c", heredoc]).parse().expect("a job id");
    let waits = lab.run_as(ADA, &["tsub", "-W", "-o", "/dev/null", "--wrap", "exit 3"]);
    assert_eq!(waits.status.code(), Some(3), "{}", text(&waits));
    for wrong in [
        &["--no-such-option"][..],
        &["--mem=much", "--wrap", "true"],
        &["no-such-file"],
    ] {
        let [ours, theirs] = [&["tsub"][..], &["sbatch", "-p", "jobs"]]
            .map(|program| lab.run_as(ADA, &[program, wrong].concat()));
        assert_eq!(
            ours.status.code(),
            theirs.status.code(),
            "{wrong:?}: {}",
            text(&ours)
        );
        assert!(!ours.status.success(), "{wrong:?}: {}", text(&ours));
    }
    let test = lab.run_as(ADA, &["tsub", "--test-only", "--wrap", "true"]);
    assert!(test.status.success(), "{}", text(&test));
    // As in 2011: a job that is queued already.
    let queued = lab.submit_by(ADA, &["sbatch", "-H", "-o", "moved", "--wrap", "hostname"]);
    let queued_id = queued.to_string();
    let others = lab.run_as(BOB, &["tsub", &queued_id]);
    assert!(!others.status.success(), "{}", text(&others));
    lab.by(ADA, &["tsub", &queued_id]);
    lab.by(ADA, &["scontrol", "release", &queued_id]);
    lab.wait_job(queued, "COMPLETED", 90);
    assert!(lab.output_of(ADA, "moved").starts_with('j'));
    lab.wait_job(job, "COMPLETED", 90);
    assert_eq!(lab.output_of(ADA, "heredoc"), "2\n");
}

fn options_by_the_rules(lab: &Lab) {
    let share = ["tsub", "--vm-share=50", "-o", "/dev/null", "--wrap", "true"];
    let job = lab.submit_by(ADA, &share);
    let refused = lab.run_as(BOB, &share);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("share=50"), "{}", text(&refused));
    let little = lab.run_as(ADA, &["tsub", "--vm-share=10", "--wrap", "true"]);
    assert!(text(&little).contains("50 to 100"), "{}", text(&little));
    lab.wait_job(job, "COMPLETED", 90);
    let vms = lab.vms_of(job);
    assert_eq!(vms.len(), 1, "{vms:?}");
    assert_eq!(vms[0]["share_percent"], 50, "{vms:?}");
}

fn only_ones_own_jobs(lab: &Lab) {
    let job = lab.submit_by(ADA, &["tsub", "-o", "mine", "--wrap", "sleep 5; echo done"]);
    lab.wait_job(job, "RUNNING", 60);
    let id = job.to_string();
    for deed in [
        &["thiao", "clean", &id][..],
        &["thiao", "jobs", &id],
        &["thiao", "explain", &id],
        &["tclean", &id],
        &["scancel", &id],
    ] {
        let others = lab.run_as(BOB, deed);
        assert!(!others.status.success(), "{deed:?}: {}", text(&others));
    }
    lab.wait_job(job, "COMPLETED", 60);
    assert_eq!(lab.output_of(ADA, "mine"), "done\n");
    // Said twice, and when all is gone already: no harm.
    for _ in 0..2 {
        lab.admin(&["tclean", &id]);
    }
}

/// What a job does that shall be met while it runs; each of its runs tells on which machine it is.
const LONG: &str = "cat /proc/sys/kernel/random/boot_id; sleep 10; echo end";

/// Whatever ends a job early or has it run again: no VM is left, and none serves twice.
#[test]
fn lab_job_mode_on_bad_days() {
    let lab = Lab::up(&["--nodes=1", "--job-nodes=8", "--host-memory-mb=1600", "--idle=3"]);
    let job = |name: &str, more: &[&str]| {
        let common = [
            "-p",
            "jobs",
            "-J",
            name,
            "-o",
            name,
            "--open-mode=append",
            "--requeue",
        ];
        lab.submit(&[&common[..], more, &["--wrap", LONG]].concat())
    };
    let held = job("held", &["-H"]);
    // Slurm's limit is a minute at least.
    let late = lab.submit(&["-p", "jobs", "-t", "1", "-o", "late", "--wrap", "exec sleep 300"]);
    let again = job("again", &[]);
    let dies = job("dies", &[]);
    let outlives = job("outlives", &[]);
    let boots = job("boots", &["-c2", "--mem=250"]);

    // Cancelled while it waits, and while its VM boots.
    lab.admin(&["scancel", &held.to_string()]);
    wait("a VM boots", 60, || (!lab.vms_of(boots).is_empty()).then_some(()));
    lab.admin(&["scancel", &boots.to_string()]);
    lab.wait_job(held, "CANCELLED", 30);
    lab.wait_job(boots, "CANCELLED", 60);
    assert!(lab.vms_of(held).is_empty());

    // Requeued while it runs; its VM dies while it runs; slurmctld goes away while it runs.
    for (job, name) in [(again, "again"), (dies, "dies"), (outlives, "outlives")] {
        lab.wait_job(job, "RUNNING", 60);
        // Slurm says so before its script has begun.
        wait("the job has begun", 30, || lab.has_output(name).then_some(()));
    }
    lab.admin(&["scontrol", "requeue", &again.to_string()]);
    let node = lab.vms_of(dies)[0]["node"].as_str().unwrap().to_owned();
    let pids = lab.qemu_of(&node);
    assert_eq!(pids.len(), 1, "{pids:?}");
    lab.admin(&["kill", "-KILL", &pids[0]]);
    assert!(lab.lab("service", &["stop", "slurmctld"]).status.success());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(lab.lab("service", &["start", "slurmctld"]).status.success());
    lab.wait_job(outlives, "COMPLETED", 90);
    assert_eq!(lab.vms_of(outlives).len(), 1, "{}", lab.story());

    for job in [again, dies] {
        // A job that ran waits two minutes by Slurm's rule, if nobody says otherwise.
        wait("it is queued again", 60, || {
            lab.state_of(job)
                .filter(|state| state != "RUNNING" && state != "COMPLETING")
        });
        let now = ["scontrol", "update", &format!("JobId={job}"), "StartTime=now"];
        let _ = lab.run_as_admin(&now);
        lab.wait_job(job, "COMPLETED", 150);
    }
    for name in ["again", "dies"] {
        let (output, _) = lab.output(name);
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.last(), Some(&"end"), "{output}");
        let boots: BTreeSet<&str> = lines.iter().filter(|line| line.len() == 36).copied().collect();
        assert_eq!(boots.len(), 2, "each run has a VM of its own: {output}");
    }
    for job in [again, dies] {
        assert_eq!(lab.vms_of(job).len(), 2, "{}", lab.story());
    }
    lab.wait_job(late, "TIMEOUT", 150);

    lab.wait_all_back(90);
    let all = [late, again, dies, outlives, boots];
    let vms: Vec<String> = all
        .iter()
        .flat_map(|job| lab.vms_of(*job))
        .map(|vm| vm["vm"].to_string())
        .collect();
    assert_eq!(vms.iter().collect::<BTreeSet<_>>().len(), vms.len(), "{vms:?}");
    lab.down();
}
