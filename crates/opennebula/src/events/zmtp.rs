//! As much of ZMTP 3.0 (<https://rfc.zeromq.org/spec/23/>) as a subscriber needs: the greeting, the handshake without
//! security, subscriptions, messages of two frames, and the heartbeats of 3.1. Pure: bytes in, bytes out. No more is
//! kept of what the other side sends than a message may have.

use std::fmt;

/// A greeting's length in bytes.
pub const GREETING: usize = 64;

/// The longest topic that is kept, in bytes; OpenNebula's have less than 100.
pub const LONGEST_TOPIC: usize = 1024;

/// The longest body that is kept, in bytes. A VM's XML has some 10 KB, and a third more in base64.
pub const LONGEST_BODY: usize = 4 << 20;

/// The longest command that is read, in bytes.
const LONGEST_COMMAND: usize = 1024;

/// The longest context of a PING, in bytes: what the specification allows.
const LONGEST_CONTEXT: usize = 16;

/// Another frame of the same message follows.
const MORE: u8 = 1;
/// The length has eight bytes.
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What the other side said and is not ZMTP as a subscriber speaks it; why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd(pub String);

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The greeting that we send: version 3.0, no security.
#[must_use]
pub fn greeting() -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Whether the other side answers heartbeats, by its greeting: those came with 3.1.
///
/// # Errors
/// It is no ZeroMQ, too old, or wants security.
pub fn take_greeting(bytes: &[u8; GREETING]) -> Result<bool, Odd> {
    if bytes[0] != 0xff || bytes[9] & 1 != 1 {
        return Err(Odd("what answers there is not ZeroMQ".to_owned()));
    }
    if bytes[10] < 3 {
        return Err(Odd("it speaks a ZeroMQ older than 4.0".to_owned()));
    }
    if !bytes[12..32].starts_with(b"NULL\0") {
        let word: String = bytes[12..32]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .map(|byte| char::from(*byte))
            .collect();
        return Err(Odd(format!(
            "it wants the security {word:?}, and OpenNebula's has none"
        )));
    }
    Ok(bytes[10] > 3 || bytes[11] >= 1)
}

/// The command that ends our part of the handshake.
#[must_use]
pub fn ready() -> Vec<u8> {
    command(b"READY", b"\x0bSocket-Type\0\0\0\x03SUB")
}

/// Subscribes to all topics that begin with this, of less than 250 bytes.
#[must_use]
pub fn subscribe(prefix: &str) -> Vec<u8> {
    let body = [b"\x01", prefix.as_bytes()].concat();
    frame(0, &body)
}

/// Asks whether the other side is there still. It gives up when it hears nothing for a minute.
#[must_use]
pub fn ping() -> Vec<u8> {
    command(b"PING", &600_u16.to_be_bytes())
}

fn pong(context: &[u8]) -> Vec<u8> {
    command(b"PONG", context)
}

fn command(name: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    frame(COMMAND, &[&[length], name, data].concat())
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    match u8::try_from(body.len()) {
        Ok(length) => [&[flags, length], body].concat(),
        Err(_) => [&[flags | LONG][..], &(body.len() as u64).to_be_bytes(), body].concat(),
    }
}

/// What comes after the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The other side publishes: its part of the handshake is over.
    Ready,
    /// It wants to hear this.
    Answer(Vec<u8>),
    /// It is there still.
    Pong,
    Message(Message),
}

/// A message as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its first frame; empty if that is longer than [`LONGEST_TOPIC`].
    pub topic: Vec<u8>,
    /// Its second frame; none if there is none, or if it is longer than [`LONGEST_BODY`].
    pub body: Option<Vec<u8>>,
}

