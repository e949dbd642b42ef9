//! Calls about registered templates.

use crate::front_end::FrontEnd;
use crate::refusal::{Code, Refusal};
use crate::template::{Registered, parse, update};
use crate::user::User;

impl FrontEnd {
    /// What `one.templatepool.info` answers, in XML.
    pub fn templatepool_info(&self, user: &User) -> String {
        let mut out = String::from("<VMTEMPLATE_POOL>");
        for template in self
            .templates
            .values()
            .rev()
            .filter(|template| self.allowed(user, &template.object(), "USE"))
        {
            template.xml(&mut out);
        }
        out.push_str("</VMTEMPLATE_POOL>");
        out
    }

    /// The template, if the user may use it.
    pub fn used_template(&self, user: &User, id: i32) -> Result<&Registered, Refusal> {
        let found = u32::try_from(id).ok().and_then(|id| self.templates.get(&id));
        let found = found.ok_or_else(|| Refusal::no_such_signed("virtual machine template", id))?;
        self.demand(user, &found.object(), "USE")?;
        Ok(found)
    }

    /// What `one.template.info` answers, in XML.
    pub fn template_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::new();
        self.used_template(user, id)?.xml(&mut out);
        Ok(out)
    }

    /// Answers `one.template.allocate`, with the new template's id.
    pub fn template_allocate(&mut self, user: &User, text: &str) -> Result<u32, Refusal> {
        let mut body = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        self.demand_create(user, "TEMPLATE")?;
        let name = body.get("NAME").map(str::to_owned);
        let name = name.ok_or_else(|| Refusal::plain(Code::Internal, "No NAME in template"))?;
        body.0.retain(|(key, _)| key != "NAME");
        let taken = self
            .templates
            .values()
            .find(|other| other.name == name && other.uid == user.id);
        if let Some(other) = taken {
            return Err(Refusal::plain(
                Code::Internal,
                &format!("NAME is already taken by TEMPLATE {}.", other.id),
            ));
        }
        let owner = (user.setup.name.clone(), user.gname.clone());
        Ok(self.add_template(user.id, user.gid, owner, name, body, false))
    }

    /// Answers `one.template.delete`, with the template's id.
    pub fn template_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let id = self.managed_template(user, id)?;
        self.templates.remove(&id);
        self.forget_rules("TEMPLATE", id);
        Ok(id)
    }

    fn managed_template(&self, user: &User, id: i32) -> Result<u32, Refusal> {
        let found = u32::try_from(id).ok().and_then(|id| self.templates.get(&id));
        let found = found.ok_or_else(|| Refusal::no_such_signed("virtual machine template", id))?;
        self.demand(user, &found.object(), "MANAGE")?;
        Ok(found.id)
    }

    /// Answers `one.template.update`, with the template's id.
    pub fn template_update(&mut self, user: &User, id: i32, text: &str, how: i32) -> Result<u32, Refusal> {
        let id = self.managed_template(user, id)?;
        if let Some(template) = self.templates.get_mut(&id) {
            update(&mut template.body, text, how)?;
        }
        Ok(id)
    }

    /// `one.template.chmod`, of which only the USE right of others (OTHER_U) is kept; -1 leaves it.
    pub fn template_chmod(&mut self, user: &User, id: i32, others: i32) -> Result<u32, Refusal> {
        let id = self.managed_template(user, id)?;
        if let (Some(found), 0..) = (self.templates.get_mut(&id), others) {
            found.public = others == 1;
        }
        Ok(id)
    }
}
