//! XDR (RFC 4506), the part that NFS needs: big-endian words, and opaque bytes padded to words.

#![allow(missing_docs, reason = "named as the types of XDR")]

/// The caller's bytes are not what the procedure takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage;

/// Takes values off the front of a message.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Garbage> {
        let (word, rest) = self.0.split_first_chunk().ok_or(Garbage)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*word))
    }

    pub fn u64(&mut self) -> Result<u64, Garbage> {
        let (word, rest) = self.0.split_first_chunk().ok_or(Garbage)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*word))
    }

    pub fn bool(&mut self) -> Result<bool, Garbage> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Bytes of a length that the protocol fixes.
    pub fn fixed(&mut self, length: usize) -> Result<&'a [u8], Garbage> {
        let padded = length.checked_next_multiple_of(4).ok_or(Garbage)?;
        let (bytes, rest) = self.0.split_at_checked(padded).ok_or(Garbage)?;
        self.0 = rest;
        Ok(&bytes[..length])
    }

    /// Bytes that bring their length, at most `limit`.
    pub fn opaque(&mut self, limit: usize) -> Result<&'a [u8], Garbage> {
        let length = self.u32()? as usize;
        if length > limit {
            Err(Garbage)
        } else {
            self.fixed(length)
        }
    }
}

/// Puts values at the end of a message.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(value.into())
    }

    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        // No message comes near 4 GiB: records are cut off far below that.
        self.u32(bytes.len() as u32).fixed(bytes)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was put after `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer
            .u32(7)
            .u64(1 << 40)
            .bool(true)
            .opaque(b"abcde")
            .fixed(b"xy")
            .opaque(b"");
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 4 + 8 + 4 + (4 + 8) + 4 + 4);
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            (reader.u32(), reader.u64(), reader.bool()),
            (Ok(7), Ok(1 << 40), Ok(true))
        );
        assert_eq!(
            (reader.opaque(5), reader.fixed(2), reader.opaque(0)),
            (Ok(&b"abcde"[..]), Ok(&b"xy"[..]), Ok(&b""[..]))
        );
        assert_eq!(reader.u32(), Err(Garbage));
    }

    #[test]
    fn lengths_from_outside_are_bounded() {
        let mut writer = Writer::default();
        writer.u32(u32::MAX).u64(0);
        let bytes = writer.into_bytes();
        assert_eq!(Reader::new(&bytes).opaque(usize::MAX), Err(Garbage));
        assert_eq!(Reader::new(&[0, 0, 0, 9, 1, 2, 3, 4]).opaque(8), Err(Garbage));
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(Garbage));
    }
}
