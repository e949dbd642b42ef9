//! Calls about users: who calls, and what he may do.

use crate::front_end::{FrontEnd, secret};
use crate::quota::{self, Owner, Quota};
use crate::refusal::{Code, Refusal};
use crate::settings::UserSetup;
use crate::template;
use crate::user::{Need, User};
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
        if user.is_admin() {
            return Ok(());
        }
        let need = user.need(operation);
        let allowed = match need {
            Need::Use | Need::Manage => {
                found.uid == user.id || (user.setup.vm_admin && found.gid == user.gid)
            }
            Need::Admin => user.setup.vm_admin && found.gid == user.gid,
        };
        if allowed {
            return Ok(());
        }
        Err(Refusal::unauthorized(
            user.id,
            &format!("Not authorized to perform {} VM [{vm}]", need.name()),
        ))
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
        xml::element(out, "GNAME", user.group());
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
    pub fn user_allocate(&mut self, caller: &User, name: &str, password: &str) -> Result<u32, Refusal> {
        if !caller.is_admin() {
            return Err(Refusal::unauthorized(
                caller.id,
                "Not authorized to perform CREATE USER",
            ));
        }
        if self.users.iter().any(|user| user.setup.name == name) {
            return Err(Refusal::plain(
                Code::Internal,
                &format!("NAME is already taken by USER {name}"),
            ));
        }
        Ok(self.add_user(UserSetup::new(name, password)))
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
