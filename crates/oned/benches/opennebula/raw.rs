//! The best that a client can do: XML-RPC by hand, nothing checked that need not be.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

/// An oned, and whose calls these are.
pub struct Raw {
    address: SocketAddr,
    host: String,
    session: String,
}

impl Raw {
    pub fn new(endpoint: &str, session: &str) -> Result<Self, Box<dyn Error>> {
        let host = endpoint
            .strip_prefix("http://")
            .and_then(|rest| rest.split('/').next())
            .ok_or("the client by hand speaks plain http only")?;
        let address = host.to_socket_addrs()?.next().ok_or("no address")?;
        Ok(Self {
            address,
            host: host.to_owned(),
            session: escaped(session),
        })
    }

    /// Makes a call; the answer's number.
    pub fn call(&self, method: &str, params: &str) -> Result<u32, Box<dyn Error>> {
        let body = format!(
            "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>\
             <param><value><string>{}</string></value></param>{params}</params></methodCall>",
            self.session
        );
        let request = format!(
            "POST /RPC2 HTTP/1.1\r\nHost: {}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::with_capacity(1024);
        stream.read_to_string(&mut answer)?;
        let number = ["<i4>", "<int>"].iter().find_map(|tag| {
            let (_, rest) = answer.split_once(tag)?;
            rest.split('<').next()?.parse().ok()
        });
        match number {
            Some(number) if answer.contains("<boolean>1</boolean>") => Ok(number),
            _ => Err(format!("{method}: {answer}").into()),
        }
    }
}

pub enum Param<'a> {
    /// Text with `<`, `>` and `&` escaped already.
    Escaped(&'a str),
    Int(u32),
    Bool(bool),
}

pub fn params(list: &[Param<'_>]) -> String {
    let one = |param: &Param<'_>| match param {
        Param::Escaped(text) => format!("<param><value><string>{text}</string></value></param>"),
        Param::Int(number) => format!("<param><value><int>{number}</int></value></param>"),
        Param::Bool(yes) => format!(
            "<param><value><boolean>{}</boolean></value></param>",
            u8::from(*yes)
        ),
    };
    list.iter().map(one).collect()
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
