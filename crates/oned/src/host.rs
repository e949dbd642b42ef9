//! Hosts.

use crate::settings::HostSetup;
use crate::user::User;
use crate::world::{Code, Refusal, World};
use crate::xml;
use std::collections::BTreeSet;

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Id.
    pub id: u32,
    /// Name and capacity.
    pub setup: HostSetup,
    /// What it is doing.
    pub state: HostState,
    /// VMs that count on it.
    pub vms: BTreeSet<u32>,
    /// What they are promised: percent of a core.
    pub cpu_percent: u64,
    /// What they are promised: MiB.
    pub memory_mb: u64,
}

/// A host's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Monitored.
    Monitored,
    /// Monitoring fails: the scheduler passes it by.
    Error,
    /// The scheduler passes it by; deploys are still taken.
    Disabled,
    /// Takes nothing.
    Offline,
}

impl HostState {
    /// STATE as a number.
    pub fn number(self) -> i32 {
        match self {
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
            vms: BTreeSet::new(),
            cpu_percent: 0,
            memory_mb: 0,
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

    fn xml(&self, out: &mut String, monitoring: bool, now: u64) {
        let total_memory = self.setup.memory_mb * 1024;
        out.push_str("<HOST>");
        xml::element(out, "ID", self.id);
        xml::element(out, "NAME", &self.setup.name);
        xml::element(out, "STATE", self.state.number());
        xml::element(out, "PREV_STATE", self.state.number());
        out.push_str("<IM_MAD><![CDATA[dummy]]></IM_MAD><VM_MAD><![CDATA[dummy]]></VM_MAD>");
        out.push_str("<CLUSTER_ID>0</CLUSTER_ID><CLUSTER>default</CLUSTER><HOST_SHARE>");
        xml::element(out, "MEM_USAGE", self.memory_mb * 1024);
        xml::element(out, "CPU_USAGE", self.cpu_percent);
        xml::element(out, "TOTAL_MEM", total_memory);
        xml::element(out, "TOTAL_CPU", self.setup.cpu_percent);
        xml::element(out, "MAX_MEM", total_memory);
        xml::element(out, "MAX_CPU", self.setup.cpu_percent);
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
            ("TOTALCPU", &self.setup.cpu_percent.to_string()),
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

impl World {
    /// `one.hostpool.info`: newest first; empty for who may not see hosts.
    pub fn hostpool_info(&self, user: &User) -> String {
        let mut out = String::from("<HOST_POOL>");
        if user.is_admin() || user.setup.hosts_use {
            let now = self.now();
            for host in self.hosts.iter().rev() {
                host.xml(&mut out, false, now);
            }
        }
        out.push_str("</HOST_POOL>");
        out
    }

    /// `one.hostpool.monitoring`: the last values of all hosts.
    pub fn hostpool_monitoring(&self, user: &User) -> String {
        let mut out = String::from("<MONITORING_DATA>");
        if user.is_admin() || user.setup.hosts_use {
            for host in &self.hosts {
                host.monitoring(&mut out, self.now());
            }
        }
        out.push_str("</MONITORING_DATA>");
        out
    }

    fn seen_host(&self, user: &User, id: i32) -> Result<&Host, Refusal> {
        let host = self.host(id)?;
        if user.is_admin() || user.setup.hosts_use {
            return Ok(host);
        }
        Err(Refusal::unauthorized(
            user.id,
            &format!("Not authorized to perform USE HOST [{id}]"),
        ))
    }

    /// `one.host.info`.
    pub fn host_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::new();
        self.seen_host(user, id)?.xml(&mut out, true, self.now());
        Ok(out)
    }

    /// `one.host.monitoring`.
    pub fn host_monitoring(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::from("<MONITORING_DATA>");
        self.seen_host(user, id)?.monitoring(&mut out, self.now());
        out.push_str("</MONITORING_DATA>");
        Ok(out)
    }

    /// `one.host.status`: 0 enable, 1 disable, 2 offline.
    pub fn host_status(&mut self, user: &User, id: i32, status: i32) -> Result<u32, Refusal> {
        let host = self.host(id)?.id;
        if !user.is_admin() {
            return Err(Refusal::unauthorized(
                user.id,
                &format!("Not authorized to perform ADMIN HOST [{id}]"),
            ));
        }
        let state = match status {
            0 => HostState::Monitored,
            1 => HostState::Disabled,
            2 => HostState::Offline,
            _ => {
                return Err(Refusal::plain(
                    Code::Internal,
                    &format!("Wrong status code. {status}"),
                ));
            }
        };
        if let Some(host) = self.host_mut(host) {
            host.state = state;
        }
        Ok(host)
    }

    /// The host of that id.
    pub fn host(&self, id: i32) -> Result<&Host, Refusal> {
        usize::try_from(id)
            .ok()
            .and_then(|at| self.hosts.get(at))
            .ok_or_else(|| Refusal::no_such_signed("host", id))
    }

    /// The host of that id.
    pub fn host_mut(&mut self, id: u32) -> Option<&mut Host> {
        self.hosts.get_mut(id as usize)
    }

    /// Counts a VM on a host.
    pub fn occupy(&mut self, vm: u32, host: u32) {
        let Some((cpu, memory)) = self.vms.get(&vm).map(|vm| (vm.cpu_percent, vm.memory_mb)) else {
            return;
        };
        if let Some(host) = self.host_mut(host)
            && host.vms.insert(vm)
        {
            host.cpu_percent += u64::from(cpu);
            host.memory_mb += memory;
        }
    }

    /// Counts a VM no longer on a host.
    pub fn vacate(&mut self, vm: u32, host: u32) {
        let Some((cpu, memory)) = self.vms.get(&vm).map(|vm| (vm.cpu_percent, vm.memory_mb)) else {
            return;
        };
        if let Some(host) = self.host_mut(host)
            && host.vms.remove(&vm)
        {
            host.cpu_percent = host.cpu_percent.saturating_sub(u64::from(cpu));
            host.memory_mb = host.memory_mb.saturating_sub(memory);
        }
    }
}
