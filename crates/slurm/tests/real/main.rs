//! Against the real slurmctld, with nodes that are real slurmds in namespaces.
//! Needs the Debian packages that the failure names; `THIAO_SKIP_SLURM=1` skips.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

mod answers;
mod backup;
mod job_mode;
mod parts;
mod ranges;
mod scenario;
mod submissions;

use rustix::process::Signal;
use std::time::{Duration, Instant};
use thiao_core::view::{BaseState, JobState, NodeReason};
use thiao_slurm::conf::{MemoryForms, NodeLine, Timeouts};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::site_keys::SiteKeys;
use thiao_slurm::{Slurm, SlurmError, Version};
use thiao_testkit::ids::node;
use thiao_testkit::slurmctld::{Ctld, inside};

const QUICK: Timeouts = Timeouts {
    resume_s: 60,
    suspend_s: 2,
    idle_s: 3,
};

fn is_off(ctld: &Ctld, name: &str) -> bool {
    let node = ctld.node(name);
    node.base == BaseState::Idle && node.flags.powered_down
}

#[test]
fn a_job_gets_a_node_and_gives_it_back() {
    let Some(dir) = inside("a_job_gets_a_node_and_gives_it_back") else {
        return;
    };
    let ctld = Ctld::start(dir, QUICK, |_| {});
    assert!(ctld.slurm.version().unwrap() >= Version::new(22, 5, 0));
    let config = ctld.slurm.config().unwrap();
    assert_eq!(config.get("ClusterName"), Some("lab"));
    let asked = ctld.slurm.quirks().unwrap().reg_addrs;
    assert_eq!(config.has("SlurmctldParameters", "cloud_reg_addrs"), asked);

    let view = ctld.slurm.observe().unwrap();
    assert_eq!(view.nodes.len(), 4);
    assert!(view.jobs.is_empty());
    assert!(is_off(&ctld, "n1"));

    let names = ctld.sbatch(&["-H", "-J", "two\nlines|1|0|root", "--wrap", "true"]);
    // What a job's user has in his environment is not slurmctld's hooks'.
    let export = "--export=ALL,THIAO_STATE_DIR=/evil,LD_PRELOAD=/evil,PATH=/evil,SLURM_CLUSTER_NAME=evil,SLURM_JOB_NODELIST=n[3-4],EVIL=1";
    let job = ctld.sbatch(&["-N2", "-w", "n[1-2]", export, "--wrap", "/bin/sleep 4"]);
    ctld.until("the job runs", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
    let seen = ctld.job(job).unwrap();
    assert_eq!(seen.nodes, [node("n1"), node("n2")]);
    assert_eq!(seen.uid, rustix::process::getuid().as_raw());
    assert!(ctld.node("n1").is_up() && ctld.node("n2").is_up());
    assert_eq!(ctld.job(names).unwrap().name, "two\nlines|1|0|root");
    ctld.slurm.notify_job(job, "thiao: only\na test").unwrap();
    ctld.slurm
        .notify_job(names, "thiao: pending ones get the comment")
        .unwrap();

    ctld.until("the job is over", |c| c.job(job).is_none());
    ctld.until("both nodes are powered down", |c| {
        is_off(c, "n1") && is_off(c, "n2")
    });
    let calls = ctld.hooks();
    assert!(calls.contains(&"Resume n[1-2]".to_owned()), "{calls:?}");
    assert!(calls.iter().any(|c| c.starts_with("Suspend n")), "{calls:?}");
    for hook in ["PrologSlurmctld", "EpilogSlurmctld", "Resume", "Suspend"] {
        let environment = std::fs::read_to_string(ctld.dir.join(format!("{hook}.env"))).unwrap();
        assert!(
            !environment.to_lowercase().contains("evil"),
            "{hook}: {environment}"
        );
    }
    let of_prolog = std::fs::read_to_string(ctld.dir.join("PrologSlurmctld.env")).unwrap();
    for line in [
        format!("SLURM_JOB_ID={job}"),
        "SLURM_JOB_NODELIST=n[1-2]".to_owned(),
    ] {
        assert!(of_prolog.lines().any(|l| l == line), "{line}: {of_prolog}");
    }
}

#[test]
fn a_node_set_down_comes_back_when_we_say() {
    let Some(dir) = inside("a_node_set_down_comes_back_when_we_say") else {
        return;
    };
    let ctld = Ctld::start(dir, Timeouts { resume_s: 8, ..QUICK }, |_| {});
    let reason = "thiao: no host has 100 MiB left";
    ctld.hold(true);
    let job = ctld.sbatch(&["-w", "n1", "--wrap", "sleep 60"]);
    ctld.until("n1 powers up", |c| c.node("n1").flags.powering_up);

    // A job that waits for its node.
    ctld.slurm.set_down(&[node("n1")], reason).unwrap();
    ctld.until("the job waits again", |c| {
        c.job(job)
            .is_some_and(|j| j.state == JobState::Pending && j.nodes.is_empty())
    });
    ctld.until("n1 is down and off", |c| {
        let n = c.node("n1");
        n.base == BaseState::Down && n.flags.powered_down
    });
    // Longer than ResumeTimeout: Slurm itself must not take it over.
    std::thread::sleep(Duration::from_secs(9));
    let seen = ctld.node("n1");
    assert_eq!(
        (seen.base, seen.reason),
        (BaseState::Down, Some(NodeReason::ours(reason)))
    );
    assert!(!ctld.hooks().iter().any(|c| c.starts_with("ResumeFail")));
    ctld.slurm.return_to_service(&[node("n1")]).unwrap();
    assert!(is_off(&ctld, "n1"));
    // 23.11 to 25.11 keep a reason, and no command takes it away; those with accounting do not.
    let version = ctld.slurm.config().unwrap().version().unwrap();
    let keeps = (Version::new(23, 11, 0)..Version::new(26, 5, 0)).contains(&version);
    let kept = ctld.node("n1").reason.map(|reason| reason.text);
    assert!(
        kept.is_none() || (keeps && kept.as_deref() == Some(reason)),
        "{kept:?}"
    );
    // Again: nothing to do, no error.
    ctld.slurm.return_to_service(&[node("n1")]).unwrap();

    ctld.hold(false);
    let asked = Instant::now();
    ctld.slurm.start_now(&[job]).unwrap();
    ctld.until("the job runs", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "the 120 s wait is skipped"
    );

    // A node that dies below a running job; down and back at once.
    ctld.hook("Kill", "n1");
    ctld.slurm.set_down(&[node("n1")], "thiao: VM n1.2 died").unwrap();
    ctld.until("the job waits again", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Pending)
    });
    ctld.slurm.return_to_service(&[node("n1")]).unwrap();
    ctld.until("n1 is off", |c| is_off(c, "n1"));
    ctld.slurm.start_now(&[job]).unwrap();
    ctld.until("the job runs again", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
}

