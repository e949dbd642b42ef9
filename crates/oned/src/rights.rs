//! Who may do what: ACL rules, and what objects say of their owner and of all others. Read of OpenNebula 7.4.0:
//! `src/acl/AclManager.cc` (the rules of a fresh installation, and how they are matched), `src/vdc/Vdc.cc` with
//! oned.conf's `DEFAULT_VDC_*_ACL` (what a group gets by the default VDC), `src/rm/api/AclAPI.cc`.

use crate::front_end::FrontEnd;
use crate::refusal::{Code, Refusal};
use crate::user::User;
use crate::xml;
use thiao_opennebula::acl::{Grant, Rule, Which};

/// The rules of a fresh installation; `users` has id 1.
const FIRST: [&str; 3] = [
    "@1 VM+IMAGE+TEMPLATE+DOCUMENT+SECGROUP+VMGROUP+BACKUPJOB/* CREATE",
    "* ZONE/* USE",
    "* MARKETPLACE+MARKETPLACEAPP/* USE",
];
/// What each group gets by being in the default VDC, which has all clusters.
const OF_VDC: [&str; 3] = ["HOST/* MANAGE", "NET/* USE", "DATASTORE/* USE"];

/// What somebody wants to do something to.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// As rules name its kind: `NET`.
    pub kind: &'static str,
    /// None: it is to be created.
    pub id: Option<u32>,
    /// Who owns it; of something new, who makes it.
    pub uid: u32,
    pub gid: u32,
    /// Whether all may use it.
    pub public: bool,
}

impl Object {
    /// Appends what its element begins with: id, whose it is by id and name, its own name, and who may use it.
    pub fn xml(&self, out: &mut String, (user, group): (&str, &str), name: &str) {
        if let Some(id) = self.id {
            xml::element(out, "ID", id);
        }
        xml::element(out, "UID", self.uid);
        xml::element(out, "GID", self.gid);
        xml::element(out, "UNAME", user);
        xml::element(out, "GNAME", group);
        xml::element(out, "NAME", name);
        xml::permissions(out, self.public);
    }
}

impl FrontEnd {
    /// Whether the user may do that, in the word of rules: `USE`, `MANAGE`, `ADMIN`, `CREATE`.
    pub fn allowed(&self, user: &User, object: &Object, right: &str) -> bool {
        if user.is_admin() || (right == "USE" && object.public) {
            return true;
        }
        // As permissions are when something is made: its owner uses and manages it.
        let owned = object.id.is_some() && object.uid == user.id;
        if owned && matches!(right, "USE" | "MANAGE") {
            return true;
        }
        let wanted = |which: Which| Grant::parse(&format!("{}/{which} {right}", object.kind));
        let ways = [
            wanted(Which::Group(object.gid)),
            wanted(Which::Cluster(0)),
            object.id.and_then(|id| wanted(Which::One(id))),
        ];
        self.rules.iter().any(|(_, rule)| {
            let his = match rule.user {
                Which::One(id) => id == user.id,
                Which::Group(id) => id == user.gid,
                Which::All => true,
                Which::Cluster(_) => false,
            };
            his && ways.iter().flatten().any(|way| way.within(&rule.grant))
        })
    }

    /// Refuses what the user may not, in oned's words.
    pub fn demand(&self, user: &User, object: &Object, right: &str) -> Result<(), Refusal> {
        if self.allowed(user, object, right) {
            return Ok(());
        }
        let which = object.id.map(|id| format!(" [{id}]")).unwrap_or_default();
        let text = format!("Not authorized to perform {right} {}{which}", object.kind);
        Err(Refusal::unauthorized(user.id, &text))
    }

    /// The same of a kind of which something is to be made.
    pub fn demand_create(&self, user: &User, kind: &'static str) -> Result<(), Refusal> {
        let new = Object {
            kind,
            id: None,
            uid: user.id,
            gid: user.gid,
            public: false,
        };
        self.demand(user, &new, "CREATE")
    }

