//! OpenNebula's template syntax: `KEY = "value"` and `KEY = [ SUB = "value", ... ]`.
//!
//! Read from oned's own grammar (7.4, `src/parsers/template_parser.l` and
//! `template_syntax.y`). Ours is stricter where oned's lexer guesses; it never
//! gives a text another meaning.
//!
//! - Names are letters, digits and `_`; oned writes them in capitals, and puts
//!   `ONE_` before one that is no XML name.
//! - Of a quoted value only `\"` is special (a quote): `\\` stays two
//!   backslashes. It may have several lines. A quote after a backslash never
//!   closes, so no quoted value can end with a backslash; oned trims blanks, so
//!   a blank after it helps.
//! - An unquoted value has no blanks and none of `= # , [ ]`.
//! - `KEY =` at a line's end is the empty value. `#` begins a comment.
//! - Of a repeated name within `[ ]` the first counts.
//! - Values hold no `]]>` (oned keeps them in CDATA sections) and no `@^_^@`
//!   (oned's own separator).

use crate::error::{Class, Error};

/// The longest text that is read, in bytes.
pub const MAX_TEXT: usize = 1024 * 1024;

/// What oned cannot keep within a value.
const CDATA_END: &str = "]]>";

/// What oned puts between the attributes of a CONTEXT while it fills in variables
/// (`VectorAttribute::magic_sep`): within a value it would begin another attribute.
const SEPARATOR: &str = "@^_^@";

/// A template: attributes in order; names may repeat (DISK, NIC).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub Vec<(String, Value)>);

/// What an attribute holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One text: `NAME = value`.
    Single(String),
    /// Texts with names: `NAME = [ A = b ]`.
    Vector(Vec<(String, String)>),
}

