//! The texts that we write for Slurm. That slurmctld takes them is shown in `real`.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should fail")]

use std::path::Path;
use thiao_slurm::conf::{JobLine, MemoryForms, NodeLine, Timeouts};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::site_keys::SiteKeys;
use thiao_slurm::{Config, Version};

fn fragment(version: Version) -> Fragment {
    let line = |nodes: &str, partition: &str| NodeLine {
        nodes: nodes.into(),
        cpus: 4,
        memory_mb: 3000,
        features: vec!["vm".into(), "small".into()],
        partition: partition.into(),
        job: None,
    };
    Fragment {
        version,
        hooks: "/usr/lib/thiao/hooks".into(),
        nodes: vec![line("fg[0-7]", "vm"), line("gg[0-3]", "big"), line("hh1", "vm")],
        default_partition: Some("big".into()),
        tries_s: 300,
        timeouts: Timeouts {
            resume_s: 120,
            suspend_s: 7,
            idle_s: 30,
        },
        joined: std::collections::BTreeMap::new(),
        memory: MemoryForms::default(),
        cgroups: thiao_slurm::fragment::Cgroups::None,
    }
}

/// What a site has that ours are new to.
fn own(present: &Config) -> SiteKeys {
    let (hooks, none) = (
        Path::new("/usr/lib/thiao/hooks"),
        std::collections::BTreeMap::new(),
    );
    SiteKeys::of(present, hooks, Version::new(22, 5, 8), &none, None)
}

/// The values of a key in the text.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|l| l.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

#[test]
fn lists_are_merged_with_what_is_in_effect() {
    let present = Config::parse(
        "SlurmctldParameters = max_rpc_cnt=100,power_save_interval=30\nPrivateData = jobs,cloud\n\
         SchedulerParameters = bf_interval=60,bf_continue\n",
    );
    let text = fragment(Version::new(22, 5, 8)).render(&own(&present));
    assert_eq!(
        values(&text, "SlurmctldParameters"),
        ["max_rpc_cnt=100,power_save_interval=1,enable_configless,power_save_min_interval=0,cloud_reg_addrs"]
    );
    assert_eq!(values(&text, "PrivateData"), ["jobs,cloud"]);
    assert_eq!(
        values(&text, "SchedulerParameters").len(),
        0,
        "only recommended, in a comment"
    );
    assert!(text.contains("# SchedulerParameters=bf_interval=1,bf_continue,"));
}

#[test]
fn partitions_gather_their_nodes_and_carry_the_times() {
    let text = fragment(Version::new(23, 11, 4)).render(&SiteKeys::default());
    let partitions = values(&text, "PartitionName");
    assert_eq!(partitions.len(), 2);
    assert!(
        partitions[0].starts_with("vm Nodes=fg[0-7],hh1 Default=NO State=UP"),
        "{partitions:?}"
    );
    assert!(
        partitions[1].starts_with("big Nodes=gg[0-3] Default=YES"),
        "{partitions:?}"
    );
    for line in partitions {
        assert!(line.ends_with("ResumeTimeout=120 SuspendTimeout=7 SuspendTime=30"));
    }
    assert!(
        values(&text, "SuspendTime").is_empty(),
        "not for the whole cluster"
    );
    assert_eq!(
        values(&text, "NodeName")[0],
        "fg[0-7] CPUs=4 Boards=1 Sockets=4 CoresPerSocket=1 ThreadsPerCore=1 CoreSpecCount=0 CPUSpecList=\"\" MemSpecLimit=0 \
         RealMemory=3000 TmpDisk=0 Weight=1 Gres=\"\" Feature=vm,small State=CLOUD"
    );
    assert!(!text.contains("cloud_reg_addrs"), "the default from 23.11 on");
    for (key, program) in [
        ("ResumeProgram", "Resume"),
        ("PrologSlurmctld", "PrologSlurmctld"),
    ] {
        assert_eq!(values(&text, key), [format!("/usr/lib/thiao/hooks/{program}")]);
    }
}

/// What does not go together, as people read it.
fn sentences(fragment: &Fragment, present: &Config) -> Vec<String> {
    let conflicts = fragment.conflicts(present);
    conflicts.iter().map(ToString::to_string).collect()
}

#[test]
fn conflicts_and_next_steps_are_told() {
    let mut fragment = fragment(Version::new(22, 5, 8));
    assert!(fragment.conflicts(&Config::default()).is_empty());
    let present = Config::parse(
        "PrologSlurmctld = /etc/slurm/prolog\nResumeProgram = /usr/lib/thiao/hooks/Resume\nSuspendTime = 300 sec\n\
         SlurmctldParameters = idle_on_node_suspend\nSchedulerType = sched/builtin\n",
    );
    let told = sentences(&fragment, &present);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].contains("/etc/slurm/prolog"), "{told:?}");
    fragment
        .joined
        .insert("PrologSlurmctld", "/etc/slurm/prolog".into());
    assert!(
        !sentences(&fragment, &present)
            .join("\n")
            .contains("/etc/slurm/prolog")
    );
    assert_eq!(
        values(&fragment.render(&SiteKeys::default()), "PrologSlurmctld"),
        ["/usr/lib/thiao/hooks/with-site/PrologSlurmctld"]
    );
    let steps = fragment.next_steps(
        "",
        Path::new("/etc/slurm/thiao.conf"),
        Path::new("/etc/slurm/slurm.conf"),
    );
    assert!(steps[0].contains("`Include thiao.conf`"), "{}", steps[0]);
    let elsewhere = fragment.next_steps(
        "",
        Path::new("/opt/thiao.conf"),
        Path::new("/etc/slurm/slurm.conf"),
    );
    assert!(
        elsewhere[0].contains("Append what is in /opt/thiao.conf"),
        "{}",
        elsewhere[0]
    );
    assert!(steps.iter().any(|s| s.contains("fg[0-7],gg[0-3],hh1")));
    let old = Fragment {
        version: Version::new(20, 11, 7),
        ..fragment
    };
    assert!(sentences(&old, &Config::default())[0].contains("20.11.7"));
}

