//! `job_submit.lua`: what users submit to partitions of job mode, and change there.

use crate::job_mode::{start, whole};
use std::time::Duration;
use thiao_core::ids::JobId;
use thiao_core::options::{Asker, VmOptions};
use thiao_core::view::{ArrayTasks, Gate, JobState, SlurmJob, WaitsFor};
use thiao_slurm::gate::Admission;
use thiao_slurm::lua;
use thiao_testkit::slurmctld::{Ctld, inside, rules, user_name};

#[test]
fn submissions_are_judged_as_the_controller_judges_them() {
    let Some(dir) = inside("submissions::submissions_are_judged_as_the_controller_judges_them") else {
        return;
    };
    let ctld = start(dir);
    options_are_judged(&ctld);
    what_would_pass_by_the_gate_is_refused(&ctld);
    what_needs_no_vm_is_left_alone(&ctld);
    options_are_not_handed_on(&ctld);
    srun_and_every_part_wait(&ctld);
    scripts_that_fail_let_nothing_pass(&ctld);
}

/// Says why a submission is refused.
#[track_caller]
fn refused(ctld: &Ctld, options: Option<&str>, args: &[&str], why: &str) {
    let args = [args, &["-H", "--wrap", "true"]].concat();
    let said = ctld.submit(options, &args).unwrap_err();
    assert!(said.contains(why), "{said}");
}

/// A held job, and the generic resources that it got.
fn put(ctld: &Ctld, options: Option<&str>, args: &[&str]) -> (SlurmJob, String) {
    let args = [args, &["-H", "--wrap", "true"]].concat();
    let job = ctld.submit(options, &args).unwrap();
    (ctld.seen(job), tres(ctld, job))
}

fn tres(ctld: &Ctld, job: JobId) -> String {
    let words = ["squeue", "-h", "-j", &job.to_string(), "-o", "%b"];
    ctld.run(false, &words).unwrap().trim().to_owned()
}

fn options_are_judged(ctld: &Ctld) {
    let me = user_name();
    let asker = Asker {
        partition: "jobs",
        account: "",
        user: &me,
    };
    for text in [
        "share=25",
        "share=75 template=small",
        " template=big\tshare=+50 ",
        "share=24",
        "share=76",
        "template=other",
        "template=small image=deb-12",
        "image=deb-12 keep-on-failure",
        "image=deb-13",
        "keep-on-failure share=30",
        "keep-on-failure=yes",
        "share=0",
        "share=101",
        "share=",
        "share",
        "share=1e1",
        "share=0x20",
        "template=a/b",
        "template=",
        "x",
        "x=y=z",
        "share=30 share=30",
        "image=$(x)",
        "image=a'b\"c",
        "share=99999999999999999999",
        "=",
        "%s %d %%",
    ] {
        let ours = VmOptions::parse(text).and_then(|o| o.check(&rules(), asker).map(|()| o));
        match (ours, ctld.submit(Some(text), &["-H", "--wrap", "true"])) {
            (Ok(options), Ok(job)) => {
                let job = ctld.seen(job);
                assert_eq!(job.admin_comment, Some(format!("vm: {options}")), "{text}");
                assert_eq!((job.partition.as_str(), job.gate), ("jobs", Gate::Waits));
            }
            (Err(why), Err(said)) => {
                // A quoted word may be quoted in another way.
                let why = why.split(['"', '\\']).next_back().unwrap();
                assert!(said.contains(why), "{text}: {why} not in {said}");
            }
            (ours, theirs) => panic!("{text}: {ours:?}, but {theirs:?}"),
        }
    }
}

fn what_would_pass_by_the_gate_is_refused(ctld: &Ctld) {
    for list in ["jobs,vm", "vm,jobs", "jobs,jobs"] {
        refused(ctld, None, &["-p", list], "is named alone");
        refused(ctld, Some("share=50"), &["-p", list], "is named alone");
    }
    refused(
        ctld,
        Some("share=50"),
        &["-p", "vm"],
        "partition vm gives jobs no VMs of their own: leave share=50 out",
    );
    for licenses in ["vm_room", "a,vm_room:1", "vm_room:0;a"] {
        refused(ctld, None, &["-L", licenses], "the licence vm_room");
        refused(ctld, None, &["-p", "jobs", "-L", licenses], "the licence vm_room");
    }
}

