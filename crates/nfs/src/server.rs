//! The way in: ONC RPC (RFC 5531) over TCP, with the programs NFS and MOUNT.
//!
//! Only privileged ports are answered: a guest's kernel mounts from one, a
//! program of a guest's user cannot have one, so nobody reaches another
//! user's files by speaking the protocol himself.
//!
//! Each connection has a few threads of its own that take turns at reading
//! requests: a guest that is held still in the middle of an answer stops
//! nobody else.
//!
//! No answers are kept for calls that come twice: over TCP on one machine that
//! happens only when this process is killed between the deed and the answer,
//! which would lose the kept ones too. A repeated MKDIR then says EEXIST.

use crate::args::Caller;
use crate::nfs::{MAX_DATA, Nfs};
use crate::xdr::{Garbage, Reader, Writer};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const PROGRAM_NFS: u32 = 100_003;
const PROGRAM_MOUNT: u32 = 100_005;
/// Of the NFS and the MOUNT program alike.
const VERSION: u32 = 3;

/// The first port that any program may use.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// Requests of one connection that are worked on at once.
const THREADS: usize = 4;
const STACK: usize = 256 << 10;
/// A request's bytes beside its data.
const MAX_RECORD: usize = MAX_DATA + 8192;
/// Silent connections are asked whether they still live, and dropped after two minutes without an answer: their VMs
/// may be gone without a word. A guest that was only held still connects again by itself.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const SUCCESS: u32 = 0;
const PROGRAM_UNAVAILABLE: u32 = 1;
const PROGRAM_MISMATCH: u32 = 2;
const PROCEDURE_UNAVAILABLE: u32 = 3;
const GARBAGE_ARGUMENTS: u32 = 4;

/// Answers connections, for ever.
pub fn run(listener: &TcpListener, nfs: &Arc<Nfs>) -> ! {
    loop {
        match listener.accept() {
            Ok((_, peer)) if peer.port() >= FIRST_UNPRIVILEGED => {
                tracing::warn!(%peer, "refused: its port is not privileged, it is no guest's kernel");
            }
            Ok((stream, peer)) => {
                if let Err(e) = connect(stream, peer, nfs) {
                    tracing::warn!(%peer, "connection lost: {e}");
                }
            }
            // Out of descriptors or memory: others must go first.
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// A client. The locks say whose turn it is to read, and to write.
struct Connection {
    stream: TcpStream,
    reading: Mutex<()>,
    writing: Mutex<()>,
}

fn connect(stream: TcpStream, peer: SocketAddr, nfs: &Arc<Nfs>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    rustix::net::sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_PAUSE)?;
    rustix::net::sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    let connection = Arc::new(Connection {
        stream,
        reading: Mutex::default(),
        writing: Mutex::default(),
    });
    for _ in 0..THREADS {
        let (connection, nfs) = (Arc::clone(&connection), Arc::clone(nfs));
        thread::Builder::new()
            .name(peer.ip().to_string())
            .stack_size(STACK)
            .spawn(move || {
                let _end = HangUp(&connection);
                while let Ok(Some(request)) = connection.next_request() {
                    if let Some(answer) = answer(&nfs, &request)
                        && connection.send(&answer).is_err()
                    {
                        break;
                    }
                }
                // Wakes the others, which then leave too.
                let _ = connection.stream.shutdown(Shutdown::Both);
            })?;
    }
    Ok(())
}

/// A thread that leaves, even by a panic, hangs up: so the others leave too, and the client asks anew.
struct HangUp<'a>(&'a Connection);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        let _ = self.0.stream.shutdown(Shutdown::Both);
    }
}

impl Connection {
    /// The next whole message; none when the client has ended the connection.
    fn next_request(&self) -> io::Result<Option<Vec<u8>>> {
        const LAST: u32 = 1 << 31;
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream = &self.stream;
        let mut record = Vec::new();
        loop {
            let mut header = [0; 4];
            match stream.read_exact(&mut header) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && record.is_empty() => return Ok(None),
                result => result?,
            }
            let header = u32::from_be_bytes(header);
            let (start, length) = (record.len(), (header & !LAST) as usize);
            if start + length > MAX_RECORD {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an RPC record larger than any request",
                ));
            }
            record.resize(start + length, 0);
            stream.read_exact(&mut record[start..])?;
            if header & LAST != 0 {
                return Ok(Some(record));
            }
        }
    }

    fn send(&self, answer: &[u8]) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(answer)
    }
}

