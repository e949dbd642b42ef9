//! VMs that the journal does not know, since it is older than the world: a backup was restored.

use super::job_mode::{job_mode_world, waiting};
use super::*;

/// A world whose controller has just started: the journal knows VM n0.1, which is gone, and the
/// provider has n0.3.
fn restored() -> World {
    let mut w = world();
    w.up("n0");
    let vms = vec![w.shown("n0", 3, VmState::Ready)];
    w.provider_seen = Time::default();
    w.pass(Millis::secs(1));
    w.see(vms);
    w
}

/// The record's VM is gone, and the node is asked for again.
fn asked_again(w: &mut World) {
    w.down("n0");
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powered_down())));
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    w.busy.clear();
    w.pass(Millis::secs(1));
    w.ask_up("n0");
}

#[test]
fn one_listing_that_leaves_out_what_only_listings_know_makes_no_second_vm() {
    let mut w = restored();
    asked_again(&mut w);
    w.see(vec![]);
    assert_eq!(w.tick(), [], "n0.3 may be there");
    // Once no listing has shown it for as long as any other VM, it is not.
    w.records.get_mut(&node("n0")).unwrap().desired = Desired::Unasked;
    w.watch(Millis(2 * w.policy.missing_grace.0), &[]);
    w.ask_up("n0");
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn what_a_listing_leaves_out_keeps_its_capacity() {
    let mut w = restored();
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts.truncate(1);
    w.see(vec![]);
    w.ask_up("n1");
    w.ask_up("n2");
    // Host a has capacity for two: the record's and this one.
    assert_eq!(w.tick(), []);
}

#[test]
fn what_surely_ended_is_not_waited_for() {
    let mut w = restored();
    asked_again(&mut w);
    let id = VmId::new("n0.3").unwrap();
    w.destroyed(&w.tag(&node("n0"), Generation(3)), Some(&id));
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn a_copy_with_a_later_number_makes_no_orphan_of_the_vm_under_a_job() {
    let mut w = restored();
    let vms = [w.shown("n0", 3, VmState::Ready), w.shown("n0", 4, VmState::Ready)];
    w.watch(Millis(w.policy.missing_grace.0 / 2), &vms);
    w.records.get_mut(&node("n0")).unwrap().generation = Generation(4);
    w.policy.orphan_grace = Millis::secs(1);
    assert_eq!(
        kinds(&w.tick()),
        ["end-with-job"],
        "either may be the one that Slurm uses"
    );
    w.busy.clear();
    w.pass(Millis(w.policy.retry_first.0));
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powered_down())));
    w.see(vms.to_vec());
    assert_eq!(kinds(&w.tick()), ["destroy"], "Slurm uses neither");
}

/// In job mode: VM n0.3 was found, and Slurm has given n0 to a job and waits for it.
fn found_for(guests_wait: bool) -> World {
    let mut w = job_mode_world();
    w.policy.guests_wait = guests_wait;
    w.see(vec![w.shown("n0", 3, VmState::Ready)]);
    w.submit(waiting(1, 1, 100, 9));
    w.allocate(1, &["n0"], 100);
    w.observe(|_| {});
    w
}

#[test]
fn a_vm_that_was_found_is_not_brought_up_for_another_job() {
    for guests_wait in [true, false] {
        let mut w = found_for(guests_wait);
        let actions = w.tick();
        assert_eq!(kinds(&actions), ["destroy"], "{actions:?}");
        w.done(&actions);
        w.destroyed(&w.tag(&node("n0"), Generation(3)), None);
        w.see(vec![]);
        w.observe(|_| {});
        let made = w.tick();
        assert!(
            matches!(&made[..], [Action::Vm(_, VmVerb::Create { spec, .. }), ..] if spec.job == Some(JobId(1))),
            "{made:?}"
        );
    }
}

#[test]
fn a_vm_that_was_found_is_kept_once_slurm_has_heard_it() {
    let mut w = found_for(true);
    w.observe(|slurm| {
        slurm.nodes.get_mut(&node("n0")).unwrap().flags.powering_up = false;
        slurm.jobs.get_mut(&JobId(1)).unwrap().state = JobState::Running;
    });
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
}

/// A controller that starts with a journal in which n0 was last ordered down; it is up for job 1,
/// whose prolog waits, and Slurm was not asked yet to end it with that.
fn up_against_an_older_order() -> World {
    let mut w = found_for(true);
    w.see_node("n0", running());
    w.observe(|slurm| slurm.nodes.get_mut(&node("n0")).unwrap().alloc = None);
    w.records.get_mut(&node("n0")).unwrap().desired = Desired::Down { since: Time(5) };
    w.powers.clear();
    w.pass(Millis(2 * w.policy.mark_patience.0));
    w
}

