//! What an order is worth beside what Slurm shows now.

use super::*;

/// A job that started `secs` seconds after the test's world began (it begins with a full second).
fn job_on(w: &World, id: u32, name: &str, state: JobState, secs: u64) -> SlurmJob {
    SlurmJob {
        state,
        nodes: vec![node(name)],
        start: Some(Time(w.now.0 / 1000 * 1000) + Millis::secs(secs)),
        ..SlurmJob::new(JobId(id))
    }
}

fn powering_down() -> SlurmNode {
    found::seen_as(BaseState::Idle, |flags| flags.powering_down = true)
}

/// A VM that is up, as a controller that starts finds it: with `desired` in its journal.
fn restarted(desired: Desired) -> World {
    let mut w = world();
    w.up("n0");
    w.records.get_mut(&node("n0")).unwrap().desired = desired;
    w.powers.clear();
    w.pass(Millis::secs(600));
    w
}

#[test]
fn an_older_journals_order_ends_no_vm_that_slurm_has_given_to_a_job() {
    let mut w = restarted(Desired::Down { since: Time(5) });
    let job = job_on(&w, 7, "n0", JobState::Running, 0);
    w.observe(|slurm| {
        slurm.jobs.insert(job.id, job);
    });
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(2 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), []);
    // It is not forgotten that Slurm wants the node.
    w.observe(|_| {});
    assert!(matches!(w.records[&node("n0")].desired, Desired::Up { .. }));
    // What Slurm orders now is followed.
    w.observe(|slurm| {
        slurm.jobs.clear();
        slurm.nodes.insert(node("n0"), powering_down());
    });
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn an_older_journals_order_ends_no_vm_whose_node_is_up_or_comes_up() {
    for seen in [found::seen_as(BaseState::Idle, |_| {}), running(), powering_up()] {
        let mut w = restarted(Desired::Down { since: Time(5) });
        w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), seen.clone())));
        assert_eq!(w.tick(), [], "{seen:?}");
    }
    let mut w = restarted(Desired::Down { since: Time(5) });
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_down())));
    assert_eq!(kinds(&w.tick()), ["destroy"], "Slurm agrees");
}

#[test]
fn an_order_ends_no_vm_under_a_job_that_may_be_newer() {
    for (started, ends) in [(8, true), (9, true), (10, false), (11, false)] {
        let mut w = world();
        w.up("n0");
        let begin = Time(w.now.0 / 1000 * 1000);
        let job = job_on(&w, 7, "n0", JobState::Running, started);
        w.now = begin + Millis(10_400); // Slurm's "10" may be up to 10.999
        w.down("n0");
        w.observe(|slurm| drop(slurm.jobs.insert(job.id, job)));
        let expected: &[&str] = if ends { &["destroy"] } else { &[] };
        assert_eq!(kinds(&w.tick()), expected, "a job that started at {started}");
    }
    // Whose start nobody knows may be the newest.
    let mut w = world();
    w.up("n0");
    let job = SlurmJob {
        start: None,
        ..job_on(&w, 7, "n0", JobState::Running, 0)
    };
    w.pass(Millis::secs(10));
    w.down("n0");
    w.observe(|slurm| drop(slurm.jobs.insert(job.id, job)));
    assert_eq!(w.tick(), []);
}

#[test]
fn the_end_of_a_job_that_is_over_or_ending_is_followed() {
    let mut w = world();
    w.up("n0");
    let job = job_on(&w, 7, "n0", JobState::Completing, 0);
    w.pass(Millis::secs(10));
    w.down("n0");
    let completing = found::seen_as(BaseState::Idle, |flags| flags.completing = true);
    for jobs in [vec![job], vec![]] {
        let mut w = w.clone();
        w.observe(|slurm| {
            slurm.jobs = jobs.into_iter().map(|job| (job.id, job)).collect();
            slurm.nodes.insert(node("n0"), completing.clone());
        });
        assert_eq!(kinds(&w.tick()), ["destroy"]);
    }
}

/// n0's VM was up for 10 s, and its end was ordered and is under way.
fn with_an_end_begun() -> World {
    let mut w = world();
    w.up("n0");
    w.pass(Millis::secs(10));
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.ending(&w.tag(&node("n0"), Generation(1)));
    w
}

