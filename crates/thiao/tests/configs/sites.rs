//! The sites.

use super::*;

macro_rules! sites {
    ($($name:ident: { $($key:ident: $value:expr),* $(,)? })*) => {
        $(#[test]
        fn $name() {
            let Some(dir) = inside(concat!("sites::", stringify!($name))) else { return };
            lives(dir, &Site { $($key: $value,)* ..Site::PLAIN });
        })*
    };
}

sites! {
    plain: {}
    plain_with_job_mode: { job_mode: true }
    every_node_by_default: {
        conf: "NodeName=DEFAULT Boards=1 Sockets=2 CoresPerSocket=16 ThreadsPerCore=2 RealMemory=190000 Weight=10 TmpDisk=50000 \
               CoreSpecCount=2 MemSpecLimit=2048 Gres=disk:1 Feature=skylake State=UNKNOWN\nGresTypes=disk\n\
               NodeName=cn[01-04] NodeAddr=10.9.0.[201-204]\n\
               PartitionName=DEFAULT MaxTime=1-00:00:00 DefaultTime=01:00:00 MaxNodes=1 State=UP DefMemPerCPU=2000 AllowGroups=ALL\n\
               PartitionName=batch Nodes=cn[01-04]\n",
        args: &["-N2", "--time=2-0"],
    }
    partitions_with_newer_defaults: {
        since: Version::new(23, 2, 0),
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=DEFAULT MaxCPUsPerSocket=1 PowerDownOnIdle=YES\nPartitionName=batch Nodes=cn[01-02]\n",
    }
    some_cpus_kept_by_default: {
        conf: "NodeName=DEFAULT CPUSpecList=0 Sockets=1 CoresPerSocket=8 RealMemory=16000 State=UNKNOWN\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8\nPartitionName=batch Nodes=cn[01-02]\n",
    }
    every_node_by_default_with_job_mode: {
        conf: "NodeName=DEFAULT CPUs=64 Sockets=2 CoresPerSocket=16 ThreadsPerCore=2 RealMemory=190000 State=UNKNOWN\n\
               NodeName=cn[01-04] NodeAddr=10.9.0.[201-204]\n\
               PartitionName=DEFAULT MaxNodes=1 DefMemPerCPU=2000 MaxMemPerCPU=3000 OverSubscribe=FORCE:2\n\
               PartitionName=batch Nodes=cn[01-04]\n",
        job_mode: true,
    }
    defaults_behind_ours: {
        after: "NodeName=DEFAULT Sockets=2 CoresPerSocket=16 ThreadsPerCore=2 RealMemory=190000 Weight=10 State=UNKNOWN\n\
                NodeName=big[1-2] NodeAddr=10.9.0.[211-212]\n\
                PartitionName=DEFAULT MaxNodes=1 DefMemPerNode=90000 State=DOWN\nPartitionName=big Nodes=big[1-2]\n",
    }
    partitions_that_hide_and_forbid: {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=DEFAULT State=DOWN Hidden=YES LLN=YES RootOnly=YES ReqResv=YES MinNodes=1 MaxNodes=1 MaxCPUsPerNode=1 \
               MaxTime=60 DefaultTime=5 OverSubscribe=FORCE:4 ExclusiveUser=YES ResumeTimeout=2 SuspendTimeout=1\n\
               PartitionName=batch Nodes=cn[01-02]\n",
        args: &["-N2"],
    }
    partitions_with_priorities: {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\nPreemptType=preempt/partition_prio\n\
               PreemptMode=REQUEUE\nPartitionName=DEFAULT PriorityTier=10 PriorityJobFactor=5 GraceTime=30 AllowGroups=root\n\
               PartitionName=long Nodes=cn[01-02] Default=YES\nPartitionName=short Nodes=cn[01-02] PriorityTier=50 PreemptMode=OFF\n",
    }
    memory_per_cpu: {
        conf: "DefMemPerCPU=4000\nMaxMemPerCPU=8000\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=64000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES DefaultTime=01:00:00\n",
    }
    memory_per_cpu_with_job_mode: {
        conf: "DefMemPerCPU=4000\nMaxMemPerCPU=50\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=64000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
        job_mode: true,
    }
    memory_per_node: {
        conf: "DefMemPerNode=60000\nMaxMemPerNode=120000\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=128000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
    }
    memory_per_node_overrules_job_mode: {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=128000\n\
               PartitionName=DEFAULT DefMemPerNode=50 MaxMemPerNode=64000\nPartitionName=batch Nodes=cn[01-02] Default=YES\n",
        job_mode: true,
        said: &["jobs that name no memory get DefMemPerNode=50, not 100 MiB for each CPU"],
    }
    memory_is_not_managed: {
        conf: "SelectTypeParameters=CR_Core\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
    }
    whole_nodes: {
        conf: "SelectType=select/linear\nSelectTypeParameters=CR_Memory\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=9000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
    }
    a_partition_of_all: {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES DefMemPerCPU=10\n",
        said: &["partition all: has the nodes n[1-2], whose VMs its jobs share"],
    }
    a_partition_of_all_with_job_mode: {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES DefMemPerCPU=100\n",
        job_mode: true,
        said: &["partition all: has the nodes n[5-6], which are in job mode"],
    }
    programs_on_nodes: {
        conf: "Prolog=/nowhere/prolog.d/*\nEpilog=/nowhere/epilog.sh\nTaskProlog=/nowhere/task_prolog.sh\nTaskEpilog=/nowhere/te\n\
               SrunProlog=/nowhere/sp\nSrunEpilog=/nowhere/se\nPrologEpilogTimeout=600\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\nPartitionName=batch Nodes=cn[01-02] Default=YES\n",
        said: &["Prolog is", "Epilog is", "TaskProlog is", "TaskEpilog is", "SrunProlog is", "SrunEpilog is"],
        runs: false,
    }
    small_cluster_of_a_distribution: {
        conf: "PropagateResourceLimitsExcept=MEMLOCK\nEpilog=/bin/true\nReturnToService=1\nJobCompType=jobcomp/none\n\
               NodeName=c[1-4] NodeAddr=10.9.0.[201-204] Sockets=2 CoresPerSocket=8 ThreadsPerCore=2 State=UNKNOWN\n\
               PartitionName=normal Nodes=c[1-4] Default=YES MaxTime=24:00:00 State=UP OverSubscribe=EXCLUSIVE\n",
        said: &["Epilog is /bin/true"],
    }
    health_is_checked: {
        conf: "HealthCheckProgram=/usr/sbin/nhc\nHealthCheckInterval=300\nHealthCheckNodeState=IDLE,CYCLE\nSlurmdTimeout=120\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\nPartitionName=batch Nodes=cn[01-02] Default=YES\n",
        said: &["HealthCheckProgram is /usr/sbin/nhc", "SlurmdTimeout is 120 s"],
    }
    control_groups: {
        conf: "ProctrackType=proctrack/cgroup\nTaskPlugin=task/affinity,task/cgroup\nJobAcctGatherType=jobacct_gather/cgroup\n\
               PrologFlags=Contain\nMpiDefault=pmix\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\nPartitionName=batch Nodes=cn[01-02] Default=YES\n",
        said: &["ProctrackType is", "TaskPlugin is", "JobAcctGatherType is", "MpiDefault is pmix"],
        runs: false,
    }
    jobs_that_are_suspended: {
        conf: "PreemptType=preempt/partition_prio\nPreemptMode=SUSPEND,GANG\nSchedulerTimeSlice=60\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=low Nodes=cn[01-02] Default=YES OverSubscribe=FORCE:1\n",
        said: &["PreemptMode is"],
    }
    switches: {
        conf: "TopologyPlugin=topology/tree\nNodeName=cn[01-04] NodeAddr=10.9.0.[201-204] CPUs=8 RealMemory=16000\n\
               PartitionName=batch Nodes=cn[01-04] Default=YES\n",
        files: &[("topology.conf", "SwitchName=s1 Nodes=cn[01-02]\nSwitchName=s2 Nodes=cn[03-04]\nSwitchName=top Switches=s[1-2]\n")],
        said: &["TopologyPlugin is topology/tree"],
        runs: false,
    }
    switches_with_one_for_ours: {
        conf: "TopologyPlugin=topology/tree\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
        files: &[("topology.conf", "SwitchName=s1 Nodes=cn[01-02]\nSwitchName=vms Nodes=n[1-2]\n")],
    }
    devices_and_licences: {
        conf: "GresTypes=gpu\nLicenses=matlab:10,ansys:4\nJobSubmitPlugins=require_timelimit\nSlurmctldParameters=max_dbd_msg_action=discard\n\
               PrivateData=jobs,usage\nNodeName=g[1-2] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000 Gres=gpu:4 Feature=gpu\n\
               NodeSet=gpus Feature=gpu\nPartitionName=gpu Nodes=gpus Default=YES DefMemPerGPU=1000 DefCpuPerGPU=2\n",
        job_mode: true,
        args: &["--time=5"],
    }
    a_name_in_capitals: { cluster: "MyLab", job_mode: true }
    power_saving_of_the_sites: {
        conf: "ResumeProgram=@DIR@/site.sh\nSuspendProgram=@DIR@/site.sh\nResumeTimeout=2\nSuspendTime=600\nSuspendTimeout=2\n\
               SuspendExcParts=batch\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               NodeName=aws[1-2] State=CLOUD CPUs=2 RealMemory=2000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\nPartitionName=aws Nodes=aws[1-2]\n",
        files: &[("site.sh", "#!/bin/sh\necho \"$@\" >> @DIR@/site.log\n")],
    }
    a_busy_scheduler: {
        conf: "SchedulerParameters=bf_continue,bf_window=10080,bf_resolution=300,bf_max_job_test=1000,defer,max_rpc_cnt=150\n\
               PriorityType=priority/multifactor\nPriorityWeightAge=1000\nPriorityWeightJobSize=500\nPriorityFavorSmall=NO\n\
               KillOnBadExit=1\nEnforcePartLimits=ALL\nTCPTimeout=10\nMessageTimeout=60\nTreeWidth=16\nReturnToService=0\n\
               NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000 Weight=5\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES MaxTime=7-0\nPartitionName=debug Nodes=cn01 MaxTime=30 PriorityTier=9\n",
    }
}

