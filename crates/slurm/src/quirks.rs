//! What differs between Slurm's releases, by slurmctld's version.
//!
//! Seen with real slurmctlds of 22.05.8, 23.11.11, 24.11.5, 25.11.7 and 26.05.5; where a change came between
//! two of these, Slurm's source says with which release. That of the programs here does not count: they may
//! be of another one.

use crate::info::Version;
use std::time::{Duration, Instant};

/// The oldest release whose formats and power saving we know.
pub const OLDEST: Version = Version::new(22, 5, 0);
/// The newest release that was tried. Newer ones are taken for it.
pub const NEWEST: Version = Version::new(26, 5, 0);

/// How long an answer counts: slurmctld may be replaced by a newer one at any time.
const FRESH: Duration = Duration::from_secs(60);

/// What differs between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// What comes before a generic resource in `TresPerNode`. 22.05 knows only `gres:vm:1`, from 23.02 on
    /// it is `gres/vm:1`.
    pub gres: &'static str,
    /// Whether `PrivateData=cloud` is known, without which `sinfo` hides nodes that are powered down. From
    /// 23.02 on they are always shown, and slurmctld drops the word.
    pub private_cloud: bool,
    /// Whether `cloud_reg_addrs` has to be asked for. From 23.11 on it is always so, and later slurmctlds
    /// log the word as an error.
    pub reg_addrs: bool,
    /// Whether slurmctld looks up the names of a job's nodes, under its locks, when the job leaves them before
    /// they are up (`set_job_node_addrs`, 23.11 and later).
    pub looks_up_nodes: bool,
    /// Whether partitions have `MaxCPUsPerSocket` and `PowerDownOnIdle` (23.02 and later; 22.05 does not start
    /// with them).
    pub newer_partitions: bool,
    /// Whether the main scheduler starts no job on a cluster without accounting, and says `InvalidAccount`: 23.11
    /// has no plugin any more for "none", and takes its silence for an error. Seen on 23.11.11 and 24.05.8, not
    /// on 24.11.5; with slurmdbd all is well (23.11.11).
    pub needs_accounting: bool,
}

impl Quirks {
    /// Those of a release.
    #[must_use]
    pub fn of(version: Version) -> Self {
        Self {
            gres: match version < Version::new(23, 2, 0) {
                true => "gres:",
                false => "gres/",
            },
            private_cloud: version < Version::new(23, 2, 0),
            reg_addrs: version < Version::new(23, 11, 0),
            looks_up_nodes: version >= Version::new(23, 11, 0),
            newer_partitions: version >= Version::new(23, 2, 0),
            needs_accounting: version >= Version::new(23, 11, 0) && version < Version::new(24, 11, 0),
        }
    }
}

/// Whether a release is newer than all that were tried.
#[must_use]
pub fn is_untried(version: Version) -> bool {
    (version.major, version.minor) > (NEWEST.major, NEWEST.minor)
}

/// What was asked of Slurm and may change, once it is known.
#[derive(Debug)]
pub(crate) struct Resolved<T>(Option<(T, Instant)>);

impl<T> Default for Resolved<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Resolved<T> {
    /// What is known and not too old.
    pub(crate) fn fresh(&self, now: Instant) -> Option<T> {
        let (known, asked) = self.0?;
        (now.duration_since(asked) < FRESH).then_some(known)
    }

    /// What was known last, however old it is.
    pub(crate) fn last(&self) -> Option<T> {
        self.0.map(|(known, _)| known)
    }

    pub(crate) fn learn(&mut self, answer: T, now: Instant) {
        self.0 = Some((answer, now));
    }

    /// After a failure another slurmctld may answer next.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_has_its_own() {
        let of = |major, minor| Quirks::of(Version::new(major, minor, 3));
        assert_eq!((of(22, 5).gres, of(23, 2).gres), ("gres:", "gres/"));
        assert!(!of(22, 5).newer_partitions && of(23, 2).newer_partitions);
        assert!(of(23, 2).reg_addrs && !of(23, 11).reg_addrs);
        assert!(!of(22, 5).looks_up_nodes && of(24, 11).looks_up_nodes);
        let needs: Vec<bool> = [(23, 2), (23, 11), (24, 5), (24, 11)]
            .map(|(major, minor)| of(major, minor).needs_accounting)
            .into();
        assert_eq!(needs, [false, true, true, false]);
        assert!(of(22, 5).private_cloud && !of(23, 2).private_cloud);
        assert_eq!(of(31, 5), of(26, 5), "a newer one is taken for the newest known");
        assert!(is_untried(Version::new(26, 11, 0)) && !is_untried(Version::new(26, 5, 9)));
    }

    #[test]
    fn what_was_learnt_grows_old() {
        let (mut known, now) = (Resolved::default(), Instant::now());
        assert_eq!(known.fresh(now), None);
        let quirks = Quirks::of(NEWEST);
        known.learn(quirks, now);
        assert_eq!(known.fresh(now), Some(quirks));
        assert_eq!(known.fresh(now + FRESH), None);
        assert_eq!(known.last(), Some(quirks));
        known.forget();
        assert_eq!(known.fresh(now), None);
    }
}
