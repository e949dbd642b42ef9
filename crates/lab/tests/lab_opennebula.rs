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
