//! What the tests of this crate share.

use proptest::prelude::*;

/// The body of a recorded answer of a real oned 7.4.1; `name` without its ending.
pub(crate) fn recording(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}.response.xml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Changes to some bytes: where (in thousandths of the whole), and what happens there.
#[derive(Debug, Clone)]
pub(crate) struct Mutations(Vec<(usize, Change)>);

#[derive(Debug, Clone)]
enum Change {
    Put(u8),
    Insert(String),
    Remove(usize),
    Cut,
    Repeat(usize),
}

/// A few changes of all kinds.
pub(crate) fn mutations() -> impl Strategy<Value = Mutations> {
    let pieces = vec![
        "<",
        ">",
        "</",
        "/>",
        "&",
        ";",
        "&lt;",
        "&amp;",
        "&x;",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE a>",
        "<!--",
        "-1",
        "é",
        "99999999999999999999",
        "&lt;VM&gt;",
        "&lt;/VM&gt;",
        "<VM>",
        "</VM>",
        "<ID>",
        "<X/>",
    ];
    let change = prop_oneof![
        3 => any::<u8>().prop_map(Change::Put),
        4 => prop::sample::select(pieces).prop_map(|piece| Change::Insert(piece.to_owned())),
        2 => (1usize..60).prop_map(Change::Remove),
        1 => Just(Change::Cut),
        1 => (1usize..60).prop_map(Change::Repeat),
    ];
    prop::collection::vec((0usize..=100_000, change), 1..5).prop_map(Mutations)
}

impl Mutations {
    /// The bytes with these changes made.
    pub(crate) fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, change) in &self.0 {
            let at = bytes.len() * at / 100_001;
            match change {
                Change::Put(byte) => {
                    if let Some(there) = bytes.get_mut(at) {
                        *there = *byte;
                    }
                }
                Change::Insert(piece) => drop(bytes.splice(at..at, piece.bytes())),
                Change::Remove(n) => drop(bytes.drain(at..(at + n).min(bytes.len()))),
                Change::Cut => bytes.truncate(at),
                Change::Repeat(n) => {
                    let again = bytes[at..(at + n).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, again));
                }
            }
        }
        bytes
    }
}