#[test]
fn memory_is_said_as_the_site_says_it() {
    let mut fragment = fragment(Version::new(22, 5, 8));
    fragment.nodes[2].memory_mb = 5000;
    fragment.nodes[2].cpus = 10;
    let vm =
        |fragment: &Fragment| values(&fragment.render(&SiteKeys::default()), "PartitionName")[0].to_owned();
    // A job that says nothing fits on each of its nodes; one that does may have all of the largest.
    assert!(
        vm(&fragment).contains(" DefMemPerNode=3000 MaxMemPerCPU=5000 "),
        "{}",
        vm(&fragment)
    );
    fragment.memory = MemoryForms {
        default_per_cpu: true,
        most_per_node: true,
    };
    assert!(
        vm(&fragment).contains(" DefMemPerCPU=500 MaxMemPerNode=5000 "),
        "{}",
        vm(&fragment)
    );
}

#[test]
fn job_mode_has_lines_of_its_own() {
    let mut fragment = fragment(Version::new(22, 5, 8));
    assert!(!fragment.render(&SiteKeys::default()).contains("Licenses"));
    fragment.nodes[1].job = Some(JobLine {
        memory_per_cpu_mb: 500,
        gpus: 2,
    });
    let present = Config::parse(
        "Licenses = a:2,vm_room:3\nGresTypes = gpu\nSlurmdParameters = (null)\nJobSubmitPlugins = lua,throttle\n\
         SelectType = select/linear\nSchedulerParameters = bf_licenses,bf_interval=120\n",
    );
    let text = fragment.render(&own(&present));
    for (key, value) in [
        ("GresTypes", "gpu,vm"),
        ("Licenses", "a:2,vm_room:1"),
        ("SlurmdParameters", "config_overrides"),
        ("JobSubmitPlugins", "lua,throttle"),
    ] {
        assert_eq!(values(&text, key), [value], "{key}");
    }
    assert_eq!(
        values(&text, "NodeName")[1],
        "gg[0-3] CPUs=4 Boards=1 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 CoreSpecCount=0 CPUSpecList=\"\" MemSpecLimit=0 \
         RealMemory=3000 TmpDisk=0 Weight=1 Gres=vm:1,gpu:2 Feature=vm,small State=CLOUD"
    );
    let partitions = values(&text, "PartitionName");
    assert!(
        partitions[0].contains(" OverSubscribe=EXCLUSIVE "),
        "{partitions:?}"
    );
    assert!(
        partitions[1].contains(" OverSubscribe=NO ")
            && partitions[1].contains(" DefMemPerCPU=500 MaxMemPerCPU=3000 "),
        "{partitions:?}"
    );
    let told = sentences(&fragment, &present);
    for word in [
        "bf_licenses",
        "bf_interval=1",
        "select/linear",
        "config_overrides",
    ] {
        assert_eq!(
            told.iter().filter(|text| text.contains(word)).count(),
            1,
            "{told:?}"
        );
    }
    let memory = sentences(
        &fragment,
        &Config::parse(
            "SelectType = select/cons_tres\nSelectTypeParameters = CR_CORE\nSlurmdParameters = config_overrides\n",
        ),
    );
    assert!(
        memory.len() == 1 && memory[0].contains("manage memory"),
        "{memory:?}"
    );
    let steps = fragment
        .next_steps(
            "",
            Path::new("/opt/thiao.conf"),
            Path::new("/etc/slurm/slurm.conf"),
        )
        .join("\n");
    assert!(
        steps.contains("Move /opt/job_submit.lua beside /etc/slurm/slurm.conf"),
        "{steps}"
    );
    assert!(
        steps.contains("NodeName=gg[0-3] Name=gpu File=/dev/thiao-gpu[0-1]"),
        "{steps}"
    );
}
#[test]
fn job_mode_without_accounting_is_named_where_slurm_then_starts_nothing() {
    let told = |version: Version, accounting: &str| {
        let mut fragment = fragment(version);
        fragment.nodes[1].job = Some(JobLine {
            memory_per_cpu_mb: 500,
            gpus: 0,
        });
        let present = Config::parse(&format!("AccountingStorageType = {accounting}\n"));
        let told = sentences(&fragment, &present);
        told.iter().any(|text| text.starts_with("AccountingStorageType"))
    };
    let (old, new) = (Version::new(24, 5, 8), Version::new(24, 11, 5));
    assert!(told(old, "(null)") && told(old, "accounting_storage/none"));
    assert!(!told(old, "accounting_storage/slurmdbd"));
    assert!(!told(new, "(null)") && !told(Version::new(22, 5, 8), "accounting_storage/none"));
}
