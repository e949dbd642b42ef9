//! Whole worlds from a seed: what there is, who uses it, and when things go wrong.
//!
//! Every world drawn is one in which all can end well: each job fits on the hosts
//! and into the caps when nothing else is there, and what Slurm is patient for is
//! more than what a start takes. Within that, anything may be.

use crate::profile::Profile;
use crate::rng::Rng;
use crate::setup::{JOB_MODE_CPUS, JobModePlan, JobPlan, Setup, VM_MEMORY_MB};
use crate::slurm::{Release, Rules};
use thiao_core::ids::Millis;
use thiao_core::policy::Policy;

/// How much is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// For how long jobs come and things go wrong, in hours.
    pub hours: u64,
    /// Nodes of both modes together; none: 2 to 8, as the seed has it.
    pub nodes: Option<usize>,
    /// Jobs that come per hour; none: what keeps a part of the nodes busy.
    pub jobs_per_hour: Option<u64>,
}

impl Default for Scale {
    /// An hour of a small world.
    fn default() -> Self {
        Self {
            hours: 1,
            nodes: None,
            jobs_per_hour: None,
        }
    }
}

/// The most nodes of a drawn world: what a simulated round costs grows with it.
pub const MOST_NODES: usize = 2000;

/// The most hours of a drawn world: a year.
pub const MOST_HOURS: u64 = 24 * 366;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

impl Setup {
    /// The world of `seed`.
    #[must_use]
    pub fn drawn(seed: u64, scale: Scale, profile: Profile) -> Self {
        let seeds = Rng::new(seed).fork(10);
        let nodes = scale.nodes.unwrap_or_else(|| place(&mut seeds.fork(1), 2, 8));
        let nodes = nodes.clamp(1, MOST_NODES);
        let rng = &mut seeds.fork(2);
        let job_mode_nodes = match rng.below(6) {
            0 => 0,
            1 => nodes,
            _ => place(rng, nodes / 4, nodes - nodes / 4),
        };
        let usual = nodes - job_mode_nodes;
        let hosts = place(rng, 1, nodes.div_ceil(2).min(1 + nodes / 8 + 2));
        // From half of the nodes to more than all.
        let capacity = place(rng, nodes.div_ceil(2), nodes + 1);
        let host_capacity = capacity.div_ceil(hosts);
        let capacity = host_capacity * hosts;
        let policy = policy(rng, nodes);
        let max_vms = place(rng, capacity.min(nodes).div_ceil(2), nodes);
        let most = capacity.min(max_vms);
        let largest = |nodes: usize| nodes.min(most).min(16);
        // Two wide jobs of power-saving mode may keep each other waiting where not all nodes have capacity.
        let largest_usual = if nodes > most {
            usual.min(1)
        } else {
            largest(usual)
        };
        let least = Setup::patience(nodes.div_ceil(policy.max_starting));
        let release = Release::KNOWN[place(&mut seeds.fork(5), 0, Release::KNOWN.len() - 1)];
        let rules = Rules {
            release,
            ..rules(rng, least)
        };
        let patient = rng.coin();
        let span = scale.hours.clamp(1, MOST_HOURS) * HOUR;
        let weather = &mut seeds.fork(3);
        let faults = profile.drawn(weather);
        let users = Users {
            usual: largest_usual,
            job_mode: largest(job_mode_nodes),
            share_of_job_mode: job_mode_nodes as u64 * 1000 / nodes as u64,
            node_hours: most as u64,
            jobs_per_hour: scale.jobs_per_hour,
        };
        let mut world = Self {
            seed,
            nodes: usual,
            job_mode_nodes,
            hosts,
            host_capacity: host_capacity as u64,
            jobs: users.jobs(&mut seeds.fork(4), span),
            rules,
            policy: Policy { max_vms, ..policy },
            faults,
            only: None,
            lulls: lulls(weather, span),
            calm: Millis(span),
            crash: None,
            flaw: None,
        };
        if patient {
            // Then Slurm must never be the first to find out that a VM does not come.
            let told = world.told_within();
            world.rules.resume_timeout = world.rules.resume_timeout.max(told);
        }
        world
    }
}

fn place(rng: &mut Rng, low: usize, high: usize) -> usize {
    usize::try_from(rng.between(low as u64, high as u64)).unwrap_or(low)
}

fn seconds(rng: &mut Rng, low: u64, high: u64) -> Millis {
    Millis::secs(rng.between(low, high))
}

/// `slurm.conf`, with this ResumeTimeout or more.
fn rules(rng: &mut Rng, least: Millis) -> Rules {
    Rules {
        takes_unasked: rng.coin(),
        idle_on_suspend: rng.coin(),
        suspends_returned: rng.coin(),
        sweep: seconds(rng, 1, 30),
        // As with a ResumeRate, which has jobs wait for their turn.
        asks_after: seconds(rng, 1, 10),
        resume_timeout: seconds(rng, 35, 120).max(least),
        suspend_time: seconds(rng, 3, 120),
        suspend_timeout: seconds(rng, 2, 10),
        ..Rules::default()
    }
}

fn policy(rng: &mut Rng, nodes: usize) -> Policy {
    let few = Setup::default().policy;
    Policy {
        boot_timeout: seconds(rng, 15, 60),
        capacity_patience: seconds(rng, 0, 40),
        orphan_grace: seconds(rng, 5, 60),
        missing_grace: seconds(rng, 20, 60),
        silence_grace: seconds(rng, 40, 90),
        retry_first: seconds(rng, 1, 20),
        tries_before_down: u32::try_from(rng.between(1, 4)).unwrap_or(1),
        breaker_failures: u32::try_from(rng.between(2, 8)).unwrap_or(2),
        max_starting: place(rng, 1, 4).max(nodes / 8),
        guests_wait: rng.coin(),
        unheard_grace: seconds(rng, 3, 15),
        ..few
    }
}

