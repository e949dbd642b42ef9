//! Calls about users: who calls, and what he may do.

use crate::front_end::{FrontEnd, secret};
use crate::quota::{self, Owner, Quota};
use crate::refusal::{Code, Refusal};
use crate::rights::Object;
use crate::settings::UserSetup;
use crate::template;
use crate::user::User;
use crate::xml;
use std::fmt::Write as _;
use thiao_opennebula::syntax::{Template, Value};

impl FrontEnd {
    /// The user who calls with this session, `name:secret`.
    pub fn authenticate(&self, session: &str) -> Result<User, Refusal> {
        let wrong = || {
            Refusal::plain(
                Code::Authentication,
                "User couldn't be authenticated, aborting call.",
            )
        };
        let (name, secret) = session.split_once(':').ok_or_else(wrong)?;
        let user = self
            .users
            .iter()
            .find(|user| user.setup.name == name)
            .ok_or_else(wrong)?;
        let now = self.now();
        let known = user.setup.password == secret
            || user
                .tokens
                .iter()
                .any(|(token, end)| token == secret && *end > now);
        if known { Ok(user.clone()) } else { Err(wrong()) }
    }

    /// Whether the user may do that to the VM; "no such" comes first.
    pub fn authorize(&self, user: &User, vm: u32, operation: &str) -> Result<(), Refusal> {
        let found = self
            .vms
            .get(&vm)
            .ok_or_else(|| Refusal::no_such("virtual machine", vm))?;
        self.demand(user, &found.object(), user.need(operation).name())
    }

    /// `one.user.info`; -1 is the caller.
    pub fn user_info(&self, caller: &User, id: i32) -> Result<String, Refusal> {
        let id = u32::try_from(id).unwrap_or(caller.id);
        let user = self
            .users
            .iter()
            .find(|user| user.id == id)
            .ok_or_else(|| Refusal::no_such("user", id))?;
        if user.id != caller.id && !caller.is_admin() {
            return Err(Refusal::unauthorized(
                caller.id,
                &format!("Not authorized to perform USE USER [{id}]"),
            ));
        }
        let mut out = String::from("<USER>");
        self.user_head(&mut out, user);
        self.quotas(&mut out, Owner::User(user.id));
        out.push_str("<DEFAULT_USER_QUOTAS>");
        quota::none(&mut out);
        out.push_str("</DEFAULT_USER_QUOTAS></USER>");
        Ok(out)
    }

    /// What `one.userpool.info` answers, in XML.
    pub fn userpool_info(&self, caller: &User) -> String {
        let mut out = String::from("<USER_POOL>");
        for user in self
            .users
            .iter()
            .rev()
            .filter(|user| caller.is_admin() || user.id == caller.id)
        {
            out.push_str("<USER>");
            self.user_head(&mut out, user);
            out.push_str("</USER><QUOTAS>");
            xml::element(&mut out, "ID", user.id);
            self.quotas(&mut out, Owner::User(user.id));
            out.push_str("</QUOTAS>");
        }
        out.push_str("<DEFAULT_USER_QUOTAS>");
        quota::none(&mut out);
        out.push_str("</DEFAULT_USER_QUOTAS></USER_POOL>");
        out
    }

    fn user_head(&self, out: &mut String, user: &User) {
        xml::element(out, "ID", user.id);
        xml::element(out, "GID", user.gid);
        xml::ids(out, "GROUPS", [&user.gid]);
        xml::element(out, "GNAME", &user.gname);
        xml::element(out, "NAME", &user.setup.name);
        // The real one shows a digest here; nobody needs it.
        out.push_str("<PASSWORD><![CDATA[-]]></PASSWORD>");
        xml::cdata(out, "AUTH_DRIVER", user.driver);
        out.push_str("<ENABLED>1</ENABLED>");
        for (token, end) in &user.tokens {
            let _ = write!(
                out,
                "<LOGIN_TOKEN><TOKEN>{token}</TOKEN><EXPIRATION_TIME>{end}</EXPIRATION_TIME><EGID>-1</EGID></LOGIN_TOKEN>"
            );
        }
        let mut template: Vec<(String, Value)> = user
            .setup
            .template
            .iter()
            .map(|(key, text)| (key.clone(), Value::Single(text.clone())))
            .collect();
        template.push(("TOKEN_PASSWORD".into(), Value::Single("-".into())));
        xml::template(out, "TEMPLATE", &Template(template));
    }

    /// Answers `one.user.allocate`, with the new user's id.
    pub fn user_allocate(
        &mut self,
        caller: &User,
        name: &str,
        password: &str,
        groups: &[u32],
    ) -> Result<u32, Refusal> {
        self.demand_create(caller, "USER")?;
        let group = groups.first().copied().unwrap_or(1);
        self.group_of(i32::try_from(group).unwrap_or(i32::MAX))?;
        if let Some(other) = self.users.iter().find(|user| user.setup.name == name) {
            let text = format!("NAME is already taken by USER {}.", other.id);
            return Err(Refusal::plain(Code::Internal, &text));
        }
        if password.is_empty() {
            let text = "Invalid password, it cannot be empty.";
            return Err(Refusal::plain(Code::Internal, text));
        }
        Ok(self.add_user_to(UserSetup::new(name, password), group))
    }

