//! Bad days, with real Slurm and real VMs: nothing is lost, nothing is left
//! over, and what went wrong is told.

use thiao_testkit::lab::{Lab, text};

/// What a job does that shall be met while it runs.
const LONG: &str = "echo start; sleep 8; echo end";

/// The controller is killed while VMs boot, and again while they run: the next one adopts them.
#[test]
fn lab_controller_killed_while_vms_boot() {
    let lab = Lab::up(&["--cold", "--nodes", "4", "--idle", "3"]);
    let job = lab.submit(&["-N2", "-o", "out", "--wrap", LONG]);
    lab.wait_event("vm vm1", "vm-started", 1, 60);
    assert!(lab.lab("service", &["kill", "thiao"]).status.success());
    lab.wait_job(job, "RUNNING", 120);
    assert!(lab.lab("service", &["kill", "thiao"]).status.success());
    lab.wait_job(job, "COMPLETED", 120);
    lab.wait_all_back(90);
    for vm in ["vm vm1", "vm vm2"] {
        assert_eq!(
            lab.count(vm, "vm-asked"),
            1,
            "a second VM was made for {vm}\n{}",
            lab.story()
        );
    }
    assert_eq!(lab.output("out").0, "start\nend\n");
    let thiao = &lab.status()["services"][2];
    assert_eq!((&thiao["name"], &thiao["starts"]), (&"thiao".into(), &3.into()));
    lab.down();
}

/// slurmctld goes away while VMs boot, and comes back; a hook's order and the job survive it.
#[test]
fn lab_slurmctld_restarts_while_vms_boot() {
    let lab = Lab::up(&["--cold", "--nodes", "2", "--idle", "3"]);
    let job = lab.submit(&["-o", "out", "--wrap", LONG]);
    lab.wait_event("vm vm1", "vm-started", 1, 60);
    assert!(lab.lab("service", &["stop", "slurmctld"]).status.success());
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(lab.lab("service", &["start", "slurmctld"]).status.success());
    lab.wait_job(job, "COMPLETED", 180);
    lab.wait_all_back(90);
    assert_eq!(lab.count("vm vm1", "vm-asked"), 1, "{}", lab.story());
    assert_eq!(lab.output("out").0, "start\nend\n");
    lab.down();
}

/// A VM is held still so that it never registers: Slurm is told, the job gets another.
#[test]
fn lab_vm_that_never_registers_is_replaced() {
    let lab = Lab::up(&["--cold", "--nodes", "2", "--idle", "3", "--boot-timeout", "20"]);
    let job = lab.submit(&["-o", "out", "--wrap", "hostname"]);
    lab.wait_event("vm vm1", "vm-started", 1, 60);
    let pids = lab.qemu_of("vm1");
    assert_eq!(pids.len(), 1, "{pids:?}");
    lab.admin(&["kill", "-STOP", &pids[0]]);
    lab.wait_event("vm vm1", "vm-gone", 1, 60);
    lab.wait_job(job, "COMPLETED", 180);
    lab.wait_all_back(120);
    assert!(lab.output("out").0.starts_with("vm"));
    lab.down();
}

/// A VM is killed while its job runs: Slurm requeues the job, the node comes back by itself.
#[test]
fn lab_vm_killed_while_its_job_runs() {
    let lab = Lab::up(&["--cold", "--nodes", "1", "--idle", "3"]);
    let job = lab.submit(&["--requeue", "--open-mode=append", "-o", "out", "--wrap", LONG]);
    lab.wait_job(job, "RUNNING", 120);
    let pids = lab.qemu_of("vm1");
    assert_eq!(pids.len(), 1, "{pids:?}");
    lab.admin(&["kill", "-KILL", &pids[0]]);
    lab.wait_event("node vm1", "node-down", 1, 60);
    lab.wait_job(job, "PENDING", 60);
    lab.wait_job(job, "COMPLETED", 240);
    assert_eq!(lab.count("vm vm1", "vm-asked"), 2, "{}", lab.story());
    assert!(lab.output("out").0.ends_with("start\nend\n"));
    lab.wait_all_back(120);
    lab.down();
}

/// A second controller on the same state folder refuses, says why, and harms nothing.
#[test]
fn lab_second_controller_refuses() {
    let lab = Lab::up(&["--cold", "--nodes", "1", "--idle", "3"]);
    let second = lab.run_as_admin(&["thiao", "serve"]);
    let said = text(&second);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another"), "{said}");
    let job = lab.submit(&["-o", "out", "--wrap", "hostname"]);
    lab.wait_job(job, "COMPLETED", 120);
    lab.wait_all_back(60);
    assert_eq!(lab.output("out").0, "vm1\n");
    lab.down();
}

/// Suspend and Resume of one node race each other: the last word holds, one VM at most, jobs still run.
#[test]
fn lab_suspend_races_resume() {
    let lab = Lab::up(&["--cold", "--nodes", "2", "--idle", "3"]);
    let hook = |name: &str, node: &str| {
        let path = lab.dir.join("hooks").join(name);
        lab.admin(&[path.to_str().unwrap(), node])
    };
    for _ in 0..5 {
        hook("Resume", "vm1");
        hook("Suspend", "vm1");
    }
    hook("Resume", "vm2");
    hook("Suspend", "vm2");
    hook("Resume", "vm2");
    lab.wait_event("vm vm2", "node-up", 1, 90);
    assert!(lab.qemu_of("vm1").is_empty(), "{}", lab.story());
    assert_eq!(lab.qemu_of("vm2").len(), 1, "{}", lab.story());
    let job = lab.submit(&["-N2", "-o", "out", "--wrap", "srun hostname | sort"]);
    lab.wait_job(job, "COMPLETED", 180);
    assert_eq!(lab.output("out").0, "vm1\nvm2\n");
    lab.wait_all_back(90);
    lab.down();
}
