#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use super::*;
use std::num::NonZeroU32;
use thiao_core::view::{Alloc, ArrayTasks, Gate, WaitsFor};
use thiao_testkit::ids::node as name;

const EACH: Alloc = Alloc {
    cpus: 2,
    memory_mb: 50,
    gpus: 0,
};

/// A cluster of these nodes, all of job mode.
fn cluster(nodes: &[&str]) -> Slurm {
    let mut slurm = Slurm::new(nodes.iter().map(|text| name(text)), Rules::default(), Rng::new(1));
    nodes.iter().for_each(|node| slurm.job_mode_node(&name(node)));
    slurm
}

fn submit(slurm: &mut Slurm, id: u32, size: usize, priority: u64) {
    let length = Millis::secs(5);
    slurm.submit_job_mode(JobId(id), size, length, JobMode::new(EACH, priority), Time(0));
}

/// Lets seconds pass, one by one, from `from` to `to`; all VMs work.
fn pass(slurm: &mut Slurm, from: u64, to: u64) {
    (from..to).for_each(|second| slurm.step(|_| true, Time(second * 1000)));
}

fn observe(slurm: &mut Slurm, second: u64) -> SlurmView {
    slurm.observe(&Faults::none(), Time(second * 1000)).unwrap()
}

fn calls(slurm: &mut Slurm) -> Vec<(Hook, String)> {
    let calls = std::mem::take(&mut slurm.calls).into_iter();
    let names = |nodes: Vec<NodeName>| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(",");
    calls.map(|call| (call.hook, names(call.nodes))).collect()
}

fn vm() -> VmId {
    VmId::new("vm1").unwrap()
}

fn ended(job: u32, failed: bool) -> Hook {
    Hook::JobEnded {
        job: JobId(job),
        failed,
    }
}

#[test]
fn a_job_waits_until_it_is_admitted_and_then_has_nodes_of_its_own() {
    let mut slurm = cluster(&["j0", "j1"]);
    submit(&mut slurm, 1, 1, 0);
    pass(&mut slurm, 0, 3);
    let seen = observe(&mut slurm, 3);
    let job = &seen.jobs[&JobId(1)];
    assert_eq!(
        (job.gate, &job.reason.waits[..]),
        (Gate::Waits, &[WaitsFor::Licenses][..])
    );
    assert_eq!(
        (job.request.cpus, job.request.memory_mb, job.request.nodes),
        (2, 50, 1)
    );
    assert_eq!(calls(&mut slurm), []);
    slurm.admit(JobId(1), None, None);
    pass(&mut slurm, 3, 4);
    assert_eq!(calls(&mut slurm), [(Hook::Resume, "j0".to_owned())]);
    let seen = observe(&mut slurm, 4);
    assert_eq!(seen.jobs[&JobId(1)].state, JobState::Configuring);
    assert_eq!(seen.nodes[&name("j0")].alloc, Some(EACH));
    assert_eq!(seen.nodes[&name("j1")].alloc, None);
    // Jobs of the other mode get none of these nodes.
    slurm.submit(JobId(2), 1, Millis::secs(1), Time(4000));
    pass(&mut slurm, 4, 6);
    assert_eq!(slurm.jobs[&JobId(2)].stage, Stage::Pending(None));
}

#[test]
fn the_highest_priority_is_served_first() {
    let mut slurm = cluster(&["j0"]);
    submit(&mut slurm, 1, 1, 5);
    submit(&mut slurm, 2, 1, 9);
    slurm.admit(JobId(1), None, None);
    slurm.admit(JobId(2), None, None);
    pass(&mut slurm, 0, 1);
    assert_eq!(slurm.nodes[&name("j0")].job, Some(JobId(2)));
    // One that waits at the gate keeps nobody back.
    slurm.close_gate(JobId(1), None);
    assert_eq!(slurm.jobs[&JobId(1)].job_mode.as_ref().unwrap().gate, Gate::Waits);
}