fn what_needs_no_vm_is_left_alone(ctld: &Ctld) {
    // Of tsub, without options and without a partition.
    assert_eq!(put(ctld, Some(""), &[]).0.partition, "jobs");
    let (job, gres) = put(ctld, None, &[]);
    assert_eq!(
        (job.partition.as_str(), job.gate, gres.as_str()),
        ("vm", Gate::Open, "N/A")
    );
    assert_eq!(put(ctld, Some(""), &["-p", "vm"]).0.gate, Gate::Open);
    assert_eq!(put(ctld, None, &["-p", "jobs", "--gres=vm:3"]).1, ctld.vm());
    let (job, _) = put(ctld, None, &["-p", "jobs", "-L", "a:2"]);
    assert_eq!(
        (job.licenses.as_str(), job.gate, job.has_options),
        ("a:2", Gate::Waits, false)
    );
}

/// A job hands its environment on, but not what was asked of its own VMs.
fn options_are_not_handed_on(ctld: &Ctld) {
    let out = ctld.dir.join("out");
    let job = ctld
        .submit(
            Some("share=50"),
            &[
                "-p",
                "jobs",
                "--export=NONE",
                "-o",
                out.to_str().unwrap(),
                "--wrap",
                "env",
            ],
        )
        .unwrap();
    ctld.admit(&[whole(job, "")]);
    ctld.until("it ran", |c| c.job(job).is_none());
    let env = std::fs::read_to_string(&out).unwrap();
    assert!(env.lines().any(|line| line == "SLURM_THIAO_VM=-"), "{env}");
    assert_eq!(put(ctld, Some("-"), &[]).0.partition, "vm");
}

/// srun waits as any other, and each part of a heterogeneous job.
fn srun_and_every_part_wait(ctld: &Ctld) {
    let conf = ctld.conf.clone();
    let mut srun = std::process::Command::new("srun")
        .args(["-p", "jobs", "hostname"])
        .env("SLURM_CONF", conf)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    ctld.until("srun's job waits", |c| {
        let jobs = c.slurm.observe().unwrap().jobs;
        jobs.values()
            .any(|j| j.name == "hostname" && j.gate == Gate::Waits && !j.requeue)
    });
    srun.kill().unwrap();
    srun.wait().unwrap();
    let first = ctld.sbatch(&["-p", "jobs", "-c2", "--wrap", "true", ":", "-p", "jobs", "-c1"]);
    let jobs = ctld.slurm.observe().unwrap().jobs;
    let parts: Vec<&SlurmJob> = jobs.values().filter(|j| j.het == Some(first)).collect();
    assert!(
        parts.len() == 2 && parts.iter().all(|j| j.gate == Gate::Waits),
        "{parts:?}"
    );
}

fn scripts_that_fail_let_nothing_pass(ctld: &Ctld) {
    let file = ctld.dir.join("job_submit.lua");
    let script = std::fs::read_to_string(&file).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::write(
        &file,
        script.replace(
            "local own = job_mode_partition(asked)",
            "local own = nil .. asked",
        ),
    )
    .unwrap();
    refused(ctld, None, &["-p", "jobs"], "job_submit.lua of Thiao failed");
    // A site's own functions are asked first.
    let beside = ctld.dir.join("thiao_job_submit.lua");
    std::fs::write(&beside, script).unwrap();
    let own = format!(
        "function slurm_job_submit(job)\n  if job.name == 'no' then return slurm.ERROR end\n  return slurm.SUCCESS\nend\n\
         function slurm_job_modify() return slurm.SUCCESS end\nreturn dofile({:?})\n",
        beside.to_str().unwrap()
    );
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::write(&file, own).unwrap();
    refused(ctld, None, &["-J", "no"], "Unspecified error");
    assert_eq!(put(ctld, None, &["-p", "jobs"]).0.gate, Gate::Waits);
}

#[test]
fn changes_by_users_keep_the_gate() {
    let Some(dir) = inside("submissions::changes_by_users_keep_the_gate") else {
        return;
    };
    let ctld = start(dir);
    other_waits_are_slurms_own(&ctld);
    the_controller_moves_jobs(&ctld);
    if !rustix::process::geteuid().is_root() {
        eprintln!("nobody else can be played without root");
        return;
    }
    a_job_at_the_gate_is_changed(&ctld);
    a_job_is_moved_to_the_gate(&ctld);
    an_array_is_changed_on_both_sides(&ctld);
}

