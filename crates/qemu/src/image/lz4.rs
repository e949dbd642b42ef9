//! Unpacks LZ4's "legacy" frames, the form that compressed kernels use.
//! Format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md> (legacy frame).

use lz4_flex::block::decompress;

/// The first bytes of a legacy frame.
const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// No block of a legacy frame unpacks to more than this.
const BLOCK: usize = 8 << 20;

/// What is packed in a frame with its unpacked size (4 bytes) behind it, as the kernel's build leaves
/// it (`lz4_with_size` in `scripts/Makefile.lib`); `None` when it is damaged or cut off.
pub fn unpack(payload: &[u8]) -> Option<Vec<u8>> {
    let (frame, size) = payload.split_last_chunk()?;
    let mut rest = frame.strip_prefix(&MAGIC)?;
    let mut out = Vec::new();
    while let Some((length, blocks)) = rest.split_first_chunk() {
        let (block, blocks) = blocks.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        out.extend(decompress(block, BLOCK).ok()?);
        rest = blocks;
    }
    (out.len() == u32::from_le_bytes(*size) as usize).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of these blocks, and what it unpacks to is so long.
    fn frame(blocks: &[&[u8]], size: u32) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for block in blocks {
            out.extend_from_slice(&(block.len() as u32).to_le_bytes());
            out.extend_from_slice(block);
        }
        out.extend_from_slice(&size.to_le_bytes());
        out
    }

    #[test]
    fn literals_and_overlapping_copies() {
        // "ab", then 10 bytes from 2 back, then the literal "!".
        let block = [0x26, b'a', b'b', 2, 0, 0x10, b'!'];
        assert_eq!(unpack(&frame(&[&block], 13)).unwrap(), b"abababababab!");
        // A copy from before the start is refused.
        assert_eq!(unpack(&frame(&[&[0x10, b'a', 9, 0, 0x10, b'!']], 6)), None);
        assert_eq!(unpack(b"ELF"), None);
    }

    #[test]
    fn long_literals() {
        let mut block = vec![0xf0, 255, 30];
        block.extend_from_slice(&[7; 300]);
        assert_eq!(unpack(&frame(&[&block], 300)).unwrap(), [7; 300]);
    }

    #[test]
    fn more_than_a_block_may_hold_is_refused() {
        // "a", then 19 bytes from 1 back and 255 more for each byte that follows.
        let of = |more: usize| {
            let mut block = vec![0x1f, b'a', 1, 0];
            block.extend(vec![255; more]);
            block.extend([0, 0]);
            unpack(&frame(&[&block], 20 + 255 * more as u32)).map(|out| out.len())
        };
        assert_eq!(of(BLOCK / 255), Some(20 + BLOCK / 255 * 255));
        assert_eq!(of(BLOCK / 255 + 1), None);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let [one, two] = [[0x10, b'a'], [0x10, b'b']];
        let whole = frame(&[&one, &two], 2);
        assert_eq!(unpack(&whole).unwrap(), b"ab");
        for end in 0..whole.len() {
            assert_eq!(unpack(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(unpack(&frame(&[&one], 2)), None);
    }

    proptest! {
        #[test]
        fn damaged_frames_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&frame(&[&block], 4));
        }
    }
}
