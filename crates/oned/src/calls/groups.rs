//! Calls about groups. Making and removing are read of OpenNebula 7.4.0: `src/rm/api/GroupAPI.cc`,
//! `src/group/GroupPool.cc`.

use crate::front_end::FrontEnd;
use crate::group::Group;
use crate::quota::{self, Owner};
use crate::refusal::{Code, Refusal};
use crate::rights::Object;
use crate::template::update;
use crate::user::User;
use crate::xml;
use thiao_opennebula::syntax::Template;

impl FrontEnd {
    /// What `one.grouppool.info` answers, in XML: newest first.
    pub fn grouppool_info(&self, user: &User) -> String {
        let mut out = String::from("<GROUP_POOL>");
        let seen = |group: &&Group| group.id == user.gid || self.allowed(user, &object(group), "USE");
        for group in self.groups.iter().rev().filter(seen) {
            out.push_str("<GROUP>");
            self.group(&mut out, group);
            out.push_str("</GROUP><QUOTAS>");
            xml::element(&mut out, "ID", group.id);
            self.quotas(&mut out, Owner::Group(group.id));
            out.push_str("</QUOTAS>");
            vlan_rules(&mut out, group.id);
        }
        defaults(&mut out);
        out.push_str("</GROUP_POOL>");
        out
    }

    /// The group with that id.
    pub fn group_of(&self, id: i32) -> Result<&Group, Refusal> {
        let found = self
            .groups
            .iter()
            .find(|group| i64::from(group.id) == i64::from(id));
        found.ok_or_else(|| Refusal::no_such_signed("group", id))
    }

    /// `one.group.info`; -1 is the caller's.
    pub fn group_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let id = if id == -1 {
            i32::try_from(user.gid).unwrap_or(i32::MAX)
        } else {
            id
        };
        let group = self.group_of(id)?;
        if group.id != user.gid {
            self.demand(user, &object(group), "USE")?;
        }
        let mut out = String::from("<GROUP>");
        self.group(&mut out, group);
        self.quotas(&mut out, Owner::Group(group.id));
        vlan_rules(&mut out, group.id);
        defaults(&mut out);
        out.push_str("</GROUP>");
        Ok(out)
    }

    /// `one.group.allocate`: the group comes into the default VDC.
    pub fn group_allocate(&mut self, user: &User, name: &str) -> Result<u32, Refusal> {
        self.demand_create(user, "GROUP")?;
        if let Some(other) = self.groups.iter().find(|group| group.name == name) {
            let text = format!("NAME is already taken by GROUP {}.", other.id);
            return Err(Refusal::plain(Code::Internal, &text));
        }
        let id = self.next_group;
        self.next_group += 1;
        self.groups.push(Group {
            id,
            name: name.to_owned(),
            body: Template::default(),
        });
        self.add_vdc_rules(id);
        Ok(id)
    }

    /// Answers `one.group.update`: 0 writes its template anew, 1 adds to it.
    pub fn group_update(&mut self, user: &User, id: i32, text: &str, how: i32) -> Result<u32, Refusal> {
        let group = self.group_of(id)?;
        self.demand(user, &object(group), "ADMIN")?;
        let id = group.id;
        if let Some(group) = self.groups.iter_mut().find(|group| group.id == id) {
            update(&mut group.body, text, how)?;
        }
        Ok(id)
    }

    /// `one.group.delete`: not one with users.
    pub fn group_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let group = self.group_of(id)?;
        self.demand(user, &object(group), "ADMIN")?;
        let id = group.id;
        let cannot = |why: &str| Refusal::plain(Code::Action, &format!("Cannot delete group. {why}"));
        if id < 100 {
            return Err(cannot("System Groups (ID < 100) cannot be deleted."));
        }
        if self.users.iter().any(|user| user.gid == id) {
            return Err(cannot(&format!("Group {id} is not empty.")));
        }
        self.groups.retain(|group| group.id != id);
        self.forget_rules("GROUP", id);
        Ok(id)
    }

    fn group(&self, out: &mut String, group: &Group) {
        xml::element(out, "ID", group.id);
        xml::element(out, "NAME", &group.name);
        xml::template(out, "TEMPLATE", &group.body);
        let members = self
            .users
            .iter()
            .filter(|user| user.gid == group.id)
            .map(|user| &user.id);
        xml::ids(out, "USERS", members);
        out.push_str("<ADMINS></ADMINS>");
    }
}

/// What rules are about.
fn object(group: &Group) -> Object {
    Object {
        kind: "GROUP",
        id: Some(group.id),
        uid: 0,
        gid: group.id,
        public: false,
    }
}

fn vlan_rules(out: &mut String, id: u32) {
    out.push_str("<VLAN_RULES>");
    xml::cdata(out, "ID", &id.to_string());
    out.push_str("</VLAN_RULES>");
}

fn defaults(out: &mut String) {
    out.push_str("<DEFAULT_GROUP_QUOTAS>");
    quota::none(out);
    out.push_str("</DEFAULT_GROUP_QUOTAS>");
}