/// A message's answer with its record mark; none for what is no call at all.
fn answer(nfs: &Nfs, request: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(request);
    let xid = reader.u32().ok()?;
    if reader.u32().ok()? != 0 {
        return None;
    }
    let mut out = Writer::default();
    // The record mark, told below; the call's number; "reply", "accepted", no verifier.
    out.u32(0).u32(xid).u32(1).u32(0).u32(0).u32(0);
    let start = out.len();
    out.u32(SUCCESS);
    match call(nfs, &mut reader, &mut out) {
        Ok(()) => {}
        Err(Refusal::Version) => {
            out.truncate(start);
            out.u32(PROGRAM_MISMATCH).u32(VERSION).u32(VERSION);
        }
        Err(Refusal::Plain(status)) => {
            out.truncate(start);
            out.u32(status);
        }
    }
    let mut bytes = out.into_bytes();
    let mark = (1 << 31) | (bytes.len() as u32 - 4);
    bytes[..4].copy_from_slice(&mark.to_be_bytes());
    Some(bytes)
}

enum Refusal {
    Version,
    Plain(u32),
}

impl From<Garbage> for Refusal {
    fn from(Garbage: Garbage) -> Self {
        Self::Plain(GARBAGE_ARGUMENTS)
    }
}

fn call(nfs: &Nfs, reader: &mut Reader, out: &mut Writer) -> Result<(), Refusal> {
    let (_rpc_version, program, version, procedure) =
        (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let caller = read_caller(reader)?;
    let (_verifier_flavor, _verifier) = (reader.u32()?, reader.opaque(400)?);
    if !matches!(program, PROGRAM_NFS | PROGRAM_MOUNT) {
        return Err(Refusal::Plain(PROGRAM_UNAVAILABLE));
    }
    if version != VERSION {
        return Err(Refusal::Version);
    }
    let known = match program {
        PROGRAM_NFS => nfs.call(procedure, reader.rest(), &caller, out)?,
        _ => mount(nfs, procedure, reader, out)?,
    };
    if known {
        Ok(())
    } else {
        Err(Refusal::Plain(PROCEDURE_UNAVAILABLE))
    }
}

/// Who calls: an AUTH_SYS credential, or nobody.
fn read_caller(reader: &mut Reader) -> Result<Caller, Garbage> {
    const AUTH_SYS: u32 = 1;
    let (flavor, body) = (reader.u32()?, reader.opaque(400)?);
    if flavor != AUTH_SYS {
        return Ok(Caller::default());
    }
    let mut body = Reader::new(body);
    let (_stamp, _machine, uid, gid) = (body.u32()?, body.opaque(255)?, body.u32()?, body.u32()?);
    let count = body.u32()?.min(16);
    let mut groups = vec![gid];
    for _ in 0..count {
        groups.push(body.u32()?);
    }
    Ok(Caller {
        uid: Some(uid),
        groups,
    })
}

/// The program MOUNT (RFC 1813, appendix I): gives the root's handle for any path that names it.
fn mount(nfs: &Nfs, procedure: u32, reader: &mut Reader, out: &mut Writer) -> Result<bool, Garbage> {
    const NO_ENTRY: u32 = 2;
    const IO_ERROR: u32 = 5;
    const AUTH_SYS: u32 = 1;
    match procedure {
        // NULL, UMNT, UMNTALL have no result; DUMP and EXPORT list nothing.
        0 | 3 | 4 => {}
        2 | 5 => drop(out.bool(false)),
        1 => match (reader.opaque(1024)?, nfs.tree.root()) {
            (b"" | b"/", Ok(root)) => drop(out.u32(0).opaque(&root.handle.to_bytes()).u32(1).u32(AUTH_SYS)),
            (b"" | b"/", Err(_)) => drop(out.u32(IO_ERROR)),
            _ => drop(out.u32(NO_ENTRY)),
        },
        _ => return Ok(false),
    }
    Ok(true)
}