#[test]
fn a_sites_own_programs_go_on() {
    let Some(dir) = inside("sites::a_sites_own_programs_go_on") else {
        return;
    };
    let site = Site {
        conf: "ResumeProgram=@DIR@/site.sh\nSuspendProgram=@DIR@/site.sh\nPrologSlurmctld=@DIR@/prolog.sh\nEpilogSlurmctld=@DIR@/epilog.sh\n\
               NodeName=aws[1-2] State=CLOUD CPUs=2 RealMemory=2000\n\
               PartitionName=aws Nodes=aws[1-2] Default=YES SuspendTime=600\n",
        files: &[
            ("site.sh", "#!/bin/sh\necho \"$@\" >> @DIR@/site.log\n"),
            (
                "prolog.sh",
                "#!/bin/sh\necho prolog $SLURM_JOB_ID >> @DIR@/site.log\n",
            ),
            (
                "epilog.sh",
                "#!/bin/sh\necho epilog $SLURM_JOB_ID >> @DIR@/site.log\n",
            ),
        ],
        ..Site::PLAIN
    };
    let log = dir.join("site.log");
    let mut lived = Lived::new(dir, &site);
    lived.setup();
    lived.include("");
    assert_eq!(lived.doctor(), [""; 0]);
    lived.job(&site);
    lived.ctld.sbatch(&["-p", "aws", "-w", "aws2", "--wrap", "true"]);
    lived.ctld.until("the site's programs were called", |_| {
        let told = text(&log);
        ["prolog 1", "epilog 1", "prolog 2", "aws2"]
            .iter()
            .all(|line| told.lines().any(|l| l == *line))
    });
    // Each had its own nodes alone.
    assert!(
        !text(&log).lines().any(|line| line.contains("n1")),
        "{}",
        text(&log)
    );
    let calls = lived.ctld.hooks();
    assert!(
        calls.contains(&"Resume n1".to_owned()) && !calls.join(" ").contains("aws"),
        "{calls:?}"
    );
}

