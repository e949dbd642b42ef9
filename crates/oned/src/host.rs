//! Hosts.

use crate::rights::Object;
use crate::settings::HostSetup;
use crate::xml;
use std::collections::BTreeSet;

/// A host as oned keeps it.
#[derive(Debug, Clone)]
pub struct Host {
    pub id: u32,
    pub setup: HostSetup,
    /// What it is doing.
    pub state: HostState,
    /// Whether it was removed: ids are not given again.
    pub deleted: bool,
    /// VMs that count on it.
    pub vms: BTreeSet<u32>,
    /// What they are promised: percent of a core.
    pub cpu_percent: u64,
    /// What they are promised: MiB.
    pub memory_mb: u64,
}

/// What a host is doing, in the word of its STATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// It was not monitored yet.
    Init,
    Monitored,
    /// Monitoring fails: the scheduler passes it by.
    Error,
    /// The scheduler passes it by; deploys are still taken.
    Disabled,
    /// It takes nothing, not by a deploy either.
    Offline,
}

impl HostState {
    /// STATE as a number.
    pub fn number(self) -> i32 {
        match self {
            HostState::Init => 0,
            HostState::Monitored => 2,
            HostState::Error => 3,
            HostState::Disabled => 4,
            HostState::Offline => 8,
        }
    }
}

impl Host {
    /// A host without VMs.
    pub fn new(id: u32, setup: HostSetup) -> Self {
        Host {
            id,
            setup,
            state: HostState::Monitored,
            deleted: false,
            vms: BTreeSet::new(),
            cpu_percent: 0,
            memory_mb: 0,
        }
    }

    /// What rules are about.
    pub fn object(&self) -> Object {
        Object {
            kind: "HOST",
            id: Some(self.id),
            uid: 0,
            gid: 0,
            public: false,
        }
    }

    /// Why a VM does not fit, in oned's words.
    pub fn lacks(&self, cpu_percent: u32, memory_mb: u64) -> Option<String> {
        let free_cpu = i128::from(self.setup.cpu_percent) - i128::from(self.cpu_percent);
        let free_memory = (i128::from(self.setup.memory_mb) - i128::from(self.memory_mb)) * 1024;
        let memory = i128::from(memory_mb) * 1024;
        if free_cpu < i128::from(cpu_percent) {
            Some(format!("Not enough CPU: {cpu_percent}/{free_cpu}"))
        } else if free_memory < memory {
            Some(format!("Not enough memory: {memory}/{free_memory}"))
        } else {
            None
        }
    }

    /// Its element; monitored or not.
    pub fn xml(&self, out: &mut String, monitoring: bool, now: u64) {
        // `Host::offline` forgets what it has (7.4).
        let (cpu, memory_mb) = match self.state {
            HostState::Offline => (0, 0),
            HostState::Init | HostState::Monitored | HostState::Error | HostState::Disabled => {
                (self.setup.cpu_percent, self.setup.memory_mb)
            }
        };
        let total_memory = memory_mb * 1024;
        out.push_str("<HOST>");
        xml::element(out, "ID", self.id);
        xml::element(out, "NAME", &self.setup.name);
        xml::element(out, "STATE", self.state.number());
        xml::element(out, "PREV_STATE", self.state.number());
        out.push_str("<IM_MAD><![CDATA[dummy]]></IM_MAD><VM_MAD><![CDATA[dummy]]></VM_MAD>");
        xml::element(out, "CLUSTER_ID", self.setup.cluster.id);
        xml::element(out, "CLUSTER", &self.setup.cluster.name);
        out.push_str("<HOST_SHARE>");
        xml::element(out, "MEM_USAGE", self.memory_mb * 1024);
        xml::element(out, "CPU_USAGE", self.cpu_percent);
        xml::element(out, "TOTAL_MEM", total_memory);
        xml::element(out, "TOTAL_CPU", cpu);
        xml::element(out, "MAX_MEM", total_memory);
        xml::element(out, "MAX_CPU", cpu);
        xml::element(out, "RUNNING_VMS", self.vms.len());
        out.push_str("<VMS_THREAD>1</VMS_THREAD><DATASTORES><DISK_USAGE><![CDATA[0]]></DISK_USAGE>");
        out.push_str("<FREE_DISK><![CDATA[20480]]></FREE_DISK><MAX_DISK><![CDATA[20480]]></MAX_DISK>");
        out.push_str("<USED_DISK><![CDATA[9720]]></USED_DISK></DATASTORES>");
        out.push_str("<PCI_DEVICES></PCI_DEVICES><NUMA_NODES></NUMA_NODES></HOST_SHARE>");
        xml::ids(out, "VMS", &self.vms);
        out.push_str("<TEMPLATE>");
        for (key, value) in [
            ("ARCH", "x86_64"),
            ("CPUSPEED", "3200"),
            ("HOSTNAME", &self.setup.name),
            ("HYPERVISOR", "dummy"),
            ("IM_MAD", "dummy"),
            ("KVM_CPU_FEATURES", ""),
            ("KVM_CPU_MODELS", ""),
            ("MEMORY_ENCRYPTION", ""),
            ("MODELNAME", "Dummy"),
            ("RESERVED_CPU", ""),
            ("RESERVED_MEM", ""),
            ("TOTALCPU", &cpu.to_string()),
            ("TOTALMEMORY", &total_memory.to_string()),
            ("VM_MAD", "dummy"),
        ] {
            xml::cdata(out, key, value);
        }
        out.push_str("</TEMPLATE>");
        if monitoring {
            self.monitoring(out, now);
        } else {
            // Only `one.host.info` and the monitoring calls show what is really used.
            out.push_str("<MONITORING/>");
        }
        out.push_str("</HOST>");
    }

    /// What is really used: here what is promised.
    pub fn monitoring(&self, out: &mut String, now: u64) {
        let free_cpu = u64::from(self.setup.cpu_percent).saturating_sub(self.cpu_percent);
        let free_memory = self.setup.memory_mb.saturating_sub(self.memory_mb) * 1024;
        out.push_str("<MONITORING>");
        xml::element(out, "TIMESTAMP", now);
        xml::element(out, "ID", self.id);
        out.push_str("<CAPACITY>");
        xml::cdata(out, "FREE_CPU", &free_cpu.to_string());
        xml::cdata(out, "FREE_MEMORY", &free_memory.to_string());
        xml::cdata(out, "USED_CPU", &self.cpu_percent.to_string());
        xml::cdata(out, "USED_MEMORY", &(self.memory_mb * 1024).to_string());
        out.push_str("</CAPACITY><SYSTEM><NETRX><![CDATA[0]]></NETRX><NETTX><![CDATA[0]]></NETTX></SYSTEM></MONITORING>");
    }
}
