//! `SLURM_RESUME_FILE`, as an order's file keeps it.

use crate::input::{says_something, text};
use thiao_slurm::resume_file::{ResumeFile, parse_within};

/// More names are slow to try, and say nothing new.
const FEW: u64 = 64;

/// What is read is within its limits; what is not read is refused with a reason.
pub fn check(input: &[u8]) {
    match parse_within(&text(input), FEW) {
        Err(error) => says_something(&error, input),
        Ok(ResumeFile { jobs, all_nodes }) => {
            let names: usize = jobs.iter().map(|job| job.resume.len() + job.alloc.len()).sum();
            assert!((names + all_nodes.len()) as u64 <= FEW, "more names than allowed");
            assert!(jobs.len() <= input.len());
        }
    }
}
