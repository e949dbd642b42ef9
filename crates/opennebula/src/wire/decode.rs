//! Answers: `[true, value, ...]`, `[false, message, code, ...]`, or a `<fault>`.

use super::{LARGEST_ANSWER, Malformed};
use memchr::{memchr, memmem};
use std::borrow::Cow;

/// What oned answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done; what the call gives.
    Done(Value),
    /// It was refused. That does not prove that nothing was done.
    Refused {
        /// One of OpenNebula's error codes, such as 0x400.
        code: i64,
        message: String,
    },
    /// The call does not exist (-506), or its arguments were wrong (-501).
    Fault {
        /// The number that xmlrpc-c has for it.
        code: i64,
        message: String,
    },
}

/// A value of XML-RPC, as far as oned uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `<string>`, or no type at all.
    Text(String),
    /// `<i4>`, `<int>`, or `<i8>`.
    Int(i64),
    Bool(bool),
    Array(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Int(_) => "a number",
            Value::Bool(_) => "a yes or no",
            Value::Array(_) => "a list",
            Value::Struct(_) => "a record",
        }
    }
}

/// How deep values may be in each other; oned's own answers need 1, a multicall 3.
const DEEPEST: usize = 16;
/// How many values an answer may have; oned's own have 5.
const MOST_VALUES: usize = 100_000;

/// Reads the body of an answer.
///
/// # Errors
/// What is cut off, larger than [`LARGEST_ANSWER`], not XML-RPC, or has a DTD.
pub fn answer(body: &[u8]) -> Result<Answer, Malformed> {
    if body.len() > LARGEST_ANSWER {
        return Err(Malformed::other(format!(
            "it is larger than {LARGEST_ANSWER} bytes"
        )));
    }
    // A VM's texts come from people and drivers: one bad byte must not hide all VMs.
    let body = String::from_utf8_lossy(body);
    let mut reader = Reader {
        rest: &body,
        values: 0,
    };
    reader.prolog()?;
    reader.open("methodResponse")?;
    let is_fault = reader.opens("fault")?;
    let value = if is_fault {
        let value = reader.value(0)?;
        reader.close("fault")?;
        value
    } else {
        reader.open("params")?;
        reader.open("param")?;
        let value = reader.value(0)?;
        reader.close("param")?;
        reader.close("params")?;
        value
    };
    reader.close("methodResponse")?;
    if !reader.rest.trim_start().is_empty() {
        return Err(Malformed::other("something follows its end"));
    }
    if is_fault { fault(value) } else { outcome(value) }
}

fn fault(value: Value) -> Result<Answer, Malformed> {
    let Value::Struct(members) = value else {
        return Err(Malformed::other("a fault without a record"));
    };
    let mut code = None;
    let mut message = None;
    for (name, value) in members {
        match (name.as_str(), value) {
            ("faultCode", Value::Int(number)) => code = Some(number),
            ("faultString", Value::Text(text)) => message = Some(text),
            _ => {}
        }
    }
    match (code, message) {
        (Some(code), Some(message)) => Ok(Answer::Fault { code, message }),
        _ => Err(Malformed::other("a fault without code and text")),
    }
}

fn outcome(value: Value) -> Result<Answer, Malformed> {
    let Value::Array(values) = value else {
        return Err(Malformed::other(format!("{} in place of a list", value.kind())));
    };
    let mut values = values.into_iter();
    match (values.next(), values.next(), values.next()) {
        (Some(Value::Bool(true)), Some(value), _) => Ok(Answer::Done(value)),
        (Some(Value::Bool(false)), Some(Value::Text(message)), Some(Value::Int(code))) => {
            Ok(Answer::Refused { code, message })
        }
        _ => Err(Malformed::other("a list that no oned gives")),
    }
}

/// What is left to read. Every step either shortens it or is an error.
struct Reader<'a> {
    rest: &'a str,
    values: usize,
}