    /// The user, if the caller may do that to him.
    fn user_for(&mut self, caller: &User, id: i32, right: &str) -> Result<&mut User, Refusal> {
        let found = self.users.iter().find(|user| i64::from(user.id) == i64::from(id));
        let found = found.ok_or_else(|| Refusal::no_such_signed("user", id))?;
        let object = Object {
            kind: "USER",
            id: Some(found.id),
            uid: found.id,
            gid: found.gid,
            public: false,
        };
        self.demand(caller, &object, right)?;
        let found = self
            .users
            .iter_mut()
            .find(|user| i64::from(user.id) == i64::from(id));
        found.ok_or_else(|| Refusal::no_such_signed("user", id))
    }

    /// `one.user.update`: plain attributes alone are kept.
    pub fn user_update(&mut self, caller: &User, id: i32, text: &str, how: i32) -> Result<u32, Refusal> {
        let user = self.user_for(caller, id, "MANAGE")?;
        let single = |(key, text): (&String, &String)| (key.clone(), Value::Single(text.clone()));
        let mut whole = Template(user.setup.template.iter().map(single).collect());
        template::update(&mut whole, text, how)?;
        let plain = whole.0.into_iter().filter_map(|(key, value)| match value {
            Value::Single(text) => Some((key, text)),
            Value::Vector(_) => None,
        });
        user.setup.template = plain.filter(|(key, _)| key != "TOKEN_PASSWORD").collect();
        Ok(user.id)
    }

    /// `one.user.passwd`: tokens end with the old password.
    pub fn user_passwd(&mut self, caller: &User, id: i32, password: &str) -> Result<u32, Refusal> {
        let user = self.user_for(caller, id, "MANAGE")?;
        user.setup.password = password.to_owned();
        user.tokens.clear();
        Ok(user.id)
    }

    /// `one.user.delete`: what is his stays there, the rules for him go.
    pub fn user_delete(&mut self, caller: &User, id: i32) -> Result<u32, Refusal> {
        let id = self.user_for(caller, id, "ADMIN")?.id;
        if id == 0 {
            let text = "Cannot delete user. oneadmin cannot be deleted.";
            return Err(Refusal::plain(Code::Action, text));
        }
        self.users.retain(|user| user.id != id);
        self.forget_rules("USER", id);
        Ok(id)
    }

    /// `one.user.quota`: VM quotas alone are kept.
    pub fn user_quota(&mut self, caller: &User, id: i32, text: &str) -> Result<u32, Refusal> {
        let id = u32::try_from(id).unwrap_or(caller.id);
        if !caller.is_admin() {
            return Err(Refusal::unauthorized(
                caller.id,
                &format!("Not authorized to perform ADMIN USER [{id}]"),
            ));
        }
        let template = template::parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        let user = self
            .users
            .iter_mut()
            .find(|user| user.id == id)
            .ok_or_else(|| Refusal::no_such("user", id))?;
        if let Some(pairs) = template.vectors("VM").next() {
            let number = |name: &str| -> f64 {
                pairs
                    .iter()
                    .find(|(key, _)| key == name)
                    .and_then(|(_, text)| text.parse().ok())
                    .unwrap_or(-1.0)
            };
            let whole = |value: f64| value.round() as i64;
            let cpu = number("CPU");
            user.quota = Some(Quota {
                vms: whole(number("VMS")),
                cpu_percent: if cpu < 0.0 { -1 } else { whole(cpu * 100.0) },
                memory_mb: whole(number("MEMORY")),
            });
        }
        Ok(id)
    }

    /// `one.user.login`: makes a token.
    pub fn user_login(
        &mut self,
        caller: &User,
        name: &str,
        token: &str,
        seconds: i32,
    ) -> Result<String, Refusal> {
        let now = self.now();
        let user = self
            .users
            .iter_mut()
            .find(|user| user.setup.name == name)
            .ok_or_else(|| Refusal::plain(Code::NoExists, &format!("Error getting user [{name}].")))?;
        if user.id != caller.id && !caller.is_admin() {
            return Err(Refusal::unauthorized(
                caller.id,
                &format!("Not authorized to perform MANAGE USER [{}]", user.id),
            ));
        }
        let token = if token.is_empty() {
            secret()
        } else {
            token.to_owned()
        };
        let life = u64::try_from(seconds).unwrap_or(u64::from(u32::MAX));
        user.tokens.push((token.clone(), now + life));
        Ok(token)
    }
}