    /// The rules that are there before anybody makes one.
    pub fn first_rules(&mut self) {
        for text in FIRST {
            self.add_text_rule(text);
        }
        self.add_vdc_rules(1);
    }

    /// What a new group gets.
    pub fn add_vdc_rules(&mut self, group: u32) {
        for text in OF_VDC {
            self.add_text_rule(&format!("@{group} {text}"));
        }
    }

    /// Makes the rule that is written as `oneacl` takes it; what is no rule is none.
    pub fn add_text_rule(&mut self, text: &str) {
        if let Some(rule) = Rule::parse(text) {
            self.add_rule(rule);
        }
    }

    fn add_rule(&mut self, rule: Rule) -> u32 {
        let id = self.next_rule;
        self.next_rule += 1;
        self.rules.push((id, rule));
        id
    }

    /// `one.acl.info`: oned keeps them by whom they are for.
    pub fn acl_info(&self, user: &User) -> Result<String, Refusal> {
        manage_acl(user)?;
        let mut rules: Vec<([String; 3], &(u32, Rule))> =
            self.rules.iter().map(|one| (one.1.to_hex(), one)).collect();
        rules.sort_by_key(|([user, ..], _)| u64::from_str_radix(user, 16).unwrap_or_default());
        let mut out = String::from("<ACL_POOL>");
        for ([user, resource, rights], (id, rule)) in rules {
            out.push_str("<ACL>");
            xml::element(&mut out, "ID", id);
            xml::element(&mut out, "USER", user);
            xml::element(&mut out, "RESOURCE", resource);
            xml::element(&mut out, "RIGHTS", rights);
            // Those of a fresh installation are for all zones, and those that are made for this one.
            let (zone, shown) = match FIRST.get(*id as usize) {
                Some(_) => ("400000000", "*"),
                None => ("100000000", "#0"),
            };
            xml::element(&mut out, "ZONE", zone);
            xml::element(&mut out, "STRING", format!("{rule} {shown}"));
            out.push_str("</ACL>");
        }
        out.push_str("</ACL_POOL>");
        Ok(out)
    }

    /// `one.acl.addrule`, with the new rule's id.
    pub fn acl_add(&mut self, user: &User, [whom, what, rights]: [&str; 3]) -> Result<u32, Refusal> {
        manage_acl(user)?;
        let internal = |text: String| Refusal::plain(Code::Internal, &text);
        let rule = Rule::of_hex(whom, what, rights).ok_or_else(|| {
            internal("Rule  is malformed: [user] is missing one of the INDIVIDUAL, GROUP or ALL bits".into())
        })?;
        if self.rules.iter().any(|(_, other)| *other == rule) {
            return Err(internal(format!("Rule {rule} #0 already exists")));
        }
        Ok(self.add_rule(rule))
    }

    /// Answers `one.acl.delrule`, with the rule's id.
    pub fn acl_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        manage_acl(user)?;
        let found = self
            .rules
            .iter()
            .position(|(other, _)| i64::from(*other) == i64::from(id));
        let at = found.ok_or_else(|| Refusal::plain(Code::Internal, &format!("Rule {id} does not exist")))?;
        Ok(self.rules.remove(at).0)
    }

    /// What goes with something that is removed: the rules for a user or group, those about what belongs to the
    /// group, and those about the object alone (`del_resource_rules`).
    pub fn forget_rules(&mut self, kind: &str, id: u32) {
        let whom = match kind {
            "USER" => Some(Which::One(id)),
            "GROUP" => Some(Which::Group(id)),
            _ => None,
        };
        let about = format!("/@{id} ");
        let alone = format!(" {kind}/#{id} ");
        self.rules.retain(|(_, rule)| {
            let text = rule.to_string();
            let of_group = kind == "GROUP" && text.contains(&about);
            Some(rule.user) != whom && !of_group && !text.contains(&alone)
        });
    }
}

fn manage_acl(user: &User) -> Result<(), Refusal> {
    if user.is_admin() {
        return Ok(());
    }
    Err(Refusal::unauthorized(
        user.id,
        "Not authorized to perform MANAGE ACL",
    ))
}
