//! The controller is killed at every write of its journal: before it, after it, and while
//! what it decided is on its way. Each time everything ends well.

use thiao_core::ids::Millis;
use thiao_sim::controller::{Crash, Moment};
use thiao_sim::faults::Rates;
use thiao_sim::sim::{JobModePlan, JobPlan, Setup, Sim};

fn job(submit: u64, size: usize, length: u64, job_mode: Option<JobModePlan>) -> JobPlan {
    JobPlan {
        submit: Millis::secs(submit),
        size,
        length: Millis::secs(length),
        job_mode,
    }
}

/// Both modes, jobs that overlap and wait, an array, one that is cancelled on its way.
fn day(seed: u64, faults: Rates) -> Setup {
    let job_mode = JobModePlan {
        cpus: 1,
        memory_mb: 40,
        most: 0,
        priority: 1,
        tasks: 0,
        requeue: true,
        cancel: None,
    };
    let array = JobModePlan { tasks: 3, ..job_mode };
    let cancelled = JobModePlan {
        cancel: Some(Millis::secs(4)),
        ..job_mode
    };
    Setup {
        seed,
        job_mode_nodes: 3,
        hosts: 2,
        host_capacity: 2,
        jobs: vec![
            job(1, 2, 15, None),
            job(2, 1, 10, Some(array)),
            job(5, 2, 5, Some(cancelled)),
            job(40, 3, 10, None),
        ],
        faults,
        calm: Millis::secs(120),
        ..Setup::default()
    }
}

/// Runs `setup` once as it is, and once for every moment at which it may be killed.
fn killed_at_every_write(setup: &Setup) {
    let whole = Sim::new(setup.clone())
        .run()
        .expect("ends well when nobody kills it");
    assert!(whole.writes > 20, "{whole:?}");
    for write in 1..=whole.writes {
        for moment in Moment::ALL {
            let crash = Some(Crash { write, moment });
            let killed = Sim::new(Setup {
                crash,
                ..setup.clone()
            });
            match killed.run() {
                Ok(summary) => assert_eq!(summary.kills, 1, "{crash:?}"),
                Err(violation) => panic!("killed at {crash:?} of seed {}:\n{violation}", setup.seed),
            }
        }
    }
}

#[test]
fn a_good_day() {
    killed_at_every_write(&day(1, Rates::none()));
}

#[test]
fn a_day_on_which_vms_fail() {
    killed_at_every_write(&day(
        2,
        Rates {
            create_fails: 100,
            create_unanswered: 200,
            dies_booting: 100,
            never_registers: 100,
            ends_slowly: 200,
            ..Rates::none()
        },
    ));
}

#[test]
fn a_day_on_which_nobody_is_heard() {
    killed_at_every_write(&day(
        3,
        Rates {
            act_fails: 200,
            act_unanswered: 200,
            list_stale: 200,
            list_omits: 100,
            observation_fails: 100,
            hook_late: 200,
            hook_twice: 200,
            ..Rates::none()
        },
    ));
}
