//! Random worlds under random faults: whatever goes wrong, no invariant breaks,
//! and once nothing goes wrong any more, everything ends well.

use proptest::prelude::*;
use thiao_core::ids::Millis;
use thiao_sim::faults::Faults;
use thiao_sim::sim::{JobPlan, Setup, Sim};
use thiao_sim::slurm::Rules;

/// Rates of all faults: most of them absent, the others rare to frequent.
fn faults() -> impl Strategy<Value = Faults> {
    proptest::array::uniform::<_, { Faults::KINDS }>(prop_oneof![
        3 => Just(0_u16),
        2 => 1..50_u16,
        1 => 50..300_u16,
    ])
    .prop_map(Faults::from_rates)
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 1..30_u64).prop_map(
        |(takes_unasked, idle_on_suspend, suspends_returned, sweep)| Rules {
            takes_unasked,
            idle_on_suspend,
            suspends_returned,
            sweep: Millis::secs(sweep),
            ..Rules::default()
        },
    )
}

fn job(largest: usize) -> impl Strategy<Value = JobPlan> {
    (0..240_u64, 1..=largest, 1..60_u64).prop_map(|(submit, size, length)| JobPlan {
        submit: Millis::secs(submit),
        size,
        length: Millis::secs(length),
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    // Every job fits on the hosts and into the caps when nothing else is there.
    (2..7_usize, 1..4_usize, 1..4_u64)
        .prop_flat_map(|(nodes, hosts, host_room)| {
            let room = usize::try_from(host_room).unwrap_or(1) * hosts;
            let largest = nodes.min(room);
            (
                any::<u64>(),
                Just((nodes, hosts, host_room)),
                largest..=nodes,
                1..5_usize,
                proptest::collection::vec(job(largest), 1..8),
                rules(),
                faults(),
            )
        })
        .prop_map(
            |(seed, (nodes, hosts, host_room), max_vms, max_starting, mut jobs, rules, faults)| {
                jobs.sort_by_key(|job| job.submit);
                let mut setup = Setup {
                    seed,
                    nodes,
                    hosts,
                    host_room,
                    jobs,
                    rules,
                    faults,
                    calm: Millis::secs(300),
                    ..Setup::default()
                };
                setup.policy.max_vms = max_vms;
                setup.policy.max_starting = max_starting;
                setup
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 400, max_shrink_time: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_nothing_is_broken_and_all_ends_well(setup in setup()) {
        if let Err(violation) = Sim::new(setup).run() {
            return Err(TestCaseError::fail(violation.to_string()));
        }
    }
}
