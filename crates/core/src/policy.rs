//! The limits and times that decisions follow. Resolved once by the
//! configuration; nothing in this crate has a time or a limit of its own.

use crate::ids::Millis;

/// One part in this many of a guest's memory goes to its kernel's tables, those of pages
/// above all: measured were 55 to 57 on guests of 2 to 20 GiB, Linux 6.1. No setting: it is the kernel's.
pub const PAGE_TABLE_PART: u64 = 50;

/// Up to this size, in MiB, [`Policy::overhead_mb`] covers a guest's tables too.
pub const SMALL_GUEST_MB: u64 = 2048;

/// Every number that `plan` obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most VMs at once, in all.
    pub max_vms: usize,
    /// Most VMs on one host.
    pub max_vms_per_host: usize,
    /// Most VMs between "asked" and "ready" at once.
    pub max_starting: usize,
    /// How far the core shares on a host may exceed its cores, in percent; 100 is never.
    pub cpu_overcommit_percent: u32,
    /// Memory that each VM needs beside what its node promises, in MiB. Of small guests with 4 CPUs Linux 6.1
    /// (Debian 12) took 135 before any job, 6.12 (Debian 13) 161, 7.2 (forky) 169.
    pub overhead_mb: u64,
    /// A VM that has not registered with Slurm after this time has failed.
    /// Below Slurm's ResumeTimeout, so that Slurm's timeout never is what discovers it.
    pub boot_timeout: Millis,
    /// How long a node may wait for capacity on a host before Slurm is told.
    pub capacity_patience: Millis,
    /// A VM of ours that backs nothing is terminated after this time.
    pub orphan_grace: Millis,
    /// A VM that whole observations do not show is taken for lost only after this time,
    pub missing_grace: Millis,
    /// and only after so many of them in a row: few observations may have been whole meanwhile.
    pub missing_observations: u32,
    /// A node that is up and does not answer Slurm for this time is lost, with its
    /// job: what Slurm's SlurmdTimeout is elsewhere, which is off here.
    pub silence_grace: Millis,
    /// How long a VM may take to end by itself once that was asked; then it is ended hard.
    pub terminate_grace: Millis,
    /// First pause after a failure; doubles with each further one.
    pub retry_first: Millis,
    /// Longest pause between tries.
    pub retry_max: Millis,
    /// How often a node is tried on another host before Slurm is told that it is DOWN.
    pub tries_before_down: u32,
    /// Failures in a row, over all nodes, that open the circuit breaker.
    pub breaker_failures: u32,
    /// How long an open breaker stays so before one creation is tried.
    pub breaker_pause: Millis,
    /// How long capacity is held for a job that was admitted and that Slurm does not start.
    pub admit_patience: Millis,
    /// A job that has waited for capacity this long is not overtaken any more.
    pub overtake_limit: Millis,
    /// Whether guests start slurmd only when they are told. Else their VMs are not made before
    /// Slurm itself asks for the nodes.
    pub guests_wait: bool,
    /// A slurmd that Slurm has not heard after this time, while it waits for the node, is started again,
    pub unheard_grace: Millis,
    /// but not more often than this in all.
    pub slurmd_starts: u32,
    /// How long the VMs of a failed job stay that asked for it.
    pub keep_failed: Millis,
    /// Observations older than this are not acted on.
    pub observation_max_age: Millis,
    /// Slurm takes a node for one job's alone within this time of its coming up, or
    /// something is wrong with that: its job is not held up for longer.
    pub mark_patience: Millis,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_vms: 10_000,
            max_vms_per_host: 256,
            max_starting: 64,
            cpu_overcommit_percent: 100,
            overhead_mb: 176,
            boot_timeout: Millis::secs(120),
            capacity_patience: Millis::secs(20),
            orphan_grace: Millis::secs(60),
            missing_grace: Millis::secs(30),
            missing_observations: 4,
            silence_grace: Millis::secs(300),
            terminate_grace: Millis::secs(60),
            retry_first: Millis::secs(5),
            retry_max: Millis::secs(300),
            tries_before_down: 2,
            breaker_failures: 10,
            breaker_pause: Millis::secs(60),
            admit_patience: Millis::secs(30),
            overtake_limit: Millis::secs(600),
            guests_wait: false,
            unheard_grace: Millis::secs(10),
            slurmd_starts: 3,
            keep_failed: Millis::secs(3600),
            observation_max_age: Millis::secs(60),
            mark_patience: Millis::secs(5),
        }
    }
}

impl Policy {
    /// The pause after the `failures`th failure in a row (1 is the first): doubling, bounded.
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Millis {
        let doublings = failures.saturating_sub(1).min(30);
        Millis((self.retry_first.0 << doublings).min(self.retry_max.0.max(self.retry_first.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_and_is_bounded() {
        let p = Policy::default();
        assert_eq!(p.backoff(1), Millis::secs(5));
        assert_eq!(p.backoff(2), Millis::secs(10));
        assert_eq!(p.backoff(3), Millis::secs(20));
        assert_eq!(p.backoff(99), Millis::secs(300));
    }
}
