//! Slurm, Thiao, XML-RPC, VM, slurmd, job: the whole way through a stand-in for
//! OpenNebula's front-end, with real Slurm and real VMs.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not take a test's helpers for tests"
)]

use thiao_testkit::lab::{Lab, demo_comes_out_right, wait};

/// What a job does that shall be met while it runs.
const LONG: &str = "echo start; sleep 8; echo end";

/// A job gets a VM made through OpenNebula, told by its context disc, and gives it back.
#[test]
fn lab_opennebula_job_runs_in_a_vm_made_by_xml_rpc() {
    let lab = Lab::up(&["--opennebula", "--nodes", "2", "--idle", "3"]);
    let job = lab.submit(&["-N2", "-o", "out", "--wrap", "srun hostname | sort"]);
    lab.wait_job(job, "COMPLETED", 180);
    let (output, uid) = lab.output("out");
    assert_eq!(output, "vm1\nvm2\n");
    assert_ne!(uid, 0, "output is the submitter's");
    // That a guest is ready is said through OneGate (`crates/oned/tests/machines.rs`), and is no
    // news where Slurm shows the node up first.
    for vm in ["vm vm1", "vm vm2"] {
        assert!(lab.count(vm, "vm-ready") <= 1, "{}", lab.story());
        for once in ["vm-asked", "node-up"] {
            assert_eq!(lab.count(vm, once), 1, "{once}: {}", lab.story());
        }
    }
    lab.wait_all_back(90);
    lab.down();
}

/// What a person at the console does to VMs under running jobs: the demo's own checks are the test's.
#[test]
fn lab_opennebula_people_do_what_they_like() {
    demo_comes_out_right(&["--opennebula", "--people"]);
}