/// Dependencies and holds are Slurm's, whatever the gate.
fn other_waits_are_slurms_own(ctld: &Ctld) {
    let first = ctld.sbatch(&["-p", "jobs", "--wrap", "true"]);
    let after = format!("--dependency=afterok:{first}");
    let second = ctld.sbatch(&["-p", "jobs", &after, "--wrap", "true"]);
    ctld.run(false, &["scontrol", "hold", &first.to_string()])
        .unwrap();
    ctld.admit(&[whole(first, ""), whole(second, "")]);
    ctld.until("it waits for the first", |c| {
        c.seen(second).reason.text == "Dependency"
    });
    ctld.run(false, &["scontrol", "release", &first.to_string()])
        .unwrap();
    ctld.until("one after the other", |c| c.job(second).is_none());
}

/// As `tsub JOBID` does.
fn the_controller_moves_jobs(ctld: &Ctld) {
    let job = ctld.sbatch(&["-H", "-L", "a:1", "--wrap", "true"]);
    ctld.slurm
        .move_job(job, "jobs", "a:1", Some("vm: share=50"))
        .unwrap();
    let seen = ctld.seen(job);
    assert_eq!(
        (seen.partition.as_str(), seen.gate, seen.licenses.as_str()),
        ("jobs", Gate::Waits, "a:1")
    );
    assert!(seen.has_options);
    ctld.slurm
        .comment(job, "vm: share=50; two\nlines | and bars")
        .unwrap();
    assert_eq!(
        ctld.seen(job).admin_comment.as_deref(),
        Some("vm: share=50; two lines | and bars")
    );
}

/// A held job of another user's.
fn submit(ctld: &Ctld, args: &[&str]) -> JobId {
    let words = [
        &["sbatch", "--parsable", "-H", "-o", "/dev/null"],
        args,
        &["--wrap", "true"],
    ]
    .concat();
    JobId(ctld.run(true, &words).unwrap().trim().parse().unwrap())
}

/// That user changes it.
fn of_user(ctld: &Ctld, job: JobId, changes: &str) -> Result<String, String> {
    let id = format!("JobId={job}");
    let changes: Vec<&str> = changes.split(' ').collect();
    ctld.run(true, &[&["scontrol", "update", &id], changes.as_slice()].concat())
}

#[track_caller]
fn is(ctld: &Ctld, job: JobId, partition: &str, gate: Gate, licenses: &str, gres: &str) {
    let seen = ctld.seen(job);
    assert_eq!(
        (seen.partition.as_str(), seen.gate, seen.licenses.as_str()),
        (partition, gate, licenses)
    );
    assert_eq!(tres(ctld, job), gres);
}

fn a_job_at_the_gate_is_changed(ctld: &Ctld) {
    let job = submit(ctld, &["-p", "jobs", "-L", "a:1"]);
    for (change, licenses) in [
        ("Licenses=", ""),
        ("Licenses=a:2", "a:2"),
        ("Licenses=vm_room:0", ""),
        ("Licenses=a,vm_room:1", "a"),
        ("Gres=vm:4", "a"),
        ("Partition=jobs", "a"),
    ] {
        of_user(ctld, job, change).unwrap();
        is(ctld, job, "jobs", Gate::Waits, licenses, &ctld.vm());
    }
    // Slurm takes no generic resource off a job: it would run nowhere else.
    for out in ["Partition=vm", "Partition=vm TresPerNode="] {
        let said = of_user(ctld, job, out).unwrap_err();
        assert!(said.contains("Invalid generic resource"), "{said}");
        is(ctld, job, "jobs", Gate::Waits, "a", &ctld.vm());
    }
    for list in ["jobs,vm", "vm,jobs"] {
        let said = of_user(ctld, job, &format!("Partition={list}")).unwrap_err();
        assert!(said.contains("Invalid partition"), "{said}");
    }
    assert!(of_user(ctld, job, "AdminComment=vm: share=100").is_err());
    // Admitted, it keeps being so.
    ctld.admit(&[whole(job, "a")]);
    of_user(ctld, job, "Licenses=a:3").unwrap();
    is(ctld, job, "jobs", Gate::Open, "a:3", &ctld.vm());
}

