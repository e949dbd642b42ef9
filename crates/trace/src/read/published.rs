//! Simulated schedules that others published: the Standard Workload Format again, written by the simulator
//! of "Improving Backfilling by using Machine Learning to predict Running Times" (SC'15). The waits are what
//! that simulator's scheduler made of the log, the jobs stand in the order of their ends, and it knows
//! nothing but processors: one processor is a node here.

use super::log::{Header, Record};
use super::odd::Odd;
use super::swf;

/// Whether a log is such a schedule, by its head.
#[must_use]
pub fn wrote(header: &Header) -> bool {
    header
        .computer
        .as_deref()
        .is_some_and(|computer| computer.starts_with("Pyss Simulator"))
}

/// The job of a line, if there is one.
///
/// # Errors
/// What is wrong with the line.
pub fn job(line: &str, odd: &mut Odd) -> Result<Option<Record>, String> {
    // In place of the partition stands whether the job was backfilled.
    Ok(swf::job(line, odd)?.map(|job| Record { partition: 0, ..job }))
}