/// In job mode a job that scans finds its own VMs, and no other job's: OpenNebula's security groups keep them.
#[test]
fn lab_opennebula_a_job_that_scans_finds_its_own() {
    let lab = Lab::up(&[
        "--opennebula",
        "--users=2",
        "--nodes=1",
        "--hosts=1",
        "--host-cpus=6",
        "--host-memory-mb=3600",
        "--job-nodes=6",
        "--idle=600",
    ]);
    let (ada, bob) = ("user1", "user2");
    let shared = lab.submit_by(
        ada,
        &["sbatch", "-p", "vm", "-o", "shared", "--wrap", "sleep 300"],
    );
    let other = lab.submit_by(ada, &["tsub", "-N2", "-o", "other", "--wrap", "sleep 300"]);
    let scans = "while [ ! -e targets ]; do sleep 0.2; done\n\
                 while read name address port; do\n\
                 if timeout 2 bash -c \"exec 3<>/dev/tcp/$address/$port\" 2>/dev/null\n\
                 then echo $name open; else echo $name closed; fi; done <targets\n\
                 srun hostname | sort";
    let job = lab.submit_by(bob, &["tsub", "-N2", "-o", "scanned", "--wrap", scans]);
    for job in [shared, other, job] {
        lab.wait_job(job, "RUNNING", 180);
    }
    let options = std::fs::read(lab.dir.join("lab.json")).unwrap();
    let options: serde_json::Value = serde_json::from_slice(&options).unwrap();
    let options = &options["options"];
    let (host, slurmd) = (options["address"].as_str().unwrap(), &options["slurmd_port"]);
    let mut targets = vec![
        format!("slurmctld {host} {}", options["slurmctld_port"]),
        // OpenNebula's own, of which VMs have no need.
        format!("oned {host} 2633"),
    ];
    for (name, job) in [("own", job), ("other", other), ("shared", shared)] {
        targets.extend(
            addresses_of(&lab, job)
                .iter()
                .map(|address| format!("{name} {address} {slurmd}")),
        );
    }
    targets.sort();
    let place = lab.dir.join("home").join(bob).join("targets");
    std::fs::write(&place, targets.join("\n") + "\n").unwrap();
    lab.wait_job(job, "COMPLETED", 90);
    let wanted = [
        "oned closed",
        "other closed",
        "other closed",
        "own open",
        "own open",
        "shared closed",
        "slurmctld open",
    ];
    let output = lab.output_of(bob, "scanned");
    let lines: Vec<&str> = output.lines().collect();
    let (scanned, names) = lines.split_at(wanted.len().min(lines.len()));
    assert_eq!(scanned, wanted);
    assert_eq!(names.len(), 2, "a step went through both of its VMs: {output}");
    // What was closed to the job is there: this machine itself reaches it.
    for target in targets.iter().filter(|target| !target.starts_with("own")) {
        let words: Vec<&str> = target.split(' ').collect();
        let reach = format!("exec 3<>/dev/tcp/{}/{}", words[1], words[2]);
        let reached = lab.run_as(ada, &["bash", "-c", &reach]);
        assert!(reached.status.success(), "{target}: {reached:?}");
    }
    // An interactive step from this machine: its VM finds the way back to `srun`.
    let said = lab.by(
        ada,
        &[
            "srun",
            "--overlap",
            &format!("--jobid={other}"),
            "-N2",
            "hostname",
        ],
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    for job in [shared, other] {
        lab.by(ada, &["scancel", &job.to_string()]);
    }
    wait("the rules are gone with the VMs", 120, || {
        let rules = lab.admin(&["nft", "list", "table", "bridge", "one_groups"]);
        (rules.matches("chain th").count() <= 2).then_some(())
    });
    lab.down();
}

/// Where a job's VMs are reached.
fn addresses_of(lab: &Lab, job: u32) -> Vec<String> {
    let nodes = lab.admin(&["squeue", "-h", "-j", &job.to_string(), "-o", "%N"]);
    let nodes = lab.admin(&["scontrol", "show", "hostnames", nodes.trim()]);
    let of = |node: &str| {
        let shown = lab.admin(&["scontrol", "-o", "show", "node", node]);
        let (_, rest) = shown.split_once(" NodeAddr=").unwrap();
        rest.split(' ').next().unwrap().to_owned()
    };
    nodes.lines().map(|node| of(node.trim())).collect()
}

/// OpenNebula hangs while a job runs and while its end is asked for: nothing is
/// destroyed, the job ends well, and the VM goes when OpenNebula is back.
#[test]
fn lab_opennebula_hangs_while_a_job_runs() {
    let lab = Lab::up(&["--opennebula", "--nodes", "1", "--idle", "3"]);
    let job = lab.submit(&["-o", "out", "--wrap", LONG]);
    lab.wait_job(job, "RUNNING", 180);
    let oned = pid_of(&lab, "oned");
    lab.admin(&["kill", "-STOP", &oned]);
    lab.wait_job(job, "COMPLETED", 60);
    assert_eq!(lab.output("out").0, "start\nend\n");
    lab.wait_event("node vm1", "suspend-asked", 1, 60);
    assert_eq!(lab.count("vm vm1", "vm-gone"), 0, "{}", lab.story());
    assert_eq!(lab.status()["vms"], 1, "{}", lab.story());
    lab.admin(&["kill", "-CONT", &oned]);
    lab.wait_event("vm vm1", "vm-gone", 1, 120);
    lab.wait_all_back(90);
    assert_eq!(lab.count("vm vm1", "vm-asked"), 1, "{}", lab.story());
    lab.down();
}

/// OpenNebula is killed while a job runs, and has lost its memory of the VM for good:
/// the job ends well, nothing is destroyed on a guess, and no second VM is made.
#[test]
fn lab_opennebula_killed_while_a_job_runs() {
    let lab = Lab::up(&["--opennebula", "--nodes", "1", "--idle", "3"]);
    let job = lab.submit(&["-o", "out", "--wrap", LONG]);
    lab.wait_job(job, "RUNNING", 180);
    assert!(lab.lab("service", &["kill", "oned"]).status.success());
    lab.wait_job(job, "COMPLETED", 60);
    assert_eq!(lab.output("out").0, "start\nend\n");
    lab.wait_event("node vm1", "suspend-asked", 1, 60);
    assert_eq!(lab.count("vm vm1", "vm-asked"), 1, "{}", lab.story());
    assert_eq!(lab.count("vm vm1", "vm-gone"), 0, "{}", lab.story());
    // The next oned asks QEMU for its version, which counts as a process of QEMU's meanwhile.
    wait("its VM alone is left", 10, || {
        (lab.status()["vms"] == 1).then_some(())
    });
    // What is left of it ends with the lab.
    lab.down();
}

/// A service's process id inside the lab.
fn pid_of(lab: &Lab, name: &str) -> String {
    let status = lab.status();
    let services = status["services"].as_array().unwrap();
    let service = services.iter().find(|service| service["name"] == name).unwrap();
    service["pid"].to_string()
}
