//! Unpacks LZ4's "legacy" frames, the form that compressed kernels use.
//! Format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md> (legacy
//! frame) and `lz4_Block_format.md`.

/// The first bytes of a legacy frame.
pub const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// No block of a legacy frame unpacks to more than this.
const BLOCK: usize = 8 << 20;

/// The unpacked content; `None` when the frame is damaged. The kernel appends
/// its unpacked size (4 bytes) to the frame: what is not a whole block ends it.
pub fn unpack(frame: &[u8]) -> Option<Vec<u8>> {
    let mut rest = frame.strip_prefix(&MAGIC)?;
    let mut out = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*head) as usize;
        if *head == MAGIC {
            rest = after;
            continue;
        }
        if length == 0 || length > after.len() {
            break;
        }
        block(&after[..length], &mut out)?;
        rest = &after[length..];
    }
    (!out.is_empty()).then_some(out)
}

fn block(mut data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    loop {
        let token = usize::from(take(&mut data)?);
        let literals = length(token >> 4, &mut data)?;
        out.extend_from_slice(data.get(..literals)?);
        data = &data[literals..];
        if data.is_empty() {
            return Some(());
        }
        let offset = usize::from(take(&mut data)?) | usize::from(take(&mut data)?) << 8;
        let count = length(token & 15, &mut data)? + 4;
        if offset == 0 || offset > out.len() - start || out.len() - start + count > BLOCK {
            return None;
        }
        // The copy may overlap what it writes: then it repeats.
        let from = out.len() - offset;
        if count <= offset {
            out.extend_from_within(from..from + count);
        } else {
            for at in from..from + count {
                out.push(out[at]);
            }
        }
    }
}

fn take(data: &mut &[u8]) -> Option<u8> {
    let (first, rest) = data.split_first()?;
    *data = rest;
    Some(*first)
}

fn length(nibble: usize, data: &mut &[u8]) -> Option<usize> {
    let mut total = nibble;
    if nibble == 15 {
        loop {
            let byte = take(data)?;
            total += usize::from(byte);
            if byte != 255 {
                break;
            }
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of one block, with the kernel's size at its end.
    fn frame(block: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(block.len() as u32).to_le_bytes());
        out.extend_from_slice(block);
        out.extend_from_slice(&[1, 2, 3, 4]);
        out
    }

    #[test]
    fn literals_and_overlapping_copies() {
        // "ab", then 10 bytes from 2 back, then the literal "!".
        assert_eq!(
            unpack(&frame(&[0x26, b'a', b'b', 2, 0, 0x10, b'!'])).unwrap(),
            b"abababababab!"
        );
        // A copy from before the start is refused.
        assert_eq!(unpack(&frame(&[0x10, b'a', 9, 0, 0x10, b'!'])), None);
        assert_eq!(unpack(b"ELF"), None);
    }

    #[test]
    fn long_literals() {
        let mut block = vec![0xf0, 255, 30];
        block.extend_from_slice(&[7; 300]);
        assert_eq!(unpack(&frame(&block)).unwrap(), [7; 300]);
    }

    proptest! {
        #[test]
        fn damaged_frames_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&frame(&block));
        }
    }
}
