//! Rights: given to a user of ours; of another's it is only asked whether he has them.

use super::{Plans, ServiceUser};
use crate::create::{Action, Grant, Id, Verb};
use thiao_opennebula::acl::Which;
use thiao_opennebula::settings::Placement;

impl Plans<'_> {
    /// Gives them, or asks for them.
    pub(super) fn rights(&mut self, user: &ServiceUser) {
        let all = |kind, rights| Grant {
            kind,
            id: None,
            rights,
        };
        if self.wanted.placement == Placement::Thiao {
            let why = "to see hosts, and to deploy VMs there".to_owned();
            self.grants.push((all("HOST", "USE+MANAGE"), why));
        }
        let why = "to add attributes to a template: oned treats that as making one".to_owned();
        self.grants.push((all("TEMPLATE", "CREATE"), why));
        if self.wanted.fence {
            let why = "to keep the VMs of each job to themselves".to_owned();
            self.grants.push((all("SECGROUP", "CREATE"), why));
        }
        let mut grants = std::mem::take(&mut self.grants);
        let mut told: Vec<Grant> = Vec::new();
        grants.retain(|(grant, _)| {
            let new = !told.contains(grant);
            told.push(grant.clone());
            new
        });
        if user.ours {
            for (grant, why) in grants {
                self.give(user, grant, why);
            }
        } else {
            self.has(user, &grants);
        }
    }

    fn give(&mut self, user: &ServiceUser, grant: Grant, why: String) {
        let there = match (&user.id, grant.known()) {
            (Id::Known(id), Some(known)) => self
                .seen
                .rules
                .iter()
                .any(|(_, rule)| rule.user == Which::One(*id) && rule.grant == known),
            (Id::Known(_) | Id::Made(_), _) => false,
        };
        let what = grant.text(|key| format!("<{key}>"));
        if there {
            return self.take(what, "given before");
        }
        let action = Action::Give {
            user: user.id.clone(),
            grant,
        };
        self.add(Verb::Give, what, why, Some(action));
    }

    /// A user that somebody else made gets no rights by this: what lacks is named with its command.
    fn has(&mut self, user: &ServiceUser, grants: &[(Grant, String)]) {
        let mut users = self.seen.users.iter();
        let Some(found) = users.find(|other| Id::Known(other.id) == user.id) else {
            return;
        };
        if found.id == 0 || found.groups.contains(&0) {
            return self.take(
                "all rights",
                "the user is of the group oneadmin; one with fewer would do",
            );
        }
        let has = |known: thiao_opennebula::acl::Grant| {
            self.seen.rules.iter().any(|(_, rule)| {
                let his = match rule.user {
                    Which::One(id) => id == found.id,
                    Which::Group(id) => found.groups.contains(&id),
                    Which::All => true,
                    Which::Cluster(_) => false,
                };
                his && known.within(&rule.grant)
            })
        };
        let mut missing = Vec::new();
        for (grant, _) in grants {
            let text = grant.text(|key| format!("ID OF THE {}", key.to_uppercase()));
            if !grant.known().is_some_and(&has) {
                missing.push(format!("oneacl create '#{} {text}'", found.id));
            }
        }
        let operations = found.template.get("VM_MANAGE_OPERATIONS").map(String::as_str);
        let listed = |word: &str| {
            operations
                .unwrap_or_default()
                .split(',')
                .any(|one| one.trim() == word)
        };
        let of_vms = found
            .groups
            .first()
            .map(|group| format!("VM/@{group} USE+MANAGE+ADMIN"));
        let of_vms = of_vms.unwrap_or_else(|| "VM/* USE+MANAGE+ADMIN".to_owned());
        let admin = thiao_opennebula::acl::Grant::parse(&of_vms).is_some_and(&has);
        if !admin && !self.operations().iter().all(|word| listed(word)) {
            missing.push(format!("oneacl create '#{} {of_vms}'", found.id));
        }
        if missing.is_empty() {
            return self.take(format!("the rights of {}", user.name), "they are enough");
        }
        self.refuse(format!(
            "user {} was not made by this, and gets no rights by it; it lacks some: {}; or let a new user be made, \
             with --user and another file with --auth",
            user.name,
            missing.join(" && ")
        ));
    }
}