impl<'a> Reader<'a> {
    /// Skips the XML declaration and comments; refuses a DTD.
    fn prolog(&mut self) -> Result<(), Malformed> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("<?") {
                self.skip_past("?>")?;
            } else if self.rest.starts_with("<!--") {
                self.skip_past("-->")?;
            } else if self.rest.starts_with("<!") {
                return Err(Malformed::other("it has a DTD"));
            } else {
                return Ok(());
            }
        }
    }

    fn skip_past(&mut self, end: &str) -> Result<(), Malformed> {
        let at = memmem::find(self.rest.as_bytes(), end.as_bytes()).ok_or(Malformed::CutOff)?;
        self.rest = self.rest.get(at + end.len()..).ok_or(Malformed::CutOff)?;
        Ok(())
    }

    /// The next tag, without taking it: what stands between `<` and `>`.
    fn tag(&mut self) -> Result<&'a str, Malformed> {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix('<') {
            Some(rest) => match memchr(b'>', rest.as_bytes()) {
                Some(end) => Ok(rest.get(..end).unwrap_or_default().trim_end()),
                None => Err(self.beginning()),
            },
            None => Err(self.beginning()),
        }
    }

    /// Why the rest does not go on as it should.
    fn beginning(&self) -> Malformed {
        let start: String = self.rest.chars().take(40).collect();
        if start.is_empty() || (start.starts_with('<') && !self.rest.contains('>')) {
            Malformed::CutOff
        } else {
            Malformed::other(format!("it goes on with {start:?}"))
        }
    }

    /// Takes the tag that [`Self::tag`] showed.
    fn take(&mut self) -> Result<(), Malformed> {
        self.skip_past(">")
    }

    /// Takes that opening tag if it is next.
    fn opens(&mut self, name: &str) -> Result<bool, Malformed> {
        if self.tag()? != name {
            return Ok(false);
        }
        self.take()?;
        Ok(true)
    }

    fn open(&mut self, name: &str) -> Result<(), Malformed> {
        if self.opens(name)? {
            Ok(())
        } else {
            Err(self.beginning())
        }
    }

    fn close(&mut self, name: &str) -> Result<(), Malformed> {
        if self.tag()?.strip_prefix('/') == Some(name) {
            self.take()
        } else {
            Err(self.beginning())
        }
    }

    /// Reads one `<value>...</value>`, which is this deep in others.
    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.values += 1;
        if depth > DEEPEST || self.values > MOST_VALUES {
            return Err(Malformed::other("too many values in each other"));
        }
        self.open("value")?;
        let value = match self.rest.trim_start().strip_prefix('<') {
            // No type at all is a string.
            None => Value::Text(self.text()?),
            Some(rest) if rest.starts_with('/') => Value::Text(self.text()?),
            Some(_) => self.typed(depth)?,
        };
        self.close("value")?;
        Ok(value)
    }

    /// What stands in a `<value>`: the element that names the type.
    fn typed(&mut self, depth: usize) -> Result<Value, Malformed> {
        let kind = self.tag()?;
        self.take()?;
        let value = match kind {
            "string" => Value::Text(self.text()?),
            "string/" => return Ok(Value::Text(String::new())),
            "i4" | "int" | "i8" => Value::Int(self.number()?),
            "boolean" => Value::Bool(self.number()? != 0),
            "array" => Value::Array(self.array(depth)?),
            "struct" => Value::Struct(self.members(depth)?),
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Malformed::other(format!("a value of type {other:?}")));
            }
        };
        self.close(kind)?;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        if self.opens("data/")? {
            return Ok(values);
        }
        self.open("data")?;
        while self.tag()? == "value" {
            values.push(self.value(depth + 1)?);
        }
        self.close("data")?;
        Ok(values)
    }

    fn members(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Malformed> {
        let mut members = Vec::new();
        while self.opens("member")? {
            self.open("name")?;
            let name = self.text()?;
            self.close("name")?;
            members.push((name, self.value(depth + 1)?));
            self.close("member")?;
        }
        Ok(members)
    }

    fn number(&mut self) -> Result<i64, Malformed> {
        let text = self.text()?;
        let text = text.trim();
        text.parse().map_err(|_| {
            Malformed::other(format!(
                "{:?} is no number",
                text.chars().take(40).collect::<String>()
            ))
        })
    }

    /// The text up to the next tag, with its entities resolved.
    fn text(&mut self) -> Result<String, Malformed> {
        let end = memchr(b'<', self.rest.as_bytes()).ok_or(Malformed::CutOff)?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or(Malformed::CutOff)?;
        self.rest = rest;
        Ok(unescape(text)?.into_owned())
    }
}

/// Resolves XML's own five entities and numbers; there are no others.
pub(super) fn unescape(text: &str) -> Result<Cow<'_, str>, Malformed> {
    let Some(mut at) = memchr(b'&', text.as_bytes()) else {
        return Ok(Cow::Borrowed(text));
    };
    // Every entity is longer than what it stands for.
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (before, entity) = rest.split_at_checked(at).ok_or(Malformed::CutOff)?;
        out.push_str(before);
        let (c, after) = entity_at(entity)?;
        out.push(c);
        rest = after;
        match memchr(b'&', rest.as_bytes()) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// The character that a text beginning with `&` begins with, and what follows it.
fn entity_at(text: &str) -> Result<(char, &str), Malformed> {
    // By far the most frequent ones.
    if let Some(rest) = text.strip_prefix("&lt;") {
        return Ok(('<', rest));
    }
    if let Some(rest) = text.strip_prefix("&gt;") {
        return Ok(('>', rest));
    }
    let name = text.get(1..).unwrap_or_default();
    // The longest is a number with leading zeros.
    let known = name.bytes().take(12).position(|b| b == b';').and_then(|end| {
        let (name, rest) = (name.get(..end)?, name.get(end + 1..)?);
        Some((entity(name)?, rest))
    });
    known.ok_or_else(|| {
        let start: String = text.chars().take(12).collect();
        Malformed::other(format!("{start:?} is no entity of XML"))
    })
}

/// The character that the entity of that name stands for.
pub(super) fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}
