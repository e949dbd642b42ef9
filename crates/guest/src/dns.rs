//! A question for the name system, and its answer (RFC 1035): the one address that a guest has to look up.
//!
//! The guest has no resolver of its own: slurmd and its jobs would use it too, and wait for a server that does
//! not answer.

use std::net::Ipv4Addr;

/// The longest answer over UDP without extensions, in bytes.
pub const LONGEST: usize = 512;

const HEADER: usize = 12;
/// TYPE and CLASS of what is asked for: an address, of the Internet.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
/// The longest label of a name.
const LABEL: usize = 63;

/// The question for a name's IPv4 address; none: it cannot be a name.
#[must_use]
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // A question that may be passed on; one of them, and nothing else.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(ADDRESS);
    (bytes.len() <= LONGEST).then_some(bytes)
}

/// The first address in the answer to that question; none: it is no answer to it, or has none.
#[must_use]
pub fn address(question: &[u8], answer: &[u8]) -> Option<Ipv4Addr> {
    let (id, asked) = (question.get(..2)?, question.get(HEADER..)?);
    let header = answer.get(..HEADER)?;
    let (flags, count) = (header.get(2..4)?, header.get(6..8)?);
    // It is an answer, whole, and without an error.
    let whole = flags[0] & 0x82 == 0x80 && flags[1] & 0x0f == 0;
    if header.get(..2)? != id || !whole {
        return None;
    }
    let mut rest = answer.get(HEADER..)?.strip_prefix(asked)?;
    for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
        rest = behind_name(rest)?;
        let (fixed, after) = rest.split_at_checked(10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let (data, after) = after.split_at_checked(length)?;
        if let (Some(&ADDRESS), [a, b, c, d]) = (fixed.first_chunk(), data) {
            return Some(Ipv4Addr::new(*a, *b, *c, *d));
        }
        // Another name for it: the address follows.
        rest = after;
    }
    None
}

/// What follows a name: labels to an empty one, or to a pointer, which is two bytes.
fn behind_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        match length & 0xc0 {
            0xc0 => return rest.get(1..),
            0 if *length == 0 => return Some(rest),
            0 => bytes = rest.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these records: type, data.
    fn answer(question: &[u8], records: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2..4].copy_from_slice(&[0x81, 0x80]);
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            // The name is that of the question.
            bytes.extend([0xc0, 12, 0, *kind, 0, 1, 0, 0, 0, 60, 0]);
            bytes.push(u8::try_from(data.len()).unwrap());
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn an_address_is_found_behind_other_names_for_it() {
        let asked = question(7, "onegate.example.").unwrap();
        assert_eq!(&asked[HEADER..], b"\x07onegate\x07example\x00\x00\x01\x00\x01");
        let found = answer(&asked, &[(5, b"\x01b\xc0\x14"), (1, &[10, 0, 0, 9])]);
        assert_eq!(address(&asked, &found), Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(address(&asked, &answer(&asked, &[])), None);
        // Of another question, cut off, a refusal.
        let other = question(8, "onegate.example").unwrap();
        assert_eq!(address(&other, &found), None);
        for cut in 0..found.len() {
            assert_eq!(address(&asked, &found[..cut]), None, "{cut}");
        }
        let mut refused = found.clone();
        refused[3] = 0x83;
        assert_eq!(address(&asked, &refused), None);
        assert_eq!(address(&asked, &asked), None, "a question is no answer");
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &"x.".repeat(300)] {
            assert_eq!(question(1, name), None, "{name}");
        }
    }
}
