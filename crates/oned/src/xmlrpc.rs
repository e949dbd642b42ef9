//! The server's side of XML-RPC, as oned speaks it.

use quick_xml::Reader;
use quick_xml::events::Event;
use std::fmt::Write as _;

/// A value of a call or an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Int(i32),
    Long(i64),
    Bool(bool),
    Double(f64),
    /// `string`, or a value without a type.
    Text(String),
    /// A text whose `&`, `<` and `>` are escaped already: big pools are kept that way.
    Escaped(String),
    Array(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

/// A call that could not be executed at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// xmlrpc-c's code, e.g. -506.
    pub code: i32,
    pub text: String,
}

impl Fault {
    /// A fault with xmlrpc-c's code for it.
    pub fn new(code: i32, text: impl Into<String>) -> Self {
        Fault {
            code,
            text: text.into(),
        }
    }

    fn parse(text: &str) -> Self {
        Fault::new(-503, format!("Call XML not a proper XML-RPC call. {text}"))
    }
}

/// How deep values may be nested: enough for `system.multicall`.
const DEPTH: usize = 16;

/// Reads a call: the method's name and its parameters.
pub fn parse_call(body: &str) -> Result<(String, Vec<Value>), Fault> {
    let mut parser = Parser {
        reader: Reader::from_str(body),
    };
    parser.open("methodCall")?;
    let method = parser.text_of("methodName")?;
    let mut params = Vec::new();
    match parser.next()? {
        Token::Open(name) if name == "params" => {}
        Token::Close(name) if name == "methodCall" => return Ok((method, params)),
        Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
            return Err(Fault::parse("no parameters"));
        }
    }
    loop {
        match parser.next()? {
            Token::Open(name) if name == "param" => {
                parser.open("value")?;
                params.push(parser.value(DEPTH)?);
                parser.close("param")?;
            }
            Token::Close(name) if name == "params" => return Ok((method, params)),
            Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
                return Err(Fault::parse("parameters do not end"));
            }
        }
    }
}

enum Token {
    Open(String),
    Close(String),
    Text(String),
    End,
}

struct Parser<'a> {
    reader: Reader<&'a [u8]>,
}

impl Parser<'_> {
    /// The next token that is not only white space.
    fn next(&mut self) -> Result<Token, Fault> {
        loop {
            match self.raw()? {
                Token::Text(text) if text.trim().is_empty() => {}
                token => return Ok(token),
            }
        }
    }

    fn raw(&mut self) -> Result<Token, Fault> {
        loop {
            let token = match self
                .reader
                .read_event()
                .map_err(|error| Fault::parse(&error.to_string()))?
            {
                Event::Start(tag) => Token::Open(tag.name().as_ref().to_owned()),
                Event::End(tag) => Token::Close(tag.name().as_ref().to_owned()),
                Event::Text(text) => Token::Text(text.into_inner().into_owned()),
                Event::CData(text) => Token::Text(text.into_inner().into_owned()),
                Event::GeneralRef(entity) => {
                    let plain = match &*entity {
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "amp" => Some('&'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => entity.resolve_char_ref().ok().flatten(),
                    };
                    Token::Text(plain.ok_or_else(|| Fault::parse("unknown entity"))?.to_string())
                }
                Event::Eof => Token::End,
                // Nobody who calls us nests an empty element.
                Event::Empty(_) => return Err(Fault::parse("empty element")),
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => continue,
                Event::DocType(_) => return Err(Fault::parse("document types are not taken")),
            };
            return Ok(token);
        }
    }

    fn open(&mut self, name: &str) -> Result<(), Fault> {
        match self.next()? {
            Token::Open(found) if found == name => Ok(()),
            Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
                Err(Fault::parse(&format!("<{name}> expected")))
            }
        }
    }

    fn close(&mut self, name: &str) -> Result<(), Fault> {
        match self.next()? {
            Token::Close(found) if found == name => Ok(()),
            Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
                Err(Fault::parse(&format!("</{name}> expected")))
            }
        }
    }

    fn text_of(&mut self, name: &str) -> Result<String, Fault> {
        self.open(name)?;
        self.text_until(name)
    }

    /// All text up to the closing tag.
    fn text_until(&mut self, name: &str) -> Result<String, Fault> {
        let mut text = String::new();
        loop {
            match self.raw()? {
                Token::Text(more) => text.push_str(&more),
                Token::Close(found) if found == name => return Ok(text),
                Token::Open(_) | Token::Close(_) | Token::End => {
                    return Err(Fault::parse(&format!("</{name}> expected")));
                }
            }
        }
    }

    /// What stands after `<value>`, including its end.
    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| Fault::parse("nested too deep"))?;
        let mut untyped = String::new();
        let name = loop {
            match self.raw()? {
                Token::Text(more) => untyped.push_str(&more),
                Token::Close(_) => return Ok(Value::Text(untyped)),
                Token::Open(name) => break name,
                Token::End => return Err(Fault::parse("</value> expected")),
            }
        };
        let value = match name.as_str() {
            "array" => self.array(depth)?,
            "struct" => self.members(depth)?,
            _ => {
                let text = self.text_until(&name)?;
                scalar(&name, text)?
            }
        };
        self.close("value")?;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Value, Fault> {
        self.open("data")?;
        let mut values = Vec::new();
        loop {
            match self.next()? {
                Token::Open(name) if name == "value" => values.push(self.value(depth)?),
                Token::Close(name) if name == "data" => break,
                Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
                    return Err(Fault::parse("</data> expected"));
                }
            }
        }
        self.close("array")?;
        Ok(Value::Array(values))
    }

    fn members(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut members = Vec::new();
        loop {
            match self.next()? {
                Token::Open(name) if name == "member" => {
                    let key = self.text_of("name")?;
                    self.open("value")?;
                    members.push((key, self.value(depth)?));
                    self.close("member")?;
                }
                Token::Close(name) if name == "struct" => return Ok(Value::Struct(members)),
                Token::Open(_) | Token::Close(_) | Token::Text(_) | Token::End => {
                    return Err(Fault::parse("</struct> expected"));
                }
            }
        }
    }
}

