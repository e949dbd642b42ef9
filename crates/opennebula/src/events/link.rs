//! A connection to the bus. It blocks, and says when it is lost.

use super::message::TOPICS;
use super::zmtp::{self, Decoder, GREETING, Item, Message};
use rustix::net::sockopt;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long connecting, the handshake and each sending may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so long a silence the other side is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(10);

/// After so long a silence the connection is lost, if the other side answers such questions.
const LOST: Duration = Duration::from_secs(30);

/// Why the bus is not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheard(pub String);

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Unheard {
    fn from(error: io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it did not answer in time".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl From<zmtp::Odd> for Unheard {
    fn from(odd: zmtp::Odd) -> Self {
        Self(odd.0)
    }
}

/// A bus that is connected and subscribed to.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    decoder: Decoder,
    /// Whether the other side answers heartbeats.
    has_heartbeats: bool,
    /// When something came last.
    heard: Instant,
    /// When it was asked whether it is there, if it has said nothing since.
    asked: Option<Instant>,
    buffer: Vec<u8>,
}

impl Link {
    /// Connects to `HOST:PORT`, and subscribes to what concerns us.
    ///
    /// # Errors
    /// Nobody is there, or no publisher that we understand.
    pub fn open(address: &str) -> Result<Self, Unheard> {
        let mut stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Where the other side knows no heartbeats, the kernel finds out what is lost.
        sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
        sockopt::set_tcp_keepidle(&stream, LOST).map_err(io::Error::from)?;
        sockopt::set_tcp_keepintvl(&stream, SILENCE).map_err(io::Error::from)?;
        sockopt::set_tcp_keepcnt(&stream, 3).map_err(io::Error::from)?;
        let until = Instant::now() + PATIENCE;
        stream.write_all(&zmtp::greeting())?;
        let mut greeting = [0; GREETING];
        let mut read = 0;
        while let Some(rest) = greeting.get_mut(read..).filter(|rest| !rest.is_empty()) {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(rest)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => read += count,
            }
        }
        let has_heartbeats = zmtp::take_greeting(&greeting)?;
        stream.write_all(&zmtp::ready())?;
        let mut link = Self {
            stream,
            decoder: Decoder::default(),
            has_heartbeats,
            heard: Instant::now(),
            asked: None,
            buffer: vec![0; 64 * 1024],
        };
        while !link.items(left(until)?)?.contains(&Item::Ready) {}
        for topic in TOPICS {
            link.stream.write_all(&zmtp::subscribe(topic))?;
        }
        Ok(link)
    }

    /// The messages that come until then; as soon as there are some.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn hear(&mut self, until: Instant) -> Result<Vec<Message>, Unheard> {
        loop {
            let now = Instant::now();
            if self.has_heartbeats && now.duration_since(self.heard) >= LOST {
                let silent = LOST.as_secs();
                return Err(Unheard(format!(
                    "it was silent for {silent} s, and did not answer"
                )));
            }
            if self.has_heartbeats && self.asked.is_none() && now.duration_since(self.heard) >= SILENCE {
                self.stream.write_all(&zmtp::ping())?;
                self.asked = Some(now);
            }
            let silence = self.heard + if self.asked.is_none() { SILENCE } else { LOST };
            let pause = until.min(silence).saturating_duration_since(now);
            let mut messages = Vec::new();
            for item in self.items(pause)? {
                match item {
                    Item::Message(message) => messages.push(message),
                    Item::Answer(bytes) => self.stream.write_all(&bytes)?,
                    Item::Pong | Item::Ready => {}
                }
            }
            if !messages.is_empty() || Instant::now() >= until {
                return Ok(messages);
            }
        }
    }

    /// What one reading gives; nothing if nothing comes for so long.
    fn items(&mut self, pause: Duration) -> Result<Vec<Item>, Unheard> {
        // Zero would be for ever.
        self.stream
            .set_read_timeout(Some(pause.max(Duration::from_millis(1))))?;
        let count = match self.stream.read(&mut self.buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => count,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => 0,
                _ => return Err(error.into()),
            },
        };
        let mut items = Vec::new();
        let bytes = self.buffer.get(..count).unwrap_or_default();
        if !bytes.is_empty() {
            (self.heard, self.asked) = (Instant::now(), None);
            self.decoder.take(bytes, &mut items)?;
        }
        Ok(items)
    }
}

/// What is left of the time until then.
fn left(until: Instant) -> Result<Duration, Unheard> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    Ok(left)
}

/// Connects to the first of the name's addresses that answers.
fn connect(address: &str) -> Result<TcpStream, Unheard> {
    let mut last = Unheard(format!("{address} has no address"));
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