#[test]
fn a_node_ends_with_its_job_and_is_whole_again() {
    let mut slurm = cluster(&["j0"]);
    submit(&mut slurm, 1, 1, 0);
    slurm.admit(JobId(1), None, None);
    pass(&mut slurm, 0, 1);
    slurm.end_with_job(&name("j0"));
    let flags = observe(&mut slurm, 1).nodes[&name("j0")].flags;
    assert!(flags.power_down && flags.powering_up);
    // It starts all the same, and nobody else gets the node.
    slurm.register(&name("j0"), &vm(), Time(2000), Time(2000));
    slurm.answer_prolog(JobId(1), true);
    submit(&mut slurm, 2, 1, 0);
    slurm.admit(JobId(2), None, None);
    calls(&mut slurm);
    pass(&mut slurm, 2, 60);
    assert_eq!(slurm.jobs[&JobId(1)].stage, Stage::Done);
    let seen = calls(&mut slurm);
    let mut hooks = seen.iter().map(|(hook, _)| *hook);
    assert_eq!(hooks.next(), Some(ended(1, false)));
    assert_eq!(hooks.next(), Some(Hook::Suspend));
    assert_eq!(
        hooks.next(),
        Some(Hook::Resume),
        "then it is the next job's: {seen:?}"
    );
    assert!(!slurm.nodes[&name("j0")].ends);
}

#[test]
fn a_node_whose_job_is_over_before_it_came_up_is_powered_down_by_force_only() {
    let mut slurm = cluster(&["j0"]);
    submit(&mut slurm, 1, 1, 0);
    slurm.admit(JobId(1), None, None);
    pass(&mut slurm, 0, 1);
    slurm.end_with_job(&name("j0"));
    slurm.cancel(JobId(1), Time(1000));
    pass(&mut slurm, 1, 20);
    assert!(matches!(slurm.nodes[&name("j0")].power, Power::Rising(_)));
    let seen = observe(&mut slurm, 20).nodes[&name("j0")].clone();
    assert!(seen.base == BaseState::Idle && seen.flags.powering_up && seen.flags.power_down);
    calls(&mut slurm);
    slurm.power_down_now(&name("j0"), Time(20_000));
    assert_eq!(calls(&mut slurm), [(Hook::Suspend, "j0".to_owned())]);
    pass(&mut slurm, 20, 40);
    assert_eq!(slurm.nodes[&name("j0")].power, Power::Off);
    assert!(!slurm.nodes[&name("j0")].ends);
}

#[test]
fn a_job_that_is_put_back_waits_again_also_in_two_steps() {
    for whole in [true, false] {
        let mut slurm = cluster(&["j0", "j1"]);
        submit(&mut slurm, 1, 2, 0);
        slurm.admit(JobId(1), None, None);
        pass(&mut slurm, 0, 1);
        assert!(slurm.put_back(JobId(1), "vm: ; put back: no capacity", whole, Time(1000)));
        assert!(
            !slurm.put_back(JobId(1), "again", whole, Time(1000)),
            "it has no nodes"
        );
        assert_eq!(
            calls(&mut slurm).last(),
            Some(&(ended(1, true), "j0,j1".to_owned()))
        );
        if !whole {
            assert_eq!(
                observe(&mut slurm, 1).jobs[&JobId(1)].reason.waits,
                [WaitsFor::Release]
            );
            slurm.finish_put_back(JobId(1));
        }
        let seen = observe(&mut slurm, 1).jobs[&JobId(1)].clone();
        assert_eq!(
            (seen.gate, &seen.reason.waits[..]),
            (Gate::Waits, &[WaitsFor::Licenses][..])
        );
        assert_eq!(seen.admin_comment.as_deref(), Some("vm: ; put back: no capacity"));
    }
    // One that cannot be is not, and is over when its node fails.
    let mut slurm = cluster(&["j0"]);
    let job_mode = JobMode {
        requeue: false,
        ..JobMode::new(EACH, 0)
    };
    slurm.submit_job_mode(JobId(1), 1, Millis::secs(5), job_mode, Time(0));
    slurm.admit(JobId(1), None, None);
    pass(&mut slurm, 0, 1);
    assert!(!slurm.put_back(JobId(1), "", true, Time(1000)));
    slurm.set_down(&name("j0"), "thiao: x", |_| false, Time(1000));
    assert_eq!(slurm.jobs[&JobId(1)].stage, Stage::Done);
}

