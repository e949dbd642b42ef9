//! Sizes as oned says them, and the most of each that is believed.
//!
//! What is beyond is a mistake or a lie: nothing is made of such a number, and what it is said of is told to be so
//! ([`Beyond`]). Ids of oned's have 32 bits: a whole pool together, at most 2^62 MiB and 2^55 percent of a core, is
//! still far from what 64 bits hold.

use std::fmt;

/// 65,536 cores, in percent of one: eight times what Linux runs on (`NR_CPUS` of x86), for hosts may promise more
/// than they have (`RESERVED_CPU` below 0).
pub const MOST_CPU_PERCENT: u32 = 65_536 * 100;

/// One PiB, in MiB: sixteen times what x86 reaches with pages of four levels.
pub const MOST_MEMORY_MB: u64 = 1 << 30;

/// VMs on one host: each has a port there for its screen.
pub const MOST_VMS: u32 = 65_536;

/// A size that oned tells of, and no machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Cpu,
    Memory,
    /// VMs on one host.
    Vms,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "more than {} cores", MOST_CPU_PERCENT / 100),
            Self::Memory => write!(f, "more than {MOST_MEMORY_MB} MiB of memory"),
            Self::Vms => write!(f, "more than {MOST_VMS} VMs"),
        }
    }
}

/// Reads the sizes of one element.
#[derive(Default)]
pub(crate) struct Sizes {
    /// The first that is beyond what is believed; it was read as 0.
    pub beyond: Option<Beyond>,
}

impl Sizes {
    /// Cores, in percent of one.
    pub fn cores(&mut self, cores: Option<f64>) -> u32 {
        self.cpu_percent(cores.map(|cores| (cores * 100.0).round()))
    }

    /// Percent of a core.
    pub fn cpu_percent(&mut self, percent: Option<f64>) -> u32 {
        self.at_most(MOST_CPU_PERCENT.into(), percent, Beyond::Cpu) as u32
    }

    /// A memory in MiB.
    pub fn memory_mb(&mut self, mb: Option<f64>) -> u64 {
        self.at_most(MOST_MEMORY_MB, mb, Beyond::Memory)
    }

    /// KiB, as oned counts hosts' memory, in MiB.
    pub fn memory_kb(&mut self, kb: Option<f64>) -> u64 {
        self.memory_mb(kb.map(|kb| kb / 1024.0))
    }

    /// A count of VMs.
    pub fn vms(&mut self, count: Option<f64>) -> u32 {
        self.at_most(MOST_VMS.into(), count, Beyond::Vms) as u32
    }

    /// A whole number; 0 where more is reserved than there is, and oned says less than that.
    fn at_most(&mut self, most: u64, number: Option<f64>, what: Beyond) -> u64 {
        let number = number.unwrap_or_default();
        // No number at all (NaN) is not at most anything.
        if number <= most as f64 {
            return number.max(0.0) as u64;
        }
        self.beyond.get_or_insert(what);
        0
    }
}