#[test]
fn an_end_that_was_begun_is_not_pushed_under_a_newer_job() {
    let mut w = with_an_end_begun();
    // It comes up again by itself, and Slurm gives it to a job.
    let job = job_on(&w, 7, "n0", JobState::Running, 20);
    w.pass(Millis::secs(30));
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.observe(|slurm| drop(slurm.jobs.insert(job.id, job)));
    w.watch(Millis::secs(2), &vms);
    assert_eq!(w.tick(), []);
    // For a node that only comes up again it goes on: the next VM waits for that.
    w.observe(|slurm| {
        slurm
            .jobs
            .values_mut()
            .for_each(|job| job.state = JobState::Configuring);
        slurm.nodes.insert(node("n0"), powering_up());
    });
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_newer_job_on_a_vm_whose_end_was_begun_does_not_hang_in_silence() {
    let mut w = with_an_end_begun();
    let job = job_on(&w, 7, "n0", JobState::Running, 20);
    w.pass(Millis::secs(30));
    let vms = [w.shown("n0", 1, VmState::Stopping)];
    w.observe(|slurm| {
        slurm.jobs.insert(job.id, job);
        let silent = found::seen_as(BaseState::Allocated, |flags| flags.not_responding = true);
        slurm.nodes.insert(node("n0"), silent);
    });
    w.watch(Millis(w.policy.missing_grace.0 / 2), &vms);
    assert_eq!(w.tick(), [], "it may come back");
    w.watch(w.policy.missing_grace, &vms);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["down"]);
    // The job is told, and is there no more: the end goes on.
    w.told_down(&node("n0"), "thiao: x", &[JobId(7)]);
    w.busy.clear();
    w.observe(|slurm| {
        slurm.jobs.clear();
        slurm
            .nodes
            .insert(node("n0"), found::seen_as(BaseState::Down, |_| {}));
    });
    w.watch(w.policy.retry_first, &vms);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_node_that_slurm_powers_up_gets_its_vm_though_no_order_came() {
    let mut w = world();
    w.records.get_mut(&node("n0")).unwrap().desired = Desired::Down { since: w.now };
    let job = job_on(&w, 7, "n0", JobState::Configuring, 1);
    w.pass(Millis::secs(1));
    w.observe(|slurm| {
        slurm.nodes.insert(node("n0"), powering_up());
        slurm.jobs.insert(job.id, job);
    });
    assert_eq!(w.tick(), [], "the order is on its way");
    w.pass(w.policy.retry_first);
    w.observe(|_| {});
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["create"]);
    assert_eq!(w.records[&node("n0")].jobs, [JobId(7)]);
}

#[test]
fn a_person_who_ends_a_booting_vm_is_newer_than_slurm() {
    let mut w = world();
    w.ask_up("n0");
    w.observe(|_| {});
    w.tick();
    w.busy.clear();
    w.pass(Millis::secs(3));
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.gone("n0");
    w.pass(Millis(10 * w.policy.retry_first.0));
    w.observe(|_| {});
    w.see(vec![]);
    assert_eq!(w.tick(), [], "Slurm has asked for nothing since");
}

#[test]
fn a_node_that_slurm_powers_down_loses_its_vm_though_no_order_came() {
    let mut w = world();
    w.up("n0");
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_down())));
    assert_eq!(w.tick(), [], "the order is on its way");
    w.pass(w.policy.retry_first);
    w.observe(|_| {});
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis::secs(1), &vms);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn what_one_observation_does_not_show_makes_no_order_old() {
    let mut w = world();
    w.up("n0");
    w.observe(|_| {});
    w.pass(Millis::secs(5));
    w.down("n0"); // by hand: to Slurm the node is idle
    let idle = found::seen_as(BaseState::Idle, |_| {});
    w.observe(|slurm| drop(slurm.nodes.remove(&node("n0"))));
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), idle)));
    assert_eq!(kinds(&w.tick()), ["destroy"], "it has been up since before");
}

#[test]
fn a_record_that_is_older_than_the_world_takes_the_nodes_later_vm() {
    let mut w = restarted(Desired::Down { since: Time(5) });
    w.observe(|_| {});
    let vms = [w.shown("n0", 3, VmState::Ready)];
    w.watch(Millis(w.policy.missing_grace.0 + 5000), &vms);
    let vm = w.records[&node("n0")].vm.clone().unwrap();
    assert_eq!(vm.generation, Generation(3));
    w.watch(Millis(2 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), [], "it is neither lost nor a stray");
}

#[test]
fn a_guest_that_has_told_nothing_yet_is_left_no_time_to_end_once_it_runs() {
    let hard = |w: &mut World| match w.tick().as_slice() {
        [Action::Vm(_, VmVerb::Destroy { hard, .. })] => *hard,
        other => panic!("{other:?}"),
    };
    for (state, at_once) in [
        (VmState::Pending, false),
        (VmState::Booting, true),
        (VmState::Ready, false),
        (VmState::Stopping, false),
    ] {
        let mut w = world();
        w.ask_up("n0");
        w.tick();
        w.busy.clear();
        w.created(&node("n0"), VmId::new("n0.1").unwrap());
        w.pass(Millis(1));
        w.see(vec![w.shown("n0", 1, state.clone())]);
        w.see_node("n0", powering_down());
        w.down("n0");
        assert_eq!(hard(&mut w), at_once, "{state:?}");
    }
    // One that was up is.
    let mut w = world();
    w.up("n0");
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    w.see_node("n0", powering_down());
    w.down("n0");
    assert!(!hard(&mut w));
}

#[test]
fn a_node_does_not_wait_for_the_next_listing_where_its_vm_surely_is_gone() {
    let mut w = world();
    w.up("n0");
    w.order(&node("n0"), &Order::Down, w.now);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["destroy"]);
    w.pass(Millis(1));
    w.ask_up("n0");
    // It takes its time: it is there.
    let (_, _) = w.ended(&actions[0], &crate::fold::Outcome::Ending("SHUTDOWN".into()));
    assert_eq!(w.tick(), []);
    w.ended(&actions[0], &crate::fold::Outcome::Done);
    let made = w.tick();
    assert_eq!(kinds(&made), ["create"]);
    // An observation that began before brings it back in no way.
    w.busy.clear();
    let view = ProviderView {
        hosts: w.provider.as_deref().unwrap().hosts.clone(),
        vms: vec![w.shown("n0", 1, VmState::Ready)],
    };
    w.see_provider(view, Time(0));
    assert_eq!(
        w.records[&node("n0")].vm.as_ref().unwrap().generation,
        Generation(2)
    );
}
