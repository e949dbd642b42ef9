//! HTTP as oned's server (xmlrpc-c's Abyss) does it: one request a connection, no more
//! connections at once than it has threads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest body that is read. oned's own limit is of this size.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// The longest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// How long an idle connection holds one of the server's threads (TIMEOUT in oned.conf).
const IDLE: Duration = Duration::from_secs(15);
/// How often a reading thread looks whether the server ends.
const TICK: Duration = Duration::from_millis(50);

/// A request as a client sent it.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// The path, without what follows a `?`.
    pub path: String,
    /// Headers, names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of that name (in small letters).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a client gets back.
#[derive(Debug)]
pub enum Reply {
    Answer {
        status: u16,
        /// The value of its `Content-type`.
        kind: &'static str,
        body: Vec<u8>,
    },
    /// Half of that answer; the connection closes in the middle.
    Half(Vec<u8>),
    /// Nothing: the connection closes.
    Nothing,
}

impl Reply {
    /// A status with a small page, as Abyss writes it.
    pub fn status(status: u16) -> Self {
        let body = format!(
            "<HTML><HEAD><TITLE>Error {status}</TITLE></HEAD><BODY><H1>Error {status}</H1></BODY></HTML>"
        );
        Reply::Answer {
            status,
            kind: "text/html",
            body: body.into_bytes(),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves with that many threads: that many connections at once, more wait.
    pub fn start<F>(listener: TcpListener, threads: usize, handler: F) -> io::Result<Server>
    where
        F: Fn(&Request) -> Reply + Send + Sync + 'static,
    {
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::new(handler);
        let mut server = Server {
            address,
            listener: listener.clone(),
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for _ in 0..threads.max(1) {
            let (listener, stop, handler) = (listener.clone(), stop.clone(), handler.clone());
            server.threads.push(
                std::thread::Builder::new()
                    .name("oned-http".into())
                    .spawn(move || {
                        while !stop.load(Ordering::SeqCst) {
                            match listener.accept() {
                                Ok((stream, _)) if !stop.load(Ordering::SeqCst) => {
                                    serve(&stream, &stop, &*handler)
                                }
                                Ok(_) => {}
                                Err(_) if stop.load(Ordering::SeqCst) => break,
                                // Out of descriptors: give others the time to close some.
                                Err(_) => std::thread::sleep(TICK),
                            }
                        }
                    })?,
            );
        }
        Ok(server)
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes every thread that waits for a connection (Linux).
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, stop: &AtomicBool, handler: &dyn Fn(&Request) -> Reply) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(TICK));
    let _ = stream.set_write_timeout(Some(IDLE));
    let reply = match read_request(stream, stop) {
        Ok(request) => handler(&request),
        Err(Some(status)) => Reply::status(status),
        Err(None) => return,
    };
    let mut out = stream;
    let _ = match reply {
        Reply::Answer { status, kind, body } => out
            .write_all(head(status, kind, body.len()).as_bytes())
            .and_then(|()| out.write_all(&body)),
        Reply::Half(body) => {
            let half = body.get(..body.len() / 2).unwrap_or_default();
            out.write_all(head(200, "text/xml; charset=utf-8", body.len()).as_bytes())
                .and_then(|()| out.write_all(half))
        }
        Reply::Nothing => Ok(()),
    };
    let _ = stream.shutdown(Shutdown::Write);
    // What the client still sends must be read: closing over it would reset the connection
    // and might take the answer with it.
    let mut sink = [0; 4096];
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until && matches!((&mut { stream }).read(&mut sink), Ok(count) if count > 0) {}
}

fn head(status: u16, kind: &str, length: usize) -> String {
    let word = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        _ => "Error",
    };
    format!(
        "HTTP/1.1 {status} {word}\r\nContent-type: {kind}\r\nContent-length: {length}\r\nConnection: close\r\nServer: Xmlrpc-c_Abyss/1.33.14\r\n\r\n"
    )
}

/// Reads a request. Err: the status to answer with, or nothing if the client went away.
fn read_request(stream: &TcpStream, stop: &AtomicBool) -> Result<Request, Option<u16>> {
    let deadline = Instant::now() + IDLE;
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(at) = find(&buffer, b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > MAX_HEAD {
            return Err(Some(400));
        }
        more(stream, stop, deadline, &mut buffer)?;
    };
    let text = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let path = first
        .next()
        .unwrap_or_default()
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = match request.header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => length,
        Some(Err(_)) => return Err(Some(400)),
        // Abyss takes no chunked body.
        None if matches!(request.method.as_str(), "POST" | "PUT") => return Err(Some(411)),
        None => 0,
    };
    if length > MAX_BODY {
        return Err(Some(413));
    }
    if request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        (&mut { stream })
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .map_err(|_| None)?;
    }
    let mut body = buffer.split_off(end + 4);
    while body.len() < length {
        more(stream, stop, deadline, &mut body)?;
    }
    body.truncate(length);
    request.body = body;
    Ok(request)
}

fn more(
    stream: &TcpStream,
    stop: &AtomicBool,
    deadline: Instant,
    into: &mut Vec<u8>,
) -> Result<(), Option<u16>> {
    let mut chunk = [0; 16 * 1024];
    loop {
        match (&mut { stream }).read(&mut chunk) {
            Ok(0) => return Err(None),
            Ok(count) => {
                into.extend_from_slice(chunk.get(..count).unwrap_or_default());
                return Ok(());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if stop.load(Ordering::SeqCst) || Instant::now() > deadline {
                    return Err(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(None),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
