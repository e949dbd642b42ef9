//! Tells OpenNebula that the guest is ready. Slurm sees the node by itself:
//! nothing here ends the guest.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use thiao_guest::context_disk::OneGate;

/// How long one try may take at each step.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// The pause after the first try; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often it is tried: for about five minutes.
const TRIES: u32 = 15;

/// How much of an answer is read, in bytes.
const ANSWER_LIMIT: u64 = 4096;

/// Says READY=YES beside all else, again and again until it is taken.
pub fn say_ready(onegate: OneGate) {
    std::thread::spawn(move || {
        let mut pause = FIRST_PAUSE;
        for _ in 0..TRIES {
            match put(&onegate) {
                Ok(()) => return println!("thiao-guest: OneGate took READY=YES"),
                Err(e) => eprintln!(
                    "thiao-guest: OneGate at {} did not take READY=YES: {e}",
                    onegate.server
                ),
            }
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        eprintln!("thiao-guest: gave up saying READY=YES; Slurm knows this node without it");
    });
}

fn put(onegate: &OneGate) -> io::Result<()> {
    let server = onegate
        .server
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&server, STEP_LIMIT)?;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.set_write_timeout(Some(STEP_LIMIT))?;
    stream.write_all(onegate.ready().as_bytes())?;
    let mut answer = Vec::new();
    // A server that closes roughly has still answered.
    let read = stream.take(ANSWER_LIMIT).read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(code) if line.starts_with("HTTP/1.") && code.starts_with('2') => Ok(()),
        Some(_) => Err(io::Error::other(line.to_owned())),
        None => Err(read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
    }
}
