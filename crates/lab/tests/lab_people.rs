//! Whom guests know, what their jobs see and whom they reach, with real Slurm and real VMs. Nobody is named in
//! thiao.toml: users and their groups come from the lab's user database, their homes are exported by default.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use serde_json::Value;
use std::collections::BTreeMap;
use thiao_testkit::lab::{Lab, text, wait};

const ADA: &str = "user1";
const BOB: &str = "user2";

#[test]
fn lab_people_are_found_and_a_jobs_vms_are_its_users_alone() {
    let lab = Lab::up(&[
        "--users=2",
        "--nodes=1",
        "--hosts=1",
        "--host-cpus=6",
        "--host-memory-mb=2400",
        "--job-nodes=6",
        "--idle=600",
    ]);
    users_come_with_their_jobs(&lab);
    what_a_job_leaves_is_not_there_for_the_next(&lab);
    who_runs_where_nothing_is_shared_is_told(&lab);
    ones_own_job_can_be_entered(&lab);
    a_vm_of_one_job_sees_its_users_folders_alone(&lab);
    a_job_that_scans_finds_its_own(&lab);
    lab.down();
}

/// In power-saving mode a VM serves whoever comes: each is handed to it before his job starts, also by a controller
/// that was not there when the VM was made.
fn users_come_with_their_jobs(lab: &Lab) {
    let says = "id -un; id -Gn; pwd; hostname; ls ..";
    let first = lab.submit_by(ADA, &["sbatch", "-p", "vm", "-o", "first", "--wrap", says]);
    lab.wait_job(first, "COMPLETED", 90);
    let home = lab.dir.join("home");
    let home = home.to_str().unwrap();
    let ada = "user1\nuser1 labusers\n";
    assert_eq!(
        lab.output_of(ADA, "first"),
        format!("{ada}{home}/user1\nvm1\nuser1\n")
    );
    assert!(lab.lab("service", &["stop", "thiao"]).status.success());
    assert!(lab.lab("service", &["start", "thiao"]).status.success());
    let second = lab.submit_by(BOB, &["sbatch", "-p", "vm", "-o", "second", "--wrap", says]);
    let again = lab.submit_by(
        ADA,
        &["sbatch", "-p", "vm", "-o", "again", "--wrap", "ls ../user2; pwd"],
    );
    lab.wait_job(second, "COMPLETED", 90);
    lab.wait_job(again, "COMPLETED", 90);
    let bob = "user2\nuser2 labusers\n";
    assert_eq!(
        lab.output_of(BOB, "second"),
        format!("{bob}{home}/user2\nvm1\nuser1\nuser2\n")
    );
    let again = lab.output_of(ADA, "again");
    assert!(
        again.contains("Permission denied") && again.ends_with("/user1\n"),
        "{again}"
    );
}

/// Jobs follow each other in one VM: what fills its folders fails its job alone, and goes with it, not with its steps.
fn what_a_job_leaves_is_not_there_for_the_next(lab: &Lab) {
    let vms = || -> Vec<String> { folder(lab, "s/vms").into_iter().map(|(name, _)| name).collect() };
    let before = vms();
    let leaves = "for place in /tmp /var/tmp /dev/shm; do mkdir $place/left; echo $SLURM_JOB_ID >$place/left/x; done\n\
                  cp /dev/zero /tmp/big";
    let job = lab.submit_by(ADA, &["sbatch", "-p", "vm", "-o", "leaves", "--wrap", leaves]);
    lab.wait_job(job, "FAILED", 90);
    let words = lab.output_of(ADA, "leaves");
    assert!(words.contains("No space left on device"), "{words}");
    let looks = "ls -d /tmp/big /tmp/left /var/tmp/left /dev/shm/left 2>/dev/null; echo looked";
    for user in [ADA, BOB] {
        let job = lab.submit_by(user, &["sbatch", "-p", "vm", "-o", "looks", "--wrap", looks]);
        lab.wait_job(job, "COMPLETED", 90);
        assert_eq!(lab.output_of(user, "looks"), "looked\n");
    }
    let steps = "srun touch /tmp/mine; sleep 2; srun ls /tmp/mine";
    let said = lab.by(ADA, &["salloc", "-Q", "-p", "vm", "sh", "-c", steps]);
    assert_eq!(said.trim(), "/tmp/mine");
    assert_eq!(vms(), before, "all in one VM");
    let drained = lab.admin(&["sinfo", "-h", "-t", "drain,drained,draining", "-o", "%N"]);
    assert_eq!(drained.trim(), "");
}

/// In both modes, and before it runs; whose folder is shared reads nothing.
fn who_runs_where_nothing_is_shared_is_told(lab: &Lab) {
    for (program, partition) in [("sbatch", "vm"), ("tsub", "jobs")] {
        let submit = |more: &[&str]| {
            let words = [
                &[program, "-p", partition, "-o", "/dev/null", "--wrap", "hostname"],
                more,
            ]
            .concat();
            let job = lab.submit_by(ADA, &words);
            lab.wait_job(job, "COMPLETED", 90);
            lab.by(ADA, &["scontrol", "show", "job", &job.to_string()])
        };
        let told = submit(&["--chdir=/tmp"]);
        assert!(
            told.contains("AdminComment=thiao: note: its working directory /tmp is not shared with its VM "),
            "{told}"
        );
        let told = submit(&[]);
        assert!(!told.contains("thiao: note"), "{told}");
    }
}

