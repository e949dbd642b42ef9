use super::*;
use thiao_slurm::conf::{JobLine, NodeLine, Timeouts};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::{Config, Ping, Version};

const GOOD: &str = "ResumeProgram = /h/Resume\nSuspendProgram = /h/Suspend\nResumeFailProgram = /h/ResumeFail\n\
    PrologSlurmctld = /h/PrologSlurmctld\nEpilogSlurmctld = /h/EpilogSlurmctld\nReturnToService = 2\n\
    ResumeRate = 0 nodes/min\nSuspendRate = 0 nodes/min\nPrivateData = cloud\n\
    SlurmctldParameters = enable_configless,power_save_interval=1\nSchedulerType = sched/backfill\n\
    ProctrackType = proctrack/linuxproc\nTaskPlugin = task/none\n";

fn facts(config: &str) -> slurm::Facts {
    slurm::Facts {
        version: Ok(Version::new(22, 5, 8)),
        ping: Ok(Ping {
            controllers: vec![("head".to_owned(), true)],
        }),
        config: Ok(Config::parse(config)),
        own_guests: true,
        job_mode: None,
    }
}

fn wanted() -> Fragment {
    Fragment {
        version: Version::new(22, 5, 8),
        hooks: PathBuf::from("/h"),
        nodes: vec![NodeLine {
            nodes: "fg[0-1]".to_owned(),
            cpus: 1,
            memory_mb: 200,
            features: Vec::new(),
            partition: "vm".to_owned(),
            job: None,
        }],
        default_partition: None,
        timeouts: Timeouts::default(),
    }
}

/// What is said beside "Slurm" and "slurmctld" being well.
fn said(config: &str) -> Vec<Finding> {
    slurm::judge(&facts(config), Some(&wanted())).split_off(2)
}

#[test]
fn what_is_included_is_good() {
    holds(&said(GOOD), "slurm.conf", Verdict::Ok, "has what", "");
}

#[test]
fn what_lacks_or_differs_is_named() {
    for (from, to, verdict, words) in [
        (
            "ResumeProgram = /h/Resume\n",
            "",
            Verdict::Bad,
            "ResumeProgram is not set",
        ),
        (
            "/h/Suspend\n",
            "/usr/bin/other\n",
            Verdict::Bad,
            "SuspendProgram is /usr/bin/other",
        ),
        (
            "ReturnToService = 2",
            "ReturnToService = 0",
            Verdict::Warn,
            "ReturnToService is 0, not 2",
        ),
        (
            "ResumeRate = 0",
            "ResumeRate = 300",
            Verdict::Warn,
            "ResumeRate is 300",
        ),
        (
            "PrivateData = cloud",
            "PrivateData = none",
            Verdict::Warn,
            "PrivateData has no cloud",
        ),
        ("enable_configless,", "", Verdict::Warn, "no enable_configless"),
        (
            "proctrack/linuxproc",
            "proctrack/cgroup",
            Verdict::Bad,
            "guests have no control groups",
        ),
    ] {
        // What setup writes is mended by it; what somebody else wrote is not.
        let remedy = if words.contains("/usr/bin/other") || words.starts_with("guests") {
            "change slurm.conf"
        } else {
            "thiao setup"
        };
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        holds(&said(&text), "slurm.conf", verdict, words, remedy);
    }
    let missing = said("ReturnToService = 2\n");
    assert!(
        missing[0]
            .text
            .contains("ResumeProgram, SuspendProgram, ResumeFailProgram"),
        "{missing:#?}"
    );
}

#[test]
fn a_sites_own_images_may_have_control_groups() {
    let mut facts = facts(&GOOD.replace("proctrack/linuxproc", "proctrack/cgroup"));
    facts.own_guests = false;
    let found = slurm::judge(&facts, Some(&wanted()));
    assert!(found.iter().all(|f| f.verdict == Verdict::Ok), "{found:#?}");
}

#[test]
fn without_slurm_nothing_else_is_said() {
    let with = |version, ping| {
        let facts = slurm::Facts {
            version,
            ping,
            ..facts(GOOD)
        };
        slurm::judge(&facts, Some(&wanted()))
    };
    let found = with(Err("scontrol is not there".to_owned()), Err(String::new()));
    holds(
        &found,
        "Slurm",
        Verdict::Bad,
        "scontrol is not there",
        "slurm.bin_dir",
    );
    let found = with(Ok(Version::new(22, 5, 8)), Ok(Ping::default()));
    holds(
        &found[1..],
        "slurmctld",
        Verdict::Bad,
        "does not answer",
        "systemctl restart slurmctld",
    );
    let found = with(Ok(Version::new(20, 11, 4)), Ok(Ping::default()));
    holds(
        &found[..1],
        "Slurm",
        Verdict::Bad,
        "20.11.4 is older than 22.05.0",
        "upgrade",
    );
}

