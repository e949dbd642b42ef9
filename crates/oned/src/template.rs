//! Registered VM templates, and templates as callers write them.

use crate::refusal::{Code, Refusal};
use crate::rights::Object;
use crate::xml;
use quick_xml::Reader;
use quick_xml::events::Event;
use thiao_opennebula::syntax::{Template, Value};

/// A registered VM template.
#[derive(Debug, Clone)]
pub struct Registered {
    pub id: u32,
    pub uid: u32,
    pub gid: u32,
    /// The owner's name, and the group's.
    pub owner: (String, String),
    pub name: String,
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

/// What `one.*.update` does to an object's own template: 0 writes it anew, 1 adds to it.
pub fn update(old: &mut Template, text: &str, how: i32) -> Result<(), Refusal> {
    if !(0..=1).contains(&how) {
        return Err(Refusal::plain(Code::Api, "Wrong update type"));
    }
    let wrong = |text: String| Refusal::plain(Code::Internal, &format!("Cannot update template. {text}"));
    let new = parse(text).map_err(wrong)?;
    match how {
        0 => *old = new,
        _ => crate::vm::merge(old, new),
    }
    Ok(())
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
    /// Appends its element, `VMTEMPLATE` with all in it.
    pub fn xml(&self, out: &mut String) {
        out.push_str("<VMTEMPLATE>");
        self.object().xml(out, (&self.owner.0, &self.owner.1), &self.name);
        xml::element(out, "REGTIME", self.time);
        xml::template(out, "TEMPLATE", &self.body);
        out.push_str("</VMTEMPLATE>");
    }

    /// What rules are about.
    pub fn object(&self) -> Object {
        Object {
            kind: "TEMPLATE",
            id: Some(self.id),
            uid: self.uid,
            gid: self.gid,
            public: self.public,
        }
    }
}
