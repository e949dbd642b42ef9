//! VM quotas of users and groups.

use crate::vm::Vm;

/// VM quotas; negative: none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    pub vms: i64,
    /// CPU, in percent of a core.
    pub cpu_percent: i64,
    pub memory_mb: i64,
}

/// Whose VMs a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Those of the user with this id.
    User(u32),
    /// Those of the group with this id.
    Group(u32),
}

impl Owner {
    /// Whether the VM is his.
    pub fn has(self, vm: &Vm) -> bool {
        match self {
            Owner::User(id) => vm.uid == id,
            Owner::Group(id) => vm.gid == id,
        }
    }

    /// As oned names him.
    pub fn name(self) -> String {
        match self {
            Owner::User(id) => format!("user [{id}]"),
            Owner::Group(id) => format!("group [{id}]"),
        }
    }
}

/// No quotas of any kind.
pub fn none(out: &mut String) {
    out.push_str("<DATASTORE_QUOTA></DATASTORE_QUOTA><NETWORK_QUOTA></NETWORK_QUOTA>");
    out.push_str("<VM_QUOTA></VM_QUOTA><IMAGE_QUOTA></IMAGE_QUOTA>");
}

/// Percent of a core as cores, without needless digits.
pub fn cores(percent: i64) -> String {
    if percent < 0 {
        return "-1".into();
    }
    let text = format!("{}.{:02}", percent / 100, percent % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