/// Spans of 5 to 60 minutes in which nothing goes wrong, between such in which it does.
fn lulls(rng: &mut Rng, span: u64) -> Vec<(Millis, Millis)> {
    let mut lulls = Vec::new();
    let mut at = rng.between(5 * MINUTE, 40 * MINUTE);
    while at < span {
        let until = at + rng.between(5 * MINUTE, 60 * MINUTE);
        lulls.push((Millis(at), Millis(until)));
        at = until + rng.between(5 * MINUTE, 40 * MINUTE);
    }
    lulls
}

/// Those who submit jobs, and how much they ask for.
struct Users {
    /// The largest job of power-saving mode, in nodes; 0: there is none.
    usual: usize,
    /// The largest of job mode.
    job_mode: usize,
    /// How many jobs are of job mode, per mille.
    share_of_job_mode: u64,
    /// What all VMs together can do in an hour.
    node_hours: u64,
    jobs_per_hour: Option<u64>,
}

impl Users {
    /// Their jobs: hours of none, usual ones, and bursts.
    fn jobs(&self, rng: &mut Rng, span: u64) -> Vec<JobPlan> {
        // As many short as long: 10 s to 10 min.
        let usual_length = rng.between(10_000, 20_000) << rng.below(6);
        let mut jobs = Vec::new();
        let mut hour = 0;
        while hour < span {
            let end = (hour + HOUR).min(span);
            let per_hour = match self.jobs_per_hour {
                Some(count) => rng.between(count / 2, count + count / 2),
                None => self.usual_count(rng, usual_length),
            };
            match rng.below(4) {
                // Nobody is there.
                0 if hour > 0 => {}
                // All come within a minute.
                1 => {
                    let burst = rng.between(hour, end - 1);
                    jobs.extend((0..per_hour.min(40)).map(|_| {
                        let submit = burst + rng.below(MINUTE);
                        self.job(rng, submit.min(end - 1), usual_length)
                    }));
                }
                _ => jobs.extend((0..per_hour).map(|_| {
                    let submit = rng.between(hour, end - 1);
                    self.job(rng, submit, usual_length)
                })),
            }
            hour = end;
        }
        jobs.sort_by_key(|job| job.submit);
        jobs
    }

    /// As many as keep 5 to 90 percent of all VMs busy.
    fn usual_count(&self, rng: &mut Rng, usual_length: u64) -> u64 {
        let work = self.node_hours * HOUR * rng.between(5, 90) / 100;
        // A start, and the wait for Slurm's sweep, take a node as well.
        (work / (2 * (usual_length + MINUTE))).max(1)
    }

    fn job(&self, rng: &mut Rng, submit: u64, usual_length: u64) -> JobPlan {
        let job_mode = self.usual == 0 || (self.job_mode > 0 && rng.below(1000) < self.share_of_job_mode);
        let largest = if job_mode { self.job_mode } else { self.usual };
        // Half of the jobs want one node, a quarter up to a few, some all that there is.
        let size = match rng.below(4) {
            0 | 1 => 1,
            2 => place(rng, 1, largest.min(4)),
            _ => place(rng, 1, largest),
        };
        let length = match rng.below(8) {
            0 => rng.between(1000, 5000),
            1 => rng.between(usual_length, 4 * usual_length),
            _ => rng.between(1000, usual_length),
        };
        let plan = |rng: &mut Rng| JobModePlan {
            // Some ask for a range of nodes.
            most: match rng.chance(250) {
                true => place(rng, size, largest),
                false => 0,
            },
            cpus: u32::try_from(rng.between(1, u64::from(JOB_MODE_CPUS))).unwrap_or(1),
            memory_mb: rng.between(10, VM_MEMORY_MB),
            priority: rng.below(3),
            tasks: match rng.chance(200) {
                true => u32::try_from(rng.between(1, 4)).unwrap_or(1),
                false => 0,
            },
            requeue: rng.chance(800),
            cancel: rng.chance(150).then(|| Millis(rng.below(2 * MINUTE))),
        };
        JobPlan {
            submit: Millis(submit),
            size,
            length: Millis(length),
            job_mode: job_mode.then(|| plan(rng)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_world_can_end_well_and_is_the_same_again() {
        let mut releases = BTreeSet::new();
        for seed in 0..500 {
            let scale = Scale {
                hours: 1 + seed % 5,
                nodes: (seed % 3 == 0).then_some(1 + usize::try_from(seed).unwrap_or(0) / 3),
                jobs_per_hour: None,
            };
            let world = Setup::drawn(seed, scale, Profile::Heavy);
            let again = Setup::drawn(seed, scale, Profile::Heavy);
            assert_eq!(format!("{world:?}"), format!("{again:?}"));
            assert!(world.is_livable(), "seed {seed}: {world:?}");
            assert!(
                world.jobs.iter().all(|job| job.submit < world.calm),
                "seed {seed}"
            );
            releases.insert(world.rules.release);
            assert!(!world.jobs.is_empty(), "seed {seed}");
            assert!(world.jobs.is_sorted_by_key(|job| job.submit), "seed {seed}");
        }
        assert!(releases.iter().eq(&Release::KNOWN));
    }
}
