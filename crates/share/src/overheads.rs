//! How long what is decided takes.

use crate::job::Ms;

/// How long what is decided takes: the job makes no progress meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overheads {
    /// Until a new VM runs.
    pub boot: Ms,
    /// To go on after a pause in place.
    pub resume: Ms,
    /// To go on after a save, on whatever host, beside the time to read the memory.
    pub restore: Ms,
    /// To go on on another host, beside the time to send the memory.
    pub moves: Ms,
    /// What a host's storage writes and reads in a second, in the unit of memory, for all who save or restore there;
    /// [`None`] if that takes no time.
    pub storage: Option<u64>,
    /// What a move sends in a second from each host, likewise.
    pub network: Option<u64>,
}

/// The time for so much memory.
pub(crate) fn time(memory: u64, per_second: Option<u64>) -> Ms {
    per_second.map_or(0, |rate| (memory * 1000).div_ceil(rate.max(1)))
}