#[test]
fn a_node_started_by_hand_is_usable() {
    let Some(dir) = inside("a_node_started_by_hand_is_usable") else {
        return;
    };
    let ctld = Ctld::start(dir, Timeouts { idle_s: 60, ..QUICK }, |_| {});
    ctld.hook("Start", "n3");
    ctld.until("n3 is up", |c| c.node("n3").is_up());
    let job = ctld.sbatch(&["-w", "n3", "--wrap", "sleep 60"]);
    ctld.until("the job runs", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
    assert!(!ctld.hooks().iter().any(|c| c.starts_with("Resume ")));

    // What it is known by came with it; the others are only names.
    let details = ctld.slurm.details().unwrap();
    let known = |name: &str| {
        (
            details[&node(name)].address.clone(),
            details[&node(name)].host_name.clone(),
        )
    };
    assert_eq!(known("n3"), ("10.9.0.13".to_owned(), "n3".to_owned()));
    assert_eq!(known("n2"), ("n2".to_owned(), "n2".to_owned()));
}

#[test]
fn errors_of_the_real_programs_have_their_class() {
    let Some(dir) = inside("errors_of_the_real_programs_have_their_class") else {
        return;
    };
    let mut ctld = Ctld::start(dir, QUICK, |_| {});
    let error = ctld
        .slurm
        .set_down(&[node("n1"), node("zz9"), node("n2")], "thiao: x")
        .unwrap_err();
    assert!(
        matches!(&error, SlurmError::NoSuchNode { detail, .. } if detail == "zz9"),
        "{error}"
    );
    assert_eq!(ctld.node("n1").base, BaseState::Down);
    assert_eq!(ctld.node("n2").base, BaseState::Down);
    let error = ctld
        .slurm
        .notify_job(thiao_core::ids::JobId(4_000_000), "x")
        .unwrap_err();
    assert!(matches!(error, SlurmError::NoSuchJob { .. }), "{error}");
    let error = ctld
        .slurm
        .start_now(&[thiao_core::ids::JobId(4_000_000)])
        .unwrap_err();
    assert!(matches!(error, SlurmError::NoSuchJob { .. }), "{error}");

    // An unknown job among others keeps none from being set.
    let later = ["n3", "n4"].map(|n| ctld.sbatch(&["--begin=now+1hour", "-w", n, "--wrap", "sleep 60"]));
    let error = ctld
        .slurm
        .start_now(&[later[0], thiao_core::ids::JobId(4_000_000), later[1]])
        .unwrap_err();
    assert!(matches!(error, SlurmError::NoSuchJob { .. }), "{error}");
    for job in later {
        ctld.until("it starts", |c| {
            c.job(job).is_some_and(|j| j.state != JobState::Pending)
        });
    }
    let error = ctld.slurm.start_now(&later).unwrap_err();
    assert!(matches!(error, SlurmError::InvalidState { .. }), "{error}");

    // Held still: no answer, but no hang either.
    let hasty = Slurm::new(Some(ctld.conf.clone()), None, Duration::from_secs(1));
    ctld.signal(Signal::STOP);
    let asked = Instant::now();
    let error = hasty.observe().unwrap_err();
    assert!(matches!(error, SlurmError::Timeout { .. }), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(3));
    ctld.signal(Signal::CONT);
    ctld.until("it answers again", |c| c.slurm.observe().is_ok());

    ctld.stop();
    let error = ctld.slurm.observe().unwrap_err();
    assert!(
        matches!(error, SlurmError::Unreachable { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(!ctld.slurm.ping().unwrap().is_up());
    ctld.start_again();
    assert_eq!(ctld.node("n1").reason, Some(NodeReason::ours("thiao: x")));

    let lost = Slurm::new(Some(ctld.dir.join("nowhere.conf")), None, Duration::from_secs(5));
    assert!(matches!(lost.observe().unwrap_err(), SlurmError::NoConf { .. }));
    let lost = Slurm::new(
        Some(ctld.conf.clone()),
        Some(ctld.dir.clone()),
        Duration::from_secs(5),
    );
    let error = lost.observe().unwrap_err();
    assert!(
        matches!(
            error,
            SlurmError::Missing {
                package: "slurm-client",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn slurmctld_takes_the_fragment() {
    let Some(dir) = inside("slurmctld_takes_the_fragment") else {
        return;
    };
    let mut ctld = Ctld::start(dir, QUICK, |lab| lab.nodes[0].partition = "old".into());
    let present = ctld.slurm.config().unwrap();
    let line = |nodes: &str, partition: &str| NodeLine {
        nodes: nodes.into(),
        cpus: 2,
        memory_mb: 200,
        features: vec!["big".into()],
        partition: partition.into(),
        job: None,
    };
    let fragment = Fragment {
        version: ctld.slurm.version().unwrap(),
        hooks: ctld.dir.join("hooks"),
        nodes: vec![
            line("fg[0-7]", "vm"),
            line("gg[01-02]", "vm"),
            line("hh1", "other"),
        ],
        default_partition: None,
        timeouts: Timeouts::default(),
        tries_s: 60,
        joined: std::collections::BTreeMap::new(),
        memory: MemoryForms::default(),
        cgroups: thiao_slurm::fragment::Cgroups::None,
    };
    assert!(
        fragment.conflicts(&present).is_empty(),
        "{:?}",
        fragment.conflicts(&present)
    );
    let own = SiteKeys::of(
        &present,
        &fragment.hooks,
        fragment.version,
        &fragment.joined,
        None,
    );
    let file = ctld.dir.join("thiao.conf");
    std::fs::write(&file, fragment.render(&own)).unwrap();
    let conf = std::fs::read_to_string(&ctld.conf).unwrap() + &format!("Include {}\n", file.display());
    ctld.stop();
    std::fs::write(&ctld.conf, conf).unwrap();
    ctld.start_again();
    let view = ctld.slurm.observe().unwrap();
    assert_eq!(view.nodes.len(), 4 + 8 + 2 + 1);
    assert!(view.nodes[&node("gg02")].flags.powered_down);
    let config = ctld.slurm.config().unwrap();
    assert!(config.has("SlurmctldParameters", "enable_configless"));
    assert_eq!(config.get("TreeWidth"), Some("65533"));
    let known = ctld.slurm.quirks().unwrap().private_cloud;
    assert_eq!(config.has("PrivateData", "cloud"), known);
}

#[test]
fn a_node_that_left_its_partition_is_still_seen() {
    let Some(dir) = inside("a_node_that_left_its_partition_is_still_seen") else {
        return;
    };
    let ctld = Ctld::start(dir, QUICK, |_| {});
    let job = ctld.sbatch(&["-w", "n3", "--wrap", "/bin/sleep 60"]);
    ctld.until("the job runs", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Running)
    });
    let nodes = |list: &str| {
        let nodes = format!("nodes={list}");
        ctld.run(false, &["scontrol", "update", "partitionname=vm", &nodes])
            .unwrap();
    };
    nodes("n[1-2]");
    // One that slurm.conf does not have, and one that it has and that is in no partition.
    let view = ctld.slurm.observe_also(&[node("zz9")].into()).unwrap();
    assert_eq!(view.without_partition, [node("n3"), node("n4")].into());
    assert_eq!(view.gone, [node("zz9")].into());
    let seen = &view.nodes[&node("n3")];
    assert!(seen.base == BaseState::Allocated && seen.is_up(), "{seen:?}");
    assert!(view.nodes[&node("n4")].flags.powered_down);
    // What is told of it is taken.
    ctld.slurm.set_down(&[node("n4")], "thiao: a test").unwrap();
    let reason = ctld.node("n4").reason.map(|reason| reason.text);
    assert_eq!(reason.as_deref(), Some("thiao: a test"));
    ctld.slurm.return_to_service(&[node("n4")]).unwrap();

    // Slurm powers it down when that was asked for, and not by itself.
    ctld.slurm.end_with_job(&[node("n3")], "thiao: a test").unwrap();
    ctld.run(false, &["scancel", &job.to_string()]).unwrap();
    ctld.until("n3 is powered down", |c| {
        c.hooks().contains(&"Suspend n3".to_owned())
    });
    nodes("n[1-4]");
    let view = ctld.slurm.observe().unwrap();
    assert!(
        view.without_partition.is_empty() && view.gone.is_empty(),
        "{view:?}"
    );
}
