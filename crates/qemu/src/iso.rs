//! Writes the disc that tells a VM its CONTEXT: ISO 9660 (ECMA-119), one folder
//! with a few small files. Names are of interchange level 1, `CONTEXT.SH;1`,
//! which Linux shows as `context.sh`; some without an ending have a hyphen, `USER-DATA`, which the standard
//! has not and every system reads.

use std::collections::BTreeMap;

/// Bytes of a sector, which is also the logical block.
const SECTOR: usize = 2048;

/// The sectors of a disc: 16 of nothing, then these, then the files.
const DESCRIPTOR: usize = 16;
const TERMINATOR: usize = 17;
const PATHS_LITTLE: usize = 18;
const PATHS_BIG: usize = 19;
const ROOT: usize = 20;
const FILES: usize = 21;

/// A folder's record without its name.
const RECORD: usize = 33;

/// The date of everything: 1 January 2000, so that the same files give the same bytes.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// A disc with this label and these files, by name.
pub fn disc(label: &str, files: &BTreeMap<&str, &[u8]>) -> Result<Vec<u8>, String> {
    if label.is_empty() || label.len() > 32 || !label.bytes().all(is_letter) {
        return Err(format!("{label:?} is no label of a disc"));
    }
    let mut disc = vec![0; FILES * SECTOR];
    let mut folder = [
        record(&[0], ROOT, SECTOR, true)?,
        record(&[1], ROOT, SECTOR, true)?,
    ]
    .concat();
    for (name, content) in files {
        let at = disc.len() / SECTOR;
        folder.extend(record(&identifier(name)?, at, content.len(), false)?);
        disc.extend_from_slice(content);
        disc.resize(disc.len().next_multiple_of(SECTOR), 0);
    }
    if folder.len() > SECTOR {
        return Err("a disc's one folder is full".to_owned());
    }
    let size = number(disc.len() / SECTOR)?;
    let mut put = |sector: usize, bytes: &[u8]| {
        let start = sector * SECTOR;
        disc[start..start + bytes.len()].copy_from_slice(bytes);
    };
    put(DESCRIPTOR, &descriptor(label, size)?);
    put(TERMINATOR, b"\xffCD001\x01");
    // The one folder: length of its name, no attributes, where it is, itself its parent, its name.
    let root = number(ROOT)?;
    put(
        PATHS_LITTLE,
        &[&[1, 0][..], &root.to_le_bytes(), &[1, 0, 0, 0]].concat(),
    );
    put(
        PATHS_BIG,
        &[&[1, 0][..], &root.to_be_bytes(), &[0, 1, 0, 0]].concat(),
    );
    put(ROOT, &folder);
    Ok(disc)
}

/// How many bytes the table of folders has: one record of 8, its name, and one to make it even.
const PATHS_LEN: u32 = 10;

/// The primary volume descriptor (8.4). What is not said here is zero or spaces.
fn descriptor(label: &str, size: u32) -> Result<Vec<u8>, String> {
    let mut text = Vec::with_capacity(SECTOR);
    text.extend_from_slice(b"\x01CD001\x01\0");
    text.extend(padded("", 32));
    text.extend(padded(label, 32));
    text.extend([0; 8]);
    text.extend(both32(size));
    text.extend([0; 32]);
    // One volume, the first, of blocks of one sector.
    for value in [1, 1, SECTOR as u16] {
        text.extend(both16(value));
    }
    text.extend(both32(PATHS_LEN));
    text.extend(number(PATHS_LITTLE)?.to_le_bytes());
    text.extend([0; 4]);
    text.extend(number(PATHS_BIG)?.to_be_bytes());
    text.extend([0; 4]);
    text.extend(record(&[0], ROOT, SECTOR, true)?);
    // Set, publisher, preparer, application; then three files' names.
    text.extend(padded("", 4 * 128 + 3 * 37));
    // Four dates that are not told.
    for _ in 0..4 {
        text.extend(b"0000000000000000\0");
    }
    text.push(1);
    text.resize(SECTOR, 0);
    Ok(text)
}