/// Reads frames from bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Of the head of a frame, what has come of it.
    head: Vec<u8>,
    /// The frame that is being read.
    frame: Option<Frame>,
    /// Frames of the message that is being read: how many were whole, and what is kept of them.
    frames: u64,
    topic: Vec<u8>,
    body: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Frame {
    flags: u8,
    /// Bytes that are still to come.
    left: u64,
    /// None: it is passed over.
    kept: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes bytes as they came; what is complete by them is added to `items`.
    ///
    /// # Errors
    /// What cannot be ZMTP. Nothing can be read after it.
    pub fn take(&mut self, mut bytes: &[u8], items: &mut Vec<Item>) -> Result<(), Odd> {
        while !bytes.is_empty() {
            let Some(frame) = &mut self.frame else {
                let (first, rest) = bytes.split_at(1);
                self.head.extend_from_slice(first);
                bytes = rest;
                self.frame = self.begin()?;
                self.end_if_whole(items)?;
                continue;
            };
            let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(here);
            frame.left -= here as u64;
            if let Some(kept) = &mut frame.kept {
                kept.extend_from_slice(piece);
            }
            bytes = rest;
            self.end_if_whole(items)?;
        }
        Ok(())
    }

    /// Bytes that are kept of what is not whole yet.
    #[must_use]
    pub fn kept(&self) -> usize {
        let frame = self.frame.as_ref().and_then(|frame| frame.kept.as_ref());
        self.head.len()
            + frame.map_or(0, Vec::len)
            + self.topic.len()
            + self.body.as_ref().map_or(0, Vec::len)
    }

    /// The frame whose head is complete.
    fn begin(&mut self) -> Result<Option<Frame>, Odd> {
        let Some(flags) = self.head.first().copied() else {
            return Ok(None);
        };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
            return Err(Odd(format!("it sent a frame with the flags {flags:#04x}")));
        }
        let length = self.head.get(1..).unwrap_or_default();
        let left = match (flags & LONG, length.len()) {
            (0, 1) => u64::from(length.first().copied().unwrap_or_default()),
            (LONG, 8) => u64::from_be_bytes(length.try_into().unwrap_or_default()),
            _ => return Ok(None),
        };
        self.head.clear();
        let most = match (flags & COMMAND, self.frames) {
            (COMMAND, _) if left > LONGEST_COMMAND as u64 => {
                return Err(Odd(format!("it sent a command of {left} bytes")));
            }
            (COMMAND, _) => LONGEST_COMMAND,
            (_, 0) => LONGEST_TOPIC,
            (_, 1) => LONGEST_BODY,
            (_, _) => 0,
        };
        Ok(Some(Frame {
            flags,
            left,
            kept: (left <= most as u64).then(Vec::new),
        }))
    }

    fn end_if_whole(&mut self, items: &mut Vec<Item>) -> Result<(), Odd> {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else {
            return Ok(());
        };
        if frame.flags & COMMAND != 0 {
            items.extend(said(&frame.kept.unwrap_or_default())?);
            return Ok(());
        }
        match self.frames {
            0 => self.topic = frame.kept.unwrap_or_default(),
            1 => self.body = frame.kept,
            _ => {}
        }
        self.frames += 1;
        if frame.flags & MORE == 0 {
            self.frames = 0;
            items.push(Item::Message(Message {
                topic: std::mem::take(&mut self.topic),
                body: self.body.take(),
            }));
        }
        Ok(())
    }
}

/// What a command says; none if it says nothing to a subscriber.
fn said(body: &[u8]) -> Result<Option<Item>, Odd> {
    let (name, data) = match body.split_first() {
        Some((length, rest)) if usize::from(*length) <= rest.len() => rest.split_at(usize::from(*length)),
        _ => return Err(Odd("it sent a command without a name".to_owned())),
    };
    match name {
        b"READY" => match property(data, b"socket-type") {
            Some(b"PUB" | b"XPUB") => Ok(Some(Item::Ready)),
            _ => Err(Odd(
                "it publishes nothing: it is another kind of ZeroMQ socket".to_owned()
            )),
        },
        b"ERROR" => {
            let text = String::from_utf8_lossy(data.get(1..).unwrap_or_default());
            let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
            Err(Odd(format!("it refused us: {text}")))
        }
        b"PING" => {
            let context = data.get(2..).unwrap_or_default();
            let context = context.get(..LONGEST_CONTEXT).unwrap_or(context);
            Ok(Some(Item::Answer(pong(context))))
        }
        b"PONG" => Ok(Some(Item::Pong)),
        _ => Ok(None),
    }
}