#[test]
fn tasks_of_an_array_are_admitted_as_jobs_of_their_own() {
    let mut slurm = cluster(&["j0", "j1", "j2"]);
    let tasks = |tasks: &[u32]| ArrayTasks {
        job: JobId(4),
        tasks: tasks.to_vec(),
    };
    let job_mode = JobMode {
        array: Some(tasks(&[0, 1, 2])),
        ..JobMode::new(EACH, 0)
    };
    slurm.submit_job_mode(JobId(4), 1, Millis::secs(5), job_mode, Time(0));
    slurm.admit(JobId(4), Some(&tasks(&[0, 2, 7])), None);
    let mut shown: Vec<(Vec<u32>, Gate)> = observe(&mut slurm, 0)
        .jobs
        .values()
        .map(|job| (job.array.as_ref().unwrap().tasks.clone(), job.gate))
        .collect();
    shown.sort_by_key(|(tasks, _)| tasks.clone());
    assert_eq!(
        shown,
        [
            (vec![0], Gate::Open),
            (vec![1], Gate::Waits),
            (vec![2], Gate::Open)
        ]
    );
    slurm.admit(JobId(4), Some(&tasks(&[1])), None);
    pass(&mut slurm, 0, 1);
    assert!(slurm.nodes.values().all(|node| node.job.is_some()));
    assert_eq!(slurm.jobs.len(), 3);
}

#[test]
fn a_job_starts_when_its_prolog_is_told_so_and_is_put_back_when_it_must_not() {
    let mut slurm = cluster(&["j0"]);
    submit(&mut slurm, 1, 1, 0);
    slurm.admit(JobId(1), None, None);
    pass(&mut slurm, 0, 1);
    slurm.register(&name("j0"), &vm(), Time(1000), Time(1000));
    pass(&mut slurm, 1, 50);
    assert!(matches!(slurm.jobs[&JobId(1)].stage, Stage::Configuring(..)));
    slurm.answer_prolog(JobId(1), false);
    pass(&mut slurm, 50, 51);
    assert!(matches!(slurm.jobs[&JobId(1)].stage, Stage::Pending(Some(_))));
}

#[test]
fn what_was_measured_of_admins_and_live_slurmds() {
    // No scenarios: an observation may see what lasts 0.2 s, or not.
    let mut slurm = Slurm::new([name("n0")], Rules::default(), Rng::new(1));
    slurm.register(&name("n0"), &vm(), Time(0), Time(0));
    slurm.admin_down(&name("n0"), Time(0));
    slurm.step(|_| false, Time(500));
    assert_eq!(observe(&mut slurm, 1).nodes[&name("n0")].base, BaseState::Down);
    slurm.step(|_| true, Time(1000));
    assert_eq!(observe(&mut slurm, 1).nodes[&name("n0")].base, BaseState::Idle);
}

#[test]
fn the_epilog_of_a_job_cancelled_under_its_prolog_may_be_killed() {
    let mut heard = [0, 0];
    for seed in 0..20 {
        for (index, with_prolog) in [(0, true), (1, false)] {
            let mut slurm = Slurm::new([name("j0")], Rules::default(), Rng::new(seed));
            slurm.job_mode_node(&name("j0"));
            submit(&mut slurm, 1, 1, 0);
            slurm.admit(JobId(1), None, None);
            pass(&mut slurm, 0, 1);
            if !with_prolog {
                slurm.register(&name("j0"), &vm(), Time(1000), Time(1000));
                slurm.answer_prolog(JobId(1), true);
                pass(&mut slurm, 1, 2);
            }
            slurm.cancel(JobId(1), Time(2000));
            let told = calls(&mut slurm).iter().any(|(hook, _)| *hook == ended(1, true));
            heard[index] += usize::from(told);
        }
    }
    assert!((1..20).contains(&heard[0]) && heard[1] == 20, "{heard:?}");
}

