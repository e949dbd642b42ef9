//! Users, and what an operation needs of them.

use crate::quota::Quota;
use crate::settings::UserSetup;

/// A user as oned keeps him.
#[derive(Debug, Clone)]
pub struct User {
    /// Id; 0 is oneadmin.
    pub id: u32,
    /// Group: 0 oneadmin, 1 users, from 100 on those that were made.
    pub gid: u32,
    /// What GNAME shows: the group's name.
    pub gname: String,
    pub setup: UserSetup,
    /// How he is authenticated.
    pub driver: &'static str,
    /// Login tokens and when they end; Unix seconds.
    pub tokens: Vec<(String, u64)>,
    /// VM quotas as they were set.
    pub quota: Option<Quota>,
}

/// What an operation on a VM needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To look at it.
    Use,
    /// To tell it something.
    Manage,
    /// To move or remove it.
    Admin,
}

impl Need {
    /// As oned names it.
    pub fn name(self) -> &'static str {
        match self {
            Need::Use => "USE",
            Need::Manage => "MANAGE",
            Need::Admin => "ADMIN",
        }
    }
}

impl User {
    /// Whether he is oneadmin or of that group.
    pub fn is_admin(&self) -> bool {
        self.gid == 0
    }

    /// What the operation needs: oned.conf's VM_ADMIN_OPERATIONS, and what the user's own
    /// template says instead.
    pub fn need(&self, operation: &str) -> Need {
        for (key, need) in [
            ("VM_USE_OPERATIONS", Need::Use),
            ("VM_MANAGE_OPERATIONS", Need::Manage),
            ("VM_ADMIN_OPERATIONS", Need::Admin),
        ] {
            let listed = self.setup.template.get(key).is_some_and(|list| {
                list.split(',')
                    .any(|word| word.trim().eq_ignore_ascii_case(operation))
            });
            if listed {
                return need;
            }
        }
        match operation {
            "info" => Need::Use,
            "migrate" | "delete" | "recover" | "retry" | "deploy" | "resched" => Need::Admin,
            _ => Need::Manage,
        }
    }
}
