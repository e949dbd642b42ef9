//! Registered VM templates, and templates as callers write them.

use crate::user::User;
use crate::world::{Code, Refusal, World};
use crate::xml;
use quick_xml::Reader;
use quick_xml::events::Event;
use thiao_opennebula::syntax::{Template, Value};

/// A registered VM template.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Id.
    pub id: u32,
    /// Its owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// The owner's name, and the group's.
    pub owner: (String, &'static str),
    /// Its name.
    pub name: String,
    /// What it says.
    pub body: Template,
    /// Whether all users may use it.
    pub public: bool,
    /// When it was made.
    pub time: u64,
}

/// Reads a template as text or XML. Err: oned's words.
pub fn parse(text: &str) -> Result<Template, String> {
    if text.trim_start().starts_with('<') {
        return parse_xml(text);
    }
    if text.trim().is_empty() {
        return Ok(Template::default());
    }
    Template::parse(text).map_err(|error| format!("Parse error: syntax error, {}", error.text))
}

/// `<TEMPLATE><KEY>text</KEY><KEY><SUB>text</SUB></KEY></TEMPLATE>`; the root's name does not
/// matter. Values that are empty are overlooked, as by oned.
fn parse_xml(text: &str) -> Result<Template, String> {
    let wrong = || "Parse error: XML Error".to_owned();
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut found = Template::default();
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut value = String::new();
    loop {
        match reader.read_event().map_err(|_| wrong())? {
            Event::Start(tag) => {
                path.push(tag.name().as_ref().to_ascii_uppercase());
                value.clear();
            }
            Event::Text(text) => value.push_str(&text),
            Event::CData(text) => value.push_str(&text),
            Event::GeneralRef(entity) => value.push(match &*entity {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "quot" => '"',
                "apos" => '\'',
                _ => entity.resolve_char_ref().ok().flatten().ok_or_else(wrong)?,
            }),
            Event::End(_) => {
                let name = path.pop().ok_or_else(wrong)?;
                match path.len() {
                    2 if !value.trim().is_empty() => pairs.push((name, std::mem::take(&mut value))),
                    1 if !pairs.is_empty() => found.0.push((name, Value::Vector(std::mem::take(&mut pairs)))),
                    1 if !value.trim().is_empty() => {
                        found.0.push((name, Value::Single(std::mem::take(&mut value))))
                    }
                    _ => {}
                }
                value.clear();
            }
            Event::Eof if path.is_empty() => return Ok(found),
            Event::Eof | Event::DocType(_) => return Err(wrong()),
            Event::Empty(_) | Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
        }
    }
}

impl Registered {
    fn xml(&self, out: &mut String) {
        out.push_str("<VMTEMPLATE>");
        xml::element(out, "ID", self.id);
        xml::element(out, "UID", self.uid);
        xml::element(out, "GID", self.gid);
        xml::element(out, "UNAME", &self.owner.0);
        xml::element(out, "GNAME", self.owner.1);
        xml::element(out, "NAME", &self.name);
        xml::permissions(out, self.public);
        xml::element(out, "REGTIME", self.time);
        xml::template(out, "TEMPLATE", &self.body);
        out.push_str("</VMTEMPLATE>");
    }

    fn used_by(&self, user: &User) -> bool {
        user.is_admin() || self.public || self.uid == user.id
    }
}

impl World {
    /// `one.templatepool.info`.
    pub fn templatepool_info(&self, user: &User) -> String {
        let mut out = String::from("<VMTEMPLATE_POOL>");
        for template in self
            .templates
            .values()
            .rev()
            .filter(|template| template.used_by(user))
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
        if found.used_by(user) {
            return Ok(found);
        }
        Err(Refusal::unauthorized(
            user.id,
            &format!("Not authorized to perform USE TEMPLATE [{id}]"),
        ))
    }

    /// `one.template.info`.
    pub fn template_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let mut out = String::new();
        self.used_template(user, id)?.xml(&mut out);
        Ok(out)
    }

    /// `one.template.allocate`.
    pub fn template_allocate(&mut self, user: &User, text: &str) -> Result<u32, Refusal> {
        let mut body = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
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
        let owner = (user.setup.name.clone(), user.group());
        Ok(self.add_template(user.id, user.gid, owner, name, body, false))
    }

    /// Registers a template.
    pub fn add_template(
        &mut self,
        uid: u32,
        gid: u32,
        owner: (String, &'static str),
        name: String,
        body: Template,
        public: bool,
    ) -> u32 {
        let id = self.next_template;
        self.next_template += 1;
        let time = self.now();
        self.templates.insert(
            id,
            Registered {
                id,
                uid,
                gid,
                owner,
                name,
                body,
                public,
                time,
            },
        );
        id
    }

    /// `one.template.delete`.
    pub fn template_delete(&mut self, user: &User, id: i32) -> Result<u32, Refusal> {
        let found = self.used_template(user, id)?;
        let (id, uid) = (found.id, found.uid);
        if !user.is_admin() && uid != user.id {
            return Err(Refusal::unauthorized(
                user.id,
                &format!("Not authorized to perform MANAGE TEMPLATE [{id}]"),
            ));
        }
        self.templates.remove(&id);
        Ok(id)
    }
}