/// The value of a property in a READY; names have no case.
fn property<'a>(mut data: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    loop {
        let (length, rest) = data.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        data = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(topic: &str, body: &[u8]) -> Vec<u8> {
        [frame(MORE, topic.as_bytes()), frame(0, body)].concat()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Item>, Odd> {
        let mut items = Vec::new();
        Decoder::default().take(bytes, &mut items).map(|()| items)
    }

    fn heard(topic: &str, body: Option<&[u8]>) -> Item {
        Item::Message(Message {
            topic: topic.as_bytes().to_vec(),
            body: body.map(<[u8]>::to_vec),
        })
    }

    #[test]
    fn our_own_greeting_is_taken() {
        assert_eq!(take_greeting(&greeting()), Ok(false));
        let mut newer = greeting();
        newer[11] = 1;
        assert_eq!(take_greeting(&newer), Ok(true));
        let mut old = greeting();
        old[10] = 1;
        assert!(take_greeting(&old).is_err());
        let mut secure = greeting();
        secure[12..17].copy_from_slice(b"CURVE");
        assert!(take_greeting(&secure).unwrap_err().0.contains("CURVE"));
        assert!(take_greeting(&[b'H'; GREETING]).is_err());
    }

    #[test]
    fn what_a_publisher_says_is_understood() {
        let publisher = command(b"READY", b"\x0bSocket-Type\0\0\0\x03PUB\x08Identity\0\0\0\0");
        assert_eq!(read(&publisher), Ok(vec![Item::Ready]));
        assert!(read(&ready()).is_err(), "we publish nothing");
        assert!(read(&command(b"ERROR", b"\x02no")).unwrap_err().0.contains("no"));
        let answer = command(b"PONG", b"abc");
        assert_eq!(
            read(&command(b"PING", b"\0\x10abc")),
            Ok(vec![Item::Answer(answer)])
        );
        assert_eq!(read(&command(b"PONG", b"")), Ok(vec![Item::Pong]));
        assert_eq!(read(&command(b"NEW", b"")), Ok(vec![]));
        let long = vec![b'x'; 300];
        assert_eq!(
            read(&message("EVENT a", &long)),
            Ok(vec![heard("EVENT a", Some(&long))])
        );
        assert_eq!(read(&frame(0, b"alone")), Ok(vec![heard("alone", None)]));
    }

    #[test]
    fn what_is_too_long_is_passed_over_and_the_next_is_read() {
        let mut bytes = frame(MORE, b"big");
        bytes.extend([LONG]);
        bytes.extend((LONGEST_BODY as u64 + 1).to_be_bytes());
        let mut decoder = Decoder::default();
        let mut items = Vec::new();
        decoder.take(&bytes, &mut items).unwrap();
        for _ in 0..=LONGEST_BODY / 65_536 {
            decoder.take(&[0; 65_536], &mut items).unwrap_or(());
            assert!(decoder.kept() < 2 * LONGEST_TOPIC, "{}", decoder.kept());
        }
        assert_eq!(items.first(), Some(&heard("big", None)));
    }

    /// Some messages, whole or not.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            ("[A-Z/ ]{0,40}", prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(t, b)| message(&t, &b)),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|data| command(b"PING", &data)),
            Just(ready()),
            prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn in_whatever_pieces_it_comes_it_is_the_same(bytes in stream(), cuts in prop::collection::vec(1..90_usize, 1..50)) {
            let at_once = {
                let mut items = Vec::new();
                let end = Decoder::default().take(&bytes, &mut items);
                (items, end)
            };
            let mut decoder = Decoder::default();
            let (mut items, mut end, mut rest) = (Vec::new(), Ok(()), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                end = decoder.take(piece, &mut items);
                if rest.is_empty() || end.is_err() {
                    break;
                }
            }
            prop_assert_eq!((items, end), at_once);
            prop_assert!(decoder.kept() <= bytes.len());
        }
    }
}