#[test]
fn a_node_ends_with_its_job_though_an_older_order_is_remembered() {
    let mut w = up_against_an_older_order();
    w.observe(|_| {});
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
}

#[test]
fn a_job_starts_unmarked_only_when_this_controller_has_tried_to_mark_its_node() {
    let mut w = up_against_an_older_order();
    w.observe(|_| {});
    assert_eq!(w.prolog(JobId(1), Time(5)), None);
    w.pass(w.policy.mark_patience);
    w.observe(|_| {});
    assert_eq!(
        w.prolog(JobId(1), Time(5)),
        Some(crate::prolog::PrologAnswer::Start)
    );
}

/// A guest that cannot be told to start slurmd: each try is a step about its node.
#[test]
fn a_vm_that_nobody_asked_for_is_ended_though_its_slurmd_is_started_again_and_again() {
    let mut w = world();
    w.policy.guests_wait = true;
    w.see_node("n0", running());
    let vms = [w.shown("n0", 1, VmState::Booting)];
    w.see(vms.to_vec());
    assert_eq!(kinds(&w.tick()), ["start-slurmd"]);
    w.busy.clear();
    let down = by("ResumeTimeout reached", Whose::ResumeTimeout);
    w.see_node(
        "n0",
        slurm_node(BaseState::Down, NodeFlags::default(), Some(down)),
    );
    w.watch(w.policy.orphan_grace, &vms);
    w.observe(|_| {});
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

/// An order that a newer job speaks against ends no VM; one that is silent by then must not keep the job for ever.
#[test]
fn a_job_on_a_silent_vm_that_was_ordered_away_does_not_hang() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    w.submit(SlurmJob {
        state: JobState::Running,
        start: Some(w.now),
        nodes: vec![node("n0")],
        ..SlurmJob::new(JobId(3))
    });
    assert_eq!(w.tick(), [], "the job is newer than the order");
    let silent = slurm_node(
        BaseState::Allocated,
        NodeFlags {
            not_responding: true,
            ..NodeFlags::default()
        },
        None,
    );
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.see_node("n0", silent.clone());
    w.watch(w.policy.silence_grace, &vms);
    assert_eq!(w.tick(), [], "not yet");
    w.pass(Millis::secs(2));
    w.see_node("n0", silent);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

/// A restored journal has one VM on its way, and another was found: both would be more than may be.
#[test]
fn a_creation_is_not_asked_again_while_there_are_too_many_vms() {
    let mut w = world();
    w.policy.max_vms = 1;
    w.ask_up("n0");
    assert_eq!(kinds(&w.tick()), ["create"]);
    w.busy.clear();
    let mut found = w.clone();
    found.see(vec![w.shown("n1", 1, VmState::Ready)]);
    assert!(found.records[&node("n1")].vm.is_some());
    assert_eq!(found.tick(), []);
    assert_eq!(kinds(&w.clone().tick()), ["create"], "else it is");
    // Nor while its host is too full for it.
    w.policy.max_vms = 10;
    let vms = [w.shown("n1", 1, VmState::Ready), w.shown("n2", 1, VmState::Ready)];
    w.see(vms.to_vec());
    assert_eq!(w.tick(), [], "150 MiB each, of 300");
}

/// A journal from when n0.1 was being made, and n0.2 under a job: its start must not take a place for ever.
#[test]
fn a_creation_that_a_later_vm_has_outlived_makes_way_for_it() {
    let mut w = world();
    w.policy.max_starting = 1;
    w.ask_up("n0");
    assert_eq!(kinds(&w.tick()), ["create"]);
    w.busy.clear();
    w.see_node("n0", running());
    w.ask_up("n1");
    let vms = [w.shown("n0", 2, VmState::Ready)];
    w.watch(Millis(w.policy.boot_timeout.0 - 1_000), &vms);
    assert_eq!(w.tick(), [], "it may be on its way");
    w.watch(Millis::secs(2), &vms);
    let vm = w.records[&node("n0")].vm.clone().unwrap();
    assert_eq!(vm.generation, Generation(2));
    w.see_node("n0", running());
    assert_eq!(kinds(&w.tick()), ["create"], "n1's turn");
    // The same if what is left of it was never released.
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.see_node("n0", running());
    let vms = [w.shown("n0", 2, VmState::Ready), w.shown("n0", 1, VmState::Held)];
    w.watch(Millis(w.policy.boot_timeout.0 + 1_000), &vms);
    assert_eq!(
        w.records[&node("n0")].vm.as_ref().unwrap().generation,
        Generation(2)
    );
    assert_eq!(kinds(&w.tick()), ["destroy"], "the one that never ran");
}

/// Only the controller that first saw a later number knows that it was seen and no more.
#[test]
fn a_later_number_makes_no_orphan_of_the_vm_under_a_job_for_the_next_controller() {
    let mut w = world();
    w.see_node("n0", running());
    w.records.get_mut(&node("n0")).unwrap().generation = Generation(3);
    w.records.get_mut(&node("n0")).unwrap().acted = Time(1);
    w.policy.orphan_grace = Millis::secs(5);
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis::secs(10), &vms);
    assert_eq!(w.tick(), [], "Slurm may be using it");
    w.see_node("n0", powering_up());
    assert_eq!(kinds(&w.tick()), ["destroy"], "Slurm waits for another");
}

