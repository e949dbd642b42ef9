//! Quotas as they are counted and shown.

use crate::front_end::FrontEnd;
use crate::quota::{Owner, Quota, cores, none};
use crate::refusal::Refusal;
use crate::user::User;
use crate::xml;

impl FrontEnd {
    fn quota(&self, owner: Owner) -> Option<Quota> {
        match owner {
            Owner::User(id) => self.users.iter().find(|user| user.id == id)?.quota,
            Owner::Group(id) => self.group_quotas.get(&id).copied(),
        }
    }

    fn used(&self, owner: Owner) -> Quota {
        let mut used = Quota {
            vms: 0,
            cpu_percent: 0,
            memory_mb: 0,
        };
        for vm in self
            .live
            .iter()
            .filter_map(|id| self.vms.get(id))
            .filter(|vm| owner.has(vm))
        {
            used.vms += 1;
            used.cpu_percent += i64::from(vm.cpu_percent);
            used.memory_mb += i64::try_from(vm.memory_mb).unwrap_or(0);
        }
        used
    }

    /// Whether one more VM fits the quotas of the user and his group; oneadmin and his group
    /// have none.
    pub fn check_quota(&self, user: &User, cpu_percent: u32, memory_mb: u64) -> Result<(), Refusal> {
        if user.id != 0 {
            self.check_one(user, Owner::User(user.id), cpu_percent, memory_mb)?;
        }
        if user.gid != 0 {
            self.check_one(user, Owner::Group(user.gid), cpu_percent, memory_mb)?;
        }
        Ok(())
    }

    fn check_one(&self, user: &User, owner: Owner, cpu_percent: u32, memory_mb: u64) -> Result<(), Refusal> {
        let Some(quota) = self.quota(owner) else {
            return Ok(());
        };
        let used = self.used(owner);
        let cpu = i64::from(cpu_percent);
        let memory = i64::try_from(memory_mb).unwrap_or(i64::MAX);
        let exceeded = if quota.cpu_percent >= 0 && used.cpu_percent + cpu > quota.cpu_percent {
            Some((cores(quota.cpu_percent), "CPU"))
        } else if quota.memory_mb >= 0 && used.memory_mb.saturating_add(memory) > quota.memory_mb {
            Some((quota.memory_mb.to_string(), "MEMORY"))
        } else if quota.vms >= 0 && used.vms + 1 > quota.vms {
            Some((quota.vms.to_string(), "VMS"))
        } else {
            None
        };
        match exceeded {
            None => Ok(()),
            Some((limit, what)) => {
                let text = format!("{} limit of {limit} reached for {what} quota in VM", owner.name());
                Err(Refusal::unauthorized(user.id, &text))
            }
        }
    }

    /// The four kinds of quotas; only those of VMs are modelled.
    pub fn quotas(&self, out: &mut String, owner: Owner) {
        let Some(quota) = self.quota(owner) else {
            none(out);
            return;
        };
        let used = self.used(owner);
        out.push_str("<DATASTORE_QUOTA></DATASTORE_QUOTA><NETWORK_QUOTA></NETWORK_QUOTA><VM_QUOTA><VM>");
        let rows = [
            ("CPU", cores(quota.cpu_percent), cores(used.cpu_percent)),
            ("MEMORY", quota.memory_mb.to_string(), used.memory_mb.to_string()),
            ("PCI_DEV", "-1".into(), "0".into()),
            ("PCI_NIC", "-1".into(), "0".into()),
            ("RUNNING_CPU", "-1".into(), cores(used.cpu_percent)),
            ("RUNNING_MEMORY", "-1".into(), used.memory_mb.to_string()),
            ("RUNNING_PCI_DEV", "-1".into(), "0".into()),
            ("RUNNING_PCI_NIC", "-1".into(), "0".into()),
            ("RUNNING_VMS", "-1".into(), used.vms.to_string()),
            ("SYSTEM_DISK_SIZE", "-1".into(), "0".into()),
            ("VMS", quota.vms.to_string(), used.vms.to_string()),
        ];
        for (name, limit, used) in rows {
            xml::cdata(out, name, &limit);
            xml::cdata(out, &format!("{name}_USED"), &used);
        }
        out.push_str("</VM></VM_QUOTA><IMAGE_QUOTA></IMAGE_QUOTA>");
    }
}
