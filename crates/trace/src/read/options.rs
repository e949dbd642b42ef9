//! How a log is to be read.

use super::names::Names;
use jiff::tz::TimeZone;

/// How a log is to be read, beyond what is in it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is shown in place of users' and partitions' names, where a log has names: digests by default.
    pub names: Names,
    /// The zone of times that are not seconds since 1970: by default this machine's. Only a log of `sacct`
    /// has such times, and only if `SLURM_TIME_FORMAT` was not set when it was made.
    pub zone: Option<TimeZone>,
}
