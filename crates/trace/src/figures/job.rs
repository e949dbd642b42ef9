//! What one job got.

use crate::engine::Ended;
use crate::workload::TraceJob;

/// No job is taken for shorter than this, in seconds: or the stretch of a job of a second would outweigh all.
pub const SHORTEST: f64 = 10.0;

/// What one job got, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneJob {
    /// Turnaround by run time, neither less than [`SHORTEST`] nor less than 1.
    pub stretch: f64,
    /// From its submission to its end.
    pub turnaround: f64,
    /// What of that it did not need: it waited, stood still, or had less than its CPU.
    pub wait: f64,
    /// From its submission to its first start.
    pub start: f64,
}

impl OneJob {
    /// Of a job that ended.
    #[must_use]
    pub fn of(job: &TraceJob, ended: &Ended) -> Self {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let submit = job.submit * 1000;
        let turnaround = seconds(ended.end.saturating_sub(submit));
        let run = job.run as f64;
        Self {
            stretch: (turnaround / run.max(SHORTEST)).max(1.0),
            turnaround,
            wait: (turnaround - run).max(0.0),
            start: seconds(ended.start.saturating_sub(submit)),
        }
    }
}

/// Something by something, nothing by nothing being `otherwise`.
pub fn by(what: f64, than: f64, otherwise: f64) -> f64 {
    if than > 0.0 { what / than } else { otherwise }
}
