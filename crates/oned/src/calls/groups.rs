//! Groups: oneadmin and users.

use crate::front_end::FrontEnd;
use crate::quota::{self, Owner};
use crate::refusal::Refusal;
use crate::user::User;
use crate::xml;

/// The groups of a fresh installation, newest first.
const GROUPS: [(u32, &str); 2] = [(1, "users"), (0, "oneadmin")];

impl FrontEnd {
    /// What `one.grouppool.info` answers, in XML.
    pub fn grouppool_info(&self) -> String {
        let mut out = String::from("<GROUP_POOL>");
        for (id, name) in GROUPS {
            out.push_str("<GROUP>");
            self.group(&mut out, id, name);
            out.push_str("</GROUP><QUOTAS>");
            xml::element(&mut out, "ID", id);
            self.quotas(&mut out, Owner::Group(id));
            out.push_str("</QUOTAS>");
            vlan_rules(&mut out, id);
        }
        defaults(&mut out);
        out.push_str("</GROUP_POOL>");
        out
    }

    /// `one.group.info`; -1 is the caller's.
    pub fn group_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let id = if id == -1 {
            user.gid
        } else {
            u32::try_from(id).unwrap_or(u32::MAX)
        };
        let (_, name) = GROUPS
            .into_iter()
            .find(|(group, _)| *group == id)
            .ok_or_else(|| Refusal::no_such("group", id))?;
        if !user.is_admin() && user.gid != id {
            return Err(Refusal::unauthorized(
                user.id,
                &format!("Not authorized to perform USE GROUP [{id}]"),
            ));
        }
        let mut out = String::from("<GROUP>");
        self.group(&mut out, id, name);
        self.quotas(&mut out, Owner::Group(id));
        vlan_rules(&mut out, id);
        defaults(&mut out);
        out.push_str("</GROUP>");
        Ok(out)
    }

    fn group(&self, out: &mut String, id: u32, name: &str) {
        xml::element(out, "ID", id);
        xml::element(out, "NAME", name);
        out.push_str("<TEMPLATE>");
        if id == 1 {
            out.push_str("<SUNSTONE>");
            for (key, view) in [
                ("DEFAULT_VIEW", "cloud"),
                ("GROUP_ADMIN_DEFAULT_VIEW", "groupadmin"),
                ("GROUP_ADMIN_VIEWS", "groupadmin,cloud"),
                ("VIEWS", "cloud"),
            ] {
                xml::cdata(out, key, view);
            }
            out.push_str("</SUNSTONE>");
        }
        out.push_str("</TEMPLATE>");
        let members = self
            .users
            .iter()
            .filter(|user| user.gid == id)
            .map(|user| &user.id);
        xml::ids(out, "USERS", members);
        out.push_str("<ADMINS></ADMINS>");
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
