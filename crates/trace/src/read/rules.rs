//! What is made of odd values, in whichever log they stand.

use super::log::Processors;
use super::odd::{Odd, Oddity};

/// The limit that counts.
pub fn limit(limit: Option<u64>, run: u64, odd: &mut Odd) -> u64 {
    match limit {
        None => {
            odd.count(Oddity::NoLimit);
            run
        }
        Some(limit) if limit < run => {
            odd.count(Oddity::OverLimit);
            run
        }
        Some(limit) => limit,
    }
}

/// Counts what is odd about what a job needs.
pub fn processors(need: Processors, odd: &mut Odd) -> Processors {
    if need.asked > 0 && need.got > 0 && need.asked != need.got {
        odd.count(Oddity::ProcessorsDiffer);
    }
    if need.memory_asked == 0 && need.memory_got == 0 {
        odd.count(Oddity::NoMemory);
    }
    need
}
