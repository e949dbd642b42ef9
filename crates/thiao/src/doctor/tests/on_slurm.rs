use super::*;
use thiao_slurm::conf::{JobLine, MemoryForms, NodeLine, Timeouts};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::{Config, Ping, Version, keys};

const GOOD: &str = "ResumeProgram = /h/Resume\nSuspendProgram = /h/Suspend\nResumeFailProgram = /h/ResumeFail\n\
    PrologSlurmctld = /h/PrologSlurmctld\nEpilogSlurmctld = /h/EpilogSlurmctld\nReturnToService = 2\n\
    ResumeRate = 0 nodes/min\nSuspendRate = 0 nodes/min\nPrivateData = cloud\n\
    SlurmctldParameters = enable_configless,power_save_interval=1\nSchedulerType = sched/backfill\n\
    ProctrackType = proctrack/linuxproc\nTaskPlugin = task/none\n";

const OWN: keys::Nodes = keys::Nodes {
    small_guests: true,
    own_guests: true,
    shared: Vec::new(),
    in_topology: false,
};

fn facts(config: &str) -> slurm::Facts {
    slurm::Facts {
        version: Ok(Version::new(22, 5, 8)),
        programs: Some(Version::new(22, 5, 8)),
        ping: Ok(Ping {
            controllers: vec![("head".to_owned(), true)],
        }),
        config: Ok(Config::parse(config)),
        nodes: OWN,
        defaults: Vec::new(),
        job_mode: None,
        partitions: Ok(BTreeMap::new()),
        cluster: "lab".to_owned(),
        silence_s: 300,
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
        tries_s: 300,
        joined: BTreeMap::new(),
        memory: MemoryForms::default(),
        cgroups: thiao_slurm::fragment::Cgroups::None,
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
        let remedy = if words.starts_with("guests") {
            "write ProctrackType=proctrack/linuxproc"
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
    facts.nodes.small_guests = false;
    facts.nodes.own_guests = false;
    let found = slurm::judge(&facts, Some(&wanted()));
    assert!(found.iter().all(|f| f.verdict == Verdict::Ok), "{found:#?}");
}

#[test]
fn programs_that_guests_see_are_good() {
    let mut facts = facts(&format!("{GOOD}Prolog = /opt/site/prolog.sh\n"));
    let said = |facts: &slurm::Facts| slurm::judge(facts, Some(&wanted())).split_off(2);
    holds(
        &said(&facts),
        "slurm.conf",
        Verdict::Bad,
        "Prolog is /opt/site/prolog.sh",
        "[[qemu.share]]",
    );
    facts.nodes.shared = vec!["/opt/site".into()];
    holds(&said(&facts), "slurm.conf", Verdict::Ok, "has what", "");
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
    let found = with(Err(Unseen::new("scontrol is not there")), Err(Unseen::new("")));
    holds(&found, "Slurm", Verdict::Bad, "scontrol is not there", "bin_dir");
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
    holds(
        &slurm::sizes(&wanted, &details(2, 200, "batch")),
        "node fg[0-1]",
        Verdict::Warn,
        "not in partition vm: somebody took it out (scontrol update), or",
        "thiao setup",
    );
    // What Slurm does not know was said already.
    assert_eq!(slurm::sizes(&wanted, &BTreeMap::new()), []);
}

#[test]
fn slurms_user_is_read() {
    let uid = |text: &str| Site::of(&Config::parse(text)).user.and_then(|(_, uid)| uid);
    assert_eq!(uid("SlurmUser = slurm(64030)\n"), Some(64030));
    assert_eq!(uid("SlurmUser = slurm\n"), None);
    assert_eq!(uid(""), None);
}

#[test]
fn the_hooks_folder_is_where_slurmctld_calls_them() {
    let usual = Path::new("/etc/thiao/hooks");
    assert_eq!(observation::hooks_folder(&facts(GOOD), usual), Path::new("/h"));
    let other = facts(&GOOD.replace("/h/Resume\n", "/usr/bin/other\n"));
    assert_eq!(observation::hooks_folder(&other, usual), usual);
}

/// The script that setup would write.
const SCRIPT: &str = "-- Written by `thiao setup`: x";
/// What slurm.conf has for job mode.
const MORE: &str = "GresTypes = gpu,vm\nLicenses = a:2,vm_room:1\nSlurmdParameters = config_overrides\nJobSubmitPlugins = lua\n";

/// What is said of job mode with this in slurm.conf, beside what is good.
fn on_job_mode(config: &str, gate: bool, script: Result<&str, &str>) -> Vec<Finding> {
    let mut facts = facts(&format!("{GOOD}{config}"));
    facts.job_mode = Some(slurm::JobMode {
        gate: Ok(gate),
        script: script.map(str::to_owned).map_err(Unseen::new),
        wanted: SCRIPT.to_owned(),
    });
    let mut wanted = wanted();
    wanted.nodes[0].job = Some(JobLine {
        memory_per_cpu_mb: 100,
        gpus: 0,
    });
    let mut found = slurm::judge(&facts, Some(&wanted)).split_off(2);
    found.retain(|finding| finding.what == "job mode");
    found
}

#[test]
fn job_mode_needs_more() {
    holds(
        &on_job_mode(MORE, true, Ok(SCRIPT)),
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
        let config = MORE.replace(from, "= other");
        assert_ne!(config, MORE);
        holds(
            &on_job_mode(&config, true, Ok(SCRIPT)),
            "job mode",
            Verdict::Bad,
            words,
            "thiao setup",
        );
    }
    holds(
        &on_job_mode(MORE, false, Ok(SCRIPT)),
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
            &on_job_mode(MORE, true, script),
            "job mode",
            verdict,
            words,
            "thiao setup",
        );
    }
    let chained = Ok("return dofile(\"/etc/slurm/thiao_job_submit.lua\")");
    holds(
        &on_job_mode(MORE, true, chained),
        "job mode",
        Verdict::Ok,
        "wait at the gate",
        "",
    );
}

/// What is said of these partitions, beside what is well.
fn about_partitions(wanted: &Fragment, config: &str, listing: &str) -> Vec<Finding> {
    let all = thiao_slurm::partitions::parse(listing).unwrap();
    partitions::judge(wanted, &Config::parse(config), &all)
}

const RIGHT: &str = "PartitionName=vm Nodes=fg[0-1] State=UP MinNodes=0 MaxNodes=UNLIMITED OverSubscribe=EXCLUSIVE \
    DefMemPerNode=200 MaxMemPerCPU=200 ResumeTimeout=300 SuspendTimeout=10 SuspendTime=60 MaxCPUsPerNode=UNLIMITED";

#[test]
fn a_partition_that_is_not_as_written_is_told() {
    let said = |from: &str, to: &str| {
        let text = RIGHT.replace(from, to);
        assert!(from == to || text != RIGHT);
        about_partitions(&wanted(), "", &text)
    };
    assert_eq!(said("", ""), []);
    // As 26.05 says it.
    assert_eq!(
        said("OverSubscribe=EXCLUSIVE", "OverSubscribe=NO Exclusive=NODE"),
        []
    );
    for (from, to, words) in [
        (
            "MaxNodes=UNLIMITED",
            "MaxNodes=1",
            "MaxNodes is 1: jobs on more nodes are refused",
        ),
        (
            "DefMemPerNode=200",
            "DefMemPerCPU=4000",
            "DefMemPerCPU is 4000, and nodes have 200 MiB",
        ),
        ("MaxMemPerCPU=200", "MaxMemPerCPU=100", "MaxMemPerCPU is 100"),
        ("=EXCLUSIVE", "=YES:4", "jobs share a VM"),
        ("State=UP", "State=DOWN", "it starts no jobs"),
        (
            "ResumeTimeout=300",
            "ResumeTimeout=2",
            "ResumeTimeout is 2 s, and a VM may take 300 s",
        ),
    ] {
        holds(
            &said(from, to),
            "partition vm",
            Verdict::Bad,
            words,
            "thiao setup && systemctl",
        );
    }
    for (from, to, words) in [
        ("SuspendTime=60", "SuspendTime=INFINITE", "never be ended"),
        (
            "SuspendTimeout=10",
            "SuspendTimeout=1",
            "may want nodes back 1 s after",
        ),
    ] {
        holds(
            &said(from, to),
            "partition vm",
            Verdict::Warn,
            words,
            "thiao setup",
        );
    }
    let excluded = about_partitions(
        &wanted(),
        "SuspendExcParts = a,vm\nSuspendExcNodes = fg[1-9]\n",
        RIGHT,
    );
    let texts: Vec<&str> = excluded.iter().map(|finding| finding.text.as_str()).collect();
    assert!(
        texts.len() == 2 && texts[0].contains("SuspendExcParts") && texts[1].contains("SuspendExcNodes"),
        "{texts:?}"
    );
}

#[test]
fn a_partition_of_the_sites_that_has_our_nodes_is_told() {
    let line = |shared: &str, nodes: &str| format!("{RIGHT}\nPartitionName=all Nodes={nodes} {shared}\n");
    let mut wanted = wanted();
    let text = line("OverSubscribe=YES:4", "cn[01-02],fg[0-1]");
    holds(
        &about_partitions(&wanted, "", &text),
        "partition all",
        Verdict::Warn,
        "has the nodes fg[0-1], whose VMs its jobs share",
        "write Nodes=cn[01-02] there",
    );
    assert_eq!(
        about_partitions(&wanted, "", &line("OverSubscribe=EXCLUSIVE", "cn1,fg0")),
        []
    );
    assert_eq!(
        about_partitions(&wanted, "", &line("OverSubscribe=YES:4", "cn1")),
        []
    );
    wanted.nodes[0].job = Some(JobLine {
        memory_per_cpu_mb: 100,
        gpus: 0,
    });
    let text = line("OverSubscribe=EXCLUSIVE", "fg1").replacen(
        "OverSubscribe=EXCLUSIVE DefMemPerNode=200",
        "OverSubscribe=NO DefMemPerCPU=100",
        1,
    );
    holds(
        &about_partitions(&wanted, "", &text),
        "partition all",
        Verdict::Bad,
        "bypass the gate",
        "take them out of it",
    );
    let overruled = text
        .replace("DefMemPerCPU=100", "DefMemPerNode=100")
        .replace("Nodes=fg1 ", "Nodes=cn1 ");
    holds(
        &about_partitions(&wanted, "", &overruled),
        "partition vm",
        Verdict::Warn,
        "get DefMemPerNode=100, not 100 MiB for each CPU",
        "PartitionName=DEFAULT",
    );
}

#[test]
fn what_would_lose_jobs_is_told_before() {
    let said = |more: &str| said(&format!("{GOOD}{more}"));
    holds(
        &said("SlurmdTimeout = 120 sec\n"),
        "slurm.conf",
        Verdict::Warn,
        "SlurmdTimeout is 120 s",
        "SlurmdTimeout=300",
    );
    holds(
        &said("ClusterName = other\n"),
        "slurm.conf",
        Verdict::Bad,
        "ClusterName is other, and the settings say lab",
        "cluster = \"other\"",
    );
    holds(
        &said("Epilog[0] = /x\n"),
        "slurm.conf",
        Verdict::Bad,
        "Epilog is /x: slurmd runs it after each job",
        "[[qemu.share]]",
    );
    for fine in [
        "SlurmdTimeout = 0 sec\n",
        "SlurmdTimeout = 300 sec\n",
        "ClusterName = lab\n",
    ] {
        holds(&said(fine), "slurm.conf", Verdict::Ok, "has what", "");
    }
}
