//! Nodes that Slurm's listing does not show: they left their partition, or `slurm.conf`.

use super::*;
use crate::plan::{Plan, Step, VmVerb};

impl World {
    /// Whether the linter would let the first VM of `name` be ended as an orphan.
    fn may_be_orphan(&self, name: &str) -> bool {
        let action = Action::Vm(
            self.tag(&node(name), Generation(1)),
            VmVerb::Destroy {
                id: None,
                cause: Cause::Orphan,
                hard: false,
            },
        );
        let step = Step {
            action,
            why: String::new(),
        };
        let (good, _) = lint(
            self,
            &Plan {
                steps: vec![step],
                held: Vec::new(),
            },
        );
        !good.is_empty()
    }
}

fn running_on(id: u32, name: &str) -> SlurmJob {
    SlurmJob {
        state: JobState::Running,
        nodes: vec![node(name)],
        ..SlurmJob::new(JobId(id))
    }
}

#[test]
fn a_vm_stays_whose_node_no_listing_shows() {
    for desired in [None, Some(Desired::Unasked)] {
        let mut w = world();
        w.up("n0");
        if let Some(desired) = desired {
            w.records.get_mut(&node("n0")).unwrap().desired = desired;
        }
        w.observe(|slurm| drop(slurm.nodes.remove(&node("n0"))));
        let vms = [w.shown("n0", 1, VmState::Ready)];
        w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
        assert_eq!(w.tick(), [], "absence says nothing: {desired:?}");
        assert!(!w.may_be_orphan("n0"), "nor to the linter");
    }
}

#[test]
fn a_stray_stays_whose_node_no_listing_shows() {
    let mut w = world();
    w.observe(|slurm| drop(slurm.nodes.remove(&node("n0"))));
    // The node is out of the configuration: what it has backs nothing that we know of.
    Arc::make_mut(&mut w.specs).remove(&node("n0"));
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), []);
    w.observe(|slurm| slurm.gone.extend([node("n0")]));
    assert_eq!(kinds(&w.tick()), ["destroy"], "slurmctld surely does not have it");
}

#[test]
fn a_vm_is_nobodys_when_slurm_surely_has_no_such_node_and_no_job_names_it() {
    let mut w = world();
    w.up("n0");
    w.observe(|slurm| {
        slurm.nodes.remove(&node("n0"));
        slurm.gone.insert(node("n0"));
        slurm.jobs.insert(JobId(7), running_on(7, "n0"));
    });
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), [], "job 7 names it");
    assert!(!w.may_be_orphan("n0"));
    w.observe(|slurm| slurm.jobs.clear());
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_node_that_is_off_by_its_state_and_in_use_by_its_job_keeps_its_vm() {
    let mut w = world();
    w.up("n0");
    w.observe(|slurm| {
        slurm.nodes.insert(node("n0"), powered_down());
        slurm.jobs.insert(JobId(7), running_on(7, "n0"));
    });
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), []);
    assert!(!w.may_be_orphan("n0"));
}

#[test]
fn a_boot_timeout_ends_no_vm_whose_node_no_listing_shows() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.observe(|slurm| drop(slurm.nodes.remove(&node("n0"))));
    let vms = [w.shown("n0", 1, VmState::Booting)];
    w.watch(w.policy.boot_timeout, &vms);
    w.pass(Millis::secs(1));
    assert_eq!(w.tick(), [], "it may have registered");
    w.observe(|slurm| slurm.gone.extend([node("n0")]));
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_node_whose_guest_does_not_answer_ends_with_its_job() {
    let mut w = world();
    w.up("n0");
    w.guest_is_unheard(&w.tag(&node("n0"), Generation(2)));
    assert_eq!(w.tick(), [], "that is another VM's guest");
    w.guest_is_unheard(&w.tag(&node("n0"), Generation(1)));
    let ends = Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::Unheard));
    assert_eq!(w.tick(), [ends]);
    w.busy.clear();
    w.acted_on(&node("n0"));
    assert_eq!(w.tick(), [], "not again on the same observation");
    w.observe(|slurm| slurm.nodes.get_mut(&node("n0")).unwrap().flags.power_down = true);
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), [], "its job runs on");
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powered_down())));
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_node_that_left_its_partition_ends_with_its_job() {
    let mut w = world();
    w.up("n0");
    w.observe(|slurm| slurm.without_partition.extend([node("n0")]));
    let left = Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::NoPartition));
    assert_eq!(w.tick(), [left]);
    w.busy.clear();
    w.acted_on(&node("n0"));
    assert_eq!(w.tick(), [], "not again on the same observation");
    w.observe(|slurm| slurm.nodes.get_mut(&node("n0")).unwrap().flags.power_down = true);
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis(10 * w.policy.orphan_grace.0), &vms);
    assert_eq!(w.tick(), [], "its job runs on");
    // Slurm powers it down, and says so by its hook.
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powered_down())));
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}