#[test]
fn a_node_that_is_given_back_while_it_is_up_is_powered_down_first() {
    // No scenario: when power saving passes between our two commands, RESUME ends it at once.
    let mut slurm = Slurm::new([name("n0")], Rules::default(), Rng::new(1));
    slurm.register(&name("n0"), &vm(), Time(0), Time(0));
    slurm.admin_down(&name("n0"), Time(0));
    slurm.return_to_service(&name("n0"), Time(0));
    let seen = observe(&mut slurm, 0).nodes[&name("n0")].clone();
    assert!(
        seen.base == BaseState::Idle && seen.flags.powering_down,
        "{seen:?}"
    );
    assert_eq!(calls(&mut slurm), [(Hook::Suspend, "n0".to_owned())]);
}

#[test]
fn a_reason_that_is_over_stays_in_some_releases_until_a_job_comes() {
    for (release, stays) in [("22.05", false), ("24.11", true), ("26.05", false)] {
        let rules = Rules {
            release: release.parse().unwrap(),
            ..Rules::default()
        };
        let mut slurm = Slurm::new([name("n0")], rules, Rng::new(1));
        slurm.set_down(&name("n0"), "thiao: no capacity", |_| false, Time(0));
        slurm.return_to_service(&name("n0"), Time(0));
        let seen = observe(&mut slurm, 0).nodes[&name("n0")].clone();
        assert_eq!(
            (seen.base, seen.reason.is_some()),
            (BaseState::Idle, stays),
            "{release}"
        );
        slurm.submit(JobId(1), 1, Millis::secs(1), Time(0));
        slurm.step(|_| true, Time(1000));
        assert_eq!(
            observe(&mut slurm, 1).nodes[&name("n0")].reason,
            None,
            "{release}"
        );
    }
}

#[test]
fn a_job_of_a_range_gets_all_that_is_free_unless_its_count_is_fixed() {
    let ranged = |slurm: &mut Slurm| {
        let job_mode = JobMode {
            most: 3,
            ..JobMode::new(EACH, 0)
        };
        slurm.submit_job_mode(JobId(1), 1, Millis::secs(5), job_mode, Time(0));
        let asked = observe(slurm, 0).jobs[&JobId(1)].request;
        assert_eq!((asked.nodes, asked.most_nodes), (1, 3));
    };
    for (fixed, given) in [(None, 3), (NonZeroU32::new(2), 2)] {
        let mut slurm = cluster(&["j0", "j1", "j2", "j3"]);
        ranged(&mut slurm);
        slurm.admit(JobId(1), None, fixed);
        pass(&mut slurm, 0, 1);
        let seen = observe(&mut slurm, 1).jobs[&JobId(1)].clone();
        assert_eq!(seen.nodes.len(), given);
        assert_eq!(
            (seen.request.cpus, seen.request.nodes as usize),
            (2 * seen.request.nodes, given)
        );
        // Put back, it keeps a count that was fixed.
        assert!(slurm.put_back(JobId(1), "vm: ; put back: no capacity", true, Time(1000)));
        let back = observe(&mut slurm, 2).jobs[&JobId(1)].request;
        assert_eq!((back.nodes, back.most_nodes), fixed.map_or((1, 3), |_| (2, 2)));
    }
}

/// Its node failed first: slurmctld requeues and holds no job that is pending.
#[test]
fn a_job_that_is_back_already_is_not_held_by_turning_it_away() {
    let mut slurm = cluster(&["j0"]);
    slurm.submit(JobId(1), 1, Millis::secs(5), Time(0));
    slurm.jobs.get_mut(&JobId(1)).unwrap().site = Site::Anywhere;
    let held = |slurm: &Slurm| matches!(slurm.jobs[&JobId(1)].site, Site::Held(_));
    pass(&mut slurm, 0, 2);
    let mut first = Slurm::new([name("j0")], Rules::default(), Rng::new(1));
    first.jobs.clone_from(&slurm.jobs);
    first.turn_away(JobId(1), "not there", false, Time(2000));
    assert!(held(&first));
    slurm.admin_down(&name("j0"), Time(2000));
    slurm.turn_away(JobId(1), "not there", false, Time(2000));
    assert!(!held(&slurm));
}