fn a_job_is_moved_to_the_gate(ctld: &Ctld) {
    let job = submit(ctld, &["-L", "a:1"]);
    assert!(of_user(ctld, job, "Licenses=vm_room").is_err());
    of_user(ctld, job, "Partition=jobs").unwrap();
    is(ctld, job, "jobs", Gate::Waits, "a:1", &ctld.vm());
    ctld.run(true, &["scontrol", "release", &job.to_string()])
        .unwrap();
    ctld.admit(&[whole(job, "a:1")]);
    ctld.until("it ran", |c| c.job(job).is_none());
}

/// Tasks of one array at different sides of the gate.
fn an_array_is_changed_on_both_sides(ctld: &Ctld) {
    let array = submit(ctld, &["-p", "jobs", "--array=0-3"]);
    let some = Admission {
        job: array,
        array: Some(ArrayTasks {
            job: array,
            tasks: vec![1],
        }),
        nodes: None,
        licenses: String::new(),
    };
    ctld.admit(&[some]);
    of_user(ctld, array, "Licenses=a:1").unwrap();
    let jobs = ctld.slurm.observe().unwrap().jobs;
    let mut gates: Vec<_> = jobs
        .values()
        .filter(|j| j.key() == array)
        .map(|j| {
            (
                j.array.as_ref().unwrap().tasks.clone(),
                j.gate,
                j.licenses.as_str(),
            )
        })
        .collect();
    gates.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        gates,
        [(vec![0, 2, 3], Gate::Waits, "a:1"), (vec![1], Gate::Open, "a:1")]
    );
}

/// The controller tells whom the guests know; without its word everybody may submit.
#[test]
fn whom_the_guests_do_not_know_is_refused_with_the_reason() {
    let Some(dir) = inside("submissions::whom_the_guests_do_not_know_is_refused_with_the_reason") else {
        return;
    };
    let ctld = start(dir);
    let script = lua::script(
        &["jobs".to_owned()],
        None,
        &[],
        Some(&ctld.dir.join("submitted")),
        None,
    );
    // slurmctld tells by whole seconds that a script is another one.
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::write(ctld.dir.join(lua::FILE), script).unwrap();
    let known = |uids: &str| std::fs::write(ctld.dir.join("users"), uids).unwrap();
    let held = ["-p", "jobs", "-n1", "--mem=50", "-H", "--wrap", "true"];
    ctld.submit(None, &held).unwrap();
    let me = rustix::process::getuid().as_raw();
    known(&format!("1{me}\n{me}1\n7\n"));
    let said = ctld.submit(None, &held).unwrap_err();
    assert!(
        said.contains(&format!("(uid {me}) is not known in the VMs")),
        "{said}"
    );
    known(&format!("7\n{me}\n"));
    ctld.submit(None, &held).unwrap();
}

/// A job that cannot run is held with the reason, wherever it is; one that cannot go back is ended.
#[test]
fn a_job_that_cannot_run_is_held_or_ended_with_the_reason() {
    let Some(dir) = inside("submissions::a_job_that_cannot_run_is_held_or_ended_with_the_reason") else {
        return;
    };
    let ctld = start(dir);
    ctld.hold(true);
    let comment = |job: JobId| {
        let words = ["scontrol", "-o", "show", "job", &job.to_string()];
        ctld.run(false, &words).unwrap()
    };
    let waits = ctld
        .submit(None, &["-p", "jobs", "-n1", "--mem=50", "--wrap", "true"])
        .unwrap();
    let starts = ctld.sbatch(&["-w", "n1", "--wrap", "sleep 60"]);
    let stays = ctld.sbatch(&["-w", "n2", "--no-requeue", "--wrap", "sleep 60"]);
    for job in [starts, stays] {
        ctld.until("its node powers up", |c| {
            c.job(job).is_some_and(|job| job.state == JobState::Configuring)
        });
    }
    for job in [waits, starts, stays] {
        ctld.slurm.refuse(job, "user eve is not known").unwrap();
    }
    for job in [waits, starts] {
        ctld.until("it is held", |c| {
            c.job(job)
                .is_some_and(|job| job.state == JobState::Pending && job.reason.has(&WaitsFor::Release))
        });
        assert!(
            comment(job).contains("AdminComment=thiao: user eve is not known"),
            "{}",
            comment(job)
        );
    }
    ctld.until("the other one is over", |c| c.job(stays).is_none());
    assert!(
        comment(stays).contains("AdminComment=thiao: user eve is not known"),
        "{}",
        comment(stays)
    );
}
