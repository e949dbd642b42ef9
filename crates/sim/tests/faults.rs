//! Random worlds under random faults: whatever goes wrong, no invariant breaks,
//! and once nothing goes wrong any more, everything ends well.

use proptest::prelude::*;
use thiao_core::ids::Millis;
use thiao_core::policy::Policy;
use thiao_sim::faults::Rates;
use thiao_sim::sim::{JOB_MODE_CPUS, JobModePlan, JobPlan, Setup, Sim, VM_MEMORY_MB};
use thiao_sim::slurm::{Release, Rules};
use thiao_sim::text;

/// Rates of all faults: most of them absent, the others rare to frequent.
fn faults() -> impl Strategy<Value = Rates> {
    let rate = prop_oneof![
        3 => Just(0_u16),
        2 => 1..50_u16,
        1 => 50..300_u16,
    ];
    // A list, not an array: so many choices by value are too much for a test's stack.
    proptest::collection::vec(rate, Rates::KINDS).prop_map(|drawn| {
        let mut rates = [0; Rates::KINDS];
        rates.copy_from_slice(&drawn);
        Rates::from_rates(rates)
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let release = proptest::sample::select(&Release::KNOWN[..]);
    let settings = (release, any::<bool>(), any::<bool>(), any::<bool>());
    let times = (1..30_u64, 35..120_u64, 3..30_u64, 2..10_u64);
    (settings, times).prop_map(
        |((release, takes_unasked, idle_on_suspend, suspends_returned), (sweep, resume, idle, suspend))| {
            Rules {
                release,
                takes_unasked,
                idle_on_suspend,
                suspends_returned,
                sweep: Millis::secs(sweep),
                asks_after: Millis::secs(1),
                resume_timeout: Millis::secs(resume),
                suspend_time: Millis::secs(idle),
                suspend_timeout: Millis::secs(suspend),
                ..Rules::default()
            }
        },
    )
}

fn job(largest: usize) -> impl Strategy<Value = JobPlan> {
    (0..240_u64, 1..=largest, 1..60_u64).prop_map(|(submit, size, length)| JobPlan {
        submit: Millis::secs(submit),
        size,
        length: Millis::secs(length),
        job_mode: None,
    })
}

/// A job of job mode.
fn job_mode_job(largest: usize) -> impl Strategy<Value = JobPlan> {
    let size = (1..=JOB_MODE_CPUS, 10..=VM_MEMORY_MB, 0..3_u64);
    let kind = (
        0..6_u32,
        prop::bool::weighted(0.8),
        prop::option::weighted(0.2, 0..60_u64),
    );
    let all = (job(largest), size, kind, prop::option::weighted(0.3, 1..4_usize));
    all.prop_map(
        |(job, (cpus, memory_mb, priority), (tasks, requeue, cancel), more)| {
            JobPlan {
                job_mode: Some(JobModePlan {
                    cpus,
                    memory_mb,
                    most: more.map_or(0, |more| job.size + more),
                    priority,
                    // Half of them are arrays.
                    tasks: tasks.saturating_sub(2),
                    requeue,
                    cancel: cancel.map(Millis::secs),
                }),
                ..job
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let times = (
        15..60_u64,
        0..40_u64,
        5..60_u64,
        20..60_u64,
        40..90_u64,
        1..20_u64,
    );
    let counts = (1..5_u32, 2..8_u32, 1..5_usize, any::<bool>());
    (times, counts).prop_map(
        |((boot, patience, orphan, missing, silence, retry), (tries, breaker, starting, guests_wait))| {
            Policy {
                boot_timeout: Millis::secs(boot),
                capacity_patience: Millis::secs(patience),
                orphan_grace: Millis::secs(orphan),
                missing_grace: Millis::secs(missing),
                silence_grace: Millis::secs(silence),
                retry_first: Millis::secs(retry),
                tries_before_down: tries,
                breaker_failures: breaker,
                max_starting: starting,
                guests_wait,
                ..Setup::default().policy
            }
        },
    )
}

fn setup() -> impl Strategy<Value = Setup> {
    // Every job fits on the hosts and into the caps when nothing else is there.
    let sizes = (2..7_usize, 1..4_usize, 1..4_u64);
    sizes.prop_flat_map(|(nodes, hosts, host_capacity)| {
        let capacity = usize::try_from(host_capacity).unwrap_or(1) * hosts;
        let largest = nodes.min(capacity);
        let parts = (
            any::<u64>(),
            largest..=nodes,
            proptest::collection::vec(job(largest), 1..8),
            rules(),
            policy(),
            faults(),
        );
        parts.prop_map(move |(seed, max_vms, mut jobs, mut rules, policy, faults)| {
            jobs.sort_by_key(|job| job.submit);
            // A limit on starts is a queue, which Slurm has to have the patience for.
            let turns = u64::try_from(nodes.div_ceil(policy.max_starting)).unwrap_or(1);
            rules.resume_timeout = rules.resume_timeout.max(Millis::secs(5 + 13 * turns));
            Setup {
                seed,
                nodes,
                job_mode_nodes: 0,
                hosts,
                host_capacity,
                jobs,
                rules,
                policy: Policy { max_vms, ..policy },
                faults,
                calm: Millis::secs(300),
                crash: None,
                flaw: None,
                ..Setup::default()
            }
        })
    })
}

/// Both modes on the same hosts, under the same caps.
fn both_modes() -> impl Strategy<Value = Setup> {
    (setup().boxed(), 1..6_usize, 1..5_usize).prop_flat_map(|(usual, job_mode_nodes, count)| {
        let capacity = usize::try_from(usual.host_capacity).unwrap_or(1) * usual.hosts;
        let largest = job_mode_nodes.min(capacity).min(usual.policy.max_vms);
        let jobs = proptest::collection::vec(job_mode_job(largest).boxed(), count);
        jobs.prop_map(move |jobs| {
            let mut setup = Setup {
                job_mode_nodes,
                ..usual.clone()
            };
            setup.jobs.extend(jobs);
            setup.jobs.sort_by_key(|job| job.submit);
            let turns = u64::try_from((setup.nodes + job_mode_nodes).div_ceil(setup.policy.max_starting))
                .unwrap_or(1);
            setup.rules.resume_timeout = setup.rules.resume_timeout.max(Millis::secs(5 + 13 * turns));
            setup
        })
    })
}

/// Nothing is broken; or what was, and the file for `thiao sim run --world FILE`.
fn holds(setup: Setup) -> Result<(), TestCaseError> {
    let world = text::write(&setup);
    let broken = |violation| TestCaseError::fail(format!("{violation}\n{world}"));
    Sim::new(setup).run().map(drop).map_err(broken)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 400, max_shrink_time: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_nothing_is_broken_and_all_ends_well(setup in setup()) {
        holds(setup)?;
    }

    #[test]
    fn whatever_goes_wrong_no_job_meets_another_in_its_vm(setup in both_modes()) {
        holds(setup)?;
    }
}