/// A record of a folder (9.1).
fn record(name: &[u8], at: usize, length: usize, folder: bool) -> Result<Vec<u8>, String> {
    // Records have an even length.
    let whole = (RECORD + name.len()).next_multiple_of(2);
    let mut text = vec![byte(whole)?, 0];
    text.extend(both32(number(at)?));
    text.extend(both32(number(length)?));
    text.extend(DATE);
    text.extend([if folder { 2 } else { 0 }, 0, 0]);
    text.extend(both16(1));
    text.push(byte(name.len())?);
    text.extend_from_slice(name);
    text.resize(whole, 0);
    Ok(text)
}

/// The name as it is on the disc: `context.sh` becomes `CONTEXT.SH;1`.
fn identifier(name: &str) -> Result<Vec<u8>, String> {
    let proper = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.to_ascii_uppercase().bytes().all(is_letter)
    };
    match name.split_once('.') {
        Some((stem, ending)) if proper(stem, 8) && proper(ending, 3) => {
            Ok(format!("{};1", name.to_ascii_uppercase()).into_bytes())
        }
        None if name.bytes().any(|byte| byte == b'-') && proper(&name.replace('-', "_"), 30) => {
            Ok(name.to_ascii_uppercase().into_bytes())
        }
        _ => Err(format!("{name:?} is no name of a file on a disc")),
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, b' ');
    bytes
}

/// Numbers stand there in both orders of bytes.
fn both32(value: u32) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn both16(value: u16) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn number(value: usize) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| "a disc's file is too large".to_owned())
}

fn byte(value: usize) -> Result<u8, String> {
    u8::try_from(value).map_err(|_| "a name on a disc is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a disc as a system does: from the descriptor to the root folder to the files.
    fn read(disc: &[u8]) -> (String, BTreeMap<String, Vec<u8>>) {
        let little = |at: usize| u32::from_le_bytes(disc[at..at + 4].try_into().unwrap()) as usize;
        let volume = DESCRIPTOR * SECTOR;
        assert_eq!(&disc[volume..volume + 7], b"\x01CD001\x01");
        assert_eq!(little(volume + 80) * SECTOR, disc.len(), "its size is told");
        let label = String::from_utf8(disc[volume + 40..volume + 72].to_vec()).unwrap();
        let root = volume + 156;
        let (mut at, length) = (little(root + 2) * SECTOR, little(root + 10));
        let end = at + length;
        let mut files = BTreeMap::new();
        while at < end && disc[at] > 0 {
            let name = &disc[at + 33..at + 33 + usize::from(disc[at + 32])];
            let (start, length) = (little(at + 2) * SECTOR, little(at + 10));
            if disc[at + 25] & 2 == 0 {
                let name = String::from_utf8(name.to_vec()).unwrap();
                files.insert(name, disc[start..start + length].to_vec());
            }
            at += usize::from(disc[at]);
        }
        (label.trim_end().to_owned(), files)
    }

    #[test]
    fn what_has_no_place_on_a_disc_is_refused() {
        let of = |name: &'static str| disc("CONTEXT", &BTreeMap::from([(name, &b""[..])]));
        assert!(of("context.sh").is_ok() && of("user-data").is_ok());
        for bad in [
            "context",
            "a/b.sh",
            "context.shell",
            "longername.sh",
            ".sh",
            "a b.sh",
            "é.sh",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(disc("", &BTreeMap::new()).is_err());
        assert!(disc("context", &BTreeMap::new()).is_err());
    }

    #[test]
    fn guests_know_the_disc_for_theirs() {
        use thiao_guest::context_disk::{DESCRIPTOR_AT, DESCRIPTOR_LEN, LABEL, is_context_disk};
        let disc = disc(LABEL, &BTreeMap::new()).unwrap();
        let at = usize::try_from(DESCRIPTOR_AT).unwrap();
        assert!(is_context_disk(&disc[at..at + DESCRIPTOR_LEN]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            a in proptest::collection::vec(any::<u8>(), 0..5000), b in proptest::collection::vec(any::<u8>(), 0..5000)
        ) {
            let disc = disc("CONTEXT", &BTreeMap::from([("context.sh", &a[..]), ("token.txt", &b[..])])).unwrap();
            prop_assert_eq!(disc.len() % SECTOR, 0);
            let (label, files) = read(&disc);
            prop_assert_eq!(label, "CONTEXT");
            prop_assert_eq!(files, BTreeMap::from([("CONTEXT.SH;1".to_owned(), a), ("TOKEN.TXT;1".to_owned(), b)]));
        }
    }
}