/// By its number and by its node, beside what it runs; nobody else's can.
fn ones_own_job_can_be_entered(lab: &Lab) {
    let job = lab.submit_by(
        ADA,
        &["sbatch", "-p", "vm", "-o", "/dev/null", "--wrap", "sleep 300"],
    );
    lab.wait_job(job, "RUNNING", 90);
    let job = job.to_string();
    let says = "hostname; id -un; echo $SLURM_JOB_ID";
    for place in [&*job, "vm1"] {
        let said = lab.by(ADA, &["thiao", "ssh", place, "sh", "-c", says]);
        assert_eq!(said.trim(), format!("vm1\nuser1\n{job}"));
    }
    for (place, words) in [
        (&*job, "you have no job"),
        ("vm1", "no job of yours runs on vm1; vm1."),
    ] {
        let refused = lab.run_as(BOB, &["thiao", "ssh", place, "id"]);
        assert!(
            !refused.status.success() && text(&refused).contains(words),
            "{refused:?}"
        );
    }
    lab.by(ADA, &["scancel", &job]);
}

fn a_vm_of_one_job_sees_its_users_folders_alone(lab: &Lab) {
    let says = "id -un; id -Gn; ls ..; grep -c ' nfs ' /proc/mounts; grep -c user1 /etc/passwd";
    let job = lab.submit_by(BOB, &["tsub", "-o", "alone", "--wrap", says]);
    lab.wait_job(job, "FAILED", 90);
    assert_eq!(
        lab.output_of(BOB, "alone"),
        "user2\nuser2 labusers\nuser2\n1\n0\n"
    );
}

/// Another user's job runs at the same time, in VMs with ports that are open.
fn a_job_that_scans_finds_its_own(lab: &Lab) {
    let other = lab.submit_by(ADA, &["tsub", "-N2", "-o", "other", "--wrap", "sleep 300"]);
    let scans = "while [ ! -e targets ]; do sleep 0.2; done\n\
                 while read name address port; do\n\
                 if timeout 2 bash -c \"exec 3<>/dev/tcp/$address/$port\" 2>/dev/null\n\
                 then echo $name open; else echo $name closed; fi; done <targets";
    let job = lab.submit_by(BOB, &["tsub", "-N2", "-o", "scanned", "--wrap", scans]);
    lab.wait_job(other, "RUNNING", 90);
    lab.wait_job(job, "RUNNING", 90);
    let options: Value = read(&lab.dir.join("lab.json"))["options"].clone();
    let (host, slurmd) = (options["address"].as_str().unwrap(), &options["slurmd_port"]);
    let mut targets = vec![
        format!("slurmctld {host} {}", options["slurmctld_port"]),
        format!("outside 192.0.2.1 {slurmd}"),
    ];
    let exports: BTreeMap<String, Value> = folder(lab, "s/exports").into_iter().collect();
    for export in exports.values().filter(|export| export["port"].is_number()) {
        let name = export["folder"].as_str().unwrap().rsplit('/').next().unwrap();
        targets.push(format!("export-{name} {host} {}", export["port"]));
    }
    let mut vms = 0;
    for (_, vm) in folder(lab, "s/vms") {
        let address = vm["address"].as_str().unwrap();
        let name = match vm["job"].as_u64() {
            Some(id) if id == u64::from(job) => "own",
            Some(id) if id == u64::from(other) => "other",
            Some(_) => continue,
            None => "shared",
        };
        vms += 1;
        targets.push(format!("{name} {address} {slurmd}"));
    }
    assert_eq!(vms, 5, "{targets:?}");
    targets.sort();
    let place = lab.dir.join("home").join(BOB).join("targets");
    std::fs::write(&place, targets.join("\n") + "\n").unwrap();
    lab.wait_job(job, "COMPLETED", 60);
    let wanted = [
        "export-user1 closed",
        "export-user2 open",
        "other closed",
        "other closed",
        "outside closed",
        "own open",
        "own open",
        "shared closed",
        "slurmctld open",
    ];
    assert_eq!(lab.output_of(BOB, "scanned").lines().collect::<Vec<_>>(), wanted);
    // What was closed to the job is there: this machine itself reaches it.
    for target in targets
        .iter()
        .filter(|target| target.starts_with("other") || target.starts_with("shared"))
    {
        let words: Vec<&str> = target.split(' ').collect();
        let reach = format!("exec 3<>/dev/tcp/{}/{}", words[1], words[2]);
        let reached = lab.run_as(ADA, &["bash", "-c", &reach]);
        assert!(reached.status.success(), "{target}: {reached:?}");
    }
    lab.by(ADA, &["scancel", &other.to_string()]);
    wait("the rules are gone with the VMs", 60, || {
        let left = folder(lab, "s/vms").len();
        (left == 1).then_some(())
    });
}

fn read(path: &std::path::Path) -> Value {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The records in a folder of the controller's state: those of VMs are in folders of their own.
fn folder(lab: &Lab, name: &str) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(lab.dir.join(name)).unwrap().flatten();
    let record = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let file = if path.is_dir() { path.join("vm.json") } else { path };
        (entry.file_name().to_string_lossy().into_owned(), read(&file))
    };
    entries
        .map(record)
        .filter(|(_, record)| record.is_object())
        .collect()
}