impl Template {
    /// Reads the textual form; comments are dropped, names become capitals,
    /// values are trimmed: all as oned does.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_TEXT {
            return Err(bad(format!(
                "the template has {} bytes; at most {MAX_TEXT} are read",
                text.len()
            )));
        }
        Parser::new(text).template()
    }

    /// Writes the XML form (`<TEMPLATE>...`), which oned takes wherever it takes the
    /// textual one (`Template::parse_str_or_xml`, all versions). No value can become
    /// an attribute: what XML cannot hold is replaced; [`Template::check`] finds it
    /// before. oned overlooks empty values in this form.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = String::from("<TEMPLATE>");
        for (name, value) in &self.0 {
            let name = canonical(name);
            xml.push('<');
            xml.push_str(&name);
            xml.push('>');
            match value {
                Value::Single(text) => escape_xml(text, &mut xml),
                Value::Vector(pairs) => {
                    for (sub, text) in pairs {
                        let sub = canonical(sub);
                        xml.push('<');
                        xml.push_str(&sub);
                        xml.push('>');
                        escape_xml(text, &mut xml);
                        xml.push_str("</");
                        xml.push_str(&sub);
                        xml.push('>');
                    }
                }
            }
            xml.push_str("</");
            xml.push_str(&name);
            xml.push('>');
        }
        xml.push_str("</TEMPLATE>");
        xml
    }

    /// Writes the textual form. No value can become an attribute.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            text.push_str(&canonical(name));
            text.push_str(" = ");
            match value {
                Value::Single(value) => quote(value, &mut text),
                Value::Vector(pairs) => {
                    text.push('[');
                    for (index, (sub, value)) in pairs.iter().enumerate() {
                        text.push_str(if index == 0 { " " } else { ",\n    " });
                        text.push_str(&canonical(sub));
                        text.push_str(" = ");
                        quote(value, &mut text);
                    }
                    text.push_str(" ]");
                }
            }
            text.push('\n');
        }
        text
    }

    /// Whether every name and value reaches oned as it is.
    pub fn check(&self) -> Result<(), Error> {
        for (name, value) in &self.0 {
            check_name(name)?;
            match value {
                Value::Single(text) => check_value(name, text)?,
                Value::Vector(pairs) => {
                    for (sub, text) in pairs {
                        check_name(sub)?;
                        check_value(&format!("{name}/{sub}"), text)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The first single attribute of that name, in capitals.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(key, value)| match value {
            Value::Single(text) if key == name => Some(text.as_str()),
            Value::Single(_) | Value::Vector(_) => None,
        })
    }

    /// All vector attributes of that name.
    pub fn vectors<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [(String, String)]> {
        self.0.iter().filter_map(move |(key, value)| match value {
            Value::Vector(pairs) if key == name => Some(pairs.as_slice()),
            Value::Single(_) | Value::Vector(_) => None,
        })
    }

    /// Whether there is an attribute of that name, in capitals.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Removes all attributes of that name, in capitals.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// Puts a single attribute in the place of all others of its name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), Value::Single(value.into())));
    }

    /// Puts a vector attribute in the place of all others of its name.
    pub fn set_vector(&mut self, name: &str, pairs: Vec<(String, String)>) {
        self.remove(name);
        self.0.push((name.to_owned(), Value::Vector(pairs)));
    }
}

fn bad(text: String) -> Error {
    Error::new(Class::BadTemplate, text)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A name as oned keeps it; a character that no name has becomes `_`.
fn canonical(name: &str) -> String {
    let mut name: String = name
        .chars()
        .map(|c| {
            if is_name_char(c) {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || name.starts_with("XML") {
        name.insert_str(0, "ONE_");
    }
    name
}

/// Blanks as oned trims them.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace())
}

/// XML 1.0 has no way to write these.
fn is_unwritable(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{7f}'..='\u{9f}'))
        || matches!(c, '\u{fffe}' | '\u{ffff}')
}

fn check_name(name: &str) -> Result<(), Error> {
    if canonical(name) == name {
        Ok(())
    } else {
        Err(bad(format!(
            "{name:?} is not an attribute name: use capitals, digits and _, with a letter first"
        )))
    }
}

fn check_value(name: &str, text: &str) -> Result<(), Error> {
    for special in [CDATA_END, SEPARATOR] {
        if text.contains(special) {
            return Err(bad(format!(
                "the value of {name} holds {special}, which OpenNebula cannot keep: encode it, e.g. in base64"
            )));
        }
    }
    match text.chars().find(|&c| is_unwritable(c)) {
        Some(c) => Err(bad(format!(
            "the value of {name} holds the control character {c:?}: remove it, or encode the value in base64"
        ))),
        None => Ok(()),
    }
}

fn escape_xml(text: &str, xml: &mut String) {
    for c in text.replace(SEPARATOR, "@^_^ @").chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            // A plain one would be read as a line's end.
            '\r' => xml.push_str("&#13;"),
            c if is_unwritable(c) => xml.push('\u{fffd}'),
            c => xml.push(c),
        }
    }
}

fn quote(value: &str, text: &mut String) {
    let value = trim(value)
        .replace(CDATA_END, "]] >")
        .replace(SEPARATOR, "@^_^ @")
        .replace('\0', "\u{fffd}");
    text.push('"');
    text.push_str(&value.replace('"', "\\\""));
    if value.ends_with('\\') {
        // Else the backslash would keep the quote from closing; oned trims the blank away.
        text.push(' ');
    }
    text.push('"');
}

/// Reads one text from its start to its end, and knows where it is.
struct Parser<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

/// What an `=` is followed by.
enum Right {
    Text(String),
    /// Nothing more on the line.
    Empty,
    /// `[`: a vector attribute begins.
    Open,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: 1,
            column: 1,
        }
    }

    fn fail<T>(&self, text: &str) -> Result<T, Error> {
        Err(bad(format!("line {}, column {}: {text}", self.line, self.column)))
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// What stands here, for people.
    fn seen(&self) -> String {
        match self.peek() {
            None => "the end of the template".to_owned(),
            Some(c) => format!("{c:?}"),
        }
    }

    /// Takes `bytes` bytes, which end between characters.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.rest.starts_with(c);
        if found {
            self.take(c.len_utf8());
        }
        found
    }

    /// Blanks, line ends, comments.
    fn skip(&mut self) {
        loop {
            self.take_while(|c| c.is_ascii_whitespace());
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn template(mut self) -> Result<Template, Error> {
        let mut attributes = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() {
                return Ok(Template(attributes));
            }
            let name = self.name()?;
            let value = match self.right(&name)? {
                Right::Text(text) => Value::Single(text),
                Right::Empty => Value::Single(String::new()),
                Right::Open => Value::Vector(self.pairs(&name)?),
            };
            attributes.push((canonical(&name), value));
        }
    }

    fn name(&mut self) -> Result<String, Error> {
        if !self.peek().is_some_and(is_name_char) {
            return self.fail(&format!(
                "expected an attribute's name (letters, digits, _), not {}",
                self.seen()
            ));
        }
        Ok(self.take_while(is_name_char).to_owned())
    }

    /// What is on the right of the name: the sign `=` and the begin of what follows.
    fn right(&mut self, name: &str) -> Result<Right, Error> {
        self.take_while(is_blank);
        if !self.eat('=') {
            return self.fail(&format!("expected = after {name}, not {}", self.seen()));
        }
        self.take_while(is_blank);
        match self.peek() {
            None | Some('\n') => Ok(Right::Empty),
            Some('[') => {
                self.take(1);
                Ok(Right::Open)
            }
            Some('"') => Ok(Right::Text(self.quoted(name)?)),
            Some('#') => self.fail(&format!(
                "{name} has no value: write \"\" for an empty one, or put a value that begins with # in quotes"
            )),
            Some(_) => {
                let text = self
                    .take_while(|c| !c.is_ascii_whitespace() && !matches!(c, '=' | '#' | ',' | '[' | ']'))
                    .to_owned();
                if text.is_empty() || !self.ends_a_value() {
                    return self.fail(&format!(
                        "{} cannot stand here: put the value of {name} in quotes",
                        self.seen()
                    ));
                }
                self.value(name, &text).map(Right::Text)
            }
        }
    }

    /// Whether what follows cannot be more of an unquoted value.
    fn ends_a_value(&self) -> bool {
        self.peek()
            .is_none_or(|c| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '#'))
    }

    fn quoted(&mut self, name: &str) -> Result<String, Error> {
        let body = self.rest.get(1..).unwrap_or_default();
        let bytes = body.as_bytes();
        // The first quote that has no backslash before it.
        let end = body
            .match_indices('"')
            .map(|(at, _)| at)
            .find(|&at| at.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'\\'));
        let Some(end) = end else {
            return self.fail(&format!(
                "the quote before the value of {name} is never closed (a quote after a backslash does not close)"
            ));
        };
        let text = body.get(..end).unwrap_or_default().replace("\\\"", "\"");
        self.value(name, &text)?;
        self.take(end + 2);
        if !self.ends_a_value() {
            return self.fail(&format!(
                "{} cannot follow the closing quote of {name}: write \\\" for a quote within a value",
                self.seen()
            ));
        }
        self.value(name, &text)
    }

    fn value(&self, name: &str, text: &str) -> Result<String, Error> {
        match check_value(name, text) {
            Ok(()) => Ok(trim(text).to_owned()),
            Err(error) => self.fail(&error.text),
        }
    }

    /// What is between `[` and `]`.
    fn pairs(&mut self, of: &str) -> Result<Vec<(String, String)>, Error> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        self.skip();
        if self.eat(']') {
            return Ok(pairs);
        }
        loop {
            self.skip();
            if self.rest.starts_with(']') {
                return self.fail(&format!(
                    "an attribute of {of} is missing after the comma: remove the comma"
                ));
            }
            if self.rest.is_empty() {
                return self.fail(&format!("{of} = [ is never closed: add ]"));
            }
            let name = self.name()?;
            let text = match self.right(&name)? {
                Right::Text(text) => text,
                Right::Empty => return self.fail(&format!("{name} in {of} has no value: write \"\"")),
                Right::Open => {
                    return self.fail(&format!("{name} in {of} cannot hold [ ]: one level is all"));
                }
            };
            let name = canonical(&name);
            if pairs.iter().all(|(known, _)| *known != name) {
                pairs.push((name, text));
            }
            self.skip();
            if self.eat(']') {
                return Ok(pairs);
            }
            if self.rest.is_empty() {
                return self.fail(&format!("{of} = [ is never closed: add ]"));
            }
            if !self.eat(',') {
                return self.fail(&format!("expected , or ] in {of}, not {}", self.seen()));
            }
        }
    }
}

/// Blanks within a line; a carriage return before the line's end is one.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests;
