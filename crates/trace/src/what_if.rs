//! A workload that is other than its log: how far do figures depend on what a log does not say?

use crate::workload::{TraceJob, Workload};

/// What is other. By default nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WhatIf {
    /// Time limits are wrong by up to so many times: each is a job's run time by 1 to this, most often by little.
    pub limits: Option<f64>,
    /// A task needs so many times its memory, at most a host's.
    pub memory: Option<f64>,
    /// So large a share of the jobs may neither be paused, saved nor moved.
    pub fixed: f64,
    /// So large a part of its CPU a job uses, and policies that share see that; the others give it all.
    pub cpu: Option<f64>,
    /// What is drawn depends on this, and on the job's number.
    pub seed: u64,
}

/// A number from 0 up to 1 for a job: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014), so that what is drawn for one job does not depend on the others.
fn drawn(seed: u64, job: &TraceJob) -> f64 {
    let mut z = seed.wrapping_add(job.id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl WhatIf {
    /// Makes the log's jobs others.
    pub fn change(&self, workload: &mut Workload) {
        let most = workload.host.memory;
        for job in &mut workload.jobs {
            if let Some(times) = self.limits {
                let factor = times.max(1.0).powf(drawn(self.seed, job));
                job.limit = ((job.run as f64 * factor).ceil() as u64).max(job.run);
            }
            if let Some(times) = self.memory {
                job.memory = ((f64::from(job.memory) * times).round() as u32).min(most);
            }
        }
    }

    /// In words, nothing if nothing is other.
    #[must_use]
    pub fn words(&self) -> String {
        let percent = |part: f64| (100.0 * part).round();
        let said = [
            self.limits
                .map(|times| format!("limits up to {times} times the run time")),
            self.memory.map(|times| format!("{times} times the memory")),
            (self.fixed > 0.0).then(|| format!("{} % of the jobs stay where they are", percent(self.fixed))),
            self.cpu
                .map(|part| format!("jobs use {} % of their CPU", percent(part))),
        ];
        said.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether a job must stay where it is.
    #[must_use]
    pub fn is_fixed(&self, job: &TraceJob) -> bool {
        // Another number than that of its limit.
        self.fixed > 0.0 && drawn(!self.seed, job) < self.fixed
    }

    /// The CPU that a task of it uses.
    #[must_use]
    pub fn cpu_of(&self, job: &TraceJob) -> u32 {
        self.cpu.map_or(job.cpu, |part| {
            ((f64::from(job.cpu) * part).round() as u32).clamp(1, job.cpu)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_share::Host;

    fn workload() -> Workload {
        let job = |id| TraceJob {
            id,
            submit: 0,
            run: 100,
            tasks: 1,
            cpu: 10,
            memory: 30,
            limit: 7,
            user: 0,
            partition: 0,
            wait: None,
            efficiency: 1000,
        };
        Workload {
            name: String::new(),
            hosts: 1,
            host: Host { cpu: 10, memory: 50 },
            jobs: (0..4000).map(job).collect(),
        }
    }

    #[test]
    fn nothing_is_other_unless_it_is_said() {
        let mut other = workload();
        WhatIf::default().change(&mut other);
        assert_eq!(other, workload());
        let what_if = WhatIf::default();
        assert_eq!(what_if.words(), "");
        assert!(
            other
                .jobs
                .iter()
                .all(|job| !what_if.is_fixed(job) && what_if.cpu_of(job) == job.cpu)
        );
    }

    #[test]
    fn what_is_said_is_other() {
        let what_if = WhatIf {
            limits: Some(10.0),
            memory: Some(2.0),
            fixed: 0.5,
            cpu: Some(0.34),
            seed: 1,
        };
        let mut other = workload();
        what_if.change(&mut other);
        assert!(
            other
                .jobs
                .iter()
                .all(|job| (100..=1000).contains(&job.limit) && job.memory == 50)
        );
        // Half of them are under the square root of 10.
        let under = other.jobs.iter().filter(|job| job.limit < 316).count();
        let fixed = other.jobs.iter().filter(|job| what_if.is_fixed(job)).count();
        assert!(
            (1900..2100).contains(&under) && (1900..2100).contains(&fixed),
            "{under} {fixed}"
        );
        let both = other
            .jobs
            .iter()
            .filter(|job| job.limit < 316 && what_if.is_fixed(job))
            .count();
        assert!((900..1100).contains(&both), "{both}");
        assert_eq!(what_if.cpu_of(&other.jobs[0]), 3);
        let words = "limits up to 10 times the run time, 2 times the memory, 50 % of the jobs stay where they are, \
                     jobs use 34 % of their CPU";
        assert_eq!(what_if.words(), words);
        let mut again = workload();
        WhatIf { seed: 2, ..what_if }.change(&mut again);
        assert_ne!(again, other);
    }
}
