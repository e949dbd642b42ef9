//! XML-RPC: the bytes of calls and answers.
//!
//! An answer of a large pool is one string of megabytes with every `<` and `&` escaped.
//! So the envelope is read by hand: one pass finds the string's end, one copies it.
//! No DTD, no entities but XML's own five and numbers.

mod decode;
pub(crate) mod xml;

pub use decode::{Answer, Value, answer};

use crate::error::{Class, Error};

/// The largest answer that is taken, in bytes: twenty times what 5,000 VMs need.
pub const LARGEST_ANSWER: usize = 256 * 1024 * 1024;

/// An argument of a call. oned's other types are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg<'a> {
    Text(&'a str),
    Int(i32),
    /// `<boolean>`; oned takes no number for it.
    Bool(bool),
    /// `<array>` of numbers, e.g. the groups of a new user.
    Ints(&'a [i32]),
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("the answer is cut off")]
    CutOff,
    /// It is something else.
    #[error("the answer makes no sense: {0}")]
    Other(String),
}

impl Malformed {
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Malformed::Other(text.into())
    }

    /// As the error of what we wanted to do. An answer that is cut off is a broken
    /// connection: what was asked may be done.
    pub(crate) fn into_error(self, doing: &str) -> Error {
        let class = match &self {
            Malformed::CutOff => Class::Network,
            Malformed::Other(_) => Class::Unknown,
        };
        Error::new(class, format!("cannot {doing}: {self}"))
    }
}

/// The body of a call.
///
/// # Errors
/// A text has a character that XML cannot hold (a control character): the class is
/// [`Class::BadTemplate`], for such texts come from templates.
pub fn call(method: &str, args: &[Arg<'_>]) -> Result<String, Error> {
    let mut body = String::with_capacity(256 + args.iter().map(Arg::capacity).sum::<usize>());
    body.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<methodCall><methodName>");
    escape(method, &mut body)?;
    body.push_str("</methodName><params>");
    for arg in args {
        body.push_str("<param><value>");
        match arg {
            Arg::Text(text) => {
                body.push_str("<string>");
                escape(text, &mut body)?;
                body.push_str("</string>");
            }
            Arg::Int(number) => {
                body.push_str("<int>");
                body.push_str(&number.to_string());
                body.push_str("</int>");
            }
            Arg::Bool(yes) => {
                body.push_str("<boolean>");
                body.push(if *yes { '1' } else { '0' });
                body.push_str("</boolean>");
            }
            Arg::Ints(numbers) => {
                body.push_str("<array><data>");
                for number in *numbers {
                    body.push_str("<value><int>");
                    body.push_str(&number.to_string());
                    body.push_str("</int></value>");
                }
                body.push_str("</data></array>");
            }
        }
        body.push_str("</value></param>");
    }
    body.push_str("</params></methodCall>\n");
    Ok(body)
}

impl Arg<'_> {
    fn capacity(&self) -> usize {
        match self {
            Arg::Text(text) => text.len() + text.len() / 8 + 64,
            Arg::Int(_) | Arg::Bool(_) => 64,
            Arg::Ints(numbers) => 64 + numbers.len() * 48,
        }
    }
}

/// Appends a text so that XML gives it back. A carriage return is written as a number,
/// or a reader would make a line feed of it.
fn escape(text: &str, out: &mut String) -> Result<(), Error> {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                return Err(Error::new(
                    Class::BadTemplate,
                    format!(
                        "a text for OpenNebula has the character {}, which XML cannot hold",
                        c.escape_unicode()
                    ),
                ));
            }
            c => out.push(c),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
