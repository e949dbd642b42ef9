//! XML-RPC as any client speaks it.

use std::io::{Read, Write};
use std::net::TcpStream;
use thiao_oned::Oned;

/// A parameter as it stands on the wire.
pub enum P<'a> {
    S(&'a str),
    I(i64),
    B(bool),
}
pub use P::{B, I, S};

fn post(oned: &Oned, body: &str) -> String {
    let endpoint = oned.endpoint();
    let address = endpoint.trim_start_matches("http://").trim_end_matches("/RPC2");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn call_as(oned: &Oned, session: &str, method: &str, params: &[P<'_>]) -> String {
    let mut body = format!("<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>");
    body.push_str(&format!(
        "<param><value><string>{session}</string></value></param>"
    ));
    for param in params {
        let value = match param {
            S(text) => {
                format!(
                    "<string>{}</string>",
                    text.replace('&', "&amp;")
                        .replace('<', "&lt;")
                        .replace('>', "&gt;")
                )
            }
            I(number) => format!("<int>{number}</int>"),
            B(yes) => format!("<boolean>{}</boolean>", u8::from(*yes)),
        };
        body.push_str(&format!("<param><value>{value}</value></param>"));
    }
    body.push_str("</params></methodCall>");
    post(oned, &body)
}

pub fn call(oned: &Oned, method: &str, params: &[P<'_>]) -> String {
    call_as(oned, "oneadmin:opennebula", method, params)
}

pub fn ok(answer: &str) -> bool {
    answer.contains("<boolean>1</boolean>")
}

/// Ok: the call's id. Err: the code.
pub fn id(answer: &str) -> Result<u32, i32> {
    let numbers: Vec<i64> = answer
        .split("<i4>")
        .skip(1)
        .filter_map(|part| part.split("</i4>").next()?.parse().ok())
        .collect();
    let first = i32::try_from(*numbers.first().expect("a number")).unwrap();
    if ok(answer) {
        Ok(u32::try_from(first).unwrap())
    } else {
        Err(first)
    }
}