fn scalar(name: &str, text: String) -> Result<Value, Fault> {
    let bad = || Fault::parse(&format!("bad {name}"));
    let trimmed = text.trim();
    Ok(match name {
        "i4" | "int" => Value::Int(trimmed.parse().map_err(|_| bad())?),
        "i8" => Value::Long(trimmed.parse().map_err(|_| bad())?),
        "boolean" => match trimmed {
            "0" => Value::Bool(false),
            "1" => Value::Bool(true),
            _ => return Err(bad()),
        },
        "double" => Value::Double(trimmed.parse().map_err(|_| bad())?),
        "string" => Value::Text(text),
        _ => return Err(Fault::parse(&format!("unknown type {name}"))),
    })
}

/// Appends text with `&`, `<` and `>` escaped, as xmlrpc-c does.
pub fn escape_into(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'&', b'<', b'>', rest.as_bytes()) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        out.push_str(match tail.as_bytes().first() {
            Some(b'&') => "&amp;",
            Some(b'<') => "&lt;",
            Some(_) | None => "&gt;",
        });
        rest = tail.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// Text with `&`, `<` and `>` escaped.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 2);
    escape_into(&mut out, text);
    out
}

fn write_value(out: &mut String, value: &Value) {
    out.push_str("<value>");
    match value {
        Value::Int(number) => _ = write!(out, "<i4>{number}</i4>"),
        Value::Long(number) => _ = write!(out, "<i8>{number}</i8>"),
        Value::Bool(yes) => out.push_str(if *yes {
            "<boolean>1</boolean>"
        } else {
            "<boolean>0</boolean>"
        }),
        Value::Double(number) => _ = write!(out, "<double>{number}</double>"),
        Value::Text(text) => {
            out.push_str("<string>");
            escape_into(out, text);
            out.push_str("</string>");
        }
        Value::Escaped(text) => {
            out.push_str("<string>");
            out.push_str(text);
            out.push_str("</string>");
        }
        Value::Array(values) => {
            out.push_str("<array><data>\r\n");
            for value in values {
                write_value(out, value);
                out.push_str("\r\n");
            }
            out.push_str("</data></array>");
        }
        Value::Struct(members) => {
            out.push_str("<struct>\r\n");
            for (name, value) in members {
                out.push_str("<member><name>");
                escape_into(out, name);
                out.push_str("</name>\r\n");
                write_value(out, value);
                out.push_str("</member>\r\n");
            }
            out.push_str("</struct>");
        }
    }
    out.push_str("</value>");
}

/// Writes the answer to a call as XML.
pub fn response(result: &Result<Value, Fault>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<methodResponse>\r\n");
    match result {
        Ok(value) => {
            out.push_str("<params>\r\n<param>");
            write_value(&mut out, value);
            out.push_str("</param>\r\n</params>\r\n");
        }
        Err(fault) => {
            out.push_str("<fault>\r\n");
            write_value(&mut out, &fault_value(fault));
            out.push_str("\r\n</fault>\r\n");
        }
    }
    out.push_str("</methodResponse>\r\n");
    out
}

/// A fault as a value: what an answer and `system.multicall` carry.
pub fn fault_value(fault: &Fault) -> Value {
    Value::Struct(vec![
        ("faultCode".into(), Value::Int(fault.code)),
        ("faultString".into(), Value::Text(fault.text.clone())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(value: &str) -> Result<(String, Vec<Value>), Fault> {
        parse_call(&format!(
            "<?xml version='1.0'?><methodCall><methodName>m</methodName><params><param>{value}</param></params></methodCall>"
        ))
    }

    #[test]
    fn every_type_is_read() {
        for (text, value) in [
            ("<value><int>-7</int></value>", Value::Int(-7)),
            ("<value>\n<i4>7</i4>\n</value>", Value::Int(7)),
            ("<value><i8>7</i8></value>", Value::Long(7)),
            ("<value><boolean>1</boolean></value>", Value::Bool(true)),
            (
                "<value><string>a &lt;b&gt; &amp; &#65;</string></value>",
                Value::Text("a <b> & A".into()),
            ),
            ("<value><string></string></value>", Value::Text(String::new())),
            ("<value>bare</value>", Value::Text("bare".into())),
            (
                "<value><array><data>\n<value><int>1</int></value></data></array></value>",
                Value::Array(vec![Value::Int(1)]),
            ),
        ] {
            assert_eq!(call(text), Ok(("m".into(), vec![value])), "{text}");
        }
    }

    #[test]
    fn bombs_and_nonsense_are_faults() {
        let deep = format!(
            "{}1{}",
            "<value><array><data>".repeat(100),
            "</data></array></value>".repeat(100)
        );
        for text in [
            "<value><int>x</int></value>",
            "<value><boolean>2</boolean></value>",
            "<value>&bomb;</value>",
            &deep,
        ] {
            assert_eq!(call(text).map_err(|fault| fault.code), Err(-503), "{text}");
        }
        assert!(parse_call("<!DOCTYPE x [<!ENTITY a 'b'>]><methodCall/>").is_err());
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "[^\\r\\x00-\\x08]*") {
            let (_, values) = call(&format!("<value><string>{}</string></value>", escape(&text))).unwrap();
            prop_assert_eq!(values, vec![Value::Text(text)]);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = parse_call(&text);
        }
    }
}
