//! OpenNebula's event bus: the greeting, frames in any pieces, and what messages say.

use thiao_opennebula::events::message::{self, Event};
use thiao_opennebula::events::zmtp::{
    Decoder, GREETING, Item, LONGEST_BODY, LONGEST_TOPIC, Message, take_greeting,
};

/// Whatever comes, in whatever pieces: the same is understood, and no more is kept than came, or than may be.
pub fn check(input: &[u8]) {
    if let Some(greeting) = input.first_chunk::<GREETING>()
        && let Err(odd) = take_greeting(greeting)
    {
        assert!(!odd.0.is_empty() && odd.0.len() < 200);
    }
    // The first byte says how long the pieces are.
    let (size, bytes) = input
        .split_first()
        .map_or((1, input), |(size, rest)| (usize::from(*size).max(1), rest));
    let at_once = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, size), at_once, "in pieces of {size}");
    for item in at_once.0 {
        match item {
            Item::Message(message) => said(&message),
            Item::Answer(bytes) => assert!(bytes.len() < 32, "longer than a PONG"),
            Item::Ready | Item::Pong => {}
        }
    }
    // As the body of a message that is well otherwise, and as its topic.
    said(&Message {
        topic: b"EVENT STATE VM/ACTIVE/RUNNING/7 ".to_vec(),
        body: Some(base64(bytes)),
    });
    said(&Message {
        topic: b"EVENT API one.vm.update 1".to_vec(),
        body: Some(base64(bytes)),
    });
    said(&Message {
        topic: bytes.to_vec(),
        body: None,
    });
}

fn read(bytes: &[u8], size: usize) -> (Vec<Item>, bool) {
    let (mut decoder, mut items) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(size) {
        if let Err(odd) = decoder.take(piece, &mut items) {
            assert!(!odd.0.is_empty() && odd.0.len() < 200);
            return (items, false);
        }
        assert!(decoder.kept() <= bytes.len().min(LONGEST_BODY + 2 * LONGEST_TOPIC));
    }
    (items, true)
}

/// A message about a VM is about the one that its topic names.
fn said(message: &Message) {
    if let Some(Event::Vm(id, vm)) = message::event(message) {
        assert_eq!(message::vm_id(message), Some(id));
        assert!(vm.is_none_or(|vm| vm.row.id == id));
    }
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .encode(bytes)
        .into_bytes()
}
