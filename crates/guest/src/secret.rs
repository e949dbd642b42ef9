//! Keys and other secrets on their way into a guest.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// What a kernel's generator takes in at once.
const SEED_BYTES: usize = 64;

/// Text that must not appear in logs: printing it for debugging shows its length alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Bytes, kept as hexadecimal text.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Fresh random bytes, as many as a kernel's generator takes in.
    ///
    /// # Errors
    /// This kernel gives none, or too few.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; SEED_BYTES];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        match got < SEED_BYTES {
            true => Err(io::Error::other("the kernel gives too few random bytes")),
            false => Ok(Self::from_bytes(&bytes)),
        }
    }

    /// The bytes again; `None` when the text is not hexadecimal.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        if !self.0.bytes().all(|b| b.is_ascii_hexdigit()) || !self.0.len().is_multiple_of(2) {
            return None;
        }
        (0..self.0.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&self.0[at..at + 2], 16).ok())
            .collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_seeds_are_alike() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.to_bytes().unwrap().len(), SEED_BYTES);
    }

    #[test]
    fn bytes_come_back_and_other_text_has_none() {
        assert_eq!(Secret::from_bytes(b"key\xff").to_bytes().unwrap(), b"key\xff");
        assert_eq!(Secret("0g".into()).to_bytes(), None);
        assert_eq!(Secret("é".into()).to_bytes(), None);
        assert_eq!(Secret("+1".into()).to_bytes(), None);
    }
}