#[test]
fn a_vm_is_adopted_though_a_later_one_is_dead() {
    let mut w = world();
    w.see_node("n0", running());
    w.see(vec![
        w.shown("n0", 3, VmState::Dead("it ended".into())),
        w.shown("n0", 1, VmState::Ready),
    ]);
    let record = &w.records[&node("n0")];
    assert_eq!(record.vm.as_ref().unwrap().generation, Generation(1));
    assert_eq!(record.generation, Generation(3), "the next number is a new one");
}

/// Which of two VMs Slurm uses shows when it has powered their node down, and where jobs follow each other it never is.
#[test]
fn a_node_with_two_vms_is_not_used_for_ever() {
    let mut w = restored();
    let vms = [w.shown("n0", 1, VmState::Ready), w.shown("n0", 3, VmState::Ready)];
    w.records.get_mut(&node("n0")).unwrap().vm.as_mut().unwrap().spec = None;
    w.watch(Millis::secs(1), &vms);
    assert_eq!(w.tick(), [], "not yet");
    w.watch(w.policy.orphan_grace, &vms);
    w.observe(|_| {});
    let mut drained = w.clone();
    drained.observe(|slurm| slurm.nodes.get_mut(&node("n0")).unwrap().flags.drain = true);
    assert_eq!(drained.tick(), [], "an admin has seen to that");
    let ends = Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::Strays));
    assert_eq!(w.tick(), [ends]);
    w.busy.clear();
    w.acted_on(&node("n0"));
    w.observe(|slurm| slurm.nodes.get_mut(&node("n0")).unwrap().flags.power_down = true);
    assert_eq!(w.tick(), [], "its job runs on");
}

/// A found VM's node that Slurm could not be told to end with its job goes to the next one.
#[test]
fn a_job_starts_in_no_vm_that_was_found_before_it_got_the_node() {
    let mut w = found_for(true);
    w.see_node("n0", running());
    w.pass(Millis(2 * w.policy.mark_patience.0));
    let verdict = |w: &mut World, start: Option<Time>| {
        w.observe(|slurm| {
            let job = slurm.jobs.get_mut(&JobId(1)).unwrap();
            (job.start, job.state) = (start, JobState::Configuring);
            slurm.nodes.get_mut(&node("n0")).unwrap().flags.power_down = true;
        });
        w.prolog(JobId(1), Time(5))
    };
    let found = w.records[&node("n0")].vm.as_ref().unwrap().asked;
    for start in [None, Some(Time(found.0 / 1000 * 1000))] {
        let answer = verdict(&mut w, start);
        assert_eq!(
            answer,
            Some(crate::prolog::PrologAnswer::Start),
            "it may be its own"
        );
    }
    let later = verdict(&mut w, Some(found + Millis::secs(1)));
    assert!(
        matches!(later, Some(crate::prolog::PrologAnswer::Never(_))),
        "{later:?}"
    );
}

/// Of two VMs that were found the later one was taken for the node's, and was somebody's dead copy.
#[test]
fn a_found_vm_that_dies_makes_way_for_the_other_one() {
    let mut w = world();
    w.see_node("n0", running());
    let both = |w: &World, state| vec![w.shown("n0", 3, state), w.shown("n0", 1, VmState::Ready)];
    w.see(both(&w, VmState::Unknown("CLONING".into())));
    assert_eq!(
        w.records[&node("n0")].vm.as_ref().unwrap().generation,
        Generation(3)
    );
    w.see_node("n0", running());
    w.pass(Millis::secs(1));
    w.see(both(&w, VmState::Dead("it ended".into())));
    w.see_node("n0", running());
    assert_eq!(w.state_of("n0"), "up");
    assert_eq!(
        w.records[&node("n0")].vm.as_ref().unwrap().generation,
        Generation(1)
    );
    w.pass(Millis::secs(1));
    w.see(both(&w, VmState::Dead("it ended".into())));
    let actions = w.tick();
    let [Action::Vm(tag, VmVerb::Destroy { .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(tag.generation, Generation(3));
}
