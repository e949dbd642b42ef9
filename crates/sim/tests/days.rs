//! Named days, good and bad.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use thiao_core::ids::{JobId, Millis, NodeName};
use thiao_core::rounds::plan_for;
use thiao_core::view::VmState;
use thiao_sim::disk::Memory;
use thiao_sim::faults::Rates;
use thiao_sim::outcome::Summary;
use thiao_sim::sim::{JobModePlan, JobPlan, Setup, Sim};
use thiao_sim::slurm::{Call, Hook, Stage};

fn run(setup: Setup) -> Summary {
    Sim::new(setup).run().unwrap()
}

/// A job after so many seconds, on so many nodes, for so many seconds.
fn job(submit: u64, size: usize, length: u64) -> JobPlan {
    JobPlan {
        submit: Millis::secs(submit),
        size,
        length: Millis::secs(length),
        job_mode: None,
    }
}

fn until_running(sim: &mut Sim, id: u32) {
    while !matches!(stage(sim, id), Some(Stage::Running(..))) {
        sim.step().unwrap();
    }
}

fn stage(sim: &Sim, id: u32) -> Option<&Stage> {
    sim.slurm.jobs.get(&JobId(id)).map(|job| &job.stage)
}

fn n0() -> NodeName {
    NodeName::new("n0").unwrap()
}

/// Runs `harm` when the only job, of 20 s on two nodes, has just started; gives how long all took.
fn harmed(harm: impl Fn(&mut Sim)) -> Summary {
    let mut sim = Sim::new(Setup::default());
    until_running(&mut sim, 1);
    harm(&mut sim);
    sim.run().unwrap()
}

#[test]
fn a_quiet_day() {
    let day = run(Setup::default());
    assert_eq!(
        (day.created, day.downs, day.resume_timeouts),
        (2, 0, 0),
        "{day:?}"
    );
    assert!(day.took < Millis::secs(90), "{day:?}");
}

#[test]
fn the_same_setup_is_the_same_run() {
    let setup = Setup {
        faults: Rates::from_rates([100; Rates::KINDS]),
        calm: Millis::secs(200),
        ..Setup::default()
    };
    assert_eq!(run(setup.clone()), run(setup));
}

#[test]
fn a_vm_that_dies_costs_its_job_no_two_minutes() {
    let day = harmed(|sim| {
        let vm = sim.provider.vms.values_mut().next().unwrap();
        vm.view.state = VmState::Dead("killed from outside".into());
    });
    assert_eq!(
        (day.downs, day.created),
        (1, 3),
        "told once; one VM more: {day:?}"
    );
    // The job's two runs, two boots, one wait for the sweep each, and no requeue pause.
    assert!(day.took < Millis::secs(190), "{day:?}");
}

#[test]
fn a_guest_that_hangs_does_not_hang_its_job() {
    let day = harmed(|sim| sim.provider.vms.values_mut().next().unwrap().hang());
    assert_eq!(day.downs, 1, "{day:?}");
}

fn suspend_by_hand(sim: &mut Sim) {
    sim.write_order(Call {
        hook: Hook::Suspend,
        nodes: vec![n0()],
        jobs: Default::default(),
    });
}

#[test]
fn a_suspend_by_hand_under_a_job_only_repeats_it() {
    let day = harmed(|sim| {
        // Slurm tells a job's start in whole seconds: an order must be later than that.
        let started = sim.now;
        while sim.now < started + Millis::secs(2) {
            sim.step().unwrap();
        }
        suspend_by_hand(sim);
    });
    assert_eq!(day.downs, 1, "{day:?}");
}

#[test]
fn an_order_within_the_second_of_a_jobs_start_waits_for_the_job_and_says_so() {
    let mut sim = Sim::new(Setup::default());
    until_running(&mut sim, 1);
    suspend_by_hand(&mut sim);
    let mut told = false;
    while matches!(stage(&sim, 1), Some(Stage::Running(..))) {
        let held = plan_for(sim.controller.rounds.world(), None).held;
        told |= held
            .iter()
            .any(|held| held.why.contains("not ended as was ordered: job 1 is there"));
        sim.step().unwrap();
    }
    assert!(told, "why it is not followed yet");
    let day = sim.run().unwrap();
    assert_eq!((day.created, day.downs), (2, 0), "{day:?}");
}

#[test]
fn a_slurmctld_restart_under_a_job_harms_nothing() {
    let day = harmed(|sim| sim.slurm.restart(sim.now + Millis::secs(50)));
    assert_eq!((day.created, day.downs), (2, 0), "{day:?}");
}

#[test]
fn nothing_ends_while_the_provider_cannot_be_read() {
    let mut setup = Setup {
        jobs: vec![job(1, 2, 30), job(100, 2, 5)],
        calm: Millis::secs(600),
        ..Setup::default()
    };
    setup.faults.list_fails = 1000;
    let mut sim = Sim::new(setup);
    while stage(&sim, 2).is_none() {
        sim.step().unwrap();
        assert!(
            sim.controller.flights.is_empty(),
            "nothing is known, nothing is done"
        );
    }
    sim.run().unwrap();
}