#[test]
fn old_lines_for_nodes_show() {
    let shape = Shape {
        cpus: 2,
        memory_mb: 200,
        share_percent: 100,
    };
    let wanted: BTreeMap<NodeName, (Shape, String)> = ["fg0", "fg1"]
        .map(|node| (name(node), (shape, "vm".to_owned())))
        .into();
    let details = |cpus, memory_mb, partition: &str| {
        let details = NodeDetails {
            cpus: Some(cpus),
            memory_mb: Some(memory_mb),
            partitions: vec![partition.to_owned()],
            ..NodeDetails::default()
        };
        BTreeMap::from([(name("fg0"), details.clone()), (name("fg1"), details)])
    };
    assert_eq!(slurm::sizes(&wanted, &details(2, 200, "vm")), []);
    holds(
        &slurm::sizes(&wanted, &details(1, 100, "batch")),
        "node fg[0-1]",
        Verdict::Warn,
        "1 CPUs in Slurm and 2 in the settings, 100 MiB in Slurm and 200 in the settings, not in partition vm",
        "thiao setup",
    );
    // What Slurm does not know was said already.
    assert_eq!(slurm::sizes(&wanted, &BTreeMap::new()), []);
}

#[test]
fn slurms_user_is_read() {
    let uid = |text: &str| slurm_uid(&Config::parse(text));
    assert_eq!(uid("SlurmUser = slurm(64030)\n"), Some(64030));
    assert_eq!(uid("SlurmUser = slurm\n"), None);
    assert_eq!(uid(""), None);
}

#[test]
fn the_hooks_folder_is_where_slurmctld_calls_them() {
    let usual = Path::new("/etc/thiao/hooks");
    assert_eq!(hooks_folder(&facts(GOOD), usual), Path::new("/h"));
    let other = facts(&GOOD.replace("/h/Resume\n", "/usr/bin/other\n"));
    assert_eq!(hooks_folder(&other, usual), usual);
}

#[test]
fn job_mode_needs_more() {
    let wanted_script = "-- Written by `thiao setup`: x";
    let more = "GresTypes = gpu,vm\nLicenses = a:2,vm_room:1\nSlurmdParameters = config_overrides\nJobSubmitPlugins = lua\n";
    let said = |config: &str, gate: Result<bool, String>, script: Result<&str, &str>| {
        let mut facts = facts(&format!("{GOOD}{config}"));
        facts.job_mode = Some(slurm::JobMode {
            gate,
            script: script.map(str::to_owned).map_err(str::to_owned),
            wanted: wanted_script.to_owned(),
        });
        let mut wanted = wanted();
        wanted.nodes[0].job = Some(JobLine {
            memory_per_cpu_mb: 100,
            gpus: 0,
        });
        let found = slurm::judge(&facts, Some(&wanted)).split_off(2);
        found
            .into_iter()
            .filter(|f| f.what == "job mode")
            .collect::<Vec<_>>()
    };
    let good = || Ok(wanted_script);
    holds(
        &said(more, Ok(true), good()),
        "job mode",
        Verdict::Ok,
        "wait at the gate",
        "",
    );
    for (from, words) in [
        ("gpu,vm", "GresTypes has no vm"),
        ("a:2,vm_room:1", "Licenses has no vm_room"),
        ("config_overrides", "SlurmdParameters has no config_overrides"),
        ("= lua", "JobSubmitPlugins has no lua"),
    ] {
        let config = more.replace(from, "= other");
        assert_ne!(config, more);
        holds(
            &said(&config, Ok(true), good()),
            "job mode",
            Verdict::Bad,
            words,
            "thiao setup",
        );
    }
    holds(
        &said(more, Ok(false), good()),
        "job mode",
        Verdict::Bad,
        "no reservation thiao-room",
        "restart thiaod",
    );
    for (script, verdict, words) in [
        (
            Err("/etc/slurm/job_submit.lua: No such file"),
            Verdict::Bad,
            "No such file",
        ),
        (
            Ok("function slurm_job_submit() end"),
            Verdict::Bad,
            "somebody else's",
        ),
        (
            Ok("-- Written by `thiao setup`: older"),
            Verdict::Warn,
            "other settings",
        ),
    ] {
        holds(
            &said(more, Ok(true), script),
            "job mode",
            verdict,
            words,
            "thiao setup",
        );
    }
    let chained = Ok("return dofile(\"/etc/slurm/thiao_job_submit.lua\")");
    holds(
        &said(more, Ok(true), chained),
        "job mode",
        Verdict::Ok,
        "wait at the gate",
        "",
    );
}