#[test]
fn a_sites_own_job_submit_goes_on() {
    let Some(dir) = inside("sites::a_sites_own_job_submit_goes_on") else {
        return;
    };
    let site = Site {
        conf: concat!(
            "JobSubmitPlugins=lua\nNodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n",
            "PartitionName=batch Nodes=cn[01-02] Default=YES\n"
        ),
        files: &[("job_submit.lua", include_str!("job_submit.lua"))],
        job_mode: true,
        args: &["--time=5"],
        ..Site::PLAIN
    };
    let script = dir.join("job_submit.site.lua");
    let mut lived = Lived::new(dir, &site);
    lived.setup();
    lived.include("");
    assert_eq!(lived.doctor(), [""; 0]);
    for partition in ["vm", "batch"] {
        let refused = lived
            .ctld
            .submit(None, &["-p", partition, "--wrap", "true"])
            .unwrap_err();
        assert!(refused.contains("site: please give a --time"), "{refused}");
    }
    lived.job(&site);
    let show = |job| {
        lived
            .ctld
            .run(false, &["scontrol", "-o", "show", "job", &format!("{job}")])
            .unwrap()
    };
    let job = lived.ctld.sbatch(&["-p", "vm", "--time=5", "--wrap", "true"]);
    assert!(
        show(job).contains("Comment=site_was_here") && show(job).contains("vm_room"),
        "{}",
        show(job)
    );

    // It is read again when it changes, and one that fails lets no job pass the gate.
    for (rule, comment) in [
        ("job_desc.comment = 'newer'\nreturn slurm.SUCCESS", "newer"),
        ("job_desc.comment = 'fails'\nerror('oh')", "fails"),
        ("job_desc.comment = 'silent'", "silent"),
    ] {
        fs::write(
            &script,
            format!("function slurm_job_submit(job_desc)\n{rule}\nend\nreturn slurm.SUCCESS\n"),
        )
        .unwrap();
        let job = lived.ctld.sbatch(&["-p", "vm", "--wrap", "true"]);
        let told = show(job);
        assert!(
            told.contains(&format!("Comment={comment}")) && told.contains("vm_room"),
            "{told}"
        );
    }
    // One that is no Lua changes nothing.
    fs::write(&script, "this is no Lua\n").unwrap();
    let told = show(lived.ctld.sbatch(&["-p", "vm", "--wrap", "true"]));
    assert!(
        told.contains("Comment=silent") && told.contains("vm_room"),
        "{told}"
    );
}