#[test]
fn slurms_own_timeout_never_discovers_a_failure() {
    type Break = fn(&mut Rates);
    let breaks: [(&str, Break); 4] = [
        ("all creations fail", |f| f.create_fails = 1000),
        ("no creation is confirmed", |f| {
            (f.create_fails, f.create_unanswered) = (1000, 1000);
        }),
        ("all VMs die while booting", |f| f.dies_booting = 1000),
        ("no VM ever registers", |f| f.never_registers = 1000),
    ];
    for (name, break_it) in breaks {
        let mut setup = Setup {
            calm: Millis::secs(400),
            ..Setup::default()
        };
        break_it(&mut setup.faults);
        // As `thiao setup` does: above what all tries take.
        setup.rules.resume_timeout = Millis::secs(90);
        let day = run(setup);
        assert_eq!(day.resume_timeouts, 0, "{name}: {day:?}");
        assert!(day.downs >= 2, "{name}: Slurm was told: {day:?}");
        assert!(
            day.took < Millis::secs(700),
            "{name}: back in service soon: {day:?}"
        );
    }
}

#[test]
fn a_controller_that_is_killed_all_the_time_makes_no_vm_twice() {
    for seed in 0..20 {
        let mut setup = Setup {
            seed,
            jobs: vec![job(1, 4, 20), job(60, 3, 20)],
            calm: Millis::secs(300),
            ..Setup::default()
        };
        setup.faults.killed = 150;
        setup.rules.resume_timeout = Millis::secs(300);
        let day = run(setup); // the checks are in the run
        assert!(day.kills > 5, "{day:?}");
    }
}

#[test]
fn a_lost_database_loses_no_job() {
    for seed in 0..20 {
        let mut sim = Sim::new(Setup {
            seed,
            jobs: vec![job(1, 2, 30), job(40, 2, 30), job(41, 1, 30)],
            ..Setup::default()
        });
        until_running(&mut sim, 1);
        sim.controller.lose_records(Box::new(Memory::default()), sim.now);
        let day = sim.run().unwrap();
        assert_eq!(day.downs, 0, "seed {seed}: {day:?}");
    }
}

#[test]
fn wide_jobs_short_of_capacity_take_turns() {
    let setup = Setup {
        nodes: 6,
        hosts: 1,
        host_capacity: 3,
        jobs: vec![job(1, 2, 20), job(1, 2, 20), job(1, 3, 20)],
        ..Setup::default()
    };
    for seed in 0..20 {
        let day = run(Setup {
            seed,
            ..setup.clone()
        });
        assert!(day.took < Millis::secs(600), "seed {seed}: {day:?}");
    }
}

/// A job of job mode, of that many nodes or tasks.
fn job_mode(submit: u64, size: usize, length: u64, job_mode: JobModePlan) -> JobPlan {
    JobPlan {
        job_mode: Some(job_mode),
        ..job(submit, size, length)
    }
}

const SMALL: JobModePlan = JobModePlan {
    cpus: 1,
    memory_mb: 40,
    most: 0,
    priority: 1,
    tasks: 0,
    requeue: true,
    cancel: None,
};

/// Four nodes of job mode beside the usual four.
fn both_modes(jobs: Vec<JobPlan>) -> Setup {
    Setup {
        job_mode_nodes: 4,
        hosts: 2,
        host_capacity: 4,
        jobs,
        ..Setup::default()
    }
}

#[test]
fn jobs_get_vms_of_their_own_size_beside_the_other_mode() {
    let wide = JobModePlan {
        cpus: 4,
        memory_mb: 100,
        ..SMALL
    };
    for seed in 0..20 {
        let day = run(Setup {
            seed,
            ..both_modes(vec![
                job(1, 2, 20),
                job_mode(1, 1, 20, SMALL),
                job_mode(2, 3, 20, wide),
                job_mode(3, 1, 5, SMALL),
            ])
        });
        // The checks of sizes and of one job for each VM are in the run.
        assert_eq!(
            (day.created, day.downs, day.resume_timeouts),
            (7, 0, 0),
            "seed {seed}: {day:?}"
        );
        assert!(day.took < Millis::secs(300), "seed {seed}: {day:?}");
    }
}

#[test]
fn an_array_gets_a_vm_for_each_task_several_at_a_time() {
    let array = JobModePlan { tasks: 12, ..SMALL };
    for seed in 0..10 {
        let day = run(Setup {
            seed,
            ..both_modes(vec![job_mode(1, 1, 10, array)])
        });
        assert_eq!((day.created, day.downs), (12, 0), "seed {seed}: {day:?}");
        // In threes turns of four at most a minute and a half each.
        assert!(day.took < Millis::secs(400), "seed {seed}: {day:?}");
    }
}

#[test]
fn a_job_that_is_cancelled_on_its_way_leaves_nothing() {
    for seed in 0..40 {
        let cancelled = JobModePlan {
            cancel: Some(Millis(300 * seed)),
            ..SMALL
        };
        let day = run(Setup {
            seed,
            ..both_modes(vec![job_mode(1, 3, 60, cancelled), job_mode(2, 2, 5, SMALL)])
        });
        assert_eq!(day.downs, 0, "seed {seed}: {day:?}");
        // Slurm may give the other job a node of the first, whose VM it must not have:
        // then it is put back, with Slurm's pause of two minutes.
        assert!(day.took < Millis::secs(300), "seed {seed}: {day:?}");
    }
}
